//! `pair CODE`: what the web app's pairing page does, on the relay's host.

use std::time::Duration;

use claudenest_shared::pairing::{BadCode, PairingCode, PairingState, SasInput, commitment};
use claudenest_shared::secret::Secret;
use serde_json::json;

use super::account::first_admin;
use super::{Failure, open_database, print, print_json};
use crate::auth::random;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::pairing::{self, Claim, Pairing};
use crate::db::{Db, audit, user};

/// The machine polls every two seconds; twice as often is soon enough.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn pair(
    config: &Config,
    code: &str,
    email: Option<String>,
    json: bool,
) -> Result<(), Failure> {
    let code: PairingCode = code.parse().map_err(|bad: BadCode| Failure::new(2, bad))?;
    let (db, _) = open_database(config).await?;
    let clock = Clock::system();
    let user = match &email {
        Some(email) => user::by_email(&db, email).await?,
        None => first_admin(&db).await?,
    };
    let user = user.ok_or_else(|| {
        Failure::new(
            Failure::NOT_FOUND,
            "There is no such user. Make one: claudenest-relay user add alice@example.com",
        )
    })?;
    let nothing = || {
        Failure::new(
            Failure::NOT_FOUND,
            "No machine waits under this code. Codes are valid for ten minutes and once; run `claudenest-agent pair` again.",
        )
    };
    let found = pairing::lookup(&db, &code, user.id, clock.now()).await?.ok_or_else(nothing)?;
    let nonce = Secret::new(random::<32>()?);
    let claim =
        Claim { user: user.id, account: &user.email, browser_nonce: nonce.expose(), address: "relay host" };
    pairing::claim(&db, found.id, &code, claim, clock.now()).await?.ok_or_else(nothing)?;
    let entry = audit::Entry {
        user: Some(user.id),
        machine: None,
        action: "pairing.claimed",
        address: "local",
        detail: json!({ "pairing": found.id }),
    };
    audit::record(&db, entry, clock.now()).await?;
    let facts = &found.facts;
    if json {
        print_json(
            &json!({ "event": "claimed", "account": user.email, "facts": facts, "address": found.address }),
        )?;
    } else {
        print(&format!(
            "Claimed for {}: {} ({}, {}), user {}, from {}\nWaiting for the machine…\n",
            user.email, facts.hostname, facts.os_version, facts.arch, facts.user, found.address
        ))?;
    }
    watch(&db, &clock, &found, user.id, json).await
}

/// Follows the pairing to its end.
async fn watch(
    db: &Db,
    clock: &Clock,
    claimed: &Pairing,
    user: claudenest_shared::id::UserId,
    json: bool,
) -> Result<(), Failure> {
    let mut has_digits = false;
    loop {
        let now = clock.now();
        let Some(pairing) = pairing::for_claimant(db, claimed.id, user, now).await? else {
            return Err(Failure::new(Failure::NOT_FOUND, "The pairing is gone."));
        };
        if let (Some(agent_nonce), false) = (&pairing.agent_nonce, has_digits) {
            has_digits = true;
            if commitment(&pairing.public_key, agent_nonce) != pairing.commitment {
                pairing::deny(db, pairing.id, Some(user), now).await?;
                return Err(Failure::new(
                    1,
                    "The machine did not keep to its commitment; somebody may be in between. Nothing was paired.",
                ));
            }
            let digits = SasInput {
                pairing_id: pairing.id,
                public_key: &pairing.public_key,
                agent_nonce,
                browser_nonce: pairing.browser_nonce.as_ref().unwrap_or(&[0; 32]),
                account: pairing.account.as_deref().unwrap_or_default(),
            }
            .digits();
            if json {
                print_json(&json!({ "event": "digits", "digits": digits }))?;
            } else {
                let (left, right) = digits.split_at(3);
                print(&format!(
                    "Six digits: {left} {right}\nThe machine shows the same? Then answer y there.\n"
                ))?;
            }
        }
        match pairing.state {
            PairingState::Consumed => {
                return if json {
                    print_json(&json!({ "event": "paired", "machine_id": pairing.machine_id }))
                } else {
                    print(&format!("Paired: {}\n", pairing.facts.hostname))
                };
            }
            PairingState::Denied => return Err(Failure::new(1, "The pairing was refused on the machine.")),
            PairingState::Expired => {
                return Err(Failure::new(
                    1,
                    "Nobody confirmed on the machine in time. Run `claudenest-agent pair` again.",
                ));
            }
            PairingState::Pending | PairingState::Claimed | PairingState::Confirmed => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

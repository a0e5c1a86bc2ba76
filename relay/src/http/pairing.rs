//! Pairing, the side of the user: enter the code, see the machine, claim it, compare six digits.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::{MachineId, PairingId, UserId};
use claudenest_shared::machine::MachineFacts;
use claudenest_shared::pairing::{PairingCode, PairingState};
use claudenest_shared::time::UnixMs;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id};
use crate::app::App;
use crate::auth::address::Client;
use crate::auth::login::{LoggedIn, hex, unhex};
use crate::db::audit::{self, Entry};
use crate::db::pairing::Claim;
use crate::db::{attempt, pairing};

/// Window of the short budgets.
const SHORT_WINDOW_MS: i64 = 600_000;
const DAY_MS: i64 = 86_400_000;
/// Failed tries of one account in ten minutes: enough for a typing error or two (RFC 8628 §5.1 uses five).
const ACCOUNT_BUDGET: i64 = 5;
/// Failed tries of one account in a day.
const ACCOUNT_DAY_BUDGET: i64 = 20;
/// Failed tries of one network in ten minutes: several people may share it.
const NETWORK_BUDGET: i64 = 20;
/// Failed tries of everybody in ten minutes: with 1,000 live codes below ten expected hits in a year.
const FLEET_BUDGET: i64 = 200;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(lookup))
        .routes(routes!(claim))
        .routes(routes!(status))
        .routes(routes!(cancel))
}

/// The one refusal for codes, whatever is wrong with them.
pub(super) fn not_found() -> ApiError {
    ApiError::new(
        ErrorCode::PairingNotFound,
        "No machine waits under this code. Codes are valid for ten minutes and once; check it, or run `claudenest-agent pair` again.",
    )
}

/// A code as it is shown on the machine.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct LookupPairing {
    /// `XXX-XXX`, as people type it.
    pub code: String,
}

/// The machine that waits under a code.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct PairingFound {
    /// The pairing.
    pub pairing_id: PairingId,
    /// `pending`, or `claimed` if you claimed it already.
    pub state: PairingState,
    /// The machine's Ed25519 key, hexadecimal.
    pub public_key: String,
    /// The machine's commitment to its nonce, hexadecimal.
    pub commitment: String,
    /// What the machine says about itself.
    pub facts: MachineFacts,
    /// The machine's address as this relay sees it.
    pub address: String,
    /// When the machine asked for the code.
    pub started_at: UnixMs,
    /// When the code is void.
    pub expires_at: UnixMs,
}

/// Shows the machine that waits under a code. Failed tries are limited per account, network and relay.
#[utoipa::path(post, path = "/api/pairing/lookup", tag = "pairing", request_body = LookupPairing, responses(
    (status = 200, body = PairingFound), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 422, body = ErrorBody, description = "Not the form of a code"), (status = 429, body = ErrorBody)))]
async fn lookup(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    Body(body): Body<LookupPairing>,
) -> Result<Json<PairingFound>, ApiError> {
    let found = with_budget(&app, user.user_id(), client, async || {
        let code = read_code(&body.code)?;
        pairing::lookup(&app.db, &code, user.user_id(), app.clock.now()).await?.ok_or_else(not_found)
    })
    .await?;
    Ok(Json(PairingFound {
        pairing_id: found.id,
        state: found.state,
        public_key: hex(&found.public_key),
        commitment: hex(&found.commitment),
        facts: found.facts,
        address: found.address,
        started_at: found.started_at,
        expires_at: found.expires_at,
    }))
}

fn read_code(text: &str) -> Result<PairingCode, ApiError> {
    text.parse().map_err(|bad: claudenest_shared::pairing::BadCode| {
        ApiError::new(ErrorCode::Invalid, bad.to_string())
    })
}

/// Makes a try within the budgets. It is written down first and struck out if it succeeds.
async fn with_budget<T>(
    app: &App,
    user: UserId,
    client: Client,
    attempt: impl AsyncFnOnce() -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let now = app.clock.now();
    let network = client.network();
    let id: Uuid = attempt::begin(&app.db, user, &network, now).await?;
    let tally =
        attempt::tally(&app.db, user, &network, now.plus(-SHORT_WINDOW_MS), now.plus(-DAY_MS)).await?;
    let is_spent = tally.account > ACCOUNT_BUDGET
        || tally.account_day > ACCOUNT_DAY_BUDGET
        || tally.network > NETWORK_BUDGET
        || tally.fleet > FLEET_BUDGET;
    if is_spent {
        // Refused without looking: it does not count, so that waiting is enough.
        attempt::strike_out(&app.db, id).await?;
        record(app, user, None, client, "pairing.limited", json!({})).await;
        return Err(ApiError::new(ErrorCode::RateLimited, "Too many wrong codes. Try again in ten minutes."));
    }
    match attempt().await {
        Ok(found) => {
            // A claim cannot be taken back: at worst a good try counts as a bad one.
            if let Err(error) = attempt::strike_out(&app.db, id).await {
                tracing::warn!(%error, "a good try at a pairing code could not be struck out");
            }
            Ok(found)
        }
        Err(refused) => {
            record(app, user, None, client, "pairing.wrong_code", json!({})).await;
            Err(refused)
        }
    }
}

async fn record(
    app: &App,
    user: UserId,
    machine: Option<MachineId>,
    client: Client,
    action: &str,
    detail: serde_json::Value,
) {
    let entry = Entry { user: Some(user), machine, action, address: &client.to_string(), detail };
    audit::note(&app.db, entry, app.clock.now()).await;
}

/// A claim on the machine that waits under a code.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClaimPairing {
    /// From the lookup.
    pub pairing_id: PairingId,
    /// The code, again.
    pub code: String,
    /// 32 random bytes that this browser chose after the lookup, hexadecimal.
    pub browser_nonce: String,
}

/// A claim that was accepted.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct PairingClaimed {
    /// The account as the machine shows it; part of the six digits.
    pub account: String,
    /// Until when the machine must confirm.
    pub expires_at: UnixMs,
}

/// Claims a machine. The first claimant wins; the machine must confirm before anything else happens.
#[utoipa::path(post, path = "/api/pairing/claim", tag = "pairing", request_body = ClaimPairing, responses(
    (status = 200, body = PairingClaimed), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 422, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn claim(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    Body(body): Body<ClaimPairing>,
) -> Result<Json<PairingClaimed>, ApiError> {
    let browser_nonce: [u8; 32] = unhex(&body.browser_nonce).ok_or_else(|| {
        ApiError::new(ErrorCode::Invalid, "`browser_nonce` is 64 hexadecimal digits: 32 random bytes.")
    })?;
    let expires_at = with_budget(&app, user.user_id(), client, async || {
        let code = read_code(&body.code)?;
        let claim = Claim {
            user: user.user_id(),
            account: &user.user().email,
            browser_nonce: &browser_nonce,
            address: &client.to_string(),
        };
        pairing::claim(&app.db, body.pairing_id, &code, claim, app.clock.now()).await?.ok_or_else(not_found)
    })
    .await?;
    let detail = json!({ "pairing": body.pairing_id });
    record(&app, user.user_id(), None, client, "pairing.claimed", detail).await;
    Ok(Json(PairingClaimed { account: user.login.user.email, expires_at }))
}

/// State of a pairing, for its claimant.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct PairingStatus {
    /// State.
    pub state: PairingState,
    /// The account as the machine shows it.
    pub account: String,
    /// The machine's Ed25519 key, hexadecimal.
    pub public_key: String,
    /// The machine's commitment to its nonce, hexadecimal.
    pub commitment: String,
    /// The machine's nonce, once it has revealed it, hexadecimal. Check it against the commitment.
    pub agent_nonce: Option<String>,
    /// The claimant's nonce, hexadecimal.
    pub browser_nonce: String,
    /// The machine, once it is paired.
    pub machine_id: Option<MachineId>,
}

/// State of a pairing that this user has claimed.
#[utoipa::path(get, path = "/api/pairing/status/{pairing_id}", tag = "pairing",
    params(("pairing_id" = PairingId, Path, description = "The pairing")), responses(
    (status = 200, body = PairingStatus), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn status(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<PairingId>,
) -> Result<Json<PairingStatus>, ApiError> {
    let found =
        pairing::for_claimant(&app.db, id, user.user_id(), app.clock.now()).await?.ok_or_else(not_found)?;
    Ok(Json(PairingStatus {
        state: found.state,
        account: found.account.unwrap_or_default(),
        public_key: hex(&found.public_key),
        commitment: hex(&found.commitment),
        agent_nonce: found.agent_nonce.map(|nonce| hex(&nonce)),
        browser_nonce: found.browser_nonce.map(|nonce| hex(&nonce)).unwrap_or_default(),
        machine_id: found.machine_id,
    }))
}

/// Gives up a claim: the code is void, and the machine is told.
#[utoipa::path(post, path = "/api/pairing/cancel/{pairing_id}", tag = "pairing",
    params(("pairing_id" = PairingId, Path, description = "The pairing")), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn cancel(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    Id(id): Id<PairingId>,
) -> Result<StatusCode, ApiError> {
    if !pairing::deny(&app.db, id, Some(user.user_id()), app.clock.now()).await? {
        return Err(not_found());
    }
    record(&app, user.user_id(), None, client, "pairing.cancelled", json!({ "pairing": id })).await;
    Ok(StatusCode::NO_CONTENT)
}

//! Pairing, the side of the machine. No login: every request is signed with the machine's Ed25519 identity.
//!
//! Whatever is wrong with a request (unsigned, signed by another key, unknown, expired, denied or consumed code, replay), the
//! answer is the same 404 with the same body, and as much work is done for it. One exception helps the honest machine: a
//! correctly signed poll of a denied or expired pairing says so.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{MachineId, PairingId, UserId};
use claudenest_shared::machine::MachineFacts;
use claudenest_shared::pairing::{
    self as rules, CODE_TTL_MS, POLL_INTERVAL_MS, PairingCode, PairingState, SasInput,
};
use claudenest_shared::time::UnixMs;
use claudenest_shared::token::{self, TokenKind};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id};
use crate::app::App;
use crate::auth::address::Client;
use crate::auth::limit::Limit;
use crate::auth::login::unhex;
use crate::auth::{mint, random};
use crate::db::audit::{self, Entry};
use crate::db::pairing::{self, NewMachine, NewPairing, Pairing};
use crate::db::{machine, new_id};
use crate::hub::DisconnectReason;
use crate::text;

/// Two live pairings get the same code once in a billion; a handful of tries is ample.
const CODE_TRIES: usize = 8;
/// Pairings that may be live at once: 0.01 % of the code space, above which guessing pays.
const MAX_LIVE: u64 = 100_000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(initiate))
        .routes(routes!(poll))
        .routes(routes!(confirm))
        .routes(routes!(deny))
        .routes(routes!(enrol))
        .routes(routes!(unpair))
}

/// The one answer to everything that is wrong.
fn not_found() -> ApiError {
    ApiError::new(
        ErrorCode::PairingNotFound,
        "There is no such pairing. Codes are valid for ten minutes and once; run `claudenest-agent pair` again.",
    )
}

/// True if `signature` is that of `key` over `message`. As much work for nonsense as for a wrong signature.
pub fn is_signed(key: &[u8; 32], message: &[u8], signature: &str) -> bool {
    /// The key of RFC 8032 §7.1 test 1: stands in for one that is none.
    const SOME_KEY: [u8; 32] = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e,
        0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ];
    let parsed = unhex::<64>(signature);
    let real = VerifyingKey::from_bytes(key).ok().filter(|key| !key.is_weak());
    let is_whole = parsed.is_some() && real.is_some();
    let key = real.or_else(|| VerifyingKey::from_bytes(&SOME_KEY).ok());
    let signature = Signature::from_bytes(&parsed.unwrap_or([0; 64]));
    let is_valid = key.is_some_and(|key| key.verify_strict(message, &signature).is_ok());
    is_whole && is_valid
}

/// A machine asks for a code.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct InitiatePairing {
    /// The machine's Ed25519 key, hexadecimal.
    pub public_key: String,
    /// Its commitment to a nonce, hexadecimal.
    pub commitment: String,
    /// What it says about itself.
    pub facts: MachineFacts,
}

/// A code for a machine.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct PairingStarted {
    /// The pairing.
    pub pairing_id: PairingId,
    /// The code to show.
    pub code: String,
    /// When it is void.
    pub expires_at: UnixMs,
    /// How often to poll, in milliseconds.
    pub interval_ms: u64,
    /// Where a person enters the code.
    pub relay_url: String,
}

/// Begins a pairing.
#[utoipa::path(post, path = "/api/pairing/initiate", tag = "agent", request_body = InitiatePairing, security(()), responses(
    (status = 200, body = PairingStarted), (status = 422, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn initiate(
    State(app): State<App>,
    client: Client,
    Body(body): Body<InitiatePairing>,
) -> Result<Json<PairingStarted>, ApiError> {
    app.limits.check(Limit::PairingStart, &client.network())?;
    let public_key = read_key(&body.public_key)?;
    let commitment: [u8; 32] = unhex(&body.commitment)
        .ok_or_else(|| ApiError::new(ErrorCode::Invalid, "`commitment` is 64 hexadecimal digits."))?;
    let facts = text::cleaned(body.facts);
    let now = app.clock.now();
    if pairing::count_live(&app.db, now).await? >= MAX_LIVE {
        return Err(ApiError::new(
            ErrorCode::Unavailable,
            "Too many machines wait to be paired. Try again in ten minutes.",
        ));
    }
    let id = PairingId(new_id());
    let expires_at = now.plus(CODE_TTL_MS);
    let address = client.to_string();
    for _ in 0..CODE_TRIES {
        let code = PairingCode::from_random(u32::from_le_bytes(random()?));
        let new = NewPairing {
            id,
            code: &code,
            public_key: &public_key,
            commitment: &commitment,
            facts: &facts,
            address: &address,
            expires_at,
        };
        if pairing::initiate(&app.db, new, now).await? {
            return Ok(Json(PairingStarted {
                pairing_id: id,
                code: code.to_string(),
                expires_at,
                interval_ms: POLL_INTERVAL_MS,
                relay_url: app.site.public_url.clone(),
            }));
        }
    }
    Err(ApiError::new(ErrorCode::Unavailable, "No free code was found. Try again."))
}

fn read_key(text: &str) -> Result<[u8; 32], ApiError> {
    unhex(text).filter(|key| VerifyingKey::from_bytes(key).is_ok_and(|key| !key.is_weak())).ok_or_else(|| {
        ApiError::new(ErrorCode::Invalid, "`public_key` is no Ed25519 key: 64 hexadecimal digits.")
    })
}

/// A signed poll.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct PollPairing {
    /// The pairing.
    pub pairing_id: PairingId,
    /// Above that of every earlier poll of this pairing.
    pub sequence: u64,
    /// The committed nonce, hexadecimal, once the machine has seen the claim.
    #[serde(default)]
    pub reveal: Option<String>,
    /// Ed25519 signature, hexadecimal.
    pub signature: String,
}

/// State of a pairing, for the machine.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct PollAnswer {
    /// `pending`, `claimed`, `denied` or `expired`.
    pub state: PairingState,
    /// The claimant's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The claimant's nonce, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser_nonce: Option<String>,
    /// The claimant's address as the relay saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Asks how a pairing stands.
#[utoipa::path(post, path = "/api/pairing/{code}/poll", tag = "agent", request_body = PollPairing, security(()),
    params(("code" = String, Path, description = "The code")), responses(
    (status = 200, body = PollAnswer), (status = 404, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn poll(
    State(app): State<App>,
    client: Client,
    Id(code): Id<String>,
    Body(body): Body<PollPairing>,
) -> Result<Json<PollAnswer>, ApiError> {
    app.limits.check(Limit::PairingPoll, &client.network())?;
    let now = app.clock.now();
    let reveal = body.reveal.as_ref().map(|text| unhex::<32>(text).unwrap_or([0; 32]));
    let found = signed(&app, body.pairing_id, &code, &body.signature, |code, _| {
        vec![rules::poll_message(body.pairing_id, code, body.sequence, reveal.as_ref())]
    })
    .await?;
    if !pairing::note_poll(&app.db, found.id, body.sequence).await? {
        return Err(not_found());
    }
    if let (Some(nonce), PairingState::Claimed, None) = (reveal, found.state, found.agent_nonce) {
        // A nonce that was not committed to is an attempt to choose the digits.
        if rules::commitment(&found.public_key, &nonce) != found.commitment {
            pairing::deny(&app.db, found.id, None, now).await?;
            return Err(not_found());
        }
        pairing::reveal(&app.db, found.id, &nonce, now).await?;
    }
    let is_claimed = matches!(found.state, PairingState::Claimed | PairingState::Confirmed);
    Ok(Json(PollAnswer {
        state: found.state,
        account: found.account.filter(|_| is_claimed),
        browser_nonce: found
            .browser_nonce
            .filter(|_| is_claimed)
            .map(|nonce| crate::auth::login::hex(&nonce)),
        address: found.claim_address.filter(|_| is_claimed),
    }))
}

/// Finds the pairing of a signed request. `messages` gives what may have been signed.
async fn signed(
    app: &App,
    id: PairingId,
    code: &str,
    signature: &str,
    messages: impl FnOnce(&PairingCode, &Pairing) -> Vec<Vec<u8>>,
) -> Result<Pairing, ApiError> {
    // A code that is none stands for one that nobody has: the same work, the same answer.
    let parsed = code.parse::<PairingCode>();
    let asked = parsed.unwrap_or(PairingCode::from_random(0));
    let found = pairing::for_agent(&app.db, id, &asked, app.clock.now()).await?;
    let Some(found) = found.filter(|found| parsed.is_ok() && found.state != PairingState::Consumed) else {
        is_signed(&[0; 32], &[0; 96], signature);
        return Err(not_found());
    };
    let is_valid =
        messages(&asked, &found).iter().any(|message| is_signed(&found.public_key, message, signature));
    if is_valid { Ok(found) } else { Err(not_found()) }
}

/// The machine's decision.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecidePairing {
    /// The pairing.
    pub pairing_id: PairingId,
    /// Ed25519 signature, hexadecimal.
    pub signature: String,
}

/// A paired machine and its token, delivered once.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct Paired {
    /// The machine.
    pub machine_id: MachineId,
    /// Its name at this relay.
    pub machine_name: String,
    /// Its token. Not shown again.
    pub token: String,
    /// The account that it now belongs to.
    pub account: String,
}

/// Confirms a pairing on the machine. Mints the token and delivers it, once.
#[utoipa::path(post, path = "/api/pairing/{code}/confirm", tag = "agent", request_body = DecidePairing, security(()),
    params(("code" = String, Path, description = "The code")), responses(
    (status = 200, body = Paired), (status = 404, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn confirm(
    State(app): State<App>,
    client: Client,
    Id(code): Id<String>,
    Body(body): Body<DecidePairing>,
) -> Result<Json<Paired>, ApiError> {
    app.limits.check(Limit::PairingPoll, &client.network())?;
    let found = signed(&app, body.pairing_id, &code, &body.signature, |_, found| {
        decision(found).map(|facts| rules::decision_message(true, &facts)).into_iter().collect()
    })
    .await?;
    let (token, digest) = mint(TokenKind::Machine)?;
    let now = app.clock.now();
    let machine = pairing::consume(&app.db, found.id, &digest, now).await?.ok_or_else(not_found)?;
    tell(&app, &machine, client, "machine.paired").await;
    Ok(Json(Paired {
        machine_id: machine.id,
        machine_name: machine.name,
        token: token.expose().clone(),
        account: found.account.unwrap_or_default(),
    }))
}

/// What a decision signs, if there is a claim and the machine has revealed its nonce.
fn decision(found: &Pairing) -> Option<SasInput<'_>> {
    Some(SasInput {
        pairing_id: found.id,
        public_key: &found.public_key,
        agent_nonce: found.agent_nonce.as_ref()?,
        browser_nonce: found.browser_nonce.as_ref()?,
        account: found.account.as_deref()?,
    })
}

/// Writes a new machine down and shows it to its user. What fails here is only logged: the token exists, and is delivered
/// now or never.
async fn tell(app: &App, machine: &NewMachine, client: Client, action: &str) {
    // The same identity paired anew: its older link, if there is one, has a void token.
    app.hub.disconnect_machine(machine.id, DisconnectReason::Revoked);
    audit::note(
        &app.db,
        Entry {
            user: Some(machine.user),
            machine: Some(machine.id),
            action,
            address: &client.to_string(),
            detail: json!({ "name": machine.name }),
        },
        app.clock.now(),
    )
    .await;
    show(app, machine.user, machine.id).await;
}

/// Shows a machine that has changed to its user.
async fn show(app: &App, user: UserId, machine: MachineId) {
    if let Err(error) = app.hub.publish_machine(user, machine).await {
        tracing::warn!(%error, "users were not told about a machine");
    }
}

/// Refuses a pairing on the machine. Signed over what is known: nonces that are not known are zeros, no account is empty.
#[utoipa::path(post, path = "/api/pairing/{code}/deny", tag = "agent", request_body = DecidePairing, security(()),
    params(("code" = String, Path, description = "The code")), responses(
    (status = 204), (status = 404, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn deny(
    State(app): State<App>,
    client: Client,
    Id(code): Id<String>,
    Body(body): Body<DecidePairing>,
) -> Result<StatusCode, ApiError> {
    app.limits.check(Limit::PairingPoll, &client.network())?;
    let found = signed(&app, body.pairing_id, &code, &body.signature, |_, found| {
        let unknown = SasInput {
            pairing_id: found.id,
            public_key: &found.public_key,
            agent_nonce: &[0; 32],
            browser_nonce: &[0; 32],
            account: "",
        };
        // Between the machine's last poll and now a claim may have come: a no is a no in every case.
        let claimed = SasInput {
            browser_nonce: found.browser_nonce.as_ref().unwrap_or(&[0; 32]),
            account: found.account.as_deref().unwrap_or_default(),
            ..unknown
        };
        let revealed = SasInput { agent_nonce: found.agent_nonce.as_ref().unwrap_or(&[0; 32]), ..claimed };
        [revealed, claimed, unknown].iter().map(|facts| rules::decision_message(false, facts)).collect()
    })
    .await?;
    if !pairing::deny(&app.db, found.id, None, app.clock.now()).await? {
        return Err(not_found());
    }
    if let Some(user) = found.user {
        audit::note(
            &app.db,
            Entry {
                user: Some(user),
                machine: None,
                action: "pairing.denied_by_machine",
                address: &client.to_string(),
                detail: json!({ "pairing": found.id }),
            },
            app.clock.now(),
        )
        .await;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A machine pairs itself with an enrolment token.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct Enrol {
    /// The enrolment token.
    pub token: String,
    /// The machine's Ed25519 key, hexadecimal.
    pub public_key: String,
    /// What it says about itself.
    pub facts: MachineFacts,
    /// Ed25519 signature, hexadecimal.
    pub signature: String,
}

/// Pairs a machine with an enrolment token, without a person in front of it.
#[utoipa::path(post, path = "/api/pairing/enrol", tag = "agent", request_body = Enrol, security(()), responses(
    (status = 200, body = Paired), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody),
    (status = 429, body = ErrorBody)))]
async fn enrol(
    State(app): State<App>,
    client: Client,
    Body(body): Body<Enrol>,
) -> Result<Json<Paired>, ApiError> {
    app.limits.check(Limit::PairingStart, &client.network())?;
    let refused = || {
        ApiError::new(
            ErrorCode::PairingNotFound,
            "This enrolment token was used already, is expired or unknown. Make a new one in the web app under \"Pair a machine\".",
        )
    };
    let public_key = read_key(&body.public_key)?;
    let token = body.token.trim();
    let digest = token::digest(token);
    if !token::is_well_formed(TokenKind::Enrolment, token)
        || !is_signed(&public_key, &rules::enrol_message(&digest, &public_key), &body.signature)
    {
        return Err(refused());
    }
    let (machine_token, machine_digest) = mint(TokenKind::Machine)?;
    let facts = text::cleaned(body.facts);
    let now = app.clock.now();
    let machine = pairing::enrol(&app.db, &digest, &public_key, &facts, &machine_digest, now)
        .await?
        .ok_or_else(refused)?;
    tell(&app, &machine, client, "machine.enrolled").await;
    Ok(Json(Paired {
        machine_id: machine.id,
        machine_name: machine.name,
        token: machine_token.expose().clone(),
        account: machine.account,
    }))
}

/// A machine gives up its token.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct Unpair {
    /// 32 random bytes that the machine chose, hexadecimal.
    pub nonce: String,
    /// Ed25519 signature over the same bytes as for opening a link, with this nonce, hexadecimal.
    pub signature: String,
}

/// Gives up the machine's token. The machine stays listed as revoked until its user removes it.
#[utoipa::path(post, path = "/api/agent/unpair", tag = "agent", request_body = Unpair, security(("machine_token" = [])),
    responses((status = 204), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn unpair(
    State(app): State<App>,
    client: Client,
    headers: HeaderMap,
    Body(body): Body<Unpair>,
) -> Result<StatusCode, ApiError> {
    app.limits.check(Limit::PairingPoll, &client.network())?;
    let machine = machine_of(&app, &headers).await?;
    let nonce = unhex::<32>(&body.nonce);
    let digest = bearer(&headers).map(token::digest).unwrap_or_default();
    let message = rules::link_message(&nonce.unwrap_or_default(), &digest);
    if nonce.is_none() || !is_signed(&machine.public_key, &message, &body.signature) {
        return Err(ApiError::new(
            ErrorCode::Unauthenticated,
            "The signature does not fit the machine's key. Pair the machine again: `claudenest-agent pair`.",
        ));
    }
    let now = app.clock.now();
    if machine::unpair(&app.db, machine.id, now).await? {
        app.hub.disconnect_machine(machine.id, DisconnectReason::Revoked);
        audit::note(
            &app.db,
            Entry {
                user: Some(machine.user),
                machine: Some(machine.id),
                action: "machine.unpaired",
                address: &client.to_string(),
                detail: json!({}),
            },
            now,
        )
        .await;
        show(&app, machine.user, machine.id).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The machine whose token is in the `Authorization` header. Its signature must be checked as well.
///
/// # Errors
/// `unauthenticated`, or `revoked` for a token that was valid once.
pub async fn machine_of(app: &App, headers: &HeaderMap) -> Result<machine::MachineAuth, WireError> {
    let refused = || {
        WireError::new(
            ErrorCode::Unauthenticated,
            "The machine's token is not known to this relay. Pair the machine again: `claudenest-agent pair`.",
        )
    };
    let token = bearer(headers)
        .filter(|token| token::is_well_formed(TokenKind::Machine, token))
        .ok_or_else(refused)?;
    let found = machine::authenticate(&app.db, &token::digest(token))
        .await
        .map_err(|error| ApiError::from(error).0)?;
    match found {
        None => Err(refused()),
        Some(machine) if machine.is_revoked => Err(WireError::new(
            ErrorCode::Revoked,
            "This machine was unpaired from the relay. Pair it again: `claudenest-agent pair`.",
        )),
        Some(machine) => Ok(machine),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::login::hex;
    use ed25519_dalek::{Signer, SigningKey};

    #[test]
    fn only_the_right_key_over_the_right_bytes_counts() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let signature = hex(&key.sign(b"message").to_bytes());
        assert!(is_signed(&public, b"message", &signature));
        assert!(!is_signed(&public, b"massage", &signature));
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        assert!(!is_signed(&other, b"message", &signature));
        for bad in ["", "zz", &signature[2..], &"0".repeat(128)] {
            assert!(!is_signed(&public, b"message", bad));
        }
        // The identity element as a key would accept forged signatures.
        let mut weak = [0; 32];
        weak[0] = 1;
        assert!(!is_signed(&weak, b"message", &signature));
        assert!(read_key(&hex(&weak)).is_err());
        assert!(!is_signed(&[2; 32], b"message", &signature));
    }
}

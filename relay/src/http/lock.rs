//! Locks on files of the user's machines. The relay keeps copies; the machine grants and ends them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::{LockId, MachineId};
use claudenest_shared::lock::{Lock, LockKind, MAX_LEASE_S, MAX_REASON_CHARS, MIN_LEASE_S};
use claudenest_shared::wire::agent::{Op, Reply};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id, OptionalBody, Parameters};
use super::machine::{ASK_TIMEOUT, find as find_machine, unexpected};
use crate::app::App;
use crate::auth::address::Client;
use crate::auth::login::LoggedIn;
use crate::db::audit::{self, Entry};
use crate::db::lock;
use crate::hub::guard::clean_lock;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(acquire)).routes(routes!(release))
}

/// Which locks.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListLocks {
    /// Only on this machine.
    machine_id: Option<MachineId>,
}

/// Locks on the user's machines, as last known.
#[utoipa::path(get, path = "/api/locks", tag = "locks", params(ListLocks), responses(
    (status = 200, body = Vec<Lock>), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn list(
    State(app): State<App>,
    user: LoggedIn,
    Parameters(parameters): Parameters<ListLocks>,
) -> Result<Json<Vec<Lock>>, ApiError> {
    if let Some(machine) = parameters.machine_id {
        find_machine(&app, &user, machine).await?;
    }
    Ok(Json(lock::list_for_user(&app.db, user.user_id(), parameters.machine_id, lock::MAX_LOCKS).await?))
}

/// What to lock.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct AcquireLock {
    /// Absolute path on the machine.
    pub path: String,
    /// What it is to cover.
    pub kind: LockKind,
    /// Lease in seconds, 10 to 86,400; 1,800 when absent.
    #[serde(default)]
    pub lease_s: Option<u32>,
    /// Why, for people and for the Claudes that are refused; at most 500 characters.
    #[serde(default)]
    pub reason: Option<String>,
}

fn check_reason(reason: Option<&String>) -> Result<(), ApiError> {
    if reason.is_some_and(|reason| reason.chars().count() > MAX_REASON_CHARS) {
        return Err(ApiError::new(
            ErrorCode::Invalid,
            format!("A reason has at most {MAX_REASON_CHARS} characters. Make it shorter."),
        ));
    }
    Ok(())
}

/// Takes a lock for the user, so that no session may write there.
#[utoipa::path(post, path = "/api/machines/{id}/locks", tag = "locks", request_body = AcquireLock,
    params(("id" = MachineId, Path, description = "The machine")), responses(
    (status = 201, body = Lock), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody, description = "Somebody holds it, or the machine is offline"),
    (status = 422, body = ErrorBody), (status = 504, body = ErrorBody)))]
async fn acquire(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    Id(machine): Id<MachineId>,
    Body(body): Body<AcquireLock>,
) -> Result<(StatusCode, Json<Lock>), ApiError> {
    find_machine(&app, &user, machine).await?;
    check_reason(body.reason.as_ref())?;
    if !body.path.starts_with('/') || body.path.contains('\0') {
        return Err(ApiError::new(ErrorCode::Invalid, "Give the whole path, from `/` on."));
    }
    if body.lease_s.is_some_and(|lease| !(MIN_LEASE_S..=MAX_LEASE_S).contains(&lease)) {
        return Err(ApiError::new(
            ErrorCode::Invalid,
            format!("A lease has {MIN_LEASE_S} to {MAX_LEASE_S} seconds."),
        ));
    }
    let by = Some(user.user().email.clone());
    let AcquireLock { path, kind, lease_s, reason } = body;
    // A page does not wait: it shows who has the lock.
    let op = Op::LockAcquire { path, kind, lease_s, reason, by, wait_s: None };
    let mut lock = match app.hub.request(machine, op, ASK_TIMEOUT).await? {
        Reply::Locks { mut locks } if locks.len() == 1 => locks.remove(0),
        other => return Err(unexpected(&other)),
    };
    clean_lock(&mut lock);
    lock.machine_id = Some(machine);
    note(&app, &user, &client, machine, "lock.acquired", json!({ "lock": lock.id, "kind": lock.kind })).await;
    Ok((StatusCode::CREATED, Json(lock)))
}

/// How to end a lock.
#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ReleaseLock {
    /// True to take it away from the session that holds it; the session is told.
    pub force: bool,
    /// Why, for the holder and the machine's audit log; at most 500 characters.
    pub reason: Option<String>,
}

/// Ends a lock: one that a person holds, or with `force` any.
#[utoipa::path(post, path = "/api/machines/{machine_id}/locks/{id}/release", tag = "locks",
    request_body = ReleaseLock, params(
    ("machine_id" = MachineId, Path, description = "Its machine"),
    ("id" = LockId, Path, description = "This grant; a newer one for the same path is left alone")), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody, description = "A session holds it, or the machine is offline"),
    (status = 422, body = ErrorBody), (status = 504, body = ErrorBody)))]
async fn release(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    Id((machine, id)): Id<(MachineId, LockId)>,
    OptionalBody(body): OptionalBody<ReleaseLock>,
) -> Result<StatusCode, ApiError> {
    if lock::get(&app.db, user.user_id(), machine, id).await?.is_none() {
        return Err(ApiError::not_found("lock"));
    }
    check_reason(body.reason.as_ref())?;
    let by = Some(user.user().email.clone());
    let op = Op::LockRelease { lock: id, force: body.force, reason: body.reason, by };
    match app.hub.request(machine, op, ASK_TIMEOUT).await? {
        Reply::Done {} => {}
        other => return Err(unexpected(&other)),
    }
    let detail = json!({ "lock": id, "force": body.force });
    note(&app, &user, &client, machine, "lock.released", detail).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn note(
    app: &App,
    user: &LoggedIn,
    client: &Client,
    machine: MachineId,
    action: &str,
    detail: serde_json::Value,
) {
    let entry = Entry {
        user: Some(user.user_id()),
        machine: Some(machine),
        action,
        address: &client.to_string(),
        detail,
    };
    audit::note(&app.db, entry, app.clock.now()).await;
}

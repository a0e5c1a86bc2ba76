//! Sessions on the user's machines. The relay keeps what machines last said; everything else is asked of the machine.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::{MachineId, SessionId};
use claudenest_shared::session::{SessionInfo, SessionSpec, valid_name};
use claudenest_shared::wire::agent::{Op, Reply, Screen};
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
use crate::db::session;

/// Starting may have to make a git worktree first.
const CREATE_TIMEOUT: Duration = Duration::from_secs(45);
/// Time to leave by itself when the caller does not say.
const DEFAULT_GRACE_MS: u32 = 5_000;
/// Longest time to leave by itself.
const MAX_GRACE_MS: u32 = 60_000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, rename, forget))
        .routes(routes!(stop))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(restart))
        .routes(routes!(hibernate))
        .routes(routes!(send))
        .routes(routes!(screen))
}

/// Which sessions.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// Only those of this machine.
    machine_id: Option<MachineId>,
}

/// Sessions on the user's machines, newest first, as last known.
#[utoipa::path(get, path = "/api/sessions", tag = "sessions", params(ListParameters), responses(
    (status = 200, body = Vec<SessionInfo>), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn list(
    State(app): State<App>,
    user: LoggedIn,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Vec<SessionInfo>>, ApiError> {
    if let Some(machine) = parameters.machine_id {
        find_machine(&app, &user, machine).await?;
    }
    Ok(Json(session::list_for_user(&app.db, user.user_id(), parameters.machine_id).await?))
}

/// What to start, and where.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreateSession {
    /// The machine.
    pub machine_id: MachineId,
    /// What to start.
    pub spec: SessionSpec,
}

/// Starts a session, or queues it.
#[utoipa::path(post, path = "/api/sessions", tag = "sessions", request_body = CreateSession, responses(
    (status = 201, body = SessionInfo), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody, description = "The machine is offline, full, or the name is taken"),
    (status = 422, body = ErrorBody), (status = 504, body = ErrorBody)))]
async fn create(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    Body(body): Body<CreateSession>,
) -> Result<(StatusCode, Json<SessionInfo>), ApiError> {
    let machine = find_machine(&app, &user, body.machine_id).await?;
    if let Some(name) = &body.spec.name {
        valid_name(name).map_err(|sentence| ApiError::new(ErrorCode::Invalid, sentence))?;
    }
    let op = Op::SessionCreate { spec: Box::new(body.spec) };
    let info = expect_session(&app, machine.id, op, CREATE_TIMEOUT).await?;
    audit::note(
        &app.db,
        Entry {
            user: Some(user.user_id()),
            machine: Some(machine.id),
            action: "session.created",
            address: &client.to_string(),
            detail: json!({ "session": info.id }),
        },
        app.clock.now(),
    )
    .await;
    Ok((StatusCode::CREATED, Json(info)))
}

/// One session, as last known.
#[utoipa::path(get, path = "/api/sessions/{id}", tag = "sessions",
    params(("id" = SessionId, Path, description = "The session")), responses(
    (status = 200, body = SessionInfo), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn get(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<SessionId>,
) -> Result<Json<SessionInfo>, ApiError> {
    Ok(Json(find(&app, &user, id).await?.1))
}

pub(super) async fn find(
    app: &App,
    user: &LoggedIn,
    id: SessionId,
) -> Result<(MachineId, SessionInfo), ApiError> {
    let info = session::get(&app.db, user.user_id(), id).await?;
    info.and_then(|info| Some((info.machine_id?, info))).ok_or_else(|| ApiError::not_found("session"))
}

/// Asks the session's machine for something that answers with the session.
async fn change(
    app: &App,
    user: &LoggedIn,
    id: SessionId,
    op: Op,
    timeout: Duration,
) -> Result<Json<SessionInfo>, ApiError> {
    let (machine, _) = find(app, user, id).await?;
    Ok(Json(expect_session(app, machine, op, timeout).await?))
}

async fn expect_session(
    app: &App,
    machine: MachineId,
    op: Op,
    timeout: Duration,
) -> Result<SessionInfo, ApiError> {
    match app.hub.request(machine, op, timeout).await? {
        Reply::Session { session } => Ok(SessionInfo { machine_id: Some(machine), ..*session }),
        other => Err(unexpected(&other)),
    }
}

/// A new name.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct RenameSession {
    /// Unique on its machine; letters, digits, `-`, `_`, `.`, at most 64.
    pub name: String,
}

/// Renames a session.
#[utoipa::path(patch, path = "/api/sessions/{id}", tag = "sessions", request_body = RenameSession,
    params(("id" = SessionId, Path, description = "The session")), responses(
    (status = 200, body = SessionInfo), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn rename(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<SessionId>,
    Body(body): Body<RenameSession>,
) -> Result<Json<SessionInfo>, ApiError> {
    let (machine, _) = find(&app, &user, id).await?;
    valid_name(&body.name).map_err(|sentence| ApiError::new(ErrorCode::Invalid, sentence))?;
    let op = Op::SessionRename { session: id, name: body.name };
    Ok(Json(expect_session(&app, machine, op, ASK_TIMEOUT).await?))
}

/// Removes an ended session with its recording.
#[utoipa::path(delete, path = "/api/sessions/{id}", tag = "sessions",
    params(("id" = SessionId, Path, description = "The session")), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody, description = "It still runs, or the machine is offline")))]
async fn forget(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    Id(id): Id<SessionId>,
) -> Result<StatusCode, ApiError> {
    let (machine, _) = find(&app, &user, id).await?;
    done(&app, machine, Op::SessionForget { session: id }).await?;
    session::remove(&app.db, machine, id).await?;
    audit::note(
        &app.db,
        Entry {
            user: Some(user.user_id()),
            machine: Some(machine),
            action: "session.forgotten",
            address: &client.to_string(),
            detail: json!({ "session": id }),
        },
        app.clock.now(),
    )
    .await;
    Ok(StatusCode::NO_CONTENT)
}

async fn done(app: &App, machine: MachineId, op: Op) -> Result<(), ApiError> {
    match app.hub.request(machine, op, ASK_TIMEOUT).await? {
        Reply::Done {} => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// How to stop.
#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct StopSession {
    /// Time to leave by itself in milliseconds, 0 to 60,000; 0 kills at once; 5,000 when absent.
    pub grace_ms: Option<u32>,
}

/// Ends a session: asks it to leave, then kills its process group.
#[utoipa::path(post, path = "/api/sessions/{id}/stop", tag = "sessions", request_body = StopSession,
    params(("id" = SessionId, Path, description = "The session")), responses(
    (status = 200, body = SessionInfo), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn stop(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<SessionId>,
    OptionalBody(body): OptionalBody<StopSession>,
) -> Result<Json<SessionInfo>, ApiError> {
    let (machine, _) = find(&app, &user, id).await?;
    let grace_ms = body.grace_ms.unwrap_or(DEFAULT_GRACE_MS);
    if grace_ms > MAX_GRACE_MS {
        return Err(ApiError::new(
            ErrorCode::Invalid,
            format!("`grace_ms` is 0 to {MAX_GRACE_MS}; {grace_ms} was given."),
        ));
    }
    let timeout = ASK_TIMEOUT + Duration::from_millis(grace_ms.into());
    let op = Op::SessionStop { session: id, grace_ms };
    Ok(Json(expect_session(&app, machine, op, timeout).await?))
}

/// Stops the session's processes (SIGSTOP).
#[utoipa::path(post, path = "/api/sessions/{id}/pause", tag = "sessions",
    params(("id" = SessionId, Path, description = "The session")), responses(
    (status = 200, body = SessionInfo), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody)))]
async fn pause(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<SessionId>,
) -> Result<Json<SessionInfo>, ApiError> {
    change(&app, &user, id, Op::SessionPause { session: id }, ASK_TIMEOUT).await
}

/// Lets a paused session go on (SIGCONT).
#[utoipa::path(post, path = "/api/sessions/{id}/resume", tag = "sessions",
    params(("id" = SessionId, Path, description = "The session")), responses(
    (status = 200, body = SessionInfo), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody)))]
async fn resume(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<SessionId>,
) -> Result<Json<SessionInfo>, ApiError> {
    change(&app, &user, id, Op::SessionResume { session: id }, ASK_TIMEOUT).await
}

/// Ends the process if there is one and starts it again, continuing the conversation where there is one.
#[utoipa::path(post, path = "/api/sessions/{id}/restart", tag = "sessions",
    params(("id" = SessionId, Path, description = "The session")), responses(
    (status = 200, body = SessionInfo), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody)))]
async fn restart(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<SessionId>,
) -> Result<Json<SessionInfo>, ApiError> {
    change(&app, &user, id, Op::SessionRestart { session: id }, CREATE_TIMEOUT).await
}

/// Ends the process but keeps the conversation for a restart.
#[utoipa::path(post, path = "/api/sessions/{id}/hibernate", tag = "sessions",
    params(("id" = SessionId, Path, description = "The session")), responses(
    (status = 200, body = SessionInfo), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody)))]
async fn hibernate(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<SessionId>,
) -> Result<Json<SessionInfo>, ApiError> {
    change(&app, &user, id, Op::SessionHibernate { session: id }, CREATE_TIMEOUT).await
}

/// What to type.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct SendText {
    /// The text; typed as a bracketed paste where the program asks for that.
    pub text: String,
    /// True to press Enter afterwards.
    #[serde(default)]
    pub enter: bool,
}

/// Types text into a session. Answers after the write to the terminal.
#[utoipa::path(post, path = "/api/sessions/{id}/send", tag = "sessions", request_body = SendText,
    params(("id" = SessionId, Path, description = "The session")), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody), (status = 413, body = ErrorBody)))]
async fn send(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<SessionId>,
    Body(body): Body<SendText>,
) -> Result<StatusCode, ApiError> {
    let (machine, _) = find(&app, &user, id).await?;
    done(&app, machine, Op::SessionSend { session: id, text: body.text, enter: body.enter }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The session's screen as plain text.
#[utoipa::path(get, path = "/api/sessions/{id}/screen", tag = "sessions",
    params(("id" = SessionId, Path, description = "The session")), responses(
    (status = 200, body = Screen), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody)))]
async fn screen(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<SessionId>,
) -> Result<Json<Screen>, ApiError> {
    let (machine, _) = find(&app, &user, id).await?;
    match app.hub.request(machine, Op::SessionScreen { session: id }, ASK_TIMEOUT).await? {
        Reply::Screen { screen } => Ok(Json(screen)),
        other => Err(unexpected(&other)),
    }
}

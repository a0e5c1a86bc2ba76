//! Machines of the user.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::MachineId;
use claudenest_shared::wire::agent::{Directory, Op, Reply};
use claudenest_shared::wire::browser::{MachineInfo, ServerMessage};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id, Parameters};
use crate::app::App;
use crate::auth::address::Client;
use crate::auth::login::LoggedIn;
use crate::db::audit::{self, Entry};
use crate::db::machine::{self, MAX_NAME_CHARS, Renamed};
use crate::hub::DisconnectReason;

/// How long a machine may take for a question about itself.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, rename, remove))
        .routes(routes!(directories))
}

/// Every machine of the user, by name.
#[utoipa::path(get, path = "/api/machines", tag = "machines", responses(
    (status = 200, body = Vec<MachineInfo>), (status = 401, body = ErrorBody)))]
async fn list(State(app): State<App>, user: LoggedIn) -> Result<Json<Vec<MachineInfo>>, ApiError> {
    Ok(Json(machine::list_for_user(&app.db, user.user_id()).await?))
}

/// One machine.
#[utoipa::path(get, path = "/api/machines/{id}", tag = "machines",
    params(("id" = MachineId, Path, description = "The machine")), responses(
    (status = 200, body = MachineInfo), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn get(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<MachineId>,
) -> Result<Json<MachineInfo>, ApiError> {
    Ok(Json(find(&app, &user, id).await?))
}

pub(super) async fn find(app: &App, user: &LoggedIn, id: MachineId) -> Result<MachineInfo, ApiError> {
    machine::get(&app.db, user.user_id(), id).await?.ok_or_else(|| ApiError::not_found("machine"))
}

/// A new name.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct RenameMachine {
    /// 1 to 253 characters, without control characters.
    pub name: String,
}

/// Renames a machine.
#[utoipa::path(patch, path = "/api/machines/{id}", tag = "machines", request_body = RenameMachine,
    params(("id" = MachineId, Path, description = "The machine")), responses(
    (status = 200, body = MachineInfo), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody, description = "Another machine of the user has this name"),
    (status = 422, body = ErrorBody)))]
async fn rename(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<MachineId>,
    Body(body): Body<RenameMachine>,
) -> Result<Json<MachineInfo>, ApiError> {
    let name = body.name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        find(&app, &user, id).await?;
        return Err(ApiError::new(
            ErrorCode::Invalid,
            format!("A machine's name has 1 to {MAX_NAME_CHARS} characters and no control characters."),
        ));
    }
    let info = match machine::rename(&app.db, user.user_id(), id, name).await? {
        Renamed::Done(info) => info,
        Renamed::NotFound => return Err(ApiError::not_found("machine")),
        Renamed::Taken => {
            let sentence = format!("Another of your machines is called {name}. Choose another name.");
            return Err(ApiError::new(ErrorCode::NameTaken, sentence));
        }
    };
    app.hub.publish(user.user_id(), ServerMessage::Machine { machine: info.clone() });
    Ok(Json(*info))
}

/// Removes a machine: its token is void and its link closes within 5 seconds. Its sessions keep running on the machine.
#[utoipa::path(delete, path = "/api/machines/{id}", tag = "machines",
    params(("id" = MachineId, Path, description = "The machine")), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn remove(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    Id(id): Id<MachineId>,
) -> Result<StatusCode, ApiError> {
    let now = app.clock.now();
    if !machine::remove(&app.db, user.user_id(), id, now).await? {
        return Err(ApiError::not_found("machine"));
    }
    app.hub.disconnect_machine(id, DisconnectReason::Revoked);
    app.hub.publish(user.user_id(), ServerMessage::MachineRemoved { machine: id });
    audit::note(
        &app.db,
        Entry {
            user: Some(user.user_id()),
            machine: Some(id),
            action: "machine.removed",
            address: &client.to_string(),
            detail: json!({}),
        },
        now,
    )
    .await;
    Ok(StatusCode::NO_CONTENT)
}

/// Which directory.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DirectoryParameters {
    /// Absolute path; the home directory when absent or empty.
    #[serde(default)]
    path: String,
}

/// Directories on a machine, for a picker.
#[utoipa::path(get, path = "/api/machines/{id}/directories", tag = "machines",
    params(("id" = MachineId, Path, description = "The machine"), DirectoryParameters), responses(
    (status = 200, body = Directory), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody, description = "The machine is offline"),
    (status = 422, body = ErrorBody, description = "No such directory, or not allowed")))]
async fn directories(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<MachineId>,
    Parameters(parameters): Parameters<DirectoryParameters>,
) -> Result<Json<Directory>, ApiError> {
    find(&app, &user, id).await?;
    let op = Op::DirectoryList { path: parameters.path };
    match app.hub.request(id, op, ASK_TIMEOUT).await? {
        Reply::Directory { directory } => Ok(Json(directory)),
        other => Err(unexpected(&other)),
    }
}

/// A machine answered something else than what was asked for: a refusal, or a fault of that agent.
pub(super) fn unexpected(reply: &Reply) -> ApiError {
    match reply {
        Reply::Error { error } => ApiError(error.clone()),
        _ => {
            tracing::warn!("an agent answered a request with the wrong kind of reply");
            ApiError::new(
                ErrorCode::Internal,
                "The machine gave an answer that does not fit. Update its agent: it may be older than this relay.",
            )
        }
    }
}

//! Enrolment tokens: a machine without a person in front of it pairs itself with one.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::MachineId;
use claudenest_shared::time::UnixMs;
use claudenest_shared::token::TokenKind;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::error::{ApiError, ErrorBody};
use super::extract::{Id, OptionalBody};
use crate::app::App;
use crate::auth::address::Client;
use crate::auth::login::LoggedIn;
use crate::auth::mint;
use crate::db::audit::{self, Entry};
use crate::db::{enrolment, new_id};

/// Life of an enrolment token.
const TTL_MS: i64 = 3_600_000;
/// Longest label in characters.
const MAX_LABEL_CHARS: usize = 100;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(remove))
}

/// An enrolment token, without the token.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnrolmentToken {
    /// Identity.
    pub id: Uuid,
    /// What the user calls it.
    pub label: String,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it is void.
    pub expires_at: UnixMs,
    /// When it was used.
    pub used_at: Option<UnixMs>,
    /// The machine that used it.
    pub machine_id: Option<MachineId>,
}

/// The user's enrolment tokens of the last day, newest first.
#[utoipa::path(get, path = "/api/enrolment-tokens", tag = "pairing", responses(
    (status = 200, body = Vec<EnrolmentToken>), (status = 401, body = ErrorBody)))]
async fn list(State(app): State<App>, user: LoggedIn) -> Result<Json<Vec<EnrolmentToken>>, ApiError> {
    let rows = enrolment::list(&app.db, user.user_id()).await?;
    let tokens = rows.into_iter().map(|row| EnrolmentToken {
        id: row.id,
        label: row.label,
        created_at: row.created_at,
        expires_at: row.expires_at,
        used_at: row.used_at,
        machine_id: row.machine_id,
    });
    Ok(Json(tokens.collect()))
}

/// What to call it.
#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct CreateEnrolmentToken {
    /// For the user's own memory, at most 100 characters.
    pub label: Option<String>,
}

/// A new enrolment token; this is the only time that it is shown.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct NewEnrolmentToken {
    /// Identity.
    pub id: Uuid,
    /// The token, for `claudenest-agent pair --token`.
    pub token: String,
    /// When it is void.
    pub expires_at: UnixMs,
}

/// Makes an enrolment token: single use, one hour, shown once.
#[utoipa::path(post, path = "/api/enrolment-tokens", tag = "pairing", request_body = CreateEnrolmentToken, responses(
    (status = 200, body = NewEnrolmentToken), (status = 401, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn create(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    OptionalBody(body): OptionalBody<CreateEnrolmentToken>,
) -> Result<Json<NewEnrolmentToken>, ApiError> {
    let label = body.label.unwrap_or_default();
    if label.chars().count() > MAX_LABEL_CHARS || label.chars().any(char::is_control) {
        return Err(ApiError::new(
            ErrorCode::Invalid,
            format!("A label has at most {MAX_LABEL_CHARS} characters and no control characters."),
        ));
    }
    let (token, digest) = mint(TokenKind::Enrolment)?;
    let (id, now) = (new_id(), app.clock.now());
    let expires_at = now.plus(TTL_MS);
    enrolment::create(&app.db, id, user.user_id(), &digest, &label, now, expires_at).await?;
    audit::note(
        &app.db,
        Entry {
            user: Some(user.user_id()),
            machine: None,
            action: "enrolment_token.created",
            address: &client.to_string(),
            detail: json!({ "id": id, "label": label }),
        },
        now,
    )
    .await;
    Ok(Json(NewEnrolmentToken { id, token: token.expose().clone(), expires_at }))
}

/// Removes an enrolment token. A machine that used it stays paired.
#[utoipa::path(delete, path = "/api/enrolment-tokens/{id}", tag = "pairing",
    params(("id" = Uuid, Path, description = "The enrolment token")), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn remove(State(app): State<App>, user: LoggedIn, Id(id): Id<Uuid>) -> Result<StatusCode, ApiError> {
    if enrolment::remove(&app.db, user.user_id(), id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("enrolment token"))
    }
}

//! Errors as they are answered: the status of the code, and `{"error": {"code", "message"}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use claudenest_shared::code::{ErrorCode, WireError};
use serde::{Deserialize, Serialize};

use crate::db::DbError;

/// Body of every refusal.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// What happened.
    pub error: WireError,
}

/// A refusal. Built from a [`WireError`] or from an internal failure, which is logged and not told.
#[derive(Clone, Debug)]
pub struct ApiError(pub WireError);

impl ApiError {
    /// Builds a refusal from its code and sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(WireError::new(code, message))
    }

    /// The one answer for what does not exist and for what belongs to somebody else.
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("There is no such {what}."))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody { error: self.0 })).into_response()
    }
}

impl From<WireError> for ApiError {
    fn from(error: WireError) -> Self {
        Self(error)
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        tracing::error!(error = %error, "a database statement failed");
        if error.is_away() {
            Self::new(
                ErrorCode::Unavailable,
                "The relay's database does not answer right now. Try again in a moment.",
            )
        } else {
            Self::new(ErrorCode::Internal, "The relay failed to do this. Its log says why.")
        }
    }
}

impl From<crate::auth::NoRandom> for ApiError {
    fn from(error: crate::auth::NoRandom) -> Self {
        tracing::error!(error = %error, "no token could be made");
        Self::new(ErrorCode::Internal, "The relay failed to do this. Its log says why.")
    }
}

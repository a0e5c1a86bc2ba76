//! Extractors whose refusals are the relay's own error body.

use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Json, OptionalFromRequest, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use claudenest_shared::code::ErrorCode;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::app::App;

/// 256 KiB over the slowest link that is of any use.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// A JSON body.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        match in_time(<Json<T> as FromRequest<App>>::from_request(request, app)).await? {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(refusal(&rejection)),
        }
    }
}

/// A JSON body that may be left out: without a content type it is the default.
#[derive(Debug)]
pub struct OptionalBody<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<App> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        match in_time(<Json<T> as OptionalFromRequest<App>>::from_request(request, app)).await? {
            Ok(body) => Ok(Self(body.map(|Json(body)| body).unwrap_or_default())),
            Err(rejection) => Err(refusal(&rejection)),
        }
    }
}

/// A body that trickles in holds a connection for next to nothing: it gets a time.
async fn in_time<R>(reading: impl Future<Output = R>) -> Result<R, ApiError> {
    tokio::time::timeout(BODY_WITHIN, reading).await.map_err(|_| {
        ApiError::new(
            ErrorCode::BadRequest,
            "The request did not arrive in time. Check the network and send it again.",
        )
    })
}

fn refusal(rejection: &JsonRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::new(ErrorCode::TooLarge, "The request is larger than 256 KiB.");
    }
    match rejection {
        JsonRejection::MissingJsonContentType(_) => ApiError::new(
            ErrorCode::BadRequest,
            "Send JSON with the header `Content-Type: application/json`.",
        ),
        // Names the field and the place, nothing of the relay.
        other => ApiError::new(ErrorCode::BadRequest, other.body_text()),
    }
}

/// An id in the path. What is not even an id does not exist.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, app).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(ApiError::not_found("thing; the id in the address is not one")),
        }
    }
}

/// Parameters behind the question mark.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, app).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(ApiError::new(ErrorCode::BadRequest, rejection.body_text())),
        }
    }
}

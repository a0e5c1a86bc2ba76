//! Signs of life, and the answer for addresses that do not exist.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health))
}

/// Probes for a supervisor or a load balancer, without JSON.
pub(super) fn probes() -> Router<App> {
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready))
}

/// State of the relay.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct Health {
    /// `ok`, or `degraded` when the database is away.
    pub status: String,
    /// Version of the relay.
    pub version: String,
    /// `ok` or `away`.
    pub database: String,
}

/// State of the relay. Always 200 as long as the process answers.
#[utoipa::path(get, path = "/api/health", tag = "health", security(()), responses((status = 200, body = Health)))]
async fn health(State(app): State<App>) -> Json<Health> {
    let is_up = app.db.ping().await.is_ok();
    Json(Health {
        status: if is_up { "ok" } else { "degraded" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        database: if is_up { "ok" } else { "away" }.to_owned(),
    })
}

async fn ready(State(app): State<App>) -> Response {
    if app.shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    match app.db.ping().await {
        Ok(()) => "ok\n".into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database is away\n").into_response(),
    }
}

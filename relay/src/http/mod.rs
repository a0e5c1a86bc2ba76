//! HTTP: the router and what all resources share. One file per resource.

pub mod approval;
pub mod auth;
pub mod enrolment;
pub mod error;
pub mod extract;
pub mod health;
pub mod history;
pub mod lock;
pub mod machine;
pub mod openapi;
pub mod pairing;
pub mod pairing_agent;
pub mod security;
pub mod session;

use std::convert::Infallible;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::HandlerWithoutStateExt as _;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use claudenest_shared::wire::limits::MAX_TEXT_BYTES;
use tower::{Service, ServiceBuilder};
use tower_http::compression::CompressionLayer;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The routes of `/api` with their description.
pub(crate) fn api() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(auth::routes())
        .merge(machine::routes())
        .merge(session::routes())
        .merge(history::routes())
        .merge(approval::routes())
        .merge(lock::routes())
        .merge(pairing::routes())
        .merge(pairing_agent::routes())
        .merge(enrolment::routes())
        .merge(health::routes())
}

/// The web app; compressed on the way unless the build has compressed it. Nothing secret is in it.
fn web_app() -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone {
    ServiceBuilder::new()
        .map_response(IntoResponse::into_response)
        .layer(CompressionLayer::new())
        .service(crate::embed::serve.into_service())
}

/// The whole router.
pub fn router(app: App) -> Router {
    let (api, document) = api().split_for_parts();
    let document = openapi::finish(document);
    Router::new()
        .merge(api)
        .merge(health::probes())
        .merge(openapi::routes(document))
        .fallback_service(web_app())
        // A JSON body travels on to the machine as one message: the same limit.
        .layer(DefaultBodyLimit::max(MAX_TEXT_BYTES))
        .layer(from_fn_with_state(app.clone(), security::same_site_only))
        .merge(crate::ws::router().layer(from_fn_with_state(app.clone(), security::sockets_in_measure)))
        .layer(from_fn_with_state(app.clone(), security::headers))
        .with_state(app)
}

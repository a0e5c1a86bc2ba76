//! HTTP: the router and what all resources share.

pub mod error;

use axum::Router;

use crate::app::App;

/// The whole router.
pub fn router(app: App) -> Router {
    Router::new().merge(crate::ws::router()).with_state(app)
}

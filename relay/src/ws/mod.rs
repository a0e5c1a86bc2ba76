//! The two WebSocket endpoints: `/ws` for browsers and `/ws/agent` for machines.

use axum::Router;

use crate::app::App;

/// Routes `/ws` and `/ws/agent`.
pub fn router() -> Router<App> {
    Router::new()
}

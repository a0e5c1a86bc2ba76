//! The description of the API: collected from the handlers, served, rendered, and printed by `claudenest-relay openapi`.

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use claudenest_shared::wire::browser::{BrowserMessage, ServerMessage};
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, PathItem};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::app::App;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ClaudeNest relay",
        description = "REST interface of a ClaudeNest relay. Terminals and live changes travel over WebSockets: see docs/PROTOCOL.md; \
            their JSON messages are the schemas `BrowserMessage` and `ServerMessage`. Times are Unix milliseconds.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    components(schemas(BrowserMessage, ServerMessage)),
    security(("login" = [], "csrf" = [])),
    tags(
        (name = "auth", description = "Logins of people"),
        (name = "machines", description = "Paired machines"),
        (name = "sessions", description = "Sessions on machines"),
        (name = "history", description = "Past output of sessions"),
        (name = "approvals", description = "What Claudes ask, and the answers"),
        (name = "locks", description = "Who may write which files"),
        (name = "pairing", description = "Pairing, the side of the user"),
        (name = "agent", description = "What agents call; no login"),
        (name = "health", description = "Signs of life"),
    )
)]
struct Base;

/// The whole document.
pub fn document() -> Document {
    finish(super::api().split_for_parts().1)
}

/// The document as committed: stable order, one line break at the end.
pub fn document_json() -> String {
    // Nothing in it can fail to be JSON: names and texts.
    document().to_pretty_json().unwrap_or_default() + "\n"
}

pub(super) fn finish(routes: Document) -> Document {
    let mut document = Base::openapi();
    document.merge(routes);
    for item in document.paths.paths.values_mut() {
        let PathItem { get, post, put, patch, delete, .. } = item;
        for operation in [get, post, put, patch, delete].into_iter().flatten() {
            // Handlers of different resources share names; generated clients want them unique.
            let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
            operation.operation_id = operation.operation_id.take().map(|name| format!("{tag}_{name}"));
        }
    }
    let components = document.components.get_or_insert_default();
    let cookie = ApiKeyValue::with_description("cn_session", "From a login; `__Host-cn_session` over TLS.");
    components.add_security_scheme("login", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    let csrf = ApiKeyValue::with_description(
        "X-CSRF-Token",
        "From `GET /api/me`; needed for every request that is not GET.",
    );
    components.add_security_scheme("csrf", SecurityScheme::ApiKey(ApiKey::Header(csrf)));
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("Machine token `mn_…`."));
    components.add_security_scheme("machine_token", SecurityScheme::Http(bearer.build()));
    document
}

pub(super) fn routes(document: Document) -> Router<App> {
    // The page is part of the binary: nothing is loaded from elsewhere.
    let ui = SwaggerUi::new("/docs")
        .url("/api/openapi.json", document)
        .config(Config::default().validator_url("none").try_it_out_enabled(false));
    Router::new().merge(ui).route("/api", get(async || Redirect::to("/docs/")))
}

//! What holds for every request: security headers, and no changes from pages of other sites.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use claudenest_shared::code::ErrorCode;

use super::error::ApiError;
use crate::app::App;
use crate::auth::address::Client;
use crate::auth::limit::Limit;
use crate::auth::login::is_change;

/// Scripts and connections of the relay itself only. Inline styles: xterm.js and Vue set them.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; \
    manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Refuses what a browser sends on behalf of another site's page, and what comes too fast.
pub async fn same_site_only(
    State(app): State<App>,
    client: Client,
    request: Request,
    next: Next,
) -> Response {
    if is_change(request.method()) && !app.site.is_same_site(request.headers()) {
        return ApiError::new(
            ErrorCode::Forbidden,
            format!(
                "This request comes from a page of another site. Open the relay under its own address, {}.",
                app.site.public_url
            ),
        )
        .into_response();
    }
    if let Err(refused) = app.limits.check(Limit::Anonymous, &client.network()) {
        return refused.into_response();
    }
    next.run(request).await
}

/// Refuses sockets that are opened too fast: each costs a look into the database and waits for its first message.
pub async fn sockets_in_measure(
    State(app): State<App>,
    client: Client,
    request: Request,
    next: Next,
) -> Response {
    if let Err(refused) = app.limits.check(Limit::Socket, &client.network()) {
        return refused.into_response();
    }
    next.run(request).await
}

/// Sets the security headers.
pub async fn headers(State(app): State<App>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    );
    if app.site.is_secure() {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    if is_api {
        set(header::CACHE_CONTROL, "no-store");
    }
    response
}

//! Login, logout, the user's own logins, WebSocket tickets.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse};
use claudenest_shared::code::ErrorCode;
use claudenest_shared::time::UnixMs;
use claudenest_shared::token::{self, TokenKind};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id};
use crate::app::App;
use crate::auth::address::Client;
use crate::auth::limit::Limit;
use crate::auth::login::{self as cookie, LoggedIn};
use crate::auth::mint;
use crate::db::audit::{self, Entry};
use crate::db::login;
use crate::db::user::User;

/// Life of a WebSocket ticket.
const TICKET_TTL_MS: i64 = 300_000;
/// Browsers name themselves at length; this much is kept.
const MAX_USER_AGENT_CHARS: usize = 200;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login_by_link))
        .routes(routes!(logout))
        .routes(routes!(me))
        .routes(routes!(list_logins))
        .routes(routes!(end_login))
        .routes(routes!(create_ticket))
}

/// A login link's token.
#[derive(Deserialize, utoipa::ToSchema)]
pub struct LoginLinkBody {
    /// The token in the link.
    pub token: String,
}

/// Who is logged in now.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct LoginAnswer {
    /// The user.
    pub user: User,
}

/// Trades a one-time login link for a login cookie.
#[utoipa::path(post, path = "/api/auth/login-link", tag = "auth", request_body = LoginLinkBody, security(()), responses(
    (status = 200, body = LoginAnswer),
    (status = 401, body = ErrorBody, description = "Used, expired or unknown"),
    (status = 429, body = ErrorBody)))]
async fn login_by_link(
    State(app): State<App>,
    client: Client,
    headers: HeaderMap,
    Body(body): Body<LoginLinkBody>,
) -> Result<impl IntoResponse, ApiError> {
    app.limits.check(Limit::LoginLink, &client.network())?;
    let refused = || {
        ApiError::new(
            ErrorCode::Unauthenticated,
            "This login link was used already, or its time is over. `claudenest-relay login-link` on the relay's host prints a new one.",
        )
    };
    let link = body.token.trim();
    if !token::is_well_formed(TokenKind::LoginLink, link) {
        return Err(refused());
    }
    let now = app.clock.now();
    let (session, digest) = mint(TokenKind::WebSession)?;
    let address = client.to_string();
    let user_agent = user_agent(&headers);
    let login = login::redeem_link(
        &app.db,
        &token::digest(link),
        &digest,
        login::Origin { address: &address, user_agent: &user_agent },
        now,
        now.plus(app.config.login_max_ms()),
    )
    .await?
    .ok_or_else(refused)?;
    audit::note(
        &app.db,
        Entry {
            user: Some(login.user.id),
            machine: None,
            action: "login.by_link",
            address: &address,
            detail: json!({ "login": login.id, "user_agent": user_agent }),
        },
        now,
    )
    .await;
    let cookie = cookie::set_cookie(session.expose(), app.site.is_secure(), app.config.login_max_ms());
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Json(LoginAnswer { user: login.user })))
}

fn user_agent(headers: &HeaderMap) -> String {
    headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .chars()
        .take(MAX_USER_AGENT_CHARS)
        .collect()
}

/// Ends this login and every socket of it.
#[utoipa::path(post, path = "/api/auth/logout", tag = "auth", responses(
    (status = 204), (status = 401, body = ErrorBody)))]
async fn logout(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
) -> Result<impl IntoResponse, ApiError> {
    end(&app, &user, user.login.id, client).await?;
    let cookie = cookie::clear_cookie(app.site.is_secure());
    Ok((StatusCode::NO_CONTENT, AppendHeaders([(header::SET_COOKIE, cookie)])))
}

async fn end(app: &App, user: &LoggedIn, login: Uuid, client: Client) -> Result<bool, ApiError> {
    let was_there = login::end(&app.db, user.user_id(), login).await?;
    if was_there {
        app.hub.disconnect_login(login);
        audit::note(
            &app.db,
            Entry {
                user: Some(user.user_id()),
                machine: None,
                action: "login.ended",
                address: &client.to_string(),
                detail: json!({ "login": login }),
            },
            app.clock.now(),
        )
        .await;
    }
    Ok(was_there)
}

/// The user of this login.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct Me {
    /// The user.
    pub user: User,
    /// Send it as `X-CSRF-Token` with every request that is not GET.
    pub csrf_token: String,
    /// When the login ends if it is not used again.
    pub session_expires_at: UnixMs,
}

/// The user of this login, and the token for changes.
#[utoipa::path(get, path = "/api/me", tag = "auth", responses(
    (status = 200, body = Me), (status = 401, body = ErrorBody)))]
async fn me(State(app): State<App>, user: LoggedIn) -> Json<Me> {
    Json(Me {
        session_expires_at: cookie::ends_at(&app, &user.login),
        user: user.login.user,
        csrf_token: user.csrf_token,
    })
}

/// A browser login.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct BrowserLogin {
    /// Identity.
    pub id: Uuid,
    /// When it began.
    pub created_at: UnixMs,
    /// When it was last used, to the minute.
    pub last_used_at: UnixMs,
    /// Address of the client when it began.
    pub address: String,
    /// The browser's name for itself.
    pub user_agent: String,
    /// True for the login that asks.
    pub is_current: bool,
}

/// Browser logins of the user, last used first.
#[utoipa::path(get, path = "/api/auth/sessions", tag = "auth", responses(
    (status = 200, body = Vec<BrowserLogin>), (status = 401, body = ErrorBody)))]
async fn list_logins(State(app): State<App>, user: LoggedIn) -> Result<Json<Vec<BrowserLogin>>, ApiError> {
    let now = app.clock.now();
    let rows = login::list(&app.db, user.user_id(), now, cookie::idle_since(&app, now)).await?;
    let logins = rows.into_iter().map(|row| BrowserLogin {
        is_current: row.id == user.login.id,
        id: row.id,
        created_at: row.created_at,
        last_used_at: row.last_used_at,
        address: row.address,
        user_agent: row.user_agent,
    });
    Ok(Json(logins.collect()))
}

/// Ends a browser login and every socket of it.
#[utoipa::path(delete, path = "/api/auth/sessions/{id}", tag = "auth",
    params(("id" = Uuid, Path, description = "The login")), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn end_login(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    Id(id): Id<Uuid>,
) -> Result<StatusCode, ApiError> {
    if end(&app, &user, id, client).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("login"))
    }
}

/// A ticket for one WebSocket.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct WsTicket {
    /// Send it in the first message of `/ws`.
    pub ticket: String,
    /// When it is void.
    pub expires_at: UnixMs,
}

/// Makes a ticket: single use, five minutes, bound to this login.
#[utoipa::path(post, path = "/api/ws-tickets", tag = "auth", responses(
    (status = 200, body = WsTicket), (status = 401, body = ErrorBody)))]
async fn create_ticket(State(app): State<App>, user: LoggedIn) -> Result<Json<WsTicket>, ApiError> {
    let (ticket, digest) = mint(TokenKind::Ticket)?;
    let expires_at = app.clock.now().plus(TICKET_TTL_MS);
    login::create_ticket(&app.db, user.login.id, &digest, expires_at).await?;
    Ok(Json(WsTicket { ticket: ticket.expose().clone(), expires_at }))
}

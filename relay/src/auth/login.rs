//! The browser login of a request: cookie, lifetime, protection against forged requests.
//!
//! A handler that names [`LoggedIn`] as an argument is reached only with a valid cookie and, if it changes something, with
//! the matching `X-CSRF-Token`: it cannot be forgotten.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::UserId;
use claudenest_shared::pairing::transcript;
use claudenest_shared::secret::Secret;
use claudenest_shared::time::UnixMs;
use claudenest_shared::token::{self, TokenKind};
use cookie::{Cookie, SameSite};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::limit::Limit;
use crate::app::App;
use crate::db::login::{self, Login};
use crate::db::user::User;
use crate::http::error::ApiError;

/// Header that carries the token against forged requests.
pub const CSRF_HEADER: &str = "x-csrf-token";
/// Uses are written down at most once a minute: a read must not cost a write.
const TOUCH_EVERY_MS: i64 = 60_000;

/// A request with a valid browser login.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// The login.
    pub login: Login,
    /// The token that its pages send along with every change.
    pub csrf_token: String,
}

impl LoggedIn {
    /// The user's id.
    pub fn user_id(&self) -> UserId {
        self.login.user.id
    }

    /// The user.
    pub fn user(&self) -> &User {
        &self.login.user
    }
}

impl FromRequestParts<App> for LoggedIn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let refused = || {
            ApiError::new(
                ErrorCode::Unauthenticated,
                "You are not logged in, or the login has ended. Open a login link: `claudenest-relay login-link` on the relay's host prints one.",
            )
        };
        let token = token_of(&parts.headers, app.site.is_secure()).ok_or_else(refused)?;
        let now = app.clock.now();
        let idle_since = idle_since(app, now);
        let login = login::authenticate(&app.db, &token::digest(token.expose()), now, idle_since)
            .await?
            .ok_or_else(refused)?;
        app.limits.check(Limit::Login, &login.id.to_string())?;
        let csrf_token = csrf_token(token.expose());
        if is_change(&parts.method) && !matches_csrf(&parts.headers, &csrf_token) {
            return Err(ApiError::new(
                ErrorCode::Forbidden,
                "The request lacks a valid X-CSRF-Token header. Reload the page and try again.",
            ));
        }
        if now.0 - login.last_used_at.0 >= TOUCH_EVERY_MS {
            login::touch(&app.db, login.id, now).await?;
        }
        Ok(Self { login, csrf_token })
    }
}

/// True for methods that may change something.
pub fn is_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Logins that were not used after this moment have ended.
pub fn idle_since(app: &App, now: UnixMs) -> UnixMs {
    now.plus(-app.config.login_idle_ms())
}

/// When a login ends if it is not used again.
pub fn ends_at(app: &App, login: &Login) -> UnixMs {
    login.expires_at.min(login.last_used_at.plus(app.config.login_idle_ms()))
}

/// The cookie's name: the prefix makes browsers refuse it without TLS or from a subdomain.
pub fn cookie_name(is_secure: bool) -> &'static str {
    if is_secure { "__Host-cn_session" } else { "cn_session" }
}

/// The header that sets the cookie.
pub fn set_cookie(token: &str, is_secure: bool, max_age_ms: i64) -> HeaderValue {
    header_of(token, is_secure, max_age_ms)
}

/// The header that removes the cookie.
pub fn clear_cookie(is_secure: bool) -> HeaderValue {
    header_of("", is_secure, 0)
}

fn header_of(value: &str, is_secure: bool, max_age_ms: i64) -> HeaderValue {
    let cookie = Cookie::build((cookie_name(is_secure), value))
        .path("/")
        .http_only(true)
        .secure(is_secure)
        // Lax, not Strict: a link from a mail or chat must open the app logged in. Changes need the header anyway.
        .same_site(SameSite::Lax)
        .max_age(cookie::time::Duration::milliseconds(max_age_ms))
        .build();
    // Name and token are ASCII without separators.
    HeaderValue::from_str(&cookie.to_string()).unwrap_or(HeaderValue::from_static(""))
}

/// The login token in the cookie header, if it has the right form.
fn token_of(headers: &HeaderMap, is_secure: bool) -> Option<Secret<String>> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| Cookie::split_parse(value.to_owned()))
        .filter_map(Result::ok)
        .find(|cookie| {
            cookie.name() == cookie_name(is_secure)
                && token::is_well_formed(TokenKind::WebSession, cookie.value())
        })
        .map(|cookie| Secret::new(cookie.value().to_owned()))
}

/// Derived from the cookie's token, so that nothing more is stored, and useless to find it.
fn csrf_token(token: &str) -> String {
    hex(&Sha256::digest(transcript("claudenest csrf v1", &[token.as_bytes()])))
}

fn matches_csrf(headers: &HeaderMap, expected: &str) -> bool {
    headers.get(CSRF_HEADER).is_some_and(|given| bool::from(given.as_bytes().ct_eq(expected.as_bytes())))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads exactly `N` bytes of hexadecimal.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_carry_their_protection() {
        let text = set_cookie("cns_x", true, 60_000);
        assert_eq!(
            text.to_str().unwrap(),
            "__Host-cn_session=cns_x; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=60"
        );
        assert!(!set_cookie("cns_x", false, 1).to_str().unwrap().contains("Secure"));
        assert!(clear_cookie(true).to_str().unwrap().contains("Max-Age=0"));
    }

    #[test]
    fn hexadecimal_is_read_strictly() {
        assert_eq!(unhex::<2>("0aFF"), Some([10, 255]));
        for bad in ["", "0a", "0aff0", "0aff00", "0aé0", "+aff"] {
            assert_eq!(unhex::<2>(bad), None, "{bad}");
        }
        assert_eq!(unhex::<2>(&hex(&[1, 2])), Some([1, 2]));
    }
}

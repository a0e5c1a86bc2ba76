//! `login-link` and `user`.

use claudenest_shared::token::TokenKind;
use serde_json::json;

use super::{Failure, open_database, print, print_json};
use crate::auth::mint;
use crate::auth::origin::Site;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::user::{self, Role, User};
use crate::db::{Db, audit, login};

/// Life of a login link.
const LINK_TTL_MS: i64 = 900_000;
/// Account of the first user when nobody gave another.
const FIRST_EMAIL: &str = "admin@localhost";
const MAX_EMAIL_BYTES: usize = 254;
const MAX_NAME_CHARS: usize = 100;

/// A login link that was made.
pub(super) struct Link {
    pub(super) user: User,
    pub(super) url: String,
    token: String,
    expires_at: i64,
    is_new_user: bool,
}

pub(super) async fn login_link(
    config: &Config,
    email: Option<String>,
    name: Option<String>,
    json: bool,
) -> Result<(), Failure> {
    let (db, running) = open_database(config).await?;
    let url = running.clone().unwrap_or_else(|| {
        Site::new(config.public_url.as_deref(), config.listen, config.has_tls()).public_url
    });
    let link = make_link(&db, &url, email, name).await?;
    if json {
        return print_json(&json!({
            "url": link.url, "token": link.token, "expires_at": link.expires_at, "user": link.user,
            "is_new_user": link.is_new_user, "is_relay_running": running.is_some(),
        }));
    }
    let role = if link.user.role == Role::Admin { ", admin" } else { "" };
    let mut text =
        format!("Login link for {}{role} (works once, for 15 minutes):\n{}\n", link.user.email, link.url);
    if running.is_none() {
        text += "No relay seems to run with this data directory; start it with `claudenest-relay serve` before you open the link.\n";
    }
    print(&text)
}

/// Makes a login link; makes the user if there is none.
pub(super) async fn make_link(
    db: &Db,
    public_url: &str,
    email: Option<String>,
    name: Option<String>,
) -> Result<Link, Failure> {
    let now = Clock::system().now();
    let (user, is_new_user) = match email {
        Some(email) => find_or_create(db, &email, name).await?,
        None => match first_admin(db).await? {
            Some(user) => (user, false),
            None => find_or_create(db, FIRST_EMAIL, name).await?,
        },
    };
    let (token, digest) = mint(TokenKind::LoginLink)?;
    let expires_at = now.plus(LINK_TTL_MS);
    login::create_link(db, user.id, &digest, now, expires_at).await?;
    let entry = audit::Entry {
        user: Some(user.id),
        machine: None,
        action: "login_link.created",
        address: "local",
        detail: json!({}),
    };
    audit::record(db, entry, now).await?;
    // Behind the # it stays in the browser: no server and no proxy writes it into a log.
    let url = format!("{public_url}/login#token={}", token.expose());
    Ok(Link { user, url, token: token.expose().clone(), expires_at: expires_at.0, is_new_user })
}

pub(super) async fn first_admin(db: &Db) -> Result<Option<User>, Failure> {
    Ok(user::list(db).await?.into_iter().find(|user| user.role == Role::Admin))
}

async fn find_or_create(db: &Db, email: &str, name: Option<String>) -> Result<(User, bool), Failure> {
    let email = checked_email(email)?;
    let name = match name {
        Some(name) => checked_name(&name)?,
        None => email.split('@').next().unwrap_or_default().to_owned(),
    };
    Ok(user::find_or_create(db, &email, &name, Clock::system().now()).await?)
}

fn checked_email(text: &str) -> Result<String, Failure> {
    let email = text.trim().to_ascii_lowercase();
    let is_fine = email.len() <= MAX_EMAIL_BYTES
        && !email.chars().any(|c| c.is_whitespace() || c.is_control())
        && email
            .split_once('@')
            .is_some_and(|(local, host)| !local.is_empty() && !host.is_empty() && !host.contains('@'));
    if is_fine {
        Ok(email)
    } else {
        Err(Failure::new(2, format!("{text:?} is no e-mail address; write it as alice@example.com.")))
    }
}

fn checked_name(text: &str) -> Result<String, Failure> {
    let name = text.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        return Err(Failure::new(
            2,
            format!("A name has 1 to {MAX_NAME_CHARS} characters and no control characters."),
        ));
    }
    Ok(name.to_owned())
}

pub(super) async fn list(config: &Config, json: bool) -> Result<(), Failure> {
    let (db, _) = open_database(config).await?;
    let users = user::list(&db).await?;
    if json {
        return print_json(&json!(users));
    }
    let mut text = String::new();
    for user in &users {
        text += &format!("{:<8}  {}  {}\n", crate::db::word(&user.role), user.email, user.name);
    }
    if users.is_empty() {
        text += "There are no users yet. `claudenest-relay login-link` makes the first one.\n";
    }
    print(&text)
}

pub(super) async fn add(
    config: &Config,
    email: String,
    name: Option<String>,
    json: bool,
) -> Result<(), Failure> {
    let (db, _) = open_database(config).await?;
    let (user, is_new) = find_or_create(&db, &email, name).await?;
    if !is_new {
        return Err(Failure::new(1, format!("There is a user {} already.", user.email)));
    }
    if json {
        return print_json(&json!(user));
    }
    print(&format!(
        "Made the {} {}. A login link: claudenest-relay login-link --email {}\n",
        crate::db::word(&user.role),
        user.email,
        user.email
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        assert_eq!(checked_email(" Alice@Example.com ").unwrap(), "alice@example.com");
        assert!(checked_email("admin@localhost").is_ok());
        for bad in ["", "alice", "@x", "a@", "a b@c", "a@b@c", "a\u{7}@b"] {
            assert!(checked_email(bad).is_err(), "{bad:?}");
        }
    }
}

//! Logins, forged requests, tickets, lists, limits.

use axum::http::{Method, StatusCode};
use claudenest_relay::auth::ticket;
use claudenest_relay::db::audit;
use serde_json::{Value, json};

use crate::harness::{Relay, URL, request};

const DAY_MS: i64 = 86_400_000;

#[tokio::test]
async fn a_login_link_works_once_and_for_a_quarter_of_an_hour() {
    let relay = Relay::new().await;
    let user = relay.user("alice@example.com").await;
    let link = relay.login_link(&user).await;
    let log_in = async |token: &str| {
        relay.call(Method::POST, "/api/auth/login-link", Some(json!({ "token": token }))).await
    };
    let first = log_in(&link).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(first.body["user"]["role"], "admin", "the first user is the admin");
    let cookie = first.header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && cookie.starts_with("cn_session="),
        "{cookie}"
    );
    let second = log_in(&link).await;
    assert_eq!((second.status, second.code()), (StatusCode::UNAUTHORIZED, "unauthenticated"));
    let late = relay.login_link(&user).await;
    relay.pass(900_000);
    let expired = log_in(&late).await;
    let unknown = log_in("cnl_0000000000000000000000000000000000").await;
    assert_eq!(expired.shape(), second.shape());
    assert_eq!(unknown.shape(), second.shape());
    assert_eq!(relay.user("bob@example.com").await.role, claudenest_relay::db::user::Role::Operator);
}

#[tokio::test]
async fn over_tls_the_cookie_is_bound_to_the_host() {
    let relay = Relay::with(|config| config.public_url = Some("https://nest.example.com".to_owned())).await;
    let browser = relay.log_in("alice@example.com").await;
    assert!(browser.cookie.starts_with("__Host-cn_session="), "{}", browser.cookie);
    assert_eq!(browser.get("/api/me").await.status, StatusCode::OK);
    let bare = browser.cookie.trim_start_matches("__Host-").to_owned();
    let answer =
        relay.send(browser.request(Method::GET, "/api/me", None).header("cookie", &bare).body_of()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.header("strict-transport-security").contains("max-age"));
}

#[tokio::test]
async fn logins_end_when_idle_and_at_the_latest_after_their_time() {
    let relay = Relay::new().await;
    let browser = relay.log_in("alice@example.com").await;
    for _ in 0..8 {
        relay.pass(10 * DAY_MS);
        assert_eq!(browser.get("/api/me").await.status, StatusCode::OK);
    }
    relay.pass(10 * DAY_MS);
    assert_eq!(browser.get("/api/me").await.status, StatusCode::UNAUTHORIZED, "90 days are over");
    let browser = relay.log_in("alice@example.com").await;
    relay.pass(14 * DAY_MS);
    assert_eq!(browser.get("/api/me").await.status, StatusCode::UNAUTHORIZED, "idle for 14 days");
    assert!(claudenest_relay::job::clean_up(&relay.app).await.unwrap() >= 2);
}

#[tokio::test]
async fn logout_and_ending_a_login_take_effect_at_once() {
    let relay = Relay::new().await;
    let one = relay.log_in("alice@example.com").await;
    let two = relay.log_in("alice@example.com").await;
    let list = one.get("/api/auth/sessions").await;
    let rows = list.body.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows.iter().filter(|row| row["is_current"] == true).count(), 1);
    let other =
        rows.iter().find(|row| row["is_current"] == false).unwrap()["id"].as_str().unwrap().to_owned();
    let ended = one.call(Method::DELETE, &format!("/api/auth/sessions/{other}"), None).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert_eq!(two.get("/api/me").await.status, StatusCode::UNAUTHORIZED);
    let out = one.call(Method::POST, "/api/auth/logout", None).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(one.get("/api/me").await.status, StatusCode::UNAUTHORIZED);
    let actions = audit::actions_of(&relay.db, one.user.id).await.unwrap();
    assert_eq!(actions, ["login.by_link", "login.by_link", "login.ended", "login.ended"]);
}

#[tokio::test]
async fn a_ticket_opens_one_socket_and_ends_with_its_login() {
    let relay = Relay::new().await;
    let browser = relay.log_in("alice@example.com").await;
    let make = async || {
        let answer = browser.call(Method::POST, "/api/ws-tickets", None).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.body["ticket"].as_str().unwrap().to_owned()
    };
    let redeem = async |text: &str| ticket::redeem(&relay.db, &relay.app.clock, text).await.unwrap();
    let one = make().await;
    assert_eq!(redeem(&one).await.unwrap().user_id(), browser.user.id);
    assert!(redeem(&one).await.is_none(), "used up");
    let late = make().await;
    relay.pass(300_000);
    assert!(redeem(&late).await.is_none(), "five minutes");
    let orphan = make().await;
    browser.call(Method::POST, "/api/auth/logout", None).await;
    assert!(redeem(&orphan).await.is_none(), "the login has ended");
    assert!(redeem("cnt_nonsense").await.is_none());
}

#[tokio::test]
async fn every_change_needs_the_token_of_its_own_login() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let bob = relay.log_in("bob@example.com").await;
    for (method, path) in routes_with_login() {
        if method == Method::GET {
            continue;
        }
        let draft = || alice.request(method.clone(), &path, Some(json!({})));
        for (why, spoiled) in [
            ("none", draft().without("x-csrf-token")),
            ("wrong", draft().header("x-csrf-token", &"0".repeat(64))),
            ("another login's", draft().header("x-csrf-token", &bob.csrf)),
            ("foreign origin", draft().header("origin", "https://evil.example")),
            ("null origin", draft().header("origin", "null")),
            ("port of a neighbour", draft().header("origin", "http://127.0.0.1:7451")),
            ("cross-site", draft().header("sec-fetch-site", "cross-site")),
            ("same-site", draft().header("sec-fetch-site", "same-site")),
        ] {
            let answer = relay.send(spoiled.body_of()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}: {why}: {:?}", answer.body);
        }
        let own = draft().header("origin", URL).header("sec-fetch-site", "same-origin").without("cookie");
        assert_eq!(relay.send(own.body_of()).await.status, StatusCode::UNAUTHORIZED, "{method} {path}");
    }
    assert_eq!(alice.get("/api/me").await.status, StatusCode::OK, "nothing has happened");
    // A form of another site must not log anybody in as somebody else.
    let forged = request(Method::POST, "/api/auth/login-link", Some(json!({ "token": "x" })))
        .header("origin", "https://evil.example");
    assert_eq!(relay.send(forged.body_of()).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn every_route_but_the_public_ones_needs_a_login() {
    let relay = Relay::new().await;
    let routes = routes_with_login();
    assert!(routes.len() > 25, "{routes:?}");
    for (method, path) in routes {
        let answer = relay.call(method.clone(), &path, Some(json!({}))).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn bad_requests_get_a_sentence() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let send = async |text: &str, kind: &str| {
        let request = alice.request(Method::POST, "/api/pairing/lookup", None);
        let mut request = request.header("content-type", kind).body_of();
        *request.body_mut() = axum::body::Body::from(text.to_owned());
        let answer = relay.send(request).await;
        (
            answer.status,
            answer.code().to_owned(),
            answer.body["error"]["message"].as_str().unwrap().to_owned(),
        )
    };
    let json = "application/json";
    assert_eq!(send("{}", json).await.1, "bad_request");
    let (status, code, message) = send("{\"code\": ", json).await;
    assert_eq!((status, code.as_str()), (StatusCode::BAD_REQUEST, "bad_request"), "{message}");
    assert_eq!(send("{}", "text/plain").await.0, StatusCode::BAD_REQUEST);
    let (status, code, _) = send(&format!("{{\"code\": \"{}\"}}", "x".repeat(300_000)), json).await;
    assert_eq!((status, code.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
    let wrong = alice.get("/api/machines/not-an-id").await;
    assert_eq!((wrong.status, wrong.code()), (StatusCode::NOT_FOUND, "not_found"));
    let wrong = alice.get("/api/sessions?machine_id=7").await;
    assert_eq!((wrong.status, wrong.code()), (StatusCode::BAD_REQUEST, "bad_request"));
    let wrong = alice.get("/api/nothing").await;
    assert_eq!((wrong.status, wrong.code()), (StatusCode::NOT_FOUND, "not_found"));
    let wrong = alice.call(Method::PUT, "/api/me", None).await;
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn login_links_cannot_be_tried_without_end() {
    let relay = Relay::new().await;
    let mut statuses = Vec::new();
    for _ in 0..25 {
        let draft = request(Method::POST, "/api/auth/login-link", Some(json!({ "token": "x" })));
        statuses.push(relay.send(draft.header("x-forwarded-for", "198.51.100.7").body_of()).await.status);
    }
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS));
    let draft = request(Method::POST, "/api/auth/login-link", Some(json!({ "token": "x" })));
    let other = relay.send(draft.header("x-forwarded-for", "203.0.113.7").body_of()).await;
    assert_eq!(other.status, StatusCode::UNAUTHORIZED, "another network is not concerned");
}

#[tokio::test]
async fn answers_carry_the_security_headers() {
    let relay = Relay::new().await;
    for path in ["/", "/sessions/x", "/api/health", "/docs/", "/assets/none.js", "/healthz"] {
        let answer = relay.call(Method::GET, path, None).await;
        let policy = answer.header("content-security-policy");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe-eval") && policy.contains("script-src 'self';"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
    assert_eq!(relay.call(Method::GET, "/api/health", None).await.header("cache-control"), "no-store");
}

#[tokio::test]
async fn only_digests_of_tokens_are_stored() {
    let relay = Relay::new().await;
    let user = relay.user("alice@example.com").await;
    let link = relay.login_link(&user).await;
    let browser = relay.log_in("alice@example.com").await;
    let ticket = browser.call(Method::POST, "/api/ws-tickets", None).await.body["ticket"].clone();
    let enrolment = browser.post("/api/enrolment-tokens", json!({})).await.body["token"].clone();
    let cookie = browser.cookie.split_once('=').unwrap().1.to_owned();
    let dump = crate::pairing::dump(&relay).await;
    for secret in
        [link.as_str(), &cookie, ticket.as_str().unwrap(), enrolment.as_str().unwrap(), &browser.csrf]
    {
        assert!(secret.len() > 30 && !dump.contains(secret) && !dump.contains(&secret[5..25]));
    }
}

/// Every route that the document does not call public, with ids filled in.
pub fn routes_with_login() -> Vec<(Method, String)> {
    let document: Value = serde_json::from_str(&claudenest_relay::http::openapi::document_json()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation.get("security").unwrap_or(&document["security"]);
            let needs_login = security.as_array().unwrap().iter().any(|way| way.get("login").is_some());
            if needs_login {
                let method: Method = method.to_uppercase().parse().unwrap();
                let path = path.replace("{id}", NOBODY).replace("{pairing_id}", NOBODY);
                routes.push((method, path));
            }
        }
    }
    routes
}

const NOBODY: &str = "01920000-0000-7000-8000-000000000000";

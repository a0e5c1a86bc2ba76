//! A relay inside the test's process, and browsers that talk to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use claudenest_relay::app::{App, Parts};
use claudenest_relay::auth::address::Network;
use claudenest_relay::auth::limit::Limits;
use claudenest_relay::auth::mint;
use claudenest_relay::auth::origin::Site;
use claudenest_relay::clock::Clock;
use claudenest_relay::config::Config;
use claudenest_relay::db::user::User;
use claudenest_relay::db::{Db, login, user};
use claudenest_relay::http;
use claudenest_relay::hub::Hub;
use claudenest_shared::time::UnixMs;
use claudenest_shared::token::TokenKind;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::pg::TestDb;

pub const URL: &str = "http://127.0.0.1:7450";
/// Any moment will do; tests move from here.
const START_MS: i64 = 1_800_000_000_000;

pub struct Relay {
    pub app: App,
    pub db: Db,
    router: Router,
    clock: Arc<AtomicI64>,
    pub database: TestDb,
}

/// An answer, read to its end.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|header| header.0 == name).map_or("", |header| &header.1)
    }

    /// Everything but the time: what an attacker could compare.
    pub fn shape(&self) -> (StatusCode, Vec<(String, String)>, Value) {
        (
            self.status,
            self.headers.iter().filter(|header| header.0 != "date").cloned().collect(),
            self.body.clone(),
        )
    }
}

impl Relay {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let database = TestDb::new().await;
        let db = database.db();
        let clock = Arc::new(AtomicI64::new(START_MS));
        let hands = clock.clone();
        let now = Clock::new(move || UnixMs(hands.load(Ordering::SeqCst)));
        // Tests choose their address by `X-Forwarded-For`.
        let everybody: Network = "0.0.0.0/32".parse().unwrap();
        let mut config = Config { trusted_proxies: vec![everybody], ..Config::default() };
        change(&mut config);
        let app = App::new(Parts {
            site: Site::new(config.public_url.as_deref(), config.listen, config.has_tls()),
            limits: Limits::default(),
            hub: Hub::new(db.clone(), now.clone(), config.history_bytes()),
            db: db.clone(),
            clock: now,
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            config,
        });
        Self { router: http::router(app.clone()), app, db, clock, database }
    }

    pub fn pass(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn now(&self) -> UnixMs {
        self.app.clock.now()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let bytes = axum::body::to_bytes(response.into_body(), 16 << 20).await.unwrap();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { status, headers, body }
    }

    /// A request without a login.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send(request(method, path, body).body_of()).await
    }

    pub async fn user(&self, email: &str) -> User {
        user::find_or_create(&self.db, email, "Somebody", self.now()).await.unwrap().0
    }

    pub async fn login_link(&self, user: &User) -> String {
        let (token, digest) = mint(TokenKind::LoginLink).unwrap();
        login::create_link(&self.db, user.id, &digest, self.now(), self.now().plus(900_000)).await.unwrap();
        token.expose().clone()
    }

    pub async fn log_in(&self, email: &str) -> Browser<'_> {
        let user = self.user(email).await;
        let token = self.login_link(&user).await;
        let answer = self
            .call(Method::POST, "/api/auth/login-link", Some(serde_json::json!({ "token": token })))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
        let mut browser =
            Browser { relay: self, user, cookie, csrf: String::new(), address: "192.0.2.1".to_owned() };
        let me = browser.get("/api/me").await;
        browser.csrf = me.body["csrf_token"].as_str().unwrap().to_owned();
        browser
    }
}

/// A browser that is logged in.
#[derive(Clone)]
pub struct Browser<'a> {
    pub relay: &'a Relay,
    pub user: User,
    pub cookie: String,
    pub csrf: String,
    pub address: String,
}

impl Browser<'_> {
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.relay.send(self.request(method, path, body).body_of()).await
    }

    /// What the browser would send, to be spoiled by a test.
    pub fn request(&self, method: Method, path: &str, body: Option<Value>) -> Draft {
        request(method, path, body)
            .header("cookie", &self.cookie)
            .header("x-csrf-token", &self.csrf)
            .header("x-forwarded-for", &self.address)
    }
}

/// A request in the making.
pub struct Draft {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Value>,
}

pub fn request(method: Method, path: &str, body: Option<Value>) -> Draft {
    Draft { method, path: path.to_owned(), headers: Vec::new(), body }
}

impl Draft {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|header| header.0 != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|header| header.0 != name);
        self
    }

    pub fn body_of(self) -> Request<Body> {
        let mut builder = Request::builder().method(self.method).uri(self.path);
        for (name, value) in self.headers {
            builder = builder.header(name, value);
        }
        match self.body {
            None => builder.body(Body::empty()).unwrap(),
            Some(body) => builder
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string()))
                .unwrap(),
        }
    }
}

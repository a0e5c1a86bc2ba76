//! Revocation reaches connections that are open: a real agent link and a real browser socket over loopback.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use claudenest_relay::auth::login::{hex, unhex};
use claudenest_relay::http;
use claudenest_shared::pairing::link_message;
use claudenest_shared::token;
use claudenest_shared::wire::{AGENT_SUBPROTOCOL, BROWSER_SUBPROTOCOL};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::harness::{Browser, Relay};
use crate::pairing::Agent;

/// What the protocol promises.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub async fn listen(relay: &Relay) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = http::router(relay.app.clone()).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

pub async fn dial(
    address: SocketAddr,
    path: &str,
    protocol: &str,
    headers: &[(&'static str, String)],
) -> Result<Socket, u16> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

pub async fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub async fn say(socket: &mut Socket, message: Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

/// The close code; everything before it is passed over.
pub async fn closed(socket: &mut Socket) -> u16 {
    let end = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map_or(0, |frame| frame.code.into()),
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    };
    tokio::time::timeout(CLOSES_WITHIN, end).await.expect("the connection is closed in time")
}

pub async fn link(address: SocketAddr, agent: &Agent<'_>, token: &str) -> Result<Socket, u16> {
    let headers = [("authorization", format!("Bearer {token}"))];
    let mut socket = dial(address, "/ws/agent", AGENT_SUBPROTOCOL, &headers).await?;
    let challenge = next(&mut socket).await;
    let nonce: [u8; 32] = unhex(challenge["nonce"].as_str().unwrap()).unwrap();
    let signature = agent.sign(&link_message(&nonce, &token::digest(token)));
    say(
        &mut socket,
        json!({ "type": "hello", "signature": signature, "facts": { "hostname": "castor" }, "sessions": [] }),
    )
    .await;
    assert_eq!(next(&mut socket).await["type"], "welcome");
    Ok(socket)
}

pub async fn page(address: SocketAddr, browser: &Browser<'_>) -> Socket {
    let ticket = browser.call(Method::POST, "/api/ws-tickets", None).await.body["ticket"].clone();
    let origin = [("origin", format!("http://{address}"))];
    let mut socket = dial(address, "/ws", BROWSER_SUBPROTOCOL, &origin).await.unwrap();
    say(&mut socket, json!({ "type": "auth", "ticket": ticket })).await;
    assert_eq!(next(&mut socket).await["type"], "ready");
    socket
}

#[tokio::test]
async fn removing_a_machine_and_ending_a_login_close_what_is_open() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let agent = Agent::new(&relay);
    let paired = agent.pair_with(&alice).await.body;
    let (id, token) = (paired["machine_id"].as_str().unwrap(), paired["token"].as_str().unwrap());
    let mut browser = page(address, &alice).await;
    let mut machine = link(address, &agent, token).await.unwrap();
    let seen = next(&mut browser).await;
    assert_eq!((&seen["type"], &seen["machine"]["state"]), (&json!("machine"), &json!("online")));
    assert_eq!(alice.get(&format!("/api/machines/{id}")).await.body["state"], "online");

    let path = format!("/api/machines/{id}");
    assert_eq!(alice.call(Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(closed(&mut machine).await, 4401);
    assert_eq!(link(address, &agent, token).await.err(), Some(401), "the token is void");
    loop {
        let seen = next(&mut browser).await;
        if seen["type"] == "machine_removed" {
            break;
        }
    }
    alice.call(Method::POST, "/api/auth/logout", None).await;
    assert_eq!(closed(&mut browser).await, 4401);
}

#[tokio::test]
async fn unpairing_and_pairing_anew_close_the_link_of_the_old_token() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let agent = Agent::new(&relay);
    let first = agent.pair_with(&alice).await.body["token"].as_str().unwrap().to_owned();
    let mut machine = link(address, &agent, &first).await.unwrap();
    let second = agent.pair_with(&alice).await.body["token"].as_str().unwrap().to_owned();
    assert_eq!(closed(&mut machine).await, 4401);
    let mut machine = link(address, &agent, &second).await.unwrap();
    let body = json!({ "nonce": hex(&[5; 32]), "signature": agent.sign(&link_message(&[5; 32], &token::digest(&second))) });
    let draft = crate::harness::request(Method::POST, "/api/agent/unpair", Some(body));
    let answer = relay.send(draft.header("authorization", &format!("Bearer {second}")).body_of()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(closed(&mut machine).await, 4401);
    assert_eq!(alice.get("/api/machines").await.body[0]["state"], "revoked");
}

#[tokio::test]
async fn a_machine_token_opens_nothing_else_and_a_login_no_link() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let agent = Agent::new(&relay);
    let token = agent.pair_with(&alice).await.body["token"].as_str().unwrap().to_owned();
    for (method, path) in crate::auth::routes_with_login() {
        let draft = crate::harness::request(method, &path, Some(json!({})));
        let answer = relay.send(draft.header("authorization", &format!("Bearer {token}")).body_of()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let cookie = [("cookie", alice.cookie.clone())];
    assert_eq!(dial(address, "/ws/agent", AGENT_SUBPROTOCOL, &cookie).await.err(), Some(401));
    // The token without the key, and the key of another machine.
    let stranger = Agent::new(&relay);
    let headers = [("authorization", format!("Bearer {token}"))];
    let mut socket = dial(address, "/ws/agent", AGENT_SUBPROTOCOL, &headers).await.unwrap();
    let nonce: [u8; 32] = unhex(next(&mut socket).await["nonce"].as_str().unwrap()).unwrap();
    let signature = stranger.sign(&link_message(&nonce, &token::digest(&token)));
    say(&mut socket, json!({ "type": "hello", "signature": signature, "facts": {}, "sessions": [] })).await;
    assert_eq!(closed(&mut socket).await, 4401);
}

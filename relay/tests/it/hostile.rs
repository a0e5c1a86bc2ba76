//! What strangers, broken machines and a failing database may try: nothing leaks, nothing hangs, nothing is lost.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use claudenest_relay::db::machine;
use claudenest_shared::id::{MachineId, SessionId};
use claudenest_shared::wire::BROWSER_SUBPROTOCOL;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::harness::{Browser, Relay};
use crate::live::{Socket, closed, dial, link, listen, next, page, say};
use crate::pairing::Agent;

const WITHIN: Duration = Duration::from_secs(30);

fn session(id: SessionId, name: &str) -> Value {
    json!({
        "id": id, "name": name, "mode": "shell", "cwd": "/home", "state": "running", "state_since": 0,
        "created_at": 0, "size": { "cols": 80, "rows": 24 }, "epoch": 0, "output_bytes": 0,
    })
}

/// The next message of that type.
pub async fn until(socket: &mut Socket, kind: &str) -> Value {
    let found = async {
        loop {
            let message = next(socket).await;
            if message["type"] == kind {
                return message;
            }
        }
    };
    tokio::time::timeout(WITHIN, found).await.unwrap_or_else(|_| panic!("no {kind} came"))
}

pub async fn paired<'a>(
    relay: &'a Relay,
    address: SocketAddr,
    browser: &Browser<'_>,
) -> (Agent<'a>, MachineId, String, Socket) {
    let agent = Agent::new(relay);
    let answer = agent.pair_with(browser).await.body;
    let token = answer["token"].as_str().unwrap().to_owned();
    let socket = link(address, &agent, &token).await.unwrap();
    (agent, answer["machine_id"].as_str().unwrap().parse().unwrap(), token, socket)
}

#[tokio::test]
async fn what_a_machine_says_cannot_poison_its_later_news() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (_, id, _, mut machine) = paired(&relay, address, &alice).await;
    let mut browser = page(address, &alice).await;
    let (bad, good) = (SessionId::from_bytes([1; 16]), SessionId::from_bytes([2; 16]));
    let mut odd = session(bad, "a\0b");
    odd["cwd"] = json!("/\0");
    odd["title"] = json!("t\0");
    odd["created_at"] = json!(i64::MIN);
    say(&mut machine, json!({ "type": "session", "session": odd })).await;
    let facts = json!({ "hostname": "ca\u{202e}st\0or\u{1b}[2J", "roots": ["/\0x"], "load_1m": 1e300 });
    say(&mut machine, json!({ "type": "facts", "facts": facts })).await;
    say(&mut machine, json!({ "type": "session", "session": session(good, "fine") })).await;
    let seen = loop {
        let seen = until(&mut browser, "session").await;
        if seen["session"]["name"] == "fine" {
            break seen;
        }
    };
    assert_eq!(seen["session"]["id"], json!(good));
    let listed = alice.get("/api/sessions").await.body;
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert!(names.contains(&json!("ab")) && names.contains(&json!("fine")), "{names:?}");
    loop {
        let machine = alice.get(&format!("/api/machines/{id}")).await.body;
        if machine["facts"]["hostname"] == "castor[2J" {
            assert_eq!(machine["facts"]["roots"], json!(["/x"]));
            break;
        }
        until(&mut browser, "machine").await;
    }
}

#[tokio::test]
async fn a_revocation_beside_the_relay_closes_links_in_time() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (agent, id, token, mut machine) = paired(&relay, address, &alice).await;
    // As another relay of the fleet, or a request that was cut off in the middle, would leave it.
    assert!(machine::remove(&relay.db, alice.user.id, id, relay.now()).await.unwrap());
    assert_eq!(closed(&mut machine).await, 4401);
    assert_eq!(link(address, &agent, &token).await.err(), Some(401));
}

#[tokio::test]
async fn a_link_of_an_older_pairing_cannot_give_up_the_newer_one() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (_, id, _, mut machine) = paired(&relay, address, &alice).await;
    // Paired anew at another relay of the fleet: this one has not noticed yet.
    relay
        .database
        .execute("update machines set connection_epoch = connection_epoch + 1, token_digest = sha256('x')")
        .await;
    say(&mut machine, json!({ "type": "goodbye", "reason": "unpairing" })).await;
    let _ = closed(&mut machine).await;
    assert_ne!(alice.get(&format!("/api/machines/{id}")).await.body["state"], "revoked");
}

#[tokio::test]
async fn opening_the_terminal_of_an_absent_machine_holds_nothing_up() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (_, _, _, mut machine) = paired(&relay, address, &alice).await;
    let id = SessionId::from_bytes([3; 16]);
    let mut browser = page(address, &alice).await;
    say(&mut machine, json!({ "type": "session", "session": session(id, "one") })).await;
    until(&mut browser, "session").await;
    machine.close(None).await.unwrap();
    while until(&mut browser, "machine").await["machine"]["state"] != "unreachable" {}

    let mut lock = sqlx::PgConnection::connect_with(&relay.database.options()).await.unwrap();
    sqlx::query(AssertSqlSafe("begin")).execute(&mut lock).await.unwrap();
    sqlx::query(AssertSqlSafe("lock table sessions in access exclusive mode"))
        .execute(&mut lock)
        .await
        .unwrap();
    let attach = |channel: u16| json!({ "type": "attach", "channel": channel, "session": id, "may_size": false, "credit": 1 });
    for channel in [1, 2] {
        say(&mut browser, attach(channel)).await;
    }
    say(&mut browser, json!({ "type": "ping", "nonce": 7 })).await;
    assert_eq!(until(&mut browser, "pong").await["nonce"], 7);
    // A wish that was taken back is not granted later.
    say(&mut browser, json!({ "type": "detach", "channel": 2 })).await;
    assert_eq!(until(&mut browser, "detached").await["channel"], 2);
    sqlx::query(AssertSqlSafe("commit")).execute(&mut lock).await.unwrap();
    let told = until(&mut browser, "link").await;
    assert_eq!((&told["channel"], &told["is_up"]), (&json!(1), &json!(false)));
    // The channel is in use now, and was when it only waited.
    say(&mut browser, attach(1)).await;
    assert_eq!(closed(&mut browser).await, 4400);
}

#[tokio::test]
async fn a_failing_audit_log_takes_nobody_the_token() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let agent = Agent::new(&relay);
    let started = agent.initiate().await;
    assert_eq!(agent.claimed_by(&alice, &started).await.status, StatusCode::OK);
    assert_eq!(agent.poll(&started, true).await.status, StatusCode::OK);
    relay.database.execute("alter table audit_log rename to audit_log_away").await;
    let answer = agent.confirm(&started, &alice.user.email).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert!(answer.body["token"].as_str().unwrap().starts_with("mn_"));
    let user = relay.user("bob@example.com").await;
    let link = relay.login_link(&user).await;
    let answer = relay.call(Method::POST, "/api/auth/login-link", Some(json!({ "token": link }))).await;
    assert_eq!(answer.status, StatusCode::OK, "a link that is used up must log in");
}

#[tokio::test]
async fn without_a_database_terminals_go_on_and_the_rest_says_why() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (_, _, _, mut machine) = paired(&relay, address, &alice).await;
    let mut browser = page(address, &alice).await;
    let id = SessionId::from_bytes([4; 16]);
    say(&mut machine, json!({ "type": "session", "session": session(id, "one") })).await;
    until(&mut browser, "session").await;
    relay.db.close().await;
    let answer = alice.get("/api/machines").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    assert_eq!(alice.get("/api/health").await.body["database"], "away");
    say(
        &mut browser,
        json!({ "type": "attach", "channel": 9, "session": id, "may_size": false, "credit": 1 }),
    )
    .await;
    assert_eq!(until(&mut machine, "stream_open").await["session"], json!(id));
    let nobody = SessionId::from_bytes([5; 16]);
    say(
        &mut browser,
        json!({ "type": "attach", "channel": 8, "session": nobody, "may_size": false, "credit": 1 }),
    )
    .await;
    assert_eq!(until(&mut browser, "detached").await["error"]["code"], "unavailable");
}

#[tokio::test]
async fn strangers_get_little_room_before_the_ticket() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let origin = [("origin", format!("http://{address}"))];
    for first in [Message::text("x".repeat(300 * 1024)), Message::binary(vec![0; 64]), Message::text("{")] {
        let mut socket = dial(address, "/ws", BROWSER_SUBPROTOCOL, &origin).await.unwrap();
        // A message beyond the limit may end the connection before it is written whole.
        let _ = socket.send(first).await;
        let end = async {
            use futures_util::StreamExt as _;
            while let Some(Ok(message)) = socket.next().await {
                assert!(!message.to_string().contains("ready"), "{message}");
            }
        };
        tokio::time::timeout(WITHIN, end).await.expect("the socket is closed");
    }
}

#[tokio::test]
async fn sockets_cannot_be_opened_without_end() {
    let relay = Relay::new().await;
    let try_one = async |address: &str| {
        let draft = crate::harness::request(Method::GET, "/ws/agent", None);
        relay.send(draft.header("x-forwarded-for", address).body_of()).await.status
    };
    let mut refused = 0;
    for _ in 0..2_100 {
        refused += usize::from(try_one("198.51.100.7").await == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!((1..=100).contains(&refused), "{refused}");
    assert_eq!(try_one("203.0.113.7").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn odd_codes_in_addresses_are_no_server_errors() {
    let relay = Relay::new().await;
    for path in ["%ff", "%00", "..%2f..", "A7K-M2X%0d%0a", "%E2%80%AE", &"x".repeat(5_000)] {
        for what in ["poll", "confirm", "deny"] {
            let body = json!({ "pairing_id": uuid::Uuid::nil(), "sequence": u64::MAX, "signature": "" });
            let answer = relay.call(Method::POST, &format!("/api/pairing/{path}/{what}"), Some(body)).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {:?}", answer.body);
        }
    }
}

#[test]
fn a_body_that_trickles_in_is_given_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let relay = Relay::new().await;
        let never = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let request = axum::http::Request::builder()
            .method(Method::POST)
            .uri("/api/pairing/enrol")
            .header("content-type", "application/json")
            .body(never)
            .unwrap();
        tokio::time::pause();
        let answer = relay.send(request).await;
        tokio::time::resume();
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "bad_request"));
    });
}

/// The program itself, not the router: what the server below it does.
#[test]
fn only_http_1_is_spoken_and_files_are_private() {
    let dir = crate::program::scratch();
    let relay = crate::program::Running::start(&dir.path().join("data"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut stream = tokio::net::TcpStream::connect(relay.listen()).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(WITHIN, stream.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 4") || answer.is_empty(), "{answer:?}");
    });
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &str| std::fs::metadata(relay.data.join(path)).unwrap().permissions().mode() & 0o777;
    for (path, most) in [
        (".", 0o711),
        ("relay.json", 0o600),
        ("relay.lock", 0o600),
        ("postgres.log", 0o600),
        ("postgres", 0o700),
        ("postgres/socket", 0o700),
        ("postgres/data", 0o700),
    ] {
        assert_eq!(mode(path) & !most, 0, "{path} is {:o}", mode(path));
    }
    relay.stop();
}

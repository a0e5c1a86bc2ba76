//! Links against a relay that lives in the test: storms of 502, half-open peers, restarts, revocations.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use claudenest_shared::approval::Approval;
use claudenest_shared::code::WireError;
use claudenest_shared::id::{MachineId, SessionId};
use claudenest_shared::lock::{Lock, LockEnd};
use claudenest_shared::machine::{GoodbyeReason, MachineFacts};
use claudenest_shared::pairing::link_message;
use claudenest_shared::secret::Secret;
use claudenest_shared::session::SessionInfo;
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::{AgentMessage, Op, RelayMessage, Reply};
use ed25519_dalek::{Signature, VerifyingKey};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_util::task::TaskTracker;

use super::{LinkHost, LinkState, LinkStatus, Links};
use crate::config::{Config, CredentialStore};
use crate::credential::{PairedRelay, Relays, Vault, unhex};
use crate::guard::GuardEvent;
use crate::paths::Paths;
use crate::session::SessionHandle;
use crate::supervisor::SessionEvent;

const TOKEN: &str = "mn_token";
const PATIENCE: Duration = Duration::from_secs(20);

struct Host {
    events: broadcast::Sender<SessionEvent>,
    guard_events: broadcast::Sender<GuardEvent>,
    held: Mutex<(Vec<Approval>, Vec<Lock>)>,
}

impl LinkHost for Host {
    async fn execute(&self, op: Op) -> Reply {
        match op {
            Op::SessionList {} => Reply::Sessions { sessions: Vec::new() },
            _ => Reply::Done {},
        }
    }

    async fn facts(&self) -> MachineFacts {
        MachineFacts { hostname: "studio".into(), ..MachineFacts::default() }
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        Vec::new()
    }

    fn info(&self, _: SessionId) -> Option<SessionInfo> {
        None
    }

    fn session(&self, _: SessionId) -> Option<SessionHandle> {
        None
    }

    fn subscribe(&self) -> broadcast::Receiver<SessionEvent> {
        self.events.subscribe()
    }

    async fn approvals(&self) -> Result<Vec<Approval>, WireError> {
        Ok(self.held.lock().unwrap().0.clone())
    }

    fn locks(&self) -> Vec<Lock> {
        self.held.lock().unwrap().1.clone()
    }

    fn guard_events(&self) -> broadcast::Receiver<GuardEvent> {
        self.guard_events.subscribe()
    }
}

struct Bed {
    listener: TcpListener,
    links: Links<Host>,
    host: Arc<Host>,
    tasks: TaskTracker,
    paths: Paths,
    public_key: [u8; 32],
    _temp: tempfile::TempDir,
}

type Socket = WebSocketStream<TcpStream>;

impl Bed {
    async fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let data_dir = temp.path().join("data");
        let paths = Paths { config_file: temp.path().join("c"), runtime_dir: data_dir.join("run"), data_dir };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = Config { credential_store: CredentialStore::File, ..Config::default() };
        let vault = Vault::open(&paths, CredentialStore::File);
        let public_key = vault.identity(false).unwrap().public_key();
        vault.set_token(&url, &Secret::new(TOKEN.to_owned())).unwrap();
        let relay = PairedRelay {
            url,
            account: "a@b".into(),
            machine_id: MachineId::from_bytes([1; 16]),
            machine_name: "studio".into(),
            paired_at: UnixMs(0),
            allow_plain_http: false,
            extra_ca: vec![],
        };
        Relays { relays: vec![relay] }.save(&paths).unwrap();
        let host = Arc::new(Host {
            events: broadcast::channel(16).0,
            guard_events: broadcast::channel(4).0,
            held: Mutex::default(),
        });
        let tasks = TaskTracker::new();
        let links = Links::new(Arc::clone(&host), paths.clone(), config, tasks.clone());
        links.reload().unwrap();
        Self { listener, links, host, tasks, paths, public_key, _temp: temp }
    }

    async fn connection(&self) -> TcpStream {
        tokio::time::timeout(PATIENCE, self.listener.accept()).await.expect("the agent connects").unwrap().0
    }

    async fn refuse(&self, status: &str, body: &str) {
        let mut stream = self.connection().await;
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    /// Accepts the next connection up to the welcome, checking token and signature.
    #[expect(clippy::result_large_err, reason = "the callback's type is given by the library")]
    async fn accept_as(&self, heartbeat_ms: u32, takes_guard: bool) -> Socket {
        let check = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            assert_eq!(request.uri().path(), "/ws/agent");
            assert_eq!(request.headers()["authorization"], format!("Bearer {TOKEN}"));
            let protocol = request.headers()["sec-websocket-protocol"].clone();
            response.headers_mut().insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(self.connection().await, check).await.unwrap();
        let challenge = RelayMessage::Challenge { nonce: "07".repeat(32), time: UnixMs(0) };
        send(&mut socket, &challenge).await;
        let AgentMessage::Hello { signature, facts, .. } = receive(&mut socket).await else {
            panic!("not a hello")
        };
        assert_eq!(facts.hostname, "studio");
        let digest = claudenest_shared::token::digest(TOKEN);
        let signature = Signature::from_bytes(&unhex::<64>(&signature).unwrap());
        let key = VerifyingKey::from_bytes(&self.public_key).unwrap();
        key.verify_strict(&link_message(&[7; 32], &digest), &signature).unwrap();
        let welcome = RelayMessage::Welcome {
            machine_id: MachineId::from_bytes([2; 16]),
            machine_name: "studio".into(),
            connection_epoch: 1,
            heartbeat_ms,
            takes_history: false,
            takes_guard,
        };
        send(&mut socket, &welcome).await;
        socket
    }

    /// The same as a relay that keeps nothing.
    async fn accept(&self, heartbeat_ms: u32) -> Socket {
        self.accept_as(heartbeat_ms, false).await
    }

    /// Waits for a state; the statuses are published by the link's task.
    async fn state(&self, wanted: LinkState) -> LinkStatus {
        let wait = async {
            loop {
                let status = self.links.status().remove(0);
                if status.state == wanted {
                    return status;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the state comes")
    }
}

async fn send(socket: &mut Socket, message: &RelayMessage) {
    socket.send(Message::text(serde_json::to_string(message).unwrap())).await.unwrap();
}

async fn receive(socket: &mut Socket) -> AgentMessage {
    loop {
        let next = tokio::time::timeout(PATIENCE, socket.next()).await.expect("a message comes");
        match next.expect("the socket is open").unwrap() {
            Message::Text(text) => return serde_json::from_str(text.as_str()).unwrap(),
            Message::Close(_) => panic!("closed"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_storm_of_502_is_survived_and_then_requests_are_answered() {
    let bed = Bed::new().await;
    for _ in 0..4 {
        bed.refuse("502 Bad Gateway", "<html>nginx</html>").await;
    }
    let status = bed.state(LinkState::Waiting).await;
    assert!(status.last_error.unwrap().contains("502"));
    let mut socket = bed.accept(60_000).await;
    assert_eq!(bed.state(LinkState::Online).await.last_error, None);
    send(&mut socket, &RelayMessage::Request { request: 5, op: Op::SessionList {} }).await;
    let reply = Reply::Sessions { sessions: Vec::new() };
    assert_eq!(receive(&mut socket).await, AgentMessage::Response { request: 5, reply });
    let future = r#"{"type":"request","request":6,"op":{"op":"from_the_future"}}"#;
    socket.send(Message::text(future)).await.unwrap();
    let AgentMessage::Response { request: 6, reply: Reply::Error { .. } } = receive(&mut socket).await else {
        panic!("an unknown request is answered")
    };
    let session = SessionId::from_bytes([3; 16]);
    bed.host.events.send(SessionEvent::Removed(session)).unwrap();
    assert_eq!(receive(&mut socket).await, AgentMessage::SessionRemoved { session });
}

#[tokio::test]
async fn a_half_open_connection_is_found_by_silence() {
    let bed = Bed::new().await;
    let silent = bed.accept(100).await;
    bed.state(LinkState::Online).await;
    let mut next = bed.accept(60_000).await;
    drop(silent);
    send(&mut next, &RelayMessage::Request { request: 1, op: Op::SessionList {} }).await;
    assert!(matches!(receive(&mut next).await, AgentMessage::Response { request: 1, .. }));
}

#[tokio::test]
async fn a_restarting_relay_gets_the_machine_back() {
    let bed = Bed::new().await;
    let mut socket = bed.accept(60_000).await;
    send(&mut socket, &RelayMessage::Restarting { retry_after_ms: 50 }).await;
    let _socket = bed.accept(60_000).await;
    bed.state(LinkState::Online).await;
}

#[tokio::test]
async fn a_revoked_token_is_shown_and_not_hammered() {
    let bed = Bed::new().await;
    bed.refuse("401 Unauthorized", r#"{"error":{"code":"revoked","message":"Unpaired. Pair again."}}"#).await;
    let status = bed.state(LinkState::Revoked).await;
    assert_eq!(status.last_error.as_deref(), Some("Unpaired. Pair again."));
    assert!(status.next_attempt_at.unwrap().0 > status.since.0 + 290_000);
    // A person has repaired it: the next try comes at once.
    bed.links.hurry();
    let _socket = bed.accept(60_000).await;
    bed.state(LinkState::Online).await;
}

#[tokio::test]
async fn a_401_of_a_proxy_is_no_revocation() {
    let bed = Bed::new().await;
    bed.refuse("401 Unauthorized", "who are you").await;
    bed.state(LinkState::Waiting).await;
    let _socket = bed.accept(60_000).await;
}

#[tokio::test]
async fn stopping_says_goodbye_and_ends_every_task() {
    let bed = Bed::new().await;
    let mut socket = bed.accept(60_000).await;
    bed.state(LinkState::Online).await;
    bed.links.stop(GoodbyeReason::Stopping);
    assert_eq!(receive(&mut socket).await, AgentMessage::Goodbye { reason: GoodbyeReason::Stopping });
    while let Some(Ok(message)) = socket.next().await {
        assert!(message.is_close());
    }
    drop(socket);
    bed.tasks.close();
    tokio::time::timeout(PATIENCE, bed.tasks.wait()).await.expect("every task ends");
}

#[tokio::test]
async fn a_relay_that_is_unpaired_loses_its_link() {
    let bed = Bed::new().await;
    let mut socket = bed.accept(60_000).await;
    bed.state(LinkState::Online).await;
    Relays::default().save(&bed.paths).unwrap();
    bed.links.reload().unwrap();
    assert_eq!(receive(&mut socket).await, AgentMessage::Goodbye { reason: GoodbyeReason::Unpairing });
    assert!(bed.links.status().is_empty());
}

fn approval(number: u8, version: u64) -> Approval {
    serde_json::from_value(json!({
        "id": uuid::Uuid::from_bytes([number; 16]), "session": uuid::Uuid::nil(), "session_name": "a", "kind": "tool",
        "tool": "Bash", "summary": "s", "input": {}, "input_sha256": "d", "cwd": "/", "risk": "low", "why": "w",
        "state": "pending", "state_since": 0, "created_at": 0, "version": version,
    }))
    .unwrap()
}

fn lock(number: u8) -> Lock {
    serde_json::from_value(json!({
        "id": uuid::Uuid::from_bytes([number; 16]), "path": "/a", "project": "/", "kind": "file",
        "holder": { "kind": "person", "label": "dev" }, "origin": "person", "fence": number, "since": 0,
        "expires_at": 1, "version": number,
    }))
    .unwrap()
}

#[tokio::test]
async fn a_relay_is_told_every_approval_and_lock_and_again_when_changes_were_missed() {
    let bed = Bed::new().await;
    *bed.host.held.lock().unwrap() = (vec![approval(1, 1)], vec![lock(1), lock(2)]);
    let mut socket = bed.accept_as(60_000, true).await;
    let told = |number, version| AgentMessage::Approval { approval: Box::new(approval(number, version)) };
    let held = |number| AgentMessage::Lock { lock: Box::new(lock(number)) };
    for expected in [told(1, 1), AgentMessage::ApprovalsSent {}, held(1), held(2), AgentMessage::LocksSent {}]
    {
        assert_eq!(receive(&mut socket).await, expected);
    }
    bed.host.guard_events.send(GuardEvent::Approval(Box::new(approval(2, 1)))).unwrap();
    bed.host.guard_events.send(GuardEvent::Lock(Box::new(lock(3)))).unwrap();
    let ended = GuardEvent::LockEnded { lock: lock(1).id, end: LockEnd::Forced };
    bed.host.guard_events.send(ended).unwrap();
    for expected in [told(2, 1), held(3), AgentMessage::LockEnded { lock: lock(1).id, end: LockEnd::Forced }]
    {
        assert_eq!(receive(&mut socket).await, expected);
    }
    // More at once than a subscriber may be behind: among them, unheard, the end of a lock.
    *bed.host.held.lock().unwrap() = (vec![approval(2, 9)], vec![lock(3)]);
    for version in 2..=9 {
        bed.host.guard_events.send(GuardEvent::Approval(Box::new(approval(2, version)))).unwrap();
    }
    for expected in [
        told(2, 9),
        AgentMessage::ApprovalsSent {},
        held(3),
        AgentMessage::LockEnded { lock: lock(2).id, end: LockEnd::Released },
        AgentMessage::LocksSent {},
    ] {
        assert_eq!(receive(&mut socket).await, expected);
    }
}

#[tokio::test]
async fn a_relay_that_keeps_no_approvals_is_told_of_none() {
    let bed = Bed::new().await;
    *bed.host.held.lock().unwrap() = (vec![approval(1, 1)], vec![lock(1)]);
    let mut socket = bed.accept(60_000).await;
    bed.state(LinkState::Online).await;
    let _ = bed.host.guard_events.send(GuardEvent::Approval(Box::new(approval(1, 2))));
    send(&mut socket, &RelayMessage::Request { request: 1, op: Op::SessionList {} }).await;
    assert!(matches!(receive(&mut socket).await, AgentMessage::Response { request: 1, .. }));
}

//! Both endpoints with real sockets on loopback: a fake machine, fake pages, a directory in memory.

mod directory;
mod machine;
mod page;
mod refusals;
mod terminals;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use claudenest_shared::id::{MachineId, SessionId, UserId};
use claudenest_shared::token::{self, ENTROPY_BYTES, TokenKind};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::directory::MemoryDirectory;
use self::machine::{Disk, Machine};
use super::{Context, Timing, router};
use crate::clock::Clock;
use crate::hub::Hub;
use crate::hub::directory::{KnownLogin, KnownMachine};

type Ws = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// No step of these tests takes this long; without it a bug would hang the run.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a machine proves itself with.
struct Keys {
    machine: MachineId,
    token: String,
    signing: ed25519_dalek::SigningKey,
}

/// A relay's sockets without the rest of the relay.
struct Relay {
    address: String,
    hub: Hub,
    directory: Arc<MemoryDirectory>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Relay {
    async fn start() -> Self {
        Self::start_with(Timing::default()).await
    }

    async fn start_with(timing: Timing) -> Self {
        let directory = Arc::new(MemoryDirectory::default());
        let hub = Hub::with_directory(Arc::clone(&directory) as _, Clock::system());
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let context = Context {
            hub: hub.clone(),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
            is_own_page: Arc::new(crate::auth::origin::is_same_host),
            timing,
        };
        let app: Router = router().with_state(context);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = shutdown.clone();
        tokio::spawn(async move {
            axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await.unwrap();
        });
        Self { address, hub, directory, tasks, shutdown }
    }

    /// Pairs a machine of that user.
    fn pair(&self, user: u8) -> Arc<Keys> {
        let mut entropy = [0; ENTROPY_BYTES];
        getrandom::fill(&mut entropy).unwrap();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let keys = Keys {
            machine: MachineId(Uuid::new_v4()),
            token: token::mint(TokenKind::Machine, &entropy).expose().clone(),
            signing: ed25519_dalek::SigningKey::from_bytes(&seed),
        };
        let known = KnownMachine {
            id: keys.machine,
            user: user_id(user),
            name: "box".into(),
            public_key: keys.signing.verifying_key().to_bytes(),
            is_revoked: false,
        };
        self.directory.with(|state| state.machines.insert(token::digest(&keys.token), known));
        Arc::new(keys)
    }

    /// A ticket of that user; every user has one login.
    fn ticket(&self, user: u8) -> String {
        let ticket = Uuid::new_v4().to_string();
        let login = KnownLogin {
            login: Uuid::from_bytes([user; 16]),
            user: user_id(user),
            label: format!("user{user}@example.com"),
        };
        self.directory.with(|state| state.tickets.insert(ticket.clone(), login));
        ticket
    }

    /// A machine of that user with sessions of these numbers.
    async fn machine(&self, user: u8, sessions: &[u8]) -> (Arc<Keys>, Machine) {
        let keys = self.pair(user);
        let mut disk = Disk::default();
        for session in sessions {
            disk.output.insert(session_id(*session), Vec::new());
        }
        let machine = Machine::start(&self.address, &keys, disk).await;
        (keys, machine)
    }

    /// Stops and waits until every task is gone.
    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn user_id(number: u8) -> UserId {
    UserId(Uuid::from_bytes([number; 16]))
}

fn session_id(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

/// Runs a test with a deadline.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test takes too long") });
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at >> 16) as u8).collect()
}

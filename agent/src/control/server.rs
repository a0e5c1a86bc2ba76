//! The daemon's side of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;
use claudenest_shared::session::SessionState;
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::codec::{Packet, decode, encode_frame, encode_json};
use super::peer::{self, Peer};
use super::tell::{tell_changes, tell_guard};
use super::{ClientMessage, DaemonMessage, FromClient, FromDaemon, Links, Status};
use crate::channel::{Channels, Outgoing};
use crate::guard::{Guard, Who};
use crate::paths::Paths;
use crate::supervisor::Supervisor;
use crate::unix_socket::{self, ReadHalf, WriteHalf};
use crate::yields;

/// Answers that wait to be written; whoever asks faster than it reads waits.
const ANSWERS: usize = 64;
/// Terminal output that waits to be written: a few frames; more would only be latency.
const OUTGOING: usize = 16;
/// Gathered for one write: two full frames.
const BATCH_BYTES: usize = 128 * 1024;
/// Requests of one connection that are worked on at the same time.
const REQUESTS: usize = 32;
/// Connections at the same time: far more than sessions with hooks and people with terminals.
const CONNECTIONS: usize = 512;
/// A client that does not read for this long is gone: terminals read all the time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that connects and says nothing.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

const NOT_A_HELLO: &str = "The client did not say who it is; client and daemon may be of different versions.";
const NOT_VALID: &str =
    "The capability of this session is not valid: the session has ended or was restarted.";
const OF_ANOTHER_SESSION: &str = "This program was started by another session than it says.";
const OF_AN_ENDED_SESSION: &str =
    "This program was started by a session that has ended. Run the command outside of sessions.";
const NOT_KNOWN: &str = "The daemon cannot find out which program asks, so it does nothing for it. Run the command on this machine itself, \
     outside of containers and sessions.";

/// Why this daemon cannot have the socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon has it.
    #[error(
        "Another agent already runs with this data directory{}. Use it, or stop it first.",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Running {
        /// Its process id, if it said one.
        pid: Option<u32>,
    },
    /// The lock file or socket cannot be made.
    #[error("The file {path} cannot be used: {source}. Check who may write there.")]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// The bound socket, and the proof that no other daemon has it.
#[derive(Debug)]
pub struct Bound {
    listener: UnixListener,
    socket: PathBuf,
    /// Locked until the process ends, however it ends.
    _lock: std::fs::File,
}

/// Takes the daemon's lock and binds the socket; a stale socket is replaced.
///
/// # Errors
/// [`BindError`].
pub fn bind(paths: &Paths) -> Result<Bound, BindError> {
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let lock_path = paths.lock_file();
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| BindError::Io { path, source }
    };
    let mut options = std::fs::OpenOptions::new();
    let mut lock = options
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(at(&lock_path))?;
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        let pid = std::fs::read_to_string(&lock_path).ok().and_then(|text| text.trim().parse().ok());
        return Err(BindError::Running { pid });
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(at(&lock_path))?;
    let socket = paths.control_socket();
    // With the lock held, whatever lies there belongs to nobody.
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&socket)(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&socket).map_err(at(&socket))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).map_err(at(&socket))?;
    Ok(Bound { listener, socket, _lock: lock })
}

/// Serves the socket until `cancel`; then the socket is removed.
///
/// # Cancel safety
/// Meant to be spawned; end it by `cancel`.
pub async fn serve(
    bound: Bound,
    guard: Guard,
    links: Arc<dyn Links>,
    tasks: TaskTracker,
    cancel: CancellationToken,
) {
    let daemon = Arc::new(Daemon {
        supervisor: guard.supervisor().clone(),
        guard,
        socket: bound.socket.clone(),
        links,
        started_at: crate::supervisor::now().wall,
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = bound.listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept a connection");
                // Out of file descriptors: do not spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let is_own = stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw());
        if !is_own {
            tracing::warn!("a connection of another user to the control socket was refused");
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("too many connections to the control socket; one was refused");
            continue;
        };
        let connection = Connection::run(Arc::clone(&daemon), stream, tasks.clone(), cancel.child_token());
        tasks.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    let _ = std::fs::remove_file(&bound.socket);
}

struct Daemon {
    guard: Guard,
    socket: PathBuf,
    supervisor: Supervisor,
    links: Arc<dyn Links>,
    started_at: UnixMs,
}

/// What goes to the client besides its channels.
pub(super) type Answers = mpsc::Sender<Bytes>;

struct Connection {
    daemon: Arc<Daemon>,
    who: Who,
    answers: Answers,
    channels: Channels,
    requests: Arc<Semaphore>,
    is_subscribed: bool,
    is_guard_subscribed: bool,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Connection {
    /// Serves one client to its end.
    async fn run(daemon: Arc<Daemon>, stream: UnixStream, tasks: TaskTracker, cancel: CancellationToken) {
        // The number that the kernel has noted when it connected.
        let pid = stream.peer_cred().ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
        let (reader, writer) = match unix_socket::split(stream) {
            Ok(halves) => halves,
            Err(error) => {
                return tracing::warn!(%error, "a connection to the control socket cannot be served");
            }
        };
        let (answers, answers_out) = mpsc::channel(ANSWERS);
        let (outgoing, outgoing_out) = mpsc::channel(OUTGOING);
        tasks.spawn(write(writer, answers_out, outgoing_out, cancel.clone()));
        let mut buffer = BytesMut::with_capacity(8 * 1024);
        let hello = tokio::select! {
            () = cancel.cancelled() => None,
            hello = tokio::time::timeout(HELLO_TIMEOUT, next(&reader, &mut buffer)) => hello.ok().flatten(),
        };
        let who = match &hello {
            Some(packet) => daemon.who(packet, pid).await,
            None => Err(NOT_A_HELLO),
        };
        let who = match who {
            Ok(who) => who,
            Err(sentence) => {
                let error = WireError::new(ErrorCode::Forbidden, sentence);
                send(&answers, &DaemonMessage::Failed { request: 0, error }).await;
                return; // The writer ends with its channels, after it has written that.
            }
        };
        let welcome =
            DaemonMessage::Welcome { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() };
        send(&answers, &welcome).await;
        let supervisor = daemon.supervisor.clone();
        let channels = Channels::new(Arc::new(move |session| supervisor.session(session)), outgoing, true);
        let requests = Arc::new(Semaphore::new(REQUESTS));
        let mut connection = Self {
            daemon,
            who,
            answers,
            channels,
            requests,
            is_subscribed: false,
            is_guard_subscribed: false,
            tasks,
            cancel: cancel.clone(),
        };
        loop {
            let packet = tokio::select! {
                () = cancel.cancelled() => break,
                packet = next(&reader, &mut buffer) => packet,
            };
            let Some(packet) = packet else { break };
            if let Err(sentence) = connection.handle(packet).await {
                let error = WireError::new(ErrorCode::BadRequest, sentence);
                send(&connection.answers, &DaemonMessage::Failed { request: 0, error }).await;
                break;
            }
        }
        // Requests under way have nobody left to answer to.
        cancel.cancel();
    }

    async fn handle(&mut self, packet: Packet) -> Result<(), String> {
        let json = match packet {
            Packet::Frame(frame) if self.who.is_operator() => {
                return self.channels.frame(frame).map_err(str::to_owned);
            }
            Packet::Frame(_) => return Err("A supervised session may not use terminals.".to_owned()),
            Packet::Json(json) => json,
        };
        let message: FromClient = serde_json::from_slice(&json).map_err(|_| {
            "The message is not understood; client and daemon may be of different versions.".to_owned()
        })?;
        match message {
            FromClient::Link(RelayMessage::Request { request, op }) => {
                let (daemon, who) = (Arc::clone(&self.daemon), self.who.clone());
                self.work(async move {
                    let reply = daemon.guard.execute(op, &who).await;
                    FromDaemon::Link(AgentMessage::Response { request, reply })
                })
                .await;
            }
            FromClient::Link(message) if self.who.is_operator() => {
                self.channels
                    .message(message)
                    .await
                    .map_err(|_| "This message belongs to the link of a relay.".to_owned())?;
            }
            FromClient::Link(_) => return Err("A supervised session may not use terminals.".to_owned()),
            FromClient::Local(message) => self.local(message).await,
        }
        Ok(())
    }

    async fn local(&mut self, message: ClientMessage) {
        let daemon = Arc::clone(&self.daemon);
        let who = self.who.clone();
        match message {
            ClientMessage::Hello { .. } => {}
            ClientMessage::Hook { request, input, call } => {
                self.work(async move { FromDaemon::Local(daemon.hook(&who, request, &input, &call).await) })
                    .await;
            }
            ClientMessage::Nest { request, wish } => {
                self.work(async move {
                    FromDaemon::Local(match daemon.guard.nest(&who, wish).await {
                        Ok(answer) => DaemonMessage::Nest { request, answer },
                        Err(error) => DaemonMessage::Failed { request, error },
                    })
                })
                .await;
            }
            ClientMessage::Wait { request, session, states, timeout_ms } => {
                if !who.is_operator() {
                    return self.refuse(request).await;
                }
                let timeout = timeout_ms.map(Duration::from_millis);
                self.work(
                    async move { FromDaemon::Local(daemon.wait(request, session, states, timeout).await) },
                )
                .await;
            }
            ClientMessage::Status { request } if who.is_operator() => {
                self.work(async move {
                    let status = Box::new(daemon.status().await);
                    FromDaemon::Local(DaemonMessage::Status { request, status })
                })
                .await;
            }
            ClientMessage::ReloadRelays { request } if who.is_operator() => {
                daemon.links.reload();
                send(&self.answers, &DaemonMessage::Done { request }).await;
            }
            ClientMessage::Status { request } | ClientMessage::ReloadRelays { request } => {
                self.refuse(request).await
            }
            ClientMessage::Subscribe {} if who.is_operator() && !self.is_subscribed => {
                self.is_subscribed = true;
                let (answers, cancel) = (self.answers.clone(), self.cancel.clone());
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = tell_changes(&daemon.supervisor, &answers) => {}
                    }
                });
            }
            ClientMessage::Subscribe {} => {}
            ClientMessage::SubscribeGuard {} if who.is_operator() && !self.is_guard_subscribed => {
                self.is_guard_subscribed = true;
                let (answers, cancel) = (self.answers.clone(), self.cancel.clone());
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = tell_guard(&daemon.guard, &answers) => {}
                    }
                });
            }
            ClientMessage::SubscribeGuard {} => {}
            ClientMessage::LockRestore { request, lock } => {
                let Who::Local { label } = who else { return self.refuse(request).await };
                self.work(async move {
                    FromDaemon::Local(match daemon.guard.restore(lock, &label).await {
                        Ok((path, aside)) => {
                            let aside = aside.map(|aside| aside.to_string_lossy().into_owned());
                            DaemonMessage::LockRestored { request, path, aside }
                        }
                        Err(error) => DaemonMessage::Failed { request, error },
                    })
                })
                .await;
            }
        }
    }

    async fn refuse(&self, request: u64) {
        let sentence =
            "A supervised session may look at itself only. Run this command outside of the session.";
        let error = WireError::new(ErrorCode::Forbidden, sentence);
        send(&self.answers, &DaemonMessage::Failed { request, error }).await;
    }

    /// Works on a request beside the others of this connection.
    async fn work(&self, work: impl Future<Output = FromDaemon> + Send + 'static) {
        let Ok(place) = Arc::clone(&self.requests).acquire_owned().await else { return };
        let (answers, cancel) = (self.answers.clone(), self.cancel.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                answer = work => send(&answers, &answer).await,
            }
            drop(place);
        });
    }
}

impl Daemon {
    /// Who says this hello, or why nobody may.
    async fn who(&self, packet: &Packet, pid: Option<u32>) -> Result<Who, &'static str> {
        let Packet::Json(json) = packet else { return Err(NOT_A_HELLO) };
        let Ok(ClientMessage::Hello { session, capability }) = serde_json::from_slice(json) else {
            return Err(NOT_A_HELLO);
        };
        let live = self.supervisor.sessions().into_iter();
        let children: Vec<(u32, SessionId)> =
            live.filter_map(|info| Some((info.pid.filter(|_| info.state.is_live())?, info.id))).collect();
        let socket = self.socket.clone();
        let looked = tokio::task::spawn_blocking(move || peer::identify(pid, &children, &socket));
        let peer = looked.await.unwrap_or(Peer::Unknown);
        match (session, capability, peer) {
            (None, None, Peer::Person(label)) => Ok(Who::Local { label }),
            (None, None, Peer::Session(Some(session))) => Ok(Who::Session(session)),
            (None, None, Peer::Session(None)) => Err(OF_AN_ENDED_SESSION),
            (None, None, Peer::Unknown) => Err(NOT_KNOWN),
            (Some(session), Some(_), Peer::Session(Some(real))) if session != real => Err(OF_ANOTHER_SESSION),
            (Some(session), Some(capability), _)
                if self.supervisor.session_of_capability(session, &capability) =>
            {
                Ok(Who::Session(session))
            }
            (Some(_), Some(_), _) => Err(NOT_VALID),
            _ => Err(NOT_A_HELLO),
        }
    }

    async fn hook(&self, who: &Who, request: u64, input: &serde_json::Value, call: &str) -> DaemonMessage {
        let Who::Session(session) = who else {
            let error = WireError::new(ErrorCode::Forbidden, "Hooks come from supervised sessions only.");
            return DaemonMessage::Failed { request, error };
        };
        let output = self.guard.hook(*session, input, call).await;
        DaemonMessage::Hooked { request, output }
    }

    async fn wait(
        &self,
        request: u64,
        session: SessionId,
        states: Vec<SessionState>,
        timeout: Option<Duration>,
    ) -> DaemonMessage {
        let is_over = |state: SessionState| !state.is_live() && state != SessionState::Created;
        let wanted = states.clone();
        // The end of the process ends every waiting, in the wanted state or not.
        let waiting = self.supervisor.wait(session, move |info| {
            wanted.contains(&info.state)
                || (is_over(info.state) && (wanted.is_empty() || info.state.is_final()))
        });
        let waited = match timeout {
            Some(timeout) => tokio::time::timeout(timeout, waiting).await.ok(),
            None => Some(waiting.await),
        };
        let latest = || {
            self.supervisor
                .info(session)
                .ok_or_else(|| WireError::new(ErrorCode::NotFound, "The session was forgotten."))
        };
        let (result, is_timely) = match waited {
            Some(result) => (result, true),
            None => (latest(), false),
        };
        match result {
            Ok(info) => {
                let is_met = is_timely && (states.is_empty() || states.contains(&info.state));
                DaemonMessage::Waited { request, session: Box::new(info), is_met }
            }
            Err(error) => DaemonMessage::Failed { request, error },
        }
    }

    async fn status(&self) -> Status {
        let sessions = self.supervisor.sessions();
        let count = |is: fn(SessionState) -> bool| {
            u32::try_from(sessions.iter().filter(|info| is(info.state)).count()).unwrap_or(u32::MAX)
        };
        Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            facts: self.supervisor.facts().await,
            relays: self.links.relays(),
            live_sessions: count(SessionState::is_live),
            queued_sessions: count(|state| state == SessionState::Created),
            sessions: count(|_| true),
        }
    }
}

pub(super) async fn send(answers: &Answers, message: &impl serde::Serialize) {
    match encode_json(message) {
        Ok(bytes) => {
            let _ = answers.send(bytes).await;
        }
        Err(error) => tracing::error!(%error, "an answer on the control socket could not be encoded"),
    }
}

/// The next message; `None` when the client is gone or speaks nonsense. Cancel safe.
async fn next(reader: &ReadHalf, buffer: &mut BytesMut) -> Option<Packet> {
    loop {
        match decode(buffer) {
            Ok(Some(packet)) => return Some(packet),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "a client of the control socket was cut off");
                return None;
            }
        }
        match reader.read(buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// Writes answers and terminal output; ends when nobody can send any more.
async fn write(
    writer: WriteHalf,
    mut answers: mpsc::Receiver<Bytes>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    cancel: CancellationToken,
) {
    let (mut has_answers, mut has_outgoing) = (true, true);
    let mut batch = BytesMut::new();
    while has_answers || has_outgoing {
        tokio::select! {
            biased;
            answer = answers.recv(), if has_answers => match answer {
                Some(bytes) => batch.extend_from_slice(&bytes),
                None => { has_answers = false; continue }
            },
            out = outgoing.recv(), if has_outgoing => match out {
                Some(out) => append(&mut batch, out),
                None => { has_outgoing = false; continue }
            },
        }
        // An echo and the acknowledgement of its key come at the same time from two tasks: one write for both.
        yields::to_the_end().await;
        while batch.len() < BATCH_BYTES
            && let Ok(out) = outgoing.try_recv()
        {
            append(&mut batch, out);
        }
        match tokio::time::timeout(WRITE_TIMEOUT, writer.write_all(&batch)).await {
            Ok(Ok(())) => batch.clear(),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    cancel.cancel();
}

fn append(batch: &mut BytesMut, out: Outgoing) {
    match out {
        Outgoing::Frame(frame) => batch.extend_from_slice(&encode_frame(&frame)),
        // A message that cannot be encoded is none that a client waits for.
        Outgoing::Message(message) => batch.extend_from_slice(&encode_json(&message).unwrap_or_default()),
    }
}

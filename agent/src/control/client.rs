//! The client's side of the control socket.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use claudenest_shared::code::WireError;
use claudenest_shared::id::{LockId, SessionId};
use claudenest_shared::session::{SessionInfo, SessionState};
use claudenest_shared::wire::agent::{AgentMessage, Op, RelayMessage, Reply};
use claudenest_shared::wire::frame::Frame;

use super::codec::{CodecError, Packet, decode, encode_frame, encode_json};
use super::{ClientMessage, DaemonMessage, FromDaemon, Status};
use crate::guard::lock::second::Alert;
use crate::unix_socket::{self, ReadHalf, WriteHalf};

/// A daemon answers its hello within milliseconds, or it hangs.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens.
    #[error(
        "The agent's daemon does not run. Start it with `claudenest-agent run`, or for good with `claudenest-agent service install`."
    )]
    NotRunning,
    /// The socket is there and cannot be used.
    #[error("The daemon's socket {path} cannot be used: {source}.")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The connection ended in the middle.
    #[error("The daemon has closed the connection; it may have been restarted. Try again.")]
    Closed,
    /// It says something that this program does not understand.
    #[error(
        "The daemon speaks another version of the protocol. Restart it: `claudenest-agent service install` or stop and start `claudenest-agent run`."
    )]
    Protocol,
    /// It says no.
    #[error("{0}")]
    Refused(WireError),
}

impl From<CodecError> for ClientError {
    fn from(_: CodecError) -> Self {
        Self::Protocol
    }
}

/// As whom to connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// The user of the machine.
    Operator,
    /// A supervised session.
    Session {
        /// Which.
        session: SessionId,
        /// What proves it.
        capability: String,
    },
}

impl Identity {
    /// A supervised session's environment makes its programs that session; anything else is the operator.
    pub fn from_env() -> Self {
        let session = std::env::var("CLAUDENEST_SESSION").ok().and_then(|text| text.parse().ok());
        match (session, std::env::var("CLAUDENEST_CAPABILITY")) {
            (Some(session), Ok(capability)) => Self::Session { session, capability },
            _ => Self::Operator,
        }
    }

    pub(crate) fn hello(&self) -> ClientMessage {
        match self {
            Self::Operator => ClientMessage::Hello { session: None, capability: None },
            Self::Session { session, capability } => {
                ClientMessage::Hello { session: Some(*session), capability: Some(capability.clone()) }
            }
        }
    }
}

/// What the daemon sends without being asked, or on channels.
#[derive(Clone, PartialEq, Debug)]
pub enum Incoming {
    /// A message of the agent link: changes, channels.
    Message(Box<AgentMessage>),
    /// A binary frame.
    Frame(Frame),
    /// The daemon ends the connection for this reason.
    Failed(WireError),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    receiver: Receiver,
    last_request: u64,
    /// Version of the daemon.
    pub daemon_version: String,
    /// Process id of the daemon.
    pub daemon_pid: u32,
}

/// The sending half, for attached terminals.
#[derive(Debug)]
pub struct Sender {
    writer: WriteHalf,
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver {
    reader: ReadHalf,
    buffer: BytesMut,
    early: VecDeque<Incoming>,
}

impl Client {
    /// Connects and says hello.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when no daemon listens.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connect(socket: &Path, identity: &Identity) -> Result<Self, ClientError> {
        let (reader, writer) = unix_socket::connect(socket).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
            _ => ClientError::Socket { path: socket.to_owned(), source },
        })?;
        let mut client = Self {
            sender: Sender { writer },
            receiver: Receiver { reader, buffer: BytesMut::with_capacity(8 * 1024), early: VecDeque::new() },
            last_request: 0,
            daemon_version: String::new(),
            daemon_pid: 0,
        };
        let hello = async {
            client.sender.json(&identity.hello()).await?;
            client.receiver.message().await
        };
        match tokio::time::timeout(HELLO_TIMEOUT, hello).await {
            Ok(Ok(Got::Local(DaemonMessage::Welcome { version, pid }))) => {
                client.daemon_version = version;
                client.daemon_pid = pid;
                Ok(client)
            }
            Ok(Ok(Got::Local(DaemonMessage::Failed { error, .. }))) => Err(ClientError::Refused(error)),
            Ok(Ok(_)) => Err(ClientError::Protocol),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ClientError::Closed),
        }
    }

    /// Does an operation. A refusal is an error.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the client afterwards.
    pub async fn request(&mut self, op: Op) -> Result<Reply, ClientError> {
        let request = self.number();
        self.sender.json(&RelayMessage::Request { request, op }).await?;
        loop {
            match self.receiver.message().await? {
                Got::Incoming(Incoming::Message(message)) => match *message {
                    AgentMessage::Response { request: answered, reply } if answered == request => {
                        return match reply {
                            Reply::Error { error } => Err(ClientError::Refused(error)),
                            reply => Ok(reply),
                        };
                    }
                    other => self.receiver.early.push_back(Incoming::Message(Box::new(other))),
                },
                Got::Incoming(other) => self.receiver.early.push_back(other),
                Got::Local(DaemonMessage::Failed { error, .. }) => return Err(ClientError::Refused(error)),
                Got::Local(_) => {}
            }
        }
    }

    /// An operation that answers one session.
    ///
    /// # Errors
    /// As [`Client::request`].
    ///
    /// # Cancel safety
    /// As [`Client::request`].
    pub async fn session(&mut self, op: Op) -> Result<SessionInfo, ClientError> {
        match self.request(op).await? {
            Reply::Session { session } => Ok(*session),
            _ => Err(ClientError::Protocol),
        }
    }

    /// Every session, newest first.
    ///
    /// # Errors
    /// As [`Client::request`].
    ///
    /// # Cancel safety
    /// As [`Client::request`].
    pub async fn sessions(&mut self) -> Result<Vec<SessionInfo>, ClientError> {
        match self.request(Op::SessionList {}).await? {
            Reply::Sessions { sessions } => Ok(sessions),
            _ => Err(ClientError::Protocol),
        }
    }

    /// The state of the daemon.
    ///
    /// # Errors
    /// As [`Client::request`].
    ///
    /// # Cancel safety
    /// As [`Client::request`].
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        let request = self.number();
        match self.ask(ClientMessage::Status { request }).await? {
            DaemonMessage::Status { status, .. } => Ok(*status),
            _ => Err(ClientError::Protocol),
        }
    }

    /// Waits until a session is in one of these states (none: until its process has ended). Answers the session, and
    /// whether it is in a wanted state; false when the time was over or it ended otherwise.
    ///
    /// # Errors
    /// As [`Client::request`].
    ///
    /// # Cancel safety
    /// As [`Client::request`].
    pub async fn wait(
        &mut self,
        session: SessionId,
        states: Vec<SessionState>,
        timeout: Option<Duration>,
    ) -> Result<(SessionInfo, bool), ClientError> {
        let request = self.number();
        let timeout_ms = timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        match self.ask(ClientMessage::Wait { request, session, states, timeout_ms }).await? {
            DaemonMessage::Waited { session, is_met, .. } => Ok((*session, is_met)),
            _ => Err(ClientError::Protocol),
        }
    }

    /// Tells the daemon that stored relays or credentials have changed.
    ///
    /// # Errors
    /// As [`Client::request`].
    ///
    /// # Cancel safety
    /// As [`Client::request`].
    pub async fn reload_relays(&mut self) -> Result<(), ClientError> {
        let request = self.number();
        self.ask(ClientMessage::ReloadRelays { request }).await.map(|_| ())
    }

    /// From now on every session and every change comes through the receiver.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    ///
    /// # Cancel safety
    /// As [`Client::request`].
    pub async fn subscribe(mut self) -> Result<(Sender, Receiver), ClientError> {
        self.sender.json(&ClientMessage::Subscribe {}).await?;
        Ok(self.into_halves())
    }

    /// Puts the former content of a locked file back: its path, and where the content is that was there.
    ///
    /// # Errors
    /// As [`Client::request`].
    ///
    /// # Cancel safety
    /// As [`Client::request`].
    pub async fn restore(&mut self, lock: LockId) -> Result<(String, Option<String>), ClientError> {
        let request = self.number();
        match self.ask(ClientMessage::LockRestore { request, lock }).await? {
            DaemonMessage::LockRestored { path, aside, .. } => Ok((path, aside)),
            _ => Err(ClientError::Protocol),
        }
    }

    /// From now on every approval and lock and every change of them comes through the receiver.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    ///
    /// # Cancel safety
    /// As [`Client::request`].
    pub async fn subscribe_guard(mut self) -> Result<(Sender, Receiver), ClientError> {
        self.sender.json(&ClientMessage::SubscribeGuard {}).await?;
        Ok(self.into_halves())
    }

    /// Both halves, for an attached terminal: open streams and writers with the messages of the agent link.
    pub fn into_halves(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    fn number(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    async fn ask(&mut self, message: ClientMessage) -> Result<DaemonMessage, ClientError> {
        self.sender.json(&message).await?;
        loop {
            match self.receiver.message().await? {
                Got::Local(DaemonMessage::Failed { error, .. }) => return Err(ClientError::Refused(error)),
                Got::Local(message) => return Ok(message),
                Got::Incoming(incoming) => self.receiver.early.push_back(incoming),
            }
        }
    }
}

impl Sender {
    /// Sends a message of the agent link.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    ///
    /// # Cancel safety
    /// Not cancel safe.
    pub async fn message(&mut self, message: &RelayMessage) -> Result<(), ClientError> {
        self.json(message).await
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    ///
    /// # Cancel safety
    /// Not cancel safe.
    pub async fn frame(&mut self, frame: &Frame) -> Result<(), ClientError> {
        self.writer.write_all(&encode_frame(frame)).await.map_err(|_| ClientError::Closed)
    }

    async fn json(&mut self, message: &impl serde::Serialize) -> Result<(), ClientError> {
        let bytes = encode_json(message)?;
        self.writer.write_all(&bytes).await.map_err(|_| ClientError::Closed)
    }
}

enum Got {
    Local(DaemonMessage),
    Incoming(Incoming),
}

impl Receiver {
    /// What comes next; [`ClientError::Closed`] when the daemon is gone.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Incoming, ClientError> {
        loop {
            if let Ok(incoming) = self.next_or_alert().await? {
                return Ok(incoming);
            }
        }
    }

    /// As [`Receiver::next`], but also what locked files were changed behind their holders' backs, as `Err`.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_or_alert(&mut self) -> Result<Result<Incoming, Box<Alert>>, ClientError> {
        loop {
            if let Some(incoming) = self.early.pop_front() {
                return Ok(Ok(incoming));
            }
            match self.message().await? {
                Got::Incoming(incoming) => return Ok(Ok(incoming)),
                Got::Local(DaemonMessage::Failed { error, .. }) => return Ok(Ok(Incoming::Failed(error))),
                Got::Local(DaemonMessage::LockAlert { alert }) => return Ok(Err(alert)),
                Got::Local(_) => {}
            }
        }
    }

    async fn message(&mut self) -> Result<Got, ClientError> {
        loop {
            if let Some(packet) = decode(&mut self.buffer)? {
                return match packet {
                    Packet::Frame(frame) => Ok(Got::Incoming(Incoming::Frame(frame))),
                    Packet::Json(json) => match serde_json::from_slice(&json) {
                        Ok(FromDaemon::Local(message)) => Ok(Got::Local(message)),
                        Ok(FromDaemon::Link(message)) => {
                            Ok(Got::Incoming(Incoming::Message(Box::new(message))))
                        }
                        Err(_) => Err(ClientError::Protocol),
                    },
                };
            }
            match self.reader.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(ClientError::Closed),
                Ok(_) => {}
            }
        }
    }
}

//! A machine for tests: real link, plain byte vectors instead of terminals.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::machine::GoodbyeReason;
use claudenest_shared::pairing::link_message;
use claudenest_shared::session::{SessionInfo, SessionMode, SessionState, TermSize};
use claudenest_shared::time::UnixMs;
use claudenest_shared::token;
use claudenest_shared::wire::AGENT_SUBPROTOCOL;
use claudenest_shared::wire::agent::{AgentMessage, Op, RelayMessage, Reply};
use claudenest_shared::wire::frame::{FLAG_GAP, FLAG_REFUSED, Frame, FrameKind, encode_size};
use ed25519_dalek::Signer;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Keys, Ws};

pub(super) const SIZE: TermSize = TermSize { cols: 80, rows: 24 };

/// A session as a machine reports it.
pub(super) fn session_info(id: SessionId) -> SessionInfo {
    SessionInfo {
        id,
        name: format!("s-{}", id.short()),
        machine_id: None,
        mode: SessionMode::Shell,
        cwd: "/tmp".into(),
        state: SessionState::Running,
        state_since: UnixMs(1),
        state_reason: None,
        state_notes: Vec::new(),
        state_source: Default::default(),
        created_at: UnixMs(1),
        started_at: None,
        ended_at: None,
        pid: None,
        exit: None,
        size: SIZE,
        size_owner: None,
        model: None,
        permission_mode: None,
        title: None,
        claude_session_id: None,
        worktree: None,
        viewers: 0,
        epoch: 0,
        output_bytes: 0,
        attempts: 0,
        is_resumable: false,
        resources: None,
        recording_problem: None,
    }
}

/// What the test tells the machine to do.
pub(super) enum Command {
    /// The child writes.
    Output(SessionId, Bytes),
    /// Send this, whatever it is.
    Text(String),
    /// Send this frame, whatever it is.
    Frame(Frame),
    /// Say goodbye.
    Goodbye(GoodbyeReason),
    /// Cut the connection.
    Cut,
    /// Answer with the input that was applied, in order.
    Applied(oneshot::Sender<Vec<u8>>),
}

struct Stream {
    session: SessionId,
    position: u64,
    credit: u64,
    sent: u64,
    lag_limit: u64,
    wants_snapshot: bool,
    is_gap: bool,
}

/// What survives a link: the bytes of the sessions, and what was typed.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) output: BTreeMap<SessionId, Vec<u8>>,
    acked: BTreeMap<WriterId, u64>,
    applied: Vec<u8>,
}

/// A machine with its link up.
pub(super) struct Machine {
    pub(super) commands: mpsc::Sender<Command>,
    /// Ends with the close code of the relay, and what the machine keeps.
    pub(super) task: JoinHandle<(Option<u16>, Disk)>,
    pub(super) epoch: u64,
}

/// Connects and sends a hello, valid or not.
pub(super) async fn dial(
    address: &str,
    keys: &Keys,
    sessions: &[SessionId],
    break_it: bool,
) -> Result<Ws, Error> {
    dial_with(address, keys, (sessions, &[], false), break_it).await
}

/// Connects with a hello of these sessions, these others, and perhaps more that it does not name.
pub(super) async fn dial_with(
    address: &str,
    keys: &Keys,
    (sessions, others, has_unnamed): (&[SessionId], &[SessionId], bool),
    break_it: bool,
) -> Result<Ws, Error> {
    let mut request = format!("ws://{address}/ws/agent").into_client_request()?;
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {}", keys.token).parse().unwrap());
    headers.insert("sec-websocket-protocol", AGENT_SUBPROTOCOL.parse().unwrap());
    let (mut ws, _) = tokio_tungstenite::connect_async(request).await?;
    let RelayMessage::Challenge { nonce, .. } = next_message(&mut ws).await else {
        panic!("a challenge comes first")
    };
    let nonce: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&nonce[at * 2..at * 2 + 2], 16).unwrap()).collect();
    let mut message = link_message(&nonce.try_into().unwrap(), &token::digest(&keys.token));
    if break_it {
        message[0] ^= 1;
    }
    let hello = AgentMessage::Hello {
        signature: crate::ws::agent::to_hex(&keys.signing.sign(&message).to_bytes()),
        facts: Box::default(),
        sessions: sessions.iter().map(|id| session_info(*id)).collect(),
        others: others.to_vec(),
        has_unnamed,
    };
    ws.send(Message::text(serde_json::to_string(&hello).unwrap())).await?;
    Ok(ws)
}

pub(super) async fn next_message(ws: &mut Ws) -> RelayMessage {
    loop {
        match ws.next().await.expect("the relay has something to say").expect("a whole message") {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

impl Machine {
    /// Starts a machine with these sessions, keeping what it had.
    pub(super) async fn start(address: &str, keys: &Arc<Keys>, disk: Disk) -> Self {
        let sessions: Vec<SessionId> = disk.output.keys().copied().collect();
        let mut ws = dial(address, keys, &sessions, false).await.unwrap();
        let RelayMessage::Welcome { connection_epoch, .. } = next_message(&mut ws).await else {
            panic!("a welcome follows")
        };
        let (commands, receiver) = mpsc::channel(64);
        let run = Run { ws, disk, streams: BTreeMap::new(), writers: BTreeMap::new() };
        Self { commands, task: tokio::spawn(run.run(receiver)), epoch: connection_epoch }
    }

    pub(super) async fn output(&self, session: SessionId, bytes: impl Into<Bytes>) {
        assert!(self.commands.send(Command::Output(session, bytes.into())).await.is_ok(), "the machine runs");
    }

    pub(super) async fn applied(&self) -> Vec<u8> {
        let (sender, receiver) = oneshot::channel();
        assert!(self.commands.send(Command::Applied(sender)).await.is_ok(), "the machine runs");
        receiver.await.unwrap()
    }

    /// Ends the link and returns what the machine keeps.
    pub(super) async fn stop(self, how: Command) -> (Option<u16>, Disk) {
        // It may have been closed already.
        drop(self.commands.send(how).await);
        self.task.await.unwrap()
    }
}

struct Run {
    ws: Ws,
    disk: Disk,
    streams: BTreeMap<u16, Stream>,
    writers: BTreeMap<u16, WriterId>,
}

impl Run {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> (Option<u16>, Disk) {
        loop {
            if self.pump().await.is_err() {
                return (None, self.disk);
            }
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Output(session, bytes)) => {
                        self.disk.output.get_mut(&session).unwrap().extend_from_slice(&bytes);
                    }
                    Some(Command::Text(text)) => drop(self.ws.send(Message::text(text)).await),
                    Some(Command::Frame(frame)) => drop(self.ws.send(Message::binary(frame.encode())).await),
                    Some(Command::Goodbye(reason)) => self.say(&AgentMessage::Goodbye { reason }).await,
                    Some(Command::Applied(sender)) => drop(sender.send(self.disk.applied.clone())),
                    Some(Command::Cut) | None => return (None, self.disk),
                },
                message = self.ws.next() => match message {
                    Some(Ok(Message::Text(text))) => self.on_message(serde_json::from_str(&text).unwrap()).await,
                    Some(Ok(Message::Binary(bytes))) => self.on_frame(Frame::decode(&bytes).unwrap()).await,
                    Some(Ok(Message::Close(frame))) => return (frame.map(|frame| frame.code.into()), self.disk),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return (None, self.disk),
                },
            }
        }
    }

    async fn say(&mut self, message: &AgentMessage) {
        // A relay that has gone away shows in the next read.
        drop(self.ws.send(Message::text(serde_json::to_string(message).unwrap())).await);
    }

    /// Sends what credit allows.
    async fn pump(&mut self) -> Result<(), Error> {
        let Self { ws, disk, streams, .. } = self;
        for (channel, stream) in streams {
            let output = &disk.output[&stream.session];
            let head = output.len() as u64;
            if head - stream.position > stream.lag_limit {
                stream.position = head;
                stream.wants_snapshot = true;
                stream.is_gap = true;
            }
            while stream.sent < stream.credit && (stream.wants_snapshot || stream.position < head) {
                let mut frame = Frame {
                    kind: FrameKind::Output,
                    flags: 0,
                    channel: *channel,
                    epoch: 0,
                    session: stream.session,
                    offset: stream.position,
                    payload: Bytes::new(),
                };
                if std::mem::take(&mut stream.wants_snapshot) {
                    frame.kind = FrameKind::Snapshot;
                    frame.flags = if std::mem::take(&mut stream.is_gap) { FLAG_GAP } else { 0 };
                    let mut payload = BytesMut::from(&encode_size(SIZE)[..]);
                    payload.extend_from_slice(format!("screen at {}", stream.position).as_bytes());
                    frame.payload = payload.freeze();
                } else {
                    let len = (head - stream.position).min(stream.credit - stream.sent).min(16 * 1024);
                    let start = stream.position as usize;
                    frame.payload = Bytes::copy_from_slice(&output[start..start + len as usize]);
                    stream.position += len;
                }
                stream.sent += frame.payload.len() as u64;
                ws.feed(Message::binary(frame.encode())).await?;
            }
        }
        ws.flush().await
    }

    async fn on_message(&mut self, message: RelayMessage) {
        match message {
            RelayMessage::StreamOpen { channel, session, from, lag_limit_bytes, credit } => {
                let Some(output) = self.disk.output.get(&session) else {
                    let error = WireError::new(ErrorCode::NotFound, "There is no such session.");
                    return self.say(&AgentMessage::ChannelClosed { channel, error: Some(error) }).await;
                };
                let head = output.len() as u64;
                let here = from.filter(|from| from.epoch == 0 && from.offset <= head);
                let offset = here.map_or(head, |from| from.offset);
                let stream = Stream {
                    session,
                    position: offset,
                    credit,
                    sent: 0,
                    lag_limit: lag_limit_bytes,
                    wants_snapshot: here.is_none(),
                    is_gap: here.is_none() && from.is_some(),
                };
                self.streams.insert(channel, stream);
                self.say(&AgentMessage::StreamOpened { channel, epoch: 0, offset, head, size: SIZE }).await;
            }
            RelayMessage::StreamSnapshot { channel } => {
                self.streams.get_mut(&channel).unwrap().wants_snapshot = true;
            }
            RelayMessage::WriterOpen { channel, writer, .. } => {
                self.writers.insert(channel, writer);
                let acked = self.disk.acked.get(&writer).copied().unwrap_or(0);
                self.say(&AgentMessage::WriterOpened { channel, acked }).await;
            }
            RelayMessage::ChannelClose { channel } => {
                self.streams.remove(&channel);
                self.writers.remove(&channel);
                self.say(&AgentMessage::ChannelClosed { channel, error: None }).await;
            }
            RelayMessage::Request { request, op } => {
                let reply = match op {
                    Op::SessionList {} => Reply::Sessions { sessions: Vec::new() },
                    Op::SessionGet { .. } => return, // Never answered.
                    Op::SessionCreate { .. } => {
                        let id = SessionId::from_bytes([0x77; 16]);
                        self.disk.output.insert(id, Vec::new());
                        Reply::Session { session: Box::new(session_info(id)) }
                    }
                    _ => Reply::Error { error: WireError::new(ErrorCode::Conflict, "no") },
                };
                self.say(&AgentMessage::Response { request, reply }).await;
            }
            _ => {}
        }
    }

    async fn on_frame(&mut self, frame: Frame) {
        match frame.kind {
            FrameKind::Credit => {
                let stream = self.streams.get_mut(&frame.channel).expect("credit for an open stream");
                stream.credit = stream.credit.max(frame.offset);
            }
            FrameKind::Input => {
                let writer = self.writers[&frame.channel];
                let acked = self.disk.acked.entry(writer).or_default();
                let mut ack =
                    Frame { kind: FrameKind::InputAck, flags: 0, payload: Bytes::new(), ..frame.clone() };
                if frame.offset == *acked + 1 {
                    *acked += 1;
                    self.disk.applied.extend_from_slice(&frame.payload);
                } else if frame.offset > *acked {
                    ack.flags = FLAG_REFUSED;
                }
                drop(self.ws.send(Message::binary(ack.encode())).await);
            }
            _ => {}
        }
    }
}

//! The agent socket: proves the machine, then hands what it says to the hub.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::machine::{GoodbyeReason, MachineFacts, MachineState};
use claudenest_shared::pairing::link_message;
use claudenest_shared::session::SessionInfo;
use claudenest_shared::token::{self, TokenKind};
use claudenest_shared::wire::AGENT_SUBPROTOCOL;
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage, Reply, StreamPosition};
use claudenest_shared::wire::frame::{Frame, FrameKind};
use claudenest_shared::wire::limits::{MAX_MESSAGE_BYTES, MAX_TEXT_BYTES};
use futures_util::stream::SplitStream;
use futures_util::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::history::{self, Shelf};
use super::writer::{SocketWriter, linger};
use super::{Context, Silence, accept};
use crate::http::error::ApiError;
use crate::hub::directory::KnownMachine;
use crate::hub::guard::{GuardNews, TooMuch};
use crate::hub::link::{Link, Route};
use crate::hub::outbox::{Closing, Outgoing};
use crate::hub::recorder::SessionList;
use crate::hub::terminal::Terminal;
use crate::hub::terminal::core::Key;
use crate::hub::{Hub, close_code, recorder};
use crate::text;

/// Read at a time. The buffer is filled with zeros before each read, also for a single byte: a large one throws everything
/// out of the CPU's first cache on the way of each echo (measured: 128 KiB cost 60 µs there), a small one costs calls in a flood.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Messages that are taken from the socket before their effects are spread: saves locks and wake-ups under load.
const BATCH_MESSAGES: usize = 64;
/// Pause before the end of a link is noted again after a failure.
const STATE_RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Sessions that one machine may name: far beyond what an agent keeps, it bounds memory.
const MAX_SESSIONS: usize = 20_000;

/// `GET /ws/agent`.
pub(super) async fn upgrade(
    State(context): State<Context>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match admit(&context, &headers).await {
        Ok((machine, digest)) => {
            let upgrade = match upgrade {
                Ok(upgrade) => upgrade,
                Err(rejection) => {
                    return ApiError::new(ErrorCode::BadRequest, rejection.body_text()).into_response();
                }
            };
            let upgrade = match accept(upgrade, AGENT_SUBPROTOCOL, MAX_MESSAGE_BYTES, READ_BUFFER_BYTES) {
                Ok(upgrade) => upgrade,
                Err(error) => return error.into_response(),
            };
            context.start();
            let span = tracing::info_span!("agent", machine.id = %machine.id);
            upgrade.on_upgrade(move |socket| {
                let tasks = context.tasks.clone();
                tasks.track_future(serve(context, machine, digest, socket).instrument(span))
            })
        }
        Err(error) => error.into_response(),
    }
}

/// Finds the machine of the bearer token.
async fn admit(context: &Context, headers: &HeaderMap) -> Result<(KnownMachine, [u8; 32]), ApiError> {
    let unknown = || {
        ApiError::new(
            ErrorCode::Unauthenticated,
            "The relay does not know this machine. Pair it: claudenest-agent pair",
        )
    };
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .filter(|token| token::is_well_formed(TokenKind::Machine, token))
        .ok_or_else(unknown)?;
    let digest = token::digest(token);
    match context.hub.directory().machine_by_token(digest).await {
        Ok(Some(machine)) if machine.is_revoked => Err(ApiError::new(
            ErrorCode::Revoked,
            "This machine was removed from the relay. Pair it again: claudenest-agent pair",
        )),
        Ok(Some(machine)) => Ok((machine, digest)),
        Ok(None) => Err(unknown()),
        Err(error) => Err(error.0.into()),
    }
}

/// Why the reader stopped.
enum End {
    /// The agent said goodbye.
    Goodbye(GoodbyeReason),
    /// The link is gone, silent, or closed by the relay.
    Lost(&'static str),
    /// The agent broke the protocol.
    Violation(String),
}

async fn serve(context: Context, machine: KnownMachine, digest: [u8; 32], socket: WebSocket) {
    let (sink, mut stream) = socket.split();
    let mut writer = SocketWriter::new(sink, context.timing.write_timeout);
    let (facts, list) = match shake_hands(&context, &machine, &digest, &mut writer, &mut stream).await {
        Ok(hello) => hello,
        Err(closing) => {
            tracing::info!(reason = %closing.reason, "a link was refused");
            writer.close(&closing).await;
            return linger(&mut stream).await;
        }
    };
    let epoch = match context.hub.directory().connect(machine.id, &facts).await {
        Ok(Some(epoch)) => epoch,
        Ok(None) => {
            let message =
                "This machine was removed from the relay. Pair it again: claudenest-agent pair".into();
            // If this does not arrive, the close frame says it again.
            let _ = writer.write([Outgoing::json(&RelayMessage::Revoked { message })]).await;
            let closing = Closing { code: close_code::UNAUTHENTICATED, reason: "revoked".into() };
            writer.close(&closing).await;
            return linger(&mut stream).await;
        }
        Err(error) => {
            tracing::warn!(%error, "a link could not be noted");
            let closing = Closing { code: close_code::RESTARTING, reason: "the database is away".into() };
            writer.close(&closing).await;
            return linger(&mut stream).await;
        }
    };
    let link = Arc::new(Link::new(machine.id, machine.user, epoch));
    link.send(&RelayMessage::Welcome {
        machine_id: machine.id,
        machine_name: machine.name.clone(),
        connection_epoch: epoch,
        heartbeat_ms: u32::try_from(context.timing.heartbeat.as_millis()).unwrap_or(u32::MAX),
        takes_history: true,
        takes_guard: true,
    });
    for session in list.sessions.iter().map(|session| session.id).chain(list.others.iter().copied()) {
        link.add_session(session);
    }
    link.recorder.all(list);
    if !context.hub.link_up(&link) {
        let closing = Closing { code: close_code::RESTARTING, reason: "not now".into() };
        writer.close(&closing).await;
        return linger(&mut stream).await;
    }
    tracing::info!(epoch, "a machine is online");
    let ended = CancellationToken::new();
    let recording = CancellationToken::new();
    let writing = context.tasks.spawn(write(context.clone(), Arc::clone(&link), writer, ended.clone()));
    let recorder =
        context.tasks.spawn(recorder::run(context.hub.clone(), Arc::clone(&link), recording.clone()));
    let shelf = Arc::new(Shelf::default());
    let storing = history::run(context.hub.clone(), Arc::clone(&link), Arc::clone(&shelf), recording.clone());
    context.tasks.spawn(storing);
    publish(&context, &link).await;

    let end = read(&context, &link, &shelf, &mut stream, &ended).await;
    match &end {
        End::Goodbye(reason) => {
            tracing::info!(?reason, "a machine said goodbye");
            link.out.close(1000, "goodbye", None);
        }
        End::Lost(reason) => {
            tracing::info!(reason, "a machine's link is gone");
            link.out.close(close_code::RESTARTING, reason, None);
        }
        End::Violation(reason) => {
            tracing::warn!(reason, "a machine broke the protocol");
            link.out.close(close_code::PROTOCOL, reason, None);
        }
    }
    recording.cancel();
    drop(recorder.await); // What it said last is noted while it is still the machine's link.
    let was_current = context.hub.link_down(&link);
    if let End::Goodbye(GoodbyeReason::Unpairing) = end {
        if let Err(error) = context.hub.directory().unpair(link.machine, link.epoch).await {
            tracing::error!(%error, "a machine gave up its token, but that could not be noted");
        }
        publish(&context, &link).await;
    } else if was_current {
        let state = match end {
            End::Goodbye(GoodbyeReason::Sleeping) => MachineState::Asleep,
            End::Goodbye(_) => MachineState::Stopped,
            End::Lost(_) | End::Violation(_) => MachineState::Unreachable,
        };
        note_state(&context, &link, state).await;
    }
    drop(writing.await);
    linger(&mut stream).await;
}

/// Notes how a link ended, once the database is there for it: a machine must not be shown as online for ever.
async fn note_state(context: &Context, link: &Link, state: MachineState) {
    let mut is_waiting = false;
    loop {
        // Names the link's epoch: a newer link is not touched.
        match context.hub.directory().set_state(link.machine, link.epoch, state).await {
            Ok(_) => return publish(context, link).await,
            Err(error) if error.is_final() => {
                return tracing::error!(%error, "the state of a machine cannot be noted");
            }
            Err(error) if !is_waiting => {
                is_waiting = true;
                tracing::warn!(%error, "the state of a machine waits for the database");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(STATE_RETRY_PAUSE) => {}
        }
    }
}

async fn publish(context: &Context, link: &Link) {
    if let Err(error) = context.hub.publish_machine(link.user, link.machine).await {
        tracing::warn!(%error, "users were not told about a machine");
    }
}

/// Challenge and hello: the agent holds the machine's key.
async fn shake_hands(
    context: &Context,
    machine: &KnownMachine,
    digest: &[u8; 32],
    writer: &mut SocketWriter,
    stream: &mut SplitStream<WebSocket>,
) -> Result<(Box<MachineFacts>, SessionList), Closing> {
    let refuse = |code: u16, reason: &str| Closing { code, reason: reason.to_owned() };
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| refuse(close_code::RESTARTING, "no randomness"))?;
    let challenge = RelayMessage::Challenge { nonce: to_hex(&nonce), time: context.hub.clock().now() };
    writer
        .write([Outgoing::json(&challenge)])
        .await
        .map_err(|error| refuse(close_code::RESTARTING, &error.to_string()))?;
    let first = tokio::time::timeout(context.timing.handshake_timeout, next_text(stream)).await;
    let text = match first {
        Ok(Some(text)) => text,
        Ok(None) => return Err(refuse(close_code::PROTOCOL, "the first message must be a hello")),
        Err(_) => return Err(refuse(close_code::PROTOCOL, "no hello in time")),
    };
    match parse(&text) {
        Ok(AgentMessage::Hello { signature, facts, sessions, others, has_unnamed }) => {
            if !is_signed(machine, &nonce, digest, &signature) {
                return Err(refuse(
                    close_code::UNAUTHENTICATED,
                    "the signature is not by this machine's key",
                ));
            }
            if sessions.len() + others.len() > MAX_SESSIONS {
                return Err(refuse(close_code::PROTOCOL, "too many sessions"));
            }
            Ok((Box::new(text::cleaned(*facts)), SessionList { sessions, others, has_unnamed }))
        }
        Ok(_) => Err(refuse(close_code::PROTOCOL, "the first message must be a hello")),
        Err(reason) => Err(refuse(close_code::PROTOCOL, &reason)),
    }
}

/// The next text message; absent if the socket ended or something else came.
async fn next_text(stream: &mut SplitStream<WebSocket>) -> Option<String> {
    loop {
        match stream.next().await? {
            Ok(Message::Text(text)) => return Some(text.as_str().to_owned()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            _ => return None,
        }
    }
}

fn is_signed(machine: &KnownMachine, nonce: &[u8; 32], digest: &[u8; 32], signature: &str) -> bool {
    let Some(signature) = from_hex(signature) else { return false };
    let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(&machine.public_key) else { return false };
    let signature = ed25519_dalek::Signature::from_bytes(&signature);
    key.verify_strict(&link_message(nonce, digest), &signature).is_ok()
}

/// Reads until the link ends.
async fn read(
    context: &Context,
    link: &Arc<Link>,
    shelf: &Shelf,
    stream: impl Stream<Item = Result<Message, axum::Error>> + Unpin,
    ended: &CancellationToken,
) -> End {
    let mut batches = stream.ready_chunks(BATCH_MESSAGES);
    let mut silence = Silence::new(context.timing.heartbeat * 3);
    let mut end = std::pin::pin!(ended.cancelled());
    let mut run = Run::default();
    loop {
        let batch = tokio::select! {
            biased;
            () = &mut end => return End::Lost("closed"),
            batch = batches.next() => batch,
            () = silence.too_long() => return End::Lost("silence for three heartbeats"),
        };
        let Some(batch) = batch else { return End::Lost("the connection ended") };
        silence.broken();
        for message in batch {
            let result = match message {
                Ok(Message::Binary(bytes)) => run.frame(link, shelf, bytes),
                Ok(Message::Text(text)) => match run.finish() {
                    Ok(()) => on_text(&context.hub, link, shelf, &text),
                    Err(reason) => Err(End::Violation(reason)),
                },
                Ok(Message::Ping(_) | Message::Pong(_)) => Ok(()),
                Ok(Message::Close(_)) => Err(End::Lost("closed by the agent")),
                Err(error) => Err(broken(&error)),
            };
            if let Err(end) = result {
                return end;
            }
        }
        if let Err(reason) = run.finish() {
            return End::Violation(reason);
        }
    }
}

/// A message above the limit is the agent's fault, everything else the network's.
fn broken(error: &axum::Error) -> End {
    let text = error.to_string();
    if text.contains("too long") || text.contains("Space limit") {
        End::Violation("a message is larger than allowed".into())
    } else {
        End::Lost("the connection broke")
    }
}

/// Frames in a row for the same terminal, handed over under one lock.
#[derive(Default)]
struct Run {
    terminal: Option<Arc<Terminal>>,
    frames: Vec<(Key, Frame, Bytes)>,
}

impl Run {
    fn frame(&mut self, link: &Link, shelf: &Shelf, bytes: Bytes) -> Result<(), End> {
        let frame = Frame::decode(&bytes).map_err(|error| End::Violation(error.to_string()))?;
        if frame.kind == FrameKind::History {
            return shelf.chunk(frame).map_err(|reason| End::Violation(reason.to_owned()));
        }
        match link.route(frame.channel) {
            Some(Route::Open(terminal, key)) => {
                if !self.terminal.as_ref().is_some_and(|present| Arc::ptr_eq(present, &terminal)) {
                    self.finish().map_err(End::Violation)?;
                    self.terminal = Some(terminal);
                }
                self.frames.push((key, frame, bytes));
                Ok(())
            }
            Some(Route::Closing) => Ok(()), // On its way when the channel was closed.
            None if link.was_open(frame.channel) => Ok(()),
            None => Err(End::Violation(format!("channel {} is not open", frame.channel))),
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        let Some(terminal) = self.terminal.take() else { return Ok(()) };
        let result = terminal.frames(&self.frames);
        self.frames.clear();
        result.map_err(|violation| violation.0.to_owned())
    }
}

fn parse(text: &str) -> Result<AgentMessage, String> {
    if text.len() > MAX_TEXT_BYTES {
        return Err("a text message is larger than allowed".into());
    }
    serde_json::from_str(text).map_err(|error| format!("a message is not understood: {error}"))
}

fn on_text(hub: &Hub, link: &Arc<Link>, shelf: &Shelf, text: &str) -> Result<(), End> {
    match parse(text).map_err(End::Violation)? {
        AgentMessage::Hello { .. } => Err(End::Violation("a second hello".into())),
        AgentMessage::Facts { facts } => {
            link.recorder.facts(Box::new(text::cleaned(*facts)));
            Ok(())
        }
        AgentMessage::Session { session } => note_session(hub, link, *session),
        AgentMessage::SessionRemoved { session } => {
            link.remove_session(session);
            link.recorder.removed(session);
            Ok(())
        }
        AgentMessage::Response { request, reply } => {
            match &reply {
                // Who gets this answer may attach at once.
                Reply::Session { session } => note_session(hub, link, (**session).clone())?,
                // Others learn of it as soon as who asked.
                Reply::Approval { approval } => {
                    note_guard(link, |news| news.approval((**approval).clone(), text.len()))?;
                }
                _ => {}
            }
            link.answer(request, reply);
            Ok(())
        }
        AgentMessage::StreamOpened { channel, epoch, offset, head, size } => {
            if let Some(Route::Open(terminal, key)) = link.route(channel) {
                terminal.stream_opened(key, StreamPosition { epoch, offset }, head, size);
            }
            Ok(())
        }
        AgentMessage::WriterOpened { channel, acked } => {
            if let Some(Route::Open(terminal, key)) = link.route(channel) {
                terminal.writer_opened(key, acked);
            }
            Ok(())
        }
        AgentMessage::ChannelClosed { channel, error } => {
            if let Some(Route::Open(terminal, key)) = link.channel_closed(channel) {
                terminal.channel_closed(key, error);
            }
            Ok(())
        }
        AgentMessage::Approval { approval } => note_guard(link, |news| news.approval(*approval, text.len())),
        AgentMessage::ApprovalsSent {} => note_guard(link, |news| {
            news.approvals_sent();
            Ok(())
        }),
        AgentMessage::Lock { lock } => note_guard(link, |news| news.lock(*lock, text.len())),
        AgentMessage::LocksSent {} => note_guard(link, |news| {
            news.locks_sent();
            Ok(())
        }),
        AgentMessage::LockEnded { lock, end } => note_guard(link, |news| news.lock_ended(lock, end)),
        AgentMessage::HistoryQuery { runs } => {
            shelf.query(runs).map_err(|reason| End::Violation(reason.to_owned()))
        }
        AgentMessage::Goodbye { reason } => Err(End::Goodbye(reason)),
    }
}

fn note_guard(link: &Link, change: impl FnOnce(&mut GuardNews) -> Result<(), TooMuch>) -> Result<(), End> {
    let noted = link.recorder.guard(change);
    noted.map_err(|TooMuch| End::Violation("more approvals and locks than can be noted".into()))
}

fn note_session(hub: &Hub, link: &Link, session: SessionInfo) -> Result<(), End> {
    hub.named_epoch(link.machine, session.id, session.epoch);
    link.add_session(session.id);
    if link.session_count() > MAX_SESSIONS {
        return Err(End::Violation("too many sessions".into()));
    }
    link.recorder.session(session);
    Ok(())
}

/// Writes what is queued, and pings, until the link is closed or cannot be written.
async fn write(context: Context, link: Arc<Link>, mut writer: SocketWriter, ended: CancellationToken) {
    let _end = ended.drop_guard_ref();
    let mut heartbeat = tokio::time::interval(context.timing.heartbeat);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut end = std::pin::pin!(context.shutdown.cancelled());
    loop {
        let batch = link.out.take();
        if !batch.messages.is_empty()
            && let Err(error) = writer.write(batch.messages).await
        {
            tracing::info!(%error, "a machine's link cannot be written");
            return;
        }
        if let Some(closing) = batch.closing {
            return writer.close(&closing).await;
        }
        tokio::select! {
            biased;
            () = &mut end, if !link.out.is_closing() => {
                link.out.close(close_code::RESTARTING, "the relay ends", None);
            }
            () = link.out.woken() => {}
            _ = heartbeat.tick() => {
                if writer.ping().await.is_err() {
                    return;
                }
            }
        }
    }
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 64]> {
    let mut out = [0; 64];
    if text.len() != 128 || !text.is_ascii() {
        return None;
    }
    for (at, slot) in out.iter_mut().enumerate() {
        *slot = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(out)
}

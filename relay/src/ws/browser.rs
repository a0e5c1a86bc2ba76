//! The browser socket: lets a ticket in, keeps the page's picture of the world true, and carries its terminals.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;
use claudenest_shared::wire::BROWSER_SUBPROTOCOL;
use claudenest_shared::wire::browser::{BrowserMessage, ServerMessage};
use claudenest_shared::wire::frame::{Frame, FrameKind};
use claudenest_shared::wire::limits::MAX_TEXT_BYTES;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use tokio_util::sync::CancellationToken;

use super::writer::{SocketWriter, linger};
use super::{Context, Silence, accept};
use crate::http::error::ApiError;
use crate::hub::close_code;
use crate::hub::directory::UserState;
use crate::hub::outbox::{Closing, Outgoing, to_json};
use crate::hub::socket::{Socket, Sync};
use crate::hub::terminal::core::{Attach, Pulled};
use crate::hub::terminal::viewer::Item;

/// Read at a time: pages send keys and credit. See the other endpoint for why this is small.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Bytes that one attachment may contribute to one write, so that many attachments share the socket fairly.
const PULL_BUDGET_BYTES: usize = 256 * 1024;
/// Pause before the full state is read again after a failure.
const SYNC_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Failures in a row after which the page is told to come back later.
const SYNC_ATTEMPTS: u32 = 5;

/// `GET /ws`.
pub(super) async fn upgrade(
    State(context): State<Context>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if !(context.is_own_page)(&headers) {
        return ApiError::new(
            ErrorCode::Forbidden,
            "Only the relay's own pages may open this socket. Open the relay by its public URL.",
        )
        .into_response();
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return ApiError::new(ErrorCode::BadRequest, rejection.body_text()).into_response(),
    };
    // A page sends JSON and input; a stranger may not fill more memory than that before the ticket is checked.
    match accept(upgrade, BROWSER_SUBPROTOCOL, MAX_TEXT_BYTES, READ_BUFFER_BYTES) {
        Ok(upgrade) => {
            context.start();
            upgrade.on_upgrade(move |socket| {
                let tasks = context.tasks.clone();
                tasks.track_future(serve(context, socket))
            })
        }
        Err(error) => error.into_response(),
    }
}

/// How a socket that is not let in is closed: what the page is told, and the close frame.
struct Refusal {
    message: ServerMessage,
    closing: Closing,
}

impl Refusal {
    fn new(code: u16, error: WireError, retry_after_ms: Option<u32>) -> Self {
        let closing = Closing { code, reason: error.code.as_str().to_owned() };
        Self { message: ServerMessage::Closing { error, retry_after_ms }, closing }
    }
}

async fn serve(context: Context, socket: WebSocket) {
    let (sink, mut stream) = socket.split();
    let mut writer = SocketWriter::new(sink, context.timing.write_timeout);
    let socket = match authenticate(&context, &mut stream).await {
        Ok(socket) => socket,
        Err(refusal) => {
            // If this does not arrive, the close frame says it again.
            let _ = writer.write([Outgoing::json(&refusal.message)]).await;
            writer.close(&refusal.closing).await;
            return linger(&mut stream).await;
        }
    };
    let ended = CancellationToken::new();
    let writing = context.tasks.spawn(write(context.clone(), Arc::clone(&socket), writer, ended.clone()));
    context.tasks.spawn(sync(context.clone(), Arc::clone(&socket), ended.clone()));
    if let Err(reason) = read(&context, &socket, &mut stream, &ended).await {
        let error = WireError::new(ErrorCode::BadRequest, format!("{reason}. Reload the page."));
        let last = Outgoing::json(&ServerMessage::Closing { error, retry_after_ms: None });
        socket.out.close(close_code::PROTOCOL, &reason, Some(last));
    }
    context.hub.leave(&socket);
    socket.out.close(1000, "bye", None);
    drop(writing.await);
    linger(&mut stream).await;
}

async fn authenticate(
    context: &Context,
    stream: &mut SplitStream<WebSocket>,
) -> Result<Arc<Socket>, Refusal> {
    let refuse = |message: &str| {
        let error = WireError::new(ErrorCode::Unauthenticated, message);
        Refusal::new(close_code::UNAUTHENTICATED, error, None)
    };
    let later = |message: &str| {
        let error = WireError::new(ErrorCode::Unavailable, message);
        Refusal::new(close_code::RESTARTING, error, Some(2_000))
    };
    let first = tokio::time::timeout(context.timing.handshake_timeout, async {
        loop {
            match stream.next().await? {
                Ok(Message::Text(text)) => return Some(text),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                _ => return None,
            }
        }
    });
    let Ok(Some(text)) = first.await else {
        return Err(refuse("The first message must be the ticket. Reload the page."));
    };
    let Ok(BrowserMessage::Auth { ticket }) = serde_json::from_str(&text) else {
        return Err(refuse("The first message must be the ticket. Reload the page."));
    };
    match context.hub.directory().redeem(&ticket).await {
        Ok(Some(known)) => {
            let socket = Arc::new(Socket::new(known.user, known.login, known.label));
            if context.hub.join(&socket) {
                Ok(socket)
            } else {
                Err(later("The relay restarts. This page reconnects by itself."))
            }
        }
        Ok(None) => Err(refuse("The ticket is used up or expired. Reload the page, or log in again.")),
        Err(error) => {
            tracing::warn!(%error, "a ticket could not be checked");
            Err(later("The relay's database does not answer right now. This page tries again by itself."))
        }
    }
}

/// Reads the full state and hands it to the socket, until it has one that is whole.
async fn sync(context: Context, socket: Arc<Socket>, ended: CancellationToken) {
    let mut failures = 0;
    while failures < SYNC_ATTEMPTS {
        let state = tokio::select! {
            () = ended.cancelled() => return,
            state = context.hub.directory().state_of(socket.user) => state,
        };
        match state {
            Ok(UserState { machines, sessions, approvals, locks }) => {
                let ready = ServerMessage::Ready {
                    relay_version: env!("CARGO_PKG_VERSION").to_owned(),
                    time: context.hub.clock().now(),
                    machines,
                    sessions,
                    approvals,
                    locks,
                };
                if socket.synced(to_json(&ready)) == Sync::Done {
                    return;
                }
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "the state for a page could not be read");
                tokio::select! {
                    () = ended.cancelled() => return,
                    () = tokio::time::sleep(SYNC_RETRY_PAUSE) => {}
                }
            }
        }
    }
    let error = WireError::new(
        ErrorCode::Unavailable,
        "The relay's database does not answer right now. This page tries again by itself.",
    );
    let last = Outgoing::json(&ServerMessage::Closing { error, retry_after_ms: Some(5_000) });
    socket.out.close(close_code::RESTARTING, "the database is away", Some(last));
}

/// Reads until the socket ends.
///
/// # Errors
/// What the page did wrong.
async fn read(
    context: &Context,
    socket: &Arc<Socket>,
    stream: &mut SplitStream<WebSocket>,
    ended: &CancellationToken,
) -> Result<(), String> {
    let mut silence = Silence::new(context.timing.heartbeat * 3);
    let mut end = std::pin::pin!(ended.cancelled());
    loop {
        let message = tokio::select! {
            biased;
            () = &mut end => return Ok(()),
            message = stream.next() => message,
            () = silence.too_long() => return Ok(()),
        };
        silence.broken();
        match message {
            Some(Ok(Message::Binary(bytes))) => {
                let frame = Frame::decode(&bytes).map_err(|error| error.to_string())?;
                on_frame(socket, frame)?;
            }
            Some(Ok(Message::Text(text))) => {
                if text.len() > MAX_TEXT_BYTES {
                    return Err("A text message is larger than allowed".into());
                }
                let message = serde_json::from_str(&text)
                    .map_err(|error| format!("A message is not understood: {error}"))?;
                on_message(context, socket, message, ended)?;
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
        }
    }
}

fn on_frame(socket: &Arc<Socket>, frame: Frame) -> Result<(), String> {
    if !matches!(frame.kind, FrameKind::Input | FrameKind::Resize | FrameKind::Credit) {
        return Err("A page sends input, sizes and credit".into());
    }
    // The attachment may have ended while the frame was on its way.
    let Some((_, attachment)) = socket.find(frame.channel) else { return Ok(()) };
    if frame.session != attachment.terminal.session {
        return Err("A frame names another session than its channel".into());
    }
    attachment.terminal.viewer_frame(attachment.viewer, frame);
    Ok(())
}

fn on_message(
    context: &Context,
    socket: &Arc<Socket>,
    message: BrowserMessage,
    ended: &CancellationToken,
) -> Result<(), String> {
    match message {
        BrowserMessage::Auth { .. } => Err("The ticket comes only once".into()),
        BrowserMessage::Attach { channel, session, from, writer, may_size, lag_limit_bytes, credit } => {
            if channel == 0 || !socket.is_free(channel) {
                return Err(format!("Channel {channel} is not free"));
            }
            let wish = Attach {
                channel,
                from,
                writer,
                label: format!("browser of {}", socket.label),
                may_size,
                lag_limit_bytes,
                credit,
            };
            if let Err(error) = attach(context, socket, session, wish, ended) {
                socket.reply(&ServerMessage::Detached { channel, error: Some(error) });
            }
            Ok(())
        }
        BrowserMessage::Detach { channel } => {
            if let Some((slot, attachment)) = socket.find(channel)
                && socket.free(slot, attachment.viewer).is_some()
            {
                context.hub.detach(&attachment);
                socket.reply(&ServerMessage::Detached { channel, error: None });
            } else if socket.unwish(channel) {
                socket.reply(&ServerMessage::Detached { channel, error: None });
            }
            Ok(())
        }
        BrowserMessage::TakeSize { channel, size } => {
            if let Some((_, attachment)) = socket.find(channel) {
                attachment.terminal.take_size(attachment.viewer, size);
            }
            Ok(())
        }
        BrowserMessage::Ping { nonce } => {
            socket.reply(&ServerMessage::Pong { nonce });
            Ok(())
        }
    }
}

/// Attaches at once if the machine is linked; otherwise asks the directory, beside the reader: a slow database must not
/// hold up the page's other terminals.
fn attach(
    context: &Context,
    socket: &Arc<Socket>,
    session: SessionId,
    wish: Attach,
    ended: &CancellationToken,
) -> Result<(), WireError> {
    if let Some(machine) = context.hub.linked_machine_of(socket.user, session) {
        return context.hub.attach(machine, session, wish, socket).map(drop);
    }
    let channel = wish.channel;
    let number = socket.wish(channel).ok_or_else(|| {
        WireError::new(ErrorCode::Conflict, "Too many terminals are being opened at once. Try again.")
    })?;
    let (context, socket, ended) = (context.clone(), Arc::clone(socket), ended.clone());
    let tasks = context.tasks.clone();
    tasks.spawn(async move {
        let found = tokio::select! {
            () = ended.cancelled() => return,
            found = context.hub.directory().machine_of_session(socket.user, session) => found,
        };
        let result = socket.granted(channel, number, || match found {
            Ok(Some(machine)) => context.hub.attach(machine, session, wish, &socket).map(drop),
            Ok(None) => Err(WireError::new(ErrorCode::NotFound, "There is no such session.")),
            Err(error) => {
                tracing::warn!(%error, "the owner of a session could not be read");
                Err(WireError::new(
                    ErrorCode::Unavailable,
                    "The relay's database does not answer right now. Try again.",
                ))
            }
        });
        if let Some(Err(error)) = result {
            socket.reply(&ServerMessage::Detached { channel, error: Some(error) });
        }
    });
    Ok(())
}

/// Writes answers, news and terminals, until the socket is closed or cannot be written.
async fn write(context: Context, socket: Arc<Socket>, mut writer: SocketWriter, ended: CancellationToken) {
    let _end = ended.drop_guard_ref();
    let mut heartbeat = tokio::time::interval(context.timing.heartbeat);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut items = Vec::new();
    let mut end = std::pin::pin!(context.shutdown.cancelled());
    loop {
        let (batch, must_sync) = socket.take();
        if must_sync {
            context.tasks.spawn(sync(context.clone(), Arc::clone(&socket), ended.clone()));
        }
        if batch.closing.is_none() {
            pull(&context, &socket, &mut items);
        }
        let is_idle = batch.messages.is_empty() && items.is_empty();
        if !is_idle {
            let output = items.drain(..).map(|item| match item {
                Item::Frame(bytes) => Outgoing::Binary(bytes),
                Item::Message(message) => Outgoing::json(&message),
            });
            if let Err(error) = writer.write(batch.messages.into_iter().chain(output)).await {
                tracing::debug!(%error, "a browser socket cannot be written");
                return;
            }
        }
        if let Some(closing) = batch.closing {
            return writer.close(&closing).await;
        }
        tokio::select! {
            biased;
            () = &mut end, if !socket.out.is_closing() => {
                socket.out.close(close_code::RESTARTING, "the relay ends", None);
            }
            () = socket.out.woken() => {}
            _ = heartbeat.tick() => {
                if writer.ping().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Takes what the attachments have ready.
fn pull(context: &Context, socket: &Arc<Socket>, items: &mut Vec<Item>) {
    let mut dirty = socket.take_dirty();
    while dirty != 0 {
        let slot = dirty.trailing_zeros() as usize;
        dirty &= dirty - 1;
        let Some(attachment) = socket.attachment(slot) else { continue };
        match attachment.terminal.pull(attachment.viewer, PULL_BUDGET_BYTES, items) {
            Pulled::All => {}
            Pulled::Part => socket.wake(slot),
            Pulled::Gone => {
                socket.free(slot, attachment.viewer);
                context.hub.detach(&attachment);
            }
        }
    }
}

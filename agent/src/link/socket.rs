//! One WebSocket to a relay: opening it, the task that reads and the task that writes.

use std::time::Duration;

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::secret::Secret;
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage};
use claudenest_shared::wire::frame::Frame;
use claudenest_shared::wire::{AGENT_SUBPROTOCOL, limits};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::Loss;
use crate::channel::Outgoing;
use crate::relay_http::{CallError, clean, tls_error};
use crate::relay_url::RelayUrl;
use crate::tls::Trust;
use crate::yields;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Read at a time: relays send keys and credit. The buffer is filled with zeros before each read, also for a single byte,
/// and a large one throws everything out of the CPU's first cache on the way of each echo.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Messages read and not yet handled: a burst of input frames; the socket's own buffer holds the rest.
const INCOMING: usize = 64;
/// Messages waiting for the writer: at most 64 frames of 64 KiB; streams wait at the channel.
pub(super) const OUTGOING: usize = 64;
/// A write that takes longer means a dead or hopeless connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// Messages written before a flush: enough to fill packets, few enough to stay prompt.
const BATCH: usize = 32;
/// The last words must not hold up a shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the reader hands over.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A JSON message.
    Message(Box<RelayMessage>),
    /// A request that this version does not understand, to be answered.
    Unknown { request: u64 },
    /// A binary frame.
    Frame(Frame),
    /// A ping, a pong, or a message to be ignored: the relay is alive.
    Alive,
    /// The connection is over.
    Lost(Loss),
}

/// An open socket with its two tasks. Dropping it cuts the connection.
pub(super) struct Connection {
    pub(super) incoming: mpsc::Receiver<Incoming>,
    pub(super) out: mpsc::Sender<Outgoing>,
    /// Cancelled when the connection is over: everything that serves it ends.
    pub(super) over: CancellationToken,
    finish: CancellationToken,
    writer: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

impl Connection {
    /// Writes what is queued, says goodbye and closes, within a second.
    pub(super) async fn close(mut self) {
        self.finish.cancel();
        if let Some(writer) = self.writer.take() {
            let _ = timeout(CLOSE_TIMEOUT, writer).await;
        }
    }
}

/// Opens the WebSocket of `url`.
pub(super) async fn open(
    url: &RelayUrl,
    token: &Secret<String>,
    trust: &Trust,
    tasks: &TaskTracker,
) -> Result<Connection, Loss> {
    let broken = |error: CallError| Loss::Broken(error.to_string());
    let address = url.authority();
    let mut request = url
        .link()
        .into_client_request()
        .map_err(|error| Loss::Broken(format!("The address {url} cannot be used: {error}.")))?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .map_err(|_| Loss::NoSecret("The stored token is damaged. Pair the machine again.".to_owned()))?;
    bearer.set_sensitive(true);
    request.headers_mut().insert("authorization", bearer);
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(AGENT_SUBPROTOCOL));
    request.headers_mut().insert(
        "user-agent",
        HeaderValue::from_static(concat!("claudenest-agent/", env!("CARGO_PKG_VERSION"))),
    );
    let addresses: Vec<_> = tokio::net::lookup_host((url.host(), url.port()))
        .await
        .map_err(|_| broken(CallError::Dns(url.host().to_owned())))?
        .collect();
    let stream = connect(&addresses).await.map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
            _ => error.to_string(),
        };
        broken(CallError::Connect { address: address.clone(), reason })
    })?;
    // Keystrokes are small and must not wait for company.
    let _ = stream.set_nodelay(true);
    let connector = if url.is_tls() { Connector::Rustls(trust.client_config()) } else { Connector::Plain };
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits::MAX_MESSAGE_BYTES))
        .max_frame_size(Some(limits::MAX_MESSAGE_BYTES))
        .read_buffer_size(READ_BUFFER_BYTES);
    let upgraded =
        tokio_tungstenite::client_async_tls_with_config(request, stream, Some(config), Some(connector));
    let (socket, _) = Box::pin(upgraded).await.map_err(|error| refusal(&address, error))?;
    let (sink, stream) = socket.split();
    let (incoming_sender, incoming) = mpsc::channel(INCOMING);
    let (out, outgoing) = mpsc::channel(OUTGOING);
    let (over, finish) = (CancellationToken::new(), CancellationToken::new());
    // Both tasks end with the connection.
    let reader = read(stream, incoming_sender.clone());
    let over_reading = over.clone();
    tasks.spawn(async move { over_reading.run_until_cancelled(reader).await });
    let writer = write(sink, outgoing, incoming_sender, finish.clone());
    let over_writing = over.clone();
    let writer = tasks.spawn(async move {
        over_writing.run_until_cancelled(writer).await;
    });
    Ok(Connection { incoming, out, over, finish, writer: Some(writer) })
}

async fn connect(addresses: &[std::net::SocketAddr]) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in addresses {
        match timeout(Duration::from_secs(6), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::Error::other("no answer in time"),
        }
    }
    Err(last)
}

/// Why the upgrade failed.
fn refusal(address: &str, error: Error) -> Loss {
    match error {
        Error::Http(response) => {
            let status = response.status().as_u16();
            #[derive(serde::Deserialize)]
            struct Body {
                error: WireError,
            }
            let body = response.into_body().unwrap_or_default();
            match serde_json::from_slice::<Body>(&body) {
                Ok(Body { error })
                    if matches!(error.code, ErrorCode::Revoked | ErrorCode::Unauthenticated) =>
                {
                    Loss::Revoked(clean(&error.message))
                }
                Ok(Body { error }) => Loss::Broken(clean(&error.message)),
                // A 401 of something else than a relay is no revocation.
                Err(_) => Loss::Broken(format!(
                    "{address} answered with HTTP status {status}, but not as a ClaudeNest relay does."
                )),
            }
        }
        Error::Io(error) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match inner {
                Some(tls) => Loss::Broken(tls_error(address.to_owned(), tls).to_string()),
                None => Loss::Broken(format!("The connection to {address} broke: {error}.")),
            }
        }
        Error::Protocol(problem) => Loss::Broken(format!(
            "{address} does not open a WebSocket as a ClaudeNest relay does ({problem}). Check the address and the proxy."
        )),
        error => Loss::Broken(format!("The connection to {address} failed: {error}.")),
    }
}

async fn read(mut stream: SplitStream<Socket>, incoming: mpsc::Sender<Incoming>) {
    loop {
        let item = match stream.next().await {
            Some(Ok(message)) => parse(message),
            Some(Err(error)) => Incoming::Lost(Loss::Broken(broken_text(&error))),
            None => Incoming::Lost(Loss::Broken("The relay closed the connection.".to_owned())),
        };
        let is_last = matches!(item, Incoming::Lost(_));
        if incoming.send(item).await.is_err() || is_last {
            return;
        }
    }
}

fn parse(message: Message) -> Incoming {
    match message {
        Message::Text(text) if text.len() > limits::MAX_TEXT_BYTES => {
            Incoming::Lost(Loss::Broken("The relay sent a message above the limit.".to_owned()))
        }
        Message::Text(text) => match serde_json::from_str(text.as_str()) {
            Ok(message) => Incoming::Message(Box::new(message)),
            Err(_) => unknown(text.as_str()),
        },
        Message::Binary(bytes) => match Frame::decode(&bytes) {
            Ok(frame) => Incoming::Frame(frame),
            Err(error) => {
                tracing::warn!(%error, "a frame of the relay is ignored");
                Incoming::Alive
            }
        },
        Message::Close(frame) => {
            let (code, reason) = frame
                .map_or((1005, String::new()), |frame| (frame.code.into(), clean(frame.reason.as_str())));
            Incoming::Lost(Loss::Closed { code, reason })
        }
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Incoming::Alive,
    }
}

/// A message of a newer relay: requests get an answer, everything else is ignored.
fn unknown(text: &str) -> Incoming {
    #[derive(serde::Deserialize)]
    struct Numbered {
        #[serde(rename = "type")]
        kind: String,
        request: u64,
    }
    match serde_json::from_str::<Numbered>(text) {
        Ok(Numbered { kind, request }) if kind == "request" => Incoming::Unknown { request },
        _ => {
            tracing::debug!("a message of the relay is not understood and ignored");
            Incoming::Alive
        }
    }
}

async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    incoming: mpsc::Sender<Incoming>,
    finish: CancellationToken,
) {
    loop {
        let first = tokio::select! {
            biased;
            first = outgoing.recv() => first,
            () = finish.cancelled() => None,
        };
        let Some(first) = first else {
            let _ = sink.send(Message::Close(None)).await;
            let _ = sink.close().await;
            return;
        };
        // An echo and the acknowledgement of its key come at the same time from two tasks: one packet for both.
        yields::to_the_end().await;
        let batch = async {
            sink.feed(encode(first)).await?;
            for _ in 1..BATCH {
                match outgoing.try_recv() {
                    Ok(next) => sink.feed(encode(next)).await?,
                    Err(_) => break,
                }
            }
            sink.flush().await
        };
        let text = match timeout(WRITE_TIMEOUT, batch).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => broken_text(&error),
            Err(_) => format!("The relay took nothing for {} s.", WRITE_TIMEOUT.as_secs()),
        };
        outgoing.close();
        let _ = incoming.send(Incoming::Lost(Loss::Broken(text))).await;
        return;
    }
}

fn broken_text(error: &Error) -> String {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => "The relay closed the connection.".to_owned(),
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => "The connection to the relay was cut.".to_owned(),
        error => format!("The connection to the relay broke: {error}."),
    }
}

fn encode(outgoing: Outgoing) -> Message {
    match outgoing {
        Outgoing::Frame(frame) => Message::Binary(frame.encode()),
        Outgoing::Message(message) => Message::text(text_of(message)),
    }
}

/// JSON of a message; a reply above the limit becomes an error.
fn text_of(message: AgentMessage) -> String {
    let text = serde_json::to_string(&message).expect("messages are plain data");
    match message {
        AgentMessage::Response { request, .. } if text.len() > limits::MAX_TEXT_BYTES => {
            let error = WireError::new(
                ErrorCode::TooLarge,
                "The answer is larger than a message may be. Ask for less, or use the agent's own command line.",
            );
            let reply = claudenest_shared::wire::agent::Reply::Error { error };
            serde_json::to_string(&AgentMessage::Response { request, reply })
                .expect("messages are plain data")
        }
        _ => text,
    }
}

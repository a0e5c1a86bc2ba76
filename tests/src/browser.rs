//! The browser's side of `/ws`: ticket, messages, frames. One socket, no reconnecting; see [`crate::viewer`] for that.

use anyhow::{Context, Result, bail};
use claudenest_shared::session::SessionInfo;
use claudenest_shared::wire::BROWSER_SUBPROTOCOL;
use claudenest_shared::wire::browser::{BrowserMessage, MachineInfo, ServerMessage};
use claudenest_shared::wire::frame::Frame;
use claudenest_shared::wire::limits::MAX_MESSAGE_BYTES;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use crate::PATIENCE;
use crate::http::Http;

/// What arrives on the socket.
#[derive(Debug)]
pub enum Event {
    /// A JSON message.
    Message(Box<ServerMessage>),
    /// A frame.
    Frame(Frame),
    /// The server closed the socket.
    Closed(Option<CloseFrame>),
}

/// An authenticated browser socket.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    /// Machines as of the `ready` message.
    pub machines: Vec<MachineInfo>,
    /// Sessions as of the `ready` message.
    pub sessions: Vec<SessionInfo>,
}

impl Socket {
    /// Opens the socket of a logged-in user.
    ///
    /// # Errors
    /// If the relay refuses, or is not there.
    pub async fn open(user: &Http) -> Result<Self> {
        let client = user.clone();
        let answer = tokio::task::spawn_blocking(move || client.post("/api/ws-tickets", &json!({})))
            .await?
            .context("a ticket")?;
        let ticket = answer.ok()?["ticket"].as_str().context("a ticket in the answer")?.to_owned();
        let mut stream = Self::connect(user, user.base()).await?;
        let auth = serde_json::to_string(&BrowserMessage::Auth { ticket })?;
        stream.send(Message::text(auth)).await?;
        let mut socket = Self { stream, machines: Vec::new(), sessions: Vec::new() };
        loop {
            match socket.next().await? {
                Event::Message(message) => {
                    if let ServerMessage::Ready { machines, sessions, .. } = *message {
                        socket.machines = machines;
                        socket.sessions = sessions;
                        return Ok(socket);
                    }
                }
                Event::Frame(_) => bail!("a frame before ready"),
                Event::Closed(frame) => bail!("closed instead of ready: {frame:?}"),
            }
        }
    }

    /// The bare connection with a chosen Origin, before authentication.
    ///
    /// # Errors
    /// If the upgrade is refused.
    pub async fn connect(
        user: &Http,
        origin: &str,
    ) -> Result<WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>> {
        let mut request = format!("{}/ws", user.base().replacen("http", "ws", 1)).into_client_request()?;
        request.headers_mut().insert("Origin", origin.parse()?);
        request.headers_mut().insert("Sec-WebSocket-Protocol", BROWSER_SUBPROTOCOL.parse()?);
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
        let connector = user.authority().map(trusting).transpose()?;
        let connecting = connect_async_tls_with_config(request, Some(config), true, connector);
        let (stream, _) = tokio::time::timeout(PATIENCE, connecting).await.context("connecting")??;
        Ok(stream)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the socket is gone.
    pub async fn send(&mut self, message: &BrowserMessage) -> Result<()> {
        Ok(self.stream.send(Message::text(serde_json::to_string(message)?)).await?)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// If the socket is gone.
    pub async fn send_frame(&mut self, frame: &Frame) -> Result<()> {
        Ok(self.stream.send(Message::Binary(frame.encode())).await?)
    }

    /// The next event, at most [`PATIENCE`] away.
    ///
    /// # Errors
    /// If nothing came, the connection broke, or it was not understood.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            let message =
                tokio::time::timeout(PATIENCE, self.stream.next()).await.context("a socket event")?;
            let Some(message) = message else { return Ok(Event::Closed(None)) };
            match message? {
                Message::Text(text) => {
                    let message =
                        serde_json::from_str(text.as_str()).with_context(|| format!("message {text}"))?;
                    return Ok(Event::Message(Box::new(message)));
                }
                Message::Binary(bytes) => return Ok(Event::Frame(Frame::decode(&bytes)?)),
                Message::Close(frame) => return Ok(Event::Closed(frame)),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Waits for the first message that `find` answers.
    ///
    /// # Errors
    /// If the socket ends before.
    pub async fn wait_for<T>(&mut self, find: impl Fn(&ServerMessage) -> Option<T>) -> Result<T> {
        loop {
            match self.next().await? {
                Event::Message(message) => {
                    if let Some(found) = find(&message) {
                        return Ok(found);
                    }
                }
                Event::Frame(_) => {}
                Event::Closed(frame) => bail!("closed: {frame:?}"),
            }
        }
    }
}

/// TLS that trusts one certificate authority.
fn trusting(authority: &std::path::Path) -> Result<Connector> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Connector::Rustls(std::sync::Arc::new(config)))
}

//! The two WebSocket endpoints: `/ws` for browsers and `/ws/agent` for machines.
//!
//! One task reads a socket, another writes it. Everything that is shared lives in the [hub](crate::hub).

mod agent;
mod browser;
pub(crate) mod history;
mod writer;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::HeaderMap;
use axum::routing::get;
use claudenest_shared::code::ErrorCode;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::http::error::ApiError;
use crate::hub::Hub;

/// Bytes that are gathered before they are handed to the kernel: two full output frames.
const WRITE_BUFFER_BYTES: usize = 128 * 1024;

/// Times of both endpoints; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A ping is sent this often; silence for three of them ends a socket. Below the idle limits of common proxies (60 s).
    pub heartbeat: Duration,
    /// A peer that reads nothing for this long is cut off. It resumes by offset, so this costs little.
    pub write_timeout: Duration,
    /// Time for the first message of a peer.
    pub handshake_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            write_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// What the endpoints need of the relay.
#[derive(Clone)]
pub struct Context {
    /// The hub.
    pub hub: Hub,
    /// Every task of a socket runs on it.
    pub tasks: TaskTracker,
    /// Cancelled when the relay ends.
    pub shutdown: CancellationToken,
    /// True for pages of the relay's own web app.
    pub is_own_page: Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>,
    /// Times.
    pub timing: Timing,
}

impl Context {
    /// Starts what runs beside the sockets, with the first of them.
    fn start(&self) {
        if self.hub.is_first_watch() {
            self.tasks.spawn(self.hub.clone().watch(self.shutdown.clone()));
        }
    }
}

/// Notices that a peer has been silent for too long. One timer, which is looked at when it fires and not set anew for each
/// message: that would be the dearest part of reading one.
struct Silence {
    patience: Duration,
    heard_at: Instant,
    timer: Pin<Box<tokio::time::Sleep>>,
}

impl Silence {
    fn new(patience: Duration) -> Self {
        Self { patience, heard_at: Instant::now(), timer: Box::pin(tokio::time::sleep(patience)) }
    }

    /// The peer has said something.
    fn broken(&mut self) {
        self.heard_at = Instant::now();
    }

    /// Returns when nothing was heard for the whole time. Cancel safe.
    async fn too_long(&mut self) {
        loop {
            self.timer.as_mut().await;
            let end = self.heard_at + self.patience;
            if Instant::now() >= end {
                return;
            }
            self.timer.as_mut().reset(end);
        }
    }
}

impl FromRef<App> for Context {
    fn from_ref(app: &App) -> Self {
        let site = app.site.clone();
        Self {
            hub: app.hub.clone(),
            tasks: app.tasks.clone(),
            shutdown: app.shutdown.clone(),
            is_own_page: Arc::new(move |headers| site.is_own_page(headers)),
            timing: Timing::default(),
        }
    }
}

/// Routes `/ws` and `/ws/agent`.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Context: FromRef<S>,
{
    Router::new().route("/ws", get(browser::upgrade)).route("/ws/agent", get(agent::upgrade))
}

/// Limits and subprotocol of every socket; refuses peers that do not speak the protocol.
fn accept(
    upgrade: WebSocketUpgrade,
    protocol: &'static str,
    max_message_bytes: usize,
    read_buffer_bytes: usize,
) -> Result<WebSocketUpgrade, ApiError> {
    let upgrade = upgrade
        .protocols([protocol])
        .max_message_size(max_message_bytes)
        .max_frame_size(max_message_bytes)
        .read_buffer_size(read_buffer_bytes)
        .write_buffer_size(WRITE_BUFFER_BYTES);
    if upgrade.selected_protocol().is_none() {
        return Err(ApiError::new(
            ErrorCode::VersionMismatch,
            format!("This relay speaks {protocol}. Update the program that connects, or the relay."),
        ));
    }
    Ok(upgrade)
}

#[cfg(test)]
mod tests;

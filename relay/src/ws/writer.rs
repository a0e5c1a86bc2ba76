//! Writes one WebSocket: everything that is ready in one go, with a deadline for each go.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};

use crate::hub::outbox::{Closing, Outgoing};

/// Longest close reason in bytes: control frames carry 125, two of them the code (RFC 6455 §5.5).
const MAX_REASON_BYTES: usize = 123;

/// How long to wait for the peer's end after the close frame was sent.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Reads on, and forgets, until the peer has ended the connection too, at most a second.
///
/// A socket that is closed with unread bytes is reset by the system, and a reset overtakes the close frame: the
/// peer would never learn the code (RFC 6455 §7.1.1 asks for the same).
pub(super) async fn linger(stream: &mut SplitStream<WebSocket>) {
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    drop(tokio::time::timeout(CLOSE_PATIENCE, rest).await);
}

/// The socket cannot be written any more: it is gone, or the peer did not read in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The connection is gone.
    #[error("the connection is gone")]
    Gone,
    /// Nothing was read by the peer for the whole write timeout.
    #[error("the peer did not read in time")]
    Stalled,
}

/// See the module.
pub(super) struct SocketWriter {
    sink: SplitSink<WebSocket, Message>,
    timeout: Duration,
}

impl SocketWriter {
    /// Wraps the writing half.
    pub(super) fn new(sink: SplitSink<WebSocket, Message>, timeout: Duration) -> Self {
        Self { sink, timeout }
    }

    /// Writes the messages and flushes once.
    pub(super) async fn write(
        &mut self,
        messages: impl IntoIterator<Item = Outgoing>,
    ) -> Result<(), WriteError> {
        let sink = &mut self.sink;
        let write = async {
            for message in messages {
                sink.feed(to_message(message)).await?;
            }
            sink.flush().await
        };
        finish(tokio::time::timeout(self.timeout, write).await)
    }

    /// Sends a WebSocket ping.
    pub(super) async fn ping(&mut self) -> Result<(), WriteError> {
        let ping = self.sink.send(Message::Ping(Bytes::new()));
        finish(tokio::time::timeout(self.timeout, ping).await)
    }

    /// Sends the close frame. Errors do not matter any more.
    pub(super) async fn close(&mut self, closing: &Closing) {
        let mut reason = closing.reason.as_str();
        while reason.len() > MAX_REASON_BYTES {
            let last = reason.char_indices().next_back().map_or(0, |(at, _)| at);
            reason = &reason[..last];
        }
        let frame = CloseFrame { code: closing.code, reason: Utf8Bytes::from(reason) };
        let close = async {
            // The peer may be gone already, or gone before it reads this.
            drop(self.sink.send(Message::Close(Some(frame))).await);
        };
        drop(tokio::time::timeout(self.timeout, close).await);
    }
}

fn finish(result: Result<Result<(), axum::Error>, tokio::time::error::Elapsed>) -> Result<(), WriteError> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(WriteError::Gone),
        Err(_) => Err(WriteError::Stalled),
    }
}

fn to_message(message: Outgoing) -> Message {
    match message {
        Outgoing::Text(text) => Message::Text(Utf8Bytes::from(&*text)),
        Outgoing::Binary(bytes) => Message::Binary(bytes),
    }
}

//! What waits to be written to one WebSocket: a queue that takes without waiting and says when it has too much.
//!
//! Its single reader is the task that writes the socket. A push leaves a permit for it, so no wake-up can be missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// A message to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outgoing {
    /// JSON.
    Text(Arc<str>),
    /// An encoded frame.
    Binary(Bytes),
}

impl Outgoing {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// A JSON message.
    pub(crate) fn json<T: serde::Serialize>(message: &T) -> Self {
        Self::Text(to_json(message))
    }
}

/// Serialises a message of the wire.
pub(crate) fn to_json<T: serde::Serialize>(message: &T) -> Arc<str> {
    serde_json::to_string(message).expect("wire messages have only string keys").into()
}

/// How a socket is closed: WebSocket code and a short reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Closing {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

/// What the writing task does next.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Outgoing>,
    /// Write the messages, then close.
    pub(crate) closing: Option<Closing>,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Outgoing>,
    bytes: usize,
    closing: Option<Closing>,
}

/// See the module.
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    notify: Notify,
    max_bytes: usize,
}

/// What a queued message costs beside its bytes; bounds queues of tiny messages.
const ITEM_OVERHEAD_BYTES: usize = 64;

impl Outbox {
    /// An empty outbox that holds at most `max_bytes`.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { queue: Mutex::default(), notify: Notify::new(), max_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic of another holder leaves a queue that is merely longer or shorter.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message. A peer that does not read until the queue is full is cut off: it resumes with a new socket.
    pub(crate) fn push(&self, message: Outgoing) {
        {
            let mut queue = self.lock();
            if queue.closing.is_some() {
                return;
            }
            queue.bytes += message.len() + ITEM_OVERHEAD_BYTES;
            queue.items.push_back(message);
            if queue.bytes > self.max_bytes {
                queue.items.clear();
                queue.closing = Some(Closing { code: 4503, reason: "messages are not being read".into() });
            }
        }
        self.notify.notify_one();
    }

    /// True while less than half of the room is used: senders that can refuse do so above.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().bytes < self.max_bytes / 2
    }

    /// Closes the socket after what is queued and `last`. The first closing wins.
    pub(crate) fn close(&self, code: u16, reason: &str, last: Option<Outgoing>) {
        {
            let mut queue = self.lock();
            if queue.closing.is_none() {
                queue.items.extend(last);
                queue.closing = Some(Closing { code, reason: reason.to_owned() });
            }
        }
        self.notify.notify_one();
    }

    /// True once the socket is to be closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing.is_some()
    }

    /// Takes everything that is queued.
    pub(crate) fn take(&self) -> Batch {
        let mut queue = self.lock();
        queue.bytes = 0;
        Batch { messages: queue.items.drain(..).collect(), closing: queue.closing.clone() }
    }

    /// Makes the writing task look, as if something had been pushed.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits until something was pushed since the last call returned.
    ///
    /// # Cancel safety
    /// A permit is consumed only when this returns.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}

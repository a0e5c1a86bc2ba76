//! What waits between the tasks of one run: answers to writers, and messages to the holder. Both are bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BytesMut};
use claudenest_shared::wire::holder::ToHolder;
use tokio::sync::Notify;

use super::InputAck;
use crate::unix_socket::Direct;

/// Refusals that wait for a writer's receiver; a viewer that sends more without reading is cut off.
const MAX_WAITING_ACKS: usize = 16 * 1024;

/// Answers to one writer, until its receiver takes them.
#[derive(Debug, Default)]
pub(super) struct AckQueue {
    state: Mutex<(VecDeque<InputAck>, bool)>,
    ready: Notify,
}

impl AckQueue {
    pub(super) fn push(&self, ack: InputAck) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.len() >= MAX_WAITING_ACKS {
            state.1 = true;
        }
        if !state.1 {
            state.0.push_back(ack);
        }
        self.ready.notify_one();
    }

    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.ready.notify_one();
    }

    /// The next answer; `None` when the writer or the session was closed. Cancel safe; one receiver.
    pub(super) async fn next(&self) -> Option<InputAck> {
        loop {
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(ack) = state.0.pop_front() {
                    return Some(ack);
                }
                if state.1 {
                    return None;
                }
            }
            self.ready.notified().await;
        }
    }
}

/// Messages to the holder, bounded by the input window and the rate of resizes. Written at once by whoever brings one,
/// as long as the holder takes them; what it does not take waits for the task that may wait.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    ready: Notify,
}

#[derive(Default)]
struct Waiting {
    buffer: BytesMut,
    /// The connection; absent between two of them.
    holder: Option<Direct>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, messages: &[ToHolder]) {
        if messages.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        let is_first = waiting.buffer.is_empty();
        for message in messages {
            message.encode(&mut waiting.buffer);
        }
        if is_first {
            waiting.write();
        }
        if !waiting.buffer.is_empty() {
            drop(waiting);
            self.ready.notify_one();
        }
    }

    /// Waits until something waits that the holder did not take at once. Cancel safe.
    pub(super) async fn left_over(&self) {
        while self.lock().buffer.is_empty() {
            self.ready.notified().await;
        }
    }

    /// Writes what the holder takes now; false when the connection is gone.
    pub(super) fn write(&self) -> bool {
        self.lock().write()
    }

    /// A new connection: what was meant for the one before is forgotten.
    pub(super) fn connect(&self, holder: Direct) {
        *self.lock() = Waiting { buffer: BytesMut::new(), holder: Some(holder) };
    }

    /// The connection is gone.
    pub(super) fn disconnect(&self) {
        self.lock().holder = None;
    }
}

impl Waiting {
    fn write(&mut self) -> bool {
        let Some(holder) = &self.holder else { return false };
        match holder.write(&self.buffer) {
            Ok(size) => {
                self.buffer.advance(size);
                true
            }
            // The reader learns the same.
            Err(_) => {
                self.holder = None;
                false
            }
        }
    }
}

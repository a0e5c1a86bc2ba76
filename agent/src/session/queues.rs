//! What waits between the tasks of one run: answers to writers, and messages to the holder. Both are bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;
use claudenest_shared::wire::holder::ToHolder;
use tokio::sync::Notify;

use super::InputAck;

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

/// Messages to the holder, bounded by the input window and the rate of resizes.
#[derive(Default)]
pub(super) struct Outbox {
    buffer: Mutex<BytesMut>,
    ready: Notify,
}

impl Outbox {
    pub(super) fn push(&self, messages: &[ToHolder]) {
        if messages.is_empty() {
            return;
        }
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            message.encode(&mut buffer);
        }
        drop(buffer);
        self.ready.notify_one();
    }

    /// Everything that waits. Cancel safe.
    pub(super) async fn take(&self) -> BytesMut {
        loop {
            {
                let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
                if !buffer.is_empty() {
                    return buffer.split();
                }
            }
            self.ready.notified().await;
        }
    }

    /// Forgets what was meant for a connection that is gone.
    pub(super) fn clear(&self) {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

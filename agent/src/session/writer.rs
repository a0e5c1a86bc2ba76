//! Writers: what types into a session.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::frame::FLAG_MORE;
use claudenest_shared::wire::holder::MAX_HOLDER_CHUNK_BYTES;

use super::queues::AckQueue;
use super::shared::Shared;
use super::{InputAck, WriterOpen};

/// Chunks of a long text that are on their way at a time: below the writer's window.
const CHUNKS_AT_A_TIME: u64 = 3;

/// One writer's attachment. Dropping it detaches.
pub struct Writer {
    shared: Arc<Shared>,
    writer: u64,
    attachment: u64,
    acks: Option<AckReceiver>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("writer", &self.writer).finish_non_exhaustive()
    }
}

/// The answers to one writer's input.
pub struct AckReceiver {
    queue: Arc<AckQueue>,
}

impl AckReceiver {
    /// The next answer; `None` when the writer or the session was closed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<InputAck> {
        self.queue.next().await
    }
}

impl Writer {
    pub(super) fn open(shared: &Arc<Shared>, open: WriterOpen) -> (Self, u64) {
        let writer = open.writer.0;
        let (attachment, queue, acked) =
            shared.attach(writer, open.label, open.may_size, open.is_local_terminal);
        let acks = Some(AckReceiver { queue });
        (Self { shared: Arc::clone(shared), writer, attachment, acks }, acked)
    }

    /// Applies input, or refuses it; the answer comes as an ack.
    pub fn input(&self, seq: u64, flags: u8, bytes: Bytes) {
        let todo = self.shared.lock().write(self.writer, seq, flags, bytes, Instant::now());
        self.shared.carry_out(todo);
        if flags & FLAG_MORE != 0 {
            // A paste that does not go on has a deadline.
            self.shared.housekeeping.notify_one();
        }
    }

    /// Says which size this writer has.
    pub fn resize(&self, size: TermSize) {
        let size = TermSize::clamped(size.cols, size.rows);
        let todo = self.shared.lock().resize(self.writer, size, Instant::now());
        self.finish_resize(todo);
    }

    /// Makes this writer the owner of the size.
    pub fn take_size(&self, size: TermSize) {
        let size = TermSize::clamped(size.cols, size.rows);
        let todo = self.shared.lock().take_size(self.writer, size, Instant::now());
        self.finish_resize(todo);
    }

    fn finish_resize(&self, todo: super::core::Todo) {
        self.shared.carry_out(todo);
        self.shared.notice(super::NoticeEvent::Changed);
    }

    /// The receiver of this writer's acks; the first call gets it.
    pub fn take_acks(&mut self) -> Option<AckReceiver> {
        self.acks.take()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.detach(self.writer, self.attachment);
    }
}

/// Text as it is typed: line ends become Enter, and what would end a bracketed paste early is left out.
pub(super) fn typed(text: &str, is_bracketed: bool) -> Vec<u8> {
    let text = text.replace("\r\n", "\r").replace('\n', "\r");
    if !is_bracketed {
        return text.into_bytes();
    }
    format!("\x1b[200~{}\x1b[201~", text.replace('\x1b', "")).into_bytes()
}

/// Writes bytes as a writer of its own and waits until they reached the child.
pub(super) async fn send(shared: &Arc<Shared>, bytes: Bytes) -> Result<(), WireError> {
    let mut id = [0; 8];
    getrandom::fill(&mut id)
        .map_err(|_| WireError::new(ErrorCode::Internal, "No random numbers. The log has the cause."))?;
    let open = WriterOpen {
        writer: claudenest_shared::id::WriterId(u64::from_le_bytes(id)),
        label: "sent text".to_owned(),
        may_size: false,
        is_local_terminal: false,
    };
    let (mut writer, acked) = Writer::open(shared, open);
    let Some(mut acks) = writer.take_acks() else { return Ok(()) };
    let chunks = bytes.chunks(MAX_HOLDER_CHUNK_BYTES).count() as u64;
    let (mut sent, mut written) = (0, 0);
    while written < chunks {
        while sent < chunks && sent < written + CHUNKS_AT_A_TIME {
            let from = sent as usize * MAX_HOLDER_CHUNK_BYTES;
            let piece = bytes.slice(from..bytes.len().min(from + MAX_HOLDER_CHUNK_BYTES));
            sent += 1;
            writer.input(acked + sent, if sent < chunks { FLAG_MORE } else { 0 }, piece);
        }
        match acks.next().await {
            Some(InputAck { refused: None, .. }) => written += 1,
            Some(InputAck { refused: Some(code), .. }) => return Err(refusal(code)),
            None => return Err(refusal(ErrorCode::SessionEnded)),
        }
    }
    Ok(())
}

fn refusal(code: ErrorCode) -> WireError {
    let text = match code {
        ErrorCode::SessionEnded => "The session ended before the text was written.",
        ErrorCode::InputFull => "The program does not read its input. Try again when it does.",
        _ => "The text was not written. Try again.",
    };
    WireError::new(code, text)
}

//! A track: one stream from the machine, its ring, and the credit that the machine has.

use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::frame::{Frame, FrameKind};
use claudenest_shared::wire::limits::STREAM_WINDOW_BYTES;

use super::core::{Effect, Key, Violation};
use super::ring::Ring;

/// A credit grant to the machine is sent when it adds this much: an eighth of the window keeps the machine
/// from ever running dry and costs one small frame per 128 KiB.
const GRANT_STEP_BYTES: u64 = STREAM_WINDOW_BYTES / 8;

/// See the module.
#[derive(Default)]
pub(super) struct Track {
    pub(super) ring: Ring,
    pub(super) stream: Option<Stream>,
    /// Bytes of the ring's count that the leading viewer has taken.
    pub(super) consumed: u64,
}

/// A stream on the present link.
pub(super) struct Stream {
    pub(super) key: Key,
    pub(super) asked: Option<StreamPosition>,
    pub(super) lag_limit: u64,
    pub(super) is_open: bool,
    /// A snapshot is on its way.
    pub(super) awaits_snapshot: bool,
    /// The exit has come: nothing else will, not even a snapshot.
    pub(super) is_over: bool,
    /// The ring's byte count when the stream was opened.
    base: u64,
    granted: u64,
}

impl Track {
    pub(super) fn is_open(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_open)
    }

    pub(super) fn is_over(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_over)
    }

    /// Asks for the stream from `from`. What its leading viewer has not taken yet counts against the first credit.
    pub(super) fn open(
        &mut self,
        key: Key,
        from: Option<StreamPosition>,
        lag_limit: u64,
        effects: &mut Vec<Effect>,
    ) {
        let base = self.ring.received();
        let credit = (self.consumed + STREAM_WINDOW_BYTES).saturating_sub(base);
        self.stream = Some(Stream {
            key,
            asked: from,
            lag_limit,
            is_open: false,
            awaits_snapshot: true,
            is_over: false,
            base,
            granted: credit,
        });
        effects.push(Effect::OpenStream { key, from, lag_limit_bytes: lag_limit, credit });
    }

    /// The machine has opened the stream at `at`.
    pub(super) fn opened(&mut self, at: StreamPosition) {
        let Some(stream) = &mut self.stream else { return };
        stream.is_open = true;
        stream.awaits_snapshot = stream.asked != Some(at);
        if !stream.awaits_snapshot && self.ring.position().is_none() {
            self.ring.start_at(at);
        }
    }

    /// Asks for a snapshot unless one is on its way; a stream that is not open yet is asked once it is.
    pub(super) fn want_snapshot(&mut self, effects: &mut Vec<Effect>) {
        if let Some(stream) = &mut self.stream
            && stream.is_open
            && !stream.awaits_snapshot
            && !stream.is_over
        {
            stream.awaits_snapshot = true;
            effects.push(Effect::Snapshot { key: stream.key });
        }
    }

    /// The leading viewer has taken the bytes up to that count.
    pub(super) fn consume(&mut self, count: u64, effects: &mut Vec<Effect>) {
        self.consumed = self.consumed.max(count);
        let Some(stream) = &mut self.stream else { return };
        let total = (self.consumed + STREAM_WINDOW_BYTES).saturating_sub(stream.base);
        if total >= stream.granted + GRANT_STEP_BYTES {
            stream.granted = total;
            effects.push(Effect::Credit { key: stream.key, total });
        }
    }

    /// Puts a frame into the ring; false if it does not continue the stream.
    ///
    /// # Errors
    /// If the machine ignores what was agreed.
    pub(super) fn push(&mut self, frame: &Frame, encoded: &[u8], channel: u16) -> Result<bool, Violation> {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.is_open) else {
            return Err(Violation("a frame came before its stream was open"));
        };
        if frame.offset.checked_add(frame.payload.len() as u64).is_none() {
            return Err(Violation("a frame is beyond the end of any stream"));
        }
        if self.ring.received() > stream.base + stream.granted + STREAM_WINDOW_BYTES {
            return Err(Violation("the machine sent more than it was granted"));
        }
        if frame.kind == FrameKind::Output && stream.awaits_snapshot && self.ring.position().is_none() {
            return Ok(false); // Nothing says which screen these bytes belong to.
        }
        if frame.kind == FrameKind::Snapshot {
            stream.awaits_snapshot = false;
        }
        if frame.kind == FrameKind::Exit {
            stream.is_over = true;
            stream.awaits_snapshot = false; // A wish that crossed the exit is not answered.
        }
        Ok(self.ring.push(frame, encoded, channel).is_ok())
    }
}

//! One viewer's way through the output: what it gets next. Pure; the shell makes snapshots and reads the disk.
//!
//! Invariants: output frames are contiguous; a jump is always a snapshot with the gap flag; nothing but snapshots
//! is sent beyond the credit, and those only while some is left; a change of size comes exactly at its offset.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use claudenest_shared::id::SessionId;
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::frame::{FLAG_GAP, Frame, FrameKind, encode_exit, encode_size};
use claudenest_shared::wire::limits::{MAX_LAG_LIMIT_BYTES, MAX_OUTPUT_BYTES};

use super::core::Core;

/// A frame this large gains nothing by waiting (measured: per-frame cost is a quarter of that at 4 KiB).
const FLUSH_BYTES: u64 = 16 * 1024;
/// The longest that output waits for more; the first bytes after silence never wait. The runtime's timers round up to
/// the next millisecond: this is 3 on average and 3.5 at most.
const GATHER: Duration = Duration::from_micros(2500);

/// A snapshot that the shell made: it reflects exactly the bytes below `offset`.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) offset: u64,
    pub(super) size: TermSize,
    /// Number of the first change of size that is not in it.
    pub(super) next_resize: u64,
    pub(super) bytes: Bytes,
}

/// What the viewer needs next.
#[derive(Debug)]
pub(super) enum Step {
    /// Send it.
    Frame(Frame),
    /// Make a snapshot and call [`Viewer::snapshot`].
    Snapshot,
    /// Read sanitised output from disk at this offset and call [`Viewer::disk`].
    Disk(u64),
    /// Nothing before this time, unless something changes.
    Until(Instant),
    /// Nothing unless something changes.
    Wait,
    /// The stream is over.
    End,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Viewer {
    session: SessionId,
    epoch: u32,
    position: u64,
    lag_limit: u64,
    granted: u64,
    sent: u64,
    next_resize: u64,
    last_flush: Option<Instant>,
    /// The viewer's screen is not what the stream continues: a snapshot comes first. True if bytes are left out.
    jump: Option<bool>,
    /// Snapshots asked for and not made.
    wanted: bool,
    /// A snapshot that waits until the viewer has read up to it.
    made: Option<(Snapshot, u8)>,
    /// Output read from disk, starting at `position`.
    disk: Bytes,
    has_ended: bool,
    /// Say the size first: the viewer joins in the middle.
    say_size: bool,
}

impl Viewer {
    pub(super) fn open(
        core: &Core,
        session: SessionId,
        from: Option<StreamPosition>,
        lag_limit: u64,
        credit: u64,
    ) -> Self {
        let lag_limit = lag_limit.min(MAX_LAG_LIMIT_BYTES);
        let head = core.head();
        let delta = from.filter(|from| {
            from.epoch == core.epoch && from.offset <= head && head - from.offset <= lag_limit
        });
        let position = delta.map_or(head, |from| from.offset);
        Self {
            session,
            epoch: core.epoch,
            position,
            lag_limit,
            granted: credit,
            sent: 0,
            next_resize: core.resize_number_after(position),
            last_flush: None,
            jump: delta.is_none().then_some(from.is_some()),
            wanted: false,
            made: None,
            disk: Bytes::new(),
            has_ended: false,
            say_size: delta.is_some(),
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Allows `total` payload bytes since the opening.
    pub(super) fn grant(&mut self, total: u64) {
        self.granted = self.granted.max(total);
    }

    pub(super) fn want_snapshot(&mut self) {
        self.wanted = true;
    }

    /// Takes the snapshot that [`Step::Snapshot`] asked for.
    pub(super) fn snapshot(&mut self, snapshot: Snapshot) {
        match self.jump.take() {
            Some(is_gap) => {
                self.position = snapshot.offset;
                self.disk = Bytes::new();
                self.say_size = false;
                self.made = Some((snapshot, if is_gap { FLAG_GAP } else { 0 }));
                self.wanted = false;
            }
            // It joins the stream where the viewer will be; one that lies behind is of no use.
            None if snapshot.offset >= self.position => {
                self.wanted = false;
                self.made = Some((snapshot, 0));
            }
            None => {}
        }
    }

    /// Takes what [`Step::Disk`] asked for; nothing there means a gap.
    pub(super) fn disk(&mut self, from: u64, bytes: Option<Bytes>) {
        match bytes {
            Some(bytes) if from == self.position && !bytes.is_empty() => self.disk = bytes,
            _ => self.jump = Some(true),
        }
    }

    fn frame(&self, kind: FrameKind, flags: u8, offset: u64, payload: Bytes) -> Step {
        Step::Frame(Frame {
            kind,
            flags,
            channel: 0,
            epoch: self.epoch,
            session: self.session,
            offset,
            payload,
        })
    }

    /// What comes next. Call again after each frame, change, grant or deadline.
    pub(super) fn poll(&mut self, core: &Core, now: Instant) -> Step {
        if self.has_ended || core.is_closed {
            return Step::End;
        }
        let credit = self.granted.saturating_sub(self.sent);
        if let Some((snapshot, flags)) = self.made.take_if(|(snapshot, _)| snapshot.offset == self.position) {
            let mut payload = BytesMut::with_capacity(snapshot.bytes.len() + 4);
            payload.put_u16_le(snapshot.size.cols);
            payload.put_u16_le(snapshot.size.rows);
            payload.put_slice(&snapshot.bytes);
            self.sent += payload.len() as u64;
            self.last_flush = Some(now);
            // A change of size at this offset may be in it or not.
            self.next_resize = snapshot.next_resize;
            return self.frame(FrameKind::Snapshot, flags, snapshot.offset, payload.freeze());
        }
        if self.jump.is_none()
            && core.head().saturating_sub(self.position) > self.lag_limit
            && self.made.is_none()
        {
            self.jump = Some(true);
        }
        if self.jump.is_some() {
            return if credit == 0 { Step::Wait } else { Step::Snapshot };
        }
        if self.wanted && self.made.is_none() && core.head() >= self.position && credit > 0 {
            return Step::Snapshot;
        }
        if std::mem::take(&mut self.say_size) {
            return self.frame(FrameKind::Resize, 0, self.position, encode_size(core.size_at(self.position)));
        }
        let mut limit = core.head();
        if let Some((number, offset, size)) = core.resize_number(self.next_resize) {
            if offset <= self.position {
                self.next_resize = number + 1;
                return self.frame(FrameKind::Resize, 0, offset, encode_size(size));
            }
            limit = limit.min(offset);
        }
        if let Some((snapshot, _)) = &self.made {
            limit = limit.min(snapshot.offset);
        }
        let available = limit.saturating_sub(self.position);
        if available == 0 {
            return match core.exit() {
                Some(exit) if self.position >= exit.offset => {
                    self.has_ended = true;
                    self.frame(FrameKind::Exit, 0, exit.offset, encode_exit(exit.exit))
                }
                _ => Step::Wait,
            };
        }
        if credit == 0 {
            return Step::Wait;
        }
        if let Some(last) = self.last_flush
            && available < FLUSH_BYTES
            && now < last + GATHER
            && limit == core.head()
            && core.exit().is_none()
        {
            return Step::Until(last + GATHER);
        }
        let max = usize::try_from(available.min(credit)).unwrap_or(MAX_OUTPUT_BYTES).min(MAX_OUTPUT_BYTES);
        let payload = if !self.disk.is_empty() {
            let size = max.min(self.disk.len());
            self.disk.split_to(size)
        } else if self.position < core.ring.tail() {
            return Step::Disk(self.position);
        } else {
            core.ring.slice(self.position, max)
        };
        let offset = self.position;
        self.position += payload.len() as u64;
        self.sent += payload.len() as u64;
        self.last_flush = Some(now);
        self.frame(FrameKind::Output, 0, offset, payload)
    }
}

#[cfg(test)]
#[path = "viewer_tests.rs"]
mod tests;

//! The ring: the newest part of one stream as encoded frames, shared by everybody who follows it.
//!
//! Invariants: entries are in stream order; output is contiguous except where a snapshot that is not
//! [optional](Entry::is_optional) lies between; memory is bounded by [`RING_BYTES`] whatever the frames look like.

use std::collections::VecDeque;

use bytes::Bytes;
use claudenest_shared::id::SessionId;
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::frame::{FLAG_GAP, Frame, FrameKind, with_channel};

/// Most memory that one ring holds: room for a viewer that lags by the default 512 KiB eight times over, and
/// for 2 seconds of a 2 MB/s stream, so that a short network pause costs nobody a snapshot.
pub(crate) const RING_BYTES: usize = 4 * 1024 * 1024;
/// What an entry costs beside its bytes: the entry itself and its allocation. Bounds rings of tiny frames.
const ENTRY_OVERHEAD_BYTES: usize = 160;
/// Encodings for further channel numbers that an entry keeps. Browsers use small numbers, so a few serve all.
const MAX_CACHED_CHANNELS: usize = 4;

/// One frame of the stream.
pub(super) struct Entry {
    pub(super) kind: FrameKind,
    pub(super) epoch: u32,
    pub(super) offset: u64,
    pub(super) payload_bytes: u64,
    /// Payload bytes that the stream carried before this entry.
    pub(super) index: u64,
    /// A snapshot at the stream's own position: only for viewers that wait for one.
    pub(super) is_optional: bool,
    /// The size that holds behind it, as far as it is known.
    pub(super) size: Option<TermSize>,
    flags: u8,
    channel: u16,
    encoded: Bytes,
    others: Vec<(u16, Bytes)>,
}

impl Entry {
    /// Offset after the last byte of output.
    pub(super) fn end(&self) -> u64 {
        self.offset + if self.kind == FrameKind::Output { self.payload_bytes } else { 0 }
    }

    /// True for a size or the exit.
    fn is_mark(&self) -> bool {
        matches!(self.kind, FrameKind::Resize | FrameKind::Exit)
    }

    /// The whole frame for a viewer's channel; copied at most once per channel number.
    pub(super) fn for_channel(&mut self, channel: u16) -> Bytes {
        if self.channel == channel {
            return self.encoded.clone();
        }
        if let Some((_, bytes)) = self.others.iter().find(|(number, _)| *number == channel) {
            return bytes.clone();
        }
        let bytes = with_channel(&self.encoded, channel).freeze();
        if self.others.len() < MAX_CACHED_CHANNELS {
            self.others.push((channel, bytes.clone()));
        }
        bytes
    }

    /// The same with the gap flag set or cleared.
    pub(super) fn with_gap(&mut self, channel: u16, is_gap: bool) -> Bytes {
        let flags = if is_gap { self.flags | FLAG_GAP } else { self.flags & !FLAG_GAP };
        if flags == self.flags {
            return self.for_channel(channel);
        }
        let mut bytes = with_channel(&self.encoded, channel);
        if let Some(slot) = bytes.get_mut(1) {
            *slot = flags;
        }
        bytes.freeze()
    }

    /// A part of an output frame, from the absolute offset `from`, `len` bytes.
    pub(super) fn part(&self, session: SessionId, channel: u16, from: u64, len: u64) -> Bytes {
        let header = self.encoded.len() - to_usize(self.payload_bytes);
        let start = header + to_usize(from - self.offset);
        let payload = self.encoded.slice(start..start + to_usize(len));
        Frame {
            kind: self.kind,
            flags: self.flags,
            channel,
            epoch: self.epoch,
            session,
            offset: from,
            payload,
        }
        .encode()
    }
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).expect("payloads are far below the address space")
}

/// The machine's frame does not continue the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OutOfOrder;

/// See the module.
#[derive(Default)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    first_seq: u64,
    bytes: usize,
    received: u64,
    position: Option<StreamPosition>,
    /// The size at the end.
    size: Option<TermSize>,
    /// Number of the entry after the newest jump: from there on, no byte is missing.
    whole_from: u64,
}

impl Ring {
    /// Number of the entry after the newest.
    pub(super) fn end_seq(&self) -> u64 {
        self.first_seq + self.entries.len() as u64
    }

    /// Number of the oldest entry.
    pub(super) fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// The size at the end, as far as it is known.
    pub(super) fn size(&self) -> Option<TermSize> {
        self.size
    }

    /// Payload bytes received in total.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Where the stream is: the next byte that will be pushed. Absent before the first frame.
    pub(super) fn position(&self) -> Option<StreamPosition> {
        self.position
    }

    /// Declares the position of a stream that has not sent anything yet.
    pub(super) fn start_at(&mut self, position: StreamPosition) {
        self.position = Some(position);
        self.size = None;
    }

    /// Forgets everything; entry numbers and the byte count go on.
    pub(super) fn clear(&mut self) {
        self.first_seq = self.end_seq();
        self.entries.clear();
        self.bytes = 0;
        self.position = None;
        self.size = None;
    }

    /// The entry with that number.
    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        let at = seq.checked_sub(self.first_seq)?;
        self.entries.get_mut(usize::try_from(at).ok()?)
    }

    /// Payload bytes before the entry with that number; everything received when it is the next one.
    pub(super) fn index_of(&self, seq: u64) -> u64 {
        match seq.checked_sub(self.first_seq).and_then(|at| self.entries.get(at as usize)) {
            Some(entry) => entry.index,
            None => self.received,
        }
    }

    /// Appends a frame of the stream, encoded for `channel`, and returns its number.
    ///
    /// The bytes are copied once here: a slice of the socket's read buffer would keep all of that buffer alive.
    pub(super) fn push(&mut self, frame: &Frame, encoded: &[u8], channel: u16) -> Result<u64, OutOfOrder> {
        let at = StreamPosition { epoch: frame.epoch, offset: frame.offset };
        let mut is_optional = false;
        let mut payload_bytes = 0;
        match frame.kind {
            FrameKind::Output => {
                let is_restart =
                    self.position.is_some_and(|position| at.epoch > position.epoch && at.offset == 0);
                if self.position.is_some_and(|position| position != at) && !is_restart {
                    return Err(OutOfOrder);
                }
                payload_bytes = frame.payload.len() as u64;
                self.position = Some(StreamPosition { offset: at.offset + payload_bytes, ..at });
            }
            FrameKind::Snapshot => {
                is_optional = self.position == Some(at);
                payload_bytes = frame.payload.len() as u64;
                self.position = Some(at);
            }
            _ => {}
        }
        self.size = frame.size().or(self.size);
        let seq = self.end_seq();
        if frame.kind == FrameKind::Snapshot && !is_optional {
            self.whole_from = seq + 1;
        }
        let encoded = with_channel(encoded, channel).freeze();
        self.bytes += encoded.len() + ENTRY_OVERHEAD_BYTES;
        self.entries.push_back(Entry {
            kind: frame.kind,
            epoch: frame.epoch,
            offset: frame.offset,
            payload_bytes,
            index: self.received,
            is_optional,
            size: self.size,
            flags: frame.flags,
            channel,
            encoded,
            others: Vec::new(),
        });
        self.received += payload_bytes;
        while self.bytes > RING_BYTES && self.entries.len() > 1 {
            self.pop();
        }
        Ok(seq)
    }

    /// Forgets entries before that number.
    pub(super) fn trim_to(&mut self, seq: u64) {
        while self.first_seq < seq && !self.entries.is_empty() {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.encoded.len() + ENTRY_OVERHEAD_BYTES;
            self.first_seq += 1;
        }
    }

    /// True if the stream has not come to that position yet.
    pub(super) fn is_behind(&self, wanted: StreamPosition) -> bool {
        self.position.is_some_and(|at| at.epoch == wanted.epoch && at.offset < wanted.offset)
    }

    /// Payload bytes from that entry on that a viewer lacks whose next byte is `position`.
    pub(super) fn lag(&self, seq: u64, position: Option<StreamPosition>) -> u64 {
        let sent = self.received - self.index_of(seq);
        match (self.position, position) {
            (Some(end), Some(next)) if end.epoch == next.epoch => {
                sent.min(end.offset.saturating_sub(next.offset))
            }
            _ => sent,
        }
    }

    /// The entry at which a viewer goes on whose next byte is `wanted`; absent if its bytes are not here.
    pub(super) fn locate(&self, wanted: StreamPosition) -> Option<u64> {
        if self.position == Some(wanted) {
            // Sizes and the exit at this very place may be new to the viewer.
            let marks = self.entries.iter().rev().take_while(|entry| entry.is_mark()).count();
            return Some(self.end_seq() - marks as u64);
        }
        if self.is_behind(wanted) {
            return None;
        }
        let oldest = self.entries.front()?;
        if oldest.epoch == wanted.epoch && wanted.offset < oldest.offset {
            return None; // The common case of a viewer that catches up on its own stream.
        }
        let found = self.entries.iter().rposition(|entry| {
            entry.kind == FrameKind::Output
                && entry.epoch == wanted.epoch
                && (entry.offset..=entry.end()).contains(&wanted.offset)
        })?;
        let entry = &self.entries[found];
        let is_behind_it = entry.end() == wanted.offset && entry.payload_bytes > 0;
        // Sizes at this very place come before the bytes, and may be new to the viewer.
        let marks = match entry.offset == wanted.offset {
            true => self.entries.range(..found).rev().take_while(|entry| entry.is_mark()).count(),
            false => 0,
        };
        Some(self.first_seq + (found - marks) as u64 + u64::from(is_behind_it))
    }

    /// The same, but only if no byte is missing from there to the end.
    pub(super) fn locate_whole(&self, wanted: StreamPosition) -> Option<u64> {
        self.locate(wanted).filter(|seq| *seq >= self.whole_from)
    }

    /// The newest snapshot after which at most `delta` payload bytes came.
    pub(super) fn recent_snapshot(&self, delta: u64) -> Option<u64> {
        let oldest = self.received.saturating_sub(delta);
        self.entries
            .iter()
            .enumerate()
            .rev()
            .take_while(|(_, entry)| entry.index + entry.payload_bytes >= oldest)
            .find(|(_, entry)| entry.kind == FrameKind::Snapshot)
            .map(|(at, _)| self.first_seq + at as u64)
    }

    /// Memory held.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

//! A viewer: where it is in the stream, what it may still be sent, and what its writer has under way.
//!
//! Must not know the other viewers: [`super::core`] decides what concerns more than one.

use std::collections::VecDeque;

use bytes::Bytes;
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::browser::ServerMessage;
use claudenest_shared::wire::frame::{FLAG_REFUSED, Frame, FrameKind, encode_size};
use claudenest_shared::wire::limits::INPUT_WINDOW_BYTES;

use super::core::Key;
use super::ring::Ring;
use super::track::Track;

/// Input frames that one writer may have unacknowledged: single keys in a bad network for many seconds.
pub(crate) const MAX_UNACKED_FRAMES: usize = 4096;

/// How often a writer that the machine has closed is opened anew on one link: a restart of the session needs one.
pub(super) const MAX_CLOSINGS: u8 = 4;

/// What a viewer is sent next.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Item {
    /// A binary frame, encoded for the viewer's channel.
    Frame(Bytes),
    /// A JSON message.
    Message(ServerMessage),
}

/// Where a viewer gets its output from.
pub(super) enum Place {
    /// It has said what it wants; the stream is not open yet.
    Wanting,
    /// It gets the next snapshot of the shared stream.
    Awaiting,
    /// It is at that entry of the shared ring.
    Following(Cursor),
    /// It has a stream of its own, because the shared ring does not reach back to its bytes.
    Own(Box<Track>, Cursor),
}

/// A place in a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cursor {
    /// Number of the next entry.
    pub(super) seq: u64,
    /// True if that entry is a snapshot that the viewer waits for.
    pub(super) takes_snapshot: bool,
}

impl Cursor {
    pub(super) fn at(seq: u64) -> Self {
        Self { seq, takes_snapshot: false }
    }
}

/// See the module.
pub(super) struct Viewer {
    pub(super) channel: u16,
    pub(super) lag_limit: u64,
    pub(super) window: u64,
    pub(super) credit: u64,
    pub(super) sent: u64,
    /// The next byte that the viewer lacks; absent until it has a snapshot.
    pub(super) position: Option<StreamPosition>,
    /// The size that it was told on this attachment.
    pub(super) told_size: Option<TermSize>,
    /// Where it was told of the exit.
    pub(super) exit: Option<StreamPosition>,
    pub(super) place: Place,
    /// True once `attached` was sent: output may follow.
    pub(super) was_attached: bool,
    /// True if `attached` was sent for the present link.
    pub(super) is_attached: bool,
    pub(super) link_notice: Option<bool>,
    pub(super) writer: Option<Writer>,
    pub(super) closing: Option<Option<WireError>>,
}

/// The input side of a viewer.
pub(super) struct Writer {
    pub(super) id: WriterId,
    pub(super) label: String,
    pub(super) may_size: bool,
    pub(super) key: Option<Key>,
    /// Known once the machine has opened the writer.
    pub(super) acked: Option<u64>,
    /// How often the machine has closed it on the present link.
    pub(super) closings: u8,
    /// Why the machine does not take input on the present link.
    pub(super) refused: Option<ErrorCode>,
    pub(super) unacked: VecDeque<(u64, usize)>,
    pub(super) unacked_bytes: usize,
    pub(super) acks: VecDeque<(u64, u8, Bytes)>,
}

impl Writer {
    /// Takes an input frame into account; an error if more is under way than a writer may have.
    pub(super) fn count(&mut self, seq: u64, len: usize) -> Result<(), WireError> {
        if self.unacked_bytes + len > INPUT_WINDOW_BYTES
            || self.unacked.len() + self.acks.len() >= MAX_UNACKED_FRAMES
        {
            return Err(WireError::new(
                ErrorCode::InputFull,
                "More input was sent than the session has taken. Attach again and send it more slowly.",
            ));
        }
        self.unacked.push_back((seq, len));
        self.unacked_bytes += len;
        Ok(())
    }

    /// The machine has answered for `seq`, and so for all before it.
    pub(super) fn answered(&mut self, seq: u64, flags: u8, payload: Bytes) {
        while self.unacked.front().is_some_and(|(first, _)| *first <= seq) {
            if let Some((_, len)) = self.unacked.pop_front() {
                self.unacked_bytes -= len;
            }
        }
        if flags & FLAG_REFUSED == 0 {
            self.acked = self.acked.map(|acked| acked.max(seq));
        }
        if self.acks.len() < MAX_UNACKED_FRAMES {
            self.acks.push_back((seq, flags, payload));
        }
    }

    /// Answers a frame in the machine's place: it was not written.
    pub(super) fn refuse(&mut self, seq: u64, code: ErrorCode) {
        if self.acks.len() < MAX_UNACKED_FRAMES {
            self.acks.push_back((seq, FLAG_REFUSED, Bytes::from_static(code.as_str().as_bytes())));
        }
    }

    /// The machine has opened the writer; everything up to `acked` was applied.
    pub(super) fn opened(&mut self, acked: u64) {
        self.acked = Some(acked);
        self.forget_unacked();
    }

    /// The machine takes no input on the present link.
    pub(super) fn refuse_all(&mut self, code: ErrorCode) {
        self.refused = Some(code);
        for (seq, _) in std::mem::take(&mut self.unacked) {
            self.refuse(seq, code);
        }
        self.unacked_bytes = 0;
    }

    fn forget_unacked(&mut self) {
        self.unacked.clear();
        self.unacked_bytes = 0;
    }

    /// The link is gone; what was under way is learnt from `acked` when it is back.
    pub(super) fn link_lost(&mut self) {
        self.key = None;
        self.acked = None;
        self.refused = None;
        self.closings = 0;
        self.forget_unacked();
    }
}

/// Why [`Viewer::deliver`] stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// Everything there is was delivered, or the viewer has no credit left.
    Dry,
    /// The budget of this round is used up; there is more.
    Budget,
    /// The cursor's entry is no longer in the ring.
    FellOut,
}

impl Viewer {
    /// True if payload may be sent.
    pub(super) fn has_credit(&self) -> bool {
        self.credit > self.sent
    }

    /// True unless it has a stream of its own.
    pub(super) fn is_on_shared(&self) -> bool {
        !matches!(self.place, Place::Own(..))
    }

    /// True if its writer must still be opened on the present link.
    pub(super) fn lacks_writer(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.key.is_none() && writer.refused.is_none())
    }

    /// True if nothing is left to learn about its writer on the present link.
    pub(super) fn is_writer_settled(&self) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.acked.is_some() || writer.refused.is_some())
    }

    /// True if the viewer asked for more than the newest screen: it gets its bytes even when they cost a stream of their own.
    pub(super) fn wants_every_byte(&self) -> bool {
        self.lag_limit > claudenest_shared::wire::limits::DEFAULT_LAG_LIMIT_BYTES
    }

    /// Acknowledgements that wait, as frames.
    pub(super) fn take_acks(&mut self, session: SessionId, out: &mut Vec<Item>) {
        let channel = self.channel;
        let Some(writer) = &mut self.writer else { return };
        for (offset, flags, payload) in writer.acks.drain(..) {
            let frame =
                Frame { kind: FrameKind::InputAck, flags, channel, epoch: 0, session, offset, payload };
            out.push(Item::Frame(frame.encode()));
        }
    }

    /// Moves entries of `ring` from `cursor` on to `out`, as far as credit and `budget` bytes reach.
    pub(super) fn deliver(
        &mut self,
        session: SessionId,
        ring: &mut Ring,
        cursor: &mut Cursor,
        budget: &mut usize,
        out: &mut Vec<Item>,
    ) -> Stop {
        if cursor.seq < ring.first_seq() {
            return Stop::FellOut;
        }
        while let Some(entry) = ring.get_mut(cursor.seq) {
            if *budget == 0 {
                return Stop::Budget;
            }
            let at = StreamPosition { epoch: entry.epoch, offset: entry.offset };
            let frame = match entry.kind {
                FrameKind::Snapshot => {
                    let is_wanted = std::mem::take(&mut cursor.takes_snapshot) || {
                        // A viewer that is further than an in-stream jump has lost nothing.
                        let is_ahead = self.position.is_some_and(|position| {
                            position.epoch == at.epoch && position.offset >= at.offset
                        });
                        !entry.is_optional && !is_ahead
                    };
                    if !is_wanted {
                        cursor.seq += 1;
                        continue;
                    }
                    if !self.has_credit() {
                        cursor.takes_snapshot = true;
                        return Stop::Dry;
                    }
                    // A snapshot cannot be cut: it is sent when any credit is left, and counts in full.
                    self.sent += entry.payload_bytes;
                    let is_gap = self.position.is_some_and(|position| position != at);
                    self.position = Some(at);
                    self.told_size = entry.size;
                    entry.with_gap(self.channel, is_gap)
                }
                FrameKind::Output => {
                    let position = match self.position {
                        Some(position) if position.epoch == at.epoch => position,
                        _ => at, // A new byte sequence.
                    };
                    let skip = position.offset.max(at.offset) - at.offset;
                    let rest = entry.payload_bytes.saturating_sub(skip);
                    if rest == 0 {
                        cursor.seq += 1;
                        continue;
                    }
                    let len = rest.min(self.credit.saturating_sub(self.sent));
                    if len == 0 {
                        return Stop::Dry;
                    }
                    let from = at.offset + skip;
                    self.tell_size(session, entry.size, StreamPosition { offset: from, ..at }, out);
                    self.sent += len;
                    self.position = Some(StreamPosition { offset: from + len, ..at });
                    if len < rest {
                        *budget = budget.saturating_sub(usize::try_from(len).unwrap_or(usize::MAX));
                        out.push(Item::Frame(entry.part(session, self.channel, from, len)));
                        continue; // The rest of this entry, if there is credit for it.
                    }
                    if skip == 0 {
                        entry.for_channel(self.channel)
                    } else {
                        entry.part(session, self.channel, from, len)
                    }
                }
                _ => {
                    let is_past = self
                        .position
                        .is_some_and(|position| position.epoch == at.epoch && position.offset > at.offset);
                    let is_known = entry.kind == FrameKind::Exit && self.exit.replace(at) == Some(at);
                    if is_past || is_known {
                        cursor.seq += 1;
                        continue;
                    }
                    if entry.kind == FrameKind::Resize {
                        self.told_size = entry.size;
                    }
                    entry.for_channel(self.channel)
                }
            };
            cursor.seq += 1;
            *budget = budget.saturating_sub(frame.len());
            out.push(Item::Frame(frame));
        }
        if let Some(position) = self.position.filter(|position| ring.position() == Some(*position)) {
            self.tell_size(session, ring.size(), position, out);
        }
        Stop::Dry
    }

    /// Says the size that holds at a place, if the viewer was told another one or none: where it begins in the ring, the
    /// change itself may lie before.
    fn tell_size(
        &mut self,
        session: SessionId,
        size: Option<TermSize>,
        at: StreamPosition,
        out: &mut Vec<Item>,
    ) {
        let Some(known) = size.filter(|_| self.told_size != size) else { return };
        self.told_size = size;
        let frame = Frame {
            kind: FrameKind::Resize,
            flags: 0,
            channel: self.channel,
            epoch: at.epoch,
            session,
            offset: at.offset,
            payload: encode_size(known),
        };
        out.push(Item::Frame(frame.encode()));
    }
}

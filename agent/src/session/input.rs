//! Input of many writers on its way to the holder. Pure.
//!
//! Invariants: the numbers of one writer are taken once and in order; frames of one paste ([`FLAG_MORE`]) go out
//! without another writer's bytes in between; what is in flight and what waits is bounded; a number is
//! acknowledged only when the holder has written it to the child, and every number taken is answered.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::wire::frame::FLAG_MORE;
use claudenest_shared::wire::holder::{INPUT_MAY_SKIP, InputRefusal, ToHolder};
use claudenest_shared::wire::limits::INPUT_WINDOW_BYTES;

/// Bytes sent to the holder and not acknowledged: a quarter of what its queue takes.
const IN_FLIGHT_BYTES: usize = 256 * 1024;
/// Frames of one writer that may wait, so that single keys cannot use memory far beyond their bytes.
const MAX_WAITING_FRAMES: usize = 4096;
/// How long a paste that does not go on keeps others out.
pub(super) const PASTE_HOLD: Duration = Duration::from_secs(5);
/// Writers remembered: as many as the holder remembers.
const MAX_WRITERS: usize = 256;

/// An answer to a writer: number, and why it was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) writer: u64,
    pub(super) seq: u64,
    pub(super) refused: Option<ErrorCode>,
}

#[derive(Debug)]
struct Piece {
    seq: u64,
    has_more: bool,
    may_skip: bool,
    bytes: Bytes,
}

#[derive(Debug, Default)]
struct Writer {
    /// Highest number that reached the child.
    acked: u64,
    /// Highest number taken.
    taken: u64,
    /// The next number may leave a gap: the writer was just opened.
    may_skip: bool,
    waiting: VecDeque<Piece>,
    waiting_bytes: usize,
    /// Sent to the holder, not acknowledged; kept to be sent again on a new connection.
    sent: VecDeque<Piece>,
    last_use: u64,
}

/// Input of all writers of one session.
#[derive(Debug, Default)]
pub(super) struct InputCore {
    writers: HashMap<u64, Writer>,
    /// One entry per waiting frame, in the order of their coming.
    order: VecDeque<u64>,
    in_flight: usize,
    /// The writer in the middle of a paste, and when it last sent something.
    paste: Option<(u64, Instant)>,
    is_ended: bool,
    uses: u64,
}

/// What is to be done after a call.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) send: Vec<ToHolder>,
    pub(super) answers: Vec<Answer>,
}

impl InputCore {
    /// What the holder remembers of each writer.
    pub(super) fn holder_knows(&mut self, writers: &[(u64, u64)]) {
        for (id, seq) in writers {
            let writer = self.writers.entry(*id).or_default();
            writer.acked = writer.acked.max(*seq);
            writer.taken = writer.taken.max(*seq);
        }
    }

    /// A writer was opened: its next number may leave a gap. Returns its highest number that reached the child.
    pub(super) fn open(&mut self, id: u64) -> u64 {
        self.uses += 1;
        let uses = self.uses;
        let writer = self.writers.entry(id).or_default();
        writer.may_skip = true;
        writer.last_use = uses;
        // What an earlier attachment of this writer left is still on its way and will be acknowledged.
        let acked = writer.acked;
        if self.writers.len() > MAX_WRITERS {
            let oldest = self
                .writers
                .iter()
                .filter(|(_, writer)| writer.waiting.is_empty() && writer.sent.is_empty())
                .min_by_key(|(_, writer)| writer.last_use)
                .map(|(id, _)| *id);
            if let Some(oldest) = oldest.filter(|oldest| *oldest != id) {
                self.writers.remove(&oldest);
            }
        }
        acked
    }

    /// A writer left: its paste, if unfinished, keeps nobody out.
    pub(super) fn close(&mut self, id: u64, now: Instant) -> Effects {
        if self.paste.is_some_and(|(holder, _)| holder == id)
            && self.writers.get(&id).is_none_or(|writer| writer.waiting.is_empty())
        {
            self.paste = None;
        }
        self.pump(now)
    }

    /// A frame of input came.
    pub(super) fn input(&mut self, id: u64, seq: u64, flags: u8, bytes: Bytes, now: Instant) -> Effects {
        self.uses += 1;
        let writer = self.writers.entry(id).or_default();
        writer.last_use = self.uses;
        let answer =
            |refused| Effects { answers: vec![Answer { writer: id, seq, refused }], ..Effects::default() };
        if seq <= writer.acked {
            return answer(None);
        }
        if seq <= writer.taken {
            // It is on its way; its acknowledgement comes.
            return Effects::default();
        }
        if self.is_ended {
            return answer(Some(ErrorCode::SessionEnded));
        }
        if seq != writer.taken + 1 && !writer.may_skip {
            return answer(Some(ErrorCode::Conflict));
        }
        if writer.waiting_bytes + bytes.len() > INPUT_WINDOW_BYTES
            || writer.waiting.len() >= MAX_WAITING_FRAMES
        {
            return answer(Some(ErrorCode::InputFull));
        }
        let may_skip = std::mem::take(&mut writer.may_skip);
        writer.taken = seq;
        writer.waiting_bytes += bytes.len();
        writer.waiting.push_back(Piece { seq, has_more: flags & FLAG_MORE != 0, may_skip, bytes });
        self.order.push_back(id);
        self.pump(now)
    }

    /// The holder wrote everything of this writer up to `seq`.
    pub(super) fn acked(&mut self, id: u64, seq: u64, now: Instant) -> Effects {
        let mut answers = Vec::new();
        if let Some(writer) = self.writers.get_mut(&id) {
            writer.acked = writer.acked.max(seq);
            writer.taken = writer.taken.max(seq);
            while let Some(piece) = writer.sent.front()
                && piece.seq <= seq
            {
                self.in_flight = self.in_flight.saturating_sub(piece.bytes.len());
                answers.push(Answer { writer: id, seq: piece.seq, refused: None });
                writer.sent.pop_front();
            }
        }
        let mut effects = self.pump(now);
        effects.answers = answers;
        effects
    }

    /// The holder did not take `seq`: neither it nor what follows it of this writer is written.
    pub(super) fn refused(&mut self, id: u64, seq: u64, reason: InputRefusal, now: Instant) -> Effects {
        let code = match reason {
            InputRefusal::Full => ErrorCode::InputFull,
            InputRefusal::Gap => ErrorCode::Conflict,
            InputRefusal::Ended => ErrorCode::SessionEnded,
            InputRefusal::Other => ErrorCode::Unavailable,
        };
        let answers = self.drop_from(id, seq, code);
        let mut effects = self.pump(now);
        effects.answers = answers;
        effects
    }

    fn drop_from(&mut self, id: u64, seq: u64, code: ErrorCode) -> Vec<Answer> {
        let Some(writer) = self.writers.get_mut(&id) else { return Vec::new() };
        let mut answers = Vec::new();
        let mut tell = |piece: &Piece| {
            answers.push(Answer { writer: id, seq: piece.seq, refused: Some(code) });
        };
        while let Some(piece) = writer.sent.pop_back_if(|piece| piece.seq >= seq) {
            self.in_flight = self.in_flight.saturating_sub(piece.bytes.len());
            tell(&piece);
        }
        while let Some(piece) = writer.waiting.pop_back_if(|piece| piece.seq >= seq) {
            writer.waiting_bytes -= piece.bytes.len();
            tell(&piece);
        }
        writer.taken = writer.taken.min(seq.saturating_sub(1)).max(writer.acked);
        let left = writer.waiting.len();
        let mut seen = 0;
        self.order.retain(|entry| {
            seen += usize::from(*entry == id);
            *entry != id || seen <= left
        });
        if self.paste.is_some_and(|(holder, _)| holder == id) {
            self.paste = None;
        }
        answers.sort_by_key(|answer| answer.seq);
        answers
    }

    /// A new connection to the same holder: what was sent and is not known to be written goes again.
    pub(super) fn resend(&mut self, holder_knows: &[(u64, u64)], now: Instant) -> Effects {
        let mut effects = Effects::default();
        for (id, seq) in holder_knows {
            effects.answers.extend(self.acked(*id, *seq, now).answers);
        }
        for (id, writer) in &self.writers {
            for (index, piece) in writer.sent.iter().enumerate() {
                effects.send.push(message(*id, piece, index == 0));
            }
        }
        effects
    }

    /// The child has ended: everything unwritten is refused.
    pub(super) fn end(&mut self) -> Vec<Answer> {
        self.is_ended = true;
        let ids: Vec<u64> = self.writers.keys().copied().collect();
        ids.into_iter().flat_map(|id| self.drop_from(id, 0, ErrorCode::SessionEnded)).collect()
    }

    /// When [`Self::pump`] has to be called although nothing happened.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (_, since) = self.paste?;
        (!self.order.is_empty()).then_some(since + PASTE_HOLD)
    }

    /// Sends what may go out now.
    pub(super) fn pump(&mut self, now: Instant) -> Effects {
        let mut effects = Effects::default();
        while self.in_flight < IN_FLIGHT_BYTES {
            if self.paste.is_some_and(|(_, since)| now >= since + PASTE_HOLD) {
                self.paste = None;
            }
            let next = match self.paste {
                Some((holder, _)) => self.order.iter().position(|id| *id == holder),
                None => (!self.order.is_empty()).then_some(0),
            };
            let Some(id) = next.and_then(|at| self.order.remove(at)) else { break };
            let Some(writer) = self.writers.get_mut(&id) else { continue };
            let Some(piece) = writer.waiting.pop_front() else { continue };
            writer.waiting_bytes -= piece.bytes.len();
            self.in_flight += piece.bytes.len();
            self.paste = piece.has_more.then_some((id, now));
            effects.send.push(message(id, &piece, piece.may_skip));
            writer.sent.push_back(piece);
        }
        effects
    }
}

fn message(writer: u64, piece: &Piece, may_skip: bool) -> ToHolder {
    let flags = if may_skip || piece.may_skip { INPUT_MAY_SKIP } else { 0 };
    ToHolder::Input { writer, seq: piece.seq, flags, bytes: piece.bytes.clone() }
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;

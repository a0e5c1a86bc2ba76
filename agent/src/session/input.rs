//! Input of many writers on its way to the holder. Pure.
//!
//! Invariants: the numbers of one writer are taken once and in order; frames of one paste ([`FLAG_MORE`]) go out
//! without another writer's bytes in between, and nobody's bytes get between the marks of another's bracketed paste;
//! what is in flight and what waits is bounded; a number is acknowledged only when the holder has written it to the
//! child, and every number taken is answered.
//!
//! A bracketed paste whose writer stays away for [`PASTE_HOLD`] is cut: its closing mark is written, so that what others
//! type is typing again. When its rest comes after all, it goes between marks of its own, so that no line of it is ever
//! taken for typing.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::wire::frame::FLAG_MORE;
use claudenest_shared::wire::holder::{
    INPUT_IS_BRACKETED, INPUT_MAY_SKIP, INPUT_MORE, InputRefusal, InputState, ToHolder,
};
use claudenest_shared::wire::limits::INPUT_WINDOW_BYTES;

use super::paste::{PASTE_END, PASTE_START, PasteMarks};

/// Bytes sent to the holder and not acknowledged: a quarter of what its queue takes.
const IN_FLIGHT_BYTES: usize = 256 * 1024;
/// Frames of one writer that may wait, so that single keys cannot use memory far beyond their bytes.
const MAX_WAITING_FRAMES: usize = 4096;
/// How long a paste that does not go on keeps others out.
pub(super) const PASTE_HOLD: Duration = Duration::from_secs(5);
/// Writers remembered: as many as the holder remembers.
const MAX_WRITERS: usize = 256;
/// Writer of the marks around the rest of a paste that was cut. Viewers choose 64 random bits.
const MARKER: u64 = u64::MAX - 1;
/// Marks that a daemon which was killed may have sent without an answer: numbers left out by its successor.
const MARKER_GAP: u64 = 1 << 20;

/// An answer to a writer: number, and why it was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) writer: u64,
    pub(super) seq: u64,
    pub(super) refused: Option<ErrorCode>,
}

#[derive(Debug, Default)]
struct Piece {
    seq: u64,
    has_more: bool,
    may_skip: bool,
    bytes: Bytes,
    /// Known once it is sent: its place among all that was sent, whether it continued a paste, and whether the terminal
    /// was inside a bracketed one before and behind it.
    place: u64,
    goes_on: bool,
    was_inside: bool,
    is_inside: bool,
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
    /// Numbers that came again and are queued in the holder since before this daemon: at most as many as that queue has.
    asked: VecDeque<u64>,
    /// Highest number sent, and whether its paste goes on.
    last_sent: u64,
    is_midway: bool,
    /// Its bracketed paste was closed before its end.
    is_cut: bool,
    /// The rest of it goes between marks of ours, and the closing one is not sent yet.
    is_reopened: bool,
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
    marks: PasteMarks,
    /// Pieces sent so far.
    places: u64,
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
    /// What the holder remembers of each writer, and in the middle of what an earlier daemon was killed.
    pub(super) fn holder_knows(&mut self, writers: &[(u64, u64)], input: &InputState, now: Instant) {
        for (id, seq) in writers {
            let writer = self.writers.entry(*id).or_default();
            (writer.acked, writer.taken, writer.last_sent) = (*seq, *seq, *seq);
        }
        self.marks = PasteMarks::new(input.is_bracketed);
        for state in &input.writers {
            let writer = self.writers.entry(state.writer).or_default();
            (writer.taken, writer.last_sent) = (state.queued, state.queued);
            writer.is_midway = state.has_more;
            let is_open = state.has_more && state.is_bracketed == input.is_bracketed;
            if is_open && self.paste.is_none() {
                self.paste = Some((state.writer, now));
            } else {
                writer.is_cut = state.has_more && state.is_bracketed;
            }
        }
        // Older holders do not tell what is queued.
        self.writers.entry(MARKER).or_default().taken += MARKER_GAP;
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

    /// A writer left: what it did not finish keeps nobody out, except for a bracketed paste, whose rest may come with its
    /// next attachment.
    pub(super) fn close(&mut self, id: u64, now: Instant) -> Effects {
        if self.paste.is_some_and(|(holder, _)| holder == id)
            && self.writers.get(&id).is_none_or(|writer| writer.waiting.is_empty())
            && !self.marks.is_inside()
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
            // It is on its way; its acknowledgement comes. Of what an earlier daemon had sent, only the number is known.
            let is_ours = writer.sent.iter().chain(&writer.waiting).any(|piece| piece.seq == seq);
            if !is_ours && writer.asked.back().is_none_or(|asked| *asked < seq) {
                writer.asked.push_back(seq);
            }
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
        let has_more = flags & FLAG_MORE != 0;
        writer.waiting.push_back(Piece { seq, has_more, may_skip, bytes, ..Piece::default() });
        self.order.push_back(id);
        self.pump(now)
    }

    /// The holder wrote everything of this writer up to `seq`.
    pub(super) fn acked(&mut self, id: u64, seq: u64, now: Instant) -> Effects {
        let answers = self.acknowledge(id, seq, now);
        Effects { answers, ..self.pump(now) }
    }

    fn acknowledge(&mut self, id: u64, seq: u64, now: Instant) -> Vec<Answer> {
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
            while let Some(asked) = writer.asked.pop_front_if(|asked| *asked <= seq) {
                answers.push(Answer { writer: id, seq: asked, refused: None });
            }
        }
        // A program that reads slowly does not make its writer one that stays away.
        self.paste = self.paste.map(|(holder, since)| (holder, if holder == id { now } else { since }));
        answers
    }

    /// The holder did not take `seq`: neither it nor what follows it of this writer is written.
    pub(super) fn refused(&mut self, id: u64, seq: u64, reason: InputRefusal, now: Instant) -> Effects {
        let code = match reason {
            InputRefusal::Full => ErrorCode::InputFull,
            InputRefusal::Gap => ErrorCode::Conflict,
            InputRefusal::Ended => ErrorCode::SessionEnded,
            InputRefusal::Other => ErrorCode::Unavailable,
        };
        let answers = self.drop_from(id, seq, code, now);
        Effects { answers, ..self.pump(now) }
    }

    fn drop_from(&mut self, id: u64, seq: u64, code: ErrorCode, now: Instant) -> Vec<Answer> {
        let Some(writer) = self.writers.get_mut(&id) else { return Vec::new() };
        let mut answers = Vec::new();
        let mut tell = |piece: &Piece| {
            answers.push(Answer { writer: id, seq: piece.seq, refused: Some(code) });
        };
        while let Some(piece) = writer.sent.pop_back_if(|piece| piece.seq >= seq) {
            self.in_flight = self.in_flight.saturating_sub(piece.bytes.len());
            tell(&piece);
            // As if it had never been sent.
            (writer.last_sent, writer.is_midway) = (piece.seq - 1, piece.goes_on);
            self.marks = PasteMarks::new(piece.was_inside);
        }
        while let Some(piece) = writer.waiting.pop_back_if(|piece| piece.seq >= seq) {
            writer.waiting_bytes -= piece.bytes.len();
            tell(&piece);
        }
        while let Some(asked) = writer.asked.pop_back_if(|asked| *asked >= seq) {
            answers.push(Answer { writer: id, seq: asked, refused: Some(code) });
        }
        writer.taken = writer.taken.min(seq.saturating_sub(1)).max(writer.acked);
        let left = writer.waiting.len();
        let mut seen = 0;
        self.order.retain(|entry| {
            seen += usize::from(*entry == id);
            *entry != id || seen <= left
        });
        let is_holding = writer.is_midway && self.marks.is_inside();
        if self.paste.is_some_and(|(holder, _)| holder == id) || is_holding {
            self.paste = is_holding.then_some((id, now));
        }
        answers.sort_by_key(|answer| answer.seq);
        answers
    }

    /// A new connection to the same holder: what was sent and is not known to be written goes again.
    pub(super) fn resend(&mut self, holder_knows: &[(u64, u64)], now: Instant) -> Effects {
        let mut effects = Effects::default();
        for (id, seq) in holder_knows {
            effects.answers.extend(self.acknowledge(*id, *seq, now));
        }
        // In the order in which it was sent: that decides what is inside a paste.
        let mut again = Vec::new();
        for (id, writer) in &self.writers {
            let sent = writer.sent.iter().enumerate();
            again.extend(sent.map(|(index, piece)| (piece.place, message(*id, piece, index == 0))));
        }
        again.sort_by_key(|(place, _)| *place);
        effects.send = again.into_iter().map(|(_, message)| message).collect();
        effects.send.extend(self.pump(now).send);
        effects
    }

    /// The child has ended: everything unwritten is refused.
    pub(super) fn end(&mut self, now: Instant) -> Vec<Answer> {
        self.is_ended = true;
        let ids: Vec<u64> = self.writers.keys().copied().collect();
        ids.into_iter().flat_map(|id| self.drop_from(id, 0, ErrorCode::SessionEnded, now)).collect()
    }

    /// True if input of this writer has reached the child.
    pub(super) fn has_applied(&self, id: u64) -> bool {
        self.writers.get(&id).is_some_and(|writer| writer.acked > 0)
    }

    /// When [`Self::pump`] has to be called although nothing happened.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (holder, since) = self.paste?;
        let is_wanted = !self.order.is_empty() || self.marks.is_inside();
        (is_wanted && self.is_away(holder)).then_some(since + PASTE_HOLD)
    }

    /// True if nothing of this writer is on its way to the child.
    fn is_away(&self, id: u64) -> bool {
        self.writers.get(&id).is_none_or(|writer| writer.waiting.is_empty() && writer.sent.is_empty())
    }

    /// Sends what may go out now.
    pub(super) fn pump(&mut self, now: Instant) -> Effects {
        let mut effects = Effects::default();
        if let Some((holder, since)) = self.paste
            && now >= since + PASTE_HOLD
            && self.is_away(holder)
        {
            self.paste = None;
            if self.marks.is_inside() {
                self.writers.entry(holder).or_default().is_cut = true;
                self.mark(PASTE_END, &mut effects);
            }
        }
        while self.in_flight < IN_FLIGHT_BYTES {
            let next = match self.paste {
                Some((holder, _)) => self.order.iter().position(|id| *id == holder),
                None => (!self.order.is_empty()).then_some(0),
            };
            let Some(id) = next.and_then(|at| self.order.remove(at)) else { break };
            let Some(writer) = self.writers.get_mut(&id) else { continue };
            let Some(piece) = writer.waiting.pop_front() else { continue };
            writer.waiting_bytes -= piece.bytes.len();
            // A number that was left out: the rest of that paste was given up.
            let goes_on = writer.is_midway && piece.seq == writer.last_sent + 1;
            let was_cut = std::mem::take(&mut writer.is_cut);
            let is_given_up = writer.is_midway && !goes_on && !was_cut;
            if was_cut && goes_on {
                writer.is_reopened = true;
                self.mark(PASTE_START, &mut effects);
            } else if is_given_up && self.paste.is_some() && self.marks.is_inside() {
                self.mark(PASTE_END, &mut effects);
            }
            self.paste = piece.has_more.then_some((id, now));
            self.send(id, Piece { goes_on, ..piece }, &mut effects);
        }
        effects
    }

    /// Sends a mark of ours.
    fn mark(&mut self, mark: &'static [u8], effects: &mut Effects) {
        let marker = self.writers.entry(MARKER).or_default();
        marker.taken += 1;
        let bytes = Bytes::from_static(mark);
        let piece = Piece { seq: marker.taken, may_skip: true, bytes, ..Piece::default() };
        self.send(MARKER, piece, effects);
    }

    fn send(&mut self, id: u64, mut piece: Piece, effects: &mut Effects) {
        self.places += 1;
        self.in_flight += piece.bytes.len();
        piece.place = self.places;
        piece.was_inside = self.marks.is_inside();
        self.marks.feed(&piece.bytes);
        piece.is_inside = self.marks.is_inside();
        effects.send.push(message(id, &piece, false));
        let Some(writer) = self.writers.get_mut(&id) else { return };
        (writer.last_sent, writer.is_midway) = (piece.seq, piece.has_more);
        let is_over = !piece.has_more && std::mem::take(&mut writer.is_reopened);
        writer.sent.push_back(piece);
        if is_over && self.marks.is_inside() {
            self.mark(PASTE_END, effects);
        }
    }
}

fn message(writer: u64, piece: &Piece, may_skip: bool) -> ToHolder {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags = flag(may_skip || piece.may_skip, INPUT_MAY_SKIP)
        | flag(piece.has_more, INPUT_MORE)
        | flag(piece.is_inside, INPUT_IS_BRACKETED);
    ToHolder::Input { writer, seq: piece.seq, flags, bytes: piece.bytes.clone() }
}

#[cfg(test)]
#[path = "tests/input_simulation.rs"]
mod simulation;
#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;

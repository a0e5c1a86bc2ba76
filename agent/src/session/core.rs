//! The state of one run: sanitised output, sizes, input, viewers and the exit. No IO; the time is an argument.
//!
//! Invariants: the ring holds whole sequences and characters only; output only grows; after the exit nothing
//! moves but viewers.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::holder::{HolderExit, HolderHello, ToHolder};

use super::input::{Answer, Effects, InputCore};
use super::ring::Ring;
use super::sanitise::{Event, Query, Sanitiser};
use super::size::SizeCore;

/// Sanitised output kept in memory: as much as the holder keeps.
pub(super) const RING_BYTES: u64 = 4 * 1024 * 1024;
/// Distance of the places at which the filter held nothing back, from which older output is read again.
const CHECKPOINT_BYTES: u64 = 256 * 1024;
/// Checkpoints kept: they reach back over the whole recording (256 MiB).
const MAX_CHECKPOINTS: usize = 1024;
/// Changes of size kept; they are debounced to four a second.
const MAX_RESIZES: usize = 4096;

/// What is to be done after a change, beside waking those who watch.
#[derive(Debug, Default)]
pub(super) struct Todo {
    pub(super) send: Vec<ToHolder>,
    pub(super) answers: Vec<Answer>,
}

impl Todo {
    fn with(mut self, effects: Effects) -> Self {
        self.send.extend(effects.send);
        self.answers.extend(effects.answers);
        self
    }

    fn resize(mut self, size: Option<TermSize>) -> Self {
        self.send.extend(size.map(|size| ToHolder::Resize { size }));
        self
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) epoch: u32,
    pub(super) ring: Ring,
    sanitiser: Sanitiser,
    /// Offsets at which the filter was as new.
    checkpoints: VecDeque<u64>,
    /// Size before the first known change.
    first_size: TermSize,
    resizes: VecDeque<(u64, TermSize)>,
    forgotten_resizes: u64,
    exit: Option<HolderExit>,
    pub(super) size: SizeCore,
    pub(super) input: InputCore,
    pub(super) viewers: u32,
    pub(super) title: Option<String>,
    /// Output from here on is new; what comes below was produced before this daemon listened.
    live_from: u64,
    pub(super) is_closed: bool,
    pub(super) is_recording_failed: bool,
}

impl Core {
    /// The state at the beginning of a connection. `live_from` is the holder's head.
    pub(super) fn new(epoch: u32, start: u64, start_size: TermSize, size: TermSize, live_from: u64) -> Self {
        Self {
            epoch,
            ring: Ring::new(start, RING_BYTES),
            sanitiser: Sanitiser::default(),
            checkpoints: VecDeque::from([start]),
            first_size: start_size,
            resizes: VecDeque::new(),
            forgotten_resizes: 0,
            exit: None,
            size: SizeCore::new(size),
            input: InputCore::default(),
            viewers: 0,
            title: None,
            live_from,
            is_closed: false,
            is_recording_failed: false,
        }
    }

    /// The state at the beginning of a connection to a holder.
    pub(super) fn of(hello: &HolderHello, now: Instant) -> Self {
        let mut core = Self::new(hello.epoch, hello.start, hello.start_size, hello.size, hello.head);
        core.input.holder_knows(&hello.writers, &hello.input, now);
        core
    }

    pub(super) fn head(&self) -> u64 {
        self.ring.head()
    }

    /// Offset behind the last byte that came, including what the filter holds back.
    pub(super) fn raw_head(&self) -> u64 {
        self.head() + self.sanitiser.pending_len() as u64
    }

    pub(super) fn exit(&self) -> Option<HolderExit> {
        self.exit
    }

    /// Appends raw output. Returns the queries in it that were just asked, with the offset of each.
    ///
    /// Bytes that are here already (a new connection) are skipped; a gap moves the ring.
    pub(super) fn output(&mut self, offset: u64, bytes: &[u8]) -> Vec<(u64, Query)> {
        if offset > self.raw_head() {
            // The holder had dropped these bytes and the recording has not got them either.
            self.ring.jump(offset);
            self.sanitiser = Sanitiser::default();
            self.checkpoints.push_back(offset);
        }
        let skip = usize::try_from(self.raw_head() - offset).unwrap_or(usize::MAX);
        let Some(new) = bytes.get(skip..).filter(|new| !new.is_empty()) else { return Vec::new() };
        let room = new.len() + self.sanitiser.pending_len();
        let (mut clean, mut events) = (Vec::with_capacity(room), Vec::new());
        let before = self.sanitiser.clone();
        self.sanitiser.keep_offers(offset >= self.live_from);
        self.sanitiser.push(new, &mut clean, &mut events);
        let is_query = |event: &Event| matches!(event, Event::Query(_));
        let queries = if events.iter().any(is_query) { self.locate(before, new) } else { Vec::new() };
        self.ring.push(Bytes::from(clean));
        for event in events {
            if let Event::Title(title) = event {
                self.title = Some(title).filter(|title| !title.is_empty());
            }
        }
        let head = self.head();
        if self.sanitiser.is_ground()
            && self.checkpoints.back().is_none_or(|at| head - at >= CHECKPOINT_BYTES)
        {
            self.checkpoints.push_back(head);
            if self.checkpoints.len() > MAX_CHECKPOINTS {
                self.checkpoints.pop_front();
            }
        }
        queries
    }

    /// Finds where the queries in `new` begin. What comes before a query is what its answer depends on.
    fn locate(&self, mut sanitiser: Sanitiser, new: &[u8]) -> Vec<(u64, Query)> {
        let mut found = Vec::new();
        let mut at = self.head();
        let (mut clean, mut events) = (Vec::new(), Vec::new());
        let mut rest = new;
        while !rest.is_empty() {
            // A piece begins with an introducer, so it holds at most one query, and that at its beginning.
            let end = memchr::memchr2(0x1b, 0xc2, &rest[1..]).map_or(rest.len(), |next| next + 1);
            let (piece, later) = rest.split_at(end);
            sanitiser.push(piece, &mut clean, &mut events);
            for event in events.drain(..) {
                if let Event::Query(query) = event
                    && at >= self.live_from
                {
                    found.push((at, query));
                }
            }
            at += clean.len() as u64;
            clean.clear();
            rest = later;
        }
        found
    }

    /// True if the filter is as new at `offset`, which must be the head.
    pub(super) fn is_at_ground(&self, offset: u64) -> bool {
        offset == self.head() && self.sanitiser.is_ground()
    }

    /// The last known offset at or below `offset` at which the filter was as new.
    pub(super) fn checkpoint(&self, offset: u64) -> Option<u64> {
        let behind = self.checkpoints.partition_point(|at| *at <= offset);
        self.checkpoints.get(behind.checked_sub(1)?).copied()
    }

    /// Sizes from before the memory begins, in order, as the recording has them: older output was written for them.
    pub(super) fn knew_sizes(&mut self, sizes: &[(u64, TermSize)]) {
        let (start, start_size) = (self.ring.tail(), self.first_size);
        debug_assert!(self.resizes.is_empty(), "called before anything else");
        let older: Vec<_> = sizes.iter().copied().filter(|(offset, _)| *offset < start).collect();
        let Some((_, first)) = older.first() else { return };
        self.first_size = *first;
        for (offset, size) in older.into_iter().chain([(start, start_size)]) {
            self.resized(offset, size);
        }
    }

    /// The terminal has this size from `offset` on.
    pub(super) fn resized(&mut self, offset: u64, size: TermSize) {
        if self.size_at(u64::MAX) == size {
            return;
        }
        self.resizes.push_back((offset, size));
        if self.resizes.len() > MAX_RESIZES
            && let Some((_, size)) = self.resizes.pop_front()
        {
            self.first_size = size;
            self.forgotten_resizes += 1;
        }
    }

    pub(super) fn size_at(&self, offset: u64) -> TermSize {
        let last = self.resizes.iter().rev().find(|(at, _)| *at <= offset);
        last.map_or(self.first_size, |(_, size)| *size)
    }

    /// Number of the first change of size above `offset`.
    pub(super) fn resize_number_after(&self, offset: u64) -> u64 {
        self.forgotten_resizes + self.resizes.iter().take_while(|(at, _)| *at <= offset).count() as u64
    }

    /// The change of size with this number or the oldest known above it: number, offset, size.
    pub(super) fn resize_number(&self, number: u64) -> Option<(u64, u64, TermSize)> {
        let number = number.max(self.forgotten_resizes);
        let index = usize::try_from(number - self.forgotten_resizes).ok()?;
        self.resizes.get(index).map(|(offset, size)| (number, *offset, *size))
    }

    /// The child has ended. The end is where the output ends, whatever was lost before.
    pub(super) fn end(&mut self, exit: HolderExit, now: Instant) -> Todo {
        if self.exit.is_some() {
            return Todo::default();
        }
        let mut rest = Vec::new();
        self.sanitiser.flush(&mut rest);
        self.ring.push(Bytes::from(rest));
        self.exit = Some(HolderExit { offset: self.head(), ..exit });
        Todo { answers: self.input.end(now), ..Todo::default() }
    }

    pub(super) fn open_writer(&mut self, writer: u64, label: String, may_size: bool, is_local: bool) -> u64 {
        self.size.open(writer, label, may_size, is_local);
        self.input.open(writer)
    }

    pub(super) fn close_writer(&mut self, writer: u64, now: Instant) -> Todo {
        let size = self.size.close(writer, now);
        Todo::default().with(self.input.close(writer, now)).resize(size)
    }

    pub(super) fn write(&mut self, writer: u64, seq: u64, flags: u8, bytes: Bytes, now: Instant) -> Todo {
        Todo::default().with(self.input.input(writer, seq, flags, bytes, now))
    }

    pub(super) fn resize(&mut self, writer: u64, size: TermSize, now: Instant) -> Todo {
        let size = self.size.resize(writer, size, now);
        Todo::default().resize(size)
    }

    pub(super) fn take_size(&mut self, writer: u64, size: TermSize, now: Instant) -> Todo {
        let size = self.size.take(writer, size, now);
        Todo::default().resize(size)
    }

    /// When [`Self::on_deadline`] has to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.size.deadline(), self.input.deadline()].into_iter().flatten().min()
    }

    pub(super) fn on_deadline(&mut self, now: Instant) -> Todo {
        let size = self.size.due(now);
        Todo::default().with(self.input.pump(now)).resize(size)
    }
}

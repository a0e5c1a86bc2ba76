//! What a holder remembers: the ring of output, sizes, writers, queued input and the exit. No IO, no clock.
//!
//! Invariants: a byte has one offset; `tail <= head`; input of one writer is queued and applied in the order of
//! its numbers, each at most once; once the exit is known, `head` never moves again.

use std::collections::VecDeque;

use bytes::Bytes;
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::holder::{
    HolderExit, INPUT_IS_BRACKETED, INPUT_MAY_SKIP, INPUT_MORE, InputRefusal, InputState, WriterState,
};

/// Bytes of input that may wait for the child. Four times what the daemon keeps in flight, so that it is never met by one daemon.
pub(super) const MAX_QUEUED_INPUT_BYTES: usize = 1024 * 1024;
/// Writers remembered. Each browser tab is one; the least recent is forgotten.
pub(super) const MAX_WRITERS: usize = 256;
/// Changes of size remembered within the ring; they are debounced to four a second.
const MAX_RESIZES: usize = 4096;
/// Marks of time that wait for the recorder; it takes them every 50 ms.
const MAX_MARKS: usize = 4096;
/// Size of one piece of the ring. Small enough that eviction keeps the ring near its limit.
const CHUNK_BYTES: usize = 64 * 1024;

/// Output addressed by offset, bounded, growing only with what it holds.
pub(super) struct Ring {
    chunks: VecDeque<Vec<u8>>,
    spare: Option<Vec<u8>>,
    tail: u64,
    head: u64,
    limit: u64,
}

impl Ring {
    fn new(limit: u64) -> Self {
        Self { chunks: VecDeque::new(), spare: None, tail: 0, head: 0, limit: limit.max(CHUNK_BYTES as u64) }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK_BYTES) {
                self.chunks.push_back(self.spare.take().unwrap_or_default());
            }
            let Some(chunk) = self.chunks.back_mut() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - chunk.len()));
            chunk.extend_from_slice(now);
            self.head += now.len() as u64;
            bytes = later;
        }
        while let Some(front) = self.chunks.front()
            && self.head - self.tail - front.len() as u64 >= self.limit
            && let Some(mut chunk) = self.chunks.pop_front()
        {
            self.tail += chunk.len() as u64;
            chunk.clear();
            self.spare = Some(chunk);
        }
    }

    /// Appends at most `max` bytes from `from` (which must not lie below the tail) to `out`.
    pub(super) fn copy(&self, from: u64, max: usize, out: &mut Vec<u8>) {
        let Ok(mut skip) = usize::try_from(from.saturating_sub(self.tail)) else { return };
        let mut left = max;
        // Every chunk but the last is full, so the first one needed is found by division.
        let first = skip / CHUNK_BYTES;
        skip %= CHUNK_BYTES;
        for chunk in self.chunks.iter().skip(first) {
            let part = chunk.get(skip..).unwrap_or_default();
            let part = &part[..part.len().min(left)];
            out.extend_from_slice(part);
            left -= part.len();
            skip = 0;
            if left == 0 {
                break;
            }
        }
    }
}

/// What became of an input message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// It waits for the child.
    Queued,
    /// It was applied or queued before; an acknowledgement goes out (again).
    Known,
    /// It was not taken.
    Refused(InputRefusal),
}

/// Input that waits for the child.
pub(super) struct Job {
    pub(super) writer: u64,
    pub(super) seq: u64,
    /// What is still to be written.
    pub(super) bytes: Bytes,
    /// All of it.
    pub(super) size: usize,
}

struct Writer {
    id: u64,
    queued: u64,
    applied: u64,
    /// Flags of its last input.
    flags: u8,
    /// Value of `Core::ack_version` when `applied` last had to be told.
    told: u64,
}

/// A point of the recording's index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    /// Output from `offset` on came at `time_us`.
    Data { offset: u64, time_us: u64 },
    /// The size changed.
    Resize { offset: u64, time_us: u64, size: TermSize },
}

impl Mark {
    pub(super) fn offset(self) -> u64 {
        match self {
            Self::Data { offset, .. } | Self::Resize { offset, .. } => offset,
        }
    }
}

/// State of one holder.
pub(super) struct Core {
    pub(super) ring: Ring,
    size: TermSize,
    /// Size at the ring's tail.
    tail_size: TermSize,
    resizes: VecDeque<(u64, TermSize)>,
    /// Changes of size already forgotten, so that each has a number.
    forgotten_resizes: u64,
    marks: VecDeque<Mark>,
    last_mark_us: u64,
    writers: VecDeque<Writer>,
    ack_version: u64,
    queue: VecDeque<Job>,
    queued_bytes: usize,
    /// What the flags of the last input say.
    is_bracketed: bool,
    is_input_closed: bool,
    exit: Option<HolderExit>,
}

/// Marks of data closer together than this tell a replay nothing.
const MARK_INTERVAL_US: u64 = 10_000;

impl Core {
    pub(super) fn new(ring_bytes: u64, size: TermSize) -> Self {
        Self {
            ring: Ring::new(ring_bytes),
            size,
            tail_size: size,
            resizes: VecDeque::new(),
            forgotten_resizes: 0,
            marks: VecDeque::new(),
            last_mark_us: 0,
            writers: VecDeque::new(),
            ack_version: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            is_bracketed: false,
            is_input_closed: false,
            exit: None,
        }
    }

    pub(super) fn tail(&self) -> u64 {
        self.ring.tail
    }

    pub(super) fn head(&self) -> u64 {
        self.ring.head
    }

    pub(super) fn size(&self) -> TermSize {
        self.size
    }

    pub(super) fn exit(&self) -> Option<HolderExit> {
        self.exit
    }

    /// Appends output; what comes after the exit is dropped.
    pub(super) fn output(&mut self, bytes: &[u8], now_us: u64) {
        if self.exit.is_some() || bytes.is_empty() {
            return;
        }
        if now_us.abs_diff(self.last_mark_us) >= MARK_INTERVAL_US {
            self.mark(Mark::Data { offset: self.head(), time_us: now_us });
            self.last_mark_us = now_us;
        }
        self.ring.push(bytes);
        while let Some((offset, size)) = self.resizes.front().copied()
            && (offset <= self.ring.tail || self.resizes.len() > MAX_RESIZES)
        {
            self.tail_size = size;
            self.forgotten_resizes += 1;
            self.resizes.pop_front();
        }
    }

    /// Remembers that the terminal has `size` from now on. False if nothing changes.
    pub(super) fn resize(&mut self, size: TermSize, now_us: u64) -> bool {
        if size == self.size || self.exit.is_some() {
            return false;
        }
        self.size = size;
        self.resizes.push_back((self.head(), size));
        self.mark(Mark::Resize { offset: self.head(), time_us: now_us, size });
        true
    }

    fn mark(&mut self, mark: Mark) {
        // Without a recorder nobody takes them.
        if self.marks.len() == MAX_MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back(mark);
    }

    /// Takes the marks up to and including `offset`.
    pub(super) fn take_marks(&mut self) -> Vec<Mark> {
        self.marks.drain(..).collect()
    }

    /// Size at `offset`, which must not lie below the tail.
    pub(super) fn size_at(&self, offset: u64) -> TermSize {
        self.resizes
            .iter()
            .take_while(|(at, _)| *at <= offset)
            .last()
            .map_or(self.tail_size, |(_, size)| *size)
    }

    /// Number of the first change of size above `offset`.
    pub(super) fn resize_number_after(&self, offset: u64) -> u64 {
        self.forgotten_resizes + self.resizes.iter().take_while(|(at, _)| *at <= offset).count() as u64
    }

    /// The change of size with this number, or the oldest one still known above it: number, offset, size.
    pub(super) fn resize_number(&self, number: u64) -> Option<(u64, u64, TermSize)> {
        let number = number.max(self.forgotten_resizes);
        let index = usize::try_from(number - self.forgotten_resizes).ok()?;
        self.resizes.get(index).map(|(offset, size)| (number, *offset, *size))
    }

    /// The child has ended; `head` stays where it is.
    pub(super) fn end(&mut self, exit: HolderExit) {
        self.exit = Some(exit);
        self.queue.clear();
        self.queued_bytes = 0;
    }

    /// Takes input, once per writer and number and in order.
    pub(super) fn input(&mut self, writer: u64, seq: u64, flags: u8, bytes: Bytes) -> Taken {
        let known = self.writers.iter().position(|entry| entry.id == writer);
        if let Some(at) = known
            && seq <= self.writers[at].queued
        {
            self.ack_version += 1;
            self.writers[at].told = self.ack_version;
            return Taken::Known;
        }
        if self.exit.is_some() || self.is_input_closed {
            return Taken::Refused(InputRefusal::Ended);
        }
        // A writer that was forgotten may go on with any number: a gap cannot be told from one.
        if let Some(at) = known
            && flags & INPUT_MAY_SKIP == 0
            && seq != self.writers[at].queued + 1
        {
            return Taken::Refused(InputRefusal::Gap);
        }
        if self.queued_bytes + bytes.len() > MAX_QUEUED_INPUT_BYTES {
            return Taken::Refused(InputRefusal::Full);
        }
        let mut entry = known.and_then(|at| self.writers.remove(at)).unwrap_or(Writer {
            id: writer,
            queued: 0,
            applied: 0,
            flags: 0,
            told: 0,
        });
        entry.queued = seq;
        entry.flags = flags;
        self.is_bracketed = flags & INPUT_IS_BRACKETED != 0;
        self.writers.push_front(entry);
        self.writers.truncate(MAX_WRITERS);
        self.queued_bytes += bytes.len();
        self.queue.push_back(Job { writer, seq, size: bytes.len(), bytes });
        Taken::Queued
    }

    /// No more input is taken; what is queued is still written.
    pub(super) fn close_input(&mut self) {
        self.is_input_closed = true;
    }

    pub(super) fn is_input_closed(&self) -> bool {
        self.is_input_closed
    }

    /// The next input to write. It counts as queued until [`Self::applied`].
    pub(super) fn next_job(&mut self) -> Option<Job> {
        self.queue.pop_front()
    }

    /// A part of the input was written; the rest comes next.
    pub(super) fn put_back(&mut self, job: Job) {
        // After the exit nothing is queued any more.
        if self.exit.is_none() {
            self.queue.push_front(job);
        }
    }

    /// True if input waits.
    pub(super) fn has_jobs(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The input was written.
    pub(super) fn applied(&mut self, writer: u64, seq: u64, size: usize) {
        self.queued_bytes = self.queued_bytes.saturating_sub(size);
        self.ack_version += 1;
        if let Some(entry) = self.writers.iter_mut().find(|entry| entry.id == writer) {
            entry.applied = entry.applied.max(seq);
            entry.told = self.ack_version;
        }
    }

    /// Version up to which acknowledgements exist.
    pub(super) fn ack_version(&self) -> u64 {
        self.ack_version
    }

    /// Writers whose acknowledgement has to be told after `version`, with their highest applied number.
    pub(super) fn acks_since(&self, version: u64) -> impl Iterator<Item = (u64, u64)> {
        self.writers
            .iter()
            .filter(move |entry| entry.told > version && entry.applied > 0)
            .map(|entry| (entry.id, entry.applied))
    }

    /// What is queued, and pastes whose end has not come.
    pub(super) fn input_state(&self) -> InputState {
        let state = |entry: &Writer| WriterState {
            writer: entry.id,
            queued: entry.queued,
            has_more: entry.flags & INPUT_MORE != 0,
            is_bracketed: entry.flags & INPUT_IS_BRACKETED != 0,
        };
        let is_told = |entry: &&Writer| entry.queued > entry.applied || entry.flags & INPUT_MORE != 0;
        InputState {
            is_bracketed: self.is_bracketed,
            writers: self.writers.iter().filter(is_told).map(state).collect(),
        }
    }

    /// Every writer with its highest applied number, the most recent first.
    pub(super) fn writers(&self) -> Vec<(u64, u64)> {
        self.acks_since(0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudenest_shared::session::Exit;
    use claudenest_shared::time::UnixMs;
    use proptest::prelude::*;

    fn core(ring: u64) -> Core {
        Core::new(ring, TermSize::default())
    }

    #[test]
    fn input_is_queued_once_and_in_order() {
        let mut core = core(0);
        let mut give = |writer, seq, flags| core.input(writer, seq, flags, Bytes::from_static(b"x"));
        assert_eq!(give(1, 1, 0), Taken::Queued);
        assert_eq!(give(1, 1, 0), Taken::Known);
        assert_eq!(give(1, 3, 0), Taken::Refused(InputRefusal::Gap));
        assert_eq!(give(1, 2, 0), Taken::Queued);
        assert_eq!(give(1, 9, INPUT_MAY_SKIP), Taken::Queued);
        assert_eq!(give(1, 9, INPUT_MAY_SKIP), Taken::Known);
        assert_eq!(give(1, 5, INPUT_MAY_SKIP), Taken::Known);
        assert_eq!(give(2, 7, 0), Taken::Queued);
        assert!(core.acks_since(0).next().is_none(), "nothing was written yet");
        let order: Vec<_> = std::iter::from_fn(|| core.next_job()).map(|job| (job.writer, job.seq)).collect();
        assert_eq!(order, [(1, 1), (1, 2), (1, 9), (2, 7)]);
        core.applied(1, 1, 1);
        assert_eq!(core.writers(), [(1, 1)]);
    }

    #[test]
    fn a_full_queue_refuses_and_keeps_the_number_free() {
        let mut core = core(0);
        let half = Bytes::from(vec![0; MAX_QUEUED_INPUT_BYTES / 2]);
        assert_eq!(core.input(1, 1, 0, half.clone()), Taken::Queued);
        assert_eq!(core.input(1, 2, 0, half.clone()), Taken::Queued);
        assert_eq!(core.input(1, 3, 0, half.clone()), Taken::Refused(InputRefusal::Full));
        core.next_job().unwrap();
        core.applied(1, 1, half.len());
        assert_eq!(core.input(1, 3, 0, half), Taken::Queued);
    }

    #[test]
    fn nothing_moves_after_the_exit() {
        let mut core = core(0);
        core.output(b"abc", 1);
        core.end(HolderExit { offset: 3, exit: Exit::Code { code: 7 }, at: UnixMs(0) });
        core.output(b"late", 2);
        assert_eq!(core.head(), 3);
        assert_eq!(core.input(1, 1, 0, Bytes::new()), Taken::Refused(InputRefusal::Ended));
        assert!(!core.resize(TermSize { cols: 10, rows: 10 }, 3));
    }

    #[test]
    fn the_size_at_any_offset_is_known() {
        let mut core = core(0);
        let (first, second) = (TermSize { cols: 50, rows: 10 }, TermSize { cols: 60, rows: 10 });
        core.output(&[0; 100], 1);
        assert!(core.resize(first, 2));
        assert!(!core.resize(first, 2));
        core.output(&[0; 100], 3);
        assert!(core.resize(second, 4));
        assert_eq!(core.size_at(99), TermSize::default());
        assert_eq!(core.size_at(100), first);
        assert_eq!(core.size_at(200), second);
        assert_eq!(core.resize_number(core.resize_number_after(0)), Some((0, 100, first)));
        assert_eq!(core.resize_number(core.resize_number_after(100)), Some((1, 200, second)));
        assert_eq!(core.resize_number(core.resize_number_after(200)), None);
        core.output(&vec![0; 300_000], 5);
        assert_eq!(core.size_at(core.tail()), second);
        assert_eq!(core.resize_number(0), None, "forgotten");
    }

    #[test]
    fn writers_are_bounded_and_the_least_recent_is_forgotten() {
        let mut core = core(0);
        for writer in 0..=MAX_WRITERS as u64 {
            assert_eq!(core.input(writer, 5, 0, Bytes::new()), Taken::Queued);
            core.applied(writer, 5, 0);
        }
        assert_eq!(core.writers().len(), MAX_WRITERS);
        assert_eq!(core.writers()[0].0, MAX_WRITERS as u64);
        assert_eq!(core.input(1, 5, 0, Bytes::new()), Taken::Known);
        assert_eq!(core.input(0, 5, 0, Bytes::new()), Taken::Queued);
    }

    proptest! {
        #[test]
        fn the_ring_holds_the_newest_bytes(sizes in proptest::collection::vec(1usize..100_000, 1..40), limit in 0u64..500_000) {
            let mut core = core(limit);
            let mut all = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                let piece: Vec<u8> = (0..*size).map(|at| (at * 31 + index * 7) as u8).collect();
                core.output(&piece, 0);
                all.extend_from_slice(&piece);
            }
            prop_assert_eq!(core.head(), all.len() as u64);
            let held = core.head() - core.tail();
            prop_assert!(held >= limit.min(core.head()) && held <= limit.max(65_536) + 65_536);
            for from in [core.tail(), core.tail() + held / 3, core.head()] {
                let mut out = Vec::new();
                core.ring.copy(from, usize::MAX, &mut out);
                prop_assert_eq!(&out[..], &all[from as usize..]);
                let mut out = Vec::new();
                core.ring.copy(from, 1000, &mut out);
                prop_assert_eq!(&out[..], &all[from as usize..(from as usize + 1000).min(all.len())]);
            }
        }
    }
}

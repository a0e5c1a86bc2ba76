//! Who decides the terminal's size, and when it changes. Pure.
//!
//! One owner. A terminal on this machine takes the size when it first says one; another writer that may size takes
//! it when nobody owns it; anybody by asking. When the owner leaves, the latest other writer that may size follows.
//! The terminal is resized at most once per [`RESIZE_INTERVAL`], at once when it was quiet, and the last wish wins.

use std::time::{Duration, Instant};

use claudenest_shared::session::TermSize;

/// A program redraws everything on each change; four a second look smooth enough.
pub(super) const RESIZE_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Candidate {
    writer: u64,
    label: String,
    may_size: bool,
    is_local: bool,
    wish: Option<TermSize>,
}

/// Rules of the size.
#[derive(Debug)]
pub(super) struct SizeCore {
    /// The size that was last asked for from the holder.
    current: TermSize,
    owner: Option<u64>,
    /// In the order of their coming.
    writers: Vec<Candidate>,
    applied_at: Option<Instant>,
    pending: Option<TermSize>,
}

impl SizeCore {
    pub(super) fn new(current: TermSize) -> Self {
        Self { current, owner: None, writers: Vec::new(), applied_at: None, pending: None }
    }

    pub(super) fn owner_label(&self) -> Option<&str> {
        let owner = self.owner?;
        self.writers.iter().find(|writer| writer.writer == owner).map(|writer| writer.label.as_str())
    }

    /// A writer came. One that was here already (a reconnect crossing its own end) keeps what it owns.
    pub(super) fn open(&mut self, writer: u64, label: String, may_size: bool, is_local: bool) {
        let wish = self.remove(writer).and_then(|old| old.wish);
        self.writers.push(Candidate { writer, label, may_size, is_local, wish });
    }

    fn remove(&mut self, writer: u64) -> Option<Candidate> {
        let at = self.writers.iter().position(|candidate| candidate.writer == writer)?;
        Some(self.writers.remove(at))
    }

    /// A writer said its size. Returns the size to apply now.
    pub(super) fn resize(&mut self, writer: u64, size: TermSize, now: Instant) -> Option<TermSize> {
        let candidate = self.writers.iter_mut().find(|candidate| candidate.writer == writer)?;
        let is_first = candidate.wish.is_none();
        candidate.wish = Some(size);
        if (candidate.is_local && is_first) || (candidate.may_size && self.owner.is_none()) {
            self.owner = Some(writer);
        }
        if self.owner == Some(writer) { self.ask(size, now) } else { None }
    }

    /// A writer wants to own the size. Returns the size to apply now.
    pub(super) fn take(&mut self, writer: u64, size: TermSize, now: Instant) -> Option<TermSize> {
        let candidate = self.writers.iter_mut().find(|candidate| candidate.writer == writer)?;
        candidate.wish = Some(size);
        self.owner = Some(writer);
        self.ask(size, now)
    }

    /// A writer left. Returns the size to apply now.
    pub(super) fn close(&mut self, writer: u64, now: Instant) -> Option<TermSize> {
        self.remove(writer)?;
        if self.owner != Some(writer) {
            return None;
        }
        let heir = self.writers.iter().rev().find(|candidate| candidate.may_size && candidate.wish.is_some());
        self.owner = heir.map(|heir| heir.writer);
        let wish = heir.and_then(|heir| heir.wish)?;
        self.ask(wish, now)
    }

    fn ask(&mut self, size: TermSize, now: Instant) -> Option<TermSize> {
        self.pending = (size != self.current).then_some(size);
        self.due(now)
    }

    /// When [`Self::due`] has to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending?;
        self.applied_at.map(|at| at + RESIZE_INTERVAL)
    }

    /// The size to apply now, if its time has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<TermSize> {
        if self.applied_at.is_some_and(|at| now < at + RESIZE_INTERVAL) {
            return None;
        }
        let size = self.pending.take()?;
        self.current = size;
        self.applied_at = Some(now);
        Some(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(cols: u16) -> TermSize {
        TermSize { cols, rows: 24 }
    }

    fn core(writers: &[(u64, bool, bool)]) -> (SizeCore, Instant) {
        let mut core = SizeCore::new(TermSize { cols: 10, rows: 10 });
        for (writer, may_size, is_local) in writers {
            core.open(*writer, format!("writer {writer}"), *may_size, *is_local);
        }
        (core, Instant::now())
    }

    fn later(now: Instant, ms: u64) -> Instant {
        now + Duration::from_millis(ms)
    }

    #[test]
    fn the_first_that_may_takes_it_and_others_wait() {
        let (mut core, now) = core(&[(1, false, false), (2, true, false), (3, true, false)]);
        assert_eq!(core.resize(1, size(40), now), None, "a phone never takes it");
        assert_eq!(core.resize(2, size(100), now), Some(size(100)));
        assert_eq!(core.resize(3, size(50), later(now, 1000)), None);
        assert_eq!(core.owner_label(), Some("writer 2"));
        assert_eq!(core.close(2, later(now, 2000)), Some(size(50)), "the heir's wish is known");
        assert_eq!(core.close(3, later(now, 3000)), None);
        assert_eq!(core.owner_label(), None);
    }

    #[test]
    fn attach_takes_it_once_and_anybody_takes_it_by_asking() {
        let (mut core, now) = core(&[(1, true, false), (2, true, true)]);
        assert_eq!(core.resize(1, size(100), now), Some(size(100)));
        assert_eq!(core.resize(2, size(80), later(now, 300)), Some(size(80)));
        assert_eq!(core.take(1, size(100), later(now, 600)), Some(size(100)));
        assert_eq!(core.resize(2, size(81), later(now, 900)), None, "not at every resize");
    }

    #[test]
    fn a_storm_becomes_one_resize_per_interval_and_the_last_wins() {
        let (mut core, now) = core(&[(1, true, false)]);
        let mut applied = Vec::new();
        for ms in 0..1000u64 {
            let time = later(now, ms);
            applied.extend(core.due(time).map(|size| (ms, size)));
            if ms % 10 == 0 {
                applied.extend(core.resize(1, size(50 + (ms / 10) as u16), time).map(|size| (ms, size)));
            }
        }
        let end = core.deadline().unwrap();
        applied.extend(core.due(end).map(|size| (1000, size)));
        assert!(applied.len() <= 5, "{applied:?}");
        assert_eq!((applied[0].0, applied.last().unwrap().1), (0, size(149)));
        assert_eq!(core.deadline(), None);
    }

    #[test]
    fn a_wish_for_the_present_size_cancels_a_pending_one() {
        let (mut core, now) = core(&[(1, true, false)]);
        assert_eq!(core.resize(1, size(50), now), Some(size(50)));
        assert_eq!(core.resize(1, size(60), later(now, 10)), None);
        assert_eq!(core.resize(1, size(50), later(now, 20)), None);
        assert_eq!(core.deadline(), None);
    }

    proptest! {
        #[test]
        fn the_owner_is_always_somebody_who_is_here(steps in proptest::collection::vec((0u8..4, 0u64..4, 2u16..9), 0..60)) {
            let (mut core, now) = core(&[]);
            for (index, (what, writer, cols)) in steps.into_iter().enumerate() {
                let now = later(now, index as u64 * 100);
                match what {
                    0 => core.open(writer, "w".into(), writer % 2 == 0, writer == 2),
                    1 => drop(core.resize(writer, size(cols), now)),
                    2 => drop(core.take(writer, size(cols), now)),
                    _ => drop(core.close(writer, now)),
                }
                if let Some(owner) = core.owner {
                    prop_assert!(core.writers.iter().any(|candidate| candidate.writer == owner));
                }
            }
        }
    }
}

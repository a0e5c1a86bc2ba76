//! Judges histories of locks: is there an order of the operations, each at a moment between its call and its answer,
//! in which one clerk with one book would have given the same answers? (Wing and Gong, 1993.)

use std::collections::HashSet;

use claudenest_shared::id::LockId;

use crate::guard::lock::core::grain;

/// What an operation was.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Call {
    /// Locks on things, each a set of bits; a directory has the bits of what is in it.
    /// If it is explicit, it sets the lease also of a lock that is held already.
    Take {
        session: u128,
        things: Vec<u32>,
        lease_ms: u64,
        is_explicit: bool,
    },
    Release {
        session: u128,
        lock: LockId,
    },
    /// A session has ended.
    End {
        session: u128,
    },
    /// A session was active.
    Renew {
        session: u128,
    },
    List,
    /// The owner was killed and started again, after a reboot or not; these sessions were gone then.
    Crash {
        gone: Vec<u128>,
        is_reboot: bool,
    },
}

/// What was answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Answer {
    /// Lock and fencing number for each thing.
    Granted(Vec<(LockId, u64)>),
    /// This lock of another is in the way.
    Held(LockId),
    Done,
    NotFound,
    NotYours,
    Locks(Vec<(LockId, u64)>),
    /// The owner was killed first: it may have been done or not.
    Unknown,
}

/// An operation with its times.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) call: Call,
    pub(super) answer: Answer,
    /// Order of call and answer among all calls and answers.
    pub(super) called: u64,
    pub(super) answered: u64,
    /// The monotonic clock then.
    pub(super) clock_called: u64,
    pub(super) clock_answered: u64,
}

/// A lock in the book. `None` for what an unanswered operation may have granted.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Entry {
    id: Option<LockId>,
    fence: Option<u64>,
    session: u128,
    things: u32,
    lease_ms: u64,
    /// It cannot have ended before.
    from: u64,
    /// It must have ended then.
    to: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
struct Book {
    entries: Vec<Entry>,
    last_fence: u64,
}

impl Book {
    /// Every book that may follow when this operation happens now; none if it cannot have been answered so.
    fn after(&self, op: &Operation) -> Vec<Book> {
        match (&op.call, &op.answer) {
            (Call::Take { session, things, lease_ms, is_explicit }, Answer::Granted(granted)) => {
                self.granted(op, (*session, *lease_ms, *is_explicit), things, granted).into_iter().collect()
            }
            (Call::Take { session, things, .. }, Answer::Held(lock)) => {
                self.held(op, *session, things.iter().fold(0, |all, one| all | one), *lock)
            }
            (Call::Take { session, things, lease_ms, .. }, Answer::Unknown) => {
                self.perhaps_granted(op, *session, things, *lease_ms)
            }
            (Call::Release { session, lock }, Answer::Done) => self
                .with_bound(*lock, |entry| entry.session == *session)
                .into_iter()
                .map(|book| book.without(*lock))
                .collect(),
            (Call::Release { lock, .. }, Answer::NotFound) => {
                let is_there = |entry: &&Entry| entry.id == Some(*lock) && entry.from > op.clock_answered;
                let is_possible = !self.entries.iter().any(|entry| is_there(&entry));
                is_possible.then(|| self.clone().without(*lock)).into_iter().collect()
            }
            (Call::Release { session, lock }, Answer::NotYours) => {
                self.with_bound(*lock, |entry| entry.session != *session)
            }
            (Call::Release { session, lock }, Answer::Unknown) => {
                let is_its = |entry: &Entry| entry.id == Some(*lock) && entry.session == *session;
                if self.entries.iter().any(is_its) {
                    vec![self.clone(), self.clone().without(*lock)]
                } else {
                    vec![self.clone()]
                }
            }
            (Call::End { session }, answer) => {
                let mut after = self.clone();
                after.entries.retain(|entry| entry.session != *session);
                if *answer == Answer::Unknown { vec![self.clone(), after] } else { vec![after] }
            }
            (Call::Renew { session }, answer) => {
                let mut after = self.clone();
                for entry in after.entries.iter_mut().filter(|entry| entry.session == *session) {
                    let is_certain = *answer == Answer::Done && entry.from > op.clock_answered;
                    if is_certain {
                        entry.from = entry.from.max(op.clock_called + entry.lease_ms);
                    }
                    entry.to = entry.to.max(op.clock_answered + entry.lease_ms);
                }
                vec![after]
            }
            (Call::List, Answer::Locks(listed)) => self.listed(op, listed).into_iter().collect(),
            (Call::List, _) => vec![self.clone()],
            (Call::Crash { gone, is_reboot }, _) => {
                let mut after = self.clone();
                after.entries.retain(|entry| !gone.contains(&entry.session));
                for entry in &mut after.entries {
                    entry.to = match is_reboot {
                        true => entry.to.max(op.clock_answered + entry.lease_ms),
                        false => entry.to + grain(entry.lease_ms),
                    };
                }
                vec![after]
            }
            _ => Vec::new(),
        }
    }

    fn granted(
        &self,
        op: &Operation,
        (session, lease_ms, is_explicit): (u128, u64, bool),
        things: &[u32],
        granted: &[(LockId, u64)],
    ) -> Option<Book> {
        let mut after = self.clone();
        for (thing, (id, fence)) in things.iter().zip(granted) {
            let in_the_way = |entry: &Entry| entry.session != session && entry.things & thing != 0;
            if after.entries.iter().any(|entry| in_the_way(entry) && entry.from > op.clock_answered) {
                return None;
            }
            after.entries.retain(|entry| !in_the_way(entry));
            let (from, to) = (op.clock_called + lease_ms, op.clock_answered + lease_ms);
            let known = after.entries.iter_mut().find(|entry| {
                entry.id == Some(*id)
                    || (entry.id.is_none()
                        && entry.session == session
                        && entry.things & thing == *thing
                        && *fence <= self.last_fence)
            });
            match known {
                Some(entry) => {
                    if entry.session != session || entry.fence.is_some_and(|known| known != *fence) {
                        return None;
                    }
                    (entry.id, entry.fence) = (Some(*id), Some(*fence));
                    if is_explicit {
                        (entry.lease_ms, entry.from, entry.to) = (lease_ms, from, to);
                    } else {
                        entry.from = entry.from.max(op.clock_called + entry.lease_ms);
                        entry.to = entry.to.max(op.clock_answered + entry.lease_ms);
                    }
                }
                None => {
                    let doubtful = after.entries.iter().position(|entry| {
                        entry.id.is_none() && entry.session == session && entry.things == *thing
                    });
                    if let Some(at) = doubtful {
                        after.entries.remove(at);
                    }
                    if *fence <= after.last_fence && doubtful.is_none() {
                        return None;
                    }
                    let (id, fence) = (Some(*id), Some(*fence));
                    after.entries.push(Entry { id, fence, session, things: *thing, lease_ms, from, to });
                }
            }
            after.last_fence = after.last_fence.max(*fence);
        }
        Some(after.sorted())
    }

    fn held(&self, op: &Operation, session: u128, things: u32, lock: LockId) -> Vec<Book> {
        self.with_bound(lock, |entry| {
            entry.session != session && entry.things & things != 0 && entry.to > op.clock_called
        })
    }

    fn perhaps_granted(&self, op: &Operation, session: u128, things: &[u32], lease_ms: u64) -> Vec<Book> {
        let mut nothing_new = self.clone();
        for entry in nothing_new.entries.iter_mut().filter(|entry| entry.session == session) {
            // An explicit one may also have made the lease shorter.
            entry.from = entry.from.min(op.clock_called + lease_ms);
            entry.to = entry.to.max(op.clock_answered + entry.lease_ms.max(lease_ms));
        }
        let mut books = vec![nothing_new.clone()];
        let all = things.iter().fold(0, |all, one| all | one);
        let in_the_way = |entry: &Entry| entry.session != session && entry.things & all != 0;
        if !self.entries.iter().any(|entry| in_the_way(entry) && entry.from > op.clock_answered) {
            let mut new = nothing_new;
            new.entries.retain(|entry| !in_the_way(entry));
            for thing in things {
                new.entries.push(Entry {
                    id: None,
                    fence: None,
                    session,
                    things: *thing,
                    lease_ms,
                    from: op.clock_called + lease_ms,
                    to: op.clock_answered + lease_ms,
                });
            }
            books.push(new.sorted());
        }
        books
    }

    fn listed(&self, op: &Operation, listed: &[(LockId, u64)]) -> Option<Book> {
        let mut after = self.clone();
        for (id, fence) in listed {
            let entry = match after.entries.iter().position(|entry| entry.id == Some(*id)) {
                Some(at) => &mut after.entries[at],
                None => after.entries.iter_mut().find(|entry| entry.id.is_none())?,
            };
            if entry.to <= op.clock_called || entry.fence.is_some_and(|known| known != *fence) {
                return None;
            }
            (entry.id, entry.fence) = (Some(*id), Some(*fence));
        }
        let is_missing = |entry: &Entry| {
            entry.id.is_some_and(|id| listed.iter().all(|(other, _)| *other != id))
                && entry.from > op.clock_answered
        };
        (!after.entries.iter().any(is_missing)).then(|| after.sorted())
    }

    /// Books in which `lock` is an entry that fits: the one with this id, or one whose id was not known.
    fn with_bound(&self, lock: LockId, fits: impl Fn(&Entry) -> bool) -> Vec<Book> {
        if let Some(entry) = self.entries.iter().find(|entry| entry.id == Some(lock)) {
            return if fits(entry) { vec![self.clone()] } else { Vec::new() };
        }
        let unknown = self.entries.iter().enumerate().filter(|(_, entry)| entry.id.is_none() && fits(entry));
        let bound = unknown.map(|(at, _)| {
            let mut book = self.clone();
            book.entries[at].id = Some(lock);
            book.sorted()
        });
        bound.collect()
    }

    fn without(mut self, lock: LockId) -> Self {
        self.entries.retain(|entry| entry.id != Some(lock));
        self
    }

    fn sorted(mut self) -> Self {
        self.entries.sort();
        self
    }
}

/// True if such an order exists.
pub(super) fn is_linearizable(history: &[Operation]) -> bool {
    assert!(history.len() <= 128, "a history has at most 128 operations");
    let all = if history.len() == 128 { u128::MAX } else { (1u128 << history.len()) - 1 };
    let mut open = vec![(0u128, Book::default())];
    let mut seen = HashSet::new();
    while let Some((done, book)) = open.pop() {
        if done == all {
            return true;
        }
        let is_open = |index: &usize| done & (1 << index) == 0;
        let first_answer = (0..history.len()).filter(is_open).map(|index| history[index].answered).min();
        for index in (0..history.len()).filter(is_open) {
            // It cannot come before something that was answered before it was called.
            if Some(history[index].called) > first_answer {
                continue;
            }
            for after in book.after(&history[index]) {
                let next = (done | 1 << index, after);
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
    }
    false
}

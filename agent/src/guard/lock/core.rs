//! The table of locks as a pure state machine: who has what, who waits, what a change would be.
//!
//! A change is planned first, then written to disk by the owner, then applied: what is not on disk was never granted.
//! Invariants: no two locks of different holders cover one thing; a fencing number is given once; leases are measured
//! on the monotonic clock, so that wall-clock jumps free nothing early and nothing late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use claudenest_shared::id::{LockId, SessionId};
use claudenest_shared::lock::{Lock, LockEnd, LockHolder, LockKind, LockOrigin, LockWaiter};
use claudenest_shared::time::UnixMs;

use super::words::{Keys, Mono, Now};

/// Locks of the machine. Each costs one or two `stat` calls at every check, which is to stay far below 10 ms.
pub const MAX_LOCKS: usize = 4_000;
/// Locks of one holder, so that no session can use up those of all.
pub const MAX_LOCKS_OF_HOLDER: usize = 1_000;
/// Holders that wait at the same time.
pub const MAX_WAITERS: usize = 256;
/// A renewal is written to disk when it adds at least this much: activity comes several times a second, and a write
/// costs an `fsync`. After a restart of the daemon leases get this much on top, so that none ends early.
pub const RENEWAL_GRAIN_MS: u64 = 30_000;

/// A lock that is held.
#[derive(Clone, PartialEq, Debug)]
pub struct Held {
    /// Identity of the grant.
    pub id: LockId,
    /// What it covers.
    pub keys: Arc<Keys>,
    /// One file, or a directory with everything below.
    pub kind: LockKind,
    /// Who.
    pub holder: LockHolder,
    /// How it came about.
    pub origin: LockOrigin,
    /// Why.
    pub reason: Option<String>,
    /// Root of the project.
    pub project: String,
    /// Fencing number.
    pub fence: u64,
    /// Since when, for people.
    pub since: UnixMs,
    /// Lease in milliseconds.
    pub lease_ms: u64,
    /// When it ends without activity.
    pub deadline: Mono,
    /// The deadline as it is on disk.
    pub saved_deadline: Mono,
    /// Version of the last change.
    pub version: u64,
}

impl Held {
    fn is_of(&self, who: &LockHolder) -> bool {
        is_same(&self.holder, who)
    }

    fn is_tree(&self) -> bool {
        self.kind == LockKind::Directory
    }
}

/// The same holder: names of sessions change, their ids do not.
pub fn is_same(a: &LockHolder, b: &LockHolder) -> bool {
    match (a, b) {
        (LockHolder::Session { session: a, .. }, LockHolder::Session { session: b, .. }) => a == b,
        (LockHolder::Person { label: a }, LockHolder::Person { label: b }) => a == b,
        _ => false,
    }
}

/// One thing that somebody wants to have.
#[derive(Clone, PartialEq, Debug)]
pub struct Want {
    /// What.
    pub keys: Arc<Keys>,
    /// Alone or with everything below.
    pub kind: LockKind,
    /// Root of the project.
    pub project: String,
    /// True if nobody else may have it now, but no lock is wanted.
    pub is_check: bool,
}

/// Everything that somebody wants at once: all of it or nothing.
#[derive(Clone, PartialEq, Debug)]
pub struct Ask {
    /// Who.
    pub who: LockHolder,
    /// What.
    pub wants: Vec<Want>,
    /// By what way.
    pub origin: LockOrigin,
    /// Why.
    pub reason: Option<String>,
    /// Lease in milliseconds.
    pub lease_ms: u64,
}

/// Why an ask cannot be granted now.
#[derive(Clone, PartialEq, Debug)]
pub enum Obstacle {
    /// Another holder has this lock, and the want with this index hits it.
    Held {
        /// The lock.
        lock: LockId,
        /// Index in [`Ask::wants`].
        want: usize,
    },
    /// Too many locks.
    TooMany {
        /// The limit.
        limit: usize,
    },
}

/// A change that is planned: written first, applied then.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Change {
    /// New or different locks.
    pub puts: Vec<Held>,
    /// Locks that end.
    pub ends: Vec<(LockId, LockEnd)>,
    /// The next fencing number afterwards.
    pub next_fence: u64,
    /// The last version afterwards.
    pub version: u64,
}

impl Change {
    /// True if nothing would be different.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.ends.is_empty()
    }
}

/// Names a waiting ask.
pub type Ticket = u64;

/// Somebody who waits.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// Its name.
    pub ticket: Ticket,
    /// What is wanted.
    pub ask: Ask,
    /// Since when, for people.
    pub since: UnixMs,
}

/// All locks of the machine and who waits for them.
#[derive(Clone, Debug, Default)]
pub struct Table {
    held: BTreeMap<LockId, Held>,
    waiters: VecDeque<Waiter>,
    next_fence: u64,
    version: u64,
    last_ticket: Ticket,
}

impl Table {
    /// Takes up what is on disk.
    pub fn restore(held: Vec<Held>, next_fence: u64, version: u64) -> Self {
        let next_fence = held.iter().map(|held| held.fence + 1).max().unwrap_or(1).max(next_fence).max(1);
        let version = held.iter().map(|held| held.version).max().unwrap_or(0).max(version);
        let held = held.into_iter().map(|held| (held.id, held)).collect();
        Self { held, next_fence, version, ..Self::default() }
    }

    /// Every lock, oldest first.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// One lock.
    pub fn get(&self, id: LockId) -> Option<&Held> {
        self.held.get(&id)
    }

    /// Plans a grant: renews what the asker has already, adds the rest.
    ///
    /// # Errors
    /// [`Obstacle`]; then nothing of it is granted.
    pub fn acquire(
        &self,
        now: Now,
        ask: &Ask,
        mut mint: impl FnMut() -> LockId,
    ) -> Result<(Change, Vec<LockId>), Obstacle> {
        if let Some((lock, want)) = self.first_hit(ask) {
            return Err(Obstacle::Held { lock, want });
        }
        let mut change = self.unchanged();
        let mut granted = Vec::new();
        for want in ask.wants.iter().filter(|want| !want.is_check) {
            let own = self.covering(&ask.who, want).map(|held| held.id);
            let doubled = change.puts.iter().find(|put| covers(put, want)).map(|put| put.id);
            if let Some(id) = doubled {
                granted.push(id);
                continue;
            }
            change.version += 1;
            let mut held = match own.and_then(|id| self.get(id)) {
                Some(held) => held.clone(),
                None => {
                    change.next_fence += 1;
                    Held {
                        id: mint(),
                        keys: Arc::clone(&want.keys),
                        kind: want.kind,
                        holder: ask.who.clone(),
                        origin: ask.origin,
                        reason: None,
                        project: want.project.clone(),
                        fence: change.next_fence - 1,
                        since: now.wall,
                        lease_ms: ask.lease_ms,
                        deadline: now.mono,
                        saved_deadline: now.mono,
                        version: 0,
                    }
                }
            };
            // Who says it explicitly may change lease and reason; an automatic renewal leaves them.
            if ask.origin != LockOrigin::Write {
                held.lease_ms = ask.lease_ms;
                held.reason = ask.reason.clone().or(held.reason);
                held.deadline = now.mono.plus(held.lease_ms);
            }
            held.deadline = held.deadline.max(now.mono.plus(held.lease_ms));
            held.saved_deadline = held.deadline;
            held.version = change.version;
            granted.push(held.id);
            change.puts.push(held);
        }
        let fresh = change.puts.iter().filter(|put| !self.held.contains_key(&put.id)).count();
        let of_holder = self.held().filter(|held| held.is_of(&ask.who)).count();
        if fresh > 0 && self.held.len() + fresh > MAX_LOCKS {
            return Err(Obstacle::TooMany { limit: MAX_LOCKS });
        }
        if fresh > 0 && of_holder + fresh > MAX_LOCKS_OF_HOLDER {
            return Err(Obstacle::TooMany { limit: MAX_LOCKS_OF_HOLDER });
        }
        Ok((change, granted))
    }

    /// The first lock of another holder that an ask hits, with the index of the want.
    pub fn first_hit(&self, ask: &Ask) -> Option<(LockId, usize)> {
        ask.wants.iter().enumerate().find_map(|(index, want)| {
            let held = self.held().find(|held| !held.is_of(&ask.who) && hits(held, want))?;
            Some((held.id, index))
        })
    }

    /// A lock of `who` that already covers the whole want.
    fn covering(&self, who: &LockHolder, want: &Want) -> Option<&Held> {
        self.held().filter(|held| held.is_of(who)).find(|held| covers(held, want))
    }

    /// Plans the end of locks. Ids that are not held are left out.
    pub fn end(&self, ends: impl IntoIterator<Item = (LockId, LockEnd)>) -> Change {
        let mut change = self.unchanged();
        change.ends.extend(ends.into_iter().filter(|(id, _)| self.held.contains_key(id)));
        change.version += change.ends.len() as u64;
        change
    }

    /// Locks of a session.
    pub fn of_session(&self, session: SessionId) -> Vec<LockId> {
        let is_its =
            |held: &&Held| matches!(&held.holder, LockHolder::Session { session: s, .. } if *s == session);
        self.held().filter(is_its).map(|held| held.id).collect()
    }

    /// Locks whose lease is over.
    pub fn expired(&self, now: Mono) -> Vec<LockId> {
        self.held().filter(|held| held.deadline <= now).map(|held| held.id).collect()
    }

    /// When the next lease is over.
    pub fn deadline(&self) -> Option<Mono> {
        self.held().map(|held| held.deadline).min()
    }

    /// Activity of a session renews its leases; in memory at once, on disk by [`Table::unsaved`]. True if it has any.
    pub fn renew(&mut self, now: Mono, session: SessionId) -> bool {
        let mut has_any = false;
        for held in self.held.values_mut() {
            if matches!(&held.holder, LockHolder::Session { session: s, .. } if *s == session) {
                held.deadline = held.deadline.max(now.plus(held.lease_ms));
                has_any = true;
            }
        }
        has_any
    }

    /// Plans to write down renewals that have grown larger than the grain.
    pub fn unsaved(&self) -> Change {
        let mut change = self.unchanged();
        for held in
            self.held().filter(|held| held.deadline.since(held.saved_deadline) >= grain(held.lease_ms))
        {
            change.version += 1;
            let mut put = held.clone();
            put.saved_deadline = put.deadline;
            put.version = change.version;
            change.puts.push(put);
        }
        change
    }

    /// Puts newly found keys in the place of old ones: a file was replaced. Keys are found again at a restart,
    /// so that this need not be on disk.
    pub fn rekey(&mut self, id: LockId, keys: Arc<Keys>) {
        if let Some(held) = self.held.get_mut(&id) {
            held.keys = keys;
        }
    }

    /// Applies a change that is on disk now.
    pub fn apply(&mut self, change: &Change) {
        for put in &change.puts {
            self.held.insert(put.id, put.clone());
        }
        for (id, _) in &change.ends {
            self.held.remove(id);
        }
        self.next_fence = self.next_fence.max(change.next_fence);
        self.version = self.version.max(change.version);
    }

    /// A change that could not be written may be on disk nevertheless: its fencing numbers and versions are not used again.
    pub fn abandon(&mut self, change: &Change) {
        self.next_fence = self.next_fence.max(change.next_fence);
        self.version = self.version.max(change.version);
    }

    fn unchanged(&self) -> Change {
        Change { next_fence: self.next_fence, version: self.version, ..Change::default() }
    }

    /// Puts an ask into the queue. `None` when the queue is full.
    pub fn enqueue(&mut self, now: Now, ask: Ask) -> Option<Ticket> {
        if self.waiters.len() >= MAX_WAITERS {
            return None;
        }
        self.last_ticket += 1;
        self.waiters.push_back(Waiter { ticket: self.last_ticket, ask, since: now.wall });
        Some(self.last_ticket)
    }

    /// Takes an ask out of the queue.
    pub fn leave(&mut self, ticket: Ticket) -> Option<Waiter> {
        let at = self.waiters.iter().position(|waiter| waiter.ticket == ticket)?;
        self.waiters.remove(at)
    }

    /// Everybody who waits, in order.
    pub fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter()
    }

    /// Puts newly found keys into a waiting ask.
    pub fn rekey_waiter(&mut self, ticket: Ticket, want: usize, keys: Arc<Keys>) {
        let waiter = self.waiters.iter_mut().find(|waiter| waiter.ticket == ticket);
        if let Some(want) = waiter.and_then(|waiter| waiter.ask.wants.get_mut(want)) {
            want.keys = keys;
        }
    }

    /// The first in the queue whose wish is free, and not wanted by somebody before.
    pub fn next_in_turn(&self) -> Option<&Waiter> {
        let mut before: Vec<&Waiter> = Vec::new();
        for waiter in &self.waiters {
            let is_behind = before.iter().any(|earlier| {
                !is_same(&earlier.ask.who, &waiter.ask.who) && do_collide(&earlier.ask, &waiter.ask)
            });
            if !is_behind && self.first_hit(&waiter.ask).is_none() {
                return Some(waiter);
            }
            before.push(waiter);
        }
        None
    }

    /// True if waiting would never end: who holds what `ask` wants waits, over any number of others, for the asker.
    pub fn is_deadlock(&self, ask: &Ask) -> bool {
        let holders_of = |ask: &Ask| -> Vec<LockHolder> {
            let hit = |held: &&Held| !held.is_of(&ask.who) && ask.wants.iter().any(|want| hits(held, want));
            self.held().filter(hit).map(|held| held.holder.clone()).collect()
        };
        let mut seen = BTreeSet::new();
        let mut open = holders_of(ask);
        while let Some(holder) = open.pop() {
            if is_same(&holder, &ask.who) {
                return true;
            }
            for waiter in self.waiters.iter().filter(|waiter| is_same(&waiter.ask.who, &holder)) {
                if seen.insert(waiter.ticket) {
                    open.extend(holders_of(&waiter.ask));
                }
            }
        }
        false
    }

    /// A lock as everybody sees it.
    pub fn view(&self, held: &Held, now: Now) -> Lock {
        let left = i64::try_from(held.deadline.since(now.mono)).unwrap_or(i64::MAX);
        let waits = |waiter: &&Waiter| {
            !is_same(&waiter.ask.who, &held.holder) && waiter.ask.wants.iter().any(|want| hits(held, want))
        };
        Lock {
            id: held.id,
            machine_id: None,
            path: held.keys.path().to_string_lossy().into_owned(),
            project: held.project.clone(),
            kind: held.kind,
            holder: held.holder.clone(),
            origin: held.origin,
            reason: held.reason.clone(),
            fence: held.fence,
            since: held.since,
            expires_at: now.wall.plus(left),
            waiters: self
                .waiters
                .iter()
                .filter(waits)
                .map(|waiter| LockWaiter { who: waiter.ask.who.clone(), since: waiter.since })
                .collect(),
            version: held.version,
        }
    }

    /// Gives a lock a new version because of who waits for it, for copies.
    pub fn touch(&mut self, ids: &[LockId]) {
        for id in ids {
            if let Some(held) = self.held.get_mut(id) {
                self.version += 1;
                held.version = self.version;
            }
        }
    }

    /// Locks that a waiting ask hits.
    pub fn hit_by(&self, ask: &Ask) -> Vec<LockId> {
        let hit = |held: &&Held| !held.is_of(&ask.who) && ask.wants.iter().any(|want| hits(held, want));
        self.held().filter(hit).map(|held| held.id).collect()
    }
}

/// How much of a renewal may be lost with the daemon.
pub fn grain(lease_ms: u64) -> u64 {
    RENEWAL_GRAIN_MS.min(lease_ms / 4).max(1)
}

fn hits(held: &Held, want: &Want) -> bool {
    held.keys.collide(held.is_tree(), &want.keys, want.kind == LockKind::Directory)
}

fn covers(held: &Held, want: &Want) -> bool {
    held.keys.covers(held.is_tree(), &want.keys, want.kind == LockKind::Directory)
}

fn do_collide(a: &Ask, b: &Ask) -> bool {
    a.wants.iter().any(|x| {
        b.wants
            .iter()
            .any(|y| x.keys.collide(x.kind == LockKind::Directory, &y.keys, y.kind == LockKind::Directory))
    })
}

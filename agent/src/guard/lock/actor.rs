//! The task that owns the table of locks: looks at files, plans, writes to disk, applies, tells.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claudenest_shared::id::{LockId, SessionId};
use claudenest_shared::lock::{DEFAULT_LEASE_S, Lock, LockEnd, LockHolder, LockKind, LockOrigin};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::core::{Ask, Change, Held, Obstacle, Table, Ticket, Want};
use super::keys::{self, Finder, KeyError};
use super::words::{Conflict, Key, Keys, Mono, Now, Refusal};
use super::{Active, LockEvent, LockSettings, Releaser, Shown, Wish, guard};
use crate::guard::risk::WrittenPath;
use crate::store::{SavedLock, Store, StoreError};

/// Looking at files takes microseconds; a file system that does not answer must not hold up those who use others for ever.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// An end that could not be written is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);
/// Whoever waits is looked after at least this often: a file that was replaced is no longer what the queue knows.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

pub(super) type Answer = oneshot::Sender<Result<Vec<Lock>, Refusal>>;

pub(super) enum Command {
    Write { who: LockHolder, cwd: PathBuf, paths: Vec<WrittenPath>, answer: Answer },
    Acquire { wish: Box<Wish>, answer: Answer },
    Release { lock: LockId, by: Releaser, answer: Answer },
    SessionEnded { session: SessionId, answer: Answer },
}

/// Somebody whose answer waits for a lock.
struct Waiting {
    answer: Answer,
    until: Mono,
}

pub(super) struct Actor {
    settings: LockSettings,
    store: Store,
    table: Table,
    shown: Arc<Mutex<Shown>>,
    active: Arc<Active>,
    events: broadcast::Sender<LockEvent>,
    waiting: BTreeMap<Ticket, Waiting>,
    /// Ends that could not be written yet.
    owed: BTreeMap<LockId, LockEnd>,
    /// Grants that were refused because they could not be written, and might be on disk nevertheless.
    doubtful: Vec<LockId>,
}

impl Actor {
    pub(super) async fn start(
        settings: LockSettings,
        store: Store,
        shown: Arc<Mutex<Shown>>,
        active: Arc<Active>,
        events: broadcast::Sender<LockEvent>,
        is_live: impl Fn(SessionId) -> bool,
    ) -> Result<Self, StoreError> {
        let saved = store.locks().await?;
        let now = (settings.clock)();
        let mut finder = Finder::with_folds(settings.folds.clone());
        let is_same_boot = !settings.boot.is_empty() && saved.boot == settings.boot;
        let mut held = Vec::new();
        for row in saved.locks {
            let keys = Arc::new(finder.keys_of_spots(&row.spots));
            held.push(restored(row, keys, is_same_boot, now));
        }
        let table = Table::restore(held, saved.next_fence, saved.version);
        let gone: Vec<LockId> = table
            .held()
            .filter(|held| matches!(&held.holder, LockHolder::Session { session, .. } if !is_live(*session)))
            .map(|held| held.id)
            .collect();
        let mut actor = Self {
            settings,
            store,
            table,
            shown,
            active,
            events,
            waiting: BTreeMap::new(),
            owed: BTreeMap::new(),
            doubtful: Vec::new(),
        };
        actor.owed.extend(gone.into_iter().map(|id| (id, LockEnd::SessionEnded)));
        actor.pay().await;
        actor.show();
        Ok(actor)
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let active = Arc::clone(&self.active);
        loop {
            let pause = self.pause();
            tokio::select! {
                () = active.notify.notified() => {}
                () = tokio::time::sleep(pause) => {}
                command = commands.recv() => {
                    let Some(command) = command else { return };
                    self.settle().await;
                    self.handle(command).await;
                }
            }
            self.settle().await;
            self.serve_queue().await;
        }
    }

    fn now(&self) -> Now {
        (self.settings.clock)()
    }

    /// How long nothing has to be done by itself.
    fn pause(&self) -> Duration {
        if !self.owed.is_empty() {
            return RETRY;
        }
        let next = self.table.deadline().into_iter().chain(self.waiting.values().map(|w| w.until)).min();
        let left = next.map(|next| Duration::from_millis(next.since(self.now().mono)));
        left.unwrap_or(LONGEST_SLEEP).clamp(Duration::from_millis(1), LONGEST_SLEEP)
    }

    /// Renews, then ends what is over.
    async fn settle(&mut self) {
        let now = self.now();
        let active = std::mem::take(&mut *guard(&self.active.sessions));
        let mut is_renewed = false;
        for (session, at) in active {
            is_renewed |= self.table.renew(at, session);
        }
        if is_renewed {
            let renewals = self.table.unsaved();
            if !renewals.is_empty() {
                // A renewal that cannot be written holds in memory; the next one tries again.
                let _ = self.commit(renewals).await;
            }
            self.show();
        }
        let expired = self.table.expired(now.mono);
        self.owed.extend(expired.into_iter().map(|id| (id, LockEnd::Expired)));
        self.pay().await;
        let late: Vec<Ticket> =
            self.waiting.iter().filter(|(_, w)| w.until <= now.mono).map(|(ticket, _)| *ticket).collect();
        for ticket in late {
            self.give_up(ticket);
        }
    }

    /// Writes the ends that are owed.
    async fn pay(&mut self) {
        if self.owed.is_empty() {
            return;
        }
        let change = self.table.end(self.owed.iter().map(|(id, end)| (*id, *end)));
        if change.is_empty() || self.commit(change).await.is_ok() {
            self.owed.clear();
        }
    }

    async fn handle(&mut self, command: Command) {
        match command {
            Command::Write { who, cwd, paths, answer } => {
                let ask = |wants| Ask {
                    who,
                    wants,
                    origin: LockOrigin::Write,
                    reason: None,
                    lease_ms: u64::from(DEFAULT_LEASE_S) * 1000,
                };
                let looked = self.look(paths.clone(), cwd, true).await;
                let result = match looked {
                    Ok(wants) => self.grant(ask(wants), &paths).await.map(|granted| self.views(&granted)),
                    Err(refusal) => Err(refusal),
                };
                let _ = answer.send(result);
            }
            Command::Acquire { wish, answer } => self.acquire(*wish, answer).await,
            Command::Release { lock, by, answer } => {
                let _ = answer.send(self.release(lock, by).await);
            }
            Command::SessionEnded { session, answer } => {
                let ends = self.table.of_session(session).into_iter();
                self.owed.extend(ends.map(|id| (id, LockEnd::SessionEnded)));
                self.pay().await;
                let its = |waiter: &&super::core::Waiter| matches!(&waiter.ask.who, LockHolder::Session { session: s, .. } if *s == session);
                let tickets: Vec<Ticket> = self.table.waiters().filter(its).map(|w| w.ticket).collect();
                for ticket in tickets {
                    self.give_up(ticket);
                }
                let _ = answer.send(Ok(Vec::new()));
            }
        }
    }

    async fn acquire(&mut self, wish: Wish, answer: Answer) {
        let path = WrittenPath { path: wish.path.clone(), is_tree: wish.kind == LockKind::Directory };
        let mut wants = match self.look(vec![path.clone()], wish.cwd.clone(), false).await {
            Ok(wants) => wants,
            Err(refusal) => {
                let _ = answer.send(Err(refusal));
                return;
            }
        };
        if let Err(refusal) = allowed(&wish, &mut wants) {
            let _ = answer.send(Err(refusal));
            return;
        }
        let ask = Ask {
            who: wish.who,
            wants,
            origin: wish.origin,
            reason: wish.reason,
            lease_ms: u64::from(wish.lease_s.unwrap_or(DEFAULT_LEASE_S)) * 1000,
        };
        let result = self.grant(ask.clone(), std::slice::from_ref(&path)).await;
        match result {
            Err(Refusal::Held(conflict)) if !wish.wait.is_zero() => {
                if self.table.is_deadlock(&ask) {
                    let _ = answer.send(Err(Refusal::Deadlock(conflict)));
                    return;
                }
                let now = self.now();
                let hit = self.table.hit_by(&ask);
                let Some(ticket) = self.table.enqueue(now, ask) else {
                    let _ = answer.send(Err(Refusal::TooMany(super::core::MAX_WAITERS)));
                    return;
                };
                let until = now.mono.plus(u64::try_from(wish.wait.as_millis()).unwrap_or(u64::MAX));
                self.waiting.insert(ticket, Waiting { answer, until });
                self.tell_waiters_changed(&hit);
            }
            result => {
                let _ = answer.send(result.map(|granted| self.views(&granted)));
            }
        }
    }

    async fn release(&mut self, lock: LockId, by: Releaser) -> Result<Vec<Lock>, Refusal> {
        let held = self.table.get(lock).ok_or(Refusal::NotFound)?;
        let view = self.table.view(held, self.now());
        let end = match (&by, &held.holder) {
            (Releaser::Session(own), LockHolder::Session { session, .. }) if own == session => {
                LockEnd::Released
            }
            (Releaser::Person, LockHolder::Person { .. }) => LockEnd::Released,
            (Releaser::Force, _) => LockEnd::Forced,
            _ => return Err(Refusal::NotYours(Box::new(view))),
        };
        let change = self.table.end([(lock, end)]);
        self.commit(change).await?;
        Ok(vec![view])
    }

    /// Grants or says who is in the way.
    async fn grant(&mut self, ask: Ask, paths: &[WrittenPath]) -> Result<Vec<LockId>, Refusal> {
        let now = self.now();
        let planned = self.table.acquire(now, &ask, || LockId(uuid::Uuid::now_v7()));
        match planned {
            Ok((change, granted)) => {
                if !change.is_empty() {
                    self.commit(change).await?;
                }
                Ok(granted)
            }
            Err(obstacle) => Err(self.refusal(&obstacle, paths, now)),
        }
    }

    fn refusal(&self, obstacle: &Obstacle, paths: &[WrittenPath], now: Now) -> Refusal {
        match obstacle {
            Obstacle::TooMany { limit } => Refusal::TooMany(*limit),
            Obstacle::Held { lock, want } => match self.table.get(*lock) {
                Some(held) => Refusal::Held(Box::new(Conflict {
                    lock: self.table.view(held, now),
                    path: paths.get(*want).map(|write| write.path.clone()).unwrap_or_default(),
                })),
                None => Refusal::NotFound,
            },
        }
    }

    /// Writes a change, applies it and tells. Nothing is different when it cannot be written.
    async fn commit(&mut self, change: Change) -> Result<(), Refusal> {
        if let Err(error) = self.store.change_locks(&change, &self.doubtful, &self.settings.boot).await {
            tracing::error!(%error, "a change of locks could not be written, so it was not made; is the disk full?");
            self.table.abandon(&change);
            let fresh = change.puts.iter().map(|put| put.id).filter(|id| self.table.get(*id).is_none());
            self.doubtful.extend(fresh.collect::<Vec<_>>());
            return Err(Refusal::NotStored);
        }
        self.doubtful.clear();
        let now = self.now();
        let ended: Vec<LockEvent> = change
            .ends
            .iter()
            .filter_map(|(id, end)| {
                let lock = Box::new(self.table.view(self.table.get(*id)?, now));
                Some(LockEvent::Ended { lock, end: *end })
            })
            .collect();
        self.table.apply(&change);
        self.show();
        for event in ended {
            let _ = self.events.send(event);
        }
        let changed: Vec<LockId> = change.puts.iter().map(|put| put.id).collect();
        self.tell_changed(&changed);
        Ok(())
    }

    fn views(&self, ids: &[LockId]) -> Vec<Lock> {
        let now = self.now();
        ids.iter().filter_map(|id| Some(self.table.view(self.table.get(*id)?, now))).collect()
    }

    fn tell_changed(&self, ids: &[LockId]) {
        for lock in self.views(ids) {
            let _ = self.events.send(LockEvent::Changed(Box::new(lock)));
        }
    }

    /// Who waits is part of what copies show.
    fn tell_waiters_changed(&mut self, ids: &[LockId]) {
        self.table.touch(ids);
        self.show();
        self.tell_changed(ids);
    }

    fn show(&self) {
        let now = self.now();
        let locks = self.table.held().map(|held| (self.table.view(held, now), held.deadline)).collect();
        guard(&self.shown).locks = locks;
    }

    /// A waiter whose time is over, or whose session has ended.
    fn give_up(&mut self, ticket: Ticket) {
        let Some(waiter) = self.table.leave(ticket) else { return };
        let hit = self.table.hit_by(&waiter.ask);
        self.tell_waiters_changed(&hit);
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        let paths: Vec<WrittenPath> = waiter
            .ask
            .wants
            .iter()
            .map(|want| WrittenPath { path: want.keys.path().to_owned(), is_tree: false })
            .collect();
        let refusal = match self.table.first_hit(&waiter.ask) {
            Some((lock, want)) => self.refusal(&Obstacle::Held { lock, want }, &paths, self.now()),
            None => Refusal::Stopping,
        };
        let _ = waiting.answer.send(Err(refusal));
    }

    /// Grants to those who wait, in order.
    async fn serve_queue(&mut self) {
        // Whoever hung up does not wait any more.
        let gone: Vec<Ticket> =
            self.waiting.iter().filter(|(_, w)| w.answer.is_closed()).map(|(ticket, _)| *ticket).collect();
        for ticket in gone {
            self.give_up(ticket);
        }
        while let Some(waiter) = self.table.next_in_turn() {
            let (ticket, ask) = (waiter.ticket, waiter.ask.clone());
            self.table.leave(ticket);
            let Some(waiting) = self.waiting.remove(&ticket) else { continue };
            let paths: Vec<WrittenPath> = ask
                .wants
                .iter()
                .map(|want| WrittenPath { path: want.keys.path().to_owned(), is_tree: false })
                .collect();
            // The files may be others by now.
            let result = match self.refresh(ask).await {
                Ok(ask) => self.grant(ask, &paths).await,
                Err(refusal) => Err(refusal),
            };
            let _ = waiting.answer.send(result.map(|granted| self.views(&granted)));
        }
    }

    /// Looks at paths, and again at the places of locks where something was replaced.
    async fn look(
        &mut self,
        paths: Vec<WrittenPath>,
        cwd: PathBuf,
        is_write: bool,
    ) -> Result<Vec<Want>, Refusal> {
        let mut finder = Finder::with_folds(self.settings.folds.clone());
        let held = self.held_keys();
        let job = tokio::task::spawn_blocking(move || {
            let fresh = refreshed(&mut finder, &held);
            let trees = trees(&held, &fresh);
            let wants: Result<Vec<Option<Want>>, KeyError> =
                paths.iter().map(|write| look_at(&mut finder, write, &cwd, is_write, &trees)).collect();
            (fresh, wants)
        });
        let (fresh, wants) = finished(job).await?;
        self.rekey(fresh);
        match wants {
            Ok(wants) => Ok(wants.into_iter().flatten().collect()),
            Err(error) => Err(Refusal::BadPath(error.to_string())),
        }
    }

    /// Looks at the places of a waiting ask again, and at those of the locks.
    async fn refresh(&mut self, mut ask: Ask) -> Result<Ask, Refusal> {
        let mut finder = Finder::with_folds(self.settings.folds.clone());
        let held = self.held_keys();
        let spots: Vec<Vec<PathBuf>> = ask.wants.iter().map(|want| want.keys.spots.clone()).collect();
        let job = tokio::task::spawn_blocking(move || {
            let fresh = refreshed(&mut finder, &held);
            let wanted: Vec<Keys> = spots.iter().map(|spots| finder.keys_of_spots(spots)).collect();
            (fresh, wanted)
        });
        let (fresh, wanted) = finished(job).await?;
        self.rekey(fresh);
        for (want, keys) in ask.wants.iter_mut().zip(wanted) {
            want.keys = Arc::new(keys);
        }
        Ok(ask)
    }

    fn held_keys(&self) -> Vec<(LockId, LockKind, Arc<Keys>)> {
        self.table.held().map(|held| (held.id, held.kind, Arc::clone(&held.keys))).collect()
    }

    fn rekey(&mut self, fresh: Vec<(LockId, Arc<Keys>)>) {
        for (id, keys) in fresh {
            self.table.rekey(id, keys);
        }
    }
}

/// Waits for a look at the file system.
async fn finished<T>(job: tokio::task::JoinHandle<T>) -> Result<T, Refusal> {
    match tokio::time::timeout(LOOK_TIMEOUT, job).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::error!(%error, "looking at the files of locks failed");
            Err(Refusal::BadPath("The agent could not look at the file; its log says more.".to_owned()))
        }
        Err(_) => {
            let sentence = "The file system of a locked or wanted file does not answer. Check its mount.";
            Err(Refusal::BadPath(sentence.to_owned()))
        }
    }
}

fn refreshed(finder: &mut Finder, held: &[(LockId, LockKind, Arc<Keys>)]) -> Vec<(LockId, Arc<Keys>)> {
    held.iter()
        .filter(|(_, _, keys)| !finder.is_fresh(keys))
        .map(|(id, _, keys)| (*id, keys))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|(id, keys)| (id, Arc::new(finder.keys_of_spots(&keys.spots))))
        .collect()
}

/// Locked directories.
fn trees(held: &[(LockId, LockKind, Arc<Keys>)], fresh: &[(LockId, Arc<Keys>)]) -> Vec<Arc<Keys>> {
    let newest = |id: &LockId, keys: &Arc<Keys>| {
        fresh
            .iter()
            .find(|(other, _)| other == id)
            .map_or_else(|| Arc::clone(keys), |(_, keys)| Arc::clone(keys))
    };
    held.iter()
        .filter(|(_, kind, _)| *kind == LockKind::Directory)
        .map(|(id, _, keys)| newest(id, keys))
        .collect()
}

/// What a write wants. `Ok(None)`: nothing that could be locked, like `/dev/null`.
fn look_at(
    finder: &mut Finder,
    write: &WrittenPath,
    cwd: &Path,
    is_write: bool,
    trees: &[Arc<Keys>],
) -> Result<Option<Want>, KeyError> {
    let mut keys = match finder.keys(&write.path, cwd) {
        Ok(keys) => keys,
        Err(KeyError::NotAFile(_) | KeyError::OfProcess(_)) if is_write => return Ok(None),
        Err(error) => return Err(error),
    };
    if keys.is_linked {
        add_trees_of_links(&mut keys, trees);
    }
    let path = keys.path().to_owned();
    let project = keys::project_of(&path, cwd);
    // `git checkout .` must not shut everybody out for half an hour.
    let is_check = is_write && write.is_tree && project.starts_with(&path);
    let kind = if write.is_tree { LockKind::Directory } else { LockKind::File };
    let project = project.to_string_lossy().into_owned();
    Ok(Some(Want { keys: Arc::new(keys), kind, project, is_check }))
}

/// A hard-linked file may have a name in a locked directory as well.
fn add_trees_of_links(keys: &mut Keys, trees: &[Arc<Keys>]) {
    let own: Vec<super::words::Node> = keys
        .own
        .iter()
        .filter_map(|key| if let Key::Node(node) = key { Some(*node) } else { None })
        .collect();
    for tree in trees {
        // Too many files to look at: in doubt, it has.
        let has_name = || own.iter().any(|node| keys::has_name_below(tree.path(), *node).unwrap_or(true));
        if tree.own.is_disjoint(&keys.above) && has_name() {
            keys.above.extend(tree.own.iter().cloned());
        }
    }
}

/// A session locks directories of its own project only: everybody else would stand still.
fn allowed(wish: &Wish, wants: &mut [Want]) -> Result<(), Refusal> {
    if !matches!(wish.who, LockHolder::Session { .. }) || wish.kind != LockKind::Directory {
        return Ok(());
    }
    let project = keys::project_of(&wish.cwd.join("."), &wish.cwd);
    let project = std::fs::canonicalize(&project).unwrap_or(project);
    for want in wants {
        if !want.keys.path().starts_with(&project) {
            let sentence = format!(
                "{} lies outside of this session's project {}. A session locks directories of its project; ask the user \
                 for others.",
                want.keys.path().display(),
                project.display()
            );
            return Err(Refusal::Invalid(sentence));
        }
    }
    Ok(())
}

fn restored(row: SavedLock, keys: Arc<Keys>, is_same_boot: bool, now: Now) -> Held {
    // What was renewed after the last write is not known: the grain on top lets nothing end early. After a reboot
    // the old clock means nothing, and the lease begins anew.
    let deadline = if is_same_boot {
        Mono(row.deadline_ms).plus(super::core::grain(row.lease_ms))
    } else {
        now.mono.plus(row.lease_ms)
    };
    Held {
        id: row.id,
        keys,
        kind: row.kind,
        holder: row.holder,
        origin: row.origin,
        reason: row.reason,
        project: row.project,
        fence: row.fence,
        since: row.since,
        lease_ms: row.lease_ms,
        deadline,
        saved_deadline: Mono(row.deadline_ms),
        version: row.version,
    }
}

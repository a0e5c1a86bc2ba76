//! File locks: a lock that one session holds stops every other from changing that file, by any spelling of its path.
//!
//! [`Locks`] is the handle. The rules live in [`core`], the signs by which files are known in [`keys`], the task that owns
//! both in `actor`. A grant is on disk before anybody is told. This machine is the only authority.

mod actor;
pub mod core;
pub mod fold;
pub mod keys;
mod mounts;
mod ops;
pub mod second;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claudenest_shared::id::{LockId, SessionId};
use claudenest_shared::lock::{
    DEFAULT_LEASE_S, Lock, LockEnd, LockHolder, LockKind, LockOrigin, MAX_LEASE_S, MAX_REASON_CHARS,
    MIN_LEASE_S,
};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::actor::{Actor, Command};
pub use self::fold::{Fold, Folds};
pub use self::ops::Asker;
pub use self::words::{Conflict, Key, Keys, Mark, Mono, Node, Now, Refusal};
use crate::guard::risk::WrittenPath;
use crate::store::{Store, StoreError};

/// Commands that wait for the owner task; more callers wait at the channel.
const COMMANDS: usize = 64;
/// Events that a slow subscriber may be behind before it has to read the list anew.
const EVENTS: usize = 256;
/// Longest waiting for a lock: an MCP call or a person's command is not kept for longer.
pub const MAX_WAIT: Duration = Duration::from_secs(3600);

/// What has changed.
#[derive(Clone, PartialEq, Debug)]
pub enum LockEvent {
    /// A lock is new or different.
    Changed(Box<Lock>),
    /// A lock has ended.
    Ended {
        /// What it was.
        lock: Box<Lock>,
        /// Why.
        end: LockEnd,
    },
}

/// An explicit wish for a lock.
#[derive(Clone, PartialEq, Debug)]
pub struct Wish {
    /// Who.
    pub who: LockHolder,
    /// By what way.
    pub origin: LockOrigin,
    /// Absolute path.
    pub path: PathBuf,
    /// What it is to cover.
    pub kind: LockKind,
    /// Lease in seconds.
    pub lease_s: Option<u32>,
    /// Why.
    pub reason: Option<String>,
    /// Directory of the asker; what lies in no git work tree belongs to the project of this directory.
    pub cwd: PathBuf,
    /// How long to wait for it.
    pub wait: Duration,
}

/// Who wants to end a lock.
#[derive(Clone, PartialEq, Debug)]
pub enum Releaser {
    /// A session: its own only.
    Session(SessionId),
    /// A person: those of persons.
    Person,
    /// A person who takes it away from whoever has it.
    Force,
}

/// Reads both clocks.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// What the owner task needs besides the store.
#[derive(Clone)]
pub struct LockSettings {
    /// The clocks.
    pub clock: Clock,
    /// Names the run of the machine: leases are measured anew after a reboot.
    pub boot: String,
    /// How directories fold names.
    pub folds: Folds,
}

impl Default for LockSettings {
    fn default() -> Self {
        Self { clock: Arc::new(words::now), boot: words::boot(), folds: Folds::default() }
    }
}

/// What everybody may read without asking the owner task.
#[derive(Default)]
struct Shown {
    locks: Vec<(Lock, Mono)>,
}

struct Inner {
    commands: mpsc::Sender<Command>,
    shown: Arc<Mutex<Shown>>,
    events: broadcast::Sender<LockEvent>,
    active: Arc<Active>,
    clock: Clock,
}

/// Sessions that were active since the owner last looked, and when last.
#[derive(Default)]
struct Active {
    sessions: Mutex<BTreeMap<SessionId, Mono>>,
    notify: Notify,
}

/// Wakes the owner when somebody stops waiting.
struct Nudge(Arc<Active>);

impl Drop for Nudge {
    fn drop(&mut self) {
        self.0.notify.notify_one();
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Handle to all locks of the machine. Cheap to clone.
#[derive(Clone)]
pub struct Locks {
    inner: Arc<Inner>,
}

impl Locks {
    /// Takes up the locks on disk and starts the owner task. Locks of sessions for which `is_live` is false end.
    ///
    /// # Errors
    /// [`StoreError`] when the locks cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is changed but what has ended.
    pub async fn start(
        settings: LockSettings,
        store: Store,
        is_live: impl Fn(SessionId) -> bool,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self, StoreError> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (events, _) = broadcast::channel(EVENTS);
        let inner = Inner {
            commands,
            shown: Arc::default(),
            events: events.clone(),
            active: Arc::default(),
            clock: Arc::clone(&settings.clock),
        };
        let (shown, active) = (Arc::clone(&inner.shown), Arc::clone(&inner.active));
        let actor = Actor::start(settings, store, shown, active, events, is_live).await?;
        // Cut off wherever it is, as by a kill: what is not on disk then was not granted.
        tasks.spawn(cancel.run_until_cancelled_owned(actor.run(receiver)));
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Before a session writes: nobody else may have any of these, and the session gets a lock on each that it does not have
    /// yet. All or nothing. Trees that reach as far as the whole project are checked but not locked.
    ///
    /// # Errors
    /// [`Refusal`]: then it must not write.
    ///
    /// # Cancel safety
    /// If dropped, the locks may have been granted.
    pub async fn write(
        &self,
        session: SessionId,
        name: &str,
        cwd: &Path,
        paths: &[WrittenPath],
    ) -> Result<Vec<Lock>, Refusal> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let who = LockHolder::Session { session, name: name.to_owned() };
        let (paths, cwd) = (paths.to_vec(), cwd.to_owned());
        self.ask(|answer| Command::Write { who, cwd, paths, answer }).await
    }

    /// True if an act of `session` in `cwd` whose writes are not known could hit a lock of somebody else: the lock.
    pub fn may_conflict(&self, session: SessionId, cwd: &Path) -> Option<Conflict> {
        let project = keys::project_of(&cwd.join("."), cwd);
        let project = std::fs::canonicalize(&project).unwrap_or(project);
        let locks = self.list();
        let lock = locks.into_iter().find(|lock| {
            let is_own = matches!(&lock.holder, LockHolder::Session { session: s, .. } if *s == session);
            let path = Path::new(&lock.path);
            let is_near = path.starts_with(&project)
                || Path::new(&lock.project) == project
                || (lock.kind == LockKind::Directory && project.starts_with(path));
            !is_own && is_near
        })?;
        let path = PathBuf::from(&lock.path);
        Some(Conflict { lock, path })
    }

    /// Takes a lock that somebody asked for by name, or renews it; waits for it as long as the wish says.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Cancel safety
    /// If dropped while waiting, the place in the queue is given up.
    pub async fn acquire(&self, wish: Wish) -> Result<Lock, Refusal> {
        let lease_s = wish.lease_s.unwrap_or(DEFAULT_LEASE_S);
        if !(MIN_LEASE_S..=MAX_LEASE_S).contains(&lease_s) {
            let sentence = format!("A lease has {MIN_LEASE_S} to {MAX_LEASE_S} seconds, not {lease_s}.");
            return Err(Refusal::Invalid(sentence));
        }
        let reason = wish.reason.as_deref().map(one_line).filter(|reason| !reason.is_empty());
        if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON_CHARS) {
            let sentence = format!("A reason has at most {MAX_REASON_CHARS} characters. Shorten it.");
            return Err(Refusal::Invalid(sentence));
        }
        let wish = Wish { lease_s: Some(lease_s), reason, wait: wish.wait.min(MAX_WAIT), ..wish };
        // Dropped last: the owner then finds the waiter gone.
        let _nudge = Nudge(Arc::clone(&self.inner.active));
        let mut locks = self.ask(|answer| Command::Acquire { wish: Box::new(wish), answer }).await?;
        locks.pop().ok_or(Refusal::NotFound)
    }

    /// Ends a lock.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::NotYours`], [`Refusal::NotStored`].
    ///
    /// # Cancel safety
    /// If dropped, the lock may have ended.
    pub async fn release(&self, lock: LockId, by: Releaser) -> Result<Lock, Refusal> {
        let mut ended = self.ask(|answer| Command::Release { lock, by, answer }).await?;
        ended.pop().ok_or(Refusal::NotFound)
    }

    /// A session has ended: its locks end.
    ///
    /// # Cancel safety
    /// If dropped, the locks end nevertheless.
    pub async fn session_ended(&self, session: SessionId) {
        let _ = self.ask(|answer| Command::SessionEnded { session, answer }).await;
    }

    /// A session does something: its leases begin anew. Returns at once.
    pub fn activity(&self, session: SessionId) {
        let now = (self.inner.clock)().mono;
        guard(&self.inner.active.sessions).insert(session, now);
        self.inner.active.notify.notify_one();
    }

    /// Every lock, oldest first.
    pub fn list(&self) -> Vec<Lock> {
        let now = (self.inner.clock)();
        let shown = guard(&self.inner.shown);
        let told = |(lock, deadline): &(Lock, Mono)| {
            let left = i64::try_from(deadline.since(now.mono)).unwrap_or(i64::MAX);
            Lock { expires_at: now.wall.plus(left), ..lock.clone() }
        };
        shown.locks.iter().filter(|(_, deadline)| *deadline > now.mono).map(told).collect()
    }

    /// Changes from now on. After `Lagged`, read [`Locks::list`] again.
    pub fn subscribe(&self) -> broadcast::Receiver<LockEvent> {
        self.inner.events.subscribe()
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<Vec<Lock>, Refusal>>) -> Command,
    ) -> Result<Vec<Lock>, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.inner.commands.send(command(answer)).await.map_err(|_| Refusal::Stopping)?;
        answered.await.map_err(|_| Refusal::Stopping)?
    }
}

/// Reasons and names are shown on terminals.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).collect()
}

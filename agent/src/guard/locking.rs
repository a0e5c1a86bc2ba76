//! What ties locks to sessions, to the audit log and to those who are told of changes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{LockId, SessionId};
use claudenest_shared::lock::{Lock, LockEnd, LockHolder};
use claudenest_shared::session::SessionState;
use claudenest_shared::wire::agent::{Op, Reply};
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::audit::AuditEntry;
use super::lock::second::{Alert, Busy, Copies, PERIOD};
use super::lock::{Asker, LockEvent, LockSettings, Locks};
use super::{Guard, GuardEvent, Who};
use crate::store::{Store, StoreError};
use crate::supervisor::{self, SessionEvent, Supervisor};

/// Alerts that a slow subscriber may be behind; each is in the audit log as well.
const ALERTS: usize = 64;

/// Copies of locked files and who is told when one was changed behind its holder's back.
#[derive(Clone)]
pub(super) struct SecondLine {
    /// Which sessions use tools.
    pub(super) busy: Arc<Busy>,
    pub(super) alerts: broadcast::Sender<Alert>,
    copies: Arc<Mutex<Copies>>,
}

impl SecondLine {
    /// Starts to look at locked files.
    pub(super) fn start(locks: &Locks, store: Store, tasks: &TaskTracker, cancel: CancellationToken) -> Self {
        let copies = Copies::new(store.dir().join("locked"));
        copies.sweep(&locks.list());
        let (alerts, _) = broadcast::channel(ALERTS);
        let line = Self { busy: Arc::default(), alerts, copies: Arc::new(Mutex::new(copies)) };
        tasks.spawn(cancel.run_until_cancelled_owned(line.clone().watch(locks.clone(), store)));
        line
    }

    async fn watch(self, locks: Locks, store: Store) {
        let mut changes = locks.subscribe();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // A new lock is looked at at once: what it had then is its former content.
            tokio::select! {
                _ = ticks.tick() => {}
                event = changes.recv() => if matches!(event, Err(RecvError::Closed)) { return },
            }
            let (copies, busy, list) = (Arc::clone(&self.copies), Arc::clone(&self.busy), locks.list());
            let look = move || {
                let mut copies = copies.lock().unwrap_or_else(PoisonError::into_inner);
                copies.look(&list, &busy, supervisor::now().wall)
            };
            for alert in tokio::task::spawn_blocking(look).await.unwrap_or_default() {
                tracing::warn!(lock = %alert.lock.id, "a locked file was changed by no tool of its holder");
                let line = AuditEntry {
                    at: alert.at,
                    kind: "lock_broken",
                    session: None,
                    body: json!({
                        "lock": alert.lock.id, "path": alert.lock.path, "holder": alert.lock.holder,
                        "is_there": alert.is_there, "suspects": alert.suspects, "has_copy": alert.has_copy,
                    }),
                };
                if let Err(error) = store.append_audit(&line).await {
                    tracing::error!(%error, "a broken lock cannot be written to the audit log");
                }
                let _ = self.alerts.send(alert);
            }
        }
    }
}

/// Starts the locks of the machine and what goes on around them.
pub(super) async fn start(
    settings: LockSettings,
    store: Store,
    supervisor: &Supervisor,
    events: broadcast::Sender<GuardEvent>,
    tasks: &TaskTracker,
    cancel: CancellationToken,
) -> Result<Locks, StoreError> {
    // From before the list is read: no end is missed.
    let sessions = supervisor.subscribe();
    let is_live = |session| supervisor.info(session).is_some_and(|info| keeps_locks(info.state));
    let locks = Locks::start(settings, store.clone(), is_live, tasks, cancel.clone()).await?;
    let changes = locks.subscribe();
    tasks.spawn(cancel.clone().run_until_cancelled_owned(tell(changes, locks.clone(), store, events)));
    tasks.spawn(cancel.run_until_cancelled_owned(follow(sessions, supervisor.clone(), locks.clone())));
    Ok(locks)
}

/// A session that is about to be started again keeps its locks; one without a process loses them.
fn keeps_locks(state: SessionState) -> bool {
    state.is_live() || state == SessionState::Created
}

/// Ends the locks of sessions that have ended.
async fn follow(mut events: broadcast::Receiver<SessionEvent>, supervisor: Supervisor, locks: Locks) {
    loop {
        match events.recv().await {
            Ok(SessionEvent::Changed(info)) if !keeps_locks(info.state) => locks.session_ended(info.id).await,
            Ok(SessionEvent::Changed(_)) => {}
            Ok(SessionEvent::Removed(session)) => locks.session_ended(session).await,
            Err(RecvError::Lagged(_)) => {
                let is_gone =
                    |session: SessionId| supervisor.info(session).is_none_or(|info| !keeps_locks(info.state));
                for lock in locks.list() {
                    if let LockHolder::Session { session, .. } = lock.holder
                        && is_gone(session)
                    {
                        locks.session_ended(session).await;
                    }
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Tells subscribers of the guard, and writes down grants and ends.
async fn tell(
    mut changes: broadcast::Receiver<LockEvent>,
    locks: Locks,
    store: Store,
    events: broadcast::Sender<GuardEvent>,
) {
    let mut last_fence = locks.list().iter().map(|lock| lock.fence).max().unwrap_or(0);
    loop {
        match changes.recv().await {
            Ok(LockEvent::Changed(lock)) => {
                if lock.fence > last_fence {
                    last_fence = lock.fence;
                    write_down(&store, "lock_granted", &lock, None).await;
                }
                let _ = events.send(GuardEvent::Lock(lock));
            }
            Ok(LockEvent::Ended { lock, end }) => {
                write_down(&store, "lock_ended", &lock, Some(end)).await;
                let _ = events.send(GuardEvent::LockEnded { lock: lock.id, end });
            }
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "changes of locks came faster than they could be written down");
                for lock in locks.list() {
                    let _ = events.send(GuardEvent::Lock(Box::new(lock)));
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn write_down(store: &Store, kind: &'static str, lock: &Lock, end: Option<LockEnd>) {
    let session = match &lock.holder {
        LockHolder::Session { session, .. } => Some(*session),
        LockHolder::Person { .. } => None,
    };
    let line = AuditEntry {
        at: supervisor::now().wall,
        kind,
        session,
        body: json!({
            "lock": lock.id, "path": lock.path, "kind": lock.kind, "holder": lock.holder, "origin": lock.origin,
            "reason": lock.reason, "fence": lock.fence, "end": end,
        }),
    };
    if let Err(error) = store.append_audit(&line).await {
        tracing::error!(%error, "a change of locks cannot be written to the audit log");
    }
}

impl Guard {
    /// Locked files that are changed behind their holder's back, from now on.
    pub fn alerts(&self) -> broadcast::Receiver<Alert> {
        self.inner.second_line.alerts.subscribe()
    }

    /// Puts the former content of a locked file back. Answers its path, and where the content went that was there.
    ///
    /// # Errors
    /// `not_found` when the lock has ended or there is no copy, `internal` when it cannot be written.
    ///
    /// # Cancel safety
    /// If dropped, it is done nevertheless.
    pub async fn restore(&self, lock: LockId, by: &str) -> Result<(String, Option<PathBuf>), WireError> {
        let lock = self.locks().list().into_iter().find(|held| held.id == lock).ok_or_else(|| {
            WireError::new(ErrorCode::NotFound, "There is no such lock; its copy went with it.")
        })?;
        let line = AuditEntry {
            at: supervisor::now().wall,
            kind: "lock_restored",
            session: None,
            body: json!({"lock": lock.id, "path": lock.path, "by": by}),
        };
        self.inner.store.append_audit(&line).await.map_err(|error| {
            tracing::error!(%error, "nothing was put back because the audit log cannot be written");
            WireError::new(ErrorCode::Internal, "Nothing was put back: the audit log cannot be written.")
        })?;
        let (copies, path) = (Arc::clone(&self.inner.second_line.copies), lock.path.clone());
        let work = move || copies.lock().unwrap_or_else(PoisonError::into_inner).restore(&lock);
        let restored = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.into()));
        match restored {
            Ok(aside) => Ok((path, aside)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(WireError::new(
                ErrorCode::NotFound,
                format!("There is no copy of {path}: it did not exist when it was locked, or was too large."),
            )),
            Err(error) => Err(WireError::new(
                ErrorCode::Internal,
                format!("{path} could not be put back ({error}); it is as it was."),
            )),
        }
    }

    /// Operations on locks. Who has taken a lock away is in the audit log before it happens.
    pub(super) async fn lock_op(&self, op: Op, who: &Who) -> Result<Reply, WireError> {
        let asker = match who {
            Who::Session(session) => {
                let info = self.supervisor().info(*session).ok_or_else(|| {
                    WireError::new(ErrorCode::NotFound, "This session is not known any more.")
                })?;
                Asker::Session { session: *session, name: info.name, cwd: info.cwd.into() }
            }
            Who::Local { .. } | Who::Relay => {
                let by = match &op {
                    Op::LockAcquire { by, .. } | Op::LockRelease { by, .. } => by.clone(),
                    _ => None,
                };
                let label = who.decider(by).map_or_else(String::new, |decider| decider.label);
                Asker::Person { label }
            }
        };
        if let (Op::LockRelease { lock, force: true, reason, .. }, Asker::Person { label }) = (&op, &asker) {
            let line = AuditEntry {
                at: supervisor::now().wall,
                kind: "lock_forced",
                session: None,
                body: json!({"lock": lock, "by": label, "reason": reason}),
            };
            self.inner.store.append_audit(&line).await.map_err(|error| {
                tracing::error!(%error, "a lock was not taken away because the audit log cannot be written");
                WireError::new(
                    ErrorCode::Internal,
                    "The lock was not taken away: the audit log cannot be written. Is the disk full?",
                )
            })?;
        }
        let result = self.locks().op(&op, &asker).await;
        result.unwrap_or_else(|| Err(WireError::new(ErrorCode::BadRequest, "This is not about locks.")))
    }
}

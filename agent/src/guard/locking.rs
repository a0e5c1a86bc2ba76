//! What ties locks to sessions, to the audit log and to those who are told of changes.

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;
use claudenest_shared::lock::{Lock, LockEnd, LockHolder};
use claudenest_shared::session::SessionState;
use claudenest_shared::wire::agent::{Op, Reply};
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::audit::AuditEntry;
use super::lock::{Asker, LockEvent, LockSettings, Locks};
use super::{Guard, GuardEvent, Who};
use crate::store::{Store, StoreError};
use crate::supervisor::{self, SessionEvent, Supervisor};

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

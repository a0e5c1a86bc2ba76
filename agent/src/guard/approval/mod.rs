//! Approvals: questions of Claude Code that wait for somebody's word.
//!
//! [`Approvals`] is the handle; the rules live in [`core`], the task that owns them in [`actor`]. Everything is on disk
//! before anybody is told of it.

mod actor;
pub mod core;
mod record;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use claudenest_shared::approval::{Answer, Approval, ApprovalState, Decider};
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{ApprovalId, SessionId};
use claudenest_shared::session::SessionInfo;
use claudenest_shared::time::UnixMs;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::actor::now;
pub use self::core::{Observation, Refusal};
pub use self::record::{ApprovalRecord, Question};
use super::GuardEvent;
use crate::store::{Store, StoreError};

/// Commands that wait for the owner; more callers wait at the channel.
const COMMANDS: usize = 64;

/// What the owner of the approvals asks about sessions.
pub type Sessions = Arc<dyn Fn(SessionId) -> Option<SessionInfo> + Send + Sync>;

enum Command {
    Ask {
        question: Box<Question>,
        stored: oneshot::Sender<Result<ApprovalId, WireError>>,
        outcome: oneshot::Sender<Approval>,
    },
    Decide {
        id: ApprovalId,
        input_sha256: String,
        answer: Answer,
        by: Decider,
        reply: oneshot::Sender<Result<Approval, WireError>>,
    },
    Seen {
        session: SessionId,
        what: Observation,
        done: oneshot::Sender<()>,
    },
    Open {
        reply: oneshot::Sender<Vec<ApprovalRecord>>,
    },
}

/// Handle to the approvals. Cheap to clone.
#[derive(Clone)]
pub struct Approvals {
    commands: mpsc::Sender<Command>,
    store: Store,
}

/// A question that is on disk. Wait for its outcome; drop it to say that nobody waits any more.
pub struct Asked {
    /// Its approval.
    pub id: ApprovalId,
    outcome: oneshot::Receiver<Approval>,
}

impl Asked {
    /// Waits until the approval is decided, expired or withdrawn. `None` when the daemon ends before, or the same
    /// question was asked again on another connection.
    ///
    /// # Cancel safety
    /// Cancel safe; the approval stays and waits for its hook to come back.
    pub async fn outcome(self) -> Option<Approval> {
        self.outcome.await.ok()
    }
}

impl Approvals {
    /// Reads what is open and starts the owner task.
    ///
    /// # Errors
    /// [`StoreError`] when the open approvals cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn start(
        store: Store,
        sessions: Sessions,
        events: broadcast::Sender<GuardEvent>,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self, StoreError> {
        let open = store.open_approvals().await?;
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let actor = actor::Actor::new(store.clone(), sessions, events, open);
        tasks.spawn(actor.run(receiver, cancel));
        Ok(Self { commands, store })
    }

    /// Asks. The approval is on disk, and everybody told, when this returns; asking again with the same `call` finds it.
    ///
    /// # Errors
    /// `internal` when it cannot be stored; `unavailable` when the daemon ends.
    ///
    /// # Cancel safety
    /// If dropped, the approval may have been made; it is withdrawn unless it is asked again.
    pub async fn ask(&self, question: Question) -> Result<Asked, WireError> {
        let (stored, answer) = oneshot::channel();
        let (sender, outcome) = oneshot::channel();
        self.send(Command::Ask { question: Box::new(question), stored, outcome: sender }).await?;
        let id = answer.await.map_err(|_| stopping())??;
        Ok(Asked { id, outcome })
    }

    /// Answers. The first answer counts.
    ///
    /// # Errors
    /// `not_found`, `conflict` (somebody was first, or the input is another), `invalid`, `internal` (not stored).
    ///
    /// # Cancel safety
    /// If dropped, the answer may be taken.
    pub async fn decide(
        &self,
        id: ApprovalId,
        input_sha256: String,
        answer: Answer,
        by: Decider,
    ) -> Result<Approval, WireError> {
        let (reply, replied) = oneshot::channel();
        self.send(Command::Decide { id, input_sha256, answer, by, reply }).await?;
        replied.await.map_err(|_| stopping())?
    }

    /// Tells what was seen of a session. Returns when what follows from it is stored.
    ///
    /// # Cancel safety
    /// If dropped, it is still taken in.
    pub async fn seen(&self, session: SessionId, what: Observation) {
        let (done, answered) = oneshot::channel();
        if self.send(Command::Seen { session, what, done }).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// Every open approval with what the machine knows about it, oldest first.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open(&self) -> Vec<ApprovalRecord> {
        let (reply, replied) = oneshot::channel();
        match self.send(Command::Open { reply }).await {
            Ok(()) => replied.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Approvals in these states (none: all) that have changed since a time, newest first.
    ///
    /// # Errors
    /// `internal` when the database cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn list(
        &self,
        states: &[ApprovalState],
        since: UnixMs,
        limit: u32,
    ) -> Result<Vec<Approval>, WireError> {
        let records = self.store.approvals(states, since, limit).await.map_err(|error| unreadable(&error))?;
        Ok(records.into_iter().map(|record| record.approval).collect())
    }

    /// One approval.
    ///
    /// # Errors
    /// `not_found`, `internal`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn get(&self, id: ApprovalId) -> Result<Approval, WireError> {
        let record = self.store.approval(id).await.map_err(|error| unreadable(&error))?;
        record.map(|record| record.approval).ok_or_else(unknown)
    }

    async fn send(&self, command: Command) -> Result<(), WireError> {
        self.commands.send(command).await.map_err(|_| stopping())
    }
}

fn unreadable(error: &StoreError) -> WireError {
    tracing::error!(%error, "the approvals cannot be read");
    WireError::new(ErrorCode::Internal, "The approvals cannot be read; the agent's log says why.")
}

fn unknown() -> WireError {
    WireError::new(ErrorCode::NotFound, "There is no such approval on this machine.")
}

fn stopping() -> WireError {
    WireError::new(ErrorCode::Unavailable, "The agent is stopping. Try again when it runs.")
}

//! The task that owns the open approvals: stores, then puts in place, then tells.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use claudenest_shared::approval::{Approval, ApprovalState, Verdict};
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{ApprovalId, SessionId};
use claudenest_shared::session::SessionState;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::core::{Core, Now, Observation, Refusal};
use super::record::{ApprovalRecord, Change, Question};
use super::{Command, Sessions, unknown};
use crate::guard::GuardEvent;
use crate::store::Store;

/// How often hooks that are gone and times that are over are looked for while something waits.
const TICK: Duration = Duration::from_millis(500);

pub(super) struct Actor {
    core: Core,
    store: Store,
    sessions: Sessions,
    events: broadcast::Sender<GuardEvent>,
    /// The hooks that wait. One for each open approval: a hook that comes back takes the place of its lost self.
    waiting: HashMap<ApprovalId, oneshot::Sender<Approval>>,
    /// Changes that could not be stored; tried again at each tick. At most a few for each open approval.
    unsaved: Vec<(ApprovalId, Change)>,
}

/// Both clocks.
pub fn now() -> Now {
    let now = crate::supervisor::now();
    Now { instant: now.instant, wall: now.wall }
}

impl Actor {
    pub(super) fn new(
        store: Store,
        sessions: Sessions,
        events: broadcast::Sender<GuardEvent>,
        open: Vec<ApprovalRecord>,
    ) -> Self {
        let core = Core::new(now(), open);
        Self { core, store, sessions, events, waiting: HashMap::new(), unsaved: Vec::new() }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, cancel: CancellationToken) {
        let mut next_tick = Instant::now();
        loop {
            let is_ticking = !self.core.is_empty() || !self.unsaved.is_empty();
            tokio::select! {
                () = cancel.cancelled() => return,
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command).await,
                    None => return,
                },
                () = tokio::time::sleep_until(next_tick.into()), if is_ticking => {
                    next_tick = Instant::now() + TICK;
                    self.on_tick().await;
                }
            }
        }
    }

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::Ask { question, stored, outcome } => {
                let result = self.ask(*question).await;
                let known = result.as_ref().ok().cloned();
                let _ = stored.send(result.map(|approval| approval.id));
                match known {
                    Some(approval) if approval.state == ApprovalState::Pending => {
                        self.waiting.insert(approval.id, outcome);
                        self.core.heard(now(), approval.id, true);
                    }
                    // It was answered while its hook was away.
                    Some(approval) => drop(outcome.send(approval)),
                    None => {}
                }
            }
            Command::Decide { id, input_sha256, answer, by, reply } => {
                let result = match self.core.decided(now(), id, &input_sha256, answer, by) {
                    Ok(record) => self.take(record).await,
                    Err(refusal) => Err(self.refused(id, refusal).await),
                };
                let _ = reply.send(result);
            }
            Command::Seen { session, what, done } => {
                self.seen(session, &what).await;
                let _ = done.send(());
            }
            Command::Open { reply } => {
                let _ = reply.send(self.core.open().cloned().collect());
            }
        }
    }

    async fn ask(&mut self, question: Question) -> Result<Approval, WireError> {
        if let Some(record) = self.core.of_call(question.session, &question.call) {
            return Ok(record.approval.clone());
        }
        let input = question.input.clone();
        let record = self.core.asked(now(), ApprovalId(Uuid::now_v7()), question);
        let line = record.line(Some(&input));
        self.store.save_approval(&record, &[line]).await.map_err(|error| {
            tracing::error!(%error, "an approval cannot be stored");
            not_stored("The question")
        })?;
        Ok(self.settle(record))
    }

    /// Stores the answer that counts, and tells.
    async fn take(&mut self, record: ApprovalRecord) -> Result<Approval, WireError> {
        if self.core.get(record.approval.id) == Some(&record) {
            return Ok(record.approval); // The same answer once more.
        }
        let line = record.line(None);
        self.store.save_approval(&record, &[line]).await.map_err(|error| {
            tracing::error!(%error, "an answer cannot be stored");
            not_stored("The answer")
        })?;
        Ok(self.settle(record))
    }

    /// Puts a stored record in place, and tells everybody.
    fn settle(&mut self, record: ApprovalRecord) -> Approval {
        let approval = record.approval.clone();
        if approval.state != ApprovalState::Pending
            && let Some(waiting) = self.waiting.remove(&approval.id)
        {
            let _ = waiting.send(approval.clone());
        }
        self.core.put(now(), record);
        let _ = self.events.send(GuardEvent::Approval(Box::new(approval.clone())));
        approval
    }

    async fn seen(&mut self, session: SessionId, what: &Observation) {
        let changes = self.core.seen(now(), session, what);
        let is_run = matches!(what, Observation::Ran { .. });
        for (id, change) in changes {
            let is_denied = self.core.get(id).is_some_and(|record| {
                let decision = record.approval.decision.as_ref();
                decision.is_some_and(|decision| decision.answer.verdict == Verdict::Deny)
            });
            if is_run && is_denied {
                tracing::error!(approval.id = %id, session.id = %session, "a tool ran although it was denied");
            }
            self.change(id, change).await;
        }
    }

    async fn on_tick(&mut self) {
        for (id, change) in std::mem::take(&mut self.unsaved) {
            self.change(id, change).await;
        }
        let now = now();
        let gone: Vec<ApprovalId> =
            self.waiting.iter().filter(|(_, hook)| hook.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.waiting.remove(&id);
            self.core.heard(now, id, false);
        }
        // A run of a session that is over asks nothing any more, even where its hook programs live on.
        let ended: Vec<(ApprovalId, Change)> = self
            .core
            .open()
            .filter(|record| {
                !(self.sessions)(record.approval.session)
                    .is_some_and(|info| info.epoch == record.epoch && info.state.is_live())
            })
            .map(|record| (record.approval.id, Change::Withdraw("The session has ended.".to_owned())))
            .collect();
        let sessions = self.sessions.clone();
        let is_paused = |session| sessions(session).is_some_and(|info| info.state == SessionState::Paused);
        let due = self.core.due(now, is_paused);
        for (id, change) in ended.into_iter().chain(due) {
            self.change(id, change).await;
        }
    }

    async fn change(&mut self, id: ApprovalId, change: Change) {
        let Some(record) = self.core.get(id).and_then(|record| record.after(&change, now().wall)) else {
            return;
        };
        let line = record.line(None);
        match self.store.save_approval(&record, &[line]).await {
            Ok(()) => drop(self.settle(record)),
            Err(error) => {
                tracing::error!(approval.id = %id, %error, "what became of an approval cannot be stored; it is tried again");
                if !self.unsaved.contains(&(id, change.clone())) {
                    self.unsaved.push((id, change));
                }
            }
        }
    }

    async fn refused(&self, id: ApprovalId, refusal: Refusal) -> WireError {
        match refusal {
            Refusal::Settled(approval) => settled(&approval),
            Refusal::OtherInput => WireError::new(
                ErrorCode::Conflict,
                "This approval is about another input than the one you looked at. Look at it again.",
            ),
            Refusal::Unusable(sentence) => WireError::new(ErrorCode::Invalid, sentence),
            Refusal::Unknown => match self.store.approval(id).await {
                Ok(Some(record)) => settled(&record.approval),
                Ok(None) => unknown(),
                Err(error) => super::unreadable(&error),
            },
        }
    }
}

fn not_stored(what: &str) -> WireError {
    WireError::new(
        ErrorCode::Internal,
        format!("{what} cannot be stored. Is the disk full? The agent's log says more."),
    )
}

/// What happened before, for somebody who comes second.
fn settled(approval: &Approval) -> WireError {
    let sentence = match (&approval.decision, approval.state) {
        (Some(decision), _) => {
            let verb = if decision.answer.verdict == Verdict::Allow { "allowed" } else { "denied" };
            format!("It was already {verb} by {}. The first answer counts.", decision.by.label)
        }
        (None, ApprovalState::Expired) => {
            "It has expired: there was no answer in time. Nobody has denied it.".to_owned()
        }
        (None, _) => {
            let why = approval.state_text.as_deref().unwrap_or("Claude Code no longer waits for it.");
            format!("It was withdrawn. {why}")
        }
    };
    WireError::new(ErrorCode::Conflict, sentence)
}

//! The guard's operations, before all others go to the supervisor.

use claudenest_shared::approval::{Approval, ApprovalState};
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::{Op, Reply};

use super::{Guard, Who};

/// A list for a relay must fit into one message of 256 KiB with its envelope.
const MAX_RELAY_LIST_BYTES: usize = 220 * 1024;
/// The same on the control socket, whose messages have up to 16 MiB.
const MAX_LOCAL_LIST_BYTES: usize = 12 * 1024 * 1024;
/// Most approvals of one list.
const MAX_LIST: u32 = 1000;
/// Relays are told of approvals that became final within this time.
const TOLD_MS: i64 = 24 * 3600 * 1000;

impl Guard {
    /// Does what `op` says, and answers: the guard's own operations here, all others in the supervisor.
    ///
    /// # Cancel safety
    /// If dropped, the operation may be carried out without an answer.
    pub async fn execute(&self, op: Op, who: &Who) -> Reply {
        self.try_execute(op, who).await.unwrap_or_else(|error| Reply::Error { error })
    }

    async fn try_execute(&self, op: Op, who: &Who) -> Result<Reply, WireError> {
        let is_guarded =
            matches!(op, Op::ApprovalList { .. } | Op::ApprovalGet { .. } | Op::ApprovalDecide { .. });
        if is_guarded && matches!(who, Who::Session(_)) {
            return Err(WireError::new(
                ErrorCode::Forbidden,
                "A supervised session cannot see or answer approvals. Answer it outside of the session, or in its dialog.",
            ));
        }
        match op {
            Op::ApprovalList { states, limit } => {
                let room = if *who == Who::Relay { MAX_RELAY_LIST_BYTES } else { MAX_LOCAL_LIST_BYTES };
                self.list(&states, limit, room).await
            }
            Op::ApprovalGet { approval } => {
                let approval = Box::new(self.approvals().get(approval).await?);
                Ok(Reply::Approval { approval })
            }
            Op::ApprovalDecide { approval, input_sha256, answer, by } => {
                let by = who.decider(by).ok_or_else(|| {
                    WireError::new(ErrorCode::Forbidden, "A supervised session cannot answer approvals.")
                })?;
                // What cannot be a rule is refused before it is allowed.
                let rule = match answer.remember {
                    Some(remember) => {
                        Some(self.rule_of(&self.approvals().get(approval).await?, remember).await?)
                    }
                    None => None,
                };
                let label = by.label.clone();
                let decided = self.approvals().decide(approval, input_sha256, answer, by).await?;
                if let Some(rule) = rule {
                    self.keep_rule(rule, &label).await?;
                }
                Ok(Reply::Approval { approval: Box::new(decided) })
            }
            Op::LockList {} | Op::LockAcquire { .. } | Op::LockRelease { .. } => self.lock_op(op, who).await,
            Op::PolicyList {} | Op::PolicyAdd { .. } | Op::PolicyRemove { .. } => {
                self.policy_op(op, who).await
            }
            other => Ok(self.supervisor().execute(other, &who.caller()).await),
        }
    }

    async fn list(&self, states: &[ApprovalState], limit: u32, room: usize) -> Result<Reply, WireError> {
        let limit = limit.clamp(1, MAX_LIST);
        let mut approvals = self.approvals().list(states, UnixMs(i64::MIN), limit + 1).await?;
        let mut is_cut = approvals.len() > limit as usize;
        approvals.truncate(limit as usize);
        let mut left = room;
        let fitting = approvals.iter().take_while(|approval| {
            let size = serde_json::to_string(approval).map_or(usize::MAX, |text| text.len() + 1);
            let is_fitting = size <= left;
            left = left.saturating_sub(size);
            is_fitting
        });
        let count = fitting.count();
        is_cut |= count < approvals.len();
        approvals.truncate(count);
        Ok(Reply::Approvals { approvals, is_cut })
    }

    /// What a relay is told after its welcome: every approval that is open, and those that became final within the last
    /// day, oldest first.
    ///
    /// # Errors
    /// `internal` when the database cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn told(&self) -> Result<Vec<Approval>, WireError> {
        let since = UnixMs(crate::supervisor::now().wall.0 - TOLD_MS);
        let mut approvals = self.approvals().list(&[], since, MAX_LIST).await?;
        let mut open = self.approvals().open().await;
        open.retain(|record| approvals.iter().all(|approval| approval.id != record.approval.id));
        approvals.extend(open.into_iter().map(|record| record.approval));
        approvals.sort_by_key(|approval| (approval.created_at, approval.id));
        Ok(approvals)
    }
}

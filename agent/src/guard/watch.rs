//! Looks after open approvals: what became of them where no hook says it, from Claude Code's record of the conversation and
//! from the state of the session.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use claudenest_shared::approval::ApprovalState;
use claudenest_shared::id::SessionId;
use claudenest_shared::session::{SessionState, StateSource};
use tokio_util::sync::CancellationToken;

use super::Guard;
use super::approval::{ApprovalRecord, Observation};
use crate::claude::transcript;
use crate::supervisor;

/// How often to look while something is open. A person in front of a browser sees an answer of the terminal within this.
const TICK: Duration = Duration::from_millis(400);
/// A session that works although its dialog is open has been answered in the terminal. Claude Code's note about itself lags behind
/// its hooks by up to two of the supervisor's looks at it (2 s each); this is longer than both.
const SETTLED_MS: i64 = 6_000;

/// Size and time of a file when it was last read.
type Stamp = (u64, Option<SystemTime>);

/// Runs until `cancel`.
pub(super) async fn run(guard: Guard, cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = HashMap::new();
    while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
        let open = guard.approvals().open().await;
        if open.is_empty() {
            seen.clear();
            continue;
        }
        guard.look_at_records(&open, Some(&mut seen)).await;
        guard.look_at_sessions(&open).await;
    }
}

impl Guard {
    /// Looks at the records of one session at once: something has just happened there.
    pub(super) async fn look_at(&self, session: SessionId) {
        let mut open = self.approvals().open().await;
        open.retain(|record| record.approval.session == session);
        if !open.is_empty() {
            self.look_at_records(&open, None).await;
        }
    }

    async fn look_at_records(
        &self,
        open: &[ApprovalRecord],
        mut seen: Option<&mut HashMap<PathBuf, (Stamp, usize)>>,
    ) {
        let mut files: HashMap<(SessionId, PathBuf), Vec<String>> = HashMap::new();
        for record in open {
            if let (Some(path), Some(call)) = (&record.transcript, &record.tool_use) {
                files.entry((record.approval.session, path.into())).or_default().push(call.clone());
            }
        }
        for ((session, path), calls) in files {
            let count = calls.len();
            let file = path.clone();
            let known = seen.as_ref().and_then(|seen| seen.get(&path).copied());
            let look = move || {
                let stamp: Stamp =
                    std::fs::metadata(&file).map_or((0, None), |meta| (meta.len(), meta.modified().ok()));
                if known == Some((stamp, count)) {
                    return (stamp, Vec::new());
                }
                (stamp, transcript::fates(&file, &calls))
            };
            let Ok((stamp, fates)) = tokio::task::spawn_blocking(look).await else { continue };
            if let Some(seen) = seen.as_deref_mut() {
                seen.insert(path, (stamp, count));
            }
            for (tool_use, fate) in fates {
                self.approvals().seen(session, Observation::Result { tool_use, fate }).await;
            }
        }
    }

    async fn look_at_sessions(&self, open: &[ApprovalRecord]) {
        let now = supervisor::now().wall;
        for record in open.iter().filter(|record| record.has_dialog) {
            let approval = &record.approval;
            let is_pending = approval.state == ApprovalState::Pending;
            let Some(info) = self.supervisor().info(approval.session) else { continue };
            let works_on = info.state == SessionState::Running
                && info.state_source == StateSource::Inferred
                && info.state_since > approval.created_at
                && now.0 - info.state_since.0 >= SETTLED_MS;
            if is_pending && works_on {
                let what = Observation::DialogGone { approval: approval.id };
                self.approvals().seen(approval.session, what).await;
            }
        }
    }
}

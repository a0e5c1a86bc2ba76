//! What rules, locks and risk say about a tool call before it runs. No opinion means: Claude Code's own rules, its dialogs and
//! the user's settings decide.

use std::path::{Path, PathBuf};

use claudenest_shared::code::ErrorCode;
use claudenest_shared::risk::{Risk, RiskNote};
use claudenest_shared::session::SessionInfo;

use super::Guard;
use super::policy;
use super::risk::{self, Assessment, Scope};
use crate::claude::answer::ToolCall;
use crate::supervisor;

/// What happens to the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Effect {
    /// It must not run.
    Deny,
    /// A person has to say so.
    Ask,
    /// A rule allows it: no dialog is shown for it.
    Allow,
}

/// What is thought of a call.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Judgement {
    /// What happens to it; `None` leaves it to Claude Code.
    pub(super) effect: Option<Effect>,
    /// Why, for people.
    pub(super) why: String,
    /// The same for Claude, where that needs other words.
    pub(super) for_claude: Option<String>,
    /// Risk.
    pub(super) risk: Risk,
    /// Reasons of the risk.
    pub(super) notes: Vec<RiskNote>,
}

impl Guard {
    /// Judges a call, and takes the locks for what it would write.
    pub(super) async fn judge(&self, info: &SessionInfo, call: &ToolCall) -> Judgement {
        let assessment = assess(info, call, self.inner.home.clone()).await;
        let mut judgement = Judgement {
            effect: None,
            why: "Claude Code asks for it.".to_owned(),
            for_claude: None,
            risk: assessment.risk,
            notes: assessment.notes.clone(),
        };
        let cwd = working_directory(info, call);
        let ruling = {
            let project = policy::project_of(&cwd);
            let scope = Scope { cwd: &cwd, project, home: self.inner.home.as_deref() };
            let (tool, input, session) = (&call.tool, &call.input, info.id);
            let act = policy::Act { tool, input, assessment: &assessment, session, scope };
            self.policy().decide(&act, supervisor::now().wall)
        };
        if ruling.effect == Some(policy::Effect::Deny) {
            judgement.effect = Some(Effect::Deny);
            judgement.why = ruling.why.clone();
            judgement.for_claude = Some(ruling.why);
            return judgement;
        }
        if let Err(refusal) = self.locks().write(info.id, &info.name, &cwd, &assessment.writes).await {
            judgement.effect = Some(Effect::Deny);
            judgement.why = match refusal.to_wire().code {
                ErrorCode::Conflict => "It would write what another one has locked.".to_owned(),
                _ => "What it would write could not be locked.".to_owned(),
            };
            judgement.for_claude = Some(refusal.for_claude());
            return judgement;
        }
        let (locks, session) = (self.locks().clone(), info.id);
        let near = assessment
            .has_unknown_writes
            .then(|| tokio::task::spawn_blocking(move || locks.may_conflict(session, &cwd)));
        let conflict = match near {
            Some(looking) => looking.await.unwrap_or(None),
            None => None,
        };
        if let Some(conflict) = conflict {
            judgement.effect = Some(Effect::Ask);
            judgement.why = format!(
                "What it writes cannot be known before, and {} is locked by another one.",
                conflict.path.display()
            );
        } else if ruling.effect == Some(policy::Effect::Ask) && !ruling.rules.is_empty() {
            judgement.effect = Some(Effect::Ask);
            judgement.why = ruling.why;
        } else if ruling.effect == Some(policy::Effect::Allow) {
            judgement.effect = Some(Effect::Allow);
            judgement.why = ruling.why;
        } else if assessment.risk == Risk::High {
            judgement.effect = Some(Effect::Ask);
            judgement.why = match assessment.notes.first() {
                Some(note) => format!("High risk: {}.", note.text),
                None => "High risk.".to_owned(),
            };
        }
        judgement
    }
}

/// Where the call runs: where Claude Code says, else where the session was started.
fn working_directory(info: &SessionInfo, call: &ToolCall) -> PathBuf {
    let said = Path::new(&call.cwd);
    if said.is_absolute() { said.to_owned() } else { PathBuf::from(&info.cwd) }
}

/// The assessment looks at no file, but a long command takes its time.
async fn assess(info: &SessionInfo, call: &ToolCall, home: Option<PathBuf>) -> Assessment {
    let (cwd, start) = (working_directory(info, call), PathBuf::from(&info.cwd));
    let (tool, input) = (call.tool.clone(), call.input.clone());
    let look = move || {
        let has_git = |dir: &&Path| std::fs::symlink_metadata(dir.join(".git")).is_ok();
        let project = cwd.ancestors().find(has_git).unwrap_or(&start);
        risk::assess(&tool, &input, &Scope { cwd: &cwd, project, home: home.as_deref() })
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(assessment) => assessment,
        Err(error) => {
            tracing::error!(%error, "a tool call could not be assessed");
            Assessment {
                risk: Risk::High,
                notes: Vec::new(),
                writes: Vec::new(),
                has_unknown_writes: true,
                parts: Vec::new(),
                is_understood: false,
            }
        }
    }
}

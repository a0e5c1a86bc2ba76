//! An approval with what only the machine knows about it, and the one rule of what may follow what.

use claudenest_shared::approval::{
    Answer, Approval, ApprovalKind, ApprovalState, Decider, DeciderKind, Decision, MAX_INPUT_BYTES, Verdict,
};
use claudenest_shared::id::{ApprovalId, SessionId};
use claudenest_shared::risk::{Risk, RiskNote};
use claudenest_shared::time::UnixMs;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::guard::audit::{self, AuditEntry};

/// An approval must fit into one message of the link (256 KiB) together with its envelope; what is above loses its diff
/// and then its input, which the terminal still shows.
const MAX_TOLD_BYTES: usize = 200 * 1024;

/// An approval as it is stored.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ApprovalRecord {
    /// What everybody sees.
    pub approval: Approval,
    /// The run of the hook program that waits: the same question asked again after a lost connection.
    pub call: String,
    /// The run of the session that asks.
    pub epoch: u32,
    /// Claude Code's own name of the tool call, once it is known.
    #[serde(default)]
    pub tool_use: Option<String>,
    /// True if Claude Code shows its dialog, where it can be answered as well.
    #[serde(default)]
    pub has_dialog: bool,
    /// The conversation on disk, where the result of the call will stand.
    #[serde(default)]
    pub transcript: Option<String>,
}

/// Something to be asked.
#[derive(Clone, PartialEq, Debug)]
pub struct Question {
    /// The session that asks.
    pub session: SessionId,
    /// Its name.
    pub session_name: String,
    /// Its run.
    pub epoch: u32,
    /// What kind of question.
    pub kind: ApprovalKind,
    /// Claude Code's tool.
    pub tool: String,
    /// One line for people.
    pub summary: String,
    /// The tool's exact input.
    pub input: Value,
    /// What would change.
    pub diff: Option<String>,
    /// Working directory.
    pub cwd: String,
    /// Subagent.
    pub agent: Option<String>,
    /// Risk.
    pub risk: Risk,
    /// Reasons of the risk.
    pub notes: Vec<RiskNote>,
    /// Why it is asked.
    pub why: String,
    /// When a rule lets it expire.
    pub expires_at: Option<UnixMs>,
    /// See [`ApprovalRecord::call`].
    pub call: String,
    /// See [`ApprovalRecord::tool_use`].
    pub tool_use: Option<String>,
    /// See [`ApprovalRecord::has_dialog`].
    pub has_dialog: bool,
    /// See [`ApprovalRecord::transcript`].
    pub transcript: Option<String>,
}

/// What may happen to an approval.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// Somebody answers.
    Decide(Decision),
    /// Claude Code was seen to follow the answer.
    Apply,
    /// A rule's time is over.
    Expire(String),
    /// Nobody waits for the answer any more.
    Withdraw(String),
}

impl ApprovalRecord {
    /// A new approval.
    pub fn new(id: ApprovalId, question: Question, at: UnixMs) -> Self {
        let digest = audit::input_digest(&question.input);
        let is_long = audit::canonical(&question.input).len() > MAX_INPUT_BYTES;
        let mut approval = Approval {
            id,
            session: question.session,
            session_name: question.session_name,
            machine_id: None,
            kind: question.kind,
            tool: question.tool,
            summary: question.summary,
            input: if is_long { Value::Null } else { question.input },
            input_sha256: digest,
            diff: question.diff,
            cwd: question.cwd,
            agent: question.agent,
            risk: question.risk,
            notes: question.notes,
            why: question.why,
            state: ApprovalState::Pending,
            state_since: at,
            state_text: None,
            created_at: at,
            expires_at: question.expires_at,
            decision: None,
            version: 1,
        };
        let is_above = |approval: &Approval| {
            serde_json::to_string(approval).is_ok_and(|text| text.len() > MAX_TOLD_BYTES)
        };
        if is_above(&approval) {
            approval.diff = None;
        }
        if is_above(&approval) {
            approval.input = Value::Null;
        }
        if approval.input.is_null() {
            approval.summary.push_str(" (the whole input is too long to be shown here; see the terminal)");
        }
        Self {
            approval,
            call: question.call,
            epoch: question.epoch,
            tool_use: question.tool_use,
            has_dialog: question.has_dialog,
            transcript: question.transcript,
        }
    }

    /// The record after a change; `None` if that may not follow.
    pub fn after(&self, change: &Change, at: UnixMs) -> Option<Self> {
        let (state, text, decision) = match change {
            Change::Decide(decision) => (ApprovalState::Decided, None, Some(decision.clone())),
            Change::Apply => (ApprovalState::Applied, None, None),
            Change::Expire(text) => (ApprovalState::Expired, Some(text.clone()), None),
            Change::Withdraw(text) => (ApprovalState::Withdrawn, Some(text.clone()), None),
        };
        if !self.approval.state.may_become(state) {
            return None;
        }
        let mut next = self.clone();
        let approval = &mut next.approval;
        approval.state = state;
        approval.state_since = at;
        approval.state_text = text;
        if decision.is_some() {
            approval.decision = decision;
        }
        approval.version += 1;
        Some(next)
    }

    /// The audit log's line about the state that the approval is in now.
    pub fn line(&self, input: Option<&Value>) -> AuditEntry {
        let approval = &self.approval;
        let mut body = json!({
            "approval": approval.id,
            "tool": approval.tool,
            "input_sha256": approval.input_sha256,
            "tool_use": self.tool_use,
        });
        let kind = match approval.state {
            ApprovalState::Pending => {
                body["session_name"] = json!(approval.session_name);
                body["cwd"] = json!(approval.cwd);
                body["risk"] = json!(approval.risk);
                body["why"] = json!(approval.why);
                body["input"] = audit::logged_input(input.unwrap_or(&approval.input));
                "asked"
            }
            ApprovalState::Decided => {
                if let Some(decision) = &approval.decision {
                    body["verdict"] = json!(decision.answer.verdict);
                    body["reason"] = json!(decision.answer.reason);
                    body["by"] = json!(decision.by);
                    body["remember"] = json!(decision.answer.remember);
                }
                "decided"
            }
            ApprovalState::Applied => "applied",
            ApprovalState::Expired => "expired",
            ApprovalState::Withdrawn => "withdrawn",
        };
        if let Some(text) = &approval.state_text {
            body["text"] = json!(text);
        }
        AuditEntry { at: approval.state_since, kind, session: Some(approval.session), body }
    }
}

/// The decision of somebody at Claude Code's own dialog.
pub fn by_dialog(verdict: Verdict, at: UnixMs) -> Change {
    Change::Decide(Decision {
        answer: Answer { verdict, reason: None, answers: None, remember: None },
        by: Decider { kind: DeciderKind::Dialog, label: "in the terminal".to_owned() },
        at,
    })
}

//! Approvals: an act of Claude Code that waits for somebody's word.
//!
//! The machine is the only authority: it makes approvals, decides which answer was first, and knows what became of it.
//! Relay and browsers show copies and pass answers on.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{ApprovalId, MachineId, SessionId};
use crate::risk::{Risk, RiskNote};
use crate::time::UnixMs;

/// Longest reason of a person, in characters.
pub const MAX_REASON_CHARS: usize = 2_000;
/// Longest tool input that travels whole; of a longer one [`Approval::input`] is null and the summary says so.
pub const MAX_INPUT_BYTES: usize = 128 * 1024;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ApprovalKind {
    /// May this tool be used with this input?
    Tool,
    /// Claude asks the person something and wants an answer (AskUserQuestion).
    Question,
    /// Claude has a plan and wants to go on (ExitPlanMode).
    Plan,
    /// Claude asks the person through the `ask_human` tool.
    Human,
}

/// State of an approval. Which may follow which: [`ApprovalState::may_become`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Nobody has answered.
    Pending,
    /// Somebody has answered; Claude Code has not been seen to follow yet.
    Decided,
    /// Claude Code was seen to follow the answer.
    Applied,
    /// A rule's time is over and nobody had answered. Nobody has denied it.
    Expired,
    /// The question is gone: its session ended, or Claude Code no longer waits for it.
    Withdrawn,
}

impl ApprovalState {
    /// True if `next` may follow.
    pub const fn may_become(self, next: ApprovalState) -> bool {
        use ApprovalState::{Applied, Decided, Expired, Pending, Withdrawn};
        matches!((self, next), (Pending, Decided | Expired | Withdrawn) | (Decided, Applied | Withdrawn))
    }

    /// True if nothing follows.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Applied | Self::Expired | Self::Withdrawn)
    }

    /// The word that people read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Decided => "decided",
            Self::Applied => "applied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// The answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may run.
    Allow,
    /// It must not run.
    Deny,
}

/// By what way an answer came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeciderKind {
    /// A rule of the policy.
    Rule,
    /// The command line on the machine.
    Cli,
    /// A browser or an API token, through a relay.
    Relay,
    /// Claude Code's own dialog in the terminal.
    Dialog,
}

/// Who answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Decider {
    /// By what way.
    pub kind: DeciderKind,
    /// For people: "alice@example.com", "dev on tty3", "rule deny-push".
    pub label: String,
}

/// How far "always allow" reaches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RuleScope {
    /// This session.
    Session,
    /// Sessions in this project (the git work tree, else the directory).
    Project,
    /// The whole machine.
    Machine,
}

/// "Always allow this in this project for two hours."
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Remember {
    /// How far.
    pub scope: RuleScope,
    /// For how long, in seconds, 60 to 31,536,000; absent means until it is removed.
    #[serde(default)]
    pub duration_s: Option<u32>,
}

/// What somebody answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answer {
    /// May it run?
    pub verdict: Verdict,
    /// For Claude, when denied; at most [`MAX_REASON_CHARS`].
    #[serde(default)]
    pub reason: Option<String>,
    /// Answers to a question: an object from question text to answer text; for `human` a text.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub answers: Option<Value>,
    /// Makes a rule of it; with `allow` only.
    #[serde(default)]
    pub remember: Option<Remember>,
}

/// An answer that was taken: the first one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Decision {
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
    /// Who.
    pub by: Decider,
    /// When.
    pub at: UnixMs,
}

/// An approval as everybody sees it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Approval {
    /// Identity.
    pub id: ApprovalId,
    /// The session that asks.
    pub session: SessionId,
    /// Its name when it asked.
    pub session_name: String,
    /// The machine; absent in answers of the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<MachineId>,
    /// What is asked.
    pub kind: ApprovalKind,
    /// Claude Code's tool: `Bash`, `Edit`, `mcp__github__create_issue`, …
    pub tool: String,
    /// One line for people, without control characters: "wants to run `cargo publish`".
    pub summary: String,
    /// The tool's exact input; null if it is longer than [`MAX_INPUT_BYTES`].
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub input: Value,
    /// SHA-256 of the exact input as compact JSON with sorted keys, hexadecimal.
    pub input_sha256: String,
    /// For edits and writes: what would change, as a unified diff, at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Claude Code's working directory.
    pub cwd: String,
    /// Name of the subagent that asks, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Risk.
    pub risk: Risk,
    /// Why, worst first.
    #[serde(default)]
    pub notes: Vec<RiskNote>,
    /// Why it is asked: the rule, the lock, or Claude Code's own question; a sentence for people.
    pub why: String,
    /// State.
    pub state: ApprovalState,
    /// Since when.
    pub state_since: UnixMs,
    /// A sentence for people about the state, where there is more to say: why it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_text: Option<String>,
    /// When it was asked.
    pub created_at: UnixMs,
    /// When a rule lets it expire; it waits for ever otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMs>,
    /// The first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Grows with every change; a copy with a lower number is older.
    pub version: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ApprovalState::{Applied, Decided, Expired, Pending, Withdrawn};

    #[test]
    fn an_approval_is_decided_once_and_final_states_stay() {
        let all = [Pending, Decided, Applied, Expired, Withdrawn];
        for from in all {
            for to in all {
                let expected = matches!(
                    (from, to),
                    (Pending, Decided)
                        | (Pending, Expired)
                        | (Pending, Withdrawn)
                        | (Decided, Applied)
                        | (Decided, Withdrawn)
                );
                assert_eq!(from.may_become(to), expected, "{from:?} -> {to:?}");
            }
            assert_eq!(from.is_final(), all.iter().all(|to| !from.may_become(*to)), "{from:?}");
            assert_eq!(serde_json::to_string(&from).unwrap(), format!("\"{}\"", from.as_str()));
        }
    }
}

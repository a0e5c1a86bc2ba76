//! Rules of a machine's policy: what may run, what is asked, what never runs.

use serde::{Deserialize, Serialize};

use crate::id::SessionId;
use crate::risk::Risk;
use crate::time::UnixMs;

/// What a rule does with what it matches. Deny beats ask, ask beats allow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyEffect {
    /// It runs without a question.
    Allow,
    /// A person is asked.
    Ask,
    /// It does not run.
    Deny,
}

impl PolicyEffect {
    /// The word that people read and write.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// A rule. What is absent matches everything; all that is there must match.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// Unique name, for people.
    pub name: String,
    /// What it does.
    pub effect: PolicyEffect,
    /// The tool, with `*` for any text: `Bash`, `mcp__github__*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// First words of a command: `cargo test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// A whole simple command, with `*` for any text: `npm run *`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The whole shell command, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Files: `src/**`, `*.md`, `/etc/**`, `~/notes/*`; relative ones lie in the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The highest risk that it matches. An allow rule without it goes up to medium.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_risk: Option<Risk>,
    /// For Claude, when it is denied, and for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only in this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Only in this project: the absolute path of its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMs>,
}

/// A rule with where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownRule {
    /// The rule.
    pub rule: PolicyRule,
    /// It stands in the configuration file, and is removed there.
    pub is_from_file: bool,
}

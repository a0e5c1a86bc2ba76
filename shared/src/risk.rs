//! How much harm an act could do, and why it is thought so.

use serde::{Deserialize, Serialize};

/// Risk of an act. Ordered: a compound act is as risky as its worst part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Understood completely; only reads, within the project.
    Low,
    /// Changes the project, or is not understood completely.
    Medium,
    /// May destroy work, leave the machine, change the system, or hides what it does.
    High,
}

impl Risk {
    /// The word that people read and write.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// One reason for a risk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RiskNote {
    /// What this reason alone amounts to.
    pub risk: Risk,
    /// Stable word, for programs and translations: `writes_outside`, `not_parsed`, `force_push`, …
    pub word: String,
    /// A sentence for people without a full stop: "pushes over what others have pushed".
    pub text: String,
    /// The part of the command that it is about, as written; absent if it is about the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn risks_are_ordered_and_keep_their_words() {
        assert!(Risk::Low < Risk::Medium && Risk::Medium < Risk::High);
        for risk in [Risk::Low, Risk::Medium, Risk::High] {
            assert_eq!(serde_json::to_string(&risk).unwrap(), format!("\"{}\"", risk.as_str()));
        }
    }
}

//! What Claude and people are told when a tool does not run. Nobody is said to have denied who has not.

use claudenest_shared::approval::{Approval, Decision};

/// The hook's input makes no sense.
pub(super) const NOT_UNDERSTOOD: &str = "ClaudeNest did not let this tool run: what Claude Code said about it was not understood. \
     Nobody has denied it. Update claudenest-agent, then try again.";
/// The audit log cannot be written.
pub(super) const NOT_WRITTEN: &str = "ClaudeNest did not let this tool run: the decision could not be written to disk, and nothing runs without \
     that. Nobody has denied it. The disk may be full; make room, then try again.";
/// The session is not known.
pub(super) const NO_SESSION: &str = "ClaudeNest did not let this tool run: its agent does not know this session any more. Nobody has denied it. \
     Start a new session.";
/// The daemon ends.
pub(super) const NO_DAEMON: &str = "ClaudeNest did not let this tool run: there was no answer, because its agent is stopping. Nobody has \
     denied it. Try again when it runs.";
/// A rule's time is over.
pub(super) const NOT_IN_TIME: &str = "There was no answer in time, so this did not run. Nobody has denied it; you may ask again later or go on \
     with something else.";

/// An approval could not be made.
pub(super) fn unasked(why: &str) -> String {
    format!(
        "ClaudeNest did not let this tool run, because nobody could be asked. Nobody has denied it. {why}"
    )
}

/// A person said no.
pub(super) fn denied(decision: &Decision) -> String {
    let by = &decision.by.label;
    match decision.answer.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty()) {
        Some(reason) => format!("Denied by {by}: {reason}"),
        None => format!(
            "Denied by {by}, without a reason. Do not try the same in another way; ask what to do instead."
        ),
    }
}

/// Nobody waits any more.
pub(super) fn withdrawn(approval: &Approval) -> String {
    let why = approval.state_text.as_deref().unwrap_or("The question was withdrawn.");
    format!("ClaudeNest did not let this tool run: there was no answer. {why} Nobody has denied it.")
}

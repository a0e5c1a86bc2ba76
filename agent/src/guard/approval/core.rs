//! Which approvals are open, and what follows from what is seen and said. Pure: time and ids are arguments.
//!
//! Invariants: an approval is decided at most once and the first answer stays; nothing changes in here before it is on
//! disk (the owner asks for the next record, stores it, and only then puts it in place).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use claudenest_shared::approval::{
    Answer, Approval, ApprovalKind, ApprovalState, Decider, Decision, MAX_REASON_CHARS, Verdict,
};
use claudenest_shared::id::{ApprovalId, SessionId};
use claudenest_shared::time::UnixMs;
use serde_json::Value;

use super::record::{ApprovalRecord, Change, Question, by_dialog};
use crate::claude::transcript::Fate;

/// A hook that has lost its connection is back within a second, even when the daemon was restarted by an update; one
/// that is not back after this long was ended, and Claude Code no longer waits.
pub const HOOK_GRACE: Duration = Duration::from_secs(10);

/// Both clocks, read once for each event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// For durations: a clock that is set does not let anything expire.
    pub instant: Instant,
    /// For people.
    pub wall: UnixMs,
}

/// Why an answer is not taken.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// There is no such approval among the open ones.
    Unknown,
    /// Somebody was first, or nobody waits any more.
    Settled(Box<Approval>),
    /// The answer is about another input.
    OtherInput,
    /// The answer itself cannot be used; the sentence says why.
    Unusable(String),
}

/// What was seen of a session.
#[derive(Clone, PartialEq, Debug)]
pub enum Observation {
    /// A tool has run, well or not.
    Ran {
        /// Claude Code's name of the call.
        tool_use: Option<String>,
        /// Digest of the input that it ran with.
        input_sha256: String,
    },
    /// The conversation on disk holds a result for the call.
    Result {
        /// Claude Code's name of the call.
        tool_use: String,
        /// What became of it.
        fate: Fate,
    },
    /// The dialog was answered in the terminal with yes: it is gone and the work goes on.
    DialogGone {
        /// Which approval's.
        approval: ApprovalId,
    },
    /// The turn of the main conversation is over: nothing of it waits.
    TurnOver,
    /// The conversation goes on behind the call: an answer that was given has arrived.
    GoesOn {
        /// The subagent in which it goes on; `None` for the main conversation.
        agent: Option<String>,
    },
    /// The process of the session is gone.
    Ended {
        /// A sentence for people.
        why: String,
    },
}

struct Open {
    record: ApprovalRecord,
    expires: Option<Instant>,
    /// Since when no hook waits for the answer.
    unheard_since: Option<Instant>,
}

/// The open approvals.
pub struct Core {
    open: BTreeMap<ApprovalId, Open>,
}

impl Core {
    /// Starts with what was open when the last daemon ended; the hooks have to come back.
    pub fn new(now: Now, records: Vec<ApprovalRecord>) -> Self {
        let mut core = Self { open: BTreeMap::new() };
        for record in records {
            core.put(now, record);
        }
        core
    }

    /// Every open approval, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &ApprovalRecord> {
        self.open.values().map(|open| &open.record)
    }

    /// One open approval.
    pub fn get(&self, id: ApprovalId) -> Option<&ApprovalRecord> {
        self.open.get(&id).map(|open| &open.record)
    }

    /// The open approval of this run of the hook program: the same question asked again.
    pub fn of_call(&self, session: SessionId, call: &str) -> Option<&ApprovalRecord> {
        self.open().find(|record| record.approval.session == session && record.call == call)
    }

    /// The record of a new question. Store it, then [`Core::put`] it.
    pub fn asked(&self, now: Now, id: ApprovalId, question: Question) -> ApprovalRecord {
        ApprovalRecord::new(id, question, now.wall)
    }

    /// The record after an answer. Store it, then [`Core::put`] it.
    ///
    /// # Errors
    /// [`Refusal`]. The same answer of the same decider again is no error: its first answer may have got lost.
    pub fn decided(
        &self,
        now: Now,
        id: ApprovalId,
        input_sha256: &str,
        answer: Answer,
        by: Decider,
    ) -> Result<ApprovalRecord, Refusal> {
        let record = self.get(id).ok_or(Refusal::Unknown)?;
        if record.approval.input_sha256 != input_sha256 {
            return Err(Refusal::OtherInput);
        }
        if record.approval.state != ApprovalState::Pending {
            return match &record.approval.decision {
                Some(first) if first.by == by && first.answer == answer => Ok(record.clone()),
                _ => Err(Refusal::Settled(Box::new(record.approval.clone()))),
            };
        }
        check_answer(record.approval.kind, &record.approval.input, &answer).map_err(Refusal::Unusable)?;
        let decision = Decision { answer, by, at: now.wall };
        record
            .after(&Change::Decide(decision), now.wall)
            .ok_or_else(|| Refusal::Settled(Box::new(record.approval.clone())))
    }

    /// Puts a stored record in place; a final one leaves.
    pub fn put(&mut self, now: Now, record: ApprovalRecord) {
        let id = record.approval.id;
        if record.approval.state.is_final() {
            self.open.remove(&id);
            return;
        }
        let left = |at: UnixMs| Duration::from_millis(u64::try_from(at.0 - now.wall.0).unwrap_or(0));
        match self.open.get_mut(&id) {
            Some(open) => open.record = record,
            None => {
                let expires = record.approval.expires_at.map(|at| now.instant + left(at));
                self.open.insert(id, Open { record, expires, unheard_since: Some(now.instant) });
            }
        }
    }

    /// A hook waits for the answer, or no longer does.
    pub fn heard(&mut self, now: Now, id: ApprovalId, is_waiting: bool) {
        if let Some(open) = self.open.get_mut(&id) {
            open.unheard_since = match (is_waiting, open.unheard_since) {
                (true, _) => None,
                (false, None) => Some(now.instant),
                (false, since) => since,
            };
        }
    }

    /// What follows from something that was seen, in order.
    pub fn seen(&self, now: Now, session: SessionId, what: &Observation) -> Vec<(ApprovalId, Change)> {
        let mut changes = Vec::new();
        for open in self.open.values().filter(|open| open.record.approval.session == session) {
            let record = &open.record;
            let approval = &record.approval;
            let id = approval.id;
            let is_pending = approval.state == ApprovalState::Pending;
            let verdict = approval.decision.as_ref().map(|decision| decision.answer.verdict);
            let is_same = |tool_use: &Option<String>, digest: &str| match (&record.tool_use, tool_use) {
                (Some(own), Some(seen)) => own == seen,
                _ => approval.input_sha256 == digest,
            };
            match what {
                Observation::Ran { tool_use, input_sha256 } if is_same(tool_use, input_sha256) => {
                    if is_pending {
                        changes.push((id, by_dialog(Verdict::Allow, now.wall)));
                    }
                    changes.push((id, Change::Apply));
                }
                Observation::Result { tool_use, fate } if record.tool_use.as_ref() == Some(tool_use) => {
                    match (fate, verdict) {
                        (Fate::Used, None) => changes.push((id, by_dialog(Verdict::Allow, now.wall))),
                        (Fate::RefusedByPerson, None) => {
                            changes.push((id, by_dialog(Verdict::Deny, now.wall)))
                        }
                        (Fate::RefusedOtherwise, None) => {
                            let text = "Claude Code did not use the tool, by its own rules or because the turn ended.";
                            changes.push((id, Change::Withdraw(text.to_owned())));
                        }
                        // The person was quicker than the answer from elsewhere.
                        (Fate::RefusedByPerson, Some(Verdict::Allow)) => {
                            let text = "It was refused in the terminal before the answer arrived there.";
                            changes.push((id, Change::Withdraw(text.to_owned())));
                        }
                        (Fate::RefusedOtherwise, Some(Verdict::Allow)) => {
                            let text =
                                "It was allowed, but Claude Code did not use the tool by its own rules.";
                            changes.push((id, Change::Withdraw(text.to_owned())));
                        }
                        _ => {}
                    }
                    changes.push((id, Change::Apply));
                }
                Observation::DialogGone { approval: gone } if *gone == id && is_pending => {
                    changes.push((id, by_dialog(Verdict::Allow, now.wall)));
                }
                // A denial leaves no other trace among the hooks than that the work goes on.
                Observation::GoesOn { agent }
                    if approval.agent == *agent && verdict == Some(Verdict::Deny) =>
                {
                    changes.push((id, Change::Apply));
                }
                Observation::TurnOver if approval.agent.is_none() => match verdict {
                    None => {
                        let text = "The turn ended, and Claude Code no longer waits for an answer.";
                        changes.push((id, Change::Withdraw(text.to_owned())));
                    }
                    Some(Verdict::Deny) => changes.push((id, Change::Apply)),
                    Some(Verdict::Allow) => {
                        let text = "The turn ended before Claude Code used the tool.";
                        changes.push((id, Change::Withdraw(text.to_owned())));
                    }
                },
                Observation::Ended { why } => changes.push((id, Change::Withdraw(why.clone()))),
                _ => {}
            }
        }
        changes
    }

    /// What time alone brings. `is_paused` says whether a session's processes are stopped: its hooks cannot come back.
    pub fn due(&self, now: Now, is_paused: impl Fn(SessionId) -> bool) -> Vec<(ApprovalId, Change)> {
        let mut changes = Vec::new();
        for (id, open) in &self.open {
            let approval = &open.record.approval;
            if approval.state != ApprovalState::Pending {
                continue;
            }
            let is_over = |since: Option<Instant>, span: Duration| {
                since.is_some_and(|since| now.instant.saturating_duration_since(since) >= span)
            };
            if open.expires.is_some_and(|at| at <= now.instant) {
                let text = "No answer in time: the rule that asks ends the waiting. Nobody has denied it.";
                changes.push((*id, Change::Expire(text.to_owned())));
            } else if is_over(open.unheard_since, HOOK_GRACE) && !is_paused(approval.session) {
                let text = "Claude Code no longer waits for an answer: its hook program has ended.";
                changes.push((*id, Change::Withdraw(text.to_owned())));
            }
        }
        changes
    }

    /// True if nothing is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

/// Checks that an answer can be given to Claude Code.
fn check_answer(kind: ApprovalKind, input: &Value, answer: &Answer) -> Result<(), String> {
    if answer.reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON_CHARS) {
        return Err(format!("A reason has at most {MAX_REASON_CHARS} characters. Shorten it."));
    }
    if answer.remember.is_some() && answer.verdict == Verdict::Deny {
        return Err("Only \"allow\" can be remembered. To deny always, add a rule to the policy.".to_owned());
    }
    match (kind, answer.verdict, &answer.answers) {
        (_, Verdict::Deny, None) => Ok(()),
        (_, Verdict::Deny, Some(_)) => Err("A denial takes a reason and no answers.".to_owned()),
        (ApprovalKind::Question, Verdict::Allow, Some(Value::Object(answers))) => {
            let asked: Vec<&str> = input
                .get("questions")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|question| question.get("question").and_then(Value::as_str))
                .collect();
            for (question, text) in answers {
                if !asked.contains(&question.as_str()) {
                    return Err(format!("Claude did not ask {question:?}."));
                }
                if !text.is_string() {
                    return Err(format!("The answer to {question:?} has to be a text."));
                }
            }
            match asked.iter().find(|question| !answers.contains_key(**question)) {
                Some(open) => Err(format!("The question {open:?} has no answer yet.")),
                None => Ok(()),
            }
        }
        (ApprovalKind::Question, Verdict::Allow, _) => {
            Err("Claude asks a question. Answer it, or deny to let Claude go on without an answer."
                .to_owned())
        }
        (ApprovalKind::Human, Verdict::Allow, Some(Value::String(_))) => Ok(()),
        (ApprovalKind::Human, Verdict::Allow, _) => {
            Err("Claude waits for a text. Answer with one, or deny.".to_owned())
        }
        (ApprovalKind::Tool | ApprovalKind::Plan, Verdict::Allow, None) => Ok(()),
        (ApprovalKind::Tool | ApprovalKind::Plan, Verdict::Allow, Some(_)) => {
            Err("Claude asked no question; allow or deny without answers.".to_owned())
        }
    }
}

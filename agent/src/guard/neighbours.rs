//! What a supervised session may know of and say to others: the sessions of this machine, and people.
//!
//! A message is typed into the other's prompt, so it waits until that prompt is there: typed into a dialog it could answer
//! it. It always says that a session sent it.

use std::time::Duration;

use claudenest_shared::approval::{ApprovalKind, ApprovalState, Verdict};
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;
use claudenest_shared::reason::StateWord;
use claudenest_shared::risk::Risk;
use claudenest_shared::session::{SessionInfo, SessionMode, SessionState, StateSource};
use claudenest_shared::wire::agent::{Op, Reply};
use serde_json::Value;

use super::approval::Question;
use super::{Guard, Who};
use crate::control::{Neighbour, NestAnswer, NestWish};
use crate::supervisor::Caller;

/// Longest message; a prompt of that length is still read.
const MAX_MESSAGE_CHARS: usize = 8_000;
/// Longest question to a person.
const MAX_QUESTION_CHARS: usize = 4_000;
/// How long a message waits for the other's prompt when nobody says.
const WAIT: Duration = Duration::from_secs(60);
/// The longest that it waits.
const MAX_WAIT: Duration = Duration::from_secs(3600);

impl Guard {
    /// What a session wants of others.
    ///
    /// # Errors
    /// `forbidden` for who is no session, `not_found`, `invalid`, `conflict` with a sentence for Claude.
    ///
    /// # Cancel safety
    /// A message is sent or not; a question stays open.
    pub async fn nest(&self, who: &Who, wish: NestWish) -> Result<NestAnswer, WireError> {
        let Who::Session(own) = who else {
            return Err(WireError::new(ErrorCode::Forbidden, "This is for supervised sessions only."));
        };
        let own = self
            .supervisor()
            .info(*own)
            .ok_or_else(|| WireError::new(ErrorCode::NotFound, "This session is not known any more."))?;
        match wish {
            NestWish::Sessions {} => Ok(NestAnswer::Sessions { sessions: self.neighbours(own.id) }),
            NestWish::Message { to, text, wait_s } => {
                let wait = wait_s.map_or(WAIT, |seconds| Duration::from_secs(u64::from(seconds)));
                self.message(&own, &to, &text, wait.min(MAX_WAIT)).await?;
                Ok(NestAnswer::Done {})
            }
            NestWish::AskHuman { input, call } => self.ask_human(&own, input, call).await,
        }
    }

    fn neighbours(&self, own: SessionId) -> Vec<Neighbour> {
        let shown = |info: SessionInfo| Neighbour {
            is_self: info.id == own,
            id: info.id,
            name: info.name,
            cwd: info.cwd,
            state: info.state,
            state_reason: info.state_reason,
        };
        let sessions = self.supervisor().sessions().into_iter();
        sessions.filter(|info| !info.state.is_final()).map(shown).collect()
    }

    async fn message(
        &self,
        from: &SessionInfo,
        to: &str,
        text: &str,
        wait: Duration,
    ) -> Result<(), WireError> {
        let text = plain(text);
        if text.is_empty() || text.chars().count() > MAX_MESSAGE_CHARS {
            let sentence = format!("A message has 1 to {MAX_MESSAGE_CHARS} characters. Nothing was sent.");
            return Err(WireError::new(ErrorCode::Invalid, sentence));
        }
        let to = self.named(from, to)?;
        let is_ready = |info: &SessionInfo| !info.state.is_live() || takes_messages(info);
        let ready = self.supervisor().wait(to.id, is_ready);
        let ready = match tokio::time::timeout(wait, ready).await {
            Ok(info) => info?,
            Err(_) => {
                let info = self.supervisor().info(to.id).unwrap_or(to);
                let sentence = format!(
                    "Not sent: {} is busy ({}). A message can only be given to a session that waits for a prompt. Try \
                     again later, or with a longer wait_s.",
                    info.name,
                    info.state_reason.as_deref().unwrap_or(info.state.as_str()),
                );
                return Err(WireError::new(ErrorCode::Conflict, sentence));
            }
        };
        if !ready.state.is_live() {
            let sentence = format!("Not sent: {} has ended.", ready.name);
            return Err(WireError::new(ErrorCode::SessionEnded, sentence));
        }
        let text = format!(
            "Message from the session \"{}\" on this machine, sent by its Claude and not by the user: {text}",
            from.name
        );
        let op = Op::SessionSend { session: ready.id, text, enter: true };
        match self.supervisor().execute(op, &Caller::Operator).await {
            Reply::Error { error } => Err(error),
            _ => Ok(()),
        }
    }

    /// The session that a session means.
    fn named(&self, from: &SessionInfo, to: &str) -> Result<SessionInfo, WireError> {
        let sessions = self.supervisor().sessions();
        let fits = |info: &&SessionInfo| info.name == to || info.id.to_string() == to;
        let Some(found) = sessions.iter().find(fits) else {
            let sentence = format!("Not sent: there is no session \"{to}\". See session_list.");
            return Err(WireError::new(ErrorCode::NotFound, sentence));
        };
        if found.id == from.id {
            return Err(WireError::new(ErrorCode::Invalid, "Not sent: that is this session itself."));
        }
        if matches!(found.mode, SessionMode::Shell | SessionMode::Oneshot) {
            let sentence = format!("Not sent: {} is no conversation, so it takes no messages.", found.name);
            return Err(WireError::new(ErrorCode::Conflict, sentence));
        }
        Ok(found.clone())
    }

    async fn ask_human(
        &self,
        own: &SessionInfo,
        input: Value,
        call: String,
    ) -> Result<NestAnswer, WireError> {
        let question = plain(input.get("question").and_then(Value::as_str).unwrap_or_default());
        if question.is_empty() || question.chars().count() > MAX_QUESTION_CHARS {
            let sentence = format!("A question has 1 to {MAX_QUESTION_CHARS} characters. Nothing was asked.");
            return Err(WireError::new(ErrorCode::Invalid, sentence));
        }
        let line: Vec<&str> = question.split_whitespace().collect();
        let asked = Question {
            session: own.id,
            session_name: own.name.clone(),
            epoch: own.epoch,
            kind: ApprovalKind::Human,
            tool: crate::mcp::tool_name("ask_human"),
            summary: format!("asks: {}", line.join(" ")),
            input,
            diff: None,
            cwd: own.cwd.clone(),
            agent: None,
            risk: Risk::Low,
            notes: Vec::new(),
            why: "Claude asks you.".to_owned(),
            expires_at: None,
            call,
            tool_use: None,
            has_dialog: false,
            transcript: None,
        };
        let approval = self.approvals().ask(asked).await?.outcome().await.ok_or_else(|| {
            WireError::new(
                ErrorCode::Unavailable,
                "The agent was restarted before anybody answered. Ask again.",
            )
        })?;
        match &approval.decision {
            Some(decision) if decision.answer.verdict == Verdict::Allow => {
                let text = decision.answer.answers.as_ref().and_then(Value::as_str).unwrap_or_default();
                Ok(NestAnswer::Said { by: decision.by.label.clone(), text: text.to_owned() })
            }
            Some(decision) => {
                let reason = decision.answer.reason.as_deref().unwrap_or("no reason was given");
                let sentence = format!("{} does not want to answer this: {reason}", decision.by.label);
                Err(WireError::new(ErrorCode::Conflict, sentence))
            }
            None if approval.state == ApprovalState::Expired => Err(WireError::new(
                ErrorCode::Conflict,
                "Nobody answered in time. Nobody has refused either.",
            )),
            None => {
                let why = approval.state_text.unwrap_or_else(|| "The question was withdrawn.".to_owned());
                Err(WireError::new(ErrorCode::Conflict, why))
            }
        }
    }
}

/// True when what is typed becomes a prompt, and nothing else.
fn takes_messages(info: &SessionInfo) -> bool {
    if info.mode == SessionMode::Headless {
        return matches!(info.state, SessionState::Running | SessionState::WaitingInput);
    }
    let is_at_prompt = |word: StateWord| {
        matches!(
            word,
            StateWord::WaitsForPrompt | StateWord::Answered | StateWord::TurnFailed | StateWord::Interrupted
        )
    };
    info.state == SessionState::WaitingInput
        && info.state_source == StateSource::Hook
        && info.state_notes.iter().any(|note| is_at_prompt(note.word))
}

/// Text without anything that a terminal would take for a key.
fn plain(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect::<String>().trim().to_owned()
}

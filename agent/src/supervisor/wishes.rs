//! What people ask of a session, and what Claude Code tells about it: the second half of the core.

use std::time::Duration;

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;
use claudenest_shared::reason::StateWord;
use claudenest_shared::session::{SessionMode, SessionState, StateSource, valid_name};

use super::core::{Core, Effect, SWITCH_GRACE, Signal};
use super::record::{Now, Wish};
use super::words::name_taken;
use crate::claude::HookFact;
use crate::claude::hint::Hint;
use crate::claude::hooks::HookKind;
use crate::reason::Reason;

/// Hooks kept until their process is known: milliseconds, so one or two.
const EARLY_HOOKS: usize = 16;

impl Core {
    /// Ends a session. An ended one stays as it is.
    ///
    /// # Errors
    /// `not_found`.
    pub fn stop(&mut self, now: Now, id: SessionId, grace: Duration) -> Result<(), WireError> {
        let state = self.state_of(id)?;
        if state.is_final() {
            return Ok(());
        }
        if !state.is_live() {
            self.set_state(
                now,
                id,
                SessionState::Terminated,
                Some(Reason::of(StateWord::EndedOnRequest)),
                StateSource::Process,
            );
            self.fill(now);
            return Ok(());
        }
        self.wish(id, Wish::Stop);
        self.begin_end(now, id, grace);
        Ok(())
    }

    /// Stops the process group for a while.
    ///
    /// # Errors
    /// `conflict` when there is nothing to pause.
    pub fn pause(&mut self, now: Now, id: SessionId) -> Result<(), WireError> {
        match self.state_of(id)? {
            SessionState::Paused => Ok(()),
            SessionState::Running | SessionState::WaitingInput => {
                let session = self.sessions.get_mut(&id).expect("its state was just read");
                let info = &session.record.info;
                session.volatile.before_pause = Some((info.state, Reason::standing(info), info.state_source));
                self.push(Effect::Signal(id, Signal::Stop));
                self.set_state(
                    now,
                    id,
                    SessionState::Paused,
                    Some(Reason::of(StateWord::PausedOnRequest)),
                    StateSource::Process,
                );
                Ok(())
            }
            SessionState::Starting => Err(conflict("The session is still starting; pause it in a moment.")),
            state => {
                Err(conflict(&format!("The session is {}; there is no process to pause.", state.as_str())))
            }
        }
    }

    /// Lets a paused session go on; wakes a hibernated one.
    ///
    /// # Errors
    /// `conflict` when it is neither.
    pub fn resume(&mut self, now: Now, id: SessionId) -> Result<(), WireError> {
        match self.state_of(id)? {
            SessionState::Paused => {
                let session = self.sessions.get_mut(&id).expect("its state was just read");
                let before = session.volatile.before_pause.take();
                let (state, reason, source) =
                    before.unwrap_or((SessionState::Running, None, StateSource::Process));
                self.push(Effect::Signal(id, Signal::Continue));
                self.set_state(now, id, state, reason, source);
                Ok(())
            }
            SessionState::Hibernated => {
                self.enqueue(now, id, None, None);
                Ok(())
            }
            state if state.is_live() => Ok(()),
            _ => Err(conflict("The session has ended; restart it instead.")),
        }
    }

    /// Ends the process if there is one and starts it again.
    ///
    /// # Errors
    /// `not_found`.
    pub fn restart(&mut self, now: Now, id: SessionId) -> Result<(), WireError> {
        match self.state_of(id)? {
            // Already waits for its start: now rather than after a pause.
            SessionState::Created => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.volatile.not_before = None;
                }
                self.fill(now);
            }
            state if state.is_live() => {
                self.wish(id, Wish::Restart);
                self.begin_end(now, id, SWITCH_GRACE);
            }
            _ => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.record.crash_restarts = 0;
                }
                self.enqueue(now, id, None, None);
            }
        }
        Ok(())
    }

    /// Wakes a hibernated session with a message as its next prompt.
    ///
    /// # Errors
    /// `conflict` when it is not hibernated.
    pub fn wake_with(&mut self, now: Now, id: SessionId, prompt: String) -> Result<(), WireError> {
        if self.state_of(id)? != SessionState::Hibernated {
            return Err(conflict("The session is not hibernated."));
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.record.pending_prompt = Some(prompt);
        }
        self.enqueue(now, id, None, None);
        Ok(())
    }

    /// Ends the process but keeps the conversation.
    ///
    /// # Errors
    /// `conflict` when there is no conversation to keep.
    pub fn hibernate(&mut self, now: Now, id: SessionId) -> Result<(), WireError> {
        let state = self.state_of(id)?;
        if state == SessionState::Hibernated {
            return Ok(());
        }
        if !state.is_live() {
            return Err(conflict(&format!(
                "The session is {}; only a running one can hibernate.",
                state.as_str()
            )));
        }
        let is_resumable = self.record(id).is_some_and(|record| record.resumable().is_some());
        if !is_resumable || state == SessionState::Starting {
            return Err(conflict(
                "The session has no conversation yet that could be taken up later. Stop it instead.",
            ));
        }
        self.wish(id, Wish::Hibernate);
        self.begin_end(now, id, SWITCH_GRACE);
        Ok(())
    }

    /// Hibernates a session that has waited for a prompt long enough, with nobody watching.
    pub fn hibernate_if_idle(&mut self, now: Now, id: SessionId, viewers: u32) {
        let Some(after) = self.limits.hibernate_after else { return };
        let Some(record) = self.record(id) else { return };
        let info = &record.info;
        let is_idle = info.state == SessionState::WaitingInput
            && info.state_source == StateSource::Hook
            && self.sessions[&id].volatile.open_dialog.is_none()
            && viewers == 0
            && record.wish == Wish::None
            && u128::from(now.wall.since(info.state_since)) >= after.as_millis();
        if is_idle {
            let _ = self.hibernate(now, id);
        }
    }

    /// Gives a session another name.
    ///
    /// # Errors
    /// `invalid`, `name_taken`, `not_found`.
    pub fn rename(&mut self, id: SessionId, name: &str) -> Result<(), WireError> {
        self.state_of(id)?;
        valid_name(name).map_err(|sentence| WireError::new(ErrorCode::Invalid, sentence))?;
        if self.records().any(|record| record.info.id != id && record.info.name == name) {
            return Err(name_taken(name));
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.record.info.name = name.to_owned();
        }
        self.save_and_tell(id);
        Ok(())
    }

    /// Removes an ended session.
    ///
    /// # Errors
    /// `conflict` while it lives.
    pub fn forget(&mut self, id: SessionId) -> Result<(), WireError> {
        let state = self.state_of(id)?;
        if state.is_live() || state == SessionState::Created {
            return Err(conflict(&format!(
                "The session is {}; stop it before you forget it.",
                state.as_str()
            )));
        }
        self.sessions.remove(&id);
        self.push(Effect::Remove(id));
        Ok(())
    }

    /// Takes in what a hook told.
    pub fn hook(&mut self, now: Now, id: SessionId, fact: &HookFact) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.record.info.state.is_live() {
            return;
        }
        if session.volatile.is_launching {
            if session.volatile.early_hooks.len() < EARLY_HOOKS {
                session.volatile.early_hooks.push(fact.clone());
            }
            return;
        }
        session.volatile.first_sign_by = None;
        let record = &mut session.record;
        if let Some(model) = &fact.model {
            record.info.model = Some(model.clone());
        }
        // The end of a conversation names the old one, after `/clear` perhaps later than the new one's start.
        if let Some(conversation) = &fact.claude_session_id
            && fact.kind != HookKind::SessionEnded
            && record.info.claude_session_id.as_ref() != Some(conversation)
        {
            record.info.claude_session_id = Some(conversation.clone());
            record.has_conversation = false;
            record.conversation_cwd = None;
        }
        if record.conversation_cwd.is_none() {
            record.conversation_cwd.clone_from(&fact.cwd);
        }
        let (state, reason) = match &fact.kind {
            HookKind::SessionStarted { is_resumed, is_midway } => {
                record.has_conversation |= *is_resumed || *is_midway;
                if *is_midway {
                    return self.save_and_tell(id);
                }
                session.volatile.open_dialog = None;
                // The prompt of the command line is submitted right after.
                if std::mem::take(&mut session.volatile.has_prompt) {
                    (SessionState::Running, None)
                } else {
                    (SessionState::WaitingInput, Some(Reason::of(StateWord::WaitsForPrompt)))
                }
            }
            HookKind::PromptSubmitted => {
                session.volatile.open_dialog = None;
                record.has_conversation = true;
                (SessionState::Running, None)
            }
            HookKind::ToolStarts | HookKind::Working => {
                record.has_conversation = true;
                if session.volatile.open_dialog.is_some() {
                    return; // Another tool or a subagent; the dialog is still open.
                }
                (SessionState::Running, None)
            }
            HookKind::ToolEnded { call } => {
                match session.volatile.open_dialog {
                    Some(open) if open != *call => return,
                    _ => session.volatile.open_dialog = None,
                }
                (SessionState::Running, None)
            }
            HookKind::PermissionAsked { wish, call } => {
                session.volatile.open_dialog = Some(*call);
                (SessionState::WaitingInput, Some(wish.clone()))
            }
            HookKind::Notified { notification } => match notification.as_str() {
                "idle_prompt" => (SessionState::WaitingInput, Some(Reason::of(StateWord::Answered))),
                // The request itself has said what is asked.
                "permission_prompt" if session.volatile.open_dialog.is_some() => return,
                "permission_prompt" => {
                    (SessionState::WaitingInput, Some(Reason::of(StateWord::AsksPermission)))
                }
                "elicitation_dialog" => {
                    (SessionState::WaitingInput, Some(Reason::of(StateWord::AsksQuestion)))
                }
                _ => return,
            },
            HookKind::Answered => {
                session.volatile.open_dialog = None;
                record.has_conversation = true;
                record.crash_restarts = 0;
                (SessionState::WaitingInput, Some(Reason::of(StateWord::Answered)))
            }
            HookKind::Failed { error } => {
                session.volatile.open_dialog = None;
                (SessionState::WaitingInput, Some(Reason::with(StateWord::TurnFailed, &[("error", error)])))
            }
            HookKind::SessionEnded | HookKind::Other => return self.save_and_tell(id),
        };
        // One prompt only: after its answer the process ends by itself.
        let is_last_word = self.sessions[&id].record.spec.mode == SessionMode::Oneshot
            && state == SessionState::WaitingInput;
        self.told(
            now,
            id,
            if is_last_word { (SessionState::Running, None) } else { (state, reason) },
            StateSource::Hook,
        );
    }

    /// Takes in Claude Code's note about its process: it knows of answered dialogs and interrupted turns,
    /// which no hook tells.
    pub fn hint(&mut self, now: Now, id: SessionId, hint: &Hint) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let state = session.record.info.state;
        let has_dialog = session.volatile.open_dialog.is_some();
        let next = match hint {
            Hint::Busy if state == SessionState::WaitingInput && has_dialog => (SessionState::Running, None),
            Hint::Idle
                if state == SessionState::Running || (state == SessionState::WaitingInput && has_dialog) =>
            {
                (SessionState::WaitingInput, Some(Reason::of(StateWord::Interrupted)))
            }
            Hint::Waiting(what) if state == SessionState::Running => {
                (SessionState::WaitingInput, Some(Reason::with(StateWord::WaitsFor, &[("what", what)])))
            }
            _ => return,
        };
        session.volatile.open_dialog = None;
        self.told(now, id, next, StateSource::Inferred);
    }

    /// True if [`Core::hint`] could tell something new about this session.
    pub fn wants_hint(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| {
            session.record.spec.mode == SessionMode::Interactive
                && match session.record.info.state {
                    SessionState::Running => true,
                    SessionState::WaitingInput => session.volatile.open_dialog.is_some(),
                    _ => false,
                }
        })
    }

    fn told(
        &mut self,
        now: Now,
        id: SessionId,
        (state, reason): (SessionState, Option<Reason>),
        source: StateSource,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.record.info.state == SessionState::Paused {
            session.volatile.before_pause = Some((state, reason, source));
            return self.save_and_tell(id);
        }
        let info = &session.record.info;
        if info.state == state && Reason::standing(info) == reason && info.state_source == source {
            return; // Dozens of tools in a row say the same.
        }
        self.set_state(now, id, state, reason, source);
    }

    fn wish(&mut self, id: SessionId, wish: Wish) {
        if let Some(session) = self.sessions.get_mut(&id) {
            // A stop is not undone by a later restart or hibernation of somebody else's.
            if session.record.wish != Wish::Stop {
                session.record.wish = wish;
            }
        }
        self.push(Effect::Save(id));
    }

    fn state_of(&self, id: SessionId) -> Result<SessionState, WireError> {
        self.state(id).ok_or_else(not_found)
    }
}

pub(super) fn not_found() -> WireError {
    WireError::new(ErrorCode::NotFound, "There is no such session on this machine.")
}

fn conflict(sentence: &str) -> WireError {
    WireError::new(ErrorCode::Conflict, sentence)
}

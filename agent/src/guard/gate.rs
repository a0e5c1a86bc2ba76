//! The gate: what a tool of Claude Code has to pass. Called by the hook program through the control socket.
//!
//! `PreToolUse` is answered from rules alone and is written to the audit log before it is answered; `PermissionRequest`
//! (Claude Code's own dialog is on screen) becomes an approval, which the dialog, the command line and browsers may answer.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use claudenest_shared::approval::{Approval, ApprovalKind, ApprovalState, DeciderKind, Verdict};
use claudenest_shared::id::SessionId;
use claudenest_shared::session::{SessionInfo, SessionMode};
use serde_json::{Value, json};

use super::approval::{Observation, Question};
use super::audit::{self, AuditEntry};
use super::judge::{Effect, Judgement};
use super::{Guard, diff, wording};
use crate::claude::HookFact;
use crate::claude::answer::{HookOutput, ToolCall};
use crate::claude::hooks::{self, HookKind};
use crate::supervisor;

/// Calls of all sessions that may still get a permission request: far more than run at once.
const RECENT: usize = 512;

/// Calls that have passed the gate a moment ago: a permission request does not say which call it is about.
#[derive(Default)]
pub(super) struct Recent {
    calls: Mutex<VecDeque<Passed>>,
}

struct Passed {
    session: SessionId,
    agent: Option<String>,
    tool_use: String,
    tool: String,
    digest: String,
}

impl Recent {
    fn note(&self, session: SessionId, call: &ToolCall, digest: &str) {
        let Some(tool_use) = call.tool_use.clone() else { return };
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() >= RECENT {
            calls.pop_front();
        }
        let (agent, tool) = (call.agent.clone(), call.tool.clone());
        calls.push_back(Passed { session, agent, tool_use, tool, digest: digest.to_owned() });
    }

    /// The oldest call like this one that nobody has taken yet.
    fn take(&self, session: SessionId, call: &ToolCall, digest: &str) -> Option<String> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |passed: &Passed| {
            passed.session == session
                && passed.agent == call.agent
                && passed.tool == call.tool
                && passed.digest == digest
        };
        let at = calls.iter().position(is_it)?;
        calls.remove(at).map(|passed| passed.tool_use)
    }

    fn forget(&self, session: SessionId, tool_use: &str) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.retain(|passed| passed.session != session || passed.tool_use != tool_use);
    }
}

impl Guard {
    pub(super) async fn gate(&self, session: SessionId, input: &Value, call: &str) -> HookOutput {
        let event = input.get("hook_event_name").and_then(Value::as_str).unwrap_or_default();
        let tool = ToolCall::parse(input);
        let agent = tool.as_ref().and_then(|tool| tool.agent.clone());
        match (event, tool) {
            ("PreToolUse", Some(tool)) => {
                self.approvals().seen(session, Observation::GoesOn { agent }).await;
                self.before_tool(session, &tool, input, call).await
            }
            ("PermissionRequest", Some(tool)) => self.permission(session, &tool, input, call).await,
            ("PreToolUse" | "PermissionRequest", None) => HookOutput::blocked(wording::NOT_UNDERSTOOD),
            ("PostToolUse" | "PostToolUseFailure", Some(tool)) => {
                self.after_tool(session, &tool, event).await;
                HookOutput::default()
            }
            ("Stop" | "StopFailure" | "UserPromptSubmit", _) => {
                // A "No" in the terminal stands in the record only.
                self.look_at(session).await;
                self.approvals().seen(session, Observation::TurnOver).await;
                HookOutput::default()
            }
            ("ConfigChange", _) => {
                let body = json!({"source": input.get("source"), "file": input.get("file_path")});
                self.write_down("settings_changed", session, body).await;
                HookOutput::default()
            }
            _ => HookOutput::default(),
        }
    }

    /// Writes down something that has happened already.
    async fn write_down(&self, kind: &'static str, session: SessionId, body: Value) {
        let line = AuditEntry { at: supervisor::now().wall, kind, session: Some(session), body };
        if let Err(error) = self.inner.store.append_audit(&line).await {
            tracing::error!(session.id = %session, %error, "what has happened cannot be written to the audit log");
        }
    }

    async fn before_tool(
        &self,
        session: SessionId,
        call: &ToolCall,
        input: &Value,
        hook_call: &str,
    ) -> HookOutput {
        let Some(info) = self.supervisor().info(session) else {
            return HookOutput::blocked(wording::NO_SESSION);
        };
        let digest = audit::input_digest(&call.input);
        self.inner.recent.note(session, call, &digest);
        let judgement = self.judge(&info, call).await;
        let line = AuditEntry {
            at: supervisor::now().wall,
            kind: "gate",
            session: Some(session),
            body: json!({
                "tool": call.tool, "tool_use": call.tool_use, "agent": call.agent_type, "cwd": call.cwd,
                "input_sha256": digest, "input": audit::logged_input(&call.input), "risk": judgement.risk,
                "effect": judgement.effect,
                "why": judgement.effect.map_or("left to Claude Code's own rules", |_| judgement.why.as_str()),
            }),
        };
        // No gated tool runs without a line about it on disk.
        if let Err(error) = self.inner.store.append_audit(&line).await {
            tracing::error!(session.id = %session, %error, "a tool was refused because the audit log cannot be written");
            return HookOutput::blocked(wording::NOT_WRITTEN);
        }
        match judgement.effect {
            None => HookOutput::default(),
            // A rule speaks of tools: a question has to be answered, and a plan to be read.
            Some(Effect::Allow) if kind_of(&call.tool) == ApprovalKind::Tool && !is_planning(input) => {
                HookOutput::allow_tool(&judgement.why, None)
            }
            Some(Effect::Allow) => HookOutput::default(),
            Some(Effect::Deny) => {
                HookOutput::deny_tool(judgement.for_claude.as_deref().unwrap_or(&judgement.why))
            }
            // Claude Code shows its dialog, and the permission request that comes with it is answered.
            Some(Effect::Ask) if info.mode == SessionMode::Interactive => {
                HookOutput::ask_for_tool(&judgement.why)
            }
            // Where there is no dialog, "ask" would be a "no" by nobody.
            Some(Effect::Ask) => {
                let question = self.question(&info, call, input, hook_call, judgement, false).await;
                match self.asked(question).await {
                    Ok(approval) => answer_call(&approval, call),
                    Err(output) => output,
                }
            }
        }
    }

    async fn permission(
        &self,
        session: SessionId,
        call: &ToolCall,
        input: &Value,
        hook_call: &str,
    ) -> HookOutput {
        let Some(info) = self.supervisor().info(session) else {
            return HookOutput::blocked(wording::NO_SESSION);
        };
        let judgement = self.judge(&info, call).await;
        if judgement.effect == Some(Effect::Deny) {
            // Between the two events another session has taken the lock.
            return HookOutput::refuse(judgement.for_claude.as_deref().unwrap_or(&judgement.why));
        }
        let has_dialog = info.mode == SessionMode::Interactive;
        let question = self.question(&info, call, input, hook_call, judgement, has_dialog).await;
        match self.asked(question).await {
            Ok(approval) => {
                self.dialog_is_gone(session, input, &approval).await;
                answer_dialog(&approval, call)
            }
            Err(output) => output,
        }
    }

    async fn question(
        &self,
        info: &SessionInfo,
        call: &ToolCall,
        input: &Value,
        hook_call: &str,
        judgement: Judgement,
        has_dialog: bool,
    ) -> Question {
        let digest = audit::input_digest(&call.input);
        let (tool, wanted) = (call.tool.clone(), call.input.clone());
        let diff = tokio::task::spawn_blocking(move || diff::of(&tool, &wanted)).await.unwrap_or(None);
        let tool_use = match &call.tool_use {
            Some(tool_use) => Some(tool_use.clone()),
            None => self.inner.recent.take(info.id, call, &digest),
        };
        Question {
            session: info.id,
            session_name: info.name.clone(),
            epoch: info.epoch,
            kind: kind_of(&call.tool),
            tool: call.tool.clone(),
            summary: hooks::wish_text(input),
            input: call.input.clone(),
            diff,
            cwd: call.cwd.clone(),
            agent: call.agent_type.clone(),
            risk: judgement.risk,
            notes: judgement.notes,
            why: judgement.why,
            expires_at: None,
            call: hook_call.to_owned(),
            tool_use,
            has_dialog,
            transcript: call.transcript.clone(),
        }
    }

    /// Asks and waits; the error is what the hook has to say instead.
    async fn asked(&self, question: Question) -> Result<Approval, HookOutput> {
        let asked = self.approvals().ask(question).await;
        let asked = asked.map_err(|error| HookOutput::blocked(wording::unasked(&error.message)))?;
        asked.outcome().await.ok_or_else(|| HookOutput::blocked(wording::NO_DAEMON))
    }

    /// The session works again.
    async fn dialog_is_gone(&self, session: SessionId, input: &Value, approval: &Approval) {
        let fact = HookFact::parse(input);
        if let Some(HookFact { kind: HookKind::PermissionAsked { call, .. }, claude_session_id, cwd, model }) =
            fact
            && approval.decision.is_some()
        {
            let kind = HookKind::ToolEnded { call };
            self.supervisor().hook(session, HookFact { claude_session_id, cwd, model, kind }).await;
        }
    }

    async fn after_tool(&self, session: SessionId, call: &ToolCall, event: &str) {
        let digest = audit::input_digest(&call.input);
        if let Some(tool_use) = &call.tool_use {
            self.inner.recent.forget(session, tool_use);
        }
        let body = json!({
            "tool": call.tool, "tool_use": call.tool_use, "agent": call.agent_type, "cwd": call.cwd,
            "input_sha256": digest, "input": audit::logged_input(&call.input),
        });
        self.write_down(if event == "PostToolUse" { "ran" } else { "failed" }, session, body).await;
        let tool_use = call.tool_use.clone();
        self.approvals().seen(session, Observation::Ran { tool_use, input_sha256: digest }).await;
    }
}

/// True while Claude Code may only read and plan: no rule lets it do more.
fn is_planning(input: &Value) -> bool {
    input.get("permission_mode").and_then(Value::as_str) == Some("plan")
}

fn kind_of(tool: &str) -> ApprovalKind {
    match tool {
        "AskUserQuestion" => ApprovalKind::Question,
        "ExitPlanMode" => ApprovalKind::Plan,
        _ => ApprovalKind::Tool,
    }
}

/// What becomes of a call that was held before Claude Code looked at it.
fn answer_call(approval: &Approval, call: &ToolCall) -> HookOutput {
    match (&approval.state, &approval.decision) {
        (_, Some(decision)) if decision.answer.verdict == Verdict::Allow => {
            let input = decision.answer.answers.as_ref().map(|answers| {
                let mut input = call.input.clone();
                input["answers"] = answers.clone();
                input
            });
            HookOutput::allow_tool(&format!("Allowed by {}.", decision.by.label), input)
        }
        (_, Some(decision)) => HookOutput::deny_tool(&wording::denied(decision)),
        (ApprovalState::Expired, None) => HookOutput::deny_tool(wording::NOT_IN_TIME),
        (_, None) => HookOutput::blocked(wording::withdrawn(approval)),
    }
}

/// What becomes of the dialog.
fn answer_dialog(approval: &Approval, call: &ToolCall) -> HookOutput {
    match (&approval.state, &approval.decision) {
        // Claude Code has its answer already.
        (_, Some(decision)) if decision.by.kind == DeciderKind::Dialog => HookOutput::default(),
        (_, Some(decision)) if decision.answer.verdict == Verdict::Allow => {
            let mut input = call.input.clone();
            match (approval.kind, &decision.answer.answers) {
                (ApprovalKind::Question, Some(answers)) => input["answers"] = answers.clone(),
                // Without an input of its own, an answer does not close the dialog of a plan (2.1.329).
                (ApprovalKind::Plan, _) => {}
                _ => return HookOutput::permit(None),
            }
            HookOutput::permit(Some(input))
        }
        (_, Some(decision)) => HookOutput::refuse(&wording::denied(decision)),
        (ApprovalState::Expired, None) => HookOutput::refuse(wording::NOT_IN_TIME),
        (_, None) => HookOutput::blocked(wording::withdrawn(approval)),
    }
}

//! The gate: what a tool of Claude Code has to pass. Called by the hook program through the control socket.
//!
//! `PreToolUse` is answered from rules alone and is written to the audit log before it is answered; `PermissionRequest`
//! (Claude Code's own dialog is on screen) becomes an approval, which the dialog, the command line and browsers may answer.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use claudenest_shared::approval::{Approval, ApprovalKind, ApprovalState, Verdict};
use claudenest_shared::id::SessionId;
use claudenest_shared::risk::Risk;
use serde_json::{Value, json};

use super::approval::{Observation, Question};
use super::audit::{self, AuditEntry};
use super::{Guard, wording};
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
                self.before_tool(session, &tool).await
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
            _ => HookOutput::default(),
        }
    }

    async fn before_tool(&self, session: SessionId, call: &ToolCall) -> HookOutput {
        let digest = audit::input_digest(&call.input);
        self.inner.recent.note(session, call, &digest);
        let line = AuditEntry {
            at: supervisor::now().wall,
            kind: "gate",
            session: Some(session),
            body: json!({
                "tool": call.tool, "tool_use": call.tool_use, "agent": call.agent_type, "cwd": call.cwd,
                "input_sha256": digest, "input": audit::logged_input(&call.input), "effect": null,
                "why": "left to Claude Code's own rules",
            }),
        };
        // No gated tool runs without a line about it on disk.
        match self.inner.store.append_audit(&line).await {
            Ok(()) => HookOutput::default(),
            Err(error) => {
                tracing::error!(session.id = %session, %error, "a tool was refused because the audit log cannot be written");
                HookOutput::blocked(wording::NOT_WRITTEN)
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
        let digest = audit::input_digest(&call.input);
        let question = Question {
            session,
            session_name: info.name,
            epoch: info.epoch,
            kind: kind_of(&call.tool),
            tool: call.tool.clone(),
            summary: hooks::wish_text(input),
            input: call.input.clone(),
            diff: None,
            cwd: call.cwd.clone(),
            agent: call.agent_type.clone(),
            risk: Risk::Medium,
            notes: Vec::new(),
            why: "Claude Code asks for it.".to_owned(),
            expires_at: None,
            call: hook_call.to_owned(),
            tool_use: self.inner.recent.take(session, call, &digest),
            has_dialog: true,
            transcript: call.transcript.clone(),
        };
        let asked = match self.approvals().ask(question).await {
            Ok(asked) => asked,
            Err(error) => return HookOutput::blocked(wording::unasked(&error.message)),
        };
        let Some(approval) = asked.outcome().await else {
            return HookOutput::blocked(wording::NO_DAEMON);
        };
        if approval.decision.is_some()
            && let Some(HookFact {
                kind: HookKind::PermissionAsked { call, .. },
                claude_session_id,
                cwd,
                model,
            }) = HookFact::parse(input)
        {
            // The dialog is gone: the session works again.
            let kind = HookKind::ToolEnded { call };
            let fact = HookFact { claude_session_id, cwd, model, kind };
            self.supervisor().hook(session, fact).await;
        }
        answer_dialog(&approval, call)
    }

    async fn after_tool(&self, session: SessionId, call: &ToolCall, event: &str) {
        let digest = audit::input_digest(&call.input);
        if let Some(tool_use) = &call.tool_use {
            self.inner.recent.forget(session, tool_use);
        }
        let line = AuditEntry {
            at: supervisor::now().wall,
            kind: if event == "PostToolUse" { "ran" } else { "failed" },
            session: Some(session),
            body: json!({
                "tool": call.tool, "tool_use": call.tool_use, "agent": call.agent_type, "cwd": call.cwd,
                "input_sha256": digest, "input": audit::logged_input(&call.input),
            }),
        };
        if let Err(error) = self.inner.store.append_audit(&line).await {
            tracing::error!(session.id = %session, %error, "what a tool did cannot be written to the audit log");
        }
        let tool_use = call.tool_use.clone();
        self.approvals().seen(session, Observation::Ran { tool_use, input_sha256: digest }).await;
    }
}

fn kind_of(tool: &str) -> ApprovalKind {
    match tool {
        "AskUserQuestion" => ApprovalKind::Question,
        "ExitPlanMode" => ApprovalKind::Plan,
        _ => ApprovalKind::Tool,
    }
}

/// What becomes of the dialog.
fn answer_dialog(approval: &Approval, call: &ToolCall) -> HookOutput {
    use claudenest_shared::approval::DeciderKind;
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

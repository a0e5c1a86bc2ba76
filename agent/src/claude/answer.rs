//! What a hook program says to Claude Code: how it allows, asks, denies and blocks.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a hook program prints and how it exits. The default lets Claude Code go on as if there was no hook.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HookOutput {
    /// JSON for Claude Code, printed on standard output.
    pub stdout: Option<Value>,
    /// For standard error: with exit code 2, Claude Code shows it to the model.
    pub stderr: String,
    /// 0, or 2 to block.
    pub exit_code: u8,
}

impl HookOutput {
    /// The tool must not run: the guard itself cannot do its work. The reason is a sentence for Claude and the person.
    pub fn blocked(reason: impl Into<String>) -> Self {
        Self { stdout: None, stderr: reason.into(), exit_code: 2 }
    }

    fn json(stdout: Value) -> Self {
        Self { stdout: Some(stdout), ..Self::default() }
    }

    fn before_tool(decision: &str, reason: &str) -> Self {
        Self::json(json!({"hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": decision,
            "permissionDecisionReason": reason,
        }}))
    }

    /// `PreToolUse`: it runs without a dialog, unless the user's settings deny it. With `input`, it runs with that.
    pub fn allow_tool(reason: &str, input: Option<Value>) -> Self {
        let mut output = Self::before_tool("allow", reason);
        if let (Some(input), Some(json)) = (input, &mut output.stdout) {
            json["hookSpecificOutput"]["updatedInput"] = input;
        }
        output
    }

    /// `PreToolUse`: Claude Code shows its dialog even if its own rules would allow the tool.
    pub fn ask_for_tool(reason: &str) -> Self {
        Self::before_tool("ask", reason)
    }

    /// `PreToolUse`: it does not run, and Claude is told why.
    pub fn deny_tool(reason: &str) -> Self {
        Self::before_tool("deny", reason)
    }

    /// `PermissionRequest`: yes. With `input`, the tool runs with that.
    pub fn permit(input: Option<Value>) -> Self {
        let mut decision = json!({"behavior": "allow"});
        if let Some(input) = input {
            decision["updatedInput"] = input;
        }
        Self::json(
            json!({"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}}),
        )
    }

    /// `PermissionRequest`: no, and Claude is told why.
    pub fn refuse(message: &str) -> Self {
        let decision = json!({"behavior": "deny", "message": message, "interrupt": false});
        Self::json(
            json!({"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}}),
        )
    }
}

/// A tool that Claude wants to use, is asked about, or has used: the part of a hook's input that the guard needs.
#[derive(Clone, PartialEq, Debug)]
pub struct ToolCall {
    /// The tool.
    pub tool: String,
    /// Its exact input.
    pub input: Value,
    /// Claude Code's name of this call; absent in a permission request.
    pub tool_use: Option<String>,
    /// Working directory.
    pub cwd: String,
    /// Which subagent wants it; `None` for the main conversation.
    pub agent: Option<String>,
    /// Kind of that subagent, for people.
    pub agent_type: Option<String>,
    /// Claude Code's permission mode at this moment.
    pub permission_mode: Option<String>,
    /// The conversation on disk.
    pub transcript: Option<String>,
}

impl ToolCall {
    /// Reads a hook's input; `None` if it is about no tool.
    pub fn parse(input: &Value) -> Option<Self> {
        let text = |key: &str| input.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            tool: text("tool_name")?,
            input: input.get("tool_input").cloned().unwrap_or(Value::Null),
            tool_use: text("tool_use_id"),
            cwd: text("cwd").unwrap_or_default(),
            agent: text("agent_id"),
            agent_type: text("agent_type"),
            permission_mode: text("permission_mode"),
            transcript: text("transcript_path"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_answers() {
        assert_eq!(
            HookOutput::deny_tool("locked").stdout.unwrap(),
            json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "deny",
                   "permissionDecisionReason": "locked"}})
        );
        assert_eq!(
            HookOutput::allow_tool("rule", Some(json!({"a": 1}))).stdout.unwrap()["hookSpecificOutput"]["updatedInput"],
            json!({"a": 1})
        );
        assert_eq!(
            HookOutput::permit(None).stdout.unwrap(),
            json!({"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": {"behavior": "allow"}}})
        );
        assert_eq!(
            HookOutput::refuse("no").stdout.unwrap()["hookSpecificOutput"]["decision"],
            json!({"behavior": "deny", "message": "no", "interrupt": false})
        );
        let blocked = HookOutput::blocked("why");
        assert_eq!((blocked.exit_code, blocked.stderr.as_str(), blocked.stdout), (2, "why", None));
    }

    #[test]
    fn every_recorded_call_is_read() {
        let samples = include_str!("../../../tests/fixtures/samples/hook_inputs.jsonl");
        let inputs = samples.lines().filter(|line| !line.is_empty());
        let calls: Vec<ToolCall> =
            inputs.filter_map(|line| ToolCall::parse(&serde_json::from_str(line).unwrap())).collect();
        assert!(calls.iter().any(|call| call.agent_type.as_deref() == Some("general-purpose")));
        assert!(calls.iter().any(|call| call.tool == "Bash" && call.tool_use.is_some()));
        assert!(calls.iter().all(|call| !call.cwd.is_empty() && call.transcript.is_some()));
    }
}

//! The hooks that are injected into every session, and what their input says about a session's state.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;

use claudenest_shared::reason::StateWord;
use serde_json::{Value, json};

use super::guarding;
use crate::reason::Reason;

/// Events that tell about a session's state. `WorktreeCreate` is left out on purpose: a hook on it
/// would replace Claude Code's own making of worktrees.
const EVENTS: [&str; 13] = [
    "SessionStart",
    "UserPromptSubmit",
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "PermissionRequest",
    "Notification",
    "Stop",
    "StopFailure",
    "SubagentStop",
    "PreCompact",
    "SessionEnd",
    "ConfigChange",
];

/// Seconds after which Claude Code gives up a reporting hook. The hook itself gives up after two.
const REPORT_TIMEOUT_S: u32 = 5;

/// Events on whose answer it depends whether a tool runs.
const GATES: [&str; 2] = ["PreToolUse", "PermissionRequest"];

/// Seconds after which Claude Code gives up a gate: a day, the longest that was observed to be taken. The hook itself gives up
/// a minute before.
pub const GATE_TIMEOUT_S: u32 = 86_400;

/// True if it depends on the answer whether a tool runs.
pub fn is_gate(event: &str) -> bool {
    GATES.contains(&event)
}

/// Longest text of a command or file name in a state's reason, in characters.
const REASON_CHARS: usize = 80;

/// The value for `--settings`: our hooks, and `disableAllHooks: false`, because a `true` in the user's or
/// the repository's settings would switch injected hooks off, and so would some variables ([`guarding`]). `user_settings` is what the user passed as
/// `--settings` themselves; its hooks run beside ours.
pub fn settings(agent_program: &Path, user_settings: Option<Value>) -> Value {
    let command = format!("{} hook", shell_words::quote(&agent_program.to_string_lossy()));
    let mut settings = match user_settings {
        Some(value @ Value::Object(_)) => value,
        _ => json!({}),
    };
    settings["disableAllHooks"] = json!(false);
    if !settings["env"].is_object() {
        settings["env"] = json!({});
    }
    for name in guarding::SWITCHES_OFF {
        settings["env"][name] = json!("");
    }
    if !settings["hooks"].is_object() {
        settings["hooks"] = json!({});
    }
    for event in EVENTS {
        let timeout = if is_gate(event) { GATE_TIMEOUT_S } else { REPORT_TIMEOUT_S };
        let mut hook = json!({"type": "command", "command": command, "timeout": timeout});
        if is_gate(event) {
            // Claude Code lets a tool run whose hook is missing, killed or too late; with this it does not.
            hook["onFailure"] = json!("block");
        }
        let ours = json!({"matcher": "", "hooks": [hook]});
        match settings["hooks"][event].as_array_mut() {
            Some(theirs) => theirs.push(ours),
            None => settings["hooks"][event] = json!([ours]),
        }
    }
    // Our tools do no more than the daemon allows the session; a dialog for each would only be in the way.
    let tools = json!(format!("mcp__{}", crate::mcp::SERVER));
    if !settings["permissions"].is_object() {
        settings["permissions"] = json!({});
    }
    match settings["permissions"]["allow"].as_array_mut() {
        Some(theirs) => theirs.push(tools),
        None => settings["permissions"]["allow"] = json!([tools]),
    }
    settings
}

/// The value for `--mcp-config`: our server with the tools for locks, sessions and people.
pub fn mcp_config(agent_program: &Path) -> Value {
    let server = json!({"type": "stdio", "command": agent_program.to_string_lossy(), "args": ["mcp"]});
    let mut servers = json!({});
    servers[crate::mcp::SERVER] = server;
    json!({"mcpServers": servers})
}

/// What a hook's input tells, without any of its content but a shortened reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HookFact {
    /// Claude Code's id of the conversation; changes on `/clear`.
    pub claude_session_id: Option<String>,
    /// Claude Code's working directory.
    pub cwd: Option<String>,
    /// The model, where the event says it.
    pub model: Option<String>,
    /// What happened.
    pub kind: HookKind,
}

/// What happened in a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HookKind {
    /// A conversation starts, is resumed or cleared: it waits for a prompt.
    SessionStarted {
        /// It goes on with an older conversation.
        is_resumed: bool,
        /// It was compacted in the middle of its work: nothing changes.
        is_midway: bool,
    },
    /// A prompt was submitted: it works.
    PromptSubmitted,
    /// A tool is about to be used (perhaps after a dialog).
    ToolStarts,
    /// A tool has ended: `call` is the digest of its input.
    ToolEnded {
        /// Equal for the same tool call in all events.
        call: u64,
    },
    /// A permission dialog is on screen.
    PermissionAsked {
        /// What it wants: "wants to run `cargo publish`".
        wish: Reason,
        /// Digest of the tool call.
        call: u64,
    },
    /// Claude Code wants attention.
    Notified {
        /// `permission_prompt`, `idle_prompt`, …
        notification: String,
    },
    /// The turn is over: it waits for the next prompt.
    Answered,
    /// The turn ended by an error of the API.
    Failed {
        /// Claude Code's word for it: `authentication_failed`, `rate_limit`, …
        error: String,
    },
    /// Something that shows work but changes nothing else.
    Working,
    /// The conversation ends (exit, `/clear`).
    SessionEnded,
    /// An event that this version does not know.
    Other,
}

impl HookFact {
    /// Reads a hook's input. `None` when it is not one.
    pub fn parse(input: &Value) -> Option<Self> {
        let text = |key: &str| input.get(key).and_then(Value::as_str).map(str::to_owned);
        let event = text("hook_event_name")?;
        let call = || {
            let mut hasher = DefaultHasher::new();
            text("tool_name").hash(&mut hasher);
            input.get("tool_input").map(Value::to_string).hash(&mut hasher);
            hasher.finish()
        };
        let kind = match event.as_str() {
            "SessionStart" => {
                let source = text("source").unwrap_or_default();
                HookKind::SessionStarted { is_resumed: source == "resume", is_midway: source == "compact" }
            }
            "UserPromptSubmit" => HookKind::PromptSubmitted,
            "PreToolUse" => HookKind::ToolStarts,
            "PostToolUse" | "PostToolUseFailure" => HookKind::ToolEnded { call: call() },
            "PermissionRequest" => HookKind::PermissionAsked { wish: wish(input), call: call() },
            "Notification" => {
                HookKind::Notified { notification: text("notification_type").unwrap_or_default() }
            }
            "Stop" => HookKind::Answered,
            "StopFailure" => {
                HookKind::Failed { error: shortened(&text("error").unwrap_or_else(|| "error".to_owned())) }
            }
            "SubagentStop" | "PreCompact" => HookKind::Working,
            "SessionEnd" => HookKind::SessionEnded,
            _ => HookKind::Other,
        };
        Some(Self { claude_session_id: text("session_id"), cwd: text("cwd"), model: text("model"), kind })
    }
}

/// What a tool wants, as a sentence without a subject: "wants to run `ls`".
pub fn wish_text(input: &Value) -> String {
    wish(input).text
}

/// What a tool wants, in a few words.
fn wish(input: &Value) -> Reason {
    let tool = input.get("tool_name").and_then(Value::as_str).unwrap_or("a tool");
    let argument = |key: &str| {
        input
            .get("tool_input")
            .and_then(|tool_input| tool_input.get(key))
            .and_then(Value::as_str)
            .map(shortened)
    };
    let file =
        |key: &str| argument(key).map(|path| path.rsplit('/').next().map(str::to_owned).unwrap_or(path));
    let named = |word, name, value: Option<String>| value.map(|value| Reason::with(word, &[(name, &value)]));
    match tool {
        "Bash" | "PowerShell" => named(StateWord::WantsToRun, "command", argument("command")),
        "Write" => named(StateWord::WantsToWrite, "file", file("file_path")),
        "Edit" | "MultiEdit" => named(StateWord::WantsToEdit, "file", file("file_path")),
        "NotebookEdit" => named(StateWord::WantsToEdit, "file", file("notebook_path")),
        "Read" => named(StateWord::WantsToRead, "file", file("file_path")),
        "WebFetch" => named(StateWord::WantsToFetch, "url", argument("url")),
        "WebSearch" => named(StateWord::WantsToSearch, "query", argument("query")),
        "AskUserQuestion" => Some(Reason::of(StateWord::AsksQuestion)),
        "ExitPlanMode" => Some(Reason::of(StateWord::HasPlan)),
        _ => None,
    }
    .unwrap_or_else(|| Reason::with(StateWord::WantsToUse, &[("tool", &shortened(tool))]))
}

/// One line without control characters, at most [`REASON_CHARS`] characters.
fn shortened(text: &str) -> String {
    let mut line = String::new();
    for (count, c) in text.split_whitespace().collect::<Vec<_>>().join(" ").chars().enumerate() {
        if count == REASON_CHARS - 1 {
            line.push('…');
            break;
        }
        // Bidirectional overrides could make a command read differently from what it is.
        let is_deceptive = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        line.push(if c.is_control() || is_deceptive { '\u{fffd}' } else { c });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recorded_input_is_understood() {
        let samples = include_str!("../../../tests/fixtures/samples/hook_inputs.jsonl");
        let mut seen = Vec::new();
        for line in samples.lines().filter(|line| !line.is_empty()) {
            let input: Value = serde_json::from_str(line).unwrap();
            let fact = HookFact::parse(&input).unwrap();
            assert!(fact.claude_session_id.is_some() && fact.cwd.is_some(), "{line}");
            if let HookKind::PermissionAsked { wish, .. } = &fact.kind {
                seen.push(wish.text.clone());
            }
        }
        for wish in [
            "wants to run `touch bash-ran.txt && ls -la`",
            "wants to write hello.txt",
            "wants to edit hello.txt",
        ] {
            assert!(seen.iter().any(|text| text == wish), "{wish} not in {seen:?}");
        }
    }

    #[test]
    fn the_same_call_has_the_same_digest_in_every_event() {
        let event = |name: &str, command: &str| {
            HookFact::parse(
                &json!({"hook_event_name": name, "tool_name": "Bash", "tool_input": {"command": command}}),
            )
            .unwrap()
            .kind
        };
        let HookKind::PermissionAsked { call: asked, .. } = event("PermissionRequest", "ls") else {
            panic!()
        };
        assert_eq!(event("PostToolUse", "ls"), HookKind::ToolEnded { call: asked });
        assert_ne!(event("PostToolUse", "rm"), HookKind::ToolEnded { call: asked });
    }

    #[test]
    fn reasons_are_one_short_line_without_tricks() {
        let long = shortened(&format!("a\n\tb\u{1b}[31m\u{202e}{}", "x".repeat(500)));
        assert!(long.starts_with("a b\u{fffd}[31m\u{fffd}x") && long.ends_with('…'), "{long}");
        assert_eq!(long.chars().count(), REASON_CHARS);
        assert_eq!(HookFact::parse(&json!({"no": "event"})), None);
        assert_eq!(HookFact::parse(&json!([1])), None);
    }

    #[test]
    fn our_hooks_stand_beside_those_of_the_user() {
        let user = json!({"model": "opus", "disableAllHooks": true, "env": {"A": "b", "CLAUDE_CODE_SIMPLE": "1"},
                          "hooks": {"Stop": [{"hooks": [{"type": "command", "command": "say done"}]}]}});
        let merged = settings(Path::new("/opt/my tools/agent"), Some(user));
        assert_eq!(merged["model"], "opus");
        assert_eq!(merged["disableAllHooks"], false);
        assert_eq!(merged["permissions"]["allow"], json!(["mcp__claudenest"]));
        assert_eq!(merged["env"], json!({"A": "b", "CLAUDE_CODE_SIMPLE": "", "CLAUDE_CODE_SAFE_MODE": ""}));
        for (event, is_gate) in [("PreToolUse", true), ("PermissionRequest", true), ("Stop", false)] {
            let hook = &merged["hooks"][event].as_array().unwrap().last().unwrap()["hooks"][0];
            assert_eq!(hook.get("onFailure").is_some(), is_gate, "{event}");
        }
        assert_eq!(merged["hooks"]["Stop"].as_array().unwrap().len(), 2);
        assert_eq!(merged["hooks"]["SessionStart"][0]["hooks"][0]["command"], "'/opt/my tools/agent' hook");
    }
}

//! Tools of Claude Code and of MCP servers.

use serde_json::Value;

use super::{Assessment, Reason, Scope, place, script};
use place::Place;

/// Words at the beginning of an MCP tool's name that say that it reads.
const READING_VERBS: &[&str] = &[
    "get", "list", "read", "search", "find", "query", "describe", "show", "view", "fetch", "browse",
    "lookup", "count",
];

pub(super) fn assess(tool: &str, input: &Value, scope: &Scope<'_>, out: &mut Assessment) {
    let text = |name: &str| input.get(name).and_then(Value::as_str);
    match tool {
        "Bash" | "Monitor" => match text("command") {
            Some(command) => {
                script::assess(command, scope, out);
                if input.get("run_in_background").and_then(Value::as_bool) == Some(true) {
                    out.note(Reason::Background, None);
                }
                if input.get("dangerouslyDisableSandbox").and_then(Value::as_bool) == Some(true) {
                    out.note(Reason::NoSandbox, None);
                }
            }
            None => unknown(out, Reason::UnknownTool),
        },
        "Read" | "NotebookRead" => reads(text("file_path").or(text("notebook_path")), scope, out),
        "Glob" | "Grep" | "LS" => {
            reads(Some(text("path").unwrap_or(".")), scope, out);
            if let Some(pattern) = text("pattern").filter(|_| tool == "Glob") {
                // A pattern may be a path of its own.
                if pattern.starts_with(['/', '~']) || pattern.split('/').any(|name| name == "..") {
                    reads(Some(pattern), scope, out);
                }
            }
        }
        "Write" | "Edit" | "MultiEdit" | "NotebookEdit" => {
            match text("file_path").or(text("notebook_path")) {
                Some(path) => {
                    out.note(Reason::Edits, None);
                    writes(path, scope, out);
                }
                None => unknown(out, Reason::UnknownTool),
            }
        }
        "WebFetch" => {
            out.note(Reason::Network, None);
        }
        "WebSearch" => out.note(Reason::Network, None),
        // What a subagent does is assessed when it does it; the others change nothing but the conversation.
        "Agent"
        | "Task"
        | "TodoWrite"
        | "TaskCreate"
        | "TaskUpdate"
        | "TaskGet"
        | "TaskList"
        | "TaskOutput"
        | "TaskStop"
        | "BashOutput"
        | "KillShell"
        | "KillBash"
        | "ToolSearch"
        | "AskUserQuestion"
        | "EnterPlanMode"
        | "ExitPlanMode"
        | "ListMcpResourcesTool"
        | "StructuredOutput" => {}
        "CronCreate" | "ScheduleWakeup" | "RemoteTrigger" => out.note(Reason::Schedules, None),
        "Skill" | "SlashCommand" | "ReadMcpResourceTool" => out.note(Reason::KnownTool, None),
        _ => match tool.strip_prefix("mcp__").and_then(|rest| rest.split_once("__")) {
            Some(("claudenest", _)) => {}
            Some((_, name)) => mcp(name, input, scope, out),
            None => unknown(out, Reason::UnknownTool),
        },
    }
    if hides_characters(input, 0) {
        out.note(Reason::HiddenCharacters, None);
    }
}

fn unknown(out: &mut Assessment, reason: Reason) {
    out.note(reason, None);
    out.has_unknown_writes = true;
    out.is_understood = false;
}

fn home_path(path: &str, scope: &Scope<'_>) -> std::path::PathBuf {
    match (path.strip_prefix('~'), scope.home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            place::join(home, rest.trim_start_matches('/'))
        }
        _ => place::join(scope.cwd, path),
    }
}

fn reads(path: Option<&str>, scope: &Scope<'_>, out: &mut Assessment) {
    match path {
        Some(path) => read_of(&home_path(path, scope), scope, None, out),
        None => unknown(out, Reason::UnknownTool),
    }
}

/// Notes what reading `path` means.
pub(super) fn read_of(path: &std::path::Path, scope: &Scope<'_>, part: Option<&str>, out: &mut Assessment) {
    if place::is_secret(path, scope) {
        out.note(Reason::Secrets, part);
    } else if place::is_secret_like(path) {
        out.note(Reason::SecretFile, part);
    }
    match place::of(path, scope) {
        Place::Project => {}
        // These give without end, or wait for somebody's keys.
        Place::Stream
            if ["/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty"]
                .iter()
                .any(|name| path == std::path::Path::new(name)) =>
        {
            out.note(Reason::Device, part);
        }
        Place::Stream => {}
        Place::Device => out.note(Reason::Device, part),
        // Git's settings may hold credentials of remotes, those of Claude Code keys of servers.
        Place::GitControl | Place::Guard if path.starts_with(scope.project) => {}
        _ => out.note(Reason::ReadsOutside, part),
    }
}

fn writes(path: &str, scope: &Scope<'_>, out: &mut Assessment) {
    write_of(home_path(path, scope), false, scope, None, out);
}

/// Notes what writing `path` means and remembers it.
pub(super) fn write_of(
    path: std::path::PathBuf,
    is_tree: bool,
    scope: &Scope<'_>,
    part: Option<&str>,
    out: &mut Assessment,
) {
    match place::of(&path, scope) {
        Place::Stream => return,
        Place::Project | Place::Temporary | Place::ClaudeNotes => {}
        Place::Device => out.note(Reason::Disk, part),
        Place::Guard => out.note(Reason::Guard, part),
        Place::Startup => out.note(Reason::Startup, part),
        Place::GitControl => out.note(Reason::GitRunsPrograms, part),
        Place::Outside => out.note(Reason::WritesOutside, part),
    }
    out.write(path, is_tree);
}

fn mcp(name: &str, input: &Value, scope: &Scope<'_>, out: &mut Assessment) {
    out.note(Reason::McpTool, None);
    let verb = name.split(['_', '-', '.']).next().unwrap_or_default().to_lowercase();
    if READING_VERBS.contains(&verb.as_str()) {
        return;
    }
    out.has_unknown_writes = true;
    for field in
        ["path", "file_path", "filePath", "file", "filename", "destination", "target_file", "notebook_path"]
    {
        if let Some(path) = input.get(field).and_then(Value::as_str) {
            writes(path, scope, out);
        }
    }
}

/// Characters that hide or reorder text, or control a terminal.
pub(super) fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\t' | '\r' => false,
        // A mark of the byte order, soft hyphen, Arabic letter mark, Hangul fillers, Mongolian vowel separator, zero width,
        // marks and overrides of direction, word joiner and invisible operators, variation selectors, interlinear
        // marks, musical controls, tags.
        '\u{feff}'
        | '\u{ad}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{3164}'
        | '\u{ffa0}'
        | '\u{180b}'..='\u{180f}' => true,
        '\u{200b}'
        | '\u{200c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' => true,
        '\u{2028}'
        | '\u{2029}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        c => c.is_control(),
    }
}

/// Only strings that become paths, addresses or commands count: contents of files may hold anything.
fn hides_characters(input: &Value, depth: usize) -> bool {
    const CONTENT: &[&str] = &[
        "content",
        "old_string",
        "new_string",
        "new_source",
        "edits",
        "prompt",
        "description",
        "text",
        "body",
        "plan",
        "questions",
        "todos",
        "message",
    ];
    match input {
        Value::String(text) => text.chars().any(is_hidden),
        Value::Array(items) => depth < 8 && items.iter().any(|item| hides_characters(item, depth + 1)),
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !CONTENT.contains(&name.as_str()))
            .any(|(_, value)| depth < 8 && hides_characters(value, depth + 1)),
        _ => false,
    }
}

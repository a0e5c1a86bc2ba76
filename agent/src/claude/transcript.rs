//! What Claude Code's record of a conversation says about tool calls: what became of them, and by whose word.
//!
//! Observed with 2.1.329: the line with a `tool_result` has `permissionDecision {decision, source}` (`user_temporary`,
//! `user_permanent`, `user_reject`, `hook`, `config`), and a refused call has `toolDenialKind` (`user-rejected`, `permission-rule`).
//! A "No" in the dialog and Esc are told nowhere else: no hook fires.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// The end of the record that is looked at: results of the calls that somebody was asked about a moment ago. Longer than any result
/// that Claude Code keeps in its record.
const TAIL_BYTES: u64 = 2 * 1024 * 1024;

/// What became of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The tool was used, well or not.
    Used,
    /// A person said no in the terminal.
    RefusedByPerson,
    /// It was not used for another reason: a rule, a hook, the end of the turn.
    RefusedOtherwise,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    message: Option<Message>,
    permission_decision: Option<Decision>,
    tool_denial_kind: Option<String>,
}

#[derive(Deserialize)]
struct Decision {
    decision: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Value>,
}

/// What the record at `path` says of these calls. Blocking; reads at most the last 2 MiB.
pub fn fates(path: &Path, calls: &[String]) -> Vec<(String, Fate)> {
    let Ok(mut file) = std::fs::File::open(path) else { return Vec::new() };
    let length = file.metadata().map_or(0, |file| file.len());
    let mut text = Vec::new();
    let read = file
        .seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))
        .and_then(|_| file.take(TAIL_BYTES).read_to_end(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&text);
    text.lines().filter(|line| line.contains("tool_result")).flat_map(|line| of_line(line, calls)).collect()
}

fn of_line(text: &str, calls: &[String]) -> Vec<(String, Fate)> {
    let Ok(line) = serde_json::from_str::<Line>(text) else { return Vec::new() };
    let Some(Value::Array(content)) = line.message.as_ref().and_then(|message| message.content.as_ref())
    else {
        return Vec::new();
    };
    let results =
        content.iter().filter(|part| part.get("type").and_then(Value::as_str) == Some("tool_result"));
    let of_call = |result: &Value| {
        let call = result.get("tool_use_id").and_then(Value::as_str)?;
        let call = calls.iter().find(|wanted| *wanted == call)?;
        Some((call.clone(), fate(&line, result)))
    };
    results.filter_map(of_call).collect()
}

fn fate(line: &Line, result: &Value) -> Fate {
    let decision = line.permission_decision.as_ref();
    let source = decision.and_then(|decision| decision.source.as_deref());
    let is_rejected = decision.is_some_and(|decision| decision.decision.as_deref() == Some("reject"));
    let kind = line.tool_denial_kind.as_deref();
    // 2.1.197 says it in the result only.
    let text = result.get("content").and_then(Value::as_str).unwrap_or_default();
    let is_old_no = kind.is_none()
        && decision.is_none()
        && result.get("is_error").and_then(Value::as_bool) == Some(true)
        && text.starts_with("The user doesn't want to");
    match (kind, source) {
        // In print mode nobody was asked although it is called a rejection by the user.
        (Some(_), Some("config" | "hook")) => Fate::RefusedOtherwise,
        (Some("user-rejected"), _) | (_, Some("user_reject")) => Fate::RefusedByPerson,
        _ if is_old_no => Fate::RefusedByPerson,
        (Some(_), _) => Fate::RefusedOtherwise,
        _ if is_rejected => Fate::RefusedOtherwise,
        _ => Fate::Used,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(extra: Value, is_error: bool, content: &str, expected: Fate) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.jsonl");
        let mut line = json!({"type": "user", "message": {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": is_error, "content": content}]}});
        line.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        std::fs::write(&path, format!("{{\"type\":\"mode\"}}\nnot json tool_result\n{line}\n")).unwrap();
        let calls = ["toolu_0".to_owned(), "toolu_1".to_owned()];
        assert_eq!(fates(&path, &calls), [("toolu_1".to_owned(), expected)], "{line}");
        assert_eq!(fates(&path, &calls[..1]), []);
    }

    /// Each as Claude Code 2.1.329 wrote it, but for shortened texts.
    #[test]
    fn every_observed_end_of_a_call_is_told_apart() {
        let decided = |decision: &str, source: &str| json!({"permissionDecision": {"decision": decision, "source": source}});
        let denied = |decision: &str, source: &str, kind: &str| json!({"permissionDecision": {"decision": decision, "source": source}, "toolDenialKind": kind});
        check(decided("accept", "user_temporary"), false, "done", Fate::Used);
        check(decided("accept", "hook"), true, "Exit code 3", Fate::Used);
        // Esc and "No".
        let esc = json!({"toolDenialKind": "user-rejected", "toolDenialBeforeRun": true});
        check(esc, true, "The user doesn't want to proceed", Fate::RefusedByPerson);
        check(
            denied("reject", "user_reject", "user-rejected"),
            true,
            "… the user said:\nno",
            Fate::RefusedByPerson,
        );
        // Denied by the hook, and by print mode, where nobody is asked.
        check(denied("reject", "hook", "permission-rule"), true, "Denied by alice", Fate::RefusedOtherwise);
        check(denied("reject", "config", "user-rejected"), true, "needs approval", Fate::RefusedOtherwise);
        // 2.1.197 has no such fields.
        check(json!({}), true, "The user doesn't want to proceed with this tool use.", Fate::RefusedByPerson);
        check(json!({}), true, "File does not exist.", Fate::Used);
        assert_eq!(fates(Path::new("/nowhere"), &["toolu_1".to_owned()]), []);
    }
}

//! The tools as Claude sees them. Every word costs context in every session, so they are few.

use serde_json::{Value, json};

/// What Claude is told about the server.
pub const INSTRUCTIONS: &str = "Other Claude sessions may work in the same files. Your first write to a file locks it for \
you; a write to a file that another session has locked is refused. Lock a directory before a change that spans many \
files, and give it back when you are done.";

/// True if there is such a tool.
pub fn is_known(name: &str) -> bool {
    list().iter().any(|tool| tool["name"] == name)
}

/// Every tool with its schema.
pub fn list() -> Vec<Value> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let seconds = |description: &str, least: u32, most: u32| json!({"type": "integer", "minimum": least, "maximum": most, "description": description});
    vec![
        tool(
            "lock_acquire",
            "Lock a file or directory so that no other session can change it. Locking it again renews the lock.",
            json!({
                "path": text("Path of the file or directory; it need not exist yet."),
                "directory": {"type": "boolean", "description": "Lock a directory with everything below. Default: what the path is."},
                "reason": text("Why; shown to those who are refused."),
                "lease_s": seconds("Seconds without activity of yours after which it ends. Default 1800.", 10, 86_400),
                "wait_s": seconds("Seconds to wait if another has it. Default 0.", 0, 3_600),
            }),
            &["path"],
        ),
        tool(
            "lock_release",
            "Give back a lock of yours.",
            json!({"path": text("Path that is locked."), "lock": text("Or the lock's id.")}),
            &[],
        ),
        tool(
            "lock_list",
            "List the locks on this machine: who has which file, why, until when.",
            json!({}),
            &[],
        ),
        tool("session_list", "List the Claude sessions on this machine.", json!({}), &[]),
        tool(
            "session_message",
            "Send a text into another session's conversation. It is given when that session next waits for a prompt.",
            json!({
                "to": text("Name or id of the session."),
                "text": text("What to say."),
                "wait_s": seconds("Seconds to wait until it can be given. Default 60.", 0, 3_600),
            }),
            &["to", "text"],
        ),
        tool(
            "ask_human",
            "Ask the user something and wait for the answer, also when nobody sits at the terminal: the question goes to their \
             inbox in the browser and on the phone.",
            json!({"question": text("The question.")}),
            &["question"],
        ),
    ]
}

fn tool(name: &str, description: &str, properties: Value, required: &[&str]) -> Value {
    json!({
        "name": name,
        "description": description,
        "inputSchema": {
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        },
    })
}

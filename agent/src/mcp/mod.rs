//! `claudenest-agent mcp`: the MCP server that Claude Code speaks to in a supervised session, over standard input and
//! output. A client of the control socket with the session's capability, and able to do no more than that session may.
//!
//! JSON-RPC 2.0, one message on a line (Model Context Protocol, transport "stdio"). Calls run side by side, each with its
//! own connection to the daemon: a lock that is waited for holds up nothing else. Plain threads: there is one such process
//! for each session.

mod call;
mod tools;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::control::Identity;

/// Name of the server in Claude Code's configuration; tools are called `mcp__claudenest__…` there.
pub const SERVER: &str = "claudenest";
/// Versions of the protocol that are spoken; they do not differ in what is used here. Newest first.
const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Calls at the same time: Claude Code makes a few.
const MAX_CALLS: usize = 32;
/// Longest line: a message of a session has some thousand characters.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// A tool's name as Claude Code knows it.
pub fn tool_name(tool: &str) -> String {
    format!("mcp__{SERVER}__{tool}")
}

/// Who this is for, and where the daemon listens.
#[derive(Clone)]
struct Home {
    identity: Identity,
    socket: PathBuf,
}

/// Calls under way, by the request's id as JSON text. A call that is cancelled loses its connection.
type Calls = Arc<Mutex<HashMap<String, Option<UnixStream>>>>;

/// Serves until standard input ends.
pub fn main() -> ExitCode {
    let identity = Identity::from_env();
    let socket = std::env::var_os("CLAUDENEST_SOCKET").map(PathBuf::from);
    let (Identity::Session { .. }, Some(socket)) = (&identity, socket) else {
        eprintln!(
            "claudenest-agent: `mcp` is started by Claude Code in a supervised session. Start one: claudenest-agent claude"
        );
        return ExitCode::from(2);
    };
    let home = Home { identity, socket };
    let calls = Calls::default();
    let mut input = std::io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let mut limited = std::io::Read::take(&mut input, MAX_LINE_BYTES);
        match limited.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            say(&failure(&Value::Null, -32700, "This is not JSON."));
            if !line.ends_with(b"\n") {
                break; // Where the next message begins is not known any more.
            }
            continue;
        };
        if let Some(answer) = take(&home, &calls, &message) {
            say(&answer);
        }
    }
    ExitCode::SUCCESS
}

fn held(calls: &Calls) -> MutexGuard<'_, HashMap<String, Option<UnixStream>>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a message; the answer, unless it comes later or there is none.
fn take(home: &Home, calls: &Calls, message: &Value) -> Option<Value> {
    let method = message.get("method").and_then(Value::as_str);
    let params = message.get("params").unwrap_or(&Value::Null);
    let Some(id) = message.get("id").filter(|id| id.is_string() || id.is_number()) else {
        if method == Some("notifications/cancelled")
            && let Some(id) = params.get("requestId")
            && let Some(Some(stream)) = held(calls).remove(&id.to_string())
        {
            let _ = stream.shutdown(Shutdown::Both);
        }
        return match (message.is_object(), method) {
            (true, Some(_)) => None,
            _ => Some(failure(&Value::Null, -32600, "This is not a request.")),
        };
    };
    match method {
        Some("initialize") => Some(success(id, initialized(params))),
        Some("ping") => Some(success(id, json!({}))),
        Some("tools/list") => Some(success(id, json!({"tools": tools::list()}))),
        Some("tools/call") => start(home, calls, id, params),
        Some(other) => Some(failure(id, -32601, &format!("The method {other} is not known."))),
        // An answer: this server asks nothing.
        None if message.get("result").is_some() || message.get("error").is_some() => None,
        None => Some(failure(id, -32600, "This is not a request.")),
    }
}

fn initialized(params: &Value) -> Value {
    let wanted = params.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
    let version = VERSIONS.iter().find(|version| **version == wanted).unwrap_or(&VERSIONS[0]);
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": SERVER, "version": env!("CARGO_PKG_VERSION")},
        "instructions": tools::INSTRUCTIONS,
    })
}

/// Runs a call beside the others.
fn start(home: &Home, calls: &Calls, id: &Value, params: &Value) -> Option<Value> {
    let Some(tool) = params.get("name").and_then(Value::as_str).filter(|name| tools::is_known(name)) else {
        return Some(failure(id, -32602, "There is no such tool."));
    };
    let key = id.to_string();
    {
        let mut under_way = held(calls);
        if under_way.len() >= MAX_CALLS || under_way.contains_key(&key) {
            return Some(failure(id, -32603, "Too many calls are under way. Wait for one of them."));
        }
        under_way.insert(key.clone(), None);
    }
    let arguments = params.get("arguments").cloned().unwrap_or_else(|| json!({}));
    let (home, calls, id, tool) = (home.clone(), Arc::clone(calls), id.clone(), tool.to_owned());
    let run = move || {
        let connected = |stream: &UnixStream| {
            if let Some(place) = held(&calls).get_mut(&key) {
                *place = stream.try_clone().ok();
            }
        };
        let result = call::run(&home, &tool, &arguments, connected);
        // A call that was cancelled has no answer.
        if held(&calls).remove(&key).is_some() {
            let (text, is_error) = match result {
                Ok(text) => (text, false),
                Err(text) => (text, true),
            };
            say(&success(&id, json!({"content": [{"type": "text", "text": text}], "isError": is_error})));
        }
    };
    std::thread::spawn(run);
    None
}

fn success(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

fn failure(id: &Value, code: i32, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

/// One message on one line, whole.
fn say(message: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{message}\n").as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudenest_shared::id::SessionId;

    fn ask(message: Value) -> Option<Value> {
        let identity =
            Identity::Session { session: SessionId::from_bytes([1; 16]), capability: "c".to_owned() };
        let home = Home { identity, socket: "/nonexistent/socket".into() };
        take(&home, &Calls::default(), &message)
    }

    #[test]
    fn the_version_of_the_client_is_spoken_if_it_is_known() {
        for (asked, answered) in
            [("2024-11-05", "2024-11-05"), ("2025-11-25", "2025-11-25"), ("1999-01-01", "2025-11-25")]
        {
            let answer = ask(json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
                                    "params": {"protocolVersion": asked}}));
            assert_eq!(answer.unwrap()["result"]["protocolVersion"], answered);
        }
    }

    #[test]
    fn every_tool_has_a_schema_and_unknown_things_have_errors() {
        let list = ask(json!({"jsonrpc": "2.0", "id": "a", "method": "tools/list"})).unwrap();
        let tools = list["result"]["tools"].as_array().unwrap();
        let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            ["lock_acquire", "lock_release", "lock_list", "session_list", "session_message", "ask_human"]
        );
        assert!(tools.iter().all(|tool| tool["inputSchema"]["type"] == "object"));
        let code = |message: Value| ask(message).unwrap()["error"]["code"].as_i64().unwrap();
        assert_eq!(code(json!({"id": 1, "method": "resources/list"})), -32601);
        assert_eq!(code(json!({"id": 1, "method": "tools/call", "params": {"name": "rm"}})), -32602);
        assert_eq!(code(json!({"id": 1})), -32600);
        assert_eq!(code(json!([1])), -32600);
        assert_eq!(ask(json!({"method": "notifications/initialized"})), None);
        assert_eq!(ask(json!({"id": 1, "result": {}})), None);
        assert_eq!(ask(json!({"id": 1, "method": "ping"})).unwrap()["result"], json!({}));
    }
}

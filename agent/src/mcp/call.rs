//! One call of a tool: asks the daemon, and puts the answer into words for Claude.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use claudenest_shared::lock::{Lock, LockHolder, LockKind};
use claudenest_shared::wire::agent::{AgentMessage, Op, RelayMessage, Reply};
use serde_json::{Value, json};

use super::Home;
use crate::control::{
    ClientMessage, DaemonMessage, Identity, NestAnswer, NestWish, Packet, decode, encode_json,
};

const NO_DAEMON: &str =
    "The ClaudeNest daemon does not run, so nothing was done. Tell the user: claudenest-agent run";
const NOT_UNDERSTOOD: &str =
    "The ClaudeNest daemon is of another version and was not understood. Tell the user to restart it.";

/// Runs a tool; `Err` is a text for Claude as well.
pub(super) fn run(
    home: &Home,
    tool: &str,
    arguments: &Value,
    connected: impl FnOnce(&UnixStream),
) -> Result<String, String> {
    let text = |key: &str| arguments.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |key: &str| match arguments.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .map(Some)
            .ok_or_else(|| format!("{key} is a number of seconds.")),
    };
    let mut daemon = Daemon::connect(home, connected)?;
    match tool {
        "lock_acquire" => {
            let path = absolute(&text("path").ok_or("path is missing.")?)?;
            let is_directory =
                arguments.get("directory").and_then(Value::as_bool).unwrap_or_else(|| path.is_dir());
            let op = Op::LockAcquire {
                path: path.to_string_lossy().into_owned(),
                kind: if is_directory { LockKind::Directory } else { LockKind::File },
                lease_s: number("lease_s")?,
                reason: text("reason"),
                by: None,
                wait_s: number("wait_s")?,
            };
            let locks = daemon.locks(op)?;
            let lock = locks.first().ok_or(NOT_UNDERSTOOD)?;
            Ok(format!(
                "Locked. No other session can change it until you give it back with lock_release, your session ends, or \
                 you do nothing for the time of the lease.\n{}",
                json!(told(lock, home))
            ))
        }
        "lock_release" => {
            let lock = daemon.own_lock(text("lock"), text("path"), home)?;
            daemon.op(Op::LockRelease { lock: lock.id, force: false, reason: None, by: None })?;
            Ok(format!("{} is free again.", lock.path))
        }
        "lock_list" => {
            let locks: Vec<Value> =
                daemon.locks(Op::LockList {})?.iter().map(|lock| told(lock, home)).collect();
            Ok(json!({"locks": locks}).to_string())
        }
        "session_list" => match daemon.nest(NestWish::Sessions {})? {
            NestAnswer::Sessions { sessions } => Ok(json!({"sessions": sessions}).to_string()),
            _ => Err(NOT_UNDERSTOOD.to_owned()),
        },
        "session_message" => {
            let to = text("to").ok_or("to is missing.")?;
            let message = text("text").ok_or("text is missing.")?;
            daemon.nest(NestWish::Message { to: to.clone(), text: message, wait_s: number("wait_s")? })?;
            Ok(format!("Sent to {to}. An answer, if there is one, comes as a message to you."))
        }
        "ask_human" => {
            let call = uuid::Uuid::now_v7().to_string();
            match daemon.nest(NestWish::AskHuman { input: arguments.clone(), call })? {
                NestAnswer::Said { by, text } => Ok(format!("{by} answers: {text}")),
                _ => Err(NOT_UNDERSTOOD.to_owned()),
            }
        }
        other => Err(format!("There is no tool {other}.")),
    }
}

/// A connection to the daemon, for one call.
struct Daemon {
    stream: UnixStream,
    buffer: BytesMut,
}

impl Daemon {
    fn connect(home: &Home, connected: impl FnOnce(&UnixStream)) -> Result<Self, String> {
        let stream = UnixStream::connect(&home.socket).map_err(|_| NO_DAEMON)?;
        connected(&stream);
        let mut daemon = Self { stream, buffer: BytesMut::new() };
        daemon.send(&home.identity.hello())?;
        Ok(daemon)
    }

    fn send(&mut self, message: &impl serde::Serialize) -> Result<(), String> {
        let bytes = encode_json(message).map_err(|error| error.to_string())?;
        self.stream.write_all(&bytes).map_err(|_| NO_DAEMON.to_owned())
    }

    /// The next message in which `pick` finds something.
    fn until<T>(&mut self, pick: impl Fn(&[u8]) -> Option<Result<T, String>>) -> Result<T, String> {
        loop {
            while let Some(packet) = decode(&mut self.buffer).map_err(|_| NOT_UNDERSTOOD)? {
                let Packet::Json(json) = packet else { continue };
                if let Ok(DaemonMessage::Failed { error, .. }) = serde_json::from_slice(&json) {
                    return Err(error.message);
                }
                if let Some(found) = pick(&json) {
                    return found;
                }
            }
            let mut chunk = [0; 8192];
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return Err(NO_DAEMON.to_owned()),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    fn op(&mut self, op: Op) -> Result<Reply, String> {
        self.send(&RelayMessage::Request { request: 1, op })?;
        self.until(|json| match serde_json::from_slice(json) {
            Ok(AgentMessage::Response { reply: Reply::Error { error }, .. }) => Some(Err(error.message)),
            Ok(AgentMessage::Response { reply, .. }) => Some(Ok(reply)),
            _ => None,
        })
    }

    fn locks(&mut self, op: Op) -> Result<Vec<Lock>, String> {
        match self.op(op)? {
            Reply::Locks { locks } => Ok(locks),
            _ => Err(NOT_UNDERSTOOD.to_owned()),
        }
    }

    fn nest(&mut self, wish: NestWish) -> Result<NestAnswer, String> {
        self.send(&ClientMessage::Nest { request: 1, wish })?;
        self.until(|json| match serde_json::from_slice(json) {
            Ok(DaemonMessage::Nest { answer, .. }) => Some(Ok(answer)),
            _ => None,
        })
    }

    fn own_lock(&mut self, id: Option<String>, path: Option<String>, home: &Home) -> Result<Lock, String> {
        if id.is_none() && path.is_none() {
            return Err("Name the lock by its path or id.".to_owned());
        }
        let path = path.map(|path| absolute(&path)).transpose()?;
        let path = path.map(|path| path.canonicalize().unwrap_or(path));
        let is_it = |lock: &Lock| {
            id.as_ref().is_some_and(|id| lock.id.to_string() == *id)
                || path.as_ref().is_some_and(|path| Path::new(&lock.path) == path)
        };
        let mut found: Vec<Lock> = self.locks(Op::LockList {})?.into_iter().filter(is_it).collect();
        // Two locks on one file belong to one holder: to this session, or the daemon will say whose they are.
        found.sort_by_key(|lock| !is_own(lock, home));
        let first = found.into_iter().next();
        first.ok_or_else(|| "There is no such lock; it may have ended. See lock_list.".to_owned())
    }
}

fn is_own(lock: &Lock, home: &Home) -> bool {
    matches!((&lock.holder, &home.identity),
        (LockHolder::Session { session, .. }, Identity::Session { session: own, .. }) if session == own)
}

/// A lock in few words.
fn told(lock: &Lock, home: &Home) -> Value {
    let holder = match &lock.holder {
        LockHolder::Session { name, .. } => name,
        LockHolder::Person { label } => label,
    };
    json!({
        "lock": lock.id, "path": lock.path, "kind": lock.kind, "holder": holder, "is_yours": is_own(lock, home),
        "reason": lock.reason, "fence": lock.fence, "expires_at": time_text(lock.expires_at.0),
        "waiting": lock.waiters.len(),
    })
}

fn time_text(ms: i64) -> String {
    use time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// Relative to the directory that Claude Code was started in, which is also this program's.
fn absolute(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() {
        return Err("path is empty.".to_owned());
    }
    let path = Path::new(path);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let cwd = std::env::current_dir().map_err(|error| format!("The current directory is gone: {error}"))?;
    Ok(cwd.join(path))
}

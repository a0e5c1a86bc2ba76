//! `claudenest-agent hook`: called by Claude Code, tells the daemon what happens in a session, and what must not happen.
//!
//! Two kinds of events. *Gates* (`PreToolUse`, `PermissionRequest`) fail closed: whatever goes wrong here, the program ends with
//! 2 and says why in plain words, and the tool does not run. All others only *report*: they never stand in Claude Code's way
//! and end with 0 within two seconds. An input that cannot be read is taken for a gate.
//!
//! Invariants: no async runtime, no configuration, nothing read but standard input and three variables: this program stands
//! between Claude and every tool. A gate gives up before Claude Code would, because Claude Code's own giving up is
//! not the same in every version.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::Value;

use crate::claude::answer::HookOutput;
use crate::claude::hooks::{GATE_TIMEOUT_S, is_gate};
use crate::control::{ClientMessage, DaemonMessage, Identity, Packet, decode, encode_json};

/// Claude Code itself gives up a report after five seconds and tells the user; this stays below.
const REPORT_DEADLINE: Duration = Duration::from_secs(2);
/// A gate gives up a minute before Claude Code would.
const GATE_DEADLINE: Duration = Duration::from_secs(GATE_TIMEOUT_S as u64 - 60);
/// A daemon that is not there gets this long: an update restarts it within a second or two.
const DAEMON_PATIENCE: Duration = Duration::from_secs(10);
/// A daemon that accepts the connection and does not greet is stuck; a busy machine greets within milliseconds.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);
/// Rules answer within milliseconds: what takes longer waits for a person.
const RULES_TAKE: Duration = Duration::from_secs(1);
/// How often it is looked for, at first and later.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Larger inputs do not exist: Claude Code reads files of at most some MiB.
const MAX_INPUT_BYTES: u64 = 12 * 1024 * 1024;
/// Results of tools are not needed for the state and may be large.
const LARGEST_RESULT_BYTES: usize = 64 * 1024;

/// Runs the hook and says how to exit.
pub fn main() -> ExitCode {
    let started = Instant::now();
    // Until the input is read, nobody knows which kind of event it is: then it is one that blocks.
    let (is_known, kind) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let deadline = match kind.recv_timeout(GATE_DEADLINE) {
            Ok(true) => GATE_DEADLINE,
            Ok(false) => {
                std::thread::sleep(REPORT_DEADLINE.saturating_sub(started.elapsed()));
                // Covers every way to hang: the socket, a daemon that was stopped.
                std::process::exit(0);
            }
            Err(_) => Duration::ZERO,
        };
        std::thread::sleep(deadline.saturating_sub(started.elapsed()));
        let _ = std::io::stderr().write_all(refusal("there was no answer in time").as_bytes());
        std::process::exit(2);
    });
    let output = match Event::read() {
        Ok(event) => {
            let _ = is_known.send(event.is_gate);
            if event.is_gate { gate(&event, started) } else { report(&event).unwrap_or_default() }
        }
        Err(why) => HookOutput::blocked(refusal(why)),
    };
    end(&output)
}

/// Prints what there is to print. What cannot be printed was not said: then it blocks.
fn end(output: &HookOutput) -> ExitCode {
    if let Some(json) = &output.stdout {
        let mut stdout = std::io::stdout().lock();
        if writeln!(stdout, "{json}").and_then(|()| stdout.flush()).is_err() {
            return ExitCode::from(2);
        }
    }
    if !output.stderr.is_empty() {
        let _ = writeln!(std::io::stderr(), "{}", output.stderr);
    }
    ExitCode::from(output.exit_code)
}

fn refusal(why: &str) -> String {
    format!("ClaudeNest did not let this tool run: {why}. Nobody has denied it.")
}

struct Event {
    input: Value,
    is_gate: bool,
    /// Claude Code shows its dialog meanwhile, where somebody may answer.
    has_dialog: bool,
}

impl Event {
    fn read() -> Result<Self, &'static str> {
        let mut text = Vec::new();
        let read = std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_end(&mut text);
        read.map_err(|_| "its hook could not read what Claude Code wants to do")?;
        let mut input: Value = serde_json::from_slice(&text).map_err(
            |_| "its hook did not understand what Claude Code wants to do; update claudenest-agent",
        )?;
        if let Some(result) = input.get_mut("tool_response")
            && text.len() > LARGEST_RESULT_BYTES
        {
            *result = Value::Null;
        }
        let event = input.get("hook_event_name").and_then(Value::as_str);
        let is_gate = event.is_none_or(is_gate);
        let has_dialog = event == Some("PermissionRequest");
        Ok(Self { input, is_gate, has_dialog })
    }
}

/// Why a gate has no answer yet.
enum Trouble {
    /// The daemon is not there, or was lost: worth another attempt.
    Away,
    /// It will not help to try again.
    Final(&'static str),
}

/// Asks until there is an answer, over restarts of the daemon.
fn gate(event: &Event, started: Instant) -> HookOutput {
    let mut random = [0u8; 16];
    if getrandom::fill(&mut random).is_err() {
        return HookOutput::blocked(refusal("the system gives no random numbers"));
    }
    let call: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let (mut pause, mut away_since) = (FIRST_PAUSE, Instant::now());
    // Once a daemon has heard a question that persons answer, the next daemon is waited for as long as for the person.
    let (mut was_heard, mut patience) = (false, DAEMON_PATIENCE);
    loop {
        let asked_at = Instant::now();
        match ask(event, &call, &mut was_heard) {
            Ok(output) => return output,
            Err(Trouble::Final(why)) => return HookOutput::blocked(refusal(why)),
            Err(Trouble::Away) => {
                if std::mem::take(&mut was_heard) {
                    (pause, away_since) = (FIRST_PAUSE, Instant::now());
                    if event.has_dialog || asked_at.elapsed() > RULES_TAKE {
                        patience = GATE_DEADLINE;
                    }
                }
                let is_over = away_since.elapsed() > patience || started.elapsed() > GATE_DEADLINE;
                if is_over {
                    return HookOutput::blocked(refusal(
                        "its agent's daemon does not run, so nobody could be asked. Start it with `claudenest-agent run`, \
                         or for good with `claudenest-agent service install`",
                    ));
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn ask(event: &Event, call: &str, was_heard: &mut bool) -> Result<HookOutput, Trouble> {
    let Some((identity, socket)) = surroundings() else {
        return Err(Trouble::Final("its hook was not started by a session of ClaudeNest"));
    };
    let mut stream = UnixStream::connect(socket).map_err(|_| Trouble::Away)?;
    let garbage = Trouble::Final(
        "its agent's daemon answered something that its hook does not understand; restart the daemon",
    );
    let away = |_| Trouble::Away;
    stream.set_read_timeout(Some(GREETING_PATIENCE)).map_err(away)?;
    stream.set_write_timeout(Some(GREETING_PATIENCE)).map_err(away)?;
    let hello =
        encode_json(&identity.hello()).map_err(|_| Trouble::Final("its hook has an unusable identity"))?;
    let question = ClientMessage::Hook { request: 1, input: event.input.clone(), call: call.to_owned() };
    let question = encode_json(&question)
        .map_err(|_| Trouble::Final("what Claude Code wants to do is too long to be checked"))?;
    stream.write_all(&[hello, question].concat()).map_err(away)?;
    let mut messages = Messages { stream, buffer: BytesMut::new() };
    loop {
        match messages.next()? {
            Some(DaemonMessage::Welcome { .. }) => {
                *was_heard = true;
                // From here on a person may take as long as it takes.
                messages.stream.set_read_timeout(None).map_err(away)?;
            }
            Some(DaemonMessage::Hooked { request: 1, output }) => return Ok(output),
            Some(DaemonMessage::Failed { .. }) => {
                return Err(Trouble::Final(
                    "its agent's daemon does not know this session any more; start a new one",
                ));
            }
            Some(_) => {}
            None => return Err(garbage),
        }
    }
}

struct Messages {
    stream: UnixStream,
    buffer: BytesMut,
}

impl Messages {
    /// The next message; `None` for one that is not understood.
    fn next(&mut self) -> Result<Option<DaemonMessage>, Trouble> {
        loop {
            match decode(&mut self.buffer) {
                Ok(Some(Packet::Json(json))) => return Ok(serde_json::from_slice(&json).ok()),
                Ok(Some(Packet::Frame(_))) | Err(_) => return Ok(None),
                Ok(None) => {}
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return Err(Trouble::Away),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

/// Who this is and where the daemon listens, from the environment that the daemon gave to the session.
fn surroundings() -> Option<(Identity, PathBuf)> {
    let identity = Identity::from_env();
    (identity != Identity::Operator).then_some(())?;
    Some((identity, PathBuf::from(std::env::var_os("CLAUDENEST_SOCKET")?)))
}

fn report(event: &Event) -> Option<HookOutput> {
    let (identity, socket) = surroundings()?;
    let mut stream = UnixStream::connect(socket).ok()?;
    let input = event.input.clone();
    stream.write_all(&encode_json(&identity.hello()).ok()?).ok()?;
    stream
        .write_all(&encode_json(&ClientMessage::Hook { request: 1, input, call: String::new() }).ok()?)
        .ok()?;
    let mut messages = Messages { stream, buffer: BytesMut::new() };
    loop {
        match messages.next().ok()?? {
            // A report blocks nothing, whatever the daemon says.
            DaemonMessage::Hooked { output, .. } if output.exit_code == 0 => return Some(output),
            DaemonMessage::Hooked { .. } | DaemonMessage::Failed { .. } => return None,
            _ => {}
        }
    }
}

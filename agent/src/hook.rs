//! `claudenest-agent hook`: called by Claude Code, tells the daemon what happens in a session.
//!
//! Reporting never stands in Claude Code's way: whatever goes wrong here, the program ends with 0 and says nothing, within
//! two seconds. A daemon that answers may give the hook something to print and another exit code; that is how
//! gates are built, which then fail closed by themselves.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::Value;

use crate::control::{ClientMessage, DaemonMessage, HookOutput, Identity, Packet, decode, encode_json};

/// Claude Code itself gives up after five seconds and tells the user; this stays below.
const DEADLINE: Duration = Duration::from_secs(2);
/// Larger inputs do not exist: Claude Code reads files of at most some MiB.
const MAX_INPUT_BYTES: u64 = 12 * 1024 * 1024;
/// Results of tools are not needed for the state and may be large.
const LARGEST_RESULT_BYTES: usize = 64 * 1024;

/// Runs the hook and says how to exit.
pub fn main() -> ExitCode {
    std::thread::spawn(|| {
        std::thread::sleep(DEADLINE);
        // Covers every way to hang: standard input, the socket, a daemon that was stopped.
        std::process::exit(0);
    });
    let output = report().unwrap_or_default();
    if let Some(json) = &output.stdout {
        println!("{json}");
    }
    if !output.stderr.is_empty() {
        eprintln!("{}", output.stderr);
    }
    ExitCode::from(output.exit_code)
}

fn report() -> Option<HookOutput> {
    let mut text = Vec::new();
    std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_end(&mut text).ok()?;
    let mut input: Value = serde_json::from_slice(&text).ok()?;
    if let Some(result) = input.get_mut("tool_response")
        && text.len() > LARGEST_RESULT_BYTES
    {
        *result = Value::Null;
    }
    let identity = Identity::from_env();
    if identity == Identity::Operator {
        return None; // Not started by a daemon.
    }
    let socket = PathBuf::from(std::env::var_os("CLAUDENEST_SOCKET")?);
    let mut stream = UnixStream::connect(socket).ok()?;
    let mut buffer = BytesMut::new();
    stream.write_all(&encode_json(&identity.hello()).ok()?).ok()?;
    stream.write_all(&encode_json(&ClientMessage::Hook { request: 1, input }).ok()?).ok()?;
    loop {
        while let Some(packet) = decode(&mut buffer).ok()? {
            let Packet::Json(json) = packet else { continue };
            match serde_json::from_slice(&json).ok()? {
                DaemonMessage::Hooked { output, .. } => return Some(output),
                DaemonMessage::Failed { .. } => return None,
                _ => {}
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).ok()? {
            0 => return None,
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}

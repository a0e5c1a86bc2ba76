//! What viewers see and do with the output that reaches them, judged by xterm.js.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod answers;
mod bombs;
mod fidelity;
mod robust;

use claudenest_agent::session::sanitise::{Event, Sanitiser};

/// The output as viewers get it, and what was taken out.
fn sanitised(raw: &[u8]) -> (Vec<u8>, Vec<Event>) {
    let mut sanitiser = Sanitiser::default();
    let (mut out, mut events) = (Vec::new(), Vec::new());
    sanitiser.push(raw, &mut out, &mut events);
    sanitiser.flush(&mut out);
    (out, events)
}

/// A number from the environment, for nights and for hunting.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

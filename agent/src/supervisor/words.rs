//! The words of the core: its limits, what it wants done, and how it says things.

use std::time::Duration;

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;

use crate::claude::Conversation;

/// Limits of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Most live sessions.
    pub max_sessions: u32,
    /// Most sessions that wait for a slot.
    pub max_queued: u32,
    /// Hibernate sessions that have waited for a prompt this long with nobody watching; off when absent.
    pub hibernate_after: Option<Duration>,
    /// Most resident memory of one session's process tree, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// End a session above the limit; otherwise its state says so.
    pub is_limit_enforced: bool,
}

impl Default for Limits {
    /// Ten sessions of about 300 MB each fit into a usual machine (SPEC S4).
    fn default() -> Self {
        Self {
            max_sessions: 10,
            max_queued: 50,
            hibernate_after: None,
            memory_limit_bytes: None,
            is_limit_enforced: false,
        }
    }
}

/// A signal for a session's process group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM: please leave.
    Terminate,
    /// SIGHUP: the terminal is gone. Interactive shells ignore SIGTERM.
    Hangup,
    /// SIGKILL, also for descendants that left the group.
    Kill,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
}

/// What a process is started with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// SHA-256 of its capability.
    pub capability_digest: String,
    /// Its conversation.
    pub conversation: Conversation,
    /// Its prompt.
    pub prompt: Option<String>,
    /// The boot of the machine.
    pub boot_id: String,
}

/// What the owner has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Make the record durable.
    Save(SessionId),
    /// Tell everybody.
    Changed(SessionId),
    /// Plan ([`Core::conversation`], [`Core::prepared`]), save and start a process.
    Launch(SessionId),
    /// Send a signal to the process group.
    Signal(SessionId, Signal),
    /// The exit is stored: the holder may go.
    ExitStored(SessionId),
    /// Remove the record and everything on disk, and tell everybody.
    Remove(SessionId),
}

pub(super) fn name_taken(name: &str) -> WireError {
    WireError::new(
        ErrorCode::NameTaken,
        format!(
            "Another session of this machine is called {name}. Choose another name, or forget that session if it has ended."
        ),
    )
}

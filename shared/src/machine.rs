//! What a machine says about itself, and the states in which a relay may truthfully show it.

use serde::{Deserialize, Serialize};

use crate::time::UnixMs;

/// Facts that the agent reports when its link comes up and when they change.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct MachineFacts {
    /// Host name, without control characters, at most 253 bytes.
    pub hostname: String,
    /// `linux` or `macos`.
    pub os: String,
    /// Name and version of the system as a person knows it, for example "Debian GNU/Linux 12".
    pub os_version: String,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
    /// Login name of the user that the agent runs as.
    pub user: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Version of Claude Code; absent when it was not found.
    pub claude_version: Option<String>,
    /// True if Claude Code has credentials; absent when unknown.
    pub claude_logged_in: Option<bool>,
    /// Things this agent can do, for example `modes.headless`; unknown ones are ignored.
    pub capabilities: Vec<String>,
    /// Most sessions that may run at once.
    pub max_sessions: u32,
    /// Number of CPUs.
    pub cpus: u32,
    /// Load average over one minute.
    pub load_1m: f64,
    /// Physical memory in bytes.
    pub memory_bytes: u64,
    /// Memory that programs could still get, in bytes.
    pub memory_available_bytes: u64,
    /// Directories below which sessions may start; empty means everywhere.
    pub roots: Vec<String>,
    /// Home directory of the user, the starting point of a directory picker.
    pub home: String,
}

/// State of a machine as a relay knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// The link is up.
    Online,
    /// The agent said that the machine goes to sleep.
    Asleep,
    /// The link was lost without a goodbye: network gone, power gone, or the process killed.
    Unreachable,
    /// The agent said goodbye: it was stopped by a person or by the system.
    Stopped,
    /// Paired, but the agent has never connected.
    NeverConnected,
    /// The token was revoked or the machine removed itself; it must be paired again.
    Revoked,
}

/// Why an agent closes its link on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoodbyeReason {
    /// The daemon ends.
    Stopping,
    /// The daemon restarts (an update) and will be back at once.
    Restarting,
    /// The machine is about to sleep.
    Sleeping,
    /// The machine gives up its token.
    Unpairing,
}

/// Resource use of one session's process tree, sampled every few seconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResourceUse {
    /// CPU use since the previous sample, in percent of one core.
    pub cpu_percent: f64,
    /// Resident memory in bytes, summed over the tree.
    pub memory_bytes: u64,
    /// Number of processes in the tree.
    pub processes: u32,
    /// When the sample was taken.
    pub sampled_at: UnixMs,
}

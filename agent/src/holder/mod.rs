//! The holder: one process per session that owns the terminal, the child, its exit status and its output.
//!
//! It survives the daemon, waits for nobody but the kernel, and knows nothing of networks, policies or escape
//! sequences. [`main`] is the process; [`spawn`] starts one; everything else speaks [`claudenest_shared::wire::holder`]
//! to its socket.

use std::path::PathBuf;

use claudenest_shared::id::SessionId;
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::holder::IoKind;
use serde::{Deserialize, Serialize};

mod child;
mod connection;
mod core;
mod exit;
#[cfg(test)]
pub(crate) mod model;
mod outlet;
mod process;
mod recorder;
mod recording;
mod spawn;
mod sys;

pub use exit::{ExitRecord, read_exit};
pub use recording::{INDEX_RECORD_BYTES, IndexKind, IndexRecord, Recording};
pub use spawn::{SpawnError, Spawned, spawn};

/// Bytes of output that a holder keeps in memory: about 200 screens of a busy TUI, and 20 s of a daemon restart at 200 KB/s.
pub const DEFAULT_RING_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of recording that a holder keeps on disk.
pub const DEFAULT_RECORDING_BYTES: u64 = 256 * 1024 * 1024;

/// Everything a holder needs to know. It travels as JSON on its standard input, never in arguments or environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HolderSpec {
    /// The session.
    pub session: SessionId,
    /// Number of this run of the session; grows with every restart.
    pub epoch: u32,
    /// Program (absolute path) and arguments.
    pub argv: Vec<String>,
    /// The whole environment of the child.
    pub env: Vec<(String, String)>,
    /// Working directory of the child.
    pub cwd: PathBuf,
    /// First size of the terminal.
    pub size: TermSize,
    /// Terminal or pipe.
    pub io: IoKind,
    /// Directory of this run, for `exit.json`, `holder.log` and the recording. One per epoch; made (0700) if missing.
    pub dir: PathBuf,
    /// Path of the socket, below 100 bytes.
    pub socket: PathBuf,
    /// Bytes of output kept in memory.
    pub ring_bytes: u64,
    /// Bytes of recording kept on disk; 0 records nothing.
    pub recording_bytes: u64,
}

/// The holder process. Call it before anything starts a thread or a runtime, and exit with what it returns.
pub fn main() -> std::process::ExitCode {
    process::run()
}

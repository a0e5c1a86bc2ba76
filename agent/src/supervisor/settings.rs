//! What the supervisor is told by configuration and paths.

use std::path::{Path, PathBuf};

use claudenest_shared::id::SessionId;

use super::core::Limits;
use crate::claude::Surroundings;
use crate::config::Config;
use crate::facts;
use crate::paths::Paths;
use crate::session::SessionConfig;

/// Everything that stays the same while the daemon runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits of sessions.
    pub limits: Limits,
    /// Directory with one directory per session.
    pub sessions_dir: PathBuf,
    /// Directory of the holders' sockets.
    pub runtime_dir: PathBuf,
    /// Configured path of Claude Code.
    pub claude_path: Option<PathBuf>,
    /// Directories below which sessions may start.
    pub roots: Vec<String>,
    /// Whether sessions are refused whose tools the guard could not hold back.
    pub refuses_unguarded: bool,
    /// What every session is given.
    pub surroundings: Surroundings,
    /// Output that holders keep in memory.
    pub ring_bytes: u64,
    /// Recording of one session on disk; 0 for none.
    pub recording_bytes: u64,
}

impl Settings {
    /// Puts together configuration, paths and the environment of this process. `agent_program` is the absolute
    /// path of this binary, for holders and hooks.
    pub fn new(config: &Config, paths: &Paths, agent_program: PathBuf) -> Self {
        let home = directories::BaseDirs::new()
            .map_or_else(|| PathBuf::from("/"), |dirs| dirs.home_dir().to_owned());
        Self {
            limits: Limits {
                max_sessions: config.max_sessions,
                max_queued: config.max_queued,
                hibernate_after: config.hibernate_after,
                memory_limit_bytes: config.memory_limit,
                is_limit_enforced: config.is_memory_limit_enforced,
            },
            sessions_dir: paths.sessions_dir(),
            runtime_dir: paths.runtime_dir.clone(),
            claude_path: config.claude_path.clone(),
            roots: config.roots.iter().map(|root| root.to_string_lossy().into_owned()).collect(),
            refuses_unguarded: config.refuses_unguarded,
            surroundings: Surroundings {
                environment: std::env::vars_os().collect(),
                passed: config.pass_env.clone(),
                agent_program,
                control_socket: paths.control_socket(),
                shell: config.shell.clone().unwrap_or_else(facts::login_shell),
                home,
            },
            ring_bytes: config.ring_bytes,
            recording_bytes: if config.recording { config.recording_session_bytes } else { 0 },
        }
    }

    /// Directory of everything about a session.
    pub fn session_dir(&self, session: SessionId) -> PathBuf {
        self.sessions_dir.join(session.to_string())
    }

    /// Where one run of a session lives.
    pub fn run(&self, session: SessionId, epoch: u32) -> SessionConfig {
        // The last 12 digits of a version 7 UUID are random.
        let hex = session.0.simple().to_string();
        SessionConfig {
            session,
            epoch,
            dir: run_dir(&self.session_dir(session), epoch),
            socket: self.runtime_dir.join(format!("h-{}-{epoch}", &hex[20..])),
        }
    }
}

pub(super) fn run_dir(session_dir: &Path, epoch: u32) -> PathBuf {
    session_dir.join(epoch.to_string())
}

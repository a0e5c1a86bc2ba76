//! What is known about a session: the durable record, and the short-lived rest.

use std::time::{Duration, Instant};

use claudenest_shared::id::SessionId;
use claudenest_shared::session::{
    SessionInfo, SessionMode, SessionSpec, SessionState, StateSource, TermSize,
};
use claudenest_shared::time::UnixMs;
use serde::{Deserialize, Serialize};

use crate::claude::HookFact;
use crate::reason::Reason;

/// Both clocks: one for durations, one for people.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic.
    pub instant: Instant,
    /// Wall clock.
    pub wall: UnixMs,
}

impl Now {
    /// The same moment, later: for deadlines.
    pub fn after(self, delay: Duration) -> Instant {
        self.instant + delay
    }
}

/// Why a process is being ended on purpose. Durable, so that an exit is understood even if the daemon
/// was killed between the wish and the exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Nobody asked for an end.
    #[default]
    None,
    /// A person wants it to end.
    Stop,
    /// It used more memory than the configuration allows.
    Limit,
    /// Keep the conversation, end the process.
    Hibernate,
    /// End it and start it again.
    Restart,
}

/// The durable part of a session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// What everybody sees.
    pub info: SessionInfo,
    /// What was asked for, with an absolute directory.
    pub spec: SessionSpec,
    /// SHA-256 of the current process's capability, hexadecimal.
    #[serde(default)]
    pub capability_digest: Option<String>,
    /// True once Claude Code has a conversation that `--resume` would find.
    #[serde(default)]
    pub has_conversation: bool,
    /// Directory in which the conversation was started; `--resume` works from there only.
    #[serde(default)]
    pub conversation_cwd: Option<String>,
    /// Automatic restarts after crashes since the last answered prompt.
    #[serde(default)]
    pub crash_restarts: u32,
    /// The boot during which the current process was started.
    #[serde(default)]
    pub boot_id: Option<String>,
    /// Why the process is being ended.
    #[serde(default)]
    pub wish: Wish,
    /// Prompt that the current process was started with.
    #[serde(default)]
    pub process_prompt: Option<String>,
    /// Prompt for the next start of an existing conversation (a message that woke the session).
    #[serde(default)]
    pub pending_prompt: Option<String>,
    /// Order in the queue of starts.
    #[serde(default)]
    pub queued_at: UnixMs,
}

impl Record {
    /// A session that was just asked for.
    pub fn new(id: SessionId, name: String, spec: SessionSpec, now: UnixMs) -> Self {
        let info = SessionInfo {
            id,
            name,
            machine_id: None,
            mode: spec.mode,
            cwd: spec.cwd.clone(),
            state: SessionState::Created,
            state_since: now,
            state_reason: None,
            state_notes: Vec::new(),
            state_source: StateSource::Process,
            created_at: now,
            started_at: None,
            ended_at: None,
            pid: None,
            exit: None,
            size: spec.size.map_or_else(TermSize::default, |size| TermSize::clamped(size.cols, size.rows)),
            size_owner: None,
            model: spec.model.clone(),
            permission_mode: spec.permission_mode,
            title: None,
            claude_session_id: None,
            worktree: spec.worktree.clone(),
            viewers: 0,
            epoch: 0,
            output_bytes: 0,
            attempts: 0,
            is_resumable: false,
            resources: None,
            recording_problem: None,
        };
        Self {
            info,
            spec,
            capability_digest: None,
            has_conversation: false,
            conversation_cwd: None,
            crash_restarts: 0,
            boot_id: None,
            wish: Wish::None,
            process_prompt: None,
            pending_prompt: None,
            queued_at: now,
        }
    }

    /// The conversation that a new start would take up.
    pub fn resumable(&self) -> Option<&str> {
        let has_turns = matches!(self.spec.mode, SessionMode::Interactive | SessionMode::Headless);
        self.info.claude_session_id.as_deref().filter(|_| has_turns && self.has_conversation)
    }
}

/// The part of a session that a new daemon finds out again.
#[derive(Clone, Debug, Default)]
pub(super) struct Volatile {
    /// Not before this moment may the next start be tried.
    pub not_before: Option<Instant>,
    /// When the process group is killed.
    pub kill_at: Option<Instant>,
    /// When the absence of a first hook means a first-run dialog.
    pub first_sign_by: Option<Instant>,
    /// Digest of the tool call whose permission dialog is open.
    pub open_dialog: Option<u64>,
    /// State to go back to after a pause.
    pub before_pause: Option<(SessionState, Option<Reason>, StateSource)>,
    /// A start is under way and its process is not known yet.
    pub is_launching: bool,
    /// The first output was faster than the news that its process runs.
    pub has_output: bool,
    /// Hooks that were faster than the news that their process runs.
    pub early_hooks: Vec<HookFact>,
    /// The current process was given a prompt.
    pub has_prompt: bool,
    /// A warning about the memory limit was given for this process.
    pub is_warned: bool,
}

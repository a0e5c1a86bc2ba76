//! Sessions: what a user may ask for, what a session is, and which state may follow which.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{MachineId, SessionId};
use crate::machine::ResourceUse;
use crate::reason::StateNote;
use crate::time::UnixMs;

/// Longest session name in characters.
pub const MAX_NAME_CHARS: usize = 64;
/// Smallest and largest terminal sizes. Below 2 columns terminal models misbehave (measured);
/// above these bounds no real screen exists.
pub const MIN_COLS: u16 = 2;
/// See [`MIN_COLS`].
pub const MAX_COLS: u16 = 500;
/// See [`MIN_COLS`].
pub const MIN_ROWS: u16 = 2;
/// See [`MIN_COLS`].
pub const MAX_ROWS: u16 = 300;

/// Size of a terminal in character cells, always within the bounds above.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TermSize {
    /// Columns, 2 to 500.
    pub cols: u16,
    /// Rows, 2 to 300.
    pub rows: u16,
}

impl TermSize {
    /// The size nearest to the wish that lies within the bounds.
    pub const fn clamped(cols: u16, rows: u16) -> Self {
        Self { cols: clamp(cols, MIN_COLS, MAX_COLS), rows: clamp(rows, MIN_ROWS, MAX_ROWS) }
    }
}

impl Default for TermSize {
    /// 120 × 40: wide enough for Claude Code's diffs when no viewer has said its size.
    fn default() -> Self {
        Self { cols: 120, rows: 40 }
    }
}

const fn clamp(value: u16, low: u16, high: u16) -> u16 {
    if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    }
}

/// What runs in a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionMode {
    /// The Claude Code TUI.
    #[default]
    Interactive,
    /// A structured `stream-json` conversation without a terminal.
    Headless,
    /// One prompt (`-p`), runs to its end.
    Oneshot,
    /// A login shell.
    Shell,
}

/// Claude Code's permission modes, spelled as its `--permission-mode` takes them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PermissionMode {
    /// Ask before anything that changes something.
    #[serde(rename = "default")]
    Default,
    /// File edits run without asking.
    #[serde(rename = "acceptEdits")]
    AcceptEdits,
    /// Read and plan only.
    #[serde(rename = "plan")]
    Plan,
    /// Claude Code judges each call itself and asks about what it finds risky. Newer versions start in it.
    #[serde(rename = "auto")]
    Auto,
    /// Never ask, and refuse what is not allowed by rules.
    #[serde(rename = "dontAsk")]
    DontAsk,
    /// Never ask. For sandboxes.
    #[serde(rename = "bypassPermissions")]
    BypassPermissions,
}

impl PermissionMode {
    /// The value for `--permission-mode`.
    pub const fn as_arg(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::AcceptEdits => "acceptEdits",
            Self::Plan => "plan",
            Self::Auto => "auto",
            Self::DontAsk => "dontAsk",
            Self::BypassPermissions => "bypassPermissions",
        }
    }
}

/// What to do when Claude Code dies without being asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CrashPolicy {
    /// Mark the session failed and leave it to a person.
    #[default]
    Stop,
    /// Start again with `--resume`, at most 3 times with growing pauses.
    Resume,
}

/// What a user asks for when starting a session.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct SessionSpec {
    /// Name, unique on the machine; made from the directory when absent. See [`valid_name`].
    pub name: Option<String>,
    /// What runs.
    pub mode: SessionMode,
    /// Absolute working directory on the machine; `~` and `~/…` are resolved there.
    pub cwd: String,
    /// First prompt. Required by `oneshot`, passed as an argument and never typed.
    pub prompt: Option<String>,
    /// Model name or alias as `--model` takes it.
    pub model: Option<String>,
    /// Permission mode; Claude Code's own default when absent.
    pub permission_mode: Option<PermissionMode>,
    /// Further arguments for the program, passed on as they are.
    pub args: Vec<String>,
    /// Environment variables on top of the fixed environment.
    pub env: BTreeMap<String, String>,
    /// Name of a git worktree to make and work in.
    pub worktree: Option<String>,
    /// First size of the terminal.
    pub size: Option<TermSize>,
    /// What to do after a crash.
    pub on_crash: CrashPolicy,
    /// True to be refused (`too_many_sessions`) rather than queued when the machine runs as many sessions as it allows.
    pub refuse_when_full: bool,
}

/// How a child process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Exit {
    /// It exited by itself.
    Code {
        /// Exit code, 0 to 255.
        code: u8,
    },
    /// A signal ended it.
    Signal {
        /// Signal number of the machine's system.
        signal: u8,
    },
    /// The status was lost with its holder (reboot, holder killed).
    Lost {},
}

/// State of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Recorded, waiting for a free slot or the next attempt.
    Created,
    /// The process is being started.
    Starting,
    /// Claude is working, or the shell runs.
    Running,
    /// It waits for a person; the reason says for what.
    WaitingInput,
    /// Stopped by a person (SIGSTOP), can go on.
    Paused,
    /// No process, but the conversation can be taken up again (idle, reboot).
    Hibernated,
    /// Ended by itself with exit code 0.
    Completed,
    /// Ended by itself with another code or a signal, or could not start.
    Failed,
    /// Ended because a person asked for it.
    Terminated,
}

impl SessionState {
    /// True if a process may exist in this state.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::WaitingInput | Self::Paused)
    }

    /// True if nothing but a restart leads out of this state.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Terminated)
    }

    /// True if `next` may follow. A state may always follow itself (a new reason).
    pub const fn may_become(self, next: SessionState) -> bool {
        use SessionState::*;
        match self {
            Created => matches!(next, Created | Starting | Failed | Terminated),
            // Back to `Created`: a failed start that is tried again.
            Starting => !matches!(next, Hibernated | Paused),
            Running | WaitingInput | Paused => !matches!(next, Created),
            Hibernated => matches!(next, Hibernated | Starting | Created | Terminated | Failed),
            // Restart and `--resume` go through the queue again.
            Completed | Failed | Terminated => matches!(next, Created | Starting) || self as u8 == next as u8,
        }
    }

    /// The word that people read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::WaitingInput => "waiting_input",
            Self::Paused => "paused",
            Self::Hibernated => "hibernated",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Terminated => "terminated",
        }
    }
}

/// Where the knowledge of a state comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StateSource {
    /// The process itself: started, stopped, ended.
    #[default]
    Process,
    /// A hook of Claude Code.
    Hook,
    /// Read off the screen: a hint.
    Inferred,
}

/// A session as everybody sees it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionInfo {
    /// Identity, kept over restarts, resumes and reboots.
    pub id: SessionId,
    /// Name, unique on its machine.
    pub name: String,
    /// The machine; absent in answers of the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<MachineId>,
    /// What runs.
    pub mode: SessionMode,
    /// Absolute working directory.
    pub cwd: String,
    /// State.
    pub state: SessionState,
    /// Since when.
    pub state_since: UnixMs,
    /// Why, in a few words: "waiting: wants to run `cargo publish`".
    #[serde(default)]
    pub state_reason: Option<String>,
    /// The same as words with values, for translations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state_notes: Vec<StateNote>,
    /// How the state is known.
    #[serde(default)]
    pub state_source: StateSource,
    /// When it was asked for.
    pub created_at: UnixMs,
    /// When the current process started.
    #[serde(default)]
    pub started_at: Option<UnixMs>,
    /// When the last process ended.
    #[serde(default)]
    pub ended_at: Option<UnixMs>,
    /// Process id of the child, while it lives.
    #[serde(default)]
    pub pid: Option<u32>,
    /// How the last process ended.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// Terminal size.
    pub size: TermSize,
    /// Who decides the size, for people: "attach on tty3", "browser of alice".
    #[serde(default)]
    pub size_owner: Option<String>,
    /// Model, as asked for or as Claude Code reports it.
    #[serde(default)]
    pub model: Option<String>,
    /// Permission mode as asked for.
    #[serde(default)]
    pub permission_mode: Option<PermissionMode>,
    /// Terminal title, without control characters.
    #[serde(default)]
    pub title: Option<String>,
    /// The id by which Claude Code knows the conversation.
    #[serde(default)]
    pub claude_session_id: Option<String>,
    /// Worktree name, if one was asked for.
    #[serde(default)]
    pub worktree: Option<String>,
    /// Number of viewers known to the machine.
    #[serde(default)]
    pub viewers: u32,
    /// Restarts of the byte sequence; see the stream protocol.
    pub epoch: u32,
    /// Bytes of output so far in this epoch.
    pub output_bytes: u64,
    /// Start attempts so far.
    #[serde(default)]
    pub attempts: u32,
    /// True if `wake` or `restart` can continue the conversation.
    #[serde(default)]
    pub is_resumable: bool,
    /// Resource use of the process tree.
    #[serde(default)]
    pub resources: Option<ResourceUse>,
    /// Why output is not being recorded although it should be, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording_problem: Option<String>,
}

/// Checks a session name: 1 to 64 characters, letters, digits, `-`, `_`, `.`; starts with a letter or digit.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn valid_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
        return Err(format!("A session name has 1 to {MAX_NAME_CHARS} characters."));
    }
    if !name.chars().next().is_some_and(char::is_alphanumeric) {
        return Err("A session name starts with a letter or a digit.".to_owned());
    }
    match name.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        Some(bad) => Err(format!(
            "A session name has letters, digits, '-', '_' and '.'; {} does not belong there.",
            bad.escape_debug()
        )),
        None => Ok(()),
    }
}

/// Makes a valid name from any text, for example the last part of a directory.
pub fn name_from(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        let c = if c.is_alphanumeric() || matches!(c, '_' | '.') { c } else { '-' };
        let is_start = name.is_empty();
        if (is_start && !c.is_alphanumeric()) || (c == '-' && name.ends_with('-')) {
            continue;
        }
        if name.chars().count() == MAX_NAME_CHARS - 4 {
            break; // Four characters stay free for a distinguishing "-99".
        }
        name.push(c);
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() { "session".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn final_states_are_left_only_by_a_restart() {
        use SessionState::*;
        for state in [Completed, Failed, Terminated] {
            for next in [Running, WaitingInput, Paused, Hibernated] {
                assert!(!state.may_become(next), "{state:?} -> {next:?}");
            }
            assert!(state.may_become(Created) && state.may_become(Starting) && state.may_become(state));
        }
        assert!(Running.may_become(WaitingInput) && WaitingInput.may_become(Running));
        assert!(!Completed.may_become(Failed));
    }

    #[test]
    fn names_say_what_is_wrong() {
        assert!(valid_name("fix-login_2.0").is_ok());
        assert!(valid_name("été").is_ok());
        for bad in ["", "-x", "a b", "a/b", "a\u{7}b", &"x".repeat(65)] {
            assert!(valid_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_clamped() {
        assert_eq!(TermSize::clamped(0, 0), TermSize { cols: 2, rows: 2 });
        assert_eq!(TermSize::clamped(9999, 9999), TermSize { cols: 500, rows: 300 });
    }

    proptest! {
        #[test]
        fn every_text_makes_a_valid_name(text in "\\PC{0,200}") {
            prop_assert!(valid_name(&name_from(&text)).is_ok(), "{:?}", name_from(&text));
        }
    }
}

//! The command line and environment of each kind of session.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use claudenest_shared::session::{SessionMode, SessionSpec};
use serde_json::Value;

use super::{hooks, stream_json};

/// Longest single argument: Linux allows 128 KiB with the terminating zero.
pub const MAX_ARGUMENT_BYTES: usize = 127 * 1024;

/// Variables of the daemon's surroundings that a session must not see, by exact name: traces of another
/// terminal, of another Claude Code, of a service manager, and our own.
const STRIPPED: [&str; 22] = [
    "CLAUDECODE",
    "AI_AGENT",
    "TMUX",
    "TMUX_PANE",
    "STY",
    "WINDOW",
    "ZELLIJ",
    "VTE_VERSION",
    "WT_SESSION",
    "KONSOLE_VERSION",
    "COLUMNS",
    "LINES",
    "TERMCAP",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "OLDPWD",
];

/// The same by prefix.
const STRIPPED_PREFIXES: [&str; 11] = [
    "CLAUDE_CODE_",
    "CLAUDENEST_",
    "TERM_PROGRAM",
    "TERM_SESSION",
    "ITERM_",
    "KITTY_",
    "WEZTERM_",
    "GHOSTTY_",
    "ALACRITTY_",
    "KONSOLE_DBUS_",
    "ZELLIJ_",
];

/// `CLAUDE_CODE_*` variables that a user sets on purpose, as documented by Claude Code: they choose an account
/// or a provider and are not left behind by a surrounding session.
const KEPT: [&str; 9] = [
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_SKIP_BEDROCK_AUTH",
    "CLAUDE_CODE_SKIP_VERTEX_AUTH",
    "CLAUDE_CODE_API_KEY_HELPER_TTL_MS",
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
];

/// What the machine adds to every session.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The daemon's own environment, before cleaning.
    pub environment: Vec<(OsString, OsString)>,
    /// Names of variables that the configuration wants to be passed on although they would be cleaned away.
    pub passed: Vec<String>,
    /// Absolute path of this program, for hooks.
    pub agent_program: PathBuf,
    /// The control socket, for hooks.
    pub control_socket: PathBuf,
    /// Login shell of the user.
    pub shell: PathBuf,
    /// Home directory of the user.
    pub home: PathBuf,
}

/// Which conversation Claude Code is to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Conversation {
    /// A new one, under this UUID.
    New(String),
    /// This one goes on.
    Resume(String),
}

/// What to start.
#[derive(Clone, Debug)]
pub struct LaunchRequest<'a> {
    /// What the user asked for, validated, with an absolute directory.
    pub spec: &'a SessionSpec,
    /// Name of the session.
    pub name: &'a str,
    /// The conversation.
    pub conversation: Conversation,
    /// First prompt of this process; a resumed conversation may have one as well.
    pub prompt: Option<&'a str>,
    /// `CLAUDENEST_SESSION`.
    pub session: String,
    /// `CLAUDENEST_CAPABILITY`: what the hooks prove themselves with. A secret.
    pub capability: String,
    /// Claude Code; not needed for shells.
    pub claude: Option<PathBuf>,
}

/// A process to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Launch {
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: PathBuf,
    /// True for a pseudo-terminal, false for pipes.
    pub is_terminal: bool,
    /// Bytes to write to its input as soon as it runs.
    pub first_input: Option<Bytes>,
}

/// Why no command line can be made. The texts are for people.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The user's own `--settings` cannot be read.
    #[error(
        "The settings given by --settings cannot be read: {0}. Pass an existing JSON file or a JSON object."
    )]
    Settings(String),
    /// An argument is too long for the system.
    #[error("The {0} is longer than {max} KiB, the most that a program can be given. Put the text into a file and refer to it.", max = MAX_ARGUMENT_BYTES / 1024)]
    TooLong(&'static str),
    /// The mode needs Claude Code.
    #[error("Claude Code was not found.")]
    NoClaude,
}

impl Launch {
    /// Builds the command for a session.
    ///
    /// # Errors
    /// [`LaunchError`], with what to do.
    pub fn build(request: &LaunchRequest<'_>, around: &Surroundings) -> Result<Self, LaunchError> {
        let spec = request.spec;
        let mut env = clean_environment(around, &spec.env);
        let cwd = PathBuf::from(&spec.cwd);
        if spec.mode == SessionMode::Shell {
            // Every common shell knows `-l`.
            return Ok(Self {
                program: around.shell.clone(),
                args: std::iter::once("-l".to_owned()).chain(spec.args.iter().cloned()).collect(),
                env: env.into_iter().collect(),
                cwd,
                is_terminal: true,
                first_input: None,
            });
        }
        let program = request.claude.clone().ok_or(LaunchError::NoClaude)?;
        env.insert("CLAUDENEST_SESSION".into(), request.session.clone());
        env.insert("CLAUDENEST_SOCKET".into(), around.control_socket.to_string_lossy().into_owned());
        env.insert("CLAUDENEST_CAPABILITY".into(), request.capability.clone());
        let args = claude_args(request, around)?;
        let is_headless = spec.mode == SessionMode::Headless;
        Ok(Self {
            program,
            args,
            env: env.into_iter().collect(),
            cwd,
            is_terminal: !is_headless,
            first_input: request.prompt.filter(|_| is_headless).map(stream_json::user_message),
        })
    }
}

fn claude_args(request: &LaunchRequest<'_>, around: &Surroundings) -> Result<Vec<String>, LaunchError> {
    let spec = request.spec;
    let (mut user_args, user_settings) = take_settings(&spec.args, Path::new(&spec.cwd))?;
    let settings = hooks::settings(&around.agent_program, user_settings).to_string();
    if settings.len() > MAX_ARGUMENT_BYTES {
        return Err(LaunchError::TooLong("text of --settings"));
    }
    let mut args: Vec<String> = Vec::new();
    match spec.mode {
        SessionMode::Oneshot if is_print(&user_args) => {}
        SessionMode::Oneshot => args.push("-p".into()),
        SessionMode::Headless => {
            args.extend(
                ["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
                    .map(String::from),
            );
            // The conversation then shows both sides, also to whoever comes later.
            if !user_args.iter().any(|arg| arg == "--replay-user-messages") {
                args.push("--replay-user-messages".into());
            }
        }
        SessionMode::Interactive | SessionMode::Shell => {}
    }
    let is_resumed = matches!(request.conversation, Conversation::Resume(_));
    match &request.conversation {
        Conversation::Resume(id) => {
            user_args = without_conversation(user_args);
            args.extend(["--resume".into(), id.clone()]);
        }
        Conversation::New(id) if !chooses_conversation(&user_args) => {
            args.extend(["--session-id".into(), id.clone()]);
        }
        Conversation::New(_) => {}
    }
    // Takes every value up to the next flag, so that one of ours has to follow. The user's own servers stay.
    args.extend(["--mcp-config".into(), hooks::mcp_config(&around.agent_program).to_string()]);
    args.extend(["--settings".into(), settings]);
    let mut option = |flag: &str, value: Option<&str>| {
        if let Some(value) = value
            && !has_flag(&user_args, flag)
        {
            args.extend([flag.to_owned(), value.to_owned()]);
        }
    };
    option("--model", spec.model.as_deref());
    option("--permission-mode", spec.permission_mode.map(|mode| mode.as_arg()));
    if !has_flag(&user_args, "-n") {
        option("--name", Some(request.name));
    }
    // A resumed conversation already is in its worktree, and is started there.
    option("--worktree", spec.worktree.as_deref().filter(|_| !is_resumed));
    // After `--` everything is the prompt, even "-x" or the values of a greedy `--allowedTools`.
    let separator = user_args.iter().position(|arg| arg == "--");
    let after = separator.map(|at| user_args.split_off(at)).unwrap_or_default();
    args.append(&mut user_args);
    match request.prompt.filter(|_| spec.mode != SessionMode::Headless) {
        Some(prompt) if prompt.len() > MAX_ARGUMENT_BYTES => return Err(LaunchError::TooLong("prompt")),
        Some(prompt) => args.extend(["--".into(), prompt.to_owned()]),
        None if !is_resumed => args.extend(after),
        None => {}
    }
    Ok(args)
}

/// Takes the user's own `--settings` out of the arguments: only the last one counts for Claude Code, so
/// ours would replace it.
fn take_settings(args: &[String], cwd: &Path) -> Result<(Vec<String>, Option<Value>), LaunchError> {
    let mut rest = Vec::new();
    let mut settings = None;
    let mut iter = args.iter();
    while let Some(arg) = iter.next() {
        if arg == "--" {
            rest.push(arg.clone());
            rest.extend(iter.by_ref().cloned());
        } else if arg == "--settings" {
            settings = iter.next().cloned();
        } else if let Some(value) = arg.strip_prefix("--settings=") {
            settings = Some(value.to_owned());
        } else {
            rest.push(arg.clone());
        }
    }
    let Some(text) = settings else { return Ok((rest, None)) };
    let text = if text.trim_start().starts_with('{') {
        text
    } else {
        std::fs::read_to_string(cwd.join(&text)).map_err(|error| LaunchError::Settings(error.to_string()))?
    };
    let value: Value =
        serde_json::from_str(&text).map_err(|error| LaunchError::Settings(error.to_string()))?;
    if !value.is_object() {
        return Err(LaunchError::Settings("it is not a JSON object".to_owned()));
    }
    Ok((rest, Some(value)))
}

/// Flags that say which conversation to take up, with whether a value follows.
const CONVERSATION_FLAGS: [(&str, bool); 8] = [
    ("--session-id", true),
    ("--resume", true),
    ("-r", true),
    ("--continue", false),
    ("-c", false),
    ("--fork-session", false),
    ("--from-pr", true),
    ("--teleport", true),
];

/// Flags without a value, of 2.1.329. A flag that is not known here is taken to have one.
const SWITCHES: [&str; 22] = [
    "--allow-dangerously-skip-permissions",
    "--ax-screen-reader",
    "--bare",
    "--bg",
    "--background",
    "--brief",
    "--chrome",
    "--dangerously-skip-permissions",
    "--disable-slash-commands",
    "--exclude-dynamic-system-prompt-sections",
    "--forward-subagent-text",
    "--ide",
    "--include-hook-events",
    "--include-partial-messages",
    "--no-chrome",
    "--no-session-persistence",
    "--print",
    "-p",
    "--replay-user-messages",
    "--restricted",
    "--strict-mcp-config",
    "--verbose",
];

/// Flags that take every value up to the next flag.
const GREEDY_FLAGS: [&str; 9] = [
    "--add-dir",
    "--allowedTools",
    "--allowed-tools",
    "--disallowedTools",
    "--disallowed-tools",
    "--betas",
    "--file",
    "--mcp-config",
    "--tools",
];

fn has_flag(args: &[String], flag: &str) -> bool {
    let short = match flag {
        "--worktree" => "-w",
        "--name" => "-n",
        _ => flag,
    };
    args.iter().take_while(|arg| *arg != "--").any(|arg| {
        arg == flag || arg == short || arg.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
    })
}

/// True if these arguments of `claude` ask for one answer and the end (`-p`), with the prompt among them.
pub fn is_print(args: &[String]) -> bool {
    has_flag(args, "-p") || has_flag(args, "--print")
}

fn chooses_conversation(args: &[String]) -> bool {
    CONVERSATION_FLAGS.iter().any(|(flag, _)| has_flag(args, flag))
}

/// The user's arguments for a later `--resume`: without those that chose the first conversation, and without
/// the first prompt, which would be asked again.
fn without_conversation(args: Vec<String>) -> Vec<String> {
    let mut rest = Vec::new();
    let mut iter = args.into_iter().peekable();
    while let Some(arg) = iter.next() {
        if arg == "--" {
            break; // What follows is the prompt.
        }
        if !arg.starts_with('-') {
            continue; // A value would have been taken with its flag.
        }
        let name = arg.split('=').next().unwrap_or(&arg).to_owned();
        let is_dropped = CONVERSATION_FLAGS.iter().any(|(flag, _)| *flag == name)
            || matches!(name.as_str(), "--worktree" | "-w");
        let takes = match CONVERSATION_FLAGS.iter().find(|(flag, _)| *flag == name) {
            _ if arg.contains('=') => 0,
            Some((_, takes_value)) => usize::from(*takes_value),
            None if SWITCHES.contains(&name.as_str()) => 0,
            None if GREEDY_FLAGS.contains(&name.as_str()) => usize::MAX,
            None => 1,
        };
        let mut kept = vec![arg];
        while kept.len() <= takes
            && let Some(value) = iter.next_if(|value| !value.starts_with('-'))
        {
            kept.push(value);
        }
        if !is_dropped {
            rest.append(&mut kept);
        }
    }
    rest
}

/// The environment of every session: that of the daemon without traces of where it was started, with one
/// fixed kind of terminal, then the user's wishes for this session. Variables that
/// are not UTF-8 are left out.
pub fn clean_environment(
    around: &Surroundings,
    wished: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let is_stripped = |name: &str| {
        !KEPT.contains(&name)
            && !around.passed.iter().any(|passed| passed == name)
            && (STRIPPED.contains(&name) || STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    };
    let as_text =
        |(name, value): &(OsString, OsString)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned()));
    let mut env: BTreeMap<String, String> =
        around.environment.iter().filter_map(as_text).filter(|(name, _)| !is_stripped(name)).collect();
    env.insert("TERM".into(), "xterm-256color".into());
    env.insert("COLORTERM".into(), "truecolor".into());
    let is_utf8 = |value: &String| {
        let value = value.to_ascii_lowercase();
        value.contains("utf-8") || value.contains("utf8")
    };
    if !env.get("LANG").is_some_and(is_utf8) {
        let fallback = if cfg!(target_os = "macos") { "en_US.UTF-8" } else { "C.UTF-8" };
        env.insert("LANG".into(), fallback.into());
    }
    // These would overrule LANG.
    for name in ["LC_ALL", "LC_CTYPE"] {
        if !env.get(name).is_none_or(is_utf8) {
            env.remove(name);
        }
    }
    let mut default = |name: &str, value: String| {
        env.entry(name.to_owned()).or_insert(value);
    };
    default("HOME", around.home.to_string_lossy().into_owned());
    default("SHELL", around.shell.to_string_lossy().into_owned());
    default("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned());
    env.extend(wished.clone());
    env
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;

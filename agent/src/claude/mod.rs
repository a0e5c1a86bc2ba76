//! Everything that this project assumes about Claude Code: where it is, its flags, hooks, files and
//! exit codes. Observed with 2.1.197 and 2.1.329; nothing outside of this module knows any of it.
//!
//! Surprises that the rest of the project has to live with:
//! * without `--permission-mode`, 2.1.329 starts in its `auto` mode; `default` is still accepted and is
//!   shown as "manual";
//! * `--session-id` fails for an id that already has a conversation, `--resume` for one that has none;
//! * `--resume` finds a conversation only from the directory in which it was started.

pub mod answer;
pub mod command;
pub mod guarding;
pub mod hint;
pub mod hooks;
pub mod install;
pub mod stream_json;
pub mod transcript;

pub use command::{Conversation, Launch, LaunchError, LaunchRequest, Surroundings};
pub use hooks::HookFact;
pub use install::{Claude, Installed};

/// Sub-commands of `claude` that are not a session (the drop-in runs the real program for them).
const SUBCOMMANDS: [&str; 22] = [
    "agents",
    "attach",
    "auth",
    "auto-mode",
    "config",
    "doctor",
    "gateway",
    "import",
    "install",
    "kill",
    "logs",
    "mcp",
    "plugin",
    "plugins",
    "purge",
    "respawn",
    "rm",
    "setup-token",
    "stop",
    "ultrareview",
    "update",
    "upgrade",
];

/// Flags that print something and leave.
const ONE_SHOT_FLAGS: [&str; 4] = ["-h", "--help", "-v", "--version"];

/// True if these arguments of `claude` do not start a conversation (`claude mcp list`, `claude --version`).
pub fn is_not_a_session(args: &[String]) -> bool {
    args.first().is_some_and(|first| SUBCOMMANDS.contains(&first.as_str()))
        || args.iter().take_while(|arg| *arg != "--").any(|arg| ONE_SHOT_FLAGS.contains(&arg.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subcommands_and_help_are_not_sessions() {
        let args = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(is_not_a_session(&args("mcp list")));
        assert!(is_not_a_session(&args("--model opus --version")));
        assert!(!is_not_a_session(&args("fix the mcp server")));
        assert!(!is_not_a_session(&args("-- --help")));
        assert!(!is_not_a_session(&[]));
    }
}

//! The command line as clap reads it. Only words stand here; what they do is in the sibling modules.

pub(super) mod value;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::value::{duration, env_pair, position, speed};
pub use super::approvals::ApprovalsCommand;
pub use super::audit::AuditCommand;
pub use super::locks::LocksCommand;
pub use super::policy::PolicyCommand;
use crate::config::LogFormat;

/// Runs and supervises Claude Code sessions on this machine.
#[derive(Parser, Debug)]
#[command(
    name = "claudenest-agent",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  claudenest-agent claude                     Claude Code here, supervised: close the terminal, it goes on
  claudenest-agent attach fix-login           back to a session
  claudenest-agent pair --relay https://…     show and steer this machine's sessions in a browser
  claudenest-agent doctor                     what is wrong, and how to repair it

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 daemon not running, 4 not found, 5 refused, 124 timed out.
`claude` and `session attach --wait-exit` end with the exit code of the session."
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Args, Debug, Clone)]
pub struct Global {
    /// Configuration file.
    #[arg(
        long,
        global = true,
        env = "CLAUDENEST_AGENT_CONFIG",
        value_name = "FILE",
        help_heading = "Global"
    )]
    pub config: Option<PathBuf>,
    /// Directory for database, recordings, sockets and secrets.
    #[arg(
        long,
        global = true,
        env = "CLAUDENEST_AGENT_DATA_DIR",
        value_name = "DIR",
        help_heading = "Global"
    )]
    pub data_dir: Option<PathBuf>,
    /// Form of log lines.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", help_heading = "Global")]
    pub log_format: Option<LogFormat>,
    /// What is logged, for example `debug`.
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Global")]
    pub log: Option<String>,
    /// Print JSON for programs.
    #[arg(long, global = true, help_heading = "Global")]
    pub json: bool,
}

impl Global {
    /// The same flags as arguments, for a daemon that this command starts.
    pub fn as_arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments = Vec::new();
        let mut put = |flag: &str, value: std::ffi::OsString| arguments.extend([flag.into(), value]);
        for (flag, path) in [("--config", &self.config), ("--data-dir", &self.data_dir)] {
            if let Some(path) = path {
                // The daemon runs in another directory.
                put(flag, std::path::absolute(path).unwrap_or_else(|_| path.clone()).into());
            }
        }
        if let Some(filter) = &self.log {
            put("--log", filter.into());
        }
        if let Some(format) = self.log_format {
            put("--log-format", format.as_str().into());
        }
        arguments
    }
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run Claude Code in a supervised session and attach to it.
    #[command(
        disable_help_flag = true,
        disable_version_flag = true,
        after_help = "\
All arguments go to Claude Code. On a terminal the session is supervised: it goes on when the terminal is closed
(with -p, Ctrl-C ends it). When input or output is a pipe or a file, Claude Code runs directly and unsupervised, so
that scripts get exactly its output; for supervised runs of a script: claudenest-agent session new --mode oneshot."
    )]
    Claude {
        /// Arguments for Claude Code.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Start, list, steer and end sessions.
    #[command(subcommand, visible_alias = "s")]
    Session(SessionCommand),
    /// Attach this terminal to a session (short for `session attach`).
    Attach(AttachArgs),
    /// See and answer what Claude wants to do.
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    /// See and check the log of what was asked, decided and done.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// See, take and end locks on files.
    #[command(subcommand)]
    Locks(LocksCommand),
    /// See, try and change the rules of what may run.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Pair this machine with a relay.
    Pair(PairArgs),
    /// Give up the pairing with a relay.
    Unpair(UnpairArgs),
    /// Show daemon, relays, sessions and where secrets are kept.
    Status,
    /// Find what is wrong and say how to repair it.
    #[command(after_help = "Ends with 1 if there is an error, 0 if there are at most warnings.")]
    Doctor,
    /// Show the daemon's log.
    Logs(LogsArgs),
    /// Print the effective configuration and where each value comes from.
    Config {
        /// Print the documentation of all keys (Markdown) instead.
        #[arg(long)]
        docs: bool,
    },
    /// Run the daemon in the foreground.
    #[command(after_help = "Ctrl-C stops the daemon; sessions go on and the next daemon finds them.")]
    Run {
        /// Leave the terminal and log to the file only.
        #[arg(long, hide = true)]
        background: bool,
    },
    /// Start the daemon at login.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Print a completion script.
    #[command(
        after_help = "Example: claudenest-agent completions bash > ~/.local/share/bash-completion/completions/claudenest-agent"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write one page for each command.
    Man {
        /// Write all pages into this directory.
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Commands on sessions. SESSION is a name, an id, or the last digits of an id.
#[derive(Subcommand, Debug)]
pub enum SessionCommand {
    /// Start a session.
    #[command(after_help = "\
Examples:
  claudenest-agent session new --dir ~/shop --prompt 'Fix the failing test' --attach
  claudenest-agent session new --mode shell --name tools
  claudenest-agent session new --mode oneshot --prompt 'Summarise the README' -- --max-turns 3")]
    New(NewArgs),
    /// List sessions.
    #[command(visible_alias = "ls")]
    List {
        /// Show ended sessions as well.
        #[arg(long, short)]
        all: bool,
    },
    /// Attach this terminal to a session.
    Attach(AttachArgs),
    /// Show everything about a session.
    Show(Target),
    /// End a session: ask it to leave, then kill its process group.
    #[command(visible_alias = "stop")]
    Kill {
        /// The session.
        #[command(flatten)]
        target: Target,
        /// Time to leave by itself, 0 to 60 s.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        grace: Option<std::time::Duration>,
        /// Kill at once.
        #[arg(long, short, conflicts_with = "grace")]
        force: bool,
    },
    /// Give a session another name.
    Rename {
        /// The session.
        #[command(flatten)]
        target: Target,
        /// Its new name.
        name: String,
    },
    /// Type text into a session and press Enter.
    Send {
        /// The session.
        #[command(flatten)]
        target: Target,
        /// The text; `-` reads it from standard input.
        text: String,
        /// Do not press Enter afterwards.
        #[arg(long)]
        no_enter: bool,
    },
    /// Wait until a session is in a state.
    #[command(after_help = "Ends with 124 when the time is over, 5 when the session ended in another state.")]
    Wait {
        /// The session.
        #[command(flatten)]
        target: Target,
        /// What to wait for.
        #[arg(long = "for", value_enum, value_name = "STATE", default_value = "ended")]
        state: WaitFor,
        /// How long to wait; for ever without it.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        timeout: Option<std::time::Duration>,
    },
    /// Print the screen of a session as text.
    Screen(Target),
    /// Print the output of a session.
    #[command(
        after_help = "Prints what the machine still holds of the output, with escape sequences made harmless."
    )]
    Logs {
        /// The session.
        #[command(flatten)]
        target: Target,
        /// Go on until the session ends.
        #[arg(long, short)]
        follow: bool,
    },
    /// Play the recording of a session in this terminal.
    Replay(ReplayArgs),
    /// Write the recording of a session to a file.
    Export(ExportArgs),
    /// Find text that sessions have shown.
    Search(SearchArgs),
    /// Stop the processes of a session until `resume`.
    Pause(Target),
    /// Let a paused session go on.
    Resume(Target),
    /// Start a session again and continue its conversation.
    Restart(Target),
    /// End the process of a session but keep its conversation for `restart`.
    Hibernate(Target),
    /// Remove an ended session with its recording.
    Forget(Target),
}

/// A session named by a person.
#[derive(Args, Debug, Clone)]
pub struct Target {
    /// Name, id, or last digits of the id.
    #[arg(value_name = "SESSION")]
    pub session: String,
}

/// Arguments of `session new`.
#[derive(Args, Debug)]
pub struct NewArgs {
    /// Working directory; the current one without it.
    #[arg(long, short = 'd', value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Name; made from the directory without it.
    #[arg(long, short)]
    pub name: Option<String>,
    /// What runs.
    #[arg(long, value_enum, default_value = "interactive")]
    pub mode: Mode,
    /// First prompt; `-` reads it from standard input.
    #[arg(long, short, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Model, as Claude Code's --model takes it.
    #[arg(long, short)]
    pub model: Option<String>,
    /// Permission mode.
    #[arg(long, value_enum, value_name = "MODE")]
    pub permission_mode: Option<Permission>,
    /// Environment variable for the session; may be repeated.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = env_pair)]
    pub env: Vec<(String, String)>,
    /// Make a git worktree of this name and work in it.
    #[arg(long, value_name = "NAME")]
    pub worktree: Option<String>,
    /// What to do when Claude Code crashes.
    #[arg(long, value_enum, default_value = "stop")]
    pub on_crash: OnCrash,
    /// Attach this terminal at once.
    #[arg(long, short)]
    pub attach: bool,
    /// Further arguments for the program.
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// Arguments of `attach`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Ctrl-] d detaches (see `detach_keys` in the configuration); the session goes on.
The terminal decides the session's size unless --no-size or --read-only is given.")]
pub struct AttachArgs {
    /// The session.
    #[command(flatten)]
    pub target: Target,
    /// Watch only: nothing that is typed reaches the session.
    #[arg(long, short)]
    pub read_only: bool,
    /// Take the size over from whoever has it.
    #[arg(long, conflicts_with_all = ["no_size", "read_only"])]
    pub take_size: bool,
    /// Leave the size as it is.
    #[arg(long)]
    pub no_size: bool,
    /// Keys that detach, for example "ctrl-] d".
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// End with the exit code of the session.
    #[arg(long)]
    pub wait_exit: bool,
}

/// Arguments of `session replay`.
#[derive(Args, Debug)]
#[command(after_help = "\
Keys: space pauses, left and right go 5 s, down and up 1 min, + and - change the speed, q leaves.
Into a pipe or file the output goes at once, or in its time when --speed is given. Nothing in a recording can type
into your terminal: queries and other dangerous sequences are taken out. Works without the daemon.")]
pub struct ReplayArgs {
    /// The session; ended ones as well.
    #[command(flatten)]
    pub target: Target,
    /// How fast, 0.1 to 100; 1 is as it was.
    #[arg(long, value_name = "N", value_parser = speed)]
    pub speed: Option<f64>,
    /// Begin at this time of the recording, for example 90s or 1:30.
    #[arg(long, value_name = "TIME", value_parser = position)]
    pub from: Option<std::time::Duration>,
    /// Shorten pauses to this.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub idle_limit: Option<std::time::Duration>,
    /// Which run of a session that was restarted; the last without it.
    #[arg(long, value_name = "N")]
    pub run: Option<u32>,
}

/// Arguments of `session export`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  claudenest-agent session export fix-login -o fix-login.cast       to be played by asciinema
  claudenest-agent session export fix-login --format text | less

Missing output (dropped at a cap, or lost to a full disk) is a marker in asciicast files, and told on standard error.
Sequences that could type into a terminal are taken out of every format. Works without the daemon.")]
pub struct ExportArgs {
    /// The session; ended ones as well.
    #[command(flatten)]
    pub target: Target,
    /// What to write.
    #[arg(long, short, value_enum, default_value = "asciicast-v2")]
    pub format: ExportFormat,
    /// The file; standard output without it.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file if it exists.
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Which run of a session that was restarted; the last without it.
    #[arg(long, value_name = "N")]
    pub run: Option<u32>,
    /// Let players of asciicast files shorten pauses to this.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub idle_limit: Option<std::time::Duration>,
}

/// Formats of `session export`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportFormat {
    /// asciicast version 2.
    AsciicastV2,
    /// asciicast version 3.
    AsciicastV3,
    /// The bytes of the output, without times and sizes.
    Raw,
    /// The text that was seen, a line each.
    Text,
}

/// Arguments of `session search`.
#[derive(Args, Debug)]
#[command(
    override_usage = "claudenest-agent session search [OPTIONS] <SESSION> <PATTERN>\n       claudenest-agent session search [OPTIONS] --all <PATTERN>",
    after_help = "\
Searches the text as it stood on the screen, in every recorded run. Case counts only if the pattern has capitals.
Ends with 4 if nothing was found. Works without the daemon."
)]
pub struct SearchArgs {
    /// The session (not with --all), and what to look for.
    #[arg(value_names = ["SESSION", "PATTERN"], num_args = 1..=2, required = true)]
    pub words: Vec<String>,
    /// Search the recordings of all sessions.
    #[arg(long, short)]
    pub all: bool,
    /// The pattern is a regular expression.
    #[arg(long, short = 'E')]
    pub regex: bool,
    /// Lines to show before and after each match.
    #[arg(long, short = 'C', value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=50))]
    pub context: u8,
    /// Most matches.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

/// Arguments of `pair`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  claudenest-agent pair --relay https://nest.example.com
  claudenest-agent pair --relay https://nest.example.com --token-file token.txt     no person at the machine
  claudenest-agent pair --expect-account alice@example.com                          confirms by itself, for that account only")]
pub struct PairArgs {
    /// Address of the relay; `relay` of the configuration without it.
    #[arg(long, value_name = "URL")]
    pub relay: Option<String>,
    /// Enrolment token; `-` reads it from standard input. A token on the command line is visible to other users: prefer --token-file.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["token_file", "expect_account"])]
    pub token: Option<String>,
    /// File with an enrolment token.
    #[arg(long, value_name = "FILE", conflicts_with = "expect_account")]
    pub token_file: Option<PathBuf>,
    /// Confirm without asking if, and only if, this account claims the code.
    #[arg(long, value_name = "EMAIL")]
    pub expect_account: Option<String>,
    /// Allow a relay without TLS that is not on this machine.
    #[arg(long)]
    pub allow_plain_http: bool,
    /// Trust this certificate authority (PEM) as well; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub extra_ca: Vec<PathBuf>,
    /// Do not show the QR code.
    #[arg(long)]
    pub no_qr: bool,
}

/// Arguments of `unpair`.
#[derive(Args, Debug)]
pub struct UnpairArgs {
    /// Address of the relay; needed only when there are several.
    #[arg(long, value_name = "URL")]
    pub relay: Option<String>,
    /// Forget the pairing even if the relay cannot be told.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `logs`.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// Number of lines from the end.
    #[arg(long, short = 'n', default_value_t = 100)]
    pub lines: usize,
    /// Go on with new lines.
    #[arg(long, short)]
    pub follow: bool,
}

/// Commands on the service.
#[derive(Subcommand, Debug)]
pub enum ServiceCommand {
    /// Start the daemon now and at every login.
    Install {
        /// Print the service file instead of installing it.
        #[arg(long)]
        print: bool,
    },
    /// Stop the daemon and do not start it at login any more. Sessions go on.
    Uninstall,
    /// Show whether the service is installed and running.
    Status,
}

/// Modes of a session.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Claude Code's terminal interface.
    Interactive,
    /// A structured conversation without a terminal.
    Headless,
    /// One prompt, to its end.
    Oneshot,
    /// A login shell.
    Shell,
}

/// Permission modes, spelled as Claude Code spells them.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[value(rename_all = "camelCase")]
pub enum Permission {
    /// Ask before changes.
    Default,
    /// Edit files without asking.
    AcceptEdits,
    /// Read and plan only.
    Plan,
    /// Claude Code decides by itself, and asks about what it finds risky.
    Auto,
    /// Never ask; what no rule allows is refused.
    DontAsk,
    /// Never ask; for sandboxes.
    BypassPermissions,
}

/// What to do after a crash.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnCrash {
    /// Leave it to a person.
    Stop,
    /// Start again and continue.
    Resume,
}

/// What `session wait` waits for.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitFor {
    /// The process has ended.
    Ended,
    /// It waits for a person.
    WaitingInput,
    /// It runs; it may wait for a person.
    Running,
    /// It is paused.
    Paused,
    /// It is hibernated.
    Hibernated,
    /// It waits for a person, or has ended.
    Idle,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

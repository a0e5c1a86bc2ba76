//! The command line: reads arguments and configuration, runs a command, prints, and ends with an exit code.
//!
//! `anyhow` lives here and in `main.rs` only; every other module has typed errors.

pub mod approvals;
pub mod args;
mod attach;
pub mod audit;
mod claude;
mod daemon;
pub mod exit;
mod export;
mod info;
pub mod locks;
mod output;
mod pair;
pub mod policy;
mod recorded;
mod replay;
mod search;
mod session;
mod status;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::config::{self, Effective};
use crate::paths::Paths;
use args::{Cli, Command};

/// What every command needs.
pub struct Context {
    /// Directories and files.
    pub paths: Paths,
    /// Configuration with sources.
    pub effective: Effective,
    /// Print JSON.
    pub json: bool,
    /// Flags that a daemon started by this command must get as well.
    pub global: args::Global,
}

/// Runs the program with `args` (the program's name first).
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args = raw_claude_args(args);
    // Where the arguments cannot be read, this is the best guess at who reads the answer.
    let wants_json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if wants_json && error.use_stderr() => {
            let text = error.render().to_string();
            let message = text.trim().trim_start_matches("error: ");
            println!("{}", serde_json::json!({"error": {"code": "usage", "message": message}}));
            return ExitCode::from(exit::Exit::Usage as u8);
        }
        Err(error) => {
            // Help and version come as errors too, with exit code 0.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let json = cli.global.json;
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            let (exit, code) = exit::classify(&error);
            if json {
                println!("{}", serde_json::json!({"error": {"code": code, "message": format!("{error:#}")}}));
            } else {
                eprintln!("claudenest-agent: {error:#}");
            }
            ExitCode::from(exit as u8)
        }
    }
}

/// Puts `--` behind the `claude` command, so that nothing of Claude Code's arguments is read as ours.
fn raw_claude_args(mut args: Vec<OsString>) -> Vec<OsString> {
    let mut index = 1;
    while let Some(arg) = args.get(index) {
        match arg.to_str() {
            Some("claude") => {
                args.insert(index + 1, OsString::from("--"));
                break;
            }
            Some("--config" | "--data-dir" | "--log-format" | "--log") => index += 2,
            Some(flag) if flag.starts_with('-') => index += 1,
            _ => break,
        }
    }
    args
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // These need no configuration and must work with a broken one.
    match &cli.command {
        Command::Completions { shell } => return info::completions(*shell),
        Command::Man { dir } => return info::man(dir.as_deref()),
        Command::Config { docs: true } => return info::print(&config::markdown()),
        _ => {}
    }
    let context = context(cli.global)?;
    match cli.command {
        Command::Config { .. } => info::config(&context),
        Command::Run { background } => daemon::run(&context, background),
        command => {
            crate::log::start("warn", context.effective.config.log_format, true, None)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let result = runtime.block_on(client(&context, command));
            // A thread that still waits for the keyboard must not hold up the end.
            runtime.shutdown_background();
            result
        }
    }
}

async fn client(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Claude { args } => claude::run(context, args).await,
        Command::Session(command) => session::run(context, command).await,
        Command::Attach(args) => attach::command(context, args).await,
        Command::Approvals(command) => approvals::run(context, command).await,
        Command::Audit(command) => audit::run(context, command).await,
        Command::Locks(command) => locks::run(context, command).await,
        Command::Policy(command) => policy::run(context, command).await,
        Command::Pair(args) => pair::pair(context, args).await,
        Command::Unpair(args) => pair::unpair(context, args).await,
        Command::Status => status::status(context).await,
        Command::Doctor => status::doctor(context).await,
        Command::Logs(args) => status::logs(context, args).await,
        Command::Service(command) => status::service(context, command),
        // Handled before a runtime was started.
        Command::Config { .. } | Command::Run { .. } | Command::Completions { .. } | Command::Man { .. } => {
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn context(global: args::Global) -> anyhow::Result<Context> {
    let paths = Paths::resolve(global.data_dir.clone(), global.config.clone())?;
    if global.config.is_some() && !paths.config_file.exists() {
        let message = format!("There is no configuration file {}.", paths.config_file.display());
        return Err(exit::fail(exit::Exit::Usage, message));
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut effective = config::load(&paths.config_file, environment)?;
    if let Some(filter) = &global.log {
        effective.set_flag("log", filter)?;
    }
    if let Some(format) = global.log_format {
        effective.set_flag("log_format", format.as_str())?;
    }
    Ok(Context { paths, effective, json: global.json, global })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(args: &[&str]) -> Vec<String> {
        let args =
            std::iter::once("claudenest-agent").chain(args.iter().copied()).map(OsString::from).collect();
        let args = raw_claude_args(args);
        args.into_iter().skip(1).map(|arg| arg.into_string().unwrap()).collect()
    }

    #[test]
    fn everything_behind_claude_is_claudes() {
        assert_eq!(raw(&["claude", "--help", "--json"]), ["claude", "--", "--help", "--json"]);
        assert_eq!(
            raw(&["--data-dir", "claude", "claude", "-p"]),
            ["--data-dir", "claude", "claude", "--", "-p"]
        );
        assert_eq!(raw(&["--json", "session", "new", "claude"]), ["--json", "session", "new", "claude"]);
        let cli = Cli::try_parse_from(raw_claude_args(
            ["x", "claude", "-p", "--json", "--", "--version"].map(OsString::from).to_vec(),
        ))
        .unwrap();
        let Command::Claude { args } = cli.command else { panic!("not the claude command") };
        assert_eq!(args, ["-p", "--json", "--", "--version"]);
        assert!(!cli.global.json);
    }
}

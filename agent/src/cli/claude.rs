//! `claude`: the drop-in. Starts a supervised session, attaches, and ends as Claude Code ends.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use claudenest_shared::session::SessionSpec;
use claudenest_shared::wire::agent::Op;
use rustix::fs::FileType;

use super::exit::{Exit, fail};
use super::{Context, attach, daemon, session};
use crate::claude::{Claude, is_not_a_session};

/// Variables of the calling shell that change what Claude Code and its tools do and hold no secret. Secrets
/// come from the daemon's environment (`pass_env`): what is asked for here is kept with the session.
const PASSED: [&str; 12] = [
    "PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "JAVA_HOME",
    "GOPATH",
    "NVM_DIR",
    "EDITOR",
    "VISUAL",
    "CLAUDE_CONFIG_DIR",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_MODEL",
    "NODE_EXTRA_CA_CERTS",
];

pub(super) async fn run(context: &Context, args: Vec<String>) -> anyhow::Result<ExitCode> {
    if is_not_a_session(&args) {
        return Err(run_real(context, &args));
    }
    let is_print = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "-p" || arg == "--print");
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if is_print && stdin_has_data() {
        // Piped text is part of the prompt and belongs to the program itself.
        return Err(run_real(context, &args));
    }
    if !is_print {
        attach::need_terminal(
            "`claude` needs a terminal. Without one use -p, or: claudenest-agent session new --prompt TEXT",
        )?;
    }
    let env =
        PASSED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    let spec = SessionSpec {
        cwd: session::directory(None)?,
        args,
        env,
        size: attach::terminal_size(),
        ..SessionSpec::default()
    };
    let mut client = daemon::connect_or_start(context).await?;
    let info = client.session(Op::SessionCreate { spec: Box::new(spec) }).await.map_err(daemon::refused)?;
    if has_terminal {
        attach::to_new(context, client, info).await
    } else {
        attach::print(client, &info).await
    }
}

/// True if standard input is a pipe or a file, so that there may be something to read.
fn stdin_has_data() -> bool {
    rustix::fs::fstat(std::io::stdin()).is_ok_and(|stat| {
        matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::Fifo | FileType::RegularFile | FileType::Socket
        )
    })
}

/// Becomes the real Claude Code; returns only if that fails.
fn run_real(context: &Context, args: &[String]) -> anyhow::Error {
    let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned()).unwrap_or_default();
    let claude = Claude::new(context.effective.config.claude_path.clone(), home, std::env::var_os("PATH"));
    match claude.find() {
        Ok(program) => {
            let error = Command::new(&program).args(args).exec();
            fail(Exit::Failed, format!("{} cannot be started: {error}", program.display()))
        }
        Err(error) => fail(Exit::Failed, error.to_string()),
    }
}

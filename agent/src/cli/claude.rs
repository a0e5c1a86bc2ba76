//! `claude`: the drop-in. On a terminal it starts a supervised session, attaches, and ends as Claude Code ends; in a
//! pipe or a script it becomes Claude Code itself.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use claudenest_shared::session::SessionSpec;
use claudenest_shared::wire::agent::Op;

use super::exit::{Exit, fail};
use super::{Context, attach, daemon, session};
use crate::claude::command::is_print;
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
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    // A script wants pipes to be pipes: standard error apart, every byte as it is, input read to its end. And there
    // is no terminal that could be closed under the session.
    if is_not_a_session(&args) || !has_terminal {
        return Err(run_real(context, &args));
    }
    let is_print = is_print(&args);
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
    if is_print {
        attach::print(context, client, &info).await
    } else {
        attach::to_new(context, client, info).await
    }
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

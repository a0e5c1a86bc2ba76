//! Running the daemon, reaching it, and starting it when it does not run.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;

use super::Context;
use super::exit::{Exit, fail, wire};
use crate::control::{BindError, Client, ClientError, Identity};
use crate::daemon::{self, DaemonError};

/// What a daemon in the background says on its standard output when it serves.
const READY: &str = "ready";

/// `run`: the daemon. In the background it leaves the terminal and logs to its file only.
pub(super) fn run(context: &Context, is_background: bool) -> anyhow::Result<ExitCode> {
    if is_background {
        // Fails only for a process that leads its group already, which is as good.
        let _ = rustix::process::setsid();
    }
    context.paths.ensure()?;
    let config = context.effective.config.clone();
    let log_file = context.paths.log_file();
    crate::log::start(&config.log, config.log_format, !is_background, Some(&log_file))
        .with_context(|| format!("Cannot write the log {}", log_file.display()))?;
    let ready = move || {
        if is_background {
            println!("{READY}");
            let _ = std::io::stdout().flush();
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(workers())
        .thread_name("agent")
        .build()
        .context("Cannot start the runtime")?;
    let result = runtime.block_on(daemon::run(config, context.paths.clone(), ready));
    // Blocking threads (a keyring that waits for a person) must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error @ DaemonError::Bind(BindError::Running { .. })) => {
            Err(fail(Exit::Refused, error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Half of the CPUs, four at most: the others belong to the sessions. A second worker is woken for every keystroke
/// and gains nothing: the whole daemon needs 1.2 s of CPU time for a gigabyte of plain text (measured), its terminal 4 s.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| (cpus.get() / 2).clamp(1, 4))
}

/// Connects to the daemon.
pub(super) async fn connect(context: &Context) -> anyhow::Result<Client> {
    Client::connect(&context.paths.control_socket(), &Identity::from_env()).await.map_err(refused)
}

/// Connects to the daemon; starts it in the background if it does not run, and says so.
pub(super) async fn connect_or_start(context: &Context) -> anyhow::Result<Client> {
    let socket = context.paths.control_socket();
    match Client::connect(&socket, &Identity::from_env()).await {
        Err(ClientError::NotRunning) => {}
        other => return other.map_err(refused),
    }
    if Identity::from_env() != Identity::Operator {
        return Err(refused(ClientError::NotRunning));
    }
    eprintln!(
        "The agent's daemon does not run; starting it in the background. \
         To have it at every login: claudenest-agent service install"
    );
    start(context)?;
    Client::connect(&socket, &Identity::from_env()).await.map_err(refused)
}

/// Starts a daemon in the background and waits until it serves.
pub(super) fn start(context: &Context) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("Cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(context.global.as_arguments()).args(["run", "--background"]);
    let mut child = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("Cannot start the daemon")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).context("Cannot hear from the daemon")?;
    }
    if line.trim() == READY {
        return Ok(());
    }
    let mut reason = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut reason);
    }
    let reason = reason.trim().trim_start_matches("claudenest-agent: ");
    // Two commands at once may both start one: the other's is as good.
    if child.wait().ok().and_then(|status| status.code()) == Some(Exit::Refused as i32) {
        return Ok(());
    }
    Err(fail(Exit::NoDaemon, format!("The daemon does not start: {reason}")))
}

/// An error of the daemon, with its exit code.
pub(super) fn refused(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Refused(error) => wire(error),
        error @ ClientError::NotRunning => fail(Exit::NoDaemon, error.to_string()),
        error => fail(Exit::Failed, error.to_string()),
    }
}

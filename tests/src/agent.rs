//! A real agent with a home of its own, and the commands of its CLI.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use claudenest_shared::pairing::PairingCode;
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{self, Finished, Running};
use crate::relay::Relay;
use crate::{PATIENCE, program, scratch};

/// The account that the harness pairs machines with.
pub const OWNER: &str = "alice@example.com";

/// An agent: its daemon may run or not, its sessions live on.
pub struct Agent {
    dir: tempfile::TempDir,
    daemon: Option<Running>,
    env: Vec<(String, String)>,
    program: PathBuf,
}

impl Agent {
    /// An agent whose `claude` is the fake one; the daemon is not started.
    ///
    /// # Errors
    /// If its home cannot be prepared.
    pub fn new() -> Result<Self> {
        let agent = Self {
            dir: scratch("agent"),
            daemon: None,
            env: Vec::new(),
            program: program("claudenest-agent"),
        };
        std::fs::create_dir_all(agent.home().join("bin"))?;
        std::fs::create_dir_all(agent.work())?;
        agent.use_claude(&program("fake_claude"))?;
        Ok(agent)
    }

    /// A running agent that knows no relay.
    ///
    /// # Errors
    /// If the daemon does not get ready.
    pub fn start() -> Result<Self> {
        let mut agent = Self::new()?;
        agent.run_daemon()?;
        Ok(agent)
    }

    /// A running agent, paired with `relay` for [`OWNER`] by the real flow.
    ///
    /// # Errors
    /// If any step fails.
    pub fn start_paired(relay: &Relay) -> Result<Self> {
        let mut agent = Self::new()?;
        agent.pair(relay, OWNER)?;
        agent.run_daemon()?;
        Ok(agent)
    }

    /// Puts another program in the place of `claude`.
    ///
    /// # Errors
    /// If the link cannot be made.
    pub fn use_claude(&self, target: &Path) -> Result<()> {
        let link = self.home().join("bin/claude");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(target, link).context("linking claude")
    }

    /// Uses another build of the agent from now on (an update).
    pub fn use_program(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// Sets a variable for the daemon and every command.
    pub fn set_env(&mut self, name: &str, value: impl Into<String>) {
        self.env.push((name.to_owned(), value.into()));
    }

    /// Home directory.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// A directory for sessions to work in.
    pub fn work(&self) -> PathBuf {
        self.home().join("work")
    }

    /// Data directory.
    pub fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    /// A command of the agent program in this agent's home.
    pub fn command(&self) -> Command {
        let mut command = process::command(&self.program, &self.home());
        command
            .env("CLAUDENEST_AGENT_DATA_DIR", self.data())
            .env("CLAUDENEST_AGENT_LOG", "debug")
            .env("XDG_CONFIG_HOME", self.home().join("config"))
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a subcommand to its end.
    ///
    /// # Errors
    /// If it does not end.
    pub fn run(&self, args: &[&str]) -> Result<Finished> {
        process::run(self.command().args(args), PATIENCE)
    }

    /// Runs a subcommand that must succeed, and reads the JSON it prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = args.to_vec();
        all.push("--json");
        self.run(&all)?.json().with_context(|| format!("claudenest-agent {args:?}"))
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// With its output, if it is not.
    pub fn run_daemon(&mut self) -> Result<()> {
        let mut command = self.command();
        command.arg("run");
        let mut daemon = Running::start(command, Some(&self.dir.path().join("ready.sock")))?;
        daemon.wait_ready(PATIENCE).context("the agent's daemon")?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// `kill -9` of the daemon.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Stops the daemon in an orderly way; sessions stay.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop_daemon(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(Signal::TERM);
            daemon.wait(PATIENCE).context("stopping the daemon")?;
        }
        Ok(())
    }

    /// Process id of the daemon, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Running::pid)
    }

    /// Everything the daemon has printed since its last start.
    pub fn output(&mut self) -> String {
        self.daemon.as_mut().map(Running::output).unwrap_or_default()
    }

    /// Pairs by the real flow: the machine shows a code, the relay's host claims it, the machine confirms by `--expect-account`.
    ///
    /// # Errors
    /// If any step fails.
    pub fn pair(&self, relay: &Relay, email: &str) -> Result<()> {
        // The account must exist before its name can be expected.
        relay.login_token(email)?;
        let mut command = self.command();
        command.args(["pair", "--relay", &relay.url(), "--expect-account", email]);
        let mut pairing = Running::start(command, None)?;
        let code = pairing.wait_line(PATIENCE, find_code).context("the code of agent pair")?;
        relay.run(&["pair", &code, "--email", email])?.ok().context("relay pair")?;
        let status = pairing.wait(PATIENCE).context("agent pair")?;
        ensure!(status.success(), "agent pair ended with {status}:\n{}", pairing.output());
        Ok(())
    }

    /// Starts a session of the fake Claude that runs `script`, and waits until it runs. Answers its info.
    ///
    /// # Errors
    /// If it does not start.
    pub fn new_session(&self, name: &str, script: &str) -> Result<Value> {
        let work = self.work();
        let env = format!("FAKE_CLAUDE={script}");
        let work = work.to_str().context("a UTF-8 path")?;
        self.json(&["session", "new", "--name", name, "--dir", work, "--env", &env])?;
        self.json(&["session", "wait", name, "--for", "running"])
    }

    /// What `session show` says.
    ///
    /// # Errors
    /// If there is no such session.
    pub fn show(&self, name: &str) -> Result<Value> {
        self.json(&["session", "show", name])
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill_daemon();
        process::sweep(self.dir.path());
    }
}

/// The pairing code in a line of text, if there is one.
pub fn find_code(line: &str) -> Option<String> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .find(|word| word.len() == 7 && word.as_bytes()[3] == b'-' && word.parse::<PairingCode>().is_ok())
        .map(str::to_owned)
}

//! A real relay in directories of its own, with its built-in PostgreSQL.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::http::Http;
use crate::process::{self, Finished, Running};
use crate::{PATIENCE, free_port, program, scratch};

/// A relay that runs, or can be started again over the same data and port.
pub struct Relay {
    dir: tempfile::TempDir,
    port: u16,
    running: Option<Running>,
    public_url: Option<String>,
    args: Vec<String>,
    log: &'static str,
}

impl Relay {
    /// Starts a relay.
    ///
    /// # Errors
    /// With its output, if it does not get ready.
    pub fn start() -> Result<Self> {
        Self::start_with(&[], None)
    }

    /// Starts a relay with further arguments of `serve` and the address that its users see.
    ///
    /// # Errors
    /// With its output, if it does not get ready.
    pub fn start_with(args: &[&str], public_url: Option<&str>) -> Result<Self> {
        Self::start_on(free_port(), args, public_url)
    }

    /// Starts a relay that logs no more than it does for people: for measurements.
    ///
    /// # Errors
    /// With its output, if it does not get ready.
    pub fn start_quiet() -> Result<Self> {
        Self::create(free_port(), &[], None, "info")
    }

    /// The same on a port that was chosen before.
    ///
    /// # Errors
    /// With its output, if it does not get ready.
    pub fn start_on(port: u16, args: &[&str], public_url: Option<&str>) -> Result<Self> {
        Self::create(port, args, public_url, "debug")
    }

    fn create(port: u16, args: &[&str], public_url: Option<&str>, log: &'static str) -> Result<Self> {
        let mut relay = Self {
            dir: scratch("relay"),
            port,
            running: None,
            public_url: public_url.map(str::to_owned),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            log,
        };
        relay.resume()?;
        Ok(relay)
    }

    /// Starts it again after [`Relay::kill`] or [`Relay::stop`].
    ///
    /// # Errors
    /// With its output, if it does not get ready.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = self.command();
        command
            .arg("serve")
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--public-url")
            .arg(self.url())
            .args(&self.args);
        let mut running = Running::start(command, Some(&self.dir.path().join("ready.sock")))?;
        running.wait_ready(PATIENCE).context("the relay")?;
        self.running = Some(running);
        Ok(())
    }

    /// The address that its users see.
    pub fn url(&self) -> String {
        self.public_url.clone().unwrap_or_else(|| format!("http://127.0.0.1:{}", self.port))
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Stops it in an orderly way.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running.signal(Signal::TERM);
            running.wait(PATIENCE).context("stopping the relay")?;
        }
        Ok(())
    }

    /// Everything that it has printed since its last start.
    pub fn output(&mut self) -> String {
        self.running.as_mut().map(Running::output).unwrap_or_default()
    }

    /// A command of the relay program in this relay's directories.
    pub fn command(&self) -> Command {
        let mut command = process::command(program("claudenest-relay"), self.dir.path());
        command
            .env("CLAUDENEST_RELAY_DATA_DIR", self.data())
            .env("CLAUDENEST_RELAY_LOG", self.log)
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"));
        command
    }

    /// Runs a subcommand to its end.
    ///
    /// # Errors
    /// If it does not end.
    pub fn run(&self, args: &[&str]) -> Result<Finished> {
        process::run(self.command().args(args), PATIENCE)
    }

    /// Changes its database behind its back, for what only time would do.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn sql(&self, statement: &str) -> Result<()> {
        // Line 5 of this file of PostgreSQL's is the directory of its socket.
        let pid_file = self.data().join("postgres/data/postmaster.pid");
        let facts = std::fs::read_to_string(&pid_file).with_context(|| pid_file.display().to_string())?;
        let socket = facts.lines().nth(4).context("a socket")?;
        let mut psql = process::command("psql", self.dir.path());
        psql.args([
            "-h",
            socket,
            "-U",
            "claudenest",
            "-d",
            "claudenest",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
        ]);
        process::run(&mut psql, PATIENCE)?.ok().map(drop)
    }

    /// A one-time login token for `email`, who is created if missing.
    ///
    /// # Errors
    /// If the relay gives none.
    pub fn login_token(&self, email: &str) -> Result<String> {
        let text = self.run(&["login-link", "--email", email, "--json"])?.ok()?;
        let at = text.find("cnl_").with_context(|| format!("no login token in {text}"))?;
        let token: String =
            text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        Ok(token)
    }

    /// Logs `email` in.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn log_in(&self, email: &str) -> Result<Http> {
        Http::log_in(&format!("http://127.0.0.1:{}", self.port), &self.login_token(email)?)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(running) = self.running.as_ref() {
            running.signal(Signal::TERM);
            let _ = process::wait_end(running.pid(), std::time::Duration::from_secs(10));
        }
        drop(self.running.take());
        // The database cluster of a killed relay may still run.
        process::sweep(self.dir.path());
    }
}

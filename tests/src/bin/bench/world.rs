//! The product under test: the real relay and the real agent, paired, with workloads as sessions; and tmux beside them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use claudenest_shared::id::SessionId;
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_tests::agent::{Agent, OWNER};
use claudenest_tests::http::Http;
use claudenest_tests::relay::Relay;
use claudenest_tests::{PATIENCE, process, scratch};

use super::facts::{parent, pause, tree};
use super::puppet::{Puppet, Stage};
use super::terminal::{COLS, ROWS, Terminal};
use super::viewer::{Join, Viewer};
use super::workload;

/// The product. Everything ends with it.
pub struct World {
    /// The agent.
    pub agent: Agent,
    /// The relay.
    pub relay: Relay,
    /// A logged-in user who owns the machine.
    pub user: Http,
    names: u32,
}

/// A session whose program is a workload.
pub struct Session {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: SessionId,
    /// Process id of its holder.
    pub holder: u32,
    /// Steers the program.
    pub puppet: Puppet,
}

impl World {
    /// Starts relay and agent with the settings that people have, but for the number of sessions.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start() -> Result<Self> {
        let relay = Relay::start_quiet()?;
        let mut agent = Agent::new()?;
        agent.set_env("CLAUDENEST_AGENT_LOG", "info");
        agent.set_env("CLAUDENEST_AGENT_MAX_SESSIONS", "300");
        agent.use_claude(&std::env::current_exe()?)?;
        agent.pair(&relay, OWNER)?;
        agent.run_daemon()?;
        let user = relay.log_in(OWNER)?;
        Ok(Self { agent, relay, user, names: 0 })
    }

    /// Starts a session with a workload and waits until it is ready.
    ///
    /// # Errors
    /// If it does not start.
    pub fn session(&mut self) -> Result<Session> {
        self.names += 1;
        let name = format!("s{}", self.names);
        let stage = Stage::new(&self.agent.home())?;
        let (variable, value) = stage.variable();
        let work = self.agent.work();
        let work = work.to_str().context("a UTF-8 path")?;
        let env = format!("{variable}={value}");
        self.agent.json(&["session", "new", "--name", &name, "--dir", work, "--env", &env])?;
        let puppet = stage.wait().with_context(|| self.agent.output())?;
        let info = self.agent.show(&name)?;
        let id: SessionId = info["id"].as_str().context("a session id")?.parse()?;
        // The relay learns of it beside all this.
        let path = format!("/api/sessions/{id}");
        for _ in 0..PATIENCE.as_millis() / 10 {
            if self.user.get(&path)?.status == 200 {
                break;
            }
            pause(Duration::from_millis(10))?;
        }
        // A holder is the parent of the workload, which alone knows the socket.
        let workload =
            process::marked(value.as_ref()).into_iter().next().context("the workload's process")?;
        let holder = parent(workload).context("its holder")?;
        Ok(Session { name, id, holder, puppet })
    }

    /// Where the output of a session ends now.
    ///
    /// # Errors
    /// If the session is gone.
    pub fn head(&self, session: &Session) -> Result<StreamPosition> {
        let info = self.agent.show(&session.name)?;
        let epoch = u32::try_from(info["epoch"].as_u64().context("an epoch")?)?;
        Ok(StreamPosition { epoch, offset: info["output_bytes"].as_u64().context("a number of bytes")? })
    }

    /// Waits until the daemon's screen reflects every byte below `offset`.
    ///
    /// # Errors
    /// If it never does.
    pub fn until_screen(&self, session: &Session, offset: u64) -> Result<()> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let screen = self.agent.json(&["session", "screen", &session.name])?;
            if screen["offset"].as_u64().context("the offset of a screen")? >= offset {
                return Ok(());
            }
            anyhow::ensure!(std::time::Instant::now() < deadline, "the screen does not get to byte {offset}");
        }
    }

    /// A viewer through the relay.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn viewer(&self, session: &Session, join: Join, writes: bool) -> Result<Viewer> {
        Viewer::attach(&self.user, self.relay.port(), session.id, join, writes)
    }

    /// A person's terminal with `session attach`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn attach(&self, session: &Session) -> Result<Terminal> {
        let mut command = self.agent.command();
        command.args(["session", "attach", &session.name]);
        Terminal::start(&command)
    }

    /// Process id of the daemon.
    ///
    /// # Errors
    /// If it does not run.
    pub fn daemon(&self) -> Result<u32> {
        self.agent.pid().context("a running daemon")
    }

    /// Process ids of the relay and its database.
    ///
    /// # Errors
    /// If it does not run.
    pub fn relay_tree(&self) -> Result<Vec<u32>> {
        Ok(tree(self.relay.pid().context("a running relay")?))
    }

    /// Every process on the way of a session's bytes: its holder, the daemon, the relay with its database.
    ///
    /// # Errors
    /// If one does not run.
    pub fn pids(&self, session: &Session) -> Result<Vec<u32>> {
        let mut pids = self.relay_tree()?;
        pids.extend([session.holder, self.daemon()?]);
        Ok(pids)
    }
}

/// A workload in a terminal of the bench itself, or wherever `start` puts it.
///
/// # Errors
/// If it does not start.
pub fn stage<T>(start: impl FnOnce(&Command) -> Result<T>) -> Result<(T, Puppet)> {
    let dir = scratch("bench");
    let stage = Stage::new(dir.path())?;
    let mut command = process::command(std::env::current_exe()?, dir.path());
    let (name, value) = stage.variable();
    command.arg(workload::ROLE).env(name, value);
    let started = start(&command)?;
    Ok((started, stage.wait()?))
}

/// A tmux server of the bench with one session, a workload.
pub struct Tmux {
    dir: tempfile::TempDir,
}

impl Tmux {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no tmux.
    pub fn start() -> Result<(Self, Puppet)> {
        let dir = scratch("tmux");
        let tmux = Self { dir };
        let stage = Stage::new(tmux.dir.path())?;
        let (name, value) = stage.variable();
        std::fs::write(
            tmux.config(),
            "set -g status off\nset -g history-limit 100000\nset -sg escape-time 0\n",
        )?;
        let program = std::env::current_exe()?;
        let (cols, rows) = (COLS.to_string(), ROWS.to_string());
        let mut command = tmux.command();
        command.args(["new-session", "-d", "-s", "bench", "-x", &cols, "-y", &rows, "-e"]);
        command.arg(format!("{name}={value}")).arg(program).arg(workload::ROLE);
        process::run(&mut command, claudenest_tests::PATIENCE)?.ok()?;
        Ok((tmux, stage.wait()?))
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("tmux.conf")
    }

    fn command(&self) -> Command {
        let mut command = process::command("tmux", self.dir.path());
        command.arg("-S").arg(self.dir.path().join("socket")).arg("-f").arg(self.config());
        command
    }

    /// A person's terminal with `tmux attach`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn attach(&self) -> Result<Terminal> {
        let mut command = self.command();
        command.args(["attach", "-t", "bench"]);
        Terminal::start(&command)
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = process::run(self.command().arg("kill-server"), claudenest_tests::PATIENCE);
        process::sweep(self.dir.path());
    }
}

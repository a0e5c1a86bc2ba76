//! One server process: made, taken over, awaited, stopped.

use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::find::Installation;
use super::layout::{Layout, NAME};
use super::{PostgresError, io};
use crate::db::cluster::{self, Answer};

/// How often a starting or stopping server is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A server of a killed relay that still runs answers at once; this allows for a loaded machine.
const ADOPT_WITHIN: Duration = Duration::from_secs(10);
/// A server that says that it recovers gets all the time it needs; one that says nothing gets this.
const SILENT_WITHIN: Duration = Duration::from_secs(60);
/// Starts that fail at once are tried again: children of a server that was killed may hold the cluster for a moment.
const START_TRIES: u32 = 5;
const START_PAUSE: Duration = Duration::from_millis(500);
/// A fast shutdown writes one checkpoint; beyond this an immediate one follows, which is safe: the log is replayed.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// A larger log is put aside at the next start.
const MAX_LOG_BYTES: u64 = 5 * 1024 * 1024;
const TAIL_LINES: usize = 15;

/// A running server.
#[derive(Debug)]
pub(super) enum Server {
    /// Started by this relay.
    Child(Child),
    /// Started by an earlier relay that did not live to stop it.
    Adopted(Pid),
}

impl Server {
    /// Takes over the server of this cluster if one runs, otherwise starts one (and makes the cluster first, if there is none).
    pub(super) async fn up(layout: &Layout, installation: &Installation) -> Result<Self, PostgresError> {
        if layout.cluster_major()?.is_none() {
            init(layout, installation).await?;
        }
        if let Some(server) = Self::adopt(layout).await? {
            return Ok(server);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::start(layout, installation).await {
                Err(PostgresError::Start { .. }) if tries < START_TRIES => sleep(START_PAUSE).await,
                result => return result,
            }
        }
    }

    /// Looks for a server that an earlier relay left, and takes it over or stops it.
    async fn adopt(layout: &Layout) -> Result<Option<Self>, PostgresError> {
        let file = layout.data().join("postmaster.pid");
        let Ok(text) = std::fs::read_to_string(&file) else { return Ok(None) };
        let Some(pid) = text.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw)
        else {
            return Ok(None);
        };
        if !is_alive(pid) {
            return Ok(None);
        }
        if !is_postgres(pid) {
            // Another process got the number (after a reboot, or in a container). PostgreSQL would refuse to start.
            std::fs::remove_file(&file).map_err(io("The stale lock cannot be removed:", file))?;
            return Ok(None);
        }
        let options = layout.options();
        let since = Instant::now();
        loop {
            match cluster::ask(&options).await {
                Answer::Ready { data_dir } if same_file(Path::new(&data_dir), &layout.data()) => {
                    tracing::info!(
                        pid = pid.as_raw_nonzero().get(),
                        "took over the database server of an earlier relay"
                    );
                    return Ok(Some(Self::Adopted(pid)));
                }
                Answer::Starting => {}
                _ if since.elapsed() > ADOPT_WITHIN => break,
                _ => {}
            }
            if !is_alive(pid) {
                return Ok(None);
            }
            sleep(LOOK_EVERY).await;
        }
        let mut server = Self::Adopted(pid);
        server.end().await;
        if is_alive(pid) {
            let pid = pid.as_raw_nonzero().get().unsigned_abs();
            return Err(PostgresError::Stuck { pid, dir: layout.data() });
        }
        Ok(None)
    }

    async fn start(layout: &Layout, installation: &Installation) -> Result<Self, PostgresError> {
        let log = layout.log();
        rotate(&log);
        let out = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log)
            .map_err(io("The log of the database cannot be opened:", &log))?;
        let err = out.try_clone().map_err(io("The log of the database cannot be opened:", &log))?;
        let mut command = command(layout, installation, "postgres");
        command.arg("-D").arg(layout.data()).stdout(out).stderr(err);
        for (key, value) in settings(layout) {
            command.arg("-c").arg(format!("{key}={value}"));
        }
        let mut child =
            command.spawn().map_err(io("This cannot be run:", installation.program("postgres")))?;
        let options = layout.options();
        let since = Instant::now();
        loop {
            match cluster::ask(&options).await {
                Answer::Ready { .. } => return Ok(Self::Child(child)),
                Answer::Starting => {}
                Answer::None if since.elapsed() > SILENT_WITHIN => {
                    let mut server = Self::Child(child);
                    server.end().await;
                    return Err(PostgresError::Start { tail: tail(&log), log });
                }
                Answer::None => {}
            }
            // Wakes as soon as the server ends.
            if tokio::time::timeout(LOOK_EVERY, child.wait()).await.is_ok() {
                return Err(PostgresError::Start { tail: tail(&log), log });
            }
        }
    }

    /// Waits until the server ends.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost.
    pub(super) async fn ended(&mut self) {
        match self {
            Self::Child(child) => {
                // An error means that it cannot be waited for: it is gone.
                let _ = child.wait().await;
            }
            Self::Adopted(pid) => {
                while is_alive(*pid) {
                    sleep(Duration::from_millis(250)).await;
                }
            }
        }
    }

    /// Stops the server.
    pub(super) async fn stop(mut self) {
        self.end().await;
    }

    /// Fast shutdown (SIGINT), after a long while immediate shutdown (SIGQUIT). Never SIGKILL: its children would go on.
    async fn end(&mut self) {
        for signal in [Signal::INT, Signal::QUIT] {
            let Some(pid) = self.pid() else { return };
            if kill_process(pid, signal).is_err() {
                return;
            }
            if tokio::time::timeout(STOP_WITHIN, self.ended()).await.is_ok() {
                return;
            }
            tracing::warn!("the built-in database takes long to stop");
        }
    }

    fn pid(&self) -> Option<Pid> {
        match self {
            Self::Child(child) => child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)),
            Self::Adopted(pid) => Some(*pid),
        }
    }
}

/// A program of PostgreSQL as the server's user, in a process group of its own: Ctrl-C in the relay's terminal must not reach
/// the database before the relay is done with it.
pub(super) fn command(layout: &Layout, installation: &Installation, program: &str) -> Command {
    let mut command = std::process::Command::new(installation.program(program));
    // pg_upgrade calls `cp` and `rm`.
    let mut path = installation.bin_dir.clone().into_os_string();
    path.push(":/usr/bin:/bin");
    command
        .env_clear()
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir("/")
        .stdin(Stdio::null())
        .process_group(0);
    if let Some(account) = &layout.account {
        command.uid(account.uid).gid(account.gid);
    }
    command.into()
}

fn settings(layout: &Layout) -> Vec<(&'static str, String)> {
    vec![
        ("listen_addresses", String::new()),
        ("unix_socket_directories", layout.socket().display().to_string()),
        ("unix_socket_permissions", "0700".to_owned()),
        ("port", "5432".to_owned()),
        ("shared_buffers", "64MB".to_owned()),
        // One relay uses 16, the commands beside it one each.
        ("max_connections", "40".to_owned()),
        ("max_wal_size", "256MB".to_owned()),
        ("log_checkpoints", "off".to_owned()),
        ("jit", "off".to_owned()),
        ("timezone", "UTC".to_owned()),
    ]
}

/// Makes the cluster beside its place and moves it there when it is whole: a crash leaves no half cluster.
async fn init(layout: &Layout, installation: &Installation) -> Result<(), PostgresError> {
    init_unfinished(layout, installation).await?;
    std::fs::rename(layout.unfinished(), layout.data())
        .map_err(io("The new database cannot be put in place:", layout.data()))
}

/// Makes an empty cluster beside the place of the real one.
pub(super) async fn init_unfinished(
    layout: &Layout,
    installation: &Installation,
) -> Result<(), PostgresError> {
    tracing::info!(dir = %layout.data().display(), postgres = installation.major, "making the built-in database");
    let unfinished = layout.unfinished();
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)
            .map_err(io("An unfinished database cannot be removed:", &unfinished))?;
    }
    let output = command(layout, installation, "initdb")
        .arg("-D")
        .arg(&unfinished)
        .args(["-U", NAME, "-E", "UTF8", "--data-checksums", "--no-instructions"])
        // Sort order of bytes: indexes do not depend on the system's locale data, which change with updates.
        .arg("--no-locale")
        // Only who can enter the socket's directory can connect: the server's user and root.
        .args(["--auth-local=trust", "--auth-host=reject"])
        .output()
        .await
        .map_err(io("This cannot be run:", installation.program("initdb")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(PostgresError::Init { dir: unfinished, output: text });
    }
    Ok(())
}

fn rotate(log: &Path) {
    if std::fs::metadata(log).is_ok_and(|meta| meta.len() > MAX_LOG_BYTES) {
        // Best effort: a log that cannot be moved goes on growing.
        let _ = std::fs::rename(log, log.with_extension("log.1"));
    }
}

fn tail(log: &Path) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// True if the process runs. One that has ended but was not collected (a container without an init) does not.
fn is_alive(pid: Pid) -> bool {
    let exists = match test_kill_process(pid) {
        Ok(()) => true,
        Err(error) => error == rustix::io::Errno::PERM,
    };
    exists && !is_zombie(pid)
}

fn is_zombie(pid: Pid) -> bool {
    // `pid (name) state …`; the name may contain anything, so from the last bracket on.
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) else {
        return false;
    };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// True if the process is a PostgreSQL server.
fn is_postgres(pid: Pid) -> bool {
    let pid = pid.as_raw_nonzero();
    let name = match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => name,
        Err(_) => {
            let output =
                std::process::Command::new("ps").args(["-o", "comm=", "-p", &pid.to_string()]).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
        }
    };
    name.trim().rsplit('/').next().is_some_and(|name| name.starts_with("postgres"))
}

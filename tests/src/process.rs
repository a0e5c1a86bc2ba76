//! Child processes of a test: started with an environment of their own, watched, ended by process id.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// The output of a command that must have succeeded.
    ///
    /// # Errors
    /// With both outputs, when it did not.
    pub fn ok(self) -> Result<String> {
        if self.code != Some(0) {
            bail!("exit {:?}\n-- stdout\n{}\n-- stderr\n{}", self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }

    /// Its output as JSON.
    ///
    /// # Errors
    /// When it failed or printed something else.
    pub fn json(self) -> Result<serde_json::Value> {
        let text = self.ok()?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }
}

/// A command with nothing of the test's environment but what every program needs.
pub fn command(program: impl AsRef<OsStr>, home: &Path) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = vec![home.join("bin")];
    dirs.extend(std::env::split_paths(&path));
    command
        .env_clear()
        .env("PATH", std::env::join_paths(dirs).unwrap_or(path))
        .env("HOME", home)
        .env("USER", "tester")
        .env("LANG", "C.UTF-8")
        .env("TERM", "xterm-256color")
        .env("SHELL", "/bin/bash")
        .env("RUST_BACKTRACE", "1")
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end, at most `limit` long.
///
/// # Errors
/// If it cannot be started or takes longer; then it is killed.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let pid = child.id();
    let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
        bail!("no pipes")
    };
    let (done, ends) = channel();
    let out_done = done.clone();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = out.read_to_end(&mut text);
        let _ = out_done.send((true, text));
    });
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = err.read_to_end(&mut text);
        let _ = done.send((false, text));
    });
    let ended = wait_end(pid, limit);
    if ended.is_err() {
        kill(pid, Signal::KILL);
    }
    let status = child.wait()?;
    let mut texts = [String::new(), String::new()];
    // A daemon that the command left behind may hold its pipes open: then what came so far is all there is.
    for _ in 0..2 {
        let Ok((is_stdout, text)) = ends.recv_timeout(Duration::from_secs(5)) else { break };
        texts[usize::from(!is_stdout)] = String::from_utf8_lossy(&text).into_owned();
    }
    let [stdout, stderr] = texts;
    if ended.is_err() {
        bail!("{command:?} did not end in {limit:?}\n-- stdout\n{stdout}\n-- stderr\n{stderr}");
    }
    Ok(Finished { code: status.code(), stdout, stderr })
}

/// Sends a signal to one process; a process that is gone is no error.
pub fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// True if the process exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Waits for the end of any process by its pidfd.
///
/// # Errors
/// If it is still there after `limit`.
pub fn wait_end(pid: u32, limit: Duration) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    let timeout = Timespec::try_from(limit).context("a limit that fits")?;
    let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout))?;
    if ready == 0 {
        bail!("process {} still runs after {limit:?}", pid.as_raw_nonzero());
    }
    Ok(())
}

/// Every process that carries `mark` (a path of this test alone) in its command line or environment.
pub fn marked(mark: &Path) -> Vec<u32> {
    let Some(mark) = mark.to_str() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            ["cmdline", "environ"].iter().any(|file| {
                let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
            })
        })
        .collect()
}

/// Ends every process that carries `mark`, until none is left (a process may just be starting another).
pub fn sweep(mark: &Path) {
    for _ in 0..20 {
        let pids = marked(mark);
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            kill(pid, Signal::KILL);
            let _ = wait_end(pid, Duration::from_secs(2));
        }
    }
}

/// A program that runs beside the test: its output lines arrive as events, and it ends with this value.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    ready: Option<(UnixDatagram, std::path::PathBuf)>,
}

impl Running {
    /// Starts `command` with its output collected. `notify` is a path for its readiness notice (`sd_notify`).
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command, notify: Option<&Path>) -> Result<Self> {
        let ready = match notify {
            Some(path) => {
                let _ = std::fs::remove_file(path);
                let socket = UnixDatagram::bind(path).context("the readiness socket")?;
                command.env("NOTIFY_SOCKET", path);
                Some((socket, path.to_owned()))
            }
            None => None,
        };
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let (sender, lines) = channel();
        let pipes: [Box<dyn Read + Send>; 2] = match (child.stdout.take(), child.stderr.take()) {
            (Some(out), Some(err)) => [Box::new(out), Box::new(err)],
            _ => bail!("no pipes"),
        };
        for pipe in pipes {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(std::result::Result::ok) {
                    let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        Ok(Self { child, lines, seen: Vec::new(), ready })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the `READY=1` notice.
    ///
    /// # Errors
    /// With the output so far, if the program ends or says nothing within `limit`.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let Some((socket, path)) = self.ready.as_ref() else { bail!("started without a readiness socket") };
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 4096];
        // The end of the program sends no datagram: look at it several times a second.
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        loop {
            if let Ok(size) = socket.recv(&mut buffer) {
                if buffer[..size].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                    let _ = std::fs::remove_file(path);
                    return Ok(());
                }
                continue;
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let output = self.output();
                bail!(
                    "not ready ({}):\n{output}",
                    ended.map_or("still silent".into(), |end| end.to_string())
                );
            }
        }
    }

    /// Waits for an output line that `find` answers, from the first line on.
    ///
    /// # Errors
    /// With the output so far, if none comes within `limit`.
    pub fn wait_line<T>(&mut self, limit: Duration, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        if let Some(found) = self.seen.iter().find_map(|line| find(line)) {
            return Ok(found);
        }
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = find(&line);
                    self.seen.push(line);
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("no such line in {limit:?}:\n{}", self.output()),
                Err(RecvTimeoutError::Disconnected) => bail!("ended without such a line:\n{}", self.output()),
            }
        }
    }

    /// All output so far.
    pub fn output(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.child.id(), signal);
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// With the output so far, if it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Err(error) = wait_end(self.child.id(), limit) {
            bail!("{error}:\n{}", self.output());
        }
        Ok(self.child.wait()?)
    }

    /// Kills it at once (SIGKILL) and waits.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("-- output of process {}:\n{}", self.child.id(), self.output());
        }
    }
}

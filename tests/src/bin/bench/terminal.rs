//! A program under a pseudo-terminal that is read by the measuring thread itself, without a thread or a channel between.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use claudenest_tests::PATIENCE;
use rustix::termios::Winsize;

use super::workload::ready;

/// Size of every terminal of the bench.
pub const COLS: u16 = 120;
/// Its rows.
pub const ROWS: u16 = 40;

/// First argument of the process that takes its standard input as controlling terminal and becomes the program.
pub const BECOME: &str = "become";

/// Starts a program in a new terminal; answers it and the terminal's other end.
///
/// # Errors
/// If that fails.
pub fn spawn(command: &Command) -> Result<(Child, File)> {
    let size = Winsize { ws_col: COLS, ws_row: ROWS, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = rustix_openpty::openpty(None, Some(&size))?;
    rustix::io::fcntl_setfd(&pty.controller, rustix::io::FdFlags::CLOEXEC)?;
    let user = File::from(pty.user);
    let mut start = Command::new(std::env::current_exe()?);
    start.arg(BECOME).arg(command.get_program()).args(command.get_args()).env_clear();
    start.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        start.current_dir(dir);
    }
    let child = start.stdin(user.try_clone()?).stdout(user.try_clone()?).stderr(user).spawn()?;
    Ok((child, File::from(pty.controller)))
}

/// What [`BECOME`] does; returns only when the program cannot be started.
///
/// # Errors
/// Why it cannot.
pub fn become_program(program: &str, args: &[String]) -> Result<()> {
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(std::io::stdin())?;
    Err(Command::new(program).args(args).exec()).with_context(|| format!("starting {program}"))
}

/// See the module. The program is killed when this is dropped.
pub struct Terminal {
    child: Child,
    master: File,
    buffer: Vec<u8>,
}

impl Terminal {
    /// Starts a program.
    ///
    /// # Errors
    /// If that fails.
    pub fn start(command: &Command) -> Result<Self> {
        let (child, master) = spawn(command)?;
        Ok(Self { child, master, buffer: vec![0; 64 * 1024] })
    }

    /// Process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types bytes.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.master.write_all(bytes)?)
    }

    /// Waits at most `limit` for output; false if none came.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn wait(&self, limit: Duration) -> Result<bool> {
        Ok(ready([&self.master], Some(limit))?[0])
    }

    /// One read: what the terminal has, or waits for.
    ///
    /// # Errors
    /// If the program has ended.
    pub fn read(&mut self) -> Result<&[u8]> {
        let size = self.master.read(&mut self.buffer)?;
        ensure!(size > 0, "the program in the terminal has ended");
        Ok(&self.buffer[..size])
    }

    /// Reads until `is_done` answers true for a piece of output.
    ///
    /// # Errors
    /// If it never does.
    pub fn until(&mut self, mut is_done: impl FnMut(&[u8]) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if !self.wait(deadline.saturating_duration_since(Instant::now()))? {
                bail!("the program in the terminal has printed nothing of the kind");
            }
            if is_done(self.read()?) {
                return Ok(());
            }
        }
    }

    /// Reads until `text` was printed, in one piece or several.
    ///
    /// # Errors
    /// If it never is.
    pub fn until_text(&mut self, text: &str) -> Result<()> {
        let mut tail = Vec::new();
        self.until(|bytes| {
            tail.extend_from_slice(bytes);
            let is_there = tail.windows(text.len()).any(|window| window == text.as_bytes());
            tail.drain(..tail.len().saturating_sub(text.len()));
            is_there
        })
        .with_context(|| format!("waiting for {text:?}"))
    }

    /// Reads until nothing comes for that long.
    ///
    /// # Errors
    /// If the program has ended.
    pub fn until_quiet(&mut self, pause: Duration) -> Result<()> {
        while self.wait(pause)? {
            self.read()?;
        }
        Ok(())
    }

    /// Types one byte and waits until it is printed; answers how long that took.
    ///
    /// # Errors
    /// If it never is.
    pub fn key(&mut self, key: u8) -> Result<Duration> {
        let from = Instant::now();
        self.write(&[key])?;
        self.until(|bytes| bytes.contains(&key))?;
        Ok(from.elapsed())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The child and the two ends of its standard streams.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use claudenest_shared::session::{Exit, TermSize};
use claudenest_shared::wire::holder::IoKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::termios::Winsize;

use super::{HolderSpec, sys};

/// The holder's end of the child's streams.
pub(super) struct Child {
    pid: Pid,
    io: IoKind,
    end: OwnedFd,
}

fn winsize(size: TermSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Child {
    /// Starts the child. The error is a sentence for people.
    pub(super) fn start(spec: &HolderSpec) -> Result<Self, String> {
        let Some((program, args)) = spec.argv.split_first() else {
            return Err("No program was named.".to_owned());
        };
        check_directory(&spec.cwd)?;
        let unusable = |error: io::Error| format!("{program} could not be started: {}.", reason(&error));
        let (end, theirs) = match spec.io {
            IoKind::Pty => {
                let pty = rustix_openpty::openpty(None, Some(&winsize(spec.size)))
                    .map_err(|error| format!("No terminal could be opened: {}.", reason(&error.into())))?;
                (pty.controller, pty.user)
            }
            IoKind::Pipe => {
                let (ours, theirs) = UnixStream::pair().map_err(unusable)?;
                (ours.into(), theirs.into())
            }
        };
        // Nobody waits in a read or a write of it but those who say so; the child's end is another description.
        rustix::io::ioctl_fionbio(&end, true).map_err(|error| unusable(error.into()))?;
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&spec.cwd)
            .stdin(theirs.try_clone().map_err(unusable)?)
            .stdout(theirs.try_clone().map_err(unusable)?)
            .stderr(Stdio::from(theirs));
        sys::prepare_child(&mut command, spec.io == IoKind::Pty);
        let child = command.spawn().map_err(unusable)?;
        // `command` holds the child's ends open; the reader would never see the end otherwise.
        drop(command);
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| format!("{program} could not be started: no process id."))?;
        Ok(Self { pid, io: spec.io, end })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// A descriptor for the thread that reads output.
    pub(super) fn reader(&self) -> io::Result<Reader> {
        Ok(Reader(File::from(self.end.try_clone()?)))
    }

    /// A descriptor for the thread that writes input.
    pub(super) fn writer(&self) -> io::Result<Writer> {
        Ok(Writer(File::from(self.end.try_clone()?)))
    }

    pub(super) fn resize(&self, size: TermSize) {
        if self.io == IoKind::Pty {
            // It fails only when the terminal is gone; then the exit follows.
            let _ = rustix::termios::tcsetwinsize(&self.end, winsize(size));
        }
    }

    /// Closes the child's standard input (pipe only).
    pub(super) fn close_input(&self) {
        if self.io == IoKind::Pipe {
            let _ = rustix::net::shutdown(&self.end, rustix::net::Shutdown::Write);
        }
    }

    /// Signals the child's process group and, when it is another, the terminal's foreground group.
    ///
    /// The caller makes sure that the child was not reaped, so that its number cannot be somebody else's.
    pub(super) fn signal(&self, signo: u8) {
        let Some(signal) = Signal::from_named_raw(i32::from(signo)) else { return };
        if self.io == IoKind::Pty
            && let Ok(front) = rustix::termios::tcgetpgrp(self.end.as_fd())
            && front != self.pid
        {
            let _ = rustix::process::kill_process_group(front, signal);
        }
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Waits for the end of the child without reaping it.
    pub(super) fn wait_for_end(&self) {
        use rustix::process::{WaitId, WaitIdOptions};
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(self.pid), options) {}
    }

    /// Reaps the child, which has ended.
    pub(super) fn reap(&self) -> Exit {
        loop {
            match rustix::process::waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(Some((_, status))) => {
                    if let Some(code) = status.exit_status() {
                        return Exit::Code { code: code as u8 };
                    }
                    if let Some(signal) = status.terminating_signal() {
                        return Exit::Signal { signal: signal as u8 };
                    }
                }
                Ok(None) | Err(_) => return Exit::Lost {},
            }
        }
    }
}

/// The output of the child; a closed terminal reads as the end.
pub(super) struct Reader(File);

impl Reader {
    /// What there is, 0 at the end; `None` if nothing came by `deadline`.
    pub(super) fn read_until(
        &mut self,
        buffer: &mut [u8],
        deadline: Option<Instant>,
    ) -> io::Result<Option<usize>> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !wait_for(&self.0, PollFlags::IN, deadline)? {
                        return Ok(None);
                    }
                }
                // Linux says EIO when the last process closed its side of the terminal.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(Some(0)),
                result => return result.map(Some),
            }
        }
    }
}

/// The input of the child.
pub(super) struct Writer(File);

impl Writer {
    /// Writes as much as is taken at once.
    pub(super) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&self.0).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                result => return result,
            }
        }
    }

    /// Writes everything, and waits where the child does not read.
    pub(super) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let size = self.write_now(bytes)?;
            bytes = &bytes[size..];
            if size == 0 {
                wait_for(&self.0, PollFlags::OUT, None)?;
            }
        }
        Ok(())
    }
}

/// Waits until a descriptor can be read or written, or has ended; false if that is not so by `deadline`.
fn wait_for(end: &File, what: PollFlags, deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let patience = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
        });
        match poll(&mut [PollFd::new(end, what)], patience.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

fn check_directory(cwd: &Path) -> Result<(), String> {
    match fs::metadata(cwd) {
        Ok(metadata) if metadata.is_dir() => {
            if metadata.permissions().mode() & 0o111 == 0 {
                return Err(format!("The directory {} cannot be entered.", cwd.display()));
            }
            Ok(())
        }
        Ok(_) => Err(format!("{} is not a directory.", cwd.display())),
        Err(error) => Err(format!("The directory {} cannot be used: {}.", cwd.display(), reason(&error))),
    }
}

/// The cause of an IO error without the number that people cannot use.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}

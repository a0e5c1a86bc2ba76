//! A person's terminal: a program under a pseudo-terminal, typed into and read by a test.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// A program in a terminal of its own; it is killed when this value is dropped.
pub struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    input: Box<dyn Write + Send>,
    chunks: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
    size: (u16, u16),
}

impl Terminal {
    /// Starts `command` in a terminal of so many columns and rows.
    ///
    /// # Errors
    /// If that fails.
    pub fn start(command: &std::process::Command, cols: u16, rows: u16) -> Result<Self> {
        let pair = native_pty_system().openpty(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 })?;
        let mut builder = CommandBuilder::new(command.get_program());
        builder.args(command.get_args());
        builder.env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                builder.env(name, value);
            }
        }
        if let Some(dir) = command.get_current_dir() {
            builder.cwd(dir);
        }
        let child = pair.slave.spawn_command(builder)?;
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader()?;
        let input = pair.master.take_writer()?;
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(size @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..size].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, master: pair.master, input, chunks, bytes: Vec::new(), size: (cols, rows) })
    }

    /// Types bytes.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.input.write_all(bytes)?;
        Ok(self.input.flush()?)
    }

    /// Changes its size.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn resize(&mut self, cols: u16, rows: u16) -> Result<()> {
        self.size = (cols, rows);
        self.master.resize(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 })
    }

    /// Every byte that was printed so far.
    pub fn bytes(&mut self) -> &[u8] {
        for chunk in self.chunks.try_iter() {
            self.bytes.extend_from_slice(&chunk);
        }
        &self.bytes
    }

    /// The screen as text, for waiting and for messages. Fidelity is judged elsewhere, by xterm.js.
    pub fn screen(&mut self) -> String {
        let (cols, rows) = self.size;
        let bytes = self.bytes().to_vec();
        let draw = move || {
            let (Ok(rows), Ok(cols)) = (rows.try_into(), cols.try_into()) else { return String::new() };
            let mut parser = vt100::Parser::new(rows, cols, 0);
            parser.process(&bytes);
            parser.screen().contents()
        };
        // vt100 panics on some emoji at the right edge.
        std::panic::catch_unwind(draw).unwrap_or_default()
    }

    /// Reads until `is_done` answers for everything printed so far.
    ///
    /// # Errors
    /// With the screen, if that never happens.
    pub fn until(&mut self, limit: Duration, mut is_done: impl FnMut(&mut Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if is_done(self) {
                return Ok(());
            }
            match self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.bytes.extend_from_slice(&chunk),
                Err(RecvTimeoutError::Timeout) => bail!("not in {limit:?}; the screen:\n{}", self.screen()),
                Err(RecvTimeoutError::Disconnected) => {
                    if is_done(self) {
                        return Ok(());
                    }
                    bail!("the program ended; the screen:\n{}", self.screen())
                }
            }
        }
    }

    /// Reads until the raw output contains `text`.
    ///
    /// # Errors
    /// If it never does.
    pub fn until_bytes(&mut self, text: &str) -> Result<()> {
        let wanted = text.as_bytes();
        let mut looked = 0usize;
        self.until(crate::PATIENCE, |terminal| {
            let bytes = terminal.bytes();
            let from = looked.saturating_sub(wanted.len());
            looked = bytes.len();
            bytes[from..].windows(wanted.len()).any(|window| window == wanted)
        })
        .with_context(|| format!("waiting for {text:?}"))
    }

    /// Reads until the screen contains `text`.
    ///
    /// # Errors
    /// If it never does.
    pub fn until_screen(&mut self, text: &str) -> Result<()> {
        self.until(crate::PATIENCE, |terminal| terminal.screen().contains(text))
            .with_context(|| format!("waiting for {text:?} on the screen"))
    }

    /// Waits for the end of the program and answers its exit code.
    ///
    /// # Errors
    /// If it does not end.
    pub fn wait(&mut self) -> Result<u32> {
        // The reader ends with the program: then nothing more is printed.
        let deadline = Instant::now() + crate::PATIENCE;
        loop {
            match self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.bytes.extend_from_slice(&chunk),
                Err(RecvTimeoutError::Disconnected) => return Ok(self.child.wait()?.exit_code()),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the program still runs; the screen:\n{}", self.screen())
                }
            }
        }
    }

    /// Process id of the program.
    pub fn pid(&self) -> Option<u32> {
        self.child.process_id()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

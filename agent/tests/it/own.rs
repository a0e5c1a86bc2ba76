//! An agent with a home of its own: its daemon, its commands, and terminals attached to its sessions.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use serde_json::Value;

use crate::holder::program;
use crate::nest::{PATIENCE, sweep};

pub struct Own {
    pub dir: tempfile::TempDir,
    daemon: Option<std::process::Child>,
    env: Vec<(String, String)>,
}

impl Own {
    /// Directories, and a `claude` that is the shell script `claude`.
    pub fn new(claude: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::Builder::new().prefix("own").tempdir().unwrap();
        for sub in ["bin", "work"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let own = Self { dir, daemon: None, env: Vec::new() };
        let file = own.path("bin/claude");
        std::fs::write(&file, format!("#!/bin/bash\n{claude}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        own
    }

    pub fn started(claude: &str) -> Self {
        let mut own = Self::new(claude);
        own.start();
        own
    }

    /// Sets a variable for the daemon and every command.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(args)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("HOME", self.dir.path())
            .env("CLAUDENEST_AGENT_DATA_DIR", self.path("data"))
            .env("SHELL", "/bin/bash")
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.path("work"))
            .stdin(Stdio::null());
        let config = self.path("config.toml");
        if config.exists() {
            command.env("CLAUDENEST_AGENT_CONFIG", config);
        }
        command
    }

    /// Starts the daemon as `run --background` does, which says when it serves.
    pub fn start(&mut self) {
        let mut child = self
            .command(&["run", "--background"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"ready\n");
        self.daemon = Some(child);
    }

    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// Exit code, standard output, standard error.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap_or(-1), text(stdout), text(stderr))
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let (code, stdout, stderr) = self.run(&all);
        assert_eq!(code, 0, "{args:?}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// A shell session that waits for typing.
    pub fn shell(&self, name: &str) {
        self.json(&["session", "new", "--mode", "shell", "--name", name]);
    }

    pub fn terminal(&self, args: &[&str], cols: u16, rows: u16) -> Terminal {
        Terminal::start(&self.command(args), cols, rows)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.kill_daemon();
        sweep(self.dir.path());
    }
}

/// A program in a terminal of its own.
pub struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    input: Box<dyn Write + Send>,
    chunks: Receiver<Vec<u8>>,
    pub bytes: Vec<u8>,
    /// [`Self::modes`] before the program could change them.
    pub first_modes: String,
}

fn flags(master: &dyn MasterPty) -> String {
    format!("{:?}", master.get_termios().unwrap())
}

impl Terminal {
    fn start(command: &Command, cols: u16, rows: u16) -> Self {
        let pair =
            native_pty_system().openpty(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }).unwrap();
        let mut builder = CommandBuilder::new(command.get_program());
        builder.args(command.get_args());
        builder.env_clear();
        for (name, value) in command.get_envs() {
            builder.env(name, value.unwrap());
        }
        builder.cwd(command.get_current_dir().unwrap());
        let first_modes = flags(&*pair.master);
        let child = pair.slave.spawn_command(builder).unwrap();
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().unwrap();
        let input = pair.master.take_writer().unwrap();
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(size @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..size].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, master: pair.master, input, chunks, bytes: Vec::new(), first_modes }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).unwrap();
        self.input.flush().unwrap();
    }

    pub fn resize(&self, cols: u16, rows: u16) {
        self.master.resize(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }).unwrap();
    }

    pub fn pid(&self) -> i32 {
        self.child.process_id().unwrap().cast_signed()
    }

    /// Line discipline flags: equal before and after an attachment.
    pub fn modes(&self) -> String {
        flags(&*self.master)
    }

    /// Reads until `text` was printed after what an earlier call has found, and drops everything up to there.
    pub fn until(&mut self, text: &str) -> &mut Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.bytes.drain(..at + text.len());
                return self;
            }
            match self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.bytes.extend(chunk),
                Err(_) => panic!("no {text:?} in:\n{}", String::from_utf8_lossy(&self.bytes)),
            }
        }
    }

    /// Waits for the end: exit code, and what was printed last.
    pub fn wait(&mut self) -> (u32, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.bytes.extend(chunk),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("still runs:\n{}", String::from_utf8_lossy(&self.bytes))
                }
            }
        }
        let code = self.child.wait().unwrap().exit_code();
        (code, String::from_utf8_lossy(&self.bytes).into_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

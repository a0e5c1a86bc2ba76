//! What runs inside the terminals: an echo that, on command, floods, prints at a pace, or prints a block and falls silent.
//!
//! Commands come on a Unix socket, so that a workload can be steered while its terminal is what is being measured.
//! The terminal is in raw mode: what a viewer must receive is exactly what was written.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use sha2::{Digest, Sha256};

/// Names the socket of a workload's [`super::puppet::Puppet`].
pub const CONTROL: &str = "BENCH_CONTROL";
/// First argument of a workload.
pub const ROLE: &str = "workload";
/// Begins a line that carries the time at which it was written; it occurs nowhere else.
pub const MARK: u8 = b'@';
/// A paced workload writes this often: more often than any coalescing gathers.
const PACE: Duration = Duration::from_millis(2);
/// One write of a flood.
const WRITE_BYTES: usize = 64 * 1024;

/// Kinds of text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Numbers, one a line, as `seq` prints them: the shortest lines, the hardest for a screen model.
    Plain,
    /// Every word in a colour and a style of its own.
    Colour,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Colour => "colour",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        match name {
            "plain" => Ok(Self::Plain),
            "colour" => Ok(Self::Colour),
            _ => bail!("no such kind of text: {name}"),
        }
    }
}

/// About a mebibyte of whole lines; a flood repeats it.
pub fn block(kind: Kind) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024 * 1024 + 256);
    let mut number = 1_000_000u64;
    while out.len() < 1024 * 1024 {
        match kind {
            Kind::Plain => out.extend_from_slice(format!("{number}\r\n").as_bytes()),
            Kind::Colour => {
                for word in 0..8 {
                    let colour = 16 + (number * 7 + word * 31) % 216;
                    let style = [0, 1, 3, 4][(number + word) as usize % 4];
                    let text = format!("\x1b[{style};38;5;{colour}mword{word}{:x} ", number % 4096);
                    out.extend_from_slice(text.as_bytes());
                }
                out.extend_from_slice(b"\x1b[0m\r\n");
            }
        }
        number += 1;
    }
    out
}

/// SHA-256 of so many blocks.
pub fn digest(kind: Kind, blocks: u64) -> String {
    let block = block(kind);
    let mut hash = Sha256::new();
    (0..blocks).for_each(|_| hash.update(&block));
    claudenest_tests::hex(&hash.finalize())
}

/// The clock that all processes of a machine share, in nanoseconds.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Waits for input on one of two descriptors, at most `limit`; tells which have some.
pub fn ready<const N: usize>(fds: [&dyn std::os::fd::AsFd; N], limit: Option<Duration>) -> Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
    let timeout = limit.map(Timespec::try_from).transpose()?;
    loop {
        match poll(&mut polled, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(polled.each_ref().map(|fd| !fd.revents().is_empty())),
        }
    }
}

/// The workload: echoes until the terminal or the one who steers it is gone.
pub fn run() -> Result<()> {
    let stdin = std::io::stdin();
    let mut attributes = tcgetattr(&stdin)?;
    attributes.make_raw();
    tcsetattr(&stdin, OptionalActions::Now, &attributes)?;
    let path = std::env::var_os(CONTROL).context("a workload without a control socket")?;
    let control = UnixStream::connect(path)?;
    let mut workload = Workload { control, commands: Vec::new() };
    workload.say("ready")?;
    let mut buffer = vec![0; 4096];
    loop {
        let [has_input, has_command] = ready([&stdin, &workload.control], None)?;
        if has_input {
            let size = stdin.lock().read(&mut buffer)?;
            if size == 0 {
                return Ok(());
            }
            write(&buffer[..size])?;
        }
        if has_command && !workload.read_commands()? {
            return Ok(());
        }
        while let Some(command) = workload.next_command() {
            workload.obey(&command)?;
        }
    }
}

fn write(bytes: &[u8]) -> Result<()> {
    // Not the buffered standard output: a write is a write.
    let mut bytes = bytes;
    let stdout = std::io::stdout();
    while !bytes.is_empty() {
        match rustix::io::write(&stdout, bytes) {
            Ok(size) => bytes = &bytes[size..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

struct Workload {
    control: UnixStream,
    commands: Vec<u8>,
}

impl Workload {
    fn say(&mut self, line: &str) -> Result<()> {
        Ok(self.control.write_all(format!("{line}\n").as_bytes())?)
    }

    /// False when nobody steers any more.
    fn read_commands(&mut self) -> Result<bool> {
        let mut buffer = [0; 1024];
        let size = self.control.read(&mut buffer)?;
        self.commands.extend_from_slice(&buffer[..size]);
        Ok(size > 0)
    }

    fn next_command(&mut self) -> Option<String> {
        let end = self.commands.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.commands.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    /// True if a command waits.
    fn is_wanted(&self) -> Result<bool> {
        Ok(ready([&self.control], Some(Duration::ZERO))?[0])
    }

    fn obey(&mut self, command: &str) -> Result<()> {
        let words: Vec<&str> = command.split(' ').collect();
        match words.as_slice() {
            ["flood", blocks, kind] => {
                let block = block(Kind::parse(kind)?);
                let from = now_ns();
                for _ in 0..blocks.parse::<u64>()? {
                    for piece in block.chunks(WRITE_BYTES) {
                        write(piece)?;
                    }
                }
                self.say(&format!("done {}", now_ns() - from))
            }
            // Until the next command.
            ["endless", kind] => {
                let block = block(Kind::parse(kind)?);
                let mut bytes = 0;
                while !self.is_wanted()? {
                    for piece in block.chunks(WRITE_BYTES) {
                        write(piece)?;
                    }
                    bytes += block.len();
                }
                self.say(&format!("done {bytes}"))
            }
            // Until ^C is typed, as a program with a signal handler.
            ["until-interrupt", kind] => {
                let block = block(Kind::parse(kind)?);
                let stdin = std::io::stdin();
                let mut typed = [0; 64];
                'flood: loop {
                    for piece in block.chunks(WRITE_BYTES) {
                        if ready([&stdin], Some(Duration::ZERO))?[0] {
                            let size = stdin.lock().read(&mut typed)?;
                            if typed[..size].contains(&3) {
                                break 'flood;
                            }
                        }
                        write(piece)?;
                    }
                }
                write(format!("\r\n{}^C\r\n", MARK as char).as_bytes())?;
                self.say("done 0")
            }
            ["pace", bytes_per_second, milliseconds] => {
                let total = self.pace(bytes_per_second.parse()?, milliseconds.parse()?)?;
                self.say(&format!("done {total}"))
            }
            ["print", text] => {
                write(text.replace("\\r", "\r").replace("\\n", "\n").replace("\\e", "\x1b").as_bytes())?;
                self.say("done 0")
            }
            _ => bail!("no such command: {command}"),
        }
    }

    /// Lines at an even pace; each write begins with a line that says when.
    fn pace(&mut self, bytes_per_second: u64, milliseconds: u64) -> Result<u64> {
        let filler = block(Kind::Plain);
        let size = bytes_per_second * PACE.as_millis() as u64 / 1000;
        let (from, mut total) = (now_ns(), 0);
        for number in 0..milliseconds / PACE.as_millis() as u64 {
            let due = from + number * PACE.as_nanos() as u64;
            while now_ns() < due {
                let rest = Duration::from_nanos(due.saturating_sub(now_ns()));
                ready::<0>([], Some(rest))?;
            }
            let mut out = format!("{}{:020}\r\n", MARK as char, now_ns()).into_bytes();
            let lines = (size as usize).saturating_sub(out.len()) / 9;
            out.extend_from_slice(&filler[..lines * 9]);
            write(&out)?;
            total += out.len() as u64;
        }
        Ok(total)
    }
}

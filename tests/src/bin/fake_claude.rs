//! A stand-in for `claude` that does exactly what a test wrote into `FAKE_CLAUDE`: instructions separated by `;`, run in order.
//!
//! | instruction | meaning |
//! |---|---|
//! | `raw` | raw mode: bytes pass the terminal unchanged |
//! | `print TEXT` | prints TEXT (`\e`, `\a`, `\n`, `\r`, `\s` for space, `\p` for `;` are understood) |
//! | `wait TEXT` | reads input until TEXT came |
//! | `await FILE` | waits until FILE exists |
//! | `echo TEXT` | copies input to output until TEXT came |
//! | `file FILE` | prints the bytes of FILE |
//! | `lines N FILE` | N lines of mixed UTF-8; their byte count and SHA-256 go to FILE |
//! | `pour FILE` | such lines, one every 2 ms, until input contains `stop`; byte count and SHA-256 to FILE |
//! | `read N FILE` | reads exactly N bytes; their SHA-256 goes to FILE |
//! | `save TEXT FILE` | reads until TEXT came; what came before it goes to FILE |
//! | `alt` | alternate screen with a drawing |
//! | `queries N` | N times DA1, DSR and XTVERSION; then prints how many answers came |
//! | `ignore` | ignores SIGHUP, SIGTERM and SIGINT |
//! | `size` | prints `<cols>x<rows>` now and after each SIGWINCH, until input contains `stop` |
//! | `exit N` | exit code N |
//!
//! Without `FAKE_CLAUDE` it greets, echoes, and leaves on ^D. All output is hashed from its first byte: `total FILE` writes count and digest.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr};
use sha2::{Digest, Sha256};

fn main() -> Result<()> {
    if std::env::args().any(|arg| arg == "--version" || arg == "-v") {
        println!("2.1.329 (Claude Code)");
        return Ok(());
    }
    let script = std::env::var("FAKE_CLAUDE")
        .unwrap_or_else(|_| "raw; print fake claude is ready\\r\\n; echo \u{4}".to_owned());
    let mut fake = Fake { output: Tally::default(), input: Vec::new() };
    for instruction in script.split(';').map(str::trim_start).filter(|text| !text.is_empty()) {
        if let Some(code) = fake.run(instruction).with_context(|| format!("fake claude: {instruction}"))? {
            std::process::exit(code);
        }
    }
    Ok(())
}

/// Count and digest of bytes.
#[derive(Default, Clone)]
struct Tally {
    bytes: u64,
    hash: Sha256,
}

impl Tally {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    fn write_to(&self, path: &str) -> Result<()> {
        let digest = claudenest_tests::hex(&self.hash.clone().finalize());
        let temporary = format!("{path}.part");
        std::fs::write(&temporary, format!("{} {digest}\n", self.bytes))?;
        Ok(std::fs::rename(temporary, path)?)
    }
}

struct Fake {
    output: Tally,
    /// Input that was read and not yet used.
    input: Vec<u8>,
}

impl Fake {
    fn run(&mut self, instruction: &str) -> Result<Option<i32>> {
        let (word, rest) = instruction.split_once(' ').unwrap_or((instruction, ""));
        match word {
            "raw" => {
                let mut attributes = tcgetattr(std::io::stdin())?;
                attributes.make_raw();
                tcsetattr(std::io::stdin(), OptionalActions::Now, &attributes)?;
            }
            "print" => self.print(&unescape(rest))?,
            "wait" => self.until(&unescape(rest), false)?,
            "await" => {
                while !std::path::Path::new(rest).exists() {
                    self.poll(Duration::from_millis(10))?;
                }
            }
            "echo" => self.until(&unescape(rest), true)?,
            "file" => self.print(&std::fs::read(rest)?)?,
            "lines" => {
                let (count, file) = rest.split_once(' ').context("lines N FILE")?;
                let mut tally = Tally::default();
                for number in 0..count.parse::<u64>()? {
                    let line = line(number);
                    tally.add(line.as_bytes());
                    self.print(line.as_bytes())?;
                }
                tally.write_to(file)?;
            }
            "pour" => {
                let mut tally = Tally::default();
                for number in 0.. {
                    let line = line(number);
                    tally.add(line.as_bytes());
                    self.print(line.as_bytes())?;
                    if self.poll(Duration::from_millis(2))? && self.saw(b"stop") {
                        break;
                    }
                }
                tally.write_to(rest)?;
            }
            "read" => {
                let (count, file) = rest.split_once(' ').context("read N FILE")?;
                let count: usize = count.parse()?;
                while self.input.len() < count {
                    self.fill()?;
                }
                let mut tally = Tally::default();
                tally.add(&self.input[..count]);
                self.input.drain(..count);
                tally.write_to(file)?;
            }
            "save" => {
                let (text, file) = rest.split_once(' ').context("save TEXT FILE")?;
                let end = unescape(text);
                let at = loop {
                    if let Some(at) = self.input.windows(end.len().max(1)).position(|found| found == end) {
                        break at;
                    }
                    self.fill()?;
                };
                let temporary = format!("{file}.part");
                std::fs::write(&temporary, &self.input[..at])?;
                std::fs::rename(temporary, file)?;
                self.input.drain(..at + end.len());
            }
            "alt" => {
                self.print(b"\x1b[?1049h\x1b[2J\x1b[H\x1b[1;33mALT SCREEN\x1b[0m")?;
                for row in 3..20u16 {
                    let colour = 16 + row * 7;
                    self.print(
                        format!("\x1b[{row};{}H\x1b[38;5;{colour}mrow {row} 漢字 ✓\x1b[0m", row * 2)
                            .as_bytes(),
                    )?;
                }
            }
            "queries" => {
                let count: usize = rest.parse()?;
                for _ in 0..count {
                    self.print(b"\x1b[c\x1b[5n\x1b[>0q")?;
                }
                // An answer ends with its own final byte; what else comes within the pause is counted too.
                while self.poll(Duration::from_millis(700))? {}
                let count_of =
                    |wanted: &[u8]| self.input.windows(wanted.len()).filter(|w| *w == wanted).count();
                let report = format!(
                    "answers da={} dsr={} version={}\r\n",
                    count_of(b"\x1b[?"),
                    count_of(b"\x1b[0n"),
                    count_of(b"\x1bP>|")
                );
                self.input.clear();
                self.print(report.as_bytes())?;
            }
            "ignore" => ignore_signals()?,
            "size" => self.report_sizes()?,
            "total" => self.output.write_to(rest)?,
            "exit" => return Ok(Some(rest.parse()?)),
            _ => bail!("unknown instruction"),
        }
        Ok(None)
    }

    fn print(&mut self, bytes: &[u8]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()?;
        self.output.add(bytes);
        Ok(())
    }

    /// Reads more input; the end of it is an error.
    fn fill(&mut self) -> Result<usize> {
        let mut buffer = [0; 64 * 1024];
        let size = std::io::stdin().lock().read(&mut buffer)?;
        if size == 0 {
            bail!("the input ended");
        }
        self.input.extend_from_slice(&buffer[..size]);
        Ok(size)
    }

    /// Reads input that comes within `time`; false if none came.
    fn poll(&mut self, time: Duration) -> Result<bool> {
        let stdin = std::io::stdin();
        let timeout = Timespec::try_from(time)?;
        let ready = match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => 0,
            other => other?,
        };
        if ready == 0 {
            return Ok(false);
        }
        self.fill()?;
        Ok(true)
    }

    fn saw(&self, wanted: &[u8]) -> bool {
        self.input.windows(wanted.len()).any(|window| window == wanted)
    }

    fn until(&mut self, wanted: &[u8], is_echo: bool) -> Result<()> {
        let mut echoed = 0;
        loop {
            if is_echo {
                let new = self.input[echoed..].to_vec();
                self.print(&new)?;
                echoed = self.input.len();
            }
            if let Some(at) = self.input.windows(wanted.len().max(1)).position(|window| window == wanted) {
                self.input.drain(..at + wanted.len());
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn report_sizes(&mut self) -> Result<()> {
        let mut last = (0, 0);
        while !self.saw(b"stop") {
            let size = tcgetwinsize(std::io::stdin())?;
            if (size.ws_col, size.ws_row) != last {
                last = (size.ws_col, size.ws_row);
                self.print(format!("size {}x{}\r\n", last.0, last.1).as_bytes())?;
            }
            self.poll(Duration::from_millis(20))?;
        }
        Ok(())
    }
}

/// One line of deterministic mixed UTF-8: ASCII, accents, wide characters, emoji with joiners, colours.
fn line(number: u64) -> String {
    let texts = [
        "plain ascii text",
        "détails à l’œuvre",
        "漢字とかな",
        "emoji 👩‍💻 🇫🇷 ✅",
        "\x1b[1;32mgreen\x1b[0m ─┼─ ░▒▓",
    ];
    let pick = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize;
    format!("{number:06} {} {:x}\r\n", texts[pick % texts.len()], number.wrapping_mul(2_654_435_761))
}

fn unescape(text: &str) -> Vec<u8> {
    text.replace("\\e", "\x1b")
        .replace("\\n", "\n")
        .replace("\\r", "\r")
        .replace("\\s", " ")
        .replace("\\p", ";")
        .replace("\\a", "\x07")
        .into_bytes()
}

/// Takes the signals and does nothing with them, for the rest of the process.
fn ignore_signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        for kind in [SignalKind::hangup(), SignalKind::terminate(), SignalKind::interrupt()] {
            let mut stream = signal(kind)?;
            tokio::spawn(async move { while stream.recv().await.is_some() {} });
        }
        anyhow::Ok(())
    })?;
    // The runtime must live as long as the process: its thread takes the signals.
    std::mem::forget(runtime);
    Ok(())
}

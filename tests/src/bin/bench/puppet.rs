//! The one who steers a workload, from the side of the bench.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use claudenest_tests::PATIENCE;

use super::workload::{self, Kind, ready};

/// A place where a workload will report; hand its path to the workload, then [`Stage::wait`].
pub struct Stage {
    listener: UnixListener,
    path: PathBuf,
}

impl Stage {
    /// A new place below `dir`.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn new(dir: &Path) -> Result<Self> {
        let name: [u8; 6] = claudenest_tests::random();
        let path = dir.join(format!("p{}", claudenest_tests::hex(&name)));
        Ok(Self { listener: UnixListener::bind(&path).context("the socket of a workload")?, path })
    }

    /// The variable that tells a workload where to report.
    ///
    /// # Panics
    /// Never: scratch directories have UTF-8 names.
    pub fn variable(&self) -> (String, String) {
        (workload::CONTROL.to_owned(), self.path.to_str().expect("a UTF-8 path").to_owned())
    }

    /// Waits for the workload.
    ///
    /// # Errors
    /// If it does not report.
    pub fn wait(self) -> Result<Puppet> {
        if !ready([&self.listener], Some(PATIENCE))?[0] {
            bail!("a workload did not start");
        }
        let (stream, _) = self.listener.accept()?;
        let mut puppet = Puppet { lines: BufReader::new(stream.try_clone()?), stream };
        puppet.answer("ready", PATIENCE)?;
        Ok(puppet)
    }
}

/// A workload that runs. It ends when this is dropped.
pub struct Puppet {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Puppet {
    fn answer(&mut self, word: &str, limit: Duration) -> Result<u64> {
        self.stream.set_read_timeout(Some(limit))?;
        let mut line = String::new();
        self.lines.read_line(&mut line).with_context(|| format!("waiting for {word:?} of a workload"))?;
        let mut words = line.split_whitespace();
        if words.next() != Some(word) {
            bail!("a workload said {line:?} instead of {word:?}");
        }
        Ok(words.next().and_then(|number| number.parse().ok()).unwrap_or(0))
    }

    fn say(&mut self, command: &str) -> Result<()> {
        Ok(self.stream.write_all(format!("{command}\n").as_bytes())?)
    }

    /// Begins to write so many blocks.
    ///
    /// # Errors
    /// If the workload is gone; the same for the others.
    pub fn flood(&mut self, blocks: u64, kind: Kind) -> Result<()> {
        self.say(&format!("flood {blocks} {}", kind.name()))
    }

    /// Begins to write until [`Puppet::stop`].
    ///
    /// # Errors
    /// As above.
    pub fn endless(&mut self, kind: Kind) -> Result<()> {
        self.say(&format!("endless {}", kind.name()))
    }

    /// Begins to write until ^C is typed.
    ///
    /// # Errors
    /// As above.
    pub fn until_interrupt(&mut self, kind: Kind) -> Result<()> {
        self.say(&format!("until-interrupt {}", kind.name()))
    }

    /// Begins to write marked lines at a pace.
    ///
    /// # Errors
    /// As above.
    pub fn pace(&mut self, bytes_per_second: u64, time: Duration) -> Result<()> {
        self.say(&format!("pace {bytes_per_second} {}", time.as_millis()))
    }

    /// Prints a text without spaces (`\e`, `\r`, `\n` are understood).
    ///
    /// # Errors
    /// As above.
    pub fn print(&mut self, text: &str) -> Result<()> {
        self.say(&format!("print {text}"))?;
        self.done().map(drop)
    }

    /// Ends [`Puppet::endless`]; answers the bytes that were written.
    ///
    /// # Errors
    /// As above.
    pub fn stop(&mut self) -> Result<u64> {
        self.say("print .")?;
        let bytes = self.done()?;
        self.done()?;
        Ok(bytes)
    }

    /// Waits for the end of what was begun; answers nanoseconds or bytes.
    ///
    /// # Errors
    /// If it takes longer than two minutes.
    pub fn done(&mut self) -> Result<u64> {
        self.answer("done", Duration::from_secs(120))
    }
}

//! Logging: to stderr, and for the daemon to a file that cannot grow without bound.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::LogFormat;

/// A log file is renamed to `.1` when it reaches this size: two of them tell days of a normal daemon.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Starts logging to stderr, if wanted, and to a file, if given.
///
/// # Errors
/// If the file cannot be opened.
pub fn start(filter: &str, format: LogFormat, to_stderr: bool, file: Option<&Path>) -> io::Result<()> {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // These log every message whole at their lowest levels: terminals, prompts, tokens.
    let filter = ["tungstenite=info", "tokio_tungstenite=info"]
        .iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(filter, EnvFilter::add_directive);
    let stderr = to_stderr.then(|| layer(format, io::stderr, io::stderr().is_terminal()));
    let file = match file {
        Some(path) => Some(layer(format, Mutex::new(RotatingFile::open(path, MAX_FILE_BYTES)?), false)),
        None => None,
    };
    // A second start (in tests) changes nothing.
    let _ = tracing_subscriber::registry().with(filter).with(stderr).with(file).try_init();
    Ok(())
}

fn layer<S, W>(format: LogFormat, writer: W, is_coloured: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(is_coloured);
    match format {
        LogFormat::Human => layer.with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// A file that is renamed to `<name>.1` when it is full.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl RotatingFile {
    /// Opens `path` for appending.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limit })
    }

    /// The file that holds the lines before those of `path`.
    pub fn previous(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".1");
        PathBuf::from(name)
    }
}

impl Write for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.limit {
            std::fs::rename(&self.path, Self::previous(&self.path))?;
            *self = Self::open(&self.path, self.limit)?;
        }
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_once_and_no_line_is_cut() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("agent.log");
        let mut file = RotatingFile::open(&path, 30).unwrap();
        for number in 0..9 {
            writeln!(file, "line {number} ....").unwrap();
        }
        let (old, new) = (RotatingFile::previous(&path), &path);
        let text = std::fs::read_to_string(old).unwrap() + &std::fs::read_to_string(new).unwrap();
        assert!(text.ends_with("line 8 ....\n"), "{text}");
        assert!(text.lines().all(|line| line.len() == 11));
        assert!(std::fs::metadata(&path).unwrap().len() <= 30);
    }
}

//! `exit.json`: how the child ended, on disk before anybody is told.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use claudenest_shared::session::Exit;
use claudenest_shared::time::UnixMs;
use serde::{Deserialize, Serialize};

const FILE: &str = "exit.json";

/// How the child of a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Epoch of the run.
    pub epoch: u32,
    /// Bytes of output of the run.
    pub offset: u64,
    /// How it ended.
    pub exit: Exit,
    /// When.
    pub at: UnixMs,
}

/// Reads the exit of the run in `dir`; `None` if it has not ended or its holder was killed before it could say so.
pub fn read_exit(dir: &Path) -> Option<ExitRecord> {
    serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()
}

/// Writes the exit so that it is whole or absent after a crash.
///
/// # Errors
/// If the directory cannot be written.
pub(super) fn write_exit(dir: &Path, record: &ExitRecord) -> io::Result<()> {
    let temporary = dir.join("exit.json.new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(record).map_err(io::Error::other)?)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(FILE))
}

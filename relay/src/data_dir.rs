//! The relay's data directory: the lock that keeps a second relay out, and the note by which commands find the running one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Why the data directory cannot be used. Each is a sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made or written.
    #[error("The data directory {path} cannot be used: {source}.")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Everybody may put files there, and so take the database's place.
    #[error(
        "The data directory {path} may be written by everybody on this machine. Close it: chmod o-w {path}"
    )]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// Another relay uses it.
    #[error("Another relay already uses {path}{holder}. Stop it, or give another --data-dir.")]
    InUse {
        /// Which.
        path: PathBuf,
        /// ` (process 123, http://127.0.0.1:7450)`, if that is known.
        holder: String,
    },
}

/// What a running relay notes for the commands beside it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Note {
    /// Process id.
    pub pid: u32,
    /// Address that it listens on.
    pub listen: String,
    /// Address of the web app as people open it.
    pub public_url: String,
}

/// The directory, locked for this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holds the lock; the system lets go of it however the process ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if needed and locks it.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o002 != 0 {
            return Err(DataDirError::Open { path: path.to_owned() });
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("relay.lock"))
            .map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = read_note(path)
                    .map(|note| format!(" (process {}, {})", note.pid, note.public_url))
                    .unwrap_or_default();
                Err(DataDirError::InUse { path: path.to_owned(), holder })
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Writes the note, whole or not at all.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write_note(&self, note: &Note) -> Result<(), DataDirError> {
        let failed = |source| DataDirError::Io { path: self.path.clone(), source };
        let new = self.path.join("relay.json.new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .map_err(failed)?;
        serde_json::to_writer(&mut file, note).map_err(|error| failed(error.into()))?;
        file.write_all(b"\n").map_err(failed)?;
        std::fs::rename(&new, self.path.join("relay.json")).map_err(failed)
    }

    /// Removes the note: the relay stops.
    pub fn remove_note(&self) {
        // A note that stays is harmless: its lock is free, so nobody believes it.
        let _ = std::fs::remove_file(self.path.join("relay.json"));
    }
}

fn read_note(path: &Path) -> Option<Note> {
    serde_json::from_slice(&std::fs::read(path.join("relay.json")).ok()?).ok()
}

/// The note of the relay that runs with this directory now; `None` if none runs.
pub fn running(path: &Path) -> Option<Note> {
    let lock = File::open(path.join("relay.lock")).ok()?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => read_note(path),
        // Free: whoever wrote the note is gone.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_relay_is_refused_with_the_first_ones_address() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::lock(dir.path()).unwrap();
        let note = Note { pid: 7, listen: "127.0.0.1:1".into(), public_url: "http://127.0.0.1:1".into() };
        first.write_note(&note).unwrap();
        assert_eq!(running(dir.path()), Some(note));
        let refused = DataDir::lock(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("process 7") && refused.contains("http://127.0.0.1:1"), "{refused}");
        drop(first);
        let mode =
            |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o777);
        assert!(DataDir::lock(dir.path()).unwrap_err().to_string().contains("chmod o-w"));
        mode(0o700);
        assert_eq!(running(dir.path()), None);
        DataDir::lock(dir.path()).unwrap();
    }
}

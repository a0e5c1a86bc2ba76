//! `exit.json`: how the child ended, on disk before anybody is told. And whether anybody can still come to be told.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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

/// The two places by which a daemon finds a holder.
pub(super) struct Address {
    dir: PathBuf,
    socket: PathBuf,
    /// Device and number of the socket's file: a path may have been taken over by a later holder of the same run.
    socket_file: Option<(u64, u64)>,
}

impl Address {
    /// Call it when the socket is bound.
    pub(super) fn new(dir: &Path, socket: &Path) -> Self {
        let socket_file = fs::symlink_metadata(socket).ok().map(|file| (file.dev(), file.ino()));
        Self { dir: dir.to_owned(), socket: socket.to_owned(), socket_file }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// True if the run's directory was removed: the session is forgotten.
    pub(super) fn is_forgotten(&self) -> bool {
        is_gone(&self.dir)
    }

    /// True if no daemon will ever connect again.
    pub(super) fn is_unreachable(&self) -> bool {
        match fs::symlink_metadata(&self.socket) {
            Ok(file) => self.socket_file.is_some_and(|own| own != (file.dev(), file.ino())),
            Err(_) => is_gone(&self.socket),
        }
    }

    /// Removes the socket, unless it is another holder's by now.
    pub(super) fn remove_socket(&self) {
        if !self.is_unreachable() {
            let _ = fs::remove_file(&self.socket);
        }
    }
}

/// True only if it is certain: a path that cannot be looked at may still be there.
fn is_gone(path: &Path) -> bool {
    let error = fs::symlink_metadata(path).err().map(|error| error.kind());
    matches!(error, Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_another_holder_took_over_is_not_ours() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, socket) = (temp.path().join("run"), temp.path().join("s"));
        fs::create_dir(&dir).unwrap();
        fs::write(&socket, "").unwrap();
        let address = Address::new(&dir, &socket);
        assert!(!address.is_unreachable() && !address.is_forgotten());
        // Renamed onto it, so that the number is certainly another.
        fs::write(temp.path().join("other"), "").unwrap();
        fs::rename(temp.path().join("other"), &socket).unwrap();
        assert!(address.is_unreachable());
        address.remove_socket();
        assert!(socket.exists(), "it belongs to the other");
        fs::remove_file(&socket).unwrap();
        assert!(address.is_unreachable() && !address.is_forgotten());
        fs::remove_dir(&dir).unwrap();
        assert!(address.is_forgotten());
    }
}

//! Where the agent keeps its files, and that nobody else can reach them.
//!
//! Invariant: the runtime directory is never below `XDG_RUNTIME_DIR`: that goes away at logout, and the
//! holders of running sessions must be found again.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// `sockaddr_un` holds 104 bytes on macOS and 108 on Linux, with the closing zero; 100 leaves room for both.
const MAX_SOCKET_PATH_BYTES: usize = 100;
/// The longest name of a socket in the runtime directory: a session's UUID and a suffix, with room to grow.
const LONGEST_SOCKET_NAME: usize = 48;

/// The agent's files and directories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    /// The configuration file; it need not exist.
    pub config_file: PathBuf,
    /// Database, recordings, logs, secrets.
    pub data_dir: PathBuf,
    /// Sockets; short enough for every system.
    pub runtime_dir: PathBuf,
}

/// Why the agent's directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// No home directory is known.
    #[error("No home directory is known. Set HOME, or name the directories with --data-dir and --config.")]
    NoHome,
    /// A directory could not be made or read.
    #[error(
        "The directory {path} cannot be used: {source}. Make it writable, or choose another with --data-dir."
    )]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory belongs to another user, or is not a directory.
    #[error(
        "{path} is not a directory of yours (owner {owner}). Remove it or choose another with --data-dir."
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// User id of its owner.
        owner: u32,
    },
}

impl Paths {
    /// Finds the paths: from the arguments where given, otherwise where the system keeps such files.
    ///
    /// # Errors
    /// [`PathsError::NoHome`] when a path is neither given nor derivable.
    pub fn resolve(data_dir: Option<PathBuf>, config_file: Option<PathBuf>) -> Result<Self, PathsError> {
        let dirs = directories::ProjectDirs::from("", "", "claudenest-agent");
        let data_dir = match data_dir {
            Some(dir) => std::path::absolute(&dir).map_err(|source| PathsError::Io { path: dir, source })?,
            None => dirs.as_ref().ok_or(PathsError::NoHome)?.data_dir().to_owned(),
        };
        let config_file = match config_file {
            Some(file) => {
                std::path::absolute(&file).map_err(|source| PathsError::Io { path: file, source })?
            }
            None => dirs.as_ref().ok_or(PathsError::NoHome)?.config_dir().join("config.toml"),
        };
        let runtime_dir = runtime_dir(&data_dir, rustix::process::getuid().as_raw());
        Ok(Self { config_file, data_dir, runtime_dir })
    }

    /// Makes the data and runtime directories with mode 0700 and checks that they are the user's own.
    ///
    /// # Errors
    /// [`PathsError`] when a directory cannot be made or belongs to somebody else.
    pub fn ensure(&self) -> Result<(), PathsError> {
        for dir in [&self.data_dir, &self.runtime_dir, &self.sessions_dir(), &self.logs_dir()] {
            private_dir(dir)?;
        }
        Ok(())
    }

    /// The daemon's control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime_dir.join("control.sock")
    }

    /// Held locked by the one running daemon; contains its process id.
    pub fn lock_file(&self) -> PathBuf {
        self.data_dir.join("daemon.lock")
    }

    /// The SQLite database.
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("agent.db")
    }

    /// One directory for each session, named by its id: recording, settings for Claude Code, holder state.
    pub fn sessions_dir(&self) -> PathBuf {
        self.data_dir.join("sessions")
    }

    /// Log files of the daemon.
    pub fn logs_dir(&self) -> PathBuf {
        self.data_dir.join("logs")
    }

    /// The daemon's current log file.
    pub fn log_file(&self) -> PathBuf {
        self.logs_dir().join("agent.log")
    }

    /// The relays that this machine is paired with; holds no secrets.
    pub fn relays_file(&self) -> PathBuf {
        self.data_dir.join("relays.json")
    }

    /// Secrets, when no keyring can keep them.
    pub fn secrets_dir(&self) -> PathBuf {
        self.data_dir.join("secrets")
    }
}

/// Makes `dir` and what is above it, with mode 0700 for new directories, and takes group and world rights away.
///
/// # Errors
/// [`PathsError`] when it cannot be made, is a symbolic link, or belongs to another user.
pub fn private_dir(dir: &Path) -> Result<(), PathsError> {
    let failed = |source| PathsError::Io { path: dir.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    // The runtime directory may lie in /tmp, where anybody could have made it or a link first.
    let metadata = std::fs::symlink_metadata(dir).map_err(failed)?;
    let is_mine = metadata.uid() == rustix::process::geteuid().as_raw();
    if !is_mine || !(metadata.is_dir() || metadata.is_symlink() && !dir.starts_with("/tmp")) {
        return Err(PathsError::Foreign { path: dir.to_owned(), owner: metadata.uid() });
    }
    if metadata.is_dir() && metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

fn runtime_dir(data_dir: &Path, uid: u32) -> PathBuf {
    let near = data_dir.join("run");
    if near.as_os_str().len() + 1 + LONGEST_SOCKET_NAME < MAX_SOCKET_PATH_BYTES {
        return near;
    }
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let tag: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    PathBuf::from(format!("/tmp/claudenest-{uid}-{tag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_stay_short_whatever_the_data_directory() {
        let short = runtime_dir(Path::new("/home/a/.local/share/claudenest-agent"), 1000);
        assert_eq!(short, Path::new("/home/a/.local/share/claudenest-agent/run"));
        let long = PathBuf::from(format!("/home/{}", "x".repeat(80)));
        let far = runtime_dir(&long, 1000);
        assert!(far.starts_with("/tmp") && far.to_string_lossy().contains("claudenest-1000-"), "{far:?}");
        assert_ne!(far, runtime_dir(&long.join("b"), 1000), "two data directories share no sockets");
        assert!(far.as_os_str().len() + 1 + LONGEST_SOCKET_NAME < MAX_SOCKET_PATH_BYTES);
    }

    #[test]
    fn directories_are_private_even_if_they_were_not() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/b");
        private_dir(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        private_dir(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_in_place_of_a_directory_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("f");
        std::fs::write(&file, "").unwrap();
        assert!(private_dir(&file).is_err());
    }
}

//! Secrets in files: one file each, mode 0600, in a directory with mode 0700.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use claudenest_shared::secret::Secret;

use super::{SecretError, SecretStore};

/// Keeps secrets in a directory of the user.
#[derive(Debug)]
pub struct FileStore {
    dir: PathBuf,
}

impl FileStore {
    /// A store in `dir`, which is made by the first write.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The file of a secret.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl SecretStore for FileStore {
    fn get(&self, name: &str) -> Result<Option<Secret<String>>, SecretError> {
        let path = self.path(name);
        let failed = |source| SecretError::Io { path: path.clone(), action: "read", source };
        let mut file = match OpenOptions::new().read(true).custom_flags(nofollow()).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        // Checked on the open file: nobody can exchange it in between.
        let metadata = file.metadata().map_err(failed)?;
        let me = rustix::process::geteuid().as_raw();
        let problem = if metadata.uid() != me {
            Some(format!("belongs to user {}, not to you", metadata.uid()))
        } else if metadata.mode() & 0o077 != 0 {
            Some(format!("can be read by others (mode {:o})", metadata.mode() & 0o777))
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(SecretError::Exposed { path, problem });
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        text.truncate(text.trim_end().len());
        Ok(Some(Secret::new(text)))
    }

    fn set(&self, name: &str, secret: &Secret<String>) -> Result<(), SecretError> {
        write_private(&self.path(name), secret.expose().as_bytes())
    }

    fn delete(&self, name: &str) -> Result<(), SecretError> {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(SecretError::Io { path, action: "removed", source })
            }
            _ => Ok(()),
        }
    }
}

/// Writes a file with mode 0600 so that a crash leaves the old or the new content, never a part.
///
/// # Errors
/// [`SecretError::Io`] when it cannot be written; the old content is then still there.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    let failed = |source| SecretError::Io { path: path.to_owned(), action: "written", source };
    let dir = path.parent().unwrap_or(Path::new("/"));
    crate::paths::private_dir(dir).map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(name);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(nofollow())
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        failed(source)
    })
}

fn nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}

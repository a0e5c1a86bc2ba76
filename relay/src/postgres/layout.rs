//! Where the cluster, its socket and its log are, and who owns them.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::account::Account;
use super::find::Installation;
use super::{PostgresError, io};

/// Superuser of the cluster and name of the database.
pub(super) const NAME: &str = "claudenest";
/// Only part of the socket's name: nothing listens on a port.
const PORT: u16 = 5432;
/// A socket's path must fit into 104 bytes on macOS and 108 on Linux.
const MAX_SOCKET_PATH_BYTES: usize = 100;

/// Paths of one built-in database.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The relay's data directory.
    base: PathBuf,
    /// The server's user, if it is not the relay's.
    pub(super) account: Option<Account>,
    /// Directory of the socket.
    socket: PathBuf,
}

impl Layout {
    pub(super) fn new(base: &Path, account: Option<Account>) -> Self {
        let inside = base.join("postgres/socket");
        let file = inside.join(format!(".s.PGSQL.{PORT}"));
        let socket = if file.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
            inside
        } else {
            let hash = Sha256::digest(base.as_os_str().as_encoded_bytes());
            let uid = rustix::process::geteuid().as_raw();
            let short: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            PathBuf::from(format!("/tmp/claudenest-relay-{uid}-{short}"))
        };
        Self { base: base.to_owned(), account, socket }
    }

    /// Makes the directories and checks that the server's user can reach them and nobody else.
    pub(super) fn prepare(base: &Path, account: Option<Account>) -> Result<Self, PostgresError> {
        let layout = Self::new(base, account);
        // The other user must pass through, and see nothing.
        let mode = if layout.account.is_some() { 0o711 } else { 0o700 };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(base)
            .map_err(io("The data directory cannot be made:", base))?;
        if let Some(account) = &layout.account {
            if let Some(dir) = base.ancestors().skip(1).find(|dir| !account.may_enter(dir)) {
                return Err(PostgresError::Unreachable { user: account.name.clone(), dir: dir.to_owned() });
            }
            if !account.may_enter(base) {
                std::fs::set_permissions(base, std::fs::Permissions::from_mode(0o711))
                    .map_err(io("The mode of the data directory cannot be set:", base))?;
            }
        }
        layout.own_directory(&layout.root())?;
        layout.own_directory(&layout.socket)?;
        Ok(layout)
    }

    /// Makes a directory of the server's user, or checks the one that is there.
    fn own_directory(&self, dir: &Path) -> Result<(), PostgresError> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => {
                if let Some(account) = &self.account {
                    std::os::unix::fs::chown(dir, Some(account.uid), Some(account.gid))
                        .map_err(io("The owner cannot be set of", dir))?;
                }
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let meta = std::fs::symlink_metadata(dir).map_err(io("This cannot be read:", dir))?;
                let owner =
                    self.account.as_ref().map_or(rustix::process::geteuid().as_raw(), |account| account.uid);
                // A relay that was killed between making and giving away leaves a directory of its own.
                let is_mine = meta.uid() == rustix::process::geteuid().as_raw();
                if !meta.is_dir() || (meta.uid() != owner && !is_mine) || meta.mode() & 0o077 != 0 {
                    return Err(PostgresError::Unsafe { dir: dir.to_owned() });
                }
                if meta.uid() != owner
                    && let Some(account) = &self.account
                {
                    std::os::unix::fs::chown(dir, Some(account.uid), Some(account.gid))
                        .map_err(io("The owner cannot be set of", dir))?;
                }
                Ok(())
            }
            Err(error) => Err(io("The directory cannot be made:", dir)(error)),
        }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.base.join("postgres")
    }

    /// The cluster.
    pub(super) fn data(&self) -> PathBuf {
        self.root().join("data")
    }

    /// A cluster in the making.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.root().join("data.new")
    }

    /// The cluster as it was before an upgrade.
    pub(super) fn before_upgrade(&self, major: u32) -> PathBuf {
        self.root().join(format!("data.{major}"))
    }

    /// A cluster that an upgrade put aside.
    fn put_aside(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.root()).ok()?;
        let mut found = entries.filter_map(Result::ok).filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .and_then(|name| name.strip_prefix("data."))
                .is_some_and(|rest| rest.parse::<u32>().is_ok())
        });
        found.next().map(|entry| entry.path())
    }

    /// Directory of the socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The server's log: in a directory of the relay's user, so that the server's user cannot put a link there.
    pub(super) fn log(&self) -> PathBuf {
        self.base.join("postgres.log")
    }

    /// How to connect.
    pub(super) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket)
            .port(PORT)
            .username(NAME)
            .database(NAME)
            .ssl_mode(PgSslMode::Disable)
    }

    /// Version of the cluster that is there.
    pub(super) fn cluster_major(&self) -> Result<Option<u32>, PostgresError> {
        let data = self.data();
        let version = data.join("PG_VERSION");
        match std::fs::read_to_string(&version) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| PostgresError::NoCluster { dir: data }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !data.exists() => {
                match self.put_aside() {
                    // Never an empty database in the place of a full one.
                    Some(old) => Err(PostgresError::Interrupted { dir: data, old }),
                    None => Ok(None),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(PostgresError::NoCluster { dir: data })
            }
            Err(error) => Err(io("The version of the database cannot be read:", version)(error)),
        }
    }

    /// The programs for the cluster: those of its own version, or the newest for a new one.
    pub(super) fn choose(&self, installed: &[Installation]) -> Result<Installation, PostgresError> {
        let newest = installed.first().ok_or(PostgresError::NotInstalled { hint: "postgresql" })?;
        let Some(cluster) = self.cluster_major()? else { return Ok(newest.clone()) };
        let Some(same) = installed.iter().find(|installation| installation.major == cluster) else {
            let versions: Vec<String> = installed.iter().map(|found| found.major.to_string()).collect();
            return Err(PostgresError::OtherVersion {
                dir: self.data(),
                cluster,
                installed: versions.join(", "),
            });
        };
        if newest.major > cluster {
            tracing::info!(
                cluster,
                installed = newest.major,
                "a newer PostgreSQL is installed than the built-in database uses; to move to it, stop the relay and run `claudenest-relay upgrade-database`"
            );
        }
        Ok(same.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_data_directory_gets_a_short_socket() {
        let short = Layout::new(Path::new("/var/lib/claudenest-relay"), None);
        assert_eq!(short.socket(), Path::new("/var/lib/claudenest-relay/postgres/socket"));
        let long = PathBuf::from(format!("/{}", "x".repeat(120)));
        let one = Layout::new(&long, None);
        assert!(one.socket().starts_with("/tmp") && one.socket().as_os_str().len() < 60);
        assert_ne!(one.socket(), Layout::new(&long.join("y"), None).socket());
    }

    #[test]
    fn versions_are_matched_and_mismatches_explained() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), None);
        let installed = |majors: &[u32]| -> Vec<Installation> {
            majors.iter().map(|major| Installation { bin_dir: PathBuf::from("/x"), major: *major }).collect()
        };
        assert_eq!(layout.choose(&installed(&[17, 15])).unwrap().major, 17);
        std::fs::create_dir_all(layout.data()).unwrap();
        assert!(matches!(layout.choose(&installed(&[17])), Err(PostgresError::NoCluster { .. })));
        std::fs::write(layout.data().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(layout.choose(&installed(&[17, 15])).unwrap().major, 15);
        let sentence = layout.choose(&installed(&[18, 17])).unwrap_err().to_string();
        assert!(sentence.contains("PostgreSQL 15") && sentence.contains("18, 17"), "{sentence}");
    }

    #[test]
    fn directories_open_to_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("data");
        Layout::prepare(&base, None).unwrap();
        Layout::prepare(&base, None).unwrap();
        std::fs::set_permissions(base.join("postgres/socket"), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        assert!(matches!(Layout::prepare(&base, None), Err(PostgresError::Unsafe { .. })));
    }
}

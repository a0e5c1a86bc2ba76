//! The built-in database: a private PostgreSQL cluster in the data directory, which the relay makes, starts, watches and stops.
//!
//! Invariants: it listens on a Unix socket in a directory of its own user and on nothing else. It is never killed with
//! SIGKILL, and it does not die with the relay: after a `kill -9` of the relay the server goes on, and the next relay takes it
//! over. Durability settings are PostgreSQL's defaults. (A parent-death signal would tie the server to one *thread* of the
//! relay, and would cut connections in the middle of a commit for nothing: the server keeps no promise to a dead relay.)

mod account;
mod find;
mod layout;
mod server;
mod upgrade;

use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use account::Account;
pub use find::{Installation, OLDEST_MAJOR, find as installations};
use layout::Layout;
use server::Server;
pub use upgrade::{Upgraded, upgrade};

/// A server that ended is started again after this pause, doubled up to [`MAX_PAUSE`] while it keeps ending.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A server that lived so long was fine: the pause starts small again.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Why there is no built-in database. Each is a sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No programs.
    #[error(
        "The PostgreSQL programs were not found. The relay keeps its data in PostgreSQL and needs `initdb` and `postgres`, \
         version 15 or newer.\nInstall them ({hint}), or give the directory in `postgres_bin_dir`, or use another server with \
         --database-url."
    )]
    NotInstalled {
        /// The command that installs them.
        hint: &'static str,
    },
    /// The configured directory has no programs.
    #[error(
        "There are no PostgreSQL programs (`initdb`, `postgres`) in {dir}. Correct or remove `postgres_bin_dir`."
    )]
    NotThere {
        /// Which.
        dir: PathBuf,
    },
    /// The programs are too old.
    #[error(
        "The PostgreSQL in {dir} is version {major}; the relay needs 15 or newer. Install a newer one beside it."
    )]
    TooOld {
        /// Where.
        dir: PathBuf,
        /// Its version.
        major: u32,
    },
    /// The cluster was made by a version that is not installed.
    #[error(
        "The database in {dir} was made by PostgreSQL {cluster}, but installed is {installed}. Nothing was changed.\nInstall \
         PostgreSQL {cluster} beside it and start the relay; to move to the newer version afterwards, stop the relay and run \
         `claudenest-relay upgrade-database`."
    )]
    OtherVersion {
        /// The cluster.
        dir: PathBuf,
        /// Its version.
        cluster: u32,
        /// What is installed.
        installed: String,
    },
    /// There is something in the place of the cluster that is none.
    #[error("{dir} exists but is no PostgreSQL database. Move it away, or give another --data-dir.")]
    NoCluster {
        /// Which.
        dir: PathBuf,
    },
    /// An upgrade was cut short between its last two steps.
    #[error(
        "An upgrade of the database was interrupted: {dir} is missing, and the database as it was before is {old}. Nothing is \
         lost. Move it back (mv {old} {dir}), start the relay, and upgrade again when you like."
    )]
    Interrupted {
        /// Where the cluster should be.
        dir: PathBuf,
        /// Where it is.
        old: PathBuf,
    },
    /// There is nothing to upgrade, or nothing to upgrade to.
    #[error("{0}")]
    NothingToUpgrade(String),
    /// `pg_upgrade` failed.
    #[error("The database could not be upgraded; it is unchanged. pg_upgrade says:\n{output}")]
    Upgrade {
        /// What it said.
        output: String,
    },
    /// Root needs another user for the server.
    #[error(
        "PostgreSQL refuses to run as root, and there is no user {name:?} for it. Set `postgres_user` to an unprivileged user."
    )]
    NoUser {
        /// The name that was looked for.
        name: String,
    },
    /// The other user cannot reach the data directory.
    #[error(
        "The database runs as user {user:?}, which cannot enter {dir}. Give a --data-dir that it can reach, for example \
         /var/lib/claudenest-relay, or allow it: chmod o+x {dir}"
    )]
    Unreachable {
        /// The user.
        user: String,
        /// The directory in the way.
        dir: PathBuf,
    },
    /// A directory is not safe to use.
    #[error(
        "{dir} does not belong to this relay or is open to others; remove it or correct its owner and mode (0700)."
    )]
    Unsafe {
        /// Which.
        dir: PathBuf,
    },
    /// A file or directory cannot be made or read.
    #[error("{what} {path}: {source}.")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `initdb` failed.
    #[error("The database could not be made in {dir}:\n{output}")]
    Init {
        /// Where.
        dir: PathBuf,
        /// What it said.
        output: String,
    },
    /// The server ended while starting, or did not get ready.
    #[error("The built-in database does not start. The end of its log, {log}:\n{tail}")]
    Start {
        /// The log.
        log: PathBuf,
        /// Its end.
        tail: String,
    },
    /// An older server of this cluster runs and cannot be reached or stopped.
    #[error(
        "A PostgreSQL server (process {pid}) still uses {dir} and neither answers nor stops. Stop it: kill -INT {pid}"
    )]
    Stuck {
        /// Its process.
        pid: u32,
        /// The cluster.
        dir: PathBuf,
    },
    /// The database inside the cluster could not be made.
    #[error("The built-in database answers but cannot be used: {0}")]
    Db(#[from] crate::db::DbError),
}

pub(crate) fn io(
    what: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> PostgresError {
    let path = path.into();
    move |source| PostgresError::Io { what, path, source }
}

/// The running built-in database.
#[derive(Debug)]
pub struct BuiltIn {
    options: PgConnectOptions,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl BuiltIn {
    /// Makes the cluster if there is none, takes over a server that still runs or starts one, and waits until it answers.
    ///
    /// The caller holds the lock of the data directory: only one relay at a time gets here.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn start(config: &Config) -> Result<Self, PostgresError> {
        let account = Account::for_server(config.postgres_user.as_deref())?;
        let layout = Layout::prepare(&config.data_dir, account)?;
        let installations = find::find(config.postgres_bin_dir.as_deref())?;
        let installation = layout.choose(&installations)?;
        let options = layout.options();
        let server = Server::up(&layout, &installation).await?;
        crate::db::cluster::ensure_database(&options).await?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(supervise(layout, installation, server, stop.clone()));
        Ok(Self { options, stop, task })
    }

    /// How to connect to it.
    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Stops the server: it ends its connections, writes everything and exits. Call it after the pool is closed.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.task.await.is_err() {
            tracing::error!("the task that watches the built-in database has failed");
        }
    }
}

/// How to connect to the built-in database of a relay that runs now; the database may not be there.
pub fn running_options(config: &Config) -> PgConnectOptions {
    Layout::new(&config.data_dir, None).options()
}

/// Keeps a server running until told to stop.
async fn supervise(layout: Layout, installation: Installation, mut server: Server, stop: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = tokio::time::Instant::now();
        tokio::select! {
            () = server.ended() => {}
            () = stop.cancelled() => return server.stop().await,
        }
        tracing::warn!(log = %layout.log().display(), "the built-in database has ended unexpectedly; starting it again");
        if started.elapsed() > STABLE_AFTER {
            pause = FIRST_PAUSE;
        }
        server = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = (pause * 2).min(MAX_PAUSE);
            match Server::up(&layout, &installation).await {
                Ok(server) => break server,
                Err(error) => {
                    tracing::error!(error = %error, "the built-in database does not start; trying again")
                }
            }
        };
        tracing::info!("the built-in database is back");
    }
}

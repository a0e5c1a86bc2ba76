//! The agent's database: SQLite in the data directory, the only module with SQL.
//!
//! Invariants: the file is readable by its owner only; a change that was answered with success survives
//! `kill -9` and a power cut (WAL with `synchronous=FULL`: changes are rare and small).

mod approvals;
mod audit;
mod locks;
mod policy;

use std::path::{Path, PathBuf};
use std::time::Duration;

use claudenest_shared::id::SessionId;
use sqlx::Row;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::supervisor::Record;

pub use self::locks::{SavedLock, SavedLocks};

/// A writer waits this long for another; there is one writer in the daemon, others are tools of a person.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// SQLite writes one at a time; a second connection lets reads go on meanwhile.
const CONNECTIONS: u32 = 2;
const FILE: &str = "agent.db";

/// Why the database could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made or protected.
    #[error("the database file cannot be prepared in {dir}")]
    File {
        /// The data directory.
        dir: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be opened.
    #[error("the database {file} cannot be opened")]
    Open {
        /// The file.
        file: PathBuf,
        /// Cause.
        #[source]
        source: sqlx::Error,
    },
    /// Its tables cannot be brought up to date.
    #[error("the database cannot be brought up to date; is it of a newer version of this program?")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("the database refused a change")]
    Query(#[from] sqlx::Error),
    /// A record cannot be written as JSON.
    #[error("a record cannot be encoded")]
    Encode(#[from] serde_json::Error),
}

/// The open database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database in `data_dir`, making and updating it as needed.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cancel safety
    /// Nothing half-made is left: migrations are transactions.
    pub async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let file = data_dir.join(FILE);
        let prepare = || -> std::io::Result<()> {
            std::fs::create_dir_all(data_dir)?;
            std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700))?;
            // SQLite gives its journal files the permissions of the database.
            std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&file)?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))
        };
        prepare().map_err(|source| StoreError::File { dir: data_dir.to_owned(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open { file, source })?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// Reads what an agent has stored in `data_dir` without changing anything: for commands while no daemon runs.
    /// Nothing is there before the first daemon.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn peek(data_dir: &Path) -> Result<Vec<Record>, StoreError> {
        let Some(store) = Self::reader(data_dir).await? else { return Ok(Vec::new()) };
        let records = store.sessions().await;
        store.close().await;
        records
    }

    /// Opens the database for reading, beside a daemon or without one; `None` before the first daemon.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn reader(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        let file = data_dir.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let options = SqliteConnectOptions::new().filename(&file).busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open { file, source })?;
        Ok(Some(Self { pool }))
    }

    /// Every session. A record that this version cannot read is left in place, logged and skipped.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn sessions(&self) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query("SELECT id, record FROM sessions ORDER BY created_at, id")
            .fetch_all(&self.pool)
            .await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let id: String = row.try_get(0)?;
            let text: String = row.try_get(1)?;
            match serde_json::from_str(&text) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::error!(session.id = %id, %error, "a session in the database cannot be read and is ignored");
                }
            }
        }
        Ok(records)
    }

    /// Writes a session, new or changed.
    ///
    /// # Errors
    /// [`StoreError::Query`], for example when the disk is full.
    ///
    /// # Cancel safety
    /// Written or not, never half.
    pub async fn save_session(&self, record: &Record) -> Result<(), StoreError> {
        let text = serde_json::to_string(record)?;
        sqlx::query(
            "INSERT INTO sessions (id, name, state, created_at, record) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET name = ?2, state = ?3, record = ?5",
        )
        .bind(record.info.id.to_string())
        .bind(&record.info.name)
        .bind(record.info.state.as_str())
        .bind(record.info.created_at.0)
        .bind(text)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Removes a session.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    ///
    /// # Cancel safety
    /// Removed or not.
    pub async fn remove_session(&self, id: SessionId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE id = ?1").bind(id.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// The directory of the database.
    pub fn dir(&self) -> PathBuf {
        let options = self.pool.connect_options();
        options.get_filename().parent().map(Path::to_owned).unwrap_or_default()
    }

    /// Closes the database after what is under way.
    ///
    /// # Cancel safety
    /// Cancel safe; the file is consistent at any time.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudenest_shared::session::{Exit, SessionSpec, SessionState};
    use claudenest_shared::time::UnixMs;
    use std::os::unix::fs::PermissionsExt;

    fn record(n: u128, name: &str) -> Record {
        let spec = SessionSpec {
            cwd: "/tmp".into(),
            env: [("TOKEN".to_owned(), "s3cret".to_owned())].into(),
            ..SessionSpec::default()
        };
        Record::new(
            SessionId(uuid::Uuid::from_u128(n)),
            name.to_owned(),
            spec,
            UnixMs(i64::try_from(n).unwrap()),
        )
    }

    #[tokio::test]
    async fn records_survive_closing_and_the_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let store = Store::open(&data).await.unwrap();
        let mut first = record(1, "one");
        store.save_session(&first).await.unwrap();
        store.save_session(&record(2, "two")).await.unwrap();
        first.info.state = SessionState::Failed;
        first.info.exit = Some(Exit::Signal { signal: 9 });
        first.info.name = "uno".into();
        store.save_session(&first).await.unwrap();
        for entry in std::fs::read_dir(&data).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
        store.close().await;
        let store = Store::open(&data).await.unwrap();
        assert_eq!(store.sessions().await.unwrap(), vec![first.clone(), record(2, "two")]);
        store.remove_session(first.info.id).await.unwrap();
        assert_eq!(store.sessions().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn two_sessions_cannot_have_one_name_and_a_bad_row_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        store.save_session(&record(1, "one")).await.unwrap();
        assert!(store.save_session(&record(2, "one")).await.is_err());
        sqlx::query("INSERT INTO sessions VALUES ('x', 'x', 'running', 0, '{}')")
            .execute(&store.pool)
            .await
            .unwrap();
        assert_eq!(store.sessions().await.unwrap().len(), 1);
    }
}

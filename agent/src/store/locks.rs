//! Locks on disk.

use std::path::PathBuf;

use claudenest_shared::id::LockId;
use claudenest_shared::lock::{LockHolder, LockKind, LockOrigin};
use claudenest_shared::time::UnixMs;
use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::{Store, StoreError};
use crate::guard::lock::core::{Change, Held};

/// A lock as it is stored: without its keys, which are found again from its places.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SavedLock {
    /// Identity of the grant.
    pub id: LockId,
    /// Its places, see [`crate::guard::lock::Keys::spots`].
    #[serde(with = "paths")]
    pub spots: Vec<PathBuf>,
    /// What it covers.
    pub kind: LockKind,
    /// Who.
    pub holder: LockHolder,
    /// How it came about.
    pub origin: LockOrigin,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Root of the project.
    pub project: String,
    /// Fencing number.
    pub fence: u64,
    /// Since when.
    pub since: UnixMs,
    /// Lease.
    pub lease_ms: u64,
    /// When it ends, on the monotonic clock of the machine's run that [`SavedLocks::boot`] names.
    pub deadline_ms: u64,
    /// Version.
    pub version: u64,
}

/// Everything about locks that is on disk.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SavedLocks {
    /// The locks.
    pub locks: Vec<SavedLock>,
    /// The next fencing number.
    pub next_fence: u64,
    /// The last version.
    pub version: u64,
    /// The run of the machine in which it was written.
    pub boot: String,
}

impl From<&Held> for SavedLock {
    fn from(held: &Held) -> Self {
        Self {
            id: held.id,
            spots: held.keys.spots.clone(),
            kind: held.kind,
            holder: held.holder.clone(),
            origin: held.origin,
            reason: held.reason.clone(),
            project: held.project.clone(),
            fence: held.fence,
            since: held.since,
            lease_ms: held.lease_ms,
            deadline_ms: held.saved_deadline.0,
            version: held.version,
        }
    }
}

impl Store {
    /// Every lock, oldest grant first. A lock that this version cannot read is an error: to forget it would free its file.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn locks(&self) -> Result<SavedLocks, StoreError> {
        let mut reading = self.pool.begin().await?;
        let counters = sqlx::query("SELECT next_fence, version, boot FROM lock_counters")
            .fetch_optional(&mut *reading)
            .await?;
        let rows = sqlx::query("SELECT record FROM locks ORDER BY fence").fetch_all(&mut *reading).await?;
        reading.rollback().await?;
        let mut saved = SavedLocks::default();
        if let Some(row) = counters {
            saved.next_fence = row.try_get::<i64, _>(0)?.cast_unsigned();
            saved.version = row.try_get::<i64, _>(1)?.cast_unsigned();
            saved.boot = row.try_get(2)?;
        }
        for row in rows {
            let text: String = row.try_get(0)?;
            saved.locks.push(serde_json::from_str(&text)?);
        }
        Ok(saved)
    }

    /// Writes a change of locks: all of it or nothing. `doubtful` are grants that were refused and must not be there.
    ///
    /// # Errors
    /// [`StoreError`], for example when the disk is full.
    ///
    /// # Cancel safety
    /// Written or not, never half.
    pub async fn change_locks(
        &self,
        change: &Change,
        doubtful: &[LockId],
        boot: &str,
    ) -> Result<(), StoreError> {
        let mut writing = self.pool.begin().await?;
        let ended = change.ends.iter().map(|(id, _)| id).chain(doubtful);
        for id in ended {
            sqlx::query("DELETE FROM locks WHERE id = ?1")
                .bind(id.to_string())
                .execute(&mut *writing)
                .await?;
        }
        for held in &change.puts {
            let record = serde_json::to_string(&SavedLock::from(held))?;
            sqlx::query(
                "INSERT INTO locks (id, fence, record) VALUES (?1, ?2, ?3)
                 ON CONFLICT (id) DO UPDATE SET record = ?3",
            )
            .bind(held.id.to_string())
            .bind(held.fence.cast_signed())
            .bind(record)
            .execute(&mut *writing)
            .await?;
        }
        sqlx::query(
            "INSERT INTO lock_counters (id, next_fence, version, boot) VALUES (1, ?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET next_fence = ?1, version = ?2, boot = ?3",
        )
        .bind(change.next_fence.cast_signed())
        .bind(change.version.cast_signed())
        .bind(boot)
        .execute(&mut *writing)
        .await?;
        writing.commit().await?;
        Ok(())
    }

    /// Does to the tables of locks what no program does.
    #[cfg(test)]
    pub(crate) async fn break_locks(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.pool).await.unwrap();
    }

    /// The database gets no room beyond what it has: SQLite then answers as on a full disk.
    #[cfg(test)]
    pub(crate) async fn fill_up(&self) {
        let mut connections = Vec::new();
        while let Some(connection) = self.pool.try_acquire() {
            connections.push(connection);
        }
        for connection in &mut connections {
            sqlx::query("PRAGMA max_page_count = 1").execute(&mut **connection).await.unwrap();
        }
        assert!(!connections.is_empty(), "nobody else uses the database now");
        self.pool
            .set_connect_options(self.pool.connect_options().as_ref().clone().pragma("max_page_count", "1"));
    }
}

/// Paths are bytes: those that are not UTF-8 are stored as numbers.
mod paths {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        let store = |path: &PathBuf| match path.to_str() {
            Some(text) => Stored::Text(text.to_owned()),
            None => Stored::Bytes(path.clone().into_os_string().into_vec()),
        };
        serializer.collect_seq(paths.iter().map(store))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let stored = Vec::<Stored>::deserialize(deserializer)?;
        let path = |stored| match stored {
            Stored::Text(text) => PathBuf::from(text),
            Stored::Bytes(bytes) => PathBuf::from(OsString::from_vec(bytes)),
        };
        Ok(stored.into_iter().map(path).collect())
    }
}

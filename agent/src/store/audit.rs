//! The rows of the audit log.

use claudenest_shared::id::SessionId;
use claudenest_shared::time::UnixMs;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

use super::{Store, StoreError};
use crate::guard::audit::{AuditEntry, AuditRow, FIRST_HASH, chained};

impl Store {
    /// Appends to the audit log. On disk when it returns.
    ///
    /// # Errors
    /// [`StoreError::Query`], for example when the disk is full.
    ///
    /// # Cancel safety
    /// Appended or not, never half.
    pub async fn append_audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut change = connection.begin_with("BEGIN IMMEDIATE").await?;
        append(&mut change, entry).await?;
        change.commit().await?;
        Ok(())
    }

    /// Rows behind number `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn audit_after(&self, after: i64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT number, at, kind, session, body, hash FROM audit WHERE number > ?1 ORDER BY number LIMIT ?2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(row).collect()
    }

    /// The newest rows, oldest of them first; only of `session` if one is named.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn audit_tail(
        &self,
        session: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let mut rows = sqlx::query(
            "SELECT number, at, kind, session, body, hash FROM audit WHERE ?1 IS NULL OR session = ?1
             ORDER BY number DESC LIMIT ?2",
        )
        .bind(session.map(|session| session.to_string()))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.reverse();
        rows.iter().map(row).collect()
    }
}

/// Appends within a transaction that has the write lock.
pub(super) async fn append(connection: &mut SqliteConnection, entry: &AuditEntry) -> Result<(), StoreError> {
    let last = sqlx::query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
        .fetch_optional(&mut *connection)
        .await?;
    let (number, before): (i64, String) = match last {
        Some(row) => (row.try_get::<i64, _>(0)? + 1, row.try_get(1)?),
        None => (1, FIRST_HASH.to_owned()),
    };
    let row = chained(number, &before, entry);
    sqlx::query("INSERT INTO audit (number, at, kind, session, body, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
        .bind(row.number)
        .bind(row.at.0)
        .bind(&row.kind)
        .bind(row.session.map(|session| session.to_string()))
        .bind(&row.body)
        .bind(&row.hash)
        .execute(connection)
        .await?;
    Ok(())
}

fn row(row: &SqliteRow) -> Result<AuditRow, StoreError> {
    let session: Option<String> = row.try_get(3)?;
    Ok(AuditRow {
        number: row.try_get(0)?,
        at: UnixMs(row.try_get(1)?),
        kind: row.try_get(2)?,
        session: session.and_then(|text| text.parse().ok()),
        body: row.try_get(4)?,
        hash: row.try_get(5)?,
    })
}

//! Approvals on disk, each change together with its line of the audit log.

use claudenest_shared::approval::ApprovalState;
use claudenest_shared::id::ApprovalId;
use claudenest_shared::time::UnixMs;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row};

use super::{Store, StoreError, audit};
use crate::guard::approval::ApprovalRecord;
use crate::guard::audit::AuditEntry;

impl Store {
    /// Writes an approval, new or changed, and the audit log's lines about it: all of it or nothing. On disk when it
    /// returns.
    ///
    /// # Errors
    /// [`StoreError`], for example when the disk is full.
    ///
    /// # Cancel safety
    /// Written or not, never half.
    pub async fn save_approval(
        &self,
        record: &ApprovalRecord,
        lines: &[AuditEntry],
    ) -> Result<(), StoreError> {
        let text = serde_json::to_string(record)?;
        let approval = &record.approval;
        let mut connection = self.pool.acquire().await?;
        let mut change = connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "INSERT INTO approvals (id, session, call, state, created_at, changed_at, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET call = ?3, state = ?4, changed_at = ?6, record = ?7",
        )
        .bind(approval.id.to_string())
        .bind(approval.session.to_string())
        .bind(&record.call)
        .bind(approval.state.as_str())
        .bind(approval.created_at.0)
        .bind(approval.state_since.0)
        .bind(text)
        .execute(&mut *change)
        .await?;
        for line in lines {
            audit::append(&mut change, line).await?;
        }
        change.commit().await?;
        Ok(())
    }

    /// Every approval that is not final, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open_approvals(&self) -> Result<Vec<ApprovalRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, record FROM approvals WHERE state IN ('pending', 'decided') ORDER BY created_at, id",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.iter().filter_map(record).collect())
    }

    /// One approval.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn approval(&self, id: ApprovalId) -> Result<Option<ApprovalRecord>, StoreError> {
        let row = sqlx::query("SELECT id, record FROM approvals WHERE id = ?1")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.as_ref().and_then(record))
    }

    /// Approvals in these states (none: all) that have changed since a time, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn approvals(
        &self,
        states: &[ApprovalState],
        since: UnixMs,
        limit: u32,
    ) -> Result<Vec<ApprovalRecord>, StoreError> {
        // The words hold letters only, so that a list of them needs no quoting.
        let words: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        let rows = sqlx::query(
            "SELECT id, record FROM approvals
             WHERE (?1 = '' OR instr(',' || ?1 || ',', ',' || state || ',') > 0) AND changed_at >= ?2
             ORDER BY created_at DESC, id DESC LIMIT ?3",
        )
        .bind(words.join(","))
        .bind(since.0)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.iter().filter_map(record).collect())
    }
}

/// A row that this version cannot read is left in place, logged and skipped.
fn record(row: &SqliteRow) -> Option<ApprovalRecord> {
    let id: String = row.try_get(0).ok()?;
    let text: String = row.try_get(1).ok()?;
    serde_json::from_str(&text)
        .inspect_err(|error| {
            tracing::error!(approval.id = %id, %error, "an approval in the database cannot be read and is ignored");
        })
        .ok()
}

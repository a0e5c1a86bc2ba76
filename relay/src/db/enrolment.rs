//! Enrolment tokens: pairing without a person at the machine. Single use, known by digest only.

use claudenest_shared::id::{MachineId, UserId};
use claudenest_shared::time::UnixMs;
use uuid::Uuid;

use super::{Db, DbError, at, ms};

/// An enrolment token as its user sees it in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnrolmentRow {
    /// Identity.
    pub id: Uuid,
    /// What the user calls it.
    pub label: String,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it ends.
    pub expires_at: UnixMs,
    /// When it was used.
    pub used_at: Option<UnixMs>,
    /// The machine that used it.
    pub machine_id: Option<MachineId>,
}

/// Stores a token.
///
/// # Errors
/// When the database is away.
pub async fn create(
    db: &Db,
    id: Uuid,
    user: UserId,
    digest: &[u8; 32],
    label: &str,
    now: UnixMs,
    expires_at: UnixMs,
) -> Result<(), DbError> {
    sqlx::query!(
        "insert into enrolment_tokens (id, user_id, digest, label, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6)",
        id,
        user.0,
        &digest[..],
        label,
        at(now),
        at(expires_at)
    )
    .execute(db.pool())
    .await?;
    Ok(())
}

/// The tokens of a user, newest first.
///
/// # Errors
/// When the database is away.
pub async fn list(db: &Db, user: UserId) -> Result<Vec<EnrolmentRow>, DbError> {
    let rows = sqlx::query!(
        "select id, label, created_at, expires_at, used_at, machine_id from enrolment_tokens
          where user_id = $1 order by created_at desc, id desc",
        user.0
    )
    .fetch_all(db.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| EnrolmentRow {
            id: row.id,
            label: row.label,
            created_at: ms(row.created_at),
            expires_at: ms(row.expires_at),
            used_at: row.used_at.map(ms),
            machine_id: row.machine_id.map(MachineId),
        })
        .collect())
}

/// Removes a token of a user. True if there was one.
///
/// # Errors
/// When the database is away.
pub async fn remove(db: &Db, user: UserId, id: Uuid) -> Result<bool, DbError> {
    let done = sqlx::query!("delete from enrolment_tokens where user_id = $1 and id = $2", user.0, id)
        .execute(db.pool())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets tokens that ended before `before`.
///
/// # Errors
/// When the database is away.
pub async fn clean_up(db: &Db, before: UnixMs) -> Result<u64, DbError> {
    let done = sqlx::query!("delete from enrolment_tokens where expires_at <= $1", at(before))
        .execute(db.pool())
        .await?;
    Ok(done.rows_affected())
}

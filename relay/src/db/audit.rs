//! The audit log: who did what, when and from where. Rows are only ever added.

use claudenest_shared::id::{MachineId, UserId};
use claudenest_shared::time::UnixMs;

use super::{Db, DbError, at, new_id};

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Whose account it concerns.
    pub user: Option<UserId>,
    /// Which machine it concerns.
    pub machine: Option<MachineId>,
    /// What was done, dotted: `pairing.claimed`.
    pub action: &'a str,
    /// Client address, or `local` for a command on the relay's host.
    pub address: &'a str,
    /// Anything else. Never a token or a code.
    pub detail: serde_json::Value,
}

/// Writes an entry.
///
/// # Errors
/// When the database is away.
pub async fn record(db: &Db, entry: Entry<'_>, now: UnixMs) -> Result<(), DbError> {
    sqlx::query!(
        "insert into audit_log (id, at, user_id, machine_id, action, address, detail)
         values ($1, $2, $3, $4, $5, $6, $7)",
        new_id(),
        at(now),
        entry.user.map(|user| user.0),
        entry.machine.map(|machine| machine.0),
        entry.action,
        entry.address,
        entry.detail
    )
    .execute(db.pool())
    .await?;
    Ok(())
}

/// Writes an entry about something that is done and cannot be undone: a failure is logged and does not undo the answer.
pub async fn note(db: &Db, entry: Entry<'_>, now: UnixMs) {
    let action = entry.action.to_owned();
    let (user, machine) = (entry.user, entry.machine);
    if let Err(error) = record(db, entry, now).await {
        tracing::error!(%error, action, ?user, ?machine, "an entry of the audit log could not be written");
    }
}

/// The actions recorded for a user, oldest first.
///
/// # Errors
/// When the database is away.
pub async fn actions_of(db: &Db, user: UserId) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar!("select action from audit_log where user_id = $1 order by at, id", user.0)
        .fetch_all(db.pool())
        .await?)
}

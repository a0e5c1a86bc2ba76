//! Failed tries to enter a pairing code, counted per account, network and fleet.
//!
//! A try is written down before it is made and struck out when it succeeds, so that tries in parallel cannot get
//! around the budgets.

use claudenest_shared::id::UserId;
use claudenest_shared::time::UnixMs;
use uuid::Uuid;

use super::{Db, DbError, at, new_id};

/// Tries so far, the one just written down included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Of this account, in the short window.
    pub account: i64,
    /// Of this account, in one day.
    pub account_day: i64,
    /// From this network, in the short window.
    pub network: i64,
    /// Of everybody, in the short window.
    pub fleet: i64,
}

/// Writes a try down.
///
/// # Errors
/// When the database is away.
pub async fn begin(db: &Db, user: UserId, network: &str, now: UnixMs) -> Result<Uuid, DbError> {
    let id = new_id();
    sqlx::query!(
        "insert into pairing_attempts (id, at, user_id, network) values ($1, $2, $3, $4)",
        id,
        at(now),
        user.0,
        network
    )
    .execute(db.pool())
    .await?;
    Ok(id)
}

/// Counts the tries after `short` and after `day`.
///
/// # Errors
/// When the database is away.
pub async fn tally(
    db: &Db,
    user: UserId,
    network: &str,
    short: UnixMs,
    day: UnixMs,
) -> Result<Tally, DbError> {
    Ok(sqlx::query_as!(
        Tally,
        "select count(*) filter (where user_id = $1 and at > $3) as \"account!\",
                count(*) filter (where user_id = $1) as \"account_day!\",
                count(*) filter (where network = $2 and at > $3) as \"network!\",
                count(*) filter (where at > $3) as \"fleet!\"
           from pairing_attempts where at > $4",
        user.0,
        network,
        at(short),
        at(day)
    )
    .fetch_one(db.pool())
    .await?)
}

/// Strikes a try out: it succeeded, or was refused without looking.
///
/// # Errors
/// When the database is away.
pub async fn strike_out(db: &Db, id: Uuid) -> Result<(), DbError> {
    sqlx::query!("delete from pairing_attempts where id = $1", id).execute(db.pool()).await?;
    Ok(())
}

/// Forgets tries before `before`.
///
/// # Errors
/// When the database is away.
pub async fn clean_up(db: &Db, before: UnixMs) -> Result<u64, DbError> {
    let done =
        sqlx::query!("delete from pairing_attempts where at <= $1", at(before)).execute(db.pool()).await?;
    Ok(done.rows_affected())
}

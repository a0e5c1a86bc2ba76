//! Locks as their machines last told them. A machine writes its own rows only, and no more than there is room for.

use claudenest_shared::id::{LockId, MachineId, UserId};
use claudenest_shared::lock::Lock;
use uuid::Uuid;

use super::{Db, DbError, big};

/// Locks kept of one machine: each session of a hundred with a hundred files.
pub const MAX_LOCKS: i64 = 10_000;

/// Stores what a machine says about one of its locks. False if there is no room, or something newer is known.
///
/// # Errors
/// When the database is away.
pub async fn upsert(db: &Db, machine: MachineId, link_epoch: u64, lock: &Lock) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "insert into locks (machine_id, id, version, link_epoch, lock)
         select $1, $2, $3, $4, $5
          where exists (select from locks where machine_id = $1 and id = $2)
             or (select count(*) from locks where machine_id = $1) < $6
         on conflict (machine_id, id) do update
            set version = excluded.version, link_epoch = excluded.link_epoch, lock = excluded.lock
          where excluded.link_epoch > locks.link_epoch
             or (excluded.link_epoch = locks.link_epoch and excluded.version >= locks.version)",
        machine.0,
        lock.id.0,
        big(lock.version),
        big(link_epoch),
        stored_form(lock)?,
        MAX_LOCKS
    )
    .execute(db.pool())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets a lock that has ended. True if it was known.
///
/// # Errors
/// When the database is away.
pub async fn remove(db: &Db, machine: MachineId, lock: LockId) -> Result<bool, DbError> {
    let done = sqlx::query!("delete from locks where machine_id = $1 and id = $2", machine.0, lock.0)
        .execute(db.pool())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The machine has named all of its locks on this link: others are gone. Returns them.
///
/// # Errors
/// When the database is away.
pub async fn forget_unnamed(db: &Db, machine: MachineId, link_epoch: u64) -> Result<Vec<LockId>, DbError> {
    let gone = sqlx::query_scalar!(
        "delete from locks where machine_id = $1 and link_epoch < $2 returning id",
        machine.0,
        big(link_epoch)
    )
    .fetch_all(db.pool())
    .await?;
    Ok(gone.into_iter().map(LockId).collect())
}

/// Locks on the machines of a user; of one machine if asked. By machine and grant, at most `limit`.
///
/// # Errors
/// When the database is away.
pub async fn list_for_user(
    db: &Db,
    user: UserId,
    machine: Option<MachineId>,
    limit: i64,
) -> Result<Vec<Lock>, DbError> {
    let rows = sqlx::query!(
        "select l.machine_id, l.lock
           from locks l join machines m on m.id = l.machine_id
          where m.user_id = $1 and m.removed_at is null and ($2::uuid is null or m.id = $2)
          order by l.machine_id, l.id limit $3",
        user.0,
        machine.map(|machine| machine.0),
        limit
    )
    .fetch_all(db.pool())
    .await?;
    rows.into_iter().map(|row| with_machine(row.machine_id, &row.lock)).collect()
}

/// One lock of a user.
///
/// # Errors
/// When the database is away.
pub async fn get(db: &Db, user: UserId, machine: MachineId, lock: LockId) -> Result<Option<Lock>, DbError> {
    let row = sqlx::query!(
        "select l.machine_id, l.lock
           from locks l join machines m on m.id = l.machine_id
          where m.user_id = $1 and m.removed_at is null and l.machine_id = $2 and l.id = $3",
        user.0,
        machine.0,
        lock.0
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(|row| with_machine(row.machine_id, &row.lock)).transpose()
}

fn stored_form(lock: &Lock) -> Result<String, DbError> {
    let lock = Lock { machine_id: None, ..lock.clone() };
    serde_json::to_string(&lock).map_err(|source| DbError::Json { what: "lock", source })
}

fn with_machine(machine: Uuid, lock: &str) -> Result<Lock, DbError> {
    let mut lock: Lock =
        serde_json::from_str(lock).map_err(|source| DbError::Json { what: "lock", source })?;
    lock.machine_id = Some(MachineId(machine));
    Ok(lock)
}

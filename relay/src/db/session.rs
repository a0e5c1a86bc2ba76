//! Sessions as their machines last reported them.

use claudenest_shared::id::{MachineId, SessionId, UserId};
use claudenest_shared::session::SessionInfo;
use claudenest_shared::time::UnixMs;
use uuid::Uuid;

use super::{Db, DbError, at, from_json, to_json, word};

/// Stores what a machine says about one of its sessions.
///
/// # Errors
/// When the database is away.
pub async fn upsert(db: &Db, machine: MachineId, info: &SessionInfo, now: UnixMs) -> Result<(), DbError> {
    let stored = stored_form(info)?;
    sqlx::query!(
        "insert into sessions (machine_id, id, name, mode, state, cwd, created_at, updated_at, info)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (machine_id, id) do update
            set name = excluded.name, mode = excluded.mode, state = excluded.state, cwd = excluded.cwd,
                created_at = excluded.created_at, updated_at = excluded.updated_at, info = excluded.info",
        machine.0,
        info.id.0,
        info.name.replace('\0', ""),
        word(&info.mode),
        info.state.as_str(),
        info.cwd.replace('\0', ""),
        at(info.created_at),
        at(now),
        stored
    )
    .execute(db.pool())
    .await?;
    Ok(())
}

/// Stores the list of a machine (its `hello`): what is neither in it nor among `others` is forgotten. Returns
/// the forgotten ones.
///
/// # Errors
/// When the database is away.
pub async fn replace_all(
    db: &Db,
    machine: MachineId,
    infos: &[SessionInfo],
    others: &[SessionId],
    now: UnixMs,
) -> Result<Vec<SessionId>, DbError> {
    let ids: Vec<Uuid> = infos.iter().map(|info| info.id.0).chain(others.iter().map(|id| id.0)).collect();
    let gone = sqlx::query_scalar!(
        "delete from sessions where machine_id = $1 and id <> all($2) returning id",
        machine.0,
        &ids
    )
    .fetch_all(db.pool())
    .await?;
    for info in infos {
        upsert(db, machine, info, now).await?;
    }
    Ok(gone.into_iter().map(SessionId).collect())
}

/// Forgets a session. True if it was known.
///
/// # Errors
/// When the database is away.
pub async fn remove(db: &Db, machine: MachineId, session: SessionId) -> Result<bool, DbError> {
    let done = sqlx::query!("delete from sessions where machine_id = $1 and id = $2", machine.0, session.0)
        .execute(db.pool())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Every session on the listed machines of a user, newest first; of one machine if asked.
///
/// # Errors
/// When the database is away.
pub async fn list_for_user(
    db: &Db,
    user: UserId,
    machine: Option<MachineId>,
) -> Result<Vec<SessionInfo>, DbError> {
    let rows = sqlx::query!(
        "select s.machine_id, s.info
           from sessions s join machines m on m.id = s.machine_id
          where m.user_id = $1 and m.removed_at is null and ($2::uuid is null or m.id = $2)
          order by s.created_at desc, s.id",
        user.0,
        machine.map(|machine| machine.0)
    )
    .fetch_all(db.pool())
    .await?;
    rows.into_iter().map(|row| with_machine(row.machine_id, row.info)).collect()
}

/// One session of a user. Should two machines know the same session (a cloned disk), the one seen last wins.
///
/// # Errors
/// When the database is away.
pub async fn get(db: &Db, user: UserId, session: SessionId) -> Result<Option<SessionInfo>, DbError> {
    let row = sqlx::query!(
        "select s.machine_id, s.info
           from sessions s join machines m on m.id = s.machine_id
          where m.user_id = $1 and m.removed_at is null and s.id = $2
          order by (m.state = 'online') desc, s.updated_at desc limit 1",
        user.0,
        session.0
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(|row| with_machine(row.machine_id, row.info)).transpose()
}

fn stored_form(info: &SessionInfo) -> Result<serde_json::Value, DbError> {
    let info = SessionInfo { machine_id: None, ..info.clone() };
    to_json("session", &info)
}

fn with_machine(machine: Uuid, info: serde_json::Value) -> Result<SessionInfo, DbError> {
    let mut info: SessionInfo = from_json("session", info)?;
    info.machine_id = Some(MachineId(machine));
    Ok(info)
}

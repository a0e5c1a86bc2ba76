//! Approvals as their machines last told them: copies, for pages while a machine is away and for what was answered.
//!
//! A machine writes its own rows only, and never more than there is room for; what an older link or an older version
//! says changes nothing.

use claudenest_shared::approval::Approval;
use claudenest_shared::id::{ApprovalId, MachineId, SessionId, UserId};
use claudenest_shared::time::UnixMs;
use uuid::Uuid;

use super::{Db, DbError, at, big, ms};

/// Open approvals kept of one machine: ten sessions that each ask a hundred things at once.
pub const MAX_OPEN: i64 = 1_000;
/// Answered approvals kept of one machine; the machine itself keeps them all in its audit log.
pub const MAX_ANSWERED: i64 = 1_000;
/// Answered approvals are kept for this many days.
pub const KEPT_DAYS: i64 = 30;

/// Stores what a machine says about one of its approvals. False if there is no room, or something newer is known.
///
/// # Errors
/// When the database is away.
pub async fn upsert(
    db: &Db,
    machine: MachineId,
    link_epoch: u64,
    approval: &Approval,
    now: UnixMs,
) -> Result<bool, DbError> {
    let is_open = !approval.state.is_final();
    let done = sqlx::query!(
        "insert into approvals (machine_id, id, session_id, state, is_open, updated_at, version, link_epoch, approval)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9
          where not $5 or exists (select from approvals where machine_id = $1 and id = $2)
             or (select count(*) from approvals where machine_id = $1 and is_open) < $10
         on conflict (machine_id, id) do update
            set session_id = excluded.session_id, state = excluded.state, is_open = excluded.is_open,
                updated_at = case when excluded.version = approvals.version then approvals.updated_at
                                  else excluded.updated_at end,
                version = excluded.version, link_epoch = excluded.link_epoch, approval = excluded.approval
          where excluded.link_epoch > approvals.link_epoch
             or (excluded.link_epoch = approvals.link_epoch and excluded.version >= approvals.version)",
        machine.0,
        approval.id.0,
        approval.session.0,
        approval.state.as_str(),
        is_open,
        at(now),
        big(approval.version),
        big(link_epoch),
        stored_form(approval)?,
        MAX_OPEN
    )
    .execute(db.pool())
    .await?;
    let is_taken = done.rows_affected() == 1;
    if is_taken && !is_open {
        sqlx::query!(
            "delete from approvals where machine_id = $1 and not is_open and id in
                (select id from approvals where machine_id = $1 and not is_open
                  order by updated_at desc, id desc offset $2)",
            machine.0,
            MAX_ANSWERED
        )
        .execute(db.pool())
        .await?;
    }
    Ok(is_taken)
}

/// The machine has named all of its approvals on this link: open ones that it did not name are gone. Returns them.
///
/// # Errors
/// When the database is away.
pub async fn forget_unnamed(
    db: &Db,
    machine: MachineId,
    link_epoch: u64,
) -> Result<Vec<ApprovalId>, DbError> {
    let gone = sqlx::query_scalar!(
        "delete from approvals where machine_id = $1 and is_open and link_epoch < $2 returning id",
        machine.0,
        big(link_epoch)
    )
    .fetch_all(db.pool())
    .await?;
    Ok(gone.into_iter().map(ApprovalId).collect())
}

/// Open approvals of a user, newest first, at most `limit`; of one machine or session if asked.
///
/// # Errors
/// When the database is away.
pub async fn list_open(
    db: &Db,
    user: UserId,
    machine: Option<MachineId>,
    session: Option<SessionId>,
    limit: i64,
) -> Result<Vec<Approval>, DbError> {
    let rows = sqlx::query!(
        "select a.machine_id, a.approval
           from approvals a join machines m on m.id = a.machine_id
          where m.user_id = $1 and m.removed_at is null and a.is_open
            and ($2::uuid is null or a.machine_id = $2) and ($3::uuid is null or a.session_id = $3)
          order by a.updated_at desc, a.id limit $4",
        user.0,
        machine.map(|machine| machine.0),
        session.map(|session| session.0),
        limit
    )
    .fetch_all(db.pool())
    .await?;
    rows.into_iter().map(|row| with_machine(row.machine_id, &row.approval)).collect()
}

/// A place in the list of answered approvals: when the relay heard of one, and which one that was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// When.
    pub at: UnixMs,
    /// Its machine.
    pub machine: MachineId,
    /// It.
    pub approval: ApprovalId,
}

/// Which answered approvals.
#[derive(Clone, Copy, Default, Debug)]
pub struct Answered {
    /// Only of this machine.
    pub machine: Option<MachineId>,
    /// Only of this session.
    pub session: Option<SessionId>,
    /// Behind this place.
    pub after: Option<Place>,
}

/// Answered approvals of a user, the last one first, at most `limit`, each with its place.
///
/// # Errors
/// When the database is away.
pub async fn list_answered(
    db: &Db,
    user: UserId,
    which: Answered,
    limit: i64,
) -> Result<Vec<(Approval, Place)>, DbError> {
    let rows = sqlx::query!(
        "select a.machine_id, a.id, a.updated_at, a.approval
           from approvals a join machines m on m.id = a.machine_id
          where m.user_id = $1 and m.removed_at is null and not a.is_open
            and ($2::uuid is null or a.machine_id = $2) and ($3::uuid is null or a.session_id = $3)
            and ($4::timestamptz is null or (a.updated_at, a.machine_id, a.id) < ($4, $5::uuid, $6::uuid))
          order by a.updated_at desc, a.machine_id desc, a.id desc limit $7",
        user.0,
        which.machine.map(|machine| machine.0),
        which.session.map(|session| session.0),
        which.after.map(|place| at(place.at)),
        which.after.map_or(Uuid::nil(), |place| place.machine.0),
        which.after.map_or(Uuid::nil(), |place| place.approval.0),
        limit
    )
    .fetch_all(db.pool())
    .await?;
    rows.into_iter()
        .map(|row| {
            let place = Place {
                at: ms(row.updated_at),
                machine: MachineId(row.machine_id),
                approval: ApprovalId(row.id),
            };
            Ok((with_machine(row.machine_id, &row.approval)?, place))
        })
        .collect()
}

/// One approval of a user.
///
/// # Errors
/// When the database is away.
pub async fn get(
    db: &Db,
    user: UserId,
    machine: MachineId,
    approval: ApprovalId,
) -> Result<Option<Approval>, DbError> {
    let row = sqlx::query!(
        "select a.machine_id, a.approval
           from approvals a join machines m on m.id = a.machine_id
          where m.user_id = $1 and m.removed_at is null and a.machine_id = $2 and a.id = $3",
        user.0,
        machine.0,
        approval.0
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(|row| with_machine(row.machine_id, &row.approval)).transpose()
}

/// Removes answered approvals that the relay has had since before `before`. Returns how many.
///
/// # Errors
/// When the database is away.
pub async fn clean_up(db: &Db, before: UnixMs) -> Result<u64, DbError> {
    let done = sqlx::query!("delete from approvals where not is_open and updated_at < $1", at(before))
        .execute(db.pool())
        .await?;
    Ok(done.rows_affected())
}

fn stored_form(approval: &Approval) -> Result<String, DbError> {
    let approval = Approval { machine_id: None, ..approval.clone() };
    serde_json::to_string(&approval).map_err(|source| DbError::Json { what: "approval", source })
}

fn with_machine(machine: Uuid, approval: &str) -> Result<Approval, DbError> {
    let mut approval: Approval =
        serde_json::from_str(approval).map_err(|source| DbError::Json { what: "approval", source })?;
    approval.machine_id = Some(MachineId(machine));
    Ok(approval)
}

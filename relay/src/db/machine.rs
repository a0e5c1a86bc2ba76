//! Machines: identity, token digest, state as last known, facts.
//!
//! A row is *live* while its token is valid (`revoked_at` is null) and *listed* until its user removes it.
//! Whatever a link writes names its connection epoch, so that an older link of the same machine changes nothing.

use claudenest_shared::id::{MachineId, UserId};
use claudenest_shared::machine::{MachineFacts, MachineState};
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::browser::MachineInfo;

use sqlx::{Postgres, Transaction};

use super::{Db, DbError, at, from_json, from_word, ms, to_json, word};

/// What a machine token opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineAuth {
    /// The machine.
    pub id: MachineId,
    /// Its owner.
    pub user: UserId,
    /// Its name at this relay.
    pub name: String,
    /// Its Ed25519 public key: the token is worth nothing without a signature by it.
    pub public_key: [u8; 32],
    /// True if the token was revoked: say so, and nothing else.
    pub is_revoked: bool,
}

/// Whether a link that is up may stay up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// Yes.
    Current,
    /// The machine's token is void.
    Revoked,
    /// The machine has a newer link at another relay, or was paired anew.
    Replaced,
}

/// Finds the machine whose token has this digest, revoked or not.
///
/// # Errors
/// When the database is away.
pub async fn authenticate(db: &Db, token_digest: &[u8; 32]) -> Result<Option<MachineAuth>, DbError> {
    let row = sqlx::query!(
        "select id, user_id, name, public_key, (revoked_at is not null) as \"is_revoked!\"
           from machines where token_digest = $1",
        &token_digest[..]
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(|row| {
        Ok(MachineAuth {
            id: MachineId(row.id),
            user: UserId(row.user_id),
            name: row.name,
            public_key: row.public_key.try_into().map_err(|_| DbError::Word { what: "public key" })?,
            is_revoked: row.is_revoked,
        })
    })
    .transpose()
}

/// Notes a new link: the machine is online with these facts. Returns the new connection epoch, or `None` if the
/// token was revoked meanwhile.
///
/// # Errors
/// When the database is away.
pub async fn connect(
    db: &Db,
    machine: MachineId,
    facts: &MachineFacts,
    now: UnixMs,
) -> Result<Option<u64>, DbError> {
    let epoch = sqlx::query_scalar!(
        "update machines
            set connection_epoch = connection_epoch + 1, state = 'online', facts = $2, last_seen_at = $3,
                state_since = case when state = 'online' then state_since else $3 end
          where id = $1 and revoked_at is null
          returning connection_epoch",
        machine.0,
        to_json("facts", facts)?,
        at(now)
    )
    .fetch_optional(db.pool())
    .await?;
    Ok(epoch.map(|epoch| u64::try_from(epoch).unwrap_or(0)))
}

/// Sets the state, unless a newer link has come up. True if it was set.
///
/// # Errors
/// When the database is away.
pub async fn set_state(
    db: &Db,
    machine: MachineId,
    epoch: u64,
    state: MachineState,
    now: UnixMs,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "update machines
            set state = $3, last_seen_at = $4, state_since = case when state = $3 then state_since else $4 end
          where id = $1 and connection_epoch = $2 and revoked_at is null",
        machine.0,
        i64::try_from(epoch).unwrap_or(i64::MAX),
        word(&state),
        at(now)
    )
    .execute(db.pool())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets the facts, unless a newer link has come up. True if they were set.
///
/// # Errors
/// When the database is away.
pub async fn set_facts(
    db: &Db,
    machine: MachineId,
    epoch: u64,
    facts: &MachineFacts,
    now: UnixMs,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "update machines set facts = $3, last_seen_at = $4
          where id = $1 and connection_epoch = $2 and revoked_at is null",
        machine.0,
        i64::try_from(epoch).unwrap_or(i64::MAX),
        to_json("facts", facts)?,
        at(now)
    )
    .execute(db.pool())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// After a start of the relay no link is up: what the database calls online is unreachable until it comes back.
///
/// # Errors
/// When the database is away.
pub async fn all_unreachable(db: &Db, now: UnixMs) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "update machines set state = 'unreachable', state_since = $1 where state = 'online'",
        at(now)
    )
    .execute(db.pool())
    .await?;
    Ok(done.rows_affected())
}

struct Row {
    id: uuid::Uuid,
    name: String,
    state: String,
    state_since: time::OffsetDateTime,
    last_seen_at: Option<time::OffsetDateTime>,
    paired_at: time::OffsetDateTime,
    facts: serde_json::Value,
}

impl Row {
    fn info(self) -> Result<MachineInfo, DbError> {
        Ok(MachineInfo {
            id: MachineId(self.id),
            name: self.name,
            state: from_word("machine state", &self.state)?,
            state_since: ms(self.state_since),
            last_seen_at: self.last_seen_at.map(ms),
            paired_at: ms(self.paired_at),
            facts: from_json("facts", self.facts)?,
        })
    }
}

/// Every listed machine of a user, by name.
///
/// # Errors
/// When the database is away.
pub async fn list_for_user(db: &Db, user: UserId) -> Result<Vec<MachineInfo>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        "select id, name, state, state_since, last_seen_at, paired_at, facts
           from machines where user_id = $1 and removed_at is null order by lower(name), id",
        user.0
    )
    .fetch_all(db.pool())
    .await?;
    rows.into_iter().map(Row::info).collect()
}

/// One listed machine of a user.
///
/// # Errors
/// When the database is away.
pub async fn get(db: &Db, user: UserId, machine: MachineId) -> Result<Option<MachineInfo>, DbError> {
    let row = sqlx::query_as!(
        Row,
        "select id, name, state, state_since, last_seen_at, paired_at, facts
           from machines where user_id = $1 and id = $2 and removed_at is null",
        user.0,
        machine.0
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(Row::info).transpose()
}

/// Most characters of a machine's name: a host name has at most 253.
pub const MAX_NAME_CHARS: usize = 253;

/// What became of a wish for a name.
#[derive(Clone, PartialEq, Debug)]
pub enum Renamed {
    /// The machine is called so now.
    Done(Box<MachineInfo>),
    /// Another machine of the user is called so.
    Taken,
    /// The user has no such machine.
    NotFound,
}

/// Names of a user's listed machines but the one with this key. Until the transaction ends, nobody else names a
/// machine of this user.
pub(super) async fn names(
    tx: &mut Transaction<'static, Postgres>,
    user: UserId,
    but: Option<&[u8]>,
) -> Result<Vec<String>, DbError> {
    sqlx::query!("select id from users where id = $1 for no key update", user.0)
        .fetch_optional(&mut **tx)
        .await?;
    let names = sqlx::query_scalar!(
        "select name from machines
          where user_id = $1 and removed_at is null and ($2::bytea is null or public_key <> $2)",
        user.0,
        but
    );
    Ok(names.fetch_all(&mut **tx).await?)
}

fn is_taken(name: &str, others: &[String]) -> bool {
    others.iter().any(|other| other.to_lowercase() == name.to_lowercase())
}

/// The wished name, or the first of "name-2", "name-3", … that nobody has.
pub(super) fn free_name(wished: &str, others: &[String]) -> String {
    let numbered = (2u32..).map(|number| {
        let suffix = format!("-{number}");
        wished.chars().take(MAX_NAME_CHARS - suffix.len()).collect::<String>() + &suffix
    });
    let whole = wished.chars().take(MAX_NAME_CHARS).collect();
    let name = std::iter::once(whole).chain(numbered).find(|name| !is_taken(name, others));
    name.expect("an endless row of numbers has a free one")
}

/// Renames a machine of a user.
///
/// # Errors
/// When the database is away.
pub async fn rename(db: &Db, user: UserId, machine: MachineId, name: &str) -> Result<Renamed, DbError> {
    let mut tx = db.pool().begin().await?;
    let own = sqlx::query_scalar!(
        "select public_key from machines where user_id = $1 and id = $2 and removed_at is null",
        user.0,
        machine.0
    );
    let Some(own) = own.fetch_optional(&mut *tx).await? else { return Ok(Renamed::NotFound) };
    if is_taken(name, &names(&mut tx, user, Some(&own)).await?) {
        return Ok(Renamed::Taken);
    }
    let row = sqlx::query_as!(
        Row,
        "update machines set name = $3 where user_id = $1 and id = $2 and removed_at is null
         returning id, name, state, state_since, last_seen_at, paired_at, facts",
        user.0,
        machine.0,
        name
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(Renamed::NotFound) };
    let info = row.info()?;
    tx.commit().await?;
    Ok(Renamed::Done(Box::new(info)))
}

/// Removes a machine of a user: its token is void, its sessions leave the lists. True if there was one.
///
/// # Errors
/// When the database is away.
pub async fn remove(db: &Db, user: UserId, machine: MachineId, now: UnixMs) -> Result<bool, DbError> {
    let row = sqlx::query_scalar!(
        "with removed as (
            update machines
               set removed_at = $3, revoked_at = coalesce(revoked_at, $3), state = 'revoked',
                   state_since = case when state = 'revoked' then state_since else $3 end,
                   connection_epoch = connection_epoch + 1
             where user_id = $1 and id = $2 and removed_at is null
             returning id
         ), gone as (
            delete from sessions using removed where sessions.machine_id = removed.id
         )
         select id from removed",
        user.0,
        machine.0,
        at(now)
    )
    .fetch_optional(db.pool())
    .await?;
    Ok(row.is_some())
}

/// Which of these links, each a machine with its connection epoch, are still the machine's own: the token was not
/// revoked, and no newer link or pairing has come.
///
/// # Errors
/// When the database is away.
pub async fn still_linked(db: &Db, links: &[(MachineId, u64)]) -> Result<Vec<LinkState>, DbError> {
    let ids: Vec<uuid::Uuid> = links.iter().map(|(machine, _)| machine.0).collect();
    let rows = sqlx::query!(
        "select id, connection_epoch, (revoked_at is not null) as \"is_revoked!\" from machines where id = any($1)",
        &ids
    )
    .fetch_all(db.pool())
    .await?;
    Ok(links
        .iter()
        .map(|(machine, epoch)| match rows.iter().find(|row| row.id == machine.0) {
            Some(row) if row.is_revoked => LinkState::Revoked,
            Some(row) if u64::try_from(row.connection_epoch).ok() != Some(*epoch) => LinkState::Replaced,
            Some(_) => LinkState::Current,
            None => LinkState::Revoked,
        })
        .collect())
}

/// The machine gives up its token by this link. True if the token was valid until now and the link is not outdated.
///
/// # Errors
/// When the database is away.
pub async fn unpair_by_link(db: &Db, machine: MachineId, epoch: u64, now: UnixMs) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "update machines
            set revoked_at = $3, state = 'revoked', state_since = $3, last_seen_at = $3,
                connection_epoch = connection_epoch + 1
          where id = $1 and connection_epoch = $2 and revoked_at is null",
        machine.0,
        i64::try_from(epoch).unwrap_or(i64::MAX),
        at(now)
    )
    .execute(db.pool())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The machine gives up its token. It stays listed as revoked. True if the token was valid until now.
///
/// # Errors
/// When the database is away.
pub async fn unpair(db: &Db, machine: MachineId, now: UnixMs) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "update machines
            set revoked_at = $2, state = 'revoked', state_since = $2, last_seen_at = $2,
                connection_epoch = connection_epoch + 1
          where id = $1 and revoked_at is null",
        machine.0,
        at(now)
    )
    .execute(db.pool())
    .await?;
    Ok(done.rows_affected() == 1)
}

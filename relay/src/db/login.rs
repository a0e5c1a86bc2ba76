//! Login links, browser logins and WebSocket tickets. All of them are known by digest only.

use claudenest_shared::id::UserId;
use claudenest_shared::time::UnixMs;
use uuid::Uuid;

use super::user::{User, to_user};
use super::{Db, DbError, at, ms, new_id};

/// A browser login that is valid now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// Identity of the login.
    pub id: Uuid,
    /// Whose.
    pub user: User,
    /// When it was last written down as used.
    pub last_used_at: UnixMs,
    /// When it ends, whatever happens.
    pub expires_at: UnixMs,
}

/// A browser login as its user sees it in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoginRow {
    /// Identity.
    pub id: Uuid,
    /// When it began.
    pub created_at: UnixMs,
    /// When it was last used, to the minute.
    pub last_used_at: UnixMs,
    /// Client address at the beginning.
    pub address: String,
    /// Browser at the beginning.
    pub user_agent: String,
}

/// Where a login came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Client address.
    pub address: &'a str,
    /// The browser's name for itself.
    pub user_agent: &'a str,
}

/// Stores a login link.
///
/// # Errors
/// When the database is away.
pub async fn create_link(
    db: &Db,
    user: UserId,
    digest: &[u8; 32],
    now: UnixMs,
    expires_at: UnixMs,
) -> Result<(), DbError> {
    sqlx::query!(
        "insert into login_links (digest, user_id, created_at, expires_at) values ($1, $2, $3, $4)",
        &digest[..],
        user.0,
        at(now),
        at(expires_at)
    )
    .execute(db.pool())
    .await?;
    Ok(())
}

/// Trades a login link for a login, once: the link is gone in the same statement.
///
/// # Errors
/// When the database is away.
pub async fn redeem_link(
    db: &Db,
    link: &[u8; 32],
    token: &[u8; 32],
    from: Origin<'_>,
    now: UnixMs,
    expires_at: UnixMs,
) -> Result<Option<Login>, DbError> {
    let row = sqlx::query!(
        "with link as (
            delete from login_links where digest = $1 and expires_at > $5 returning user_id
         ), made as (
            insert into logins (id, user_id, digest, created_at, last_used_at, expires_at, address, user_agent)
            select $2, u.id, $3, $5, $5, $6, $7, $4
              from link join users u on u.id = link.user_id and u.disabled_at is null
            returning id, user_id
         )
         select made.id, u.id as user_id, u.email, u.name, u.role
           from made join users u on u.id = made.user_id",
        &link[..],
        new_id(),
        &token[..],
        from.user_agent,
        at(now),
        at(expires_at),
        from.address
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(|row| {
        Ok(Login {
            id: row.id,
            user: to_user(row.user_id, row.email, row.name, &row.role)?,
            last_used_at: now,
            expires_at,
        })
    })
    .transpose()
}

/// Finds the valid login whose cookie has this digest: not ended, and used after `idle_since`.
///
/// # Errors
/// When the database is away.
pub async fn authenticate(
    db: &Db,
    digest: &[u8; 32],
    now: UnixMs,
    idle_since: UnixMs,
) -> Result<Option<Login>, DbError> {
    let row = sqlx::query!(
        "select l.id, l.last_used_at, l.expires_at, u.id as user_id, u.email, u.name, u.role
           from logins l join users u on u.id = l.user_id
          where l.digest = $1 and l.expires_at > $2 and l.last_used_at > $3 and u.disabled_at is null",
        &digest[..],
        at(now),
        at(idle_since)
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(|row| {
        Ok(Login {
            id: row.id,
            user: to_user(row.user_id, row.email, row.name, &row.role)?,
            last_used_at: ms(row.last_used_at),
            expires_at: ms(row.expires_at),
        })
    })
    .transpose()
}

/// Notes that a login was used.
///
/// # Errors
/// When the database is away.
pub async fn touch(db: &Db, login: Uuid, now: UnixMs) -> Result<(), DbError> {
    sqlx::query!("update logins set last_used_at = $2 where id = $1 and last_used_at < $2", login, at(now))
        .execute(db.pool())
        .await?;
    Ok(())
}

/// Every login of a user that has not ended, last used first.
///
/// # Errors
/// When the database is away.
pub async fn list(db: &Db, user: UserId, now: UnixMs, idle_since: UnixMs) -> Result<Vec<LoginRow>, DbError> {
    let rows = sqlx::query!(
        "select id, created_at, last_used_at, address, user_agent from logins
          where user_id = $1 and expires_at > $2 and last_used_at > $3 order by last_used_at desc, id",
        user.0,
        at(now),
        at(idle_since)
    )
    .fetch_all(db.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| LoginRow {
            id: row.id,
            created_at: ms(row.created_at),
            last_used_at: ms(row.last_used_at),
            address: row.address,
            user_agent: row.user_agent,
        })
        .collect())
}

/// Ends a login of a user. True if there was one.
///
/// # Errors
/// When the database is away.
pub async fn end(db: &Db, user: UserId, login: Uuid) -> Result<bool, DbError> {
    let done = sqlx::query!("delete from logins where user_id = $1 and id = $2", user.0, login)
        .execute(db.pool())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Stores a WebSocket ticket of a login.
///
/// # Errors
/// When the database is away.
pub async fn create_ticket(
    db: &Db,
    login: Uuid,
    digest: &[u8; 32],
    expires_at: UnixMs,
) -> Result<(), DbError> {
    sqlx::query!(
        "insert into tickets (digest, login_id, expires_at) values ($1, $2, $3)",
        &digest[..],
        login,
        at(expires_at)
    )
    .execute(db.pool())
    .await?;
    Ok(())
}

/// Uses up a ticket: the user and the login it belongs to, if both are still valid.
///
/// # Errors
/// When the database is away.
pub async fn redeem_ticket(db: &Db, digest: &[u8; 32], now: UnixMs) -> Result<Option<(User, Uuid)>, DbError> {
    let row = sqlx::query!(
        "with ticket as (delete from tickets where digest = $1 and expires_at > $2 returning login_id)
         select l.id, u.id as user_id, u.email, u.name, u.role
           from ticket join logins l on l.id = ticket.login_id and l.expires_at > $2
                join users u on u.id = l.user_id and u.disabled_at is null",
        &digest[..],
        at(now)
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(|row| Ok((to_user(row.user_id, row.email, row.name, &row.role)?, row.id))).transpose()
}

/// Logins that are still valid, of the given ones: a socket asks every few minutes whether its login lives.
///
/// # Errors
/// When the database is away.
pub async fn still_valid(db: &Db, logins: &[Uuid], now: UnixMs) -> Result<Vec<Uuid>, DbError> {
    Ok(sqlx::query_scalar!(
        "select l.id from logins l join users u on u.id = l.user_id
          where l.id = any($1) and l.expires_at > $2 and u.disabled_at is null",
        logins,
        at(now)
    )
    .fetch_all(db.pool())
    .await?)
}

/// Removes what has ended: links, logins, tickets.
///
/// # Errors
/// When the database is away.
pub async fn clean_up(db: &Db, now: UnixMs, idle_since: UnixMs) -> Result<u64, DbError> {
    let links =
        sqlx::query!("delete from login_links where expires_at <= $1", at(now)).execute(db.pool()).await?;
    let tickets =
        sqlx::query!("delete from tickets where expires_at <= $1", at(now)).execute(db.pool()).await?;
    let logins = sqlx::query!(
        "delete from logins where expires_at <= $1 or last_used_at <= $2",
        at(now),
        at(idle_since)
    )
    .execute(db.pool())
    .await?;
    Ok(links.rows_affected() + tickets.rows_affected() + logins.rows_affected())
}

/// True if nobody has ever logged in: the relay is new.
///
/// # Errors
/// When the database is away.
pub async fn is_unused(db: &Db) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        "select not exists (select from audit_log where action = 'login.by_link') as \"is_unused!\""
    )
    .fetch_one(db.pool())
    .await?)
}

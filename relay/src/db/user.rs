//! User accounts.

use claudenest_shared::id::UserId;
use claudenest_shared::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::{Db, DbError, at, from_word, new_id, word};

/// What a user may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, including other users.
    Admin,
    /// Machines and sessions of their own.
    Operator,
    /// Looks on.
    Viewer,
}

/// A user account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct User {
    /// Identity.
    pub id: UserId,
    /// E-mail address: the name of the account, shown on machines when they are paired.
    pub email: String,
    /// Name for people.
    pub name: String,
    /// What the user may do.
    pub role: Role,
}

/// Finds the user with this address, or makes one: the first of a relay is its admin.
///
/// # Errors
/// When the database is away.
pub async fn find_or_create(db: &Db, email: &str, name: &str, now: UnixMs) -> Result<(User, bool), DbError> {
    if let Some(user) = by_email(db, email).await? {
        return Ok((user, false));
    }
    // The first user is the admin. Two first users at once: the lock lets one of them see the other.
    let mut tx = db.pool().begin().await?;
    sqlx::query!("lock table users in share row exclusive mode").execute(&mut *tx).await?;
    let row = sqlx::query!(
        "insert into users (id, email, name, role, created_at)
         values ($1, $2, $3, case when exists (select from users) then 'operator' else 'admin' end, $4)
         on conflict (lower(email)) do nothing
         returning id, email, name, role",
        new_id(),
        email,
        name,
        at(now)
    )
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    match row {
        Some(row) => Ok((to_user(row.id, row.email, row.name, &row.role)?, true)),
        None => by_email(db, email).await?.map(|user| (user, false)).ok_or(DbError::Word { what: "user" }),
    }
}

/// Finds a user by address, whatever its case.
///
/// # Errors
/// When the database is away.
pub async fn by_email(db: &Db, email: &str) -> Result<Option<User>, DbError> {
    let row = sqlx::query!("select id, email, name, role from users where lower(email) = lower($1)", email)
        .fetch_optional(db.pool())
        .await?;
    row.map(|row| to_user(row.id, row.email, row.name, &row.role)).transpose()
}

/// Finds a user by id.
///
/// # Errors
/// When the database is away.
pub async fn get(db: &Db, user: UserId) -> Result<Option<User>, DbError> {
    let row = sqlx::query!("select id, email, name, role from users where id = $1", user.0)
        .fetch_optional(db.pool())
        .await?;
    row.map(|row| to_user(row.id, row.email, row.name, &row.role)).transpose()
}

/// Every user, oldest first.
///
/// # Errors
/// When the database is away.
pub async fn list(db: &Db) -> Result<Vec<User>, DbError> {
    let rows = sqlx::query!("select id, email, name, role from users order by created_at, id")
        .fetch_all(db.pool())
        .await?;
    rows.into_iter().map(|row| to_user(row.id, row.email, row.name, &row.role)).collect()
}

/// Sets the role of a user. True if there is such a user.
///
/// # Errors
/// When the database is away.
pub async fn set_role(db: &Db, user: UserId, role: Role) -> Result<bool, DbError> {
    let done = sqlx::query!("update users set role = $2 where id = $1", user.0, word(&role))
        .execute(db.pool())
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) fn to_user(id: uuid::Uuid, email: String, name: String, role: &str) -> Result<User, DbError> {
    Ok(User { id: UserId(id), email, name, role: from_word("role", role)? })
}

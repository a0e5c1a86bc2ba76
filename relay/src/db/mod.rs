//! The relay's database. Every SQL statement of the relay is in this module and its children.
//!
//! Rules that must be atomic are one statement each. Every statement that serves a user names the user's id in its
//! condition: what belongs to somebody else is not found. Times are parameters, never `now()`.

pub mod approval;
pub mod attempt;
pub mod audit;
pub mod cluster;
pub mod enrolment;
pub mod history;
pub mod lock;
pub mod login;
pub mod machine;
pub mod pairing;
pub mod session;
pub mod user;

use std::time::Duration;

use claudenest_shared::time::UnixMs;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use time::OffsetDateTime;
use uuid::Uuid;

/// Connections of one relay. Terminal bytes never need one; REST and link changes are short. PostgreSQL's default is 100 for all.
const MAX_CONNECTIONS: u32 = 16;
/// How long a request waits for a free connection before it answers `unavailable`.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The end of the year 9999.
const LAST_MS: i64 = 253_402_300_799_999;

/// A failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// A statement failed, or the database is away.
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// A migration failed.
    #[error("database migration: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A stored value cannot be read.
    #[error("stored {what} cannot be read: {source}")]
    Json {
        /// Which value.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A stored word is not known to this version.
    #[error("stored {what} is not known to this version")]
    Word {
        /// Which value.
        what: &'static str,
    },
}

impl DbError {
    /// True if the database is away, starts, stops, or has no room: the same may succeed later.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_)) => true,
            // Classes of SQLSTATE: connection, resources (a full disk among them), operator intervention, system.
            Self::Sql(sqlx::Error::Database(error)) => error
                .code()
                .is_some_and(|code| ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class))),
            _ => false,
        }
    }

    /// True if the same would fail again however often it is tried: the value itself is refused.
    pub fn is_final(&self) -> bool {
        match self {
            // Data exception, integrity constraint violation.
            Self::Sql(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
            }
            Self::Sql(sqlx::Error::Encode(_)) | Self::Json { .. } | Self::Word { .. } => true,
            _ => false,
        }
    }
}

/// Pool of connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pool: PgPool,
}

impl Db {
    /// Makes a pool; connections are opened when they are needed.
    pub fn new(options: PgConnectOptions) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // Notices ("already exists, skipping") are no news to anybody.
            .connect_lazy_with(
                options.application_name("claudenest-relay").options([("client_min_messages", "warning")]),
            );
        Self { pool }
    }

    /// Wraps a pool that exists; for tests.
    pub fn from_pool(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Brings the schema up to date. Several relays may do so at once: a lock in the database orders them.
    ///
    /// # Errors
    /// When the database is away, or was migrated by a newer relay.
    pub async fn migrate(&self) -> Result<(), DbError> {
        Ok(sqlx::migrate!("./migrations").run(&self.pool).await?)
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When it gives none.
    pub async fn ping(&self) -> Result<(), DbError> {
        sqlx::query_scalar!("select 1 as \"one!\"").fetch_one(&self.pool).await?;
        Ok(())
    }

    /// The server's version number, for example 150018.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn server_version(&self) -> Result<u32, DbError> {
        let version = sqlx::query_scalar!("select current_setting('server_version_num') as \"version!\"")
            .fetch_one(&self.pool)
            .await?;
        Ok(version.parse().unwrap_or(0))
    }

    /// Closes every connection, after those in use have been given back.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// A new id: UUIDv7, so that rows sort by creation.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// `time` as the database stores it.
pub(crate) fn at(time: UnixMs) -> OffsetDateTime {
    // Machines send times; years that PostgreSQL or this type does not have become the nearest they do.
    let ms = time.0.clamp(0, LAST_MS);
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A stored time as it travels.
pub(crate) fn ms(time: OffsetDateTime) -> UnixMs {
    UnixMs(i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX))
}

/// A number of the wire as the database stores it.
pub(crate) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The word by which serde writes a unit variant.
pub(crate) fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// The variant that a stored word names.
pub(crate) fn from_word<T: serde::de::DeserializeOwned>(
    what: &'static str,
    word: &str,
) -> Result<T, DbError> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).map_err(|_| DbError::Word { what })
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    what: &'static str,
    value: serde_json::Value,
) -> Result<T, DbError> {
    serde_json::from_value(value).map_err(|source| DbError::Json { what, source })
}

pub(crate) fn to_json<T: serde::Serialize>(
    what: &'static str,
    value: &T,
) -> Result<serde_json::Value, DbError> {
    let mut value = serde_json::to_value(value).map_err(|source| DbError::Json { what, source })?;
    without_nul(&mut value);
    Ok(value)
}

/// PostgreSQL stores no U+0000, neither in text nor in JSON; what machines say may contain it.
fn without_nul(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => text.retain(|c| c != '\0'),
        serde_json::Value::Array(values) => values.iter_mut().for_each(without_nul),
        serde_json::Value::Object(values) => {
            if values.keys().any(|key| key.contains('\0')) {
                *values = std::mem::take(values)
                    .into_iter()
                    .map(|(key, value)| (key.replace('\0', ""), value))
                    .collect();
            }
            values.values_mut().for_each(without_nul);
        }
        _ => {}
    }
}

//! Questions to a PostgreSQL server before the relay's own database is there. The only SQL that is not checked at compile time.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::DbError;

/// What a server says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It takes queries.
    Ready {
        /// Its data directory.
        data_dir: String,
    },
    /// It starts, recovers or stops.
    Starting,
    /// It does not answer.
    None,
}

/// Asks the server whether it is ready.
pub async fn ask(options: &PgConnectOptions) -> Answer {
    let mut connection = match maintenance(options).await {
        Ok(connection) => connection,
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == "57P03") => {
            return Answer::Starting;
        }
        Err(_) => return Answer::None,
    };
    let answer = sqlx::query_scalar::<_, String>("show data_directory").fetch_one(&mut connection).await;
    // The answer counts; how the connection ends does not.
    let _ = connection.close().await;
    answer.map_or(Answer::None, |data_dir| Answer::Ready { data_dir })
}

async fn maintenance(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    options.clone().database("postgres").disable_statement_logging().connect().await
}

/// Makes the database that `options` name, unless it is there.
///
/// # Errors
/// When the server refuses.
pub async fn ensure_database(options: &PgConnectOptions) -> Result<(), DbError> {
    let name = options.get_database().unwrap_or("claudenest").to_owned();
    let mut connection = maintenance(options).await?;
    let is_there: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(&name)
        .fetch_one(&mut connection)
        .await?;
    if !is_there {
        let quoted = name.replace('"', "\"\"");
        sqlx::query(AssertSqlSafe(format!("create database \"{quoted}\""))).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

//! What the relay does by itself now and then.

use std::time::Duration;

use claudenest_shared::time::UnixMs;

use crate::app::App;
use crate::auth::login::idle_since;
use crate::db::{DbError, approval, attempt, enrolment, history, login, pairing};

/// Ended things are no longer valid anyway; this only keeps the tables small.
const EVERY: Duration = Duration::from_secs(300);
/// A stranger with many networks fills the tables of the limits; in so short a time not by much.
const LIMITS_EVERY: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 86_400_000;

/// Keeps the tables of rate limits small, until the relay stops: every network that ever asked has a row there.
pub async fn clean_up_limits_forever(app: App) {
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(LIMITS_EVERY) => app.limits.clean_up(),
        }
    }
}

/// Removes what has ended, until the relay stops.
pub async fn clean_up_forever(app: App) {
    loop {
        match clean_up(&app).await {
            Ok(0) => {}
            Ok(rows) => tracing::debug!(rows, "removed what has ended"),
            Err(error) => tracing::warn!(error = %error, "what has ended could not be removed"),
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Removes ended logins, links, tickets, pairings, enrolment tokens and tries, answers that are old, and past output that is
/// too old or too much. Returns the number of rows.
///
/// # Errors
/// When the database is away.
pub async fn clean_up(app: &App) -> Result<u64, DbError> {
    let now = app.clock.now();
    let day_ago: UnixMs = now.plus(-DAY_MS);
    let mut rows = login::clean_up(&app.db, now, idle_since(app, now)).await?;
    rows += pairing::clean_up(&app.db, now, day_ago).await?;
    rows += enrolment::clean_up(&app.db, day_ago).await?;
    rows += attempt::clean_up(&app.db, day_ago).await?;
    rows += approval::clean_up(&app.db, now.plus(-approval::KEPT_DAYS * DAY_MS)).await?;
    let (days, bytes) = (app.config.history_retention_days, app.config.history_bytes());
    rows += history::prune(&app.db, days, bytes, now).await?;
    Ok(rows)
}

//! Waiting for what other processes do and nobody tells: looks at every tick of a clock, with an end.

use std::time::Duration;

/// How often to look: far below what a person notices, far above what a core notices.
const TICK: Duration = Duration::from_millis(5);
/// Long enough for a loaded machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks until `look` gives something.
///
/// # Panics
/// After 30 s.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(TICK);
    let waiting = async {
        loop {
            ticks.tick().await;
            if let Some(found) = look() {
                return found;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// Looks until `is_true`.
///
/// # Panics
/// After 30 s.
pub async fn until_true(what: &str, mut is_true: impl FnMut() -> bool) {
    until(what, || is_true().then_some(())).await;
}

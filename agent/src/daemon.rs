//! The daemon: puts supervisor, control socket and links together, and takes them down in order.
//!
//! Invariant: ending the daemon, in whatever way, never ends a session.

use std::sync::Arc;
use std::time::Duration;

use claudenest_shared::machine::GoodbyeReason;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::control::{self, BindError, RelayState, RelayStatus};
use crate::credential::SecretError;
use crate::guard::Guard;
use crate::link::{LinkState, LinkStatus, Links};
use crate::paths::{Paths, PathsError};
use crate::store::{Store, StoreError};
use crate::supervisor::{Settings, Supervisor};

/// Everything must be down after this long; then the process ends anyway.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(8);

/// Why the daemon does not start. The texts are complete for a person.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The directories cannot be used.
    #[error(transparent)]
    Paths(#[from] PathsError),
    /// Another daemon runs, or the socket cannot be made.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The list of relays cannot be read.
    #[error(transparent)]
    Relays(#[from] SecretError),
    /// The operating system refused something.
    #[error("The daemon cannot {what}: {source}.")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Runs the daemon until a signal ends it. `ready` is called once everything is served.
///
/// # Errors
/// [`DaemonError`] when it cannot start.
///
/// # Cancel safety
/// Not cancel safe: end it by a signal.
pub async fn run(config: Config, paths: Paths, ready: impl FnOnce()) -> Result<(), DaemonError> {
    paths.ensure()?;
    let system = |what| move |source| DaemonError::System { what, source };
    let bound = control::bind(&paths)?;
    let mut signals = Signals::new().map_err(system("listen for signals"))?;
    let program = std::env::current_exe().map_err(system("find its own program"))?;
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let store = Store::open(&paths.data_dir).await?;
    let settings = Settings::new(&config, &paths, program);
    let supervisor = Supervisor::start(settings, store.clone(), &tasks, cancel.clone()).await?;
    let guard =
        Guard::start(supervisor.clone(), store, config.policy.clone(), &tasks, cancel.clone()).await?;
    let (total, sessions_dir) = (config.recording_total_bytes, paths.sessions_dir());
    tasks.spawn(crate::recordings::watch(supervisor.clone(), sessions_dir.clone(), cancel.clone()));
    tasks.spawn(crate::recordings::keep(supervisor.clone(), sessions_dir, total, cancel.clone()));
    let links = Links::new(Arc::new(guard.clone()), paths.clone(), config, tasks.clone());
    links.reload()?;
    let served = control::serve(bound, guard, Arc::new(links.clone()), tasks.clone(), cancel.clone());
    tasks.spawn(served);
    spawn_watchdog(&tasks, &cancel);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        sessions = supervisor.sessions().len(),
        relays = links.status().len(),
        "the agent is ready"
    );
    notify(&[sd_notify::NotifyState::Ready]);
    ready();
    let mut ends = signals.next().await;
    while ends == Wanted::Reload {
        match links.reload() {
            Ok(()) => links.hurry(),
            Err(error) => tracing::error!(%error, "the list of relays cannot be read"),
        }
        ends = signals.next().await;
    }
    tracing::info!("the agent stops; sessions go on");
    notify(&[sd_notify::NotifyState::Stopping]);
    links.stop(GoodbyeReason::Stopping);
    cancel.cancel();
    tasks.close();
    // A second signal means: now.
    tokio::select! {
        () = tasks.wait() => {}
        () = tokio::time::sleep(SHUTDOWN_GRACE) => tracing::warn!("some tasks did not end in time"),
        _ = signals.next() => {}
    }
    Ok(())
}

impl control::Links for Links {
    fn relays(&self) -> Vec<RelayStatus> {
        self.status().into_iter().map(RelayStatus::from).collect()
    }

    fn reload(&self) {
        match Links::reload(self) {
            Ok(()) => self.hurry(),
            Err(error) => tracing::error!(%error, "the list of relays cannot be read"),
        }
    }
}

impl From<LinkStatus> for RelayStatus {
    fn from(link: LinkStatus) -> Self {
        Self {
            state: match link.state {
                LinkState::Connecting if link.attempts <= 1 => RelayState::Connecting,
                LinkState::Online => RelayState::Connected,
                LinkState::Connecting | LinkState::Waiting => RelayState::Unreachable,
                LinkState::Revoked => RelayState::Revoked,
                LinkState::NoSecret => RelayState::NoSecret,
            },
            url: link.relay,
            machine_name: Some(link.machine_name),
            account: Some(link.account),
            since: link.since,
            detail: link.last_error,
            clock_difference_ms: link.clock_difference_ms,
            next_attempt_at: link.next_attempt_at,
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Wanted {
    End,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::End,
            _ = self.interrupt.recv() => Wanted::End,
            // A terminal that was closed must not end the daemon.
            _ = self.hangup.recv() => Wanted::Reload,
        }
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// Tells systemd that the runtime still turns, twice within its limit.
fn spawn_watchdog(tasks: &TaskTracker, cancel: &CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let cancel = cancel.clone();
    tasks.spawn(async move {
        let mut ticks = tokio::time::interval(limit / 2);
        while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
    });
}

//! What every request handler may reach: database, hub, configuration, clock, shutdown.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::limit::Limits;
use crate::auth::origin::Site;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::Db;
use crate::hub::Hub;

/// Shared state of a running relay. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The parts of [`App`], reached through it.
pub struct Parts {
    /// Effective configuration.
    pub config: Config,
    /// Where the web app is, and which origins are its own.
    pub site: Site,
    /// Rate limits.
    pub limits: Limits,
    /// Database.
    pub db: Db,
    /// Live links and sockets.
    pub hub: Hub,
    /// Wall clock.
    pub clock: Clock,
    /// Every task of the relay runs on it.
    pub tasks: TaskTracker,
    /// Cancelled when the relay ends.
    pub shutdown: CancellationToken,
}

impl App {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

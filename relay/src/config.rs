//! Effective configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::auth::address::Network;

/// Effective configuration of a relay.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Address of the web app as people open it; derived from `listen` when absent.
    pub public_url: Option<String>,
    /// Where the relay keeps its files.
    pub data_dir: PathBuf,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// A login ends when it was not used for so many days.
    pub login_idle_days: u32,
    /// A login ends after so many days, used or not.
    pub login_max_days: u32,
}

const DAY_MS: i64 = 86_400_000;

impl Config {
    /// See `login_idle_days`.
    pub fn login_idle_ms(&self) -> i64 {
        i64::from(self.login_idle_days) * DAY_MS
    }

    /// See `login_max_days`.
    pub fn login_max_ms(&self) -> i64 {
        i64::from(self.login_max_days) * DAY_MS
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7450)),
            public_url: None,
            data_dir: PathBuf::from("/var/lib/claudenest-relay"),
            trusted_proxies: Vec::new(),
            login_idle_days: 14,
            login_max_days: 90,
        }
    }
}

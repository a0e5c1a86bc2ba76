//! What people see of a link.

use claudenest_shared::id::MachineId;
use claudenest_shared::time::UnixMs;
use serde::{Deserialize, Serialize};

use crate::credential::PairedRelay;

/// State of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Connecting or in the handshake.
    Connecting,
    /// Up.
    Online,
    /// Down; tries again by itself.
    Waiting,
    /// The relay refuses the token; a person must pair again.
    Revoked,
    /// The token cannot be read on this machine.
    NoSecret,
}

impl LinkState {
    /// True unless the link is up.
    pub const fn is_away(self) -> bool {
        !matches!(self, Self::Online)
    }
}

/// A link as `status` and `doctor` show it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Address of the relay.
    pub relay: String,
    /// Account that the machine belongs to.
    pub account: String,
    /// The machine's id at the relay.
    pub machine_id: MachineId,
    /// The machine's name at the relay.
    pub machine_name: String,
    /// State.
    pub state: LinkState,
    /// Since when it is up, or away.
    pub since: UnixMs,
    /// Why it is away, in a sentence.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Tries since it was up.
    #[serde(default)]
    pub attempts: u32,
    /// When the next try comes.
    #[serde(default)]
    pub next_attempt_at: Option<UnixMs>,
    /// The relay's clock minus ours.
    #[serde(default)]
    pub clock_difference_ms: Option<i64>,
}

impl LinkStatus {
    /// A link that has not connected yet.
    pub fn new(relay: &PairedRelay, now: UnixMs) -> Self {
        Self {
            relay: relay.url.clone(),
            account: relay.account.clone(),
            machine_id: relay.machine_id,
            machine_name: relay.machine_name.clone(),
            state: LinkState::Connecting,
            since: now,
            last_error: None,
            attempts: 0,
            next_attempt_at: None,
            clock_difference_ms: None,
        }
    }
}

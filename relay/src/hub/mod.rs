//! Live links of machines and sockets of browsers, and what flows between them.

use std::time::Duration;

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{MachineId, UserId};
use claudenest_shared::wire::agent::{Op, Reply};
use claudenest_shared::wire::browser::ServerMessage;
use uuid::Uuid;

use crate::clock::Clock;
use crate::db::Db;

/// Why a machine's link is closed by the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DisconnectReason {
    /// Its token was revoked (close code 4401).
    Revoked,
}

/// Handle of the hub. Cheap to clone.
#[derive(Clone)]
pub struct Hub {}

impl Hub {
    /// Starts an empty hub.
    pub fn new(_db: Db, _clock: Clock) -> Self {
        Self {}
    }

    /// Asks a machine to do something and waits for its answer, at most `timeout`.
    ///
    /// # Errors
    /// `machine_offline`, `machine_timeout`, or the machine's own refusal.
    pub async fn request(
        &self,
        _machine: MachineId,
        _op: Op,
        _timeout: Duration,
    ) -> Result<Reply, WireError> {
        Err(WireError::new(ErrorCode::MachineOffline, "The machine is not connected to this relay."))
    }

    /// True if the machine's link is up.
    pub fn is_online(&self, _machine: MachineId) -> bool {
        false
    }

    /// Closes the machine's link, if there is one.
    pub fn disconnect_machine(&self, _machine: MachineId, _reason: DisconnectReason) {}

    /// Closes every socket of a browser login.
    pub fn disconnect_login(&self, _login: Uuid) {}

    /// Sends a message to every socket of a user.
    pub fn publish(&self, _user: UserId, _message: ServerMessage) {}

    /// Tells every peer that the relay restarts, and closes their sockets.
    pub async fn restarting(&self, _retry_after: Duration) {}
}

//! File locks as they travel. The machine is the only authority; relay and browsers show copies.

use serde::{Deserialize, Serialize};

use crate::id::{LockId, MachineId, SessionId};
use crate::time::UnixMs;

/// Longest reason in characters.
pub const MAX_REASON_CHARS: usize = 500;
/// Shortest and longest lease in seconds.
pub const MIN_LEASE_S: u32 = 10;
/// See [`MIN_LEASE_S`]: a day.
pub const MAX_LEASE_S: u32 = 86_400;
/// Lease when nobody says one: 30 minutes after the last activity (SPEC P1).
pub const DEFAULT_LEASE_S: u32 = 1_800;

/// What a lock covers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LockKind {
    /// One file, which need not exist yet.
    File,
    /// A directory with everything below it.
    Directory,
}

/// How a lock came about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LockOrigin {
    /// The session's first write to the file.
    Write,
    /// Claude asked for it with the `lock_acquire` tool.
    Tool,
    /// A person, on the command line or in a browser.
    Person,
}

/// Who holds or wants a lock.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LockHolder {
    /// A session.
    Session {
        /// Which.
        session: SessionId,
        /// Its name, for people.
        name: String,
    },
    /// A person, for whom no session may write.
    Person {
        /// For people: "dev on tty3", "alice@example.com".
        label: String,
    },
}

/// Somebody waiting for a lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockWaiter {
    /// Who.
    pub who: LockHolder,
    /// Since when.
    pub since: UnixMs,
}

/// A lock that is held.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lock {
    /// Identity of this grant.
    pub id: LockId,
    /// The machine; absent in answers of the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<MachineId>,
    /// Absolute path as it was asked for, resolved.
    pub path: String,
    /// Root of the project it lies in (git work tree, else the holder's directory).
    pub project: String,
    /// What it covers.
    pub kind: LockKind,
    /// Who has it.
    pub holder: LockHolder,
    /// How it came about.
    pub origin: LockOrigin,
    /// Why, in the holder's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Fencing number: grows with every grant on this machine, never given twice.
    pub fence: u64,
    /// Since when.
    pub since: UnixMs,
    /// When it ends without activity of the holder.
    pub expires_at: UnixMs,
    /// Who waits, in order.
    #[serde(default)]
    pub waiters: Vec<LockWaiter>,
    /// Grows with every change on this machine; a copy with a lower number is older.
    pub version: u64,
}

/// Why a lock ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LockEnd {
    /// The holder gave it back.
    Released,
    /// Its session ended.
    SessionEnded,
    /// No activity for the time of the lease.
    Expired,
    /// A person took it away.
    Forced,
}

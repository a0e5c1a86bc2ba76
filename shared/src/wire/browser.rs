//! Messages of the browser socket (`/ws`).
//!
//! The first message is [`BrowserMessage::Auth`] with a single-use ticket. After [`ServerMessage::Ready`] the
//! server sends every machine and session of the user once, then changes. Terminals are attached on channels
//! that the browser chooses; their bytes travel as [frames](super::frame).

use serde::{Deserialize, Serialize};

use crate::approval::Approval;
use crate::code::WireError;
use crate::id::{ApprovalId, LockId, MachineId, SessionId, WriterId};
use crate::lock::{Lock, LockEnd};
use crate::machine::{MachineFacts, MachineState};
use crate::session::{SessionInfo, TermSize};
use crate::time::UnixMs;
use crate::wire::agent::StreamPosition;

/// A machine as its users see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MachineInfo {
    /// Identity.
    pub id: MachineId,
    /// Name that the user gave; the host name at first.
    pub name: String,
    /// State.
    pub state: MachineState,
    /// Since when.
    pub state_since: UnixMs,
    /// When the last link was up.
    pub last_seen_at: Option<UnixMs>,
    /// When it was paired.
    pub paired_at: UnixMs,
    /// Facts as last reported.
    pub facts: MachineFacts,
}

/// An approval as pages get it unasked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApprovalInfo {
    /// It.
    #[serde(flatten)]
    pub approval: Approval,
    /// True if its input or its diff were left out because they are long: get the approval by itself to see them.
    #[serde(default)]
    pub is_brief: bool,
}

impl ApprovalInfo {
    /// Leaves out input and diff that are longer than `max_bytes` each.
    pub fn new(mut approval: Approval, max_bytes: usize) -> Self {
        let mut is_brief = false;
        // A rendering of a tree of texts and numbers is about as long as the tree is large.
        if approval.input.to_string().len() > max_bytes {
            approval.input = serde_json::Value::Null;
            is_brief = true;
        }
        if approval.diff.as_ref().is_some_and(|diff| diff.len() > max_bytes) {
            approval.diff = None;
            is_brief = true;
        }
        Self { approval, is_brief }
    }
}

/// Messages from the browser.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BrowserMessage {
    /// First message.
    Auth {
        /// From `POST /api/ws-tickets`.
        ticket: String,
    },
    /// Attach to a session's terminal on `channel` (1 to 65,535, free on this socket).
    Attach {
        /// The channel.
        channel: u16,
        /// The session.
        session: SessionId,
        /// Next byte wanted; absent asks for a snapshot.
        from: Option<StreamPosition>,
        /// Random id of this viewer as a writer, kept over reconnects; absent attaches read-only.
        writer: Option<WriterId>,
        /// True if this viewer's resizes may take the size when nobody else has it. Phones say false.
        may_size: bool,
        /// See `lag_limit_bytes` of the agent link; absent means 512 KiB.
        lag_limit_bytes: Option<u64>,
        /// First credit in payload bytes, at most 256 KiB unless every byte is wanted (then at most 1 MiB).
        credit: u64,
    },
    /// Detach.
    Detach {
        /// The channel.
        channel: u16,
    },
    /// Own the terminal size from now on.
    TakeSize {
        /// The channel.
        channel: u16,
        /// The size it has.
        size: TermSize,
    },
    /// Are you there? A page cannot see WebSocket pings; this is how it finds a half-open socket, at most every 15 s.
    Ping {
        /// Returned in [`ServerMessage::Pong`].
        nonce: u32,
    },
}

/// Messages to the browser.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// Authenticated; the full state follows in this one message.
    Ready {
        /// Version of the relay; a page of another version should reload.
        relay_version: String,
        /// The relay's clock.
        time: UnixMs,
        /// Every machine of the user.
        machines: Vec<MachineInfo>,
        /// Every session on them.
        sessions: Vec<SessionInfo>,
        /// Every approval that is not final, as last known.
        #[serde(default)]
        approvals: Vec<ApprovalInfo>,
        /// Every lock, as last known.
        #[serde(default)]
        locks: Vec<Lock>,
    },
    /// A machine is new or has changed.
    Machine {
        /// The machine as it is now.
        machine: Box<MachineInfo>,
    },
    /// A machine was removed.
    MachineRemoved {
        /// Which.
        machine: MachineId,
    },
    /// A session is new or has changed.
    Session {
        /// The session as it is now.
        session: Box<SessionInfo>,
    },
    /// A session was forgotten.
    SessionRemoved {
        /// Which.
        session: SessionId,
    },
    /// An approval is new or has changed.
    Approval {
        /// The approval as it is now.
        approval: Box<ApprovalInfo>,
    },
    /// An approval is gone: its machine came back and does not know it.
    ApprovalRemoved {
        /// Whose it was.
        machine: MachineId,
        /// Which.
        approval: ApprovalId,
    },
    /// The relay has somebody's answer to an approval, and has handed it to the machine, which has not said yet whether it
    /// was the first.
    ApprovalAnswering {
        /// The machine.
        machine: MachineId,
        /// Which.
        approval: ApprovalId,
        /// Who answers, for people.
        by: String,
        /// True when the machine has said so, or will not.
        is_over: bool,
    },
    /// A lock is new or has changed.
    Lock {
        /// The lock as it is now.
        lock: Box<Lock>,
    },
    /// A lock has ended.
    LockRemoved {
        /// The machine.
        machine: MachineId,
        /// Which grant.
        lock: LockId,
        /// Why; absent if the machine came back and does not know it.
        end: Option<LockEnd>,
    },
    /// An attachment is open; frames follow on its channel.
    Attached {
        /// The channel.
        channel: u16,
        /// Current epoch.
        epoch: u32,
        /// Bytes of output so far.
        head: u64,
        /// Current size of the terminal.
        size: TermSize,
        /// Highest sequence number of this writer that reached the PTY; absent when read-only.
        acked: Option<u64>,
    },
    /// An attachment could not be opened, or ended.
    Detached {
        /// The channel.
        channel: u16,
        /// Why; absent after a wish to detach.
        error: Option<WireError>,
    },
    /// Answer to [`BrowserMessage::Ping`], sent at once.
    Pong {
        /// From the question.
        nonce: u32,
    },
    /// The machine behind an attachment went away or came back. While away, input is refused.
    Link {
        /// The channel.
        channel: u16,
        /// True if the machine's link is up.
        is_up: bool,
    },
    /// The socket is about to close on purpose.
    Closing {
        /// Why, and what to do.
        error: WireError,
        /// Come back after this many milliseconds; absent means log in again.
        retry_after_ms: Option<u32>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn golden_json_of_attach_and_attached() {
        let attach = BrowserMessage::Attach {
            channel: 1,
            session: SessionId::from_bytes([1; 16]),
            from: None,
            writer: Some(WriterId(1)),
            may_size: false,
            lag_limit_bytes: None,
            credit: 262_144,
        };
        let golden = json!({"type": "attach", "channel": 1, "session": "01010101-0101-0101-0101-010101010101",
            "from": null, "writer": "0000000000000001", "may_size": false, "lag_limit_bytes": null, "credit": 262_144});
        assert_eq!(serde_json::to_value(&attach).unwrap(), golden);
        assert_eq!(serde_json::from_value::<BrowserMessage>(golden).unwrap(), attach);
        let attached = ServerMessage::Attached {
            channel: 1,
            epoch: 0,
            head: 5,
            size: TermSize { cols: 80, rows: 24 },
            acked: Some(3),
        };
        assert_eq!(
            serde_json::to_value(attached).unwrap(),
            json!({"type": "attached", "channel": 1, "epoch": 0, "head": 5,
                   "size": {"cols": 80, "rows": 24}, "acked": 3})
        );
    }
}

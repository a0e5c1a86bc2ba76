//! The control socket: how the CLI, hooks and later the MCP server talk to the daemon of the same user.
//!
//! Every message is `u32` length of the body (little endian), `u8` kind (0 JSON, 1 [frame](claudenest_shared::wire::frame)),
//! body. JSON is tagged by `type` as on the agent link: a client sends [`ClientMessage`]s and, for terminals and
//! operations, the link's [`RelayMessage`]s; the daemon answers with [`DaemonMessage`]s and the link's [`AgentMessage`]s.
//! The client speaks first (`hello`).
//!
//! Rights: the socket belongs to one user and the peer's user id is checked. Who shows a session's capability is that
//! session, and so is every process that a session has started, whatever it says ([`peer`]). Who is neither is the operator.

mod client;
mod codec;
mod peer;
mod server;
mod tell;

use claudenest_shared::code::WireError;
use claudenest_shared::id::{LockId, SessionId};
use claudenest_shared::machine::MachineFacts;
use claudenest_shared::session::{SessionInfo, SessionState};
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage};
use serde::{Deserialize, Serialize};

pub use crate::claude::answer::HookOutput;
use crate::guard::lock::second::Alert;
pub use client::{Client, ClientError, Identity, Incoming, Receiver, Sender};
pub use codec::{CodecError, Packet, decode, encode_frame, encode_json};
pub use server::{BindError, Bound, bind, serve};

/// What a client says besides the messages of the agent link.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// First message. Answer: `welcome`.
    Hello {
        /// The session that the client belongs to; absent for an operator.
        #[serde(default)]
        session: Option<SessionId>,
        /// That session's capability.
        #[serde(default)]
        capability: Option<String>,
    },
    /// Answer: `status`.
    Status {
        /// Number of the request.
        request: u64,
    },
    /// Waits for a session. Answer: `waited`.
    Wait {
        /// Number of the request.
        request: u64,
        /// Which.
        session: SessionId,
        /// Any of these; empty means: until no process of it lives or waits to be started.
        states: Vec<SessionState>,
        /// For at most this long.
        #[serde(default)]
        timeout_ms: Option<u64>,
    },
    /// From now on every change comes as `session` and `session_removed`; first every session as it is. A client that
    /// is too slow gets every session again.
    Subscribe {},
    /// From now on every change of approvals and locks comes as `approval`, `lock` and `lock_ended`; first every approval that
    /// is open or became final within a day, `approvals_sent`, every lock, `locks_sent`. A client that is too slow gets
    /// all of this again.
    SubscribeGuard {},
    /// Puts the former content of a locked file back. Answer: `lock_restored`.
    LockRestore {
        /// Number of the request.
        request: u64,
        /// The lock.
        lock: LockId,
    },
    /// A hook of Claude Code, from a session. Answer: `hooked`.
    Hook {
        /// Number of the request.
        request: u64,
        /// What the hook was given on its standard input.
        input: serde_json::Value,
        /// Names this run of the hook program, which asks again when the connection is lost.
        #[serde(default)]
        call: String,
    },
    /// Something about other sessions or the people around, from a session. Answer: `nest`.
    Nest {
        /// Number of the request.
        request: u64,
        /// What it wants.
        wish: NestWish,
    },
    /// The stored relays or credentials have changed: read them again. Answer: `done`.
    ReloadRelays {
        /// Number of the request.
        request: u64,
    },
}

/// What a session may want to know or say beyond itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum NestWish {
    /// The sessions of this machine that have not ended. Answer: `sessions`.
    Sessions {},
    /// Tells another session something, in its conversation, with who said it. Answer: `done`.
    Message {
        /// Name or id.
        to: String,
        /// What.
        text: String,
        /// How long to wait until the other can take it, in seconds.
        #[serde(default)]
        wait_s: Option<u32>,
    },
    /// Asks a person, and waits for the answer. Answer: `said`.
    AskHuman {
        /// The exact input of the tool; `question` is shown.
        input: serde_json::Value,
        /// Names this question, should it be asked again after a lost connection.
        call: String,
    },
}

/// The answer to a [`NestWish`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NestAnswer {
    /// Sessions of this machine.
    Sessions {
        /// The sessions.
        sessions: Vec<Neighbour>,
    },
    /// It was done.
    Done {},
    /// What a person said.
    Said {
        /// Who.
        by: String,
        /// The answer.
        text: String,
    },
}

/// Another session as a session sees it: without prompts and environment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Neighbour {
    /// Identity.
    pub id: SessionId,
    /// Name.
    pub name: String,
    /// Directory.
    pub cwd: String,
    /// State.
    pub state: SessionState,
    /// Why.
    #[serde(default)]
    pub state_reason: Option<String>,
    /// True for the session that asks.
    pub is_self: bool,
}

/// What the daemon says besides the messages of the agent link.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DaemonMessage {
    /// The client may go on.
    Welcome {
        /// Version of the daemon.
        version: String,
        /// Its process id.
        pid: u32,
    },
    /// Answer to `status`.
    Status {
        /// Number of the request.
        request: u64,
        /// The state of the daemon.
        status: Box<Status>,
    },
    /// Answer to `wait`.
    Waited {
        /// Number of the request.
        request: u64,
        /// The session when it was in a wanted state, or as it is now.
        session: Box<SessionInfo>,
        /// False when the time was over or the session has ended in another state.
        is_met: bool,
    },
    /// Answer to `hook`.
    Hooked {
        /// Number of the request.
        request: u64,
        /// What the hook has to do.
        #[serde(default)]
        output: HookOutput,
    },
    /// A locked file was changed, and not by a tool of its holder; to whoever subscribed to the guard.
    LockAlert {
        /// What was seen.
        alert: Box<Alert>,
    },
    /// Answer to `lock_restore`.
    LockRestored {
        /// Number of the request.
        request: u64,
        /// The file.
        path: String,
        /// Where the content is that was there.
        #[serde(default)]
        aside: Option<String>,
    },
    /// Answer to `nest`.
    Nest {
        /// Number of the request.
        request: u64,
        /// The answer.
        answer: NestAnswer,
    },
    /// It was done.
    Done {
        /// Number of the request.
        request: u64,
    },
    /// It was refused or failed. Request 0: the connection itself.
    Failed {
        /// Number of the request.
        request: u64,
        /// Why.
        error: WireError,
    },
}

/// The state of the daemon, for `status` and `doctor`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Process id.
    pub pid: u32,
    /// Version.
    pub version: String,
    /// Since when it runs.
    pub started_at: UnixMs,
    /// Facts about the machine, with the version and login of Claude Code.
    pub facts: MachineFacts,
    /// The relays, in the order of pairing.
    pub relays: Vec<RelayStatus>,
    /// Sessions with a process.
    pub live_sessions: u32,
    /// Sessions that wait for their start.
    pub queued_sessions: u32,
    /// All sessions.
    pub sessions: u32,
}

/// The link to one relay.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Address.
    pub url: String,
    /// The machine's name there, once known.
    #[serde(default)]
    pub machine_name: Option<String>,
    /// Account that the machine belongs to, once known.
    #[serde(default)]
    pub account: Option<String>,
    /// State.
    pub state: RelayState,
    /// Since when.
    pub since: UnixMs,
    /// What happened and what to do, for people.
    #[serde(default)]
    pub detail: Option<String>,
    /// The relay's clock minus this machine's, in milliseconds, once it was heard.
    #[serde(default)]
    pub clock_difference_ms: Option<i64>,
    /// When it is tried again, while it is away.
    #[serde(default)]
    pub next_attempt_at: Option<UnixMs>,
}

/// State of the link to a relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// First attempt since the start.
    Connecting,
    /// The link is up.
    Connected,
    /// It cannot be reached; tried again and again.
    Unreachable,
    /// The token was revoked: pair again.
    Revoked,
    /// Key or token cannot be read on this machine.
    NoSecret,
}

/// What the daemon knows about its links; the relay link implements it.
pub trait Links: Send + Sync {
    /// Every relay.
    fn relays(&self) -> Vec<RelayStatus>;
    /// Reads the stored relays and credentials again. Returns at once.
    fn reload(&self);
}

/// No relays at all, as in tests and before pairing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLinks;

impl Links for NoLinks {
    fn relays(&self) -> Vec<RelayStatus> {
        Vec::new()
    }

    fn reload(&self) {}
}

/// Any JSON message of a client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum FromClient {
    Local(ClientMessage),
    Link(RelayMessage),
}

/// Any JSON message of the daemon.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum FromDaemon {
    Local(DaemonMessage),
    Link(AgentMessage),
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudenest_shared::wire::agent::{Op, Reply};
    use serde_json::json;

    #[test]
    fn golden_json_of_local_messages() {
        let id = "01010101-0101-0101-0101-010101010101";
        let session = SessionId::from_bytes([1; 16]);
        let check = |message: FromClient, golden: serde_json::Value| {
            assert_eq!(serde_json::to_value(&message).unwrap(), golden);
            assert_eq!(serde_json::from_value::<FromClient>(golden).unwrap(), message);
        };
        check(
            FromClient::Local(ClientMessage::Hello { session: Some(session), capability: Some("c".into()) }),
            json!({"type": "hello", "session": id, "capability": "c"}),
        );
        check(
            FromClient::Local(ClientMessage::Wait {
                request: 1,
                session,
                states: vec![SessionState::Completed],
                timeout_ms: None,
            }),
            json!({"type": "wait", "request": 1, "session": id, "states": ["completed"], "timeout_ms": null}),
        );
        check(
            FromClient::Link(RelayMessage::Request { request: 2, op: Op::SessionList {} }),
            json!({"type": "request", "request": 2, "op": {"op": "session_list"}}),
        );
        let reply = FromDaemon::Link(AgentMessage::Response { request: 2, reply: Reply::Done {} });
        let golden = json!({"type": "response", "request": 2, "reply": {"kind": "done"}});
        assert_eq!(serde_json::from_value::<FromDaemon>(golden).unwrap(), reply);
    }
}

//! Messages of the agent link, and the operations that the control socket shares with it.
//!
//! Opening: the agent connects with its machine token, the relay sends [`RelayMessage::Challenge`], the
//! agent answers [`AgentMessage::Hello`] with a signature, the relay says [`RelayMessage::Welcome`].
//! Nothing else is accepted before. Terminal bytes travel as [frames](super::frame) on channels that the
//! relay opens; a *stream* carries output towards the relay, a *writer* carries input towards the machine.

use serde::{Deserialize, Serialize};

use crate::approval::{Answer, Approval, ApprovalState};
use crate::code::WireError;
use crate::history::{HistoryChunk, HistoryMatch, HistoryOutcome, HistoryPosition, SessionHistory};
use crate::id::{ApprovalId, LockId, MachineId, SessionId, WriterId};
use crate::lock::{Lock, LockEnd, LockKind};
use crate::machine::{GoodbyeReason, MachineFacts};
use crate::policy::{KnownRule, PolicyRule};
use crate::session::{SessionInfo, SessionSpec, TermSize};
use crate::time::UnixMs;

/// What somebody wants the machine to do. Used by the relay (for a user) and by the local CLI.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Starts a session, or queues it. Answer: `session`.
    SessionCreate {
        /// What to start.
        spec: Box<SessionSpec>,
    },
    /// Answer: `sessions`, newest first.
    SessionList {},
    /// Answer: `session`.
    SessionGet {
        /// Which.
        session: SessionId,
    },
    /// Ends a session: asks it to leave, and kills its process group after `grace_ms`. Answer: `session`.
    SessionStop {
        /// Which.
        session: SessionId,
        /// Time to leave by itself, 0 to 60,000; 0 kills at once.
        grace_ms: u32,
    },
    /// Stops the process group (SIGSTOP). Answer: `session`.
    SessionPause {
        /// Which.
        session: SessionId,
    },
    /// Lets it go on (SIGCONT). Answer: `session`.
    SessionResume {
        /// Which.
        session: SessionId,
    },
    /// Ends the process if there is one and starts it again in the same session; continues the conversation where there is one. Answer: `session`.
    SessionRestart {
        /// Which.
        session: SessionId,
    },
    /// Ends the process but keeps the conversation for `SessionRestart`. Answer: `session`.
    SessionHibernate {
        /// Which.
        session: SessionId,
    },
    /// Answer: `session`.
    SessionRename {
        /// Which.
        session: SessionId,
        /// The new name.
        name: String,
    },
    /// Removes an ended session with its recording. Answer: `done`.
    SessionForget {
        /// Which.
        session: SessionId,
    },
    /// Types text as a bracketed paste where the program asks for that, then Enter if wanted. Answer: `done` after the write.
    SessionSend {
        /// Which.
        session: SessionId,
        /// What to type.
        text: String,
        /// True to press Enter afterwards.
        enter: bool,
    },
    /// The screen as plain text. Answer: `screen`.
    SessionScreen {
        /// Which.
        session: SessionId,
    },
    /// What is recorded of a session. Answer: `history`.
    HistoryList {
        /// Which.
        session: SessionId,
    },
    /// A part of a recording. Answer: `history_chunk`.
    HistoryRead {
        /// The session.
        session: SessionId,
        /// The run.
        epoch: u32,
        /// Offset of the first byte wanted.
        offset: u64,
        /// True to get the screen at the beginning with it.
        with_screen: bool,
    },
    /// Text that people saw. Answer: `history_matches`, newest sessions first.
    HistorySearch {
        /// Only in this session.
        session: Option<SessionId>,
        /// What to look for, as it is; case counts if it has capitals.
        text: String,
        /// Most matches, 1 to 200.
        limit: u32,
    },
    /// Directories below `path`, for a picker. Answer: `directory`.
    DirectoryList {
        /// Absolute path; empty means the home directory.
        path: String,
    },
    /// Approvals, newest first. Answer: `approvals`.
    ApprovalList {
        /// Only in these states; empty means all.
        #[serde(default)]
        states: Vec<ApprovalState>,
        /// Most, 1 to 1,000.
        limit: u32,
    },
    /// Answer: `approval`.
    ApprovalGet {
        /// Which.
        approval: ApprovalId,
    },
    /// Answers an approval. The first answer counts; a later one gets `conflict` and who was first. Answer: `approval`.
    ApprovalDecide {
        /// Which.
        approval: ApprovalId,
        /// The digest of the input that was looked at: refused with `conflict` if it is another.
        input_sha256: String,
        /// The answer.
        answer: Answer,
        /// Who answers, for people; a relay says the account. On the machine itself it is made by the daemon.
        #[serde(default)]
        by: Option<String>,
    },
    /// Rules of the policy, in the order in which they are kept. From this machine only. Answer: `rules`.
    PolicyList {},
    /// Adds a rule, for people on this machine only. Answer: `done`.
    PolicyAdd {
        /// The rule.
        rule: Box<PolicyRule>,
    },
    /// Removes a rule that does not stand in the configuration file, for people on this machine only. Answer: `done`.
    PolicyRemove {
        /// Its name.
        name: String,
    },
    /// Locks that are held. Answer: `locks`.
    LockList {},
    /// Takes a lock: for a person, so that no session may write there, or for the session that asks on the control
    /// socket. Answer: `locks`, with it alone.
    LockAcquire {
        /// Absolute path.
        path: String,
        /// What it is to cover.
        kind: LockKind,
        /// Lease in seconds, 10 to 86,400; 1,800 when absent.
        #[serde(default)]
        lease_s: Option<u32>,
        /// Why.
        #[serde(default)]
        reason: Option<String>,
        /// Who, for people; see `approval_decide`.
        #[serde(default)]
        by: Option<String>,
        /// How long to wait for it in seconds, at most an hour; without it, or with 0, a lock of somebody else refuses at once.
        #[serde(default)]
        wait_s: Option<u32>,
    },
    /// Ends a lock: one of a person, or with `force` any. Audited. Answer: `done`.
    LockRelease {
        /// Which grant: a newer grant for the same path is left alone.
        lock: LockId,
        /// True to take it away from its holder, who is told.
        force: bool,
        /// Why, for the holder and the audit log.
        #[serde(default)]
        reason: Option<String>,
        /// Who, for people; see `approval_decide`.
        #[serde(default)]
        by: Option<String>,
    },
}

/// The answer to an [`Op`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reply {
    /// Nothing to say but that it was done.
    Done {},
    /// One session.
    Session {
        /// The session.
        session: Box<SessionInfo>,
    },
    /// Several sessions.
    Sessions {
        /// The sessions.
        sessions: Vec<SessionInfo>,
    },
    /// A screen as text.
    Screen {
        /// The screen.
        screen: Screen,
    },
    /// A directory.
    Directory {
        /// The directory.
        directory: Directory,
    },
    /// What is recorded of a session.
    History {
        /// It.
        history: SessionHistory,
    },
    /// A part of a recording.
    HistoryChunk {
        /// The part; absent when there is nothing at that offset or behind it.
        chunk: Option<Box<HistoryChunk>>,
    },
    /// Lines that were found.
    HistoryMatches {
        /// The lines.
        matches: Vec<HistoryMatch>,
        /// True if there may be more: the limit was reached, or the time was over.
        is_cut: bool,
    },
    /// One approval.
    Approval {
        /// It, as it is now.
        approval: Box<Approval>,
    },
    /// Several approvals.
    Approvals {
        /// The approvals.
        approvals: Vec<Approval>,
        /// True if there are more than the limit.
        is_cut: bool,
    },
    /// Rules of the policy.
    Rules {
        /// The rules.
        rules: Vec<KnownRule>,
    },
    /// Locks.
    Locks {
        /// The locks.
        locks: Vec<Lock>,
    },
    /// It was refused or failed.
    Error {
        /// Why.
        error: WireError,
    },
}

/// A screen as plain text.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Screen {
    /// Size of the screen.
    pub size: TermSize,
    /// Rows from top to bottom without trailing blanks; no control characters.
    pub rows: Vec<String>,
    /// Cursor column, from 0.
    pub cursor_col: u16,
    /// Cursor row, from 0.
    pub cursor_row: u16,
    /// Offset up to which output is reflected.
    pub offset: u64,
}

/// A directory of the machine, for a picker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Directory {
    /// Absolute, resolved path.
    pub path: String,
    /// The directory above, if that is allowed too.
    pub parent: Option<String>,
    /// Directories in it, sorted by name; hidden ones last.
    pub entries: Vec<DirectoryEntry>,
    /// True if there are more entries than are listed (at most 1,000).
    pub is_cut: bool,
}

/// One directory in a [`Directory`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DirectoryEntry {
    /// Name without path.
    pub name: String,
    /// True if it is the root of a git work tree.
    pub is_git: bool,
}

/// Messages from the agent to the relay.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentMessage {
    /// Answer to the challenge. Ends the handshake together with `welcome`.
    Hello {
        /// Ed25519 signature over [`crate::pairing::link_message`], hexadecimal.
        signature: String,
        /// Facts about the machine.
        facts: Box<MachineFacts>,
        /// Every session that the machine knows, as many as fit into the message, those that live first.
        sessions: Vec<SessionInfo>,
        /// The sessions that did not fit: each follows as a `session` message after `welcome`. What is
        /// named neither here nor in `sessions` is gone.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<SessionId>,
        /// True if not even all ids fit: then nothing is gone for not being named.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        has_unnamed: bool,
    },
    /// Facts have changed.
    Facts {
        /// All facts.
        facts: Box<MachineFacts>,
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
    /// An approval is new or has changed. After `welcome` every one that is not final, and those that became final
    /// within the last day, follow unasked. Only to a relay that takes guard messages.
    Approval {
        /// The approval as it is now.
        approval: Box<Approval>,
    },
    /// Every approval that was to follow `welcome` has been sent: what the relay shows as open and was not named is gone.
    ApprovalsSent {},
    /// A lock is new or has changed. After `welcome` all of them follow unasked, and then `locks_sent`.
    Lock {
        /// The lock as it is now.
        lock: Box<Lock>,
    },
    /// Every lock has been sent: others are gone.
    LocksSent {},
    /// A lock has ended.
    LockEnded {
        /// Which grant.
        lock: LockId,
        /// Why.
        end: LockEnd,
    },
    /// Answer to [`RelayMessage::Request`].
    Response {
        /// The request's number.
        request: u64,
        /// The answer.
        reply: Reply,
    },
    /// A stream is open; frames follow on its channel.
    StreamOpened {
        /// The channel.
        channel: u16,
        /// Current epoch of the session.
        epoch: u32,
        /// Offset of the first byte that will come (a snapshot may come first and say another).
        offset: u64,
        /// Bytes of output so far.
        head: u64,
        /// Current size.
        size: TermSize,
    },
    /// A writer is open; input frames are accepted on its channel.
    WriterOpened {
        /// The channel.
        channel: u16,
        /// Highest sequence number of this writer that was written to the PTY; 0 if none.
        acked: u64,
    },
    /// A stream or writer could not be opened, or ended (the session is gone).
    ChannelClosed {
        /// The channel.
        channel: u16,
        /// Why; absent after a wish to close.
        error: Option<WireError>,
    },
    /// Asks how far the relay has these runs, at most 200. Only to a relay that takes history.
    HistoryQuery {
        /// Session and run; `end` is not looked at.
        runs: Vec<HistoryPosition>,
    },
    /// The agent closes the link on purpose.
    Goodbye {
        /// Why.
        reason: GoodbyeReason,
    },
}

/// Messages from the relay to the agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RelayMessage {
    /// First message: prove that you hold the machine's key.
    Challenge {
        /// 32 random bytes, hexadecimal, used once.
        nonce: String,
        /// The relay's clock, so that the agent can tell a person when its own is off.
        time: UnixMs,
    },
    /// The link is up.
    Welcome {
        /// The machine's id at this relay.
        machine_id: MachineId,
        /// The machine's name at this relay.
        machine_name: String,
        /// Grows with every link of this machine; frames of an older link are dropped.
        connection_epoch: u64,
        /// Send something (a ping at least) this often, in milliseconds.
        heartbeat_ms: u32,
        /// True if the relay understands `history_query` and history frames.
        #[serde(default)]
        takes_history: bool,
        /// True if the relay understands approvals and locks.
        #[serde(default)]
        takes_guard: bool,
    },
    /// Do something for a user.
    Request {
        /// Number of the request on this link.
        request: u64,
        /// What.
        op: Op,
    },
    /// Send a session's output on `channel`, from `offset` if that is still available in `epoch`, otherwise from a snapshot.
    StreamOpen {
        /// The channel to use: free on this link.
        channel: u16,
        /// The session.
        session: SessionId,
        /// Epoch and offset of the next byte wanted; absent asks for a snapshot.
        from: Option<StreamPosition>,
        /// Send a snapshot instead of the backlog when the stream lags more than this many bytes; at most 64 MiB.
        lag_limit_bytes: u64,
        /// First credit in payload bytes.
        credit: u64,
    },
    /// Send a snapshot on an open stream, at its current position, without a gap.
    StreamSnapshot {
        /// The stream's channel.
        channel: u16,
    },
    /// Accept input on `channel`.
    WriterOpen {
        /// The channel to use: free on this link.
        channel: u16,
        /// The session.
        session: SessionId,
        /// Who writes: input is applied at most once per writer and sequence number.
        writer: WriterId,
        /// For people, when this writer owns the size: "browser of alice@example.com".
        label: String,
        /// True if a resize of this writer may take the size when nobody else has it. Phones say false.
        may_size: bool,
    },
    /// The writer wants to own the terminal size from now on.
    TakeSize {
        /// The writer's channel.
        channel: u16,
        /// The size it has.
        size: TermSize,
    },
    /// Close a stream or writer.
    ChannelClose {
        /// The channel.
        channel: u16,
    },
    /// Answer to `history_query`, in its order; the end is 0 for what the relay has nothing of.
    HistoryHave {
        /// How far.
        runs: Vec<HistoryPosition>,
    },
    /// What became of the last history frame.
    HistoryStored {
        /// How far the relay has that run now.
        position: HistoryPosition,
        /// What became of it.
        outcome: HistoryOutcome,
    },
    /// The relay goes away on purpose.
    Restarting {
        /// Come back after this many milliseconds.
        retry_after_ms: u32,
    },
    /// The machine's token is no longer valid; do not retry, tell a person.
    Revoked {
        /// What happened and what to do.
        message: String,
    },
}

/// A position in a session's output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamPosition {
    /// Epoch of the byte sequence.
    pub epoch: u32,
    /// Offset of the next byte.
    pub offset: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check<T: Serialize + for<'de> Deserialize<'de> + PartialEq + std::fmt::Debug>(
        message: &T,
        golden: serde_json::Value,
    ) {
        assert_eq!(serde_json::to_value(message).unwrap(), golden);
        assert_eq!(&serde_json::from_value::<T>(golden).unwrap(), message);
    }

    #[test]
    fn golden_json_of_messages() {
        let session = SessionId::from_bytes([1; 16]);
        let id = "01010101-0101-0101-0101-010101010101";
        check(
            &RelayMessage::StreamOpen {
                channel: 3,
                session,
                from: Some(StreamPosition { epoch: 1, offset: 10 }),
                lag_limit_bytes: 524_288,
                credit: 262_144,
            },
            json!({"type": "stream_open", "channel": 3, "session": id,
                   "from": {"epoch": 1, "offset": 10}, "lag_limit_bytes": 524_288, "credit": 262_144}),
        );
        check(
            &RelayMessage::WriterOpen {
                channel: 4,
                session,
                writer: WriterId(0xab),
                label: "browser of alice".into(),
                may_size: true,
            },
            json!({"type": "writer_open", "channel": 4, "session": id, "writer": "00000000000000ab",
                   "label": "browser of alice", "may_size": true}),
        );
        check(
            &RelayMessage::Request { request: 7, op: Op::SessionStop { session, grace_ms: 5000 } },
            json!({"type": "request", "request": 7, "op": {"op": "session_stop", "session": id, "grace_ms": 5000}}),
        );
        check(
            &AgentMessage::Response { request: 7, reply: Reply::Done {} },
            json!({"type": "response", "request": 7, "reply": {"kind": "done"}}),
        );
        let position = HistoryPosition { session, epoch: 2, end: 9 };
        let position_json = json!({"session": id, "epoch": 2, "end": 9});
        check(
            &AgentMessage::HistoryQuery { runs: vec![position] },
            json!({"type": "history_query", "runs": [position_json]}),
        );
        check(
            &RelayMessage::HistoryStored { position, outcome: HistoryOutcome::Elsewhere },
            json!({"type": "history_stored", "position": position_json, "outcome": "elsewhere"}),
        );
        check(
            &RelayMessage::Request {
                request: 8,
                op: Op::HistoryRead { session, epoch: 2, offset: 9, with_screen: true },
            },
            json!({"type": "request", "request": 8, "op": {"op": "history_read", "session": id, "epoch": 2,
                   "offset": 9, "with_screen": true}}),
        );
        check(
            &AgentMessage::Goodbye { reason: GoodbyeReason::Stopping },
            json!({"type": "goodbye", "reason": "stopping"}),
        );
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let message: AgentMessage = serde_json::from_value(
            json!({"type": "writer_opened", "channel": 1, "acked": 0, "from_the_future": {"x": [1]}}),
        )
        .unwrap();
        assert_eq!(message, AgentMessage::WriterOpened { channel: 1, acked: 0 });
    }
}

//! What the hub asks of the rest of the relay: who owns what, and where to note what machines say.
//!
//! A trait, so that the hub can be tested without a database and stays the same in a fleet.

use claudenest_shared::approval::Approval;
use claudenest_shared::history::{HistoryOutcome, HistoryPosition};
use claudenest_shared::id::{ApprovalId, LockId, MachineId, SessionId, UserId};
use claudenest_shared::lock::Lock;
use claudenest_shared::machine::{MachineFacts, MachineState};
use claudenest_shared::session::SessionInfo;
use claudenest_shared::wire::browser::{ApprovalInfo, MachineInfo};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::auth::ticket;
use crate::clock::Clock;
use crate::db::history::NewChunk;
pub use crate::db::machine::LinkState;
use crate::db::{self, Db, DbError};

/// Inputs and diffs that are longer are not sent to pages unasked: most commands and edits are far shorter.
pub const MAX_BRIEF_BYTES: usize = 16 * 1024;
/// Inputs and diffs that a page gets in its first message, all together.
const BRIEF_ROOM_BYTES: usize = 2 * 1024 * 1024;
/// Open approvals that a page gets in its first message: far beyond what a person can answer, it bounds the message.
const MAX_OPEN_SHOWN: i64 = 1_000;
/// Locks that a page gets in its first message.
const MAX_LOCKS_SHOWN: i64 = 5_000;

/// The directory could not answer, usually because the database is away. The cause was not logged yet.
#[derive(Debug, thiserror::Error)]
#[error("the directory did not answer: {0}")]
pub struct DirectoryError(#[from] pub DbError);

impl DirectoryError {
    /// True if the same would fail again however often it is tried: the value itself is refused.
    pub fn is_final(&self) -> bool {
        self.0.is_final()
    }
}

/// An answer of the directory, later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, DirectoryError>>;

/// A machine that showed a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownMachine {
    /// The machine.
    pub id: MachineId,
    /// Its owner.
    pub user: UserId,
    /// Its name at this relay.
    pub name: String,
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
    /// True if the token is no longer valid.
    pub is_revoked: bool,
}

/// A browser that showed a ticket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownLogin {
    /// The login; when it ends, its sockets end.
    pub login: Uuid,
    /// The user.
    pub user: UserId,
    /// For people: the user's address.
    pub label: String,
}

/// What a page shows of a user.
#[derive(Clone, Default, Debug)]
pub struct UserState {
    /// Every machine.
    pub machines: Vec<MachineInfo>,
    /// Every session on them.
    pub sessions: Vec<SessionInfo>,
    /// Every approval that is not final.
    pub approvals: Vec<ApprovalInfo>,
    /// Every lock.
    pub locks: Vec<Lock>,
}

/// See the module. Every method may be called from any task; none is on the path of terminal bytes.
pub trait Directory: Send + Sync + 'static {
    /// The machine whose token has this digest.
    fn machine_by_token(&self, digest: [u8; 32]) -> Answer<'_, Option<KnownMachine>>;
    /// Notes a new link; the new connection epoch, or nothing if the token was revoked meanwhile.
    fn connect<'a>(&'a self, machine: MachineId, facts: &'a MachineFacts) -> Answer<'a, Option<u64>>;
    /// Notes a state; false if a newer link has come up or the token was revoked.
    fn set_state(&self, machine: MachineId, epoch: u64, state: MachineState) -> Answer<'_, bool>;
    /// Notes facts; false as above.
    fn set_facts<'a>(&'a self, machine: MachineId, epoch: u64, facts: &'a MachineFacts) -> Answer<'a, bool>;
    /// The machine gives up its token by this link; false if the link is outdated.
    fn unpair(&self, machine: MachineId, epoch: u64) -> Answer<'_, bool>;
    /// A machine as its user sees it.
    fn machine(&self, user: UserId, machine: MachineId) -> Answer<'_, Option<MachineInfo>>;
    /// Notes sessions.
    fn set_sessions<'a>(&'a self, machine: MachineId, sessions: &'a [SessionInfo]) -> Answer<'a, ()>;
    /// Notes that these and `others` are all sessions of the machine; returns those that are gone.
    fn replace_sessions<'a>(
        &'a self,
        machine: MachineId,
        sessions: &'a [SessionInfo],
        others: &'a [SessionId],
    ) -> Answer<'a, Vec<SessionId>>;
    /// Forgets a session.
    fn remove_session(&self, machine: MachineId, session: SessionId) -> Answer<'_, ()>;
    /// The machine of a session of that user.
    fn machine_of_session(&self, user: UserId, session: SessionId) -> Answer<'_, Option<MachineId>>;
    /// Notes an approval that the machine named on its link of that epoch; false if that is outdated, or there is no room.
    fn set_approval<'a>(&'a self, machine: MachineId, epoch: u64, approval: &'a Approval)
    -> Answer<'a, bool>;
    /// The machine has named all of its approvals; returns open ones that it did not name on this link.
    fn forget_approvals(&self, machine: MachineId, epoch: u64) -> Answer<'_, Vec<ApprovalId>>;
    /// Notes a lock, as above.
    fn set_lock<'a>(&'a self, machine: MachineId, epoch: u64, lock: &'a Lock) -> Answer<'a, bool>;
    /// Forgets a lock that has ended; false if it was not known.
    fn remove_lock(&self, machine: MachineId, lock: LockId) -> Answer<'_, bool>;
    /// The machine has named all of its locks; returns those that it did not name on this link.
    fn forget_locks(&self, machine: MachineId, epoch: u64) -> Answer<'_, Vec<LockId>>;
    /// Everything that a page shows of a user.
    fn state_of(&self, user: UserId) -> Answer<'_, UserState>;
    /// How far past output of these runs is stored.
    fn history_have<'a>(
        &'a self,
        machine: MachineId,
        runs: &'a [HistoryPosition],
    ) -> Answer<'a, Vec<HistoryPosition>>;
    /// Stores a chunk of past output; where the copy of its run ends now, and what became of it.
    fn store_history<'a>(
        &'a self,
        machine: MachineId,
        chunk: &'a NewChunk,
    ) -> Answer<'a, (u64, HistoryOutcome)>;
    /// Uses up a ticket.
    fn redeem<'a>(&'a self, ticket: &'a str) -> Answer<'a, Option<KnownLogin>>;
    /// Which of these logins are still valid.
    fn valid_logins<'a>(&'a self, logins: &'a [Uuid]) -> Answer<'a, Vec<Uuid>>;
    /// Whether these links, each a machine with its connection epoch, may stay up; answers in their order.
    fn link_states<'a>(&'a self, links: &'a [(MachineId, u64)]) -> Answer<'a, Vec<LinkState>>;
}

/// The directory of a relay with its database.
#[derive(Clone)]
pub struct DbDirectory {
    db: Db,
    clock: Clock,
    history_bytes: u64,
}

impl DbDirectory {
    /// Wraps the database; `history_bytes` of past output are kept of each user.
    pub fn new(db: Db, clock: Clock, history_bytes: u64) -> Self {
        Self { db, clock, history_bytes }
    }
}

impl Directory for DbDirectory {
    fn machine_by_token(&self, digest: [u8; 32]) -> Answer<'_, Option<KnownMachine>> {
        Box::pin(async move {
            let found = db::machine::authenticate(&self.db, &digest).await?;
            Ok(found.map(|machine| KnownMachine {
                id: machine.id,
                user: machine.user,
                name: machine.name,
                public_key: machine.public_key,
                is_revoked: machine.is_revoked,
            }))
        })
    }

    fn connect<'a>(&'a self, machine: MachineId, facts: &'a MachineFacts) -> Answer<'a, Option<u64>> {
        Box::pin(async move { Ok(db::machine::connect(&self.db, machine, facts, self.clock.now()).await?) })
    }

    fn set_state(&self, machine: MachineId, epoch: u64, state: MachineState) -> Answer<'_, bool> {
        Box::pin(async move {
            Ok(db::machine::set_state(&self.db, machine, epoch, state, self.clock.now()).await?)
        })
    }

    fn set_facts<'a>(&'a self, machine: MachineId, epoch: u64, facts: &'a MachineFacts) -> Answer<'a, bool> {
        Box::pin(async move {
            Ok(db::machine::set_facts(&self.db, machine, epoch, facts, self.clock.now()).await?)
        })
    }

    fn unpair(&self, machine: MachineId, epoch: u64) -> Answer<'_, bool> {
        Box::pin(
            async move { Ok(db::machine::unpair_by_link(&self.db, machine, epoch, self.clock.now()).await?) },
        )
    }

    fn machine(&self, user: UserId, machine: MachineId) -> Answer<'_, Option<MachineInfo>> {
        Box::pin(async move { Ok(db::machine::get(&self.db, user, machine).await?) })
    }

    fn set_sessions<'a>(&'a self, machine: MachineId, sessions: &'a [SessionInfo]) -> Answer<'a, ()> {
        Box::pin(async move {
            for session in sessions {
                db::session::upsert(&self.db, machine, session, self.clock.now()).await?;
            }
            Ok(())
        })
    }

    fn replace_sessions<'a>(
        &'a self,
        machine: MachineId,
        sessions: &'a [SessionInfo],
        others: &'a [SessionId],
    ) -> Answer<'a, Vec<SessionId>> {
        Box::pin(async move {
            Ok(db::session::replace_all(&self.db, machine, sessions, others, self.clock.now()).await?)
        })
    }

    fn remove_session(&self, machine: MachineId, session: SessionId) -> Answer<'_, ()> {
        Box::pin(async move {
            db::session::remove(&self.db, machine, session).await?;
            Ok(())
        })
    }

    fn machine_of_session(&self, user: UserId, session: SessionId) -> Answer<'_, Option<MachineId>> {
        Box::pin(async move {
            let found = db::session::get(&self.db, user, session).await?;
            Ok(found.and_then(|session| session.machine_id))
        })
    }

    fn set_approval<'a>(
        &'a self,
        machine: MachineId,
        epoch: u64,
        approval: &'a Approval,
    ) -> Answer<'a, bool> {
        Box::pin(async move {
            Ok(db::approval::upsert(&self.db, machine, epoch, approval, self.clock.now()).await?)
        })
    }

    fn forget_approvals(&self, machine: MachineId, epoch: u64) -> Answer<'_, Vec<ApprovalId>> {
        Box::pin(async move { Ok(db::approval::forget_unnamed(&self.db, machine, epoch).await?) })
    }

    fn set_lock<'a>(&'a self, machine: MachineId, epoch: u64, lock: &'a Lock) -> Answer<'a, bool> {
        Box::pin(async move { Ok(db::lock::upsert(&self.db, machine, epoch, lock).await?) })
    }

    fn remove_lock(&self, machine: MachineId, lock: LockId) -> Answer<'_, bool> {
        Box::pin(async move { Ok(db::lock::remove(&self.db, machine, lock).await?) })
    }

    fn forget_locks(&self, machine: MachineId, epoch: u64) -> Answer<'_, Vec<LockId>> {
        Box::pin(async move { Ok(db::lock::forget_unnamed(&self.db, machine, epoch).await?) })
    }

    fn state_of(&self, user: UserId) -> Answer<'_, UserState> {
        Box::pin(async move {
            // Machines last: one that is new in between is only listed without what is on it, and that follows as events.
            let approvals = db::approval::list_open(&self.db, user, None, None, MAX_OPEN_SHOWN).await?;
            let locks = db::lock::list_for_user(&self.db, user, None, MAX_LOCKS_SHOWN).await?;
            let sessions = db::session::list_for_user(&self.db, user, None).await?;
            let machines = db::machine::list_for_user(&self.db, user).await?;
            let room = BRIEF_ROOM_BYTES / approvals.len().max(1);
            let brief = |approval| ApprovalInfo::new(approval, room.min(MAX_BRIEF_BYTES));
            Ok(UserState { machines, sessions, approvals: approvals.into_iter().map(brief).collect(), locks })
        })
    }

    fn history_have<'a>(
        &'a self,
        machine: MachineId,
        runs: &'a [HistoryPosition],
    ) -> Answer<'a, Vec<HistoryPosition>> {
        Box::pin(async move { Ok(db::history::have(&self.db, machine, runs).await?) })
    }

    fn store_history<'a>(
        &'a self,
        machine: MachineId,
        chunk: &'a NewChunk,
    ) -> Answer<'a, (u64, HistoryOutcome)> {
        Box::pin(async move {
            let now = self.clock.now();
            Ok(db::history::store(&self.db, machine, chunk, self.history_bytes, now).await?)
        })
    }

    fn redeem<'a>(&'a self, ticket: &'a str) -> Answer<'a, Option<KnownLogin>> {
        Box::pin(async move {
            let holder = ticket::redeem(&self.db, &self.clock, ticket).await?;
            Ok(holder.map(|holder| KnownLogin {
                login: holder.login,
                user: holder.user.id,
                label: holder.user.email,
            }))
        })
    }

    fn valid_logins<'a>(&'a self, logins: &'a [Uuid]) -> Answer<'a, Vec<Uuid>> {
        Box::pin(async move { Ok(db::login::still_valid(&self.db, logins, self.clock.now()).await?) })
    }

    fn link_states<'a>(&'a self, links: &'a [(MachineId, u64)]) -> Answer<'a, Vec<LinkState>> {
        Box::pin(async move { Ok(db::machine::still_linked(&self.db, links).await?) })
    }
}

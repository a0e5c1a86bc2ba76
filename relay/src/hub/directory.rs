//! What the hub asks of the rest of the relay: who owns what, and where to note what machines say.
//!
//! A trait, so that the hub can be tested without a database and stays the same in a fleet.

use claudenest_shared::history::{HistoryOutcome, HistoryPosition};
use claudenest_shared::id::{MachineId, SessionId, UserId};
use claudenest_shared::machine::{MachineFacts, MachineState};
use claudenest_shared::session::SessionInfo;
use claudenest_shared::wire::browser::MachineInfo;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::auth::ticket;
use crate::clock::Clock;
use crate::db::history::NewChunk;
pub use crate::db::machine::LinkState;
use crate::db::{self, Db, DbError};

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
    /// Every machine and session of a user.
    fn state_of(&self, user: UserId) -> Answer<'_, (Vec<MachineInfo>, Vec<SessionInfo>)>;
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

    fn state_of(&self, user: UserId) -> Answer<'_, (Vec<MachineInfo>, Vec<SessionInfo>)> {
        Box::pin(async move {
            // Sessions first: a machine that is new in between is only listed without its sessions, and those follow as events.
            let sessions = db::session::list_for_user(&self.db, user, None).await?;
            Ok((db::machine::list_for_user(&self.db, user).await?, sessions))
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

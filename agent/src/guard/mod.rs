//! The guard: what Claude Code may do, who says so, and what became of it. On this machine alone; relays and browsers
//! hold copies.
//!
//! [`Guard`] is the handle for the control socket, the relay links and the hooks. It answers its own operations and passes
//! all others on to the supervisor. Invariant: whatever goes wrong in here, a tool that is gated does not run.

pub mod approval;
pub mod audit;
mod diff;
mod gate;
mod judge;
pub mod lock;
mod locking;
mod neighbours;
mod ops;
pub mod policy;
pub mod risk;
mod watch;
mod wording;

use std::path::PathBuf;
use std::sync::Arc;

use claudenest_shared::approval::{Approval, Decider, DeciderKind};
use claudenest_shared::id::{LockId, SessionId};
use claudenest_shared::lock::{Lock, LockEnd};
use serde_json::Value;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::approval::Approvals;
use self::lock::{LockSettings, Locks};
use self::policy::{Policy, PolicyRule};
use crate::claude::HookFact;
use crate::claude::answer::HookOutput;
use crate::store::{Store, StoreError};
use crate::supervisor::{Caller, Supervisor};

/// Changes that a slow subscriber may be behind before it has to read everything anew.
const EVENTS: usize = 256;

/// What has changed.
#[derive(Clone, PartialEq, Debug)]
pub enum GuardEvent {
    /// An approval is new or different.
    Approval(Box<Approval>),
    /// A lock is new or different.
    Lock(Box<Lock>),
    /// A lock has ended.
    LockEnded {
        /// Which.
        lock: LockId,
        /// Why.
        end: LockEnd,
    },
}

/// Who wants something, and by what way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    /// A person at this machine; the label is made by the daemon: "dev on pts/3".
    Local {
        /// For people.
        label: String,
    },
    /// A user of a relay; who it is stands in the operation.
    Relay,
    /// A supervised session.
    Session(SessionId),
}

impl Who {
    /// True for people.
    pub fn is_operator(&self) -> bool {
        !matches!(self, Self::Session(_))
    }

    /// The same for the supervisor.
    pub fn caller(&self) -> Caller {
        match self {
            Self::Local { .. } | Self::Relay => Caller::Operator,
            Self::Session(session) => Caller::Session(*session),
        }
    }

    /// Who it is as one who decides; `by` is what the operation says, which only a relay may. `None` for a session.
    pub fn decider(&self, by: Option<String>) -> Option<Decider> {
        match self {
            Self::Local { label } => Some(Decider { kind: DeciderKind::Cli, label: label.clone() }),
            Self::Relay => {
                let label = by.unwrap_or_else(|| "a user of the relay".to_owned());
                Some(Decider { kind: DeciderKind::Relay, label })
            }
            Self::Session(_) => None,
        }
    }
}

struct Inner {
    supervisor: Supervisor,
    store: Store,
    approvals: Approvals,
    locks: Locks,
    second_line: locking::SecondLine,
    policy: Policy,
    events: broadcast::Sender<GuardEvent>,
    recent: gate::Recent,
    home: Option<PathBuf>,
}

/// Handle to the guard. Cheap to clone.
#[derive(Clone)]
pub struct Guard {
    inner: Arc<Inner>,
}

impl Guard {
    /// Reads what is open and starts the guard's tasks. `rules` are those of the configuration.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn start(
        supervisor: Supervisor,
        store: Store,
        rules: Vec<PolicyRule>,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self, StoreError> {
        let (events, _) = broadcast::channel(EVENTS);
        let sessions = supervisor.clone();
        let approvals = Approvals::start(
            store.clone(),
            Arc::new(move |session| sessions.info(session)),
            events.clone(),
            tasks,
            cancel.clone(),
        )
        .await?;
        let locks = locking::start(
            LockSettings::default(),
            store.clone(),
            &supervisor,
            events.clone(),
            tasks,
            cancel.clone(),
        )
        .await?;
        let second_line = locking::SecondLine::start(&locks, store.clone(), tasks, cancel.clone());
        let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
        let recent = gate::Recent::default();
        let policy = Policy::open(rules, store.clone()).await?;
        let inner = Inner { supervisor, store, approvals, locks, second_line, policy, events, recent, home };
        let guard = Self { inner: Arc::new(inner) };
        tasks.spawn(watch::run(guard.clone(), cancel));
        Ok(guard)
    }

    /// All sessions.
    pub fn supervisor(&self) -> &Supervisor {
        &self.inner.supervisor
    }

    /// The approvals.
    pub fn approvals(&self) -> &Approvals {
        &self.inner.approvals
    }

    /// The file locks.
    pub fn locks(&self) -> &Locks {
        &self.inner.locks
    }

    /// The rules.
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Changes from now on. After `Lagged`, read [`Guard::told`] and [`Locks::list`] again.
    pub fn subscribe(&self) -> broadcast::Receiver<GuardEvent> {
        self.inner.events.subscribe()
    }

    /// Takes in a hook of a supervised session, and answers what its program has to do. `call` names this run of the hook
    /// program, which may ask again after a lost connection. Waits for as long as a question waits.
    ///
    /// # Cancel safety
    /// Cancel safe: an approval stays and waits for its hook to come back.
    pub async fn hook(&self, session: SessionId, input: &Value, call: &str) -> HookOutput {
        self.inner.locks.activity(session);
        let event = input.get("hook_event_name").and_then(Value::as_str).unwrap_or_default();
        self.inner.second_line.busy.note(session, event);
        let state = async {
            if let Some(fact) = HookFact::parse(input) {
                self.inner.supervisor.hook(session, fact).await;
            }
        };
        tokio::join!(state, self.gate(session, input, call)).1
    }
}

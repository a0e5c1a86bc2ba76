//! All sessions of the machine: starts, watches, ends and remembers them.
//!
//! [`Supervisor`] is the handle for everybody: the relay link, the control socket, the CLI. The rules live in
//! [`core`], the task that owns them in [`actor`]. Nothing here knows relays, users or terminals' bytes.

mod actor;
pub mod core;
mod host;
mod record;
mod settings;
mod spec;
#[cfg(test)]
mod tests;
mod view;
mod wishes;
mod words;

use std::sync::Arc;
use std::time::Duration;

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;
use claudenest_shared::machine::MachineFacts;
use claudenest_shared::session::{SessionInfo, SessionMode, SessionSpec, SessionState};
use claudenest_shared::wire::agent::{Op, Reply};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::claude::{Claude, HookFact, stream_json};
use crate::directory::Roots;
use crate::facts;
use crate::history::serve::{Library, Shelf};
use crate::session::SessionHandle;
use crate::store::{Store, StoreError};

pub use self::actor::now;
pub use self::record::{Now, Record, Wish};
pub use self::settings::Settings;
use self::view::View;
use self::wishes::not_found;

/// Commands that wait for the owner task; more than this many callers at once wait at the channel.
const COMMANDS: usize = 64;
/// Events that a slow subscriber may be behind before it has to read the list anew.
const EVENTS: usize = 256;
/// Longest grace of a stop.
const MAX_GRACE: Duration = Duration::from_secs(60);
/// A request about an end is answered after at most this long, with the state of that moment: requests of
/// a relay time out.
const END_ANSWER: Duration = Duration::from_secs(8);
/// The same for a start: a holder is ready within milliseconds, on a busy machine within seconds.
const START_ANSWER: Duration = Duration::from_secs(8);
/// Text for a session that is still starting is held back this long: Claude Code loses an Enter that comes before its prompt.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// Longer texts are pasted: no answer to a dialog is that long, and programs take large chunks for a paste anyway.
const MAX_TYPED_BYTES: usize = 200;

/// Matches of one search; a list that a person reads, and an answer that fits into a message.
const MAX_MATCHES: usize = 200;

/// Who wants something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Caller {
    /// A person: at the CLI, or through the relay.
    Operator,
    /// A supervised session itself. It may read itself and nothing else.
    Session(SessionId),
}

/// What has changed.
#[derive(Clone, PartialEq, Debug)]
pub enum SessionEvent {
    /// A session is new or different.
    Changed(Box<SessionInfo>),
    /// A session was forgotten.
    Removed(SessionId),
}

/// What a wish of the actor's channel is about.
#[derive(Debug)]
enum Steer {
    Stop(Duration),
    Pause,
    Resume,
    Restart,
    Hibernate,
    Rename(String),
    Forget,
    WakeWith(String),
}

type Answer = oneshot::Sender<Result<SessionInfo, WireError>>;

enum Command {
    Create { spec: Box<SessionSpec>, answer: Answer },
    Steer { session: SessionId, steer: Steer, answer: Answer },
    Hook { session: SessionId, fact: Box<HookFact>, answer: oneshot::Sender<()> },
}

struct Inner {
    commands: mpsc::Sender<Command>,
    view: Arc<View>,
    events: broadcast::Sender<SessionEvent>,
    settings: Arc<Settings>,
    claude: Arc<Claude>,
    roots: Arc<Roots>,
    library: Arc<Library>,
}

/// Handle to all sessions. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

impl Supervisor {
    /// Reads the store, takes over every living holder, and starts the owner task.
    ///
    /// Returns when all sessions are known in their true state.
    ///
    /// # Errors
    /// [`StoreError`] when the records cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is changed but what adoption finds out.
    pub async fn start(
        settings: Settings,
        store: Store,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self, StoreError> {
        let records = store.sessions().await?;
        let settings = Arc::new(settings);
        let search_path = settings
            .surroundings
            .environment
            .iter()
            .find(|(name, _)| name == "PATH")
            .map(|(_, value)| value.clone());
        let claude = Arc::new(Claude::new(
            settings.claude_path.clone(),
            settings.surroundings.home.clone(),
            search_path,
        ));
        let roots = Arc::new(Roots::new(settings.surroundings.home.clone(), &settings.roots));
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (events, _) = broadcast::channel(EVENTS);
        let view = Arc::new(View::new(Arc::clone(&settings)));
        let inner = Inner {
            commands,
            view: Arc::clone(&view),
            events: events.clone(),
            settings: Arc::clone(&settings),
            claude: Arc::clone(&claude),
            roots,
            library: Arc::new(Library {
                sessions_dir: settings.sessions_dir.clone(),
                shelf: Shelf::default(),
            }),
        };
        let mut actor =
            actor::Actor::new(settings, store, claude, view, events, tasks.clone(), cancel, records);
        actor.adopt().await;
        tasks.spawn(actor.run(receiver));
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Does what `op` says, and answers.
    ///
    /// # Cancel safety
    /// If dropped, the operation may be carried out without an answer.
    pub async fn execute(&self, op: Op, caller: &Caller) -> Reply {
        match self.try_execute(op, caller).await {
            Ok(reply) => reply,
            Err(error) => Reply::Error { error },
        }
    }

    async fn try_execute(&self, op: Op, caller: &Caller) -> Result<Reply, WireError> {
        if let Caller::Session(own) = caller {
            match &op {
                Op::SessionGet { session } if session == own => {}
                _ => {
                    return Err(WireError::new(
                        ErrorCode::Forbidden,
                        "A supervised session may look at itself only. Run this command outside of the session.",
                    ));
                }
            }
        }
        let steer = |session, steer| self.steer(session, steer);
        let info = match op {
            Op::SessionCreate { spec } => self.create(*spec).await?,
            Op::SessionList {} => return Ok(Reply::Sessions { sessions: self.sessions() }),
            Op::SessionGet { session } => self.info(session).ok_or_else(not_found)?,
            Op::SessionStop { session, grace_ms } => {
                let grace = Duration::from_millis(u64::from(grace_ms)).min(MAX_GRACE);
                let info = steer(session, Steer::Stop(grace)).await?;
                self.ended_or_latest(session, info).await?
            }
            Op::SessionPause { session } => steer(session, Steer::Pause).await?,
            Op::SessionResume { session } => {
                let info = steer(session, Steer::Resume).await?;
                self.started_or_latest(info).await?
            }
            Op::SessionRestart { session } => {
                let before = self.info(session).ok_or_else(not_found)?.epoch;
                let info = steer(session, Steer::Restart).await?;
                if info.state.is_live() && info.epoch == before {
                    let ended = self.wait(session, |info| info.epoch != before || !info.state.is_live());
                    let _ = tokio::time::timeout(END_ANSWER, ended).await;
                }
                self.started_or_latest(self.info(session).ok_or_else(not_found)?).await?
            }
            Op::SessionHibernate { session } => {
                let info = steer(session, Steer::Hibernate).await?;
                self.ended_or_latest(session, info).await?
            }
            Op::SessionRename { session, name } => steer(session, Steer::Rename(name)).await?,
            Op::SessionForget { session } => {
                steer(session, Steer::Forget).await?;
                return Ok(Reply::Done {});
            }
            Op::SessionSend { session, text, enter } => {
                self.send(session, text, enter).await?;
                return Ok(Reply::Done {});
            }
            Op::SessionScreen { session } => {
                let handle = self.session(session).ok_or_else(|| self.no_handle(session))?;
                return Ok(Reply::Screen { screen: handle.screen().await? });
            }
            Op::HistoryList { session } => {
                self.info(session).ok_or_else(not_found)?;
                let library = Arc::clone(&self.inner.library);
                let list = blocking(move || library.shelf.list(&library.sessions_dir, session)).await?;
                return Ok(Reply::History { history: list.map_err(unreadable)? });
            }
            Op::HistoryRead { session, epoch, offset, with_screen } => {
                self.info(session).ok_or_else(not_found)?;
                let library = Arc::clone(&self.inner.library);
                let read =
                    move || library.shelf.read(&library.sessions_dir, session, epoch, offset, with_screen);
                let chunk = blocking(read).await?.map_err(unreadable)?;
                return Ok(Reply::HistoryChunk { chunk: chunk.map(Box::new) });
            }
            Op::HistorySearch { session, text, limit } => {
                let mut sessions = self.sessions();
                sessions.retain(|info| session.is_none_or(|wanted| info.id == wanted));
                let library = Arc::clone(&self.inner.library);
                let limit = (limit as usize).clamp(1, MAX_MATCHES);
                let find = move || library.shelf.search(&library.sessions_dir, &sessions, &text, limit);
                let found = blocking(find).await?;
                let (matches, is_cut) =
                    found.map_err(|problem| WireError::new(ErrorCode::Invalid, problem))?;
                return Ok(Reply::HistoryMatches { matches, is_cut });
            }
            Op::DirectoryList { path } => {
                let roots = Arc::clone(&self.inner.roots);
                let directory = blocking(move || roots.list(&path)).await??;
                return Ok(Reply::Directory { directory });
            }
            Op::ApprovalList { .. }
            | Op::ApprovalGet { .. }
            | Op::ApprovalDecide { .. }
            | Op::PolicyList {}
            | Op::PolicyAdd { .. }
            | Op::PolicyRemove { .. }
            | Op::LockList {}
            | Op::LockAcquire { .. }
            | Op::LockRelease { .. } => {
                // The guard's; it answers them before they come here.
                return Err(WireError::new(
                    ErrorCode::Unavailable,
                    "The guard does not run. Restart the agent.",
                ));
            }
        };
        Ok(Reply::Session { session: Box::new(info) })
    }

    async fn create(&self, spec: SessionSpec) -> Result<SessionInfo, WireError> {
        let (roots, claude) = (Arc::clone(&self.inner.roots), Arc::clone(&self.inner.claude));
        let refuses = self.inner.settings.refuses_unguarded;
        let spec = blocking(move || spec::checked(spec, &roots, &claude, refuses)).await??;
        let info = self.ask(|answer| Command::Create { spec: Box::new(spec), answer }).await?;
        self.started_or_latest(info).await
    }

    /// Whoever starts a session attaches next: answers when there is something to attach to, or it has failed.
    async fn started_or_latest(&self, info: SessionInfo) -> Result<SessionInfo, WireError> {
        let session = info.id;
        let started = self.wait(session, |info| info.pid.is_some() || info.state != SessionState::Starting);
        match tokio::time::timeout(START_ANSWER, started).await {
            Ok(info) => info,
            Err(_) => self.info(session).ok_or_else(not_found),
        }
    }

    async fn steer(&self, session: SessionId, steer: Steer) -> Result<SessionInfo, WireError> {
        self.ask(|answer| Command::Steer { session, steer, answer }).await
    }

    async fn ask(&self, command: impl FnOnce(Answer) -> Command) -> Result<SessionInfo, WireError> {
        let (answer, answered) = oneshot::channel();
        let stopping =
            || WireError::new(ErrorCode::Unavailable, "The agent is stopping. Try again when it runs.");
        self.inner.commands.send(command(answer)).await.map_err(|_| stopping())?;
        let info = answered.await.map_err(|_| stopping())??;
        Ok(self.info(info.id).unwrap_or(info))
    }

    async fn ended_or_latest(&self, session: SessionId, info: SessionInfo) -> Result<SessionInfo, WireError> {
        if !info.state.is_live() {
            return Ok(info);
        }
        let ended = self.wait(session, |info| !info.state.is_live());
        match tokio::time::timeout(END_ANSWER, ended).await {
            Ok(info) => info,
            Err(_) => self.info(session).ok_or_else(not_found),
        }
    }

    async fn send(&self, session: SessionId, text: String, enter: bool) -> Result<(), WireError> {
        let mut info = self.info(session).ok_or_else(not_found)?;
        if info.state == SessionState::Hibernated {
            return self.steer(session, Steer::WakeWith(text)).await.map(|_| ());
        }
        if matches!(info.state, SessionState::Created | SessionState::Starting) {
            let started = self
                .wait(session, |info| !matches!(info.state, SessionState::Created | SessionState::Starting));
            info = match tokio::time::timeout(START_PATIENCE, started).await {
                Ok(info) => info?,
                Err(_) => {
                    return Err(WireError::new(
                        ErrorCode::Conflict,
                        "The session has not started yet and nothing was typed. Try again when it runs.",
                    ));
                }
            };
        }
        if !info.state.is_live() {
            return Err(WireError::new(ErrorCode::SessionEnded, "The session has ended; restart it first."));
        }
        let handle = self.session(session).ok_or_else(|| self.no_handle(session))?;
        match info.mode {
            SessionMode::Headless => handle.send_bytes(stream_json::user_message(&text)).await,
            _ if is_typed(&text) => {
                let keys = if enter { text + "\r" } else { text };
                handle.send_bytes(keys.into()).await
            }
            _ => handle.send_text(&text, enter).await,
        }
    }

    fn no_handle(&self, session: SessionId) -> WireError {
        match self.info(session) {
            None => not_found(),
            Some(info) if info.state == SessionState::Created => {
                WireError::new(ErrorCode::Conflict, "The session waits for its start; it has no screen yet.")
            }
            Some(info) if info.state.is_live() => {
                WireError::new(ErrorCode::Unavailable, "The session is starting. Try again in a moment.")
            }
            Some(_) => WireError::new(
                ErrorCode::SessionEnded,
                "The session has ended and its recording is gone; restart it.",
            ),
        }
    }

    /// Every session, newest first.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.inner.view.sessions()
    }

    /// One session.
    pub fn info(&self, session: SessionId) -> Option<SessionInfo> {
        self.inner.view.info(session)
    }

    /// The current run of a session, or the last one of an ended session as far as it is on disk.
    pub fn session(&self, session: SessionId) -> Option<SessionHandle> {
        self.inner.view.handle(session)
    }

    /// Changes from now on. After `Lagged`, read [`Supervisor::sessions`] again.
    pub fn subscribe(&self) -> broadcast::Receiver<SessionEvent> {
        self.inner.events.subscribe()
    }

    /// Waits until a session fulfils a condition, and answers what it is then.
    ///
    /// # Errors
    /// `not_found` when it does not exist or is forgotten meanwhile.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait(
        &self,
        session: SessionId,
        is_met: impl Fn(&SessionInfo) -> bool,
    ) -> Result<SessionInfo, WireError> {
        let mut events = self.subscribe();
        loop {
            let info = self.info(session).ok_or_else(not_found)?;
            if is_met(&info) {
                return Ok(info);
            }
            loop {
                match events.recv().await {
                    Ok(SessionEvent::Changed(info)) if info.id == session => {
                        // A state that lasts a moment only counts as well.
                        if is_met(&info) {
                            return Ok(*info);
                        }
                    }
                    Ok(SessionEvent::Removed(id)) if id == session => return Err(not_found()),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => break,
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(WireError::new(ErrorCode::Unavailable, "The agent is stopping."));
                    }
                }
            }
        }
    }

    /// Takes in a hook of a supervised session. Returns when it is stored.
    ///
    /// # Cancel safety
    /// Cancel safe; the hook may still be taken in.
    pub async fn hook(&self, session: SessionId, fact: HookFact) {
        let (answer, answered) = oneshot::channel();
        if self.inner.commands.send(Command::Hook { session, fact: Box::new(fact), answer }).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// The session whose current process was given this capability.
    pub fn session_of_capability(&self, session: SessionId, capability: &str) -> bool {
        self.inner.view.has_capability(session, capability)
    }

    /// Facts about the machine.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn facts(&self) -> MachineFacts {
        let inner = Arc::clone(&self.inner);
        let facts = blocking(move || {
            let env =
                crate::claude::command::clean_environment(&inner.settings.surroundings, &Default::default());
            facts::gather(&inner.claude, &env, &inner.roots, inner.settings.limits.max_sessions)
        });
        facts.await.unwrap_or_default()
    }

    /// Claude Code of this machine, for `doctor` and `status`.
    pub fn claude(&self) -> Arc<Claude> {
        Arc::clone(&self.inner.claude)
    }
}

/// True for what a person would type key by key. A permission dialog takes keys and ignores a paste: the Enter after an
/// ignored "3" (no) would choose the highlighted "yes".
fn is_typed(text: &str) -> bool {
    text.len() <= MAX_TYPED_BYTES && !text.contains(['\n', '\r'])
}

fn unreadable(error: std::io::Error) -> WireError {
    tracing::warn!(%error, "a recording cannot be read");
    WireError::new(
        ErrorCode::Internal,
        "The recording cannot be read on the machine; its agent's log says why.",
    )
}

/// Runs something that may block for a moment.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, WireError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a blocking task failed");
        WireError::new(ErrorCode::Internal, "Something went wrong in the agent; its log says more.")
    })
}

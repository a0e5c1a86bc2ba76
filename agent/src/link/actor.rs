//! The task of each link, and the handle to all of them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use claudenest_shared::approval::Approval;
use claudenest_shared::code::WireError;
use claudenest_shared::id::SessionId;
use claudenest_shared::lock::Lock;
use claudenest_shared::machine::{GoodbyeReason, MachineFacts};
use claudenest_shared::secret::Secret;
use claudenest_shared::session::SessionInfo;
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::{AgentMessage, Op, Reply};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::{Core, Effect, Event, Loss};
use super::serve::{Service, split_to_fit};
use super::socket::{Connection, Incoming, open};
use super::status::LinkStatus;
use crate::channel::Outgoing;
use crate::config::{Config, HistoryPolicy};
use crate::credential::{Identity, PairedRelay, Relays, SecretError, Vault};
use crate::guard::{Guard, GuardEvent, Who};
use crate::paths::Paths;
use crate::relay_url::RelayUrl;
use crate::session::SessionHandle;
use crate::supervisor::SessionEvent;
use crate::tls::Trust;

/// How often sleep is looked for: a person who opens the lid sees the machine online within seconds.
const WAKE_TICK: Duration = Duration::from_secs(5);
/// A shorter sleep does not end a connection.
const MIN_SLEEP: Duration = Duration::from_secs(10);

/// What a link serves to its relay.
pub trait LinkHost: Send + Sync + 'static {
    /// Does what a user of the relay wants.
    fn execute(&self, op: Op) -> impl Future<Output = Reply> + Send;
    /// Facts about the machine.
    fn facts(&self) -> impl Future<Output = MachineFacts> + Send;
    /// All sessions.
    fn sessions(&self) -> Vec<SessionInfo>;
    /// One session.
    fn info(&self, session: SessionId) -> Option<SessionInfo>;
    /// The live run of a session.
    fn session(&self, session: SessionId) -> Option<SessionHandle>;
    /// Changes from now on.
    fn subscribe(&self) -> broadcast::Receiver<SessionEvent>;
    /// Approvals that a relay is told of: the open ones, and those that became final lately.
    fn approvals(&self) -> impl Future<Output = Result<Vec<Approval>, WireError>> + Send;
    /// All locks.
    fn locks(&self) -> Vec<Lock>;
    /// Changes of approvals and locks from now on.
    fn guard_events(&self) -> broadcast::Receiver<GuardEvent>;
}

impl LinkHost for Guard {
    async fn execute(&self, op: Op) -> Reply {
        Guard::execute(self, op, &Who::Relay).await
    }

    async fn facts(&self) -> MachineFacts {
        self.supervisor().facts().await
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        self.supervisor().sessions()
    }

    fn info(&self, session: SessionId) -> Option<SessionInfo> {
        self.supervisor().info(session)
    }

    fn session(&self, session: SessionId) -> Option<SessionHandle> {
        self.supervisor().session(session)
    }

    fn subscribe(&self) -> broadcast::Receiver<SessionEvent> {
        self.supervisor().subscribe()
    }

    async fn approvals(&self) -> Result<Vec<Approval>, WireError> {
        self.told().await
    }

    fn locks(&self) -> Vec<Lock> {
        Guard::locks(self).list()
    }

    fn guard_events(&self) -> broadcast::Receiver<GuardEvent> {
        Guard::subscribe(self)
    }
}

/// Handle to all links. Cheap to clone.
pub struct Links<H = Guard> {
    inner: Arc<Inner<H>>,
}

impl<H> Clone for Links<H> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<H> {
    host: Arc<H>,
    paths: Paths,
    config: Config,
    tasks: TaskTracker,
    links: Mutex<Vec<Entry>>,
}

struct Entry {
    relay: PairedRelay,
    status: watch::Receiver<LinkStatus>,
    stop: Stop,
    hurry: Arc<Notify>,
}

#[derive(Clone)]
struct Stop {
    token: CancellationToken,
    reason: Arc<Mutex<GoodbyeReason>>,
}

impl<H: LinkHost> Links<H> {
    /// No links yet; [`Links::reload`] starts those of the paired relays.
    pub fn new(host: Arc<H>, paths: Paths, config: Config, tasks: TaskTracker) -> Self {
        Self { inner: Arc::new(Inner { host, paths, config, tasks, links: Mutex::new(Vec::new()) }) }
    }

    /// Reads the list of paired relays and starts, restarts and ends links accordingly.
    ///
    /// # Errors
    /// [`SecretError`] when the list cannot be read; the links stay as they are.
    pub fn reload(&self) -> Result<(), SecretError> {
        let wanted = Relays::load(&self.inner.paths)?.relays;
        let mut links = self.inner.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|entry| {
            let is_kept = wanted.contains(&entry.relay);
            if !is_kept {
                entry.stop(GoodbyeReason::Unpairing);
            }
            is_kept
        });
        for relay in wanted {
            if links.iter().any(|entry| entry.relay == relay) {
                continue;
            }
            links.push(self.start(relay));
        }
        Ok(())
    }

    /// State of every link.
    pub fn status(&self) -> Vec<LinkStatus> {
        let links = self.inner.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().map(|entry| entry.status.borrow().clone()).collect()
    }

    /// Lets every link that waits try again now.
    pub fn hurry(&self) {
        let links = self.inner.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().for_each(|entry| entry.hurry.notify_one());
    }

    /// Says goodbye on every link. The tasks end within a second or two.
    pub fn stop(&self, reason: GoodbyeReason) {
        let mut links = self.inner.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.drain(..).for_each(|entry| entry.stop(reason));
    }

    fn start(&self, relay: PairedRelay) -> Entry {
        let (sender, status) = watch::channel(LinkStatus::new(&relay, wall()));
        let stop =
            Stop { token: CancellationToken::new(), reason: Arc::new(Mutex::new(GoodbyeReason::Stopping)) };
        let hurry = Arc::new(Notify::new());
        let link = Link {
            inner: Arc::clone(&self.inner),
            relay: relay.clone(),
            status: sender,
            stop: stop.clone(),
            hurry: Arc::clone(&hurry),
            access: AccessSlot::default(),
        };
        self.inner.tasks.spawn(link.run());
        Entry { relay, status, stop, hurry }
    }
}

impl Entry {
    fn stop(&self, reason: GoodbyeReason) {
        *self.stop.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        self.stop.token.cancel();
    }
}

/// What is needed to open the link; read once, because a keyring may ask a person.
struct Access {
    url: RelayUrl,
    token: Secret<String>,
    identity: Identity,
    trust: Trust,
}

/// Remembers the secrets between tries.
#[derive(Clone, Default)]
struct AccessSlot(Arc<Mutex<Option<Arc<Access>>>>);

impl AccessSlot {
    fn get(&self) -> Option<Arc<Access>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, access: Option<Arc<Access>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = access;
    }
}

struct Opened {
    connection: Connection,
    facts: MachineFacts,
}

type Opening = Pin<Box<dyn Future<Output = Result<Opened, Loss>> + Send>>;

struct Link<H> {
    inner: Arc<Inner<H>>,
    relay: PairedRelay,
    status: watch::Sender<LinkStatus>,
    stop: Stop,
    hurry: Arc<Notify>,
    access: AccessSlot,
}

/// A connection that is open, and what it serves once the handshake is through.
struct Live<H> {
    connection: Connection,
    service: Service<H>,
    facts: MachineFacts,
    events: Option<broadcast::Receiver<SessionEvent>>,
    unsent: Vec<SessionId>,
}

enum Happened {
    Stopped,
    Tick,
    Deadline,
    Hurry,
    Opened(Box<Result<Opened, Loss>>),
    Incoming(Incoming),
}

impl<H: LinkHost> Link<H> {
    async fn run(mut self) {
        let start = Instant::now();
        let mut seed = [0; 8];
        // Without randomness the pauses are merely less spread.
        let _ = getrandom::fill(&mut seed);
        let first = LinkStatus::new(&self.relay, wall());
        let mut core = Core::new(Duration::ZERO, first, u64::from_le_bytes(seed));
        let mut opening: Option<Opening> = None;
        let mut live: Option<Live<H>> = None;
        let mut ticks = tokio::time::interval(WAKE_TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = (start.elapsed(), wall());
        // Set anew only when it has to be earlier; when it fires too early it is set again. Every message moves the deadline.
        let mut alarm = Box::pin(sleep_until(start + core.deadline()));
        let stop = self.stop.token.clone();
        let mut stopped = std::pin::pin!(stop.cancelled());
        loop {
            while let Some(effect) = core.poll_effect() {
                self.perform(effect, &core, &mut opening, &mut live).await;
            }
            let due = start + core.deadline();
            if due < alarm.deadline() {
                alarm.as_mut().reset(due);
            }
            let happened = tokio::select! {
                biased;
                () = &mut stopped => Happened::Stopped,
                incoming = next(&mut live) => Happened::Incoming(incoming),
                opened = opened(&mut opening) => Happened::Opened(Box::new(opened)),
                () = &mut alarm => {
                    if Instant::now() < due {
                        alarm.as_mut().reset(due);
                        continue;
                    }
                    Happened::Deadline
                }
                () = self.hurry.notified() => Happened::Hurry,
                _ = ticks.tick() => Happened::Tick,
            };
            let (now, time) = (start.elapsed(), wall());
            let before = std::mem::replace(&mut seen, (now, time));
            if was_asleep(before, seen) {
                tracing::info!(relay = %self.relay.url, "the machine was asleep; connecting anew");
                core.woke(now, time);
            }
            match happened {
                Happened::Stopped => return self.goodbye(live).await,
                Happened::Deadline => core.on_deadline(now, time),
                Happened::Hurry => core.hurry(now),
                Happened::Tick => {}
                Happened::Opened(opened) => match *opened {
                    Ok(opened) => {
                        live = Some(self.live(opened));
                        core.handle(now, time, Event::Opened);
                    }
                    Err(loss) => self.lose(&mut core, now, time, loss),
                },
                Happened::Incoming(Incoming::Lost(loss)) => {
                    live = None;
                    self.lose(&mut core, now, time, loss);
                }
                Happened::Incoming(incoming) => {
                    core.handle(now, time, Event::Heard);
                    match incoming {
                        Incoming::Message(message) => core.handle(now, time, Event::Message(message)),
                        Incoming::Frame(frame) => {
                            let result = live.as_mut().map_or(Ok(()), |live| live.service.frame(frame));
                            if let Err(problem) = result {
                                live = None;
                                let text = format!("The relay breaks the protocol: {problem}.");
                                self.lose(&mut core, now, time, Loss::Broken(text));
                            }
                        }
                        Incoming::Unknown { request } => {
                            if let Some(live) = &live {
                                live.service.refuse_unknown(request).await;
                            }
                        }
                        Incoming::Alive | Incoming::Lost(_) => {}
                    }
                }
            }
        }
    }

    async fn perform(
        &mut self,
        effect: Effect,
        core: &Core,
        opening: &mut Option<Opening>,
        live: &mut Option<Live<H>>,
    ) {
        match effect {
            Effect::Connect => {
                *live = None;
                *opening = Some(Box::pin(self.open()));
            }
            Effect::Disconnect => {
                *opening = None;
                if let Some(live) = live.take() {
                    // In the background: the next try must not wait for a dead peer.
                    self.inner.tasks.spawn(live.connection.close());
                }
            }
            Effect::SendHello { nonce } => {
                if let (Some(live), Some(access)) = (live.as_mut(), self.access.get()) {
                    live.events = Some(self.inner.host.subscribe());
                    let split = split_to_fit(self.inner.host.sessions());
                    live.unsent = split.unsent;
                    let signature = access.identity.sign_link(&nonce, &access.token);
                    let hello = AgentMessage::Hello {
                        signature,
                        facts: Box::new(live.facts.clone()),
                        sessions: split.sessions,
                        others: split.others,
                        has_unnamed: split.has_unnamed,
                    };
                    let _ = live.connection.out.send(Outgoing::Message(hello)).await;
                }
            }
            Effect::Serve { takes_history, takes_guard } => {
                tracing::info!(relay = %self.relay.url, "the relay is connected");
                if let Some(live) = live
                    && let Some(events) = live.events.take()
                {
                    live.service.start(live.facts.clone(), std::mem::take(&mut live.unsent), events);
                    if takes_guard {
                        live.service.tell_guard();
                    }
                    if takes_history && self.inner.config.history == HistoryPolicy::Full {
                        live.service.upload_history(self.inner.paths.sessions_dir());
                    }
                }
            }
            Effect::Deliver(message) => {
                if let Some(live) = live {
                    live.service.message(*message).await;
                }
            }
            Effect::Publish => {
                self.status.send_replace(core.status().clone());
            }
        }
    }

    fn lose(&mut self, core: &mut Core, now: Duration, time: UnixMs, loss: Loss) {
        if matches!(loss, Loss::Revoked(_) | Loss::NoSecret(_) | Loss::Closed { code: 4401, .. }) {
            // The secret may have been repaired by the next try.
            self.access.set(None);
        }
        let was_away = core.status().attempts > 1 && core.status().state.is_away();
        core.handle(now, time, Event::Lost(loss));
        let reason = core.status().last_error.as_deref().unwrap_or_default();
        // A relay that is away for a night is one line, not a thousand.
        if was_away {
            tracing::debug!(relay = %self.relay.url, reason, "the relay is still not connected");
        } else {
            tracing::warn!(relay = %self.relay.url, reason, "the relay is not connected; trying again");
        }
    }

    fn live(&self, opened: Opened) -> Live<H> {
        let Opened { connection, facts } = opened;
        let service = Service::new(
            Arc::clone(&self.inner.host),
            connection.out.clone(),
            connection.over.clone(),
            self.inner.tasks.clone(),
            self.inner.config.history,
        );
        Live { connection, service, facts, events: None, unsent: Vec::new() }
    }

    /// Reads secrets (once), gathers facts and opens the socket.
    fn open(&self) -> impl Future<Output = Result<Opened, Loss>> + Send + 'static {
        let (inner, relay, access) = (Arc::clone(&self.inner), self.relay.clone(), self.access.clone());
        async move {
            let known = access.get();
            let found = match known {
                Some(found) => found,
                None => {
                    let (paths, config) = (inner.paths.clone(), inner.config.clone());
                    let read =
                        tokio::task::spawn_blocking(move || read_access(&paths, &config, &relay)).await;
                    let found = read.unwrap_or_else(|error| Err(Loss::Broken(error.to_string())))?;
                    let found = Arc::new(found);
                    access.set(Some(Arc::clone(&found)));
                    found
                }
            };
            let facts = inner.host.facts().await;
            let connection = open(&found.url, &found.token, &found.trust, &inner.tasks).await?;
            Ok(Opened { connection, facts })
        }
    }

    /// The last words on an open link.
    async fn goodbye(self, live: Option<Live<H>>) {
        let Some(live) = live else { return };
        let reason = *self.stop.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let message = Outgoing::Message(AgentMessage::Goodbye { reason });
        // A full queue means a peer that does not read: it learns of the end by itself.
        let _ = live.connection.out.try_send(message);
        live.connection.close().await;
    }
}

fn read_access(paths: &Paths, config: &Config, relay: &PairedRelay) -> Result<Access, Loss> {
    let vault = Vault::open(paths, config.credential_store);
    let secret = |error: SecretError| Loss::NoSecret(error.to_string());
    let identity = vault.identity(true).map_err(secret)?;
    let token = vault.token(&relay.url).map_err(secret)?;
    let allow_plain = config.allow_plain_http || relay.allow_plain_http;
    let url = RelayUrl::parse(&relay.url, allow_plain).map_err(|error| Loss::Broken(error.to_string()))?;
    let extra: Vec<_> = config.extra_ca.iter().chain(&relay.extra_ca).cloned().collect();
    let trust = Trust::load(&extra).map_err(|error| Loss::Broken(error.to_string()))?;
    Ok(Access { url, token, identity, trust })
}

/// Opens the WebSocket of a relay as the link does and closes it before the handshake: finds out whether
/// the token is accepted, without touching a link that is up.
///
/// # Errors
/// [`Loss`], with the sentence for a person.
///
/// # Cancel safety
/// Cancel safe.
pub async fn probe(paths: &Paths, config: &Config, relay: &PairedRelay) -> Result<(), Loss> {
    let (paths, config, relay) = (paths.clone(), config.clone(), relay.clone());
    let read = tokio::task::spawn_blocking(move || read_access(&paths, &config, &relay)).await;
    let access = read.unwrap_or_else(|error| Err(Loss::Broken(error.to_string())))?;
    let tasks = TaskTracker::new();
    let opening = open(&access.url, &access.token, &access.trust, &tasks);
    match tokio::time::timeout(super::core::CONNECT_TIMEOUT, opening).await {
        Ok(opened) => opened.map(drop),
        Err(_) => Err(Loss::Broken("The relay did not answer in time.".to_owned())),
    }
}

/// The next thing from an open connection; never without one.
async fn next<H>(live: &mut Option<Live<H>>) -> Incoming {
    match live {
        Some(live) => {
            live.connection.incoming.recv().await.unwrap_or_else(|| {
                Incoming::Lost(Loss::Broken("The connection to the relay ended.".to_owned()))
            })
        }
        None => std::future::pending().await,
    }
}

/// The end of opening; never when nothing is being opened.
async fn opened(opening: &mut Option<Opening>) -> Result<Opened, Loss> {
    match opening {
        Some(future) => {
            let result = future.await;
            *opening = None;
            result
        }
        None => std::future::pending().await,
    }
}

/// True if the wall clock went on without us: the monotonic clock stands still while a machine sleeps. A clock that
/// is set forward looks the same and costs one needless reconnect.
fn was_asleep(before: (Duration, UnixMs), now: (Duration, UnixMs)) -> bool {
    let awake = now.0.saturating_sub(before.0);
    Duration::from_millis(now.1.since(before.1)).saturating_sub(awake) > MIN_SLEEP
}

fn wall() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

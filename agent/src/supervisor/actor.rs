//! The task that owns the [`Core`]: feeds it with events, saves, tells, and does what it wants done.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;
use claudenest_shared::machine::ResourceUse;
use claudenest_shared::session::{SessionInfo, SessionMode, SessionSpec};
use claudenest_shared::time::UnixMs;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::core::{Core, Effect, Plan};
use super::record::{Now, Record, Wish};
use super::settings::Settings;
use super::view::{View, digest};
use super::wishes::not_found;
use super::{Command, SessionEvent, Steer, host};
use crate::claude::{Claude, command, hint, stream_json};
use crate::facts;
use crate::resources::Sampler;
use crate::session::{Notice, NoticeEvent, SessionHandle};
use crate::store::Store;

/// While sessions live: how often their output counters are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Every how many ticks Claude Code's notes are read, resources sampled, idle sessions looked for.
const HINT_TICKS: u64 = 2;
const SAMPLE_TICKS: u64 = 5;
/// A title that spins or a size that is dragged is told at most this often.
const CALM: Duration = Duration::from_millis(250);
/// Notices that wait for the owner; a session's task waits when it is full, its output does not.
const NOTICES: usize = 256;
/// Results of the owner's own tasks.
const RESULTS: usize = 64;

/// What the owner's helper tasks bring back.
enum Finding {
    Launched { session: SessionId, epoch: u32, result: Result<(u32, SessionHandle), String> },
    Sampled(HashMap<SessionId, ResourceUse>, Sampler),
    Hints(Vec<(SessionId, hint::Hint)>),
}

pub(super) struct Actor {
    core: Core,
    settings: Arc<Settings>,
    store: Store,
    claude: Arc<Claude>,
    view: Arc<View>,
    events: broadcast::Sender<SessionEvent>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    boot_id: String,
    notices: (mpsc::Sender<Notice>, mpsc::Receiver<Notice>),
    findings: (mpsc::Sender<Finding>, mpsc::Receiver<Finding>),
    /// Away while a sample is being taken.
    sampler: Option<Sampler>,
    is_reading_hints: bool,
    ticks: u64,
    /// What was last told of each session's run.
    told_bytes: HashMap<SessionId, u64>,
    /// Sessions with changes that are told at this moment.
    restless: BTreeSet<SessionId>,
    calm_at: Option<Instant>,
}

impl Actor {
    #[expect(clippy::too_many_arguments, reason = "called once, from the handle beside it")]
    pub(super) fn new(
        settings: Arc<Settings>,
        store: Store,
        claude: Arc<Claude>,
        view: Arc<View>,
        events: broadcast::Sender<SessionEvent>,
        tasks: TaskTracker,
        cancel: CancellationToken,
        records: Vec<Record>,
    ) -> Self {
        for record in &records {
            view.put(record.info.clone(), record.capability_digest.clone());
        }
        Self {
            core: Core::new(settings.limits.clone(), records),
            settings,
            store,
            claude,
            view,
            events,
            tasks,
            cancel,
            boot_id: facts::boot_id(),
            notices: mpsc::channel(NOTICES),
            findings: mpsc::channel(RESULTS),
            sampler: Some(Sampler::default()),
            is_reading_hints: false,
            ticks: 0,
            told_bytes: HashMap::new(),
            restless: BTreeSet::new(),
            calm_at: None,
        }
    }

    /// Finds the holders of all live sessions.
    pub(super) async fn adopt(&mut self) {
        let live: Vec<Record> =
            self.core.records().filter(|record| record.info.state.is_live()).cloned().collect();
        let mut searches = tokio::task::JoinSet::new();
        for record in live {
            let run = self.settings.run(record.info.id, record.info.epoch);
            let is_starting = record.info.pid.is_none();
            let (notices, tasks, cancel) =
                (self.notices.0.clone(), self.tasks.clone(), self.cancel.child_token());
            searches.spawn(async move {
                let found = host::find(run, is_starting, notices, &tasks, cancel).await;
                (record, found)
            });
        }
        while let Some(found) = searches.join_next().await {
            let Ok((record, found)) = found else { continue };
            let id = record.info.id;
            let now = now();
            match found {
                host::Found::Live(handle) => {
                    let pid = handle.info_part().child_pid.or(record.info.pid).unwrap_or_default();
                    let epoch = handle.epoch();
                    if let (SessionMode::Headless, Some(prompt)) = (record.spec.mode, &record.process_prompt)
                    {
                        host::first_input(&handle, stream_json::user_message(prompt));
                    }
                    self.view.set_handle(id, handle);
                    self.core.adopted(now, id, epoch, pid);
                }
                host::Found::Ended(exit) => {
                    self.core.adopted(now, id, record.info.epoch, record.info.pid.unwrap_or_default());
                    self.core.exited(now, id, record.info.epoch, exit);
                }
                host::Found::Lost => {
                    let is_rebooted = record.boot_id.as_ref().is_some_and(|boot| *boot != self.boot_id);
                    self.core.lost(now, id, is_rebooted);
                }
                host::Found::Unreachable => {}
            }
            self.carry_out().await;
        }
        self.core.fill(now());
        self.carry_out().await;
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let cancel = self.cancel.clone();
        let mut next_tick = Instant::now() + TICK;
        loop {
            let is_live = self.core.live_count() > 0;
            let deadline = [self.core.deadline(), self.calm_at, Some(next_tick).filter(|_| is_live)]
                .into_iter()
                .flatten()
                .min();
            let wake = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(notice) = self.notices.1.recv() => self.on_notice(notice),
                Some(finding) = self.findings.1.recv() => self.on_finding(finding),
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command).await,
                    None => break,
                },
                () = wake => {
                    let now = now();
                    self.core.on_deadline(now);
                    if self.calm_at.is_some_and(|at| at <= now.instant) {
                        self.calm_at = None;
                        for session in std::mem::take(&mut self.restless) {
                            self.tell(session);
                        }
                    }
                    if is_live && now.instant >= next_tick {
                        next_tick = now.instant + TICK;
                        self.on_tick(now);
                    }
                }
            }
            self.carry_out().await;
            if !is_live {
                next_tick = next_tick.max(Instant::now());
            }
        }
    }

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::Create { spec, answer } => {
                let result = self.create(*spec).await;
                self.carry_out().await;
                let _ = answer.send(result);
            }
            Command::Steer { session, steer, answer } => {
                let result = self.steer(session, steer);
                let before = self.core.record(session).map(|record| record.info.clone());
                self.carry_out().await;
                let info = self.core.record(session).map(|record| record.info.clone()).or(before);
                let _ = answer.send(result.and_then(|last| info.or(last).ok_or_else(not_found)));
            }
            Command::Hook { session, fact, answer } => {
                self.core.hook(now(), session, &fact);
                self.carry_out().await;
                let _ = answer.send(());
            }
        }
    }

    async fn create(&mut self, spec: SessionSpec) -> Result<SessionInfo, WireError> {
        let now = now();
        let name = self.core.free_name(spec.name.as_deref(), &spec.cwd)?;
        let id = SessionId(Uuid::now_v7());
        let record = Record::new(id, name, spec, now.wall);
        // On disk before anybody is told, and before anything runs.
        self.store.save_session(&record).await.map_err(|error| {
            tracing::error!(%error, "a new session cannot be stored");
            WireError::new(
                ErrorCode::Internal,
                "The session cannot be stored. Is the disk full? The agent's log says more.",
            )
        })?;
        if let Err(error) = self.core.create(now, record) {
            let _ = self.store.remove_session(id).await;
            return Err(error);
        }
        self.carry_out().await;
        self.core.record(id).map(|record| record.info.clone()).ok_or_else(not_found)
    }

    /// Answers the last known state of a session that is forgotten by it.
    fn steer(&mut self, session: SessionId, steer: Steer) -> Result<Option<SessionInfo>, WireError> {
        let now = now();
        let last = self.core.record(session).map(|record| record.info.clone());
        match steer {
            Steer::Stop(grace) => self.core.stop(now, session, grace),
            Steer::Pause => self.core.pause(now, session),
            Steer::Resume => self.core.resume(now, session),
            Steer::Restart => self.core.restart(now, session),
            Steer::Hibernate => self.core.hibernate(now, session),
            Steer::Rename(name) => self.core.rename(session, &name),
            Steer::Forget => self.core.forget(session),
            Steer::WakeWith(prompt) => self.core.wake_with(now, session, prompt),
        }?;
        Ok(last)
    }

    fn on_notice(&mut self, notice: Notice) {
        let Notice { session, epoch, event } = notice;
        let now = now();
        match event {
            NoticeEvent::FirstOutput => self.core.first_output(now, session, epoch),
            NoticeEvent::Exited { exit, .. } => self.on_exit(now, session, epoch, exit),
            NoticeEvent::Changed => {
                self.restless.insert(session);
                self.calm_at.get_or_insert(now.after(CALM));
            }
            NoticeEvent::HolderLost => {
                let is_current = self.core.record(session).is_some_and(|record| record.info.epoch == epoch);
                if !is_current {
                    return;
                }
                match crate::holder::read_exit(&self.settings.run(session, epoch).dir) {
                    Some(record) if record.epoch == epoch => self.on_exit(now, session, epoch, record.exit),
                    _ => {
                        // The terminal is gone with its holder; nothing of the session may go on unseen.
                        if let Some(pid) = self.core.record(session).and_then(|record| record.info.pid) {
                            host::sweep(pid, &self.tasks);
                        }
                        self.core.lost(now, session, false);
                        self.view.drop_handle(session);
                    }
                }
            }
        }
    }

    fn on_exit(&mut self, now: Now, session: SessionId, epoch: u32, exit: claudenest_shared::session::Exit) {
        let record = self.core.record(session);
        let pid = record
            .filter(|record| matches!(record.wish, Wish::Stop | Wish::Limit))
            .and_then(|record| record.info.pid);
        if let Some(pid) = pid {
            host::sweep(pid, &self.tasks);
        }
        let part = self
            .view
            .open_handle(session)
            .filter(|handle| handle.epoch() == epoch)
            .map(|handle| handle.info_part());
        if let Some(part) = part {
            self.core.last_words(session, part.output_bytes, part.title, part.size);
        }
        self.core.exited(now, session, epoch, exit);
    }

    fn on_finding(&mut self, finding: Finding) {
        let now = now();
        match finding {
            Finding::Launched { session, epoch, result: Ok((pid, handle)) } => {
                self.view.set_handle(session, handle);
                self.core.started(now, session, epoch, pid);
            }
            Finding::Launched { session, epoch, result: Err(sentence) } => {
                self.core.start_failed(now, session, epoch, &sentence);
            }
            Finding::Sampled(samples, sampler) => {
                self.sampler = Some(sampler);
                for (session, sample) in samples {
                    self.core.sampled(now, session, sample);
                }
            }
            Finding::Hints(hints) => {
                self.is_reading_hints = false;
                for (session, hint) in hints {
                    self.core.hint(now, session, &hint);
                }
            }
        }
    }

    fn on_tick(&mut self, now: Now) {
        self.ticks += 1;
        let live: Vec<(SessionId, u32)> = self
            .core
            .records()
            .filter(|record| record.info.state.is_live())
            .filter_map(|record| Some((record.info.id, record.info.pid?)))
            .collect();
        for (session, _) in &live {
            let Some(part) = self.view.open_handle(*session).map(|handle| handle.info_part()) else {
                continue;
            };
            if self.told_bytes.insert(*session, part.output_bytes) != Some(part.output_bytes) {
                self.tell(*session);
            }
            if self.ticks.is_multiple_of(SAMPLE_TICKS) {
                self.core.hibernate_if_idle(now, *session, part.viewers);
            }
        }
        if self.ticks.is_multiple_of(HINT_TICKS) {
            self.read_hints(&live);
        }
        if self.ticks.is_multiple_of(SAMPLE_TICKS) {
            self.sample(live);
        }
    }

    fn read_hints(&mut self, live: &[(SessionId, u32)]) {
        if self.is_reading_hints {
            return;
        }
        let wanted: Vec<(SessionId, u32, PathBuf)> = live
            .iter()
            .filter(|(session, _)| self.core.wants_hint(*session))
            .filter_map(|(session, pid)| {
                let record = self.core.record(*session)?;
                let around = &self.settings.surroundings;
                let env = command::clean_environment(around, &record.spec.env);
                Some((*session, *pid, hint::config_dir(&env, &around.home)))
            })
            .collect();
        if wanted.is_empty() {
            return;
        }
        self.is_reading_hints = true;
        let findings = self.findings.0.clone();
        self.tasks.spawn(async move {
            let read = move || {
                wanted
                    .into_iter()
                    .filter_map(|(session, pid, dir)| Some((session, hint::read(&dir, pid)?)))
                    .collect()
            };
            let hints = tokio::task::spawn_blocking(read).await.unwrap_or_default();
            let _ = findings.send(Finding::Hints(hints)).await;
        });
    }

    fn sample(&mut self, live: Vec<(SessionId, u32)>) {
        let Some(mut sampler) = self.sampler.take() else { return };
        let findings = self.findings.0.clone();
        self.tasks.spawn(async move {
            let take = move || {
                let pids: Vec<u32> = live.iter().map(|(_, pid)| *pid).collect();
                let now = now();
                let samples = sampler.sample(&pids, now.instant, now.wall);
                let by_session = live
                    .into_iter()
                    .filter_map(|(session, pid)| Some((session, *samples.get(&pid)?)))
                    .collect();
                Finding::Sampled(by_session, sampler)
            };
            let finding = tokio::task::spawn_blocking(take).await;
            let _ = findings
                .send(finding.unwrap_or_else(|_| Finding::Sampled(HashMap::new(), Sampler::default())))
                .await;
        });
    }

    /// Does everything that the core wants done, in its order.
    async fn carry_out(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Save(session) => {
                    self.save(session).await;
                }
                Effect::Changed(session) => {
                    self.show(session);
                    self.tell(session);
                }
                Effect::Launch(session) => self.launch(session).await,
                Effect::Signal(session, signal) => {
                    let pid = self.core.record(session).and_then(|record| record.info.pid);
                    if let Some(handle) = self.view.open_handle(session) {
                        host::signal(&handle, pid, signal, &self.tasks);
                    }
                }
                Effect::ExitStored(session) => {
                    if let Some(handle) = self.view.open_handle(session) {
                        handle.acknowledge_exit();
                    }
                    self.view.ended(session);
                    self.told_bytes.remove(&session);
                }
                Effect::Remove(session) => self.remove(session).await,
            }
        }
    }

    /// True if it is on disk. If not, the session goes on and the next change tries again.
    async fn save(&self, session: SessionId) -> bool {
        let Some(record) = self.core.record(session) else { return true };
        match self.store.save_session(record).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(session.id = %session, %error, "a session's state could not be stored");
                false
            }
        }
    }

    async fn launch(&mut self, session: SessionId) {
        let mut secret = [0u8; 24];
        let fresh = Uuid::new_v4().to_string();
        let Some((conversation, prompt)) = self.core.conversation(session, fresh) else { return };
        let Some(epoch) = self.core.record(session).map(|record| record.info.epoch) else { return };
        if getrandom::fill(&mut secret).is_err() {
            self.core.start_failed(now(), session, epoch, "The system gives no random numbers.");
            return;
        }
        let capability: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let plan = Plan {
            capability_digest: digest(&capability),
            conversation: conversation.clone(),
            prompt: prompt.clone(),
            boot_id: self.boot_id.clone(),
        };
        self.core.prepared(session, &plan);
        if !self.save(session).await {
            self.core.start_failed(now(), session, epoch, "Its record cannot be stored. Is the disk full?");
            return;
        }
        self.show(session);
        let Some(record) = self.core.record(session).cloned() else { return };
        let start = host::Start {
            record,
            conversation,
            prompt,
            capability,
            notices: self.notices.0.clone(),
            tasks: self.tasks.clone(),
            cancel: self.cancel.child_token(),
        };
        let (settings, claude) = (Arc::clone(&self.settings), Arc::clone(&self.claude));
        let findings = self.findings.0.clone();
        self.tasks.spawn(async move {
            let result = host::start(settings, claude, start).await;
            let _ = findings.send(Finding::Launched { session, epoch, result }).await;
        });
    }

    async fn remove(&mut self, session: SessionId) {
        self.view.remove(session);
        self.told_bytes.remove(&session);
        if let Err(error) = self.store.remove_session(session).await {
            tracing::error!(session.id = %session, %error, "a forgotten session could not be removed from the database");
        }
        let settings = Arc::clone(&self.settings);
        let _ = tokio::task::spawn_blocking(move || host::remove_files(&settings, session)).await;
        let _ = self.events.send(SessionEvent::Removed(session));
    }

    fn show(&self, session: SessionId) {
        if let Some(record) = self.core.record(session) {
            self.view.put(record.info.clone(), record.capability_digest.clone());
        }
    }

    fn tell(&self, session: SessionId) {
        if let Some(info) = self.view.info(session) {
            let _ = self.events.send(SessionEvent::Changed(Box::new(info)));
        }
    }
}

/// Both clocks.
pub fn now() -> Now {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), wall: UnixMs(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)) }
}

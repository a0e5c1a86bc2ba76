//! The life of sessions as a pure state machine: what may happen, what follows, what has to be done.
//!
//! Invariants: a state follows another only as [`SessionState::may_become`] allows; never more live
//! sessions than `max_sessions`; a live session has a start under way or a process; an exit counts once;
//! names are unique; every change is saved before it is told.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;
use claudenest_shared::machine::ResourceUse;
use claudenest_shared::reason::StateWord;
use claudenest_shared::session::{
    CrashPolicy, Exit, MAX_NAME_CHARS, SessionMode, SessionState, StateSource, TermSize, name_from,
    valid_name,
};

use super::record::{Now, Record, Volatile, Wish};
use super::words::name_taken;
pub use super::words::{Effect, Limits, Plan, Signal};
use crate::claude::Conversation;
use crate::reason::Reason;

/// Starts that are tried before a session has failed (SPEC S4).
pub const START_ATTEMPTS: u32 = 3;
/// Pause before the second attempt; doubles with each further one (SPEC S4).
pub const FIRST_BACKOFF: Duration = Duration::from_secs(2);
/// Automatic restarts after crashes.
pub const CRASH_RESTARTS: u32 = 3;
/// Pauses before them.
const CRASH_PAUSES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(30)];
/// Without a first hook after this time a first-run dialog is assumed. The prompt appears within 0.7 to 3 s (measured).
pub const FIRST_SIGN: Duration = Duration::from_secs(6);
/// Time to leave for a process that restarts or hibernates.
pub const SWITCH_GRACE: Duration = Duration::from_secs(5);
/// A process group that survived SIGKILL (stuck in the kernel) is killed again this often.
const KILL_AGAIN: Duration = Duration::from_secs(5);

pub(super) struct Session {
    pub record: Record,
    pub volatile: Volatile,
}

/// All sessions of the machine.
pub struct Core {
    pub(super) limits: Limits,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    effects: VecDeque<Effect>,
}

impl Core {
    /// Takes up the records of the store. Call [`Core::adopted`] or [`Core::lost`] for each live one, then [`Core::fill`].
    pub fn new(limits: Limits, records: Vec<Record>) -> Self {
        let sessions = records
            .into_iter()
            .map(|record| (record.info.id, Session { record, volatile: Volatile::default() }))
            .collect();
        Self { limits, sessions, effects: VecDeque::new() }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Core::on_deadline`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let has_slot = self.live_count() < self.limits.max_sessions;
        self.sessions
            .values()
            .flat_map(|session| {
                let v = &session.volatile;
                let start =
                    v.not_before.filter(|_| has_slot && session.record.info.state == SessionState::Created);
                [start, v.kill_at, v.first_sign_by]
            })
            .flatten()
            .min()
    }

    /// One record.
    pub fn record(&self, id: SessionId) -> Option<&Record> {
        self.sessions.get(&id).map(|session| &session.record)
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.sessions.values().map(|session| &session.record)
    }

    /// Number of sessions with a process or a start under way.
    pub fn live_count(&self) -> u32 {
        let count = self.records().filter(|record| record.info.state.is_live()).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// A name that no other session has, from the wish or the directory.
    ///
    /// # Errors
    /// `invalid` or `name_taken` when a wished name cannot be had.
    pub fn free_name(&self, wished: Option<&str>, cwd: &str) -> Result<String, WireError> {
        if let Some(name) = wished {
            valid_name(name).map_err(|sentence| WireError::new(ErrorCode::Invalid, sentence))?;
            return if self.is_taken(name) { Err(name_taken(name)) } else { Ok(name.to_owned()) };
        }
        let last = cwd.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let base = name_from(last);
        let numbered = (2u32..).map(|n| {
            // `name_from` leaves four characters; from "-1000" on, the base gives way.
            let suffix = format!("-{n}");
            let room = MAX_NAME_CHARS - suffix.len();
            base.chars().take(room).collect::<String>() + &suffix
        });
        let name = std::iter::once(base.clone()).chain(numbered).find(|name| !self.is_taken(name));
        Ok(name.expect("an endless row of numbers has a free one"))
    }

    fn is_taken(&self, name: &str) -> bool {
        self.records().any(|record| record.info.name == name)
    }

    /// Adds a session and starts or queues it.
    ///
    /// # Errors
    /// `too_many_sessions` when no slot is free and it may not or cannot wait for one.
    pub fn create(&mut self, now: Now, record: Record) -> Result<(), WireError> {
        let queued = self.records().filter(|record| record.info.state == SessionState::Created).count();
        let live = self.live_count();
        if live >= self.limits.max_sessions {
            let max = self.limits.max_sessions;
            if record.spec.refuse_when_full {
                return Err(WireError::new(
                    ErrorCode::TooManySessions,
                    format!(
                        "{live} of {max} sessions run on this machine. Stop one, or raise `max_sessions` in its configuration."
                    ),
                ));
            }
            if queued >= self.limits.max_queued as usize {
                return Err(WireError::new(
                    ErrorCode::TooManySessions,
                    format!(
                        "{live} of {max} sessions run on this machine and {queued} wait for a free place. Stop some of them first."
                    ),
                ));
            }
        }
        let id = record.info.id;
        self.sessions.insert(id, Session { record, volatile: Volatile::default() });
        self.fill(now);
        if self.state(id) == Some(SessionState::Created) {
            let reason = Some(self.waits_for_place());
            self.set_state(now, id, SessionState::Created, reason, StateSource::Process);
        }
        Ok(())
    }

    /// Starts what waits, as far as there are slots.
    pub fn fill(&mut self, now: Now) {
        while self.live_count() < self.limits.max_sessions {
            let next = self
                .sessions
                .values()
                .filter(|session| session.record.info.state == SessionState::Created)
                .filter(|session| session.volatile.not_before.is_none_or(|at| at <= now.instant))
                .min_by_key(|session| (session.record.queued_at, session.record.info.id))
                .map(|session| session.record.info.id);
            let Some(id) = next else { return };
            let session = self.sessions.get_mut(&id).expect("found just now");
            session.volatile = Volatile { is_launching: true, ..Volatile::default() };
            session.record.wish = Wish::None;
            let info = &mut session.record.info;
            info.attempts += 1;
            info.epoch += 1;
            info.output_bytes = 0;
            info.exit = None;
            info.ended_at = None;
            info.pid = None;
            self.set_state(now, id, SessionState::Starting, None, StateSource::Process);
            self.effects.push_back(Effect::Launch(id));
        }
    }

    /// Says with what a process is about to be started: first half of [`Effect::Launch`], to be saved before the second.
    /// The actor saves by itself, because nothing may start when that fails.
    pub fn prepared(&mut self, id: SessionId, plan: &Plan) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let record = &mut session.record;
        record.capability_digest = Some(plan.capability_digest.clone());
        record.boot_id = Some(plan.boot_id.clone());
        record.pending_prompt = None;
        record.process_prompt.clone_from(&plan.prompt);
        session.volatile.has_prompt = plan.prompt.is_some();
        if let Conversation::New(conversation) = &plan.conversation {
            record.info.claude_session_id =
                Some(conversation.clone()).filter(|_| record.spec.mode != SessionMode::Shell);
            record.has_conversation = false;
            record.conversation_cwd = None;
        }
        self.update_resumable(id);
    }

    /// The conversation and prompt of the next process; `fresh` is the id of a new conversation, if it needs one.
    pub fn conversation(&self, id: SessionId, fresh: String) -> Option<(Conversation, Option<String>)> {
        let record = self.record(id)?;
        Some(match record.resumable() {
            Some(conversation) => {
                (Conversation::Resume(conversation.to_owned()), record.pending_prompt.clone())
            }
            None => (
                Conversation::New(fresh),
                record.pending_prompt.clone().or_else(|| record.spec.prompt.clone()),
            ),
        })
    }

    /// The process of a start runs.
    pub fn started(&mut self, now: Now, id: SessionId, epoch: u32, pid: u32) {
        let Some(session) = self.launching(id, epoch) else { return };
        session.volatile.is_launching = false;
        session.record.info.pid = Some(pid);
        session.record.info.started_at = Some(now.wall);
        let early = std::mem::take(&mut session.volatile.early_hooks);
        let has_output = session.volatile.has_output;
        self.running(now, id);
        if has_output {
            self.first_output(now, id, epoch);
        }
        for fact in early {
            self.hook(now, id, &fact);
        }
        if self.sessions[&id].record.wish != Wish::None {
            self.begin_end(now, id, Duration::ZERO);
        }
    }

    /// First state of a new or adopted process.
    fn running(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let has_prompt = session.volatile.has_prompt;
        match session.record.spec.mode {
            SessionMode::Interactive => {
                session.volatile.first_sign_by = Some(now.after(FIRST_SIGN));
                self.set_state(now, id, SessionState::Starting, None, StateSource::Process);
            }
            SessionMode::Headless if !has_prompt => {
                self.set_state(
                    now,
                    id,
                    SessionState::WaitingInput,
                    Some(Reason::of(StateWord::WaitsForPrompt)),
                    StateSource::Process,
                );
            }
            _ => self.set_state(now, id, SessionState::Running, None, StateSource::Process),
        }
    }

    /// The process has written its first byte.
    pub fn first_output(&mut self, now: Now, id: SessionId, epoch: u32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.record.info.state != SessionState::Starting || session.record.info.epoch != epoch {
            return;
        }
        if session.volatile.is_launching {
            session.volatile.has_output = true;
        } else {
            self.set_state(now, id, SessionState::Running, None, StateSource::Process);
        }
    }

    /// The process of a start could not be started.
    pub fn start_failed(&mut self, now: Now, id: SessionId, epoch: u32, sentence: &str) {
        let Some(session) = self.launching(id, epoch) else { return };
        session.volatile.is_launching = false;
        let attempts = session.record.info.attempts;
        if std::mem::take(&mut session.record.wish) == Wish::Stop {
            self.end_record(now, id);
            self.set_state(
                now,
                id,
                SessionState::Terminated,
                Some(Reason::of(StateWord::EndedBeforeStart)),
                StateSource::Process,
            );
        } else if attempts >= START_ATTEMPTS {
            self.end_record(now, id);
            let reason =
                Reason::with(StateWord::StartGivenUp, &[("attempts", &attempts), ("why", &sentence)]);
            self.set_state(now, id, SessionState::Failed, Some(reason), StateSource::Process);
        } else {
            let pause = FIRST_BACKOFF * 2u32.saturating_pow(attempts.saturating_sub(1));
            session.volatile.not_before = Some(now.after(pause));
            let reason = Reason::start_failed(attempts, START_ATTEMPTS, sentence, pause);
            self.set_state(now, id, SessionState::Created, Some(reason), StateSource::Process);
        }
        self.fill(now);
    }

    /// A holder of this session was found by a new daemon, with its process alive or its exit still to be told.
    pub fn adopted(&mut self, now: Now, id: SessionId, epoch: u32, pid: u32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let info = &mut session.record.info;
        if !info.state.is_live() {
            return;
        }
        let is_new = info.state == SessionState::Starting;
        info.epoch = epoch;
        info.pid = Some(pid);
        info.started_at = info.started_at.or(Some(now.wall));
        if is_new {
            session.volatile.has_prompt = session.record.process_prompt.is_some();
            self.running(now, id);
        } else {
            self.save_and_tell(id);
        }
        // An end that was asked for before the daemon died is carried through.
        if self.sessions[&id].record.wish != Wish::None {
            self.begin_end(now, id, SWITCH_GRACE);
        }
    }

    /// No holder of this live session exists.
    pub fn lost(&mut self, now: Now, id: SessionId, is_rebooted: bool) {
        let Some(session) = self.sessions.get(&id) else { return };
        let record = &session.record;
        if !record.info.state.is_live() || session.volatile.is_launching {
            return;
        }
        if record.info.state == SessionState::Starting && record.info.pid.is_none() {
            // The daemon died between the record and the process: that attempt has failed.
            let epoch = record.info.epoch;
            if let Some(session) = self.sessions.get_mut(&id) {
                session.volatile.is_launching = true;
            }
            return self.start_failed(now, id, epoch, "The agent was interrupted.");
        }
        let word = if is_rebooted { StateWord::MachineRestarted } else { StateWord::KeeperKilled };
        self.ended(now, id, Exit::Lost {}, Reason::of(word), is_rebooted);
    }

    /// What the run itself knew at its end.
    pub fn last_words(&mut self, id: SessionId, output_bytes: u64, title: Option<String>, size: TermSize) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let info = &mut session.record.info;
            info.output_bytes = output_bytes;
            info.title = title.or(info.title.take());
            info.size = size;
        }
    }

    /// The process has ended. Counts once per process.
    pub fn exited(&mut self, now: Now, id: SessionId, epoch: u32, exit: Exit) {
        let Some(session) = self.sessions.get(&id) else { return };
        let info = &session.record.info;
        if !info.state.is_live() || info.epoch != epoch {
            if info.epoch == epoch {
                self.effects.push_back(Effect::ExitStored(id));
            }
            return;
        }
        let is_outside = matches!(exit, Exit::Code { code: 143 | 129 } | Exit::Signal { signal: 15 | 1 });
        self.ended(now, id, exit, Reason::exit(exit), is_outside);
    }

    fn ended(&mut self, now: Now, id: SessionId, exit: Exit, reason: Reason, may_hibernate: bool) {
        self.end_record(now, id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.record.info.exit = Some(exit);
        let wish = std::mem::take(&mut session.record.wish);
        let record = &session.record;
        let can_resume = record.resumable().is_some();
        let is_clean = exit == Exit::Code { code: 0 };
        let restarts = record.crash_restarts;
        let is_crash_resumed = record.spec.on_crash == CrashPolicy::Resume
            && record.spec.mode != SessionMode::Shell
            && restarts < CRASH_RESTARTS;
        let process = StateSource::Process;
        // From `Starting` only a final state or `Created` may follow.
        let is_starting = record.info.state == SessionState::Starting;
        match wish {
            Wish::Stop => self.set_state(
                now,
                id,
                SessionState::Terminated,
                Some(Reason::of(StateWord::EndedOnRequest)),
                process,
            ),
            Wish::Limit => {
                self.set_state(
                    now,
                    id,
                    SessionState::Terminated,
                    Some(Reason::of(StateWord::MemoryEnded)),
                    process,
                );
            }
            Wish::Hibernate if !is_starting => {
                self.set_state(
                    now,
                    id,
                    SessionState::Hibernated,
                    Some(Reason::of(StateWord::Hibernated)),
                    process,
                );
            }
            Wish::Restart => {
                self.set_state(
                    now,
                    id,
                    SessionState::Terminated,
                    Some(Reason::of(StateWord::Restarts)),
                    process,
                );
                self.enqueue(now, id, None, None);
            }
            _ if is_clean => self.set_state(now, id, SessionState::Completed, None, process),
            _ if is_crash_resumed => {
                let pause = CRASH_PAUSES[(restarts as usize).min(CRASH_PAUSES.len() - 1)];
                self.set_state(now, id, SessionState::Failed, Some(reason.clone()), process);
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.record.crash_restarts += 1;
                }
                let next = reason.and(Reason::starts_again(pause, restarts + 1, CRASH_RESTARTS));
                self.enqueue(now, id, Some(now.after(pause)), Some(next));
            }
            _ if may_hibernate && can_resume && !is_starting => {
                let reason = reason.and(Reason::of(StateWord::CanBeResumed));
                self.set_state(now, id, SessionState::Hibernated, Some(reason), process);
            }
            _ => self.set_state(now, id, SessionState::Failed, Some(reason), process),
        }
        self.effects.push_back(Effect::ExitStored(id));
        self.fill(now);
    }

    fn end_record(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.volatile = Volatile::default();
        session.record.capability_digest = None;
        let info = &mut session.record.info;
        info.pid = None;
        info.ended_at = Some(now.wall);
        info.resources = None;
        info.viewers = 0;
        info.size_owner = None;
    }

    pub(super) fn enqueue(
        &mut self,
        now: Now,
        id: SessionId,
        not_before: Option<Instant>,
        reason: Option<Reason>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.record.info.attempts = 0;
        session.record.queued_at = now.wall;
        session.volatile = Volatile { not_before, ..Volatile::default() };
        let reason = reason.or_else(|| Some(self.waits_for_place()));
        self.set_state(now, id, SessionState::Created, reason, StateSource::Process);
        self.fill(now);
    }

    fn waits_for_place(&self) -> Reason {
        Reason::with(StateWord::WaitsForPlace, &[("places", &self.limits.max_sessions)])
    }

    /// Sends the signal that fits the mode, and sees to a kill after `grace`.
    pub(super) fn begin_end(&mut self, now: Now, id: SessionId, grace: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.record.info.pid.is_none() {
            return; // [`Core::started`] goes on with the wish.
        }
        if grace.is_zero() {
            session.volatile.kill_at = Some(now.after(KILL_AGAIN));
            self.effects.push_back(Effect::Signal(id, Signal::Kill));
            return;
        }
        let at = now.after(grace);
        session.volatile.kill_at = Some(session.volatile.kill_at.map_or(at, |earlier| earlier.min(at)));
        let is_shell = session.record.spec.mode == SessionMode::Shell;
        self.effects.push_back(Effect::Signal(id, if is_shell { Signal::Hangup } else { Signal::Terminate }));
        // A stopped process would not see it.
        self.effects.push_back(Effect::Signal(id, Signal::Continue));
    }

    /// What is due now.
    pub fn on_deadline(&mut self, now: Now) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if is_due(session.volatile.kill_at) {
                session.volatile.kill_at = Some(now.after(KILL_AGAIN));
                self.effects.push_back(Effect::Signal(id, Signal::Kill));
            }
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if is_due(session.volatile.first_sign_by) {
                session.volatile.first_sign_by = None;
                self.set_state(
                    now,
                    id,
                    SessionState::WaitingInput,
                    Some(Reason::of(StateWord::NoSign)),
                    StateSource::Inferred,
                );
            }
        }
        self.fill(now);
    }

    /// Takes a sample of resource use, and acts on the memory limit.
    pub fn sampled(&mut self, now: Now, id: SessionId, sample: ResourceUse) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.record.info.state.is_live() {
            return;
        }
        let is_news = session.record.info.resources.is_none_or(|last| {
            last.processes != sample.processes
                || last.memory_bytes.abs_diff(sample.memory_bytes) >= 1 << 20
                || (last.cpu_percent - sample.cpu_percent).abs() >= 1.0
        });
        session.record.info.resources = Some(sample);
        let is_above = self.limits.memory_limit_bytes.is_some_and(|limit| sample.memory_bytes > limit);
        if is_above && session.record.wish == Wish::None {
            if self.limits.is_limit_enforced {
                session.record.wish = Wish::Limit;
                self.effects.push_back(Effect::Save(id));
                self.begin_end(now, id, SWITCH_GRACE);
            } else if !session.volatile.is_warned {
                session.volatile.is_warned = true;
                let mib = sample.memory_bytes / (1024 * 1024);
                let info = &mut session.record.info;
                let warning = Reason::with(StateWord::MemoryHigh, &[("mib", &mib)]);
                let before = Reason::standing(info);
                Reason::put(Some(before.map_or(warning.clone(), |before| before.and(warning))), info);
            }
        }
        if is_news || is_above {
            self.effects.push_back(Effect::Changed(id));
        }
    }

    fn launching(&mut self, id: SessionId, epoch: u32) -> Option<&mut Session> {
        self.sessions
            .get_mut(&id)
            .filter(|session| session.volatile.is_launching && session.record.info.epoch == epoch)
    }

    pub(super) fn state(&self, id: SessionId) -> Option<SessionState> {
        self.record(id).map(|record| record.info.state)
    }

    pub(super) fn update_resumable(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.record.info.is_resumable = session.record.resumable().is_some();
        }
    }

    pub(super) fn save_and_tell(&mut self, id: SessionId) {
        self.update_resumable(id);
        self.effects.push_back(Effect::Save(id));
        self.effects.push_back(Effect::Changed(id));
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(super) fn set_state(
        &mut self,
        now: Now,
        id: SessionId,
        state: SessionState,
        reason: Option<Reason>,
        source: StateSource,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let info = &mut session.record.info;
        debug_assert!(info.state.may_become(state), "{:?} -> {state:?}", info.state);
        if info.state != state {
            info.state = state;
            info.state_since = now.wall;
        }
        Reason::put(reason, info);
        info.state_source = source;
        self.save_and_tell(id);
    }
}

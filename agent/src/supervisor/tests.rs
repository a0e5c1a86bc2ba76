//! The core against its invariants, with a clock of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::SessionId;
use claudenest_shared::machine::ResourceUse;
use claudenest_shared::reason::StateWord;
use claudenest_shared::session::{
    CrashPolicy, Exit, SessionMode, SessionSpec, SessionState, StateSource, name_from, valid_name,
};
use claudenest_shared::time::UnixMs;
use proptest::prelude::*;
use uuid::Uuid;

use super::core::{CRASH_RESTARTS, Core, Effect, FIRST_SIGN, Limits, Plan, START_ATTEMPTS, Signal};
use super::record::{Now, Record, Wish};
use crate::claude::hint::Hint;
use crate::claude::hooks::{HookFact, HookKind};
use crate::reason::Reason;

/// A machine with processes that do what the core wants, and a clock that stands still unless moved.
struct Sim {
    core: Core,
    now: Now,
    /// What is "on disk" and what was told.
    saved: BTreeMap<SessionId, Record>,
    told: Vec<(SessionId, SessionState)>,
    launches: Vec<SessionId>,
    signals: Vec<(SessionId, Signal)>,
    acknowledged: u32,
    next: u128,
    states: HashMap<SessionId, SessionState>,
}

impl Sim {
    fn new(limits: Limits) -> Self {
        Self {
            core: Core::new(limits, Vec::new()),
            now: Now { instant: Instant::now(), wall: UnixMs(1_000_000) },
            saved: BTreeMap::new(),
            told: Vec::new(),
            launches: Vec::new(),
            signals: Vec::new(),
            acknowledged: 0,
            next: 0,
            states: HashMap::new(),
        }
    }

    fn create(&mut self, spec: SessionSpec) -> Result<SessionId, ErrorCode> {
        self.next += 1;
        let id = SessionId(Uuid::from_u128(self.next));
        let name = self.core.free_name(spec.name.as_deref(), &spec.cwd).map_err(|error| error.code)?;
        let result = self.core.create(self.now, Record::new(id, name, spec, self.now.wall));
        self.settle();
        result.map(|()| id).map_err(|error| error.code)
    }

    fn interactive(&mut self) -> SessionId {
        self.create(spec(SessionMode::Interactive)).unwrap()
    }

    /// Carries out the effects as the actor does.
    fn settle(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Save(id) => {
                    if let Some(record) = self.core.record(id) {
                        self.saved.insert(id, record.clone());
                    }
                }
                Effect::Changed(id) => {
                    let Some(record) = self.core.record(id) else { continue };
                    let state = record.info.state;
                    assert_eq!(self.saved[&id].info.state, state, "told before it was saved");
                    self.told.push((id, state));
                }
                Effect::Launch(id) => {
                    let (conversation, prompt) =
                        self.core.conversation(id, format!("fresh-{}", self.launches.len())).unwrap();
                    let plan =
                        Plan { capability_digest: "d".into(), conversation, prompt, boot_id: "boot".into() };
                    self.core.prepared(id, &plan);
                    self.saved.insert(id, self.core.record(id).unwrap().clone());
                    self.launches.push(id);
                }
                Effect::Signal(id, signal) => self.signals.push((id, signal)),
                Effect::ExitStored(_) => self.acknowledged += 1,
                Effect::Remove(id) => {
                    self.saved.remove(&id);
                    self.states.remove(&id);
                }
            }
            self.check();
        }
    }

    fn check(&mut self) {
        assert!(self.core.live_count() <= self.core.limits.max_sessions);
        let mut names = BTreeSet::new();
        for record in self.core.records() {
            assert!(names.insert(&record.info.name), "two sessions are called {}", record.info.name);
            valid_name(&record.info.name).unwrap();
            let session = &self.core.sessions[&record.info.id];
            let state = record.info.state;
            if state.is_live() {
                assert!(session.volatile.is_launching || record.info.pid.is_some(), "live without a process");
            } else {
                assert_eq!(record.info.pid, None, "{state:?} with a process");
                assert!(session.volatile.kill_at.is_none() && session.volatile.first_sign_by.is_none());
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now.instant += by;
        self.now.wall = self.now.wall.plus(i64::try_from(by.as_millis()).unwrap());
        self.core.on_deadline(self.now);
        self.settle();
    }

    fn epoch(&self, id: SessionId) -> u32 {
        self.core.record(id).unwrap().info.epoch
    }

    fn start(&mut self, id: SessionId) {
        let epoch = self.epoch(id);
        self.core.started(self.now, id, epoch, 100);
        self.settle();
    }

    fn fail_start(&mut self, id: SessionId) {
        let epoch = self.epoch(id);
        self.core.start_failed(self.now, id, epoch, "No.");
        self.settle();
    }

    fn exit(&mut self, id: SessionId, exit: Exit) {
        let epoch = self.epoch(id);
        self.core.exited(self.now, id, epoch, exit);
        self.settle();
    }

    fn hook(&mut self, id: SessionId, kind: HookKind) {
        let fact =
            HookFact { claude_session_id: Some("conv".into()), cwd: Some("/w".into()), model: None, kind };
        self.core.hook(self.now, id, &fact);
        self.settle();
    }

    fn talk(&mut self, id: SessionId) {
        self.start(id);
        self.hook(id, HookKind::SessionStarted { is_resumed: false, is_midway: false });
        self.hook(id, HookKind::PromptSubmitted);
        self.hook(id, HookKind::Answered);
    }

    fn state(&self, id: SessionId) -> SessionState {
        self.core.record(id).unwrap().info.state
    }

    fn reason(&self, id: SessionId) -> String {
        self.core.record(id).unwrap().info.state_reason.clone().unwrap_or_default()
    }
}

fn spec(mode: SessionMode) -> SessionSpec {
    SessionSpec { mode, cwd: "/work/demo".into(), ..SessionSpec::default() }
}

fn limits(max_sessions: u32) -> Limits {
    Limits { max_sessions, max_queued: 3, ..Limits::default() }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn hooks_move_an_interactive_session() {
    let mut sim = Sim::new(limits(2));
    let id = sim.interactive();
    assert_eq!(sim.state(id), SessionState::Starting);
    sim.start(id);
    sim.hook(id, HookKind::SessionStarted { is_resumed: false, is_midway: false });
    assert_eq!((sim.state(id), sim.reason(id).as_str()), (SessionState::WaitingInput, "waits for a prompt"));
    sim.hook(id, HookKind::PromptSubmitted);
    assert_eq!(sim.state(id), SessionState::Running);
    let wish = Reason::with(StateWord::WantsToRun, &[("command", &"ls")]);
    sim.hook(id, HookKind::PermissionAsked { wish, call: 1 });
    assert_eq!((sim.state(id), sim.reason(id).as_str()), (SessionState::WaitingInput, "wants to run `ls`"));
    // A parallel tool does not hide the open dialog; its own end closes it.
    sim.hook(id, HookKind::ToolStarts);
    sim.hook(id, HookKind::ToolEnded { call: 2 });
    sim.hook(id, HookKind::Notified { notification: "permission_prompt".into() });
    assert_eq!(sim.reason(id), "wants to run `ls`");
    sim.hook(id, HookKind::ToolEnded { call: 1 });
    assert_eq!(sim.state(id), SessionState::Running);
    sim.hook(id, HookKind::Answered);
    assert_eq!(sim.reason(id), "answered; waits for the next prompt");
    assert!(sim.core.record(id).unwrap().info.is_resumable);
    sim.exit(id, Exit::Code { code: 0 });
    assert_eq!(sim.state(id), SessionState::Completed);
    assert_eq!(sim.acknowledged, 1);
}

#[test]
fn what_no_hook_tells_comes_from_claudes_own_note() {
    let mut sim = Sim::new(limits(1));
    let id = sim.interactive();
    sim.talk(id);
    sim.hook(id, HookKind::PromptSubmitted);
    sim.hook(id, HookKind::PermissionAsked { wish: Reason::of(StateWord::HasPlan), call: 1 });
    sim.core.hint(sim.now, id, &Hint::Waiting("permission prompt".into()));
    assert_eq!(sim.reason(id), "has a plan and asks whether to go on");
    sim.core.hint(sim.now, id, &Hint::Busy);
    sim.settle();
    assert_eq!(sim.state(id), SessionState::Running, "the dialog was answered with yes");
    sim.core.hint(sim.now, id, &Hint::Idle);
    sim.settle();
    assert_eq!(sim.state(id), SessionState::WaitingInput, "the turn was interrupted");
    assert_eq!(sim.core.record(id).unwrap().info.state_source, StateSource::Inferred);
}

#[test]
fn without_a_sign_a_first_run_dialog_is_assumed_and_a_late_hook_corrects_it() {
    let mut sim = Sim::new(limits(1));
    let id = sim.interactive();
    sim.start(id);
    let epoch = sim.epoch(id);
    sim.core.first_output(sim.now, id, epoch);
    sim.settle();
    assert_eq!(sim.state(id), SessionState::Running);
    assert_eq!(sim.core.deadline(), Some(sim.now.instant + FIRST_SIGN));
    sim.advance(FIRST_SIGN);
    assert_eq!(sim.state(id), SessionState::WaitingInput);
    assert_eq!(sim.core.record(id).unwrap().info.state_source, StateSource::Inferred);
    sim.hook(id, HookKind::SessionStarted { is_resumed: false, is_midway: false });
    assert_eq!((sim.reason(id).as_str(), sim.core.deadline()), ("waits for a prompt", None));
}

#[test]
fn failed_starts_are_tried_three_times_with_growing_pauses() {
    let mut sim = Sim::new(limits(1));
    let id = sim.interactive();
    sim.fail_start(id);
    assert_eq!(sim.state(id), SessionState::Created);
    sim.advance(Duration::from_millis(1999));
    assert_eq!(sim.launches.len(), 1);
    sim.advance(Duration::from_millis(1));
    assert_eq!(sim.launches.len(), 2);
    sim.fail_start(id);
    sim.advance(Duration::from_millis(3999));
    assert_eq!(sim.launches.len(), 2);
    sim.advance(Duration::from_millis(1));
    assert_eq!(sim.launches.len(), 3);
    sim.fail_start(id);
    assert_eq!(sim.state(id), SessionState::Failed);
    assert!(sim.reason(id).contains("after 3 attempts: No."), "{}", sim.reason(id));
    sim.advance(SECOND * 3600);
    assert_eq!(sim.launches.len(), START_ATTEMPTS as usize);
    // A restart begins anew.
    sim.core.restart(sim.now, id).unwrap();
    sim.settle();
    sim.start(id);
    assert_eq!(sim.core.record(id).unwrap().info.attempts, 1);
}

#[test]
fn a_full_machine_queues_in_order_or_refuses() {
    let mut sim = Sim::new(limits(1));
    let first = sim.interactive();
    sim.start(first);
    let waiting = [sim.interactive(), sim.interactive(), sim.interactive()];
    assert!(sim.reason(waiting[0]).contains("waits for one of 1 places"));
    assert_eq!(sim.create(spec(SessionMode::Shell)), Err(ErrorCode::TooManySessions), "the queue is full");
    sim.core.stop(sim.now, waiting[1], SECOND).unwrap();
    sim.settle();
    assert_eq!(sim.state(waiting[1]), SessionState::Terminated);
    let wish = SessionSpec { refuse_when_full: true, ..spec(SessionMode::Shell) };
    assert_eq!(sim.create(wish), Err(ErrorCode::TooManySessions));
    sim.exit(first, Exit::Code { code: 0 });
    assert_eq!(sim.launches.last(), Some(&waiting[0]));
    sim.fail_start(waiting[0]);
    assert_eq!(
        sim.launches.last(),
        Some(&waiting[2]),
        "a pause before the next attempt lets others go first"
    );
}

#[test]
fn a_stop_asks_first_and_kills_after_the_grace() {
    let mut sim = Sim::new(limits(1));
    let id = sim.interactive();
    sim.talk(id);
    sim.core.stop(sim.now, id, SECOND * 5).unwrap();
    sim.settle();
    assert_eq!(sim.signals, [(id, Signal::Terminate), (id, Signal::Continue)]);
    sim.advance(SECOND * 4);
    assert_eq!(sim.signals.len(), 2);
    sim.advance(SECOND);
    assert_eq!(sim.signals.last(), Some(&(id, Signal::Kill)));
    sim.exit(id, Exit::Signal { signal: 9 });
    assert_eq!(sim.state(id), SessionState::Terminated);
    sim.exit(id, Exit::Code { code: 7 });
    assert_eq!(
        sim.core.record(id).unwrap().info.exit,
        Some(Exit::Signal { signal: 9 }),
        "an exit counts once"
    );
    sim.core.stop(sim.now, id, SECOND).unwrap();
    assert_eq!(sim.state(id), SessionState::Terminated);
}

#[test]
fn a_stop_before_the_process_is_known_ends_it_as_soon_as_it_is() {
    let mut sim = Sim::new(limits(1));
    let id = sim.create(spec(SessionMode::Shell)).unwrap();
    sim.core.stop(sim.now, id, SECOND).unwrap();
    sim.settle();
    sim.start(id);
    assert_eq!(sim.signals.last(), Some(&(id, Signal::Kill)));
}

#[test]
fn crashes_are_resumed_three_times_and_an_answer_resets_the_count() {
    let mut sim = Sim::new(limits(1));
    let id =
        sim.create(SessionSpec { on_crash: CrashPolicy::Resume, ..spec(SessionMode::Interactive) }).unwrap();
    sim.talk(id);
    for pause in [2u32, 8, 30] {
        sim.exit(id, Exit::Signal { signal: 11 });
        assert!(sim.reason(id).contains("SIGSEGV; starts again"), "{}", sim.reason(id));
        let before = sim.launches.len();
        sim.advance(SECOND * (pause - 1));
        assert_eq!(sim.launches.len(), before);
        sim.advance(SECOND);
        assert_eq!(sim.launches.len(), before + 1);
        assert_eq!(sim.core.record(id).unwrap().info.claude_session_id.as_deref(), Some("conv"));
        sim.start(id);
    }
    sim.exit(id, Exit::Signal { signal: 11 });
    assert_eq!(
        (sim.state(id), sim.core.record(id).unwrap().crash_restarts),
        (SessionState::Failed, CRASH_RESTARTS)
    );
    sim.core.restart(sim.now, id).unwrap();
    sim.settle();
    sim.talk(id);
    assert_eq!(sim.core.record(id).unwrap().crash_restarts, 0);
}

#[test]
fn hibernated_sessions_wake_with_their_conversation_and_a_message() {
    let mut sim = Sim::new(Limits { hibernate_after: Some(SECOND * 60), ..limits(1) });
    let id = sim.interactive();
    sim.start(id);
    assert_eq!(sim.core.hibernate(sim.now, id).unwrap_err().code, ErrorCode::Conflict, "no conversation yet");
    sim.talk(id);
    sim.core.hibernate_if_idle(sim.now, id, 0);
    sim.advance(SECOND * 60);
    sim.core.hibernate_if_idle(sim.now, id, 1);
    assert!(sim.signals.is_empty(), "somebody watches");
    sim.core.hibernate_if_idle(sim.now, id, 0);
    sim.settle();
    assert_eq!(sim.signals.first(), Some(&(id, Signal::Terminate)));
    sim.exit(id, Exit::Code { code: 143 });
    assert_eq!(sim.state(id), SessionState::Hibernated);
    sim.core.wake_with(sim.now, id, "go on".into()).unwrap();
    sim.settle();
    let record = sim.core.record(id).unwrap();
    assert_eq!(
        (record.info.state, record.process_prompt.as_deref()),
        (SessionState::Starting, Some("go on"))
    );
    assert_eq!(record.info.claude_session_id.as_deref(), Some("conv"));
}

#[test]
fn a_reboot_offers_the_conversation_and_a_killed_keeper_says_so() {
    for (is_rebooted, has_conversation, state) in [
        (true, true, SessionState::Hibernated),
        (true, false, SessionState::Failed),
        (false, true, SessionState::Failed),
    ] {
        let mut sim = Sim::new(limits(1));
        let id = sim.interactive();
        sim.start(id);
        if has_conversation {
            sim.hook(id, HookKind::PromptSubmitted);
        }
        // What a new daemon does with what is on disk.
        let mut sim = Sim { core: Core::new(limits(1), sim.saved.values().cloned().collect()), ..sim };
        sim.core.lost(sim.now, id, is_rebooted);
        sim.settle();
        assert_eq!((sim.state(id), sim.core.record(id).unwrap().info.exit), (state, Some(Exit::Lost {})));
        assert_eq!(sim.core.record(id).unwrap().info.is_resumable, has_conversation);
    }
}

#[test]
fn a_new_daemon_carries_a_stop_through_and_retries_an_interrupted_start() {
    let mut sim = Sim::new(limits(2));
    let stopped = sim.interactive();
    sim.talk(stopped);
    sim.core.stop(sim.now, stopped, SECOND * 60).unwrap();
    sim.settle();
    let starting = sim.interactive();
    let mut sim =
        Sim { core: Core::new(limits(2), sim.saved.values().cloned().collect()), signals: Vec::new(), ..sim };
    sim.core.lost(sim.now, starting, false);
    let epoch = sim.epoch(stopped);
    sim.core.adopted(sim.now, stopped, epoch, 100);
    sim.settle();
    assert_eq!(sim.signals, [(stopped, Signal::Terminate), (stopped, Signal::Continue)]);
    assert_eq!(sim.state(starting), SessionState::Created);
    sim.advance(SECOND * 2);
    assert_eq!(sim.state(starting), SessionState::Starting);
    sim.exit(stopped, Exit::Code { code: 0 });
    assert_eq!(sim.state(stopped), SessionState::Terminated);
}

#[test]
fn a_pause_gives_back_the_state_before() {
    let mut sim = Sim::new(limits(1));
    let id = sim.interactive();
    assert_eq!(sim.core.pause(sim.now, id).unwrap_err().code, ErrorCode::Conflict);
    sim.talk(id);
    sim.core.pause(sim.now, id).unwrap();
    sim.settle();
    assert_eq!(sim.state(id), SessionState::Paused);
    sim.core.resume(sim.now, id).unwrap();
    sim.settle();
    assert_eq!(sim.reason(id), "answered; waits for the next prompt");
    assert_eq!(sim.signals, [(id, Signal::Stop), (id, Signal::Continue)]);
}

#[test]
fn memory_above_the_limit_warns_or_ends() {
    for is_limit_enforced in [false, true] {
        let mut sim = Sim::new(Limits { memory_limit_bytes: Some(1 << 20), is_limit_enforced, ..limits(1) });
        let id = sim.interactive();
        sim.talk(id);
        let sample = ResourceUse { memory_bytes: 2 << 20, ..ResourceUse::default() };
        sim.core.sampled(sim.now, id, sample);
        sim.settle();
        if is_limit_enforced {
            sim.exit(id, Exit::Code { code: 143 });
            assert_eq!(sim.state(id), SessionState::Terminated);
            assert!(sim.reason(id).contains("memory"));
        } else {
            assert!(sim.reason(id).contains("2 MiB"), "{}", sim.reason(id));
            assert!(sim.signals.is_empty());
        }
    }
}

#[test]
fn names_come_from_the_directory_and_are_numbered() {
    let mut sim = Sim::new(limits(10));
    let names = [sim.interactive(), sim.interactive(), sim.interactive()]
        .map(|id| sim.core.record(id).unwrap().info.name.clone());
    assert_eq!(names, ["demo", "demo-2", "demo-3"]);
    let taken = SessionSpec { name: Some("demo".into()), ..spec(SessionMode::Shell) };
    assert_eq!(sim.create(taken), Err(ErrorCode::NameTaken));
    let id = SessionId(Uuid::from_u128(1));
    assert_eq!(sim.core.rename(id, "demo-2").unwrap_err().code, ErrorCode::NameTaken);
    assert_eq!(sim.core.rename(id, "a b").unwrap_err().code, ErrorCode::Invalid);
    sim.core.rename(id, "demo").unwrap();
    sim.core.rename(id, "other").unwrap();
    assert_eq!(sim.core.free_name(None, "/").unwrap(), name_from(""));
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8, bool),
    Started(u8),
    StartFailed(u8),
    Output(u8),
    Exited(u8, u8, bool),
    Lost(u8, bool),
    Hook(u8, u8),
    Hint(u8, u8),
    Stop(u8, u8),
    Pause(u8),
    Resume(u8),
    Restart(u8),
    Hibernate(u8),
    Wake(u8),
    Forget(u8),
    Advance(u16),
    NewDaemon,
}

fn steps() -> impl Strategy<Value = Step> {
    let id = 0u8..5;
    prop_oneof![
        3 => (0u8..4, any::<bool>()).prop_map(|(mode, resume)| Step::Create(mode, resume)),
        6 => id.clone().prop_map(Step::Started),
        2 => id.clone().prop_map(Step::StartFailed),
        1 => id.clone().prop_map(Step::Output),
        3 => (id.clone(), 0u8..4, any::<bool>()).prop_map(|(id, code, old)| Step::Exited(id, code, old)),
        1 => (id.clone(), any::<bool>()).prop_map(|(id, rebooted)| Step::Lost(id, rebooted)),
        6 => (id.clone(), 0u8..10).prop_map(|(id, kind)| Step::Hook(id, kind)),
        2 => (id.clone(), 0u8..3).prop_map(|(id, kind)| Step::Hint(id, kind)),
        2 => (id.clone(), 0u8..10).prop_map(|(id, grace)| Step::Stop(id, grace)),
        1 => id.clone().prop_map(Step::Pause),
        2 => id.clone().prop_map(Step::Resume),
        2 => id.clone().prop_map(Step::Restart),
        1 => id.clone().prop_map(Step::Hibernate),
        1 => id.clone().prop_map(Step::Wake),
        1 => id.prop_map(Step::Forget),
        3 => (0u16..40_000).prop_map(Step::Advance),
        1 => Just(Step::NewDaemon),
    ]
}

fn hook_kind(kind: u8) -> HookKind {
    match kind {
        0 => HookKind::SessionStarted { is_resumed: false, is_midway: false },
        1 => HookKind::SessionStarted { is_resumed: false, is_midway: true },
        2 => HookKind::PromptSubmitted,
        3 => HookKind::ToolStarts,
        4 => HookKind::ToolEnded { call: 1 },
        5 => HookKind::PermissionAsked { wish: Reason::of(StateWord::HasPlan), call: 1 },
        6 => HookKind::Notified { notification: "idle_prompt".into() },
        7 => HookKind::Answered,
        8 => HookKind::Failed { error: "e".into() },
        _ => HookKind::SessionEnded,
    }
}

proptest! {
    /// `set_state` asserts every transition; `Sim::check` the invariants after each effect.
    #[test]
    fn no_order_of_events_breaks_the_invariants(steps in proptest::collection::vec(steps(), 1..120)) {
        let mut sim = Sim::new(limits(2));
        for step in steps {
            let ids: Vec<SessionId> = sim.core.records().map(|record| record.info.id).collect();
            let pick = |n: u8| ids.get(n as usize % ids.len().max(1)).copied().unwrap_or(SessionId(Uuid::nil()));
            let now = sim.now;
            match step {
                Step::Create(mode, resume) => {
                    let mode = [SessionMode::Interactive, SessionMode::Headless, SessionMode::Oneshot, SessionMode::Shell][mode as usize];
                    let on_crash = if resume { CrashPolicy::Resume } else { CrashPolicy::Stop };
                    let _ = sim.create(SessionSpec { on_crash, ..spec(mode) });
                }
                Step::Started(n) => { let id = pick(n); if sim.core.record(id).is_some() { sim.start(id); } }
                Step::StartFailed(n) => { let id = pick(n); if sim.core.record(id).is_some() { sim.fail_start(id); } }
                Step::Output(n) => { let id = pick(n); let epoch = sim.core.record(id).map_or(0, |record| record.info.epoch); sim.core.first_output(now, id, epoch); }
                Step::Exited(n, code, is_old) => {
                    let id = pick(n);
                    // Only a process can end.
                    if let Some(record) = sim.core.record(id).filter(|record| record.info.pid.is_some()) {
                        let epoch = record.info.epoch - u32::from(is_old);
                        let exit = [Exit::Code { code: 0 }, Exit::Code { code: 1 }, Exit::Signal { signal: 9 }, Exit::Code { code: 143 }][code as usize];
                        sim.core.exited(now, id, epoch, exit);
                    }
                }
                Step::Lost(n, rebooted) => sim.core.lost(now, pick(n), rebooted),
                Step::Hook(n, kind) => {
                    let fact = HookFact { claude_session_id: Some("conv".into()), cwd: None, model: None, kind: hook_kind(kind) };
                    sim.core.hook(now, pick(n), &fact);
                }
                Step::Hint(n, kind) => sim.core.hint(now, pick(n), &[Hint::Busy, Hint::Idle, Hint::Waiting("x".into())][kind as usize]),
                Step::Stop(n, grace) => { let _ = sim.core.stop(now, pick(n), SECOND * u32::from(grace)); }
                Step::Pause(n) => { let _ = sim.core.pause(now, pick(n)); }
                Step::Resume(n) => { let _ = sim.core.resume(now, pick(n)); }
                Step::Restart(n) => { let _ = sim.core.restart(now, pick(n)); }
                Step::Hibernate(n) => { let _ = sim.core.hibernate(now, pick(n)); }
                Step::Wake(n) => { let _ = sim.core.wake_with(now, pick(n), "p".into()); }
                Step::Forget(n) => { let _ = sim.core.forget(pick(n)); }
                Step::Advance(ms) => sim.advance(Duration::from_millis(u64::from(ms))),
                Step::NewDaemon => {
                    sim.core = Core::new(limits(2), sim.saved.values().cloned().collect());
                    for record in sim.saved.values().cloned().collect::<Vec<_>>() {
                        let info = &record.info;
                        if info.state.is_live() {
                            match info.pid {
                                Some(pid) => sim.core.adopted(now, info.id, info.epoch, pid),
                                None => sim.core.lost(now, info.id, false),
                            }
                        }
                    }
                    sim.core.fill(now);
                }
            }
            sim.settle();
            sim.check();
            for record in sim.core.records() {
                prop_assert_eq!(&sim.saved[&record.info.id].info.state, &record.info.state, "state is not on disk");
                prop_assert!(record.wish == Wish::None || record.info.state.is_live());
            }
        }
    }
}

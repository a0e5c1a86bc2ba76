//! The approvals as a whole: the core with a clock that jumps, and the owner task with a real store and many callers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claudenest_shared::approval::{
    Answer, Approval, ApprovalKind, ApprovalState, Decider, DeciderKind, Verdict,
};
use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::{ApprovalId, SessionId};
use claudenest_shared::risk::Risk;
use claudenest_shared::session::{SessionInfo, TermSize};
use claudenest_shared::time::UnixMs;
use proptest::prelude::*;
use serde_json::json;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::core::{Core, HOOK_GRACE, Now, Observation, Refusal};
use super::record::{Change, Question};
use super::{Approvals, Sessions};
use crate::claude::transcript::Fate;
use crate::guard::GuardEvent;
use crate::guard::audit::{self, Chain};
use crate::store::Store;

const SESSION: SessionId = SessionId::from_bytes([1; 16]);

fn question(call: &str) -> Question {
    Question {
        session: SESSION,
        session_name: "s".into(),
        epoch: 1,
        kind: ApprovalKind::Tool,
        tool: "Bash".into(),
        summary: "wants to run `ls`".into(),
        input: json!({"command": call}),
        diff: None,
        cwd: "/w".into(),
        agent: None,
        risk: Risk::Medium,
        notes: Vec::new(),
        why: "Claude Code asks for it.".into(),
        expires_at: None,
        call: call.into(),
        tool_use: Some(format!("toolu_{call}")),
        has_dialog: true,
        transcript: None,
    }
}

fn answer(verdict: Verdict) -> Answer {
    Answer { verdict, reason: None, answers: None, remember: None }
}

fn by(kind: DeciderKind) -> Decider {
    Decider { kind, label: format!("{kind:?}") }
}

fn live(session: SessionId) -> Option<SessionInfo> {
    let info = json!({
        "id": session, "name": "s", "mode": "interactive", "cwd": "/w", "state": "running", "state_since": 0,
        "created_at": 0, "size": TermSize::default(), "epoch": 1, "output_bytes": 0,
    });
    serde_json::from_value(info).ok()
}

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    approvals: Approvals,
    events: broadcast::Receiver<GuardEvent>,
    cancel: CancellationToken,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let (sender, events) = broadcast::channel(16 * 1024);
    let (sessions, cancel): (Sessions, _) = (Arc::new(live), CancellationToken::new());
    let tasks = TaskTracker::new();
    let approvals = Approvals::start(store.clone(), sessions, sender, &tasks, cancel.clone()).await.unwrap();
    World { _dir: dir, store, approvals, events, cancel }
}

/// Command line, browser and dialog answer at once; `APPROVAL_RACES` rounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_answers_that_race_one_counts_and_everybody_is_told_which() {
    let rounds: usize = std::env::var("APPROVAL_RACES").map_or(200, |text| text.parse().unwrap());
    let mut world = world().await;
    let mut winners = BTreeSet::new();
    for round in 0..rounds {
        let asked = world.approvals.ask(question(&round.to_string())).await.unwrap();
        let id = asked.id;
        let digest = audit::input_digest(&json!({"command": round.to_string()}));
        let decide = |kind, verdict| {
            let (approvals, digest) = (world.approvals.clone(), digest.clone());
            tokio::spawn(async move { approvals.decide(id, digest, answer(verdict), by(kind)).await })
        };
        let one = decide(DeciderKind::Cli, Verdict::Allow);
        let two = decide(DeciderKind::Relay, Verdict::Deny);
        let ran = Observation::Ran { tool_use: Some(format!("toolu_{round}")), input_sha256: digest.clone() };
        let (approvals, is_local) = (world.approvals.clone(), round % 2 == 0);
        let three = tokio::spawn(async move {
            if is_local {
                approvals.seen(SESSION, ran).await;
            }
        });
        let (one, two) = (one.await.unwrap(), two.await.unwrap());
        three.await.unwrap();
        let heard = asked.outcome().await.unwrap();
        let first = heard.decision.clone().unwrap();
        winners.insert(format!("{:?}", first.by.kind));
        // Who was not first is told so, by name.
        for (kind, result) in [(DeciderKind::Cli, one), (DeciderKind::Relay, two)] {
            match result {
                Ok(approval) => {
                    assert_eq!((approval.decision.unwrap(), first.by.kind), (first.clone(), kind));
                }
                Err(error) => {
                    assert_ne!(first.by.kind, kind);
                    assert_eq!(error.code, ErrorCode::Conflict);
                    assert!(error.message.contains(&first.by.label), "{error}");
                }
            }
        }
        let stored = world.approvals.get(id).await.unwrap();
        assert_eq!(stored.decision, Some(first), "the first answer stays");
    }
    // Everybody was told each change once and in order.
    let mut versions: std::collections::BTreeMap<ApprovalId, u64> = Default::default();
    while let Ok(event) = world.events.try_recv() {
        let GuardEvent::Approval(approval) = event else { continue };
        let before = versions.insert(approval.id, approval.version).unwrap_or(0);
        assert_eq!(approval.version, before + 1, "{approval:?}");
    }
    assert_eq!(versions.len(), rounds);
    assert!(winners.len() >= 2, "the race was real: {winners:?}");
    // One decision each in the audit log, and an unbroken chain.
    let mut chain = Chain::default();
    let (mut decided, mut asked) = (0, 0);
    loop {
        let rows = world.store.audit_after(chain.head().0, 500).await.unwrap();
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            chain.follow(row).unwrap();
            decided += usize::from(row.kind == "decided");
            asked += usize::from(row.kind == "asked");
        }
    }
    assert_eq!((asked, decided), (rounds, rounds));
    world.cancel.cancel();
}

#[tokio::test]
async fn a_question_asked_again_is_the_same_and_its_answer_waits_for_it() {
    let world = world().await;
    let lost = world.approvals.ask(question("a")).await.unwrap();
    let id = lost.id;
    drop(lost);
    let again = world.approvals.ask(question("a")).await.unwrap();
    assert_eq!(again.id, id);
    drop(again);
    let digest = audit::input_digest(&json!({"command": "a"}));
    let wrong = world.approvals.decide(id, "00".into(), answer(Verdict::Allow), by(DeciderKind::Cli)).await;
    assert_eq!(wrong.unwrap_err().code, ErrorCode::Conflict);
    let decide = || world.approvals.decide(id, digest.clone(), answer(Verdict::Allow), by(DeciderKind::Cli));
    let decided = decide().await.unwrap();
    assert_eq!(
        decide().await.unwrap(),
        decided,
        "the same answer of the same person again is no other answer"
    );
    // The hook comes back for what was said while it was away.
    let late = world.approvals.ask(question("a")).await.unwrap().outcome().await.unwrap();
    assert_eq!(late.decision, decided.decision);
    assert!(world.approvals.ask(question("b")).await.unwrap().id != id);
    let unknown = ApprovalId(Uuid::from_u128(1));
    let error = world.approvals.decide(unknown, digest, answer(Verdict::Allow), by(DeciderKind::Cli)).await;
    assert_eq!(error.unwrap_err().code, ErrorCode::NotFound);
    world.cancel.cancel();
}

fn at(start: Instant, ms: u64, wall: i64) -> Now {
    Now { instant: start + Duration::from_millis(ms), wall: UnixMs(wall) }
}

#[test]
fn a_clock_that_jumps_decides_nothing() {
    let start = Instant::now();
    let mut core = Core::new(at(start, 0, 1_000_000), Vec::new());
    let id = ApprovalId(Uuid::from_u128(1));
    let expiring = Question { expires_at: Some(UnixMs(1_060_000)), ..question("a") };
    let record = core.asked(at(start, 0, 1_000_000), id, expiring);
    core.put(at(start, 0, 1_000_000), record);
    core.heard(at(start, 0, 1_000_000), id, true);
    let ten_years = 315_360_000_000;
    for wall in [1_000_000 + ten_years, 1_000_000 - ten_years, 0, i64::MAX, i64::MIN] {
        assert_eq!(core.due(at(start, 59_999, wall), |_| false), [], "{wall}");
    }
    // A minute is a minute, and its end denies nothing.
    let due = core.due(at(start, 60_000, 0), |_| false);
    let [(_, Change::Expire(text))] = due.as_slice() else { panic!("{due:?}") };
    assert!(text.contains("No answer in time") && text.contains("Nobody has denied"), "{text}");
    let expired = core.get(id).unwrap().after(&due[0].1, UnixMs(0)).unwrap();
    core.put(at(start, 60_000, 0), expired);
    let late = core.decided(at(start, 60_001, 0), id, "", answer(Verdict::Allow), by(DeciderKind::Cli));
    assert_eq!(late, Err(Refusal::Unknown));
}

#[test]
fn a_hook_that_does_not_come_back_withdraws_its_question_but_not_while_it_is_stopped() {
    let start = Instant::now();
    let mut core = Core::new(at(start, 0, 0), Vec::new());
    let id = ApprovalId(Uuid::from_u128(1));
    let record = core.asked(at(start, 0, 0), id, question("a"));
    core.put(at(start, 0, 0), record);
    core.heard(at(start, 0, 0), id, true);
    let grace = HOOK_GRACE.as_millis() as u64;
    assert_eq!(core.due(at(start, grace * 100, 0), |_| false), [], "it waits for ever");
    core.heard(at(start, 5, 0), id, false);
    core.heard(at(start, grace, 0), id, false);
    assert_eq!(core.due(at(start, grace + 4, 0), |_| false), []);
    assert_eq!(core.due(at(start, grace + 5, 0), |_| true), []);
    let due = core.due(at(start, grace + 5, 0), |_| false);
    assert!(matches!(due.as_slice(), [(_, Change::Withdraw(_))]), "{due:?}");
    core.heard(at(start, grace + 6, 0), id, true);
    assert_eq!(core.due(at(start, grace * 9, 0), |_| false), [], "it is back");
}

#[test]
fn answers_have_to_fit_the_question() {
    let start = Instant::now();
    let mut core = Core::new(at(start, 0, 0), Vec::new());
    let mut decide = |kind: ApprovalKind, input: serde_json::Value, answer: Answer| {
        let id = ApprovalId(Uuid::new_v4());
        let record = core.asked(at(start, 0, 0), id, Question { kind, input, ..question("a") });
        let digest = record.approval.input_sha256.clone();
        core.put(at(start, 0, 0), record);
        core.decided(at(start, 0, 0), id, &digest, answer, by(DeciderKind::Cli))
    };
    let asks = json!({"questions": [{"question": "Which?"}]});
    let with = |answers: serde_json::Value| Answer { answers: Some(answers), ..answer(Verdict::Allow) };
    use ApprovalKind::{Human, Plan, Question as Ask, Tool};
    for (kind, input, given, is_good) in [
        (Ask, &asks, with(json!({"Which?": "this"})), true),
        (Ask, &asks, with(json!({})), false),
        (Ask, &asks, with(json!({"Which?": 1})), false),
        (Ask, &asks, with(json!({"Which?": "this", "Else?": "x"})), false),
        (Ask, &asks, answer(Verdict::Allow), false),
        (Ask, &asks, answer(Verdict::Deny), true),
        (Human, &asks, with(json!("text")), true),
        (Human, &asks, answer(Verdict::Allow), false),
        (Tool, &asks, with(json!({"Which?": "this"})), false),
        (Plan, &asks, answer(Verdict::Allow), true),
        (Tool, &asks, Answer { reason: Some("x".repeat(2001)), ..answer(Verdict::Deny) }, false),
    ] {
        let result = decide(kind, input.clone(), given.clone());
        assert_eq!(result.is_ok(), is_good, "{kind:?} {given:?}: {result:?}");
    }
}

fn observation() -> impl Strategy<Value = Observation> {
    let call = prop_oneof![Just("a"), Just("b"), Just("c")];
    let fate = prop_oneof![Just(Fate::Used), Just(Fate::RefusedByPerson), Just(Fate::RefusedOtherwise)];
    prop_oneof![
        call.clone().prop_map(|call| Observation::Ran {
            tool_use: Some(format!("toolu_{call}")),
            input_sha256: audit::input_digest(&json!({"command": call})),
        }),
        (call, fate).prop_map(|(call, fate)| Observation::Result { tool_use: format!("toolu_{call}"), fate }),
        (0u128..3).prop_map(|n| Observation::DialogGone { approval: ApprovalId(Uuid::from_u128(n)) }),
        Just(Observation::TurnOver),
        Just(Observation::GoesOn { agent: None }),
        Just(Observation::Ended { why: "It ended.".into() }),
    ]
}

proptest! {
    /// Whatever is seen and said, in whatever order: one decision at most, which stays, and no state follows a final one.
    #[test]
    fn nothing_is_decided_twice(steps in proptest::collection::vec((0u128..3, 0u8..4, observation()), 1..60)) {
        let start = Instant::now();
        let now = at(start, 0, 0);
        let mut core = Core::new(now, Vec::new());
        let mut last: Vec<Approval> = Vec::new();
        for (n, call) in ["a", "b", "c"].into_iter().enumerate() {
            let record = core.asked(now, ApprovalId(Uuid::from_u128(n as u128)), question(call));
            last.push(record.approval.clone());
            core.put(now, record);
        }
        for (n, what, observation) in steps {
            let id = ApprovalId(Uuid::from_u128(n));
            let mut changed = Vec::new();
            if what < 2 {
                let digest = last[n as usize].input_sha256.clone();
                let verdict = if what == 0 { Verdict::Allow } else { Verdict::Deny };
                if let Ok(record) = core.decided(now, id, &digest, answer(verdict), by(DeciderKind::Relay)) {
                    changed.push(record);
                }
            } else {
                for (id, change) in core.seen(now, SESSION, &observation) {
                    if let Some(record) = core.get(id).and_then(|record| record.after(&change, now.wall)) {
                        core.put(now, record.clone());
                        changed.push(record);
                    }
                }
            }
            for record in changed {
                let approval = record.approval.clone();
                let before = &mut last[approval.id.0.as_u128() as usize];
                if approval != *before {
                    prop_assert!(before.state.may_become(approval.state), "{before:?} {approval:?}");
                    prop_assert!(before.decision.is_none() || before.decision == approval.decision);
                    prop_assert!(approval.state != ApprovalState::Applied || approval.decision.is_some());
                    *before = approval;
                }
                core.put(now, record);
            }
        }
    }
}

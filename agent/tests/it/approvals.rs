//! Approvals with the real Claude Code: asked, answered from elsewhere or in its own dialog, and followed.

use std::process::Command;

use claudenest_agent::guard::Who;
use claudenest_shared::approval::{
    Answer, Approval, ApprovalKind, ApprovalState, DeciderKind, Remember, RuleScope, Verdict,
};
use claudenest_shared::id::SessionId;
use claudenest_shared::session::{PermissionMode, SessionInfo, SessionMode, SessionSpec};
use claudenest_shared::wire::agent::{Op, Reply};
use serde_json::{Value, json};

use crate::holder::program;
use crate::nest::{Daemon, Nest};
use crate::real_claude::nest;
use crate::wild::Wild;

/// A scenario in which Claude uses these tools, one in each turn, and then says "All done.".
pub fn uses(tools: &[(&str, Value)]) -> String {
    let turn = |(name, input): &(&str, Value)| json!({"content": ["Next.", {"type": "tool_use", "name": name, "input": input}]});
    let mut turns: Vec<Value> = tools.iter().map(turn).collect();
    turns.push(json!({"content": ["All done."]}));
    json!({"turns": turns, "after": {"content": ["nothing left"]}}).to_string()
}

fn touch(file: &str) -> (&'static str, Value) {
    ("Bash", json!({"command": format!("touch {file}"), "description": "d"}))
}

async fn session(nest: &Nest, daemon: &Daemon, mode: SessionMode) -> SessionInfo {
    let spec = SessionSpec {
        prompt: Some("do it".into()),
        permission_mode: Some(PermissionMode::Default),
        ..nest.spec(mode)
    };
    daemon.create(spec).await
}

/// Runs a command of the CLI against the nest's daemon.
fn cli(nest: &Nest, args: &[&str]) -> (i32, String) {
    let output = Command::new(program())
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", nest.dir.path().join("home"))
        .env("CLAUDENEST_AGENT_DATA_DIR", nest.dir.path().join("data"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// The newest approval in this state, once there is one.
async fn approval(
    daemon: &Daemon,
    session: SessionId,
    what: &str,
    is_it: impl Fn(&Approval) -> bool,
) -> Approval {
    let mut events = daemon.guard.subscribe();
    let look = async {
        loop {
            let all = daemon.guard.told().await.unwrap();
            if let Some(found) = all.into_iter().rev().find(|one| one.session == session && is_it(one)) {
                return found;
            }
            let _ = events.recv().await;
        }
    };
    match tokio::time::timeout(crate::nest::PATIENCE, look).await {
        Ok(found) => found,
        Err(_) => {
            panic!("no approval {what}: {:#?}\n{}", daemon.guard.told().await, daemon.screen(session).await)
        }
    }
}

fn is(state: ApprovalState) -> impl Fn(&Approval) -> bool {
    move |approval| approval.state == state
}

fn decided(approval: &Approval) -> (Verdict, DeciderKind) {
    let decision = approval.decision.as_ref().expect("it was decided");
    (decision.answer.verdict, decision.by.kind)
}

async fn ends(daemon: &Daemon, info: &SessionInfo) {
    daemon.shows(info.id, "All done.").await;
    let _ = daemon.op(Op::SessionStop { session: info.id, grace_ms: 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_command_line_allows_runs_and_is_seen_to_run() {
    let Some((nest, _mock)) = nest(&uses(&[touch("made-it")])).await else { return };
    let daemon = nest.start().await;
    let info = session(&nest, &daemon, SessionMode::Interactive).await;
    let asked = approval(&daemon, info.id, "that waits", is(ApprovalState::Pending)).await;
    assert_eq!((asked.kind, asked.tool.as_str()), (ApprovalKind::Tool, "Bash"));
    assert_eq!(asked.input["command"], "touch made-it");
    assert!(asked.summary.contains("wants to run `touch made-it`"), "{}", asked.summary);
    daemon.shows(info.id, "Do you want").await;
    let (code, list) = cli(&nest, &["approvals", "list"]);
    assert!(code == 0 && list.contains(&asked.id.short()) && list.contains("touch made-it"), "{list}");
    let (_, shown) = cli(&nest, &["approvals", "show", &asked.id.short()]);
    assert!(shown.contains("touch made-it") && shown.contains("approvals approve"), "{shown}");
    assert!(!nest.work().join("made-it").exists());
    let (code, said) = cli(&nest, &["approvals", "approve", &asked.id.short()[3..]]);
    assert!(code == 0 && said.contains("allowed by "), "{said}");
    let applied = approval(&daemon, info.id, "that was applied", is(ApprovalState::Applied)).await;
    assert_eq!(decided(&applied), (Verdict::Allow, DeciderKind::Cli));
    assert!(nest.work().join("made-it").exists());
    let screen = daemon.shows(info.id, "All done.").await;
    assert!(!screen.contains("Do you want"), "the dialog is gone:\n{screen}");
    // Whoever comes second is told who was first.
    let (code, said) = cli(&nest, &["approvals", "deny", &asked.id.to_string()]);
    assert!(code == 5 && said.contains("already allowed by"), "{code} {said}");
    let (code, said) = cli(&nest, &["audit", "verify"]);
    assert!(code == 0 && said.contains("intact"), "{said}");
    let (_, audit) = cli(&nest, &["audit", "show"]);
    for kind in ["gate", "asked", "decided", "ran", "applied"] {
        assert!(audit.contains(kind), "{kind}: {audit}");
    }
    ends(&daemon, &info).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn always_allow_asks_no_second_time_and_a_deny_rule_needs_no_person() {
    let push = ("Bash", json!({"command": "git push origin main", "description": "d"}));
    let Some((nest, _mock)) = nest(&uses(&[touch("made-it"), touch("made-it"), push])).await else { return };
    let daemon = nest.start().await;
    let (code, said) = cli(
        &nest,
        &["policy", "add", "no-push", "deny", "--command", "git push", "--reason", "A person pushes here."],
    );
    assert!(code == 0, "{said}");
    let info = session(&nest, &daemon, SessionMode::Interactive).await;
    let asked = approval(&daemon, info.id, "that waits", is(ApprovalState::Pending)).await;
    let answer = Answer {
        verdict: Verdict::Allow,
        reason: None,
        answers: None,
        remember: Some(Remember { scope: RuleScope::Project, duration_s: Some(7200) }),
    };
    let decide = Op::ApprovalDecide {
        approval: asked.id,
        input_sha256: asked.input_sha256.clone(),
        answer,
        by: Some("alice@example.com".into()),
    };
    let reply = daemon.guard.execute(decide, &Who::Relay).await;
    assert!(matches!(reply, Reply::Approval { .. }), "{reply:?}");
    // The same command again runs by the rule that was made of the answer; the push does not run, by the other.
    daemon.shows(info.id, "All done.").await;
    let all = daemon.guard.told().await.unwrap();
    let asks = all.iter().filter(|approval| approval.session == info.id).count();
    assert_eq!(asks, 1, "{all:#?}");
    let requests = std::fs::read_to_string(nest.dir.path().join("requests.jsonl")).unwrap();
    assert!(requests.contains("A person pushes here."), "the model was told");
    let (code, rules) = cli(&nest, &["policy", "show"]);
    assert!(code == 0 && rules.contains("no-push") && rules.contains("touch made-it"), "{rules}");
    let (code, audit) = cli(&nest, &["audit", "show", "--json"]);
    assert!(code == 0 && audit.contains("alice@example.com") && audit.contains("\"allow\""), "{audit}");
    ends(&daemon, &info).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_does_not_run_and_claude_is_told_the_reason() {
    let Some((nest, _mock)) = nest(&uses(&[touch("made-it"), touch("second")])).await else { return };
    let daemon = nest.start().await;
    let info = session(&nest, &daemon, SessionMode::Interactive).await;
    let asked = approval(&daemon, info.id, "that waits", is(ApprovalState::Pending)).await;
    let (code, said) = cli(&nest, &["approvals", "deny", &asked.id.short(), "--reason", "not on a Friday"]);
    assert!(code == 0 && said.contains("denied by"), "{said}");
    let applied = approval(&daemon, info.id, "that was applied", |one| {
        one.id == asked.id && one.state == ApprovalState::Applied
    });
    assert_eq!(decided(&applied.await), (Verdict::Deny, DeciderKind::Cli));
    let next = approval(&daemon, info.id, "that waits", is(ApprovalState::Pending)).await;
    assert_eq!(next.input["command"], "touch second", "Claude goes on");
    let requests = std::fs::read_to_string(nest.dir.path().join("requests.jsonl")).unwrap();
    assert!(requests.contains("not on a Friday"), "the model was told");
    assert!(!nest.work().join("made-it").exists());
    daemon.op(Op::SessionStop { session: info.id, grace_ms: 0 }).await.unwrap();
    let withdrawn =
        approval(&daemon, info.id, "that is gone", |one| one.id == next.id && one.state.is_final());
    assert_eq!(withdrawn.await.state, ApprovalState::Withdrawn);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_the_keyboard_is_found_out() {
    let Some((nest, _mock)) = nest(&uses(&[touch("one"), touch("two")])).await else { return };
    let daemon = nest.start().await;
    let info = session(&nest, &daemon, SessionMode::Interactive).await;
    let asked = approval(&daemon, info.id, "that waits", is(ApprovalState::Pending)).await;
    daemon.shows(info.id, "Do you want").await;
    daemon.op(Op::SessionSend { session: info.id, text: "1".into(), enter: false }).await.unwrap();
    let applied = approval(&daemon, info.id, "that was applied", is(ApprovalState::Applied)).await;
    assert_eq!((applied.id, decided(&applied)), (asked.id, (Verdict::Allow, DeciderKind::Dialog)));
    assert!(nest.work().join("one").exists());
    // Esc is a no, of which no hook tells.
    let asked = approval(&daemon, info.id, "that waits", is(ApprovalState::Pending)).await;
    daemon.shows(info.id, "touch two").await;
    daemon.shows(info.id, "Do you want").await;
    daemon.op(Op::SessionSend { session: info.id, text: "\u{1b}".into(), enter: false }).await.unwrap();
    let applied =
        approval(&daemon, info.id, "that was applied", |one| one.id == asked.id && one.state.is_final())
            .await;
    assert_eq!(applied.state, ApprovalState::Applied, "{applied:?}");
    assert_eq!(decided(&applied), (Verdict::Deny, DeciderKind::Dialog));
    assert!(!nest.work().join("two").exists());
    daemon.op(Op::SessionStop { session: info.id, grace_ms: 0 }).await.unwrap();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_and_plans_are_answered_from_elsewhere() {
    let questions = json!({"questions": [
        {"question": "Which colour?", "header": "Colour", "multiSelect": false,
         "options": [{"label": "Red", "description": "r"}, {"label": "Blue", "description": "b"}]}]});
    let plan = ("ExitPlanMode", json!({"plan": "1. do it"}));
    let Some((nest, _mock)) = nest(&uses(&[("AskUserQuestion", questions), plan])).await else { return };
    let daemon = nest.start().await;
    let spec = SessionSpec {
        prompt: Some("plan it".into()),
        permission_mode: Some(PermissionMode::Plan),
        ..nest.spec(SessionMode::Interactive)
    };
    let info = daemon.create(spec).await;
    let asked = approval(&daemon, info.id, "that waits", is(ApprovalState::Pending)).await;
    assert_eq!(asked.kind, ApprovalKind::Question);
    let id = asked.id.short();
    let (code, said) = cli(&nest, &["approvals", "approve", &id]);
    assert!(code == 5 && said.contains("Answer it"), "{code} {said}");
    let (code, said) = cli(&nest, &["approvals", "approve", &id, "--answer", "Which colour?=Blue"]);
    assert_eq!(code, 0, "{said}");
    let asked = approval(&daemon, info.id, "of the plan", |one| {
        one.kind == ApprovalKind::Plan && one.state == ApprovalState::Pending
    })
    .await;
    let requests = std::fs::read_to_string(nest.dir.path().join("requests.jsonl")).unwrap();
    assert!(requests.contains("Blue"), "the model was told the answer");
    let (code, said) = cli(&nest, &["approvals", "approve", &asked.id.short()]);
    assert_eq!(code, 0, "{said}");
    approval(&daemon, info.id, "of the plan, applied", |one| {
        one.id == asked.id && one.state == ApprovalState::Applied
    })
    .await;
    ends(&daemon, &info).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_without_a_terminal_are_asked_about_as_well() {
    let Some((nest, _mock)) = nest(&uses(&[touch("made-it")])).await else { return };
    let daemon = nest.start().await;
    for mode in [SessionMode::Oneshot, SessionMode::Headless] {
        let _ = std::fs::remove_file(nest.work().join("made-it"));
        let info = session(&nest, &daemon, mode).await;
        let asked = approval(&daemon, info.id, "that waits", is(ApprovalState::Pending)).await;
        assert!(!nest.work().join("made-it").exists());
        let (code, said) = cli(&nest, &["approvals", "approve", &asked.id.short()]);
        assert_eq!(code, 0, "{said}");
        approval(&daemon, info.id, "that was applied", is(ApprovalState::Applied)).await;
        assert!(nest.work().join("made-it").exists());
        if mode == SessionMode::Headless {
            daemon.op(Op::SessionStop { session: info.id, grace_ms: 0 }).await.unwrap();
        }
        daemon.until(info.id, "the end", |info| info.state.is_final()).await;
    }
    daemon.stop().await;
}

/// `kill -9` while a question waits, and while its answer is on its way: `APPROVAL_KILLS` times.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_in_mid_approval_loses_nothing_and_doubles_nothing() {
    let rounds: usize = std::env::var("APPROVAL_KILLS").map_or(6, |text| text.parse().unwrap());
    let command = |n: usize| ("Bash", json!({"command": format!("echo {n} >> log"), "description": "d"}));
    let commands: Vec<(&str, Value)> = (0..rounds).map(command).collect();
    let Some((nest, _mock)) = nest(&uses(&commands)).await else { return };
    let mut daemon = Wild::start(&nest);
    let spec = SessionSpec {
        prompt: Some("do it".into()),
        permission_mode: Some(PermissionMode::Default),
        ..nest.spec(SessionMode::Interactive)
    };
    let info = daemon.create(spec).await;
    for round in 0..rounds {
        let wanted = format!("echo {round} >> log");
        let is_it = |one: &Approval| one.input["command"] == wanted.as_str();
        let asked = daemon.approval("that waits", is_it).await;
        assert_eq!(asked.state, ApprovalState::Pending);
        let decide = Op::ApprovalDecide {
            approval: asked.id,
            input_sha256: asked.input_sha256.clone(),
            answer: serde_json::from_value(json!({"verdict": "allow"})).unwrap(),
            by: None,
        };
        if round % 2 == 1 {
            // The answer races with the death: it may or may not have been taken, and both must come out right.
            let mut client = daemon.client().await;
            let deciding = tokio::spawn(async move { client.request(decide).await.is_ok() });
            for _ in 0..round % 16 {
                tokio::task::yield_now().await;
            }
            daemon.kill();
            let _ = deciding.await;
        } else {
            daemon.kill();
        }
        daemon = Wild::start(&nest);
        let again = daemon.approval("after the death", |one| one.id == asked.id).await;
        if again.state == ApprovalState::Pending {
            let (code, said) = cli(&nest, &["approvals", "approve", &asked.id.to_string()]);
            assert_eq!(code, 0, "{said}");
        }
        daemon
            .approval("that was applied", |one| one.id == asked.id && one.state == ApprovalState::Applied)
            .await;
        let log = std::fs::read_to_string(nest.work().join("log")).unwrap();
        assert_eq!(log.lines().count(), round + 1, "each command ran once: {log}");
    }
    let mut client = daemon.client().await;
    let Ok(Reply::Approvals { approvals, .. }) =
        client.request(Op::ApprovalList { states: vec![], limit: 1000 }).await
    else {
        panic!("no list")
    };
    assert_eq!(approvals.len(), rounds, "one approval for each command");
    assert!(approvals.iter().all(|one| one.state == ApprovalState::Applied), "{approvals:#?}");
    assert_eq!(cli(&nest, &["audit", "verify"]).0, 0);
    client.request(Op::SessionStop { session: info.id, grace_ms: 0 }).await.unwrap();
}

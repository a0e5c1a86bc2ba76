//! The real Claude Code against the scripted mock of its API.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use claudenest_shared::session::{Exit, PermissionMode, SessionMode, SessionSpec, SessionState, StateSource};
use claudenest_shared::wire::agent::Op;

use crate::nest::Nest;

/// `CLAUDE_BIN`, or what `make setup` has installed. Without one the test fails in CI and is skipped, loudly, elsewhere.
pub fn claude() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CLAUDE_BIN") {
        return Some(path.into());
    }
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/claude/node_modules/@anthropic-ai");
    let found = std::fs::read_dir(modules).ok().and_then(|entries| {
        entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|dir| !dir.ends_with("claude-code"))
            .map(|dir| dir.join("claude"))
            .find(|path| path.is_file())
    });
    assert!(
        found.is_some() || std::env::var_os("CI").is_none(),
        "CI needs the real Claude Code: set CLAUDE_BIN"
    );
    if found.is_none() {
        eprintln!("SKIPPED: no real Claude Code. Set CLAUDE_BIN or run `make setup`.");
    }
    found
}

pub struct Mock {
    child: Child,
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A nest whose sessions talk to a mock with this scenario.
pub async fn nest(scenario: &str) -> Option<(Nest, Mock)> {
    let claude = claude()?;
    let mut nest = Nest::new();
    let dir = nest.dir.path();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let script = dir.join("scenario.json");
    std::fs::write(&script, scenario).unwrap();
    let port_file = dir.join("port");
    let child = Command::new("python3")
        .arg(tests.join("mock_anthropic.py"))
        .args(["--port", "0", "--max-seconds", "300", "--scenario"])
        .arg(&script)
        .arg("--port-file")
        .arg(&port_file)
        .arg("--log")
        .arg(dir.join("requests.jsonl"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mock = Mock { child };
    let port = crate::wait::until("the mock's port", || {
        std::fs::read_to_string(&port_file).ok().filter(|text| !text.trim().is_empty())
    })
    .await;
    let work = nest.work().canonicalize().unwrap();
    let seed = serde_json::json!({
        "hasCompletedOnboarding": true,
        "customApiKeyResponses": {"approved": ["dummy"], "rejected": []},
        "projects": {work.to_str().unwrap(): {"hasTrustDialogAccepted": true}},
    });
    std::fs::write(dir.join("home/.claude.json"), seed.to_string()).unwrap();
    nest.env = [
        ("ANTHROPIC_BASE_URL", format!("http://127.0.0.1:{}", port.trim())),
        ("ANTHROPIC_API_KEY", "dummy".to_owned()),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ("DISABLE_AUTOUPDATER", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    nest.claude = Some(claude);
    nest.refuses_unguarded = true;
    Some((nest, mock))
}

const TWO_ANSWERS: &str = r#"{"turns": [{"content": ["first answer"]}, {"content": ["second answer"]}], "after": {"content": ["answer at ${position}"]}}"#;
const ONE_COMMAND: &str = r#"{"turns": [
    {"content": ["Looking.", {"type": "tool_use", "name": "Bash", "input": {"command": "touch made-it", "description": "d"}}]},
    {"content": ["All done."]}], "after": {"content": ["nothing left"]}}"#;

pub fn answered(info: &claudenest_shared::session::SessionInfo) -> bool {
    info.state == SessionState::WaitingInput
        && info.state_source == StateSource::Hook
        && info.state_reason.as_deref() == Some("answered; waits for the next prompt")
}

#[tokio::test]
async fn the_tui_takes_its_prompt_from_argv_and_resumes_with_its_conversation() {
    let Some((nest, _mock)) = nest(TWO_ANSWERS).await else { return };
    let daemon = nest.start().await;
    let facts = daemon.supervisor.facts().await;
    assert!(facts.claude_version.is_some());
    assert_eq!(facts.claude_logged_in, Some(true));
    let spec = SessionSpec { prompt: Some("-say something".into()), ..nest.spec(SessionMode::Interactive) };
    let info = daemon.create(spec).await;
    let info = daemon.until(info.id, "the first answer", answered).await;
    daemon.shows(info.id, "first answer").await;
    assert!(info.is_resumable && info.model.is_some());
    let conversation = info.claude_session_id.clone().unwrap();

    // A new daemon in between, then hibernate and wake with a message.
    daemon.stop().await;
    let daemon = nest.start().await;
    let asleep = daemon.session(Op::SessionHibernate { session: info.id }).await.unwrap();
    assert_eq!((asleep.state, asleep.pid), (SessionState::Hibernated, None));
    daemon.op(Op::SessionSend { session: info.id, text: "go on".into(), enter: true }).await.unwrap();
    let awake = daemon.until(info.id, "the second answer", |info| info.epoch == 2 && answered(info)).await;
    assert_eq!(awake.claude_session_id, Some(conversation));
    let screen = daemon.shows(info.id, "second answer").await;
    assert!(screen.contains("first answer"), "the conversation is there:\n{screen}");

    daemon.op(Op::SessionSend { session: info.id, text: "/exit".into(), enter: true }).await.unwrap();
    let ended = daemon.until(info.id, "the end", |info| info.state.is_final()).await;
    assert_eq!((ended.state, ended.exit), (SessionState::Completed, Some(Exit::Code { code: 0 })));
    daemon.stop().await;
}

#[tokio::test]
async fn a_permission_dialog_is_a_state_and_its_answer_another() {
    let Some((nest, _mock)) = nest(ONE_COMMAND).await else { return };
    let daemon = nest.start().await;
    let spec = SessionSpec {
        prompt: Some("do it".into()),
        permission_mode: Some(PermissionMode::Default),
        ..nest.spec(SessionMode::Interactive)
    };
    let info = daemon.create(spec).await;
    let asks = |info: &claudenest_shared::session::SessionInfo| {
        info.state == SessionState::WaitingInput
            && info.state_reason.as_deref() == Some("wants to run `touch made-it`")
    };
    let asking = daemon.until(info.id, "the dialog", asks).await;
    assert_eq!(asking.state_source, StateSource::Hook);
    daemon.shows(info.id, "Do you want").await;
    daemon.op(Op::SessionSend { session: info.id, text: "1".into(), enter: false }).await.unwrap();
    daemon.until(info.id, "work", |info| info.state == SessionState::Running).await;
    daemon.until(info.id, "the answer", answered).await;
    assert!(nest.work().join("made-it").exists());
    let ended = daemon.session(Op::SessionStop { session: info.id, grace_ms: 5000 }).await.unwrap();
    assert_eq!((ended.state, ended.exit), (SessionState::Terminated, Some(Exit::Code { code: 143 })));
    daemon.stop().await;
}

#[tokio::test]
async fn a_refused_dialog_that_no_hook_tells_ends_the_waiting() {
    let Some((nest, _mock)) = nest(ONE_COMMAND).await else { return };
    let daemon = nest.start().await;
    let spec = SessionSpec {
        prompt: Some("do it".into()),
        permission_mode: Some(PermissionMode::Default),
        ..nest.spec(SessionMode::Interactive)
    };
    let info = daemon.create(spec).await;
    daemon.shows(info.id, "Do you want").await;
    daemon.op(Op::SessionSend { session: info.id, text: "\u{1b}".into(), enter: false }).await.unwrap();
    let refused = daemon
        .until(info.id, "the refusal", |info| {
            info.state == SessionState::WaitingInput && info.state_source == StateSource::Inferred
        })
        .await;
    assert!(refused.state_reason.unwrap().contains("refused"));
    assert!(!nest.work().join("made-it").exists());
    daemon.session(Op::SessionStop { session: info.id, grace_ms: 0 }).await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn an_untrusted_directory_shows_its_dialog_as_a_state() {
    let Some((nest, _mock)) = nest(TWO_ANSWERS).await else { return };
    let other = nest.dir.path().join("untrusted");
    std::fs::create_dir(&other).unwrap();
    let daemon = nest.start().await;
    let spec = SessionSpec {
        cwd: other.to_string_lossy().into_owned(),
        prompt: Some("hi".into()),
        ..SessionSpec::default()
    };
    let info = daemon.create(spec).await;
    let waiting = daemon.until(info.id, "the dialog", |info| info.state == SessionState::WaitingInput).await;
    assert_eq!(waiting.state_source, StateSource::Inferred);
    assert!(waiting.state_reason.unwrap().contains("first-run dialog"));
    daemon.shows(info.id, "trust").await;
    // "No, exit" is chosen at first.
    daemon.op(Op::SessionSend { session: info.id, text: "\u{1b}[B".into(), enter: false }).await.unwrap();
    daemon.shows(info.id, "❯ Yes").await;
    daemon.op(Op::SessionSend { session: info.id, text: String::new(), enter: true }).await.unwrap();
    daemon.until(info.id, "the answer", answered).await;
    daemon.session(Op::SessionStop { session: info.id, grace_ms: 0 }).await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn a_oneshot_answers_and_ends_with_0() {
    let Some((nest, _mock)) = nest(TWO_ANSWERS).await else { return };
    let daemon = nest.start().await;
    let info =
        daemon.create(SessionSpec { prompt: Some("hi".into()), ..nest.spec(SessionMode::Oneshot) }).await;
    let ended = daemon.until(info.id, "the end", |info| info.state.is_final()).await;
    assert_eq!((ended.state, ended.exit), (SessionState::Completed, Some(Exit::Code { code: 0 })));
    assert!(daemon.screen(info.id).await.contains("first answer"));
    daemon.stop().await;
}

/// `claude -p hi` of the drop-in: it has a conversation, but `--resume` would want another prompt. What is offered
/// is to run it again.
#[tokio::test]
async fn a_print_run_is_not_offered_for_resume_and_its_restart_runs_it_again() {
    let Some((nest, _mock)) = nest(TWO_ANSWERS).await else { return };
    let daemon = nest.start().await;
    let spec = SessionSpec { args: vec!["-p".into(), "hi".into()], ..nest.spec(SessionMode::Interactive) };
    let info = daemon.create(spec).await;
    let is_answer = |info: &claudenest_shared::session::SessionInfo| info.state.is_final();
    let ended = daemon.until(info.id, "the end", is_answer).await;
    assert_eq!((ended.mode, ended.exit), (SessionMode::Oneshot, Some(Exit::Code { code: 0 })));
    assert!(!ended.is_resumable, "{ended:?}");
    daemon.op(Op::SessionRestart { session: info.id }).await.unwrap();
    let again = daemon.until(info.id, "the end", |info| info.epoch == 2 && is_answer(info)).await;
    assert_eq!((again.state, again.exit), (SessionState::Completed, Some(Exit::Code { code: 0 })));
    assert_ne!(again.claude_session_id, ended.claude_session_id);
    assert!(daemon.screen(info.id).await.contains("first answer"));
    daemon.stop().await;
}

#[tokio::test]
async fn every_permission_mode_is_one_that_claude_takes() {
    let Some((nest, _mock)) = nest(TWO_ANSWERS).await else { return };
    let daemon = nest.start().await;
    use PermissionMode as Mode;
    for mode in [Mode::Default, Mode::AcceptEdits, Mode::Plan, Mode::Auto, Mode::DontAsk] {
        let spec = SessionSpec {
            prompt: Some("hi".into()),
            permission_mode: Some(mode),
            ..nest.spec(SessionMode::Oneshot)
        };
        let info = daemon.create(spec).await;
        let ended = daemon.until(info.id, "the end", |info| info.state.is_final()).await;
        let screen = daemon.screen(info.id).await;
        assert_eq!(ended.exit, Some(Exit::Code { code: 0 }), "{mode:?}: {screen}");
    }
    daemon.stop().await;
}

/// Everything in the files below a directory.
pub fn recorded(dir: &Path) -> String {
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        if path.is_dir() {
            recorded(path)
        } else {
            std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
        }
    };
    paths.iter().map(read).collect()
}

#[tokio::test]
async fn a_headless_conversation_has_two_turns_and_goes_on_after_a_restart() {
    let Some((nest, _mock)) = nest(TWO_ANSWERS).await else { return };
    let daemon = nest.start().await;
    let spec = SessionSpec { prompt: Some("one".into()), ..nest.spec(SessionMode::Headless) };
    let info = daemon.create(spec).await;
    daemon.until(info.id, "the first answer", answered).await;
    daemon.stop().await;
    // The new daemon must not send the first prompt again.
    let daemon = nest.start().await;
    daemon.op(Op::SessionSend { session: info.id, text: "two".into(), enter: true }).await.unwrap();
    let begun = daemon.until(info.id, "work", |info| info.state == SessionState::Running).await;
    assert!(begun.is_resumable);
    daemon.until(info.id, "the second answer", answered).await;
    let output = |epoch: u32| {
        let run = nest.paths().sessions_dir().join(info.id.to_string()).join(epoch.to_string());
        recorded(&run)
    };
    for text in ["first answer", "second answer"] {
        // The recording follows the output by a moment.
        crate::wait::until_true(text, || output(1).contains(text)).await;
    }
    daemon.session(Op::SessionRestart { session: info.id }).await.unwrap();
    daemon
        .until(info.id, "the new run", |info| info.epoch == 2 && info.state == SessionState::WaitingInput)
        .await;
    daemon.op(Op::SessionSend { session: info.id, text: "three".into(), enter: true }).await.unwrap();
    daemon.until(info.id, "work", |info| info.epoch == 2 && info.state == SessionState::Running).await;
    daemon.until(info.id, "the third answer", answered).await;
    crate::wait::until_true("the third answer on disk", || output(2).contains("answer at 2")).await;
    daemon.session(Op::SessionStop { session: info.id, grace_ms: 5000 }).await.unwrap();
    daemon.stop().await;
}

//! The gate with the real Claude Code, in its most permissive mode, and everything that can go wrong with it: nothing runs.
//!
//! `GATE_ROUNDS` says how often Claude tries in each way; each costs ten seconds where the hook waits for a daemon.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use claudenest_agent::store::Store;
use claudenest_shared::session::{SessionInfo, SessionMode, SessionSpec};
use claudenest_shared::wire::agent::Op;
use serde_json::json;
use sqlx::Connection;

use crate::approvals::uses;
use crate::holder::program;
use crate::nest::{Daemon, Nest};
use crate::real_claude::{Mock, nest};

fn rounds() -> usize {
    std::env::var("GATE_ROUNDS").map_or(2, |text| text.parse().unwrap())
}

/// A nest whose Claude tries `rounds` commands; each would leave a file.
async fn tries(command: &str) -> Option<(Nest, Mock)> {
    let try_it = |n| ("Bash", json!({"command": format!("touch ran-{n}; {command}"), "description": "d"}));
    let (mut nest, mock) = nest(&uses(&(0..rounds()).map(try_it).collect::<Vec<_>>())).await?;
    // A program of its own, which may be spoiled.
    nest.program = nest.dir.path().join("claudenest-agent");
    std::fs::copy(program(), &nest.program).unwrap();
    Some((nest, mock))
}

/// Claude Code asks nobody in this mode.
fn spec(nest: &Nest) -> SessionSpec {
    SessionSpec {
        prompt: Some("do it".into()),
        args: vec!["--dangerously-skip-permissions".into()],
        env: [("IS_SANDBOX".to_owned(), "1".to_owned())].into(),
        ..nest.spec(SessionMode::Oneshot)
    }
}

async fn begin(nest: &Nest, daemon: &Daemon) -> SessionInfo {
    daemon.create(spec(nest)).await
}

fn files(nest: &Nest) -> Vec<String> {
    let names = std::fs::read_dir(nest.work()).unwrap().flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("ran-"))
        .collect()
}

/// Waits until Claude has tried everything and says so to the model, and checks that nothing has run.
async fn nothing_has_run(nest: &Nest, way: &str) {
    let log = nest.dir.path().join("requests.jsonl");
    // Every turn of the script but the first is asked for with the result of a try.
    let refused = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let turns = text.lines().filter(|line| line.contains("\"served\": \"turn "));
        turns.filter(|line| !line.contains("\"served\": \"turn 0\"")).count()
    };
    let patience = std::time::Duration::from_secs(60 + 15 * rounds() as u64);
    let started = std::time::Instant::now();
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
    while refused() < rounds() {
        ticks.tick().await;
        assert_eq!(files(nest), [""; 0], "{way}: a tool ran");
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(started.elapsed() < patience, "{way}: Claude tried {} of {}: {text}", refused(), rounds());
    }
    assert_eq!(files(nest), [""; 0], "{way}: a tool ran");
}

fn spoil(program: &Path, script: Option<&str>, mode: u32) {
    // Renamed, because a program that runs cannot be written.
    let new = program.with_extension("new");
    match script {
        Some(script) => std::fs::write(&new, script).unwrap(),
        None => drop(std::fs::copy(program, &new).unwrap()),
    }
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::rename(&new, program).unwrap();
}

async fn with_a_spoiled_hook(way: &str, spoil: impl Fn(&Path)) {
    let Some((nest, _mock)) = tries("true").await else { return };
    let daemon = nest.start().await;
    begin(&nest, &daemon).await;
    spoil(&nest.program);
    nothing_has_run(&nest, way).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_hook_lets_nothing_run() {
    with_a_spoiled_hook("missing", |program| std::fs::remove_file(program).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_cannot_be_executed_lets_nothing_run() {
    with_a_spoiled_hook("not executable", |program| spoil(program, None, 0o644)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_hook_lets_nothing_run() {
    with_a_spoiled_hook("killed", |program| spoil(program, Some("#!/bin/sh\nkill -9 $$\n"), 0o755)).await;
}

/// Puts something else in the place of the daemon.
async fn with_another_daemon(way: &str, put: impl FnOnce(&Path)) {
    let Some((nest, _mock)) = tries("true").await else { return };
    let daemon = nest.start().await;
    begin(&nest, &daemon).await;
    let socket = daemon.socket.clone();
    daemon.stop().await;
    put(&socket);
    nothing_has_run(&nest, way).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_daemon_lets_nothing_run() {
    with_another_daemon("daemon down", |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_none_lets_nothing_run() {
    with_another_daemon("socket replaced", |socket| std::fs::write(socket, "no socket").unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_a_daemon_lets_nothing_run() {
    with_another_daemon("garbage", |socket| {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = (&stream).read(&mut [0; 4096]);
                let _ = (&stream).write_all(b"\x09\0\0\0\0{\"a\": 1}x\xff\xff\xff\xff\xff");
            }
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_lets_nothing_run() {
    with_another_daemon("hanging", |socket| {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let held: Vec<_> = listener.incoming().flatten().collect();
            drop(held);
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_store_lets_nothing_run() {
    let Some((nest, _mock)) = tries("true").await else { return };
    let daemon = nest.start().await;
    begin(&nest, &daemon).await;
    let file = format!("sqlite://{}", nest.paths().data_dir.join("agent.db").display());
    let mut other = sqlx::SqliteConnection::connect(&file).await.unwrap();
    let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    nothing_has_run(&nest, "store locked").await;
    held.rollback().await.unwrap();
    daemon.stop().await;
}

/// The daemon's files may not grow any more: every write fails as it does on a full disk.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_lets_nothing_run() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let Some((nest, _mock)) = tries("true").await else { return };
    let daemon = crate::wild::Wild::start(&nest);
    daemon.create(spec(&nest)).await;
    let none = Rlimit { current: Some(4096), maximum: None };
    let pid = Pid::from_raw(daemon.pid().cast_signed()).unwrap();
    prlimit(Some(pid), Resource::Fsize, none).unwrap();
    nothing_has_run(&nest, "disk full").await;
    // Afterwards it goes on by itself.
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    daemon.client().await.status().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_claude_or_one_that_skips_hooks_is_not_started() {
    let mut nest = Nest::with_script("[ \"$1\" = --version ] && echo '2.1.197 (Claude Code)' || touch ran-0");
    nest.refuses_unguarded = true;
    let daemon = nest.start().await;
    let spec = SessionSpec { prompt: Some("hi".into()), ..nest.spec(SessionMode::Oneshot) };
    for _ in 0..rounds() {
        let error = daemon.session(Op::SessionCreate { spec: Box::new(spec.clone()) }).await.unwrap_err();
        assert!(error.message.contains("claude update") && error.message.contains("unguarded"), "{error}");
    }
    assert_eq!(files(&nest), [""; 0]);
    daemon.stop().await;
    let Some((nest, _mock)) = crate::real_claude::nest(&uses(&[])).await else { return };
    let daemon = nest.start().await;
    for flag in ["--bare", "--safe-mode", "--bg", "--tmux"] {
        let spec = SessionSpec { args: vec![flag.into()], ..nest.spec(SessionMode::Interactive) };
        let error = daemon.session(Op::SessionCreate { spec: Box::new(spec) }).await.unwrap_err();
        assert!(error.message.contains(flag), "{error}");
    }
    daemon.stop().await;
}

/// Every place in which hooks can be switched off says so, and a command of high risk is held all the same.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_switch_hooks_off_let_nothing_run() {
    let Some((nest, _mock)) = tries("rm -rf ~/everything").await else { return };
    let off =
        json!({"disableAllHooks": true, "env": {"CLAUDE_CODE_SIMPLE": "1", "CLAUDE_CODE_SAFE_MODE": "1"}});
    for dir in [nest.work().join(".claude"), nest.dir.path().join("home/.claude")] {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("settings.json"), off.to_string()).unwrap();
    }
    std::fs::write(nest.work().join(".claude/settings.local.json"), off.to_string()).unwrap();
    let daemon = nest.start().await;
    let mut events = daemon.guard.subscribe();
    let info = begin(&nest, &daemon).await;
    for _ in 0..rounds() {
        let pending = loop {
            let open = daemon.guard.approvals().open().await;
            if let Some(record) = open.into_iter().find(|record| record.approval.decision.is_none()) {
                break record.approval;
            }
            if tokio::time::timeout(crate::nest::PATIENCE, events.recv()).await.is_err() {
                panic!("no question; ran: {:?}\n{}", files(&nest), daemon.screen(info.id).await);
            }
        };
        assert!(pending.why.contains("High risk"), "{}", pending.why);
        assert_eq!(files(&nest), [""; 0]);
        let answer = serde_json::from_value(json!({"verdict": "deny"})).unwrap();
        let op =
            Op::ApprovalDecide { approval: pending.id, input_sha256: pending.input_sha256, answer, by: None };
        daemon.op(op).await.unwrap();
    }
    daemon.until(info.id, "the end", |info| info.state.is_final()).await;
    nothing_has_run(&nest, "settings changed").await;
    daemon.stop().await;
    // The same file can be read by whoever wants to know.
    let store = Store::reader(&nest.paths().data_dir).await.unwrap().unwrap();
    let rows = store.audit_tail(Some(info.id), 1000).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.kind == "gate").count(), rounds());
    store.close().await;
}

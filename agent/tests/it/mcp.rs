//! `claudenest-agent mcp`, and the real Claude Code with its tools.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use claudenest_shared::lock::{Lock, LockHolder, LockOrigin};
use claudenest_shared::session::{SessionInfo, SessionMode, SessionSpec, SessionState};
use claudenest_shared::wire::agent::{Op, Reply};
use serde_json::{Value, json};

use crate::holder::program;
use crate::nest::{Daemon, Nest};

/// A stand-in for Claude Code that leaves its environment in a file and stays.
const STAYS: &str = r#"env -0 > "$HOME/env-$CLAUDENEST_SESSION.part" && mv "$HOME/env-$CLAUDENEST_SESSION.part" "$HOME/env-$CLAUDENEST_SESSION"
cat"#;

async fn locks(daemon: &Daemon) -> Vec<Lock> {
    match daemon.op(Op::LockList {}).await {
        Ok(Reply::Locks { locks }) => locks,
        other => panic!("no locks: {other:?}"),
    }
}

fn is_of(lock: &Lock, info: &SessionInfo) -> bool {
    matches!(&lock.holder, LockHolder::Session { session, .. } if *session == info.id)
}

/// The MCP server of a session, started with that session's environment.
struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    last: u64,
}

impl Server {
    async fn of(nest: &Nest, info: &SessionInfo) -> Self {
        let path = nest.dir.path().join(format!("home/env-{}", info.id));
        let env = crate::wait::until("the environment", || std::fs::read(&path).ok()).await;
        let text = String::from_utf8(env).unwrap();
        let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
        let mut child = Command::new(program())
            .arg("mcp")
            .env_clear()
            .envs(pairs)
            .current_dir(nest.work())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut server = Self { child, stdin, stdout: BufReader::new(stdout), last: 0 };
        let hello = server.ask("initialize", json!({"protocolVersion": "2025-11-25"}));
        assert_eq!(hello["result"]["serverInfo"]["name"], "claudenest");
        server.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        server
    }

    fn say(&mut self, message: &Value) {
        writeln!(self.stdin, "{message}").unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn send(&mut self, method: &str, params: Value) -> u64 {
        self.last += 1;
        let id = self.last;
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.send(method, params);
        self.hear()
    }

    /// Calls a tool: its text, or the text of its error.
    fn call(&mut self, tool: &str, arguments: Value) -> Result<String, String> {
        let answer = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        let text = answer["result"]["content"][0]["text"].as_str().unwrap().to_owned();
        if answer["result"]["isError"] == true { Err(text) } else { Ok(text) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn two_sessions(nest: &Nest, daemon: &Daemon) -> (SessionInfo, SessionInfo) {
    let spec =
        |name: &str| SessionSpec { name: Some(name.to_owned()), ..nest.spec(SessionMode::Interactive) };
    (daemon.create(spec("one")).await, daemon.create(spec("two")).await)
}

// Two workers: this test waits for lines of another program, which waits for the daemon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_take_and_give_back_their_own_locks_only() {
    let nest = Nest::with_script(STAYS);
    let daemon = nest.start().await;
    let (one, two) = two_sessions(&nest, &daemon).await;
    let (mut first, mut second) = (Server::of(&nest, &one).await, Server::of(&nest, &two).await);
    let path = nest.work().join("a.rs");
    std::fs::write(&path, "x").unwrap();
    let taken = first.call("lock_acquire", json!({"path": "a.rs", "reason": "rename"})).unwrap();
    assert!(taken.contains("\"is_yours\":true"), "{taken}");
    let refused = second.call("lock_acquire", json!({"path": "./a.rs"})).unwrap_err();
    for part in ["session \"one\"", "rename", "wait_s", "session_message"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let lock = locks(&daemon).await.remove(0);
    assert!(is_of(&lock, &one) && lock.origin == LockOrigin::Tool, "{lock:?}");
    let refused = second.call("lock_release", json!({"path": "a.rs"})).unwrap_err();
    assert!(refused.contains("belongs to the session one"), "{refused}");
    let refused = second.call("lock_release", json!({"lock": lock.id})).unwrap_err();
    assert!(refused.contains("belongs to the session one"), "{refused}");
    assert!(second.call("lock_list", json!({})).unwrap().contains("\"holder\":\"one\""));

    // Waiting holds up nothing else, and ends when the other gives it back.
    let waiting = second
        .send("tools/call", json!({"name": "lock_acquire", "arguments": {"path": "a.rs", "wait_s": 600}}));
    let pinged = second.ask("ping", json!({}));
    assert_eq!(pinged["result"], json!({}));
    crate::wait::until_true("the waiter", || daemon.guard.locks().list()[0].waiters.len() == 1).await;
    assert_eq!(
        first.call("lock_release", json!({"path": "a.rs"})).unwrap(),
        format!("{} is free again.", lock.path)
    );
    let granted = second.hear();
    assert_eq!((granted["id"].as_u64(), &granted["result"]["isError"]), (Some(waiting), &json!(false)));
    assert!(is_of(&locks(&daemon).await[0], &two));

    // A cancelled call gives up its place and has no answer.
    let waiting = first
        .send("tools/call", json!({"name": "lock_acquire", "arguments": {"path": "a.rs", "wait_s": 600}}));
    crate::wait::until_true("the waiter", || daemon.guard.locks().list()[0].waiters.len() == 1).await;
    first.say(
        &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": waiting}}),
    );
    crate::wait::until_true("no waiter", || daemon.guard.locks().list()[0].waiters.is_empty()).await;
    assert_eq!(first.ask("ping", json!({}))["id"].as_u64(), Some(waiting + 1));

    // The end of a session ends its locks.
    daemon.session(Op::SessionStop { session: two.id, grace_ms: 0 }).await.unwrap();
    crate::wait::until_true("no lock", || daemon.guard.locks().list().is_empty()).await;
    daemon.session(Op::SessionStop { session: one.id, grace_ms: 0 }).await.unwrap();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_takes_a_lock_away_and_it_is_written_down() {
    let nest = Nest::with_script(STAYS);
    let daemon = nest.start().await;
    let (one, _) = two_sessions(&nest, &daemon).await;
    let mut server = Server::of(&nest, &one).await;
    server.call("lock_acquire", json!({"path": "new"})).unwrap();
    let lock = locks(&daemon).await.remove(0);
    let release = |force| Op::LockRelease { lock: lock.id, force, reason: Some("stuck".into()), by: None };
    let refused = daemon.op(release(false)).await.unwrap_err();
    assert!(refused.message.contains("force-release"), "{refused:?}");
    daemon.op(release(true)).await.unwrap();
    assert_eq!(locks(&daemon).await, []);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_see_their_neighbours_but_type_into_no_shell() {
    let nest = Nest::with_script(STAYS);
    let daemon = nest.start().await;
    let (one, two) = two_sessions(&nest, &daemon).await;
    let shell = SessionSpec { name: Some("tools".into()), ..nest.spec(SessionMode::Shell) };
    let shell = daemon.create(shell).await;
    let mut server = Server::of(&nest, &one).await;
    let listed: Value = serde_json::from_str(&server.call("session_list", json!({})).unwrap()).unwrap();
    let mut names: Vec<_> = listed["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|session| (session["name"].as_str().unwrap(), session["is_self"].as_bool().unwrap()))
        .collect();
    names.sort_unstable();
    assert_eq!(names, [("one", true), ("tools", false), ("two", false)]);
    let message = |to: &str| json!({"to": to, "text": "hi", "wait_s": 0});
    for (to, why) in
        [("tools", "no conversation"), ("one", "itself"), ("nobody", "no session"), ("two", "busy")]
    {
        let refused = server.call("session_message", message(to)).unwrap_err();
        assert!(refused.contains(why), "{to}: {refused}");
    }
    for id in [one.id, two.id, shell.id] {
        daemon.session(Op::SessionStop { session: id, grace_ms: 0 }).await.unwrap();
    }
    daemon.stop().await;
}

/// What no gate can see, a change by a program that nobody asked, is told and can be undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_file_that_a_stranger_changes_is_told_and_put_back() {
    let nest = Nest::with_script(STAYS);
    let daemon = nest.start().await;
    let (one, _) = two_sessions(&nest, &daemon).await;
    let mut server = Server::of(&nest, &one).await;
    let path = nest.work().join("a.rs");
    std::fs::write(&path, "mine").unwrap();
    server.call("lock_acquire", json!({"path": "a.rs"})).unwrap();
    let copy = nest.paths().data_dir.join("locked").join(locks(&daemon).await[0].id.to_string());
    crate::wait::until_true("the copy", || copy.exists()).await;
    let (_sender, mut receiver) = daemon.client().await.subscribe_guard().await.unwrap();
    loop {
        use claudenest_agent::control::Incoming;
        let Ok(Incoming::Message(message)) = receiver.next_or_alert().await.unwrap() else { continue };
        if matches!(*message, claudenest_shared::wire::agent::AgentMessage::LocksSent {}) {
            break;
        }
    }
    std::fs::write(&path, "a stranger's").unwrap();
    let alert = async {
        loop {
            if let Err(alert) = receiver.next_or_alert().await.unwrap() {
                return alert;
            }
        }
    };
    let alert = tokio::time::timeout(crate::nest::PATIENCE, alert).await.expect("an alert");
    assert!(alert.has_copy && alert.suspects.is_empty() && is_of(&alert.lock, &one), "{alert:?}");
    let (restored, aside) = daemon.client().await.restore(alert.lock.id).await.unwrap();
    assert_eq!(Path::new(&restored), path.canonicalize().unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(aside.unwrap()).unwrap(), "a stranger's");
    daemon.session(Op::SessionStop { session: one.id, grace_ms: 0 }).await.unwrap();
    daemon.stop().await;
}

#[test]
fn outside_of_a_session_it_says_what_it_is_for() {
    let output = Command::new(program()).arg("mcp").env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("supervised session"));
}

fn tool_turns(tool: &str, input: &Value) -> String {
    json!({
        "turns": [
            {"content": ["I do that.", {"type": "tool_use", "name": format!("mcp__claudenest__{tool}"), "input": input}]},
            {"content": ["The server answered: ${user}"]},
        ],
        "after": {"content": ["heard: ${user}"]},
    })
    .to_string()
}

/// Claude Code itself, in its default permission mode: no dialog stands in the way of the tool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_claude_takes_a_lock_with_the_tool() {
    let input = json!({"path": "src/a.rs", "reason": "a rename over many files"});
    let Some((nest, _mock)) = crate::real_claude::nest(&tool_turns("lock_acquire", &input)).await else {
        return;
    };
    let daemon = nest.start().await;
    let spec = SessionSpec { prompt: Some("lock it".into()), ..nest.spec(SessionMode::Interactive) };
    let info = daemon.create(spec).await;
    daemon.until(info.id, "the answer", crate::real_claude::answered).await;
    let lock = locks(&daemon).await.remove(0);
    assert!(is_of(&lock, &info) && lock.origin == LockOrigin::Tool, "{lock:?}");
    assert_eq!(Path::new(&lock.path), nest.work().canonicalize().unwrap().join("src/a.rs"));
    assert_eq!(lock.reason.as_deref(), Some("a rename over many files"));
    daemon.shows(info.id, "Locked. No other session").await;
    daemon.session(Op::SessionStop { session: info.id, grace_ms: 0 }).await.unwrap();
    crate::wait::until_true("no lock", || daemon.guard.locks().list().is_empty()).await;
    daemon.stop().await;
}

/// Two of them: one speaks to the other, which takes it as a prompt and knows who speaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_claude_hears_a_message_of_another_session() {
    let input = json!({"to": "hears", "text": "I need src/a.rs"});
    let Some((nest, _mock)) = crate::real_claude::nest(&tool_turns("session_message", &input)).await else {
        return;
    };
    let daemon = nest.start().await;
    let hears = SessionSpec { name: Some("hears".into()), ..nest.spec(SessionMode::Headless) };
    let hears = daemon.create(SessionSpec { prompt: Some("one".into()), ..hears }).await;
    daemon.until(hears.id, "its own first turn", |info| info.state == SessionState::WaitingInput).await;
    let speaks = SessionSpec {
        name: Some("speaks".into()),
        prompt: Some("tell them".into()),
        ..nest.spec(SessionMode::Oneshot)
    };
    let speaks = daemon.create(speaks).await;
    let ended = daemon.until(speaks.id, "the end", |info| info.state.is_final()).await;
    assert_eq!(ended.state, SessionState::Completed, "{}", daemon.screen(speaks.id).await);
    let heard = "Message from the session \\\"speaks\\\" on this machine, sent by its Claude and not by the user: I need src/a.rs";
    let output = nest.paths().sessions_dir().join(hears.id.to_string()).join("1");
    crate::wait::until_true("the message in the conversation", || {
        crate::real_claude::recorded(&output).contains(heard)
    })
    .await;
    daemon.session(Op::SessionStop { session: hears.id, grace_ms: 0 }).await.unwrap();
    daemon.stop().await;
}

//! The supervisor with real holders and children.

use claudenest_shared::code::ErrorCode;
use claudenest_shared::session::{CrashPolicy, Exit, SessionMode, SessionSpec, SessionState};
use claudenest_shared::wire::agent::{Op, Reply};

use crate::nest::Nest;

#[tokio::test]
async fn the_exit_code_is_the_childs_own() {
    let nest = Nest::with_script("echo hello; exit 7");
    let daemon = nest.start().await;
    let info =
        daemon.create(SessionSpec { prompt: Some("x".into()), ..nest.spec(SessionMode::Oneshot) }).await;
    let ended = daemon.until(info.id, "the end", |info| info.state.is_final()).await;
    assert_eq!((ended.state, ended.exit), (SessionState::Failed, Some(Exit::Code { code: 7 })));
    assert_eq!(ended.state_reason.as_deref(), Some("exit code 7"));
    assert_eq!((ended.pid, ended.output_bytes), (None, 7));
    assert!(daemon.screen(info.id).await.contains("hello"));
    daemon.stop().await;
}

#[tokio::test]
async fn a_session_outlives_the_daemon_and_its_end_is_not_missed() {
    let nest = Nest::with_script("echo ready; read line; echo got $line; exit 3");
    let daemon = nest.start().await;
    let info = daemon.create(nest.spec(SessionMode::Interactive)).await;
    daemon.shows(info.id, "ready").await;
    let pid = daemon.supervisor.info(info.id).unwrap().pid.unwrap();
    daemon.stop().await;

    let daemon = nest.start().await;
    let found = daemon.supervisor.info(info.id).unwrap();
    assert_eq!((found.pid, found.epoch), (Some(pid), 1));
    daemon.op(Op::SessionSend { session: info.id, text: "you".into(), enter: true }).await.unwrap();
    let ended = daemon.until(info.id, "the end", |info| info.state.is_final()).await;
    assert_eq!(ended.exit, Some(Exit::Code { code: 3 }));
    assert!(daemon.screen(info.id).await.contains("got you"));
    daemon.stop().await;

    // Once more: what has ended stays as it is, and can still be looked at.
    let daemon = nest.start().await;
    assert_eq!(daemon.supervisor.info(info.id).unwrap().exit, Some(Exit::Code { code: 3 }));
    assert!(daemon.screen(info.id).await.contains("got you"));
    daemon.op(Op::SessionForget { session: info.id }).await.unwrap();
    assert!(daemon.supervisor.sessions().is_empty());
    assert!(!nest.paths().sessions_dir().join(info.id.to_string()).exists());
    daemon.stop().await;
}

#[tokio::test]
async fn an_exit_while_no_daemon_runs_is_told_by_the_next() {
    let nest = Nest::with_script("echo ready; while [ ! -e go ]; do sleep 0.05; done; exit 5");
    let daemon = nest.start().await;
    let info = daemon.create(nest.spec(SessionMode::Interactive)).await;
    daemon.shows(info.id, "ready").await;
    let pid = daemon.supervisor.info(info.id).unwrap().pid.unwrap();
    daemon.stop().await;
    std::fs::write(nest.work().join("go"), "").unwrap();
    crate::wait::until_true("the end of the child", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    })
    .await;
    let daemon = nest.start().await;
    let ended = daemon.until(info.id, "the end", |info| info.state.is_final()).await;
    assert_eq!((ended.state, ended.exit), (SessionState::Failed, Some(Exit::Code { code: 5 })));
    daemon.stop().await;
}

#[tokio::test]
async fn a_killed_holder_is_noticed_at_once() {
    let nest = Nest::with_script("echo ready; read line");
    let daemon = nest.start().await;
    let info = daemon.create(nest.spec(SessionMode::Interactive)).await;
    daemon.shows(info.id, "ready").await;
    let holder = daemon.supervisor.session(info.id).unwrap().info_part().holder_pid.unwrap();
    let holder = rustix::process::Pid::from_raw(holder.cast_signed()).unwrap();
    rustix::process::kill_process(holder, rustix::process::Signal::KILL).unwrap();
    let ended = daemon.until(info.id, "the end", |info| info.state.is_final()).await;
    assert_eq!((ended.state, ended.exit), (SessionState::Failed, Some(Exit::Lost {})));
    daemon.stop().await;
}

#[tokio::test]
async fn a_shell_is_a_login_shell_and_a_stop_ends_everything_in_it() {
    let nest = Nest::new();
    let daemon = nest.start().await;
    let info = daemon.create(nest.spec(SessionMode::Shell)).await;
    daemon.until(info.id, "the shell", |info| info.state == SessionState::Running).await;
    let send = |text: &str| Op::SessionSend { session: info.id, text: text.into(), enter: true };
    daemon.op(send("shopt -q login_shell && echo log''in; echo $TERM$COLORTERM")).await.unwrap();
    daemon.shows(info.id, "login").await;
    daemon.shows(info.id, "xterm-256colortruecolor").await;
    // One that leaves the process group and ignores what it can.
    daemon.op(send("(trap '' HUP TERM; sleep 1000) & echo pid''=$!")).await.unwrap();
    let screen = daemon.shows(info.id, "pid=").await;
    let straggler: u32 =
        screen.split("pid=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let ended = daemon.session(Op::SessionStop { session: info.id, grace_ms: 3000 }).await.unwrap();
    assert_eq!(ended.state, SessionState::Terminated);
    crate::wait::until_true("the end of the straggler", || {
        !std::path::Path::new(&format!("/proc/{straggler}")).exists()
    })
    .await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_ignores_a_stop_is_killed_after_the_grace() {
    let nest = Nest::with_script("trap '' TERM HUP INT; echo ready; while :; do sleep 0.1; done");
    let daemon = nest.start().await;
    let info = daemon.create(nest.spec(SessionMode::Interactive)).await;
    daemon.shows(info.id, "ready").await;
    let ended = daemon.session(Op::SessionStop { session: info.id, grace_ms: 300 }).await.unwrap();
    assert_eq!((ended.state, ended.exit), (SessionState::Terminated, Some(Exit::Signal { signal: 9 })));
    daemon.stop().await;
}

#[tokio::test]
async fn pause_stops_and_resume_goes_on_and_restart_begins_a_new_epoch() {
    let nest = Nest::with_script("i=0; while :; do i=$((i+1)); echo n$i; sleep 0.02; done");
    let daemon = nest.start().await;
    let info = daemon.create(nest.spec(SessionMode::Interactive)).await;
    daemon.shows(info.id, "n5").await;
    let paused = daemon.session(Op::SessionPause { session: info.id }).await.unwrap();
    assert_eq!(paused.state, SessionState::Paused);
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", paused.pid.unwrap())).unwrap();
    crate::wait::until_true("it stands", || stat().contains(") T ")).await;
    daemon.session(Op::SessionResume { session: info.id }).await.unwrap();
    crate::wait::until_true("it goes on", || !stat().contains(") T ")).await;
    daemon.session(Op::SessionRestart { session: info.id }).await.unwrap();
    let again = daemon.until(info.id, "the new run", |info| info.epoch == 2 && info.pid.is_some()).await;
    assert_ne!(again.pid, paused.pid);
    let ended = daemon.session(Op::SessionStop { session: info.id, grace_ms: 0 }).await.unwrap();
    assert_eq!(ended.state, SessionState::Terminated);
    daemon.stop().await;
}

#[tokio::test]
async fn a_crash_is_restarted_by_policy() {
    let nest = Nest::with_script("echo run >> runs; kill -SEGV $$");
    let daemon = nest.start().await;
    let spec = SessionSpec { on_crash: CrashPolicy::Resume, ..nest.spec(SessionMode::Interactive) };
    let info = daemon.create(spec).await;
    let waiting = daemon
        .until(info.id, "the pause", |info| info.state == SessionState::Created && info.epoch == 1)
        .await;
    assert!(waiting.state_reason.unwrap().contains("SIGSEGV; starts again in 2 s (1 of 3)"));
    daemon.until(info.id, "the second run", |info| info.epoch == 2 && info.exit.is_some()).await;
    assert_eq!(std::fs::read_to_string(nest.work().join("runs")).unwrap().lines().count(), 2);
    daemon.op(Op::SessionStop { session: info.id, grace_ms: 0 }).await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn wrong_wishes_get_a_sentence_and_leave_nothing_behind() {
    let nest = Nest::with_script("exit 0");
    let daemon = nest.start().await;
    let error = |spec: SessionSpec| daemon.session(Op::SessionCreate { spec: Box::new(spec) });
    let code = error(nest.spec(SessionMode::Oneshot)).await.unwrap_err().code;
    assert_eq!(code, ErrorCode::Invalid);
    let spec = SessionSpec { cwd: "/nowhere".into(), ..nest.spec(SessionMode::Interactive) };
    assert_eq!(error(spec).await.unwrap_err().code, ErrorCode::BadDirectory);
    let nobody = claudenest_shared::id::SessionId::from_bytes([9; 16]);
    for op in [
        Op::SessionGet { session: nobody },
        Op::SessionStop { session: nobody, grace_ms: 0 },
        Op::SessionScreen { session: nobody },
        Op::SessionForget { session: nobody },
        Op::SessionRename { session: nobody, name: "x".into() },
        Op::SessionSend { session: nobody, text: "x".into(), enter: false },
    ] {
        assert_eq!(daemon.op(op.clone()).await.unwrap_err().code, ErrorCode::NotFound, "{op:?}");
    }
    assert!(daemon.supervisor.sessions().is_empty());
    let Reply::Directory { directory } = daemon.op(Op::DirectoryList { path: String::new() }).await.unwrap()
    else {
        panic!()
    };
    assert!(directory.path.ends_with("home"));
    daemon.stop().await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_fails_after_three_attempts() {
    let nest = Nest::with_script("exit 0");
    std::fs::write(nest.claude.as_ref().unwrap(), "#!/no/such/interpreter\n").unwrap();
    let daemon = nest.start().await;
    let info = daemon.create(nest.spec(SessionMode::Interactive)).await;
    let failed = daemon.until(info.id, "the failure", |info| info.state == SessionState::Failed).await;
    assert!(failed.state_reason.as_deref().unwrap().contains("after 3 attempts"), "{failed:?}");
    daemon.stop().await;
}

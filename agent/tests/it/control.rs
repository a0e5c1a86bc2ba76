//! The control socket with real connections.

use std::time::Duration;

use bytes::Bytes;
use claudenest_agent::control::{self, BindError, Client, ClientError, Identity, Incoming};
use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::WriterId;
use claudenest_shared::session::{Exit, SessionMode, SessionState};
use claudenest_shared::wire::agent::{AgentMessage, Op, RelayMessage};
use claudenest_shared::wire::frame::{Frame, FrameKind};

use crate::nest::Nest;

#[tokio::test]
async fn without_a_daemon_the_client_says_how_to_start_it() {
    let nest = Nest::new();
    let error = Client::connect(&nest.paths().control_socket(), &Identity::Operator).await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning), "{error:?}");
    assert!(error.to_string().contains("claudenest-agent run"));
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_a_stale_socket_replaced() {
    let nest = Nest::new();
    let daemon = nest.start().await;
    let Err(BindError::Running { pid }) = control::bind(&nest.paths()) else { panic!("two daemons") };
    assert_eq!(pid, Some(std::process::id()));
    daemon.stop().await;
    // Left behind by a daemon that was killed.
    drop(std::os::unix::net::UnixListener::bind(nest.paths().control_socket()).unwrap());
    let daemon = nest.start().await;
    let status = daemon.client().await.status().await.unwrap();
    assert_eq!((status.pid, status.sessions), (std::process::id(), 0));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(nest.paths().control_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    daemon.stop().await;
}

#[tokio::test]
async fn requests_waiting_and_changes_go_through_the_socket() {
    let nest = Nest::with_script("echo ready; read line; exit 4");
    let daemon = nest.start().await;
    let mut client = daemon.client().await;
    let (_sender, mut changes) = daemon.client().await.subscribe().await.unwrap();
    let info = client
        .session(Op::SessionCreate { spec: Box::new(nest.spec(SessionMode::Interactive)) })
        .await
        .unwrap();
    let (now, is_met) =
        client.wait(info.id, vec![SessionState::Completed], Some(Duration::from_millis(50))).await.unwrap();
    assert!(!is_met && now.state.is_live());
    daemon.shows(info.id, "ready").await;
    client.request(Op::SessionSend { session: info.id, text: "x".into(), enter: true }).await.unwrap();
    let (ended, is_met) = client.wait(info.id, vec![SessionState::Completed], None).await.unwrap();
    assert_eq!((ended.exit, is_met), (Some(Exit::Code { code: 4 }), false), "it ended in another state");
    assert!(client.wait(info.id, vec![], None).await.unwrap().1);
    client.request(Op::SessionForget { session: info.id }).await.unwrap();
    let mut states = Vec::new();
    loop {
        match changes.next().await.unwrap() {
            Incoming::Message(message) => match *message {
                AgentMessage::Session { session } => states.push(session.state),
                AgentMessage::SessionRemoved { session } => {
                    assert_eq!(session, info.id);
                    break;
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(states.last(), Some(&SessionState::Failed));
    assert!(states.contains(&SessionState::Starting));
    daemon.stop().await;
}

#[tokio::test]
async fn a_terminal_attaches_with_the_messages_of_the_link() {
    let nest = Nest::with_script("stty -echo; echo ready; read line; echo got:$line; exit 0");
    let daemon = nest.start().await;
    let info = daemon.create(nest.spec(SessionMode::Interactive)).await;
    daemon.shows(info.id, "ready").await;
    let (mut sender, mut receiver) = daemon.client().await.into_halves();
    let open = RelayMessage::StreamOpen {
        channel: 1,
        session: info.id,
        from: None,
        lag_limit_bytes: 1 << 20,
        credit: 1 << 20,
    };
    sender.message(&open).await.unwrap();
    let writer = RelayMessage::WriterOpen {
        channel: 2,
        session: info.id,
        writer: WriterId(77),
        label: "test".into(),
        may_size: true,
    };
    sender.message(&writer).await.unwrap();
    let input = Frame {
        kind: FrameKind::Input,
        flags: 0,
        channel: 2,
        epoch: 1,
        session: info.id,
        offset: 1,
        payload: Bytes::from_static(b"attached\n"),
    };
    let (mut output, mut acked, mut exit) = (Vec::new(), false, None);
    let mut is_sent = false;
    while exit.is_none() {
        match tokio::time::timeout(crate::nest::PATIENCE, receiver.next()).await.unwrap().unwrap() {
            Incoming::Message(message) => {
                if let AgentMessage::WriterOpened { channel: 2, acked: 0 } = *message {
                    sender.frame(&input).await.unwrap();
                    is_sent = true;
                }
            }
            Incoming::Frame(frame) => match frame.kind {
                FrameKind::Output | FrameKind::Snapshot => output.extend_from_slice(&frame.payload),
                FrameKind::InputAck => acked = frame.offset == 1,
                FrameKind::Exit => exit = frame.exit(),
                _ => {}
            },
            Incoming::Failed(error) => panic!("{error}"),
        }
    }
    assert!(is_sent && acked);
    assert_eq!(exit, Some(Exit::Code { code: 0 }));
    let text = String::from_utf8_lossy(&output);
    assert!(text.contains("ready") && text.contains("got:attached"), "{text:?}");
    daemon.stop().await;
}

/// The script shows what a supervised process is given; a test then plays that process.
#[tokio::test]
async fn a_session_may_report_hooks_and_see_itself_and_nothing_else() {
    let script = "echo $CLAUDENEST_SESSION $CLAUDENEST_CAPABILITY > who; echo ready; read line; \
        echo '{\"hook_event_name\":\"UserPromptSubmit\",\"session_id\":\"c1\",\"cwd\":\"/w\"}' | \"$AGENT\" hook; echo reported; read line";
    let mut nest = Nest::with_script(script);
    nest.env = vec![("AGENT".into(), crate::holder::program().to_string_lossy().into_owned())];
    let daemon = nest.start().await;
    let info = daemon.create(nest.spec(SessionMode::Interactive)).await;
    let other = daemon.create(nest.spec(SessionMode::Shell)).await;
    daemon.shows(info.id, "ready").await;
    let who = std::fs::read_to_string(nest.work().join("who")).unwrap();
    let (session, capability) = who.trim().split_once(' ').unwrap();
    assert_eq!(session, info.id.to_string());
    let identity = Identity::Session { session: info.id, capability: capability.to_owned() };
    let mut client = Client::connect(&daemon.socket, &identity).await.unwrap();
    assert_eq!(client.session(Op::SessionGet { session: info.id }).await.unwrap().id, info.id);
    for op in [
        Op::SessionList {},
        Op::SessionGet { session: other.id },
        Op::SessionStop { session: other.id, grace_ms: 0 },
        Op::SessionSend { session: info.id, text: "1".into(), enter: true },
        Op::SessionCreate { spec: Box::new(nest.spec(SessionMode::Shell)) },
    ] {
        let Err(ClientError::Refused(error)) = client.request(op.clone()).await else {
            panic!("{op:?} was done")
        };
        assert_eq!(error.code, ErrorCode::Forbidden);
    }
    assert!(matches!(client.status().await, Err(ClientError::Refused(_))));
    for (session, capability) in [(info.id, "wrong"), (other.id, capability)] {
        let foreign = Identity::Session { session, capability: capability.to_owned() };
        assert!(matches!(Client::connect(&daemon.socket, &foreign).await, Err(ClientError::Refused(_))));
    }
    // The hook program itself.
    daemon.op(Op::SessionSend { session: info.id, text: "go".into(), enter: true }).await.unwrap();
    let told =
        daemon.until(info.id, "the hook", |info| info.claude_session_id.as_deref() == Some("c1")).await;
    assert_eq!((told.state, told.is_resumable), (SessionState::Running, true));
    daemon.shows(info.id, "reported").await;
    for id in [info.id, other.id] {
        daemon.op(Op::SessionStop { session: id, grace_ms: 0 }).await.unwrap();
    }
    assert!(
        matches!(Client::connect(&daemon.socket, &identity).await, Err(ClientError::Refused(_))),
        "it has ended"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn a_hook_without_a_daemon_ends_at_once_and_blocks_nothing() {
    use std::process::{Command, Stdio};
    let started = std::time::Instant::now();
    let mut hook = Command::new(crate::holder::program())
        .arg("hook")
        .env_clear()
        .env("CLAUDENEST_SESSION", "01010101-0101-0101-0101-010101010101")
        .env("CLAUDENEST_CAPABILITY", "x")
        .env("CLAUDENEST_SOCKET", "/nowhere/control.sock")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut hook.stdin.take().unwrap(), b"{\"hook_event_name\":\"Stop\"}").unwrap();
    let output = hook.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(started.elapsed() < Duration::from_secs(5));
}

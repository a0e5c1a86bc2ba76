//! What a supervised session may do on the control socket, whatever it says who it is.

use claudenest_shared::approval::{Answer, Verdict};
use claudenest_shared::id::{ApprovalId, LockId};
use claudenest_shared::lock::LockKind;
use claudenest_shared::session::SessionMode;
use claudenest_shared::wire::agent::{Op, RelayMessage};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::nest::Nest;

/// Sends each line of `messages` on a connection of its own, after a hello, and writes down the answers.
const PROBE: &str = r#"
import json, os, socket, struct, sys
hello, out = json.loads(sys.argv[1]), open(sys.argv[2] + ".new", "w")
if hello == "own":
    hello = {"session": os.environ["CLAUDENEST_SESSION"], "capability": os.environ["CLAUDENEST_CAPABILITY"]}
def say(s, message):
    body = json.dumps(message).encode()
    s.sendall(struct.pack("<IB", len(body), 0) + body)
def hear(s):
    def exactly(n):
        data = b""
        while len(data) < n:
            part = s.recv(n - len(data))
            if not part: return None
            data += part
        return data
    head = exactly(5)
    if head is None: return None
    return json.loads(exactly(struct.unpack("<IB", head)[0]))
for line in open("messages"):
    s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(os.environ.get("SOCK") or sys.argv[3])
    say(s, dict(hello, type="hello"))
    answer = hear(s)
    if answer and answer["type"] == "welcome":
        say(s, json.loads(line))
        answer = hear(s)
    out.write(json.dumps(answer) + "\n")
out.close()
os.rename(sys.argv[2] + ".new", sys.argv[2])
"#;

/// Every way to start the probe: as it is, with an empty environment, and as a daemon that has left everything behind.
const SCRIPT: &str = r#"
echo ready; read line
python3 probe '"own"' with-capability "$SOCK"
python3 probe '{}' with-environment "$SOCK"
env -i /usr/bin/python3 probe '{}' without-environment "$SOCK"
env -i /usr/bin/setsid -f /bin/sh -c '/usr/bin/setsid -f /usr/bin/python3 probe {} orphan.tmp "$0" >/dev/null 2>&1; exit 0' "$SOCK"
while [ ! -e orphan.tmp ]; do /bin/sleep 0.05; done; mv orphan.tmp orphan
echo probed; read line
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_supervised_session_does_only_its_own_whatever_it_says() {
    let nest = {
        let mut nest = Nest::with_script(SCRIPT);
        let socket = nest.paths().control_socket().to_string_lossy().into_owned();
        nest.env = vec![("SOCK".into(), socket)];
        nest
    };
    std::fs::write(nest.work().join("probe"), PROBE).unwrap();
    let daemon = nest.start().await;
    let other = daemon.create(nest.spec(SessionMode::Shell)).await;
    let own = daemon.create(nest.spec(SessionMode::Interactive)).await;
    daemon.shows(own.id, "ready").await;

    let session = other.id;
    let approval = ApprovalId(Uuid::from_u128(7));
    let answer = Answer { verdict: Verdict::Allow, reason: None, answers: None, remember: None };
    let foreign_path = nest.work().join("theirs").to_string_lossy().into_owned();
    let taken = daemon
        .op(Op::LockAcquire {
            path: foreign_path,
            kind: LockKind::File,
            lease_s: None,
            reason: None,
            by: None,
            wait_s: None,
        })
        .await
        .unwrap();
    let lock: LockId = match taken {
        claudenest_shared::wire::agent::Reply::Locks { locks } => locks[0].id,
        other => panic!("{other:?}"),
    };
    let ops = vec![
        Op::SessionCreate { spec: Box::new(nest.spec(SessionMode::Shell)) },
        Op::SessionList {},
        Op::SessionGet { session },
        Op::SessionStop { session, grace_ms: 0 },
        Op::SessionStop { session: own.id, grace_ms: 0 },
        Op::SessionPause { session },
        Op::SessionResume { session },
        Op::SessionRestart { session },
        Op::SessionHibernate { session },
        Op::SessionRename { session, name: "mine".into() },
        Op::SessionForget { session },
        Op::SessionSend { session, text: "1".into(), enter: true },
        Op::SessionSend { session: own.id, text: "1".into(), enter: true },
        Op::SessionScreen { session },
        Op::HistoryList { session },
        Op::HistoryRead { session, epoch: 1, offset: 0, with_screen: false },
        Op::HistorySearch { session: None, text: "x".into(), limit: 1 },
        Op::DirectoryList { path: String::new() },
        Op::ApprovalList { states: vec![], limit: 10 },
        Op::ApprovalGet { approval },
        Op::ApprovalDecide { approval, input_sha256: String::new(), answer, by: Some("the boss".into()) },
        Op::LockRelease { lock, force: false, reason: None, by: None },
        Op::LockRelease { lock, force: true, reason: None, by: Some("the boss".into()) },
    ];
    let mut messages: Vec<Value> = ops
        .into_iter()
        .map(|op| serde_json::to_value(RelayMessage::Request { request: 1, op }).unwrap())
        .collect();
    for message in [
        json!({"type": "status", "request": 1}),
        json!({"type": "wait", "request": 1, "session": session, "states": [], "timeout_ms": 0}),
        json!({"type": "reload_relays", "request": 1}),
        json!({"type": "stream_open", "channel": 1, "session": session, "from": null, "lag_limit_bytes": 1, "credit": 1}),
        json!({"type": "writer_open", "channel": 1, "session": session, "writer": "01", "label": "x", "may_size": true}),
    ] {
        messages.push(message);
    }
    let count = messages.len();
    // Last, what it may: itself.
    messages.push(
        serde_json::to_value(RelayMessage::Request { request: 1, op: Op::SessionGet { session: own.id } })
            .unwrap(),
    );
    let lines: Vec<String> = messages.iter().map(Value::to_string).collect();
    std::fs::write(nest.work().join("messages"), lines.join("\n")).unwrap();

    daemon.op(Op::SessionSend { session: own.id, text: "go".into(), enter: true }).await.unwrap();
    daemon.shows(own.id, "probed").await;
    for way in ["with-capability", "with-environment", "without-environment", "orphan"] {
        let answers = std::fs::read_to_string(nest.work().join(way)).unwrap();
        let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), count + 1, "{way}");
        for (message, answer) in messages.iter().zip(&answers).take(count) {
            let code = answer.pointer("/reply/error/code").or_else(|| answer.pointer("/error/code"));
            let code = code.and_then(Value::as_str).unwrap_or("none");
            assert!(matches!(code, "forbidden" | "bad_request"), "{way}: {message} was answered {answer}");
        }
        assert_eq!(
            answers[count].pointer("/reply/session/name"),
            Some(&json!(own.name)),
            "{way}: {}",
            answers[count]
        );
    }
    assert!(
        daemon.supervisor.info(other.id).unwrap().state.is_live(),
        "nobody has touched the other session"
    );
    assert_eq!(daemon.supervisor.sessions().len(), 2);
    assert!(daemon.guard.locks().list().iter().any(|held| held.id == lock), "the lock is still held");
    for id in [own.id, other.id] {
        daemon.op(Op::SessionStop { session: id, grace_ms: 0 }).await.unwrap();
    }
    daemon.stop().await;
}

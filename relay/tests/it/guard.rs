//! Approvals and locks: copies that follow their machines, answers that only the machine takes, and what a hostile
//! machine can do to them.

use std::time::Duration;

use axum::http::StatusCode;
use claudenest_relay::db::approval::Answered;
use claudenest_relay::db::{approval, lock};
use claudenest_relay::job;
use claudenest_shared::approval::{Approval, ApprovalState};
use claudenest_shared::id::{ApprovalId, LockId, MachineId};
use claudenest_shared::lock::Lock;
use claudenest_shared::wire::agent::AgentMessage;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::protocol::Message;
use uuid::Uuid;

use crate::harness::{Browser, Relay};
use crate::hostile::{paired, until};
use crate::live::{Socket, link, listen, next, page, say};

const DAY_MS: i64 = 86_400_000;

pub fn digest(of: u8) -> String {
    format!("{of:02x}").repeat(32)
}

/// An open approval as a machine tells it.
pub fn ask(number: u8) -> Value {
    json!({
        "id": ApprovalId(Uuid::from_bytes([number; 16])), "session": Uuid::from_bytes([9; 16]),
        "session_name": "fix-login", "kind": "tool", "tool": "Bash", "summary": "wants to run `ls`",
        "input": { "command": "ls" }, "input_sha256": digest(1), "cwd": "/srv/shop", "risk": "low",
        "notes": [{ "risk": "low", "word": "reads", "text": "only reads" }], "why": "Claude Code asks",
        "state": "pending", "state_since": 1, "created_at": 1, "version": 1,
    })
}

pub fn held(number: u8) -> Value {
    json!({
        "id": LockId(Uuid::from_bytes([number; 16])), "path": "/srv/shop/a.rs", "project": "/srv/shop", "kind": "file",
        "holder": { "kind": "session", "session": Uuid::from_bytes([9; 16]), "name": "fix-login" },
        "origin": "write", "fence": number, "since": 1, "expires_at": 2, "version": number,
    })
}

pub fn decided(ask: &Value, answer: &Value, by: &Value) -> Value {
    let mut after = ask.clone();
    let mut decision = answer.clone();
    decision["by"] = json!({ "kind": "relay", "label": by });
    decision["at"] = json!(2);
    after["state"] = json!("decided");
    after["decision"] = decision;
    after["version"] = json!(after["version"].as_u64().unwrap() + 1);
    after
}

/// Plays a machine: takes the first answer to each of its asks and refuses the others. Ends with its link; returns how
/// many answers it was given.
fn authority(mut socket: Socket, mut asks: Vec<Value>) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let mut given = 0;
        for ask in &asks {
            say(&mut socket, json!({ "type": "approval", "approval": ask })).await;
        }
        say(&mut socket, json!({ "type": "approvals_sent" })).await;
        loop {
            let Some(request) = try_next(&mut socket).await else { return given };
            if request["type"] != "request" {
                continue;
            }
            let op = &request["op"];
            given += 1;
            let ask = asks.iter_mut().find(|ask| ask["id"] == op["approval"]).unwrap();
            let reply = if ask["state"] == "pending" && op["input_sha256"] == ask["input_sha256"] {
                *ask = decided(ask, &op["answer"], &op["by"]);
                json!({ "kind": "approval", "approval": ask })
            } else {
                let message = format!("{} was first.", ask["decision"]["answer"]["reason"]);
                json!({ "kind": "error", "error": { "code": "conflict", "message": message } })
            };
            say(&mut socket, json!({ "type": "response", "request": request["request"], "reply": reply }))
                .await;
        }
    })
}

async fn try_next(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            _ => return None,
        }
    }
}

pub fn decide_path(machine: MachineId, ask: &Value) -> String {
    format!("/api/machines/{machine}/approvals/{}/decide", ask["id"].as_str().unwrap())
}

pub fn answer(verdict: &str, reason: &str) -> Value {
    json!({ "input_sha256": digest(1), "answer": { "verdict": verdict, "reason": reason } })
}

pub async fn open_of(browser: &Browser<'_>) -> Vec<Value> {
    browser.get("/api/approvals").await.body["approvals"].as_array().unwrap().clone()
}

/// The news of one approval in one state.
pub async fn until_state(socket: &mut Socket, id: &Value, state: &str) -> Value {
    loop {
        let seen = until(socket, "approval").await["approval"].clone();
        if seen["id"] == *id && seen["state"] == state {
            return seen;
        }
    }
}

#[tokio::test]
async fn an_ask_reaches_every_page_and_the_first_of_three_answers_counts() {
    const ROUNDS: u8 = 60;
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (_, id, _, machine) = paired(&relay, address, &alice).await;
    let mut pages = [page(address, &alice).await, page(address, &alice).await];
    let asks: Vec<Value> = (1..=ROUNDS).map(ask).collect();
    let machine = authority(machine, asks.clone());
    for ask in &asks {
        for page in &mut pages {
            let seen = until_state(page, &ask["id"], "pending").await;
            assert_eq!((&seen["machine_id"], &seen["input"]), (&json!(id), &ask["input"]));
        }
    }
    assert_eq!(open_of(&alice).await.len(), usize::from(ROUNDS));
    for ask in &asks {
        let path = decide_path(id, ask);
        let answers = ["one", "two", "three"].map(|who| alice.post(&path, answer("deny", who)));
        let answers = futures_util::future::join_all(answers).await;
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::OK).collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        let winner = &won[0].body["decision"]["reason"];
        assert_eq!(won[0].body["decision"]["by"], json!({ "kind": "relay", "label": "alice@example.com" }));
        for lost in answers.iter().filter(|answer| answer.status != StatusCode::OK) {
            assert_eq!((lost.status, lost.code()), (StatusCode::CONFLICT, "conflict"), "{:?}", lost.body);
        }
        for page in &mut pages {
            let seen = until_state(page, &ask["id"], "decided").await;
            assert_eq!(&seen["decision"]["reason"], winner);
        }
    }
    // Decided is not over: Claude Code was not seen to follow.
    assert_eq!(open_of(&alice).await.len(), usize::from(ROUNDS));
    relay.app.hub.restarting(Duration::from_secs(1)).await;
    assert_eq!(machine.await.unwrap(), usize::from(ROUNDS) * 3);
    let audit = claudenest_relay::db::audit::actions_of(&relay.db, alice.user.id).await.unwrap();
    assert_eq!(audit.iter().filter(|action| *action == "approval.decided").count(), usize::from(ROUNDS));
}

#[tokio::test]
async fn every_page_is_told_while_the_machine_has_not_answered() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (_, id, _, mut machine) = paired(&relay, address, &alice).await;
    let mut browser = page(address, &alice).await;
    let ask = ask(1);
    say(&mut machine, json!({ "type": "approval", "approval": ask })).await;
    until_state(&mut browser, &ask["id"], "pending").await;
    let path = decide_path(id, &ask);
    let answering = alice.post(&path, answer("allow", ""));
    let machine_side = async {
        let request = until(&mut machine, "request").await;
        assert_eq!(request["op"]["by"], "alice@example.com");
        let seen = until(&mut browser, "approval_answering").await;
        assert_eq!((&seen["by"], &seen["is_over"]), (&json!("alice@example.com"), &json!(false)));
        let after = decided(&ask, &request["op"]["answer"], &request["op"]["by"]);
        let reply = json!({ "kind": "approval", "approval": after });
        say(&mut machine, json!({ "type": "response", "request": request["request"], "reply": reply })).await;
        assert_eq!(until(&mut browser, "approval_answering").await["is_over"], true);
        let mut applied = after.clone();
        applied["state"] = json!("applied");
        applied["version"] = json!(3);
        say(&mut machine, json!({ "type": "approval", "approval": applied })).await;
        // What is older changes nothing any more.
        say(&mut machine, json!({ "type": "approval", "approval": after })).await;
        until_state(&mut browser, &ask["id"], "applied").await;
    };
    let (answer, ()) = tokio::join!(answering, machine_side);
    assert_eq!((answer.status, &answer.body["state"]), (StatusCode::OK, &json!("decided")));
    assert!(open_of(&alice).await.is_empty());
    let history = alice.get("/api/approvals?which=answered").await.body;
    assert_eq!(history["approvals"][0]["state"], "applied");
    assert_eq!(history["next"], Value::Null);
}

#[tokio::test]
async fn answers_to_machines_that_are_away_are_refused_and_stale_asks_go_when_they_are_back() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (agent, id, token, mut machine) = paired(&relay, address, &alice).await;
    let mut browser = page(address, &alice).await;
    for number in 1..=3 {
        say(&mut machine, json!({ "type": "approval", "approval": ask(number) })).await;
        say(&mut machine, json!({ "type": "lock", "lock": held(number) })).await;
    }
    until(&mut browser, "lock").await;
    while until(&mut browser, "lock").await["lock"]["version"] != 3 {}
    machine.close(None).await.unwrap();
    while until(&mut browser, "machine").await["machine"]["state"] != "unreachable" {}
    assert_eq!(open_of(&alice).await.len(), 3, "what was open is shown");
    let refused = alice.post(&decide_path(id, &ask(1)), answer("allow", "")).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "machine_offline"));

    let mut machine = link(address, &agent, &token).await.unwrap();
    say(&mut machine, json!({ "type": "approval", "approval": ask(2) })).await;
    say(&mut machine, json!({ "type": "approvals_sent" })).await;
    say(&mut machine, json!({ "type": "lock", "lock": held(3) })).await;
    say(&mut machine, json!({ "type": "locks_sent" })).await;
    for number in [1, 3] {
        let gone = until(&mut browser, "approval_removed").await;
        assert_eq!((&gone["machine"], &gone["approval"]), (&json!(id), &ask(number)["id"]));
    }
    for number in [1, 2] {
        let gone = until(&mut browser, "lock_removed").await;
        assert_eq!((&gone["lock"], &gone["end"]), (&held(number)["id"], &Value::Null));
    }
    let open = open_of(&alice).await;
    assert_eq!((open.len(), &open[0]["id"]), (1, &ask(2)["id"]));
    say(&mut machine, json!({ "type": "lock_ended", "lock": held(3)["id"], "end": "released" })).await;
    assert_eq!(until(&mut browser, "lock_removed").await["end"], "released");
    assert_eq!(alice.get("/api/locks").await.body, json!([]));
    // It was an answer before: the refused one was not kept for later.
    assert_eq!(open_of(&alice).await[0]["state"], "pending");
    say(&mut machine, json!({ "type": "goodbye", "reason": "stopping" })).await;
    loop {
        let message = try_next(&mut machine).await;
        assert_ne!(message.as_ref().map(|message| message["type"].clone()), Some(json!("request")));
        if message.is_none() {
            break;
        }
    }
}

#[tokio::test]
async fn identical_asks_are_answered_together_and_others_are_not() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (_, first, _, one) = paired(&relay, address, &alice).await;
    let (_, second, _, two) = paired(&relay, address, &alice).await;
    let mut browser = page(address, &alice).await;
    // The same digest is only what the machine says: what it asks is another thing.
    let mut liar = ask(3);
    liar["input"] = json!({ "command": "rm -rf /" });
    let (one, two) = (authority(one, vec![ask(1), ask(2)]), authority(two, vec![ask(1), liar.clone()]));
    for _ in 0..4 {
        until(&mut browser, "approval").await;
    }
    let names = [(first, ask(1)), (first, ask(2)), (second, ask(1))]
        .map(|(machine, ask)| json!({ "machine_id": machine, "id": ask["id"] }));
    let body = |names: &[Value]| json!({ "approvals": names, "input_sha256": digest(1), "answer": { "verdict": "allow" } });
    let mixed = [names[0].clone(), json!({ "machine_id": second, "id": liar["id"] })];
    let refused = alice.post("/api/approvals/decide", body(&mixed)).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "conflict"));
    let mut other = body(&names);
    other["input_sha256"] = json!(digest(2));
    assert_eq!(alice.post("/api/approvals/decide", other).await.status, StatusCode::CONFLICT);
    let answered = alice.post(&decide_path(first, &ask(2)), answer("deny", "no")).await;
    assert_eq!(answered.status, StatusCode::OK);
    let done = alice.post("/api/approvals/decide", body(&names)).await;
    let results = done.body["results"].as_array().unwrap();
    let states: Vec<_> =
        results.iter().map(|one| (one["approval"]["state"].clone(), one["error"]["code"].clone())).collect();
    let (taken, refused) = ((json!("decided"), Value::Null), (Value::Null, json!("conflict")));
    assert_eq!(states, [taken.clone(), refused, taken]);
    let too_many = vec![names[0].clone(); 101];
    let answer = alice.post("/api/approvals/decide", body(&too_many)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"));
    relay.app.hub.restarting(Duration::from_secs(1)).await;
    assert_eq!((one.await.unwrap(), two.await.unwrap()), (3, 1));
}

#[tokio::test]
async fn answers_that_no_machine_takes_get_a_sentence() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (_, id, _, mut machine) = paired(&relay, address, &alice).await;
    let mut browser = page(address, &alice).await;
    say(&mut machine, json!({ "type": "approval", "approval": ask(1) })).await;
    until(&mut browser, "approval").await;
    let path = decide_path(id, &ask(1));
    for bad in [
        json!({ "verdict": "deny", "reason": "x".repeat(2_001) }),
        json!({ "verdict": "deny", "remember": { "scope": "session" } }),
        json!({ "verdict": "allow", "remember": { "scope": "session", "duration_s": 59 } }),
        json!({ "verdict": "allow", "answers": { "a": "x".repeat(70_000) } }),
    ] {
        let body = json!({ "input_sha256": digest(1), "answer": bad });
        let answer = alice.post(&path, body).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"));
    }
    let locks = format!("/api/machines/{id}/locks");
    for bad in [
        json!({ "path": "a.rs", "kind": "file" }),
        json!({ "path": "/a", "kind": "file", "lease_s": 9 }),
        json!({ "path": "/a", "kind": "file", "reason": "x".repeat(501) }),
    ] {
        let answer = alice.post(&locks, bad).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"));
    }
    let cursor = alice.get("/api/approvals?which=answered&cursor=x").await;
    assert_eq!(cursor.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn locks_are_taken_and_ended_by_their_machine() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (_, id, _, mut machine) = paired(&relay, address, &alice).await;
    let mut browser = page(address, &alice).await;
    let path = format!("/api/machines/{id}/locks");
    let taking = alice.post(&path, json!({ "path": "/srv/shop/a.rs", "kind": "file", "reason": "mine" }));
    let granting = async {
        let request = until(&mut machine, "request").await;
        let op = &request["op"];
        assert_eq!((&op["by"], &op["reason"]), (&json!("alice@example.com"), &json!("mine")));
        let mut lock = held(7);
        lock["holder"] = json!({ "kind": "person", "label": op["by"] });
        let reply = json!({ "kind": "locks", "locks": [lock] });
        say(&mut machine, json!({ "type": "lock", "lock": lock })).await;
        say(&mut machine, json!({ "type": "response", "request": request["request"], "reply": reply })).await;
        assert_eq!(until(&mut browser, "lock").await["lock"]["machine_id"], json!(id));
    };
    let (taken, ()) = tokio::join!(taking, granting);
    assert_eq!((taken.status, &taken.body["fence"]), (StatusCode::CREATED, &json!(7)));
    let path = format!("{path}/{}/release", taken.body["id"].as_str().unwrap());
    let freeing = alice.post(&path, json!({ "force": true, "reason": "stuck" }));
    let ending = async {
        let request = until(&mut machine, "request").await;
        assert_eq!(
            (&request["op"]["force"], &request["op"]["by"]),
            (&json!(true), &json!("alice@example.com"))
        );
        let reply = json!({ "kind": "done" });
        say(&mut machine, json!({ "type": "response", "request": request["request"], "reply": reply })).await;
        say(&mut machine, json!({ "type": "lock_ended", "lock": taken.body["id"], "end": "forced" })).await;
        until(&mut browser, "lock_removed").await;
    };
    let (freed, ()) = tokio::join!(freeing, ending);
    assert_eq!(freed.status, StatusCode::NO_CONTENT);
    assert_eq!(alice.post(&path, json!({})).await.status, StatusCode::NOT_FOUND, "it has ended");
}

#[tokio::test]
async fn a_machine_writes_its_own_rows_only() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let bob = relay.log_in("bob@example.com").await;
    let (_, hers, _, mut machine) = paired(&relay, address, &alice).await;
    let (_, his, _, mut stranger) = paired(&relay, address, &bob).await;
    let (mut her_page, mut his_page) = (page(address, &alice).await, page(address, &bob).await);
    say(&mut machine, json!({ "type": "approval", "approval": ask(1) })).await;
    say(&mut machine, json!({ "type": "lock", "lock": held(1) })).await;
    until(&mut her_page, "lock").await;
    // The same ids, another machine's name, and an end for what is not its own.
    let mut forged = ask(1);
    forged["machine_id"] = json!(hers);
    forged["state"] = json!("withdrawn");
    forged["version"] = json!(u64::MAX);
    forged["summary"] = json!("forged\u{202e}\u{1b}[2J");
    forged["input"] = json!({ "command": "nul\u{0} and \u{202e}" });
    say(&mut stranger, json!({ "type": "approval", "approval": forged })).await;
    say(&mut stranger, json!({ "type": "lock_ended", "lock": held(1)["id"], "end": "forced" })).await;
    say(&mut stranger, json!({ "type": "approvals_sent" })).await;
    say(&mut stranger, json!({ "type": "locks_sent" })).await;
    say(&mut stranger, json!({ "type": "lock", "lock": held(2) })).await;
    let seen = until(&mut his_page, "approval").await["approval"].clone();
    assert_eq!((&seen["machine_id"], &seen["summary"]), (&json!(his), &json!("forged[2J")));
    until(&mut his_page, "lock").await;
    // What is asked stays as it is, to the last character.
    let path = format!("/api/machines/{his}/approvals/{}", seen["id"].as_str().unwrap());
    assert_eq!(bob.get(&path).await.body["input"]["command"], "nul\u{0} and \u{202e}");
    assert_eq!(alice.get(&path).await.status, StatusCode::NOT_FOUND);

    let open = open_of(&alice).await;
    assert_eq!(
        (open.len(), &open[0]["state"], &open[0]["summary"]),
        (1, &json!("pending"), &ask(1)["summary"])
    );
    assert_eq!(alice.get("/api/locks").await.body.as_array().unwrap().len(), 1);
    assert!(open_of(&bob).await.is_empty());
    let body = json!({ "approvals": [{ "machine_id": hers, "id": ask(1)["id"] }], "input_sha256": digest(1),
        "answer": { "verdict": "allow" } });
    assert_eq!(bob.post("/api/approvals/decide", body).await.status, StatusCode::NOT_FOUND);
    for (path, theirs) in
        [("/api/approvals?machine_id=", his), ("/api/approvals?which=answered&machine_id=", his)]
    {
        let listed = alice.get(&format!("{path}{theirs}")).await.body;
        assert_eq!(listed["approvals"], json!([]), "{path}");
    }
    assert_eq!(alice.get(&format!("/api/locks?machine_id={his}")).await.status, StatusCode::NOT_FOUND);
    // Nothing of Bob's machine came to Alice's page, and nothing was asked of hers.
    let last = json!({ "type": "session_removed", "session": Uuid::nil() });
    say(&mut machine, last).await;
    loop {
        let seen = next(&mut her_page).await;
        assert!(!seen.to_string().contains(&his.to_string()), "{seen}");
        if seen["type"] == "session_removed" {
            break;
        }
    }
}

#[tokio::test]
async fn a_machine_that_floods_is_cut_off_and_fills_no_table() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (agent, _, token, machine) = paired(&relay, address, &alice).await;
    // Nothing can be noted meanwhile: what comes waits in memory.
    let mut gate = sqlx::PgConnection::connect_with(&relay.database.options()).await.unwrap();
    sqlx::query(AssertSqlSafe("begin")).execute(&mut gate).await.unwrap();
    sqlx::query(AssertSqlSafe("lock table approvals in access exclusive mode"))
        .execute(&mut gate)
        .await
        .unwrap();
    let (mut sink, mut stream) = machine.split();
    let flood = tokio::spawn(async move {
        let mut large = ask(1);
        large["input"] = json!({ "command": "x".repeat(200_000) });
        loop {
            large["id"] = json!(Uuid::now_v7());
            let text = json!({ "type": "approval", "approval": large }).to_string();
            if sink.send(Message::text(text)).await.is_err() {
                return;
            }
        }
    });
    let code = loop {
        match stream.next().await {
            Some(Ok(Message::Close(frame))) => break frame.map_or(0, |frame| frame.code.into()),
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    };
    assert_eq!(code, 4400);
    flood.abort();
    sqlx::query(AssertSqlSafe("rollback")).execute(&mut gate).await.unwrap();
    drop(link(address, &agent, &token).await.unwrap());
    // Its own news may still be written: another machine shows what there is room for.
    let (_, id, _, _quiet) = paired(&relay, address, &alice).await;
    let of_machine = format!("/api/approvals?machine_id={id}");

    let shape: Approval = serde_json::from_value(ask(1)).unwrap();
    let room = usize::try_from(approval::MAX_OPEN).unwrap();
    let epoch = 1_000;
    for number in 0..room + 3 {
        let one = Approval { id: ApprovalId(Uuid::now_v7()), version: number as u64, ..shape.clone() };
        let is_taken = approval::upsert(&relay.db, id, epoch, &one, relay.now()).await.unwrap();
        assert_eq!(is_taken, number < room, "{number}");
    }
    // The newest are listed, of all machines.
    let listed = alice.get(&of_machine).await.body["approvals"].as_array().unwrap().len();
    assert_eq!(listed, room);
    let lock: Lock = serde_json::from_value(held(1)).unwrap();
    relay
        .database
        .execute(&format!(
            "insert into locks (machine_id, id, version, link_epoch, lock)
             select '{id}', gen_random_uuid(), 1, 1, '' from generate_series(1, {})",
            lock::MAX_LOCKS
        ))
        .await;
    assert!(!lock::upsert(&relay.db, id, epoch, &lock).await.unwrap(), "there is no room");
    assert_eq!(lock::forget_unnamed(&relay.db, id, epoch).await.unwrap().len() as i64, lock::MAX_LOCKS);
    assert!(lock::upsert(&relay.db, id, epoch, &lock).await.unwrap());
    assert!(
        !lock::upsert(&relay.db, id, epoch - 1, &lock).await.unwrap(),
        "an older link says nothing any more"
    );
}

#[tokio::test]
async fn answered_approvals_are_listed_in_pages_and_kept_for_a_month() {
    let relay = Relay::new().await;
    let address = listen(&relay).await;
    let alice = relay.log_in("alice@example.com").await;
    let (_, id, _, _machine) = paired(&relay, address, &alice).await;
    let shape: Approval = serde_json::from_value(ask(1)).unwrap();
    for number in 0..7 {
        let state = ApprovalState::Applied;
        let summary = number.to_string();
        let one = Approval { id: ApprovalId(Uuid::now_v7()), state, summary, ..shape.clone() };
        approval::upsert(&relay.db, id, 9, &one, relay.now()).await.unwrap();
        // Told again, it does not move to the front.
        if number % 2 == 0 {
            relay.pass(1);
        }
        approval::upsert(&relay.db, id, 9, &one, relay.now()).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut path = "/api/approvals?which=answered&limit=3".to_owned();
    for pages in 1.. {
        let listed = alice.get(&path).await.body;
        seen.extend(listed["approvals"].as_array().unwrap().iter().map(|one| one["summary"].clone()));
        let Some(next) = listed["next"].as_str() else {
            assert_eq!(pages, 3);
            break;
        };
        path = format!("/api/approvals?which=answered&limit=3&cursor={next}");
    }
    assert_eq!(seen.len(), 7);
    assert_eq!((&seen[0], &seen[6]), (&json!("6"), &json!("0")));
    relay.pass((approval::KEPT_DAYS + 1) * DAY_MS);
    job::clean_up(&relay.app).await.unwrap();
    let kept = approval::list_answered(&relay.db, alice.user.id, Answered::default(), 10).await.unwrap();
    assert!(kept.is_empty());
}

#[test]
fn what_these_tests_say_is_what_machines_say() {
    let message = json!({ "type": "approval", "approval": ask(1) });
    let AgentMessage::Approval { approval } = serde_json::from_value(message).unwrap() else { panic!() };
    assert_eq!(approval.state, ApprovalState::Pending);
    assert!(serde_json::from_value::<Lock>(held(1)).is_ok());
    let after = decided(&ask(1), &json!({ "verdict": "allow" }), &json!("alice"));
    let after: Approval = serde_json::from_value(after).unwrap();
    assert_eq!(after.decision.unwrap().by.label, "alice");
}

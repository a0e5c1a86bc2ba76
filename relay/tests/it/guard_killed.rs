//! Answers while the relay is killed: what the machine took counts, once.

use std::net::SocketAddr;

use claudenest_shared::id::MachineId;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::guard::{answer, ask, decide_path, decided, open_of, until_state};
use crate::harness::{Browser, Relay};
use crate::hostile::until;
use crate::live::{link, page, say};
use crate::program::{Running, scratch};

/// Sends a request to a relay that is a process of its own, and does not wait for the answer.
async fn fire(address: SocketAddr, browser: &Browser<'_>, path: &str, body: &Value) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncookie: {}\r\nx-csrf-token: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        browser.cookie,
        browser.csrf,
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_killed_relay_loses_no_answer_and_doubles_none() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let agent = crate::pairing::Agent::new(&relay);
    let paired = agent.pair_with(&alice).await.body;
    let token = paired["token"].as_str().unwrap().to_owned();
    let id: MachineId = paired["machine_id"].as_str().unwrap().parse().unwrap();
    let dir = scratch();
    let args = ["--listen", "127.0.0.1:0", "--database-url", &relay.database.url()];
    for round in 1..=4u8 {
        let running = Running::start_with(&dir.path().join("data"), &args);
        let address: SocketAddr = running.listen().parse().unwrap();
        let mut machine = link(address, &agent, &token).await.unwrap();
        let mut browser = page(address, &alice).await;
        let ask = ask(round);
        say(&mut machine, json!({ "type": "approval", "approval": ask })).await;
        until_state(&mut browser, &ask["id"], "pending").await;
        let (path, body) = (decide_path(id, &ask), answer("allow", "first"));
        let _waiting = fire(address, &alice, &path, &body).await;
        let request = until(&mut machine, "request").await;
        // The machine has it, on its disk; the relay dies before it hears of that, or right after.
        let after = decided(&ask, &request["op"]["answer"], &request["op"]["by"]);
        if round % 2 == 0 {
            let reply = json!({ "kind": "approval", "approval": after });
            say(&mut machine, json!({ "type": "response", "request": request["request"], "reply": reply }))
                .await;
        }
        running.kill();
        let open = open_of(&alice).await;
        assert_eq!((open.len(), &open[0]["id"]), (1, &ask["id"]), "nobody says that it is over");

        let running = Running::start_with(&dir.path().join("data"), &args);
        let address: SocketAddr = running.listen().parse().unwrap();
        let mut browser = page(address, &alice).await;
        let mut machine = link(address, &agent, &token).await.unwrap();
        say(&mut machine, json!({ "type": "approval", "approval": after })).await;
        say(&mut machine, json!({ "type": "approvals_sent" })).await;
        let seen = until_state(&mut browser, &ask["id"], "decided").await;
        assert_eq!(seen["decision"]["reason"], "first");
        let mut applied = after.clone();
        (applied["state"], applied["version"]) = (json!("applied"), json!(3));
        say(&mut machine, json!({ "type": "approval", "approval": applied })).await;
        until_state(&mut browser, &ask["id"], "applied").await;
        let history = alice.get("/api/approvals?which=answered").await.body;
        assert_eq!(history["approvals"].as_array().unwrap().len(), usize::from(round));
        assert!(open_of(&alice).await.is_empty());
        running.stop();
    }
}

//! Pairing from both sides, and what an attacker sees of it.

use axum::http::{Method, StatusCode};
use claudenest_relay::auth::login::{hex, unhex};
use claudenest_relay::db::{audit, machine};
use claudenest_shared::id::PairingId;
use claudenest_shared::pairing::{
    PairingCode, SasInput, commitment, decision_message, enrol_message, link_message, poll_message,
};
use claudenest_shared::token;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::{Answer, Browser, Relay, request};

const MINUTES_MS: i64 = 60_000;

/// A machine's side of pairing.
pub struct Agent<'a> {
    relay: &'a Relay,
    key: SigningKey,
    nonce: [u8; 32],
    sequence: AtomicU64,
    address: String,
}

/// A pairing that the machine began.
#[derive(Clone)]
pub struct Started {
    pub id: PairingId,
    pub code: PairingCode,
    browser_nonce: [u8; 32],
}

impl<'a> Agent<'a> {
    pub fn new(relay: &'a Relay) -> Self {
        Self {
            relay,
            key: SigningKey::from_bytes(&claudenest_relay::auth::random().unwrap()),
            nonce: claudenest_relay::auth::random().unwrap(),
            sequence: AtomicU64::new(0),
            address: "203.0.113.5".to_owned(),
        }
    }

    fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    pub fn sign(&self, message: &[u8]) -> String {
        hex(&self.key.sign(message).to_bytes())
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        let draft = request(Method::POST, path, Some(body)).header("x-forwarded-for", &self.address);
        self.relay.send(draft.body_of()).await
    }

    pub async fn initiate(&self) -> Started {
        let body = json!({
            "public_key": hex(&self.public_key()),
            "commitment": hex(&commitment(&self.public_key(), &self.nonce)),
            "facts": { "hostname": "castor", "os": "linux", "user": "alice" },
        });
        let answer = self.post("/api/pairing/initiate", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        Started {
            id: answer.body["pairing_id"].as_str().unwrap().parse().unwrap(),
            code: answer.body["code"].as_str().unwrap().parse().unwrap(),
            browser_nonce: claudenest_relay::auth::random().unwrap(),
        }
    }

    /// Lookup and claim of a browser.
    pub async fn claimed_by(&self, browser: &Browser<'_>, started: &Started) -> Answer {
        let code = started.code.to_string();
        let found = browser.post("/api/pairing/lookup", json!({ "code": code })).await;
        assert_eq!(found.status, StatusCode::OK, "{:?}", found.body);
        assert_eq!(found.body["facts"]["hostname"], "castor");
        assert_eq!(found.body["address"], self.address.as_str());
        assert_eq!(found.body["pairing_id"], started.id.to_string());
        let claim =
            json!({ "pairing_id": started.id, "code": code, "browser_nonce": hex(&started.browser_nonce) });
        browser.post("/api/pairing/claim", claim).await
    }

    /// A signed poll, with the nonce revealed if asked.
    pub async fn poll(&self, started: &Started, reveals: bool) -> Answer {
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst) + 1;
        self.post(&path(started, "poll"), self.poll_body(started, sequence, reveals)).await
    }

    fn poll_body(&self, started: &Started, sequence: u64, reveals: bool) -> Value {
        let reveal = reveals.then_some(&self.nonce);
        let message = poll_message(started.id, &started.code, sequence, reveal);
        json!({
            "pairing_id": started.id, "sequence": sequence, "reveal": reveal.map(|nonce| hex(nonce)),
            "signature": self.sign(&message),
        })
    }

    fn sas<'b>(&'b self, started: &'b Started, key: &'b [u8; 32], account: &'b str) -> SasInput<'b> {
        SasInput {
            pairing_id: started.id,
            public_key: key,
            agent_nonce: &self.nonce,
            browser_nonce: &started.browser_nonce,
            account,
        }
    }

    pub async fn confirm(&self, started: &Started, account: &str) -> Answer {
        let key = self.public_key();
        let message = decision_message(true, &self.sas(started, &key, account));
        let body = json!({ "pairing_id": started.id, "signature": self.sign(&message) });
        self.post(&path(started, "confirm"), body).await
    }

    pub async fn deny(&self, started: &Started, facts: &SasInput<'_>) -> Answer {
        let body =
            json!({ "pairing_id": started.id, "signature": self.sign(&decision_message(false, facts)) });
        self.post(&path(started, "deny"), body).await
    }

    /// The whole way.
    pub async fn pair_with(&self, browser: &Browser<'_>) -> Answer {
        let started = self.initiate().await;
        assert_eq!(self.claimed_by(browser, &started).await.status, StatusCode::OK);
        assert_eq!(self.poll(&started, true).await.status, StatusCode::OK);
        let answer = self.confirm(&started, &browser.user.email).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        answer
    }
}

fn path(started: &Started, what: &str) -> String {
    format!("/api/pairing/{}/{what}", started.code)
}

/// Everything in the database, as text, but for what changes by itself.
pub async fn dump(relay: &Relay) -> String {
    let mut connection = relay.database.options().disable_statement_logging().connect().await.unwrap();
    let tables = sqlx::query("select tablename from pg_tables where schemaname = 'public' order by 1")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let mut text = String::new();
    for table in tables {
        let table: String = table.get(0);
        if table == "audit_log" {
            continue;
        }
        let rows =
            sqlx::query(AssertSqlSafe(format!("select row_to_json(t)::text from \"{table}\" t order by 1")))
                .fetch_all(&mut connection)
                .await
                .unwrap();
        for row in rows {
            text += &format!("{table} {}\n", row.get::<String, _>(0));
        }
    }
    text
}

#[tokio::test]
async fn a_machine_is_paired_and_gets_its_token_once() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let agent = Agent::new(&relay);
    let started = agent.initiate().await;
    assert_eq!(agent.poll(&started, false).await.body, json!({ "state": "pending" }));
    let claimed = agent.claimed_by(&alice, &started).await;
    assert_eq!(claimed.body["account"], "alice@example.com");
    let polled = agent.poll(&started, false).await.body;
    assert_eq!(polled["state"], "claimed");
    assert_eq!(polled["account"], "alice@example.com");
    assert_eq!(polled["address"], "192.0.2.1");
    assert_eq!(polled["browser_nonce"], hex(&started.browser_nonce));
    // Not before the machine has revealed its nonce: nobody has compared digits yet.
    assert_eq!(agent.confirm(&started, "alice@example.com").await.status, StatusCode::NOT_FOUND);
    let status_path = format!("/api/pairing/status/{}", started.id);
    assert_eq!(alice.get(&status_path).await.body["agent_nonce"], Value::Null);
    assert_eq!(agent.poll(&started, true).await.body["state"], "claimed");
    let status = alice.get(&status_path).await.body;
    let nonce: [u8; 32] = unhex(status["agent_nonce"].as_str().unwrap()).unwrap();
    let key: [u8; 32] = unhex(status["public_key"].as_str().unwrap()).unwrap();
    assert_eq!(hex(&commitment(&key, &nonce)), status["commitment"].as_str().unwrap());
    assert_eq!(
        SasInput { agent_nonce: &nonce, ..agent.sas(&started, &key, status["account"].as_str().unwrap()) }
            .digits(),
        agent.sas(&started, &key, "alice@example.com").digits()
    );
    // A yes for another account is no yes.
    assert_eq!(agent.confirm(&started, "mallory@example.com").await.status, StatusCode::NOT_FOUND);
    let paired = agent.confirm(&started, "alice@example.com").await;
    assert_eq!(paired.status, StatusCode::OK, "{:?}", paired.body);
    assert_eq!(paired.body["machine_name"], "castor");
    let token = paired.body["token"].as_str().unwrap();
    let known = machine::authenticate(&relay.db, &token::digest(token)).await.unwrap().unwrap();
    assert_eq!((known.user, known.public_key), (alice.user.id, agent.public_key()));
    assert!(!dump(&relay).await.contains(&token[5..30]), "only the digest is stored");
    assert_eq!(agent.confirm(&started, "alice@example.com").await.status, StatusCode::NOT_FOUND, "once");
    assert_eq!(agent.poll(&started, false).await.status, StatusCode::NOT_FOUND, "over");
    assert_eq!(alice.get(&status_path).await.body["machine_id"], paired.body["machine_id"]);
    let machines = alice.get("/api/machines").await.body;
    assert_eq!(machines[0]["state"], "never_connected");
    assert_eq!(machines[0]["facts"]["hostname"], "castor");
    let actions = audit::actions_of(&relay.db, alice.user.id).await.unwrap();
    assert!(actions.ends_with(&["pairing.claimed".to_owned(), "machine.paired".to_owned()]), "{actions:?}");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_machines_request_the_answer_is_the_same() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let (agent, stranger) = (Agent::new(&relay), Agent::new(&relay));
    let live = agent.initiate().await;
    let claimed = agent.initiate().await;
    agent.claimed_by(&alice, &claimed).await;
    let consumed = agent.initiate().await;
    agent.claimed_by(&alice, &consumed).await;
    agent.poll(&consumed, true).await;
    assert_eq!(agent.confirm(&consumed, "alice@example.com").await.status, StatusCode::OK);
    let replayed = agent.poll_body(&live, 90, false);
    assert_eq!(agent.post(&path(&live, "poll"), replayed.clone()).await.status, StatusCode::OK);
    let mut answers: Vec<(&str, Answer)> = Vec::new();
    let unsigned = |started: &Started| json!({ "pairing_id": started.id, "sequence": 99, "signature": "" });
    let other_code = Started { code: PairingCode::from_random(7), ..live.clone() };
    let other_id = Started { id: claimed.id, ..live.clone() };
    for (what, answer) in [
        ("unsigned", agent.post(&path(&live, "poll"), unsigned(&live)).await),
        ("foreign key", stranger.poll(&live, false).await),
        ("unknown code", agent.poll(&other_code, false).await),
        ("another pairing's code", agent.poll(&other_id, false).await),
        ("no code at all", agent.post("/api/pairing/!!!/poll", unsigned(&live)).await),
        ("replay", agent.post(&path(&live, "poll"), replayed).await),
        ("consumed, signed", agent.poll(&consumed, false).await),
        ("consumed, foreign key", stranger.poll(&consumed, false).await),
        ("second confirmation", agent.confirm(&consumed, "alice@example.com").await),
        ("confirmation of a stranger", stranger.confirm(&claimed, "alice@example.com").await),
        ("confirmation before a claim", agent.confirm(&live, "alice@example.com").await),
        ("confirmation of an unknown code", agent.confirm(&other_code, "alice@example.com").await),
        ("denial by a stranger", stranger.deny(&claimed, &stranger.sas(&claimed, &[0; 32], "")).await),
    ] {
        answers.push((what, answer));
    }
    relay.pass(10 * MINUTES_MS);
    answers.push(("expired, unsigned", agent.post(&path(&live, "poll"), unsigned(&live)).await));
    answers.push(("expired, foreign key", stranger.poll(&live, false).await));
    answers.push(("confirmation too late", agent.confirm(&claimed, "alice@example.com").await));
    for (what, answer) in &answers {
        assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "pairing_not_found"), "{what}");
        assert_eq!(answer.shape(), answers[0].1.shape(), "{what}");
    }
    // The honest machine is told.
    agent.sequence.store(1_000, Ordering::SeqCst);
    assert_eq!(agent.poll(&live, false).await.body, json!({ "state": "expired" }));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_code_people_get_the_same_answer() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let bob = relay.log_in("bob@example.com").await;
    let agent = Agent::new(&relay);
    let taken = agent.initiate().await;
    agent.claimed_by(&alice, &taken).await;
    let old = agent.initiate().await;
    relay.pass(10 * MINUTES_MS);
    let live = agent.initiate().await;
    let mallory = relay.log_in("mallory@example.com").await;
    let claimed = agent.initiate().await;
    agent.claimed_by(&alice, &claimed).await;
    let look = async |browser: &Browser<'_>, code: String| {
        browser.post("/api/pairing/lookup", json!({ "code": code })).await
    };
    let unknown = look(&bob, "000-000".to_owned()).await;
    assert_eq!((unknown.status, unknown.code()), (StatusCode::NOT_FOUND, "pairing_not_found"));
    assert_eq!(look(&bob, old.code.to_string()).await.shape(), unknown.shape(), "expired");
    assert_eq!(look(&bob, claimed.code.to_string()).await.shape(), unknown.shape(), "claimed by another");
    let claim = |started: &Started| json!({ "pairing_id": started.id, "code": started.code.to_string(), "browser_nonce": "00".repeat(32) });
    assert_eq!(mallory.post("/api/pairing/claim", claim(&claimed)).await.shape(), unknown.shape());
    let mixed = Started { code: claimed.code, ..live.clone() };
    assert_eq!(mallory.post("/api/pairing/claim", claim(&mixed)).await.shape(), unknown.shape());
    let mine = look(&alice, claimed.code.to_string()).await;
    assert_eq!(mine.body["state"], "claimed", "the claimant may look again (a reload)");
    let typo = look(&alice, "A7K-M2".to_owned()).await;
    assert_eq!((typo.status, typo.code()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"));
    assert!(typo.body["error"]["message"].as_str().unwrap().contains("six characters"));
}

#[tokio::test]
async fn a_no_on_either_side_ends_it_and_the_other_learns_of_it() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let agent = Agent::new(&relay);
    let key = agent.public_key();

    let started = agent.initiate().await;
    agent.claimed_by(&alice, &started).await;
    agent.poll(&started, true).await;
    let facts = agent.sas(&started, &key, "alice@example.com");
    assert_eq!(agent.deny(&started, &facts).await.status, StatusCode::NO_CONTENT);
    let status = alice.get(&format!("/api/pairing/status/{}", started.id)).await;
    assert_eq!(status.body["state"], "denied");
    assert_eq!(agent.confirm(&started, "alice@example.com").await.status, StatusCode::NOT_FOUND);
    assert_eq!(agent.deny(&started, &facts).await.status, StatusCode::NOT_FOUND);

    let started = agent.initiate().await;
    agent.claimed_by(&alice, &started).await;
    let cancel = format!("/api/pairing/cancel/{}", started.id);
    assert_eq!(alice.call(Method::POST, &cancel, None).await.status, StatusCode::NO_CONTENT);
    agent.sequence.store(50, Ordering::SeqCst);
    assert_eq!(agent.poll(&started, false).await.body, json!({ "state": "denied" }));

    // Before anybody has claimed it, and with the claim not seen yet.
    for is_claimed in [false, true] {
        let started = agent.initiate().await;
        if is_claimed {
            agent.claimed_by(&alice, &started).await;
        }
        let unknown =
            SasInput { agent_nonce: &[0; 32], browser_nonce: &[0; 32], ..agent.sas(&started, &key, "") };
        assert_eq!(agent.deny(&started, &unknown).await.status, StatusCode::NO_CONTENT, "{is_claimed}");
    }
}

#[tokio::test]
async fn a_nonce_that_was_not_committed_to_ends_the_pairing() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let mut agent = Agent::new(&relay);
    let started = agent.initiate().await;
    agent.claimed_by(&alice, &started).await;
    agent.nonce = [9; 32];
    assert_eq!(agent.poll(&started, true).await.status, StatusCode::NOT_FOUND);
    assert_eq!(agent.poll(&started, false).await.body, json!({ "state": "denied" }));
}

#[tokio::test]
async fn of_many_claims_and_confirmations_at_once_one_wins() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let bob = relay.log_in("bob@example.com").await;
    for _ in 0..10 {
        let agent = Agent::new(&relay);
        let started = agent.initiate().await;
        let claim = json!({ "pairing_id": started.id, "code": started.code.to_string(), "browser_nonce": hex(&started.browser_nonce) });
        let (one, two) = tokio::join!(
            alice.post("/api/pairing/claim", claim.clone()),
            bob.post("/api/pairing/claim", claim.clone())
        );
        let winners: Vec<_> =
            [&one, &two].into_iter().filter(|answer| answer.status == StatusCode::OK).collect();
        assert_eq!(winners.len(), 1);
        let account = winners[0].body["account"].as_str().unwrap().to_owned();
        agent.poll(&started, true).await;
        let all = futures_util::future::join_all((0..8).map(|_| agent.confirm(&started, &account))).await;
        assert_eq!(all.iter().filter(|answer| answer.status == StatusCode::OK).count(), 1);
        relay.pass(10 * MINUTES_MS);
    }
}

#[tokio::test]
async fn wrong_codes_run_out_of_budget_and_nobody_elses() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let bob = relay.log_in("bob@example.com").await;
    let agent = Agent::new(&relay);
    let look = async |browser: &Browser<'_>, code: &str| {
        browser.post("/api/pairing/lookup", json!({ "code": code })).await.status
    };
    // All at once: tries in parallel do not get around it. Each is counted before any is answered, so that all may
    // be refused; never more than the budget are answered.
    let wrong = futures_util::future::join_all((0..30).map(|_| look(&alice, "000-000"))).await;
    let counted = wrong.iter().filter(|status| **status == StatusCode::NOT_FOUND).count();
    assert!(counted <= 5, "{counted}");
    assert_eq!(wrong.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count(), 30 - counted);
    for _ in 0..5 {
        look(&alice, "rubbish").await;
    }
    let live = agent.initiate().await;
    assert_eq!(
        look(&alice, &live.code.to_string()).await,
        StatusCode::TOO_MANY_REQUESTS,
        "even the right one"
    );
    assert_eq!(look(&bob, &live.code.to_string()).await, StatusCode::OK, "another account");
    relay.pass(10 * MINUTES_MS);
    let live = agent.initiate().await;
    assert_eq!(look(&alice, &live.code.to_string()).await, StatusCode::OK, "ten minutes later");
    for _ in 0..4 {
        for _ in 0..5 {
            look(&alice, "000-000").await;
        }
        relay.pass(10 * MINUTES_MS);
    }
    let live = agent.initiate().await;
    assert_eq!(look(&alice, &live.code.to_string()).await, StatusCode::TOO_MANY_REQUESTS, "twenty in a day");
    let actions = audit::actions_of(&relay.db, alice.user.id).await.unwrap();
    assert!(
        actions.contains(&"pairing.limited".to_owned()) && actions.contains(&"pairing.wrong_code".to_owned())
    );
}

#[tokio::test]
async fn a_network_runs_out_of_budget_whatever_the_accounts() {
    let relay = Relay::new().await;
    let mut refused = 0;
    for index in 0..6 {
        let mut browser = relay.log_in(&format!("user{index}@example.com")).await;
        browser.address = format!("198.51.100.{index}");
        for _ in 0..4 {
            let answer = browser.post("/api/pairing/lookup", json!({ "code": "000-000" })).await;
            refused += usize::from(answer.status == StatusCode::TOO_MANY_REQUESTS);
        }
    }
    assert_eq!(refused, 4, "24 tries, 20 allowed");
}

#[tokio::test]
async fn codes_cannot_be_asked_for_without_end() {
    let relay = Relay::new().await;
    let agent = Agent::new(&relay);
    for _ in 0..20 {
        agent.initiate().await;
    }
    let body = json!({ "public_key": hex(&agent.public_key()), "commitment": "00".repeat(32), "facts": {} });
    assert_eq!(agent.post("/api/pairing/initiate", body).await.status, StatusCode::TOO_MANY_REQUESTS);
    let other = Agent { address: "198.51.100.1".to_owned(), ..Agent::new(&relay) };
    for (key, commitment) in [
        ("zz", "00".repeat(32)),
        (hex(&[0; 32]).as_str(), "00".repeat(32)),
        (hex(&other.public_key()).as_str(), "00".to_owned()),
    ] {
        let body = json!({ "public_key": key, "commitment": commitment, "facts": {} });
        let answer = other.post("/api/pairing/initiate", body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{key}");
    }
}

#[tokio::test]
async fn an_enrolment_token_pairs_one_machine() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let agent = Agent::new(&relay);
    let make = async || {
        alice.post("/api/enrolment-tokens", json!({ "label": "rack 7" })).await.body["token"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let body = |agent: &Agent<'_>, token: &str, signed_by: &Agent<'_>| {
        let message = enrol_message(&token::digest(token), &agent.public_key());
        json!({ "token": token, "public_key": hex(&agent.public_key()), "facts": { "hostname": "pollux" }, "signature": signed_by.sign(&message) })
    };
    let token = make().await;
    let stranger = Agent::new(&relay);
    let refused = agent.post("/api/pairing/enrol", body(&agent, &token, &stranger)).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::NOT_FOUND, "pairing_not_found"));
    let paired = agent.post("/api/pairing/enrol", body(&agent, &token, &agent)).await;
    assert_eq!(paired.status, StatusCode::OK, "{:?}", paired.body);
    assert_eq!(
        (&paired.body["account"], &paired.body["machine_name"]),
        (&json!("alice@example.com"), &json!("pollux"))
    );
    let again = stranger.post("/api/pairing/enrol", body(&stranger, &token, &stranger)).await;
    assert_eq!(again.shape(), refused.shape(), "single use");
    let late = make().await;
    relay.pass(60 * MINUTES_MS);
    assert_eq!(
        agent.post("/api/pairing/enrol", body(&agent, &late, &agent)).await.shape(),
        refused.shape(),
        "one hour"
    );
    let removed = make().await;
    let listed = alice.get("/api/enrolment-tokens").await.body;
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(listed[2]["machine_id"], paired.body["machine_id"]);
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(
        alice.call(Method::DELETE, &format!("/api/enrolment-tokens/{id}"), None).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        agent.post("/api/pairing/enrol", body(&agent, &removed, &agent)).await.shape(),
        refused.shape()
    );
}

/// Cloned machines have one host name; their owner has to tell them apart.
#[tokio::test]
async fn machines_of_one_user_have_different_names() {
    let relay = Relay::new().await;
    let (alice, bob) = (relay.log_in("alice@example.com").await, relay.log_in("bob@example.com").await);
    let agents: Vec<_> = (0..3).map(|_| Agent::new(&relay)).collect();
    // At the same moment, too: one transaction names, the others wait.
    let (first, second, third) =
        tokio::join!(agents[0].pair_with(&alice), agents[1].pair_with(&alice), agents[2].pair_with(&alice));
    let name = |answer: &Answer| answer.body["machine_name"].as_str().unwrap().to_owned();
    let mut names = vec![name(&first), name(&second), name(&third)];
    names.sort();
    assert_eq!(names, ["castor", "castor-2", "castor-3"]);
    assert_eq!(name(&Agent::new(&relay).pair_with(&bob).await), "castor", "others' machines do not count");
    let path = |answer: &Answer| format!("/api/machines/{}", answer.body["machine_id"].as_str().unwrap());
    let rename = async |machine: &Answer, to: &str| {
        alice.call(Method::PATCH, &path(machine), Some(json!({ "name": to }))).await
    };
    assert_eq!(rename(&first, "Studio").await.body["name"], "Studio");
    let taken = rename(&second, "sTUDIO").await;
    assert_eq!((taken.status, taken.code()), (StatusCode::CONFLICT, "name_taken"), "{:?}", taken.body);
    assert!(taken.body["error"]["message"].as_str().unwrap().contains("Choose another"));
    assert_eq!(rename(&first, "studio").await.body["name"], "studio", "its own name is not taken");
    // A machine that was removed does not keep its name, and gets a free one when it comes back.
    assert_eq!(alice.call(Method::DELETE, &path(&first), None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(rename(&second, "studio").await.status, StatusCode::OK);
    assert_eq!(rename(&third, "castor").await.status, StatusCode::OK);
    assert_eq!(name(&agents[0].pair_with(&alice).await), "castor-2");
}

#[tokio::test]
async fn a_machine_can_leave_and_come_back_as_itself() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let agent = Agent::new(&relay);
    let paired = agent.pair_with(&alice).await.body;
    let token = paired["token"].as_str().unwrap();
    let unpair = async |token: &str, signer: &Agent<'_>| {
        let message = link_message(&[5; 32], &token::digest(token));
        let body = json!({ "nonce": hex(&[5; 32]), "signature": signer.sign(&message) });
        let draft = request(Method::POST, "/api/agent/unpair", Some(body));
        relay.send(draft.header("authorization", &format!("Bearer {token}")).body_of()).await
    };
    let stranger = Agent::new(&relay);
    assert_eq!(unpair(token, &stranger).await.code(), "unauthenticated", "the token alone is not enough");
    assert_eq!(unpair("mn_000000000000000000000000000000000000", &agent).await.code(), "unauthenticated");
    assert_eq!(unpair(token, &agent).await.status, StatusCode::NO_CONTENT);
    assert_eq!(unpair(token, &agent).await.code(), "revoked");
    assert_eq!(alice.get("/api/machines").await.body[0]["state"], "revoked");
    let rename = json!({ "name": "the old one" });
    let id = paired["machine_id"].as_str().unwrap();
    let renamed = alice.call(Method::PATCH, &format!("/api/machines/{id}"), Some(rename)).await;
    assert_eq!(renamed.body["name"], "the old one");
    let again = agent.pair_with(&alice).await.body;
    assert_eq!(
        (&again["machine_id"], &again["machine_name"]),
        (&paired["machine_id"], &json!("the old one"))
    );
    assert_ne!(again["token"], paired["token"]);
    assert_eq!(unpair(token, &agent).await.code(), "unauthenticated", "the old token is void");
    // Removed by its user, and paired by another: a machine of its own.
    assert_eq!(
        alice.call(Method::DELETE, &format!("/api/machines/{id}"), None).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(alice.get("/api/machines").await.body, json!([]));
    assert_eq!(unpair(again["token"].as_str().unwrap(), &agent).await.code(), "revoked");
    let bob = relay.log_in("bob@example.com").await;
    let his = agent.pair_with(&bob).await.body;
    assert_ne!(his["machine_id"], paired["machine_id"]);
}

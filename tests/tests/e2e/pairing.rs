//! Pairing as an attacker sees it: no token, and one indistinguishable answer.

use anyhow::{Context, Result, ensure};
use claudenest_shared::id::PairingId;
use claudenest_shared::pairing::{PairingCode, SasInput, commitment, decision_message, poll_message};
use claudenest_tests::agent::{Agent, OWNER};
use claudenest_tests::http::{Answer, Http};
use claudenest_tests::relay::Relay;
use claudenest_tests::{hex, random};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

/// An agent's side of a pairing, done by hand.
struct Machine {
    key: SigningKey,
    nonce: [u8; 32],
    id: PairingId,
    code: PairingCode,
    http: Http,
}

impl Machine {
    fn initiate(relay: &Relay) -> Result<Self> {
        let key = SigningKey::from_bytes(&random());
        let nonce = random();
        let public = key.verifying_key().to_bytes();
        let http = Http::anonymous(&relay.url());
        let body = json!({
            "public_key": hex(&public),
            "commitment": hex(&commitment(&public, &nonce)),
            "facts": {"hostname": "studio", "os": "linux", "user": "alice"},
        });
        let answer = http.post("/api/pairing/initiate", &body)?.ok()?;
        Ok(Self {
            key,
            nonce,
            id: answer["pairing_id"].as_str().context("an id")?.parse()?,
            code: answer["code"].as_str().context("a code")?.parse().context("a pairing code")?,
            http,
        })
    }

    fn poll_as(&self, key: &SigningKey, code: &PairingCode, sequence: u64, reveal: bool) -> Result<Answer> {
        let reveal = reveal.then_some(&self.nonce);
        let signature = key.sign(&poll_message(self.id, code, sequence, reveal));
        self.poll_raw(code, sequence, reveal, json!(hex(&signature.to_bytes())))
    }

    fn poll_raw(
        &self,
        code: &PairingCode,
        sequence: u64,
        reveal: Option<&[u8; 32]>,
        signature: Value,
    ) -> Result<Answer> {
        let mut body = json!({"pairing_id": self.id, "sequence": sequence, "signature": signature});
        if let Some(reveal) = reveal {
            body["reveal"] = json!(hex(reveal));
        }
        self.http.post(&format!("/api/pairing/{code}/poll"), &body)
    }

    fn poll(&self, sequence: u64, reveal: bool) -> Result<Answer> {
        self.poll_as(&self.key, &self.code, sequence, reveal)
    }
}

#[test]
fn wrong_codes_unsigned_polls_foreign_keys_and_replays_get_one_answer() -> Result<()> {
    let relay = Relay::start()?;
    let machine = Machine::initiate(&relay)?;
    ensure!(machine.poll(1, false)?.ok()?["state"] == "pending");

    let stranger = SigningKey::from_bytes(&random());
    let wrong: PairingCode =
        if machine.code.to_string() == "000-000" { "111-111" } else { "000-000" }.parse()?;
    let good = machine.key.sign(&poll_message(machine.id, &machine.code, 9, None));
    let answers = [
        ("wrong code", machine.poll_as(&machine.key, &wrong, 2, false)?),
        ("foreign key", machine.poll_as(&stranger, &machine.code, 3, false)?),
        ("no signature", machine.poll_raw(&machine.code, 4, None, json!("00".repeat(64)))?),
        (
            "signature of another sequence",
            machine.poll_raw(&machine.code, 5, None, json!(hex(&good.to_bytes())))?,
        ),
        ("replay", machine.poll(1, false)?),
    ];
    for (what, answer) in &answers {
        ensure!(answer.status == 404 && answer.code() == "pairing_not_found", "{what}: {answer:?}");
        ensure!(answer.body == answers[0].1.body, "{what} can be told apart");
    }
    ensure!(machine.poll(6, false)?.ok()?["state"] == "pending", "the honest machine is not disturbed");
    Ok(())
}

#[test]
fn the_token_is_delivered_once_and_only_after_the_machine_confirmed() -> Result<()> {
    let relay = Relay::start()?;
    let machine = Machine::initiate(&relay)?;
    let alice = relay.log_in(OWNER)?;
    let seen = alice.post("/api/pairing/lookup", &json!({"code": machine.code.to_string()}))?.ok()?;
    ensure!(seen["facts"]["hostname"] == "studio", "{seen}");
    let browser_nonce: [u8; 32] = random();
    let claim = json!({"pairing_id": machine.id, "code": machine.code.to_string(), "browser_nonce": hex(&browser_nonce)});
    alice.post("/api/pairing/claim", &claim)?.ok()?;
    let bob = relay.log_in("bob@example.com")?;
    let second = bob.post("/api/pairing/claim", &claim)?;
    ensure!((400..500).contains(&second.status), "a second claim: {second:?}");
    ensure!(bob.get(&format!("/api/pairing/status/{}", machine.id))?.status == 404);

    let polled = machine.poll(1, false)?.ok()?;
    ensure!(polled["state"] == "claimed" && polled["account"] == OWNER, "{polled}");
    ensure!(polled.get("token").is_none_or(Value::is_null), "a poll never carries a token");
    machine.poll(2, true)?.ok()?;
    let status = alice.get(&format!("/api/pairing/status/{}", machine.id))?.ok()?;
    ensure!(status["agent_nonce"] == hex(&machine.nonce), "{status}");

    let public = machine.key.verifying_key().to_bytes();
    let account = OWNER;
    let facts = SasInput {
        pairing_id: machine.id,
        public_key: &public,
        agent_nonce: &machine.nonce,
        browser_nonce: &browser_nonce,
        account,
    };
    let confirm = |key: &SigningKey| -> Result<Answer> {
        let signature = key.sign(&decision_message(true, &facts));
        let body = json!({"pairing_id": machine.id, "signature": hex(&signature.to_bytes())});
        machine.http.post(&format!("/api/pairing/{}/confirm", machine.code), &body)
    };
    let foreign = confirm(&SigningKey::from_bytes(&random()))?;
    ensure!(foreign.status == 404 && foreign.code() == "pairing_not_found", "{foreign:?}");
    let granted = confirm(&machine.key)?.ok()?;
    let token = granted["token"].as_str().context("a token")?;
    ensure!(token.starts_with("mn_"));
    let again = confirm(&machine.key)?;
    ensure!(again.status == 404 && !again.body.to_string().contains("mn_"), "{again:?}");
    let late = machine.poll(3, false)?;
    ensure!(late.status == 404 && late.code() == "pairing_not_found", "a poll after delivery: {late:?}");
    let status = alice.get(&format!("/api/pairing/status/{}", machine.id))?.ok()?;
    ensure!(status["state"] == "consumed" && status["machine_id"] == granted["machine_id"], "{status}");

    // A machine's token opens the link and nothing else.
    let thief = Http::anonymous(&relay.url()).with_bearer(token);
    ensure!(thief.get("/api/machines")?.status == 401);
    Ok(())
}

#[test]
fn a_machine_that_expects_another_account_refuses() -> Result<()> {
    let relay = Relay::start()?;
    let agent = Agent::new()?;
    relay.login_token(OWNER)?;
    relay.login_token("mallory@example.com")?;
    let mut command = agent.command();
    command.args(["pair", "--relay", &relay.url(), "--expect-account", OWNER]);
    let mut pairing = claudenest_tests::process::Running::start(command, None)?;
    let code = pairing.wait_line(claudenest_tests::PATIENCE, claudenest_tests::agent::find_code)?;
    let _ = relay.run(&["pair", &code, "--email", "mallory@example.com"])?;
    let status = pairing.wait(claudenest_tests::PATIENCE)?;
    ensure!(!status.success(), "it paired with a stranger:\n{}", pairing.output());
    ensure!(relay.log_in("mallory@example.com")?.get("/api/machines")?.ok()? == json!([]));
    Ok(())
}

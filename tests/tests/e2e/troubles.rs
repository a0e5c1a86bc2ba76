//! What a person is told when the way to the relay is broken: at which step, why, and what to do.

use anyhow::{Context, Result, ensure};
use claudenest_tests::agent::{Agent, OWNER};
use claudenest_tests::relay::Relay;
use claudenest_tests::{PATIENCE, free_port};
use serde_json::Value;

use crate::support::Certificate;

/// What `doctor` says under one of its names; all that it says must be sentences.
fn finding(agent: &Agent, id: &str) -> Result<Value> {
    let doctor = agent.run(&["doctor", "--json"])?;
    let report: Value = serde_json::from_str(&doctor.stdout).with_context(|| format!("{doctor:?}"))?;
    let findings = report["findings"].as_array().with_context(|| format!("findings in {report}"))?.clone();
    for finding in &findings {
        let text = finding["text"].as_str().unwrap_or_default();
        ensure!(text.ends_with('.') && !text.contains("os error"), "{finding}");
    }
    let found = findings.iter().find(|finding| finding["id"] == id);
    found.cloned().with_context(|| format!("no {id} among {findings:#?}"))
}

fn check(agent: &Agent, relay: &str, id: &str, texts: &[&str]) -> Result<()> {
    let found = finding(agent, id)?;
    let said = format!("{} {}", found["text"], found["fix"]);
    for text in texts {
        ensure!(said.contains(text), "{text:?} is not in {found}");
    }
    ensure!(found["level"] == "error", "{found}");
    // What `doctor` says of a relay, `pair` says of it too.
    let paired = agent.run(&["pair", "--relay", relay, "--expect-account", OWNER])?;
    ensure!(
        paired.code == Some(1) && paired.stderr.contains(texts[0]),
        "{:?} is not in {paired:?}",
        texts[0]
    );
    Ok(())
}

#[test]
fn doctor_and_pair_say_at_which_step_a_relay_is_not_reached() -> Result<()> {
    let own = Certificate::new("Our house")?;
    let files = |certificate: &Certificate| {
        let path = |name| certificate.path(name).display().to_string();
        ["--tls-cert".to_owned(), path("cert.pem"), "--tls-key".to_owned(), path("key.pem")]
    };
    let arguments = files(&own);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let port = free_port();
    let address = format!("https://127.0.0.1:{port}");
    let mut relay = Relay::start_on(port, &arguments, Some(&address))?;
    let mut agent = Agent::new()?;
    // The authority comes from the configuration, so that every command has it.
    agent.set_env("CLAUDENEST_AGENT_EXTRA_CA", own.path("ca.pem").display().to_string());
    agent.pair(&relay, OWNER)?;
    ensure!(finding(&agent, "relay.token")?["level"] == "ok");

    relay.stop()?;
    check(&agent, &address, "relay.tcp", &["nothing listens there", "Start the relay", "firewall"])?;

    own.issue("127.0.0.1", true)?;
    relay.resume()?;
    check(&agent, &address, "relay.tls", &["its certificate has expired", "Renew", "clock"])?;

    relay.stop()?;
    own.issue("elsewhere.example", false)?;
    relay.resume()?;
    check(&agent, &address, "relay.tls", &["its certificate is for another name", "issued for"])?;

    for (authority, texts) in [
        ("Another house", ["not signed by an authority that this machine trusts", "--extra-ca", "extra_ca"]),
        ("Our house", ["not signed by the authority of that name", "made anew", "do not connect"]),
    ] {
        let foreign = Certificate::new(authority)?;
        relay.stop()?;
        for name in ["cert.pem", "key.pem"] {
            std::fs::copy(foreign.path(name), own.path(name))?;
        }
        relay.resume()?;
        check(&agent, &address, "relay.tls", &texts)?;
    }

    // Repaired: nothing has to be paired again.
    relay.stop()?;
    own.issue("127.0.0.1", false)?;
    relay.resume()?;
    ensure!(finding(&agent, "relay.token")?["level"] == "ok");

    // The relay moved, and its old name is gone.
    let list = agent.data().join("relays.json");
    let text = std::fs::read_to_string(&list)?;
    std::fs::write(&list, text.replace(&address, "https://no-such-name.invalid"))?;
    check(&agent, "https://no-such-name.invalid", "relay.dns", &["cannot be resolved", "DNS"])
}

/// The person in the browser sends the machine away.
#[test]
fn a_pairing_that_is_cancelled_in_the_browser_ends_with_a_sentence() -> Result<()> {
    let relay = Relay::start()?;
    let agent = Agent::new()?;
    let alice = relay.log_in(OWNER)?;
    let mut command = agent.command();
    command.args(["pair", "--relay", &relay.url(), "--expect-account", "bob@example.com"]);
    let mut pairing = claudenest_tests::process::Running::start(command, None)?;
    let code = pairing.wait_line(PATIENCE, claudenest_tests::agent::find_code)?;
    let found = alice.post("/api/pairing/lookup", &serde_json::json!({"code": code}))?.ok()?;
    let id = found["pairing_id"].as_str().context("an id")?;
    let nonce = claudenest_tests::hex(&claudenest_tests::random::<32>());
    let claim = serde_json::json!({"pairing_id": id, "code": code, "browser_nonce": nonce});
    alice.post("/api/pairing/claim", &claim)?.ok()?;
    let cancelled = alice.post(&format!("/api/pairing/cancel/{id}"), &serde_json::json!({}))?;
    let status = pairing.wait(PATIENCE)?;
    let said = pairing.output();
    // Either side may be the first to say no.
    let is_told =
        said.contains("was cancelled in the browser. Run") || said.contains("--expect-account allows only");
    ensure!(status.code() == Some(5) && is_told, "{cancelled:?} {status}: {said}");
    ensure!(alice.get("/api/machines")?.ok()? == serde_json::json!([]));
    Ok(())
}

//! Past output: uploaded once and whole whatever dies in the middle, replayed as it was seen, gone when it is forgotten.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claudenest_tests::agent::{Agent, OWNER};
use claudenest_tests::http::Http;
use claudenest_tests::relay::Relay;
use claudenest_tests::viewer::Viewer;
use claudenest_tests::{PATIENCE, repository};
use serde_json::Value;

use crate::fidelity::{difference, judge};
use crate::support::{id_of, wait_online};

const TICK: Duration = Duration::from_millis(100);

/// Looks until `look` finds something; the relay tells nobody when history arrives.
async fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let mut ticks = tokio::time::interval(TICK);
    let waiting = async {
        loop {
            ticks.tick().await;
            if let Some(found) = look()? {
                return Ok(found);
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.with_context(|| format!("waited in vain: {what}"))?
}

/// A relay and an agent that uploads history.
async fn world(policy: &str) -> Result<(Relay, Agent, Http)> {
    let relay = Relay::start()?;
    let mut agent = Agent::new()?;
    agent.set_env("CLAUDENEST_AGENT_HISTORY", policy);
    agent.pair(&relay, OWNER)?;
    agent.run_daemon()?;
    let alice = relay.log_in(OWNER)?;
    wait_online(&alice).await?;
    Ok((relay, agent, alice))
}

/// The end of a session's only run in the relay's copy.
fn stored_end(user: &Http, id: &str) -> Result<u64> {
    let history = user.get(&format!("/api/sessions/{id}/history?source=relay"))?.ok()?;
    Ok(history["runs"][0]["end"].as_u64().unwrap_or(0))
}

/// Every byte from `offset` on, chunk by chunk, checking that they follow each other; the screen of the first.
fn download(
    user: &Http,
    id: &str,
    source: &str,
    offset: u64,
    screen: bool,
) -> Result<(Vec<u8>, Vec<u8>, u64)> {
    let (mut bytes, mut first, mut at) = (Vec::new(), None, offset);
    let mut wants_screen = screen;
    loop {
        let path = format!(
            "/api/sessions/{id}/history/chunk?epoch=1&offset={at}&screen={wants_screen}&source={source}"
        );
        let answer = user.get(&path)?.ok()?;
        let chunk = &answer["chunk"];
        if chunk.is_null() {
            break;
        }
        let number = |name: &str| chunk[name].as_u64().with_context(|| format!("{name} in {chunk}"));
        let (start, end) = (number("start")?, number("end")?);
        let data = STANDARD.decode(chunk["data"].as_str().context("data")?)?;
        ensure!(end - start == data.len() as u64 && number("from")? == start, "a chunk with a hole: {start}");
        if first.is_none() {
            let screen = chunk["screen"].as_str().map(|screen| STANDARD.decode(screen)).transpose()?;
            first = Some((screen.unwrap_or_default(), start));
        } else {
            ensure!(start == at, "a chunk at {start} instead of {at}");
        }
        bytes.extend_from_slice(&data);
        wants_screen = false;
        match chunk["next"].as_u64() {
            Some(next) => at = next,
            None => break,
        }
    }
    let (screen, start) = first.context("a first chunk")?;
    Ok((screen, bytes, start))
}

fn export(agent: &Agent, format: &str) -> Result<String> {
    agent.run(&["session", "export", "h", "--format", format])?.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_whole_and_never_doubled_when_agent_and_relay_are_killed_in_mid_upload() -> Result<()> {
    let (mut relay, mut agent, alice) = world("full").await?;
    let poured = agent.home().join("poured");
    let script = format!(
        "raw; print needle-one\\r\\n; print +; wait go; pour {0}; print needle-last; exit 7",
        poured.display()
    );
    let session = agent.new_session("h", &script)?;
    let id = id_of(&session)?.to_string();
    let mut viewer = Viewer::attach(&alice, id_of(&session)?).await?;
    viewer.write(b"go").await?;
    let mut last = 0;
    for round in 0..6 {
        let more = until("more history is stored", || {
            // The relay may be coming up.
            Ok(stored_end(&alice, &id).ok().filter(|end| *end > last + 3_000))
        });
        last = more.await.with_context(|| format!("round {round}"))?;
        if round % 2 == 0 {
            agent.kill_daemon();
            agent.run_daemon()?;
        } else {
            relay.kill();
            relay.resume()?;
        }
        wait_online(&alice).await?;
    }
    viewer.write(b"stop").await?;
    viewer.until_exit().await?;
    let raw = export(&agent, "raw")?.into_bytes();
    ensure!(raw.len() as u64 == viewer.seen().bytes, "the export has {} bytes", raw.len());
    until("the rest is stored", || Ok((stored_end(&alice, &id)? == raw.len() as u64).then_some(()))).await?;

    // While the machine is away the relay's copy answers.
    agent.stop_daemon()?;
    until("the machine is seen to be away", || {
        let history = alice.get(&format!("/api/sessions/{id}/history"))?.ok()?;
        Ok((history["source"] == "relay").then_some(()))
    })
    .await?;
    let (_, stored, start) = download(&alice, &id, "relay", 0, false)?;
    ensure!(start == 0 && stored == raw, "the copy differs: {} of {} bytes", stored.len(), raw.len());
    let run = alice.get(&format!("/api/sessions/{id}/history"))?.ok()?["runs"][0].clone();
    ensure!(run["bytes"] == raw.len() as u64 && run["gaps"] == serde_json::json!([]), "{run}");
    for word in ["needle-one", "needle-last"] {
        let found = alice.get(&format!("/api/history/search?q={word}&session_id={id}"))?.ok()?;
        ensure!(found["matches"].as_array().is_some_and(|all| !all.is_empty()), "{word}: {found}");
        ensure!(found["asked"] == serde_json::json!([]), "the machine is away: {found}");
    }

    // It belongs to its owner, and goes with its session.
    let mallory = relay.log_in("mallory@example.com")?;
    for path in ["history", "history/chunk"] {
        ensure!(mallory.get(&format!("/api/sessions/{id}/{path}"))?.status == 404, "{path}");
    }
    let found = mallory.get("/api/history/search?q=needle-one")?.ok()?;
    ensure!(found["matches"] == serde_json::json!([]), "{found}");
    agent.run_daemon()?;
    wait_online(&alice).await?;
    agent.run(&["session", "forget", "h"])?.ok()?;
    until("the session is forgotten", || {
        let status = alice.get(&format!("/api/sessions/{id}/history?source=relay"))?.status;
        Ok((status == 404).then_some(()))
    })
    .await?;
    let found = alice.get("/api/history/search?q=needle-one")?.ok()?;
    ensure!(found["matches"] == serde_json::json!([]), "its text is gone: {found}");
    Ok(())
}

/// The screen after an export, a copy, or a jump into the middle is that of somebody who watched; xterm.js judges.
#[tokio::test(flavor = "multi_thread")]
async fn exports_copies_and_jumps_show_the_screen_that_was_live() -> Result<()> {
    let (_relay, agent, alice) = world("full").await?;
    let sample = repository().join("tests/fixtures/samples/pty/claude_session.raw");
    let script = format!(
        "raw; print +; wait go; file {0}; file {0}; print \\e]2\\pEND-MARK\\a; wait bye; exit 0",
        sample.display()
    );
    let session = agent.new_session("h", &script)?;
    let id = id_of(&session)?.to_string();
    let mut live = Viewer::attach(&alice, id_of(&session)?).await?;
    live.keep_output();
    live.write(b"go").await?;
    live.until_text("END-MARK").await?;
    let length = live.seen().bytes;
    until("everything is stored", || Ok((stored_end(&alice, &id)? == length).then_some(()))).await?;
    live.write(b"bye").await?;
    live.until_exit().await?;
    let output = |format: &str| -> Result<Vec<u8>> {
        let mut text = String::new();
        for line in export(&agent, format)?.lines().skip(1) {
            let event: Value = serde_json::from_str(line)?;
            if event[1] == "o" {
                text.push_str(event[2].as_str().context("output")?);
            }
        }
        Ok(text.into_bytes())
    };
    let mut streams = vec![
        ("live", live.kept().to_vec()),
        ("raw", export(&agent, "raw")?.into_bytes()),
        ("asciicast v2", output("asciicast-v2")?),
        ("asciicast v3", output("asciicast-v3")?),
    ];
    for source in ["relay", "machine"] {
        for offset in [0, length / 3, length / 2, length - 10] {
            let (mut screen, rest, start) = download(&alice, &id, source, offset, true)?;
            ensure!(start <= offset, "{source}: a screen at {start} for {offset}");
            screen.extend_from_slice(&rest);
            streams.push((source, screen));
        }
    }
    let (cols, rows) = (
        session["size"]["cols"].as_u64().context("cols")?,
        session["size"]["rows"].as_u64().context("rows")?,
    );
    let bytes: Vec<&[u8]> = streams.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let screens = judge(cols, rows, &bytes)?;
    for ((name, _), screen) in streams.iter().zip(&screens).skip(1) {
        if let Some(difference) = difference(&screens[0], screen) {
            bail!("{name}: {difference}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_consent_nothing_is_stored_and_off_shows_nothing() -> Result<()> {
    let (_relay, mut agent, alice) = world("metadata").await?;
    let session = agent.new_session("h", "raw; print secret-word\\r\\n; wait bye")?;
    let id = id_of(&session)?.to_string();
    agent.run(&["session", "kill", "h", "--force"])?.ok()?;
    let path = format!("/api/sessions/{id}/history");
    let history = alice.get(&path)?.ok()?;
    ensure!(history["source"] == "machine", "an online machine shows its recording: {history}");
    let found = alice.get("/api/history/search?q=secret-word")?.ok()?;
    ensure!(found["matches"][0]["line"] == "secret-word", "{found}");
    ensure!(alice.get(&format!("{path}?source=relay"))?.ok()?["source"] == "none");
    agent.stop_daemon()?;
    until("the machine is away", || Ok((alice.get(&path)?.ok()?["source"] == "none").then_some(()))).await?;
    agent.set_env("CLAUDENEST_AGENT_HISTORY", "off");
    agent.run_daemon()?;
    wait_online(&alice).await?;
    let refused = alice.get(&format!("{path}?source=machine"))?;
    ensure!(refused.status == 403 && refused.code() == "forbidden", "{refused:?}");
    ensure!(alice.get(&path)?.ok()?["source"] == "none");
    Ok(())
}

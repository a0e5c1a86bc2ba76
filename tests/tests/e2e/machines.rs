//! Machines of a user: paired without a person, several at once, removed from either side; what `status` and `doctor` say.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use claudenest_shared::machine::MachineState;
use claudenest_shared::wire::browser::ServerMessage;
use claudenest_tests::agent::{Agent, OWNER};
use claudenest_tests::browser::Socket;
use claudenest_tests::relay::Relay;
use serde_json::json;

use crate::support::{World, wait_online};

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_token_pairs_once_and_nobody_needs_to_sit_at_the_machine() -> Result<()> {
    let relay = Relay::start()?;
    let alice = relay.log_in(OWNER)?;
    let token = alice.post("/api/enrolment-tokens", &json!({"label": "fleet"}))?.ok()?;
    let mut agent = Agent::new()?;
    let file = agent.home().join("token");
    std::fs::write(&file, token["token"].as_str().context("a token")?)?;
    let file = file.to_str().context("a UTF-8 path")?;
    agent.run(&["pair", "--relay", &relay.url(), "--token-file", file])?.ok()?;
    agent.run_daemon()?;
    wait_online(&alice).await?;
    let second = Agent::new()?;
    let again = second.run(&["pair", "--relay", &relay.url(), "--token-file", file])?;
    ensure!(again.code != Some(0) && !again.stderr.contains("panicked"), "{again:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keyring_and_dbus_secrets_are_in_private_files() -> Result<()> {
    let world = World::new().await?;
    let mut found = 0;
    let mut dirs = vec![world.agent.data()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else if std::fs::read(entry.path())
                .is_ok_and(|bytes| bytes.windows(3).any(|window| window == b"mn_"))
            {
                found += 1;
                let mode = entry.metadata()?.permissions().mode() & 0o777;
                ensure!(mode == 0o600, "{} has mode {mode:o}", entry.path().display());
                ensure!(
                    entry.path().components().any(|part| part.as_os_str() == "secrets"),
                    "{}",
                    entry.path().display()
                );
            }
        }
    }
    ensure!(found == 1, "the token is in {found} files");
    let status = world.agent.run(&["status"])?.ok()?;
    ensure!(!status.contains("mn_") && status.contains(&world.relay.url()), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_of_one_user_are_both_there_and_a_removed_one_is_cut_off() -> Result<()> {
    let mut world = World::new().await?;
    let second = Agent::start_paired(&world.relay)?;
    let mut socket = Socket::open(&world.alice).await?;
    let mut online: std::collections::BTreeSet<_> = socket
        .machines
        .iter()
        .filter(|machine| machine.state == MachineState::Online)
        .map(|machine| machine.id)
        .collect();
    while online.len() < 2 {
        let id = socket
            .wait_for(|message| match message {
                ServerMessage::Machine { machine } if machine.state == MachineState::Online => {
                    Some(machine.id)
                }
                _ => None,
            })
            .await?;
        online.insert(id);
    }
    // The daemon stops in order, and the page says so at once.
    world.agent.stop_daemon()?;
    let stopped = socket
        .wait_for(|message| match message {
            ServerMessage::Machine { machine } if machine.state == MachineState::Stopped => Some(machine.id),
            _ => None,
        })
        .await?;
    let other = online.into_iter().find(|id| *id != stopped).context("the second machine")?;
    let removed = world.alice.send("DELETE", &format!("/api/machines/{other}"), None)?;
    ensure!(removed.status == 204, "{removed:?}");
    let cut = tokio::time::Instant::now();
    socket
        .wait_for(|message| match message {
            ServerMessage::MachineRemoved { machine } if *machine == other => Some(()),
            ServerMessage::Machine { machine }
                if machine.id == other && machine.state == MachineState::Revoked =>
            {
                Some(())
            }
            _ => None,
        })
        .await?;
    ensure!(cut.elapsed() < Duration::from_secs(5), "it took {:?}", cut.elapsed());
    let gone = world.alice.get(&format!("/api/machines/{other}"))?;
    ensure!(gone.status == 404 || gone.body["state"] == "revoked", "{gone:?}");
    let doctor = second.run(&["doctor"])?;
    ensure!(doctor.code == Some(1), "{doctor:?}");
    let said = (doctor.stdout + &doctor.stderr).to_lowercase();
    ensure!(
        (said.contains("revoked") || said.contains("removed")) && said.contains("claudenest-agent pair"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unpairing_gives_the_token_up() -> Result<()> {
    let world = World::new().await?;
    world.agent.run(&["unpair"])?.ok()?;
    let machines = world.alice.get("/api/machines")?.ok()?;
    ensure!(machines == json!([]) || machines[0]["state"] == "revoked", "{machines}");
    let again = world.agent.run(&["unpair"])?;
    ensure!(again.code != Some(0), "{again:?}");
    // Everything local still works.
    world.agent.new_session("local", "raw; print HELLO; wait never")?;
    Ok(())
}

#[test]
fn doctor_finds_what_is_missing_and_says_the_repair() -> Result<()> {
    let agent = Agent::new()?;
    std::fs::remove_file(agent.home().join("bin/claude"))?;
    let mut command = agent.command();
    // A machine without Claude Code, whatever the one that runs the tests has.
    command.env("PATH", "/usr/bin:/bin").arg("doctor");
    let doctor = claudenest_tests::process::run(&mut command, claudenest_tests::PATIENCE)?;
    let said = doctor.stdout + &doctor.stderr;
    for wanted in ["claude-code", "claudenest-agent pair", "service install"] {
        ensure!(said.contains(wanted), "{wanted} is not in:\n{said}");
    }
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}

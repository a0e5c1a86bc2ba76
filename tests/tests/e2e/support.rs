//! What several end-to-end tests need.

use std::path::Path;

use anyhow::{Context, Result};
use claudenest_shared::id::SessionId;
use claudenest_shared::machine::MachineState;
use claudenest_shared::wire::browser::ServerMessage;
use claudenest_tests::agent::{Agent, OWNER};
use claudenest_tests::browser::Socket;
use claudenest_tests::http::Http;
use claudenest_tests::relay::Relay;
use serde_json::Value;

/// A relay, an agent paired with it and linked, and the owner's login.
pub struct World {
    pub relay: Relay,
    pub agent: Agent,
    pub alice: Http,
}

impl World {
    pub async fn new() -> Result<Self> {
        let relay = Relay::start()?;
        let agent = Agent::start_paired(&relay)?;
        let alice = relay.log_in(OWNER)?;
        wait_online(&alice).await?;
        Ok(Self { relay, agent, alice })
    }
}

/// Waits until the user's first machine is online.
pub async fn wait_online(user: &Http) -> Result<()> {
    let mut socket = Socket::open(user).await?;
    if socket.machines.iter().any(|machine| machine.state == MachineState::Online) {
        return Ok(());
    }
    socket
        .wait_for(|message| match message {
            ServerMessage::Machine { machine } if machine.state == MachineState::Online => Some(()),
            _ => None,
        })
        .await
        .context("waiting for the machine to come online")
}

/// The id in a session's JSON.
pub fn id_of(session: &Value) -> Result<SessionId> {
    session["id"].as_str().with_context(|| format!("an id in {session}"))?.parse().context("a session id")
}

/// The process id in a session's JSON.
pub fn pid_of(session: &Value) -> Result<u32> {
    let pid = session["pid"].as_u64().with_context(|| format!("a pid in {session}"))?;
    Ok(u32::try_from(pid)?)
}

/// Byte count and SHA-256 that the fake Claude wrote into a file.
pub fn tally(file: &Path) -> Result<(u64, String)> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let (bytes, digest) = text.trim().split_once(' ').context("count and digest")?;
    Ok((bytes.parse()?, digest.to_owned()))
}

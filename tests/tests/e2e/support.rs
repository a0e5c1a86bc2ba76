//! What several end-to-end tests need.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use claudenest_shared::id::SessionId;
use claudenest_shared::machine::MachineState;
use claudenest_shared::wire::browser::ServerMessage;
use claudenest_tests::agent::{Agent, OWNER};
use claudenest_tests::browser::Socket;
use claudenest_tests::http::Http;
use claudenest_tests::relay::Relay;
use claudenest_tests::scratch;
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

/// A certificate authority, and the certificate of a relay, as files.
pub struct Certificate {
    dir: tempfile::TempDir,
    authority: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Certificate {
    /// A new authority with a name, and a certificate for 127.0.0.1 that it signed.
    pub fn new(authority_name: &str) -> Result<Self> {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let dir = scratch("tls");
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(rcgen::DnType::CommonName, authority_name);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        std::fs::write(dir.path().join("ca.pem"), authority.self_signed(&key)?.pem())?;
        let certificate = Self { dir, authority: Issuer::new(authority, key) };
        certificate.issue("127.0.0.1", false)?;
        Ok(certificate)
    }

    /// Issues a certificate for `name` in the place of the last one, also one that has expired.
    pub fn issue(&self, name: &str, is_expired: bool) -> Result<()> {
        let key = rcgen::KeyPair::generate()?;
        let mut leaf = rcgen::CertificateParams::new(vec![name.into()])?;
        if is_expired {
            leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
            leaf.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let leaf = leaf.signed_by(&key, &self.authority)?;
        let authority = std::fs::read_to_string(self.path("ca.pem"))?;
        std::fs::write(self.path("cert.pem"), leaf.pem() + &authority)?;
        Ok(std::fs::write(self.path("key.pem"), key.serialize_pem())?)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
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

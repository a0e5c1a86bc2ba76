//! What is wrong between this machine and a relay: name, connection, TLS, HTTP, token and clock, one after the other.

use serde::Deserialize;

use super::Finding;
use crate::config::Config;
use crate::control::{RelayState, Status};
use crate::credential::PairedRelay;
use crate::link::core::Loss;
use crate::paths::Paths;
use crate::relay_http::{CallError, RelayHttp};
use crate::relay_url::RelayUrl;
use crate::tls::Trust;

/// A clock that is off by more confuses people who compare times.
const CLOCK_WARNING_MS: u64 = 30_000;
/// A clock that is off by more makes valid certificates and tokens look invalid.
const CLOCK_ERROR_MS: u64 = 300_000;

#[derive(Deserialize)]
struct Health {
    #[serde(default)]
    version: String,
}

pub(super) async fn examine(
    config: &Config,
    paths: &Paths,
    relay: &PairedRelay,
    daemon: Option<&Status>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let known = daemon.and_then(|status| status.relays.iter().find(|known| known.url == relay.url));
    let mut difference = known.and_then(|known| known.clock_difference_ms);
    match reach(config, relay).await {
        Ok((version, header)) => {
            findings.push(Finding::ok("relay", format!("{} answers (version {version}).", relay.url)));
            difference = difference.or(header);
            findings.extend(
                token(config, paths, relay, known.map(|known| (known.state, known.detail.clone()))).await,
            );
        }
        Err(finding) => findings.push(finding),
    }
    if let Some(difference) = difference
        && difference.unsigned_abs() > CLOCK_WARNING_MS
    {
        let seconds = difference.unsigned_abs() / 1000;
        let word = if difference > 0 { "behind" } else { "ahead of" };
        let text = format!("This machine's clock is {seconds} s {word} the clock of {}.", relay.url);
        let fix =
            "Set the clock by the network: timedatectl set-ntp true (on macOS: sudo sntp -sS time.apple.com)";
        findings.push(if difference.unsigned_abs() > CLOCK_ERROR_MS {
            Finding::error("clock", text, fix)
        } else {
            Finding::warning("clock", text, fix)
        });
    }
    findings
}

/// Calls the relay; says at which step that fails.
async fn reach(config: &Config, relay: &PairedRelay) -> Result<(String, Option<i64>), Finding> {
    let allow_plain = config.allow_plain_http || relay.allow_plain_http;
    let url = RelayUrl::parse(&relay.url, allow_plain).map_err(|error| {
        Finding::error("relay.address", error.to_string(), "Unpair, and pair again with the right address.")
    })?;
    let extra: Vec<_> = config.extra_ca.iter().chain(&relay.extra_ca).cloned().collect();
    let trust = Trust::load(&extra).map_err(|error| {
        Finding::error("relay.tls", error.to_string(), "Correct `extra_ca` in the configuration.")
    })?;
    let client = RelayHttp::new(url.clone(), &trust);
    let called = tokio::task::spawn_blocking(move || client.get::<Health>("/api/health")).await;
    let result = called.unwrap_or_else(|error| {
        Err(CallError::Broken { address: relay.url.clone(), reason: error.to_string() })
    });
    match result {
        Ok((health, facts)) => Ok((crate::relay_http::clean(&health.version), facts.clock_difference_ms)),
        Err(error) => {
            let (id, fix) = match &error {
                CallError::Dns(_) => {
                    ("relay.dns", "Check the name of the relay, and this machine's network and DNS.")
                }
                CallError::Connect { .. } => (
                    "relay.tcp",
                    "Start the relay if it does not run; open its port in every firewall on the way.",
                ),
                CallError::Tls { advice, .. } => ("relay.tls", *advice),
                CallError::NotRelay { advice, .. } => ("relay.http", *advice),
                CallError::Timeout(_) | CallError::Broken { .. } => {
                    ("relay.http", "Look into the logs of the relay and of the proxy in front of it.")
                }
                CallError::Refused { .. } => ("relay.http", "Look into the log of the relay."),
            };
            let tls = if url.is_tls() { ", TLS" } else { "" };
            let passed = match id {
                "relay.tcp" => "The name is resolved. ".to_owned(),
                "relay.tls" => "Name and connection are fine. ".to_owned(),
                "relay.http" => format!("Name, connection{tls} are fine. "),
                _ => String::new(),
            };
            Err(Finding::error(id, format!("{passed}{} Sessions on this machine go on.", error.what()), fix))
        }
    }
}

async fn token(
    config: &Config,
    paths: &Paths,
    relay: &PairedRelay,
    known: Option<(RelayState, Option<String>)>,
) -> Option<Finding> {
    let pair_again = format!("Pair again: claudenest-agent pair --relay {}", relay.url);
    let revoked = |text: String| Finding::error("relay.token", text, pair_again.clone());
    match known {
        Some((RelayState::Connected, _)) => {
            let text =
                format!("Connected to {} as \"{}\" of {}.", relay.url, relay.machine_name, relay.account);
            Some(Finding::ok("relay.link", text))
        }
        Some((RelayState::Revoked, detail)) => Some(revoked(
            detail.unwrap_or_else(|| "The relay does not accept this machine's token.".to_owned()),
        )),
        Some((RelayState::NoSecret, detail)) => {
            let text = detail.unwrap_or_else(|| "The machine's token cannot be read.".to_owned());
            Some(Finding::error("credentials", text, pair_again))
        }
        Some((RelayState::Connecting | RelayState::Unreachable, detail)) => Some(Finding::error(
            "relay.link",
            format!(
                "The link to {} is down: {}",
                relay.url,
                detail.unwrap_or_else(|| "connecting.".to_owned())
            ),
            "It is tried again by itself. WebSockets must pass every proxy on the way.",
        )),
        None => match crate::link::probe(paths, config, relay).await {
            Ok(()) => {
                Some(Finding::ok("relay.token", format!("{} accepts this machine's token.", relay.url)))
            }
            Err(Loss::Revoked(text) | Loss::Closed { code: 4401, reason: text }) => Some(revoked(text)),
            Err(Loss::NoSecret(text)) => Some(Finding::error("credentials", text, pair_again)),
            Err(Loss::Broken(text)) => Some(Finding::error(
                "relay.link",
                text,
                "WebSockets must pass every proxy on the way; see the samples for nginx and Caddy.",
            )),
            Err(Loss::Closed { .. }) => None,
        },
    }
}

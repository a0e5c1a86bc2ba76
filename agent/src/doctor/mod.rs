//! Finds what is wrong on this machine and says how to repair it. Changes nothing.

mod relay;

use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use crate::claude::Claude;
use crate::claude::install::{FAILS_CLOSED_SINCE, InstallError, OLDEST_TRIED};
use crate::config::{Config, CredentialStore};
use crate::control::{Client, ClientError, Identity, Status};
use crate::credential::{Relays, SecretError, StoreKind, Vault};
use crate::paths::Paths;
use crate::service::{self, Program};

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// It works, but not as well as it could.
    Warning,
    /// Something does not work.
    Error,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// Stable name for programs: `claude`, `relay.tls`, …
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, in a sentence.
    pub text: String,
    /// What to do, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn ok(id: &'static str, text: impl Into<String>) -> Self {
        Self { id, level: Level::Ok, text: text.into(), fix: None }
    }

    fn warning(id: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { id, level: Level::Warning, text: text.into(), fix: Some(fix.into()) }
    }

    fn error(id: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { id, level: Level::Error, text: text.into(), fix: Some(fix.into()) }
    }
}

/// What is examined.
pub struct Subject<'a> {
    /// Configuration.
    pub config: &'a Config,
    /// Directories.
    pub paths: &'a Paths,
    /// Claude Code as the daemon would find it.
    pub claude: Claude,
    /// Environment that sessions would get.
    pub session_env: std::collections::BTreeMap<String, String>,
    /// What the service would start.
    pub program: Program,
}

/// Examines everything, from the inside out.
///
/// # Cancel safety
/// Cancel safe.
pub async fn examine(subject: Subject<'_>) -> Vec<Finding> {
    let (config, paths) = (subject.config, subject.paths);
    let mut findings = directories(config, paths);
    let (claude, env) = (subject.claude, subject.session_env);
    let found = tokio::task::spawn_blocking(move || claude_code(&claude, &env)).await;
    findings.extend(found.unwrap_or_default());
    let daemon = daemon(paths).await;
    findings.extend(daemon.findings);
    findings.extend(service_state(&subject.program, daemon.status.is_some()));
    let relays = Relays::load(paths);
    let vault = Vault::open(paths, config.credential_store);
    let is_paired = relays.as_ref().is_ok_and(|relays| !relays.relays.is_empty());
    let policy = config.credential_store;
    let secrets = tokio::task::spawn_blocking(move || credentials(&vault, policy, is_paired)).await;
    findings.extend(secrets.unwrap_or_default());
    match relays {
        Err(error) => {
            findings.push(Finding::error("relays", error.to_string(), "Run: claudenest-agent pair"))
        }
        Ok(relays) if relays.relays.is_empty() => findings.push(Finding::warning(
            "pairing",
            "This machine is not paired with a relay; sessions can be used on this machine only.",
            "Pair it: claudenest-agent pair --relay https://…",
        )),
        Ok(relays) => {
            for relay in &relays.relays {
                findings.extend(relay::examine(config, paths, relay, daemon.status.as_ref()).await);
            }
        }
    }
    findings
}

fn directories(config: &Config, paths: &Paths) -> Vec<Finding> {
    let mut findings = Vec::new();
    let me = rustix::process::geteuid().as_raw();
    for (id, dir) in [("data_dir", &paths.data_dir), ("runtime_dir", &paths.runtime_dir)] {
        let shown = dir.display();
        findings.push(match std::fs::symlink_metadata(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Finding::ok(id, format!("{shown} will be made by the first start."))
            }
            Err(error) => Finding::error(
                id,
                format!("{shown} cannot be used: {error}."),
                "Make it readable for you, or choose another with --data-dir.",
            ),
            Ok(meta) if meta.uid() != me => Finding::error(
                id,
                format!("{shown} belongs to another user (id {}).", meta.uid()),
                format!("Give it back: sudo chown -R {} {shown}", crate::facts::user_name()),
            ),
            Ok(meta) if meta.is_dir() && meta.mode() & 0o077 != 0 => Finding::error(
                id,
                format!("{shown} can be entered by other users (mode {:o}).", meta.mode() & 0o777),
                format!("Close it: chmod 700 {shown}"),
            ),
            Ok(_) => Finding::ok(id, format!("{shown} is private.")),
        });
    }
    for root in config.roots.iter().filter(|root| !root.is_dir()) {
        findings.push(Finding::warning(
            "roots",
            format!("The root {} does not exist; no session can start there.", root.display()),
            "Make the directory, or correct `roots` in the configuration.",
        ));
    }
    findings
}

fn claude_code(claude: &Claude, env: &std::collections::BTreeMap<String, String>) -> Vec<Finding> {
    let installed = match claude.installed() {
        Ok(installed) => installed,
        Err(InstallError::NotFound) => {
            return vec![Finding::error(
                "claude",
                "Claude Code was not found.",
                "Install it: npm install -g @anthropic-ai/claude-code. If it is installed, name its path as `claude_path` in the configuration.",
            )];
        }
        Err(InstallError::BadPath(path)) => {
            return vec![Finding::error(
                "claude",
                format!(
                    "There is no executable program at {}, the `claude_path` of the configuration.",
                    path.display()
                ),
                "Correct `claude_path`, or remove it.",
            )];
        }
    };
    let path = installed.path.display();
    let mut findings = vec![match &installed.version {
        None => Finding::error(
            "claude.version",
            format!("{path} does not say its version."),
            "Try it: claude --version. Install Claude Code anew if that fails.",
        ),
        Some(version) if *version < OLDEST_TRIED => Finding::error(
            "claude.version",
            format!(
                "Claude Code {version} is older than any version that this agent supports ({OLDEST_TRIED})."
            ),
            "Update it: claude update",
        ),
        Some(version) if *version < FAILS_CLOSED_SINCE => Finding::warning(
            "claude.version",
            format!(
                "Claude Code {version} lets tools run when a hook fails; {FAILS_CLOSED_SINCE} and newer block them."
            ),
            "Update it: claude update",
        ),
        Some(version) => Finding::ok("claude.version", format!("Claude Code {version} at {path}.")),
    }];
    findings.push(match claude.is_logged_in(env) {
        Some(true) => Finding::ok("claude.login", "Claude Code is logged in."),
        Some(false) => Finding::error(
            "claude.login",
            "Claude Code is not logged in.",
            "Log in: start `claude` and follow it, or `claude auth login`. With an API key in the environment, name it in `pass_env`.",
        ),
        None => Finding::ok("claude.login", "Claude Code does not say whether it is logged in."),
    });
    findings
}

struct Daemon {
    status: Option<Status>,
    findings: Vec<Finding>,
}

async fn daemon(paths: &Paths) -> Daemon {
    let connected = Client::connect(&paths.control_socket(), &Identity::from_env()).await;
    let mut client = match connected {
        Ok(client) => client,
        Err(ClientError::NotRunning) => {
            let finding = Finding::error(
                "daemon",
                "The daemon does not run.",
                "Start it now and at every login: claudenest-agent service install",
            );
            return Daemon { status: None, findings: vec![finding] };
        }
        Err(error) => {
            let finding =
                Finding::error("daemon", error.to_string(), "Restart the daemon; see: claudenest-agent logs");
            return Daemon { status: None, findings: vec![finding] };
        }
    };
    match client.status().await {
        Ok(status) => {
            let ours = env!("CARGO_PKG_VERSION");
            let finding = if status.version == ours {
                Finding::ok("daemon", format!("The daemon runs (process {}).", status.pid))
            } else {
                Finding::warning(
                    "daemon.version",
                    format!("The daemon is version {}, this program {ours}.", status.version),
                    "Restart the daemon; sessions go on: claudenest-agent service install",
                )
            };
            Daemon { status: Some(status), findings: vec![finding] }
        }
        Err(error) => {
            let finding =
                Finding::error("daemon", error.to_string(), "Restart the daemon; see: claudenest-agent logs");
            Daemon { status: None, findings: vec![finding] }
        }
    }
}

fn service_state(program: &Program, runs: bool) -> Vec<Finding> {
    let status = service::status(program);
    let fix = "Have it at every login: claudenest-agent service install";
    let mut findings = Vec::new();
    findings.push(match (&status.file, status.is_running) {
        (Some(_), true) => Finding::ok("service", format!("The {} service runs.", status.manager)),
        (Some(_), false) if runs => Finding::warning(
            "service",
            format!("The daemon was not started by the {} service that is installed.", status.manager),
            "Stop that daemon and start the service: claudenest-agent service install",
        ),
        (Some(file), false) => Finding::error(
            "service",
            format!("The service {} is installed but does not run.", file.display()),
            "Start it: claudenest-agent service install; the reason is in: claudenest-agent logs",
        ),
        (None, _) => {
            Finding::warning("service", "No service is installed; the daemon will not start by itself.", fix)
        }
    });
    if status.lingers == Some(false) && status.file.is_some() {
        findings.push(Finding::warning(
            "service.linger",
            "The system ends your programs, sessions too, when you log out.",
            "Let them go on: loginctl enable-linger",
        ));
    }
    findings
}

fn credentials(vault: &Vault, policy: CredentialStore, is_paired: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    match vault.choice() {
        Some(choice) if choice.kind == StoreKind::File => {
            findings.push(match choice.reason {
                Some(reason) => Finding::warning(
                    "keyring",
                    format!("Secrets are in files with mode 0600, because no keyring could be used: {reason}."),
                    "That is fine on a server: set credential_store = \"file\" to say so. To use a keyring, unpair, unlock the keyring and pair again.",
                ),
                None => Finding::ok("keyring", "Secrets are in files with mode 0600."),
            });
        }
        Some(_) => findings.push(Finding::ok("keyring", "Secrets are in the keyring.")),
        None if policy == CredentialStore::File => {}
        None => {
            if let Err(error) = vault.probe_keyring() {
                findings.push(match (policy, error) {
                    (CredentialStore::Keyring, error) => {
                        Finding { id: "keyring", level: Level::Error, text: error.to_string(), fix: None }
                    }
                    // The sentence of the error tells how to do what happens by itself here.
                    (_, SecretError::NoKeyring(reason)) => Finding::ok(
                        "keyring",
                        format!(
                            "No keyring can be used ({reason}); secrets will be kept in files with mode 0600."
                        ),
                    ),
                    (_, error) => Finding::ok(
                        "keyring",
                        format!("{error} Until it does, new secrets are kept in files with mode 0600."),
                    ),
                });
            }
        }
    }
    if is_paired && let Err(error) = vault.identity(true) {
        findings.push(Finding::error("credentials", error.to_string(), "See the sentence above."));
    }
    findings
}

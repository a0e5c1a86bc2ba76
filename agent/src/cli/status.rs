//! `status`, `doctor`, `logs` and `service`.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::args::{LogsArgs, ServiceCommand};
use super::exit::{Exit, fail};
use super::output::{age, print_json, say};
use super::{Context, daemon};
use crate::claude::Claude;
use crate::control::{Client, ClientError, Identity, RelayState, RelayStatus, Status};
use crate::credential::{Relays, StoreChoice, StoreKind, Vault};
use crate::doctor::{self, Level, Subject};
use crate::log::RotatingFile;
use crate::service::{self, Program, ServiceStatus};

/// How often a followed log is looked at.
const FOLLOW_INTERVAL: std::time::Duration = std::time::Duration::from_millis(250);

pub(super) async fn status(context: &Context) -> anyhow::Result<ExitCode> {
    let connected = Client::connect(&context.paths.control_socket(), &Identity::from_env()).await;
    let daemon = match connected {
        Ok(mut client) => Some(client.status().await.map_err(daemon::refused)?),
        Err(ClientError::NotRunning) => None,
        Err(error) => return Err(daemon::refused(error)),
    };
    let paired = Relays::load(&context.paths)?;
    let store = Vault::open(&context.paths, context.effective.config.credential_store).choice();
    let service = service::status(&program(context)?);
    if context.json {
        print_json(&json!({
            "daemon": daemon, "paired": paired.relays, "credential_store": store, "service": service,
        }));
    } else {
        print_status(daemon.as_ref(), &paired, store.as_ref(), &service);
    }
    Ok(if daemon.is_some() { ExitCode::SUCCESS } else { ExitCode::from(Exit::NoDaemon as u8) })
}

fn print_status(
    daemon: Option<&Status>,
    paired: &Relays,
    store: Option<&StoreChoice>,
    service: &ServiceStatus,
) {
    match daemon {
        Some(status) => {
            say!(
                "daemon    runs for {} (process {}, version {})",
                age(status.started_at),
                status.pid,
                status.version
            );
            let claude = status.facts.claude_version.as_deref().map_or_else(
                || "not found; see: claudenest-agent doctor".to_owned(),
                |version| match status.facts.claude_logged_in {
                    Some(false) => format!("{version}, not logged in: start `claude` once"),
                    _ => version.to_owned(),
                },
            );
            say!("claude    {claude}");
            let queued = match status.queued_sessions {
                0 => String::new(),
                number => format!(", {number} waiting for a place"),
            };
            say!(
                "sessions  {} running of {} at most{queued}, {} in all",
                status.live_sessions,
                status.facts.max_sessions,
                status.sessions
            );
            status.relays.iter().for_each(print_relay);
        }
        None => {
            say!("daemon    does not run. Start it: claudenest-agent service install");
            for relay in &paired.relays {
                say!(
                    "relay     {} · paired as \"{}\" of {}; offline",
                    relay.url,
                    relay.machine_name,
                    relay.account
                );
            }
        }
    }
    if paired.relays.is_empty() {
        say!("relay     none. Pair this machine: claudenest-agent pair --relay https://…");
    }
    match store {
        Some(StoreChoice { kind: StoreKind::Keyring, .. }) => say!("secrets   in the keyring"),
        Some(StoreChoice { reason: Some(reason), .. }) => {
            say!("secrets   in files with mode 0600 (no keyring: {reason})")
        }
        Some(_) => say!("secrets   in files with mode 0600"),
        None => {}
    }
    print_service(service);
}

fn print_relay(relay: &RelayStatus) {
    let name = relay.machine_name.as_deref().unwrap_or_default();
    let account = relay.account.as_deref().unwrap_or_default();
    let state = match relay.state {
        RelayState::Connected => format!("connected for {}", age(relay.since)),
        RelayState::Connecting => "connecting".to_owned(),
        RelayState::Unreachable => format!("unreachable for {}", age(relay.since)),
        RelayState::Revoked => {
            format!("token revoked. Pair again: claudenest-agent pair --relay {}", relay.url)
        }
        RelayState::NoSecret => "token cannot be read".to_owned(),
    };
    say!("relay     {} · {state} · \"{name}\" of {account}", relay.url);
    if let Some(detail) = relay.detail.as_deref().filter(|_| relay.state != RelayState::Connected) {
        say!("          {detail}");
        if relay.state == RelayState::Unreachable {
            say!("          Sessions on this machine go on; it is tried again every few seconds.");
        }
    }
}

fn print_service(service: &ServiceStatus) {
    match (&service.file, service.is_running, &service.problem) {
        (Some(_), true, _) => {
            say!("service   runs ({}), starts at login: {}", service.manager, yes(service.is_enabled))
        }
        (Some(file), false, Some(problem)) => {
            say!("service   {} is installed, but cannot be asked: {problem}", file.display())
        }
        (Some(file), false, None) => say!("service   {} is installed and does not run", file.display()),
        (None, ..) => say!("service   not installed. Start at login: claudenest-agent service install"),
    }
    if service.lingers == Some(false) && service.file.is_some() {
        say!("          ends at logout, with all sessions. To keep them: loginctl enable-linger");
    }
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

pub(super) async fn doctor(context: &Context) -> anyhow::Result<ExitCode> {
    let config = &context.effective.config;
    let program = program(context)?;
    let settings = crate::supervisor::Settings::new(config, &context.paths, program.path.clone());
    let around = &settings.surroundings;
    let search_path =
        around.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    let claude = Claude::new(settings.claude_path.clone(), around.home.clone(), search_path);
    let session_env = crate::claude::command::clean_environment(around, &Default::default());
    let subject = Subject { config, paths: &context.paths, claude, session_env, program };
    let findings = doctor::examine(subject).await;
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    if context.json {
        print_json(&json!({"ok": worst < Level::Error, "findings": findings}));
    } else {
        for finding in &findings {
            let mark = match finding.level {
                Level::Ok => "ok     ",
                Level::Warning => "warning",
                Level::Error => "ERROR  ",
            };
            say!("{mark}  {}", finding.text);
            if let Some(fix) = &finding.fix {
                say!("         → {fix}");
            }
        }
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        match (count(Level::Error), count(Level::Warning)) {
            (0, 0) => say!("\nEverything is fine."),
            (errors, warnings) => say!("\nErrors: {errors}, warnings: {warnings}."),
        }
    }
    Ok(ExitCode::from(u8::from(worst == Level::Error)))
}

pub(super) async fn logs(context: &Context, args: LogsArgs) -> anyhow::Result<ExitCode> {
    let path = context.paths.log_file();
    if !path.exists() {
        let message = format!(
            "There is no log yet: {} is written by the daemon. Start it: claudenest-agent run",
            path.display()
        );
        return Err(fail(Exit::NotFound, message));
    }
    let mut lines: std::collections::VecDeque<String> = std::collections::VecDeque::new();
    for part in [RotatingFile::previous(&path), path.clone()] {
        let Ok(file) = std::fs::File::open(&part) else { continue };
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            if lines.len() >= args.lines {
                lines.pop_front();
            }
            if args.lines > 0 {
                lines.push_back(String::from_utf8_lossy(&line).into_owned());
            }
        }
    }
    lines.iter().for_each(|line| say!("{line}"));
    if args.follow {
        follow(&path).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what is added to the log until nobody reads it, also when a new file is begun.
async fn follow(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let open = || std::fs::File::open(path).with_context(|| format!("Cannot read {}", path.display()));
    let mut file = open()?;
    file.seek(SeekFrom::End(0))?;
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        (&mut file).take(1 << 20).read_to_end(&mut buffer)?;
        let mut out = std::io::stdout().lock();
        if out.write_all(&buffer).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        drop(out);
        if !buffer.is_empty() {
            continue;
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        if std::fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|ours| ours.ino() != now.ino()))
        {
            file = open()?;
        }
    }
}

pub(super) fn service(context: &Context, command: ServiceCommand) -> anyhow::Result<ExitCode> {
    let program = program(context)?;
    match command {
        ServiceCommand::Install { print: true } => {
            say!("{}", service::render(&program)?.trim_end());
        }
        ServiceCommand::Install { print: false } => {
            context.paths.ensure()?;
            let installed = service::install(&program)?;
            if context.json {
                print_json(&installed);
            } else {
                say!("The daemon runs now and starts at login ({}).", installed.file.display());
                installed.hints.iter().for_each(|hint| say!("{hint}"));
            }
        }
        ServiceCommand::Uninstall => {
            let was_there = service::uninstall(&program)?;
            if context.json {
                print_json(&json!({"uninstalled": was_there}));
            } else if was_there {
                say!("The service is removed. Running sessions go on; the next daemon finds them.");
            } else {
                say!("The service was not installed.");
            }
        }
        ServiceCommand::Status => {
            let status = service::status(&program);
            if context.json {
                print_json(&status)
            } else {
                print_service(&status)
            }
            return Ok(if status.is_running {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(Exit::NoDaemon as u8)
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// This program as a service starts it.
fn program(context: &Context) -> anyhow::Result<Program> {
    let base =
        directories::BaseDirs::new().ok_or_else(|| anyhow::Error::new(service::ServiceError::NoHome))?;
    let arguments = context.global.as_arguments().into_iter();
    let arguments: Option<Vec<String>> = arguments.map(|argument| argument.into_string().ok()).collect();
    Ok(Program {
        path: std::env::current_exe().context("Cannot find this program's own file")?,
        arguments: arguments
            .ok_or_else(|| fail(Exit::Usage, "A path that is not UTF-8 cannot stand in a service file."))?,
        search_path: std::env::var("PATH").ok().filter(|path| !path.is_empty()),
        home: base.home_dir().to_owned(),
        config_home: std::env::var_os("XDG_CONFIG_HOME")
            .map(Into::into)
            .filter(|path: &std::path::PathBuf| path.is_absolute()),
    })
}

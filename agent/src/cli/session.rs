//! `session …`: everything but attaching.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use claudenest_shared::id::SessionId;
use claudenest_shared::session::{
    CrashPolicy, Exit as ChildExit, PermissionMode, SessionInfo, SessionMode, SessionSpec, SessionState,
};
use claudenest_shared::wire::agent::{Op, Reply};
use serde_json::json;

use super::args::{Mode, NewArgs, OnCrash, Permission, SessionCommand, WaitFor};
use super::exit::{Exit, fail};
use super::output::{age, moment, print_json, say, short_path, span, table};
use super::{Context, attach, daemon, export, replay, search};
use crate::control::Client;

pub(super) async fn run(context: &Context, command: SessionCommand) -> anyhow::Result<ExitCode> {
    use SessionCommand as C;
    let done = ExitCode::SUCCESS;
    match command {
        C::New(args) => return new(context, args).await,
        C::Attach(args) => return attach::command(context, args).await,
        C::List { all } => list(context, all).await?,
        C::Show(target) => {
            let (_, info) = find(context, &target.session).await?;
            show(context, &info);
        }
        C::Kill { target, grace, force } => {
            let (mut client, info) = find(context, &target.session).await?;
            let grace =
                if force { Duration::ZERO } else { grace.unwrap_or(context.effective.config.stop_grace) };
            if grace > Duration::from_secs(60) {
                return Err(fail(Exit::Usage, "The grace period is at most 60 s."));
            }
            let op = Op::SessionStop { session: info.id, grace_ms: grace.as_millis() as u32 };
            let info = session(&mut client, op).await?;
            // Whoever scripts this relies on the end, not on the wish.
            let patience = grace + Duration::from_secs(5);
            let (info, _) =
                client.wait(info.id, Vec::new(), Some(patience)).await.map_err(daemon::refused)?;
            changed(context, &info, &format!("{}: {}", info.name, fate(&info)));
        }
        C::Rename { target, name } => {
            claudenest_shared::session::valid_name(&name).map_err(|problem| fail(Exit::Usage, problem))?;
            let (mut client, info) = find(context, &target.session).await?;
            let old = info.name;
            let info = session(&mut client, Op::SessionRename { session: info.id, name }).await?;
            changed(context, &info, &format!("{old} is now {}.", info.name));
        }
        C::Send { target, text, no_enter } => {
            let text = if text == "-" { stdin_text()? } else { text };
            let (mut client, info) = find(context, &target.session).await?;
            let op = Op::SessionSend { session: info.id, text, enter: !no_enter };
            client.request(op).await.map_err(daemon::refused)?;
            if context.json {
                print_json(&json!({"session": info.id, "sent": true}));
            }
        }
        C::Wait { target, state, timeout } => return wait(context, &target.session, state, timeout).await,
        C::Screen(target) => screen(context, &target.session).await?,
        C::Logs { target, follow } => return attach::logs(context, &target.session, follow).await,
        C::Replay(args) => return replay::run(context, args).await,
        C::Export(args) => return export::run(context, args).await,
        C::Search(args) => return search::run(context, args).await,
        C::Pause(target) => {
            steer(context, &target.session, |session| Op::SessionPause { session }, "paused").await?
        }
        C::Resume(target) => {
            steer(context, &target.session, |session| Op::SessionResume { session }, "goes on").await?;
        }
        C::Restart(target) => {
            steer(context, &target.session, |session| Op::SessionRestart { session }, "starts again").await?;
        }
        C::Hibernate(target) => {
            let op = |session| Op::SessionHibernate { session };
            steer(context, &target.session, op, "hibernated; `session restart` wakes it").await?;
        }
        C::Forget(target) => {
            let (mut client, info) = find(context, &target.session).await?;
            client.request(Op::SessionForget { session: info.id }).await.map_err(daemon::refused)?;
            if context.json {
                print_json(&json!({"session": info.id, "forgotten": true}));
            } else {
                say!("{} and its recording are removed.", info.name);
            }
        }
    }
    Ok(done)
}

async fn new(context: &Context, args: NewArgs) -> anyhow::Result<ExitCode> {
    let is_attaching = args.attach;
    if is_attaching {
        attach::need_terminal(
            "`session new --attach` needs a terminal. Start it without --attach, and attach later.",
        )?;
    }
    let spec = spec(args)?;
    let mut client = daemon::connect_or_start(context).await?;
    let info = session(&mut client, Op::SessionCreate { spec: Box::new(spec) }).await?;
    if is_attaching {
        return attach::to_new(context, client, info).await;
    }
    if context.json {
        print_json(&info);
    } else {
        say!("{} ({}) is {}.", info.name, info.id.short(), state_text(&info));
        say!("Attach to it: claudenest-agent attach {}", info.name);
    }
    Ok(ExitCode::SUCCESS)
}

fn spec(args: NewArgs) -> anyhow::Result<SessionSpec> {
    if let Some(name) = &args.name {
        claudenest_shared::session::valid_name(name).map_err(|problem| fail(Exit::Usage, problem))?;
    }
    let prompt = match args.prompt.as_deref() {
        Some("-") => Some(stdin_text()?),
        _ => args.prompt,
    };
    if args.mode == Mode::Oneshot && prompt.as_deref().is_none_or(|prompt| prompt.trim().is_empty()) {
        return Err(fail(
            Exit::Usage,
            "A oneshot session needs a prompt: --prompt TEXT, or --prompt - for standard input.",
        ));
    }
    Ok(SessionSpec {
        name: args.name,
        mode: match args.mode {
            Mode::Interactive => SessionMode::Interactive,
            Mode::Headless => SessionMode::Headless,
            Mode::Oneshot => SessionMode::Oneshot,
            Mode::Shell => SessionMode::Shell,
        },
        cwd: directory(args.dir)?,
        prompt,
        model: args.model,
        permission_mode: args.permission_mode.map(|mode| match mode {
            Permission::Default => PermissionMode::Default,
            Permission::AcceptEdits => PermissionMode::AcceptEdits,
            Permission::Plan => PermissionMode::Plan,
            Permission::Auto => PermissionMode::Auto,
            Permission::DontAsk => PermissionMode::DontAsk,
            Permission::BypassPermissions => PermissionMode::BypassPermissions,
        }),
        args: args.args,
        env: args.env.into_iter().collect(),
        worktree: args.worktree,
        size: attach::terminal_size(),
        on_crash: match args.on_crash {
            OnCrash::Stop => CrashPolicy::Stop,
            OnCrash::Resume => CrashPolicy::Resume,
        },
        ..SessionSpec::default()
    })
}

/// The directory as an absolute path; the shell's own idea of the current one, with its links.
pub(super) fn directory(wanted: Option<std::path::PathBuf>) -> anyhow::Result<String> {
    let dir = match wanted {
        Some(dir) if dir.starts_with("~") => dir,
        Some(dir) => std::path::absolute(&dir).with_context(|| format!("Cannot use {}", dir.display()))?,
        None => std::env::current_dir().context("The current directory does not exist any more")?,
    };
    dir.into_os_string()
        .into_string()
        .map_err(|dir| fail(Exit::Usage, format!("The directory {} is not UTF-8; rename it.", dir.display())))
}

fn stdin_text() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).context("Standard input is not UTF-8 text")?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

async fn list(context: &Context, all: bool) -> anyhow::Result<()> {
    let mut client = daemon::connect(context).await?;
    let sessions = client.sessions().await.map_err(daemon::refused)?;
    let total = sessions.len();
    let shown: Vec<_> = sessions.into_iter().filter(|info| all || !info.state.is_final()).collect();
    if context.json {
        print_json(&shown);
        return Ok(());
    }
    if shown.is_empty() && total == 0 {
        say!("No sessions yet. Start one: claudenest-agent claude");
    } else if shown.is_empty() {
        say!("No session runs. {total} ended: claudenest-agent session list --all");
    } else {
        let rows: Vec<Vec<String>> = shown
            .iter()
            .map(|info| {
                vec![
                    info.name.clone(),
                    info.id.short(),
                    state_text(info),
                    age(info.state_since),
                    info.model.clone().unwrap_or_else(|| mode_text(info.mode).to_owned()),
                    short_path(&info.cwd),
                ]
            })
            .collect();
        say!("{}", table(&["NAME", "ID", "STATE", "SINCE", "MODEL", "DIRECTORY"], &rows).trim_end());
    }
    Ok(())
}

fn show(context: &Context, info: &SessionInfo) {
    if context.json {
        return print_json(info);
    }
    let mut rows: Vec<(&str, String)> = vec![
        ("name", info.name.clone()),
        ("id", info.id.to_string()),
        ("state", format!("{} for {}", state_text(info), age(info.state_since))),
        ("mode", mode_text(info.mode).to_owned()),
        ("directory", info.cwd.clone()),
        ("asked for", moment(info.created_at)),
    ];
    let mut put = |name, value: Option<String>| rows.extend(value.map(|value| (name, value)));
    put("started", info.started_at.map(moment));
    put("ended", info.ended_at.map(moment));
    put("process", info.pid.map(|pid| pid.to_string()));
    put("exit", info.exit.map(exit_text));
    put("model", info.model.clone());
    put("permissions", info.permission_mode.map(|mode| mode.as_arg().to_owned()));
    put("worktree", info.worktree.clone());
    put("title", info.title.clone());
    put("conversation", info.claude_session_id.clone());
    put("size", Some(format!("{} × {}", info.size.cols, info.size.rows)));
    put("size owner", info.size_owner.clone());
    put("viewers", Some(info.viewers.to_string()));
    put("output", Some(format!("{} bytes", info.output_bytes)));
    put(
        "resources",
        info.resources.map(|used| {
            let memory = used.memory_bytes / (1 << 20);
            format!("{:.0} % of a core, {memory} MiB, {} processes", used.cpu_percent, used.processes)
        }),
    );
    put("recording", info.recording_problem.clone());
    put("can go on", info.is_resumable.then(|| "yes: claudenest-agent session restart".to_owned()));
    for (name, value) in rows {
        say!("{name:<13} {value}");
    }
}

async fn wait(
    context: &Context,
    target: &str,
    wanted: WaitFor,
    timeout: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    use SessionState as S;
    let states = match wanted {
        WaitFor::Ended => vec![],
        WaitFor::WaitingInput => vec![S::WaitingInput],
        WaitFor::Running => vec![S::Running, S::WaitingInput],
        WaitFor::Paused => vec![S::Paused],
        WaitFor::Hibernated => vec![S::Hibernated],
        WaitFor::Idle => vec![S::WaitingInput, S::Hibernated, S::Completed, S::Failed, S::Terminated],
    };
    let (mut client, info) = find(context, target).await?;
    let started = std::time::Instant::now();
    let (info, is_met) = client.wait(info.id, states, timeout).await.map_err(daemon::refused)?;
    if context.json {
        let mut value = serde_json::to_value(&info)?;
        value["is_met"] = is_met.into();
        print_json(&value);
    } else {
        say!("{}: {}", info.name, fate(&info));
    }
    Ok(if is_met {
        ExitCode::SUCCESS
    } else if timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
        eprintln!("claudenest-agent: not reached within {}.", patience(timeout.unwrap_or_default()));
        ExitCode::from(Exit::TimedOut as u8)
    } else {
        ExitCode::from(Exit::Refused as u8)
    })
}

fn patience(timeout: Duration) -> String {
    match u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) {
        ms @ 1..1000 => format!("{ms} ms"),
        ms => span(ms),
    }
}

async fn screen(context: &Context, target: &str) -> anyhow::Result<()> {
    let (mut client, info) = find(context, target).await?;
    let reply = client.request(Op::SessionScreen { session: info.id }).await.map_err(daemon::refused)?;
    let Reply::Screen { screen } = reply else {
        return Err(fail(Exit::Failed, "The daemon answered something else than a screen. Restart it."));
    };
    if context.json {
        print_json(&screen);
    } else {
        let last = screen.rows.iter().rposition(|row| !row.is_empty()).map_or(0, |row| row + 1);
        screen.rows[..last].iter().for_each(|row| say!("{row}"));
    }
    Ok(())
}

async fn steer(
    context: &Context,
    target: &str,
    op: impl Fn(SessionId) -> Op,
    word: &str,
) -> anyhow::Result<()> {
    let (mut client, info) = find(context, target).await?;
    let info = session(&mut client, op(info.id)).await?;
    changed(context, &info, &format!("{}: {word}.", info.name));
    Ok(())
}

fn changed(context: &Context, info: &SessionInfo, text: &str) {
    if context.json { print_json(info) } else { say!("{text}") }
}

async fn session(client: &mut Client, op: Op) -> anyhow::Result<SessionInfo> {
    client.session(op).await.map_err(daemon::refused)
}

/// Connects and finds the session that a person means.
pub(super) async fn find(context: &Context, target: &str) -> anyhow::Result<(Client, SessionInfo)> {
    let mut client = daemon::connect(context).await?;
    let sessions = client.sessions().await.map_err(daemon::refused)?;
    let found = pick(&sessions, target)?.clone();
    Ok((client, found))
}

/// The session that `target` names: a name, an id, or the last digits of an id.
pub(super) fn pick<'a>(sessions: &'a [SessionInfo], target: &str) -> anyhow::Result<&'a SessionInfo> {
    if let Some(info) = sessions.iter().find(|info| info.name == target) {
        return Ok(info);
    }
    let digits: String = target.chars().filter(|c| *c != '-').collect::<String>().to_lowercase();
    let is_hex = digits.len() >= 4 && digits.chars().all(|c| c.is_ascii_hexdigit());
    let same: Vec<_> =
        sessions.iter().filter(|info| is_hex && info.id.0.simple().to_string().ends_with(&digits)).collect();
    match same.as_slice() {
        [only] => return Ok(only),
        [] => {}
        several => {
            let names: Vec<_> = several.iter().map(|info| format!("{} ({})", info.name, info.id)).collect();
            let message = format!(
                "{target} fits several sessions: {}. Give more digits, or the name.",
                names.join(", ")
            );
            return Err(fail(Exit::Usage, message));
        }
    }
    let near = crate::near::nearest(target, sessions.iter().map(|info| info.name.as_str()));
    let hint = match near {
        Some(near) => format!("Did you mean {near}?"),
        None if sessions.is_empty() => {
            "There are no sessions yet. Start one: claudenest-agent claude".to_owned()
        }
        None => "All sessions: claudenest-agent session list --all".to_owned(),
    };
    Err(fail(Exit::NotFound, format!("There is no session {:?}. {hint}", target)))
}

fn mode_text(mode: SessionMode) -> &'static str {
    match mode {
        SessionMode::Interactive => "interactive",
        SessionMode::Headless => "headless",
        SessionMode::Oneshot => "oneshot",
        SessionMode::Shell => "shell",
    }
}

/// State with its reason, for a line.
fn state_text(info: &SessionInfo) -> String {
    let word = info.state.as_str().replace('_', " ");
    match &info.state_reason {
        Some(reason) => format!("{word} ({reason})"),
        None => word,
    }
}

/// What has become of a session, for a sentence.
pub(super) fn fate(info: &SessionInfo) -> String {
    match (info.state.is_live(), info.exit) {
        (false, Some(exit)) => format!("{}, {}", info.state.as_str().replace('_', " "), exit_text(exit)),
        _ => state_text(info),
    }
}

/// How a child ended.
pub(super) fn exit_text(exit: ChildExit) -> String {
    match exit {
        ChildExit::Code { code } => format!("exit code {code}"),
        ChildExit::Signal { signal } => format!("ended by signal {signal}"),
        ChildExit::Lost {} => "exit status lost with the machine's last start".to_owned(),
    }
}

/// The exit code that stands for a child's end, as shells have it.
pub(super) fn exit_code(exit: ChildExit) -> ExitCode {
    ExitCode::from(match exit {
        ChildExit::Code { code } => code,
        ChildExit::Signal { signal } => 128u8.saturating_add(signal),
        ChildExit::Lost {} => Exit::Failed as u8,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudenest_shared::session::TermSize;
    use claudenest_shared::time::UnixMs;

    fn info(name: &str, byte: u8) -> SessionInfo {
        let value = json!({
            "id": SessionId::from_bytes([byte; 16]), "name": name, "mode": "shell", "cwd": "/", "state": "running",
            "state_since": UnixMs(0), "created_at": UnixMs(0), "size": TermSize::default(), "epoch": 0, "output_bytes": 0,
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn sessions_are_found_by_name_id_and_last_digits() {
        let sessions = [info("fix-login", 0xab), info("docs", 0xcd), info("abababab", 0x11)];
        let name = |target: &str| pick(&sessions, target).map(|info| info.name.clone());
        assert_eq!(name("docs").unwrap(), "docs");
        assert_eq!(name("cdcdcdcd").unwrap(), "docs");
        assert_eq!(name(&sessions[1].id.to_string()).unwrap(), "docs");
        assert_eq!(name("abababab").unwrap(), "abababab", "a name goes before an id");
        assert_eq!(name("ABAB").unwrap(), "fix-login");
        let error = name("fix-lgoin").unwrap_err();
        assert!(error.to_string().contains("Did you mean fix-login?"), "{error}");
        assert_eq!(super::super::exit::classify(&error).0, Exit::NotFound);
        assert!(pick(&[], "x").unwrap_err().to_string().contains("Start one"));
        let twins = [info("a", 1), info("b", 1)];
        assert!(pick(&twins, "0101").unwrap_err().to_string().contains("several"));
    }

    #[test]
    fn ends_become_the_exit_codes_of_shells() {
        assert_eq!(exit_code(ChildExit::Code { code: 7 }), ExitCode::from(7));
        assert_eq!(exit_code(ChildExit::Signal { signal: 15 }), ExitCode::from(143));
    }
}

//! `attach`, `claude` and `session logs`: a session on this terminal, or its output on a pipe.

pub(super) mod fit;
mod input;
mod pipe;
pub(super) mod signals;
pub(super) mod terminal;
mod view;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context as _;
use claudenest_shared::session::SessionInfo;

use super::Context;
use super::args::AttachArgs;
use super::exit::{Exit, fail, wire};
use super::session::{exit_code, exit_text, find};
use crate::config::keys::DetachKeys;
use crate::control::Client;

pub(super) use pipe::{logs, print};
pub(super) use terminal::size as terminal_size;

use view::{End, Options};

/// `attach`.
pub(super) async fn command(context: &Context, args: AttachArgs) -> anyhow::Result<ExitCode> {
    need_terminal(
        "`attach` needs a terminal. To read a session without one: claudenest-agent session screen, or session logs.",
    )?;
    let keys = args.detach_keys.as_deref().unwrap_or(&context.effective.config.detach_keys);
    let detach_keys =
        DetachKeys::parse(keys).map_err(|problem| fail(Exit::Usage, format!("--detach-keys {problem}")))?;
    let (client, info) = find(context, &args.target.session).await?;
    let options = Options {
        is_read_only: args.read_only,
        takes_size: args.take_size,
        may_size: !args.no_size && !args.read_only,
        detach_keys,
        label: label(),
    };
    run(context, client, info, options, args.wait_exit).await
}

/// Attaches to a session that was just started, and ends as it ends.
pub(super) async fn to_new(context: &Context, client: Client, info: SessionInfo) -> anyhow::Result<ExitCode> {
    let detach_keys = DetachKeys::parse(&context.effective.config.detach_keys)
        .map_err(|problem| fail(Exit::Usage, format!("detach_keys {problem}")))?;
    let options =
        Options { is_read_only: false, takes_size: false, may_size: true, detach_keys, label: label() };
    run(context, client, info, options, true).await
}

async fn run(
    context: &Context,
    client: Client,
    info: SessionInfo,
    options: Options,
    ends_as_session: bool,
) -> anyhow::Result<ExitCode> {
    let keys = options.detach_keys.label();
    let socket = context.paths.control_socket();
    let outcome =
        view::attach(client, socket, info.id, options).await.context("This terminal cannot be used")?;
    if outcome.undelivered > 0 {
        eprintln!("{} bytes that were typed or pasted did not reach the session.", outcome.undelivered);
    }
    let name = &info.name;
    if let (Some(theirs), Some(ours)) = (outcome.misfit, terminal::size()) {
        eprintln!(
            "[{name} is {} × {}, this terminal {} × {}: its screen was fitted in. To give it this size: claudenest-agent attach --take-size {name}]",
            theirs.cols, theirs.rows, ours.cols, ours.rows
        );
    }
    match outcome.end {
        End::Detached => {
            eprintln!("[detached: {name} goes on. Back: claudenest-agent attach {name}]");
            Ok(ExitCode::SUCCESS)
        }
        End::Hangup => Ok(ExitCode::from(129)),
        End::Exited(exit) => {
            eprintln!("[{name}: {}]", exit_text(exit));
            Ok(if ends_as_session { exit_code(exit) } else { ExitCode::SUCCESS })
        }
        End::DaemonGone => Err(fail(
            Exit::NoDaemon,
            format!(
                "The daemon was stopped; {name} goes on. Start the daemon and attach again ({keys} leaves): claudenest-agent run"
            ),
        )),
        End::Refused(error) => Err(explain(context, &info, error).await),
    }
}

/// A refusal, with the reason of a session that could not start.
async fn explain(
    context: &Context,
    info: &SessionInfo,
    error: claudenest_shared::code::WireError,
) -> anyhow::Error {
    if let Ok((_, now)) = find(context, &info.id.to_string()).await
        && now.state.is_final()
        && let Some(reason) = now.state_reason
    {
        return fail(Exit::Failed, format!("{} could not run: {reason}", now.name));
    }
    wire(error)
}

/// Refuses to go on without a terminal on both sides.
pub(super) fn need_terminal(message: &str) -> anyhow::Result<()> {
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        Ok(())
    } else {
        Err(fail(Exit::Usage, message))
    }
}

/// For people who ask who owns the size: "attach on pts/3".
fn label() -> String {
    let name = rustix::termios::ttyname(std::io::stdin(), Vec::new()).ok();
    let name = name.and_then(|name| name.into_string().ok()).unwrap_or_default();
    match name.strip_prefix("/dev/") {
        Some(tty) => format!("attach on {tty}"),
        None => "attach".to_owned(),
    }
}

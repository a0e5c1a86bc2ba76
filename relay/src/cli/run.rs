//! `serve`: log, signals, runtime.

use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::signal::unix::{Signal as TokioSignal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::Failure;
use super::account;
use crate::config::{Config, Loaded, LogFormat};
use crate::serve;

/// Work that was handed to threads may take this long after everything else has ended.
const THREADS_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn serve(loaded: Loaded) -> Result<(), Failure> {
    log(&loaded.config)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build()?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        // Taken over before anything begins: a signal in the first moment must end things in order, too.
        let received = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let signals = tokio::spawn(watch_signals(received, shutdown.clone()));
        let config = loaded.config.clone();
        let result =
            serve::run(loaded.config, shutdown, async |ready| first_steps(&config, ready).await).await;
        signals.abort();
        result
    });
    runtime.shutdown_timeout(THREADS_WITHIN);
    Ok(result?)
}

/// Half of the CPUs: the others belong to the database and the kernel's side of the sockets. A worker that has nothing to
/// do takes over half of what another has just begun; with two workers on two CPUs every keystroke changed threads
/// (measured: two wake-ups of 40 µs each on the way there and back).
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| (cpus.get() / 2).max(1))
}

pub(super) async fn upgrade_database(config: &Config) -> Result<(), Failure> {
    let _lock = crate::data_dir::DataDir::lock(&config.data_dir)?;
    let done = crate::postgres::upgrade(config).await?;
    super::print(&format!(
        "Moved the database from PostgreSQL {} to {}. Start the relay; when all is well, remove the old one: rm -r {}\n",
        done.from,
        done.to,
        done.old.display()
    ))
}

fn log(config: &Config) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(&config.log).map_err(|error| {
        Failure::new(
            2,
            format!(
                "`log` is {:?}, which is not understood: {error}. Write for example \"info\".",
                config.log
            ),
        )
    })?;
    // These log every message whole at their lowest levels: terminals, prompts, tickets.
    let filter = ["tungstenite=info", "tokio_tungstenite=info"]
        .iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Human => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}

/// The first signal asks everything to end in order; the second ends the process at once (nothing is lost: the next
/// relay takes the database over).
async fn watch_signals(
    received: (std::io::Result<TokioSignal>, std::io::Result<TokioSignal>),
    shutdown: CancellationToken,
) {
    let (Ok(mut term), Ok(mut int)) = received else {
        tracing::error!("signals cannot be received; stop the relay with kill -9 and start it again");
        return;
    };
    for round in 0.. {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if round == 0 {
            shutdown.cancel();
        } else {
            std::process::exit(130);
        }
    }
}

/// Says where the relay is, and on a terminal also how to get in the first time. Links are not for logs.
async fn first_steps(config: &Config, ready: serve::Ready) {
    if !ready.is_unused {
        return;
    }
    if !std::io::stdout().is_terminal() {
        tracing::info!(
            "nobody has logged in yet; `claudenest-relay login-link` prints a link for the first user"
        );
        return;
    }
    let link = account::make_link(&ready.db, &ready.public_url, None, None).await;
    let text = match link {
        Ok(link) => format!(
            "\n  Open this link to log in as {} (works once, for 15 minutes):\n\n    {}\n\n  Later links: claudenest-relay login-link{}\n\n",
            link.user.email,
            link.url,
            hint(config),
        ),
        Err(failure) => format!("\n  No login link could be made: {}\n\n", failure.sentence),
    };
    // A closed output is no reason to stop.
    let _ = super::print(&text);
}

fn hint(config: &Config) -> String {
    match &config.database_url {
        Some(_) => String::new(),
        None => format!(" --data-dir {}", config.data_dir.display()),
    }
}

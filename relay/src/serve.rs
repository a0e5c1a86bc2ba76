//! `claudenest-relay serve`: brings everything up in order and takes it down in reverse.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use sqlx::postgres::PgConnectOptions;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::Begins;
use crate::app::{App, Parts};
use crate::auth::limit::Limits;
use crate::auth::origin::Site;
use crate::clock::Clock;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError, Note};
use crate::db::{self, Db, DbError};
use crate::hub::Hub;
use crate::postgres::{BuiltIn, OLDEST_MAJOR, PostgresError};
use crate::tls::{self, Files, TlsError};
use crate::{http, job};

/// An external database may come up later than the relay (both started at boot).
const DATABASE_WITHIN: Duration = Duration::from_secs(60);
const DATABASE_PAUSE: Duration = Duration::from_millis(500);
/// How long a client may take for the head of a request, or keep a connection idle. Above the 60 s for which common
/// proxies keep theirs: they must be the ones who close.
const HEAD_WITHIN: Duration = Duration::from_secs(75);
/// Statements that are under way at the end may take this long.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// What peers are told: come back after this. A restart takes about a second.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why the relay does not run. Each is a sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The address.
    #[error("The relay cannot listen on {address}: {source}. {hint}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The built-in database.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The external database's address.
    #[error("`database_url` is not understood: {0}. Write postgres://user:password@host/database.")]
    DatabaseUrl(sqlx::Error),
    /// The external database does not answer.
    #[error(
        "The database does not answer: {0}. Check `database_url`, and that the server runs and lets this user in."
    )]
    DatabaseAway(DbError),
    /// The external database is too old.
    #[error("The database is PostgreSQL {0}; the relay needs 15 or newer.")]
    DatabaseOld(u32),
    /// The schema could not be brought up to date.
    #[error(
        "The database could not be brought up to date: {0}.\nWas it used by a newer relay? Then install that one again."
    )]
    Migrate(DbError),
    /// Any other use of the database.
    #[error("The database failed: {0}.")]
    Db(#[from] DbError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server ended by itself.
    #[error("The server ended: {0}.")]
    Server(std::io::Error),
}

/// Where a relay can be reached once it is up.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The address that it listens on.
    pub listen: SocketAddr,
    /// Address of the web app as people open it.
    pub public_url: String,
    /// How to reach its database.
    pub db: Db,
    /// True if nobody has ever logged in.
    pub is_unused: bool,
}

/// Runs a relay until `shutdown`; calls `ready` once it answers.
///
/// # Errors
/// See [`ServeError`].
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl AsyncFnOnce(Ready),
) -> Result<(), ServeError> {
    raise_descriptor_limit();
    let data_dir = DataDir::lock(&config.data_dir)?;
    let listener = bind(config.listen)?;
    let tls = Tls::read(&config)?;
    let (options, built_in) = match &config.database_url {
        Some(url) => (url.expose().parse::<PgConnectOptions>().map_err(ServeError::DatabaseUrl)?, None),
        None => {
            let built_in = BuiltIn::start(&config).await?;
            (built_in.options(), Some(built_in))
        }
    };
    let db = Db::new(options);
    let result = run_with(config, &data_dir, listener, tls, db.clone(), shutdown, ready).await;
    // A connection that never comes back must not keep the relay from ending.
    if tokio::time::timeout(CLOSE_WITHIN, db.close()).await.is_err() {
        tracing::warn!("some connections to the database were still busy and are cut");
    }
    if let Some(built_in) = built_in {
        built_in.stop().await;
    }
    data_dir.remove_note();
    result
}

fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(address).map_err(|source| ServeError::Listen {
        address,
        hint: match source.kind() {
            std::io::ErrorKind::AddrInUse => {
                "Something listens there already; stop it, or give another --listen."
            }
            std::io::ErrorKind::PermissionDenied => "Ports below 1024 need more rights; use a higher one.",
            _ => "Give an address of this machine with --listen.",
        },
        source,
    })?;
    listener.set_nonblocking(true).map_err(ServeError::Server)?;
    Ok(listener)
}

async fn run_with(
    config: Config,
    data_dir: &DataDir,
    listener: TcpListener,
    tls: Option<Tls>,
    db: Db,
    shutdown: CancellationToken,
    ready: impl AsyncFnOnce(Ready),
) -> Result<(), ServeError> {
    let is_external = config.database_url.is_some();
    tokio::select! {
        result = open(&db, is_external) => result?,
        () = shutdown.cancelled() => return Ok(()),
    }
    let clock = Clock::system();
    let now = clock.now();
    let lost = db::machine::all_unreachable(&db, now).await?;
    if lost > 0 {
        tracing::info!(
            machines = lost,
            "the last run of this relay did not end in order; its machines will reconnect"
        );
    }
    let listen = listener.local_addr().map_err(ServeError::Server)?;
    let grace = Duration::from_secs(config.shutdown_grace_seconds.into());
    let site = Site::new(config.public_url.as_deref(), listen, tls.is_some());
    let app = App::new(Parts {
        hub: Hub::new(db.clone(), clock.clone(), config.history_bytes()),
        limits: Limits::default(),
        site: site.clone(),
        config,
        db: db.clone(),
        clock,
        tasks: TaskTracker::new(),
        shutdown: shutdown.clone(),
    });
    app.tasks.spawn(job::clean_up_forever(app.clone()));
    app.tasks.spawn(job::clean_up_limits_forever(app.clone()));
    let handle = Handle::new();
    let service = http::router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let mut server = match tls {
        None => {
            let mut server = axum_server::from_tcp(listener)
                .map_err(ServeError::Server)?
                // Without it, a keystroke may wait for the acknowledgement of the one before.
                .acceptor(Begins::new(NoDelayAcceptor::new(), HEAD_WITHIN))
                .handle(handle.clone());
            set_timeouts(server.http_builder());
            tokio::spawn(server.serve(service))
        }
        Some(Tls { config, files }) => {
            app.tasks.spawn(refresh_forever(files, config.clone(), shutdown.clone()));
            let mut server = axum_server::from_tcp_rustls(listener, config)
                .map_err(ServeError::Server)?
                .map(|acceptor| Begins::new(acceptor.acceptor(NoDelayAcceptor::new()), HEAD_WITHIN))
                .handle(handle.clone());
            set_timeouts(server.http_builder());
            tokio::spawn(server.serve(service))
        }
    };
    let note =
        Note { pid: std::process::id(), listen: listen.to_string(), public_url: site.public_url.clone() };
    data_dir.write_note(&note)?;
    tracing::info!(listen = %listen, url = %site.public_url, version = env!("CARGO_PKG_VERSION"), "the relay is ready");
    notify(&[NotifyState::Ready]);
    let is_unused = db::login::is_unused(&db).await?;
    ready(Ready { listen, public_url: site.public_url, db, is_unused }).await;

    let ended = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = &mut server => Some(ended),
    };
    notify(&[NotifyState::Stopping]);
    if let Some(ended) = ended {
        shutdown.cancel();
        return ended.unwrap_or_else(|panic| Err(std::io::Error::other(panic))).map_err(ServeError::Server);
    }
    let since = Instant::now();
    tracing::info!("stopping: peers are told, open requests may end");
    app.hub.restarting(RETRY_AFTER).await;
    handle.graceful_shutdown(Some(grace));
    app.tasks.close();
    // Both end by themselves; what does not within the grace period is cut.
    let drained = tokio::time::timeout(grace, async {
        app.tasks.wait().await;
        (&mut server).await
    });
    if drained.await.is_err() {
        tracing::warn!("some connections did not end in time and were cut");
        handle.shutdown();
    }
    tracing::info!(
        duration_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(0),
        "the relay has stopped"
    );
    Ok(())
}

/// Waits for the database and brings its schema up to date.
async fn open(db: &Db, is_external: bool) -> Result<(), ServeError> {
    let since = Instant::now();
    let version = loop {
        match db.server_version().await {
            Ok(version) => break version,
            Err(error) if since.elapsed() > DATABASE_WITHIN || is_refusal(&error) => {
                return Err(ServeError::DatabaseAway(error));
            }
            Err(error) => {
                tracing::warn!(error = %error, "the database does not answer yet; trying again");
                tokio::time::sleep(DATABASE_PAUSE).await;
            }
        }
    };
    if is_external && version / 10_000 < OLDEST_MAJOR {
        return Err(ServeError::DatabaseOld(version / 10_000));
    }
    db.migrate().await.map_err(ServeError::Migrate)
}

/// True if waiting does not help: a wrong password, no such database.
fn is_refusal(error: &DbError) -> bool {
    // 57P…: the server is starting or stopping.
    matches!(error, DbError::Sql(sqlx::Error::Database(error)) if error.code().is_some_and(|code| !code.starts_with("57P")))
}

/// A connection that does not bring a whole head in time is cut, so that idle strangers cannot hold all descriptors.
fn set_timeouts(http: &mut Builder<TokioExecutor>) {
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
}

/// As many connections as the system allows: the usual soft limit of 1,024 descriptors is a few hundred people's.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
}

struct Tls {
    config: RustlsConfig,
    files: Files,
}

impl Tls {
    fn read(config: &Config) -> Result<Option<Self>, ServeError> {
        let paths: Option<(&PathBuf, &PathBuf)> = config.tls_cert.as_ref().zip(config.tls_key.as_ref());
        let Some((cert, key)) = paths else { return Ok(None) };
        let mut files = Files::new(cert, key);
        let config = RustlsConfig::from_config(files.read()?);
        Ok(Some(Self { config, files }))
    }
}

async fn refresh_forever(mut files: Files, tls: RustlsConfig, shutdown: CancellationToken) {
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
    loop {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let is_forced = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = hung_up => true,
            () = tokio::time::sleep(tls::LOOK_EVERY) => false,
        };
        files.refresh(&tls, is_forced);
    }
}

/// Tells systemd, if it started the relay.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(error = %error, "systemd could not be told about the relay's state");
    }
}

//! The command line: arguments, exit codes, and what is printed. Everything else is elsewhere.

mod account;
mod pair;
mod run;
mod show;

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use rustls::crypto::aws_lc_rs;

use crate::config::{Loaded, LogFormat, Partial};
use crate::db::Db;

/// Pairs machines that run Claude Code, forwards their terminals to browsers, and serves the web app.
///
/// Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 the relay does not run, 4 not found.
#[derive(Parser, Debug)]
#[command(name = "claudenest-relay", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args, Debug)]
struct Common {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the relay keeps its files, the built-in database among them.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// An external PostgreSQL in place of the built-in one: postgres://user:password@host/database.
    #[arg(long, global = true, value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs the relay in the foreground.
    Serve(ServeArgs),
    /// Prints a link that logs a user in once, within 15 minutes. Makes the user if there is none; the first is the admin.
    LoginLink {
        /// E-mail address of the user; the first admin when absent.
        #[arg(long)]
        email: Option<String>,
        /// Name of a new user.
        #[arg(long)]
        name: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Claims the machine that shows this code, for a user, and prints the six digits to compare.
    Pair {
        /// The code on the machine, for example A7K-M2X.
        code: String,
        /// E-mail address of the user; the first admin when absent.
        #[arg(long)]
        email: Option<String>,
        /// Print JSON, one object per line.
        #[arg(long)]
        json: bool,
    },
    /// Lists users or makes one.
    #[command(subcommand)]
    User(UserCommand),
    /// Moves the built-in database to the newest installed PostgreSQL. Stop the relay first; the old database is kept.
    UpgradeDatabase,
    /// Prints the OpenAPI document of the REST interface.
    Openapi,
    /// Prints every setting, its value, and where the value comes from.
    Config {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints completions for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Prints the manual page, or writes one page for each command.
    Man {
        /// Write all pages into this directory.
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Subcommand, Debug)]
enum UserCommand {
    /// Lists all users.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes a user, who logs in by `login-link`.
    Add {
        /// E-mail address.
        email: String,
        /// Name; the part of the address before the @ when absent.
        #[arg(long)]
        name: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
struct ServeArgs {
    /// Address and port to listen on [default: 127.0.0.1:7450].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<std::net::SocketAddr>,
    /// Address of the web app as people open it, for example https://nest.example.com.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Certificate chain for TLS (PEM).
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key for TLS (PEM).
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Serve plain HTTP on other addresses than loopback.
    #[arg(long)]
    allow_plain_http: bool,
    /// Form of the log: human or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// A failure of a command: its exit code and its sentence.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    sentence: String,
}

impl Failure {
    pub(crate) const NOT_RUNNING: u8 = 3;
    pub(crate) const NOT_FOUND: u8 = 4;

    pub(crate) fn new(code: u8, sentence: impl fmt::Display) -> Self {
        Self { code, sentence: sentence.to_string() }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(1, error)
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    // First of all: whoever builds a TLS configuration needs it. It fails only if called twice.
    let _ = aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nothing can be done if the error output is closed.
            let _ = writeln!(std::io::stderr(), "claudenest-relay: {}", failure.sentence);
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { common, command } = cli;
    match command {
        Command::Serve(args) => run::serve(load(&common, Some(args))?),
        Command::LoginLink { email, name, json } => {
            let loaded = load(&common, None)?;
            block_on(account::login_link(&loaded.config, email, name, json))
        }
        Command::Pair { code, email, json } => {
            let loaded = load(&common, None)?;
            block_on(pair::pair(&loaded.config, &code, email, json))
        }
        Command::User(UserCommand::List { json }) => {
            let loaded = load(&common, None)?;
            block_on(account::list(&loaded.config, json))
        }
        Command::User(UserCommand::Add { email, name, json }) => {
            let loaded = load(&common, None)?;
            block_on(account::add(&loaded.config, email, name, json))
        }
        Command::UpgradeDatabase => {
            let loaded = load(&common, None)?;
            block_on(run::upgrade_database(&loaded.config))
        }
        Command::Openapi => print(&crate::http::openapi::document_json()),
        Command::Config { json } => show::config(&load(&common, None)?, json),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "claudenest-relay", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
        Command::Man { dir } => show::man(Cli::command(), dir.as_deref()),
    }
}

fn load(common: &Common, serve: Option<ServeArgs>) -> Result<Loaded, Failure> {
    let mut flags = Partial {
        data_dir: common.data_dir.clone(),
        database_url: common.database_url.clone(),
        ..Partial::default()
    };
    if let Some(serve) = serve {
        flags.listen = serve.listen;
        flags.public_url = serve.public_url;
        flags.tls_cert = serve.tls_cert;
        flags.tls_key = serve.tls_key;
        flags.allow_plain_http = serve.allow_plain_http.then_some(true);
        flags.log_format = serve.log_format;
    }
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let is_root = rustix::process::geteuid().is_root();
    Loaded::read(flags, common.config.as_deref(), env, is_root).map_err(|error| Failure::new(2, error))
}

/// Runs a short command.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(command)
}

/// Writes to standard output. A reader that closed the pipe has seen enough.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes JSON on one line.
fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}

/// The database of the running relay, or the external one.
async fn open_database(config: &crate::config::Config) -> Result<(Db, Option<String>), Failure> {
    let note = crate::data_dir::running(&config.data_dir);
    let options = match &config.database_url {
        Some(url) => url.expose().parse().map_err(crate::serve::ServeError::DatabaseUrl)?,
        None => crate::postgres::running_options(config),
    };
    let db = Db::new(options);
    if config.database_url.is_some() {
        db.migrate().await.map_err(crate::serve::ServeError::Migrate)?;
    } else if note.is_none() {
        return Err(Failure::new(
            Failure::NOT_RUNNING,
            format!(
                "no relay runs with the data directory {}. Start it with `claudenest-relay serve`, or give the --data-dir of the one that runs.",
                config.data_dir.display()
            ),
        ));
    } else if let Err(error) = db.ping().await {
        return Err(Failure::new(
            1,
            format!(
                "the database of the running relay cannot be reached: {error}. Run this command as the user that the relay runs as, or as root."
            ),
        ));
    }
    Ok((db, note.map(|note| note.public_url)))
}

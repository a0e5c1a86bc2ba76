//! The agent's configuration: file, environment and flags in one documented table.
//!
//! Every key stands once in [`KEYS`](table::KEYS); the file's reader, the environment, `config` and
//! `docs/agent-config.md` are made from it. A later source wins: default, file, environment, flag.
//! An unknown key or an unusable value is an error that names the place, never ignored.

pub mod keys;
mod table;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use claudenest_shared::policy::PolicyRule;
pub use table::{KEYS, Key, markdown};
pub use value::{Value, parse_duration};

/// Prefix of environment variables: `CLAUDENEST_AGENT_MAX_SESSIONS` sets `max_sessions`.
pub const ENV_PREFIX: &str = "CLAUDENEST_AGENT_";
/// Variables with the prefix that are not keys: they say where the configuration is, or belong to a session.
const OTHER_VARIABLES: &[&str] = &["CONFIG", "DATA_DIR"];

/// Where secrets are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CredentialStore {
    /// The keyring if one answers, otherwise files.
    #[default]
    Auto,
    /// The keyring only.
    Keyring,
    /// Files with mode 0600 only.
    File,
}

/// What relays get of past output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HistoryPolicy {
    /// Nothing: relays cannot even read recordings while the machine is online.
    Off,
    /// Relays keep what sessions are called and how they ended, and may read recordings while the machine is online.
    #[default]
    Metadata,
    /// Relays keep a copy of the output as well.
    Full,
}

/// Form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

/// The configuration with every key set.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Relay that `pair` uses when none is named.
    pub relay: String,
    /// Most sessions that may run at once.
    pub max_sessions: u32,
    /// Most sessions that may wait for a free place.
    pub max_queued: u32,
    /// Most resident memory of one session's process tree, in bytes; `None` is no limit.
    pub memory_limit: Option<u64>,
    /// True to end a session above that limit, false to say it only.
    pub is_memory_limit_enforced: bool,
    /// Whether sessions are refused whose tools the guard could not hold back.
    pub refuses_unguarded: bool,
    /// Directories below which sessions may start; empty means everywhere.
    pub roots: Vec<PathBuf>,
    /// Claude Code's program; `None` searches `PATH` and the usual places.
    pub claude_path: Option<PathBuf>,
    /// Output that a session's holder keeps in memory.
    pub ring_bytes: u64,
    /// True to record output on disk.
    pub recording: bool,
    /// Most bytes of recording kept for one session.
    pub recording_session_bytes: u64,
    /// Most bytes of recording kept for all sessions together.
    pub recording_total_bytes: u64,
    /// What relays get of past output.
    pub history: HistoryPolicy,
    /// Hibernate a session that has been idle this long; `None` never does.
    pub hibernate_after: Option<Duration>,
    /// How long a session that is asked to stop may take before its process group is killed.
    pub stop_grace: Duration,
    /// Certificates (PEM) that are trusted besides the system's.
    pub extra_ca: Vec<PathBuf>,
    /// True to allow `http://` relays that are not on this machine.
    pub allow_plain_http: bool,
    /// Where secrets are kept.
    pub credential_store: CredentialStore,
    /// Environment variables of the daemon that sessions get besides the fixed ones.
    pub pass_env: Vec<String>,
    /// Program of `shell` sessions; `None` takes the login shell.
    pub shell: Option<PathBuf>,
    /// Keys that leave `attach`.
    pub detach_keys: String,
    /// What is logged, in the syntax of `tracing` filters.
    pub log: String,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// Rules of what may run.
    pub policy: Vec<PolicyRule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            relay: "http://127.0.0.1:7450".to_owned(),
            max_sessions: 10,
            max_queued: 50,
            memory_limit: None,
            is_memory_limit_enforced: false,
            refuses_unguarded: true,
            roots: Vec::new(),
            claude_path: None,
            ring_bytes: 4 << 20,
            recording: true,
            recording_session_bytes: 256 << 20,
            recording_total_bytes: 4 << 30,
            history: HistoryPolicy::Metadata,
            hibernate_after: None,
            stop_grace: Duration::from_secs(10),
            extra_ca: Vec::new(),
            allow_plain_http: false,
            credential_store: CredentialStore::Auto,
            pass_env: Vec::new(),
            shell: None,
            detach_keys: "ctrl-] d".to_owned(),
            log: "info".to_owned(),
            log_format: LogFormat::Human,
            policy: Vec::new(),
        }
    }
}

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file, at this line.
    File {
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment,
    /// A flag of the command line.
    Flag,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { line } => write!(f, "file, line {line}"),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Configuration that cannot be used. The text is complete for a person.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file exists and cannot be read.
    #[error("The configuration {path} cannot be read: {source}.")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}, line {line}: this is not TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// A key that does not exist.
    #[error("{place}: there is no key `{key}`.{hint} `claudenest-agent config` lists all keys.")]
    UnknownKey {
        /// File and line, or the environment.
        place: String,
        /// The key as written.
        key: String,
        /// A near key, or nothing.
        hint: String,
    },
    /// A value that the key does not take.
    #[error("{place}: `{key}` {message}")]
    Value {
        /// File and line, or the environment.
        place: String,
        /// The key.
        key: String,
        /// What it takes.
        message: String,
    },
}

/// The effective configuration with the source of every value.
#[derive(Clone, PartialEq, Debug)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// Sources of the keys that are not at their default.
    pub sources: BTreeMap<&'static str, Source>,
}

impl Effective {
    /// Source of a key.
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default)
    }

    /// Sets a key from a flag.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when the key does not take the value.
    ///
    /// # Panics
    /// If the key does not exist: a programming error of the command line.
    pub fn set_flag(&mut self, key: &str, text: &str) -> Result<(), ConfigError> {
        let key = table::find(key).expect("flags name existing keys");
        self.set(key, Value::Text(text.to_owned()), Source::Flag, format!("--{}", key.name.replace('_', "-")))
    }

    fn set(
        &mut self,
        key: &'static Key,
        value: Value,
        source: Source,
        place: String,
    ) -> Result<(), ConfigError> {
        (key.set)(&mut self.config, value).map_err(|message| ConfigError::Value {
            place,
            key: key.name.to_owned(),
            message,
        })?;
        self.sources.insert(key.name, source);
        Ok(())
    }
}

/// Reads the configuration file, if there is one, and the environment.
///
/// # Errors
/// [`ConfigError`] for an unreadable file, a syntax error, an unknown key or an unusable value.
pub fn load(
    file: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Effective, ConfigError> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(ConfigError::Read { path: file.to_owned(), source }),
    };
    read(&text, file, environment)
}

/// As [`load`], with the text of the file given.
///
/// # Errors
/// As [`load`].
pub fn read(
    text: &str,
    file: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Effective, ConfigError> {
    let mut effective = Effective { config: Config::default(), sources: BTreeMap::new() };
    for (line, name, value) in value::entries(text, file)? {
        let place = format!("{}, line {line}", file.display());
        let key = table::find(&name).ok_or_else(|| unknown(place.clone(), &name, &name))?;
        effective.set(key, value, Source::File { line }, place)?;
    }
    // Sorted, so that the first complaint does not depend on the environment's order.
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    for (name, text) in environment {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
        if OTHER_VARIABLES.contains(&rest) {
            continue;
        }
        let place = format!("environment variable {name}");
        let key = table::find(&rest.to_lowercase())
            .ok_or_else(|| unknown("Environment".to_owned(), &name, &rest.to_lowercase()))?;
        effective.set(key, Value::Text(text), Source::Environment, place)?;
    }
    Ok(effective)
}

fn unknown(place: String, written: &str, key: &str) -> ConfigError {
    let near = crate::near::nearest(key, KEYS.iter().map(|known| known.name));
    let hint = near.map(|near| format!(" Did you mean `{near}`?")).unwrap_or_default();
    ConfigError::UnknownKey { place, key: written.to_owned(), hint }
}

#[cfg(test)]
mod tests;

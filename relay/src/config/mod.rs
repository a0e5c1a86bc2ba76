//! Configuration: defaults, then a TOML file, then the environment, then flags; the later wins.
//!
//! Every setting is one line of the table in `settings.rs`, from which the parser, `claudenest-relay config` and the
//! table of `docs/relay-config.md` come. Unknown keys are errors that name the line.

mod settings;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use claudenest_shared::secret::Secret;
use directories::ProjectDirs;
use serde::Deserialize;

use crate::auth::address::Network;
pub use settings::{Partial, SETTINGS, Setting};

/// Prefix of environment variables.
pub const ENV_PREFIX: &str = "CLAUDENEST_RELAY_";
const DAY_MS: i64 = 86_400_000;

/// Form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is no log format; there are `human` and `json`")),
        }
    }
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Human => "human",
            Self::Json => "json",
        })
    }
}

/// Effective configuration of a relay.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Address of the web app as people open it; derived from `listen` when absent.
    pub public_url: Option<String>,
    /// Where the relay keeps its files.
    pub data_dir: PathBuf,
    /// An external database; the built-in one when absent.
    pub database_url: Option<Secret<String>>,
    /// Where the PostgreSQL programs are; searched for when absent.
    pub postgres_bin_dir: Option<PathBuf>,
    /// User that the built-in database runs as when the relay is root.
    pub postgres_user: Option<String>,
    /// Certificate chain (PEM).
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// Serve plain HTTP on other addresses than loopback.
    pub allow_plain_http: bool,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// A login ends when it was not used for so many days.
    pub login_idle_days: u32,
    /// A login ends after so many days, used or not.
    pub login_max_days: u32,
    /// Past output is forgotten after so many days.
    pub history_retention_days: u32,
    /// Past output kept of each user, in MiB.
    pub history_user_mib: u32,
    /// How long connections may take to end when the relay stops.
    pub shutdown_grace_seconds: u32,
    /// Form of the log.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("The configuration file {path} cannot be read: {source}.")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something that is not understood.
    #[error("The configuration file {path} has a mistake.\n{source}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// An environment variable says something that is not understood.
    #[error("The environment variable {name} is wrong: {reason}.")]
    Env {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// The settings do not fit together.
    #[error("{0}")]
    Invalid(String),
    /// There is no home directory to derive a default from.
    #[error("No home directory was found. Give --data-dir.")]
    NoHome,
}

/// Where a value came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Built in.
    Default,
    /// The file.
    File,
    /// The environment.
    Environment,
    /// A flag.
    Flag,
}

impl Source {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        }
    }
}

/// A configuration and where each part came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Key, value as text (secrets hidden), source.
    pub values: Vec<(&'static str, String, Source)>,
    /// The file that was read, or would have been.
    pub file: PathBuf,
}

impl Loaded {
    /// Reads and checks everything. `flags` are those of the command line, `env` the variables of the process.
    ///
    /// # Errors
    /// See [`ConfigError`]; each is a sentence for a person.
    pub fn read(
        flags: Partial,
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        is_root: bool,
    ) -> Result<Self, ConfigError> {
        let env: Vec<(String, String)> = env.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        let from_env = env.iter().find(|(name, _)| name == "CLAUDENEST_RELAY_CONFIG");
        let asked = file.map(Path::to_owned).or_else(|| from_env.map(|(_, value)| PathBuf::from(value)));
        let path = match &asked {
            Some(path) => path.clone(),
            None => default_file(is_root)?,
        };
        let in_file = match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str::<Partial>(&text)
                .map_err(|source| ConfigError::Parse { path: path.clone(), source: Box::new(source) })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && asked.is_none() => {
                Partial::default()
            }
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let in_env = Partial::from_env(&env)?;
        let defaults = Partial::defaults(default_data_dir(is_root)?);
        let (merged, values) = Partial::merge(&[
            (Source::Flag, flags),
            (Source::Environment, in_env),
            (Source::File, in_file),
            (Source::Default, defaults),
        ]);
        let config = merged.checked()?;
        Ok(Self { config, values, file: path })
    }
}

fn default_file(is_root: bool) -> Result<PathBuf, ConfigError> {
    if is_root {
        return Ok(PathBuf::from("/etc/claudenest-relay/relay.toml"));
    }
    Ok(project_dirs()?.config_dir().join("relay.toml"))
}

fn default_data_dir(is_root: bool) -> Result<PathBuf, ConfigError> {
    if is_root {
        return Ok(PathBuf::from("/var/lib/claudenest-relay"));
    }
    Ok(project_dirs()?.data_dir().to_owned())
}

fn project_dirs() -> Result<ProjectDirs, ConfigError> {
    ProjectDirs::from("", "", "claudenest-relay").ok_or(ConfigError::NoHome)
}

impl Config {
    /// See `login_idle_days`.
    pub fn login_idle_ms(&self) -> i64 {
        i64::from(self.login_idle_days) * DAY_MS
    }

    /// See `login_max_days`.
    pub fn login_max_ms(&self) -> i64 {
        i64::from(self.login_max_days) * DAY_MS
    }

    /// Bytes of past output that are kept of each user.
    pub fn history_bytes(&self) -> u64 {
        u64::from(self.history_user_mib) << 20
    }

    /// True if the relay itself speaks TLS.
    pub fn has_tls(&self) -> bool {
        self.tls_cert.is_some()
    }

    /// Checks that the settings fit together.
    fn check(&self) -> Result<(), ConfigError> {
        let invalid = |sentence: String| Err(ConfigError::Invalid(sentence));
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return invalid("`tls_cert` and `tls_key` belong together: give both or none.".to_owned());
        }
        if let Some(url) = &self.public_url {
            let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            let host = host.map(|rest| rest.trim_end_matches('/'));
            if !host.is_some_and(|host| {
                !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic() && !"/?#@\"'<>".contains(c))
            }) {
                return invalid(format!(
                    "`public_url` is {url:?}; write it as https://nest.example.com, with scheme and host and without a path."
                ));
            }
            if self.has_tls() && url.starts_with("http://") {
                return invalid(
                    "`public_url` begins with http:// although `tls_cert` is given; write https://."
                        .to_owned(),
                );
            }
        }
        let is_behind_proxy = self.public_url.as_deref().is_some_and(|url| url.starts_with("https://"));
        if !self.listen.ip().is_loopback() && !self.has_tls() && !is_behind_proxy && !self.allow_plain_http {
            return invalid(format!(
                "Plain HTTP on {} would show tokens and terminals to the network. Give --tls-cert and --tls-key, or \
                 --public-url https://… if a proxy in front speaks TLS, or listen on 127.0.0.1. If you really want \
                 this, give --allow-plain-http.",
                self.listen
            ));
        }
        if let Some(url) = &self.database_url
            && !["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme))
        {
            return invalid(
                "`database_url` begins with postgres://; other databases are not supported.".to_owned(),
            );
        }
        if self.login_idle_days == 0 || self.login_max_days == 0 || self.login_max_days > 3_650 {
            return invalid("`login_idle_days` and `login_max_days` are 1 to 3650.".to_owned());
        }
        if self.history_retention_days == 0 || self.history_retention_days > 3_650 {
            return invalid("`history_retention_days` is 1 to 3650.".to_owned());
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Partial::defaults(PathBuf::from("/var/lib/claudenest-relay"))
            .checked()
            .expect("a test checks that the defaults are valid")
    }
}

#[cfg(test)]
mod tests;

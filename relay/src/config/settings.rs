//! The table of settings.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use claudenest_shared::secret::Secret;
use serde::Deserialize;

use super::{Config, ConfigError, ENV_PREFIX, LogFormat, Source};
use crate::auth::address::Network;

/// One setting, for documentation.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Key in the file; the environment variable is its upper-case form behind the prefix.
    pub key: &'static str,
    /// Flag of `serve`, if there is one.
    pub flag: Option<&'static str>,
    /// Default as text.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// How values read from the environment and show themselves.
trait Value: Sized {
    fn read(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

macro_rules! plain_value {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn read(text: &str) -> Result<Self, String> {
                <$type>::from_str(text).map_err(|error| format!("{text:?}: {error}"))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

plain_value!(SocketAddr, String, u32, LogFormat);

impl Value for bool {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" | "" => Ok(false),
            other => Err(format!("{other:?} is neither true nor false")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        Ok(PathBuf::from(text))
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Vec<Network> {
    fn read(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
    }

    fn show(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

macro_rules! settings {
    ($($key:ident: $type:ty, $default:literal, $flag:expr, $doc:literal;)*) => {
        /// Some of the settings: what one layer says.
        #[derive(Clone, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[allow(missing_docs, reason = "the table below is the documentation")]
        pub struct Partial {
            $(pub $key: Option<$type>,)*
        }

        /// Every setting, in the order of the documentation.
        pub const SETTINGS: &[Setting] = &[
            $(Setting { key: stringify!($key), flag: $flag, default: $default, doc: $doc },)*
        ];

        impl Partial {
            /// What the environment says. Other variables with the prefix are errors: a typing error must not go unseen.
            pub(super) fn from_env(env: &[(String, String)]) -> Result<Self, ConfigError> {
                let mut partial = Self::default();
                for (name, value) in env {
                    let key = name.strip_prefix(ENV_PREFIX).unwrap_or_default().to_ascii_lowercase();
                    let wrong = |reason| ConfigError::Env { name: name.clone(), reason };
                    match key.as_str() {
                        "config" => {}
                        $(stringify!($key) => {
                            partial.$key = Some(<$type as Value>::read(value).map_err(wrong)?);
                        })*
                        _ => return Err(wrong("there is no such setting".to_owned())),
                    }
                }
                Ok(partial)
            }

            /// The first layer that says something wins.
            pub(super) fn merge(layers: &[(Source, Self)]) -> (Self, Vec<(&'static str, String, Source)>) {
                let mut merged = Self::default();
                let mut values = Vec::new();
                $(
                    for (source, layer) in layers {
                        if let Some(value) = &layer.$key {
                            let shown = match stringify!($key) {
                                "database_url" => without_password(&value.show()),
                                _ => value.show(),
                            };
                            values.push((stringify!($key), shown, *source));
                            merged.$key = Some(value.clone());
                            break;
                        }
                    }
                )*
                (merged, values)
            }
        }
    };
}

settings! {
    listen: SocketAddr, "127.0.0.1:7450", Some("--listen"),
        "Address and port to listen on. Port 0 takes a free one.";
    public_url: String, "from `listen`", Some("--public-url"),
        "Address of the web app as people open it, for example `https://nest.example.com`. Needed behind a proxy.";
    data_dir: PathBuf, "`~/.local/share/claudenest-relay`; as root `/var/lib/claudenest-relay`", Some("--data-dir"),
        "Where the relay keeps its files, the built-in database among them.";
    database_url: String, "the built-in database", Some("--database-url"),
        "An external PostgreSQL 15 or newer: `postgres://user:password@host/database`.";
    postgres_bin_dir: PathBuf, "searched for", None,
        "Directory of `initdb` and `postgres` for the built-in database.";
    postgres_user: String, "`postgres`", None,
        "User that the built-in database runs as when the relay runs as root: PostgreSQL refuses root.";
    tls_cert: PathBuf, "none", Some("--tls-cert"),
        "Certificate chain (PEM) for TLS. Read again when the file changes and on SIGHUP.";
    tls_key: PathBuf, "none", Some("--tls-key"),
        "Private key (PEM) that belongs to `tls_cert`.";
    allow_plain_http: bool, "false", Some("--allow-plain-http"),
        "Serve plain HTTP on other addresses than loopback.";
    trusted_proxies: Vec<Network>, "none", None,
        "Proxies whose `X-Forwarded-For` is believed: addresses or blocks such as `10.0.0.0/8`.";
    login_idle_days: u32, "14", None,
        "A browser login ends when it was not used for so many days.";
    login_max_days: u32, "90", None,
        "A browser login ends after so many days, used or not.";
    history_retention_days: u32, "30", None,
        "Past output that machines with `history = \"full\"` send is forgotten after so many days.";
    history_user_mib: u32, "2048", None,
        "Past output kept of each user, in MiB as stored (compressed); the oldest goes first. 0 takes none.";
    shutdown_grace_seconds: u32, "5", None,
        "How long open connections may take to end when the relay stops.";
    log_format: LogFormat, "human", Some("--log-format"),
        "`human` or `json` (one object per line).";
    log: String, "info", None,
        "What is logged, in the form of `RUST_LOG`: `info`, `claudenest_relay=debug,info`.";
}

impl Partial {
    /// The values that hold when nobody says otherwise.
    pub(super) fn defaults(data_dir: PathBuf) -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 7450))),
            data_dir: Some(data_dir),
            allow_plain_http: Some(false),
            trusted_proxies: Some(Vec::new()),
            login_idle_days: Some(14),
            login_max_days: Some(90),
            history_retention_days: Some(30),
            history_user_mib: Some(2048),
            shutdown_grace_seconds: Some(5),
            log_format: Some(LogFormat::Human),
            log: Some("info".to_owned()),
            ..Self::default()
        }
    }

    /// The configuration that this says, if it holds together.
    pub(super) fn checked(self) -> Result<Config, ConfigError> {
        let missing = |key: &str| ConfigError::Invalid(format!("`{key}` is missing."));
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let config = Config {
            listen: self.listen.ok_or_else(|| missing("listen"))?,
            public_url: self.public_url,
            data_dir: self.data_dir.map(absolute).ok_or_else(|| missing("data_dir"))?,
            database_url: self.database_url.map(Secret::new),
            postgres_bin_dir: self.postgres_bin_dir,
            postgres_user: self.postgres_user,
            tls_cert: self.tls_cert.map(absolute),
            tls_key: self.tls_key.map(absolute),
            allow_plain_http: self.allow_plain_http.unwrap_or_default(),
            trusted_proxies: self.trusted_proxies.unwrap_or_default(),
            login_idle_days: self.login_idle_days.unwrap_or_default(),
            login_max_days: self.login_max_days.unwrap_or_default(),
            history_retention_days: self.history_retention_days.unwrap_or_default(),
            history_user_mib: self.history_user_mib.unwrap_or_default(),
            shutdown_grace_seconds: self.shutdown_grace_seconds.unwrap_or_default(),
            log_format: self.log_format.unwrap_or_default(),
            log: self.log.unwrap_or_default(),
        };
        config.check()?;
        Ok(config)
    }
}

/// A URL as it may be shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".to_owned() };
    let Some((login, place)) = rest.rsplit_once('@') else { return url.to_owned() };
    match login.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{place}"),
        None => url.to_owned(),
    }
}

/// The table of `docs/relay-config.md`.
#[cfg(test)]
pub fn markdown_table() -> String {
    let mut table = String::from("| key | flag | default | meaning |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let flag = setting.flag.map(|flag| format!("`{flag}`")).unwrap_or_default();
        table += &format!("| `{}` | {flag} | {} | {} |\n", setting.key, setting.default, setting.doc);
    }
    table
}

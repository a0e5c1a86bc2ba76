//! The one table of keys.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use claudenest_shared::policy::PolicyRule;

use super::value::{Value, duration_text, size_text};
use super::{Config, CredentialStore, ENV_PREFIX, HistoryPolicy, LogFormat};

/// One key of the configuration.
pub struct Key {
    /// Name in the file; upper case and prefixed it is the environment variable.
    pub name: &'static str,
    /// What values it takes, in a few words.
    pub takes: &'static str,
    /// What it does, in one or two sentences.
    pub help: &'static str,
    pub(super) set: fn(&mut Config, Value) -> Result<(), String>,
    /// The value as it would be written in the file.
    pub get: fn(&Config) -> String,
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_path(path: &Option<PathBuf>) -> String {
    quoted(&path.as_ref().map(|path| path.display().to_string()).unwrap_or_default())
}

fn quoted_list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

fn path_list(paths: &[PathBuf]) -> String {
    quoted_list(&paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
}

/// Reads a path that must be absolute; `~/` is the home directory. Empty is `None`.
fn path(text: &str) -> Result<Option<PathBuf>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let path = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = directories::BaseDirs::new()
                .ok_or_else(|| "uses ~, but no home directory is known: set HOME.".to_owned())?;
            home.home_dir().join(rest.trim_start_matches('/'))
        }
        _ => PathBuf::from(text),
    };
    if path.is_absolute() {
        Ok(Some(path))
    } else {
        Err(format!("takes absolute paths; {text:?} is not one."))
    }
}

fn paths(value: Value) -> Result<Vec<PathBuf>, String> {
    let items = value.list()?;
    let paths: Result<Vec<Option<PathBuf>>, String> = items.iter().map(|item| path(item)).collect();
    Ok(paths?.into_iter().flatten().collect())
}

/// Every key, in the order in which it is shown.
pub static KEYS: &[Key] = &[
    Key {
        name: "relay",
        takes: "URL",
        help: "Relay that `pair` uses when none is named.",
        set: |config, value| {
            config.relay = value.text()?;
            Ok(())
        },
        get: |config| quoted(&config.relay),
    },
    Key {
        name: "max_sessions",
        takes: "1 to 1000",
        help: "Most sessions that may run at once; further ones wait in a queue, or are refused if their caller wants that.",
        set: |config, value| {
            config.max_sessions = value.number(1, 1000)? as u32;
            Ok(())
        },
        get: |config| config.max_sessions.to_string(),
    },
    Key {
        name: "max_queued",
        takes: "0 to 1000",
        help: "Most sessions that may wait for a free place; further ones are refused.",
        set: |config, value| {
            config.max_queued = value.number(0, 1000)? as u32;
            Ok(())
        },
        get: |config| config.max_queued.to_string(),
    },
    Key {
        name: "memory_limit",
        takes: "64MiB to 1024GiB, or \"none\"",
        help: "Most resident memory of one session's process tree.",
        set: |config, value| {
            config.memory_limit = match value {
                Value::Text(text) if text.trim() == "none" => None,
                value => Some(value.size(64 << 20, 1 << 40)?),
            };
            Ok(())
        },
        get: |config| quoted(&config.memory_limit.map_or_else(|| "none".to_owned(), size_text)),
    },
    Key {
        name: "memory_policy",
        takes: "warn or end",
        help: "What happens to a session above `memory_limit`: its state says so, or it is ended (its conversation stays resumable).",
        set: |config, value| {
            config.is_memory_limit_enforced = match value.text()?.as_str() {
                "warn" => false,
                "end" => true,
                _ => return Err("takes \"warn\" or \"end\".".to_owned()),
            };
            Ok(())
        },
        get: |config| quoted(if config.is_memory_limit_enforced { "end" } else { "warn" }),
    },
    Key {
        name: "roots",
        takes: "list of directories",
        help: "Directories below which sessions may start. Empty: everywhere.",
        set: |config, value| {
            config.roots = paths(value)?;
            Ok(())
        },
        get: |config| path_list(&config.roots),
    },
    Key {
        name: "claude_path",
        takes: "path",
        help: "Claude Code's program. Empty: search `PATH` and the places where its installers put it.",
        set: |config, value| {
            config.claude_path = path(&value.text()?)?;
            Ok(())
        },
        get: |config| quoted_path(&config.claude_path),
    },
    Key {
        name: "shell",
        takes: "path",
        help: "Program of `shell` sessions. Empty: your login shell.",
        set: |config, value| {
            config.shell = path(&value.text()?)?;
            Ok(())
        },
        get: |config| quoted_path(&config.shell),
    },
    Key {
        name: "pass_env",
        takes: "list of names",
        help: "Environment variables of the daemon that sessions get besides the fixed ones, for example `ANTHROPIC_API_KEY`.",
        set: |config, value| {
            let names = value.list()?;
            if let Some(bad) = names.iter().find(|name| name.is_empty() || name.contains(['=', '\0', ' '])) {
                return Err(format!("takes names of environment variables; {bad:?} is not one."));
            }
            config.pass_env = names;
            Ok(())
        },
        get: |config| quoted_list(&config.pass_env),
    },
    Key {
        name: "ring_bytes",
        takes: "64KiB to 64MiB",
        help: "Output that each session keeps in memory for viewers that join or come back.",
        set: |config, value| {
            config.ring_bytes = value.size(64 << 10, 64 << 20)?;
            Ok(())
        },
        get: |config| quoted(&size_text(config.ring_bytes)),
    },
    Key {
        name: "recording",
        takes: "true or false",
        help: "Record the output of sessions on this machine. Keystrokes are never recorded.",
        set: |config, value| {
            config.recording = value.boolean()?;
            Ok(())
        },
        get: |config| config.recording.to_string(),
    },
    Key {
        name: "recording_session_bytes",
        takes: "1MiB to 1024GiB",
        help: "Most recording kept for one session; the oldest part goes first.",
        set: |config, value| {
            config.recording_session_bytes = value.size(1 << 20, 1 << 40)?;
            Ok(())
        },
        get: |config| quoted(&size_text(config.recording_session_bytes)),
    },
    Key {
        name: "recording_total_bytes",
        takes: "1MiB to 1024GiB",
        help: "Most recording kept for all sessions together; ended sessions go first.",
        set: |config, value| {
            config.recording_total_bytes = value.size(1 << 20, 1 << 40)?;
            Ok(())
        },
        get: |config| quoted(&size_text(config.recording_total_bytes)),
    },
    Key {
        name: "history",
        takes: "off, metadata or full",
        help: "What relays get of past output. `off`: nothing. `metadata`: they keep names, states and times, and may read recordings while this machine is online. \
               `full`: they keep a copy of the output, so that it can be replayed and searched while this machine is away. What was printed may hold secrets; keystrokes are in none of it.",
        set: |config, value| {
            config.history = match value.text()?.as_str() {
                "off" => HistoryPolicy::Off,
                "metadata" => HistoryPolicy::Metadata,
                "full" => HistoryPolicy::Full,
                _ => return Err("takes \"off\", \"metadata\" or \"full\".".to_owned()),
            };
            Ok(())
        },
        get: |config| {
            quoted(match config.history {
                HistoryPolicy::Off => "off",
                HistoryPolicy::Metadata => "metadata",
                HistoryPolicy::Full => "full",
            })
        },
    },
    Key {
        name: "unguarded",
        takes: "refuse or warn",
        help: "What happens to a session whose tools the guard could not hold back: a Claude Code before 2.1.295 or one that says no version, or arguments such as `--bare`. \
               `refuse`: it is not started. `warn`: it runs, and the agent's log says so.",
        set: |config, value| {
            config.refuses_unguarded = match value.text()?.as_str() {
                "refuse" => true,
                "warn" => false,
                _ => return Err("takes \"refuse\" or \"warn\".".to_owned()),
            };
            Ok(())
        },
        get: |config| quoted(if config.refuses_unguarded { "refuse" } else { "warn" }),
    },
    Key {
        name: "hibernate_after",
        takes: "duration or \"never\"",
        help: "End the process of a session that has been idle and unwatched this long; it continues when it is woken.",
        set: |config, value| {
            config.hibernate_after = value.duration()?;
            Ok(())
        },
        get: |config| quoted(&duration_text(config.hibernate_after)),
    },
    Key {
        name: "stop_grace",
        takes: "duration up to 60s",
        help: "How long a session that is asked to stop may take before its process group is killed.",
        set: |config, value| {
            let grace = value.duration()?.unwrap_or_default();
            if grace > Duration::from_secs(60) {
                return Err("takes a duration of at most 60s.".to_owned());
            }
            config.stop_grace = grace;
            Ok(())
        },
        get: |config| quoted(&duration_text(Some(config.stop_grace).filter(|grace| !grace.is_zero()))),
    },
    Key {
        name: "extra_ca",
        takes: "list of PEM files",
        help: "Certificate authorities that are trusted besides the system's, for a relay with a private one.",
        set: |config, value| {
            config.extra_ca = paths(value)?;
            Ok(())
        },
        get: |config| path_list(&config.extra_ca),
    },
    Key {
        name: "allow_plain_http",
        takes: "true or false",
        help: "Allow relays without TLS that are not on this machine. Anybody on the way can then read and type.",
        set: |config, value| {
            config.allow_plain_http = value.boolean()?;
            Ok(())
        },
        get: |config| config.allow_plain_http.to_string(),
    },
    Key {
        name: "credential_store",
        takes: "auto, keyring or file",
        help: "Where tokens and the machine's key are kept. `auto`: the keyring if one answers, otherwise files with mode 0600.",
        set: |config, value| {
            config.credential_store = match value.text()?.as_str() {
                "auto" => CredentialStore::Auto,
                "keyring" => CredentialStore::Keyring,
                "file" => CredentialStore::File,
                _ => return Err("takes \"auto\", \"keyring\" or \"file\".".to_owned()),
            };
            Ok(())
        },
        get: |config| {
            quoted(match config.credential_store {
                CredentialStore::Auto => "auto",
                CredentialStore::Keyring => "keyring",
                CredentialStore::File => "file",
            })
        },
    },
    Key {
        name: "detach_keys",
        takes: "one or two keys",
        help: "Keys that leave `attach` while the session goes on, for example \"ctrl-] d\" or \"ctrl-\\\\\".",
        set: |config, value| {
            let text = value.text()?;
            super::keys::DetachKeys::parse(&text)?;
            config.detach_keys = text;
            Ok(())
        },
        get: |config| quoted(&config.detach_keys),
    },
    Key {
        name: "log",
        takes: "filter",
        help: "What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as \"info,claudenest_agent::link=debug\".",
        set: |config, value| {
            let text = value.text()?;
            if tracing_subscriber::EnvFilter::try_new(&text).is_err() {
                return Err("takes a log level or filter, for example \"info\".".to_owned());
            }
            config.log = text;
            Ok(())
        },
        get: |config| quoted(&config.log),
    },
    Key {
        name: "log_format",
        takes: "human or json",
        help: "Form of log lines.",
        set: |config, value| {
            config.log_format = match value.text()?.as_str() {
                "human" => LogFormat::Human,
                "json" => LogFormat::Json,
                _ => return Err("takes \"human\" or \"json\".".to_owned()),
            };
            Ok(())
        },
        get: |config| quoted(config.log_format.as_str()),
    },
    Key {
        name: "policy",
        takes: "table with rules",
        help: "What may run, what is asked, what never runs: `[[policy.rule]]` with `name`, `effect` (allow, ask, deny) and what it matches; docs/GUARD.md. Not from the environment.",
        set: |config, value| {
            config.policy = rules(value)?;
            Ok(())
        },
        get: |config| {
            let rules = config.policy.iter().filter_map(|rule| toml::Value::try_from(rule).ok()).collect();
            let mut table = toml::Table::new();
            if !config.policy.is_empty() {
                table.insert("rule".to_owned(), toml::Value::Array(rules));
            }
            toml::Value::Table(table).to_string()
        },
    },
];

/// Reads `[[policy.rule]]`.
fn rules(value: Value) -> Result<Vec<PolicyRule>, String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Policy {
        #[serde(default)]
        rule: Vec<PolicyRule>,
    }
    let Value::Table(table) = value else {
        return Err(
            "is a table of the configuration file: write [[policy.rule]] and below it name, effect, command."
                .to_owned(),
        );
    };
    let policy: Policy = table
        .try_into()
        .map_err(|error: toml::de::Error| format!("has a rule that cannot be read: {}.", error.message()))?;
    for (index, rule) in policy.rule.iter().enumerate() {
        crate::guard::policy::check(rule)?;
        if policy.rule[..index].iter().any(|other| other.name == rule.name) {
            return Err(format!("has two rules named `{}`. Give each a name of its own.", rule.name));
        }
    }
    Ok(policy.rule)
}

pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The text of `docs/agent-config.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Configuration of the agent\n\n\
         Generated from the code: `claudenest-agent config --docs > docs/agent-config.md`. A test keeps the two equal.\n\n\
         The file is `config.toml` in the agent's configuration directory (`claudenest-agent config` prints where), or the one named by\n\
         `--config` or `CLAUDENEST_AGENT_CONFIG`. A later source wins: default, file, environment variable, flag. An unknown key is an error\n\
         that names its line. Lists in environment variables are separated by `:`. The data directory is chosen by `--data-dir` or\n\
         `CLAUDENEST_AGENT_DATA_DIR`.\n\n\
         | key | takes | default | what it does |\n|---|---|---|---|\n",
    );
    let defaults = Config::default();
    for key in KEYS {
        let (name, takes, default, help) = (key.name, key.takes, (key.get)(&defaults), key.help);
        // Writing into a String cannot fail.
        let _ = writeln!(text, "| `{name}` | {takes} | `{default}` | {help} |");
    }
    let _ = write!(
        text,
        "\nThe environment variable of a key is its name in upper case behind `{ENV_PREFIX}`: `{ENV_PREFIX}MAX_SESSIONS=20`.\n"
    );
    text
}

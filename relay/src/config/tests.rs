use std::io::Write as _;

use super::settings::markdown_table;
use super::*;

fn read(toml: &str, env: &[(&str, &str)], flags: Partial) -> Result<Loaded, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Loaded::read(flags, Some(file.path()), env, true)
}

fn sentence(toml: &str, env: &[(&str, &str)]) -> String {
    read(toml, env, Partial::default()).unwrap_err().to_string()
}

#[test]
fn defaults_are_valid() {
    let config = Config::default();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7450");
    assert!(!config.has_tls());
}

#[test]
fn the_later_layer_wins_and_is_named() {
    let flags = Partial { login_max_days: Some(3), ..Partial::default() };
    let toml = "login_max_days = 1\nlogin_idle_days = 1\nlisten = \"127.0.0.1:1\"\ntrusted_proxies = [\"10.0.0.0/8\"]";
    let env =
        [("CLAUDENEST_RELAY_LOGIN_MAX_DAYS", "2"), ("CLAUDENEST_RELAY_LOGIN_IDLE_DAYS", "2"), ("HOME", "/x")];
    let loaded = read(toml, &env, flags).unwrap();
    assert_eq!(loaded.config.login_max_days, 3);
    assert_eq!(loaded.config.login_idle_days, 2);
    assert_eq!(loaded.config.listen.port(), 1);
    let source = |key| loaded.values.iter().find(|value| value.0 == key).map(|value| value.2);
    assert_eq!(source("login_max_days"), Some(Source::Flag));
    assert_eq!(source("login_idle_days"), Some(Source::Environment));
    assert_eq!(source("listen"), Some(Source::File));
    assert_eq!(source("log"), Some(Source::Default));
}

#[test]
fn unknown_keys_are_errors_that_name_the_line() {
    let error = sentence("listen = \"127.0.0.1:1\"\nlogin_days = 1\n", &[]);
    assert!(error.contains("line 2") && error.contains("login_days"), "{error}");
    let error = sentence("login_max_days = \"many\"\n", &[]);
    assert!(error.contains("line 1"), "{error}");
    let error = sentence("", &[("CLAUDENEST_RELAY_LISTN", "x")]);
    assert!(error.contains("CLAUDENEST_RELAY_LISTN"), "{error}");
    let error = sentence("", &[("CLAUDENEST_RELAY_LISTEN", "x")]);
    assert!(error.contains("CLAUDENEST_RELAY_LISTEN"), "{error}");
}

#[test]
fn settings_that_do_not_fit_together_are_refused() {
    for (toml, part) in [
        ("tls_cert = \"/x\"", "tls_key"),
        ("listen = \"0.0.0.0:80\"", "--allow-plain-http"),
        ("public_url = \"nest.example.com\"", "https://nest.example.com"),
        ("public_url = \"https://nest.example.com/nest\"", "without a path"),
        ("tls_cert = \"/x\"\ntls_key = \"/y\"\npublic_url = \"http://x\"", "https://"),
        ("database_url = \"mysql://x\"", "postgres://"),
        ("login_idle_days = 0", "login_idle_days"),
    ] {
        let error = sentence(toml, &[]);
        assert!(error.contains(part), "{toml}: {error}");
    }
    for toml in [
        "listen = \"0.0.0.0:80\"\nallow_plain_http = true",
        "listen = \"0.0.0.0:80\"\npublic_url = \"https://nest.example.com\"",
        "listen = \"[::1]:80\"",
        "listen = \"0.0.0.0:80\"\ntls_cert = \"/x\"\ntls_key = \"/y\"",
    ] {
        assert!(read(toml, &[], Partial::default()).is_ok(), "{toml}");
    }
}

#[test]
fn passwords_are_not_shown() {
    let loaded = read("database_url = \"postgres://u:sesame@h/d\"", &[], Partial::default()).unwrap();
    assert!(!format!("{loaded:?}").contains("sesame"));
    let shown = &loaded.values.iter().find(|value| value.0 == "database_url").unwrap().1;
    assert_eq!(shown, "postgres://u:***@h/d");
}

#[test]
fn the_documented_table_is_the_real_one() {
    let page = include_str!("../../../docs/relay-config.md");
    assert!(page.contains(&markdown_table()), "docs/relay-config.md needs this table:\n{}", markdown_table());
}

use super::*;

fn read_file(text: &str) -> Result<Effective, ConfigError> {
    read(text, Path::new("config.toml"), [])
}

fn fails(text: &str, expected: &str) {
    let message = read_file(text).unwrap_err().to_string();
    assert!(message.contains(expected), "{message:?} does not say {expected:?}");
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let effective = read_file("").unwrap();
    assert_eq!(effective.config, Config::default());
    assert_eq!(effective.source("max_sessions"), Source::Default);
}

#[test]
fn every_default_reads_back_as_itself() {
    let text: String =
        KEYS.iter().map(|key| format!("{} = {}\n", key.name, (key.get)(&Config::default()))).collect();
    let effective = read_file(&text).unwrap();
    assert_eq!(effective.config, Config::default());
    assert_eq!(effective.source(KEYS[1].name), Source::File { line: 2 });
}

#[test]
fn a_later_source_wins() {
    let environment = [("CLAUDENEST_AGENT_MAX_SESSIONS".to_owned(), "5".to_owned())];
    let mut effective = read("max_sessions = 3", Path::new("c"), environment).unwrap();
    assert_eq!(effective.config.max_sessions, 5);
    assert_eq!(effective.source("max_sessions"), Source::Environment);
    effective.set_flag("max_sessions", "7").unwrap();
    assert_eq!((effective.config.max_sessions, effective.source("max_sessions")), (7, Source::Flag));
}

#[test]
fn an_unknown_key_names_its_line_and_the_near_one() {
    fails(
        "\nmax_sesions = 3\n",
        "config.toml, line 2: there is no key `max_sesions`. Did you mean `max_sessions`?",
    );
    fails("[relay]\nurl = 1\n", "`relay` takes a string");
    fails("[other]\nurl = 1\n", "line 1: there is no key `other`");
    let environment = [("CLAUDENEST_AGENT_LOGG".to_owned(), "x".to_owned())];
    let message = read("", Path::new("c"), environment).unwrap_err().to_string();
    assert!(message.contains("CLAUDENEST_AGENT_LOGG") && message.contains("`log`"), "{message}");
}

#[test]
fn bad_values_say_what_the_key_takes() {
    fails("max_sessions = 0", "line 1: `max_sessions` takes a whole number from 1 to 1000.");
    fails("max_sessions = 99999999999999999999", "takes a whole number");
    fails("recording = \"maybe\"", "takes true or false");
    fails("roots = [1]", "takes a list of strings");
    fails("roots = [\"relative\"]", "takes absolute paths");
    fails("ring_bytes = \"1KiB\"", "takes a size from 64KiB to 64MiB");
    fails("hibernate_after = \"soon\"", "takes a duration");
    fails("stop_grace = \"2h\"", "at most 60s");
    fails("extra_ca = 3", "takes a list");
    fails("credential_store = \"vault\"", "\"auto\", \"keyring\" or \"file\"");
    fails("detach_keys = \"a\"", "detach_keys");
    fails("log_format = \"xml\"", "\"human\" or \"json\"");
    fails("pass_env = [\"A=B\"]", "names of environment variables");
    fails("x = = 1", "line 1: this is not TOML");
}

#[test]
fn sizes_durations_and_lists_are_read() {
    let effective = read_file(
        "ring_bytes = \"8MiB\"\nhibernate_after = \"30m\"\nroots = [\"/a\", \"/b\"]\nextra_ca = [\"/ca.pem\"]",
    )
    .unwrap();
    assert_eq!(effective.config.ring_bytes, 8 << 20);
    assert_eq!(effective.config.hibernate_after, Some(Duration::from_secs(1800)));
    assert_eq!(effective.config.roots, [PathBuf::from("/a"), PathBuf::from("/b")]);
    let environment = [("CLAUDENEST_AGENT_PASS_ENV".to_owned(), "A:B".to_owned())];
    assert_eq!(read("", Path::new("c"), environment).unwrap().config.pass_env, ["A", "B"]);
}

#[test]
fn the_documentation_is_fresh() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent-config.md");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, markdown(), "run: claudenest-agent config --docs > docs/agent-config.md");
}

#[test]
fn rules_of_the_policy_are_read_and_checked() {
    let text = "max_sessions = 3\n[[policy.rule]]\nname = \"no-push\"\neffect = \"deny\"\ncommand = \"git push\"\n[[policy.rule]]\nname = \"tests\"\neffect = \"allow\"\ncommand = \"cargo test\"\nmax_risk = \"low\"\n";
    let effective = read_file(text).unwrap();
    assert_eq!(effective.config.policy.len(), 2);
    assert_eq!(effective.config.policy[0].command.as_deref(), Some("git push"));
    let policy = KEYS.iter().find(|key| key.name == "policy").unwrap();
    let again = read_file(&format!("policy = {}", (policy.get)(&effective.config))).unwrap();
    assert_eq!(again.config.policy, effective.config.policy);
    fails(
        "[[policy.rule]]\nname = \"a\"\neffect = \"alow\"\n",
        "line 1: `policy` has a rule that cannot be read",
    );
    fails("[[policy.rule]]\nname = \"a\"\neffect = \"deny\"\ncomand = \"x\"\n", "comand");
    fails("[[policy.rule]]\nname = \"a\"\neffect = \"allow\"\n", "would match everything");
    fails("policy = 3", "is a table");
    let twice = "[[policy.rule]]\nname = \"a\"\neffect = \"deny\"\ntool = \"x\"\n".repeat(2);
    fails(&twice, "two rules named `a`");
}

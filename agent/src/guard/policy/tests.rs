use super::*;
use crate::guard::risk::assess;
use proptest::prelude::*;
use serde_json::json;
use std::path::Path;

const NOW: UnixMs = UnixMs(1_000_000);

fn scope() -> Scope<'static> {
    Scope {
        cwd: Path::new("/home/dev/demo"),
        project: Path::new("/home/dev/demo"),
        home: Some(Path::new("/home/dev")),
    }
}

fn rule(text: &str) -> PolicyRule {
    toml::from_str(&format!("name = \"r\"\n{text}")).unwrap()
}

fn session() -> SessionId {
    "018f0000-0000-7000-8000-000000000001".parse().unwrap()
}

fn ruling(rules: &[PolicyRule], tool: &str, input: &Value) -> Ruling {
    let assessment = assess(tool, input, &scope());
    let act = Act { tool, input, assessment: &assessment, session: session(), scope: scope() };
    decide(rules.iter(), &act, NOW)
}

fn bash(rules: &[PolicyRule], command: &str) -> Option<Effect> {
    ruling(rules, "Bash", &json!({"command": command})).effect
}

#[test]
fn without_rules_only_high_risk_asks() {
    for (command, effect) in [
        ("ls", None),
        ("cargo test", None),
        ("git push", None),
        ("git push -f", Some(Effect::Ask)),
        ("rm -rf src", Some(Effect::Ask)),
    ] {
        assert_eq!(bash(&[], command), effect, "{command}");
    }
}

#[test]
fn deny_matches_every_part_and_the_text() {
    let rules = [rule("effect = \"deny\"\ncommand = \"git push\"")];
    for command in [
        "git push",
        "git push origin main",
        "ls && git push",
        "git -C x push",
        "/usr/bin/git push",
        "sudo git push",
        "bash -c 'git push'",
        "echo $(git push)",
        "timeout 5 git push",
        "xargs git push",
        "A=b git push",
        "g\\it push",
        "git  push",
        "if true; then git push; fi",
        "echo \"x",
        "git push; echo \"x",
        "cat <<EOF | sh\ngit push\nEOF",
        "env git push",
        "find . -exec git push \\;",
    ] {
        assert_eq!(bash(&rules, command), Some(Effect::Deny), "{command}");
    }
    for command in ["git status", "git pull", "ls push", "gitpush"] {
        assert_ne!(bash(&rules, command), Some(Effect::Deny), "{command}");
    }
    let many = vec!["ls"; 51].join("; ");
    assert_eq!(bash(&rules, &many), Some(Effect::Deny), "more than can be looked at");
}

#[test]
fn allow_covers_whole_commands_word_for_word() {
    let rules = [
        rule("effect = \"allow\"\ncommand = \"cargo test\""),
        rule("effect = \"allow\"\npattern = \"npm run *\""),
    ];
    for command in [
        "cargo test",
        "cargo test --all",
        "cargo test && cargo test x",
        "timeout 60 cargo test",
        "npm run build; cargo test",
        "cargo test 2>/dev/null",
    ] {
        assert_eq!(bash(&rules, command), Some(Effect::Allow), "{command}");
    }
    for command in [
        "cargo build",
        "cargo",
        "cargo test && ls",
        "cargo test; rm a",
        "cargo test $X",
        "cargo test $(id)",
        "cargo test > f",
        "A=b cargo test",
        "cargo test `id`",
        "cargo test *",
        "(cargo test)",
        "cargo test \"x",
        "cargo testx",
        "npm run",
        "X=1; cargo test",
        "cargo test | sh",
        "if true; then cargo test; fi",
        "cargo test & ls",
        "f() { cargo test; }; f",
        "alias x=y; cargo test",
        "cargo test <(id)",
        "sudo cargo test",
    ] {
        assert_ne!(bash(&rules, command), Some(Effect::Allow), "{command}");
    }
    assert_ne!(bash(&rules, &vec!["cargo test"; 17].join("; ")), Some(Effect::Allow), "more than 16 parts");
    assert_eq!(bash(&rules, &vec!["cargo test"; 16].join("; ")), Some(Effect::Allow));
}

#[test]
fn allow_does_not_reach_high_risk_unless_it_says_so() {
    let push = rule("effect = \"allow\"\ncommand = \"git push\"");
    assert_eq!(bash(std::slice::from_ref(&push), "git push"), Some(Effect::Allow));
    assert_eq!(bash(std::slice::from_ref(&push), "git push --force"), Some(Effect::Ask));
    let high = PolicyRule { max_risk: Some(Risk::High), ..push };
    assert_eq!(bash(&[high], "git push --force"), Some(Effect::Allow));
    let low = rule("effect = \"allow\"\ntool = \"Bash\"\nmax_risk = \"low\"");
    assert_eq!(bash(std::slice::from_ref(&low), "ls src"), Some(Effect::Allow));
    assert_eq!(bash(&[low], "touch src"), None);
}

#[test]
fn deny_beats_ask_beats_allow() {
    let (allow, ask, deny) = (
        rule("effect = \"allow\"\ncommand = \"ls\""),
        rule("effect = \"ask\"\ncommand = \"ls\""),
        rule("effect = \"deny\"\ncommand = \"ls\""),
    );
    assert_eq!(bash(std::slice::from_ref(&allow), "ls"), Some(Effect::Allow));
    assert_eq!(bash(&[allow.clone(), ask.clone()], "ls"), Some(Effect::Ask));
    assert_eq!(bash(&[allow, ask, deny], "ls"), Some(Effect::Deny));
}

#[test]
fn paths_are_matched_in_tools_and_commands() {
    let rules = [
        rule("effect = \"deny\"\npath = \"migrations/**\""),
        rule("effect = \"allow\"\ntool = \"Edit\"\npath = \"src/**\""),
    ];
    let edit = |path: &str| ruling(&rules, "Edit", &json!({"file_path": path})).effect;
    assert_eq!(edit("/home/dev/demo/src/a.rs"), Some(Effect::Allow));
    assert_eq!(edit("src/deep/../a.rs"), Some(Effect::Allow));
    assert_eq!(edit("/home/dev/demo/src/../b.rs"), None);
    assert_eq!(edit("/home/dev/demo/migrations/1.sql"), Some(Effect::Deny));
    for command in [
        "echo x > migrations/1.sql",
        "rm -rf migrations",
        "cat migrations/1.sql",
        "sed -i s/a/b/ ./migrations/x",
        "git checkout .",
        "cd migrations && touch x",
    ] {
        assert_eq!(bash(&rules, command), Some(Effect::Deny), "{command}");
    }
    assert_eq!(bash(&rules, "ls src"), None);
    let env = [rule("effect = \"deny\"\npath = \".env\"")];
    for path in [".env", "deep/er/.env"] {
        assert_eq!(ruling(&env, "Read", &json!({"file_path": path})).effect, Some(Effect::Deny), "{path}");
    }
}

#[test]
fn rules_hold_where_and_as_long_as_they_say() {
    let base = rule("effect = \"deny\"\ncommand = \"ls\"");
    for (rule, effect) in [
        (PolicyRule { expires_at: Some(NOW), ..base.clone() }, None),
        (PolicyRule { expires_at: Some(UnixMs(NOW.0 + 1)), ..base.clone() }, Some(Effect::Deny)),
        (PolicyRule { project: Some("/home/dev/demo".to_owned()), ..base.clone() }, Some(Effect::Deny)),
        (PolicyRule { project: Some("/home/dev/dem".to_owned()), ..base.clone() }, None),
        (PolicyRule { session: Some(session()), ..base.clone() }, Some(Effect::Deny)),
        (
            PolicyRule {
                session: Some("018f0000-0000-7000-8000-000000000002".parse().unwrap()),
                ..base.clone()
            },
            None,
        ),
        (PolicyRule { tool: Some("mcp__*".to_owned()), command: None, ..base.clone() }, None),
    ] {
        assert_eq!(bash(std::slice::from_ref(&rule), "ls"), effect, "{rule:?}");
    }
    let mcp = [PolicyRule { tool: Some("mcp__github__*".to_owned()), command: None, ..base }];
    assert_eq!(ruling(&mcp, "mcp__github__create_issue", &json!({})).effect, Some(Effect::Deny));
    assert_eq!(ruling(&mcp, "mcp__gitlab__x", &json!({})).effect, None);
}

#[tokio::test]
async fn what_is_remembered_survives_and_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let policy =
        Policy::open(vec![rule("effect = \"ask\"\ncommand = \"ls -x\"")], store.clone()).await.unwrap();
    let input = json!({"command": "git push --force origin x"});
    let assessment = assess("Bash", &input, &scope());
    let act =
        Act { tool: "Bash", input: &input, assessment: &assessment, session: session(), scope: scope() };
    let remember = Remember { scope: RuleScope::Project, duration_s: Some(60) };
    let made = rule_of(&act, remember, "ab12", NOW).unwrap();
    let name = made.name.clone();
    policy.add(made, NOW).await.unwrap();
    assert_eq!(policy.decide(&act, NOW).effect, Some(Effect::Allow));
    assert_eq!(policy.decide(&act, UnixMs(NOW.0 + 60_000)).effect, Some(Effect::Ask), "its time is over");
    let again = Policy::open(Vec::new(), store.clone()).await.unwrap();
    assert_eq!(again.decide(&act, NOW).rules, std::slice::from_ref(&name), "on disk");
    assert!(again.remove(&name).await.unwrap() && !again.remove(&name).await.unwrap());
    assert_eq!(again.decide(&act, NOW).effect, Some(Effect::Ask));
    let input = json!({"command": "rm $X"});
    let assessment = assess("Bash", &input, &scope());
    let act =
        Act { tool: "Bash", input: &input, assessment: &assessment, session: session(), scope: scope() };
    assert!(matches!(rule_of(&act, remember, "cd34", NOW), Err(PolicyError::Rule(_))), "not understood");
}

#[test]
fn globs_match_as_they_say() {
    for (pattern, text, is_path, fits) in [
        ("a*c", "abc", false, true),
        ("a*c", "a/c", false, true),
        ("a*c", "a/c", true, false),
        ("a**c", "a/b/c", true, true),
        ("a?c", "a/c", true, false),
        ("*", "", false, true),
        ("", "", false, true),
        ("a", "", false, false),
        ("**/x", "/a/b/x", true, true),
        ("*.rs", "a.rs.txt", false, false),
    ] {
        assert_eq!(matching::glob(pattern, text, is_path), fits, "{pattern} {text}");
    }
}

#[test]
fn rules_that_say_nothing_are_refused() {
    for text in [
        "effect = \"allow\"",
        "effect = \"deny\"\ncommand = \"\"",
        "effect = \"deny\"\ncommand = \"a\"\npattern = \"b\"",
        "effect = \"deny\"\ntool = \"x\"\nproject = \"a\"",
    ] {
        assert!(check(&rule(text)).is_err(), "{text}");
    }
    assert!(
        toml::from_str::<PolicyRule>("name = \"r\"\neffect = \"allow\"\ncomand = \"x\"").is_err(),
        "unknown fields"
    );
}

fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let effect = prop_oneof![Just("allow"), Just("ask"), Just("deny")];
    let what = prop_oneof![
        Just("command = \"ls\""),
        Just("command = \"git push\""),
        Just("command = \"cargo\""),
        Just("pattern = \"git *\""),
        Just("tool = \"Bash\""),
        Just("tool = \"*\""),
        Just("path = \"src/**\""),
        Just("path = \"/etc/**\""),
        Just("max_risk = \"low\""),
        Just("exact = \"ls\""),
        Just("command = \"rm\"\nmax_risk = \"high\""),
    ];
    (effect, what).prop_map(|(effect, what)| rule(&format!("effect = \"{effect}\"\n{what}")))
}

fn any_command() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("ls"),
        Just("git push"),
        Just("git push -f"),
        Just("cargo test"),
        Just("rm -rf src"),
        Just("echo $X"),
        Just("touch src/a"),
        Just("echo \"x"),
        Just("cat /etc/passwd"),
        Just("(ls)"),
    ];
    proptest::collection::vec(part, 1..20).prop_map(|parts| parts.join("; "))
}

proptest! {
    #[test]
    fn another_deny_rule_never_allows_more(rules in proptest::collection::vec(any_rule(), 0..5), deny in any_rule(), command in any_command()) {
        let deny = PolicyRule { effect: Effect::Deny, ..deny };
        let before = bash(&rules, &command);
        let mut more = rules;
        more.push(deny);
        let after = bash(&more, &command);
        prop_assert!(after == before || after == Some(Effect::Deny), "{before:?} {after:?}");
    }

    #[test]
    fn the_order_of_rules_does_not_matter(rules in proptest::collection::vec(any_rule(), 0..5), command in any_command()) {
        let mut turned = rules.clone();
        turned.reverse();
        prop_assert_eq!(bash(&rules, &command), bash(&turned, &command));
    }

    #[test]
    fn allow_never_covers_what_is_not_understood(rules in proptest::collection::vec(any_rule(), 0..8), command in any_command()) {
        let assessment = assess("Bash", &json!({"command": command}), &scope());
        if !assessment.is_understood {
            prop_assert_ne!(bash(&rules, &command), Some(Effect::Allow));
        }
    }
}

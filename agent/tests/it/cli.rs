//! The command line with the real program: texts, exit codes, JSON, and the drop-in for `claude`.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::own::Own;

const CLAUDE: &str = r#"
case "$*" in
  *--version*) echo '2.1.329 (Claude Code)'; exit 0;;
  *sleep*) echo started; exec sleep 1000;;
esac
[ -t 0 ] || cat
echo "args: ${@: -1}"; echo problem >&2
[ -t 1 ] && echo on a terminal
exit 3
"#;

#[test]
fn in_a_pipe_the_drop_in_is_claude_itself() {
    let own = Own::new(CLAUDE);
    let mut child = own
        .command(&["claude", "-p", "hello"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"piped\r\n\x1b[31m").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"piped\r\n\x1b[31margs: hello\n", "every byte as it is");
    assert_eq!(output.stderr, b"problem\n");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(own.run(&["claude", "--version"]), (0, "2.1.329 (Claude Code)\n".into(), String::new()));
    assert_eq!(own.run(&["session", "list"]).0, 3, "no daemon was needed");
}

#[test]
fn on_a_terminal_a_print_run_is_supervised_and_ctrl_c_ends_it() {
    let own = Own::started(CLAUDE);
    let (code, said) = own.terminal(&["claude", "-p", "hello"], 80, 24).wait();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("args: hello") && said.contains("on a terminal"), "{said:?}");
    assert!(!said.contains("\x1b[?1049l"), "it is text, not a screen: {said:?}");
    let sessions = own.json(&["session", "list", "--all"]);
    assert_eq!(
        (sessions[0]["state"].as_str(), sessions[0]["exit"]["code"].as_u64()),
        (Some("failed"), Some(3))
    );
    let mut terminal = own.terminal(&["claude", "-p", "sleep"], 80, 24);
    terminal.until("started");
    terminal.write(&[3]);
    assert_eq!(terminal.wait().0, 130);
    let sessions = own.json(&["session", "list", "--all"]);
    let (code, ..) = own.run(&["session", "wait", sessions[0]["name"].as_str().unwrap()]);
    assert_eq!(code, 0);
}

#[test]
fn without_a_daemon_every_command_says_so() {
    let own = Own::new(CLAUDE);
    for command in
        ["list", "show x", "kill x", "send x hi", "wait x", "screen x", "logs x", "pause x", "forget x"]
    {
        let args: Vec<&str> = std::iter::once("session").chain(command.split(' ')).collect();
        let (code, stdout, stderr) = own.run(&args);
        assert!(code == 3 && stdout.is_empty(), "{command}: {code} {stdout}");
        assert!(
            stderr.contains("does not run") && stderr.contains("claudenest-agent run"),
            "{command}: {stderr}"
        );
    }
    let (code, stdout, _) = own.run(&["session", "list", "--json"]);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, answer["error"]["code"].as_str()), (3, Some("daemon_not_running")));
    let (code, stdout, _) = own.run(&["session", "list", "--json", "--bogus"]);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, answer["error"]["code"].as_str()), (2, Some("usage")));
    assert_eq!(own.run(&["status", "--json"]).0, 3);
    assert_eq!(own.run(&["unpair"]).0, 4);
    assert_eq!(own.run(&["logs"]).0, 4);
}

#[test]
fn wrong_names_and_states_have_their_texts_and_codes() {
    let own = Own::started(CLAUDE);
    own.shell("alpha");
    let check = |args: &str, wanted: i32, text: &str| {
        let args: Vec<&str> = args.split(' ').collect();
        let (code, stdout, stderr) = own.run(&args);
        assert!(
            code == wanted && (stdout.clone() + &stderr).contains(text),
            "{args:?}: {code} {stdout}{stderr}"
        );
        let args: Vec<&str> = args.into_iter().chain(["--json"]).collect();
        let (code, stdout, _) = own.run(&args);
        assert_eq!(code, wanted, "{args:?}");
        serde_json::from_str::<Value>(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"));
    };
    check("session show alpah", 4, "Did you mean alpha?");
    check("session kill nope", 4, "no session \"nope\"");
    check("session forget alpha", 5, "stop it");
    check("session hibernate alpha", 5, "no conversation");
    check("session rename alpha bad/name", 2, "letters, digits");
    check("session wait alpha --timeout 200ms", 124, "200 ms");
    check("session wait alpha --timeout 0", 124, "0 s");
    check("session kill alpha --grace 99s", 2, "60 s");
    check("session new --dir /does/not/exist", 5, "does not exist");
    check("session new --mode oneshot", 2, "needs a prompt");
    check("session new --name alpha", 5, "called alpha");
    check("attach alpha", 2, "needs a terminal");
    check("session pause alpha", 0, "paused");
    check("session resume alpha", 0, "goes on");
    check("session screen alpha", 0, "");
    check("status", 0, "1 running");
    check("config", 0, "max_sessions");
    check("service status", 3, "");
    check("session kill alpha", 0, "terminated");
    check("session wait alpha", 0, "terminated");
    check("session wait alpha --for waiting-input", 5, "terminated");
    check("session pause alpha", 5, "terminated");
    check("session list", 0, "");
    let (code, stdout, _) = own.run(&["session", "logs", "alpha"]);
    assert!(code == 0 && !stdout.is_empty(), "an ended session keeps its output");
    check("session show alpha", 0, "terminated");
    assert_eq!(own.run(&["session", "forget", "alpha"]).0, 0);
    check("session show alpha", 4, "no sessions yet");
}

#[test]
fn addresses_that_are_no_relay_are_explained() {
    let own = Own::new(CLAUDE);
    for (address, code, text) in [
        ("", 2, "not the address"),
        ("ftp://x", 2, "https://"),
        ("http://nest.example.com", 2, "no TLS"),
        ("https://nest.example.com/path", 2, "without a path"),
        ("127.0.0.1:1", 1, "nothing listens there"),
        ("https://no-such-name.invalid", 1, "cannot be resolved"),
    ] {
        let (got, _, stderr) = own.run(&["pair", "--relay", address, "--expect-account", "a@example.com"]);
        assert!(got == code && stderr.contains(text), "{address}: {got} {stderr}");
    }
    let (code, _, stderr) = own.run(&["pair", "--relay", "127.0.0.1:1"]);
    assert!(code == 2 && stderr.contains("--expect-account"), "{stderr}");
    let (code, _, stderr) = own.run(&["pair", "--relay", "127.0.0.1:1", "--token", "cne_short"]);
    assert!(code == 2 && stderr.contains("not an enrolment token"), "{stderr}");
}

//! Tests of [`super`].

use super::*;
use claudenest_shared::session::PermissionMode;

fn around() -> Surroundings {
    let variable = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
    Surroundings {
        environment: vec![
            variable("PATH", "/bin"),
            variable("TERM_PROGRAM", "vscode"),
            variable("TMUX", "/tmp/x"),
            variable("CLAUDECODE", "1"),
            variable("CLAUDE_CODE_ENTRYPOINT", "cli"),
            variable("CLAUDE_CODE_USE_BEDROCK", "1"),
            variable("CLAUDENEST_CAPABILITY", "outer"),
            variable("CLAUDE_CODE_MAX_RETRIES", "0"),
            variable("EDITOR", "vi"),
            variable("LANG", "POSIX"),
        ],
        passed: vec!["CLAUDE_CODE_MAX_RETRIES".into()],
        agent_program: "/usr/bin/claudenest-agent".into(),
        control_socket: "/run/c.sock".into(),
        shell: "/bin/bash".into(),
        home: "/home/u".into(),
    }
}

fn launch(spec: &SessionSpec, conversation: Conversation, prompt: Option<&str>) -> Launch {
    let request = LaunchRequest {
        spec,
        name: "demo",
        conversation,
        prompt,
        session: "s".into(),
        capability: "c".into(),
        claude: Some("/bin/claude".into()),
    };
    Launch::build(&request, &around()).unwrap()
}

fn new() -> Conversation {
    Conversation::New("11111111-1111-4111-8111-111111111111".into())
}

/// The arguments with the long settings text replaced.
fn args(launch: &Launch) -> String {
    launch
        .args
        .iter()
        .cloned()
        .map(|arg| if arg.starts_with('{') { "JSON".to_owned() } else { arg })
        .collect::<Vec<_>>()
        .join(" ")
}

fn spec(mode: SessionMode) -> SessionSpec {
    SessionSpec { mode, cwd: "/tmp".into(), ..SessionSpec::default() }
}

#[test]
fn each_mode_has_its_arguments() {
    let interactive = SessionSpec {
        model: Some("opus".into()),
        permission_mode: Some(PermissionMode::Plan),
        worktree: Some("w1".into()),
        args: vec!["--allowedTools".into(), "Bash".into()],
        ..spec(SessionMode::Interactive)
    };
    let id = "11111111-1111-4111-8111-111111111111";
    assert_eq!(
        args(&launch(&interactive, new(), Some("-fix it"))),
        format!(
            "--session-id {id} --mcp-config JSON --settings JSON --model opus --permission-mode plan --name demo --worktree w1 --allowedTools Bash -- -fix it"
        )
    );
    assert_eq!(
        args(&launch(&interactive, Conversation::Resume("abc".into()), None)),
        "--resume abc --mcp-config JSON --settings JSON --model opus --permission-mode plan --name demo --allowedTools Bash"
    );
    assert_eq!(
        args(&launch(&spec(SessionMode::Oneshot), new(), Some("hi"))),
        format!("-p --session-id {id} --mcp-config JSON --settings JSON --name demo -- hi")
    );
    let print = SessionSpec { args: vec!["-p".into(), "hi".into()], ..spec(SessionMode::Oneshot) };
    assert_eq!(
        args(&launch(&print, new(), None)),
        format!("--session-id {id} --mcp-config JSON --settings JSON --name demo -p hi"),
        "once"
    );
    let headless = launch(&spec(SessionMode::Headless), new(), Some("hi"));
    assert_eq!(
        args(&headless),
        format!(
            "-p --input-format stream-json --output-format stream-json --verbose --replay-user-messages --session-id {id} --mcp-config JSON --settings JSON --name demo"
        )
    );
    assert!(!headless.is_terminal && headless.first_input.is_some());
    let shell = launch(&spec(SessionMode::Shell), new(), None);
    assert_eq!((shell.program, shell.args), ("/bin/bash".into(), vec!["-l".to_owned()]));
    assert!(!shell.env.iter().any(|(name, _)| name.starts_with("CLAUDENEST_")));
}

#[test]
fn the_users_own_choice_of_conversation_and_name_wins() {
    let with = |text: &str| SessionSpec {
        args: text.split(' ').map(str::to_owned).collect(),
        ..spec(SessionMode::Interactive)
    };
    assert_eq!(
        args(&launch(&with("--resume old --fork-session -n mine"), new(), None)),
        "--mcp-config JSON --settings JSON --resume old --fork-session -n mine"
    );
    assert_eq!(
        args(&launch(&with("-c --model x -- hello"), Conversation::Resume("abc".into()), None)),
        "--resume abc --mcp-config JSON --settings JSON --name demo --model x"
    );
    assert_eq!(
        args(&launch(
            &with("--verbose --allowedTools Bash Read --model x prompt"),
            Conversation::Resume("abc".into()),
            None
        )),
        "--resume abc --mcp-config JSON --settings JSON --name demo --verbose --allowedTools Bash Read --model x"
    );
    assert_eq!(
        args(&launch(&with("--worktree=w --resume=old"), Conversation::Resume("abc".into()), None)),
        "--resume abc --mcp-config JSON --settings JSON --name demo"
    );
}

#[test]
fn settings_of_the_user_are_merged_from_file_or_text() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("s.json"), r#"{"model": "from-file"}"#).unwrap();
    let with = |value: &str| SessionSpec {
        args: vec!["--settings".into(), value.into()],
        cwd: dir.path().to_string_lossy().into_owned(),
        ..spec(SessionMode::Interactive)
    };
    let merged = |spec: &SessionSpec| {
        let launch = launch(spec, new(), None);
        let at = launch.args.iter().position(|arg| arg == "--settings").unwrap();
        assert_eq!(launch.args.iter().filter(|arg| *arg == "--settings").count(), 1);
        serde_json::from_str::<Value>(&launch.args[at + 1]).unwrap()
    };
    assert_eq!(merged(&with("s.json"))["model"], "from-file");
    assert_eq!(merged(&with(r#"{"model": "inline"}"#))["model"], "inline");
    for bad in ["missing.json", "{", "[1]"] {
        let spec = with(bad);
        let request = LaunchRequest {
            spec: &spec,
            name: "n",
            conversation: new(),
            prompt: None,
            session: String::new(),
            capability: String::new(),
            claude: Some("/bin/claude".into()),
        };
        assert!(matches!(Launch::build(&request, &around()), Err(LaunchError::Settings(_))), "{bad}");
    }
}

#[test]
fn the_environment_is_fixed_and_clean() {
    let wished = BTreeMap::from([("TERM".to_owned(), "dumb".to_owned()), ("X".to_owned(), "1".to_owned())]);
    let env = clean_environment(&around(), &wished);
    let get = |name: &str| env.get(name).map(String::as_str);
    assert_eq!(get("TERM"), Some("dumb"));
    assert_eq!(get("X"), Some("1"));
    assert_eq!(get("COLORTERM"), Some("truecolor"));
    assert_eq!(get("EDITOR"), Some("vi"));
    assert_eq!(get("CLAUDE_CODE_MAX_RETRIES"), Some("0"));
    assert!(get("LANG").unwrap().ends_with("UTF-8"));
    assert_eq!(get("CLAUDE_CODE_USE_BEDROCK"), Some("1"));
    for gone in ["TERM_PROGRAM", "TMUX", "CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDENEST_CAPABILITY"] {
        assert_eq!(get(gone), None, "{gone}");
    }
}

#[test]
fn a_prompt_that_no_program_can_be_given_is_refused() {
    let spec = spec(SessionMode::Interactive);
    let prompt = "x".repeat(MAX_ARGUMENT_BYTES + 1);
    let request = LaunchRequest {
        spec: &spec,
        name: "n",
        conversation: new(),
        prompt: Some(&prompt),
        session: String::new(),
        capability: String::new(),
        claude: Some("/bin/claude".into()),
    };
    let error = Launch::build(&request, &around()).unwrap_err();
    assert!(error.to_string().contains("127 KiB"), "{error}");
}

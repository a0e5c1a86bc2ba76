use super::*;
use serde_json::json;

fn scope() -> Scope<'static> {
    Scope {
        cwd: Path::new("/home/dev/demo"),
        project: Path::new("/home/dev/demo"),
        home: Some(Path::new("/home/dev")),
    }
}

fn bash(command: &str) -> Assessment {
    assess("Bash", &json!({"command": command}), &scope())
}

#[test]
fn reading_the_project_is_low_and_everything_else_is_not() {
    for command in ["ls -la", "cat src/main.rs | grep -n 'fn main'", "head -20 README.md && wc -l README.md"]
    {
        let assessment = bash(command);
        assert_eq!(
            (assessment.risk, assessment.has_unknown_writes),
            (Risk::Low, false),
            "{command}: {assessment:#?}"
        );
        assert!(assessment.is_understood && assessment.writes.is_empty());
    }
    for command in
        ["ls *", "cat /etc/passwd", "frob", "A=b ls", "ls\nls", "\"ls\"", "time ls", "uniq a b", "ls > f"]
    {
        assert!(bash(command).risk > Risk::Low, "{command}");
    }
}

#[test]
fn redirections_are_writes() {
    let assessment = bash("echo a > out.txt b; cd sub && echo x >> ../y");
    let paths: Vec<_> = assessment.writes.iter().map(|write| write.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/home/dev/demo/out.txt", "/home/dev/demo/y"]);
}

#[test]
fn edits_are_writes_and_settings_are_guarded() {
    let assessment = assess("Edit", &json!({"file_path": "/home/dev/demo/src/./a/../b.rs"}), &scope());
    assert_eq!(assessment.writes, [WrittenPath { path: "/home/dev/demo/src/b.rs".into(), is_tree: false }]);
    assert_eq!(assessment.risk, Risk::Medium);
    for path in [
        "/home/dev/.claude/settings.json",
        "/home/dev/demo/.claude/settings.local.json",
        "/home/dev/.bashrc",
        "/etc/x",
    ] {
        assert_eq!(
            assess("Write", &json!({"file_path": path, "content": ""}), &scope()).risk,
            Risk::High,
            "{path}"
        );
    }
}

#[test]
fn words_of_reasons_are_unique() {
    let words: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.word()).collect();
    assert_eq!(words.len(), Reason::ALL.len());
}

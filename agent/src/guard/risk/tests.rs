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
    // Where `sub` is a symbolic link, the kernel writes elsewhere than the text says.
    assert_eq!(paths, ["/home/dev/demo/out.txt", "/home/dev/demo/y", "/home/dev/demo/sub/../y"]);
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

/// One line of the corpus.
struct Entry {
    line: usize,
    risk: &'static str,
    class: &'static str,
    command: String,
    expectations: Vec<&'static str>,
}

fn corpus() -> Vec<Entry> {
    let lines = include_str!("corpus.txt").lines().enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| {
            let line = line.strip_suffix(" ;;").unwrap_or(line);
            let mut fields: Vec<&str> = line.splitn(4, " ;; ").collect();
            fields.resize(4, "");
            let [risk, class, command, expectations] = fields[..] else { unreachable!("resized") };
            Entry {
                line: index + 1,
                risk,
                class,
                command: unescape(command),
                expectations: expectations.split_whitespace().collect(),
            }
        })
        .collect()
}

fn unescape(text: &str) -> String {
    if let Some((count, part)) = text.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
        return vec![unescape(part); count.parse().unwrap()].join("; ");
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.chars().next().unwrap() {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            '\\' => out.push('\\'),
            'u' if rest.starts_with("u{") => {
                let end = rest.find('}').unwrap();
                out.push(char::from_u32(u32::from_str_radix(&rest[2..end], 16).unwrap()).unwrap());
                rest = &rest[end..];
            }
            other => {
                out.push('\\');
                out.push(other);
            }
        }
        rest = &rest[1..];
    }
    out + rest
}

fn misses(entry: &Entry) -> Vec<String> {
    let assessment = bash(&entry.command);
    let mut misses = Vec::new();
    let mut check = |is_so: bool, what: &str| {
        if !is_so {
            misses.push(what.to_owned());
        }
    };
    check(assessment.risk.as_str() == entry.risk, entry.risk);
    let has = |word: &str| assessment.notes.iter().any(|note| note.word == word);
    for expectation in &entry.expectations {
        let is_so = match *expectation {
            "?" => assessment.has_unknown_writes,
            "!?" => !assessment.has_unknown_writes,
            "!>" => assessment.writes.is_empty(),
            text => match (text.strip_prefix('>'), text.strip_prefix('-')) {
                (Some(path), _) => {
                    let is_tree = path.ends_with('/');
                    let path = place::join(Path::new("/home/dev/demo"), path);
                    assessment.writes.contains(&WrittenPath { path, is_tree })
                }
                (None, Some(word)) => !has(word),
                (None, None) => {
                    assert!(
                        Reason::ALL.iter().any(|reason| reason.word() == text),
                        "line {}: {text}",
                        entry.line
                    );
                    has(text)
                }
            },
        };
        check(is_so, expectation);
    }
    if !misses.is_empty() {
        let words: Vec<&str> = assessment.notes.iter().map(|note| note.word.as_str()).collect();
        misses.push(format!("— got {:?} {words:?} writes {:?}", assessment.risk, assessment.writes));
    }
    misses
}

#[test]
fn the_corpus_gets_the_risks_it_must() {
    let entries = corpus();
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    let mut failures = Vec::new();
    for entry in &entries {
        *counts.entry(entry.class).or_default() += 1;
        let misses = misses(entry);
        if !misses.is_empty() {
            failures.push(format!("line {}: {:?}: {}", entry.line, entry.command, misses.join(" ")));
        }
    }
    println!("{} commands: {counts:?}", entries.len());
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), entries.len(), failures.join("\n"));
    assert!(entries.len() >= 400);
    for class in
        "compound substitution heredoc herestring quoting brace glob alias function env git-c find-exec sed awk tar xargs wrapper pipe array equals continuation unicode parts"
            .split(' ')
    {
        assert!(counts[class] >= 3, "{class}");
    }
}

#[test]
fn every_reason_is_documented() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/GUARD.md");
    let text = std::fs::read_to_string(file).unwrap();
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} | {} |", reason.word(), reason.risk().as_str(), reason.text());
        assert!(text.contains(&row), "docs/GUARD.md lacks: {row}");
    }
}

proptest::proptest! {
    #[test]
    fn nothing_makes_it_panic_or_take_long(text in "\\PC{0,400}", spice in proptest::collection::vec("[$`'\"(){}<>|&;\\\\\n\\[\\]*~=#! a-z-]{0,12}", 0..60)) {
        for command in [text.clone(), spice.concat(), format!("{text}{}", spice.join(&text[..text.chars().next().map_or(0, char::len_utf8)]))] {
            let assessment = bash(&command);
            let fault = assessment.notes.iter().any(|note| note.word == Reason::NotAssessed.word());
            proptest::prop_assert!(!fault, "{command:?}");
        }
    }
}

/// Long and deep inputs are bounded by counting, not by a clock; the time is a wide margin above what was measured.
#[test]
fn long_and_deep_commands_are_bounded() {
    let deep = |open: &str, close: &str| format!("{}x{}", open.repeat(8_000), close.repeat(8_000));
    for command in [
        "a ".repeat(32_000),
        "a;".repeat(32_000),
        "a&&".repeat(20_000) + "a",
        "a|".repeat(32_000) + "a",
        "a<b".repeat(20_000),
        "a $(b ".repeat(35) + &")".repeat(35),
        "eval 'a $(b $(c $(d ".repeat(6),
        "$(".repeat(30_000),
        deep("$(", ")"),
        deep("(", ")"),
        deep("{ ", "; }"),
        "\"".repeat(60_000),
        "'".repeat(60_001),
        "`".repeat(60_001),
        "<<A ".repeat(15_000),
        "bash -c '".repeat(6_000),
        "if x; then ".repeat(5_000),
        "[[ ".repeat(20_000),
        "x".repeat(200_000),
    ] {
        let start = std::time::Instant::now();
        let assessment = bash(&command);
        let took = start.elapsed();
        let fault = assessment.notes.iter().any(|note| note.word == Reason::NotAssessed.word());
        println!("{:?}… {} bytes: {took:?}", &command[..8], command.len());
        assert!(!fault && assessment.risk >= Risk::Medium, "{:?}", &command[..8]);
        assert!(took < std::time::Duration::from_secs(30), "{:?}… took {took:?}", &command[..8]);
    }
}

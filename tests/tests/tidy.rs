//! House rules that a program can check (STYLE and the invariants of docs/ARCHITECTURE.md). Each test is one rule; a failure lists every place.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// A tracked text file, with its path below the root.
struct File {
    path: String,
    text: String,
}

impl File {
    /// The part of a Rust file before its unit tests, without comment lines.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is(&self, extensions: &[&str]) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension))
    }

    fn is_below(&self, rooms: &[&str]) -> bool {
        rooms.iter().any(|room| self.path.starts_with(room))
    }

    /// Whether it consists of tests only: a `tests.rs` or a file in a `tests` directory.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.ends_with("_test.rs")
            || self.path.starts_with("tests/")
            || self.path.contains("/tests/")
    }
}

/// Every tracked file that is text.
fn files() -> Vec<File> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let files: Vec<File> = names
        .split('\0')
        .filter(|path| !path.is_empty())
        .filter_map(|path| {
            let text = std::fs::read_to_string(root().join(path)).ok()?;
            Some(File { path: path.to_owned(), text })
        })
        .collect();
    assert!(files.len() > 30, "git listed only {} files", files.len());
    files
}

fn check(rule: &str, places: Vec<String>) {
    assert!(places.is_empty(), "{rule}:\n  {}", places.join("\n  "));
}

/// Places of `words` in the code (without unit tests and comments) of the Rust files that `applies` names.
fn places(words: &[&str], applies: impl Fn(&File) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.is(&["rs"]) && applies(file)) {
        for (number, line) in file.code() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    found
}

#[test]
fn files_stay_under_600_lines() {
    let long = files()
        .into_iter()
        .filter(|file| file.is(&["rs", "ts", "vue", "sh", "py", "mjs", "css", "sql"]))
        .filter(|file| !file.path.ends_with("schema.ts")) // generated
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines >= 600)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    check("a file has fewer than 600 lines", long);
}

#[test]
fn shared_and_cores_do_no_io() {
    let words = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "std::os",
        "tokio",
        "sqlx",
        "getrandom",
        "rand::",
        "Instant::now",
        "SystemTime::now",
        "now_utc",
        "tracing::",
    ];
    check(
        "shared and every core.rs are free of IO, clocks and randomness",
        places(&words, |file| {
            file.is_below(&["shared/src/"])
                || (file.path.ends_with("/core.rs") && file.is_below(&["agent/src/", "relay/src/"]))
        }),
    );
}

#[test]
fn sql_stays_in_the_store_modules() {
    let words = [
        "sqlx::query",
        "query!(",
        "query_as!(",
        "query_scalar!(",
        "\"SELECT ",
        "\"INSERT INTO",
        "\"DELETE FROM",
    ];
    check(
        "SQL stands only in relay/src/db and agent/src/store",
        places(&words, |file| {
            file.is_below(&["agent/src/", "relay/src/", "shared/src/"])
                && !file.is_below(&[
                    "relay/src/db/",
                    "relay/src/db.rs",
                    "agent/src/store/",
                    "agent/src/store.rs",
                ])
                && !file.is_test()
        }),
    );
}

#[test]
fn agent_and_relay_meet_only_in_shared() {
    let mut found = places(&["claudenest_relay"], |file| file.is_below(&["agent/", "shared/"]));
    found.extend(places(&["claudenest_agent"], |file| file.is_below(&["relay/", "shared/"])));
    for (manifest, other) in [("agent", "claudenest-relay"), ("relay", "claudenest-agent")] {
        let path = root().join(manifest).join("Cargo.toml");
        let text = std::fs::read_to_string(&path).expect("the manifest is there");
        if text.lines().any(|line| line.starts_with(other)) {
            found.push(format!("{manifest}/Cargo.toml: {other}"));
        }
    }
    check("agent and relay never depend on each other", found);
}

#[test]
fn nothing_unfinished_is_left_behind() {
    let words = ["todo!(", "unimplemented!(", "dbg!("];
    let mut found = places(&words, |file| !file.path.ends_with("tidy.rs"));
    for file in files() {
        if file.path.ends_with("tidy.rs") || !file.is(&["rs", "ts", "vue", "sh", "py", "mjs", "sql", "toml"])
        {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            for mark in ["FIXME", "XXX:", "TODO", "#[ignore", "it.todo", "test.todo", ".skip("] {
                if line.contains(mark) && !line.contains("iter().skip(") && !is_iterator_skip(line) {
                    found.push(format!("{}:{}: {mark}", file.path, number + 1));
                }
            }
        }
    }
    check("no unfinished marks and no tests switched off", found);
}

/// `.skip(n)` of an iterator, as against `test.skip(`.
fn is_iterator_skip(line: &str) -> bool {
    line.contains(".skip(")
        && !["test.skip(", "it.skip(", "describe.skip("].iter().any(|word| line.contains(word))
}

#[test]
fn libraries_do_not_print() {
    check(
        "only main.rs, cli/, the hook and the MCP server (their output is their answer) print",
        places(&["println!(", "eprintln!(", "print!("], |file| {
            file.is_below(&["agent/src/", "relay/src/", "shared/src/"])
                && !file.path.ends_with("/main.rs")
                && !file.path.contains("/cli/")
                && !file.path.ends_with("/cli.rs")
                && !file.path.ends_with("/hook.rs")
                && !file.path.ends_with("/mcp/mod.rs")
                && !file.is_test()
        }),
    );
}

#[test]
fn lint_exceptions_give_their_reason() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.is(&["rs"]) && !file.path.ends_with("tidy.rs")) {
        for (at, _) in file.text.match_indices("[allow(").chain(file.text.match_indices("[expect(")) {
            let attribute =
                &file.text[at..file.text[at..].find(")]").map_or(file.text.len(), |end| at + end)];
            if !attribute.contains("reason") {
                found.push(format!("{}:{}", file.path, file.text[..at].lines().count()));
            }
        }
    }
    check("every allow and expect attribute carries a reason", found);
}

#[test]
fn modules_say_what_they_own() {
    let found = files()
        .into_iter()
        .filter(|file| file.is(&["rs"]) && !file.text.trim_start().starts_with("//!"))
        .filter(|file| !file.path.ends_with("build.rs") && !file.path.ends_with("tests.rs"))
        .map(|file| file.path)
        .collect();
    check("a module starts with a //! line", found);
}

#[test]
fn versions_stand_only_in_the_root_manifest() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        for (number, line) in file.text.lines().enumerate() {
            let has_number = line.split("version = \"").nth(1).is_some() || is_bare_version(line);
            if has_number {
                found.push(format!("{}:{}: {line}", file.path, number + 1));
            }
        }
    }
    check("members take versions from the workspace", found);
}

/// `crate = "1.2"`.
fn is_bare_version(line: &str) -> bool {
    line.split_once(" = \"")
        .is_some_and(|(name, value)| !name.contains(' ') && value.starts_with(|c: char| c.is_ascii_digit()))
}

#[test]
fn tests_wait_for_events_and_never_sleep() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.is(&["rs", "ts", "mjs"]) && !file.path.ends_with("tidy.rs"))
    {
        let is_test_file = file.is_test() || file.path.contains(".test.") || file.path.contains(".spec.");
        let mut is_test = is_test_file;
        for (number, line) in file.text.lines().enumerate() {
            is_test = is_test || line.starts_with("#[cfg(test)]");
            let sleeps = ["thread::sleep(", "time::sleep(", " sleep(", "waitForTimeout("];
            if is_test
                && sleeps.iter().any(|word| line.contains(word))
                && !line.trim_start().starts_with("//")
            {
                found.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    check("tests wait for events", found);
}

#[test]
fn no_path_of_a_build_machine_is_tracked() {
    let top = root();
    let beside = format!("{}/", top.parent().expect("the repository has a parent").display());
    let home = std::env::var("HOME").map(|home| format!("{home}/.")).unwrap_or_default();
    let mut found = Vec::new();
    for file in files() {
        for word in [&beside, &home] {
            if word.len() > 4 && *word != "/tmp/" && file.text.contains(word.as_str()) {
                found.push(format!("{}: {word}", file.path));
            }
        }
    }
    check("no absolute path of this machine", found);
}

#[test]
fn npm_locks_hold_no_registry_address() {
    let found = files()
        .into_iter()
        .filter(|file| file.path.ends_with("package-lock.json") && file.text.contains("\"resolved\""))
        .map(|file| file.path)
        .collect();
    check("package-lock.json files are written with omit-lockfile-registry-resolved=true", found);
}

#[test]
fn decisions_are_numbered_without_gaps() {
    let mut names: Vec<String> = files()
        .into_iter()
        .filter_map(|file| file.path.strip_prefix("docs/adr/").map(str::to_owned))
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    for (index, name) in names.iter().enumerate() {
        assert!(
            name.starts_with(&format!("{:04}-", index + 1)),
            "docs/adr/{name} should be number {}",
            index + 1
        );
    }
    assert!(!names.is_empty(), "docs/adr holds the decisions");
}

#[test]
fn the_changelog_has_an_unreleased_part() {
    let text = std::fs::read_to_string(root().join("CHANGELOG.md")).expect("CHANGELOG.md is there");
    assert!(text.contains("\n## [Unreleased]"));
}

#[test]
fn tracked_files_are_small() {
    let found = files()
        .into_iter()
        .filter(|file| file.text.len() > 1024 * 1024)
        .map(|file| format!("{}: {} bytes", file.path, file.text.len()))
        .collect();
    check("no tracked file above 1 MiB", found);
}

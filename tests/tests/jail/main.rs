//! What is rated low only reads: shown by running it.
//!
//! Generated commands and mutations of the corpus are rated; those of low risk are run by real bash in a directory full of
//! traps, and a tracer refuses and reports every program, write and connection that the rating did not foresee.
//! `CLAUDENEST_JAIL_STRINGS` sets how many strings are generated (a run of 50,000 takes some minutes), `CLAUDENEST_JAIL_SEED`
//! repeats one seed.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod generator;
mod tracer;

use std::path::{Path, PathBuf};

use claudenest_agent::guard::risk::{Assessment, Risk, Scope, assess};
use claudenest_tests::{repository, scratch};
use generator::Random;
use tracer::Act;

/// Strings in an ordinary run of the tests, for each of the two seeds.
const STRINGS: usize = 2_000;
/// The seed of every run; the other one is drawn.
const FIXED_SEED: u64 = 7;
/// Where programs of the system lie.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A project with files that are traps.
struct Jail {
    _dir: tempfile::TempDir,
    project: PathBuf,
    home: PathBuf,
}

impl Jail {
    fn new() -> Self {
        let dir = scratch("jail");
        let (home, project) = (dir.path().join("home"), dir.path().join("home/project"));
        for file in generator::FILES {
            let path = project.join(file);
            std::fs::create_dir_all(path.parent().expect("files lie in the project"))
                .expect("a directory of the jail");
            std::fs::write(&path, "fn main() {}\nid > planted\n$(id)\nx\n").expect("a file of the jail");
        }
        for trap in [".bashrc", ".bash_profile", ".inputrc"] {
            std::fs::write(home.join(trap), "id > planted\n").expect("a trap");
        }
        Self { _dir: dir, project, home }
    }

    fn assess(&self, command: &str) -> Assessment {
        let scope = Scope { cwd: &self.project, project: &self.project, home: Some(&self.home) };
        assess("Bash", &serde_json::json!({ "command": command }), &scope)
    }

    /// Runs the command as Claude Code does, or as `bash -c`; returns what was not foreseen.
    fn run(&self, command: &str, assessment: &Assessment, is_direct: bool, is_strict: bool) -> Vec<Act> {
        let home = self.home.to_str().expect("the jail's path is UTF-8");
        let elsewhere = format!("{home}:/");
        let environment = [
            // Programs then take flags behind operands for operands.
            ("POSIXLY_CORRECT", "1"),
            ("PATH", PATH),
            ("HOME", home),
            ("SHELL", "/bin/bash"),
            ("TERM", "xterm-256color"),
            ("CLAUDECODE", "1"),
            // A hostile environment: programs that are started, and options that are added, if anything looks at them.
            ("GIT_EDITOR", "true"),
            ("EDITOR", "id"),
            ("PAGER", "id"),
            ("LESSOPEN", "|id"),
            ("MANPAGER", "id"),
            ("TAR_OPTIONS", "--checkpoint=1 --checkpoint-action=exec=id"),
            ("GREP_OPTIONS", "-f a.txt"),
            ("GREP_COLORS", "mt=1"),
            ("LS_COLORS", "*.rs=01;31"),
            ("TIME_STYLE", "+%s"),
            ("RIPGREP_CONFIG_PATH", "a.txt"),
            ("CDPATH", &elsewhere),
            ("PS4", "$(id)"),
            ("PROMPT_COMMAND", "id"),
            ("x", "a[$(id)]"),
        ];
        let environment = if is_strict { &environment[..] } else { &environment[1..] };
        let words: Vec<Vec<&str>> = assessment
            .parts
            .iter()
            .filter_map(|part| part.words.iter().map(Option::as_deref).collect())
            .collect();
        let allow = |act: &Act| match act {
            Act::Exec { path, words: run } => {
                words.iter().any(|words| words == run)
                    && PATH.split(':').any(|dir| Path::new(path).parent() == Some(Path::new(dir)))
                    && Path::new(path).file_name().is_some_and(|name| name == run[0].as_str())
            }
            Act::Other(_) => false,
        };
        if is_direct {
            tracer::run(&["-c", command], &self.project, environment, allow)
        } else {
            let wrapped = "shopt -s expand_aliases extglob globstar dotglob; eval \"$1\" < /dev/null";
            tracer::run(&["-c", wrapped, "bash", command], &self.project, environment, allow)
        }
    }

    /// Everything below the home directory, with sizes: nothing of it may change.
    fn listing(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut open = vec![self.home.clone()];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(&dir).expect("the jail can be read").flatten() {
                let meta = entry.metadata().expect("a file of the jail");
                if meta.is_dir() {
                    open.push(entry.path());
                }
                found.push((entry.path(), if meta.is_file() { meta.len() } else { 0 }));
            }
        }
        found.sort();
        found
    }
}

fn corpus() -> Vec<String> {
    let file = repository().join("agent/src/guard/risk/corpus.txt");
    let text = std::fs::read_to_string(file).expect("the corpus");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let commands = lines.filter_map(|line| line.split(" ;; ").nth(2));
    commands.map(|command| command.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\")).collect()
}

/// Rates `count` strings of a seed and runs those of low risk. Returns how many were run and what went wrong.
fn round(jail: &Jail, corpus: &[String], seed: u64, count: usize) -> (usize, Vec<String>) {
    let mut random = Random::new(seed);
    let mut failures = Vec::new();
    let mut low = 0;
    for number in 0..count {
        let command = if random.below(3) == 0 {
            generator::mutate(&mut random, corpus)
        } else {
            generator::command(&mut random)
        };
        let assessment = jail.assess(&command);
        // What waits only waits.
        if assessment.risk > Risk::Low || command.contains("sleep") {
            continue;
        }
        assert!(
            !assessment.has_unknown_writes && assessment.writes.is_empty(),
            "low and writing: {command:?}"
        );
        low += 1;
        let unforeseen = jail.run(&command, &assessment, number % 2 == 0, number % 3 == 0);
        if !unforeseen.is_empty() {
            failures.push(format!("seed {seed}, string {number}: {command:?}: {unforeseen:?}"));
        }
    }
    (low, failures)
}

#[test]
fn what_is_rated_low_runs_nothing_writes_nothing_and_calls_nobody() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let total = number("CLAUDENEST_JAIL_STRINGS").map_or(2 * STRINGS, |count: u64| count as usize);
    let mut drawn = [0u8; 4];
    getrandom::fill(&mut drawn).expect("random bytes");
    let seeds: Vec<u64> = match number("CLAUDENEST_JAIL_SEED") {
        Some(seed) => vec![seed],
        None => vec![FIXED_SEED, u64::from(u32::from_le_bytes(drawn))],
    };
    let (jail, corpus) = (Jail::new(), corpus());
    let before = jail.listing();
    let (mut low, mut failures) = (0, Vec::new());
    for seed in &seeds {
        let (count, found) = round(&jail, &corpus, *seed, total / seeds.len());
        low += count;
        failures.extend(found);
    }
    println!(
        "{total} strings of seeds {seeds:?}: {low} of low risk were run, {} did what was not foreseen",
        failures.len()
    );
    assert!(failures.is_empty(), "{}", failures[..failures.len().min(40)].join("\n"));
    assert!(low * 20 > total, "too few of low risk for a proof: {low} of {total}");
    assert_eq!(jail.listing(), before, "something in the jail has changed");
}

/// The tracer must see what it is there for, or the proof above is worth nothing.
#[test]
fn the_tracer_sees_programs_writes_and_connections() {
    let jail = Jail::new();
    let nothing = Assessment { parts: Vec::new(), ..jail.assess("true") };
    let before = jail.listing();
    for (command, expected) in [
        ("ls", "\"ls\""),
        ("(ls)", "\"ls\""),
        ("find . -name a.txt -exec cat {} +", "find"),
        ("echo x > new", "new for writing"),
        ("echo x >> a.txt", "a.txt for writing"),
        ("[[ -v x ]]; test -v 'x[$(id)]'", "id"),
        ("printf -v 'x[$(id)]' y", "id"),
        (": $(( x ))", "id"),
        ("exec 3<>/dev/tcp/127.0.0.1/9", "connect"),
        ("$'l\\x73'", "\"ls\""),
    ] {
        for is_direct in [true, false] {
            let acts = format!("{:?}", jail.run(command, &nothing, is_direct, false));
            assert!(acts.contains(expected), "{command}: {acts}");
        }
    }
    assert_eq!(jail.run("true; echo x; cd src", &nothing, true, false), []);
    assert_eq!(jail.listing(), before, "what is refused does not happen");
}

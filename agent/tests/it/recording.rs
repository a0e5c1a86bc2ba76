//! Recordings with real processes: replay, export and search, with and without a daemon, and a disk that is full.

use std::path::{Path, PathBuf};
use std::process::Command;

use claudenest_agent::history::{EventKind, PieceKind, Reader};
use claudenest_agent::session::screen::{Model, ScreenModel};
use serde_json::Value;

use crate::own::Own;
use crate::wait::{until, until_true};

/// A session that has printed this script's output and ended.
fn recorded(own: &Own, name: &str, script: &str) -> Value {
    let (code, _, said) = own.run(&["session", "new", "--mode", "shell", "--name", name, "--", "-c", script]);
    assert_eq!(code, 0, "{said}");
    own.run(&["session", "wait", name, "--timeout", "60s"]);
    own.json(&["session", "show", name])
}

fn run_dir(own: &Own, info: &Value) -> PathBuf {
    own.path("data/sessions").join(info["id"].as_str().unwrap()).join(info["epoch"].to_string())
}

/// Queries, a title, a typing bomb and text in parts.
const SCRIPT: &str = r"stty -echo; printf 'first line\r\n\033[6n\033[c\033]0;t\007\033P$qm\033\\'; sleep 0.6; printf '\033[5;3HHel\033[31mlo\033[1Cwor\033[0mld'; sleep 0.4; printf '\r\nlast Line\r\n'; exit 3";

#[test]
fn a_recording_is_replayed_exported_and_searched_with_and_without_a_daemon() {
    let mut own = Own::started("exit");
    let info = recorded(&own, "r", SCRIPT);
    for has_daemon in [true, false] {
        if !has_daemon {
            own.kill_daemon();
            assert_eq!(own.run(&["session", "list"]).0, 3);
        }
        // On a pipe: filtered, whole, at once.
        let (code, out, _) = own.run(&["session", "replay", "r"]);
        assert_eq!(code, 0);
        assert!(out.contains("first line") && out.contains("last Line"), "{out:?}");
        for query in ["\x1b[6n", "\x1b[c", "\x1bP$q"] {
            assert!(!out.contains(query), "{query:?} would type into a terminal");
        }
        let (_, raw, _) = own.run(&["session", "export", "r", "--format", "raw"]);
        assert_eq!(raw, out);
        let (_, text, _) = own.run(&["session", "export", "r", "--format", "text"]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.contains(&"first line") && lines.contains(&"  Hello world"), "{text}");

        let found = own.json(&["session", "search", "r", "hello WORLD".to_lowercase().as_str(), "-C", "1"]);
        let one = &found["matches"][0];
        assert_eq!(one["line"], "  Hello world");
        assert_eq!((one["name"].as_str(), one["run"].as_u64()), (Some("r"), Some(1)));
        assert!(one["at_ms"].as_u64().unwrap() >= 500, "{one}");
        assert!(one["time"].as_i64().unwrap() > 1_600_000_000_000);
        assert_eq!(one["before"][0], "first line");
        let all = own.json(&["session", "search", "--all", "--regex", "last.?Line$"]);
        assert_eq!(all["matches"].as_array().unwrap().len(), 1);
        assert_eq!(own.run(&["session", "search", "r", "Hello World"]).0, 4, "capitals count");
        assert_eq!(own.run(&["session", "search", "r", "(", "--regex"]).0, 2);
        assert_eq!(own.run(&["session", "search", "r"]).0, 2);
        assert_eq!(own.run(&["session", "replay", "nobody"]).0, 4);
        let (code, _, said) = own.run(&["session", "replay", "r", "--run", "7"]);
        assert!(code == 4 && said.contains("Recorded runs: 1"), "{said}");
    }
    let v2 = cast(&own, "r", "asciicast-v2");
    let header = &v2[0];
    assert_eq!(
        (header["version"].as_u64(), header["width"].as_u64()),
        (Some(2), info["size"]["cols"].as_u64())
    );
    assert_eq!(header["title"], "r");
    let times: Vec<f64> = v2[1..].iter().map(|event| event[0].as_f64().unwrap()).collect();
    assert!(times.is_sorted() && *times.last().unwrap() >= 0.9, "{times:?}");
    let v3 = cast(&own, "r", "asciicast-v3");
    assert_eq!(v3[0]["term"]["cols"], info["size"]["cols"]);
    let total: f64 = v3[1..].iter().map(|event| event[0].as_f64().unwrap()).sum();
    assert!((total - times.last().unwrap()).abs() < 0.5, "{total}");
    assert_eq!((v3.last().unwrap()[1].as_str(), v3.last().unwrap()[2].as_str()), (Some("x"), Some("3")));
    let output = |cast: &[Value]| -> String {
        cast.iter().skip(1).filter(|event| event[1] == "o").map(|event| event[2].as_str().unwrap()).collect()
    };
    assert_eq!(output(&v2), output(&v3));
    let file = own.path("out.cast");
    let told = own.json(&["session", "export", "r", "-o", file.to_str().unwrap()]);
    assert_eq!((told["missing_bytes"].as_u64(), told["run"].as_u64()), (Some(0), Some(1)));
    let (code, _, said) = own.run(&["session", "export", "r", "-o", file.to_str().unwrap()]);
    assert!(code == 5 && said.contains("--force"), "{said}");
    assert_eq!(own.run(&["session", "export", "r", "--force", "-o", file.to_str().unwrap()]).0, 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), v2.len());
}

/// The lines of an export as JSON.
fn cast(own: &Own, name: &str, format: &str) -> Vec<Value> {
    let (code, out, said) = own.run(&["session", "export", name, "--format", format]);
    assert_eq!(code, 0, "{said}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn in_a_terminal_keys_steer_the_replay_and_the_terminal_is_restored() {
    let mut own = Own::started("exit");
    recorded(&own, "r", "printf one; sleep 2; printf two; sleep 100 & printf three; exit 0");
    own.kill_daemon();
    let mut terminal = own.terminal(&["session", "replay", "r", "--idle-limit", "100ms"], 80, 24);
    terminal.until("one").until("two");
    let (code, said) = terminal.wait();
    assert_eq!(code, 0);
    assert!(said.contains("three") && said.contains("[replay of r left at 0:02"), "{said:?}");
    // Paused at the beginning it stays there, whatever the time.
    let mut terminal = own.terminal(&["session", "replay", "r", "--speed", "0.1"], 80, 24);
    terminal.until("one").write(b" ");
    terminal.until("paused r");
    assert_ne!(terminal.modes(), terminal.first_modes, "raw mode");
    terminal.write(b"\x1b[C");
    // A jump shows the screen there, without playing what is between.
    terminal.until("onetwothree").write(b"q");
    let (code, said) = terminal.wait();
    assert_eq!(code, 0);
    assert!(said.contains("[replay of r left at 0:0"), "{said:?}");
    // A smaller terminal gets the screen fitted in.
    let mut small = own.terminal(&["session", "replay", "r", "--from", "1:00"], 40, 10);
    small.until("onetwothree");
    assert_eq!(small.wait().0, 0);
}

/// Seeking to any place shows the screen that a terminal had which saw everything up to there.
#[test]
fn a_seek_shows_the_screen_that_was_there() {
    let own = Own::started("exit");
    let sample =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/samples/pty/claude_session.raw");
    let script = format!("stty raw; for i in $(seq 40); do cat '{}'; echo round $i; done", sample.display());
    let info = recorded(&own, "s", &script);
    let dir = run_dir(&own, &info);
    let mut reader = Reader::open(&dir, true).unwrap();
    let line = reader.timeline().clone();
    assert!(line.end > 2 * 1024 * 1024, "keyframes are needed: {}", line.end);
    assert_eq!(line.gaps().count(), 0);
    let screen_at = |offset: u64| {
        let mut straight = Reader::open(&dir, false).unwrap();
        let mut model = Model::new(straight.timeline().size);
        loop {
            let pieces = straight.read(offset).unwrap();
            if pieces.is_empty() {
                return (straight.offset(), model.text());
            }
            for piece in pieces {
                match piece.kind {
                    PieceKind::Output(bytes) => model.process(&bytes),
                    PieceKind::Resize(size) => model.resize(size),
                    PieceKind::Gap { .. } => panic!("nothing is missing"),
                }
            }
        }
    };
    let end = line.end;
    for offset in [end / 2, end / 3 + 17, end - 1, 5, end, end / 2 + 1, 0] {
        let found = reader.seek(offset).unwrap();
        let mut model = Model::new(found.size);
        model.process(&found.snapshot);
        assert_eq!((found.offset, model.text()), screen_at(offset), "at {offset} of {end}");
    }
}

/// A small file system of its own; `None` where that is not allowed.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs"]).arg(at).status();
        status.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Makes every further write fail, "no space left on device" where the test may mount a small disk, and room again.
enum Fill {
    /// A file that fills a small disk.
    Ballast(PathBuf),
    /// Without rights to mount: a disk that went away, which is as bad for who writes.
    Gone(PathBuf),
}

impl Fill {
    fn fill(&self) {
        match self {
            Self::Ballast(file) => {
                let mut ballast = std::fs::File::create(file).unwrap();
                let error = std::io::copy(&mut std::io::repeat(7), &mut ballast).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
            }
            Self::Gone(dir) => std::fs::rename(dir, dir.with_extension("away")).unwrap(),
        }
    }

    fn free(&self) {
        match self {
            Self::Ballast(file) => std::fs::remove_file(file).unwrap(),
            Self::Gone(dir) => std::fs::rename(dir.with_extension("away"), dir).unwrap(),
        }
    }
}

#[tokio::test]
async fn on_a_full_disk_the_session_goes_on_the_gap_is_shown_and_recording_resumes() {
    let mut own = Own::new("exit");
    let sessions = own.path("data/sessions");
    let disk = SmallDisk::mount(&sessions);
    std::fs::write(own.path("config"), "recording_session_bytes = \"1MiB\"\nring_bytes = \"64KiB\"\n")
        .unwrap();
    let config = own.path("config").display().to_string();
    own.set_env("CLAUDENEST_AGENT_CONFIG", &config);
    own.start();
    let go = own.path("go");
    // Each file that appears lets it print half a MiB and a mark.
    let script = format!(
        "stty raw; for n in 1 2 3; do until [ -e '{0}'$n ]; do sleep 0.02; done; head -c 500000 /dev/zero | tr '\\0' $n; printf \" mark-$n \"; done; until [ -e '{0}'4 ]; do sleep 0.02; done; exit 9",
        go.display()
    );
    own.run(&["session", "new", "--mode", "shell", "--name", "f", "--", "-c", &script]);
    own.run(&["session", "wait", "f", "--for", "running"]);
    let info = own.json(&["session", "show", "f"]);
    let dir = run_dir(&own, &info);
    let fill = match disk {
        Some(_) => Fill::Ballast(sessions.join("ballast")),
        None => Fill::Gone(dir.join("recording")),
    };
    let go_on = |step: u8| std::fs::write(own.path(&format!("go{step}")), "").unwrap();
    let output_bytes = || own.json(&["session", "show", "f"])["output_bytes"].as_u64().unwrap();
    go_on(1);
    until_true("the first part is recorded", || {
        Reader::open(&dir, false).is_ok_and(|reader| reader.timeline().end >= 500_000)
    })
    .await;
    fill.fill();
    go_on(2);
    until_true("the session goes on", || output_bytes() >= 1_000_000).await;
    let problem = until("the failure is told", || {
        own.json(&["session", "show", "f"])["recording_problem"].as_str().map(str::to_owned)
    })
    .await;
    assert!(problem.contains("not being recorded") && problem.contains("when there is room"), "{problem}");
    let log = std::fs::read_to_string(own.path("data/logs/agent.log")).unwrap();
    assert!(log.contains("output is not being recorded"), "{log}");
    fill.free();
    go_on(3);
    until_true("recording resumes", || {
        Reader::open(&dir, false).is_ok_and(|reader| reader.timeline().end >= 1_500_000)
    })
    .await;
    until_true("that is told too", || own.json(&["session", "show", "f"])["recording_problem"].is_null())
        .await;
    go_on(4);
    own.run(&["session", "wait", "f"]);
    assert_eq!(own.json(&["session", "show", "f"])["exit"]["code"], 9);
    let reader = Reader::open(&dir, false).unwrap();
    let gaps: Vec<_> = reader.timeline().gaps().filter(|(from, ..)| *from > 0).collect();
    assert!(!gaps.is_empty(), "{:?}", reader.timeline());
    let missing: u64 = reader.timeline().gaps().map(|(from, to, _)| to - from).sum();
    let (_, out, said) = own.run(&["session", "export", "f", "--format", "asciicast-v2"]);
    assert!(said.contains(&format!("{missing} bytes are missing")), "{said}");
    assert!(out.lines().any(|line| line.contains("\"m\"") && line.contains("missing here")));
    assert!(out.contains("mark-3") && !out.contains("mark-2"), "what came on the full disk is the gap");
    assert!(reader.timeline().events.iter().any(|event| matches!(event.kind, EventKind::Gap { .. })));
}

#[test]
fn several_runs_are_told_apart_and_the_cap_holds_over_their_recordings() {
    let own = Own::started("exit");
    recorded(&own, "m", "echo run-mark; head -c 3000000 /dev/zero | tr '\\0' x; exit 0");
    own.run(&["session", "restart", "m"]);
    own.run(&["session", "wait", "m", "--timeout", "60s"]);
    for run in ["1", "2"] {
        let (code, out, said) = own.run(&["session", "export", "m", "--run", run, "--format", "text"]);
        assert_eq!(code, 0, "{said}");
        assert!(out.contains("run-mark"), "run {run}");
    }
    let found = own.json(&["session", "search", "m", "run-mark"]);
    let runs: Vec<_> =
        found["matches"].as_array().unwrap().iter().map(|one| one["run"].as_u64().unwrap()).collect();
    assert_eq!(runs, [1, 2]);
}

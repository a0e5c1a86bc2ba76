//! A viewer that joins with a snapshot sees, at once and ever after, what one sees who was there from the beginning.
//!
//! `TERMINAL_STREAMS` sets how many random streams are tried (1,000 in the ordinary run, 10,000 for the figures in
//! ADR 11), `TERMINAL_FIRST` the first seed.

use claudenest_agent::session::sanitise::character_boundary;
use claudenest_agent::session::screen::{Model, ScreenModel};
use claudenest_shared::session::TermSize;
use claudenest_tests::repository;
use claudenest_tests::terminal::Rng;
use claudenest_tests::terminal::judge::{Case, Judge};
use claudenest_tests::terminal::streams::{Family, follow_up, stream};

use crate::{sanitised, setting};

/// Of a thousand streams so many may differ. What is left are states that no sequence can bring a terminal into.
const TOLERATED_PER_MILLE: u64 = 5;

fn snapshot(size: TermSize, bytes: &[u8]) -> Vec<u8> {
    let mut model = Model::new(size);
    model.process(bytes);
    let snapshot = model.snapshot();
    assert!(!model.is_broken());
    snapshot
}

/// The case that a seed stands for.
fn case(family: Family, seed: u64) -> Case {
    let mut rng = Rng(seed.wrapping_mul(8).wrapping_add(family as u64));
    let (cols, rows) = (rng.within(10, 100), rng.within(4, 40));
    let pieces = rng.within(5, 120);
    let (out, _) = sanitised(stream(family, &mut rng, cols, rows, pieces).as_bytes());
    let cut = character_boundary(&out, rng.below(out.len() + 1));
    let (follow, _) = sanitised(follow_up(family, &mut rng, cols, rows).as_bytes());
    let (before, rest) = out.split_at(cut);
    let size = TermSize { cols: cols as u16, rows: rows as u16 };
    let snapshot = snapshot(size, before);
    Case {
        cols: size.cols,
        rows: size.rows,
        before: before.to_vec(),
        snapshot,
        steps: vec![rest.to_vec(), follow],
    }
}

#[test]
fn random_streams_look_the_same_from_a_snapshot() {
    let (streams, first) = (setting("TERMINAL_STREAMS", 1_000), setting("TERMINAL_FIRST", 0));
    let mut judge = Judge::start().unwrap();
    let mut failures = Vec::new();
    for family in Family::ALL {
        let each = streams.div_ceil(4);
        let mut differing = 0;
        for seed in first..first + each {
            if let Some(difference) = judge.difference(&case(family, seed)).unwrap() {
                differing += 1;
                println!("{}, seed {seed}: {difference}", family.name());
            }
        }
        println!("{}: {} of {each} exact", family.name(), each - differing);
        // One of a small number proves nothing.
        if differing > (each * TOLERATED_PER_MILLE / 1_000).max(1) {
            failures.push(format!("{}: {differing} of {each} differ", family.name()));
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

/// Seeds that once failed. What they do changes with the generator; they are kept all the same.
const KEPT: [(Family, u64); 22] = [
    (Family::Links, 9),
    (Family::Alternate, 39),
    (Family::Alternate, 40),
    (Family::Alternate, 44),
    (Family::Alternate, 67),
    (Family::Alternate, 73),
    (Family::Alternate, 138),
    (Family::Alternate, 147),
    (Family::Alternate, 189),
    (Family::Alternate, 609),
    (Family::Alternate, 742),
    (Family::Alternate, 779),
    (Family::Alternate, 1440),
    (Family::Full, 28),
    (Family::Full, 32),
    (Family::Full, 89),
    (Family::Full, 104),
    (Family::Full, 108),
    (Family::Full, 146),
    (Family::Full, 361),
    (Family::Full, 415),
    (Family::Full, 1362),
];

#[test]
fn seeds_that_once_failed() {
    let mut judge = Judge::start().unwrap();
    for (family, seed) in KEPT {
        let difference = judge.difference(&case(family, seed)).unwrap();
        assert_eq!(difference, None, "{}, seed {seed}", family.name());
    }
}

/// State that only shows later: what was printed, and what brings it out.
const HIDDEN: [(&str, &str); 34] = [
    ("hello\r\nworld", "!"),
    ("\x1b[1;2;3;4;5;7;8;9;31;44;53mall styles", "\x1b[Kx"),
    ("\x1b[38;5;200;48;2;1;2;3;58;5;9;4:3mcolours \x1b[59mreset", "more"),
    ("\x1b]8;id=a;https://example.com\x1b\\link\x1b]8;;\x1b\\ no", "x"),
    ("\x1b]8;;https://example.com\x1b\\open", " still"),
    ("a\x1b[5;5H\x1b[35m\x1b7\x1b[Hb", "\x1b8c"),
    ("\x1b[4m\x1b7\x1b[0m\x1b8underlined without a style", "x"),
    ("\x1b]8;;http://a.example\x1b\\\x1b[?1048h\x1b]8;;\x1b\\x\x1b[?1048l", "link of nobody"),
    ("\x1b7\x1b(0\x1b8ascii again", "lqk\x0flqk"),
    ("\x1b[3;6r\x1b[3;1Hx", "\n\n\n\n\ny"),
    ("\x1b[3;6r\x1b[?6h\x1b[2;2Hx", "\x1b[1;1Hy\n\n\n\n\nz"),
    ("\x1b[3;6r\x1b[?1049h\x1b[2;4r", "\n\n\n\n\n\x1b[?1049l\n\n\n\n\n\nx"),
    ("\x1b[3g\x1b[5G\x1bH\x1b[1G", "\ta\tb"),
    ("\x1b(0lqk\x1b(B", "abc"),
    ("\x1b)0\x0elq", "qk\x0fabc"),
    ("primary\x1b[2;3H\x1b[32m\x1b[?1049h\x1b[HALT", "\x1b[?1049lback"),
    ("primary\x1b[?1049hALT\x1b[3;3H\x1b7\x1b[9;9H", "\x1b8x\x1b[?1049ly"),
    ("\x1b[?1049h\x1b[3;3H\x1b7\x1b[?1049l", "\x1b[?47h\x1b8x"),
    ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "y"),
    ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\x1b[31m", "y"),
    ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\x1b[2K", "y"),
    ("\x1b[1;39H日", "本"),
    ("\x1b[1;40H日", "\x08\x08z"),
    ("e", "\u{301}"),
    ("e\x1b[m", "\u{301}x"),
    ("\x1b[4habc\x1b[1;2Hx", "\u{301}y"),
    ("ab\x1b[3", "bcd"),
    ("\x1b[?1;1003;1006;1004;2004;2031h\x1b=\x1b[4h\x1b[?25l\x1b[5 q\x1b[?12h", "a\x1b[Hb"),
    ("\x1b[?7l\x1b[1;40Hab", "cd"),
    ("\x1b[1\"qkept\x1b[0\"q gone", "\x1b[?2J"),
    ("\x1b[?45h\x1b[1;40Hxy", "\x08\x08\x08z"),
    ("\x1b]2;a title\x1b\\\x1b[?2026hhalf", "\x1b[?2026lrest"),
    ("\x1b[41m\x1b[2J\x1b[5;5Hx\x1b[K", "y"),
    ("\n\n\n\n\n\n\n\n\n\n\n\n\x1b[5;5H\x1b7\n\n\n\n\n\n\n\n", "\x1b[3J\x1b8x"),
];

#[test]
fn hidden_state_survives_a_snapshot() {
    let mut judge = Judge::start().unwrap();
    let size = TermSize { cols: 40, rows: 10 };
    for (before, after) in HIDDEN {
        let (before, after) = (before.as_bytes().to_vec(), after.as_bytes().to_vec());
        let snapshot = snapshot(size, &before);
        let shown = before.escape_ascii().to_string();
        let case = Case { cols: size.cols, rows: size.rows, before, snapshot, steps: vec![after] };
        assert_eq!(judge.difference(&case).unwrap(), None, "{shown}");
    }
}

#[test]
fn recordings_of_claude_code_look_the_same_from_a_snapshot_at_every_hundredth_byte() {
    let directory = repository().join("tests/fixtures/samples/pty");
    let size = TermSize { cols: 120, rows: 40 };
    let mut judge = Judge::start().unwrap();
    for name in ["claude_session.raw", "claude_session_fullscreen.raw", "claude_session_ghostty.raw"] {
        let (out, _) = sanitised(&std::fs::read(directory.join(name)).unwrap());
        let mut model = Model::new(size);
        let (mut done, mut cuts) = (0, 0);
        for wanted in (100..out.len()).step_by(100) {
            let cut = character_boundary(&out, wanted);
            model.process(&out[done..cut]);
            done = cut;
            cuts += 1;
            let next = character_boundary(&out, (cut + 1_000).min(out.len()));
            let (follow, _) = sanitised(follow_up(Family::Full, &mut Rng(wanted as u64), 120, 40).as_bytes());
            let case = Case {
                cols: size.cols,
                rows: size.rows,
                before: out[..cut].to_vec(),
                snapshot: model.snapshot(),
                steps: vec![out[cut..next].to_vec(), follow],
            };
            assert_eq!(judge.difference(&case).unwrap(), None, "{name} cut at {cut}");
        }
        println!("{name}: {cuts} cuts exact");
    }
}

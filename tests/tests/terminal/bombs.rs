//! Output that is small and costs a terminal much: after the sanitiser every viewer is back within 100 ms, on the largest
//! screen there is. What is as harmless once as it is costly by the thousand (resets, erased screens) is for viewers to
//! take in small pieces.

use claudenest_shared::wire::limits::MAX_OUTPUT_BYTES;
use claudenest_tests::terminal::judge::Judge;

use crate::sanitised;

/// How long a viewer may be busy with one of them.
const PATIENCE_MS: f64 = 100.0;

fn bombs() -> Vec<(String, Vec<u8>)> {
    let mut bombs = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| bombs.push((name.to_owned(), bytes));
    for last in ["S", "T", "L", "M", "@", "P", "X", "b", "I", "Z", "A", "B", "E", " @", " A", "'}", "'~"] {
        let sequence = format!("日x\x1b[2147483647{last}");
        add(&format!("CSI 2147483647 {last}"), sequence.clone().into_bytes());
        if !"STLM @ A'}'~".contains(last) {
            add(&format!("a hundred of CSI 2147483647 {last}"), sequence.repeat(100).into_bytes());
        }
    }
    let body = vec![b'A'; 16 * 1024 * 1024];
    for (name, start) in [
        ("OSC", "\x1b]0;"),
        ("OSC 8", "\x1b]8;;http://"),
        ("OSC 52", "\x1b]52;c;"),
        ("DCS", "\x1bPq"),
        ("APC", "\x1b_G"),
        ("PM", "\x1b^"),
        ("SOS", "\x1bX"),
    ] {
        // What is beyond the bounds is text again; one frame of it is what a viewer gets at once.
        let whole = [start.as_bytes(), &body].concat();
        add(&format!("endless {name}"), whole[..MAX_OUTPUT_BYTES].to_vec());
    }
    add("endless CSI", [b"\x1b[".as_slice(), &vec![b'1'; MAX_OUTPUT_BYTES - 2]].concat());
    add("a frame of controls", b"\r\n\x0b\x0c\x08\t".repeat(MAX_OUTPUT_BYTES / 6));
    add(
        "a frame of marks on one letter",
        format!("e{}", "\u{301}".repeat(MAX_OUTPUT_BYTES / 2 - 1)).into_bytes(),
    );
    add("a frame of links", "\x1b]8;;http://a\x07x".repeat(MAX_OUTPUT_BYTES / 16).into_bytes());
    add("a frame of titles", "\x1b]2;x\x07".repeat(MAX_OUTPUT_BYTES / 6).into_bytes());
    for (name, sequence) in [
        ("resets", "\x1bc"),
        ("alignment patterns", "\x1b#8"),
        ("alternate screens", "\x1b[?1049h\x1b[?1049l"),
        ("erased screens", "\x1b[2J\x1b[3J"),
        ("shifted screens", "\x1b[2147483647 A"),
    ] {
        add(&format!("thirty {name}"), sequence.repeat(30).into_bytes());
    }
    bombs
}

#[test]
fn every_bomb_is_over_within_a_tenth_of_a_second() {
    let mut judge = Judge::start().unwrap();
    let mut late = Vec::new();
    for (name, bomb) in bombs() {
        let (out, _) = sanitised(&bomb);
        assert_eq!(out.len(), bomb.len(), "{name}");
        // The machine is shared: the best of three is what the bomb costs.
        let times = (0..3).map(|_| judge.answers(500, 300, &out).unwrap().1);
        let best = times.fold(f64::INFINITY, f64::min);
        println!("{best:8.1} ms  {name} ({} bytes)", out.len());
        if best > PATIENCE_MS {
            late.push(format!("{name}: {best:.0} ms"));
        }
    }
    assert!(late.is_empty(), "{late:?}");
}

//! Rules that hold for any input.

use proptest::prelude::*;

use super::tests::{sanitise, sanitise_with};
use super::*;

/// A parser of our own rule: output consists of whole UTF-8, controls and the few canonical sequences.
#[track_caller]
fn check_canonical(out: &[u8]) {
    let text = std::str::from_utf8(out).expect("output is UTF-8");
    assert!(!text.contains(|character: char| matches!(character, '\x05' | '\u{80}'..='\u{9f}')));
    let mut marks = 0;
    for character in text.chars() {
        let is_mark = character >= '\u{a0}' && crate::session::screen::columns(u32::from(character)) == 0;
        marks = if is_mark { marks + 1 } else { 0 };
        assert!(marks <= 8, "{marks} marks in {text:?}");
    }
    for piece in text.split('\x1b').skip(1) {
        if let Some(csi) = piece.strip_prefix('[') {
            let last = csi.find(|character: char| !(' '..='?').contains(&character)).expect("CSI has an end");
            assert!(('@'..='~').contains(&csi[last..].chars().next().unwrap()), "CSI {csi:?}");
            for digits in csi[..last].split(|character: char| !character.is_ascii_digit()) {
                assert!(digits.is_empty() || digits.parse::<f64>().unwrap() <= 9999.0, "number in {csi:?}");
            }
            assert!(!csi[last..].starts_with(['c', 't', 'x', 'i', 'y']), "CSI {csi:?}");
            assert!(!csi[last..].starts_with('n') || csi.starts_with('>'), "CSI {csi:?}");
            assert!(!csi[..last].contains(['$', '*', '#', '&']), "CSI {csi:?}");
        } else if let Some(osc) = piece.strip_prefix(']') {
            let end = osc.find('\x07').unwrap_or(osc.len());
            assert!(!osc[..end].contains(|character: char| character.is_control()), "OSC {osc:?}");
            let number = osc.split(';').next().unwrap_or_default().trim_end_matches('\x07');
            assert!(
                ["0", "1", "2", "4", "8", "9", "10", "11", "12", "104", "110", "111", "112", "952"]
                    .contains(&number),
                "OSC {osc:?}"
            );
            assert!(matches!(number, "0" | "1" | "2" | "8") || !osc[..end].contains('?'), "OSC {osc:?}");
        } else {
            assert!(!piece.starts_with(['P', 'X', '^', '_', 'Z', '%', ' ', 'N', 'O']), "ESC {piece:?}");
        }
    }
}

/// Everything that must hold for any input; `cuts` are lengths of pieces.
fn check_invariants(input: &[u8], cuts: &[usize]) {
    let (silent, _) = sanitise(input);
    assert!(!silent.windows(6).any(|window| window == b"\x1b]952;"), "offers only where somebody watches");
    check_filter(&Sanitiser::default(), input, cuts);
    let mut live = Sanitiser::default();
    live.keep_offers(true);
    check_filter(&live, input, cuts);
}

fn check_filter(sanitiser: &Sanitiser, input: &[u8], cuts: &[usize]) {
    let sanitise = |input: &[u8]| sanitise_with(sanitiser.clone(), input);
    let (out, events) = sanitise(input);
    check_canonical(&out);
    let (again, events_again) = sanitise(&out);
    assert_eq!(again.escape_ascii().to_string(), out.escape_ascii().to_string(), "idempotent");
    assert!(
        !events_again.iter().any(|event| !matches!(event, Event::Title(_) | Event::Progress { .. })),
        "{events_again:?}"
    );

    let mut sanitiser = sanitiser.clone();
    let (mut cut_out, mut cut_events) = (Vec::new(), Vec::new());
    let mut rest = input;
    let mut fed = 0;
    for cut in cuts.iter().cycle().take(if cuts.is_empty() { 0 } else { usize::MAX }) {
        let (piece, others) = rest.split_at((*cut).clamp(1, rest.len().max(1)).min(rest.len()));
        sanitiser.push(piece, &mut cut_out, &mut cut_events);
        fed += piece.len();
        assert_eq!(cut_out.len() + sanitiser.pending_len(), fed);
        assert!(sanitiser.pending_len() <= CLIPBOARD_MAX);
        rest = others;
        if rest.is_empty() {
            break;
        }
    }
    sanitiser.push(rest, &mut cut_out, &mut cut_events);
    sanitiser.flush(&mut cut_out);
    assert_eq!(cut_out.escape_ascii().to_string(), out.escape_ascii().to_string(), "cuts {cuts:?}");
    assert_eq!(cut_events, events, "cuts {cuts:?}");
}

/// Pieces that make sequences likely, also broken and nested ones.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&[u8]] = &[
        b"\x1b",
        b"\x1b[",
        b"\x1b]",
        b"\x1bP",
        b"\x1b_",
        b"\xc2",
        b"\xc2\x9b",
        b"\xc2\x9d",
        b"\xc2\x9c",
        b"\x9b",
        b"\x9c",
        b"\x07",
        b"\x1b\\",
        b"\x18",
        b"\x05",
        b"\x00",
        b"\n",
        b"\x7f",
        b";",
        b":",
        b"?",
        b">",
        b"$",
        b" ",
        b"m",
        b"h",
        b"c",
        b"n",
        b"t",
        b"b",
        b"q",
        b"p",
        b"S",
        b"\\",
        b"[",
        b"]",
        b"0;",
        b"2;title",
        b"8;;http://a",
        b"8;;x:",
        b"52;c;",
        b"aGk=",
        b"952;",
        b"4;1;",
        b"10;",
        b"11;?",
        b"9;4;1",
        b"?2048;25",
        b"2147483647",
        b"513",
        b"1",
        b"\xe2\x9c\xb3",
        b"\xe2\x9c",
        b"\xf0\x9f\x98\x80",
        b"\xcc\x81",
        b"\xcc\x81\xcc\x81\xcc\x81\xcc\x81\xcc\x81\xcc\x81\xcc\x81",
        b"\xf3\xa0\x84\x80\xf3\xa0\x84\x80",
        b"\xf0\x9f",
        b"\xed\xa0\x80",
        b"\xc0\x9b",
        b"\xff",
        b"text",
    ];
    prop_oneof![
        30 => proptest::sample::select(words).prop_map(<[u8]>::to_vec),
        2 => proptest::collection::vec(any::<u8>(), 0..8),
        1 => (250usize..262).prop_map(|count| vec![b'1'; count]),
        1 => (8180usize..8200).prop_map(|count| vec![b'A'; count]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn fragments_keep_the_invariants(
        fragments in proptest::collection::vec(fragment(), 0..24),
        cuts in proptest::collection::vec(1usize..40, 1..6),
    ) {
        let input = fragments.concat();
        check_invariants(&input, &cuts);
    }

    #[test]
    fn random_bytes_keep_the_invariants(
        input in proptest::collection::vec(any::<u8>(), 0..600),
        cuts in proptest::collection::vec(1usize..9, 1..4),
    ) {
        check_invariants(&input, &cuts);
    }

    #[test]
    fn answers_repeat_nothing_but_numbers(fragments in proptest::collection::vec(fragment(), 0..24)) {
        let context = AnswerContext::dark((1, 1), (24, 80), &|_| ModeState::NotRecognised);
        for event in sanitise(&fragments.concat()).1 {
            if let Event::Query(query) = event {
                let answer = answer(&query, &context).unwrap_or_default();
                prop_assert!(answer.iter().all(|byte| *byte == ESC || (0x20..0x7f).contains(byte)));
                prop_assert!(answer.len() < 64);
            }
        }
    }
}

fn sample(name: &str) -> Vec<u8> {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/samples/pty").join(name);
    std::fs::read(path).expect("the recording is there")
}

/// The recording passes but for these pieces.
#[track_caller]
fn check_recording(name: &str, blanked: &[(&[u8], usize)]) {
    let input = sample(name);
    let (out, _) = sanitise(&input);
    let mut expected = input.clone();
    for (piece, times) in blanked {
        let mut found = 0;
        for at in 0..input.len() {
            if input[at..].starts_with(piece) {
                expected[at..at + piece.len()].fill(0);
                found += 1;
            }
        }
        assert_eq!(found, *times, "{} in {name}", piece.escape_ascii());
    }
    let difference = out.iter().zip(&expected).position(|(ours, wanted)| ours != wanted);
    if let Some(at) = difference {
        let around = at.saturating_sub(20)..(at + 30).min(input.len());
        panic!(
            "{name} differs at {at}: {} became {}",
            input[around.clone()].escape_ascii(),
            out[around].escape_ascii()
        );
    }
    for cut in [1, 7, 100, 4096] {
        check_invariants(&input, &[cut]);
    }
}

#[test]
fn recordings_of_claude_code_pass_except_queries() {
    let (version, device, notify) =
        (b"\x1b[>0q", b"\x1b[c", b"\x1b]777;notify;Claude Code;Claude needs your permission\x07");
    check_recording("claude_session.raw", &[(version, 1), (device, 1)]);
    check_recording("claude_session_fullscreen.raw", &[(version, 1), (device, 2), (b"\x1b[?2026$p", 1)]);
    check_recording("claude_session_ghostty.raw", &[(version, 1), (device, 1), (notify, 1)]);
}

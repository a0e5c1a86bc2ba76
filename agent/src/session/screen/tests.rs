//! The model is its own first judge: a snapshot fed into a fresh model must give the same snapshot. The last judge is
//! xterm.js (`tests/tests/terminal`).

use claudenest_shared::session::TermSize;
use proptest::prelude::*;

use super::*;

const SIZE: TermSize = TermSize { cols: 40, rows: 10 };

fn model(bytes: &[u8]) -> Model {
    let mut model = Model::new(SIZE);
    model.process(bytes);
    model
}

/// Everything a viewer can see, as text.
fn state(model: &mut Model) -> String {
    use cell::{HAS_EXT, UNDERLINE};
    let terminal = &model.terminal;
    let mut shown = format!("{:?} {:?} ", model.text(), model.title());
    for cell in terminal.active().rows.iter().flat_map(|row| &row.cells) {
        let is_underlined = cell.fg & UNDERLINE != 0;
        let underline = if is_underlined { (cell.ext.style.max(1), cell.ext.colour) } else { (0, 0) };
        let link = terminal.store.link(cell.ext.link);
        shown.push_str(&format!("{:x} {:x} {underline:?} {link:?},", cell.fg, cell.bg & !HAS_EXT));
    }
    shown
}

/// Leaving the alternate screen or a new region can leave the cursor outside the region in origin mode; no sequence
/// brings a terminal there, so no snapshot can.
fn is_unreachable(model: &Model) -> bool {
    let buffer = model.terminal.active();
    model.modes().origin && !buffer.is_in_region()
}

/// Checks that a viewer who gets the snapshot and then `more` stands where one stands who saw everything.
fn check(bytes: &[u8], more: &[u8]) {
    let mut live = model(bytes);
    if is_unreachable(&live) {
        return;
    }
    let snapshot = live.snapshot();
    let mut late = model(&snapshot);
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    assert_eq!(late.text(), live.text(), "{} -> {}", shown(bytes), shown(&snapshot));
    assert_eq!(late.modes(), live.modes(), "{} -> {}", shown(bytes), shown(&snapshot));
    assert_eq!(state(&mut late), state(&mut live), "{}", shown(bytes));
    live.process(more);
    late.process(more);
    if is_unreachable(&live) {
        return;
    }
    assert_eq!(late.text(), live.text(), "{} + {}", shown(bytes), shown(more));
    assert_eq!(state(&mut late), state(&mut live), "{} + {}", shown(bytes), shown(more));
}

#[test]
fn hidden_state_survives_a_snapshot() {
    let cases: [(&str, &str); 35] = [
        ("hello\r\nworld", "!"),
        ("\x1b[1;2;3;4;7;9;31;44mstyled\x1b[0m plain", "\x1b[Kx"),
        ("\x1b[38;5;200;48;2;1;2;3;58;5;9;4:3mcolours", "more"),
        ("\x1b]8;id=a;https://example.com\x1b\\link\x1b]8;;\x1b\\ no", "x"),
        ("\x1b]8;;https://example.com\x1b\\open", " still"),
        ("a\x1b[5;5H\x1b[35m\x1b7\x1b[Hb", "\x1b8c"),
        ("\x1b[3;6r\x1b[3;1Hx", "\n\n\n\n\ny"),
        ("\x1b[3;6r\x1b[?6h\x1b[2;2Hx", "\x1b[1;1Hy\n\n\n\n\nz"),
        ("\x1b[3g\x1b[5G\x1bH\x1b[1G", "\ta\tb"),
        ("\x1b(0lqk\x1b(B", "abc"),
        ("\x1b)0\x0elq", "qk\x0fabc"),
        ("primary\x1b[2;3H\x1b[32m\x1b[?1049h\x1b[HALT", "\x1b[?1049lback"),
        ("primary\x1b[?1049hALT\x1b[3;3H\x1b7\x1b[9;9H", "\x1b8x\x1b[?1049ly"),
        (&"x".repeat(40), "y"),
        ("\x1b[1;39H日", "本"),
        (&"wrapped ".repeat(12), "z"),
        ("\x1b[?1;1000;1006;1004;2004;2031h\x1b=\x1b[4h\x1b[?25l\x1b[5 q", "a\x1b[Hb"),
        ("\x1b[?7l\x1b[1;40Hab", "cd"),
        ("\x1b[>1u\x1b[>5u", "\x1b[<1u"),
        ("\x1b[=3u\x1b[>5u\x1b[>7u", "\x1b[<2u"),
        ("\x1b[?1049h\x1b[>7u\x1b[?1049l", "\x1b[?1049hx"),
        ("\x1b[>4;2m\x1b]2;a title\x1b\\", "x"),
        ("\x1b[?2026hhalf", "\x1b[?2026lrest"),
        ("\x1b[41m\x1b[2J\x1b[5;5Hx\x1b[K", "y"),
        // Underlined cells without a style, and a saved cursor that is none.
        ("\x1b[4m\x1b#8\x1b[?1049l", " "),
        // A character that finds no room leaves the cursor on half of the one before.
        ("\x1b[?7l\x1b[1;39H日本", "x"),
        // Halves of wide characters: in one pen, in two, moved, two in a row, with the cursor elsewhere.
        ("\x1b[?7l\x1b[1;39H日a", "b\u{301}"),
        ("\x1b[?7l\x1b[1;39H日a\x1b[31mb", "c"),
        ("\x1b[?7l\x1b[1;39H日a\x1b[31mb\x1b[?7h", "c"),
        ("\x1b[?7l\x1b[1;39H日a\x1b[1;5H\x1b[3Pxy", "c"),
        ("\x1b[?7l\x1b[1;39H日a\x1b[1;1H\x1b[8P\x1b[32m\x1b[1;39H本b\x1b[1;1H\x1b[PA", "c"),
        ("\x1b[?7l\x1b[44m\x1b[2J\x1b[1;39He日\u{301}b", "c"),
        ("\x1b[?7l\x1b[1;39Hab\x1b[1;40H日", "\u{301}"),
        ("\x1b[?7l\x1b[31m\x1b[1;40H日\u{301}\x1b[32m日\u{301}\x1b[H", "c"),
        ("\x1b[?7l\x1b[1\"q\x1b[1;39H日a\x1b[0\"qb\x1b[1;3H\x1b[?2K", "c"),
    ];
    for (bytes, more) in cases {
        check(bytes.as_bytes(), more.as_bytes());
    }
}

#[test]
fn a_cut_inside_a_sequence_or_a_character_does_not_matter() {
    let stream =
        "\x1b[1;31mred\x1b[0m \x1b]2;title\x1b\\ 日本 é \x1b[2;5Hx\x1b[?1049hALT\x1b[?1049l".as_bytes();
    for cut in 0..=stream.len() {
        check(&stream[..cut], &stream[cut..]);
    }
}

#[test]
fn sizes_and_titles_are_told() {
    let mut model = model(b"\x1b]0;hello\x07");
    assert_eq!(model.title(), Some("hello"));
    model.resize(TermSize { cols: 1, rows: 9999 });
    assert_eq!(model.size(), TermSize { cols: 2, rows: 300 });
    model.process("wide 日本".as_bytes());
    assert!(!model.is_broken());
}

#[test]
fn recordings_of_claude_code_survive_a_snapshot_at_every_thousandth_byte() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/samples/pty");
    for name in ["claude_session.raw", "claude_session_fullscreen.raw", "claude_session_ghostty.raw"] {
        let bytes = std::fs::read(format!("{directory}/{name}")).expect("the fixture is in the repository");
        let size = TermSize { cols: 120, rows: 40 };
        let mut live = Model::new(size);
        for piece in bytes.chunks(1000) {
            live.process(piece);
            let snapshot = live.snapshot();
            let mut late = Model::new(size);
            late.process(&snapshot);
            assert_eq!(late.text(), live.text(), "{name}");
            assert_eq!(late.snapshot(), snapshot, "{name}");
        }
    }
}

#[test]
fn another_terminal_reads_the_same_from_snapshots_of_claude_code() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/samples/pty");
    for name in ["claude_session.raw", "claude_session_fullscreen.raw", "claude_session_ghostty.raw"] {
        let bytes = std::fs::read(format!("{directory}/{name}")).expect("the fixture is in the repository");
        let (rows, cols) = (40.try_into().expect("not 0"), 120.try_into().expect("not 0"));
        let mut live = Model::new(TermSize { cols: 120, rows: 40 });
        for piece in bytes.chunks(5000) {
            live.process(piece);
            let mut other = vt100::Parser::new(rows, cols, 0);
            other.process(&live.snapshot());
            let read: Vec<String> =
                other.screen().rows(0, 120).map(|row| row.trim_end().to_owned()).collect();
            assert_eq!(read, live.text().rows, "{name}");
        }
    }
}

/// Pieces of streams: Claude Code's alphabet and the rest of a VT.
fn piece() -> impl Strategy<Value = String> {
    let sgr =
        proptest::collection::vec(prop_oneof![0u16..10, 21u16..60, 90u16..108], 0..4).prop_map(|codes| {
            format!("\x1b[{}m", codes.iter().map(u16::to_string).collect::<Vec<_>>().join(";"))
        });
    let motion = (0u16..60, prop::sample::select("ABCDEFGHIJKLMPSTX@Zdf`ag".chars().collect::<Vec<_>>()))
        .prop_map(|(count, letter)| format!("\x1b[{count}{letter}"));
    let goto = (1u16..12, 1u16..45).prop_map(|(row, col)| format!("\x1b[{row};{col}H"));
    let region = (1u16..10, 1u16..12).prop_map(|(top, bottom)| format!("\x1b[{top};{bottom}r"));
    let mode = (
        prop::sample::select(vec![
            1u16, 6, 7, 7, 12, 25, 47, 1000, 1002, 1004, 1006, 1047, 1049, 2004, 2026, 2031,
        ]),
        any::<bool>(),
    )
        .prop_map(|(mode, set)| format!("\x1b[?{mode}{}", if set { 'h' } else { 'l' }));
    let fixed = prop::sample::select(vec![
        "\r\n",
        "\n",
        "\r",
        "\t",
        "\x08",
        "\x1b7",
        "\x1b8",
        "\x1bM",
        "\x1bD",
        "\x1bE",
        "\x1bH",
        "\x1b[3g",
        "\x1b(0",
        "\x1b(B",
        "\x1b)0",
        "\x0e",
        "\x0f",
        "\x1b[4h",
        "\x1b[4l",
        "\x1b#8",
        "\x1b[38;5;123m",
        "\x1b[48;2;9;8;7m",
        "日本語",
        "❤\u{fe0f}",
        "e\u{301}",
        "👩\u{200d}💻",
        "\x1b[>1u",
        "\x1b[<u",
        "\x1b]8;;https://a.example\x1b\\",
        "\x1b]8;;\x1b\\",
        "\x1b]2;t\x07",
        "\x1bc",
        "\x1b[!p",
        "\x1b[?2026h",
        "\x1b[?2026l",
    ])
    .prop_map(str::to_owned);
    prop_oneof![
        4 => "[ -~]{1,30}",
        3 => fixed,
        2 => sgr,
        2 => motion,
        1 => goto,
        1 => region,
        1 => mode,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_streams_survive_a_snapshot(
        before in proptest::collection::vec(piece(), 0..60),
        after in proptest::collection::vec(piece(), 0..8),
    ) {
        check(before.concat().as_bytes(), after.concat().as_bytes());
    }

    #[test]
    fn no_bytes_and_no_sizes_break_the_model(
        steps in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..80), 0u16..520, 0u16..310), 0..8),
    ) {
        let mut model = Model::new(SIZE);
        for (bytes, cols, rows) in steps {
            model.process(&bytes);
            model.resize(TermSize { cols, rows });
            model.snapshot();
            prop_assert!(!model.is_broken());
        }
    }
}

//! Finds output that a screen model need not see: lines that have scrolled away again before anybody could look.
//!
//! A flood of lines leaves only its last screen behind. Where nothing but text, ends of lines and colours was printed
//! on a screen that scrolls as a whole, the model gives the same screen when it begins a little before the end: twice
//! as many lines as the screen has. The first of them bring the cursor to the bottom wherever it was, the others push
//! out everything older. A model needs about 5 s of CPU time for a gigabyte of short lines; with this the whole daemon
//! needs 1.2 s (measured).
//!
//! Must not guess: a byte that it does not know for certain ends the part that it may skip.

/// Less than this is not worth a look.
const MIN_BYTES: usize = 16 * 1024;
/// How far back a beginning is looked for: 300 rows of 500 columns with colours fit.
const MAX_BACK_BYTES: usize = 1024 * 1024;
/// Bytes that are judged at a time; a length that compilers turn into vector instructions.
const LANE: usize = 64;

/// How many bytes at the beginning of `bytes` a model of so many rows can leave out.
///
/// The caller makes sure that the model has no unfinished sequence and that its scroll region is the whole screen
/// (see `ScreenModel::scrolls_whole`).
pub(super) fn skippable(bytes: &[u8], rows: usize) -> usize {
    if bytes.len() < MIN_BYTES {
        return 0;
    }
    let run = simple_run(bytes);
    begin(&bytes[..run.end], run.has_colours, rows).unwrap_or(0)
}

/// The longest beginning that consists of text, ends of lines, tabs and whole colour sequences.
struct Run {
    end: usize,
    has_colours: bool,
}

/// True for bytes whose effect may reach beyond the lines that they are on, and for those that may begin such a sequence.
const fn is_special(byte: u8) -> bool {
    // C2 begins the C1 controls in UTF-8.
    (byte < 0x20 && !matches!(byte, 0x09 | 0x0a | 0x0d)) | (byte == 0x7f) | (byte == 0xc2)
}

fn simple_run(bytes: &[u8]) -> Run {
    let (mut at, mut has_colours) = (0, false);
    loop {
        at += plain_run(&bytes[at..]);
        let Some(size) = colour_sequence(&bytes[at..]) else { return Run { end: at, has_colours } };
        has_colours = true;
        at += size;
    }
}

/// Length of the part before the first special byte.
fn plain_run(bytes: &[u8]) -> usize {
    let mut at = 0;
    // Colours come every few bytes or never: the long stride is only taken where it can be.
    while let Some(lane) = bytes[at..].first_chunk::<LANE>() {
        if lane.iter().fold(false, |any, byte| any | is_special(*byte)) {
            break;
        }
        at += LANE;
    }
    let rest = bytes[at..].iter().position(|byte| is_special(*byte));
    rest.map_or(bytes.len(), |more| at + more)
}

/// Length of the colour sequence (SGR) at the beginning, if one is there and whole.
fn colour_sequence(bytes: &[u8]) -> Option<usize> {
    let parameters = bytes.strip_prefix(b"\x1b[")?;
    let size = parameters.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    (parameters[size] == b'm').then_some(size + 3)
}

/// Where a model may begin and end with the same screen: before the last `2 * rows` lines, where all colours are known.
fn begin(run: &[u8], has_colours: bool, rows: usize) -> Option<usize> {
    let mut line = run.len();
    for _ in 0..2 * rows + 2 {
        line = memchr::memrchr(b'\n', &run[..line])?;
    }
    let oldest = run.len().saturating_sub(MAX_BACK_BYTES);
    // A line that begins in the first column, whatever came before it.
    while run[..line].last() != Some(&b'\r') {
        line = memchr::memrchr(b'\n', &run[oldest..line])? + oldest;
    }
    // What repeats the last character must find one.
    let has_text = |from: usize| run[from..].iter().any(|byte| byte.is_ascii_alphanumeric());
    if !has_colours {
        return Some(line + 1).filter(|from| has_text(*from));
    }
    // A colour sequence that says everything anew.
    let mut from = line;
    loop {
        from = memchr::memrchr(0x1b, &run[oldest..from])? + oldest;
        let rest = &run[from + 2..];
        if rest.starts_with(b"m") || rest.starts_with(b"0m") || rest.starts_with(b"0;") {
            // Digits of colours are no text: there are letters on the lines that count, or nothing is left out.
            return run[line..]
                .iter()
                .any(|byte| byte.is_ascii_uppercase() || matches!(byte, b'a'..=b'l'))
                .then_some(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use claudenest_shared::session::TermSize;
    use proptest::prelude::*;

    use super::super::screen::{Model, ScreenModel};
    use super::*;

    /// Pieces of output, most of them simple.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            8 => "[ -~]{0,90}".prop_map(String::into_bytes),
            8 => Just(b"\r\n".to_vec()),
            2 => Just(b"\n".to_vec()),
            1 => Just(b"\r".to_vec()),
            1 => Just(b"\t".to_vec()),
            2 => "[\u{c0}-\u{17f}\u{4e00}-\u{4e40}\u{301}\u{1f600}]{0,9}".prop_map(String::into_bytes),
            4 => (0u8..108).prop_map(|n| format!("\x1b[{n}m").into_bytes()),
            3 => (0u8..255).prop_map(|n| format!("\x1b[0;1;48;5;{n}m").into_bytes()),
            2 => Just(b"\x1b[0m".to_vec()),
            1 => Just(b"\x1b[m".to_vec()),
        ]
    }

    /// What leaves a screen in an odd state before the flood begins.
    fn opening() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(b"".to_vec()),
            Just(b"\x1b[41mred\x1b[5;7Hmiddle".to_vec()),
            Just(b"\x1b[?7l\x1b[4h".to_vec()),
            Just(b"\x1b[20h\x1b(0".to_vec()),
            Just(b"\x1b[?1049h\x1b[3g\x1b[10;10H\x1bH\x1b[1;4:3m\x1b]8;;http://x\x1b\\".to_vec()),
            Just(b"\x1b[2;6r\x1b[?6h".to_vec()),
        ]
    }

    fn screen(parts: &[&[u8]]) -> Vec<u8> {
        let mut model = Model::new(TermSize::clamped(20, 6));
        parts.iter().for_each(|part| model.process(part));
        model.snapshot()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_model_that_begins_later_ends_the_same(
            opening in opening(),
            pieces in proptest::collection::vec(piece(), 60..120),
            // Also where something else follows or interrupts the flood.
            ending in proptest::sample::select(vec!["", "\x1b[3b", "\x1b[K", "\x1b7\x1b[3", "\x1b[L"]),
        ) {
            let text = pieces.concat();
            let flood = text.repeat(1 + 2 * MIN_BYTES / text.len().max(1));
            let flood = [&flood, ending.as_bytes()].concat();
            let mut probe = Model::new(TermSize::clamped(20, 6));
            let opening = [b"\r\n".repeat(20_100), opening].concat();
            probe.process(&opening);
            let Some(rows) = probe.scrolls_whole() else { return Ok(()) };
            let from = skippable(&flood, rows);
            prop_assert_eq!(screen(&[&opening, &flood[from..]]), screen(&[&opening, &flood]));
        }
    }

    #[test]
    fn floods_of_plain_and_of_coloured_lines_are_left_out() {
        let plain: Vec<u8> = (0..20_000).flat_map(|n| format!("line {n}\r\n").into_bytes()).collect();
        assert!(skippable(&plain, 40) > plain.len() - 2000);
        let coloured: Vec<u8> = (0..20_000)
            .flat_map(|n| format!("\x1b[0;3{}mcoloured {n}\x1b[0m\r\n", n % 8).into_bytes())
            .collect();
        assert!(skippable(&coloured, 40) > coloured.len() - 4000);
    }

    #[test]
    fn nothing_is_left_out_where_it_could_be_seen() {
        let lines = |between: &str| format!("text{between}\r\n").repeat(4000).into_bytes();
        for between in
            ["\x1b[A", "\x08", "\x1b[2J", "\x1b[31", "\x1bM", "\x07", "\u{85}", "\x0b", "\x1b]0;title\x07"]
        {
            assert_eq!(skippable(&lines(between), 10), 0, "{between:?}");
        }
        // Colours that are never reset reach from the first line to the last.
        assert_eq!(skippable(&lines("\x1b[1m"), 10), 0);
        // The column of the first line reaches to the last.
        assert_eq!(skippable("text\n".repeat(8000).as_bytes(), 10), 0);
    }
}

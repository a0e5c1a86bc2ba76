//! CSI and ESC sequences: which are kept, how far their numbers go, which are questions.
//!
//! Everything that is not named here is blanked.

use super::query::{self, Query};
use super::{ESC, Event, SEQUENCE_MAX, blank};

/// Largest number in any sequence: far beyond any screen, and quick in every terminal.
const NUMBER_MAX: u32 = 9999;
/// Largest count where the terminal works per unit: sizes end at 500 columns and 300 rows. In xterm.js 6.0 on
/// 500x300 with 10,000 rows of history `CSI 9999 S` took 93 ms, `CSI 512 S` 8 ms.
const COUNT_MAX: u32 = 512;
/// The same where the units are rows, and each costs a terminal the most.
const ROWS_MAX: u32 = 300;
/// Numbers and sub-numbers that xterm.js and vte store; beyond, they differ.
const NUMBERS_MAX: usize = 32;

/// What happens to a sequence.
enum Verdict {
    /// Kept with its numbers clamped.
    Keep {
        max: u32,
    },
    /// SM and RM: kept with the modes that pass.
    Modes {
        passes: fn(u32) -> bool,
    },
    Ask(Query),
    Blank,
}

/// The parts of a CSI sequence.
struct Parts<'a> {
    /// `<`, `=`, `>`, `?` or 0.
    prefix: u8,
    params: &'a [u8],
    /// The intermediate byte, or 0.
    intermediate: u8,
    last: u8,
}

/// Length of the 7-bit CSI sequence at the start of `buf` if it is complete and has nothing odd inside.
pub(super) fn plain_length(buf: &[u8]) -> Option<usize> {
    let [ESC, b'[', rest @ ..] = buf else { return None };
    let rest = &rest[..rest.len().min(SEQUENCE_MAX - 2)];
    let inside = rest.iter().position(|byte| !(0x20..=0x3f).contains(byte))?;
    (0x40..=0x7e).contains(&rest[inside]).then_some(inside + 3)
}

/// Writes a complete CSI sequence and fills it up to `length`. `is_marked`: it comes right behind a character with marks.
pub(super) fn write(
    sequence: &[u8],
    length: usize,
    is_marked: bool,
    out: &mut Vec<u8>,
    events: &mut Vec<Event>,
) {
    let end = out.len() + length;
    // Nothing that is used repeats marks (REP is sent for ASCII), and each costs a terminal a string.
    let is_dear = |parts: &Parts<'_>| is_marked && parts.last == b'b' && parts.intermediate == 0;
    match parse(sequence).filter(|parts| !is_dear(parts)).map_or(Verdict::Blank, |parts| judge(&parts)) {
        Verdict::Keep { max } => {
            let start = out.len();
            out.extend_from_slice(sequence);
            clamp(&mut out[start..], max);
        }
        Verdict::Modes { passes } => write_modes(sequence, passes, out),
        Verdict::Ask(query) => events.push(Event::Query(query)),
        Verdict::Blank => {}
    }
    debug_assert!(out.len() <= end, "nothing becomes longer");
    out.resize(end, 0);
}

/// Writes a complete ESC sequence (no CSI, no string) and fills it up to `length`.
pub(super) fn write_escape(sequence: &[u8], length: usize, out: &mut Vec<u8>, events: &mut Vec<Event>) {
    let end = out.len() + length;
    match sequence {
        // DECSC, DECRC, IND, NEL, HTS, RI, keypad modes, RIS, locking shifts, alignment pattern.
        [_, b'7' | b'8' | b'D' | b'E' | b'H' | b'M' | b'=' | b'>' | b'c'] => out.extend_from_slice(sequence),
        [_, b'n' | b'o' | b'|' | b'}' | b'~'] => out.extend_from_slice(sequence),
        [_, b'#', b'8'] => out.extend_from_slice(sequence),
        [_, b'(' | b')' | b'*' | b'+', b'0'] => out.extend_from_slice(sequence),
        // National sets show other characters than were written, and terminals disagree on them.
        [_, set @ (b'(' | b')' | b'*' | b'+'), ..] => out.extend_from_slice(&[ESC, *set, b'B']),
        [_, b'Z'] => events.push(Event::Query(Query::PrimaryAttributes)),
        _ => {}
    }
    blank(out, end - out.len());
}

fn parse(sequence: &[u8]) -> Option<Parts<'_>> {
    let (last, body) = sequence.get(2..)?.split_last()?;
    let (prefix, body) = match body {
        [prefix @ 0x3c..=0x3f, rest @ ..] => (*prefix, rest),
        _ => (0, body),
    };
    let params_end = body.iter().position(|byte| !matches!(byte, 0x30..=0x3b)).unwrap_or(body.len());
    let (params, intermediates) = body.split_at(params_end);
    let intermediate = match intermediates {
        [] => 0,
        [one @ 0x20..=0x2f] => *one,
        _ => return None,
    };
    let separators = params.iter().filter(|byte| **byte >= b':').count();
    (separators < NUMBERS_MAX).then_some(Parts { prefix, params, intermediate, last: *last })
}

fn judge(parts: &Parts<'_>) -> Verdict {
    const KEEP: Verdict = Verdict::Keep { max: NUMBER_MAX };
    const COUNT: Verdict = Verdict::Keep { max: COUNT_MAX };
    const ROWS: Verdict = Verdict::Keep { max: ROWS_MAX };
    let query = query::of_csi(parts.prefix, parts.intermediate, parts.last, || numbers(parts.params));
    if let Some(query) = query {
        return Verdict::Ask(query);
    }
    match (parts.prefix, parts.intermediate, parts.last) {
        (0, 0, b'm' | b'A'..=b'H' | b'J' | b'K' | b'`' | b'a' | b'd'..=b'g' | b'r') => KEEP,
        (0, 0, b'@' | b'I' | b'P' | b'X' | b'Z' | b'b') => COUNT,
        (0, 0, b'L' | b'M' | b'S') => ROWS,
        // With more numbers `T` is highlight tracking.
        (0, 0, b'T') if !parts.params.contains(&b';') => ROWS,
        // With numbers these are margins and kitty's keys.
        (0, 0, b's' | b'u') if parts.params.is_empty() => KEEP,
        (0, 0, b'h' | b'l') => Verdict::Modes { passes: is_ansi_mode },
        (b'?', 0, b'h' | b'l') => Verdict::Modes { passes: is_private_mode },
        (b'?', 0, b'J' | b'K') => KEEP,
        // Key encodings: XTMODKEYS and kitty's push, set and pop.
        (b'>', 0, b'm' | b'n' | b'u') | (b'=' | b'<', 0, b'u') => KEEP,
        (0, b' ', b'q') | (0, b'!', b'p') | (0, b'"', b'q') => KEEP,
        (0, b' ', b'@' | b'A') | (0, b'\'', b'}' | b'~') => COUNT,
        _ => Verdict::Blank,
    }
}

/// Insert and newline mode. Not the keyboard lock and local echo.
fn is_ansi_mode(mode: u32) -> bool {
    matches!(mode, 4 | 20)
}

/// Modes that every viewer understands alike, or that ask for input the program wants. Missing on purpose: VT52 (2),
/// 132 columns (3, 40), Tektronix (38), margins (69), hilite tracking (1001), keyboard encodings (1034 and up, 9001),
/// graphemes (2027, other widths than ours), and reports that answer at once (2048).
fn is_private_mode(mode: u32) -> bool {
    matches!(mode, 1 | 4..=9 | 12 | 25 | 45 | 47 | 66 | 1000 | 1002..=1007 | 1015 | 1016 | 1047..=1049 | 2004 | 2026 | 2031)
}

/// The numbers of a parameter string; absent ones are 0. At most [`NUMBERS_MAX`].
pub(super) fn numbers(params: &[u8]) -> Vec<u32> {
    params.split(|byte| *byte >= b':').take(NUMBERS_MAX).map(number).collect()
}

fn number(digits: &[u8]) -> u32 {
    digits
        .iter()
        .fold(0, |value: u32, digit| value.saturating_mul(10).saturating_add(u32::from(digit & 0x0f)))
}

fn clamp(sequence: &mut [u8], max: u32) {
    for digits in sequence.split_mut(|byte| !byte.is_ascii_digit()) {
        // Four digits cannot exceed the larger limit.
        if digits.len() < 3 || (max == NUMBER_MAX && digits.len() <= 4) || number(digits) <= max {
            continue;
        }
        let mut value = max;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
}

fn write_modes(sequence: &[u8], passes: fn(u32) -> bool, out: &mut Vec<u8>) {
    let Some(Parts { prefix, params, last, .. }) = parse(sequence) else { return };
    if params.contains(&b':') {
        return;
    }
    let is_passed = |digits: &&[u8]| passes(number(digits));
    if params.split(|byte| *byte == b';').all(|digits| is_passed(&digits)) {
        out.extend_from_slice(sequence);
        return;
    }
    let mut passed = params.split(|byte| *byte == b';').filter(is_passed).peekable();
    if passed.peek().is_none() {
        return;
    }
    out.extend_from_slice(&[ESC, b'[']);
    out.extend((prefix != 0).then_some(prefix));
    while let Some(digits) = passed.next() {
        out.extend_from_slice(digits);
        out.extend(passed.peek().map(|_| b';'));
    }
    out.push(last);
}

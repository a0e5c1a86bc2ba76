//! Text between sequences: well-formed UTF-8, without DEL, and never many marks on one character.

use memchr::{memchr, memchr3};

use super::super::screen::columns;
use super::{C1_LEAD, DEL, ENQ, ESC, blank};

/// Marks that one character may carry: a flag of a region has the most that is in use, six tags. A cell of xterm.js 6.0
/// takes any number, and 262,144 of them on one cell kept a page busy for 1.8 s.
const MARKS_MAX: usize = 8;
/// A longer run of marks has more bytes than this, none of them ASCII: looking at one place of each so many finds it.
const STRIDE: usize = 2 * MARKS_MAX;

/// Text from the start of `buf`: returns its length, without a character whose end is not there yet. `marks` are those
/// on the last character so far.
pub(super) fn write(buf: &[u8], marks: &mut usize, out: &mut Vec<u8>) -> usize {
    let mut run = buf.len();
    let mut is_closed = false;
    let mut from = 0;
    while let Some(found) = memchr3(ESC, ENQ, C1_LEAD, &buf[from..]) {
        let at = from + found;
        if buf[at] == C1_LEAD && buf.get(at + 1).is_some_and(|next| !(0x80..=0x9f).contains(next)) {
            from = at + 1;
            continue;
        }
        run = at;
        is_closed = true;
        break;
    }
    let mut rest = &buf[..run];
    loop {
        let error = match std::str::from_utf8(rest) {
            Ok(text) => {
                characters(text, marks, out);
                return run;
            }
            Err(error) => error,
        };
        let (valid, others) = rest.split_at(error.valid_up_to());
        characters(std::str::from_utf8(valid).unwrap_or_default(), marks, out);
        let ill_formed = match error.error_len() {
            Some(length) => length,
            None if is_closed => others.len(),
            None => return run - others.len(),
        };
        invalid(out, ill_formed);
        *marks = 0;
        rest = &others[ill_formed..];
    }
}

/// Stands for one ill-formed part of UTF-8: one cell, as a terminal would show U+FFFD.
pub(super) fn invalid(out: &mut Vec<u8>, length: usize) {
    out.push(b'?');
    blank(out, length - 1);
}

/// Writes well-formed text.
fn characters(text: &str, marks: &mut usize, out: &mut Vec<u8>) {
    let mut from = out.len();
    out.extend_from_slice(text.as_bytes());
    if *marks > 0 || may_have_too_many(text) {
        count(text, marks, &mut out[from..]);
    } else {
        *marks = text.chars().rev().take_while(|character| is_mark(*character)).count();
    }
    while let Some(found) = memchr(DEL, &out[from..]) {
        from += found;
        out[from] = 0;
    }
}

/// False if no run of marks inside is too long: almost always, and then at the cost of a look at every 16th byte.
fn may_have_too_many(text: &str) -> bool {
    let places = (STRIDE - 1..text.len()).step_by(STRIDE);
    places.into_iter().any(|at| {
        text.as_bytes()[at] >= 0x80
            && text[text.floor_char_boundary(at)..].chars().next().is_some_and(is_mark)
    })
}

/// Goes through all characters of `text`, which stands in `out`, and blanks marks that are too many.
fn count(text: &str, marks: &mut usize, out: &mut [u8]) {
    for (at, character) in text.char_indices() {
        *marks = if is_mark(character) { *marks + 1 } else { 0 };
        if *marks > MARKS_MAX {
            out[at..at + character.len_utf8()].fill(0);
        }
    }
}

/// True if it joins the character before it.
fn is_mark(character: char) -> bool {
    character >= '\u{a0}' && columns(u32::from(character)) == 0
}

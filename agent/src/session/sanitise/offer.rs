//! What a child wants on the clipboard, as it travels to viewers: `OSC 952 ; base64`, a number that no terminal knows, so
//! that nothing but a page of ours, at a person's click, ever does what OSC 52 asks for.
//!
//! Offers are only in output that is watched while it comes ([`super::Sanitiser::keep_offers`]), never in what is read from disk
//! again. A terminal of this machine gets none: see [`OfferBlanker`].

use bytes::Bytes;

/// The number of an offer. Three digits: no longer than the shortest OSC 52 that it replaces.
pub(super) const NUMBER: u32 = 952;
const INTRODUCER: &[u8] = b"\x1b]952;";
const BEL: u8 = 0x07;
const ESC: u8 = 0x1b;

/// True for the body of an OSC that may be a clipboard's.
pub(super) fn is_clipboard(body: &[u8]) -> bool {
    body.starts_with(b"52;") || body.starts_with(b"952;")
}

/// The body of the offer that an OSC 52 (`where;base64`) or an offer is; `None` for a read and for what is no base64.
pub(super) fn of(number: u32, rest: &str) -> Option<String> {
    let data = if number == NUMBER { rest } else { rest.split_once(';')?.1 };
    let is_base64 =
        data.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
    (is_base64 && !data.is_empty()).then(|| format!("{NUMBER};{data}"))
}

/// Blanks offers in the frames of one stream, wherever they are cut. Unknown sequences of that length are more than some
/// terminals and multiplexers can take.
#[derive(Debug, Default)]
pub struct OfferBlanker {
    /// Bytes of the introducer that the output so far ends with.
    matched: usize,
    state: Inside,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Inside {
    #[default]
    Nothing,
    /// The introducer was blanked as well.
    Hidden,
    /// Its beginning had gone out with an earlier frame: the terminator must come too.
    Open,
}

impl OfferBlanker {
    /// The same number of bytes without offers; not copied when there are none.
    pub fn blank(&mut self, output: Bytes) -> Bytes {
        let is_untouched = self.matched == 0 && self.state == Inside::Nothing;
        if is_untouched && memchr::memmem::find(&output, INTRODUCER).is_none() {
            let ends_with = |count: &usize| output.ends_with(&INTRODUCER[..*count]);
            self.matched = (1..INTRODUCER.len()).rev().find(ends_with).unwrap_or(0);
            return output;
        }
        let mut bytes = output.to_vec();
        for at in 0..bytes.len() {
            let byte = bytes[at];
            match (self.state, byte) {
                (Inside::Nothing, _) => {
                    let is_next = byte == INTRODUCER[self.matched];
                    self.matched = if is_next { self.matched + 1 } else { usize::from(byte == ESC) };
                    if self.matched == INTRODUCER.len() {
                        self.matched = 0;
                        let from = (at + 1).checked_sub(INTRODUCER.len());
                        self.state = if from.is_some() { Inside::Hidden } else { Inside::Open };
                        bytes[from.unwrap_or(at + 1)..=at].fill(0);
                    }
                }
                // Between introducer and terminator there is only base64. ESC begins the other terminator, `ESC \`.
                (Inside::Hidden, BEL | b'\\') => {
                    bytes[at] = 0;
                    self.state = Inside::Nothing;
                }
                (Inside::Open, BEL | b'\\') => self.state = Inside::Nothing,
                (Inside::Open, ESC) => {}
                (Inside::Hidden | Inside::Open, _) => bytes[at] = 0,
            }
        }
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(output: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut blanker = OfferBlanker::default();
        let mut out = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([output.len()]) {
            out.extend_from_slice(&blanker.blank(Bytes::copy_from_slice(&output[from..cut])));
            from = cut;
        }
        out
    }

    #[test]
    fn offers_are_blanked_and_nothing_else_is() {
        let plain = b"text \x1b]95\x1b]2;t\x07\x1b[1m\x1b\x1b]8;;http://a\x1b\\952;QUI=\x07";
        assert_eq!(blank(plain, &[]), plain);
        for end in [&b"\x07"[..], b"\x1b\\"] {
            let offer = [b"a\x1b]952;QUJD", end, b"b\x1b]952;QUJD", end, b"c"].concat();
            let hidden = vec![0; 10 + end.len()];
            assert_eq!(blank(&offer, &[]), [b"a", &hidden[..], b"b", &hidden[..], b"c"].concat());
        }
    }

    #[test]
    fn no_cut_lets_an_offer_through_or_leaves_a_sequence_open() {
        for end in [&b"\x07"[..], b"\x1b\\"] {
            let output = [b"a\x1b]952;QUJD", end, b"b\x1b[1m"].concat();
            for first in 0..output.len() {
                for second in first..output.len() {
                    let out = blank(&output, &[first, second]);
                    assert_eq!(out.len(), output.len());
                    let shown: Vec<u8> = out.into_iter().filter(|byte| *byte != 0).collect();
                    let text = shown.escape_ascii().to_string();
                    assert!(!text.contains("QUJD") && !text.contains("952;Q"), "{first} {second}: {text}");
                    // What was begun is ended.
                    assert_eq!(
                        text.contains("]"),
                        shown.windows(end.len()).any(|it| it == end),
                        "{first} {second}: {text}"
                    );
                    assert!(text.starts_with('a') && text.ends_with("b\\x1b[1m"), "{first} {second}: {text}");
                }
            }
        }
    }
}

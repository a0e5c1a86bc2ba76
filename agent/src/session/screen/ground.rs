//! Knows whether the output so far ends inside an escape sequence or a character, and keeps those bytes.
//!
//! A snapshot is taken between bytes, not between sequences; the kept bytes follow it, so that a viewer's
//! parser stands exactly where the program's output stands.

/// An unfinished sequence longer than this is given up: the sanitiser never lets one through.
const MAX_PENDING_BYTES: usize = 64 * 1024;

/// States of the VT500 parser as far as beginning and end of sequences go
/// (<https://vt100.net/emu/dec_ansi_parser>).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    Csi,
    /// OSC, DCS, APC, PM, SOS; OSC alone also ends with BEL.
    Text {
        is_osc: bool,
    },
    /// An ESC inside a string: `\` ends it, anything else begins a new sequence.
    TextEscape,
    /// So many continuation bytes of a UTF-8 character are missing.
    Utf8(u8),
}

/// Follows output and keeps the bytes of an unfinished sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct GroundTracker {
    state: State,
    pending: Vec<u8>,
}

impl GroundTracker {
    pub(super) fn process(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if self.state == State::Ground {
            // Only the tail behind the last byte that can start anything matters; find it quickly.
            let start = last_start(rest);
            rest = &rest[start..];
        }
        for &byte in rest {
            self.step(byte);
        }
    }

    /// Bytes since the last moment at which nothing was unfinished.
    pub(super) fn pending(&self) -> &[u8] {
        &self.pending
    }

    fn step(&mut self, byte: u8) {
        use State::*;
        let next = match (self.state, byte) {
            (_, 0x1b) if matches!(self.state, Text { .. }) => TextEscape,
            (_, 0x1b) => {
                self.pending.clear();
                Escape
            }
            // CAN and SUB end every sequence.
            (_, 0x18 | 0x1a) => Ground,
            (Ground, _) => utf8_start(byte),
            (Utf8(missing), 0x80..=0xbf) => {
                if missing == 1 {
                    Ground
                } else {
                    Utf8(missing - 1)
                }
            }
            (Utf8(_), _) => {
                self.pending.clear();
                utf8_start(byte)
            }
            (Escape, b'[') => Csi,
            (Escape, b']') => Text { is_osc: true },
            (Escape, b'P' | b'X' | b'^' | b'_') => Text { is_osc: false },
            (Escape, 0x20..=0x2f) => Escape,
            (Escape, 0x30..=0x7e) => Ground,
            (Escape, _) => Escape,
            (Csi, 0x40..=0x7e) => Ground,
            (Csi, _) => Csi,
            (Text { is_osc: true }, 0x07) => Ground,
            (text @ Text { .. }, _) => text,
            (TextEscape, b'\\') => Ground,
            (TextEscape, _) => {
                // The ESC began a new sequence: replay this byte behind it.
                self.pending.clear();
                self.pending.push(0x1b);
                self.state = Escape;
                return self.step(byte);
            }
        };
        self.state = next;
        if next == Ground {
            self.pending.clear();
        } else if self.pending.len() < MAX_PENDING_BYTES {
            self.pending.push(byte);
        }
    }
}

fn utf8_start(byte: u8) -> State {
    match byte {
        0xc2..=0xdf => State::Utf8(1),
        0xe0..=0xef => State::Utf8(2),
        0xf0..=0xf4 => State::Utf8(3),
        _ => State::Ground,
    }
}

/// Index of the last ESC, or of a character that the end may cut; `bytes.len()` if neither matters.
fn last_start(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    let cut = (tail..bytes.len()).find(|&at| bytes[at] >= 0xc2).unwrap_or(bytes.len());
    // A string may hold any number of other bytes after its ESC, and one ESC may lie inside a string
    // that an earlier one began: go back over the last few, to the first of a run of ESCs.
    match bytes.iter().rposition(|&byte| byte == 0x1b) {
        None => cut,
        Some(last) => match bytes[..last].iter().rposition(|&byte| byte == 0x1b) {
            // The last ESC may be the terminator of a string that the one before began.
            Some(previous) => previous.min(cut),
            None => last.min(cut),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pending_of(bytes: &[u8]) -> Vec<u8> {
        let mut tracker = GroundTracker::default();
        tracker.process(bytes);
        tracker.pending().to_vec()
    }

    #[test]
    fn unfinished_sequences_are_kept() {
        for (bytes, pending) in [
            (&b"abc"[..], &b""[..]),
            (b"abc\x1b", b"\x1b"),
            (b"abc\x1b[12;", b"\x1b[12;"),
            (b"abc\x1b[12;3m", b""),
            (b"\x1b]0;tit", b"\x1b]0;tit"),
            (b"\x1b]0;tit\x07x", b""),
            (b"\x1b]0;tit\x1b", b"\x1b]0;tit\x1b"),
            (b"\x1b]0;tit\x1b\\", b""),
            (b"\x1b]0;tit\x1b[1", b"\x1b[1"),
            (b"\x1b(", b"\x1b("),
            (b"\x1b(B", b""),
            (b"a\xe2\x9d", b"\xe2\x9d"),
            (b"a\xe2\x9d\xa4", b""),
            (b"\xf0\x9f", b"\xf0\x9f"),
            (b"\x1b[1\x18", b""),
        ] {
            assert_eq!(pending_of(bytes), pending, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn the_cut_does_not_matter(
            bytes in proptest::collection::vec(prop_oneof![Just(0x1bu8), Just(b'['), Just(b']'), Just(b'\\'), Just(7u8), Just(b'm'), Just(0xe2u8), Just(0x9du8), any::<u8>()], 0..60),
            cut in 0usize..60,
        ) {
            let cut = cut.min(bytes.len());
            let mut one_by_one = GroundTracker::default();
            for byte in &bytes {
                one_by_one.process(&[*byte]);
            }
            let mut in_two = GroundTracker::default();
            in_two.process(&bytes[..cut]);
            in_two.process(&bytes[cut..]);
            prop_assert_eq!(one_by_one.pending(), in_two.pending());
        }
    }
}

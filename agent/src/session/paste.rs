//! Marks of bracketed pastes in what is written to a terminal.

/// Begins a bracketed paste.
pub(crate) const PASTE_START: &[u8] = b"\x1b[200~";
/// Ends it.
pub(crate) const PASTE_END: &[u8] = b"\x1b[201~";

/// Whether the bytes so far end inside a bracketed paste; marks may be cut anywhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct PasteMarks {
    is_inside: bool,
    tail: Vec<u8>,
}

impl PasteMarks {
    /// A new reader of marks, for a terminal that is in this state.
    pub(crate) fn new(is_inside: bool) -> Self {
        Self { is_inside, tail: Vec::new() }
    }

    /// True if the next byte belongs to a paste.
    pub(crate) fn is_inside(&self) -> bool {
        self.is_inside
    }

    /// Takes in the next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut text = std::mem::take(&mut self.tail);
        text.extend_from_slice(bytes);
        for window in text.windows(PASTE_START.len()) {
            if window == PASTE_START {
                self.is_inside = true;
            } else if window == PASTE_END {
                self.is_inside = false;
            }
        }
        // A whole mark never stays in the tail, so it is not counted twice.
        self.tail = text[text.len().saturating_sub(PASTE_START.len() - 1)..].to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_seen_wherever_they_are_cut() {
        let text = b"a\x1b[200~b\x1b[201~c\x1b[200~d";
        for cut in 0..=text.len() {
            let mut marks = PasteMarks::default();
            let mut states = Vec::new();
            for piece in [&text[..cut], &text[cut..]] {
                marks.feed(piece);
                states.push(marks.is_inside());
            }
            assert_eq!(
                states,
                [(7..14).contains(&cut) || cut == text.len() || cut > 20, true],
                "cut at {cut}"
            );
        }
    }
}

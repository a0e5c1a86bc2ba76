//! Detach keys: how they are written, and finding them in what a person types.

/// A sequence of one or two control or plain keys that leaves `attach`.
///
/// The first must be a control key, so that plain typing can never detach. The default `ctrl-] d` is
/// telnet's escape: Claude Code, tmux (`ctrl-b`), screen (`ctrl-a`) and shells do not use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DetachKeys(Vec<u8>);

/// What becomes of typed bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Typed {
    /// Bytes for the session.
    pub bytes: Vec<u8>,
    /// True if the detach keys were typed; what follows them is dropped.
    pub is_detach: bool,
}

impl DetachKeys {
    /// Reads `ctrl-x` (or `^x`), optionally followed by a second key.
    ///
    /// # Errors
    /// A sentence that says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = || {
            "takes a control key and perhaps a second key, for example \"ctrl-] d\", \"ctrl-\\\\\" or \"ctrl-] ctrl-]\"."
                .to_owned()
        };
        let keys: Option<Vec<u8>> = text.split_whitespace().map(key).collect();
        match keys.as_deref() {
            Some([first]) | Some([first, _]) if *first < 0x20 && !matches!(*first, b'\r' | b'\n' | 0x1b) => {
                Ok(Self(keys.unwrap_or_default()))
            }
            _ => Err(wanted()),
        }
    }

    /// For people: `Ctrl-] d`.
    pub fn label(&self) -> String {
        let names: Vec<String> = self
            .0
            .iter()
            .map(|byte| match byte {
                0..=0x1f => format!("Ctrl-{}", char::from(byte | 0x40).to_ascii_uppercase()),
                _ => char::from(*byte).to_string(),
            })
            .collect();
        names.join(" ")
    }
}

fn key(text: &str) -> Option<u8> {
    let lower = text.to_ascii_lowercase();
    let control = lower.strip_prefix("ctrl-").or_else(|| lower.strip_prefix("c-"));
    let control = control.or_else(|| lower.strip_prefix('^').filter(|rest| !rest.is_empty()));
    match (control, text.as_bytes()) {
        (Some(rest), _) => match rest.as_bytes() {
            [letter @ (b'a'..=b'z' | b'[' | b'\\' | b']' | b'^' | b'_')] => {
                Some(letter.to_ascii_uppercase() & 0x1f)
            }
            _ => None,
        },
        (None, [byte @ 0x21..=0x7e]) => Some(*byte),
        _ => None,
    }
}

/// Finds the detach keys in a stream of typed bytes that may be cut anywhere.
#[derive(Debug)]
pub struct DetachFilter {
    keys: DetachKeys,
    /// How many of the keys have been typed and are held back.
    held: usize,
}

impl DetachFilter {
    /// Starts with nothing typed.
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys, held: 0 }
    }

    /// Takes typed bytes. A prefix that turns out to be something else is passed on with what follows;
    /// typing the first key twice sends it once.
    pub fn feed(&mut self, input: &[u8]) -> Typed {
        let mut typed = Typed { bytes: Vec::with_capacity(input.len() + 1), is_detach: false };
        for &byte in input {
            if byte == self.keys.0[self.held] {
                self.held += 1;
                if self.held == self.keys.0.len() {
                    self.held = 0;
                    typed.is_detach = true;
                    return typed;
                }
                continue;
            }
            if self.held > 0 {
                self.held = 0;
                typed.bytes.push(self.keys.0[0]);
                if byte == self.keys.0[0] {
                    continue;
                }
            }
            typed.bytes.push(byte);
        }
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(keys: &str) -> DetachFilter {
        DetachFilter::new(DetachKeys::parse(keys).unwrap())
    }

    #[test]
    fn keys_are_read_and_named() {
        assert_eq!(DetachKeys::parse("ctrl-] d").unwrap(), DetachKeys(vec![0x1d, b'd']));
        assert_eq!(DetachKeys::parse("^\\").unwrap().label(), "Ctrl-\\");
        assert_eq!(DetachKeys::parse("C-p C-q").unwrap(), DetachKeys(vec![0x10, 0x11]));
        for bad in ["", "d", "ctrl-", "ctrl-1", "d ctrl-]", "ctrl-m", "ctrl-[", "ctrl-] d d", "ctrl-] é"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sequence_detaches_even_when_cut_between_its_keys() {
        let mut filter = filter("ctrl-] d");
        assert_eq!(filter.feed(b"ab\x1d"), Typed { bytes: b"ab".to_vec(), is_detach: false });
        assert_eq!(filter.feed(b"drest"), Typed { bytes: vec![], is_detach: true });
    }

    #[test]
    fn a_prefix_that_is_something_else_is_passed_on() {
        let mut filter = filter("ctrl-] d");
        assert_eq!(filter.feed(b"\x1dx").bytes, b"\x1dx");
        assert_eq!(filter.feed(b"\x1d\x1dx").bytes, b"\x1dx", "twice sends it once");
        assert!(super::tests::filter("ctrl-\\").feed(b"a\x1c").is_detach);
    }

    proptest! {
        #[test]
        fn other_bytes_pass_unchanged_however_they_are_cut(bytes in proptest::collection::vec(0x1eu8..=0xff, 0..50), cut in 0usize..50) {
            let mut filter = filter("ctrl-] d");
            let cut = cut.min(bytes.len());
            let mut out = filter.feed(&bytes[..cut]).bytes;
            out.extend(filter.feed(&bytes[cut..]).bytes);
            prop_assert_eq!(out, bytes);
        }
    }
}

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

/// Finds the detach keys in a stream of typed bytes that may be cut anywhere. Programs may have switched the terminal
/// to a keyboard protocol that sends keys as escape sequences (kitty, xterm's modifyOtherKeys): those are read too.
/// What is pasted holds no keys.
#[derive(Debug)]
pub struct DetachFilter {
    keys: DetachKeys,
    /// How many of the keys have been typed.
    held: usize,
    /// Their bytes, held back.
    held_bytes: Vec<u8>,
    paste: PasteWatch,
}

impl DetachFilter {
    /// Starts with nothing typed.
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys, held: 0, held_bytes: Vec::new(), paste: PasteWatch::default() }
    }

    /// Takes typed bytes. A prefix that turns out to be something else is passed on with what follows;
    /// typing the first key twice sends it once.
    pub fn feed(&mut self, input: &[u8]) -> Typed {
        let mut typed = Typed { bytes: Vec::with_capacity(input.len() + 1), is_detach: false };
        let mut rest = input;
        while let Some(&first) = rest.first() {
            let key = if self.paste.is_inside { Key::Byte(first) } else { Key::read(rest) };
            let (bytes, after) = rest.split_at(key.length());
            rest = after;
            let value = match key {
                _ if self.paste.is_inside => None,
                Key::Byte(byte) => Some(byte),
                Key::Sequence { value, is_release: false, .. } => value,
                // Letting go of a key that was held back says nothing new.
                Key::Sequence { is_release: true, .. } if self.held > 0 => {
                    self.held_bytes.extend_from_slice(bytes);
                    continue;
                }
                Key::Sequence { .. } => None,
            };
            if value.is_some() && value == Some(self.keys.0[self.held]) {
                self.held += 1;
                self.held_bytes.extend_from_slice(bytes);
                if self.held == self.keys.0.len() {
                    self.held = 0;
                    self.held_bytes.clear();
                    typed.is_detach = true;
                    return typed;
                }
                continue;
            }
            if self.held > 0 {
                self.held = 0;
                typed.bytes.append(&mut self.held_bytes);
                if value == Some(self.keys.0[0]) {
                    continue;
                }
            }
            for &byte in bytes {
                self.paste.feed(byte);
            }
            typed.bytes.extend_from_slice(bytes);
        }
        typed
    }
}

/// True if the key with this byte is among typed bytes, in whatever form the terminal sends it.
pub fn has_key(mut typed: &[u8], byte: u8) -> bool {
    while !typed.is_empty() {
        let key = Key::read(typed);
        let value = match key {
            Key::Byte(byte) => Some(byte),
            Key::Sequence { value, is_release, .. } => value.filter(|_| !is_release),
        };
        if value == Some(byte) {
            return true;
        }
        typed = &typed[key.length()..];
    }
    false
}

/// The first key in typed bytes.
#[derive(Clone, Copy)]
enum Key {
    Byte(u8),
    /// An escape sequence that stands for a key; its byte, if it has one.
    Sequence {
        length: usize,
        value: Option<u8>,
        is_release: bool,
    },
}

impl Key {
    /// A terminal writes a sequence at once, so one that is cut is not waited for: Escape must not be held back.
    fn read(input: &[u8]) -> Self {
        let byte = Self::Byte(input[0]);
        let Some(body) = input.strip_prefix(b"\x1b[") else { return byte };
        let Some(end) = body.iter().position(|c| !matches!(c, b'0'..=b'9' | b';' | b':')) else {
            return byte;
        };
        let text = std::str::from_utf8(&body[..end]).unwrap_or_default();
        let number = |text: Option<&str>| text.and_then(|text| text.split(':').next()?.parse::<u32>().ok());
        let mut fields = text.split(';');
        let (code, modifiers) = match body[end] {
            b'u' => (number(fields.next()), fields.next()),
            b'~' if fields.next() == Some("27") => {
                let modifiers = fields.next();
                (number(fields.next()), modifiers)
            }
            _ => return byte,
        };
        // Caps lock and num lock are no modifiers that anybody means.
        let held = number(modifiers).unwrap_or(1).saturating_sub(1) & !(64 | 128);
        let is_release = modifiers.and_then(|text| text.split(':').nth(1)) == Some("3");
        let code = code.and_then(|code| u8::try_from(code).ok()).filter(u8::is_ascii);
        let value = match (code, held) {
            (Some(code @ 0x20..=0x7e), 0) => Some(code),
            (Some(code @ (b'a'..=b'z' | b'[' | b'\\' | b']' | b'^' | b'_')), 4) => {
                Some(code.to_ascii_uppercase() & 0x1f)
            }
            _ => None,
        };
        Self::Sequence { length: 2 + end + 1, value, is_release }
    }

    fn length(self) -> usize {
        match self {
            Self::Byte(_) => 1,
            Self::Sequence { length, .. } => length,
        }
    }
}

/// Knows whether the bytes that passed end inside a bracketed paste; its marks may be cut anywhere.
#[derive(Debug, Default)]
struct PasteWatch {
    is_inside: bool,
    matched: usize,
}

impl PasteWatch {
    fn feed(&mut self, byte: u8) {
        let mark: &[u8] = if self.is_inside { b"\x1b[201~" } else { b"\x1b[200~" };
        // Escape stands at the beginning only, so nothing that matched so far can begin again inside.
        self.matched =
            if byte == mark[self.matched] { self.matched + 1 } else { usize::from(byte == mark[0]) };
        if self.matched == mark.len() {
            self.matched = 0;
            self.is_inside = !self.is_inside;
        }
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

    #[test]
    fn keyboard_protocols_detach_as_well() {
        for keys in [
            "\x1b[93;5ud",
            "\x1b[93;5:1u\x1b[93;5:3u\x1b[100;1:1u",
            "\x1b[93;197u\x1b[100u",
            "\x1b[27;5;93~d",
            "\x1dd",
        ] {
            let typed = filter("ctrl-] d").feed(format!("a{keys}b").as_bytes());
            assert_eq!(typed, Typed { bytes: b"a".to_vec(), is_detach: true }, "{keys:?}");
        }
        let mut filter = filter("ctrl-] d");
        assert_eq!(filter.feed(b"\x1b[93;5ux").bytes, b"\x1b[93;5ux");
        assert_eq!(filter.feed(b"\x1b").bytes, b"\x1b", "Escape is never held back");
        assert_eq!(filter.feed(b"\x1b[A\x1b[3~\x1b[100;5u").bytes, b"\x1b[A\x1b[3~\x1b[100;5u");
        assert!(has_key(b"x\x1b[99;5u", 3) && has_key(b"\x03", 3) && !has_key(b"\x1b[99;5:3uc", 3));
    }

    #[test]
    fn a_paste_holds_no_keys() {
        let paste = b"\x1b[200~a\x1ddb\x1d\x1d\x1b[93;5ud\x1b[201~";
        for cut in 0..paste.len() {
            let mut filter = filter("ctrl-] d");
            let mut out = filter.feed(&paste[..cut]);
            out.bytes.extend(filter.feed(&paste[cut..]).bytes);
            assert_eq!(out, Typed { bytes: paste.to_vec(), is_detach: false }, "cut at {cut}");
            assert!(filter.feed(b"\x1dd").is_detach);
        }
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

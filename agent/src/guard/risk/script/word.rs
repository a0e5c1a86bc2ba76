//! One word of a shell command: as written, exactly if it is literal, and as a guess otherwise.

use std::collections::HashMap;

/// Stands for text that the shell computes and that is not known here.
pub(in crate::guard::risk) const UNKNOWN: char = '\u{fffd}';

/// A word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::guard::risk) struct Word {
    /// As written.
    pub text: String,
    /// What the program gets, if that is known exactly.
    pub value: Option<String>,
    /// What the program probably gets: variables that are known are put in, the rest is [`UNKNOWN`].
    pub guess: String,
    /// Holds an unquoted glob or brace: it may become several words.
    pub is_pattern: bool,
    /// Written with escapes, or with quotes in the middle, or in the `$'…'` or `$"…"` form.
    pub is_odd: bool,
    /// Has quotes around the whole of it.
    pub is_quoted: bool,
}

impl Word {
    /// A literal word.
    pub fn literal(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            value: Some(text.to_owned()),
            guess: text.to_owned(),
            is_pattern: false,
            is_odd: false,
            is_quoted: false,
        }
    }

    /// A word within `whole`, with its own guess: the value of `--out=x`.
    pub fn part_of(whole: &Word, guess: &str) -> Self {
        Self {
            text: guess.to_owned(),
            value: whole.value.as_ref().map(|_| guess.to_owned()),
            guess: guess.to_owned(),
            ..whole.clone()
        }
    }

    /// True if nothing of it is known for certain.
    pub fn is_computed(&self) -> bool {
        self.value.is_none()
    }

    /// Reads `text`, a whole word of a script.
    pub fn read(text: &str, variables: &HashMap<String, String>, home: Option<&str>) -> Self {
        Reader {
            rest: text,
            variables,
            home,
            guess: String::new(),
            is_exact: true,
            is_pattern: false,
            is_odd: false,
        }
        .word(text)
    }
}

struct Reader<'a> {
    rest: &'a str,
    variables: &'a HashMap<String, String>,
    home: Option<&'a str>,
    guess: String,
    is_exact: bool,
    is_pattern: bool,
    is_odd: bool,
}

impl Reader<'_> {
    fn word(mut self, text: &str) -> Word {
        let is_quoted = text.len() >= 2 && text.starts_with(['\'', '"']) && text.ends_with(['\'', '"']);
        self.tilde();
        let mut has_brace = false;
        let mut has_bare = false;
        let mut quotes = 0;
        while let Some(c) = self.next() {
            match c {
                '\\' => {
                    self.is_odd = true;
                    match self.next() {
                        // A line that goes on.
                        Some('\n') => {}
                        Some(escaped) => self.guess.push(escaped),
                        None => self.guess.push('\\'),
                    }
                }
                '\'' => {
                    quotes += 1;
                    self.single();
                }
                '"' => {
                    quotes += 1;
                    self.double();
                }
                '$' => self.dollar(false),
                '`' => {
                    self.until_backtick();
                    self.unknown();
                }
                '<' | '>' if self.rest.starts_with('(') => {
                    self.balanced();
                    self.unknown();
                }
                '*' | '?' | '[' => {
                    self.is_pattern = true;
                    has_bare = true;
                    self.guess.push(c);
                }
                '{' => {
                    has_brace = true;
                    has_bare = true;
                    self.guess.push(c);
                }
                ',' | '.' if has_brace => {
                    self.is_pattern |= c == ',' || self.rest.starts_with('.');
                    self.guess.push(c);
                }
                // Extended patterns, and what only an interactive or another shell expands.
                '+' | '@' | '!' if self.rest.starts_with('(') => {
                    self.is_pattern = true;
                    self.guess.push(c);
                }
                _ => {
                    has_bare = true;
                    self.guess.push(c);
                }
            }
        }
        self.is_odd |= quotes > 0 && (has_bare || quotes > 1);
        let is_exact = self.is_exact && !self.is_pattern;
        Word {
            text: text.to_owned(),
            value: is_exact.then(|| self.guess.clone()),
            guess: self.guess,
            is_pattern: self.is_pattern,
            is_odd: self.is_odd,
            is_quoted: is_quoted && quotes == 1 && !has_bare,
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn unknown(&mut self) {
        self.is_exact = false;
        self.guess.push(UNKNOWN);
    }

    fn tilde(&mut self) {
        let Some(rest) = self.rest.strip_prefix('~') else { return };
        self.is_exact = false;
        let user = rest.split('/').next().unwrap_or_default();
        self.rest = &rest[user.len()..];
        match (user, self.home) {
            ("", Some(home)) => self.guess.push_str(home),
            _ => self.unknown(),
        }
    }

    fn single(&mut self) {
        let end = self.rest.find('\'').unwrap_or(self.rest.len());
        self.guess.push_str(&self.rest[..end]);
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
    }

    fn double(&mut self) {
        while let Some(c) = self.next() {
            match c {
                '"' => return,
                '\\' => match self.next() {
                    Some('\n') => self.is_odd = true,
                    Some(escaped @ ('$' | '`' | '"' | '\\')) => self.guess.push(escaped),
                    Some(other) => self.guess.extend(['\\', other]),
                    None => self.guess.push('\\'),
                },
                '$' => self.dollar(true),
                '`' => {
                    self.until_backtick();
                    self.unknown();
                }
                other => self.guess.push(other),
            }
        }
    }

    /// Behind a dollar sign.
    fn dollar(&mut self, in_quotes: bool) {
        let mut chars = self.rest.chars();
        match chars.next() {
            Some('\'') if !in_quotes => {
                self.is_odd = true;
                self.rest = &self.rest[1..];
                self.ansi();
            }
            Some('"') if !in_quotes => {
                self.is_odd = true;
                self.rest = &self.rest[1..];
                self.double();
            }
            Some('(' | '{' | '[') => {
                let inner = self.balanced().to_owned();
                let name = inner.strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
                self.variable(name.unwrap_or_default());
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let end = self
                    .rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(self.rest.len());
                let (name, rest) = self.rest.split_at(end);
                self.rest = rest;
                self.variable(name);
            }
            Some(c) if c.is_ascii_digit() || "@*#?-$!".contains(c) => {
                self.rest = &self.rest[1..];
                self.unknown();
            }
            _ => self.guess.push('$'),
        }
    }

    fn variable(&mut self, name: &str) {
        self.is_exact = false;
        match self.variables.get(name) {
            Some(value) => self.guess.push_str(value),
            None => self.unknown(),
        }
    }

    /// Takes a bracketed text off, quotes respected; all of the rest if it is not closed.
    fn balanced(&mut self) -> &str {
        let bytes = self.rest.as_bytes();
        let (mut depth, mut at, mut quote) = (0usize, 0, 0u8);
        while at < bytes.len() {
            let byte = bytes[at];
            match (quote, byte) {
                (b'\'', b'\'') | (b'"', b'"') => quote = 0,
                (b'\'', _) => {}
                (_, b'\\') => at += 1,
                (b'"', _) => {}
                (_, b'\'' | b'"') => quote = byte,
                (_, b'(' | b'{' | b'[') => depth += 1,
                (_, b')' | b'}' | b']') => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        at += 1;
                        break;
                    }
                }
                _ => {}
            }
            at += 1;
        }
        let mut end = at.min(bytes.len());
        while !self.rest.is_char_boundary(end) {
            end += 1;
        }
        let (inner, rest) = self.rest.split_at(end);
        self.rest = rest;
        inner
    }

    fn until_backtick(&mut self) {
        while let Some(c) = self.next() {
            match c {
                '`' => return,
                '\\' => {
                    self.next();
                }
                _ => {}
            }
        }
    }

    /// The `$'…'` form.
    fn ansi(&mut self) {
        while let Some(c) = self.next() {
            match c {
                '\'' => return,
                '\\' => self.escape(),
                other => self.guess.push(other),
            }
        }
    }

    fn escape(&mut self) {
        let Some(c) = self.next() else { return };
        let number = |rest: &str, most: usize, radix: u32| {
            let digits = rest.chars().take(most).take_while(|c| c.is_digit(radix)).count();
            (u32::from_str_radix(&rest[..digits], radix).ok(), digits)
        };
        let (value, used) = match c {
            'n' => (Some(10), 0),
            't' => (Some(9), 0),
            'r' => (Some(13), 0),
            'a' => (Some(7), 0),
            'b' => (Some(8), 0),
            'e' | 'E' => (Some(27), 0),
            'f' => (Some(12), 0),
            'v' => (Some(11), 0),
            'x' => number(self.rest, 2, 16),
            'u' => number(self.rest, 4, 16),
            'U' => number(self.rest, 8, 16),
            'c' => {
                let control = self.next().map(|c| u32::from(c) & 0x1f);
                (control, 0)
            }
            '0'..='7' => {
                let (rest, used) = number(self.rest, 2, 8);
                let value = if used == 0 { 0 } else { rest.unwrap_or_default() };
                (Some((u32::from(c) - 48) * 8u32.pow(used as u32) + value), used)
            }
            other => (Some(u32::from(other)), 0),
        };
        self.rest = &self.rest[used..];
        match value.and_then(char::from_u32) {
            Some(c) => self.guess.push(c),
            None => self.unknown(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Word {
        let variables =
            HashMap::from([("HOME".to_owned(), "/h".to_owned()), ("X".to_owned(), "rm".to_owned())]);
        Word::read(text, &variables, Some("/h"))
    }

    #[test]
    fn literal_words_are_known_exactly() {
        for (text, value) in [
            ("ls", "ls"),
            ("'a b'", "a b"),
            (r#""a b""#, "a b"),
            (r#""a\"b\$c\d""#, r#"a"b$c\d"#),
            (r"r\m", "rm"),
            ("r''m", "rm"),
            (r"$'\x72\155'", "rm"),
            (r"$'\u0072m\e'", "rm\u{1b}"),
            ("a\\\nb", "ab"),
            ("a$", "a$"),
            ("--a='b c'", "--a=b c"),
            ("a~b", "a~b"),
        ] {
            assert_eq!(read(text).value.as_deref(), Some(value), "{text}");
        }
    }

    #[test]
    fn computed_words_are_guesses() {
        for (text, guess) in [
            ("$HOME/.ssh", "/h/.ssh"),
            ("\"${HOME}/x\"", "/h/x"),
            ("~/x", "/h/x"),
            ("~bob/x", "\u{fffd}/x"),
            ("$X", "rm"),
            ("$(echo ')' \"(\" )x", "\u{fffd}x"),
            ("`echo a`b", "\u{fffd}b"),
            ("${a[$(x)]}", "\u{fffd}"),
            ("a$1b", "a\u{fffd}b"),
            ("<(x y)", "\u{fffd}"),
            ("*.rs", "*.rs"),
            ("{a,b}", "{a,b}"),
            ("{1..3}", "{1..3}"),
            ("@(a|b)", "@(a|b)"),
            ("é$(", "é\u{fffd}"),
        ] {
            let word = read(text);
            assert_eq!((word.value, word.guess.as_str()), (None, guess), "{text}");
        }
    }

    #[test]
    fn odd_spellings_are_seen() {
        for (text, is_odd) in [
            ("ls", false),
            ("'ls'", false),
            ("l's'", true),
            (r"l\s", true),
            ("$'ls'", true),
            ("''ls", true),
            ("\"ls\"", false),
        ] {
            assert_eq!(read(text).is_odd, is_odd, "{text}");
        }
    }
}

//! Flags and operands of a command, read as `getopt` does.

use super::Word;

/// Words of a command behind its name.
pub(super) struct Args<'w> {
    flags: Vec<(String, Option<Word>)>,
    /// What is no flag and no value of one.
    pub operands: Vec<&'w Word>,
}

impl<'w> Args<'w> {
    /// Reads `words`. `values` names the flags that take the next word if theirs is not attached: `"o T -output --target"`
    /// are `-o`, `-T`, the single-dash word `-output`, and `--target`.
    pub fn read(words: &'w [Word], values: &str) -> Self {
        let takes = |flag: &str| values.split(' ').any(|value| flag.strip_prefix('-') == Some(value));
        let mut args = Self { flags: Vec::new(), operands: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let text = word.guess.as_str();
            if text == "--" {
                args.operands.extend(words.by_ref());
            } else if !text.starts_with('-') || text.len() < 2 {
                args.operands.push(word);
            } else if text.starts_with("--") || takes(text) && text.len() > 2 {
                let (flag, value) = match text.split_once('=') {
                    Some((flag, value)) => (flag, Some(Word::part_of(word, value))),
                    None => (text, None),
                };
                let value = value.or_else(|| if takes(flag) { words.next().cloned() } else { None });
                args.flags.push((flag.to_owned(), value));
            } else {
                let letters = &text[1..];
                for (at, letter) in letters.char_indices() {
                    let flag = format!("-{letter}");
                    let rest = &letters[at + letter.len_utf8()..];
                    if takes(&flag) {
                        let attached = (!rest.is_empty()).then(|| Word::part_of(word, rest));
                        args.flags.push((flag, attached.or_else(|| words.next().cloned())));
                        break;
                    }
                    args.flags.push((flag, None));
                }
            }
        }
        args
    }

    /// True if one of the flags is given, long ones also abbreviated.
    pub fn has(&self, names: &str) -> bool {
        self.find(names).is_some()
    }

    /// The value of the first of the flags that is given.
    pub fn value(&self, names: &str) -> Option<&Word> {
        self.find(names).and_then(|(_, value)| value.as_ref())
    }

    /// The values of all of the flags.
    pub fn values(&self, names: &str) -> Vec<&Word> {
        self.flags
            .iter()
            .filter(|(flag, _)| is_one_of(flag, names))
            .filter_map(|(_, value)| value.as_ref())
            .collect()
    }

    fn find(&self, names: &str) -> Option<&(String, Option<Word>)> {
        self.flags.iter().find(|(flag, _)| is_one_of(flag, names))
    }
}

fn is_one_of(flag: &str, names: &str) -> bool {
    names
        .split(' ')
        .any(|name| name == flag || (flag.len() > 3 && name.starts_with("--") && name.starts_with(flag)))
}

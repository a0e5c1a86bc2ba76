//! Programs that only read, with the flags with which they do.

use super::{Reason, Simple, Walk};
use crate::guard::risk::script::Word;

/// What the words behind the flags are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operands {
    /// Files or directories.
    Paths,
    /// At most this many files; a further one would be written to.
    UpTo(usize),
    /// A pattern, then files.
    PatternThenPaths,
    /// Text.
    Text,
    /// None at all.
    None,
    /// Text that begins with `+`: `date +%s`.
    Format,
}

/// A program that only reads, if nothing but these flags are given.
struct Reader {
    name: &'static str,
    operands: Operands,
    /// Letters of short flags without a value.
    short: &'static str,
    /// Letters of short flags with a value, which is never a path.
    short_values: &'static str,
    /// Long flags without a value, or with one behind `=` that is never a path.
    long: &'static str,
    /// Long flags with a value, behind `=` or as the next word.
    long_values: &'static str,
}

const fn reader(
    name: &'static str,
    operands: Operands,
    short: &'static str,
    short_values: &'static str,
    long: &'static str,
    long_values: &'static str,
) -> Reader {
    Reader { name, operands, short, short_values, long, long_values }
}

use Operands::{Format, None as NoOperands, Paths, PatternThenPaths, Text, UpTo};

/// Abbreviated long flags are not accepted, although GNU programs take them.
const READERS: &[Reader] = &[
    reader("basename", Text, "az", "s", "multiple zero", "suffix"),
    reader(
        "cat",
        Paths,
        "AbeEnstTuv",
        "",
        "show-all number number-nonblank show-ends show-tabs squeeze-blank",
        "",
    ),
    reader("cmp", Paths, "bls", "n", "print-bytes verbose quiet silent", "bytes"),
    reader("comm", Paths, "123z", "", "check-order nocheck-order total zero-terminated", ""),
    reader(
        "cut",
        Paths,
        "nsz",
        "bcdf",
        "complement only-delimited zero-terminated",
        "bytes characters delimiter fields output-delimiter",
    ),
    reader("date", Format, "u", "", "utc universal iso-8601 rfc-email", ""),
    reader("df", Paths, "ahHiklPT", "", "human-readable inodes local portability print-type total", ""),
    reader(
        "diff",
        Paths,
        "abBcdeEinNpqrstTuwy",
        "CUW",
        "brief recursive unified ignore-all-space ignore-case ignore-space-change ignore-blank-lines side-by-side report-identical-files text minimal color",
        "width",
    ),
    reader("dirname", Text, "z", "", "zero", ""),
    reader(
        "du",
        Paths,
        "abchHklLmsSx",
        "d",
        "all apparent-size human-readable summarize total bytes one-file-system si",
        "max-depth",
    ),
    reader("echo", Text, "neE", "", "", ""),
    reader("expand", Paths, "i", "t", "initial", "tabs"),
    reader("false", Text, "", "", "", ""),
    reader("fold", Paths, "bs", "w", "bytes spaces", "width"),
    reader("free", NoOperands, "bkmghtw", "", "human total wide mebi gibi mega giga kibi kilo bytes", ""),
    reader(
        "grep",
        PatternThenPaths,
        "abcEFGhHiIlLnoqrsvwxyzZP",
        "ABCm",
        "basic-regexp binary-files byte-offset color colour count extended-regexp files-with-matches files-without-match fixed-strings ignore-case invert-match line-number line-regexp no-filename no-ignore-case no-messages null null-data only-matching perl-regexp quiet recursive silent text with-filename word-regexp",
        "after-context before-context context max-count include exclude exclude-dir label",
    ),
    reader("head", Paths, "qvz", "cn", "quiet silent verbose zero-terminated", "bytes lines"),
    reader("id", Text, "agGnruz", "", "group groups name real user zero", ""),
    reader(
        "ls",
        Paths,
        "aABbcCdfFgGhHiklLmnNopqQrRsStuUvxXZ1",
        "ITw",
        "all almost-all author classify color directory dereference escape file-type full-time group-directories-first human-readable inode literal no-group numeric-uid-gid quote-name recursive reverse si size sort time time-style format indicator-style zero",
        "hide ignore width block-size",
    ),
    reader(
        "md5sum",
        Paths,
        "bctwz",
        "",
        "binary check text tag quiet status warn strict ignore-missing zero",
        "",
    ),
    reader(
        "nl",
        Paths,
        "p",
        "bdfhilnsvw",
        "no-renumber",
        "body-numbering number-format number-separator number-width starting-line-number",
    ),
    reader("nproc", NoOperands, "", "", "all", ""),
    reader("od", Paths, "abcdfilosxv", "AjNStw", "", "address-radix skip-bytes read-bytes format"),
    reader("paste", Paths, "sz", "d", "serial zero-terminated", "delimiters"),
    reader("pwd", NoOperands, "LP", "", "logical physical", ""),
    reader(
        "readlink",
        Paths,
        "efmnqsvz",
        "",
        "canonicalize canonicalize-existing canonicalize-missing no-newline quiet silent verbose zero",
        "",
    ),
    reader(
        "realpath",
        Paths,
        "eLmPqsz",
        "",
        "canonicalize-existing canonicalize-missing logical physical quiet strip no-symlinks zero",
        "",
    ),
    reader("seq", Text, "w", "fs", "equal-width", "format separator"),
    reader(
        "sha1sum",
        Paths,
        "bctwz",
        "",
        "binary check text tag quiet status warn strict ignore-missing zero",
        "",
    ),
    reader(
        "sha256sum",
        Paths,
        "bctwz",
        "",
        "binary check text tag quiet status warn strict ignore-missing zero",
        "",
    ),
    reader(
        "sha512sum",
        Paths,
        "bctwz",
        "",
        "binary check text tag quiet status warn strict ignore-missing zero",
        "",
    ),
    reader("sleep", Text, "", "", "", ""),
    reader("stat", Paths, "fLt", "c", "dereference file-system terse", "format printf"),
    reader("strings", Paths, "adfow", "enNt", "all data print-file-name", "bytes radix encoding"),
    reader("tail", Paths, "qvz", "cn", "quiet silent verbose zero-terminated", "bytes lines"),
    reader("tr", Text, "cCdst", "", "complement delete squeeze-repeats truncate-set1", ""),
    reader("true", Text, "", "", "", ""),
    reader("tty", NoOperands, "s", "", "silent quiet", ""),
    reader(
        "uname",
        NoOperands,
        "amnoprsv",
        "",
        "all kernel-name nodename kernel-release kernel-version machine operating-system",
        "",
    ),
    reader("unexpand", Paths, "a", "t", "all first-only", "tabs"),
    reader(
        "uniq",
        UpTo(1),
        "cdDiuz",
        "fsw",
        "count repeated unique ignore-case zero-terminated",
        "skip-fields skip-chars check-chars",
    ),
    reader("wc", Paths, "clLmw", "", "bytes chars lines max-line-length words", ""),
    reader("whoami", NoOperands, "", "", "", ""),
];

fn find(name: &str) -> Option<&'static Reader> {
    READERS.iter().find(|reader| reader.name == name)
}

pub(super) fn is_known(name: &str) -> bool {
    find(name).is_some()
}

/// Judges the command if it is one of these programs.
pub(super) fn judge(walk: &mut Walk<'_>, name: &str, simple: &Simple) -> bool {
    let Some(reader) = find(name) else { return false };
    let (operands, is_known) = reader.split(&simple.words[1..]);
    if !is_known || simple.words[0].value.as_deref() != Some(name) {
        walk.out.note(Reason::UnknownFlag, Some(&simple.text));
    }
    let paths = match reader.operands {
        Paths => &operands[..],
        PatternThenPaths => operands.get(1..).unwrap_or_default(),
        UpTo(most) => {
            for extra in operands.iter().skip(most) {
                walk.out.note(Reason::Overwrites, Some(&simple.text));
                walk.writes(extra, false, &simple.text);
            }
            &operands[..operands.len().min(most)]
        }
        NoOperands | Format | Text => {
            let is_fine = match reader.operands {
                NoOperands => operands.is_empty(),
                Format => operands.iter().all(|word| word.guess.starts_with('+')),
                _ => true,
            };
            if !is_fine {
                walk.out.note(Reason::UnknownFlag, Some(&simple.text));
            }
            &[]
        }
    };
    for path in paths {
        walk.reads(path, &simple.text);
    }
    true
}

impl Reader {
    /// The operands, and whether all flags are known ones.
    fn split<'w>(&self, words: &'w [Word]) -> (Vec<&'w Word>, bool) {
        let mut operands = Vec::new();
        let mut is_known = true;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let text = word.guess.as_str();
            if self.name == "echo" || self.name == "true" || self.name == "false" {
                operands.push(word);
            } else if text == "--" {
                operands.extend(words.by_ref());
            } else if let Some(long) = text.strip_prefix("--") {
                let (flag, value) =
                    long.split_once('=').map_or((long, None), |(flag, value)| (flag, Some(value)));
                let has = |list: &str| list.split(' ').any(|known| known == flag);
                if has(self.long_values) {
                    if value.is_none() {
                        is_known &= words.next().is_some();
                    }
                } else {
                    is_known &= has(self.long);
                }
            } else if text.len() > 1 && text.starts_with('-') {
                // Behind an operand it may be one as well, if `POSIXLY_CORRECT` is set, and one too many is written to.
                is_known &= operands.is_empty() || !matches!(self.operands, UpTo(_));
                is_known &= self.cluster(&text[1..], &mut words);
            } else {
                operands.push(word);
            }
        }
        (operands, is_known)
    }

    fn cluster<'w>(&self, letters: &str, words: &mut impl Iterator<Item = &'w Word>) -> bool {
        // `head -20`
        if matches!(self.name, "head" | "tail") && letters.bytes().all(|byte| byte.is_ascii_digit()) {
            return true;
        }
        for (at, letter) in letters.char_indices() {
            if self.short_values.contains(letter) {
                return at + letter.len_utf8() < letters.len() || words.next().is_some();
            }
            if !self.short.contains(letter) {
                return false;
            }
        }
        true
    }
}

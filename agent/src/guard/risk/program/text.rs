//! Programs that mostly read and can also write and run others: find, sed, awk, sort, tar.

use super::args::Args;
use super::{Reason, Simple, Walk, Word, files, runs};

pub(super) const NAMES: &str = "find gfind sed gsed awk gawk mawk nawk sort gsort tar gtar bsdtar cpio";

/// Tests of find that only look; those with a value take the next word.
const FIND_TESTS: &str = "-print -print0 -ls -empty -o -a -or -and -not -prune -readable -writable -executable -depth -mount -xdev -daystart -follow -true -false -nouser -nogroup";
const FIND_VALUES: &str = "-name -iname -path -ipath -wholename -iwholename -regex -iregex -regextype -type -xtype -maxdepth -mindepth -size -mtime -ctime -atime -mmin -cmin -amin \
     -newermt -perm -user -group -uid -gid -inum -links -fstype -printf";

/// Judges the command if it is one of these programs.
pub(super) fn judge(walk: &mut Walk<'_>, name: &str, simple: &Simple, depth: usize) -> bool {
    let words = &simple.words[1..];
    let part = simple.text.as_str();
    match name {
        "find" | "gfind" => find(walk, simple, depth),
        "sed" | "gsed" => sed(walk, words, part),
        "awk" | "gawk" | "mawk" | "nawk" => awk(walk, words, part),
        "sort" | "gsort" => {
            let args = Args::read(
                words,
                "o k t S T -output -key -field-separator -buffer-size -temporary-directory -compress-program -files0-from -batch-size -parallel",
            );
            walk.out.note(Reason::KnownTool, Some(part));
            if let Some(target) = args.value("-o --output") {
                walk.out.note(Reason::Overwrites, Some(part));
                walk.writes(&target.clone(), false, part);
            }
            if args.has("--compress-program") {
                walk.out.note(Reason::HiddenEvaluation, Some(part));
                walk.out.has_unknown_writes = true;
            }
            for word in &args.operands {
                walk.reads(word, part);
            }
        }
        "tar" | "gtar" | "bsdtar" => tar(walk, words, part),
        "cpio" => {
            walk.out.note(Reason::Overwrites, Some(part));
            walk.out.has_unknown_writes = true;
        }
        _ => return false,
    }
    true
}

fn find(walk: &mut Walk<'_>, simple: &Simple, depth: usize) {
    let words = &simple.words[1..];
    let part = simple.text.as_str();
    let starts = words.iter().take_while(|word| !word.guess.starts_with(['-', '(', '!'])).count();
    let filters = words.iter().any(|word| {
        matches!(word.guess.as_str(), "-name" | "-iname" | "-path" | "-ipath" | "-regex" | "-wholename")
    });
    for word in &words[..starts] {
        walk.reads(word, part);
    }
    let mut at = starts;
    while let Some(word) = words.get(at) {
        let test = word.guess.as_str();
        at += 1;
        match test {
            "-exec" | "-execdir" | "-ok" | "-okdir" => {
                let end = words[at..]
                    .iter()
                    .position(|word| matches!(word.guess.as_str(), ";" | "+"))
                    .map_or(words.len(), |end| at + end);
                walk.out.note(Reason::RunsInner, Some(part));
                runs::inner(walk, &words[at..end], depth, true);
                at = end + 1;
            }
            "-delete" => {
                walk.out.note(Reason::Deletes, Some(part));
                let here = Word::literal(".");
                let roots: Vec<&Word> =
                    if starts == 0 { vec![&here] } else { words[..starts].iter().collect() };
                for root in roots {
                    walk.writes(root, true, part);
                    if !filters {
                        files::deletes_tree(walk, root, part);
                    }
                }
            }
            "-fprint" | "-fprint0" | "-fls" | "-fprintf" => {
                walk.out.note(Reason::Overwrites, Some(part));
                if let Some(target) = words.get(at) {
                    walk.writes(&target.clone(), false, part);
                }
                at += if test == "-fprintf" { 2 } else { 1 };
            }
            "-newer" | "-anewer" | "-cnewer" | "-samefile" => {
                if let Some(path) = words.get(at) {
                    walk.reads(path, part);
                }
                at += 1;
            }
            "!" | "(" | ")" | "," => {}
            _ if FIND_TESTS.split_ascii_whitespace().any(|known| known == test) => {}
            _ if FIND_VALUES.split_ascii_whitespace().any(|known| known == test) => at += 1,
            _ => walk.out.note(Reason::UnknownFlag, Some(part)),
        }
    }
    if simple.words[0].value.as_deref() != Some("find") {
        walk.out.note(Reason::KnownTool, Some(part));
    }
}

fn sed(walk: &mut Walk<'_>, words: &[Word], part: &str) {
    // `-i` takes a suffix only if it is attached; on macOS also as the next word, which then is no file that matters.
    let has_in_place = words.iter().any(|word| {
        word.guess.starts_with("--in-place")
            || (word.guess.starts_with('-') && !word.guess.starts_with("--") && word.guess.contains('i'))
    });
    let plain: Vec<Word> = words
        .iter()
        .filter(|word| !(word.guess.starts_with("-i") || word.guess.starts_with("--in-place")))
        .cloned()
        .collect();
    let args = Args::read(&plain, "e f l -expression -file -line-length");
    let mut scripts: Vec<Word> = args.values("-e --expression").into_iter().cloned().collect();
    let mut operands = args.operands.clone();
    if scripts.is_empty() && !args.has("-f --file") && !operands.is_empty() {
        scripts.push(operands.remove(0).clone());
    }
    let is_quiet = matches!(words.first().map(|word| word.guess.as_str()), Some("-n"));
    let is_plain = scripts.len() == 1
        && words.len() >= 2
        && is_quiet
        && scripts[0].value.as_deref().is_some_and(is_range)
        && words[1].value == scripts[0].value
        && words[2..].iter().all(|word| !word.guess.starts_with('-'));
    if !is_plain {
        walk.out.note(Reason::KnownTool, Some(part));
    }
    if args.has("-f --file") {
        walk.out.note(Reason::RunsScript, Some(part));
        walk.out.has_unknown_writes = true;
    }
    for script in &scripts {
        if script.is_computed() {
            walk.out.note(Reason::HiddenEvaluation, Some(part));
            walk.out.has_unknown_writes = true;
        }
        match sed_commands(&script.guess) {
            Some(effects) => {
                if effects.runs {
                    walk.out.note(Reason::HiddenEvaluation, Some(part));
                    walk.out.has_unknown_writes = true;
                }
                for target in effects.writes {
                    walk.out.note(Reason::Overwrites, Some(part));
                    walk.writes(&Word::literal(&target), false, part);
                }
            }
            None => walk.out.has_unknown_writes = true,
        }
    }
    for word in operands {
        if has_in_place {
            walk.out.note(Reason::Overwrites, Some(part));
            walk.writes(word, false, part);
        } else {
            walk.reads(word, part);
        }
    }
}

/// `12p`, `3,40p`, `5,$p`.
fn is_range(script: &str) -> bool {
    let Some(lines) = script.strip_suffix('p') else { return false };
    let is_number =
        |text: &str| !text.is_empty() && text.len() < 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    match lines.split_once(',') {
        Some((from, to)) => is_number(from) && (is_number(to) || to == "$"),
        None => is_number(lines),
    }
}

#[derive(Default, Debug, PartialEq)]
struct SedEffects {
    runs: bool,
    writes: Vec<String>,
}

/// What a sed script writes and runs; `None` if it is not understood.
fn sed_commands(script: &str) -> Option<SedEffects> {
    let mut effects = SedEffects::default();
    let mut rest = script;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', ';', '}']);
        if rest.is_empty() {
            return Some(effects);
        }
        rest = sed_address(rest)?;
        let command = rest.chars().next()?;
        rest = &rest[command.len_utf8()..];
        let line = rest.split('\n').next().unwrap_or_default();
        match command {
            '{' | 'p' | 'P' | 'd' | 'D' | 'n' | 'N' | 'h' | 'H' | 'g' | 'G' | 'x' | '=' | 'z' | 'F' => {}
            'q' | 'Q' | 'l' | 'L' => {
                rest = rest.trim_start_matches([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
            }
            'a' | 'i' | 'c' | 'r' | 'R' | '#' | ':' | 'b' | 't' | 'T' => {
                let goes_on = matches!(command, 'a' | 'i' | 'c') && line.ends_with('\\');
                let length = if matches!(command, 'b' | 't' | 'T' | ':') {
                    line.find([';', '}']).unwrap_or(line.len())
                } else {
                    line.len()
                };
                rest = &rest[length..];
                if goes_on {
                    let body = rest.trim_start_matches('\n');
                    rest = &body[body.find('\n').unwrap_or(body.len())..];
                }
            }
            'e' => {
                effects.runs = true;
                return Some(effects);
            }
            'w' | 'W' => {
                effects.writes.push(line.trim_start().to_owned());
                rest = &rest[line.len()..];
            }
            's' | 'y' => {
                let delimiter = rest.chars().next()?;
                rest = &rest[delimiter.len_utf8()..];
                for _ in 0..2 {
                    rest = sed_until(rest, delimiter)?;
                }
                while let Some(flag) = rest.chars().next() {
                    match flag {
                        'g' | 'p' | 'i' | 'I' | 'm' | 'M' | '0'..='9' => {}
                        'e' => effects.runs = true,
                        'w' => {
                            let line = rest[1..].split('\n').next().unwrap_or_default();
                            effects.writes.push(line.trim_start().to_owned());
                            rest = &rest[1 + line.len()..];
                            break;
                        }
                        ';' | '}' | '\n' | ' ' => break,
                        _ => return None,
                    }
                    rest = &rest[flag.len_utf8()..];
                }
            }
            _ => return None,
        }
    }
}

/// Behind the next delimiter that is not escaped.
fn sed_until(text: &str, delimiter: char) -> Option<&str> {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' {
            is_escaped = true;
        } else if c == delimiter {
            return Some(&text[at + c.len_utf8()..]);
        }
    }
    None
}

fn sed_address(mut rest: &str) -> Option<&str> {
    loop {
        let c = rest.chars().next()?;
        match c {
            '0'..='9' | '$' | ',' | '+' | '~' | '!' | ' ' => rest = &rest[1..],
            '/' => rest = sed_until(&rest[1..], '/')?.trim_start_matches(['I', 'M']),
            '\\' => {
                let delimiter = rest[1..].chars().next()?;
                rest = sed_until(&rest[1 + delimiter.len_utf8()..], delimiter)?;
            }
            _ => return Some(rest),
        }
    }
}

fn awk(walk: &mut Walk<'_>, words: &[Word], part: &str) {
    let args = Args::read(words, "F v f i e l E -field-separator -assign -file -include -source -load");
    walk.out.note(Reason::KnownTool, Some(part));
    let mut programs: Vec<Word> = args.values("-e --source").into_iter().cloned().collect();
    let mut operands = args.operands.clone();
    if args.has("-f --file -i --include -l --load -E --exec") {
        walk.out.note(Reason::RunsScript, Some(part));
        walk.out.has_unknown_writes = true;
    } else if programs.is_empty() && !operands.is_empty() {
        programs.push(operands.remove(0).clone());
    }
    if args.values("-i --include").iter().any(|word| word.guess == "inplace") {
        for word in &operands {
            walk.writes(word, false, part);
        }
    }
    for program in programs {
        let text = program.guess.replace("||", "");
        if text.contains("system")
            || text.contains('|')
            || text.contains('@')
            || text.contains("/inet/")
            || program.is_computed()
        {
            walk.out.note(Reason::HiddenEvaluation, Some(part));
            walk.out.has_unknown_writes = true;
        }
        if text.contains('>') && (text.contains("print")) {
            walk.out.note(Reason::Overwrites, Some(part));
            walk.out.has_unknown_writes = true;
        }
    }
    for word in operands {
        walk.reads(word, part);
    }
}

fn tar(walk: &mut Walk<'_>, words: &[Word], part: &str) {
    // `tar xzf a.tar`: the first word without a dash holds flags too.
    let mut words = words.to_vec();
    if let Some(first) = words.first_mut().filter(|word| !word.guess.starts_with('-')) {
        *first = Word::part_of(first, &format!("-{}", first.guess));
    }
    let args = Args::read(
        &words,
        "f C T X b I F g K V N H -file -directory -use-compress-program -to-command -checkpoint-action -info-script -new-volume-script -rsh-command -files-from -exclude -transform -strip-components -owner -group -mode",
    );
    walk.out.note(Reason::KnownTool, Some(part));
    if args.has("--checkpoint-action --to-command -I --use-compress-program -F --info-script --new-volume-script --rsh-command --rmt-command") {
        walk.out.note(Reason::HiddenEvaluation, Some(part));
        walk.out.has_unknown_writes = true;
    }
    if args.has("-P --absolute-names") {
        walk.out.note(Reason::WritesOutside, Some(part));
    }
    if args.has("--remove-files") {
        walk.out.note(Reason::Deletes, Some(part));
        walk.out.has_unknown_writes = true;
    }
    let file = args.value("-f --file").cloned();
    if args.has("-x --extract --get") && !args.has("-O --to-stdout") {
        walk.out.note(Reason::Overwrites, Some(part));
        let dir = args.value("-C --directory").cloned().unwrap_or_else(|| Word::literal("."));
        walk.writes(&dir, true, part);
    } else if args.has("-c --create -r --append -u --update -A --delete") {
        match file {
            Some(file) if file.guess != "-" => {
                walk.out.note(Reason::Overwrites, Some(part));
                walk.writes(&file, false, part);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_sed_are_read() {
        for (script, runs, writes) in [
            ("s/a/b/", false, ""),
            ("s/a\\/b/c/g;s|x|y|2p", false, ""),
            ("/x/,/y/{s/a/e/;d}", false, ""),
            ("1e", true, ""),
            ("s/.*/id/e", true, ""),
            ("s/a/b/ge", true, ""),
            ("/x/w out.txt", false, "out.txt"),
            ("s/a/b/w /dev/stdout", false, "/dev/stdout"),
            ("1!G;h;$!d", false, ""),
            ("a\\\ntext e\np", false, ""),
            (":a;N;$!ba;s/\\n/ /g", false, ""),
        ] {
            let effects = sed_commands(script).unwrap();
            assert_eq!((effects.runs, effects.writes.join(",")), (runs, writes.to_owned()), "{script}");
        }
        assert_eq!(sed_commands("s/a/b"), None);
        assert!(
            is_range("1,5p")
                && is_range("7p")
                && is_range("3,$p")
                && !is_range("1e")
                && !is_range(",p")
                && !is_range("1,2w p")
        );
    }
}

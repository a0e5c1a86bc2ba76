//! Programs that write, move or remove files.

use super::args::Args;
use super::{Reason, Simple, Walk, Word};
use crate::guard::risk::place;

pub(super) const NAMES: &str = "rm rmdir unlink shred cp mv ln install mkdir mktemp touch mkfifo chmod chown chgrp chattr truncate tee split \
     csplit patch dd gzip gunzip bzip2 bunzip2 xz unxz zstd lz4 zip unzip 7z xxd ed ex vi vim nvim nano emacs";

/// Judges the command if it is one of these programs.
pub(super) fn judge(walk: &mut Walk<'_>, name: &str, simple: &Simple) -> bool {
    if !NAMES.split_ascii_whitespace().any(|known| known == name) {
        return false;
    }
    let words = &simple.words[1..];
    let part = simple.text.as_str();
    match name {
        "rm" | "unlink" | "rmdir" | "shred" => remove(walk, name, words, part),
        "cp" | "mv" | "ln" | "install" => copy(walk, name, words, part),
        "mkdir" | "touch" | "mkfifo" | "truncate" | "tee" | "mktemp" => {
            let values =
                if name == "mktemp" { "p -suffix" } else { "m s d t r -mode -size -reference -date" };
            let args = Args::read(words, values);
            walk.out.note(Reason::Overwrites, Some(part));
            if name == "mktemp" && (args.operands.is_empty() || args.has("-t -p --tmpdir")) {
                return true;
            }
            for word in &args.operands {
                walk.writes(word, false, part);
            }
        }
        "chmod" | "chown" | "chgrp" | "chattr" => mode(walk, name, words, part),
        "split" | "csplit" | "patch" => {
            walk.out.note(Reason::Overwrites, Some(part));
            walk.out.has_unknown_writes = true;
        }
        "dd" => {
            walk.out.note(Reason::Overwrites, Some(part));
            for word in words {
                if let Some(target) = word.guess.strip_prefix("of=") {
                    walk.writes(&Word::part_of(word, target), false, part);
                } else if let Some(source) = word.guess.strip_prefix("if=") {
                    walk.reads(&Word::part_of(word, source), part);
                }
            }
        }
        "gzip" | "gunzip" | "bzip2" | "bunzip2" | "xz" | "unxz" | "zstd" | "lz4" => {
            let args = Args::read(words, "S o -suffix");
            walk.out.note(Reason::KnownTool, Some(part));
            if !args.has("-c --stdout -l --list -t --test") {
                for word in &args.operands {
                    walk.writes(word, false, part);
                    walk.writes(&Word::part_of(word, &format!("{}.", word.guess)), false, part);
                }
                walk.out.has_unknown_writes |= !args.operands.is_empty();
            }
        }
        "xxd" => {
            walk.out.note(Reason::KnownTool, Some(part));
            // Whatever stands behind the first file is written to, also if it looks like a flag.
            let first = words.iter().position(|word| !word.guess.starts_with('-')).unwrap_or(words.len());
            for target in words.iter().skip(first + 1) {
                walk.out.note(Reason::Overwrites, Some(part));
                walk.writes(target, false, part);
            }
        }
        "zip" | "unzip" | "7z" => {
            walk.out.note(Reason::Overwrites, Some(part));
            if words
                .iter()
                .any(|word| word.guess.starts_with("-TT") || word.guess.starts_with("--unzip-command"))
            {
                walk.out.note(Reason::HiddenEvaluation, Some(part));
            }
            let args = Args::read(words, "d x");
            match args.value("-d") {
                Some(dir) if name == "unzip" => walk.writes(dir, true, part),
                _ if name == "zip" && !args.operands.is_empty() => walk.writes(args.operands[0], false, part),
                _ => walk.out.has_unknown_writes |= !args.has("-l -p -t"),
            }
        }
        _ => {
            walk.out.note(Reason::RunsScript, Some(part));
            walk.out.has_unknown_writes = true;
            for word in words.iter().filter(|word| !word.guess.starts_with(['-', '+'])) {
                walk.writes(word, false, part);
            }
        }
    }
    true
}

fn remove(walk: &mut Walk<'_>, name: &str, words: &[Word], part: &str) {
    let args = Args::read(words, "n s -iterations -size");
    let is_tree = args.has("-r -R --recursive") && name == "rm";
    walk.out.note(Reason::Deletes, Some(part));
    for word in &args.operands {
        walk.writes(word, is_tree, part);
        if is_tree {
            deletes_tree(walk, word, part);
        }
    }
    if args.has("--no-preserve-root") {
        walk.out.note(Reason::DeletesTree, Some(part));
    }
}

/// Notes that a whole directory goes, unless it can be made again.
pub(super) fn deletes_tree(walk: &mut Walk<'_>, word: &Word, part: &str) {
    let scope = walk.scope;
    let is_fine = walk
        .paths(word)
        .is_some_and(|paths| paths.iter().all(|(path, _)| place::can_be_made_again(path, scope)));
    if !is_fine {
        walk.out.note(Reason::DeletesTree, Some(part));
    }
}

fn copy(walk: &mut Walk<'_>, name: &str, words: &[Word], part: &str) {
    let args = Args::read(words, "t S m o g -target-directory -suffix -mode -owner -group");
    walk.out.note(Reason::Overwrites, Some(part));
    let mut sources = args.operands.clone();
    let into = args.value("-t --target-directory").cloned();
    if name == "install" && args.has("-d --directory") {
        for word in sources {
            walk.writes(word, false, part);
        }
        return;
    }
    if args.value("-m --mode").is_some_and(|mode| is_special_mode(&mode.guess)) {
        walk.out.note(Reason::Permissions, Some(part));
    }
    let target = match into {
        Some(dir) => Some(dir),
        None if sources.len() > 1 => sources.pop().cloned(),
        None if name == "ln" => Some(Word::literal(".")),
        None => None,
    };
    let is_tree = args.has("-r -R -a --recursive --archive") || name == "mv";
    for source in &sources {
        if name == "mv" {
            walk.writes(source, true, part);
        } else {
            walk.reads(source, part);
        }
    }
    let Some(target) = target else { return };
    let is_dir =
        sources.len() > 1 || target.guess.ends_with('/') || matches!(target.guess.as_str(), "." | "..");
    if !is_dir {
        walk.writes(&target, is_tree, part);
    }
    // If the target is a directory, the files go into it.
    for source in sources {
        let name = source.guess.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let inner = format!("{}/{name}", target.guess.trim_end_matches('/'));
        let inner = if target.guess == "/" { format!("/{name}") } else { inner };
        let mut word = Word::part_of(&target, &inner);
        word.is_pattern |= source.is_pattern;
        walk.writes(&word, is_tree, part);
    }
}

fn mode(walk: &mut Walk<'_>, name: &str, words: &[Word], part: &str) {
    let args = Args::read(words, "-reference -from");
    walk.out.note(Reason::ChangesMode, Some(part));
    let is_recursive = args.has("-R --recursive");
    let skip = usize::from(!args.has("--reference"));
    // `chmod -x f`: the mode looks like a flag.
    let modes = words.iter().take(3).map(|word| word.guess.as_str());
    if name == "chmod" && modes.into_iter().any(is_special_mode) {
        walk.out.note(Reason::Permissions, Some(part));
    }
    for word in args.operands.iter().skip(skip.min(args.operands.len().saturating_sub(1))) {
        walk.writes(word, is_recursive, part);
    }
}

/// Set-user-id, or writable for everybody.
fn is_special_mode(mode: &str) -> bool {
    if !mode.is_empty() && mode.bytes().all(|byte| byte.is_ascii_digit()) {
        let digits = mode.trim_start_matches('0');
        return (digits.len() == 4 && !digits.starts_with('1')) || mode.ends_with(['2', '3', '6', '7']);
    }
    mode.split(',').any(|clause| {
        let Some((who, what)) = clause.split_once(['+', '=']) else { return false };
        what.contains('s') || (what.contains('w') && (who.contains('o') || who.contains('a')))
    })
}

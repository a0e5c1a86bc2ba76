//! Programs: what a simple command does, by its name and its words.
//!
//! Low risk comes from [`reads`] and the plain forms of `find`, `sed -n`, `printf` and `cd` alone; everything else notes at least something.

mod args;
mod files;
mod git;
mod guarded;
mod network;
mod packages;
mod reads;
mod runs;
mod system;
mod text;

use super::script::{Facts, Simple, UNKNOWN, Walk, Word};
use super::{Reason, place};

/// Where programs of the system lie: their path says no more than their name.
const SYSTEM_DIRS: &[&str] =
    &["/bin", "/usr/bin", "/usr/local/bin", "/sbin", "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"];

/// True if the name belongs to a program or builtin that is known here.
pub(super) fn is_known(name: &str) -> bool {
    let lists = [files::NAMES, text::NAMES, "git claude claudenest-agent kill pkill killall"];
    reads::is_known(name)
        || lists.iter().any(|list| list.split_ascii_whitespace().any(|known| known == name))
        || runs::is_known(name)
        || system::is_known(name)
        || network::is_known(name)
        || packages::is_known(name)
}

/// True if the command only runs its words with a limit or a clock.
pub(super) fn is_wrapper(simple: &Simple) -> bool {
    simple.words.first().and_then(|word| word.value.as_deref()).is_some_and(runs::is_wrapper)
        && simple.assignments.is_empty()
}

/// Judges a simple command; its redirections are judged already.
pub(super) fn judge(walk: &mut Walk<'_>, simple: &Simple, depth: usize) -> Facts {
    let part = simple.text.as_str();
    for (name, value) in &simple.assignments {
        guarded::assignment(walk, name, &value.guess, part);
        if name.contains('[') && (name.contains('$') || name.contains('`')) {
            walk.out.note(Reason::HiddenEvaluation, Some(part));
        }
        if simple.words.is_empty() {
            runs::set(walk, name, value, true);
        }
    }
    let Some(program) = simple.words.first() else { return Facts::default() };
    let Some(name) = program_name(walk, program, part) else {
        walk.out.has_unknown_writes = true;
        guarded::words(walk, simple, false);
        return Facts::default();
    };
    let has_known_flags = matches!(simple.words.get(1..), Some([flag]) if matches!(flag.value.as_deref(), Some("--version" | "--help")));
    let facts = match name.as_str() {
        "git" => {
            git::judge(walk, simple, depth);
            Facts { is_network: walk.has_network, ..Facts::default() }
        }
        name if guarded::judge(walk, name, simple) => Facts::default(),
        name if reads::judge(walk, name, simple) => prints(name, simple),
        name if files::judge(walk, name, simple)
            || text::judge(walk, name, simple, depth)
            || packages::judge(walk, name, simple) =>
        {
            Facts::default()
        }
        name => match runs::judge(walk, name, simple, depth).or_else(|| network::judge(walk, name, simple)) {
            Some(facts) => {
                Facts { prints: facts.prints.clone().or_else(|| prints(name, simple).prints), ..facts }
            }
            None if system::judge(walk, name, simple) => {
                Facts { is_network: walk.has_network, ..Facts::default() }
            }
            None => {
                walk.out.note(
                    if has_known_flags { Reason::KnownTool } else { Reason::UnknownProgram },
                    Some(part),
                );
                walk.out.has_unknown_writes |= !has_known_flags;
                Facts::default()
            }
        },
    };
    let only_reads = reads::is_known(&name)
        || matches!(name.as_str(), "find" | "cd" | "[" | "test" | "[[" | "which" | "rg" | "jq");
    guarded::words(walk, simple, only_reads);
    let decodes = is_decoder(&name, simple);
    Facts { is_decoder: decodes || facts.is_decoder, ..facts }
}

/// The name of the program; `None` if it is hidden or a file of the project, which is noted.
fn program_name(walk: &mut Walk<'_>, program: &Word, part: &str) -> Option<String> {
    let is_home = program.text.starts_with("~/") && !program.guess.contains(UNKNOWN);
    if program.value.is_none() && !is_home {
        walk.out.note(Reason::HiddenProgram, Some(part));
        if program.guess.contains(UNKNOWN) || program.is_pattern {
            return None;
        }
    }
    if program.text.strip_prefix('\\').is_some_and(|rest| rest == program.guess) || program.is_quoted {
        // `\ls` only steps around an alias.
        walk.out.note(Reason::NotPlain, Some(part));
    } else if program.is_odd || !program.guess.is_ascii() {
        walk.out.note(Reason::OddSpelling, Some(part));
    }
    let guess = program.guess.as_str();
    if walk.redefined.contains(guess) {
        walk.out.note(Reason::RunsText, Some(part));
        walk.out.is_understood = false;
    }
    let Some((dir, name)) = guess.rsplit_once('/') else { return Some(guess.to_owned()) };
    walk.out.note(Reason::NotPlain, Some(part));
    if SYSTEM_DIRS.contains(&dir) || is_known(name) && name.len() > 1 && dir.contains("/bin") {
        return Some(name.to_owned());
    }
    if matches!(name, "claudenest-agent" | "claude" | "gradlew" | "mvnw") {
        return Some(name.to_owned());
    }
    walk.out.note(Reason::RunsScript, Some(part));
    if let Some(paths) = walk.paths(program)
        && paths.iter().any(|(path, _)| place::is_temporary(path) && !path.starts_with(walk.scope.project))
        && walk.has_network
    {
        walk.out.note(Reason::PipeToShell, Some(part));
    }
    None
}

fn is_decoder(name: &str, simple: &Simple) -> bool {
    let has = |flags: &[&str]| simple.words.iter().any(|word| flags.contains(&word.guess.as_str()));
    match name {
        "base64" | "base32" | "basenc" => has(&["-d", "-D", "--decode", "-di"]),
        "xxd" => has(&["-r", "-rp", "-r -p", "-ps"]),
        "openssl" => has(&["-d", "base64", "enc"]),
        "tr" | "rev" | "gunzip" | "zcat" | "bzcat" | "xzcat" | "uudecode" | "gpg" => true,
        "gzip" | "bzip2" | "xz" | "zstd" => has(&["-d", "-dc", "-cd", "--decompress"]),
        _ => false,
    }
}

/// What `echo`, `printf` and a `cat` of a heredoc print, if that is known.
fn prints(name: &str, simple: &Simple) -> Facts {
    if name == "cat" && simple.words.len() == 1 {
        return Facts { prints: simple.stdin.clone(), ..Facts::default() };
    }
    if !matches!(name, "echo" | "printf") {
        return Facts::default();
    }
    let words: Vec<&str> = simple.words[1..]
        .iter()
        .map(|word| word.guess.as_str())
        .filter(|word| !matches!(*word, "-n" | "-e" | "%s" | "%s\\n"))
        .collect();
    Facts { prints: Some(words.join(" ").replace("\\n", "\n")), ..Facts::default() }
}

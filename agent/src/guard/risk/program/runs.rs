//! Programs that run other commands: shells, interpreters, wrappers, and the shell's own words.

use super::args::Args;
use super::{Reason, Simple, Walk, Word, guarded};
use crate::guard::risk::PartRole;
use crate::guard::risk::script::{Facts, UNKNOWN};

const SHELLS: &str = "sh bash zsh dash ksh mksh fish ash csh tcsh rbash";
const INTERPRETERS: &str = "python python2 python3 node nodejs ruby perl php lua luajit Rscript osascript tclsh irb pwsh groovy julia guile racket elixir";
const PRIVILEGE: &str =
    "sudo doas su pkexec runuser setpriv gosu su-exec chroot nsenter unshare systemd-nspawn machinectl";
/// They run their words with a limit, a clock or another priority. Flags with a value, then how many words stand before the command.
const WRAPPERS: &[(&str, &str, usize)] = &[
    ("timeout", "k s -kill-after -signal", 1),
    ("gtimeout", "k s -kill-after -signal", 1),
    ("time", "f o -format -output", 0),
    ("nice", "n -adjustment", 0),
    ("ionice", "c n p -class -classdata", 0),
    ("nohup", "", 0),
    ("stdbuf", "i o e -input -output -error", 0),
    ("chrt", "", 1),
    ("taskset", "", 1),
    ("unbuffer", "", 0),
    ("caffeinate", "t w", 0),
    ("setsid", "", 0),
    ("command", "", 0),
    ("builtin", "", 0),
    ("exec", "a", 0),
    ("coproc", "", 0),
    ("noglob", "", 0),
    ("nocorrect", "", 0),
    ("busybox", "", 0),
    ("toybox", "", 0),
];
const OTHERS: &str = "eval source . env xargs parallel watch trap alias export declare local typeset readonly unset read test [ [[ let printf mapfile readarray \
     bind enable hash flock script cd pushd proxychains find";

fn is_in(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known == name)
}

/// True for names of this file.
pub(super) fn is_known(name: &str) -> bool {
    [SHELLS, INTERPRETERS, PRIVILEGE, OTHERS].iter().any(|list| is_in(list, name))
        || WRAPPERS.iter().any(|(known, ..)| *known == name)
}

/// True if rules look at what the command runs and not at the command: limits and clocks only.
pub(super) fn is_wrapper(name: &str) -> bool {
    matches!(name, "timeout" | "gtimeout" | "time" | "nice" | "ionice" | "stdbuf")
}

/// Judges words that are a command of their own; `is_open` adds operands that are not known.
pub(super) fn inner(walk: &mut Walk<'_>, words: &[Word], depth: usize, is_open: bool) -> Facts {
    if words.is_empty() {
        return Facts::default();
    }
    let mut words = words.to_vec();
    for word in words.iter_mut().filter(|word| is_open && word.guess.contains("{}")) {
        let guess = word.guess.replace("{}", &UNKNOWN.to_string());
        *word = Word { value: None, guess, ..word.clone() };
    }
    let text: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let mut simple = Simple { text: text.join(" "), ..Simple::default() };
    let skip = words.iter().take_while(|word| is_assignment(&word.guess)).count();
    for word in &words[..skip] {
        let (name, value) = word.guess.split_once('=').unwrap_or((&word.guess, ""));
        simple.assignments.push((name.to_owned(), Word::part_of(word, value)));
    }
    simple.words = words.split_off(skip);
    walk.simple(simple, depth + 1, PartRole::Inner)
}

fn is_assignment(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// Judges the command if it is one of these programs.
pub(super) fn judge(walk: &mut Walk<'_>, name: &str, simple: &Simple, depth: usize) -> Option<Facts> {
    let words = &simple.words[1..];
    let part = simple.text.as_str();
    if let Some((_, values, skip)) = WRAPPERS.iter().find(|(known, ..)| *known == name) {
        return Some(wrapper(walk, simple, name, values, *skip, depth));
    }
    if is_in(SHELLS, name) {
        return Some(shell(walk, simple, depth));
    }
    if is_in(INTERPRETERS, name) || name.starts_with("python3.") {
        return Some(interpreter(walk, simple, depth));
    }
    if is_in(PRIVILEGE, name) {
        walk.out.note(Reason::Privilege, Some(part));
        let args = Args::read(words, "c u g -command");
        let facts = match args.value("-c --command").filter(|_| matches!(name, "su" | "runuser")) {
            Some(text) => run_text(walk, &text.clone(), part, depth),
            None => {
                inner(walk, after_flags(words, "u g h p C r t D U -user -group -chdir -host"), depth, false)
            }
        };
        walk.out.has_unknown_writes |=
            words.is_empty() || matches!(name, "su" | "chroot" | "nsenter" | "unshare");
        return Some(facts);
    }
    match name {
        "eval" => {
            walk.out.note(Reason::RunsText, Some(part));
            let text: Vec<&str> = words.iter().map(|word| word.guess.as_str()).collect();
            let joined = Word {
                value: words.iter().all(|word| word.value.is_some()).then(String::new),
                guess: text.join(" "),
                ..Word::literal("")
            };
            return Some(run_text(walk, &joined, part, depth));
        }
        "source" | "." => {
            walk.out.note(Reason::RunsScript, Some(part));
            walk.out.has_unknown_writes = true;
            from_network(walk, words, part);
            return Some(Facts {
                runs_stdin: words.first().is_some_and(|word| word.guess.starts_with("/dev/")),
                ..Facts::default()
            });
        }
        "env" => return Some(env(walk, simple, depth)),
        "xargs" | "parallel" => {
            walk.out.note(Reason::RunsInner, Some(part));
            let rest = after_flags(
                words,
                "I n P L s d a E j i -replace -max-args -max-procs -delimiter -arg-file -max-lines -jobs -max-chars",
            );
            if rest.is_empty() {
                walk.out
                    .note(if name == "xargs" { Reason::KnownTool } else { Reason::EvalComputed }, Some(part));
                walk.out.has_unknown_writes |= name != "xargs";
                return Some(Facts::default());
            }
            let mut rest = rest.to_vec();
            // What it reads stands behind the words.
            rest.push(Word { value: None, guess: UNKNOWN.to_string(), ..Word::literal("…") });
            let text: Vec<&str> = rest.iter().map(|word| word.guess.as_str()).collect();
            let is_shell = is_in(SHELLS, text[0].rsplit('/').next().unwrap_or_default());
            let facts = if name == "parallel" && text.len() == 2 {
                run_text(walk, &Word::literal(&text[..1].join(" ")), part, depth)
            } else {
                inner(walk, &rest, depth, true)
            };
            return Some(Facts { runs_stdin: is_shell, ..facts });
        }
        "watch" | "script" | "flock" | "proxychains" => {
            walk.out.note(Reason::RunsInner, Some(part));
            let args = Args::read(words, "n c d -interval -command");
            if let Some(text) = args.value("-c --command") {
                return Some(run_text(walk, &text.clone(), part, depth));
            }
            let rest = after_flags(words, "n w E -interval -timeout");
            let rest = if name == "flock" { rest.get(1..).unwrap_or_default() } else { rest };
            let text: Vec<&str> = rest.iter().map(|word| word.guess.as_str()).collect();
            return Some(run_text(
                walk,
                &Word {
                    value: rest.iter().all(|word| word.value.is_some()).then(String::new),
                    guess: text.join(" "),
                    ..Word::literal("")
                },
                part,
                depth,
            ));
        }
        "trap" => {
            walk.out.note(Reason::RunsText, Some(part));
            if let Some(text) = words.iter().find(|word| !word.guess.starts_with('-') || word.guess.len() > 2)
            {
                run_text(walk, &text.clone(), part, depth);
            }
        }
        "alias" => {
            walk.out.note(Reason::RunsText, Some(part));
            for word in words {
                if let Some((alias, text)) = word.guess.split_once('=') {
                    if super::is_known(alias) {
                        walk.out.note(Reason::Redefines, Some(part));
                    }
                    walk.redefined.insert(alias.to_owned());
                    run_text(walk, &Word::part_of(word, text), part, depth);
                }
            }
        }
        "hash" if words.iter().any(|word| word.guess.starts_with("-p")) => {
            walk.out.note(Reason::Redefines, Some(part))
        }
        "enable" => walk.out.note(Reason::Redefines, Some(part)),
        "bind" => walk.out.note(Reason::HiddenEvaluation, Some(part)),
        "mapfile" | "readarray" => {
            walk.out.note(Reason::KnownTool, Some(part));
            if let Some(text) = Args::read(words, "C c d n O s u").value("-C") {
                run_text(walk, &text.clone(), part, depth);
            }
            subscripts(walk, words, part);
        }
        "export" | "declare" | "local" | "typeset" | "readonly" | "unset" => {
            walk.out.note(Reason::SetsEnvironment, Some(part));
            if words.is_empty() || words.iter().all(|word| word.guess == "-p" || word.guess == "-x") {
                walk.out.note(Reason::ShowsEnvironment, Some(part));
            }
            for word in words {
                let (variable, value) =
                    word.guess.split_once('=').map_or((word.guess.as_str(), ""), |pair| pair);
                guarded::assignment(walk, variable, value, part);
                set(walk, variable, &Word::part_of(word, value), word.guess.contains('='));
            }
            subscripts(walk, words, part);
        }
        "read" | "test" | "[" | "[[" | "let" | "getopts" | "wait" => {
            walk.out.note(Reason::KnownTool, Some(part));
            subscripts(walk, words, part);
            if simple.text.contains("[$(") || simple.text.contains("[`") {
                walk.out.note(Reason::HiddenEvaluation, Some(part));
            }
        }
        "printf" => printf(walk, simple),
        "cd" | "pushd" => {
            let target = words.iter().find(|word| !word.guess.starts_with('-') || word.guess == "-");
            walk.change_dir(target);
            if words.len() > 1 || name == "pushd" {
                walk.out.note(Reason::KnownTool, Some(part));
            }
            match target {
                Some(word) if word.guess != "-" => walk.reads(word, part),
                _ => walk.out.note(Reason::ReadsOutside, Some(part)),
            }
        }
        _ => return None,
    }
    Some(Facts::default())
}

/// The words behind the flags.
fn after_flags<'w>(words: &'w [Word], values: &str) -> &'w [Word] {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let text = word.guess.as_str();
        if text == "--" {
            at += 1;
            break;
        }
        if !text.starts_with('-') || text == "-" {
            break;
        }
        let takes = values.split(' ').any(|value| text[1..] == *value);
        at += if takes { 2 } else { 1 };
    }
    words.get(at..).unwrap_or_default()
}

fn wrapper(
    walk: &mut Walk<'_>,
    simple: &Simple,
    name: &str,
    values: &str,
    skip: usize,
    depth: usize,
) -> Facts {
    let words = &simple.words[1..];
    let part = simple.text.as_str();
    if name == "command" && words.first().is_some_and(|word| matches!(word.guess.as_str(), "-v" | "-V")) {
        walk.out.note(Reason::KnownTool, Some(part));
        return Facts::default();
    }
    walk.out.note(Reason::NotPlain, Some(part));
    if matches!(name, "nohup" | "setsid" | "coproc") {
        walk.out.note(Reason::Background, Some(part));
    }
    if let Some(target) = Args::read(words, values).value("-o --output").filter(|_| name == "time") {
        walk.writes(&target.clone(), false, part);
    }
    let rest = after_flags(words, values);
    inner(walk, rest.get(skip..).unwrap_or_default(), depth, false)
}

/// A text that a shell will run.
fn run_text(walk: &mut Walk<'_>, word: &Word, part: &str, depth: usize) -> Facts {
    if word.value.is_none() && word.guess.contains(UNKNOWN) {
        let lower = part.to_lowercase();
        let fetches = ["curl", "wget", "fetch"].iter().any(|name| lower.contains(name));
        walk.out.note(if fetches { Reason::PipeToShell } else { Reason::EvalComputed }, Some(part));
        if ["base64", "xxd", "openssl"].iter().any(|name| lower.contains(name)) {
            walk.out.note(Reason::DecodesAndRuns, Some(part));
        }
        walk.out.has_unknown_writes = true;
    }
    walk.out.is_understood = false;
    walk.script(&word.guess, depth + 1, PartRole::Inner)
}

fn shell(walk: &mut Walk<'_>, simple: &Simple, depth: usize) -> Facts {
    let words = &simple.words[1..];
    let part = simple.text.as_str();
    let is_text = |word: &&Word| {
        word.guess.starts_with('-') && !word.guess.starts_with("--") && word.guess.contains('c')
    };
    if let Some(at) = words.iter().position(|word| is_text(&word)) {
        walk.out.note(Reason::RunsText, Some(part));
        return match words[at + 1..].iter().find(|word| !word.guess.starts_with('-')) {
            Some(text) => run_text(walk, &text.clone(), part, depth),
            None => Facts::default(),
        };
    }
    from_network(walk, words, part);
    match after_flags(words, "o O -rcfile -init-file").first() {
        Some(script) if !matches!(script.guess.as_str(), "-" | "/dev/stdin") && words[0].guess != "-s" => {
            walk.out.note(Reason::RunsScript, Some(part));
            walk.out.has_unknown_writes = true;
            Facts::default()
        }
        _ if words.iter().any(|word| word.guess == "--version") => Facts::default(),
        _ => {
            walk.out.note(Reason::RunsText, Some(part));
            match &simple.stdin {
                Some(text) => {
                    walk.out.is_understood = false;
                    walk.script(&text.clone(), depth + 1, PartRole::Inner);
                }
                None => walk.out.has_unknown_writes = true,
            }
            Facts { runs_stdin: true, ..Facts::default() }
        }
    }
}

/// `bash <(curl …)`, `source <(curl …)`.
fn from_network(walk: &mut Walk<'_>, words: &[Word], part: &str) {
    if words.iter().any(|word| {
        word.text.starts_with("<(") && ["curl", "wget"].iter().any(|name| word.text.contains(name))
    }) {
        walk.out.note(Reason::PipeToShell, Some(part));
    }
    if words.iter().any(|word| {
        word.text.starts_with("<(")
            && ["base64", "xxd", "openssl"].iter().any(|name| word.text.contains(name))
    }) {
        walk.out.note(Reason::DecodesAndRuns, Some(part));
    }
}

fn interpreter(walk: &mut Walk<'_>, simple: &Simple, depth: usize) -> Facts {
    let words = &simple.words[1..];
    let part = simple.text.as_str();
    if matches!(words, [word] if matches!(word.guess.as_str(), "--version" | "-V" | "-v" | "--help")) {
        walk.out.note(Reason::KnownTool, Some(part));
        return Facts::default();
    }
    walk.out.has_unknown_writes = true;
    let args = Args::read(words, "c e E m r p -eval -print -require -import");
    let texts: Vec<String> = args
        .values("-c -e -E -p -r --eval --print")
        .iter()
        .map(|word| word.guess.clone())
        .chain(simple.stdin.clone())
        .collect();
    if let Some(module) = args.value("-m") {
        walk.out.note(Reason::RunsScript, Some(part));
        let rest: Vec<Word> = words.iter().skip_while(|word| word.guess != "-m").skip(1).cloned().collect();
        match module.guess.as_str() {
            "http.server" | "SimpleHTTPServer" | "smtpd" => walk.out.note(Reason::RawNetwork, Some(part)),
            "pip" => {
                inner(walk, &rest, depth, false);
            }
            _ => {}
        }
        return Facts::default();
    }
    if texts.is_empty() {
        let reads_script = after_flags(words, "W X -").first().is_some_and(|word| word.guess != "-");
        walk.out.note(if reads_script { Reason::RunsScript } else { Reason::RunsText }, Some(part));
        return Facts { runs_stdin: !reads_script, ..Facts::default() };
    }
    walk.out.note(Reason::RunsText, Some(part));
    for text in texts {
        let has = |list: &[&str]| list.iter().any(|word| text.contains(word));
        if has(&["rmtree", "rm -rf", "rm -fr", "rmSync", "rm_rf", "fs.rm(", "unlinkSync", "rimraf"]) {
            walk.out.note(Reason::DeletesTree, Some(part));
        }
        if has(&["exec(", "eval(", "__import__", "compile("])
            && has(&[
                "b64decode",
                "base64",
                "fromhex",
                "unhexlify",
                "atob",
                "codecs",
                "zlib",
                "marshal",
                "chr(",
            ])
        {
            walk.out.note(Reason::DecodesAndRuns, Some(part));
        }
        if has(&[
            "urllib",
            "requests.",
            "http.client",
            "socket",
            "fetch(",
            "http.get",
            "https.get",
            "Net::HTTP",
            "LWP",
            "curl",
        ]) {
            walk.out.note(Reason::Network, Some(part));
            walk.has_network = true;
            if has(&["socket.socket", "net.connect", "TCPSocket", "IO::Socket", "pty.spawn", "dup2"]) {
                walk.out.note(Reason::RawNetwork, Some(part));
            }
            if has(&["exec(", "eval("]) {
                walk.out.note(Reason::PipeToShell, Some(part));
            }
        }
        if has(&["environ", "process.env", "ENV[", "%ENV"]) {
            walk.out.note(Reason::ShowsEnvironment, Some(part));
        }
        for shell in ["system(", "popen(", "check_output(", "execSync(", "spawn(", "exec(", "run("] {
            // The command that stands in quotes behind it is looked at as well.
            for rest in text.split(shell).skip(1) {
                let quote = rest
                    .trim_start_matches(['(', '[', ' '])
                    .chars()
                    .next()
                    .filter(|c| matches!(c, '\'' | '"' | '`'));
                let Some(quote) = quote else { continue };
                if let Some(command) = rest.split(quote).nth(1) {
                    walk.script(command, depth + 1, PartRole::Inner);
                }
            }
        }
    }
    Facts::default()
}

fn env(walk: &mut Walk<'_>, simple: &Simple, depth: usize) -> Facts {
    let words = &simple.words[1..];
    let part = simple.text.as_str();
    let rest = after_flags(words, "u C -unset -chdir S -split-string");
    let split = words.iter().enumerate().find_map(|(at, word)| {
        let text = word.guess.as_str();
        match text {
            "-S" | "--split-string" => words.get(at + 1).map(|word| word.guess.clone()),
            _ => text
                .strip_prefix("-S")
                .or_else(|| text.strip_prefix("--split-string="))
                .map(str::to_owned)
                .or_else(|| {
                    (text.starts_with("-v") || text.starts_with("-i"))
                        .then(|| text.split_once('S').map(|(_, rest)| rest.to_owned()))
                        .flatten()
                }),
        }
    });
    if let Some(text) = split {
        walk.out.note(Reason::HiddenEvaluation, Some(part));
        return run_text(walk, &Word::literal(&text), part, depth);
    }
    if rest.iter().all(|word| is_assignment(&word.guess)) {
        walk.out.note(Reason::ShowsEnvironment, Some(part));
        return Facts::default();
    }
    walk.out.note(Reason::NotPlain, Some(part));
    if words.iter().any(|word| word.guess.starts_with("-C") || word.guess.starts_with("--chdir")) {
        walk.dirs.is_open = true;
    }
    if words.iter().any(|word| word.guess.contains("CLAUDENEST_"))
        || words.iter().any(|word| matches!(word.guess.as_str(), "-i" | "-" | "--ignore-environment"))
            && part.contains("claude")
    {
        walk.out.note(Reason::Guard, Some(part));
    }
    inner(walk, rest, depth, false)
}

/// Subscripts of arrays are arithmetic, and arithmetic runs commands: `test -v 'a[$(x)]'`.
fn subscripts(walk: &mut Walk<'_>, words: &[Word], part: &str) {
    let hides = |word: &Word| {
        let text =
            if word.is_quoted || word.value.is_some() { word.guess.as_str() } else { word.text.as_str() };
        text.find('[').is_some_and(|at| {
            text[at..].contains("$(") || text[at..].contains('`') || text[at..].contains("${")
        })
    };
    if words.iter().any(hides) {
        walk.out.note(Reason::HiddenEvaluation, Some(part));
        walk.out.has_unknown_writes = true;
    }
}

fn printf(walk: &mut Walk<'_>, simple: &Simple) {
    let words = &simple.words[1..];
    let part = simple.text.as_str();
    subscripts(walk, words, part);
    let format = words.first().map(|word| word.guess.as_str()).unwrap_or_default();
    let is_plain = !format.starts_with('-')
        && !format.contains("%n")
        && !format.contains('*')
        && !format.contains("%(")
        && {
            // Only these conversions, so that no flag or modifier hides `%n`.
            format.split('%').skip(1).all(|rest| rest.is_empty() || rest.starts_with(['s', 'd', 'b', 'q']))
        };
    if !is_plain || simple.words[0].value.as_deref() != Some("printf") {
        walk.out.note(Reason::UnknownFlag, Some(part));
    }
}

/// Remembers a variable for the words behind it.
pub(super) fn set(walk: &mut Walk<'_>, name: &str, value: &Word, has_value: bool) {
    if !has_value {
        return;
    }
    if value.guess.contains(UNKNOWN) || value.is_pattern {
        walk.variables.remove(name);
    } else {
        walk.variables.insert(name.to_owned(), value.guess.clone());
    }
}

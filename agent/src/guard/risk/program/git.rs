//! git: what its subcommands change, throw away, send, and run.

use super::args::Args;
use super::{Reason, Simple, Walk, Word, files};
use crate::guard::risk::PartRole;

/// Subcommands that only read, unless a flag below says otherwise.
const READING: &str = "status log show diff blame annotate rev-parse rev-list ls-files ls-tree cat-file describe shortlog name-rev merge-base \
     for-each-ref grep count-objects check-ignore check-attr check-mailmap var version help whatchanged cherry range-diff diff-tree diff-index diff-files \
     fsck verify-commit verify-tag verify-pack show-ref show-branch rerere";
/// Subcommands that change the repository without its work tree.
const CHANGING: &str = "add tag notes fetch init update-index symbolic-ref replace pack-refs repack maintenance gc mktree commit-tree write-tree hash-object mktag fast-import";
/// Subcommands that change the work tree in ways that cannot be foreseen.
const TREE: &str = "merge rebase pull cherry-pick revert am apply read-tree checkout-index sparse-checkout bisect commit mergetool difftool";

/// Judges a git command.
pub(super) fn judge(walk: &mut Walk<'_>, simple: &Simple, depth: usize) {
    let part = simple.text.as_str();
    let mut words = &simple.words[1..];
    let before = walk.dirs.clone();
    while let Some(word) = words.first() {
        let text = word.guess.as_str();
        let takes = matches!(
            text,
            "-C" | "-c"
                | "--git-dir"
                | "--work-tree"
                | "--namespace"
                | "--exec-path"
                | "--config-env"
                | "--super-prefix"
        );
        if !text.starts_with('-') {
            break;
        }
        let value = words.get(1).filter(|_| takes).cloned();
        match (text, &value) {
            ("-C", Some(dir)) => walk.change_dir(Some(dir)),
            ("-c" | "--config-env", Some(setting)) => setting_of(walk, &setting.guess, part),
            _ if text.starts_with("-c") && text.len() > 2 => setting_of(walk, &text[2..], part),
            _ if text.starts_with("--exec-path=")
                || text.starts_with("--config-env=")
                || text == "--exec-path" && value.is_some() =>
            {
                walk.out.note(Reason::GitRunsPrograms, Some(part));
            }
            _ => {}
        }
        words = words.get(if takes { 2 } else { 1 }..).unwrap_or_default();
    }
    match words.first() {
        Some(sub) if sub.value.is_none() => {
            walk.out.note(Reason::HiddenProgram, Some(part));
            walk.out.has_unknown_writes = true;
        }
        Some(sub) => subcommand(walk, &sub.guess.clone(), &words[1..], part, depth),
        None => walk.out.note(Reason::ReadsRepository, Some(part)),
    }
    walk.dirs = before;
}

fn subcommand(walk: &mut Walk<'_>, sub: &str, words: &[Word], part: &str, depth: usize) {
    let is = |list: &str| list.split_ascii_whitespace().any(|known| known == sub);
    let args = Args::read(
        words,
        "m F b B c C o u S x X n -message -file -branch -output -upload-pack -receive-pack -exec -strategy -source -conflict -pathspec-from-file -onto -format -author -date -depth",
    );
    runs_programs(walk, sub, &args, part);
    let first = args.operands.first().map(|word| word.guess.as_str()).unwrap_or_default();
    match sub {
        "push" => push(walk, &args, part),
        "checkout" | "restore" | "switch" => checkout(walk, sub, words, &args, part),
        "reset" => {
            walk.out.note(Reason::ChangesRepository, Some(part));
            if args.has("--hard --merge --keep") {
                walk.out.note(Reason::DiscardsChanges, Some(part));
                tree(walk, part);
            }
        }
        "clean" => {
            if args.has("-n --dry-run") {
                walk.out.note(Reason::ReadsRepository, Some(part));
            } else {
                walk.out.note(Reason::DiscardsChanges, Some(part));
                tree(walk, part);
            }
        }
        "stash" => match first {
            "list" | "show" => walk.out.note(Reason::ReadsRepository, Some(part)),
            "drop" | "clear" => walk.out.note(Reason::DeletesBranch, Some(part)),
            _ => {
                walk.out.note(Reason::ChangesRepository, Some(part));
                tree(walk, part);
            }
        },
        "branch" => {
            let changes = !args.operands.is_empty() && !args.has("--list -l --contains --merged --no-merged")
                || args.has("-d -m -c -u --unset-upstream --edit-description");
            walk.out
                .note(if changes { Reason::ChangesRepository } else { Reason::ReadsRepository }, Some(part));
            if args.has("-D -M -f --force -C") {
                walk.out.note(Reason::DeletesBranch, Some(part));
            }
        }
        "config" => config(walk, &args, part),
        "remote" => {
            let reads = matches!(first, "" | "show" | "get-url");
            walk.out
                .note(if reads { Reason::ReadsRepository } else { Reason::ChangesRepository }, Some(part));
        }
        "rm" => {
            walk.out.note(Reason::Deletes, Some(part));
            for word in args.operands.clone() {
                walk.writes(word, true, part);
                if args.has("-r") && !args.has("--cached -n --dry-run") {
                    files::deletes_tree(walk, word, part);
                }
            }
            if args.has("-f --force") && !args.has("--cached") {
                walk.out.note(Reason::DiscardsChanges, Some(part));
            }
        }
        "mv" => {
            walk.out.note(Reason::ChangesRepository, Some(part));
            for word in args.operands.clone() {
                walk.writes(word, true, part);
            }
        }
        "clone" => {
            walk.out.note(Reason::Network, Some(part));
            walk.has_network = true;
            let name = first
                .trim_end_matches('/')
                .trim_end_matches(".git")
                .rsplit(['/', ':'])
                .next()
                .unwrap_or_default();
            let target =
                args.operands.get(1).map(|word| (*word).clone()).unwrap_or_else(|| Word::literal(name));
            walk.writes(&target, true, part);
        }
        "worktree" => match first {
            "list" => walk.out.note(Reason::ReadsRepository, Some(part)),
            "add" => {
                walk.out.note(Reason::ChangesRepository, Some(part));
                if let Some(target) = args.operands.get(1) {
                    walk.writes(target, true, part);
                }
            }
            _ => {
                let reason =
                    if args.has("-f --force") { Reason::DiscardsChanges } else { Reason::ChangesRepository };
                walk.out.note(reason, Some(part));
                walk.out.has_unknown_writes = true;
            }
        },
        "filter-branch" | "filter-repo" => {
            walk.out.note(Reason::RewritesHistory, Some(part));
            walk.out.has_unknown_writes = true;
        }
        "reflog" if matches!(first, "expire" | "delete") => {
            walk.out.note(Reason::RewritesHistory, Some(part))
        }
        "prune" => walk.out.note(Reason::RewritesHistory, Some(part)),
        "reflog" => walk.out.note(Reason::ReadsRepository, Some(part)),
        "update-ref" => walk.out.note(Reason::RewritesHistory, Some(part)),
        "ls-remote" => walk.out.note(Reason::Network, Some(part)),
        "submodule" if first == "foreach" => inner(walk, words.get(1..).unwrap_or_default(), part, depth),
        "submodule" => {
            walk.out.note(Reason::ChangesRepository, Some(part));
            walk.out.has_unknown_writes = true;
        }
        "bisect" if first == "run" => {
            inner(walk, words.get(1..).unwrap_or_default(), part, depth);
            walk.out.has_unknown_writes = true;
        }
        "send-email" => walk.out.note(Reason::Uploads, Some(part)),
        "daemon" | "instaweb" | "http-backend" | "shell" | "upload-pack" | "receive-pack" => {
            walk.out.note(Reason::RawNetwork, Some(part))
        }
        "format-patch" | "archive" | "bundle" | "fast-export" => {
            walk.out.note(Reason::Overwrites, Some(part));
            match args.value("-o --output --output-directory") {
                Some(target) => walk.writes(&target.clone(), true, part),
                None => walk.out.has_unknown_writes |= sub != "archive",
            }
        }
        _ if is(READING) => {
            walk.out.note(Reason::ReadsRepository, Some(part));
            if let Some(target) = args.value("--output") {
                walk.out.note(Reason::Overwrites, Some(part));
                walk.writes(&target.clone(), false, part);
            }
        }
        _ if is(CHANGING) => {
            walk.out.note(Reason::ChangesRepository, Some(part));
            if sub == "fetch" {
                walk.out.note(Reason::Network, Some(part));
                walk.has_network = true;
            }
            if sub == "tag" && args.has("-d --delete") {
                walk.out.note(Reason::DeletesBranch, Some(part));
            }
            if sub == "gc" && args.has("--prune") {
                walk.out.note(Reason::RewritesHistory, Some(part));
            }
        }
        _ if is(TREE) => {
            walk.out.note(Reason::ChangesRepository, Some(part));
            if sub == "pull" {
                walk.out.note(Reason::Network, Some(part));
                walk.has_network = true;
            }
            if sub != "commit" {
                tree(walk, part);
            }
            // Hooks and patches say what is written.
            walk.out.has_unknown_writes = true;
        }
        _ => {
            // It may be an alias, or a program `git-…` of anybody.
            walk.out.note(Reason::UnknownProgram, Some(part));
            walk.out.has_unknown_writes = true;
        }
    }
}

fn inner(walk: &mut Walk<'_>, words: &[Word], part: &str, depth: usize) {
    walk.out.note(Reason::RunsInner, Some(part));
    let text: Vec<&str> =
        words.iter().filter(|word| !word.guess.starts_with("--")).map(|word| word.guess.as_str()).collect();
    walk.script(&text.join(" "), depth + 1, PartRole::Inner);
}

/// The whole work tree may change.
fn tree(walk: &mut Walk<'_>, part: &str) {
    let project = walk.scope.project.to_string_lossy().into_owned();
    let is_within =
        walk.dirs.known.iter().all(|dir| dir.starts_with(walk.scope.project)) && !walk.dirs.is_open;
    walk.writes(&Word::literal(if is_within { &project } else { "." }), true, part);
}

fn push(walk: &mut Walk<'_>, args: &Args<'_>, part: &str) {
    walk.out.note(Reason::Pushes, Some(part));
    walk.has_network = true;
    let has_ref = |sign: char| args.operands.iter().skip(1).any(|word| word.guess.starts_with(sign));
    if args.has("-f --force --force-with-lease --force-if-includes --mirror") || has_ref('+') {
        walk.out.note(Reason::ForcePush, Some(part));
    }
    if args.has("-d --delete --prune") || has_ref(':') {
        walk.out.note(Reason::DeletesRemote, Some(part));
    }
    if args
        .operands
        .first()
        .is_some_and(|word| word.guess.contains(':') || word.guess.starts_with(['/', '.']))
    {
        walk.out.note(Reason::Uploads, Some(part));
    }
}

fn checkout(walk: &mut Walk<'_>, sub: &str, words: &[Word], args: &Args<'_>, part: &str) {
    walk.out.note(Reason::ChangesRepository, Some(part));
    let behind: Option<usize> = words.iter().position(|word| word.guess == "--").map(|at| at + 1);
    let first = args.operands.first().map(|word| word.guess.as_str()).unwrap_or_default();
    let is_path = |text: &str| {
        let extension =
            text.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension);
        matches!(text, "." | "..")
            || text.starts_with("./")
            || text.starts_with("../")
            || text.contains('*')
            || extension
                .is_some_and(|text| text.len() <= 5 && text.starts_with(|c: char| c.is_ascii_alphabetic()))
    };
    let paths: Vec<&Word> = match (sub, behind) {
        ("switch", _) => Vec::new(),
        (_, Some(at)) => words[at..].iter().collect(),
        ("restore", None) => args.operands.clone(),
        _ if args.has("-b -B --orphan -t --track --detach") => Vec::new(),
        _ if args.operands.len() > 1 => args.operands[1..].to_vec(),
        _ if is_path(first) => args.operands.clone(),
        _ => Vec::new(),
    };
    if args.has("-f --force --discard-changes --pathspec-from-file")
        || args.has("-p --patch") && !paths.is_empty()
    {
        walk.out.note(Reason::DiscardsChanges, Some(part));
    }
    if paths.is_empty() {
        let stays = args.has("-b -c --create") && args.operands.is_empty();
        if !stays {
            tree(walk, part);
        }
    } else if !(sub == "restore" && args.has("--staged -S") && !args.has("--worktree -W")) {
        walk.out.note(Reason::DiscardsChanges, Some(part));
        for path in paths {
            walk.writes(path, true, part);
        }
    }
}

fn config(walk: &mut Walk<'_>, args: &Args<'_>, part: &str) {
    let mut operands = args.operands.iter().map(|word| word.guess.as_str()).peekable();
    let verb = operands.peek().copied().unwrap_or_default();
    if matches!(verb, "set" | "get" | "list" | "unset" | "edit") {
        operands.next();
    }
    let operands: Vec<&str> = operands.collect();
    let reads = args.has("--get --get-all --get-regexp --list -l --get-urlmatch --show-origin")
        || matches!(verb, "get" | "list")
        || operands.len() < 2 && verb != "unset" && verb != "edit";
    if reads && !args.has("--unset --unset-all --edit -e --remove-section --rename-section") {
        walk.out.note(Reason::ReadsRepository, Some(part));
        return;
    }
    walk.out.note(Reason::ChangesRepository, Some(part));
    if args.has("--global --system") {
        walk.out.note(Reason::Startup, Some(part));
    }
    if let Some(file) = args.value("-f --file") {
        walk.writes(&file.clone(), false, part);
    }
    if let [key, value, ..] = operands.as_slice() {
        setting_of(walk, &format!("{key}={value}"), part);
    }
    if verb == "edit" || args.has("--edit -e") {
        walk.out.note(Reason::GitRunsPrograms, Some(part));
    }
}

/// Judges a setting `key=value` that this command makes.
fn setting_of(walk: &mut Walk<'_>, setting: &str, part: &str) {
    let (key, value) = setting.split_once('=').unwrap_or((setting, "true"));
    let key = key.to_ascii_lowercase();
    let last = key.rsplit('.').next().unwrap_or_default();
    let section = key.split('.').next().unwrap_or_default();
    let runs = match (section, last) {
        ("core", "fsmonitor") => !matches!(value, "false" | "true" | "0" | "1" | ""),
        ("core", "pager" | "editor") | ("sequence", "editor") | ("pager", _) => {
            !matches!(value, "cat" | "less" | "" | "true" | "false" | ":" | "vim" | "nano" | "vi")
        }
        ("core", "sshcommand" | "hookspath" | "gitproxy" | "askpass" | "worktree" | "attributesfile") => true,
        ("alias", _) => value.trim_start().starts_with('!') || value.is_empty(),
        ("diff", "external" | "command" | "textconv")
        | ("filter" | "merge", "clean" | "smudge" | "process" | "driver") => true,
        ("credential", "helper")
        | ("gpg", "program")
        | ("include" | "includeif", _)
        | ("init", "templatedir") => true,
        ("uploadpack" | "uploadarchive", _)
        | ("protocol", "allow")
        | ("remote", "uploadpack" | "receivepack" | "vcs" | "proxy") => true,
        ("submodule", "update") => value.starts_with('!'),
        (
            "trailer" | "difftool" | "mergetool" | "man" | "browser" | "web" | "guitool",
            "cmd" | "command" | "path",
        ) => true,
        ("interactive", "difffilter")
        | ("sendemail", _)
        | ("lfs", _)
        | ("url", _)
        | ("http", "proxy")
        | ("safe", "directory" | "barerepository") => true,
        _ => {
            value.contains(crate::guard::risk::script::UNKNOWN)
                || key.contains(crate::guard::risk::script::UNKNOWN)
        }
    };
    if runs {
        walk.out.note(Reason::GitRunsPrograms, Some(part));
        walk.out.has_unknown_writes = true;
    }
}

/// Flags with which a subcommand runs other programs.
fn runs_programs(walk: &mut Walk<'_>, sub: &str, args: &Args<'_>, part: &str) {
    let runs = args.has("--upload-pack --receive-pack --ext-diff --open-files-in-pager --template --extcmd")
        || (sub == "grep" && args.has("-O"))
        || (sub == "clone" && args.has("-u -c --config"))
        || (matches!(sub, "rebase" | "archive" | "push" | "fetch" | "pull") && args.has("-x --exec"))
        || (matches!(sub, "difftool" | "mergetool") && args.has("-x -y --tool-help"))
        || args.operands.iter().any(|word| word.guess.starts_with("ext::"));
    if runs {
        walk.out.note(Reason::GitRunsPrograms, Some(part));
        walk.out.has_unknown_writes = true;
    }
    for word in &args.operands {
        if crate::guard::risk::place::is_secret_like(std::path::Path::new(&word.guess)) && sub == "add" {
            walk.out.note(Reason::SecretFile, Some(part));
        }
    }
}

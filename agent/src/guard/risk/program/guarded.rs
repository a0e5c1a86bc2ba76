//! What reaches for the guard itself: settings, sockets, variables, and verbs of `claudenest-agent` and `claude`.

use super::{Reason, Simple, Walk};
use crate::guard::risk::place::{self, Place};

/// Verbs of `claudenest-agent` that only look, at any depth.
const LOOKING: &[&str] = &[
    "list",
    "show",
    "status",
    "doctor",
    "config",
    "test",
    "watch",
    "verify",
    "logs",
    "replay",
    "search",
    "info",
    "--version",
    "--help",
    "help",
];

/// Variables that make programs run something else.
const HIJACKING: &[&str] = &[
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "BASH_ENV",
    "ENV",
    "PROMPT_COMMAND",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "IFS",
    "GIT_SSH_COMMAND",
    "GIT_SSH",
    "GIT_EXTERNAL_DIFF",
    "GIT_ASKPASS",
    "GIT_PROXY_COMMAND",
    "GIT_EXEC_PATH",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_PARAMETERS",
    "GIT_TEMPLATE_DIR",
    "SSH_ASKPASS",
    "LESSOPEN",
    "LESSCLOSE",
    "PERL5OPT",
    "PERL5LIB",
    "PYTHONSTARTUP",
    "PYTHONPATH",
    "RUBYOPT",
    "RUBYLIB",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "RUSTC_WRAPPER",
    "RUSTC",
    "CDPATH",
    "ZDOTDIR",
    "RIPGREP_CONFIG_PATH",
    "TAR_OPTIONS",
    "RSYNC_RSH",
    "CVS_RSH",
    "MANPAGER",
    "BROWSER",
];

/// Judges an assignment, in front of a command or by `export` and `env`.
pub(super) fn assignment(walk: &mut Walk<'_>, name: &str, value: &str, part: &str) {
    let part = Some(part);
    walk.out.note(Reason::SetsEnvironment, part);
    let starts_command = |value: &str| {
        !matches!(value, "" | "true" | ":" | "cat" | "less" | "vim" | "vi" | "nano" | "code" | "never")
    };
    if name.starts_with("CLAUDENEST_")
        || name == "CLAUDE_CONFIG_DIR"
        || name == "CLAUDE_CODE_SIMPLE"
        || name.starts_with("DISABLE_HOOK")
    {
        walk.out.note(Reason::Guard, part);
    } else if HIJACKING.contains(&name)
        || name.starts_with("DYLD_")
        || name.starts_with("GIT_CONFIG_KEY")
        || name.starts_with("BASH_FUNC_")
        || (name == "NODE_OPTIONS"
            && ["require", "-r", "import", "loader", "inspect"].iter().any(|flag| value.contains(flag)))
        || (matches!(
            name,
            "GIT_PAGER" | "PAGER" | "EDITOR" | "VISUAL" | "GIT_EDITOR" | "GIT_SEQUENCE_EDITOR"
        ) && starts_command(value))
    {
        walk.out.note(Reason::HijackingEnvironment, part);
        walk.out.has_unknown_writes = true;
    }
}

/// Looks at words of any command.
pub(super) fn words(walk: &mut Walk<'_>, simple: &Simple, only_reads: bool) {
    let scope = walk.scope;
    for word in simple.words.iter().skip(1) {
        let guess = word.guess.as_str();
        if guess.contains("CLAUDENEST_") && !only_reads {
            walk.out.note(Reason::Guard, Some(&simple.text));
        }
        let path =
            guess.rsplit_once('=').filter(|_| guess.starts_with('-')).map_or(guess, |(_, value)| value);
        let path = path.trim_start_matches('@');
        if !(path.contains('/') || path.starts_with('.')) || path.contains("://") {
            continue;
        }
        let word = crate::guard::risk::script::Word::part_of(word, path);
        for (path, _) in walk.paths(&word).unwrap_or_default() {
            if place::is_secret(&path, scope) {
                walk.out.note(Reason::Secrets, Some(&simple.text));
            } else if place::is_secret_like(&path) {
                walk.out.note(Reason::SecretFile, Some(&simple.text));
            }
            if !only_reads && place::of(&path, scope) == Place::Guard && !path.starts_with(scope.project) {
                walk.out.note(Reason::Guard, Some(&simple.text));
            }
        }
    }
}

/// Judges `claude` and `claudenest-agent`.
pub(super) fn judge(walk: &mut Walk<'_>, name: &str, simple: &Simple) -> bool {
    let part = Some(simple.text.as_str());
    let words: Vec<&str> = simple.words[1..].iter().map(|word| word.guess.as_str()).collect();
    match name {
        "claudenest-agent" | "claudenest-relay" | "claudenest" => {
            let verbs: Vec<&&str> = words.iter().filter(|word| !word.starts_with("--")).take(2).collect();
            let looks = words.iter().any(|word| matches!(*word, "--help" | "--version")) && words.len() == 1
                || verbs.iter().any(|verb| LOOKING.contains(*verb)) && !words.contains(&"hook");
            let own = matches!(verbs.as_slice(), [first, second] if **first == "locks" && matches!(**second, "acquire" | "release"));
            let reason = if looks || own { Reason::KnownTool } else { Reason::GuardDecision };
            walk.out.note(reason, part);
        }
        "claude" => {
            let escapes = |word: &&str| {
                [
                    "--dangerously-skip-permissions",
                    "--allow-dangerously-skip-permissions",
                    "bypassPermissions",
                    "--settings",
                    "--setting-sources",
                    "--bare",
                ]
                .iter()
                .any(|flag| word.contains(flag))
            };
            walk.out.note(Reason::RunsScript, part);
            walk.out.has_unknown_writes = true;
            walk.has_network = true;
            if words.iter().any(escapes) {
                walk.out.note(Reason::NoGate, part);
            }
            if matches!(
                words.first(),
                Some(&("config" | "mcp" | "plugin" | "update" | "install" | "setup-token"))
            ) {
                walk.out.note(Reason::Guard, part);
            }
        }
        _ => return false,
    }
    true
}

//! Package managers: they install, publish, and run scripts of the project.

use super::{Reason, Simple, Walk};

const NAMES: &str = "npm pnpm yarn bun npx pnpx bunx pip pip3 pipx uv uvx poetry pdm hatch conda mamba cargo rustup go gem bundle composer gradle mvn twine nuget pod cabal opam mix luarocks cpan deno";

/// True if the name is one of them.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.split_ascii_whitespace().any(|known| known == name)
}

/// Judges the command if it is one of these programs.
pub(super) fn judge(walk: &mut Walk<'_>, name: &str, simple: &Simple) -> bool {
    if !is_known(name) {
        return false;
    }
    let part = Some(simple.text.as_str());
    let words: Vec<&str> = simple.words[1..].iter().map(|word| word.guess.as_str()).collect();
    let verb = words.iter().find(|word| !word.starts_with(['-', '+'])).copied().unwrap_or_default();
    let has = |list: &str| words.iter().any(|word| list.split(' ').any(|known| known == *word));
    let tells =
        matches!(words.as_slice(), ["--version" | "-V" | "-v" | "version" | "--help" | "help" | "-h", ..])
            || matches!(
                verb,
                "list"
                    | "ls"
                    | "show"
                    | "view"
                    | "outdated"
                    | "why"
                    | "tree"
                    | "metadata"
                    | "search"
                    | "info"
                    | "freeze"
                    | "env"
                    | "pkgid"
                    | "explain"
                    | "audit"
                    | "licenses"
                    | "whoami"
            ) && !has("fix --fix -w");
    if tells {
        walk.out.note(Reason::KnownTool, part);
        return true;
    }
    walk.out.has_unknown_writes = true;
    let installs = matches!(
        verb,
        "install"
            | "i"
            | "add"
            | "ci"
            | "update"
            | "upgrade"
            | "remove"
            | "uninstall"
            | "rm"
            | "sync"
            | "get"
            | "link"
            | "fetch"
            | "mod"
            | "lock"
            | "require"
            | "restore"
    ) || (matches!(name, "yarn" | "pnpm" | "bun") && verb.is_empty());
    let is_global = installs
        && (has("-g --global --user --break-system-packages --system")
            || matches!(name, "pipx" | "gem" | "rustup" | "conda" | "mamba" | "luarocks" | "cpan"))
        || matches!(
            (name, verb),
            ("cargo" | "go", "install")
                | ("cargo", "uninstall")
                | ("uv", "tool" | "python")
                | ("rustup", "default" | "toolchain" | "self" | "component" | "target")
        );
    if matches!(
        verb,
        "publish" | "upload" | "yank" | "unpublish" | "deprecate" | "push" | "owner" | "release" | "trunk"
    ) && name != "go"
        && name != "uv"
        || (matches!(name, "uv" | "poetry") && verb == "publish")
    {
        walk.out.note(Reason::Publishes, part);
        walk.has_network = true;
    } else if is_global {
        walk.out.note(Reason::InstallsOnSystem, part);
    } else if installs {
        walk.out.note(Reason::Installs, part);
    } else {
        walk.out.note(Reason::RunsScript, part);
    }
    if matches!(verb, "login" | "logout" | "adduser" | "token") || (verb == "config" && has("set")) {
        walk.out.note(Reason::Startup, part);
    }
    if matches!(name, "npx" | "pnpx" | "bunx" | "uvx") || has("dlx") {
        walk.out.note(Reason::Installs, part);
        walk.has_network = true;
    }
    true
}

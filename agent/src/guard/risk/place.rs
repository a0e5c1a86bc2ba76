//! Where a path lies: lexically, without looking at the disk.

use std::path::{Component, Path, PathBuf};

use super::Scope;

/// What is known of a path by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In the project.
    Project,
    /// A directory for temporary files.
    Temporary,
    /// `/dev/null`, the terminal, a descriptor.
    Stream,
    /// Another device, `/proc`, `/sys`.
    Device,
    /// Claude Code's settings, or ClaudeNest's own files.
    Guard,
    /// Runs by itself later: shell profiles, crontabs, services.
    Startup,
    /// Git's settings and hooks.
    GitControl,
    /// Where Claude Code keeps its plans and notes.
    ClaudeNotes,
    /// Anywhere else.
    Outside,
}

/// Files below the home directory that shells, desktops and service managers run.
const STARTUP_FILES: &[&str] = &[
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".bash_aliases",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".zlogin",
    ".zlogout",
    ".kshrc",
    ".cshrc",
    ".tcshrc",
    ".login",
    ".inputrc",
    ".xinitrc",
    ".xprofile",
    ".xsession",
    ".vimrc",
    ".exrc",
    ".gdbinit",
    ".lldbinit",
    ".pythonrc",
    ".npmrc",
    ".gitconfig",
    ".tmux.conf",
    ".ssh/rc",
    ".ssh/config",
    ".ssh/authorized_keys",
    ".pam_environment",
    ".selected_editor",
    ".mailcap",
];
/// Directories of such files below the home directory.
const STARTUP_DIRS: &[&str] = &[
    ".config/autostart",
    ".config/systemd",
    ".config/fish",
    ".config/git",
    ".config/nvim",
    ".config/zsh",
    ".local/bin",
    "bin",
    "Library/LaunchAgents",
    ".config/environment.d",
    ".cargo/bin",
    ".oh-my-zsh",
];
/// Files and directories below the home directory that hold secrets.
const SECRETS: &[&str] = &[
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".config/gcloud",
    ".kube",
    ".docker/config.json",
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".config/git/credentials",
    ".npmrc",
    ".pypirc",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/gh",
    ".config/hub",
    ".config/op",
    ".password-store",
    ".pgpass",
    ".my.cnf",
    ".vault-token",
    ".terraform.d/credentials.tfrc.json",
    ".claude/.credentials.json",
    ".claude.json",
    ".local/share/keyrings",
    "Library/Keychains",
    ".mozilla",
    ".config/google-chrome",
    ".config/chromium",
    "Library/Application Support/Google/Chrome",
    ".bash_history",
    ".zsh_history",
    ".config/rclone",
    ".s3cfg",
];
/// Names of private keys and the like, wherever they lie.
const SECRET_NAMES: &[&str] =
    &["id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", ".netrc", ".pgpass", ".git-credentials"];
/// Build output, by the name of the directory: it can be made again.
const BUILD_DIRS: &[&str] = &[
    "target",
    "node_modules",
    "dist",
    "build",
    "out",
    "__pycache__",
    ".next",
    ".nuxt",
    ".svelte-kit",
    ".turbo",
    ".parcel-cache",
    ".vite",
    "coverage",
    ".nyc_output",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".tox",
    ".gradle",
    "htmlcov",
    ".cache",
    "tmp",
    "temp",
    "DerivedData",
    "cmake-build-debug",
    "cmake-build-release",
    "_build",
    ".eggs",
    ".venv",
    "venv",
    "bin",
    "obj",
    "storybook-static",
    "test-results",
    "playwright-report",
];

/// Joins and cleans a path lexically; `..` above the root stays at the root.
pub(in crate::guard) fn join(cwd: &Path, path: &str) -> PathBuf {
    let mut joined = PathBuf::from("/");
    for component in cwd.join(path).components() {
        match component {
            Component::Normal(name) => joined.push(name),
            Component::ParentDir => {
                joined.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    joined
}

/// The place of an absolute, cleaned path.
pub(super) fn of(path: &Path, scope: &Scope<'_>) -> Place {
    if is_stream(path) {
        return Place::Stream;
    }
    if ["/dev", "/proc", "/sys"].iter().any(|dir| path.starts_with(dir)) && !path.starts_with("/dev/shm") {
        return Place::Device;
    }
    let in_project = path.strip_prefix(scope.project).ok();
    let in_home = scope.home.and_then(|home| path.strip_prefix(home).ok());
    if let Some(rest) = in_home.filter(|rest| rest.starts_with(".claude")) {
        let names: Vec<&str> = rest.iter().filter_map(|name| name.to_str()).collect();
        return match names.as_slice() {
            [_, "plans", _, ..] | [_, "projects", _, "memory", ..] | [_, "todos", _, ..] => {
                Place::ClaudeNotes
            }
            _ => Place::Guard,
        };
    }
    if in_home.is_some_and(|rest| rest == Path::new(".claude.json"))
        || is_claude_control(in_project.unwrap_or(path))
    {
        return Place::Guard;
    }
    if in_project.is_none()
        && path.iter().any(|name| name.to_string_lossy().to_lowercase().contains("claudenest"))
    {
        return Place::Guard;
    }
    if is_git_control(path) {
        return Place::GitControl;
    }
    if in_project.is_some() {
        return Place::Project;
    }
    let is_startup_of_user = in_home.is_some_and(|rest| {
        STARTUP_FILES.iter().any(|file| rest == Path::new(file))
            || STARTUP_DIRS.iter().any(|dir| rest.starts_with(dir))
    });
    if is_startup_of_user || is_system_startup(path) {
        return Place::Startup;
    }
    if is_temporary(path) { Place::Temporary } else { Place::Outside }
}

fn is_stream(path: &Path) -> bool {
    let exact = [
        "/dev/null",
        "/dev/zero",
        "/dev/stdin",
        "/dev/stdout",
        "/dev/stderr",
        "/dev/tty",
        "/dev/random",
        "/dev/urandom",
    ];
    exact.iter().any(|stream| path == Path::new(stream)) || path.starts_with("/dev/fd")
}

fn is_system_startup(path: &Path) -> bool {
    [
        "/etc/profile",
        "/etc/profile.d",
        "/etc/cron.d",
        "/etc/crontab",
        "/etc/cron.daily",
        "/etc/cron.hourly",
        "/etc/systemd",
        "/etc/init.d",
        "/etc/rc.local",
        "/etc/bash.bashrc",
        "/etc/zsh",
        "/etc/ld.so.preload",
        "/etc/sudoers",
        "/etc/sudoers.d",
        "/var/spool/cron",
        "/usr/lib/systemd",
        "/lib/systemd",
        "/Library/LaunchAgents",
        "/Library/LaunchDaemons",
    ]
    .iter()
    .any(|dir| path.starts_with(dir))
}

/// True for directories of temporary files.
pub(super) fn is_temporary(path: &Path) -> bool {
    ["/tmp", "/var/tmp", "/dev/shm", "/private/tmp", "/var/folders", "/private/var/folders"]
        .iter()
        .any(|dir| path.starts_with(dir))
}

/// Settings of Claude Code within a project: hooks, permissions, servers.
fn is_claude_control(path: &Path) -> bool {
    let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
    names
        .windows(2)
        .any(|pair| pair[0] == ".claude" && (pair[1].starts_with("settings") || pair[1] == "hooks"))
        || names.last().is_some_and(|name| {
            *name == ".mcp.json" || *name == ".claude" || *name == "managed-settings.json"
        })
}

/// What git runs or reads its orders from: settings, hooks, attributes within `.git`.
fn is_git_control(path: &Path) -> bool {
    let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
    let Some(at) = names.iter().position(|name| *name == ".git") else { return false };
    match names.get(at + 1) {
        None => true,
        Some(next) => {
            ["hooks", "config", "config.worktree", "info", "modules", "worktrees", "objects", "refs"]
                .contains(next)
                || ["HEAD", "packed-refs", "logs"].contains(next)
        }
    }
}

/// Holds keys, passwords or tokens for certain.
pub(super) fn is_secret(path: &Path, scope: &Scope<'_>) -> bool {
    let in_home = scope.home.and_then(|home| path.strip_prefix(home).ok());
    if in_home.is_some_and(|rest| SECRETS.iter().any(|secret| rest.starts_with(secret))) {
        return path.extension().is_none_or(|extension| extension != "pub");
    }
    let text = path.to_string_lossy();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    SECRET_NAMES.contains(&name.as_str())
        || [
            "/etc/shadow",
            "/etc/gshadow",
            "/etc/sudoers",
            "/etc/ssl/private",
            "/run/secrets",
            "/var/run/secrets",
        ]
        .iter()
        .any(|secret| path.starts_with(secret))
        || (text.starts_with("/proc/") && (name == "environ" || name == "mem" || name == "maps"))
        || (text.starts_with("/etc/ssh/") && name.ends_with("_key"))
        || text.contains("/.ssh/") && !name.ends_with(".pub")
        || text.contains("/.aws/credentials")
}

/// Often holds secrets: `.env`, key files.
pub(super) fn is_secret_like(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let is_example = ["example", "sample", "template", "dist"].iter().any(|word| name.contains(word));
    ((name == ".env" || name.starts_with(".env.") || name == ".envrc" || name.ends_with(".env"))
        && !is_example)
        || [".pem", ".key", ".p12", ".pfx", ".keystore", ".jks", ".kdbx"]
            .iter()
            .any(|end| name.ends_with(end))
        || ["credentials", "credentials.json", "secrets.json", "secrets.yaml", "secrets.yml", "secrets.toml"]
            .contains(&name.as_str())
}

/// True for build output within the project, and for anything below a directory of temporary files.
pub(super) fn can_be_made_again(path: &Path, scope: &Scope<'_>) -> bool {
    if is_temporary(path) && !path.starts_with(scope.project) {
        // Not the directory of temporary files itself.
        return path.components().count() > 2;
    }
    path.strip_prefix(scope.project).is_ok_and(|rest| {
        rest.iter().any(|name| {
            let name = name.to_string_lossy();
            BUILD_DIRS.contains(&name.as_ref()) || name.ends_with(".egg-info") || name.ends_with(".dSYM")
        })
    })
}

//! Finds the installed Claude Code, its version and whether it is logged in.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use claudenest_shared::session::PermissionMode;
use semver::Version;

/// A `claude --version` or `claude auth status` that takes longer is given up: both answer within 0.2 s
/// on an idle machine, and within 3 s on a loaded one (measured).
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A login state older than this is asked for again.
const LOGIN_FRESH: Duration = Duration::from_secs(300);

/// The oldest version that this agent was tried with; older ones lack flags that it uses.
pub const OLDEST_TRIED: Version = Version::new(2, 1, 197);
/// Since this version a hook that cannot answer blocks the tool (`onFailure`); before, the tool would run.
pub const FAILS_CLOSED_SINCE: Version = Version::new(2, 1, 295);

/// An installed Claude Code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installed {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// Its version; absent when it did not say one.
    pub version: Option<Version>,
}

/// Why Claude Code cannot be used. The texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Nowhere to be found.
    #[error(
        "Claude Code was not found. Install it with `npm install -g @anthropic-ai/claude-code` or name its path as `claude_path` in the configuration."
    )]
    NotFound,
    /// The configured path is wrong.
    #[error(
        "There is no executable program at {0}, the path given for Claude Code in the configuration. Correct it or remove it."
    )]
    BadPath(PathBuf),
}

/// The Claude Code of this machine, with what was found out about it kept until the program changes.
#[derive(Debug)]
pub struct Claude {
    configured: Option<PathBuf>,
    home: PathBuf,
    search_path: Option<OsString>,
    version: Mutex<Option<Known<Version>>>,
    permission_modes: Mutex<Option<Known<Vec<String>>>>,
    login: Mutex<Option<(Instant, Option<bool>)>>,
}

/// An answer of the program, and the state of the program that it was asked of.
#[derive(Debug)]
struct Known<T> {
    path: PathBuf,
    changed_at: Option<SystemTime>,
    answer: T,
}

impl Claude {
    /// `configured` comes from the configuration and is the only place looked at when present;
    /// `search_path` is the `PATH` that sessions get.
    pub fn new(configured: Option<PathBuf>, home: PathBuf, search_path: Option<OsString>) -> Self {
        Self {
            configured,
            home,
            search_path,
            version: Mutex::new(None),
            permission_modes: Mutex::new(None),
            login: Mutex::new(None),
        }
    }

    /// Finds the program. Cheap: looks at files only.
    ///
    /// # Errors
    /// [`InstallError`], with what to do.
    pub fn find(&self) -> Result<PathBuf, InstallError> {
        if let Some(path) = &self.configured {
            return if is_executable(path) {
                Ok(path.clone())
            } else {
                Err(InstallError::BadPath(path.clone()))
            };
        }
        let on_path = self.search_path.iter().flat_map(std::env::split_paths).filter(|dir| dir.is_absolute());
        on_path
            .chain(usual_directories(&self.home))
            .map(|dir| dir.join("claude"))
            .find(|path| is_executable(path))
            .ok_or(InstallError::NotFound)
    }

    /// Finds the program and its version. Runs `claude --version` when the program has changed since the
    /// last call: blocking, up to ten seconds.
    ///
    /// # Errors
    /// As [`Claude::find`].
    pub fn installed(&self) -> Result<Installed, InstallError> {
        let path = self.find()?;
        let version = known(&self.version, &path, "--version", parse_version);
        Ok(Installed { path, version })
    }

    /// Checks that the installed program takes this value of `--permission-mode`, as its own `--help` says;
    /// a program that does not list its modes is taken to. Runs it once per version: blocking, up to ten seconds.
    ///
    /// # Errors
    /// A sentence with what to do.
    pub fn check_permission_mode(&self, mode: PermissionMode) -> Result<(), String> {
        let Ok(path) = self.find() else { return Ok(()) };
        // Every version has had this one, and newer ones call it `manual` in their list.
        if mode == PermissionMode::Default {
            return Ok(());
        }
        let Some(modes) = known(&self.permission_modes, &path, "--help", parse_permission_modes) else {
            return Ok(());
        };
        if modes.iter().any(|known| known == mode.as_arg()) {
            return Ok(());
        }
        let version = known(&self.version, &path, "--version", parse_version);
        let version = version.map_or_else(|| "on this machine".to_owned(), |version| version.to_string());
        Err(format!(
            "Claude Code {version} does not know the permission mode `{}`. Update it (`claude update`), or choose one that it knows: {}.",
            mode.as_arg(),
            modes.join(", ")
        ))
    }

    /// True if Claude Code has credentials, as its own `auth status` says; `None` when it does not say
    /// (old versions) or is not installed. `env` is what sessions would get. Blocking, up to ten seconds;
    /// asked for at most every five minutes.
    pub fn is_logged_in(&self, env: &BTreeMap<String, String>) -> Option<bool> {
        let mut cache = lock(&self.login);
        if let Some((asked_at, state)) = *cache
            && asked_at.elapsed() < LOGIN_FRESH
        {
            return state;
        }
        let path = self.find().ok()?;
        let state = ask(&path, &["auth", "status"], env).as_deref().and_then(parse_login);
        *cache = Some((Instant::now(), state));
        state
    }
}

/// What the program answers to one flag, asked again when the program has changed or had no answer.
fn known<T: Clone>(
    cache: &Mutex<Option<Known<T>>>,
    path: &Path,
    flag: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let changed_at = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let mut cache = lock(cache);
    if let Some(known) = &*cache
        && known.path == path
        && known.changed_at == changed_at
    {
        return Some(known.answer.clone());
    }
    let answer = parse(&ask(path, &[flag], &BTreeMap::new())?)?;
    *cache = Some(Known { path: path.to_owned(), changed_at, answer: answer.clone() });
    Some(answer)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Where the installers of Claude Code put it; a service manager's `PATH` often lacks these.
fn usual_directories(home: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let below_home = [
        ".local/bin",
        ".claude/local",
        ".claude/bin",
        ".npm-global/bin",
        ".volta/bin",
        ".bun/bin",
        ".asdf/shims",
        ".local/share/mise/shims",
        ".local/share/pnpm",
        "Library/pnpm",
        "n/bin",
    ]
    .map(|dir| home.join(dir));
    let fixed = ["/usr/local/bin", "/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin", "/usr/bin"]
        .map(PathBuf::from);
    // nvm keeps one directory per Node version; the newest that has the program wins.
    let mut nvm: Vec<PathBuf> = std::fs::read_dir(home.join(".nvm/versions/node"))
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    nvm.sort_by_key(|dir| {
        let name =
            dir.parent().and_then(Path::file_name).unwrap_or(OsStr::new("")).to_string_lossy().into_owned();
        std::cmp::Reverse(Version::parse(name.trim_start_matches('v')).ok())
    });
    below_home.into_iter().chain(fixed).chain(nvm)
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs the program with closed input and returns its output, whatever its exit code; `None` when it
/// could not be run, took too long or printed no UTF-8.
fn ask(program: &Path, args: &[&str], env: &BTreeMap<String, String>) -> Option<String> {
    use std::io::Read;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env("DISABLE_AUTOUPDATER", "1");
    if !env.is_empty() {
        command.env_clear().envs(env);
    }
    let mut child = command.spawn().ok()?;
    let mut stdout = child.stdout.take()?;
    // The output is some hundred bytes and fits into the pipe, but a reader thread costs nothing and
    // keeps a surprising program from blocking on it.
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.by_ref().take(64 * 1024).read_to_end(&mut text);
        text
    });
    let started = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if started.elapsed() < ANSWER_DEADLINE => std::thread::sleep(pause),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    String::from_utf8(reader.join().ok()?).ok()
}

/// "2.1.329 (Claude Code)" → 2.1.329.
fn parse_version(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| Version::parse(word).ok())
}

/// The values in `--permission-mode <mode> … (choices: "acceptEdits", "auto", …)`; the list may be wrapped.
fn parse_permission_modes(help: &str) -> Option<Vec<String>> {
    let (_, rest) = help.split_once("--permission-mode ")?;
    let (_, rest) = rest.split_once("(choices:")?;
    let (list, _) = rest.split_once(')')?;
    let modes: Vec<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    (!modes.is_empty()).then_some(modes)
}

fn parse_login(text: &str) -> Option<bool> {
    serde_json::from_str::<serde_json::Value>(text).ok()?.get("loggedIn")?.as_bool()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn program(dir: &Path, script: &str) -> PathBuf {
        std::fs::create_dir_all(dir).unwrap();
        let path = dir.join("claude");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn version_and_login_are_read_from_the_program_itself() {
        let home = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\ncase $1 in --version) echo '2.1.329 (Claude Code)';; *) echo '{\"loggedIn\": false}'; exit 1;; esac\n";
        let path = program(&home.path().join(".local/bin"), script);
        let claude = Claude::new(None, home.path().to_owned(), None);
        assert_eq!(claude.find().unwrap(), path);
        assert_eq!(claude.installed().unwrap().version, Some(Version::new(2, 1, 329)));
        assert_eq!(claude.is_logged_in(&BTreeMap::new()), Some(false));
    }

    #[test]
    fn a_permission_mode_that_the_program_does_not_know_is_refused_in_words() {
        let home = tempfile::tempdir().unwrap();
        let help = "  -p, --print\n  --permission-mode <mode>    Mode to use for\n      the session (choices: \"acceptEdits\",\n      \"dontAsk\", \"plan\")\n  --plugin-dir <path>   (choices: \"auto\")";
        let script = |help: &str| {
            format!(
                "#!/bin/sh\ncase $1 in --version) echo '2.1.9 (Claude Code)';; --help) cat <<'E'\n{help}\nE\n;; esac\n"
            )
        };
        let check = |help: &str, mode| {
            let path = program(home.path(), &script(help));
            Claude::new(Some(path), home.path().to_owned(), None).check_permission_mode(mode)
        };
        use PermissionMode as Mode;
        for known in [Mode::Default, Mode::AcceptEdits, Mode::DontAsk, Mode::Plan] {
            assert_eq!(check(help, known), Ok(()), "{known:?}");
        }
        let error = check(help, Mode::Auto).unwrap_err();
        for part in ["2.1.9", "`auto`", "claude update", "acceptEdits, dontAsk, plan."] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        assert_eq!(check("no list here", Mode::Auto), Ok(()), "what is not known is not forbidden");
    }

    #[test]
    fn a_configured_path_is_the_only_one_and_must_exist() {
        let home = tempfile::tempdir().unwrap();
        program(&home.path().join(".local/bin"), "#!/bin/sh\n");
        let claude = Claude::new(Some(home.path().join("nothing")), home.path().to_owned(), None);
        assert!(claude.find().unwrap_err().to_string().contains("nothing"));
    }

    #[test]
    fn a_program_without_a_version_is_still_found() {
        let home = tempfile::tempdir().unwrap();
        let path = program(home.path(), "#!/bin/sh\necho what\n");
        let claude = Claude::new(Some(path), home.path().to_owned(), None);
        assert_eq!(claude.installed().unwrap().version, None);
        assert_eq!(claude.is_logged_in(&BTreeMap::new()), None);
    }
}

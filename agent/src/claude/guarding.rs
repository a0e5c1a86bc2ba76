//! What would let Claude Code run without the guard, and how that is closed or found.
//!
//! Tried with 2.1.329 (`agent/tests/it/gate.rs` tries it again): `--bare`, `--safe-mode`, `CLAUDE_CODE_SIMPLE=1` and
//! `CLAUDE_CODE_SAFE_MODE=1` skip all hooks, the last two also as `env` in the user's settings file; the same variables set empty in
//! the injected settings win over all of these places. `disableAllHooks: true` of the user or the repository loses against `false`
//! in the injected settings, also when it is written in the middle of a session. `--setting-sources ''`, `--restricted` and
//! `allowManagedHooksOnly` outside of managed settings leave injected hooks alone.

use claudenest_shared::session::{SessionMode, SessionSpec};
use semver::Version;

use super::install::FAILS_CLOSED_SINCE;

/// Variables that switch hooks off; the injected settings set them empty.
pub const SWITCHES_OFF: [&str; 2] = ["CLAUDE_CODE_SIMPLE", "CLAUDE_CODE_SAFE_MODE"];

/// Arguments with which tools run out of the guard's reach, and why.
const ESCAPES: [(&str, &str); 9] = [
    ("--bare", "skips all hooks"),
    ("--safe-mode", "skips all hooks"),
    ("--bg", "runs outside of the session"),
    ("--background", "runs outside of the session"),
    ("--tmux", "runs outside of the session"),
    ("--cloud", "runs on another machine"),
    ("--environment", "runs on another machine"),
    ("--teleport", "takes over a session of another machine with its settings"),
    ("--desktop", "runs in another program"),
];

/// Why tools of such a session could run unguarded; empty if they cannot. Sentences for people, with what to do.
pub fn gaps(spec: &SessionSpec, version: Option<&Version>) -> Vec<String> {
    if spec.mode == SessionMode::Shell {
        return Vec::new();
    }
    let mut gaps = Vec::new();
    match version {
        Some(version) if *version >= FAILS_CLOSED_SINCE => {}
        Some(version) => gaps.push(format!(
            "Claude Code {version} runs a tool even if the guard cannot answer; {FAILS_CLOSED_SINCE} and newer do not. Update it: `claude update`."
        )),
        None => gaps.push(
            "Claude Code does not say its version, so nobody knows whether it keeps to what the guard says. Install it anew.".to_owned(),
        ),
    }
    for arg in spec.args.iter().take_while(|arg| *arg != "--") {
        let name = arg.split('=').next().unwrap_or(arg);
        if let Some((flag, why)) = ESCAPES.iter().find(|(flag, _)| *flag == name) {
            gaps.push(format!("With {flag}, Claude Code {why}. Leave it away."));
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_and_escapes_are_named() {
        let count = |args: &[&str], version: Option<Version>| {
            let args = args.iter().map(|arg| (*arg).to_owned()).collect();
            gaps(&SessionSpec { args, ..SessionSpec::default() }, version.as_ref()).len()
        };
        let new = || Some(Version::new(2, 1, 329));
        assert_eq!(count(&["--model", "opus", "--", "--bare"], new()), 0);
        assert_eq!(count(&[], Some(Version::new(2, 1, 197))), 1);
        assert_eq!(count(&[], None), 1);
        assert_eq!(count(&["--bare", "--safe-mode=true", "--bg"], new()), 3);
        let shell = SessionSpec { mode: SessionMode::Shell, ..SessionSpec::default() };
        assert!(gaps(&shell, None).is_empty());
    }
}

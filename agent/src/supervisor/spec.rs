//! Checks what a user asks for, so that a mistake is told at once and in words, not by a dead process.

use std::path::Path;

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::session::{PermissionMode, SessionMode, SessionSpec, TermSize};
use claudenest_shared::wire::limits::MAX_TEXT_BYTES;

use crate::claude::command::{self, MAX_ARGUMENT_BYTES};
use crate::claude::{Claude, guarding};
use crate::directory::Roots;

/// More arguments than anybody types; the kernel's own limit is on their total size.
const MAX_ARGUMENTS: usize = 256;
/// More variables than anybody sets for one session.
const MAX_VARIABLES: usize = 256;
/// A headless prompt travels as a message, not as an argument.
const MAX_MESSAGE_BYTES: usize = MAX_TEXT_BYTES / 2;
/// Longest model or worktree name.
const MAX_WORD_BYTES: usize = 200;

/// Checks and completes a wish: empty texts become absent, the directory absolute and resolved. Blocking.
///
/// # Errors
/// `invalid`, `bad_directory` or `claude_unavailable`, with what to do.
pub(super) fn checked(
    mut spec: SessionSpec,
    roots: &Roots,
    claude: &Claude,
    refuses_unguarded: bool,
) -> Result<SessionSpec, WireError> {
    for text in [&mut spec.name, &mut spec.prompt, &mut spec.model, &mut spec.worktree] {
        if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
            *text = None;
        }
    }
    if spec.mode == SessionMode::Interactive && command::is_print(&spec.args) {
        // `claude -p …`: it ends with its answer, and a resumed one would lack a prompt.
        spec.mode = SessionMode::Oneshot;
    }
    if spec.mode == SessionMode::Shell {
        // A form for all modes may send these; they mean nothing to a shell.
        spec.model = None;
        spec.permission_mode = None;
    }
    check_texts(&spec)?;
    check_mode(&spec)?;
    spec.size = spec.size.map(|size| TermSize::clamped(size.cols, size.rows));
    let cwd = roots.resolve(if spec.cwd.is_empty() { "~" } else { &spec.cwd })?;
    if let Some(worktree) = &spec.worktree {
        check_worktree(worktree, &cwd)?;
    }
    spec.cwd = cwd.to_string_lossy().into_owned();
    if spec.mode != SessionMode::Shell {
        let unavailable = |sentence: String| WireError::new(ErrorCode::ClaudeUnavailable, sentence);
        let installed = claude.installed().map_err(|error| unavailable(error.to_string()))?;
        let gaps = guarding::gaps(&spec, installed.version.as_ref());
        if let Some(gap) = gaps.first().filter(|_| refuses_unguarded) {
            return Err(unavailable(format!(
                "{gap} To run such sessions without a guard that holds, set unguarded = \"warn\" in the agent's configuration."
            )));
        }
        if let Some(mode) = spec.permission_mode {
            claude.check_permission_mode(mode).map_err(|sentence| invalid(&sentence))?;
        }
    }
    Ok(spec)
}

fn check_texts(spec: &SessionSpec) -> Result<(), WireError> {
    let arguments = spec.args.iter().map(|arg| ("argument", arg));
    let named = [("prompt", &spec.prompt), ("model", &spec.model), ("worktree name", &spec.worktree)];
    let named = named.into_iter().filter_map(|(what, text)| text.as_ref().map(|text| (what, text)));
    let variables = spec.env.values().map(|value| ("value of an environment variable", value));
    for (what, text) in arguments.chain(named).chain(variables) {
        if text.contains('\0') {
            return Err(invalid(&format!(
                "The {what} contains a zero byte, which no program can be given. Remove it."
            )));
        }
        let is_message = what == "prompt" && spec.mode == SessionMode::Headless;
        let limit = if is_message { MAX_MESSAGE_BYTES } else { MAX_ARGUMENT_BYTES };
        if text.len() > limit {
            return Err(invalid(&format!(
                "The {what} is longer than {} KiB. Put the text into a file and refer to it.",
                limit / 1024
            )));
        }
    }
    if spec.args.len() > MAX_ARGUMENTS || spec.env.len() > MAX_VARIABLES {
        return Err(invalid(&format!(
            "At most {MAX_ARGUMENTS} arguments and {MAX_VARIABLES} variables can be given."
        )));
    }
    for name in spec.env.keys() {
        if name.is_empty() || name.contains(['=', '\0']) || name.chars().any(char::is_control) {
            return Err(invalid(&format!(
                "{} is not a name of an environment variable.",
                name.escape_debug()
            )));
        }
        if name.starts_with("CLAUDENEST_") {
            return Err(invalid(&format!("{name} is set by the agent itself and cannot be chosen.")));
        }
    }
    if let Some(model) = &spec.model
        && (model.starts_with('-')
            || model.len() > MAX_WORD_BYTES
            || model.chars().any(|c| c.is_whitespace() || c.is_control()))
    {
        return Err(invalid("A model is one word such as `opus` or `claude-sonnet-4-5`."));
    }
    Ok(())
}

fn check_mode(spec: &SessionSpec) -> Result<(), WireError> {
    match spec.mode {
        SessionMode::Oneshot if spec.prompt.is_none() && !command::is_print(&spec.args) => {
            return Err(invalid(
                "A oneshot session runs one prompt to its end and needs one. Give it a prompt.",
            ));
        }
        SessionMode::Shell if spec.prompt.is_some() => {
            return Err(invalid(
                "A shell session has no prompt. Leave it away, or choose the mode `interactive`.",
            ));
        }
        SessionMode::Shell if spec.worktree.is_some() => {
            return Err(invalid(
                "Worktrees are made by Claude Code; a shell session has none. Leave the worktree away.",
            ));
        }
        _ => {}
    }
    let is_root = rustix::process::geteuid().is_root();
    if spec.permission_mode == Some(PermissionMode::BypassPermissions)
        && is_root
        && !spec.env.contains_key("IS_SANDBOX")
    {
        return Err(invalid(
            "Claude Code refuses `bypassPermissions` for root. Run the agent as another user, or set IS_SANDBOX=1 for the session if this machine is a sandbox.",
        ));
    }
    Ok(())
}

fn check_worktree(name: &str, cwd: &Path) -> Result<(), WireError> {
    let is_word = name.len() <= MAX_WORD_BYTES
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !name.ends_with('.')
        && !name.contains("..");
    if !is_word {
        return Err(invalid(
            "A worktree name has letters, digits, '-', '_' and '.', and starts with a letter or digit.",
        ));
    }
    if !cwd.ancestors().any(|dir| dir.join(".git").exists()) {
        return Err(invalid(&format!(
            "{} is not in a git repository, so no worktree can be made there.",
            cwd.display()
        )));
    }
    Ok(())
}

fn invalid(sentence: &str) -> WireError {
    WireError::new(ErrorCode::Invalid, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn check(change: impl FnOnce(&mut SessionSpec)) -> Result<SessionSpec, WireError> {
        let home = tempfile::tempdir().unwrap();
        let roots = Roots::new(home.path().to_owned(), &[]);
        let claude = Claude::new(Some(PathBuf::from("/bin/sh")), home.path().to_owned(), None);
        let mut spec = SessionSpec { cwd: "~".into(), ..SessionSpec::default() };
        change(&mut spec);
        checked(spec, &roots, &claude, false)
    }

    #[test]
    fn empty_texts_are_absent_and_the_directory_is_resolved() {
        let spec = check(|spec| {
            spec.prompt = Some("  ".into());
            spec.model = Some(String::new());
            spec.size = Some(TermSize { cols: 0, rows: 9000 });
        })
        .unwrap();
        assert_eq!((spec.prompt, spec.model), (None, None));
        assert!(Path::new(&spec.cwd).is_absolute());
        assert_eq!(spec.size, Some(TermSize { cols: 2, rows: 300 }));
    }

    #[test]
    fn a_print_run_is_a_oneshot_with_its_prompt_among_the_arguments() {
        for flag in ["-p", "--print"] {
            let spec = check(|spec| spec.args = vec![flag.into(), "hello".into()]).unwrap();
            assert_eq!((spec.mode, spec.args.len()), (SessionMode::Oneshot, 2));
        }
        let spec = check(|spec| spec.args = vec!["--".into(), "-p".into()]).unwrap();
        assert_eq!(spec.mode, SessionMode::Interactive, "after -- it is the prompt");
    }

    #[test]
    fn mistakes_are_told_in_words() {
        let told = |change: fn(&mut SessionSpec), word: &str| {
            let error = check(change).unwrap_err();
            assert!(error.message.contains(word), "{word}: {error:?}");
            assert!(error.message.ends_with('.'), "{error:?}");
            error.code
        };
        use ErrorCode::*;
        assert_eq!(told(|spec| spec.mode = SessionMode::Oneshot, "needs one"), Invalid);
        assert_eq!(
            told(
                |spec| {
                    spec.mode = SessionMode::Shell;
                    spec.prompt = Some("x".into());
                },
                "shell"
            ),
            Invalid
        );
        assert_eq!(told(|spec| spec.prompt = Some("a\0b".into()), "zero byte"), Invalid);
        assert_eq!(told(|spec| spec.args = vec!["\0".into()], "zero byte"), Invalid);
        assert_eq!(told(|spec| spec.prompt = Some("x".repeat(200_000)), "KiB"), Invalid);
        assert_eq!(
            told(
                |spec| {
                    spec.env.insert("A=B".into(), "x".into());
                },
                "A=B"
            ),
            Invalid
        );
        assert_eq!(
            told(
                |spec| {
                    spec.env.insert("CLAUDENEST_SOCKET".into(), "x".into());
                },
                "itself"
            ),
            Invalid
        );
        assert_eq!(told(|spec| spec.model = Some("--help".into()), "model"), Invalid);
        assert_eq!(told(|spec| spec.worktree = Some("../x".into()), "worktree"), Invalid);
        assert_eq!(told(|spec| spec.worktree = Some("x".into()), "git"), Invalid);
        assert_eq!(told(|spec| spec.cwd = "/does/not/exist".into(), "does not exist"), BadDirectory);
        assert_eq!(told(|spec| spec.cwd = "here".into(), "absolute"), BadDirectory);
    }

    #[test]
    fn claude_must_be_there_unless_a_shell_is_wanted() {
        let home = tempfile::tempdir().unwrap();
        let roots = Roots::new(home.path().to_owned(), &[]);
        let claude = Claude::new(Some(home.path().join("none")), home.path().to_owned(), None);
        let spec = SessionSpec { cwd: "~".into(), ..SessionSpec::default() };
        assert_eq!(
            checked(spec.clone(), &roots, &claude, true).unwrap_err().code,
            ErrorCode::ClaudeUnavailable
        );
        assert!(checked(SessionSpec { mode: SessionMode::Shell, ..spec }, &roots, &claude, true).is_ok());
    }
}

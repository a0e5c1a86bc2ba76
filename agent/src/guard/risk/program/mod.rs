//! Programs: what a simple command does, by its name and its words.

mod reads;

use super::Reason;
use super::script::{Facts, Simple, Walk};

/// True if the name belongs to a program or builtin that is known here.
pub(super) fn is_known(name: &str) -> bool {
    reads::is_known(name)
}

/// True if the command only runs its words with a limit or a clock.
pub(super) fn is_wrapper(_simple: &Simple) -> bool {
    false
}

/// Judges a simple command; its redirections are judged already.
pub(super) fn judge(walk: &mut Walk<'_>, simple: &Simple, _depth: usize) -> Facts {
    let Some(program) = simple.words.first() else { return Facts::default() };
    if !simple.assignments.is_empty() {
        walk.out.note(Reason::SetsEnvironment, Some(&simple.text));
    }
    let name = program.guess.rsplit('/').next().unwrap_or_default();
    if name == "cd" {
        walk.change_dir(simple.words.get(1));
    } else if !reads::judge(walk, name, simple) {
        walk.out.note(Reason::UnknownProgram, Some(&simple.text));
        walk.out.has_unknown_writes = true;
    }
    Facts::default()
}

//! What a tool call of Claude Code could do: its risk with reasons, the paths that it would write, and its parts.
//!
//! Pure: no IO, clock or environment. Paths are joined and cleaned lexically, symbolic links are not resolved.
//! Invariants: [`Risk::Low`] is claimed only for what is understood completely and only reads within the project;
//! whatever is not known is at least [`Risk::Medium`] and sets [`Assessment::has_unknown_writes`] unless it is known to write nothing.
//! This is a description for people and rules, no sandbox: a program can always do more than its command line says.

mod place;
mod program;
mod reason;
mod script;
mod tool;

use std::path::{Path, PathBuf};

pub use claudenest_shared::risk::{Risk, RiskNote};
use serde_json::Value;

pub(super) use place::join;
pub use reason::Reason;

/// Most parts that a shell command may have and still be understood (DESIGN §5).
pub const MAX_PARTS: usize = 16;
/// Longest command that is parsed. Real ones have a few hundred bytes; heredocs with whole files a few thousand.
pub const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// Where an act happens.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Claude Code's working directory, absolute.
    pub cwd: &'a Path,
    /// Root of the project: the git work tree, else the session's directory.
    pub project: &'a Path,
    /// The user's home directory, if it is known.
    pub home: Option<&'a Path>,
}

/// What an act could do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assessment {
    /// The worst of the notes; low without any.
    pub risk: Risk,
    /// Why, worst first, each reason once for each part.
    pub notes: Vec<RiskNote>,
    /// What it would write as far as it is known: absolute, cleaned lexically, symbolic links not resolved.
    pub writes: Vec<WrittenPath>,
    /// It may write what cannot be known: scripts, unknown programs, what could not be parsed.
    pub has_unknown_writes: bool,
    /// The simple commands of a shell command, inner ones (`sudo x`, `bash -c 'x'`, `$(x)`) behind the outer; empty for other tools.
    pub parts: Vec<Part>,
    /// Everything that will run stands in `parts` with its exact words. An allow rule covers nothing else.
    pub is_understood: bool,
}

/// A path that an act would write.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WrittenPath {
    /// Absolute, cleaned lexically; once more with its `..` where the text has one, for symbolic links.
    pub path: PathBuf,
    /// The whole directory tree below it may change: `rm -r`, `git checkout .`.
    pub is_tree: bool,
}

/// A simple command within a shell command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// As written.
    pub text: String,
    /// Its words without quotes, assignments in front included; a word that the shell computes is `None`.
    pub words: Vec<Option<String>>,
    /// What it is to the command.
    pub role: PartRole,
    /// True if it redirects output into a file other than `/dev/null`.
    pub has_file_redirect: bool,
    /// Risk of this part alone.
    pub risk: Risk,
}

/// What a part is to the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartRole {
    /// The shell runs it.
    Command,
    /// It only runs the next part, with a limit or a clock: `timeout 60 cargo test`. Rules look at the next part.
    Wrapper,
    /// Another part runs it: `sudo x`, `xargs x`, `find -exec x`, `bash -c 'x'`.
    Inner,
}

impl Assessment {
    fn new() -> Self {
        Self {
            risk: Risk::Low,
            notes: Vec::new(),
            writes: Vec::new(),
            has_unknown_writes: false,
            parts: Vec::new(),
            is_understood: true,
        }
    }

    /// Adds a reason, once for each part.
    fn note(&mut self, reason: Reason, part: Option<&str>) {
        self.risk = self.risk.max(reason.risk());
        let word = reason.word();
        let is_known = |note: &RiskNote| note.word == word && note.part.as_deref() == part;
        if self.notes.len() < MAX_NOTES && !self.notes.iter().any(is_known) {
            self.notes.push(RiskNote {
                risk: reason.risk(),
                word: word.to_owned(),
                text: reason.text().to_owned(),
                part: part.map(str::to_owned),
            });
        }
    }

    fn write(&mut self, path: PathBuf, is_tree: bool) {
        let written = WrittenPath { path, is_tree };
        if self.writes.len() >= MAX_WRITES {
            self.has_unknown_writes = true;
        } else if !self.writes.contains(&written) {
            self.writes.push(written);
        }
    }

    fn finish(mut self) -> Self {
        // Stable: of equally bad ones the first in the command comes first.
        self.notes.sort_by_key(|note| std::cmp::Reverse(note.risk));
        self
    }
}

/// More notes than this help nobody who has to decide; the risk counts all of them.
const MAX_NOTES: usize = 64;
/// More paths than this are "many": what is left out counts as unknown.
const MAX_WRITES: usize = 256;

/// Assesses the use of `tool` with `input`, as Claude Code's hooks name and send them.
///
/// Never panics, whatever the input; cost grows with its length and is bounded by [`MAX_COMMAND_BYTES`].
pub fn assess(tool: &str, input: &Value, scope: &Scope<'_>) -> Assessment {
    let result = std::panic::catch_unwind(|| {
        let mut assessment = Assessment::new();
        tool::assess(tool, input, scope, &mut assessment);
        assessment.finish()
    });
    result.unwrap_or_else(|_| {
        // A bug here must neither take the daemon along nor let anything pass as harmless.
        let mut assessment = Assessment::new();
        assessment.note(Reason::NotAssessed, None);
        assessment.has_unknown_writes = true;
        assessment.is_understood = false;
        assessment
    })
}

#[cfg(test)]
mod tests;

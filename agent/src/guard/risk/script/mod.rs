//! Shell commands: parsed, walked, and judged part by part.
//!
//! The parser is tree-sitter's. What it finds counts for everything that makes a command worse; it is never enough to
//! make one harmless: low risk also needs [`plain`], a reader of a much smaller language, to agree word for word.

mod plain;
mod tree;
mod walk;
mod word;

use std::ops::ControlFlow;

use tree_sitter::{ParseOptions, Parser, Tree};

use super::{
    Assessment, MAX_COMMAND_BYTES, MAX_PARTS, Part, PartRole, Reason, Risk, RiskNote, Scope, place, program,
    tool,
};
pub(super) use walk::{Facts, Simple, Walk};
pub(super) use word::{UNKNOWN, Word};

/// Commands within commands (`bash -c "bash -c …"`) are followed this far.
const MAX_DEPTH: usize = 6;
/// The parser reports progress every some hundred steps; real commands need few; this bounds the hostile ones.
const MAX_PARSER_REPORTS: usize = 20_000;

pub(super) fn assess(command: &str, scope: &Scope<'_>, out: &mut Assessment) {
    characters(command, out);
    if command.len() > MAX_COMMAND_BYTES {
        out.note(Reason::TooLong, None);
        out.has_unknown_writes = true;
        out.is_understood = false;
        // What stands at its beginning is looked at all the same.
        let mut end = MAX_COMMAND_BYTES;
        while !command.is_char_boundary(end) {
            end -= 1;
        }
        Walk::new(scope, out).script(&command[..end], 0, PartRole::Command);
        return;
    }
    Walk::new(scope, out).script(command, 0, PartRole::Command);
    let count = out.parts.iter().filter(|part| part.role != PartRole::Wrapper).count();
    if count > MAX_PARTS {
        out.note(Reason::TooManyParts, None);
        out.is_understood = false;
    }
    if !is_plain(command, out) {
        out.note(Reason::NotPlain, None);
    }
}

/// True if the small language reads the same words as the parser did.
fn is_plain(command: &str, out: &Assessment) -> bool {
    let Some(parts) = plain::read(command) else { return false };
    parts.len() == out.parts.len()
        && parts.iter().zip(&out.parts).all(|(words, part)| {
            part.role == PartRole::Command
                && !part.has_file_redirect
                && words.len() == part.words.len()
                && words.iter().zip(&part.words).all(|(word, other)| other.as_ref() == Some(word))
        })
}

/// Parses within bounds; `None` if it took too long.
fn parse(text: &str) -> Option<Tree> {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_bash::LANGUAGE.into()).ok()?;
    let mut reports = 0usize;
    let mut progress = |_: &tree_sitter::ParseState| {
        reports += 1;
        if reports > MAX_PARSER_REPORTS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let options = ParseOptions::new().progress_callback(&mut progress);
    parser.parse_with_options(&mut |at, _| text.as_bytes().get(at..).unwrap_or_default(), None, Some(options))
}

fn characters(command: &str, out: &mut Assessment) {
    if command.chars().any(|c| tool::is_hidden(c) || c == '\r') {
        out.note(Reason::HiddenCharacters, None);
    }
    let secrets =
        ["/.ssh/id_", ".aws/credentials", "/etc/shadow", ".claude/.credentials", ".git-credentials"];
    if secrets.iter().any(|secret| command.contains(secret)) {
        out.note(Reason::Secrets, None);
    }
    if command.contains("/dev/tcp/") || command.contains("/dev/udp/") {
        out.note(Reason::RawNetwork, None);
    }
    if !command.is_ascii() {
        out.note(Reason::NotAscii, None);
    }
}

//! Search in what people saw.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use regex::{Regex, RegexBuilder};

use super::reader::{PieceKind, Reader};
use super::text::{Line, Lines};

/// Lines between two looks at the clock.
const LINES_PER_LOOK: u64 = 1024;
/// A pattern may compile to this much; a longer one is a mistake.
const PATTERN_BYTES: usize = 1024 * 1024;

/// Makes the pattern of a search: text as it is, or a regular expression. Case counts only if the pattern has capitals.
///
/// # Errors
/// What is wrong with the expression, for a person.
pub fn pattern(text: &str, is_regex: bool) -> Result<Regex, String> {
    let source = if is_regex { text.to_owned() } else { regex::escape(text) };
    RegexBuilder::new(&source)
        .case_insensitive(!text.chars().any(char::is_uppercase))
        .size_limit(PATTERN_BYTES)
        .build()
        .map_err(|error| error.to_string())
}

/// A line that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Match {
    /// The line.
    pub line: Line,
    /// When, by the machine's clock, in microseconds since the Unix epoch.
    pub wall_us: u64,
    /// Lines before it, oldest first.
    pub before: Vec<String>,
    /// Lines after it.
    pub after: Vec<String>,
}

/// Searches the run in `dir`: at most `most` matches with `context` lines around each. True if there may be more.
///
/// # Errors
/// If the recording cannot be read.
pub fn run(dir: &Path, pattern: &Regex, context: usize, most: usize) -> io::Result<(Vec<Match>, bool)> {
    // Ten years: a person who searches on the command line has Ctrl-C.
    run_until(dir, pattern, context, most, Instant::now() + Duration::from_secs(315_360_000))
}

/// As [`run`], until `deadline`.
///
/// # Errors
/// If the recording cannot be read.
pub fn run_until(
    dir: &Path,
    pattern: &Regex,
    context: usize,
    most: usize,
    deadline: Instant,
) -> io::Result<(Vec<Match>, bool)> {
    let mut found: Vec<Match> = Vec::new();
    let mut before: VecDeque<String> = VecDeque::with_capacity(context);
    let (mut is_cut, mut seen) = (false, 0u64);
    let mut visit = |line: Line, wall_us: u64| {
        for one in found.iter_mut().rev().take_while(|one| one.after.len() < context).take(context) {
            one.after.push(line.text.clone());
        }
        seen += 1;
        if seen % LINES_PER_LOOK == 0 && Instant::now() >= deadline {
            is_cut = true;
        } else if pattern.is_match(&line.text) {
            is_cut = found.len() == most;
            if !is_cut {
                let before = before.iter().cloned().collect();
                found.push(Match { line: line.clone(), wall_us, before, after: Vec::new() });
            }
        }
        if context > 0 {
            before.truncate(context);
            if before.len() == context {
                before.pop_front();
            }
            before.push_back(line.text);
        }
        !is_cut
    };
    lines(dir, &mut visit)?;
    Ok((found, is_cut))
}

/// Calls `visit` with every line of the run and the machine's clock then, until it says false.
///
/// # Errors
/// If the recording cannot be read.
pub fn lines(dir: &Path, mut visit: impl FnMut(Line, u64) -> bool) -> io::Result<()> {
    let mut reader = Reader::open(dir, false)?;
    let mut lines = Lines::new(reader.timeline().size);
    loop {
        let pieces = reader.read(u64::MAX)?;
        let is_end = pieces.is_empty();
        for piece in pieces {
            match piece.kind {
                PieceKind::Output(bytes) => feed(&mut lines, &reader, piece.offset, &bytes),
                PieceKind::Resize(size) => lines.resize(size),
                PieceKind::Gap { .. } => lines.settle(),
            }
        }
        if is_end {
            lines.settle();
        }
        for line in lines.take() {
            let wall_us = reader.timeline().time_of(line.offset.saturating_sub(1)).1;
            if !visit(line, wall_us) {
                return Ok(());
            }
        }
        if is_end {
            return Ok(());
        }
    }
}

/// Feeds output as it came, so that what stood on the screen between is seen.
pub(super) fn feed(lines: &mut Lines, reader: &Reader, offset: u64, bytes: &[u8]) {
    let line = reader.timeline();
    let (mut at, mut rest) = (offset, bytes);
    let first = line.events.partition_point(|event| event.offset <= offset);
    for event in &line.events[first.min(line.events.len())..] {
        let size = usize::try_from(event.offset - at).unwrap_or(usize::MAX);
        if size >= rest.len() {
            break;
        }
        if size > 0 {
            let (now, later) = rest.split_at(size);
            lines.output(at, line.time_of(at).0, now);
            (at, rest) = (event.offset, later);
        }
    }
    lines.output(at, line.time_of(at).0, rest);
}

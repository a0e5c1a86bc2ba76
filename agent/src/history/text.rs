//! The text that people saw: lines that scrolled away, and what stayed on the screen for a moment.
//!
//! A terminal of its own draws the output, so that text which a program writes with cursor movements, in parts or over
//! other text is found as it stood there. Lines that scroll out are taken as they go; what is on the screen is taken
//! when it has stood still, each text once as long as it stands. Frames of a spinner are nobody's text.

use std::collections::{HashMap, VecDeque};

use claudenest_shared::session::TermSize;

use crate::session::screen::{Model, RowText, ScreenModel};

/// What is drawn between two looks at the lines that scrolled out: bounds how many there are at once.
const STEP_BYTES: usize = 2048;
/// What stands at least this long is seen; people read for longer, spinners turn faster.
const SEEN_US: u64 = 250_000;
/// Lines from the screen that are remembered, so that they do not come again when they scroll out: a few screens.
const REMEMBERED: usize = 2048;
/// A line is cut here: paragraphs fit, a megabyte of JSON does not.
pub const MAX_LINE_CHARS: usize = 4096;

/// A line of text, where and when it stood there first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Offset in the output by which it was there.
    pub offset: u64,
    /// Microseconds since the run began.
    pub at_us: u64,
    /// The text, without control characters and trailing blanks.
    pub text: String,
}

/// See the module.
pub struct Lines {
    model: Model,
    /// When and where output came last.
    last: (u64, u64),
    looked_us: u64,
    /// Rows of the last look, and how many of each were told.
    shown: HashMap<String, (usize, usize)>,
    /// Told from the screen and not scrolled out yet.
    told: VecDeque<String>,
    /// The part of a wrapped line that has scrolled out already.
    partial: String,
    out: Vec<Line>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("size", &self.model.size()).finish_non_exhaustive()
    }
}

impl Lines {
    /// An empty terminal.
    pub fn new(size: TermSize) -> Self {
        let mut model = Model::new(size);
        model.keep_gone();
        Self {
            model,
            last: (0, 0),
            looked_us: 0,
            shown: HashMap::new(),
            told: VecDeque::new(),
            partial: String::new(),
            out: Vec::new(),
        }
    }

    /// Filtered output came: its first byte's offset, and when.
    pub fn output(&mut self, offset: u64, at_us: u64, bytes: &[u8]) {
        let is_still = at_us.saturating_sub(self.last.1) >= SEEN_US;
        if is_still || at_us.saturating_sub(self.looked_us) >= SEEN_US {
            self.look(is_still);
            self.looked_us = at_us;
        }
        for (index, step) in bytes.chunks(STEP_BYTES).enumerate() {
            self.last = (offset + (index * STEP_BYTES + step.len()) as u64, at_us);
            self.model.process(step);
            self.mend();
            self.scrolled();
        }
    }

    /// The terminal has another size.
    pub fn resize(&mut self, size: TermSize) {
        self.look(true);
        self.model.resize(size);
        self.mend();
        // What was reflowed is not new.
        let rows = self.rows();
        self.shown = count(&rows).into_iter().map(|(text, count)| (text, (count, count))).collect();
        self.scrolled();
    }

    /// What stands on the screen now counts as seen: output has paused, or ended.
    pub fn settle(&mut self) {
        self.look(true);
    }

    /// The lines found so far, in order.
    pub fn take(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.out)
    }

    /// A broken model has lost its state; text goes on with an empty screen.
    fn mend(&mut self) {
        if self.model.is_broken() {
            let out = std::mem::take(&mut self.out);
            *self = Self { last: self.last, out, ..Self::new(self.model.size()) };
        }
    }

    fn tell(&mut self, text: String) {
        if !text.is_empty() {
            self.out.push(Line { offset: self.last.0, at_us: self.last.1, text });
        }
    }

    /// Takes what scrolled out.
    fn scrolled(&mut self) {
        for row in self.model.take_gone() {
            if !row.is_wrapped {
                // What began above was rewritten since, and ended there.
                self.end_line();
            }
            self.partial.push_str(&row.text);
            if !row.continues || self.partial.len() >= MAX_LINE_CHARS {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let text = finish(std::mem::take(&mut self.partial));
        // The screen has told it already, unless it was rewritten since.
        match self.told.iter().position(|told| *told == text) {
            Some(at) => drop(self.told.remove(at)),
            None => self.tell(text),
        }
    }

    /// Compares the screen with the last look. What has stood still, or stood there before, is told.
    fn look(&mut self, is_still: bool) {
        let rows = self.rows();
        let counts = count(&rows);
        let mut shown = HashMap::with_capacity(counts.len());
        let mut is_due: HashMap<&str, usize> = HashMap::new();
        for (text, count) in &counts {
            let (before, told) = self.shown.get(text).copied().unwrap_or((0, 0));
            let seen = if is_still { *count } else { before.min(*count) };
            is_due.insert(text, seen.saturating_sub(told));
            shown.insert(text.clone(), (*count, told.min(*count).max(seen)));
        }
        let due: Vec<String> = rows
            .iter()
            .filter(|text| match is_due.get_mut(text.as_str()) {
                Some(left @ 1..) => {
                    *left -= 1;
                    true
                }
                _ => false,
            })
            .cloned()
            .collect();
        for text in due {
            self.told.push_back(text.clone());
            self.tell(text);
        }
        let excess = self.told.len().saturating_sub(REMEMBERED);
        self.told.drain(..excess);
        self.shown = shown;
    }

    /// The logical lines on the screen that are not empty.
    fn rows(&self) -> Vec<String> {
        let (mut rows, mut line) = (Vec::new(), String::new());
        for RowText { text, continues, .. } in self.model.rows() {
            line.push_str(&text);
            if continues && line.len() < MAX_LINE_CHARS {
                continue;
            }
            let whole = finish(std::mem::take(&mut line));
            if !whole.is_empty() {
                rows.push(whole);
            }
        }
        rows
    }
}

fn count(rows: &[String]) -> HashMap<String, usize> {
    let mut counts = HashMap::with_capacity(rows.len());
    for row in rows {
        *counts.entry(row.clone()).or_insert(0) += 1;
    }
    counts
}

fn finish(mut text: String) -> String {
    text.truncate(text.trim_end().len());
    if let Some((at, _)) = text.char_indices().nth(MAX_LINE_CHARS) {
        text.truncate(at);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: TermSize = TermSize { cols: 20, rows: 4 };

    fn texts(lines: &mut Lines) -> Vec<String> {
        lines.take().into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn every_line_of_a_flood_comes_once() {
        let mut lines = Lines::new(SIZE);
        let flood: String = (0..5000).map(|n| format!("line {n}\r\n")).collect();
        lines.output(0, 0, flood.as_bytes());
        lines.settle();
        let wanted: Vec<String> = (0..5000).map(|n| format!("line {n}")).collect();
        assert_eq!(texts(&mut lines), wanted);
    }

    #[test]
    fn what_stood_on_the_screen_is_not_told_again_when_it_scrolls_out() {
        let mut lines = Lines::new(SIZE);
        lines.output(0, 0, b"one\r\ntwo\r\ntwo\r\n");
        lines.output(15, 1_000_000, b"three\r\n");
        lines.output(22, 2_000_000, b"four\r\nfive\r\nsix\r\n");
        lines.settle();
        let found = lines.take();
        let all: Vec<&str> = found.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(all, ["one", "two", "two", "three", "four", "five", "six"]);
        assert_eq!((found[0].offset, found[0].at_us), (15, 0));
    }

    #[test]
    fn text_in_parts_and_over_other_text_is_found_as_it_stood_there() {
        let mut lines = Lines::new(SIZE);
        // As Ink draws: words with cursor movements between them, colours, rewriting in place.
        lines.output(0, 0, b"\x1b[2J\x1b[H\x1b[31mHello\x1b[0m\x1b[1Cwor\x1b[1;10Hld");
        for frame in 0..10u64 {
            let spin = format!("\x1b[2;1H\x1b[2K{} working", ['|', '/', '-', '\\'][frame as usize % 4]);
            lines.output(100, 50_000 * frame, spin.as_bytes());
        }
        lines.output(200, 450_000, b"\x1b[2;1H\x1b[2Kdone");
        lines.output(210, 900_000, b"");
        let found = texts(&mut lines);
        assert_eq!(found[0], "Hello world");
        assert!(found.contains(&"done".to_owned()), "{found:?}");
        assert!(found.len() <= 4, "a spinner is no text: {found:?}");
    }

    #[test]
    fn wrapped_lines_are_one_line_on_the_screen_and_above_it() {
        let long = "a paragraph that is wider than the terminal is";
        let mut lines = Lines::new(SIZE);
        lines.output(0, 0, long.as_bytes());
        lines.settle();
        assert_eq!(texts(&mut lines), [long]);
        let mut lines = Lines::new(SIZE);
        lines.output(0, 0, format!("{long}\r\n1\r\n2\r\n3\r\n4\r\n").as_bytes());
        lines.settle();
        assert_eq!(texts(&mut lines), [long, "1", "2", "3", "4"]);
    }

    #[test]
    fn a_resize_tells_nothing_twice() {
        let mut lines = Lines::new(SIZE);
        lines.output(0, 0, b"one\r\ntwo");
        lines.settle();
        lines.resize(TermSize { cols: 40, rows: 10 });
        lines.settle();
        assert_eq!(texts(&mut lines), ["one", "two"]);
    }

    #[test]
    fn a_wide_character_that_found_no_room_leaves_no_blank_in_its_line() {
        let long = "1234567890123456789日本語";
        let mut lines = Lines::new(SIZE);
        lines.output(0, 0, format!("{long}\r\n1\r\n2\r\n3\r\n4\r\n").as_bytes());
        lines.settle();
        assert_eq!(texts(&mut lines), [long, "1", "2", "3", "4"]);
    }

    #[test]
    fn the_rest_of_a_line_that_was_rewritten_is_a_line_of_its_own() {
        let mut lines = Lines::new(SIZE);
        // The first row scrolls out, then the second one becomes something else.
        lines.output(0, 0, b"the beginning of the rest of it\r\n1\r\n2\r\n\x1b[H\x1b[2Kother\x1b[4;1H\r\n");
        lines.settle();
        assert_eq!(texts(&mut lines), ["the beginning of the", "other", "1", "2"]);
    }

    #[test]
    fn the_alternate_screen_is_told_as_it_stood_and_leaves_the_lines_below_alone() {
        let mut lines = Lines::new(SIZE);
        lines.output(0, 0, b"below\x1b[?1049h\x1b[Hmenu\r\n");
        lines.output(30, 1_000_000, b"\x1b[?1049l\r\n1\r\n2\r\n3\r\n4\r\n");
        lines.settle();
        assert_eq!(texts(&mut lines), ["menu", "below", "1", "2", "3", "4"]);
    }

    #[test]
    fn what_an_erased_screen_had_was_printed_unless_the_history_is_erased_too() {
        let mut lines = Lines::new(SIZE);
        lines.output(0, 0, b"first\x1b[H\x1b[2Jsecond\x1b[H\x1b[2J\x1b[3J\x1bcthird");
        lines.settle();
        assert_eq!(texts(&mut lines), ["third"]);
        lines.output(100, 1_000_000, b"\r\nfourth\x1b[H\x1b[2Jfifth");
        lines.settle();
        assert_eq!(texts(&mut lines), ["fourth", "fifth"]);
    }

    #[test]
    fn lines_that_a_smaller_screen_pushes_out_are_told_once_and_a_reset_takes_none_back() {
        let mut lines = Lines::new(SIZE);
        lines.output(0, 0, "one\r\ntwo e\u{301}\r\nthree\r\nfour".as_bytes());
        lines.resize(TermSize { cols: 20, rows: 2 });
        lines.output(0, 0, "\r\nfive u\u{308}\r\nsix\r\n7\x1bc8".as_bytes());
        lines.settle();
        assert_eq!(texts(&mut lines), ["one", "two e\u{301}", "three", "four", "five u\u{308}", "8"]);
    }
}

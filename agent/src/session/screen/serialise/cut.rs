//! Characters of two columns that hold only the first one: the second holds another character, or nothing.
//!
//! Only lines that do not wrap make them, at their end: the next character of the same run takes the last column and
//! leaves the wide one alone, one that finds no room has it erased at the end of its run, or a mark behind that one
//! widens the character before. Deleting columns moves them to the left. Writing beside them in a run of its own breaks
//! them, so they are written before the rest of their row, which leaves them out.

use std::fmt::Write;

use super::super::buffer::Buffer;
use super::super::cell::{Cell, Row};
use super::super::width::width;
use super::Writer;

impl Row {
    /// True if the column holds a wide character whose second column holds something else.
    pub(super) fn is_cut(&self, col: usize) -> bool {
        matches!(self.cells.get(col..), Some([wide, next, ..]) if wide.width() == 2 && !next.is_second_half())
    }

    pub(super) fn has_cuts(&self) -> bool {
        (0..self.cells.len()).any(|col| self.is_cut(col))
    }
}

impl Writer<'_> {
    /// Puts all of them where they belong; their rows are still blank.
    pub(super) fn cut_characters(&mut self, buffer: &Buffer) {
        let end = self.terminal.cols.saturating_sub(2);
        for (at, row) in buffer.rows.iter().enumerate() {
            let mut from = 0;
            for col in (0..row.cells.len()).filter(|col| row.is_cut(*col)) {
                self.cut_character(at, &row.cells[col], &row.cells[col + 1]);
                if col < end {
                    self.background(0);
                    self.go_to(at, from);
                    let _ = write!(self.text, "\x1b[{}P", end - col);
                }
                from = col + 2;
            }
        }
    }

    /// Writes one at the end of a row. The cursor is behind it if the last column has a character.
    pub(super) fn cut_character(&mut self, row: usize, wide: &Cell, last: &Cell) {
        let end = self.terminal.cols - 2;
        let mut text = String::new();
        self.terminal.push_text(wide, &mut text);
        let first = text.chars().next();
        let columns = first.map_or(0, |first| width(u32::from(first)));
        let (first, marks) = text.split_at(if columns == 0 { 0 } else { first.map_or(0, char::len_utf8) });
        let is_blank = !last.has_content() && *last != Cell::default();
        if columns == 0 || (columns == 1 && is_blank) {
            // Leaves a blank in the last column, and one before it that the next run makes blank in its own pen.
            self.pen(last.pen());
            self.go_to(row, end);
            self.text.push_str("\x1b[?7l日日\x1b[?7h");
        }
        self.pen(wide.pen());
        self.go_to(row, end + usize::from(columns == 0));
        let _ = match columns {
            2 => write!(self.text, "\x1b[?7l{text}"),
            // A mark gave it the width of a character that did not fit any more.
            _ => write!(self.text, "\x1b[?7l{first}日{marks}"),
        };
        if last.has_content() {
            if last.pen() != wide.pen() {
                self.text.push('x');
                self.pen(last.pen());
            }
            self.terminal.push_text(last, &mut self.text);
        } else if columns == 2 {
            // This one finds no room, and the end of its run erases the half that is in its way.
            self.pen(last.pen());
            self.text.push('日');
        }
        self.text.push_str("\x1b[?7h");
        self.joinable = false;
    }
}

//! Writing characters: wrapping, wide ones, marks that join, insert mode, repetition.

use super::parser::Sink;
use super::store::MAX_STRING_BYTES;
use super::terminal::Terminal;
use super::width;

/// The DEC line drawing set, from 0x60 on.
const GRAPHICS: [char; 31] = [
    '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─', '⎼', '⎽', '├',
    '┤', '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
];

impl Terminal {
    /// Goes on in the next line, which continues this one.
    pub(super) fn wrap(&mut self) {
        let (blank, erased, cols, height) = (self.pen.cell(), self.pen.erased(), self.cols, self.height);
        let is_alternate = self.is_alternate;
        let buffer = self.active_mut();
        let (old_x, mut old_y) = (buffer.x, buffer.y);
        buffer.x = 0;
        if buffer.y == buffer.bottom {
            buffer.scroll_up(1, erased, true);
            old_y = old_y.saturating_sub(1);
            buffer.count_history(!is_alternate);
        } else {
            buffer.y = (buffer.y + 1).min(height - 1);
            buffer.row().is_wrapped = true;
        }
        let buffer = self.active_mut();
        if old_x < cols {
            buffer.rows[old_y].cells[old_x..].fill(blank);
        }
    }

    pub(super) fn write_ascii(&mut self, text: &[u8]) {
        if self.is_graphic || self.modes.soft.insert {
            for byte in text {
                self.write(u32::from(*byte));
            }
            return;
        }
        let template = self.pen.cell();
        let cols = self.cols;
        let mut rest = text;
        while !rest.is_empty() {
            if self.active().x >= cols {
                if self.modes.soft.wrap {
                    self.wrap();
                } else {
                    self.active_mut().x = cols - 1;
                    // Each of them overwrites the last column.
                    rest = &rest[rest.len() - 1..];
                }
            }
            let buffer = self.active_mut();
            let x = buffer.x;
            let (now, later) = rest.split_at(rest.len().min(cols - x));
            for (cell, byte) in buffer.row().cells[x..x + now.len()].iter_mut().zip(now) {
                *cell = template.with(u32::from(*byte), 1);
            }
            buffer.x += now.len();
            rest = later;
        }
        self.joinable = 1;
    }

    /// Writes one character.
    pub(super) fn write(&mut self, code: u32) {
        let code = match code {
            0x60..=0x7e if self.is_graphic => GRAPHICS[code as usize - 0x60] as u32,
            _ => code,
        };
        let mut columns = width::width(code);
        let before = std::mem::replace(&mut self.joinable, columns);
        if columns == 0 && before > 0 {
            self.joinable = before;
            if self.active().x > 0 {
                return self.join(code);
            }
            columns = before;
        }
        let cols = self.cols;
        if self.active().x + columns as usize > cols {
            if self.modes.soft.wrap {
                self.wrap();
            } else {
                self.active_mut().x = cols - 1;
                if columns == 2 {
                    return;
                }
            }
        }
        let template = self.pen.cell();
        let is_insert = self.modes.soft.insert;
        let buffer = self.active_mut();
        let x = buffer.x;
        buffer.x += (columns as usize).max(1);
        // A mark without anything before it takes a cell without width; behind the last one it only moves the cursor.
        if x >= cols {
            return;
        }
        let row = buffer.row();
        if is_insert {
            row.insert(x, columns as usize, template);
        }
        row.cells[x] = template.with(code, columns);
        if columns == 2 {
            row.cells[x + 1] = template.with(0, 0);
        }
    }

    /// Adds a mark to the character before the cursor.
    pub(super) fn join(&mut self, code: u32) {
        let Some(character) = char::from_u32(code) else { return };
        let columns = self.joinable;
        let buffer = self.active();
        let row = &buffer.rows[buffer.y];
        let is_behind_half = row.cells.get(buffer.x - 1).is_some_and(|cell| cell.width() == 0);
        let at = buffer.x.saturating_sub(1 + usize::from(is_behind_half));
        let Some(cell) = row.cells.get(at).copied() else { return };
        let mut text = String::new();
        self.push_text(&cell, &mut text);
        if text.is_empty() {
            let cell = cell.with(code, columns);
            self.active_mut().row().cells[at] = cell;
            return;
        }
        if text.len() + character.len_utf8() > MAX_STRING_BYTES {
            return;
        }
        text.push(character);
        let number = self.store.add_string(text);
        let cell = &mut self.active_mut().row().cells[at];
        *cell = cell.with(cell.code(), columns);
        cell.set_combined(number);
        if self.store.is_full() {
            self.sweep();
        }
    }

    /// REP. The sanitiser allows 512; more than a screen is nothing that anybody sees.
    pub(super) fn repeat(&mut self, count: usize) {
        let columns = self.joinable as usize;
        if columns == 0 {
            return;
        }
        let buffer = self.active();
        let Some(x) = buffer.x.checked_sub(columns) else { return };
        let Some(cell) = buffer.rows[buffer.y].cells.get(x).copied() else { return };
        let mut text = String::new();
        self.push_text(&cell, &mut text);
        if text.is_empty() {
            return;
        }
        self.begin_run();
        for _ in 0..count.min(self.cols * self.height) {
            for character in text.chars() {
                self.write(u32::from(character));
            }
        }
        self.end_run();
    }
}

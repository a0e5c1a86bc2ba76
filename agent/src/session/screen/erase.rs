//! Erasing, and inserting and deleting lines and columns.

use super::cell::Cell;
use super::terminal::Terminal;

impl Terminal {
    pub(super) fn erase_in_row(&mut self, kind: i32, keeps_protected: bool) {
        self.restrict_to(self.cols);
        let (erased, cols) = (self.pen.erased(), self.cols);
        let buffer = self.active_mut();
        let x = buffer.x;
        let row = buffer.row();
        match kind {
            0 => {
                row.replace(x, cols, erased, keeps_protected);
                row.is_wrapped &= x > 0;
            }
            1 => row.replace(0, x + 1, erased, keeps_protected),
            2 => {
                row.replace(0, cols, erased, keeps_protected);
                row.is_wrapped = false;
            }
            _ => {}
        }
    }

    pub(super) fn erase_in_screen(&mut self, kind: i32, keeps_protected: bool) {
        self.restrict_to(self.cols);
        let (erased, cols, height) = (self.pen.erased(), self.cols, self.height);
        let buffer = self.active_mut();
        let (x, y) = (buffer.x, buffer.y);
        let rows = match kind {
            0 => {
                let row = buffer.row();
                row.replace(x, cols, erased, keeps_protected);
                row.is_wrapped &= x > 0;
                y + 1..height
            }
            1 => {
                let row = buffer.row();
                row.replace(0, x + 1, erased, keeps_protected);
                row.is_wrapped = false;
                // xterm.js counts this row from the beginning of its history.
                if x + 1 >= cols && buffer.history == 0 && y + 1 < height {
                    buffer.rows[y + 1].is_wrapped = false;
                }
                0..y
            }
            2 => {
                // Nobody can scroll back to it here, but in other terminals: it counts as printed.
                buffer.hand_out(height, true);
                0..height
            }
            3 => {
                if let Some(gone) = &mut buffer.gone {
                    gone.retain(|gone| !gone.is_erased);
                }
                buffer.saved = buffer.saved_here();
                buffer.history = 0;
                return;
            }
            _ => return,
        };
        for row in &mut buffer.rows[rows] {
            row.replace(0, cols, erased, keeps_protected);
            row.is_wrapped = false;
        }
    }

    pub(super) fn insert_lines(&mut self, count: usize) {
        self.restrict();
        let erased = self.pen.erased();
        let buffer = self.active_mut();
        if buffer.is_in_region() {
            buffer.move_down(buffer.y, count, erased);
            buffer.x = 0;
        }
    }

    pub(super) fn delete_lines(&mut self, count: usize) {
        self.restrict();
        let erased = self.pen.erased();
        let buffer = self.active_mut();
        if buffer.is_in_region() {
            buffer.move_up(buffer.y, count, erased);
            buffer.x = 0;
        }
    }

    /// SL, SR, DECIC and DECDC: every row of the region, if the cursor is in it.
    pub(super) fn shift_columns(&mut self, x: usize, count: usize, is_insert: bool) {
        let erased = self.pen.erased();
        let buffer = self.active_mut();
        if !buffer.is_in_region() {
            return;
        }
        for row in &mut buffer.rows[buffer.top..=buffer.bottom] {
            if is_insert {
                row.insert(x, count, erased);
            } else {
                row.delete(x, count, erased);
            }
            row.is_wrapped = false;
        }
    }

    pub(super) fn alignment_pattern(&mut self) {
        self.go_to(0, 0);
        let cell = Cell { fg: self.pen.fg, bg: self.pen.bg, ..Cell::default() }.with(u32::from(b'E'), 1);
        let buffer = self.active_mut();
        let first = buffer.y;
        for row in &mut buffer.rows[first..] {
            row.fill(cell, false);
        }
        self.go_to(0, 0);
    }
}

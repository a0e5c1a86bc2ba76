//! Moving the cursor: by rows and columns, line feeds, tabs, and to where it was saved.

use super::buffer::Saved;
use super::terminal::Terminal;

impl Terminal {
    /// Keeps the cursor on the screen; within the region in origin mode. `last` is the largest column.
    pub(super) fn restrict_to(&mut self, last: usize) {
        let (height, is_origin) = (self.height, self.modes.soft.origin);
        let buffer = self.active_mut();
        buffer.x = buffer.x.min(last);
        buffer.y =
            if is_origin { buffer.y.clamp(buffer.top, buffer.bottom) } else { buffer.y.min(height - 1) };
    }

    pub(super) fn restrict(&mut self) {
        self.restrict_to(self.cols - 1);
    }

    pub(super) fn go_to(&mut self, x: usize, y: usize) {
        let is_origin = self.modes.soft.origin;
        let buffer = self.active_mut();
        buffer.x = x;
        buffer.y = if is_origin { buffer.top + y } else { y };
        self.restrict();
    }

    pub(super) fn move_by(&mut self, dx: isize, dy: isize) {
        self.restrict();
        let (x, y) = (self.active().x, self.active().y);
        let is_origin = self.modes.soft.origin;
        // xterm.js adds the first row of the region to relative moves as well; below it, rows may be negative.
        let top = if is_origin { self.active().top } else { 0 };
        let y = (y + top).saturating_add_signed(dy);
        let buffer = self.active_mut();
        (buffer.x, buffer.y) = (x.saturating_add_signed(dx), y);
        self.restrict();
    }

    pub(super) fn up(&mut self, count: usize) {
        let buffer = self.active();
        let count = buffer.y.checked_sub(buffer.top).map_or(count, |room| count.min(room));
        self.move_by(0, -(count as isize));
    }

    pub(super) fn down(&mut self, count: usize) {
        let buffer = self.active();
        let count = buffer.bottom.checked_sub(buffer.y).map_or(count, |room| count.min(room));
        self.move_by(0, count as isize);
    }

    /// One row down, scrolling at the end of the region. `ends_wrap`: the new row continues nothing.
    pub(super) fn feed(&mut self, ends_wrap: bool) {
        let (erased, height, is_alternate) = (self.pen.erased(), self.height, self.is_alternate);
        let buffer = self.active_mut();
        if buffer.y == buffer.bottom {
            buffer.scroll_up(1, erased, false);
            buffer.count_history(!is_alternate);
        } else if buffer.y + 1 < height {
            buffer.y += 1;
            if ends_wrap {
                buffer.row().is_wrapped = false;
            }
        }
    }

    pub(super) fn line_feed(&mut self) {
        if self.modes.newline {
            self.active_mut().x = 0;
        }
        self.feed(true);
        let cols = self.cols;
        let buffer = self.active_mut();
        buffer.x -= usize::from(buffer.x >= cols);
    }

    pub(super) fn index(&mut self) {
        self.restrict();
        self.feed(false);
        self.restrict();
    }

    pub(super) fn reverse_index(&mut self) {
        self.restrict();
        let erased = self.pen.erased();
        let buffer = self.active_mut();
        if buffer.y == buffer.top {
            buffer.move_down(buffer.top, 1, erased);
        } else {
            buffer.y = buffer.y.saturating_sub(1);
            self.restrict();
        }
    }

    pub(super) fn backspace(&mut self) {
        if !self.modes.soft.reverse_wrap {
            self.restrict();
            let buffer = self.active_mut();
            buffer.x = buffer.x.saturating_sub(1);
            return;
        }
        let cols = self.cols;
        self.restrict_to(cols);
        let buffer = self.active_mut();
        if buffer.x > 0 {
            buffer.x -= 1;
        } else if buffer.y > buffer.top && buffer.y <= buffer.bottom && buffer.row().is_wrapped {
            buffer.row().is_wrapped = false;
            buffer.y -= 1;
            buffer.x = cols - 1;
            let cell = buffer.row().cells[cols - 1];
            if cell.width() > 0 && !cell.has_content() {
                buffer.x -= 1;
            }
        }
        self.restrict();
    }

    pub(super) fn tab(&mut self, count: usize) {
        let cols = self.cols;
        let buffer = self.active_mut();
        if buffer.x < cols {
            for _ in 0..count.min(cols) {
                buffer.x = buffer.next_tab(cols);
            }
        }
    }

    pub(super) fn tab_back(&mut self, count: usize) {
        let cols = self.cols;
        let buffer = self.active_mut();
        if buffer.x < cols {
            for _ in 0..count.min(cols) {
                buffer.x = buffer.previous_tab();
            }
        }
    }

    pub(super) fn set_tab(&mut self) {
        let buffer = self.active_mut();
        if let Some(stop) = buffer.tabs.get_mut(buffer.x) {
            *stop = true;
        }
    }

    pub(super) fn clear_tabs(&mut self, kind: i32) {
        let buffer = self.active_mut();
        match kind {
            0 => {
                if let Some(stop) = buffer.tabs.get_mut(buffer.x) {
                    *stop = false;
                }
            }
            3 => buffer.tabs.fill(false),
            _ => {}
        }
    }

    pub(super) fn save_cursor(&mut self) {
        let (pen, is_graphic, cols) = (self.pen, self.is_graphic, self.cols);
        let buffer = self.active_mut();
        // Restoring never brings back a cursor behind the last column.
        let x = buffer.x.min(cols - 1);
        buffer.saved = Saved { x, y: buffer.history + buffer.y, fg: pen.fg, bg: pen.bg, is_graphic };
    }

    pub(super) fn restore_cursor(&mut self) {
        let buffer = self.active_mut();
        let saved = buffer.saved_here();
        (buffer.x, buffer.y) = (saved.x, saved.y);
        (self.pen.fg, self.pen.bg) = (saved.fg, saved.bg);
        self.is_graphic = saved.is_graphic;
        self.restrict();
    }

    pub(super) fn set_region(&mut self) {
        let top = self.params.count(0);
        let bottom = match usize::try_from(self.params.get(1)) {
            Ok(bottom @ 1..) if self.params.len() > 1 && bottom <= self.height => bottom,
            _ => self.height,
        };
        if bottom > top {
            let buffer = self.active_mut();
            (buffer.top, buffer.bottom) = (top - 1, bottom - 1);
            self.go_to(0, 0);
        }
    }
}

//! A new size: rows are added and removed at the bottom, and wrapped lines are wrapped anew, as in xterm.js.
//!
//! Only the normal screen wraps anew. What has scrolled away does not come back, and what does not fit any more has
//! scrolled away too (viewers have it in their history).

use super::buffer::Buffer;
use super::cell::{Cell, Row};
use super::terminal::Terminal;

impl Terminal {
    pub(super) fn resize(&mut self, cols: usize, height: usize) {
        if (cols, height) == (self.cols, self.height) {
            return;
        }
        let old_cols = self.cols;
        for (buffer, wraps_anew) in [(&mut self.normal, true), (&mut self.alternate, false)] {
            buffer.set_height(height);
            if !buffer.rows.is_empty() {
                for row in &mut buffer.rows {
                    if cols > old_cols {
                        row.cells.resize(cols, Cell::default());
                    }
                }
                (buffer.x, buffer.saved.x) = (buffer.x.min(cols - 1), buffer.saved.x.min(cols - 1));
                if wraps_anew && cols > old_cols {
                    buffer.widen(old_cols, cols);
                } else if wraps_anew && cols < old_cols {
                    buffer.narrow(old_cols, cols);
                }
                for row in &mut buffer.rows {
                    row.cells.resize(cols, Cell::default());
                    cut_wide(row);
                }
            }
            buffer.saved.x = buffer.saved.x.min(cols - 1);
        }
        (self.cols, self.height) = (cols, height);
        self.tabs_for(cols);
        self.joinable = 0;
    }
}

/// A wide character that the edge has cut is gone.
fn cut_wide(row: &mut Row) {
    if let Some(last) = row.cells.last_mut()
        && last.width() == 2
    {
        *last = Cell::default();
    }
}

impl Buffer {
    fn set_height(&mut self, height: usize) {
        if let Some(cols) = self.rows.first().map(|row| row.cells.len()) {
            while self.rows.len() > height {
                if self.rows.len() > self.y + 1 {
                    self.rows.pop();
                } else {
                    self.drop_first();
                    self.y -= 1;
                }
            }
            while self.rows.len() < height {
                self.rows.push(Row::new(cols, Cell::default()));
            }
            self.top = 0;
        }
        self.y = self.y.min(height - 1);
        self.bottom = height - 1;
        self.top = self.top.min(self.bottom - 1);
    }

    fn drop_first(&mut self) {
        self.hand_out(1, false);
        self.rows.remove(0);
        self.history += 1;
    }

    /// The first and the last row of the line that begins at `first`.
    fn line(&self, first: usize) -> usize {
        let continued = self.rows[first + 1..].iter().take_while(|row| row.is_wrapped).count();
        first + continued
    }

    /// Cells of a whole line. A column left free because a wide character did not fit is not part of it.
    fn cells_of(&self, first: usize, last: usize, cols: usize) -> Vec<Cell> {
        let mut cells = Vec::new();
        for at in first..=last {
            let row = &self.rows[at];
            let length = if at == last {
                row.used().min(cols)
            } else {
                let end = row.cells[cols - 1];
                let is_left_free = !end.has_content() && end.width() == 1 && self.rows[at + 1].width(0) == 2;
                cols - usize::from(is_left_free)
            };
            cells.extend_from_slice(&row.cells[..length]);
        }
        cells
    }

    /// Wraps the lines anew for more columns. The line of the cursor stays as it is: its program redraws it.
    fn widen(&mut self, old_cols: usize, cols: usize) {
        let mut first = 0;
        while first + 1 < self.rows.len() {
            let last = self.line(first);
            if last == first || (first..=last).contains(&self.y) {
                first = last + 1;
                continue;
            }
            let cells = self.cells_of(first, last, old_cols);
            let new = wrapped(&cells, cols);
            let removed = (last + 1 - first).saturating_sub(new.len());
            let count = new.len();
            self.rows.splice(first..=last, new);
            for _ in 0..removed {
                self.y = self.y.saturating_sub(1);
                self.rows.push(Row::new(cols, Cell::default()));
            }
            self.saved.y = self.saved.y.saturating_sub(removed);
            first += count;
        }
    }

    /// Wraps the lines anew for fewer columns, from the last one up. The line of the cursor stays as it is.
    fn narrow(&mut self, old_cols: usize, cols: usize) {
        let height = self.rows.len();
        let mut end = height;
        while end > 0 {
            let last = end - 1;
            let first = (0..=last).rev().find(|at| !self.rows[*at].is_wrapped).unwrap_or(0);
            end = first;
            let needs_no_change = first == last && self.rows[last].used() <= cols;
            if needs_no_change || (first..=last).contains(&self.y) {
                continue;
            }
            let cells = self.cells_of(first, last, old_cols);
            let mut new = wrapped(&cells, cols);
            new[0].is_wrapped = self.rows[first].is_wrapped;
            let added = new.len().saturating_sub(last + 1 - first);
            // Fewer rows cannot come out of fewer columns, but for rows that ended in blanks.
            while new.len() < last + 1 - first {
                let mut row = Row::new(cols, Cell::default());
                row.is_wrapped = true;
                new.push(row);
            }
            self.rows.splice(first..=last, new);
            self.saved.y = (self.saved.y + added).min(self.history + height - 1);
            for _ in 0..added {
                if self.y < height - 1 {
                    self.y += 1;
                    self.rows.pop();
                } else {
                    self.drop_first();
                    end = end.saturating_sub(1);
                }
            }
        }
    }
}

/// A line in rows of `cols` columns; wide characters are not cut.
fn wrapped(cells: &[Cell], cols: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut rest = cells;
    while !rest.is_empty() || rows.is_empty() {
        let mut length = rest.len().min(cols);
        if length == cols && rest[length - 1].width() == 2 {
            length -= 1;
        }
        let (now, later) = rest.split_at(length);
        let mut row = Row::new(cols, Cell::default());
        row.cells[..length].copy_from_slice(now);
        row.is_wrapped = !rows.is_empty();
        rows.push(row);
        rest = later;
    }
    rows
}

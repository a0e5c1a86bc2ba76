//! One of the two screens: its rows, cursor, scroll region, tab stops and saved cursor.
//!
//! There is no history: rows that scroll away are counted, and handed out if somebody asked for them; else they are gone.
//! Every method keeps the cursor within the rows.

use super::cell::{Cell, Row};

/// Rows of history that viewers keep; what scrolls away beyond is not counted. The web app's setting.
pub(super) const MAX_HISTORY: usize = 20_000;

/// What DECSC keeps. As in xterm.js: no rarer attributes, no origin mode, and of the charsets only the effective one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Saved {
    pub(super) x: usize,
    /// Counted from the beginning of the history, so that it goes along when rows scroll away.
    pub(super) y: usize,
    pub(super) fg: u32,
    pub(super) bg: u32,
    pub(super) is_graphic: bool,
}

/// A row that has left the screen.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    /// Its cells that belong to the line, and if it continues another one.
    pub(super) row: Row,
    /// Its line goes on in the row that was below.
    pub(super) continues: bool,
    /// It was erased, and did not scroll away.
    pub(super) is_erased: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Buffer {
    /// Empty while the alternate screen is not shown.
    pub(super) rows: Vec<Row>,
    /// Column of the cursor; the number of columns if the next character wraps.
    pub(super) x: usize,
    pub(super) y: usize,
    /// First and last row of the scroll region.
    pub(super) top: usize,
    pub(super) bottom: usize,
    pub(super) tabs: Vec<bool>,
    pub(super) saved: Saved,
    /// Rows that have scrolled into the history that viewers have.
    pub(super) history: usize,
    /// What has left the screen and was not taken yet; nothing is kept without a list.
    pub(super) gone: Option<Vec<Gone>>,
}

impl Buffer {
    pub(super) fn new(cols: usize, height: usize) -> Self {
        Self {
            rows: Vec::new(),
            x: 0,
            y: 0,
            top: 0,
            bottom: height - 1,
            tabs: default_tabs(cols),
            saved: Saved::default(),
            history: 0,
            gone: None,
        }
    }

    /// Makes the rows, if there are none.
    pub(super) fn fill(&mut self, cols: usize, height: usize, fill: Cell) {
        if self.rows.is_empty() {
            self.rows = vec![Row::new(cols, fill); height];
        }
    }

    /// Forgets everything but the saved cursor.
    pub(super) fn clear(&mut self, cols: usize, height: usize) {
        *self = Self { saved: self.saved, ..Self::new(cols, height) };
    }

    /// A row has scrolled away from the top of the screen, if the region begins there.
    pub(super) fn count_history(&mut self, has_history: bool) {
        if has_history && self.top == 0 {
            self.history = (self.history + 1).min(MAX_HISTORY);
        }
    }

    /// Hands out the first `count` rows, if somebody wants them.
    pub(super) fn hand_out(&mut self, count: usize, is_erased: bool) {
        let Some(gone) = &mut self.gone else { return };
        for (at, row) in self.rows.iter().enumerate().take(count) {
            let next = self.rows.get(at + 1).filter(|next| next.is_wrapped);
            let cells = next.map_or(&*row.cells, |next| row.before(next)).to_vec();
            let row = Row { cells, is_wrapped: row.is_wrapped };
            gone.push(Gone { row, continues: next.is_some(), is_erased });
        }
    }

    /// The saved cursor with a row of the screen.
    pub(super) fn saved_here(&self) -> Saved {
        Saved { y: self.saved.y.saturating_sub(self.history), ..self.saved }
    }

    pub(super) fn row(&mut self) -> &mut Row {
        &mut self.rows[self.y]
    }

    /// Moves the rows of the region up; the new last one continues the one above if `is_wrapped`.
    pub(super) fn scroll_up(&mut self, count: usize, fill: Cell, is_wrapped: bool) {
        self.move_up(self.top, count, fill);
        self.rows[self.bottom].is_wrapped = is_wrapped;
    }

    /// Moves the rows from `from` to the end of the region up.
    pub(super) fn move_up(&mut self, from: usize, count: usize, fill: Cell) {
        if from == 0 {
            self.hand_out(count.min(self.bottom + 1), false);
        }
        let region = &mut self.rows[from..=self.bottom];
        let count = count.min(region.len());
        region.rotate_left(count);
        let kept = region.len() - count;
        region[kept..].iter_mut().for_each(|row| row.fill(fill, false));
    }

    /// Moves the rows from `from` to the end of the region down.
    pub(super) fn move_down(&mut self, from: usize, count: usize, fill: Cell) {
        let region = &mut self.rows[from..=self.bottom];
        let count = count.min(region.len());
        region.rotate_right(count);
        region[..count].iter_mut().for_each(|row| row.fill(fill, false));
    }

    pub(super) fn is_in_region(&self) -> bool {
        (self.top..=self.bottom).contains(&self.y)
    }

    pub(super) fn next_tab(&self, cols: usize) -> usize {
        let after = self.tabs.iter().skip(self.x + 1).position(|is_stop| *is_stop);
        after.map_or(cols - 1, |distance| (self.x + 1 + distance).min(cols - 1))
    }

    pub(super) fn previous_tab(&self) -> usize {
        self.tabs[..self.x.min(self.tabs.len())].iter().rposition(|is_stop| *is_stop).unwrap_or(0)
    }

    /// Adds the default stops of new columns.
    pub(super) fn resize_tabs(&mut self, cols: usize) {
        let kept = self.tabs.len().min(cols);
        self.tabs.truncate(cols);
        self.tabs.extend_from_slice(&default_tabs(cols)[kept..]);
    }
}

pub(super) fn default_tabs(cols: usize) -> Vec<bool> {
    (0..cols).map(|col| col % 8 == 0).collect()
}

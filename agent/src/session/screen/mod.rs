//! The screen of a session: a terminal model that follows the output and can be written down as a snapshot.
//!
//! Invariants: a snapshot reflects exactly the bytes processed so far, also when they end inside an escape
//! sequence or a character; nothing a program prints can make the model panic the caller (a caught panic leaves
//! [`ScreenModel::is_broken`] set, and the owner feeds the history again). It knows no offsets, viewers or IO.

mod ground;
mod serialise;
mod tracker;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::Flags;
use alacritty_terminal::vte::ansi::Processor;
use claudenest_shared::session::TermSize;

use ground::GroundTracker;
use tracker::{Immediate, Tracker};

/// What a screen model can do. Kept small so that an engine can be replaced and two can be compared.
pub trait ScreenModel: Send {
    /// Follows output. Cost: about 200 MB/s.
    fn process(&mut self, bytes: &[u8]);
    /// Changes the size; text is reflowed as terminals do.
    fn resize(&mut self, size: TermSize);
    /// Escape sequences that bring a reset terminal of the same size into this state. Typically 2 to 4 KB.
    fn snapshot(&mut self) -> Vec<u8>;
    /// The visible rows as text.
    fn text(&self) -> ScreenText;
    /// The size.
    fn size(&self) -> TermSize;
    /// The title, without control characters.
    fn title(&self) -> Option<&str>;
    /// What the program has asked the terminal for.
    fn modes(&self) -> Modes;
    /// True after a caught panic: the state is lost, and the history must be fed into a new model.
    fn is_broken(&self) -> bool;
}

/// A screen as text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScreenText {
    /// Rows from top to bottom, without trailing blanks and control characters.
    pub rows: Vec<String>,
    /// Cursor column, from 0.
    pub cursor_col: u16,
    /// Cursor row, from 0.
    pub cursor_row: u16,
}

/// Modes that others need to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Modes {
    /// Pastes are bracketed (2004).
    pub bracketed_paste: bool,
    /// Cursor keys send application codes (DECCKM).
    pub app_cursor: bool,
    /// The keypad sends application codes (DECKPAM).
    pub app_keypad: bool,
    /// Focus changes are reported (1004).
    pub focus_reports: bool,
    /// Any mouse reporting is on.
    pub mouse_reports: bool,
    /// The alternate screen is up.
    pub alternate_screen: bool,
    /// Cursor addressing is relative to the scroll region (DECOM).
    pub origin: bool,
    /// The cursor is shown (DECTCEM).
    pub cursor_visible: bool,
    /// Lines wrap (DECAWM).
    pub autowrap: bool,
    /// Insert mode (IRM).
    pub insert: bool,
    /// A synchronized update is open (2026).
    pub synchronized: bool,
    /// Flags of the kitty keyboard protocol that are in force.
    pub kitty_flags: u8,
}

/// The model on `alacritty_terminal`, with our own serializer.
///
/// Measured against xterm.js on streams like Claude Code's: 399 of 400 exact, `vt100` 304 of 400.
pub struct Model {
    processor: Processor<Immediate>,
    tracker: Tracker,
    ground: GroundTracker,
    is_broken: bool,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("size", &self.size()).field("is_broken", &self.is_broken).finish()
    }
}

impl Model {
    /// An empty screen.
    pub fn new(size: TermSize) -> Self {
        let size = TermSize::clamped(size.cols, size.rows);
        Self {
            processor: Processor::new(),
            tracker: Tracker::new(size),
            ground: GroundTracker::default(),
            is_broken: false,
        }
    }

    /// Runs `work`; a panic in the engine breaks the model and nothing else.
    fn guarded<T>(&mut self, fallback: T, work: impl FnOnce(&mut Self) -> T) -> T {
        if self.is_broken {
            return fallback;
        }
        // The state behind a caught panic is never used again, so it need not be unwind safe.
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(value) => value,
            Err(_) => {
                let size = self.tracker.size();
                tracing::error!("the terminal model failed and will be rebuilt");
                *self = Self { is_broken: true, ..Self::new(size) };
                fallback
            }
        }
    }
}

impl ScreenModel for Model {
    fn process(&mut self, bytes: &[u8]) {
        self.guarded((), |model| {
            model.ground.process(bytes);
            model.processor.advance(&mut model.tracker, bytes);
            if model.processor.sync_timeout().take_begin() {
                model.tracker.begin_synchronized();
            }
        });
    }

    fn resize(&mut self, size: TermSize) {
        self.guarded((), |model| model.tracker.resize(TermSize::clamped(size.cols, size.rows)));
    }

    fn snapshot(&mut self) -> Vec<u8> {
        self.guarded(Vec::new(), |model| {
            let mut out = serialise::screen(&mut model.tracker);
            out.extend_from_slice(model.ground.pending());
            out
        })
    }

    fn text(&self) -> ScreenText {
        let grid = self.tracker.term.grid();
        let rows = (0..grid.screen_lines())
            .map(|line| {
                let row = &grid[Line(line as i32)];
                let mut text = String::new();
                let mut next = 0;
                while next < grid.columns() {
                    let (cell, col) = (&row[Column(next)], next);
                    next += if cell.flags.contains(Flags::WIDE_CHAR) { 2 } else { 1 };
                    let is_half = cell.flags.contains(Flags::WIDE_CHAR) && col + 1 == grid.columns();
                    if is_half || cell.c.is_control() {
                        text.push(' ');
                        continue;
                    }
                    text.push(cell.c);
                    text.extend(cell.zerowidth().into_iter().flatten());
                }
                text.truncate(text.trim_end().len());
                text
            })
            .collect();
        let cursor = grid.cursor.point;
        ScreenText {
            rows,
            cursor_col: u16::try_from(cursor.column.0).unwrap_or(0),
            cursor_row: u16::try_from(cursor.line.0).unwrap_or(0),
        }
    }

    fn size(&self) -> TermSize {
        self.tracker.size()
    }

    fn title(&self) -> Option<&str> {
        self.tracker.title.as_deref()
    }

    fn modes(&self) -> Modes {
        let mode = self.tracker.term.mode();
        Modes {
            bracketed_paste: mode.contains(TermMode::BRACKETED_PASTE),
            app_cursor: mode.contains(TermMode::APP_CURSOR),
            app_keypad: mode.contains(TermMode::APP_KEYPAD),
            focus_reports: mode.contains(TermMode::FOCUS_IN_OUT),
            mouse_reports: mode.intersects(TermMode::MOUSE_MODE),
            alternate_screen: mode.contains(TermMode::ALT_SCREEN),
            origin: mode.contains(TermMode::ORIGIN),
            cursor_visible: mode.contains(TermMode::SHOW_CURSOR),
            autowrap: mode.contains(TermMode::LINE_WRAP),
            insert: mode.contains(TermMode::INSERT),
            synchronized: self.tracker.is_synchronized,
            kitty_flags: self.tracker.kitty_flags(),
        }
    }

    fn is_broken(&self) -> bool {
        self.is_broken
    }
}

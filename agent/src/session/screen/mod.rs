//! The screen of a session: a terminal model that follows the output and can be written down as a snapshot.
//!
//! Invariants: a snapshot reflects exactly the bytes processed so far, also when they end inside an escape
//! sequence or a character; nothing a program prints can make the model panic the caller (a caught panic leaves
//! [`ScreenModel::is_broken`] set, and the owner feeds the history again). It knows no offsets, viewers or IO.

mod buffer;
mod cell;
mod dispatch;
mod erase;
mod modes;
mod motion;
mod params;
mod parser;
mod private;
mod reflow;
mod serialise;
mod sgr;
mod store;
mod terminal;
mod width;
mod write;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use claudenest_shared::session::TermSize;

use super::sanitise::{Mode, ModeState};
use buffer::Gone;
use modes::Mouse;
use parser::Parser;
use terminal::Terminal;
pub(super) use width::width as columns;

#[cfg(test)]
thread_local! {
    /// Tests: what every model of this thread panics at.
    pub(super) static PANICS_AT: std::cell::Cell<Option<&'static [u8]>> = const { std::cell::Cell::new(None) };
}

/// What a screen model can do. Kept small so that an engine can be replaced and two can be compared.
pub trait ScreenModel: Send {
    /// Follows output.
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
    /// What DECRQM is told about a mode.
    fn mode_state(&self, mode: Mode) -> ModeState;
    /// The number of rows, if output can scroll everything away: no sequence is unfinished, all rows scroll, and
    /// nobody counts them.
    fn scrolls_whole(&self) -> Option<usize>;
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

/// A row as a part of a line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RowText {
    /// Its text, with trailing blanks.
    pub text: String,
    /// The line began above.
    pub is_wrapped: bool,
    /// The line goes on below.
    pub continues: bool,
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

/// The model: a terminal with the semantics of xterm.js, and our serializer.
#[derive(Debug)]
pub struct Model {
    parser: Parser,
    terminal: Terminal,
    is_broken: bool,
    /// Tests: what `process` panics at.
    #[cfg(test)]
    pub(super) panics_at: Option<&'static [u8]>,
}

impl Model {
    /// An empty screen.
    pub fn new(size: TermSize) -> Self {
        let size = TermSize::clamped(size.cols, size.rows);
        Self {
            parser: Parser::default(),
            terminal: Terminal::new(usize::from(size.cols), usize::from(size.rows)),
            is_broken: false,
            #[cfg(test)]
            panics_at: None,
        }
    }

    /// From now on keeps the rows that leave the top of the normal screen until [`Self::take_gone`] is called. They are
    /// not counted: call it often.
    pub fn keep_gone(&mut self) {
        self.terminal.normal.gone.get_or_insert_default();
    }

    /// The rows that have left the screen since the last call, from the top; none without [`Self::keep_gone`].
    pub fn take_gone(&mut self) -> Vec<RowText> {
        let gone = self.terminal.normal.gone.as_mut().map(std::mem::take).unwrap_or_default();
        let text = |gone: Gone| RowText {
            text: self.terminal.text_of(&gone.row.cells),
            is_wrapped: gone.row.is_wrapped,
            continues: gone.continues,
        };
        gone.into_iter().map(text).collect()
    }

    /// The visible rows as parts of lines.
    pub fn rows(&self) -> impl Iterator<Item = RowText> {
        let rows = &self.terminal.active().rows;
        rows.iter().enumerate().map(|(at, row)| {
            let next = rows.get(at + 1).filter(|next| next.is_wrapped);
            let cells = next.map_or(&*row.cells, |next| row.before(next));
            let text = self.terminal.text_of(cells);
            RowText { text, is_wrapped: row.is_wrapped, continues: next.is_some() }
        })
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
                let size = self.size();
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
            #[cfg(test)]
            if let Some(bad) = model.panics_at.or(PANICS_AT.get()) {
                assert!(!bytes.windows(bad.len()).any(|window| window == bad), "the test wants a panic");
            }
            model.terminal.process(&mut model.parser, bytes);
        });
    }

    fn resize(&mut self, size: TermSize) {
        let size = TermSize::clamped(size.cols, size.rows);
        self.guarded((), |model| model.terminal.resize(usize::from(size.cols), usize::from(size.rows)));
    }

    fn snapshot(&mut self) -> Vec<u8> {
        self.guarded(Vec::new(), |model| {
            let mut out = serialise::screen(&model.terminal);
            out.extend_from_slice(model.parser.pending());
            out
        })
    }

    fn text(&self) -> ScreenText {
        let buffer = self.terminal.active();
        let rows = buffer.rows.iter().map(|row| {
            let mut text = self.terminal.text_of(&row.cells);
            text.truncate(text.trim_end().len());
            text
        });
        let last = self.terminal.cols - 1;
        ScreenText {
            rows: rows.collect(),
            // Both are within the size, and that within u16.
            cursor_col: u16::try_from(buffer.x.min(last)).unwrap_or(0),
            cursor_row: u16::try_from(buffer.y).unwrap_or(0),
        }
    }

    fn size(&self) -> TermSize {
        // Both were within u16 when they were set.
        TermSize::clamped(self.terminal.cols as u16, self.terminal.height as u16)
    }

    fn title(&self) -> Option<&str> {
        self.terminal.modes.title.as_deref()
    }

    fn modes(&self) -> Modes {
        let (modes, soft) = (&self.terminal.modes, &self.terminal.modes.soft);
        Modes {
            bracketed_paste: soft.bracketed_paste,
            app_cursor: soft.app_cursor,
            app_keypad: soft.app_keypad,
            focus_reports: soft.focus,
            mouse_reports: modes.mouse != Mouse::None,
            alternate_screen: self.terminal.is_alternate,
            origin: soft.origin,
            cursor_visible: !modes.is_cursor_hidden,
            autowrap: soft.wrap,
            insert: soft.insert,
            synchronized: soft.synchronized,
            kitty_flags: modes.keyboard.current,
        }
    }

    fn mode_state(&self, mode: Mode) -> ModeState {
        self.terminal.mode_state(mode)
    }

    fn scrolls_whole(&self) -> Option<usize> {
        let buffer = self.terminal.active();
        let is_whole = buffer.top == 0 && buffer.bottom + 1 == self.terminal.height;
        // As long as the history grows, each row that scrolls away is counted.
        let is_counted = !self.terminal.is_alternate && buffer.history < buffer::MAX_HISTORY;
        (is_whole && !is_counted && self.parser.pending().is_empty()).then_some(self.terminal.height)
    }

    fn is_broken(&self) -> bool {
        self.is_broken
    }
}

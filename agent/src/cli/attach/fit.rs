//! A session of another size than this terminal: its screen is drawn from a model, reflowed or cut, because its raw
//! output would put everything in wrong places.

use claudenest_shared::session::TermSize;
use tokio::time::{Duration, Instant};

use super::terminal;
use crate::session::screen::{Model, ScreenModel};

/// A size that still differs after this long stays: longer than the machine takes to follow a window.
pub(in crate::cli) const PATIENCE: Duration = Duration::from_millis(700);
/// Between two drawings: each is a whole screen.
const PACE: Duration = Duration::from_millis(100);

/// The session's screen, to be drawn into a terminal of another size.
pub(in crate::cli) struct Fit {
    model: Model,
    last: Vec<u8>,
    draw_at: Option<Instant>,
}

impl Fit {
    /// Begins with a snapshot of a session of this size.
    pub(in crate::cli) fn new(size: TermSize, snapshot: &[u8]) -> Self {
        let mut fit = Self { model: Model::new(size), last: Vec::new(), draw_at: None };
        fit.process(snapshot);
        fit
    }

    /// Follows output.
    pub(in crate::cli) fn process(&mut self, bytes: &[u8]) {
        self.model.process(bytes);
        self.draw_soon();
    }

    /// The session has another size.
    pub(in crate::cli) fn resize(&mut self, size: TermSize) {
        self.model.resize(size);
        self.draw_soon();
    }

    /// True if the model has failed and needs a snapshot.
    pub(in crate::cli) fn is_broken(&self) -> bool {
        self.model.is_broken()
    }

    /// This terminal has another size.
    pub(in crate::cli) fn draw_soon(&mut self) {
        self.draw_at.get_or_insert_with(|| Instant::now() + PACE);
    }

    /// When [`Self::draw`] is to be called.
    pub(in crate::cli) fn deadline(&self) -> Option<Instant> {
        self.draw_at
    }

    /// The screen for a terminal of this size; `None` if it shows that already.
    pub(in crate::cli) fn draw(&mut self, terminal: TermSize) -> Option<Vec<u8>> {
        self.draw_at = None;
        let mut copy = Model::new(self.model.size());
        copy.process(&self.model.snapshot());
        copy.resize(terminal);
        let screen = copy.snapshot();
        if screen == self.last {
            return None;
        }
        let mut bytes = terminal::blank();
        bytes.extend_from_slice(b"\x1b[?2026h");
        bytes.extend_from_slice(&screen);
        bytes.extend_from_slice(b"\x1b[?2026l");
        self.last = screen;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(cols: u16, rows: u16) -> TermSize {
        TermSize { cols, rows }
    }

    #[test]
    fn a_wide_screen_is_readable_in_a_small_terminal() {
        let mut fit = Fit::new(size(60, 10), b"");
        fit.process(b"\x1b[5;1Ha line that is longer than thirty columns\r\nsecond \x1b[31mred\x1b[0m line");
        let bytes = fit.draw(size(30, 6)).unwrap();
        assert!(fit.draw(size(30, 6)).is_none(), "nothing has changed");
        let mut small = Model::new(size(30, 6));
        small.process(&bytes);
        let text = small.text();
        assert_eq!(text.rows.len(), 6);
        assert!(text.rows.join("").contains("longer than thirty columns"), "{text:?}");
        assert!(text.rows.iter().any(|row| row == "second red line"), "{text:?}");
    }
}

//! Writes a screen down as escape sequences for a reset terminal of the same size.
//!
//! Order matters: the normal screen behind an alternate one, then contents while every mode still has its reset value,
//! then what is not seen (tab stops, modes, colours), then what moves the cursor (saved cursor, scroll region, origin
//! mode), and last the cursor. Where the next mark may join the last character, that character is written last of all.

mod cut;

use std::fmt::Write;

use super::buffer::{Buffer, Saved, default_tabs};
use super::cell::{
    BLINK, BOLD, COLOUR, Cell, DIM, Ext, HAS_EXT, INVERSE, INVISIBLE, ITALIC, KIND, KIND_16, KIND_256,
    OVERLINE, PROTECTED, Pen, Row, STRIKE, UNDERLINE,
};
use super::modes::{Keyboard, SoftModes};
use super::sgr::UNDERLINE_RESET;
use super::terminal::Terminal;

/// A link that nobody will see; the number of none.
const ANY_LINK: u32 = u32::MAX;

/// The whole screen.
pub(super) fn screen(terminal: &Terminal) -> Vec<u8> {
    let mut out = Writer {
        terminal,
        text: String::with_capacity(4096),
        pen: Pen::default(),
        joinable: false,
        has_saved: false,
    };
    // A viewer's reset leaves these as they were.
    out.text.push_str("\x1b[20l\x1b[?12l\x1b[?25h");
    if terminal.is_alternate {
        out.contents(&terminal.normal);
        out.tab_stops(&terminal.normal);
        out.region(&terminal.normal);
        out.keyboard(&terminal.modes.other_keyboard);
        // 1049 saves the cursor: leaving the alternate screen must find the one that is saved now.
        out.saved_cursor(terminal.normal.saved_here());
        out.text.push_str("\x1b[?1049h\x1b(B");
        out.has_saved = false;
        out.pen(Pen::default());
        out.text.push_str("\x1b[2J");
    } else if terminal.alternate.saved != Saved::default()
        || terminal.modes.other_keyboard != Keyboard::default()
    {
        out.text.push_str("\x1b[?47h");
        out.keyboard(&terminal.modes.other_keyboard);
        out.saved_cursor(terminal.alternate.saved_here());
        out.text.push_str("\x1b7\x1b[?47l\x1b(B");
    }
    let buffer = terminal.active();
    out.contents(buffer);
    out.tab_stops(buffer);
    out.modes();
    out.colours();
    if let Some(title) = &terminal.modes.title {
        let _ = write!(out.text, "\x1b]2;{title}\x1b\\");
    }
    out.keyboard(&terminal.modes.keyboard);
    if out.has_saved || buffer.saved_here() != Saved::default() {
        out.saved_cursor(buffer.saved_here());
        out.text.push_str("\x1b7\x1b(B");
    }
    out.region(buffer);
    out.finish(buffer);
    out.text.into_bytes()
}

struct Writer<'a> {
    terminal: &'a Terminal,
    text: String,
    pen: Pen,
    /// The last thing written was a character, which a mark would join.
    joinable: bool,
    /// A cursor was saved on the way to a pen: the terminal's own has to be saved anew.
    has_saved: bool,
}

impl Writer<'_> {
    fn go_to(&mut self, row: usize, col: usize) {
        let _ = match (row, col) {
            (0, 0) => write!(self.text, "\x1b[H"),
            (_, 0) => write!(self.text, "\x1b[{}H", row + 1),
            _ => write!(self.text, "\x1b[{};{}H", row + 1, col + 1),
        };
        self.joinable = false;
    }

    // ---- the pen ----

    fn pen(&mut self, pen: Pen) {
        if self.pen == pen {
            return;
        }
        if self.pen.ext.link != pen.ext.link {
            match self.terminal.store.link(pen.ext.link) {
                Some(link) => {
                    let id = link.id.as_deref().map(|id| format!("id={id}")).unwrap_or_default();
                    let _ = write!(self.text, "\x1b]8;{id};{}\x1b\\", link.uri);
                }
                None => self.text.push_str("\x1b]8;;\x1b\\"),
            }
        }
        // A style of no underline is not seen, and no sequence makes it.
        let style = |pen: Pen| {
            let style = if pen.fg & UNDERLINE == 0 { 0 } else { pen.ext.style };
            Pen { ext: Ext { link: 0, style, ..pen.ext }, bg: pen.bg & !HAS_EXT, ..pen }
        };
        if style(self.pen) != style(pen) {
            self.sgr(pen);
        }
        self.pen = pen;
        self.joinable = false;
    }

    /// For erasing only the background matters.
    fn background(&mut self, colour: u32) {
        if self.pen.bg & COLOUR != colour {
            self.pen(Pen {
                bg: colour,
                ext: Ext { link: self.pen.ext.link, ..Ext::default() },
                ..Pen::default()
            });
        }
    }

    fn sgr(&mut self, pen: Pen) {
        self.text.push_str("\x1b[0");
        for (is_set, code) in style_codes(pen) {
            if is_set {
                self.text.push_str(code);
            }
        }
        if pen.fg & UNDERLINE != 0 {
            match pen.ext.style {
                0 | 1 => self.text.push_str(";4"),
                style => {
                    let _ = write!(self.text, ";4:{style}");
                }
            }
        }
        self.colour(pen.fg & COLOUR, 30);
        self.colour(pen.bg & COLOUR, 40);
        self.colour(pen.ext.colour, 50);
        self.text.push('m');
        if pen.bg & PROTECTED != 0 {
            self.text.push_str("\x1b[1\"q");
        }
        if is_unstyled(pen) {
            // Underlined without a style: what restoring a cursor leaves behind.
            self.text.push_str("\x1b7\x1b[24m\x1b8");
            self.has_saved = true;
        }
    }

    /// A colour; `base` is 30 for text, 40 for the background, 50 for underlines.
    fn colour(&mut self, colour: u32, base: u32) {
        let number = colour & 0xff;
        let _ = match colour & KIND {
            0 => Ok(()),
            _ if base == 50 && colour == UNDERLINE_RESET => write!(self.text, ";59"),
            KIND_16 if base < 50 && number < 8 => write!(self.text, ";{}", base + number),
            KIND_16 if base < 50 => write!(self.text, ";{}", base + 60 - 8 + number),
            KIND_16 | KIND_256 => write!(self.text, ";{};5;{number}", base + 8),
            _ => {
                let (red, green) = (colour >> 16 & 0xff, colour >> 8 & 0xff);
                write!(self.text, ";{};2;{red};{green};{number}", base + 8)
            }
        };
    }

    // ---- contents ----

    fn contents(&mut self, buffer: &Buffer) {
        let rows = &buffer.rows;
        // Rows that continue the one above though no text runs over the edge: made so before anything is written.
        let is_forced: Vec<bool> = (0..rows.len())
            .map(|at| rows[at].is_wrapped && (at == 0 || !runs_over(&rows[at - 1], &rows[at])))
            .collect();
        let cols = self.terminal.cols;
        if is_forced[0] {
            // The line above it has scrolled away: so does this one, without leaving anything in a history.
            self.pen(Pen::default());
            self.go_to(0, cols - 1);
            self.text.push_str("  \x1b[S\x1b[H\x1b[X");
        }
        for at in (1..rows.len()).filter(|at| is_forced[*at]) {
            self.pen(Pen::default());
            self.go_to(at - 1, cols - 1);
            self.text.push_str("  ");
            for (row, col) in [(at, 0), (at - 1, cols - 1)] {
                self.go_to(row, col);
                self.text.push_str("\x1b[X");
            }
        }
        self.cut_characters(buffer);
        let mut here = None;
        for (at, row) in rows.iter().enumerate() {
            let is_continued = at > 0 && row.is_wrapped && !is_forced[at];
            let continues = rows.get(at + 1).is_some_and(|next| next.is_wrapped && !is_forced[at + 1]);
            let end = shown(row);
            if end == 0 && !continues && !is_continued {
                continue;
            }
            if !is_continued {
                match here {
                    Some(previous) if previous + 3 >= at && !is_forced[previous + 1..=at].contains(&true) => {
                        for _ in previous..at {
                            self.text.push_str("\r\n");
                        }
                        self.joinable = false;
                    }
                    None if at == 0 => self.go_to(0, 0),
                    _ => self.go_to(at, 0),
                }
            }
            here = Some(at);
            self.row(at, row, end, continues.then(|| &rows[at + 1]));
        }
    }

    /// Writes a row up to `end`. `next` is the one that its text runs on into.
    fn row(&mut self, at: usize, row: &Row, end: usize, next: Option<&Row>) {
        let cols = row.cells.len();
        let end = match next {
            // A wide character at the start of the next row makes the terminal leave the last cell.
            Some(next) if is_left_free(row, next) => cols - 1,
            Some(_) => cols,
            None => end,
        };
        let mut col = 0;
        while col < end {
            let cell = &row.cells[col];
            if is_erased(cell) {
                let run = row.cells[col..end].iter().take_while(|other| *other == cell).count();
                self.blanks(cell.bg, run, col + run == cols && (col > 0 || !row.is_wrapped));
                col += run;
                continue;
            }
            if cell.width() == 0 && cell.has_content() && self.joinable {
                self.go_to(at, col);
            }
            if row.is_cut(col) {
                self.text.push_str("\x1b[2C");
                self.joinable = false;
                col += 2;
                continue;
            }
            self.pen(cell.pen());
            let columns = self.cell(cell, row.cells.get(col + 1));
            self.joinable = cell.width() > 0;
            col += columns;
        }
    }

    /// Writes one cell; returns its columns.
    fn cell(&mut self, cell: &Cell, next: Option<&Cell>) -> usize {
        let is_cut = cell.width() == 2 && !next.is_some_and(Cell::is_second_half);
        if !cell.has_content() || is_cut {
            self.text.push(' ');
            return 1;
        }
        self.terminal.push_text(cell, &mut self.text);
        cell.width().max(1) as usize
    }

    /// Blank cells with a background. The cursor is behind them afterwards, unless they reach the end of the row.
    fn blanks(&mut self, background: u32, run: usize, is_rest: bool) {
        self.joinable = false;
        if background != 0 {
            self.background(background);
            if is_rest {
                self.text.push_str("\x1b[K");
                return;
            }
            let _ = write!(self.text, "\x1b[{run}X");
        }
        let _ = match run {
            1 => write!(self.text, "\x1b[C"),
            _ => write!(self.text, "\x1b[{run}C"),
        };
    }

    // ---- what is not seen ----

    fn tab_stops(&mut self, buffer: &Buffer) {
        if buffer.tabs == default_tabs(buffer.tabs.len()) {
            return;
        }
        self.text.push_str("\x1b[3g");
        for col in (0..buffer.tabs.len()).filter(|col| buffer.tabs[*col]) {
            let _ = write!(self.text, "\x1b[{}G\x1bH", col + 1);
        }
    }

    fn region(&mut self, buffer: &Buffer) {
        if (buffer.top, buffer.bottom + 1) != (0, self.terminal.height) {
            let _ = write!(self.text, "\x1b[{};{}r", buffer.top + 1, buffer.bottom + 1);
        }
    }

    /// Brings the terminal to what was saved: place, pen and charset. The caller saves it.
    fn saved_cursor(&mut self, saved: Saved) {
        self.go_to(saved.y, saved.x);
        if saved.is_graphic {
            self.text.push_str("\x1b(0");
        }
        let has_ext = saved.bg & HAS_EXT != 0;
        let mut ext = Ext::default();
        if saved.fg & UNDERLINE != 0 {
            ext.style = 1;
        } else if has_ext {
            // A link was open; which one is not saved. Any does.
            self.text.push_str("\x1b]8;;http://localhost\x1b\\");
            ext.link = ANY_LINK;
            self.pen.ext.link = ANY_LINK;
        }
        self.pen(Pen { fg: saved.fg, bg: saved.bg, ext });
    }

    fn modes(&mut self) {
        let modes = &self.terminal.modes;
        let SoftModes { app_cursor, app_keypad, bracketed_paste, focus, reverse_wrap, cursor_style, .. } =
            modes.soft;
        for (is_set, sequence) in [
            (app_cursor, "\x1b[?1h"),
            (app_keypad, "\x1b="),
            (bracketed_paste, "\x1b[?2004h"),
            (focus, "\x1b[?1004h"),
            (reverse_wrap, "\x1b[?45h"),
            (modes.cursor_blinks, "\x1b[?12h"),
            (modes.newline, "\x1b[20h"),
            (modes.is_cursor_hidden, "\x1b[?25l"),
        ] {
            if is_set {
                self.text.push_str(sequence);
            }
        }
        let mouse = [modes.mouse.mode(), Some(modes.mouse_encoding).filter(|mode| *mode > 0)];
        for mode in mouse.into_iter().flatten() {
            let _ = write!(self.text, "\x1b[?{mode}h");
        }
        for (mode, is_set) in &modes.others {
            let _ = write!(self.text, "\x1b[?{mode}{}", if *is_set { 'h' } else { 'l' });
        }
        if let Some(value) = modes.modify_other_keys {
            let _ = write!(self.text, "\x1b[>4;{value}m");
        }
        if cursor_style > 0 {
            let _ = write!(self.text, "\x1b[{cursor_style} q");
        }
    }

    fn colours(&mut self) {
        for (index, colour) in &self.terminal.modes.palette {
            let _ = write!(self.text, "\x1b]4;{index};{colour}\x1b\\");
        }
        for (number, colour) in &self.terminal.modes.dynamic {
            let _ = write!(self.text, "\x1b]{number};{colour}\x1b\\");
        }
    }

    fn keyboard(&mut self, keyboard: &Keyboard) {
        let mut flags = keyboard.below.iter().copied().chain([keyboard.current]);
        if let Some(first) = flags.next().filter(|first| *first != 0) {
            let _ = write!(self.text, "\x1b[={first};1u");
        }
        for flags in flags {
            let _ = write!(self.text, "\x1b[>{flags}u");
        }
    }

    // ---- the cursor ----

    fn finish(&mut self, buffer: &Buffer) {
        let terminal = self.terminal;
        let soft = terminal.modes.soft;
        let first_row = if soft.origin { buffer.top } else { 0 };
        if soft.origin {
            self.text.push_str("\x1b[?6h");
        }
        if soft.synchronized {
            self.text.push_str("\x1b[?2026h");
        }
        let row = &buffer.rows[buffer.y];
        let y = buffer.y.saturating_sub(first_row);
        let joined =
            (terminal.joinable > 0).then(|| buffer.x.checked_sub(terminal.joinable as usize)).flatten();
        // A wide character that found no room is not written: the cursor stands on another one then.
        let joined = joined.filter(|x| row.cells[*x].width() == terminal.joinable);
        let cols = row.cells.len();
        let is_behind = buffer.x >= cols;
        let is_behind_cut = is_behind && row.is_cut(cols - 2) && (joined.is_none() || !soft.wrap);
        if is_behind_cut {
            self.cut_character(y, &row.cells[cols - 2], &row.cells[cols - 1]);
        } else if joined.is_none() && is_behind {
            // Only writing the last cell again brings a terminal into "wraps at the next character".
            self.last_cell(y, row);
        }
        self.pen_and_charsets(buffer);
        match joined {
            Some(x) => {
                if !is_behind_cut {
                    self.go_to(y, x);
                }
                if soft.insert {
                    let _ = write!(self.text, "\x1b[{}P\x1b[4h", terminal.joinable);
                }
                if !soft.wrap {
                    self.text.push_str("\x1b[?7l");
                }
                self.cell(&row.cells[x], row.cells.get(x + 1));
            }
            None => {
                if !is_behind {
                    self.go_to(y, buffer.x);
                }
                if soft.insert {
                    self.text.push_str("\x1b[4h");
                }
                if !soft.wrap {
                    self.text.push_str("\x1b[?7l");
                    if terminal.joinable == 2 && buffer.x + 1 == cols && row.width(cols - 2) < 2 {
                        // It finds no room here either, and a mark joins the one before.
                        self.text.push('日');
                    }
                }
            }
        }
    }

    /// Puts the cursor behind the last column, without changing what is in it.
    fn last_cell(&mut self, y: usize, row: &Row) {
        let cols = row.cells.len();
        let last = &row.cells[cols - 1];
        if row.cells.iter().all(|cell| cell == last && is_erased(cell)) {
            self.background(last.bg);
            self.go_to(y, cols - 1);
            self.text.push_str(" \x1b[1K");
            return;
        }
        let col = cols - if last.is_second_half() { 2 } else { 1 };
        self.go_to(y, col);
        self.pen(row.cells[col].pen());
        self.cell(&row.cells[col], row.cells.get(col + 1));
    }

    /// The pen and the charsets. Some can only be reached by restoring a cursor: that brings back flags, but neither
    /// the style of an underline, nor a link, nor the designated sets.
    fn pen_and_charsets(&mut self, buffer: &Buffer) {
        let terminal = self.terminal;
        let (pen, is_graphic) = (terminal.pen, terminal.is_graphic);
        let mut plain = pen;
        plain.update();
        let is_plain = plain == pen && (pen.fg & UNDERLINE == 0) == (pen.ext.style == 0);
        let designated = terminal.graphic_sets[terminal.active_set];
        let is_designated = is_graphic == designated;
        let flags = |fg: u32, bg: u32| (fg & UNDERLINE, bg & HAS_EXT);
        let fits = |saved: &Saved| {
            (is_plain || flags(saved.fg, saved.bg) == flags(pen.fg, pen.bg))
                && (is_designated || saved.is_graphic == is_graphic)
        };
        let sources = [
            Some((buffer.saved_here(), "\x1b8")),
            (!terminal.is_alternate).then(|| (terminal.alternate.saved_here(), "\x1b[?47h\x1b8\x1b[?47l")),
        ];
        let source = sources.into_iter().flatten().find(|(saved, _)| fits(saved));
        let (Some((saved, restore)), false) =
            (source.filter(|_| buffer.x < terminal.cols || terminal.joinable > 0), is_plain && is_designated)
        else {
            self.pen(pen);
            return self.charsets(is_graphic);
        };
        plain.fg = if pen.ext.style == 0 { 0 } else { UNDERLINE };
        self.pen(plain);
        self.charsets(designated);
        self.text.push_str(restore);
        self.pen = Pen { fg: saved.fg, bg: saved.bg, ext: pen.ext };
        if is_plain {
            self.sgr(pen);
        } else {
            self.changes(pen);
        }
        self.pen = pen;
        if is_designated {
            self.charsets(is_graphic);
        }
    }

    /// From the present pen to this one, by sequences that leave underline and links alone.
    fn changes(&mut self, pen: Pen) {
        let old = self.pen;
        self.text.push_str("\x1b[22;23;25;27;28;29;39;49;55");
        for (is_set, code) in style_codes(pen) {
            if is_set {
                self.text.push_str(code);
            }
        }
        self.colour(pen.fg & COLOUR, 30);
        self.colour(pen.bg & COLOUR, 40);
        self.text.push('m');
        if (old.bg ^ pen.bg) & PROTECTED != 0 {
            let _ = write!(self.text, "\x1b[{}\"q", u32::from(pen.bg & PROTECTED != 0));
        }
    }

    /// Designates the sets; the active one so that `is_graphic` holds.
    fn charsets(&mut self, is_graphic: bool) {
        let terminal = self.terminal;
        for (set, letter) in ['(', ')', '*', '+'].into_iter().enumerate() {
            let wanted = if set == terminal.active_set { is_graphic } else { terminal.graphic_sets[set] };
            if wanted {
                let _ = write!(self.text, "\x1b{letter}0");
            }
        }
        self.text.push_str(["", "\x0e", "\x1bn", "\x1bo"][terminal.active_set]);
    }
}

/// The flags that have a code each.
fn style_codes(pen: Pen) -> [(bool, &'static str); 8] {
    [
        (pen.fg & BOLD != 0, ";1"),
        (pen.bg & DIM != 0, ";2"),
        (pen.bg & ITALIC != 0, ";3"),
        (pen.fg & BLINK != 0, ";5"),
        (pen.fg & INVERSE != 0, ";7"),
        (pen.fg & INVISIBLE != 0, ";8"),
        (pen.fg & STRIKE != 0, ";9"),
        (pen.bg & OVERLINE != 0, ";53"),
    ]
}

/// What erasing leaves: nothing but a background.
fn is_erased(cell: &Cell) -> bool {
    *cell == Cell { bg: cell.bg & COLOUR, ..Cell::default() }
}

/// Columns up to the last cell that is not as a reset terminal has it.
fn shown(row: &Row) -> usize {
    row.cells.iter().rposition(|cell| *cell != Cell::default()).map_or(0, |col| col + 1)
}

/// True if writing the one row and then the other makes the terminal wrap.
fn runs_over(row: &Row, next: &Row) -> bool {
    if row.has_cuts() || next.has_cuts() {
        return false;
    }
    let first = &next.cells[0];
    let starts = first.has_content() && first.width() > 0;
    let is_full = row.cells.last().is_some_and(|last| !is_erased(last));
    (is_left_free(row, next) || (starts && is_full)) && !is_unstyled(first.pen())
}

/// True for an underline without a style: restoring a cursor makes it, and only that.
fn is_unstyled(pen: Pen) -> bool {
    pen.fg & UNDERLINE != 0 && pen.bg & HAS_EXT != 0 && pen.ext.style == 0
}

/// True if the last column is as a terminal leaves it when the wide character of the next row does not fit there.
fn is_left_free(row: &Row, next: &Row) -> bool {
    let first = &next.cells[0];
    first.has_content() && first.width() == 2 && row.cells.last() == Some(&first.pen().cell())
}

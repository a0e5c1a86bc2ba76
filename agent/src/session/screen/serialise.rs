//! Writes a screen down as escape sequences for a reset terminal of the same size.
//!
//! Order matters: contents first, while every mode still has its reset value; then what has no visible effect
//! (tab stops, modes); then what moves the cursor (scroll region, origin mode); the cursor last.

use std::fmt::Write;

use alacritty_terminal::grid::{Cursor, Dimensions};
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::vte::ansi::{
    CharsetIndex, Color, CursorShape, CursorStyle, NamedColor, Rgb, StandardCharset,
};

use super::tracker::{Keyboard, Tracker};

/// Colours of the palette, then foreground, background and cursor (OSC 10 to 12).
const PALETTE_COLOURS: usize = 256;

/// The whole screen.
pub(super) fn screen(tracker: &mut Tracker) -> Vec<u8> {
    write(tracker, true)
}

/// The whole screen without the marks of wrapped lines: terminals differ in when a wrapped line stops being one,
/// and nothing but a later resize shows it.
#[cfg(test)]
pub(super) fn screen_without_wraps(tracker: &mut Tracker) -> Vec<u8> {
    write(tracker, false)
}

fn write(tracker: &mut Tracker, keeps_wraps: bool) -> Vec<u8> {
    let mut out = Writer { keeps_wraps, ..Writer::default() };
    if tracker.is_alternate() {
        tracker.with_primary(|primary| {
            contents(primary, &mut out);
            saved_cursor(primary, &mut out);
            keyboard(&primary.other_keyboard, &mut out);
            // 1049 saves this cursor: leaving the alternate screen must find it.
            cursor(primary, 0, &mut out);
        });
        out.text.push_str("\x1b[?1049h");
        out.pen(&Pen::default());
        out.text.push_str("\x1b[2J\x1b[H");
        out.charset_reset();
    }
    contents(tracker, &mut out);
    saved_cursor(tracker, &mut out);
    tab_stops(tracker, &mut out);
    modes(tracker, &mut out);
    colours(tracker, &mut out);
    if let Some(title) = &tracker.title {
        let _ = write!(out.text, "\x1b]2;{title}\x1b\\");
    }
    keyboard(&tracker.keyboard, &mut out);
    placement(tracker, &mut out);
    if tracker.is_synchronized {
        out.text.push_str("\x1b[?2026h");
    }
    out.text.into_bytes()
}

/// What the terminal writes with: everything an SGR sequence and OSC 8 set.
#[derive(Clone, PartialEq, Debug)]
struct Pen {
    flags: Flags,
    fg: Color,
    bg: Color,
    underline: Option<Color>,
    link: Option<(Option<String>, String)>,
}

impl Default for Pen {
    fn default() -> Self {
        Self::of(&Cell::default())
    }
}

impl Pen {
    fn of(cell: &Cell) -> Self {
        let style = Flags::BOLD
            | Flags::DIM
            | Flags::ITALIC
            | Flags::INVERSE
            | Flags::HIDDEN
            | Flags::STRIKEOUT
            | Flags::ALL_UNDERLINES;
        Self {
            flags: cell.flags & style,
            fg: cell.fg,
            bg: cell.bg,
            underline: cell.underline_color(),
            link: cell.hyperlink().map(|link| {
                // The engine numbers links without an id; only an id of the program is worth repeating.
                let id = Some(link.id().to_owned()).filter(|id| !id.ends_with("_alacritty"));
                (id, link.uri().to_owned())
            }),
        }
    }
}

#[derive(Default)]
struct Writer {
    text: String,
    pen: Pen,
    /// Charset of G0 to G3, and which is active.
    charsets: [StandardCharset; 4],
    active: CharsetIndex,
    keeps_wraps: bool,
}

impl Writer {
    fn pen(&mut self, pen: &Pen) {
        if self.pen.link != pen.link {
            match &pen.link {
                Some((Some(id), uri)) => {
                    let _ = write!(self.text, "\x1b]8;id={id};{uri}\x1b\\");
                }
                Some((None, uri)) => {
                    let _ = write!(self.text, "\x1b]8;;{uri}\x1b\\");
                }
                None => self.text.push_str("\x1b]8;;\x1b\\"),
            }
        }
        let is_same_style = self.pen.flags == pen.flags
            && self.pen.fg == pen.fg
            && self.pen.bg == pen.bg
            && self.pen.underline == pen.underline;
        if !is_same_style {
            self.sgr(pen);
        }
        self.pen = pen.clone();
    }

    fn sgr(&mut self, pen: &Pen) {
        self.text.push_str("\x1b[0");
        for (flag, code) in [
            (Flags::BOLD, "1"),
            (Flags::DIM, "2"),
            (Flags::ITALIC, "3"),
            (Flags::UNDERLINE, "4"),
            (Flags::DOUBLE_UNDERLINE, "4:2"),
            (Flags::UNDERCURL, "4:3"),
            (Flags::DOTTED_UNDERLINE, "4:4"),
            (Flags::DASHED_UNDERLINE, "4:5"),
            (Flags::INVERSE, "7"),
            (Flags::HIDDEN, "8"),
            (Flags::STRIKEOUT, "9"),
        ] {
            if pen.flags.contains(flag) {
                self.text.push(';');
                self.text.push_str(code);
            }
        }
        self.colour(pen.fg, 30, 38);
        self.colour(pen.bg, 40, 48);
        if let Some(colour) = pen.underline {
            self.colour(colour, 0, 58);
        }
        self.text.push('m');
    }

    /// `base` is the code of the first of the eight named colours, `extended` that of the 256 and true colours.
    fn colour(&mut self, colour: Color, base: u8, extended: u8) {
        let _ = match colour {
            Color::Named(name) => match name as usize {
                index @ 0..=7 if base != 0 => write!(self.text, ";{}", usize::from(base) + index),
                index @ 8..=15 if base != 0 => write!(self.text, ";{}", usize::from(base) + 60 + index - 8),
                index @ 0..=15 => write!(self.text, ";{extended};5;{index}"),
                // Foreground, background and the like: the default, which the leading 0 has set.
                _ => Ok(()),
            },
            Color::Indexed(index) => write!(self.text, ";{extended};5;{index}"),
            Color::Spec(Rgb { r, g, b }) => write!(self.text, ";{extended};2;{r};{g};{b}"),
        };
    }

    fn charset(&mut self, index: CharsetIndex, charset: StandardCharset) {
        let slot = index as usize;
        if self.charsets[slot] != charset {
            self.text.push('\x1b');
            self.text.push(['(', ')', '*', '+'][slot]);
            self.text.push(match charset {
                StandardCharset::Ascii => 'B',
                StandardCharset::SpecialCharacterAndLineDrawing => '0',
            });
            self.charsets[slot] = charset;
        }
    }

    fn active_charset(&mut self, index: CharsetIndex) {
        if self.active != index {
            self.text.push_str(match index {
                CharsetIndex::G0 => "\x0f",
                CharsetIndex::G1 => "\x0e",
                CharsetIndex::G2 => "\x1bn",
                CharsetIndex::G3 => "\x1bo",
            });
            self.active = index;
        }
    }

    fn charset_reset(&mut self) {
        for index in CHARSET_SLOTS {
            self.charset(index, StandardCharset::Ascii);
        }
        self.active_charset(CharsetIndex::G0);
    }

    /// What the cell shows. The engine can leave half of a wide character in the last column, which no terminal shows.
    fn character(&mut self, cell: &Cell, is_last: bool) {
        if cell.c == '\t' || (is_last && cell.flags.contains(Flags::WIDE_CHAR)) {
            self.text.push(' ');
        } else {
            self.text.push(cell.c);
            self.text.extend(cell.zerowidth().into_iter().flatten());
        }
    }

    fn goto(&mut self, line: usize, col: usize) {
        let _ = write!(self.text, "\x1b[{};{}H", line + 1, col + 1);
    }
}

const CHARSET_SLOTS: [CharsetIndex; 4] =
    [CharsetIndex::G0, CharsetIndex::G1, CharsetIndex::G2, CharsetIndex::G3];

/// Flags that say how the engine came to a cell, not what it shows.
const MARKS: Flags = Flags::WRAPLINE.union(Flags::LEADING_WIDE_CHAR_SPACER).union(Flags::WIDE_CHAR_SPACER);

fn is_blank(cell: &Cell) -> bool {
    // The engine leaves a tab character where a program moved by a tab.
    matches!(cell.c, ' ' | '\t')
        && (cell.flags - MARKS).is_empty()
        && cell.zerowidth().is_none_or(<[char]>::is_empty)
        && cell.hyperlink().is_none()
        && cell.underline_color().is_none()
}

/// Every row, beginning at the home position of an empty screen.
fn contents(tracker: &Tracker, out: &mut Writer) {
    let (rows, cols) = (tracker.term.screen_lines(), tracker.term.columns());
    let mut is_wrapped = false;
    let mut skipped = 0;
    for line in 0..rows {
        let row = tracker.row(line);
        let cell = |col: usize| &row[Column(col)];
        let default = Cell::default();
        let shows = |col: usize| {
            let is_half = col + 1 == cols && cell(col).flags.contains(Flags::WIDE_CHAR);
            !(is_blank(cell(col)) || is_half) || cell(col).bg != default.bg
        };
        let used = (0..cols).rev().find(|&col| shows(col)).map_or(0, |col| col + 1);
        let wraps = out.keeps_wraps
            && line + 1 < rows
            && cell(cols - 1).flags.contains(Flags::WRAPLINE)
            && starts_with_something(tracker, line + 1);
        if line > 0 && !is_wrapped {
            skipped += 1;
        }
        if used == 0 && !wraps && !is_wrapped {
            continue;
        }
        for _ in 0..std::mem::take(&mut skipped) {
            out.text.push_str("\r\n");
        }
        // A row that wraps must be written to its last column, or the terminal would not wrap.
        let end = if wraps { cols } else { used.max(usize::from(is_wrapped)) };
        let next_is_wide = wraps && tracker.row(line + 1)[Column(0)].flags.contains(Flags::WIDE_CHAR);
        write_cells(row, end, cols, next_is_wide, !wraps, out);
        is_wrapped = wraps;
    }
}

fn starts_with_something(tracker: &Tracker, line: usize) -> bool {
    let row = tracker.row(line);
    (0..tracker.term.columns()).any(|col| !is_blank(&row[Column(col)]))
}

fn write_cells(
    row: &alacritty_terminal::grid::Row<Cell>,
    end: usize,
    cols: usize,
    next_is_wide: bool,
    may_erase: bool,
    out: &mut Writer,
) {
    let mut col = 0;
    while col < end {
        let cell = &row[Column(col)];
        if next_is_wide && col + 1 == cols && cell.flags.contains(Flags::LEADING_WIDE_CHAR_SPACER) {
            break; // The wide character at the start of the next row makes the terminal leave this cell.
        }
        if is_blank(cell) {
            let run = (col..end)
                .take_while(|&at| is_blank(&row[Column(at)]) && row[Column(at)].bg == cell.bg)
                .count();
            out.pen(&Pen { bg: cell.bg, ..Pen::default() });
            if may_erase && col + run == cols && run > 3 {
                out.text.push_str("\x1b[K");
            } else {
                out.text.extend(std::iter::repeat_n(' ', run));
            }
            col += run;
            continue;
        }
        out.pen(&Pen::of(cell));
        out.character(cell, col + 1 == cols);
        // A wide character covers the next cell whatever the engine left there.
        col += if cell.flags.contains(Flags::WIDE_CHAR) { 2 } else { 1 };
    }
}

/// Saves a cursor where the program saved one (DECSC).
fn saved_cursor(tracker: &Tracker, out: &mut Writer) {
    let saved = &tracker.term.grid().saved_cursor;
    if *saved == Cursor::default() {
        return;
    }
    out.goto(row_of(saved), saved.point.column.0);
    cursor_style(tracker, saved, out);
    out.text.push_str("\x1b7");
}

/// The charsets and the pen of a cursor.
fn cursor_style(tracker: &Tracker, cursor: &Cursor<Cell>, out: &mut Writer) {
    for index in CHARSET_SLOTS {
        out.charset(index, cursor.charsets[index]);
    }
    out.active_charset(tracker.charset);
    out.pen(&Pen::of(&cursor.template));
}

fn row_of(cursor: &Cursor<Cell>) -> usize {
    usize::try_from(cursor.point.line.0).unwrap_or(0)
}

/// Puts the cursor where it is, with its pen, also when the next character would wrap.
///
/// `first_row` is the row that cursor addresses count from: that of the scroll region once origin mode is on.
fn cursor(tracker: &Tracker, first_row: usize, out: &mut Writer) {
    let cursor = &tracker.term.grid().cursor;
    let line = row_of(cursor);
    let mut col = cursor.point.column.0;
    if cursor.input_needs_wrap {
        // Only writing the last cell again brings a terminal into "wraps at the next character".
        let row = tracker.row(line);
        if row[Column(col)].flags.contains(Flags::WIDE_CHAR_SPACER) && col > 0 {
            col -= 1;
        }
        out.charset_reset();
        out.goto(line.saturating_sub(first_row), col);
        let cell = &row[Column(col)];
        out.pen(&Pen::of(cell));
        out.character(cell, col + 1 == row.len());
    } else {
        out.goto(line.saturating_sub(first_row), col);
    }
    cursor_style(tracker, cursor, out);
}

fn tab_stops(tracker: &Tracker, out: &mut Writer) {
    if tracker.tabs.iter().enumerate().all(|(col, is_stop)| *is_stop == (col % 8 == 0)) {
        return;
    }
    out.text.push_str("\x1b[3g");
    for col in (0..tracker.tabs.len()).filter(|&col| tracker.tabs[col]) {
        let _ = write!(out.text, "\x1b[{}G\x1bH", col + 1);
    }
}

fn modes(tracker: &Tracker, out: &mut Writer) {
    let mode = tracker.term.mode();
    for (flag, sequence) in [
        (TermMode::APP_CURSOR, "\x1b[?1h"),
        (TermMode::APP_KEYPAD, "\x1b="),
        (TermMode::MOUSE_REPORT_CLICK, "\x1b[?1000h"),
        (TermMode::MOUSE_DRAG, "\x1b[?1002h"),
        (TermMode::MOUSE_MOTION, "\x1b[?1003h"),
        (TermMode::UTF8_MOUSE, "\x1b[?1005h"),
        (TermMode::SGR_MOUSE, "\x1b[?1006h"),
        (TermMode::FOCUS_IN_OUT, "\x1b[?1004h"),
        (TermMode::BRACKETED_PASTE, "\x1b[?2004h"),
        (TermMode::LINE_FEED_NEW_LINE, "\x1b[20h"),
    ] {
        if mode.contains(flag) {
            out.text.push_str(sequence);
        }
    }
    if !mode.contains(TermMode::ALTERNATE_SCROLL) {
        out.text.push_str("\x1b[?1007l");
    }
    if !mode.contains(TermMode::SHOW_CURSOR) {
        out.text.push_str("\x1b[?25l");
    }
    for other in &tracker.other_modes {
        let _ = write!(out.text, "\x1b[?{other}h");
    }
    if tracker.modify_other_keys != 0 {
        let _ = write!(out.text, "\x1b[>4;{}m", tracker.modify_other_keys);
    }
    if let Some(CursorStyle { shape, blinking }) = tracker.cursor_style {
        // DECSCUSR: 1 and 2 block, 3 and 4 underline, 5 and 6 bar; odd ones blink.
        let steady = match shape {
            CursorShape::Underline => 4,
            CursorShape::Beam => 6,
            CursorShape::Block | CursorShape::HollowBlock | CursorShape::Hidden => 2,
        };
        let _ = write!(out.text, "\x1b[{} q", steady - u8::from(blinking));
    }
}

fn colours(tracker: &Tracker, out: &mut Writer) {
    let colours = tracker.term.colors();
    for index in 0..PALETTE_COLOURS {
        if let Some(Rgb { r, g, b }) = colours[index] {
            let _ = write!(out.text, "\x1b]4;{index};rgb:{r:02x}/{g:02x}/{b:02x}\x1b\\");
        }
    }
    for (name, number) in
        [(NamedColor::Foreground, 10), (NamedColor::Background, 11), (NamedColor::Cursor, 12)]
    {
        if let Some(Rgb { r, g, b }) = colours[name] {
            let _ = write!(out.text, "\x1b]{number};rgb:{r:02x}/{g:02x}/{b:02x}\x1b\\");
        }
    }
}

fn keyboard(keyboard: &Keyboard, out: &mut Writer) {
    for flags in
        keyboard.below.iter().skip(1).chain((!keyboard.below.is_empty()).then_some(&keyboard.current))
    {
        let _ = write!(out.text, "\x1b[>{flags}u");
    }
    if keyboard.below.is_empty() && keyboard.current != 0 {
        let _ = write!(out.text, "\x1b[={};1u", keyboard.current);
    }
}

/// Everything that moves the cursor or changes how it is addressed, and the cursor.
fn placement(tracker: &Tracker, out: &mut Writer) {
    let rows = tracker.term.screen_lines();
    let (top, bottom) = tracker.scroll_region;
    if (top, bottom) != (0, rows) {
        let _ = write!(out.text, "\x1b[{};{}r", top + 1, bottom);
    }
    let mode = tracker.term.mode();
    let mut first_row = 0;
    if mode.contains(TermMode::ORIGIN) {
        out.text.push_str("\x1b[?6h");
        first_row = top;
    }
    cursor(tracker, first_row, out);
    // These change how characters are written, so they come behind the last one.
    if mode.contains(TermMode::INSERT) {
        out.text.push_str("\x1b[4h");
    }
    if !mode.contains(TermMode::LINE_WRAP) {
        out.text.push_str("\x1b[?7l");
    }
    debug_assert!(tracker.term.grid().cursor.point.line >= Line(0));
}

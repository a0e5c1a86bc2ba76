//! Questions that programs ask their terminal, and the answers of ours, modelled on xterm.
//!
//! Only the daemon answers, once. An answer never contains bytes of the question other than its numbers, so output
//! cannot type anything.

/// A question. Numbers are at most 9999.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Query {
    /// DA1: `CSI c`, and DECID.
    PrimaryAttributes,
    /// DA2: `CSI > c`.
    SecondaryAttributes,
    /// DA3: `CSI = c`.
    TertiaryAttributes,
    /// DSR: `CSI 5 n`.
    Status,
    /// CPR: `CSI 6 n`.
    CursorPosition,
    /// DECXCPR: `CSI ? 6 n`.
    ExtendedCursorPosition,
    /// Another `CSI ? n` report, such as 996, the colour scheme.
    PrivateStatus(u16),
    /// DECRQM of an ANSI mode.
    AnsiMode(u16),
    /// DECRQM of a private mode.
    PrivateMode(u16),
    /// DECRQSS.
    StatusString,
    /// XTGETTCAP.
    Termcap,
    /// XTVERSION.
    Version,
    /// OSC 4.
    Palette(u16),
    /// OSC 5.
    SpecialColour(u16),
    /// OSC 10..=19.
    DynamicColour(u8),
    /// `CSI ? u`.
    KittyKeyboard,
    /// `CSI 11..=21 t`.
    Window(u16),
    /// DECREQTPARM, 0 or 1.
    Parameters(u8),
    /// DECRQCRA.
    Checksum,
    /// ENQ.
    Enquiry,
    /// A question that no terminal of ours answers (XTSMGRAPHICS, XTQMODKEYS and the like).
    Unsupported,
}

/// A mode of the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Of `CSI … h`.
    Ansi(u16),
    /// Of `CSI ? … h`.
    Private(u16),
}

/// State of a mode, with the numbers of DECRPM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ModeState {
    /// Unknown to this terminal.
    #[default]
    NotRecognised = 0,
    /// On.
    Set = 1,
    /// Off.
    Reset = 2,
    /// Always on.
    PermanentlySet = 3,
    /// Always off.
    PermanentlyReset = 4,
}

/// A colour, 8 bits each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rgb(pub u8, pub u8, pub u8);

/// The state that answers depend on, at the place of the question in the stream.
#[derive(Clone, Copy)]
pub struct AnswerContext<'a> {
    /// Row of the cursor, from 1.
    pub cursor_row: u16,
    /// Column of the cursor, from 1.
    pub cursor_col: u16,
    /// Rows of the screen.
    pub rows: u16,
    /// Columns of the screen.
    pub cols: u16,
    /// State of a mode.
    pub mode: &'a dyn Fn(Mode) -> ModeState,
    /// Default text colour.
    pub foreground: Rgb,
    /// Default background.
    pub background: Rgb,
    /// Flags of the kitty keyboard protocol; `None` if it is not spoken, and then the question stays unanswered.
    pub kitty_flags: Option<u8>,
}

impl std::fmt::Debug for AnswerContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerContext")
            .field("cursor", &(self.cursor_row, self.cursor_col))
            .field("size", &(self.rows, self.cols))
            .finish_non_exhaustive()
    }
}

impl<'a> AnswerContext<'a> {
    /// A dark terminal with the cursor at the given place; `mode` tells the modes.
    pub fn dark(cursor: (u16, u16), size: (u16, u16), mode: &'a dyn Fn(Mode) -> ModeState) -> Self {
        Self {
            cursor_row: cursor.0,
            cursor_col: cursor.1,
            rows: size.0,
            cols: size.1,
            mode,
            foreground: Rgb(0xe5, 0xe5, 0xe5),
            background: Rgb(0, 0, 0),
            kitty_flags: None,
        }
    }
}

/// The bytes to type into the PTY, if this terminal answers.
pub fn answer(query: &Query, context: &AnswerContext<'_>) -> Option<Vec<u8>> {
    let (row, col) = (context.cursor_row, context.cursor_col);
    let text = match *query {
        // VT220 with colour, as xterm.
        Query::PrimaryAttributes => "\x1b[?62;22c".to_owned(),
        // What xterm.js says; programs infer features of that xterm version.
        Query::SecondaryAttributes => "\x1b[>0;276;0c".to_owned(),
        Query::TertiaryAttributes => "\x1bP!|00000000\x1b\\".to_owned(),
        Query::Status => "\x1b[0n".to_owned(),
        Query::CursorPosition => format!("\x1b[{row};{col}R"),
        Query::ExtendedCursorPosition => format!("\x1b[?{row};{col}R"),
        Query::PrivateStatus(15) => "\x1b[?13n".to_owned(), // no printer
        Query::PrivateStatus(25) => "\x1b[?21n".to_owned(), // user keys locked
        Query::PrivateStatus(26) => "\x1b[?27;1;0;0n".to_owned(), // North American keyboard
        Query::PrivateStatus(53 | 55) => "\x1b[?50n".to_owned(), // no locator
        Query::PrivateStatus(996) => {
            let Rgb(r, g, b) = context.background;
            let is_dark = u32::from(r) + u32::from(g) + u32::from(b) < 3 * 128;
            format!("\x1b[?997;{}n", if is_dark { 1 } else { 2 })
        }
        Query::AnsiMode(mode) => format!("\x1b[{mode};{}$y", (context.mode)(Mode::Ansi(mode)) as u8),
        Query::PrivateMode(mode) => format!("\x1b[?{mode};{}$y", (context.mode)(Mode::Private(mode)) as u8),
        // "Invalid request" for each: nothing is known, and nothing is repeated.
        Query::StatusString => "\x1bP0$r\x1b\\".to_owned(),
        Query::Termcap => "\x1bP0+r\x1b\\".to_owned(),
        Query::Version => concat!("\x1bP>|ClaudeNest ", env!("CARGO_PKG_VERSION"), "\x1b\\").to_owned(),
        Query::Palette(index) => {
            let index = u8::try_from(index).ok()?;
            format!("\x1b]4;{index};{}\x1b\\", spell(palette(index)))
        }
        Query::DynamicColour(number @ (10 | 12)) => {
            format!("\x1b]{number};{}\x1b\\", spell(context.foreground))
        }
        Query::DynamicColour(11) => format!("\x1b]11;{}\x1b\\", spell(context.background)),
        Query::KittyKeyboard => format!("\x1b[?{}u", context.kitty_flags?),
        Query::Window(11) => "\x1b[1t".to_owned(), // not an icon
        Query::Window(13) => "\x1b[3;0;0t".to_owned(),
        Query::Window(18) => format!("\x1b[8;{};{}t", context.rows, context.cols),
        Query::Window(19) => format!("\x1b[9;{};{}t", context.rows, context.cols),
        Query::Parameters(kind) => format!("\x1b[{};1;1;128;128;1;0x", u32::from(kind) + 2),
        Query::PrivateStatus(_)
        | Query::SpecialColour(_)
        | Query::DynamicColour(_)
        | Query::Window(_)
        | Query::Checksum
        | Query::Enquiry
        | Query::Unsupported => return None,
    };
    Some(text.into_bytes())
}

/// Which question a CSI sequence is.
pub(super) fn of_csi(
    prefix: u8,
    intermediate: u8,
    last: u8,
    numbers: impl Fn() -> Vec<u32>,
) -> Option<Query> {
    let first = || numbers().first().map_or(0, |number| (*number).min(9999) as u16);
    let when = |is: bool, query: Query| is.then_some(query);
    match (prefix, intermediate, last) {
        (0, 0, b'c') => when(first() == 0, Query::PrimaryAttributes),
        (b'>', 0, b'c') => when(first() == 0, Query::SecondaryAttributes),
        (b'=', 0, b'c') => when(first() == 0, Query::TertiaryAttributes),
        (b'>', 0, b'q') => when(first() == 0, Query::Version),
        (0, 0, b'n') => match first() {
            5 => Some(Query::Status),
            6 => Some(Query::CursorPosition),
            _ => None,
        },
        (b'?', 0, b'n') => Some(match first() {
            6 => Query::ExtendedCursorPosition,
            other => Query::PrivateStatus(other),
        }),
        (0, b'$', b'p') => Some(Query::AnsiMode(first())),
        (b'?', b'$', b'p') => Some(Query::PrivateMode(first())),
        (b'?', 0, b'u') => Some(Query::KittyKeyboard),
        (0, 0, b't') => when(matches!(first(), 11 | 13..=16 | 18..=21), Query::Window(first())),
        (0, 0, b'x') => when(first() <= 1, Query::Parameters(first().min(1) as u8)),
        (0, b'*', b'y') => Some(Query::Checksum),
        // XTQMODKEYS, XTSMGRAPHICS, XTREPORTCOLORS, XTREPORTSGR, DECRQTSR, DECRQPSR, DECRQDE, DECRQUPSS, DECRQLP.
        (b'?', 0, b'm' | b'S')
        | (0, b'#', b'R' | b'|')
        | (0, b'$', b'u' | b'w')
        | (0, b'"', b'v')
        | (0, b'&', b'u')
        | (0, b'\'', b'|') => Some(Query::Unsupported),
        _ => None,
    }
}

/// Which question a DCS string is.
pub(super) fn of_dcs(body: &[u8]) -> Option<Query> {
    let mut header = body.iter().copied().filter(|byte| !matches!(byte, 0x00..=0x1f | 0x7f | 0x30..=0x3f));
    match (header.next()?, header.next()?) {
        (b'$', b'q') => Some(Query::StatusString),
        (b'+', b'q') => Some(Query::Termcap),
        _ => None,
    }
}

fn spell(Rgb(r, g, b): Rgb) -> String {
    format!("rgb:{r:02x}{r:02x}/{g:02x}{g:02x}/{b:02x}{b:02x}")
}

/// xterm's palette: 16 named colours, a cube of six steps, 24 greys.
fn palette(index: u8) -> Rgb {
    const NAMED: [Rgb; 16] = [
        Rgb(0x00, 0x00, 0x00),
        Rgb(0xcd, 0x00, 0x00),
        Rgb(0x00, 0xcd, 0x00),
        Rgb(0xcd, 0xcd, 0x00),
        Rgb(0x00, 0x00, 0xee),
        Rgb(0xcd, 0x00, 0xcd),
        Rgb(0x00, 0xcd, 0xcd),
        Rgb(0xe5, 0xe5, 0xe5),
        Rgb(0x7f, 0x7f, 0x7f),
        Rgb(0xff, 0x00, 0x00),
        Rgb(0x00, 0xff, 0x00),
        Rgb(0xff, 0xff, 0x00),
        Rgb(0x5c, 0x5c, 0xff),
        Rgb(0xff, 0x00, 0xff),
        Rgb(0x00, 0xff, 0xff),
        Rgb(0xff, 0xff, 0xff),
    ];
    let step = |level: u8| if level == 0 { 0 } else { 55 + 40 * level };
    match index {
        0..=15 => NAMED[usize::from(index)],
        16..=231 => {
            let cell = index - 16;
            Rgb(step(cell / 36), step(cell / 6 % 6), step(cell % 6))
        }
        232.. => {
            let grey = 8 + 10 * (index - 232);
            Rgb(grey, grey, grey)
        }
    }
}

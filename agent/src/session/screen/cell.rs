//! Cells, rows and the pen: the layout of xterm.js's buffer, so that both do the same to the same bytes.
//!
//! A cell knows its character, colours and flags; rare strings (more than one code point in a cell) and links are
//! kept beside the grid and named by number.

/// Bits of [`Cell::content`]: a code point, or the number of a string.
pub(super) const CODE: u32 = 0x1f_ffff;
/// The cell holds more than one code point; see [`super::store::Store`].
pub(super) const COMBINED: u32 = 0x20_0000;
const CONTENT: u32 = CODE | COMBINED;
const WIDTH_SHIFT: u32 = 22;
const WIDTH: u32 = 3 << WIDTH_SHIFT;

/// Bits of a colour: its kind and its number or red, green, blue.
pub(super) const COLOUR: u32 = 0x3ff_ffff;
/// Kind of a colour; 0 is the default.
pub(super) const KIND: u32 = 0x300_0000;
/// One of 16.
pub(super) const KIND_16: u32 = 0x100_0000;
/// One of 256.
pub(super) const KIND_256: u32 = 0x200_0000;
/// Red, green, blue.
pub(super) const KIND_RGB: u32 = 0x300_0000;

/// Flags beside the text colour.
pub(super) const INVERSE: u32 = 1 << 26;
/// Bold.
pub(super) const BOLD: u32 = 1 << 27;
/// Underlined; the style is in [`Ext`].
pub(super) const UNDERLINE: u32 = 1 << 28;
/// Blinking.
pub(super) const BLINK: u32 = 1 << 29;
/// Not shown.
pub(super) const INVISIBLE: u32 = 1 << 30;
/// Struck through.
pub(super) const STRIKE: u32 = 1 << 31;

/// Flags beside the background.
pub(super) const ITALIC: u32 = 1 << 26;
/// Faint.
pub(super) const DIM: u32 = 1 << 27;
/// What [`Ext`] says holds.
pub(super) const HAS_EXT: u32 = 1 << 28;
/// Kept by selective erase (DECSCA).
pub(super) const PROTECTED: u32 = 1 << 29;
/// A line above.
pub(super) const OVERLINE: u32 = 1 << 30;

/// The rarer attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ext {
    /// 0 none, 1 single, 2 double, 3 curly, 4 dotted, 5 dashed.
    pub(super) style: u8,
    /// Colour of the underline; 0 is that of the text.
    pub(super) colour: u32,
    /// Number of a link, or 0.
    pub(super) link: u32,
}

/// What the terminal writes with.
///
/// As in xterm.js the flag [`HAS_EXT`] can differ from `ext`: restoring a cursor restores the flag alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Pen {
    pub(super) fg: u32,
    pub(super) bg: u32,
    pub(super) ext: Ext,
}

impl Pen {
    /// Brings the flag in line with the rarer attributes.
    pub(super) fn update(&mut self) {
        if self.ext.style == 0 && self.ext.link == 0 {
            self.bg &= !HAS_EXT;
        } else {
            self.bg |= HAS_EXT;
        }
    }

    /// A cell without content in these attributes.
    pub(super) fn cell(&self) -> Cell {
        let ext = if self.bg & HAS_EXT == 0 { Ext::default() } else { self.ext };
        Cell { content: 1 << WIDTH_SHIFT, fg: self.fg, bg: self.bg, ext }
    }

    /// What erased cells become: nothing but the colour of the background.
    pub(super) fn erased(&self) -> Cell {
        Cell { bg: self.bg & COLOUR, ..Cell::default() }
    }
}

/// One column of one row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cell {
    pub(super) content: u32,
    pub(super) fg: u32,
    pub(super) bg: u32,
    pub(super) ext: Ext,
}

impl Default for Cell {
    fn default() -> Self {
        Self { content: 1 << WIDTH_SHIFT, fg: 0, bg: 0, ext: Ext::default() }
    }
}

impl Cell {
    /// With this character and width.
    pub(super) fn with(self, code: u32, width: u32) -> Self {
        Self { content: code | width << WIDTH_SHIFT, ..self }
    }

    pub(super) fn width(&self) -> u32 {
        self.content >> WIDTH_SHIFT
    }

    /// The code point or the number of a string; 0 for none.
    pub(super) fn code(&self) -> u32 {
        self.content & CODE
    }

    pub(super) fn is_combined(&self) -> bool {
        self.content & COMBINED != 0
    }

    pub(super) fn has_content(&self) -> bool {
        self.content & CONTENT != 0
    }

    /// Puts a string in the place of the character; the width stays.
    pub(super) fn set_combined(&mut self, number: u32) {
        self.content = self.content & WIDTH | COMBINED | number & CODE;
    }

    /// Replaces the number of a string.
    pub(super) fn renumber(&mut self, number: u32) {
        self.content = self.content & !CODE | number & CODE;
    }

    /// The second half of a wide character.
    pub(super) fn is_second_half(&self) -> bool {
        self.width() == 0 && !self.has_content()
    }

    pub(super) fn pen(&self) -> Pen {
        Pen { fg: self.fg, bg: self.bg, ext: self.ext }
    }
}

/// One line of the screen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    /// The line above goes on here.
    pub(super) is_wrapped: bool,
}

impl Row {
    pub(super) fn new(cols: usize, fill: Cell) -> Self {
        Self { cells: vec![fill; cols], is_wrapped: false }
    }

    pub(super) fn fill(&mut self, fill: Cell, is_wrapped: bool) {
        self.cells.fill(fill);
        self.is_wrapped = is_wrapped;
    }

    pub(super) fn width(&self, col: usize) -> u32 {
        self.cells[col].width()
    }

    /// Columns up to the last character.
    pub(super) fn used(&self) -> usize {
        match self.cells.iter().rposition(Cell::has_content) {
            Some(col) => col + self.cells[col].width() as usize,
            None => 0,
        }
    }

    /// The cells that belong to the line, if it goes on in `next`: all but a last one that was left free because a wide
    /// character did not fit there.
    pub(super) fn before(&self, next: &Row) -> &[Cell] {
        match self.cells.split_last() {
            Some((last, rest)) if !last.has_content() && last.width() == 1 && next.width(0) == 2 => rest,
            _ => &self.cells,
        }
    }

    /// Shifts cells to the right (ICH and the like).
    pub(super) fn insert(&mut self, col: usize, count: usize, fill: Cell) {
        let len = self.cells.len();
        let col = col % len;
        if col > 0 && self.width(col - 1) == 2 {
            self.cells[col - 1] = fill;
        }
        if count < len - col {
            self.cells.copy_within(col..len - count, col + count);
            self.cells[col..col + count].fill(fill);
        } else {
            self.cells[col..].fill(fill);
        }
        if self.width(len - 1) == 2 {
            self.cells[len - 1] = fill;
        }
    }

    /// Shifts cells to the left (DCH and the like).
    pub(super) fn delete(&mut self, col: usize, count: usize, fill: Cell) {
        let len = self.cells.len();
        let col = col % len;
        if count < len - col {
            self.cells.copy_within(col + count.., col);
            self.cells[len - count..].fill(fill);
        } else {
            self.cells[col..].fill(fill);
        }
        if col > 0 && self.width(col - 1) == 2 {
            self.cells[col - 1] = fill;
        }
        if self.cells[col].is_second_half() {
            self.cells[col] = fill;
        }
    }

    /// Erases from `start` up to before `end`, and the halves of characters that it cuts.
    pub(super) fn replace(&mut self, start: usize, end: usize, fill: Cell, keeps_protected: bool) {
        let len = self.cells.len();
        let is_protected = |cell: &Cell| keeps_protected && cell.bg & PROTECTED != 0;
        if start > 0 && self.width(start - 1) == 2 && !is_protected(&self.cells[start - 1]) {
            self.cells[start - 1] = fill;
        }
        if end < len && end > 0 && self.width(end - 1) == 2 && !is_protected(&self.cells[end]) {
            self.cells[end] = fill;
        }
        let end = end.min(len);
        if start >= end {
            return;
        }
        if keeps_protected {
            for cell in self.cells[start..end].iter_mut().filter(|cell| !is_protected(cell)) {
                *cell = fill;
            }
        } else {
            self.cells[start..end].fill(fill);
        }
    }
}

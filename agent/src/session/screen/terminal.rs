//! The terminal: its two screens, what is written with, and what concerns all of it.
//!
//! The semantics are those of xterm.js 6.0 (MIT), line by line where it matters, because that is what viewers run: a
//! model that is right by another book makes late viewers see another screen than early ones. ADR 11 says why.
//! What it does is in the modules beside this one, by subject; [`super::dispatch`] leads there.

use super::buffer::{Buffer, Saved, default_tabs};
use super::cell::{Cell, HAS_EXT, Pen};
use super::modes::Modes;
use super::params::Params;
use super::parser::Parser;
use super::store::Store;

/// See the module.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) cols: usize,
    pub(super) height: usize,
    pub(super) normal: Buffer,
    pub(super) alternate: Buffer,
    pub(super) is_alternate: bool,
    pub(super) pen: Pen,
    /// Line drawing in G0 to G3.
    pub(super) graphic_sets: [bool; 4],
    pub(super) active_set: usize,
    /// Line drawing is in force. Restoring a cursor changes this alone.
    pub(super) is_graphic: bool,
    /// Columns of the character that was just written, which marks may join and REP repeats; 0 for none.
    pub(super) joinable: u32,
    pub(super) modes: Modes,
    pub(super) store: Store,
    pub(super) params: Params,
}

impl Terminal {
    pub(super) fn new(cols: usize, height: usize) -> Self {
        let mut normal = Buffer::new(cols, height);
        normal.fill(cols, height, Cell::default());
        Self {
            cols,
            height,
            normal,
            alternate: Buffer::new(cols, height),
            is_alternate: false,
            pen: Pen::default(),
            graphic_sets: [false; 4],
            active_set: 0,
            is_graphic: false,
            joinable: 0,
            modes: Modes::default(),
            store: Store::default(),
            params: Params::default(),
        }
    }

    pub(super) fn process(&mut self, parser: &mut Parser, bytes: &[u8]) {
        parser.process(bytes, self);
        if self.store.is_full() {
            self.sweep();
        }
    }

    /// The screen that is shown.
    pub(super) fn active(&self) -> &Buffer {
        if self.is_alternate { &self.alternate } else { &self.normal }
    }

    pub(super) fn active_mut(&mut self) -> &mut Buffer {
        if self.is_alternate { &mut self.alternate } else { &mut self.normal }
    }

    /// The text of a cell; empty for a blank.
    pub(super) fn push_text(&self, cell: &Cell, text: &mut String) {
        if cell.is_combined() {
            text.push_str(self.store.string(cell.code()));
        } else if cell.has_content() {
            text.extend(char::from_u32(cell.code()));
        }
    }

    /// The text of cells, with trailing blanks.
    pub(super) fn text_of(&self, cells: &[Cell]) -> String {
        let mut text = String::with_capacity(cells.len());
        for cell in cells.iter().filter(|cell| !cell.is_second_half()) {
            if cell.has_content() {
                self.push_text(cell, &mut text);
            } else {
                text.push(' ');
            }
        }
        text
    }

    /// Forgets strings and links that no cell shows.
    pub(super) fn sweep(&mut self) {
        let (mut strings, mut links) = (Vec::new(), vec![self.pen.ext.link]);
        let buffers = [&self.normal, &self.alternate];
        let gone = self.normal.gone.iter().flatten().map(|gone| &gone.row);
        for cell in buffers.iter().flat_map(|buffer| &buffer.rows).chain(gone).flat_map(|row| &row.cells) {
            if cell.is_combined() {
                strings.push(cell.code());
            }
            if cell.ext.link != 0 {
                links.push(cell.ext.link);
            }
        }
        let (strings, links) = self.store.sweep(&strings, &links);
        let link = |old: u32| links.get(&old).copied().unwrap_or(0);
        self.pen.ext.link = link(self.pen.ext.link);
        let gone = self.normal.gone.iter_mut().flatten().map(|gone| &mut gone.row);
        let rows = self.normal.rows.iter_mut().chain(&mut self.alternate.rows).chain(gone);
        for cell in rows.flat_map(|row| &mut row.cells) {
            if cell.is_combined() {
                cell.renumber(strings.get(&cell.code()).copied().unwrap_or(0));
            }
            cell.ext.link = link(cell.ext.link);
        }
    }

    // ---- screens, charsets, resets ----

    pub(super) fn show_alternate(&mut self) {
        if self.is_alternate {
            return;
        }
        let (cols, height, erased) = (self.cols, self.height, self.pen.erased());
        self.alternate.fill(cols, height, erased);
        (self.alternate.x, self.alternate.y) = (self.normal.x, self.normal.y);
        self.is_alternate = true;
        std::mem::swap(&mut self.modes.keyboard, &mut self.modes.other_keyboard);
    }

    pub(super) fn show_normal(&mut self) {
        if !self.is_alternate {
            return;
        }
        (self.normal.x, self.normal.y) = (self.alternate.x, self.alternate.y);
        self.alternate.clear(self.cols, self.height);
        self.is_alternate = false;
        std::mem::swap(&mut self.modes.keyboard, &mut self.modes.other_keyboard);
    }

    pub(super) fn use_set(&mut self, set: usize) {
        self.active_set = set;
        self.is_graphic = self.graphic_sets[set];
    }

    pub(super) fn designate(&mut self, set: usize, is_graphic: bool) {
        self.graphic_sets[set] = is_graphic;
        if self.active_set == set {
            self.is_graphic = is_graphic;
        }
    }

    pub(super) fn set_origin(&mut self, is_set: bool) {
        self.modes.soft.origin = is_set;
        self.go_to(0, 0);
    }

    pub(super) fn soft_reset(&mut self) {
        self.modes.is_cursor_hidden = false;
        self.modes.soft = super::modes::SoftModes::default();
        self.pen = Pen::default();
        (self.graphic_sets, self.active_set, self.is_graphic) = ([false; 4], 0, false);
        let height = self.height;
        let buffer = self.active_mut();
        (buffer.top, buffer.bottom) = (0, height - 1);
        buffer.saved = Saved { y: buffer.history, ..Saved::default() };
    }

    pub(super) fn full_reset(&mut self) {
        let mut modes = std::mem::take(&mut self.modes);
        modes.reset();
        // What has left the screen has been printed all the same, and needs its strings.
        let (gone, store) = (self.normal.gone.take(), std::mem::take(&mut self.store));
        *self = Self { modes, store, ..Self::new(self.cols, self.height) };
        self.normal.gone = gone;
    }

    /// New tab stops after a change of the number of columns.
    pub(super) fn tabs_for(&mut self, cols: usize) {
        self.normal.resize_tabs(cols);
        if self.is_alternate {
            self.alternate.resize_tabs(cols);
        } else {
            self.alternate.tabs = default_tabs(cols);
        }
    }

    /// Opens or closes a link.
    pub(super) fn set_link(&mut self, link: Option<super::store::Link>) {
        self.pen.ext.link = link.map_or(0, |link| self.store.add_link(link));
        self.pen.update();
        debug_assert!(self.pen.ext.link == 0 || self.pen.bg & HAS_EXT != 0);
        if self.store.is_full() {
            self.sweep();
        }
    }
}

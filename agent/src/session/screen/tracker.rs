//! The engine's handler, wrapped: passes every call on and notes what the engine keeps to itself.
//!
//! `alacritty_terminal` does not show its scroll region, tab stops, active charset, title, keyboard modes or the
//! primary grid behind the alternate one. A snapshot needs all of them.

use std::cell::Cell as Flag;
use std::collections::BTreeSet;
use std::time::Duration;

use alacritty_terminal::event::VoidListener;
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::Line;
use alacritty_terminal::term::{Config, Osc52, Term, TermMode};
use alacritty_terminal::vte::ansi::{
    Attr, CharsetIndex, ClearMode, CursorShape, CursorStyle, Handler, Hyperlink, KeyboardModes,
    KeyboardModesApplyBehavior, LineClearMode, Mode, ModifyOtherKeys, NamedPrivateMode, PrivateMode, Rgb,
    StandardCharset, TabulationClearMode, Timeout,
};
use claudenest_shared::session::TermSize;

/// Private modes that the engine does not know but a viewer may; programs use a handful.
const MAX_OTHER_MODES: usize = 64;
/// Depth of the kitty keyboard stack; the protocol asks for a bound against programs that only push.
const MAX_KEYBOARD_STACK: usize = 16;
/// Depth of the title stack, as in xterm.
const MAX_TITLE_STACK: usize = 10;

/// Never holds bytes of a synchronized update back: the viewer does that, and a snapshot must reflect every byte.
#[derive(Debug, Default)]
pub(super) struct Immediate {
    has_begun: Flag<bool>,
}

impl Immediate {
    /// True once after each begin of a synchronized update.
    pub(super) fn take_begin(&self) -> bool {
        self.has_begun.take()
    }
}

impl Timeout for Immediate {
    fn set_timeout(&mut self, _duration: Duration) {
        self.has_begun.set(true);
    }

    fn clear_timeout(&mut self) {}

    fn pending_timeout(&self) -> bool {
        false
    }
}

#[derive(Clone, Copy)]
struct Size(TermSize);

impl Dimensions for Size {
    fn total_lines(&self) -> usize {
        self.screen_lines()
    }

    fn screen_lines(&self) -> usize {
        usize::from(self.0.rows)
    }

    fn columns(&self) -> usize {
        usize::from(self.0.cols)
    }
}

/// State of the kitty keyboard protocol on one of the two screens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keyboard {
    /// Flags in force.
    pub(super) current: u8,
    /// Flags below, to which a pop returns.
    pub(super) below: Vec<u8>,
}

/// The engine and what it does not tell.
pub(super) struct Tracker {
    pub(super) term: Term<VoidListener>,
    /// First row of the scroll region and the row behind its last.
    pub(super) scroll_region: (usize, usize),
    pub(super) tabs: Vec<bool>,
    pub(super) charset: CharsetIndex,
    pub(super) title: Option<String>,
    titles: Vec<Option<String>>,
    pub(super) cursor_style: Option<CursorStyle>,
    pub(super) other_modes: BTreeSet<u16>,
    pub(super) keyboard: Keyboard,
    /// Of the screen that is not shown.
    pub(super) other_keyboard: Keyboard,
    pub(super) modify_other_keys: u8,
    pub(super) is_synchronized: bool,
}

impl Tracker {
    pub(super) fn new(size: TermSize) -> Self {
        let config = Config {
            scrolling_history: 0,
            // Its stack panics when it overflows (0.26 trims the wrong vector); ours is above.
            kitty_keyboard: false,
            osc52: Osc52::Disabled,
            ..Config::default()
        };
        Self {
            term: Term::new(config, &Size(size), VoidListener),
            scroll_region: (0, usize::from(size.rows)),
            tabs: default_tabs(usize::from(size.cols)),
            charset: CharsetIndex::default(),
            title: None,
            titles: Vec::new(),
            cursor_style: None,
            other_modes: BTreeSet::new(),
            keyboard: Keyboard::default(),
            other_keyboard: Keyboard::default(),
            modify_other_keys: 0,
            is_synchronized: false,
        }
    }

    pub(super) fn size(&self) -> TermSize {
        // Both were within u16 when they were set.
        TermSize::clamped(self.term.columns() as u16, self.term.screen_lines() as u16)
    }

    pub(super) fn resize(&mut self, size: TermSize) {
        if size == self.size() {
            return;
        }
        self.term.resize(Size(size));
        self.scroll_region = (0, usize::from(size.rows));
        let cols = usize::from(size.cols);
        let defaults = default_tabs(cols);
        let kept = self.tabs.len().min(cols);
        self.tabs.truncate(cols);
        self.tabs.extend_from_slice(&defaults[kept..]);
    }

    pub(super) fn begin_synchronized(&mut self) {
        self.is_synchronized = true;
    }

    pub(super) fn kitty_flags(&self) -> u8 {
        self.keyboard.current
    }

    pub(super) fn is_alternate(&self) -> bool {
        self.term.mode().contains(TermMode::ALT_SCREEN)
    }

    /// Follows the engine to the other screen.
    fn after_mode_change(&mut self, was_alternate: bool) {
        if was_alternate != self.is_alternate() {
            std::mem::swap(&mut self.keyboard, &mut self.other_keyboard);
        }
    }
}

fn default_tabs(cols: usize) -> Vec<bool> {
    (0..cols).map(|col| col % 8 == 0).collect()
}

/// Handler methods that only pass the call on.
macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $name(&mut self, $($arg: $type),*) {
            self.term.$name($($arg),*);
        })*
    };
}

impl Handler for Tracker {
    forward! {
        input(c: char);
        goto(line: i32, col: usize);
        goto_line(line: i32);
        goto_col(col: usize);
        insert_blank(count: usize);
        move_up(rows: usize);
        move_down(rows: usize);
        move_forward(cols: usize);
        move_backward(cols: usize);
        move_down_and_cr(rows: usize);
        move_up_and_cr(rows: usize);
        backspace();
        carriage_return();
        linefeed();
        substitute();
        newline();
        scroll_up(rows: usize);
        scroll_down(rows: usize);
        insert_blank_lines(rows: usize);
        delete_lines(rows: usize);
        erase_chars(count: usize);
        delete_chars(count: usize);
        save_cursor_position();
        restore_cursor_position();
        clear_line(mode: LineClearMode);
        clear_screen(mode: ClearMode);
        reverse_index();
        terminal_attribute(attr: Attr);
        set_mode(mode: Mode);
        unset_mode(mode: Mode);
        set_keypad_application_mode();
        unset_keypad_application_mode();
        configure_charset(index: CharsetIndex, charset: StandardCharset);
        set_color(index: usize, color: Rgb);
        reset_color(index: usize);
        decaln();
        set_hyperlink(link: Option<Hyperlink>);
    }

    // A cursor behind the last column does not move by tabs in xterm; the engine would wrap, or lose the place.
    fn put_tab(&mut self, count: u16) {
        if !self.term.grid().cursor.input_needs_wrap {
            self.term.put_tab(count);
        }
    }

    fn move_backward_tabs(&mut self, count: u16) {
        if !self.term.grid().cursor.input_needs_wrap {
            self.term.move_backward_tabs(count);
        }
    }

    fn move_forward_tabs(&mut self, count: u16) {
        if !self.term.grid().cursor.input_needs_wrap {
            self.term.move_forward_tabs(count);
        }
    }

    fn set_title(&mut self, title: Option<String>) {
        self.title = title.map(|text| text.chars().filter(|c| !c.is_control()).collect());
    }

    fn push_title(&mut self) {
        if self.titles.len() < MAX_TITLE_STACK {
            self.titles.push(self.title.clone());
        }
    }

    fn pop_title(&mut self) {
        if let Some(title) = self.titles.pop() {
            self.title = title;
        }
    }

    fn set_cursor_style(&mut self, style: Option<CursorStyle>) {
        self.cursor_style = style;
        self.term.set_cursor_style(style);
    }

    fn set_cursor_shape(&mut self, shape: CursorShape) {
        let blinking = self.cursor_style.is_some_and(|style| style.blinking);
        self.cursor_style = Some(CursorStyle { shape, blinking });
        self.term.set_cursor_shape(shape);
    }

    fn set_horizontal_tabstop(&mut self) {
        let col = self.term.grid().cursor.point.column.0;
        if let Some(stop) = self.tabs.get_mut(col) {
            *stop = true;
        }
        self.term.set_horizontal_tabstop();
    }

    fn clear_tabs(&mut self, mode: TabulationClearMode) {
        let col = self.term.grid().cursor.point.column.0;
        match mode {
            TabulationClearMode::Current => {
                if let Some(stop) = self.tabs.get_mut(col) {
                    *stop = false;
                }
            }
            TabulationClearMode::All => self.tabs.fill(false),
        }
        self.term.clear_tabs(mode);
    }

    fn set_scrolling_region(&mut self, top: usize, bottom: Option<usize>) {
        let rows = self.term.screen_lines();
        let bottom = bottom.unwrap_or(rows);
        let top = top.max(1);
        // The engine's own test, and a region of one row, which xterm refuses too.
        if top < bottom && top < rows {
            self.scroll_region = (top - 1, bottom.min(rows));
            self.term.set_scrolling_region(top, Some(bottom));
        }
    }

    fn set_active_charset(&mut self, index: CharsetIndex) {
        self.charset = index;
        self.term.set_active_charset(index);
    }

    fn set_private_mode(&mut self, mode: PrivateMode) {
        let was_alternate = self.is_alternate();
        match mode {
            PrivateMode::Named(NamedPrivateMode::SyncUpdate) => self.is_synchronized = true,
            // The older forms of 1049; they do not save the cursor, which only matters to who restores it.
            PrivateMode::Unknown(47 | 1047) => {
                if !was_alternate {
                    self.term.swap_alt();
                }
            }
            PrivateMode::Unknown(1048) => self.term.save_cursor_position(),
            PrivateMode::Unknown(other) => {
                if self.other_modes.len() < MAX_OTHER_MODES {
                    self.other_modes.insert(other);
                }
            }
            // 132 columns: xterm.js ignores it, and a size belongs to its owner.
            PrivateMode::Named(NamedPrivateMode::ColumnMode) => {}
            PrivateMode::Named(_) => self.term.set_private_mode(mode),
        }
        self.after_mode_change(was_alternate);
    }

    fn unset_private_mode(&mut self, mode: PrivateMode) {
        let was_alternate = self.is_alternate();
        match mode {
            PrivateMode::Named(NamedPrivateMode::SyncUpdate) => self.is_synchronized = false,
            PrivateMode::Unknown(47 | 1047) => {
                if was_alternate {
                    self.term.swap_alt();
                }
            }
            PrivateMode::Unknown(1048) => self.term.restore_cursor_position(),
            PrivateMode::Unknown(other) => {
                self.other_modes.remove(&other);
            }
            PrivateMode::Named(NamedPrivateMode::ColumnMode) => {}
            PrivateMode::Named(_) => self.term.unset_private_mode(mode),
        }
        self.after_mode_change(was_alternate);
    }

    fn push_keyboard_mode(&mut self, mode: KeyboardModes) {
        if self.keyboard.below.len() == MAX_KEYBOARD_STACK {
            self.keyboard.below.remove(0);
        }
        self.keyboard.below.push(self.keyboard.current);
        self.keyboard.current = mode.bits();
    }

    fn pop_keyboard_modes(&mut self, to_pop: u16) {
        for _ in 0..to_pop.min(MAX_KEYBOARD_STACK as u16) {
            self.keyboard.current = self.keyboard.below.pop().unwrap_or(0);
        }
    }

    fn set_keyboard_mode(&mut self, mode: KeyboardModes, behavior: KeyboardModesApplyBehavior) {
        let bits = mode.bits();
        self.keyboard.current = match behavior {
            KeyboardModesApplyBehavior::Replace => bits,
            KeyboardModesApplyBehavior::Union => self.keyboard.current | bits,
            KeyboardModesApplyBehavior::Difference => self.keyboard.current & !bits,
        };
    }

    fn set_modify_other_keys(&mut self, mode: ModifyOtherKeys) {
        self.modify_other_keys = match mode {
            ModifyOtherKeys::Reset => 0,
            ModifyOtherKeys::EnableExceptWellDefined => 1,
            ModifyOtherKeys::EnableAll => 2,
        };
    }

    fn reset_state(&mut self) {
        let size = self.size();
        self.term.reset_state();
        let term = std::mem::replace(&mut self.term, Term::new(Config::default(), &Size(size), VoidListener));
        *self = Self { term, ..Self::new(size) };
    }
}

impl Tracker {
    /// Shows the primary grid to `look` while the alternate screen is up, and puts everything back.
    pub(super) fn with_primary<T>(&mut self, look: impl FnOnce(&mut Self) -> T) -> T {
        debug_assert!(self.is_alternate());
        // Entering the alternate screen clears it, so it is kept aside.
        let alternate = self.term.grid().clone();
        self.term.swap_alt();
        let saved = self.term.grid().saved_cursor.clone();
        let result = look(self);
        self.term.grid_mut().saved_cursor = saved;
        self.term.swap_alt();
        *self.term.grid_mut() = alternate;
        result
    }

    /// The row at `line` of the grid that is shown.
    pub(super) fn row(
        &self,
        line: usize,
    ) -> &alacritty_terminal::grid::Row<alacritty_terminal::term::cell::Cell> {
        &self.term.grid()[Line(line as i32)]
    }
}

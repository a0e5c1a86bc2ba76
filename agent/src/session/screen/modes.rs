//! Modes, keyboard protocols, colours and title: what a program has told the terminal beside the screen.

use std::collections::BTreeMap;

/// Private modes that have no effect here but may have one elsewhere; programs use a handful.
const MAX_OTHER_MODES: usize = 64;
/// Depth of the kitty keyboard stack; the protocol asks for a bound against programs that only push.
const MAX_KEYBOARD_STACK: usize = 16;

/// Which mouse events are reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Mouse {
    #[default]
    None,
    X10,
    Clicks,
    Drags,
    Motion,
}

impl Mouse {
    /// The private mode that turns it on.
    pub(super) fn mode(self) -> Option<u16> {
        match self {
            Self::None => None,
            Self::X10 => Some(9),
            Self::Clicks => Some(1000),
            Self::Drags => Some(1002),
            Self::Motion => Some(1003),
        }
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

impl Keyboard {
    pub(super) fn push(&mut self, flags: u8) {
        if self.below.len() == MAX_KEYBOARD_STACK {
            self.below.remove(0);
        }
        self.below.push(self.current);
        self.current = flags;
    }

    pub(super) fn pop(&mut self, count: usize) {
        for _ in 0..count.min(MAX_KEYBOARD_STACK) {
            self.current = self.below.pop().unwrap_or(0);
        }
    }
}

/// What the soft reset (DECSTR) brings back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SoftModes {
    pub(super) app_cursor: bool,
    pub(super) app_keypad: bool,
    pub(super) bracketed_paste: bool,
    pub(super) focus: bool,
    pub(super) insert: bool,
    pub(super) origin: bool,
    pub(super) reverse_wrap: bool,
    pub(super) synchronized: bool,
    pub(super) wrap: bool,
    /// DECSCUSR: 1 to 6, or 0.
    pub(super) cursor_style: u8,
}

impl Default for SoftModes {
    fn default() -> Self {
        Self {
            app_cursor: false,
            app_keypad: false,
            bracketed_paste: false,
            focus: false,
            insert: false,
            origin: false,
            reverse_wrap: false,
            synchronized: false,
            wrap: true,
            cursor_style: 0,
        }
    }
}

/// Everything of this module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Modes {
    pub(super) soft: SoftModes,
    pub(super) mouse: Mouse,
    /// 0, 1006 or 1016.
    pub(super) mouse_encoding: u16,
    pub(super) is_cursor_hidden: bool,
    /// Mode 12.
    pub(super) cursor_blinks: bool,
    /// LNM: a line feed also returns.
    pub(super) newline: bool,
    /// Modes that change nothing here, with what was said last.
    pub(super) others: BTreeMap<u16, bool>,
    pub(super) keyboard: Keyboard,
    /// Of the screen that is not shown.
    pub(super) other_keyboard: Keyboard,
    pub(super) modify_other_keys: Option<u8>,
    pub(super) title: Option<String>,
    /// OSC 4, as written.
    pub(super) palette: BTreeMap<u8, Box<str>>,
    /// OSC 10 to 12, as written.
    pub(super) dynamic: BTreeMap<u8, Box<str>>,
}

impl Modes {
    pub(super) fn set_other(&mut self, mode: u16, is_set: bool) {
        if self.others.len() < MAX_OTHER_MODES || self.others.contains_key(&mode) {
            self.others.insert(mode, is_set);
        }
    }

    /// After RIS. xterm.js keeps what its options hold and whether the cursor is shown; the title stays everywhere.
    pub(super) fn reset(&mut self) {
        *self = Self {
            is_cursor_hidden: self.is_cursor_hidden,
            cursor_blinks: self.cursor_blinks,
            newline: self.newline,
            title: self.title.take(),
            palette: std::mem::take(&mut self.palette),
            dynamic: std::mem::take(&mut self.dynamic),
            ..Self::default()
        };
    }
}

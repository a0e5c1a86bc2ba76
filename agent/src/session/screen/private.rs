//! Private modes, key encodings, cursor styles and OSC strings: what programs set beside the screen, and what they
//! are told when they ask for a mode.

use super::super::sanitise::{Mode, ModeState};
use super::modes::{Modes, Mouse};
use super::store::Link;
use super::terminal::Terminal;

/// Longest colour that is kept; the sanitiser lets no longer one through.
const MAX_COLOUR_BYTES: usize = 64;

impl Terminal {
    pub(super) fn set_private_mode(&mut self, mode: u16, is_set: bool) {
        let soft = &mut self.modes.soft;
        match mode {
            1 => soft.app_cursor = is_set,
            6 => self.set_origin(is_set),
            7 => soft.wrap = is_set,
            12 => self.modes.cursor_blinks = is_set,
            25 => self.modes.is_cursor_hidden = !is_set,
            45 => soft.reverse_wrap = is_set,
            66 => soft.app_keypad = is_set,
            9 => self.modes.mouse = if is_set { Mouse::X10 } else { Mouse::None },
            1000 => self.modes.mouse = if is_set { Mouse::Clicks } else { Mouse::None },
            1002 => self.modes.mouse = if is_set { Mouse::Drags } else { Mouse::None },
            1003 => self.modes.mouse = if is_set { Mouse::Motion } else { Mouse::None },
            1006 | 1016 => self.modes.mouse_encoding = if is_set { mode } else { 0 },
            1004 => soft.focus = is_set,
            2004 => soft.bracketed_paste = is_set,
            2026 => soft.synchronized = is_set,
            1048 if is_set => self.save_cursor(),
            1048 => self.restore_cursor(),
            47 | 1047 | 1049 if is_set => {
                if mode == 1049 {
                    self.save_cursor();
                }
                self.show_alternate();
            }
            47 | 1047 | 1049 => {
                self.show_normal();
                if mode == 1049 {
                    self.restore_cursor();
                }
            }
            _ => self.modes.set_other(mode, is_set),
        }
    }

    /// DECSCUSR.
    pub(super) fn set_cursor_style(&mut self, style: i32) {
        let current = &mut self.modes.soft.cursor_style;
        match style {
            0..=6 => *current = style as u8,
            // Of an unknown shape only "blinks" is taken.
            _ if *current > 0 => *current = current.div_ceil(2) * 2 - u8::from(style % 2 == 1),
            _ => {}
        }
    }

    pub(super) fn set_by_osc(&mut self, body: &str) {
        let (number, rest) = body.split_once(';').map_or((body, None), |(number, rest)| (number, Some(rest)));
        match (number, rest) {
            ("0" | "2", Some(title)) => {
                self.modes.title = Some(title.chars().filter(|character| !character.is_control()).collect());
            }
            ("4", Some(rest)) => {
                let items: Vec<&str> = rest.split(';').collect();
                for pair in items.chunks_exact(2) {
                    if let (Ok(index), 1..=MAX_COLOUR_BYTES) = (pair[0].parse::<u8>(), pair[1].len()) {
                        self.modes.palette.insert(index, pair[1].into());
                    }
                }
            }
            ("8", Some(rest)) => {
                let Some((params, uri)) = rest.split_once(';') else { return };
                if uri.is_empty() {
                    if params.trim().is_empty() {
                        self.set_link(None);
                    }
                    return;
                }
                let id = params.trim().split(':').find_map(|param| param.strip_prefix("id="));
                let id = id.filter(|id| !id.is_empty()).map(Into::into);
                self.set_link(Some(Link { id, uri: uri.into() }));
            }
            ("10" | "11" | "12", Some(rest)) => {
                let first = number.as_bytes()[1] - b'0' + 10;
                for (number, colour) in (first..=12).zip(rest.split(';')) {
                    if (1..=MAX_COLOUR_BYTES).contains(&colour.len()) {
                        self.modes.dynamic.insert(number, colour.into());
                    }
                }
            }
            ("104", None) => self.modes.palette.clear(),
            ("104", Some(rest)) => {
                for index in rest.split(';').filter_map(|index| index.parse::<u8>().ok()) {
                    self.modes.palette.remove(&index);
                }
            }
            ("110" | "111" | "112", None) => {
                self.modes.dynamic.remove(&(number.as_bytes()[2] - b'0' + 10));
            }
            _ => {}
        }
    }

    /// What DECRQM is told.
    pub(super) fn mode_state(&self, mode: Mode) -> ModeState {
        let (modes, soft) = (&self.modes, &self.modes.soft);
        let is_set = match mode {
            Mode::Ansi(2) => return ModeState::PermanentlyReset, // the keyboard is never locked
            Mode::Ansi(4) => soft.insert,
            Mode::Ansi(12) => return ModeState::PermanentlySet, // no local echo
            Mode::Ansi(20) => modes.newline,
            Mode::Private(1) => soft.app_cursor,
            Mode::Private(6) => soft.origin,
            Mode::Private(7) => soft.wrap,
            Mode::Private(8) => return ModeState::PermanentlySet, // keys repeat
            Mode::Private(12) => modes.cursor_blinks,
            Mode::Private(25) => !modes.is_cursor_hidden,
            Mode::Private(45) => soft.reverse_wrap,
            Mode::Private(66) => soft.app_keypad,
            Mode::Private(67 | 1005 | 1015) => return ModeState::PermanentlyReset,
            Mode::Private(mode @ (9 | 1000 | 1002 | 1003)) => modes.mouse.mode() == Some(mode),
            Mode::Private(1004) => soft.focus,
            Mode::Private(mode @ (1006 | 1016)) => modes.mouse_encoding == mode,
            Mode::Private(47 | 1047 | 1049) => self.is_alternate,
            Mode::Private(1048) => true, // as xterm: a cursor is always saved
            Mode::Private(2004) => soft.bracketed_paste,
            Mode::Private(2026) => soft.synchronized,
            Mode::Private(mode @ (1007 | 2031)) => modes.others.get(&mode).copied().unwrap_or(false),
            Mode::Ansi(_) | Mode::Private(_) => return ModeState::NotRecognised,
        };
        if is_set { ModeState::Set } else { ModeState::Reset }
    }
}

impl Modes {
    /// Kitty's push, pop and set, and XTMODKEYS.
    pub(super) fn key_encoding(&mut self, prefix: u8, last: u8, numbers: [i32; 2], len: usize) {
        // The protocol has five flags.
        let flags = (numbers[0] & 0x1f) as u8;
        match (prefix, last) {
            (b'>', b'u') => self.keyboard.push(flags),
            (b'<', b'u') => self.keyboard.pop(usize::try_from(numbers[0]).unwrap_or(0).max(1)),
            (b'=', b'u') => match numbers[1] {
                0 | 1 => self.keyboard.current = flags,
                2 => self.keyboard.current |= flags,
                3 => self.keyboard.current &= !flags,
                _ => {}
            },
            (b'>', b'm') if numbers[0] == 4 && (0..=2).contains(&numbers[1]) => {
                self.modify_other_keys = (len > 1).then_some(numbers[1] as u8).filter(|value| *value > 0);
            }
            (b'>', b'm') if numbers[0] == 0 && len == 1 => self.modify_other_keys = None,
            (b'>', b'n') if numbers[0] == 4 => self.modify_other_keys = None,
            _ => {}
        }
    }
}

//! Which sequence does what. What is not named here does nothing, as in xterm.js.

use super::cell::{Cell, PROTECTED};
use super::parser::Sink;
use super::terminal::Terminal;

impl Terminal {
    pub(super) fn simple_csi(&mut self, last: u8) {
        let count = self.params.count(0);
        let kind = self.params.get(0);
        let (erased, x, y) = (self.pen.erased(), self.active().x, self.active().y);
        match last {
            b'@' => {
                self.restrict();
                let buffer = self.active_mut();
                let x = buffer.x;
                buffer.row().insert(x, count, erased);
            }
            b'A' => self.up(count),
            b'B' => self.down(count),
            b'C' | b'a' => self.move_by(count as isize, 0),
            b'D' => self.move_by(-(count as isize), 0),
            b'E' => {
                self.down(count);
                self.active_mut().x = 0;
            }
            b'F' => {
                self.up(count);
                self.active_mut().x = 0;
            }
            b'G' | b'`' => self.go_to(count - 1, y),
            b'H' | b'f' => {
                let col = if self.params.len() > 1 { self.params.count(1) - 1 } else { 0 };
                self.go_to(col, count - 1);
            }
            b'I' => self.tab(count),
            b'J' => self.erase_in_screen(kind, false),
            b'K' => self.erase_in_row(kind, false),
            b'L' => self.insert_lines(count),
            b'M' => self.delete_lines(count),
            b'P' => {
                self.restrict();
                let buffer = self.active_mut();
                let x = buffer.x;
                buffer.row().delete(x, count, erased);
            }
            b'S' => {
                let buffer = self.active_mut();
                buffer.move_up(buffer.top, count, erased);
            }
            b'T' => {
                let buffer = self.active_mut();
                buffer.move_down(buffer.top, count, Cell::default());
            }
            b'X' => {
                self.restrict();
                let buffer = self.active_mut();
                let x = buffer.x;
                buffer.row().replace(x, x.saturating_add(count), erased, false);
            }
            b'Z' => self.tab_back(count),
            b'b' => self.repeat(count),
            b'd' => self.go_to(x, count - 1),
            b'e' => self.move_by(0, count as isize),
            b'g' => self.clear_tabs(kind),
            b'h' | b'l' => self.set_ansi_modes(last == b'h'),
            b'm' => super::sgr::apply(&self.params, &mut self.pen),
            b'r' => self.set_region(),
            b's' => self.save_cursor(),
            b'u' => self.restore_cursor(),
            _ => {}
        }
    }

    pub(super) fn set_ansi_modes(&mut self, is_set: bool) {
        for index in 0..self.params.len() {
            match self.params.get(index) {
                4 => self.modes.soft.insert = is_set,
                20 => self.modes.newline = is_set,
                _ => {}
            }
        }
    }

    pub(super) fn select_protected(&mut self) {
        match self.params.get(0) {
            1 => self.pen.bg |= PROTECTED,
            0 | 2 => self.pen.bg &= !PROTECTED,
            _ => {}
        }
    }
}

impl Sink for Terminal {
    /// One that begins in the middle of a wide character erases its first half.
    fn begin_run(&mut self) {
        let blank = self.pen.cell();
        let buffer = self.active_mut();
        if let Some(before) = buffer.x.checked_sub(1)
            && let Some(cell) = buffer.row().cells.get_mut(before)
            && cell.width() == 2
        {
            *cell = blank;
        }
    }

    /// What a run has left of a wide character behind it is erased.
    fn end_run(&mut self) {
        let (blank, cols) = (self.pen.cell(), self.cols);
        let buffer = self.active_mut();
        let x = buffer.x;
        if x < cols && buffer.row().cells[x].is_second_half() {
            buffer.row().cells[x] = blank;
        }
    }

    fn ascii(&mut self, text: &[u8]) {
        self.write_ascii(text);
    }

    fn character(&mut self, code: u32) {
        // C1 controls come as their 7-bit forms; the byte order mark is skipped by xterm.js.
        if !matches!(code, 0x80..=0x9f | 0xfeff) {
            self.write(code);
        }
    }

    fn control(&mut self, byte: u8) {
        match byte {
            0x08 => self.backspace(),
            b'\t' => self.tab(1),
            b'\n' | 0x0b | 0x0c => self.line_feed(),
            b'\r' => self.active_mut().x = 0,
            0x0e => self.use_set(1),
            0x0f => self.use_set(0),
            _ => {}
        }
        self.joinable = 0;
    }

    fn csi(&mut self, inside: &[u8], last: u8) {
        let (prefix, rest) = match inside {
            [prefix @ b'<'..=b'?', rest @ ..] => (*prefix, rest),
            _ => (0, inside),
        };
        let end = rest.iter().position(|byte| !(b'0'..=b';').contains(byte)).unwrap_or(rest.len());
        let (numbers, intermediates) = rest.split_at(end);
        self.params.read(numbers);
        let count = self.params.count(0);
        match (prefix, intermediates, last) {
            (0, [], _) => self.simple_csi(last),
            (b'?', [], b'h' | b'l') => {
                for index in 0..self.params.len() {
                    if let Ok(mode) = u16::try_from(self.params.get(index)) {
                        self.set_private_mode(mode, last == b'h');
                    }
                }
            }
            (b'?', [], b'J') => self.erase_in_screen(self.params.get(0), true),
            (b'?', [], b'K') => self.erase_in_row(self.params.get(0), true),
            (0, b" ", b'@') => self.shift_columns(0, count, false),
            (0, b" ", b'A') => self.shift_columns(0, count, true),
            (0, b"'", b'}') => self.shift_columns(self.active().x, count, true),
            (0, b"'", b'~') => self.shift_columns(self.active().x, count, false),
            (0, b" ", b'q') => self.set_cursor_style(self.params.get(0)),
            (0, b"!", b'p') => self.soft_reset(),
            (0, b"\"", b'q') => self.select_protected(),
            (b'>' | b'<' | b'=', [], _) => {
                let numbers = [self.params.get(0), self.params.get(1)];
                self.modes.key_encoding(prefix, last, numbers, self.params.len());
            }
            _ => {}
        }
        self.joinable = 0;
    }

    fn escape(&mut self, intermediates: &[u8], last: u8) {
        match (intermediates, last) {
            ([], b'7') => self.save_cursor(),
            ([], b'8') => self.restore_cursor(),
            ([], b'D') => self.index(),
            ([], b'E') => {
                self.active_mut().x = 0;
                self.index();
            }
            ([], b'H') => self.set_tab(),
            ([], b'M') => self.reverse_index(),
            ([], b'=') => self.modes.soft.app_keypad = true,
            ([], b'>') => self.modes.soft.app_keypad = false,
            ([], b'c') => self.full_reset(),
            ([], b'n' | b'}') => self.use_set(2),
            ([], b'o' | b'|') => self.use_set(3),
            ([], b'~') => self.use_set(1),
            (b"#", b'8') => self.alignment_pattern(),
            ([set @ b'('..=b'+'], last) => self.designate(usize::from(set - b'('), last == b'0'),
            (b"%", b'@' | b'G') => {
                self.use_set(0);
                self.designate(0, false);
            }
            _ => {}
        }
        self.joinable = 0;
    }

    fn osc(&mut self, body: &[u8]) {
        if let Ok(body) = std::str::from_utf8(body) {
            self.set_by_osc(body);
        }
        self.joinable = 0;
    }

    fn other_string(&mut self) {
        self.joinable = 0;
    }
}

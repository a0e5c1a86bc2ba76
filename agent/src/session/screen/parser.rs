//! Splits output into text, controls and sequences.
//!
//! Keeps the bytes of whatever is unfinished, so that a snapshot can end exactly where the output ends. Made for
//! what the sanitiser lets through (whole sequences, valid UTF-8), safe for anything else.

/// An unfinished sequence longer than this is forgotten up to its end: the sanitiser never lets one through.
const MAX_PENDING_BYTES: usize = 64 * 1024;

const ESC: u8 = 0x1b;

/// What the parser finds, in order.
pub(super) trait Sink {
    /// Characters follow.
    fn begin_run(&mut self);
    /// Printable ASCII of a run.
    fn ascii(&mut self, text: &[u8]);
    /// Another character of a run.
    fn character(&mut self, code: u32);
    /// Something else follows, or nothing yet.
    fn end_run(&mut self);
    /// A C0 control.
    fn control(&mut self, byte: u8);
    /// `CSI`: what stands between the introducer and the last byte, and that byte.
    fn csi(&mut self, inside: &[u8], last: u8);
    /// `ESC`: intermediate bytes and the last byte.
    fn escape(&mut self, intermediates: &[u8], last: u8);
    /// `OSC`, without introducer and terminator.
    fn osc(&mut self, body: &[u8]);
    /// A string without meaning here (DCS, APC, PM, SOS) has ended.
    fn other_string(&mut self);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    Csi,
    Osc,
    OtherString,
    /// So many bytes of a character are missing.
    Utf8(u8),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Parser {
    state: State,
    pending: Vec<u8>,
    is_overlong: bool,
}

impl Parser {
    /// Bytes since the last moment at which nothing was unfinished.
    pub(super) fn pending(&self) -> &[u8] {
        &self.pending
    }

    pub(super) fn process(&mut self, bytes: &[u8], sink: &mut impl Sink) {
        let mut rest = bytes;
        while let Some(byte) = rest.first() {
            let taken = if self.state == State::Ground {
                self.ground(rest, sink)
            } else {
                self.step(*byte, sink);
                1
            };
            rest = &rest[taken..];
        }
    }

    /// Handles what begins at the start of `bytes`; returns its length.
    fn ground(&mut self, bytes: &[u8], sink: &mut impl Sink) -> usize {
        match bytes[0] {
            ESC => {
                if let Some(length) = whole_csi(bytes) {
                    sink.csi(&bytes[2..length - 1], bytes[length - 1]);
                    return length;
                }
                self.begin(ESC, State::Escape);
                1
            }
            0x7f => 1,
            control @ 0x00..=0x1f => {
                sink.control(control);
                1
            }
            _ => {
                sink.begin_run();
                let length = self.run(bytes, sink);
                sink.end_run();
                length
            }
        }
    }

    /// A run of characters; returns its length.
    fn run(&mut self, bytes: &[u8], sink: &mut impl Sink) -> usize {
        let mut at = 0;
        while let Some(first) = bytes.get(at) {
            let rest = &bytes[at..];
            let missing = match first {
                0x20..=0x7e => {
                    let end =
                        rest.iter().position(|byte| !(0x20..=0x7e).contains(byte)).unwrap_or(rest.len());
                    sink.ascii(&rest[..end]);
                    at += end;
                    continue;
                }
                0x00..=0x1f | 0x7f => break,
                0xc2..=0xdf => 1,
                0xe0..=0xef => 2,
                0xf0..=0xf4 => 3,
                _ => {
                    at += 1; // No character begins so.
                    continue;
                }
            };
            if let Some(code) = rest.get(..=missing).and_then(decode) {
                sink.character(code);
                at += missing + 1;
            } else {
                self.begin(*first, State::Utf8(missing as u8));
                at += 1;
                break;
            }
        }
        at
    }

    fn begin(&mut self, byte: u8, state: State) {
        self.pending.clear();
        self.is_overlong = false;
        self.pending.push(byte);
        self.state = state;
    }

    fn end(&mut self) {
        self.state = State::Ground;
        self.pending.clear();
    }

    fn keep(&mut self, byte: u8, state: State) {
        if self.pending.len() < MAX_PENDING_BYTES {
            self.pending.push(byte);
        } else {
            self.is_overlong = true;
        }
        self.state = state;
    }

    /// One byte of something unfinished.
    fn step(&mut self, byte: u8, sink: &mut impl Sink) {
        match (self.state, byte) {
            (State::Utf8(missing), 0x80..=0xbf) => {
                self.pending.push(byte);
                if missing > 1 {
                    self.state = State::Utf8(missing - 1);
                    return;
                }
                if let Some(code) = decode(&self.pending) {
                    sink.begin_run();
                    sink.character(code);
                    sink.end_run();
                }
                self.end();
            }
            (State::Utf8(_), _) => {
                self.end();
                self.ground(&[byte], sink);
            }
            // An ESC ends a string; what follows is a sequence of its own, the rest of the terminator most likely.
            (State::Osc, ESC) => {
                self.finish_osc(sink);
                self.begin(ESC, State::Escape);
            }
            (State::OtherString, ESC) => {
                sink.other_string();
                self.begin(ESC, State::Escape);
            }
            (State::Osc, 0x07) => {
                self.finish_osc(sink);
                self.end();
            }
            (_, ESC) => self.begin(ESC, State::Escape),
            (_, 0x18 | 0x1a) => {
                self.end();
                sink.control(byte);
            }
            (State::Osc | State::OtherString, _) => self.keep(byte, self.state),
            (_, 0x00..=0x1f) => sink.control(byte),
            (State::Escape, b'[') if self.pending.len() == 1 => self.keep(byte, State::Csi),
            (State::Escape, b']') if self.pending.len() == 1 => self.keep(byte, State::Osc),
            (State::Escape, b'P' | b'X' | b'^' | b'_') if self.pending.len() == 1 => {
                self.keep(byte, State::OtherString);
            }
            (State::Escape, 0x20..=0x2f) | (State::Csi, 0x20..=0x3f) => self.keep(byte, self.state),
            (State::Escape, 0x30..=0x7e) => {
                let pending = std::mem::take(&mut self.pending);
                self.end();
                sink.escape(&pending[1..], byte);
                self.pending = pending;
                self.pending.clear();
            }
            (State::Csi, 0x40..=0x7e) => {
                let pending = std::mem::take(&mut self.pending);
                self.end();
                if !self.is_overlong {
                    sink.csi(&pending[2..], byte);
                }
                self.pending = pending;
                self.pending.clear();
            }
            (_, 0x7f) => {}
            // A character inside a sequence ends it.
            _ => self.end(),
        }
    }

    fn finish_osc(&mut self, sink: &mut impl Sink) {
        if !self.is_overlong {
            sink.osc(&self.pending[2..]);
        }
    }
}

/// Length of the CSI sequence at the start, if it is complete and has nothing odd inside.
fn whole_csi(bytes: &[u8]) -> Option<usize> {
    if bytes.get(1) != Some(&b'[') {
        return None;
    }
    let inside = bytes[2..].iter().position(|byte| !(0x20..=0x3f).contains(byte))?;
    (0x40..=0x7e).contains(&bytes[2 + inside]).then_some(inside + 3)
}

/// The character that these bytes are; none for what xterm.js skips.
fn decode(bytes: &[u8]) -> Option<u32> {
    let character = std::str::from_utf8(bytes).ok()?.chars().next()?;
    Some(u32::from(character))
}

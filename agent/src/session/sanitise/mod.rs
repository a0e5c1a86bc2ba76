//! The filter between a child's output and everybody who looks at it: viewers, the screen model, the recording.
//!
//! [`Sanitiser`] is streaming and length-preserving: what it emits has exactly the length of what it was given, so
//! stream offsets stay true; bytes it takes away become NUL, which terminals ignore. It holds back an unfinished
//! sequence or character, so its output is always whole. The result does not depend on where the input was cut.
//!
//! What it emits is canonical: UTF-8 without invalid bytes, 7-bit escape sequences without controls inside, only of
//! known kinds. So parsers that treat odd input differently (xterm.js, our screen model, real terminals) see the same.
//! It knows nothing of sessions or viewers; it does no IO.
//!
//! | input | towards viewers | event |
//! |---|---|---|
//! | text, C0 controls | as it is | |
//! | DEL | blanked: terminals ignore it, but xterm.js 6.0 logs an error for each | |
//! | invalid UTF-8 | `?` for each ill-formed part | |
//! | marks without a column (combining characters) | eight on a character, further ones blanked | |
//! | C1 as UTF-8 (`C2 9B`) | treated and written as its 7-bit form (`ESC [`) | as that |
//! | ENQ | blanked | query |
//! | CSI of known kinds | kept; numbers above 9999 (counts above 512, of rows above 300) clamped | |
//! | SM, RM | only modes that change the screen or the input the program asked for | |
//! | CSI queries, DECID, DECRQSS, XTGETTCAP, colour queries | blanked | query |
//! | window manipulation, media copy, VT52, 8-bit and charset switches, locator, macros, rectangles, unknown CSI and ESC | blanked | |
//! | G0–G3 designations | DEC line drawing kept, all others become ASCII | |
//! | OSC 0, 1, 2 | text without controls and bidi marks, at most 256 characters | title (0, 2) |
//! | OSC 4, 10–12 (set), 104, 110–112 | kept if well-formed | |
//! | OSC 8 | http and https kept; any other target closes the link instead | |
//! | OSC 9;4 | kept | progress |
//! | OSC 9, 777 | blanked | notification |
//! | OSC 52, 952 | a write blanked, or kept as an [offer](offer) where somebody watches; reads blanked, never answered | |
//! | OSC 7, 133, 633, 1337, 99, all others | blanked | |
//! | DCS, APC, PM, SOS (sixel, kitty graphics, pass-through) | blanked | |
//! | unfinished beyond the bounds | blanked, then swallowed up to the terminator | |
//!
//! OSC 133 and 633 are blanked because some terminals answer clicks on marked prompts with input.

mod csi;
pub mod offer;
mod osc;
mod query;
mod text;

pub use query::{AnswerContext, Mode, ModeState, Query, Rgb, answer};

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const ENQ: u8 = 0x05;
const DEL: u8 = 0x7f;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
/// First byte of every C1 control in UTF-8, and never a continuation byte.
const C1_LEAD: u8 = 0xc2;

/// Longest ESC or CSI sequence that is understood; real ones have well below 100 bytes.
const SEQUENCE_MAX: usize = 256;
/// Longest string (OSC, DCS, APC, PM, SOS) that is understood: a choice, four times the longest sensible link.
const STRING_MAX: usize = 8 * 1024;
/// Longest OSC 52: 48 KiB of text in base64, more than a copied answer of Claude Code has. What the screen model keeps of
/// an unfinished sequence is no less, so that a snapshot in the middle of one loses nothing.
const CLIPBOARD_MAX: usize = 64 * 1024;
/// After an overlong string this much more is swallowed while its terminator is missing, so that a stray
/// introducer cannot darken a session for ever. A choice, larger than most sixel images.
const STRING_SWALLOW_MAX: usize = 4 * 1024 * 1024;
/// The same for CSI, where nothing legitimate is that long.
const CSI_SWALLOW_MAX: usize = 64 * 1024;
/// Room of the hold-back buffer that is kept between sequences.
const PENDING_KEEP: usize = 16 * 1024;

/// Something that was taken out of the stream, or that somebody wants to know about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The child asked the terminal something; see [`answer`]. Exactly one per question.
    Query(Query),
    /// The window title: at most 256 characters, no controls, no bidi marks. May be empty.
    Title(String),
    /// OSC 9;4.
    Progress {
        /// 0 none, 1 normal, 2 error, 3 busy, 4 paused.
        state: u8,
        /// 0..=100.
        percent: u8,
    },
    /// OSC 9 or 777: cleaned and bounded as titles are.
    Notification {
        /// Heading, if the form has one.
        title: Option<String>,
        /// Text.
        body: String,
    },
}

/// The largest place up to `at` where output of a [`Sanitiser`] may be cut into frames without splitting a character.
///
/// xterm.js 6.0 loses a character that is split over two writes behind a `0x80` byte, as in a dash (`E2 80 | 94`).
pub fn character_boundary(output: &[u8], at: usize) -> usize {
    let is_inside = |at: &usize| output.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (0..=at.min(output.len())).rev().find(|at| !is_inside(at)).unwrap_or(0)
}

/// What is being swallowed after an overlong sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Swallow {
    Csi { left: usize },
    String { left: usize, is_osc: bool },
}

/// Kind of string by its introducer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StringKind {
    Osc,
    Dcs,
    /// APC, PM or SOS.
    Other,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Sanitiser {
    /// The unfinished sequence or character at the end of the input so far. Starts with its first byte.
    pending: Vec<u8>,
    /// Bytes of `pending` that are known to hold no end of the string it begins with.
    scanned: usize,
    swallow: Option<Swallow>,
    /// Marks since the last character, at the end of the output so far.
    marks: usize,
    keeps_offers: bool,
}

impl Sanitiser {
    /// Whether what the child wants on the clipboard stays in the output as an [offer]: only where it is watched while it
    /// comes.
    pub fn keep_offers(&mut self, is_live: bool) {
        self.keeps_offers = is_live;
    }

    /// Filters a piece of output. Appends to `out` and `events`.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) {
        out.reserve(input.len() + self.pending.len());
        let mut input = input;
        while !self.pending.is_empty() && !input.is_empty() {
            input = self.push_pending(input, out, events);
        }
        while !input.is_empty() {
            let consumed = self.advance(input, out, events);
            if consumed == 0 {
                self.pending.extend_from_slice(input);
                return;
            }
            self.scanned = 0;
            input = &input[consumed..];
        }
    }

    /// Ends the output: what is held back is blanked. The sanitiser is as new afterwards.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        let is_text = self.swallow.is_none() && self.pending.first().is_some_and(|first| *first >= 0x80);
        if is_text {
            text::invalid(out, self.pending.len());
        } else {
            blank(out, self.pending.len());
        }
        *self = Self { keeps_offers: self.keeps_offers, ..Self::default() };
    }

    /// Bytes held back.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// True if nothing is held back, being swallowed or counted: the output so far stands alone.
    pub fn is_ground(&self) -> bool {
        self.pending.is_empty() && self.swallow.is_none() && self.marks == 0
    }

    /// Continues the unit in `pending` with more input; returns the input that is left.
    fn push_pending<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> &'a [u8] {
        let old = self.pending.len();
        // Doubling keeps the copied bytes linear in the length of the unit.
        let take = input.len().min(old.max(64));
        let mut buf = std::mem::take(&mut self.pending);
        buf.extend_from_slice(&input[..take]);
        let consumed = self.advance(&buf, out, events);
        if consumed == 0 {
            self.pending = buf;
            return &input[take..];
        }
        self.scanned = 0;
        let rest = if consumed >= old {
            buf.clear();
            &input[consumed - old..]
        } else {
            buf.truncate(old);
            buf.drain(..consumed);
            input
        };
        if buf.capacity() > PENDING_KEEP {
            buf = buf.as_slice().to_vec();
        }
        self.pending = buf;
        rest
    }

    /// Handles the unit at the start of `buf` and returns its length, or 0 if its end is not there yet.
    ///
    /// Depends on nothing but the state and the bytes up to the end of the unit: that makes cuts invisible.
    fn advance(&mut self, buf: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> usize {
        if let Some(swallow) = self.swallow {
            match self.swallow_more(swallow, buf, out) {
                // The swallowed sequence ended before this byte.
                Some(0) if self.swallow.is_none() => {}
                Some(consumed) => return consumed,
                None => return 0,
            }
        }
        match buf {
            [ESC, ..] | [C1_LEAD, 0x80..=0x9f, ..] => {
                let consumed = self.escape(buf, out, events);
                if consumed > 0 {
                    self.marks = 0;
                }
                consumed
            }
            [ENQ, ..] => {
                self.marks = 0;
                events.push(Event::Query(Query::Enquiry));
                blank(out, 1);
                1
            }
            _ => text::write(buf, &mut self.marks, out),
        }
    }

    fn escape(&mut self, buf: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> usize {
        if let Some(length) = csi::plain_length(buf) {
            csi::write(&buf[..length], length, self.marks > 0, out, events);
            return length;
        }
        self.escape_slowly(buf, out, events)
    }

    /// A sequence that begins with a C1 control, has controls inside, is no CSI, or is not complete.
    fn escape_slowly(&mut self, buf: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> usize {
        // The sequence without controls, in its 7-bit form, and the controls, which terminals execute at once.
        let mut clean = vec![ESC];
        let mut controls = Vec::new();
        let mut index = 1;
        let mut next = (buf[0] == C1_LEAD).then(|| buf[1] - 0x40);
        let mut is_csi = false;
        let end = buf.len().min(SEQUENCE_MAX);
        while index < end {
            let byte = next.take().unwrap_or(buf[index]);
            index += 1;
            match byte {
                CAN | SUB => return cancel(index, &controls, out, events),
                // A new sequence, or a character that has no place here: this one ends before it.
                ESC | 0x80.. => return cancel(index - 1, &controls, out, events),
                0x00..=0x1f => controls.push(byte),
                DEL => {}
                b'[' if clean.len() == 1 => {
                    is_csi = true;
                    clean.push(byte);
                }
                b']' | b'P' | b'X' | b'^' | b'_' if clean.len() == 1 => {
                    let kind = match byte {
                        b']' => StringKind::Osc,
                        b'P' => StringKind::Dcs,
                        _ => StringKind::Other,
                    };
                    return self.string(buf, index, kind, &controls, out, events);
                }
                0x20..=0x3f if is_csi => clean.push(byte),
                0x20..=0x2f => clean.push(byte),
                _ => {
                    clean.push(byte);
                    execute(&controls, out, events);
                    let length = index - controls.len();
                    if is_csi {
                        csi::write(&clean, length, self.marks > 0, out, events);
                    } else {
                        csi::write_escape(&clean, length, out, events);
                    }
                    return index;
                }
            }
        }
        if buf.len() < SEQUENCE_MAX {
            return 0;
        }
        if is_csi {
            self.swallow = Some(Swallow::Csi { left: CSI_SWALLOW_MAX });
        }
        cancel(SEQUENCE_MAX, &controls, out, events)
    }

    /// A string whose body begins at `start`.
    fn string(
        &mut self,
        buf: &[u8],
        start: usize,
        kind: StringKind,
        controls: &[u8],
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> usize {
        let is_osc = kind == StringKind::Osc;
        let is_copy = is_osc && start == 2 && offer::is_clipboard(&buf[start..]);
        let max = if is_copy { CLIPBOARD_MAX } else { STRING_MAX };
        let end = buf.len().min(max);
        let (body_end, undecided) = match find_end(&buf[..end], start.max(self.scanned), is_osc) {
            End::At { at, length } => {
                execute(controls, out, events);
                let total = at + length - controls.len();
                let body = &buf[start..at];
                match kind {
                    StringKind::Osc => osc::write(body, (length, total), self.keeps_offers, out, events),
                    StringKind::Dcs => {
                        events.extend(query::of_dcs(body).map(Event::Query));
                        blank(out, total);
                    }
                    StringKind::Other => blank(out, total),
                }
                return at + length;
            }
            End::Cancelled { at } => return cancel(at, controls, out, events),
            End::Undecided { at } => (at, true),
            End::None => (end, false),
        };
        if buf.len() < max {
            self.scanned = body_end;
            return 0;
        }
        debug_assert!(body_end + usize::from(undecided) == max, "only the last byte can be undecided");
        self.swallow = Some(Swallow::String { left: STRING_SWALLOW_MAX, is_osc });
        cancel(body_end, controls, out, events)
    }

    /// Blanks what belongs to an overlong sequence. `Some(0)` with the state left: it ended before this byte;
    /// `None`: the next byte is needed.
    fn swallow_more(&mut self, swallow: Swallow, buf: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        match swallow {
            Swallow::Csi { left } => {
                let end = buf.len().min(left);
                let inside = buf[..end].iter().position(|byte| !is_csi_inside(*byte)).unwrap_or(end);
                out.extend(buf[..inside].iter().map(|byte| if is_kept_control(*byte) { *byte } else { 0 }));
                if inside == end {
                    self.swallow = (left > end).then_some(Swallow::Csi { left: left - end });
                    return Some(inside);
                }
                self.swallow = None;
                let is_last_of_it = matches!(buf[inside], 0x40..=0x7e | CAN | SUB);
                blank(out, usize::from(is_last_of_it));
                Some(inside + usize::from(is_last_of_it))
            }
            Swallow::String { left, is_osc } => {
                let end = buf.len().min(left);
                let found = match find_end(&buf[..end], 0, is_osc) {
                    // The limit itself must not decide: look at the byte behind it.
                    End::Undecided { at } if end < buf.len() => find_end(&buf[..=end], at, is_osc),
                    found => found,
                };
                let consumed = match found {
                    End::At { at, length } => {
                        self.swallow = None;
                        at + length
                    }
                    End::Cancelled { at } => {
                        self.swallow = None;
                        at
                    }
                    End::Undecided { at: 0 } => return None,
                    End::Undecided { at } => {
                        self.swallow = Some(Swallow::String { left: left - at, is_osc });
                        at
                    }
                    End::None => {
                        self.swallow = (left > end).then_some(Swallow::String { left: left - end, is_osc });
                        end
                    }
                };
                blank(out, consumed);
                Some(consumed)
            }
        }
    }
}

/// Where a string ends.
enum End {
    /// The terminator, of `length` bytes, is at `at`.
    At { at: usize, length: usize },
    /// The string is aborted; the first byte that does not belong to it is at `at`.
    Cancelled { at: usize },
    /// The last byte, at `at`, may begin the terminator.
    Undecided { at: usize },
    /// Not in sight.
    None,
}

fn find_end(buf: &[u8], from: usize, is_osc: bool) -> End {
    let mut from = from;
    loop {
        let is_special = |byte: &u8| match *byte {
            ESC | C1_LEAD | CAN | SUB => true,
            BEL => is_osc,
            _ => false,
        };
        let Some(found) = buf[from..].iter().position(is_special) else { return End::None };
        let at = from + found;
        match (buf[at], buf.get(at + 1)) {
            (BEL, _) => return End::At { at, length: 1 },
            (CAN | SUB, _) => return End::Cancelled { at: at + 1 },
            (_, None) => return End::Undecided { at },
            (ESC, Some(b'\\')) | (C1_LEAD, Some(0x9c)) => return End::At { at, length: 2 },
            (ESC, Some(_)) | (C1_LEAD, Some(0x80..=0x9f)) => return End::Cancelled { at },
            _ => from = at + 1,
        }
    }
}

/// Writes `length` ignored bytes.
fn blank(out: &mut Vec<u8>, length: usize) {
    out.resize(out.len() + length, 0);
}

/// Writes the controls that were inside a sequence.
fn execute(controls: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) {
    for control in controls {
        if *control == ENQ {
            events.push(Event::Query(Query::Enquiry));
            out.push(0);
        } else {
            out.push(*control);
        }
    }
}

/// Blanks an aborted sequence of `length` bytes except the controls inside.
fn cancel(length: usize, controls: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> usize {
    execute(controls, out, events);
    blank(out, length - controls.len());
    length
}

/// A byte that neither ends nor aborts a CSI sequence.
fn is_csi_inside(byte: u8) -> bool {
    matches!(byte, 0x20..=0x3f | DEL) || (byte < 0x20 && !matches!(byte, ESC | CAN | SUB))
}

fn is_kept_control(byte: u8) -> bool {
    byte < 0x20 && byte != ENQ
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

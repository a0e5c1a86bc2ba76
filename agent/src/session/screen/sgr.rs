//! SGR: what a sequence does to the pen, as in xterm.js.

use super::cell::{
    BLINK, BOLD, COLOUR, DIM, INVERSE, INVISIBLE, ITALIC, KIND_16, KIND_256, KIND_RGB, OVERLINE, Pen, STRIKE,
    UNDERLINE,
};
use super::params::Params;

/// The colour that SGR 59 leaves behind in xterm.js; written back as SGR 59.
pub(super) const UNDERLINE_RESET: u32 = COLOUR;

/// Applies a sequence.
pub(super) fn apply(params: &Params, pen: &mut Pen) {
    let mut index = 0;
    while index < params.len() {
        let number = params.get(index);
        match number {
            0 => {
                (pen.fg, pen.bg) = (0, 0);
                (pen.ext.style, pen.ext.colour) = (0, 0);
                pen.update();
            }
            1 => pen.fg |= BOLD,
            2 => pen.bg |= DIM,
            3 => pen.bg |= ITALIC,
            4 => underline(pen, params.subs(index).first().copied().unwrap_or(1)),
            5 => pen.fg |= BLINK,
            7 => pen.fg |= INVERSE,
            8 => pen.fg |= INVISIBLE,
            9 => pen.fg |= STRIKE,
            21 => underline(pen, 2),
            22 => {
                pen.fg &= !BOLD;
                pen.bg &= !DIM;
            }
            23 => pen.bg &= !ITALIC,
            24 => underline(pen, 0),
            25 => pen.fg &= !BLINK,
            27 => pen.fg &= !INVERSE,
            28 => pen.fg &= !INVISIBLE,
            29 => pen.fg &= !STRIKE,
            30..=37 => set(&mut pen.fg, KIND_16 | (number - 30) as u32),
            90..=97 => set(&mut pen.fg, KIND_16 | (number - 90) as u32 | 8),
            40..=47 => set(&mut pen.bg, KIND_16 | (number - 40) as u32),
            100..=107 => set(&mut pen.bg, KIND_16 | (number - 100) as u32 | 8),
            39 => set(&mut pen.fg, 0),
            49 => set(&mut pen.bg, 0),
            53 => pen.bg |= OVERLINE,
            55 => pen.bg &= !OVERLINE,
            59 => {
                pen.ext.colour = UNDERLINE_RESET;
                pen.update();
            }
            38 | 48 | 58 => index += extended(params, index, pen),
            _ => {}
        }
        index += 1;
    }
}

fn set(field: &mut u32, colour: u32) {
    *field = *field & !COLOUR | colour;
}

fn underline(pen: &mut Pen, style: i32) {
    let style = if (0..=5).contains(&style) { style as u8 } else { 1 };
    pen.ext.style = style;
    if style == 0 {
        pen.fg &= !UNDERLINE;
    } else {
        pen.fg |= UNDERLINE;
    }
    pen.update();
}

/// A colour in any of its forms (`38;5;n`, `38;2;r;g;b`, `38:2::r:g:b`, …). Returns how many more numbers it took.
fn extended(params: &Params, at: usize, pen: &mut Pen) -> usize {
    // Number, kind, colour space, and up to three values.
    let mut found = [0, 0, -1, 0, 0, 0];
    let (mut space, mut advance) = (0, 0);
    loop {
        found[advance + space] = params.get(at + advance);
        let subs = params.subs(at + advance);
        if !subs.is_empty() {
            for (index, sub) in subs.iter().enumerate() {
                if found[1] == 5 {
                    space = 1;
                }
                if let Some(place) = found.get_mut(advance + index + 1 + space) {
                    *place = *sub;
                }
                if index + 1 + advance + 1 + space >= found.len() {
                    break;
                }
            }
            break;
        }
        if (found[1] == 5 && advance + space >= 2) || (found[1] == 2 && advance + space >= 5) {
            break;
        }
        if found[1] != 0 {
            space = 1;
        }
        advance += 1;
        if advance + at >= params.len() || advance + space >= found.len() {
            break;
        }
    }
    let value = |index: usize| if found[index] == -1 { 0 } else { found[index] as u32 & 0xff };
    let colour = match found[1] {
        2 => Some(KIND_RGB | value(3) << 16 | value(4) << 8 | value(5)),
        5 => Some(KIND_256 | value(3)),
        _ => None,
    };
    if let Some(colour) = colour {
        match found[0] {
            38 => set(&mut pen.fg, colour),
            48 => set(&mut pen.bg, colour),
            58 => pen.ext.colour = colour,
            _ => {}
        }
    }
    advance
}

//! OSC strings: titles, links, colours, progress, notifications, clipboard.

use std::borrow::Cow;

use super::offer;
use super::query::Query;
use super::{ESC, Event};

/// Longest title, in characters. A choice: no tab or window shows more.
const TITLE_MAX: usize = 256;
/// Longest link target, the limit that GNOME's terminals set.
const URI_MAX: usize = 2083;
/// Longest id of a link, as in GNOME's terminals.
const LINK_ID_MAX: usize = 250;
/// Colour questions in one string: the palette has 256.
const QUERIES_MAX: usize = 256;

/// Writes an OSC string, given its body and the lengths of its terminator and of all of it, which are filled up.
pub(super) fn write(
    body: &[u8],
    (terminator, length): (usize, usize),
    keeps_offers: bool,
    out: &mut Vec<u8>,
    events: &mut Vec<Event>,
) {
    let end = out.len() + length;
    // Controls inside are ignored by terminals, so they must not hide anything from us.
    let body: Cow<'_, [u8]> = if body.iter().any(|byte| *byte < 0x20) {
        body.iter().copied().filter(|byte| *byte >= 0x20).collect()
    } else {
        body.into()
    };
    if let Some(kept) = std::str::from_utf8(&body).ok().and_then(|body| judge(body, keeps_offers, events)) {
        out.extend_from_slice(&[ESC, b']']);
        out.extend_from_slice(kept.as_bytes());
        out.extend_from_slice(if terminator == 1 { b"\x07" } else { b"\x1b\\" });
    }
    debug_assert!(out.len() <= end, "nothing becomes longer");
    out.resize(end, 0);
}

/// The body towards viewers, if any.
fn judge(body: &str, keeps_offers: bool, events: &mut Vec<Event>) -> Option<String> {
    let (number, rest) = match body.split_once(';') {
        Some((number, rest)) => (number, Some(rest)),
        None => (body, None),
    };
    // Longer numbers overflow in some terminals and become others.
    if number.is_empty() || number.len() > 5 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u32 = number.parse().ok()?;
    match (number, rest) {
        (0..=2, Some(text)) => {
            let title = cleaned(text);
            let body = format!("{number};{title}");
            if number != 1 {
                events.push(Event::Title(title));
            }
            Some(body)
        }
        (4 | 5, Some(rest)) => indexed_colours(number, rest, events),
        (8, Some(rest)) => link(rest),
        (9, Some(rest)) => progress_or_notification(rest, events),
        (10..=19, Some(rest)) => dynamic_colours(number, rest, events),
        (52 | offer::NUMBER, Some(rest)) if keeps_offers => offer::of(number, rest),
        (104, Some(rest)) if rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b';') => {
            rest.split(';').all(is_palette_index).then(|| format!("104;{rest}"))
        }
        (104 | 110..=112, None) => Some(number.to_string()),
        (777, Some(rest)) => {
            if let Some(rest) = rest.strip_prefix("notify;") {
                let (title, body) = rest.split_once(';').unwrap_or(("", rest));
                let title = Some(cleaned(title)).filter(|title| !title.is_empty());
                events.push(Event::Notification { title, body: cleaned(body) });
            }
            None
        }
        _ => None,
    }
}

/// Text without controls, bidi marks and line separators, at most [`TITLE_MAX`] characters.
fn cleaned(text: &str) -> String {
    let is_plain = |character: &char| {
        !character.is_control()
            && !matches!(character,
                '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().filter(is_plain).take(TITLE_MAX).collect()
}

fn is_palette_index(digits: &str) -> bool {
    digits.len() <= 3 && digits.parse::<u8>().is_ok()
}

/// A colour as `XParseColor` reads it, without anything that could mean more.
fn is_colour(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'#' | b':' | b'/' | b'.' | b',' | b' ')
        })
}

/// `4;index;colour;…`: questions, or settings of the palette.
fn indexed_colours(number: u32, rest: &str, events: &mut Vec<Event>) -> Option<String> {
    let items: Vec<&str> = rest.split(';').collect();
    let pairs = items.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    let mut is_kept = number == 4 && items.len().is_multiple_of(2);
    let mut asked = 0;
    for (index, colour) in pairs {
        let is_question = colour == "?";
        is_kept &= !is_question && is_palette_index(index) && is_colour(colour);
        let index = index.parse::<u16>().ok().filter(|_| is_question && asked < QUERIES_MAX);
        if let Some(index) = index {
            asked += 1;
            events.push(Event::Query(if number == 4 {
                Query::Palette(index)
            } else {
                Query::SpecialColour(index)
            }));
        }
    }
    is_kept.then(|| format!("4;{rest}"))
}

/// `10;colour;…`: the following colours are those of the following numbers.
fn dynamic_colours(number: u32, rest: &str, events: &mut Vec<Event>) -> Option<String> {
    let mut is_kept = true;
    for (number, colour) in (number..=19).zip(rest.split(';')) {
        is_kept &= number <= 12 && is_colour(colour);
        if colour == "?" {
            events.push(Event::Query(Query::DynamicColour(number as u8)));
        }
    }
    is_kept.then(|| format!("{number};{rest}"))
}

/// `8;params;uri`. A target that is refused closes the open link, else the text would belong to that one.
fn link(rest: &str) -> Option<String> {
    let (params, uri) = rest.split_once(';')?;
    let closed = Some("8;;".to_owned());
    if uri.is_empty() || uri.len() > URI_MAX || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return closed;
    }
    let scheme = uri.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !matches!(scheme.as_deref(), Some("http" | "https")) {
        return closed;
    }
    let id = params.split(':').find_map(|param| param.strip_prefix("id="));
    let id = id.filter(|id| id.len() <= LINK_ID_MAX && id.bytes().all(|byte| byte.is_ascii_graphic()));
    Some(match id.filter(|id| !id.is_empty()) {
        Some(id) => format!("8;id={id};{uri}"),
        None => format!("8;;{uri}"),
    })
}

fn progress_or_notification(rest: &str, events: &mut Vec<Event>) -> Option<String> {
    let (kind, value) = rest.split_once(';').unwrap_or((rest, ""));
    if kind == "4" {
        let (state, percent) = value.split_once(';').unwrap_or((value, ""));
        if !value.bytes().all(|byte| byte.is_ascii_digit() || byte == b';') {
            return None;
        }
        let state = state.parse().ok().filter(|state| *state <= 4)?;
        let percent = if percent.is_empty() { 0 } else { percent.parse().ok().filter(|it| *it <= 100)? };
        events.push(Event::Progress { state, percent });
        return Some(format!("9;{rest}"));
    }
    // Other numbers are ConEmu's commands.
    if !kind.is_empty() && !kind.bytes().all(|byte| byte.is_ascii_digit()) {
        events.push(Event::Notification { title: None, body: cleaned(rest) });
    }
    None
}

//! Printing: JSON, tables, times. A reader that closes the pipe is no error.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use claudenest_shared::time::UnixMs;

/// Prints a line like `println!`, without failing when nobody reads it.
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::cli::output::line(format_args!($($arg)*))
    };
}
pub(super) use say;

/// Prints a line.
pub(super) fn line(text: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints one JSON document on one line.
pub(super) fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(format_args!("{text}")),
        Err(error) => eprintln!("claudenest-agent: the answer cannot be written as JSON: {error}"),
    }
}

/// The wall clock.
pub(super) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A duration for people: `12 s`, `2 m 10 s`, `3 h 5 m`, `4 d 2 h`.
pub(super) fn span(ms: u64) -> String {
    let s = ms / 1000;
    let two = |a: u64, x: &str, b: u64, y: &str| {
        if b == 0 { format!("{a} {x}") } else { format!("{a} {x} {b} {y}") }
    };
    match s {
        0..60 => format!("{s} s"),
        60..3600 => two(s / 60, "m", s % 60, "s"),
        3600..86_400 => two(s / 3600, "h", s % 3600 / 60, "m"),
        _ => two(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}

/// How long ago something was.
pub(super) fn age(at: UnixMs) -> String {
    span(now().since(at))
}

/// A moment in local time, `2026-03-01 14:03:07`; UTC with a mark when the zone is unknown.
pub(super) fn moment(at: UnixMs) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let Ok(utc) = time::OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000)) else {
        return at.0.to_string();
    };
    match time::UtcOffset::local_offset_at(utc) {
        Ok(offset) => utc.to_offset(offset).format(format).unwrap_or_default(),
        Err(_) => utc.format(format).unwrap_or_default() + " UTC",
    }
}

/// Columns aligned with two blanks between them; the last is not padded.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|text| (*text).to_owned()).collect();
    let mut widths = vec![0; header.len()];
    for row in std::iter::once(&header).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The last two parts of a path, which is how people know a directory.
pub(super) fn short_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.len() <= 2 { path.to_owned() } else { format!("…/{}", parts[parts.len() - 2..].join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (ms, text) in [
            (0, "0 s"),
            (12_900, "12 s"),
            (130_000, "2 m 10 s"),
            (3_600_000, "1 h"),
            (11_100_000, "3 h 5 m"),
            (352_800_000, "4 d 2 h"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn tables_line_up_also_with_wide_letters() {
        let text = table(
            &["NAME", "STATE"],
            &[vec!["é".into(), "running".into()], vec!["longer-name".into(), "x".into()]],
        );
        assert_eq!(text, "NAME         STATE\né            running\nlonger-name  x\n");
    }

    #[test]
    fn paths_keep_their_last_two_parts() {
        assert_eq!(short_path("/home/alice/work/shop"), "…/work/shop");
        assert_eq!(short_path("/srv/shop"), "/srv/shop");
        assert_eq!(short_path("/"), "/");
    }
}

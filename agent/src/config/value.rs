//! Values as they are written: in TOML with their type, in environment and flags as text.

use std::path::Path;
use std::time::Duration;

use super::ConfigError;

/// A value before a key has checked it.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A string, or anything from the environment or a flag.
    Text(String),
    /// A whole number.
    Number(i64),
    /// True or false.
    Bool(bool),
    /// A list of strings.
    List(Vec<String>),
    /// A table.
    Table(toml::Table),
    /// Something that no key takes.
    Other(&'static str),
}

/// Top-level entries of a TOML text: line, key, value.
pub(super) fn entries(text: &str, file: &Path) -> Result<Vec<(usize, String, Value)>, ConfigError> {
    use toml::de::{DeTable, DeValue};

    let line_of =
        |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: file.to_owned(),
        line: line_of(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut entries: Vec<(usize, String, Value)> = table
        .into_inner()
        .into_iter()
        .map(|(key, value)| {
            let line = line_of(key.span().start);
            let value = match value.into_inner() {
                DeValue::String(text) => Value::Text(text.into_owned()),
                DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                    .map_or(Value::Other("a number that is too large"), Value::Number),
                DeValue::Boolean(is_set) => Value::Bool(is_set),
                DeValue::Array(items) => {
                    let texts: Option<Vec<String>> = items
                        .into_iter()
                        .map(|item| match item.into_inner() {
                            DeValue::String(text) => Some(text.into_owned()),
                            _ => None,
                        })
                        .collect();
                    texts.map_or(Value::Other("a list with something else than strings"), Value::List)
                }
                DeValue::Float(_) => Value::Other("a fraction"),
                DeValue::Datetime(_) => Value::Other("a date"),
                // Read again with its inner values; the text is TOML, or it would not have come this far.
                DeValue::Table(_) => toml::from_str::<toml::Table>(text)
                    .ok()
                    .and_then(|table| table.get(key.get_ref().as_ref())?.as_table().cloned())
                    .map_or(Value::Other("a table"), Value::Table),
            };
            (line, key.into_inner().into_owned(), value)
        })
        .collect();
    entries.sort_by_key(|(line, ..)| *line);
    Ok(entries)
}

impl Value {
    pub(super) fn text(self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err("takes a string in quotes.".to_owned()),
        }
    }

    pub(super) fn boolean(self) -> Result<bool, String> {
        match self {
            Self::Bool(is_set) => Ok(is_set),
            Self::Text(text) if matches!(text.as_str(), "true" | "1" | "yes" | "on") => Ok(true),
            Self::Text(text) if matches!(text.as_str(), "false" | "0" | "no" | "off") => Ok(false),
            _ => Err("takes true or false.".to_owned()),
        }
    }

    pub(super) fn number(self, low: u64, high: u64) -> Result<u64, String> {
        let number = match self {
            Self::Number(number) => u64::try_from(number).ok(),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        number
            .filter(|number| (low..=high).contains(number))
            .ok_or_else(|| format!("takes a whole number from {low} to {high}."))
    }

    /// A list; in the environment and in flags its items are separated by `:`.
    pub(super) fn list(self) -> Result<Vec<String>, String> {
        match self {
            Self::List(items) => Ok(items),
            Self::Text(text) => {
                Ok(text.split(':').filter(|item| !item.is_empty()).map(str::to_owned).collect())
            }
            _ => Err("takes a list of strings, for example [\"a\", \"b\"].".to_owned()),
        }
    }

    /// A size in bytes: a number, or a number with B, KiB, MiB or GiB.
    pub(super) fn size(self, low: u64, high: u64) -> Result<u64, String> {
        let size = match self {
            Self::Number(number) => u64::try_from(number).ok(),
            Self::Text(text) => parse_size(&text),
            _ => None,
        };
        size.filter(|size| (low..=high).contains(size)).ok_or_else(|| {
            format!("takes a size from {} to {}, for example \"64MiB\".", size_text(low), size_text(high))
        })
    }

    /// A duration: a number with s, m, h or d; "never" and 0 are `None`.
    pub(super) fn duration(self) -> Result<Option<Duration>, String> {
        let duration = match self {
            Self::Number(0) => Some(None),
            Self::Text(text) if matches!(text.trim(), "never" | "0") => Some(None),
            Self::Text(text) => parse_duration(&text).map(Some),
            _ => None,
        };
        duration.ok_or_else(|| "takes a duration, for example \"90s\", \"30m\", \"2h\".".to_owned())
    }
}

/// Reads a duration such as `90s`, `30m`, `2h`, `1d`, `500ms`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit_ms = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// A duration as [`parse_duration`] reads it.
pub(super) fn duration_text(duration: Option<Duration>) -> String {
    let Some(duration) = duration else { return "never".to_owned() };
    let ms = duration.as_millis();
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// A size as people and [`Value::size`] read it.
pub(super) fn size_text(size: u64) -> String {
    for (unit, bytes) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if size >= bytes && size.is_multiple_of(bytes) {
            return format!("{}{unit}", size / bytes);
        }
    }
    format!("{size}B")
}

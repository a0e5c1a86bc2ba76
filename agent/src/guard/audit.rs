//! The audit log: what was asked, who decided, what ran. Append-only, each row chained to the one before.
//!
//! Invariant: a row that was changed, taken out or put in breaks the chain from there on. What a chain cannot show is
//! that its newest rows were cut off: for that, compare with a number and hash that were noted before
//! (`audit verify --expect`).

use claudenest_shared::id::SessionId;
use claudenest_shared::time::UnixMs;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What the first row is chained to.
pub const FIRST_HASH: &str = "claudenest audit v1";
/// Inputs of tools above this size stand in the log by their digest only: whole files that Claude writes.
const MAX_INPUT_BYTES: usize = 32 * 1024;

/// Something to write down.
#[derive(Clone, PartialEq, Debug)]
pub struct AuditEntry {
    /// When.
    pub at: UnixMs,
    /// What kind of thing: `gate`, `asked`, `decided`, `applied`, `ran`, `alarm`, …
    pub kind: &'static str,
    /// The session that it is about.
    pub session: Option<SessionId>,
    /// The rest.
    pub body: Value,
}

/// A row as it is stored.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct AuditRow {
    /// From 1, without gaps.
    pub number: i64,
    /// When.
    pub at: UnixMs,
    /// What kind of thing.
    pub kind: String,
    /// The session that it is about.
    pub session: Option<SessionId>,
    /// JSON text, as it was hashed.
    pub body: String,
    /// Hash over this row and the hash of the row before, hexadecimal.
    pub hash: String,
}

/// The row that follows a row with the hash `before`.
pub fn chained(number: i64, before: &str, entry: &AuditEntry) -> AuditRow {
    let mut row = AuditRow {
        number,
        at: entry.at,
        kind: entry.kind.to_owned(),
        session: entry.session,
        body: canonical(&entry.body),
        hash: String::new(),
    };
    row.hash = hash(&row, before);
    row
}

fn hash(row: &AuditRow, before: &str) -> String {
    let session = row.session.map(|session| session.to_string()).unwrap_or_default();
    let mut sha = Sha256::new();
    // Lengths first, so that no two different rows give the same bytes.
    for part in
        [before, &row.number.to_string(), &row.at.0.to_string(), row.kind.as_str(), &session, &row.body]
    {
        sha.update((part.len() as u64).to_le_bytes());
        sha.update(part.as_bytes());
    }
    hexadecimal(&sha.finalize())
}

/// Follows the chain from row to row.
#[derive(Clone, Debug)]
pub struct Chain {
    number: i64,
    hash: String,
}

impl Default for Chain {
    fn default() -> Self {
        Self { number: 0, hash: FIRST_HASH.to_owned() }
    }
}

impl Chain {
    /// Takes the next row in.
    ///
    /// # Errors
    /// A sentence that says which row does not belong where it stands.
    pub fn follow(&mut self, row: &AuditRow) -> Result<(), String> {
        let next = self.number + 1;
        if row.number != next {
            return Err(format!("Row {next} is missing: row {} follows row {}.", row.number, self.number));
        }
        if hash(row, &self.hash) != row.hash {
            return Err(format!("Row {next} was changed, or a row before it was taken out or put in."));
        }
        self.number = next;
        self.hash.clone_from(&row.hash);
        Ok(())
    }

    /// Number and hash of the last row; 0 at the beginning.
    pub fn head(&self) -> (i64, &str) {
        (self.number, &self.hash)
    }
}

/// Compact JSON with sorted keys, whatever order a map has in memory.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            text.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                write_canonical(&map[key], text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

/// SHA-256 of a tool's input as everybody computes it: compact JSON with sorted keys, hexadecimal.
pub fn input_digest(input: &Value) -> String {
    hexadecimal(&Sha256::digest(canonical(input).as_bytes()))
}

/// A tool's input as it goes into the log: whole, or null where it is too long; its digest stands beside it.
pub fn logged_input(input: &Value) -> Value {
    if canonical(input).len() > MAX_INPUT_BYTES { Value::Null } else { input.clone() }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(count: i64) -> Vec<AuditRow> {
        let mut before = FIRST_HASH.to_owned();
        let row = |number| {
            let entry = AuditEntry {
                at: UnixMs(number * 10),
                kind: "gate",
                session: Some(SessionId::from_bytes([7; 16])),
                body: json!({"tool": "Bash", "n": number}),
            };
            let row = chained(number, &before, &entry);
            before.clone_from(&row.hash);
            row
        };
        (1..=count).map(row).collect()
    }

    fn verify(rows: &[AuditRow]) -> Result<i64, String> {
        let mut chain = Chain::default();
        rows.iter().try_for_each(|row| chain.follow(row))?;
        Ok(chain.head().0)
    }

    #[test]
    fn every_way_to_tamper_breaks_the_chain() {
        let good = rows(5);
        assert_eq!(verify(&good), Ok(5));
        let tampered = |change: fn(&mut Vec<AuditRow>)| {
            let mut rows = good.clone();
            change(&mut rows);
            verify(&rows)
        };
        assert!(tampered(|rows| rows[2].body = rows[2].body.replace("Bash", "Read")).is_err());
        assert!(tampered(|rows| rows[0].at = UnixMs(0)).is_err());
        assert!(tampered(|rows| rows[3].session = None).is_err());
        assert!(tampered(|rows| rows[4].kind = "ran".into()).is_err());
        assert!(tampered(|rows| drop(rows.remove(1))).is_err());
        assert!(tampered(|rows| rows.swap(1, 2)).is_err());
        assert!(tampered(|rows| rows.insert(2, rows[2].clone())).is_err());
        // Renumbered behind a removed row.
        let renumbered = tampered(|rows| {
            rows.remove(1);
            rows.iter_mut().enumerate().for_each(|(at, row)| row.number = at as i64 + 1);
        });
        assert!(renumbered.is_err());
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_keys() {
        let one: Value = serde_json::from_str(r#"{"b": [1, {"y": 2, "x": "ü\u0001"}], "a": null}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"a": null, "b": [1, {"x": "ü\u0001", "y": 2}]}"#).unwrap();
        assert_eq!(canonical(&one), "{\"a\":null,\"b\":[1,{\"x\":\"ü\\u0001\",\"y\":2}]}");
        assert_eq!(input_digest(&one), input_digest(&two));
        assert_ne!(input_digest(&one), input_digest(&json!({"a": null})));
    }
}

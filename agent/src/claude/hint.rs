//! Claude Code's own note about a running process, `<config>/sessions/<pid>.json`. Undocumented: a hint
//! for what no hook tells (a "No" in the permission dialog, an interrupted turn), never a proof.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What the note says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hint {
    /// It works.
    Busy,
    /// It waits for the next prompt.
    Idle,
    /// A dialog is open: "permission prompt".
    Waiting(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    pid: u32,
    status: Option<String>,
    waiting_for: Option<String>,
}

/// Reads the note of a process. Blocking, but one small file.
pub fn read(config_dir: &Path, pid: u32) -> Option<Hint> {
    let text = std::fs::read(config_dir.join("sessions").join(format!("{pid}.json"))).ok()?;
    let note: Note = serde_json::from_slice(&text).ok()?;
    if note.pid != pid {
        return None;
    }
    Some(match note.status?.as_str() {
        "busy" => Hint::Busy,
        "idle" => Hint::Idle,
        "waiting" => Hint::Waiting(note.waiting_for.unwrap_or_else(|| "an answer".to_owned())),
        _ => return None,
    })
}

/// Claude Code's configuration directory under this environment.
pub fn config_dir(env: &BTreeMap<String, String>, home: &Path) -> PathBuf {
    match env.get("CLAUDE_CONFIG_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => env.get("HOME").map_or_else(|| home.to_owned(), PathBuf::from).join(".claude"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_is_read_and_anything_else_is_no_hint() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sessions")).unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("sessions/7.json"), text).unwrap();
        write(r#"{"pid":7,"status":"waiting","waitingFor":"permission prompt","kind":"interactive"}"#);
        assert_eq!(read(dir.path(), 7), Some(Hint::Waiting("permission prompt".into())));
        write(r#"{"pid":7,"status":"idle"}"#);
        assert_eq!(read(dir.path(), 7), Some(Hint::Idle));
        for other in ["", "{}", r#"{"pid":8,"status":"idle"}"#, r#"{"pid":7,"status":"dreaming"}"#] {
            write(other);
            assert_eq!(read(dir.path(), 7), None, "{other}");
        }
        assert_eq!(read(dir.path(), 8), None);
    }
}

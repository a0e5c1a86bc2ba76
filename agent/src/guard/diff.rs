//! What an edit would change, for people: a unified diff with one hunk, from the first to the last line that differs.

use std::path::Path;

use serde_json::Value;

/// Longest diff in an approval.
const MAX_DIFF_BYTES: usize = 64 * 1024;
/// Larger files are not read to show an edit: its texts stand in the input.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Lines around a change.
const CONTEXT: usize = 3;

/// The diff of a `Write`, `Edit` or `MultiEdit`; `None` for everything else, and where it cannot be made. Blocking: reads the file.
pub(super) fn of(tool: &str, input: &Value) -> Option<String> {
    let text = |key: &str| input.get(key).and_then(Value::as_str);
    let path = text("file_path")?;
    let before = read(Path::new(path));
    let after = match tool {
        "Write" => text("content")?.to_owned(),
        "Edit" => edited(before.as_deref()?, input)?,
        "MultiEdit" => {
            let edits = input.get("edits")?.as_array()?;
            edits.iter().try_fold(before.clone()?, |text, edit| edited(&text, edit))?
        }
        _ => return None,
    };
    let name = path.trim_start_matches('/');
    let diff = unified(name, before.as_deref(), &after);
    (diff.len() <= MAX_DIFF_BYTES).then_some(diff)
}

fn read(path: &Path) -> Option<String> {
    let file = std::fs::metadata(path).ok().filter(|file| file.is_file() && file.len() <= MAX_FILE_BYTES);
    file.and_then(|_| std::fs::read_to_string(path).ok())
}

fn edited(text: &str, edit: &Value) -> Option<String> {
    let part = |key: &str| edit.get(key).and_then(Value::as_str);
    let (old, new) = (part("old_string")?, part("new_string")?);
    if old.is_empty() {
        return text.is_empty().then(|| new.to_owned());
    }
    if !text.contains(old) {
        return None;
    }
    let is_everywhere = edit.get("replace_all").and_then(Value::as_bool).unwrap_or(false);
    Some(if is_everywhere { text.replace(old, new) } else { text.replacen(old, new, 1) })
}

fn unified(name: &str, before: Option<&str>, after: &str) -> String {
    let old: Vec<&str> = before.unwrap_or_default().lines().collect();
    let new: Vec<&str> = after.lines().collect();
    let same_start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let rest = old.len().min(new.len()) - same_start;
    let same_end =
        old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(old, new)| old == new).count();
    let from = same_start.saturating_sub(CONTEXT);
    let (old_end, new_end) = (old.len() - same_end, new.len() - same_end);
    let behind = same_end.min(CONTEXT);
    let (old_count, new_count) = (old_end + behind - from, new_end + behind - from);
    // An empty side begins at line 0.
    let start = |count: usize| if count == 0 { 0 } else { from + 1 };
    let source = if before.is_some() { format!("a/{name}") } else { "/dev/null".to_owned() };
    let mut diff = format!(
        "--- {source}\n+++ b/{name}\n@@ -{},{old_count} +{},{new_count} @@\n",
        start(old_count),
        start(new_count)
    );
    let mut put = |sign: char, lines: &[&str]| {
        for line in lines {
            diff.push(sign);
            diff.push_str(line);
            diff.push('\n');
        }
    };
    put(' ', &old[from..same_start]);
    put('-', &old[same_start..old_end]);
    put('+', &new[same_start..new_end]);
    put(' ', &old[old_end..old_end + behind]);
    diff
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn edits_show_what_changes_with_some_lines_around() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let name = path.to_str().unwrap().to_owned();
        std::fs::write(&path, "1\n2\n3\n4\n5\n6\n7\n8\n9\n").unwrap();
        let hunk = |tool: &str, input: Value| {
            of(tool, &input).map(|diff| diff.split_once("\n@@").unwrap().1.to_owned())
        };
        let edit = json!({"file_path": name, "old_string": "5", "new_string": "five\nfünf"});
        assert_eq!(hunk("Edit", edit).unwrap(), " -2,7 +2,8 @@\n 2\n 3\n 4\n-5\n+five\n+fünf\n 6\n 7\n 8\n");
        let multi = json!({"file_path": name, "edits": [
            {"old_string": "1", "new_string": "one"}, {"old_string": "9\n", "new_string": ""}]});
        assert!(hunk("MultiEdit", multi).unwrap().starts_with(" -1,9 +1,8 @@\n-1\n"));
        let write = json!({"file_path": format!("{name}.new"), "content": "a\nb\n"});
        assert_eq!(hunk("Write", write).unwrap(), " -0,0 +1,2 @@\n+a\n+b\n");
        assert!(of("Write", &json!({"file_path": format!("{name}.new"), "content": ""})).is_some());
        for (tool, input) in [
            ("Edit", json!({"file_path": name, "old_string": "not there", "new_string": ""})),
            ("Edit", json!({"file_path": "/nowhere", "old_string": "1", "new_string": ""})),
            ("Bash", json!({"file_path": name})),
            ("Write", json!({"file_path": name, "content": "x".repeat(MAX_DIFF_BYTES)})),
        ] {
            assert_eq!(of(tool, &input), None, "{tool} {}", input.to_string().len());
        }
    }
}

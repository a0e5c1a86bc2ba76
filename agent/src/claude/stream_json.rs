//! The `stream-json` conversation of headless sessions.

use bytes::Bytes;

/// A user's message as one line for the standard input of `claude -p --input-format stream-json`.
pub fn user_message(text: &str) -> Bytes {
    let message = serde_json::json!({
        "type": "user",
        "message": {"role": "user", "content": text},
        "parent_tool_use_id": null,
        "session_id": "",
    });
    let mut line = message.to_string();
    line.push('\n');
    Bytes::from(line)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_message_is_one_line_whatever_the_text() {
        let line = super::user_message("two\nlines \"quoted\" \u{1b}[31m");
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["message"]["content"], "two\nlines \"quoted\" \u{1b}[31m");
    }
}

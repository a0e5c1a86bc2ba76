//! What strangers and machines say about themselves, made fit to be shown: on pages, in logs, on terminals.

use claudenest_shared::machine::MachineFacts;

/// Longest text that a machine may say about itself, in bytes.
pub(crate) const MAX_FACT_BYTES: usize = 512;
/// Most entries of a list in the facts.
const MAX_ENTRIES: usize = 64;

/// True for characters that do something instead of showing something: control characters, and those that turn the
/// direction of a text around or take no place, by which one name can be made to look like another.
pub(crate) fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Makes a text fit to be shown: nothing unfit, at most `max_bytes`.
pub(crate) fn fit(text: &mut String, max_bytes: usize) {
    text.retain(|c| !is_unfit(c));
    text.truncate(text.floor_char_boundary(max_bytes));
}

/// Facts as shown to people: nothing unfit, no endless texts.
pub(crate) fn cleaned(mut facts: MachineFacts) -> MachineFacts {
    let clean = |text: &mut String| fit(text, MAX_FACT_BYTES);
    for text in [
        &mut facts.hostname,
        &mut facts.os,
        &mut facts.os_version,
        &mut facts.arch,
        &mut facts.user,
        &mut facts.agent_version,
        &mut facts.home,
    ] {
        clean(text);
    }
    if let Some(version) = &mut facts.claude_version {
        clean(version);
    }
    facts.capabilities.truncate(MAX_ENTRIES);
    facts.roots.truncate(MAX_ENTRIES);
    facts.capabilities.iter_mut().chain(&mut facts.roots).for_each(clean);
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_strangers_are_cut_and_cleaned() {
        let facts = cleaned(MachineFacts {
            hostname: format!("a\u{1b}[31m\n\u{9b}{}", "é".repeat(400)),
            user: "ro\u{202e}\u{200b}ot\0".to_owned(),
            roots: vec!["/x\u{7}".to_owned(); 100],
            ..MachineFacts::default()
        });
        assert!(facts.hostname.starts_with("a[31mé"));
        assert!(facts.hostname.len() <= MAX_FACT_BYTES);
        assert_eq!(facts.user, "root");
        assert_eq!((facts.roots.len(), facts.roots[0].as_str()), (MAX_ENTRIES, "/x"));
    }

    #[test]
    fn names_of_all_peoples_stay() {
        for name in ["castor", "Zoé’s Mac", "計算機-1", "сервер", "حاسوب", "🦀"] {
            assert!(!name.chars().any(is_unfit), "{name}");
        }
    }
}

//! Which rules match an act. Pure.
//!
//! Deny and ask match as widely as they can: any part, also inner ones, words in between, and the text as written. Allow matches as
//! narrowly as it can: every part must be covered, word for word, and nothing may be left that is not understood.

use std::path::Path;

use claudenest_shared::policy::{PolicyEffect, PolicyRule};
use claudenest_shared::time::UnixMs;
use serde_json::Value;

use super::Act;
use crate::guard::risk::{Part, PartRole, Reason, Risk};

/// True if the rule is about this session and project now.
pub(super) fn is_in_force(rule: &PolicyRule, act: &Act<'_>, now: UnixMs) -> bool {
    rule.expires_at.is_none_or(|end| now < end)
        && rule.session.is_none_or(|session| session == act.session)
        && rule.project.as_deref().is_none_or(|project| act.scope.project.starts_with(project))
}

fn is_tool(rule: &PolicyRule, act: &Act<'_>) -> bool {
    let has_command = rule.command.is_some() || rule.pattern.is_some() || rule.exact.is_some();
    rule.tool.as_deref().is_none_or(|tool| glob(tool, act.tool, false))
        && (!has_command || command_of(act).is_some())
}

/// The shell command of an act.
fn command_of<'a>(act: &'a Act<'_>) -> Option<&'a str> {
    matches!(act.tool, "Bash" | "Monitor").then(|| act.input.get("command").and_then(Value::as_str)).flatten()
}

/// True if a deny or ask rule matches any of it.
pub(super) fn touches(rule: &PolicyRule, act: &Act<'_>) -> bool {
    if !is_tool(rule, act) || rule.max_risk.is_some_and(|most| act.assessment.risk > most) {
        return false;
    }
    touches_command(rule, act) && rule.path.as_deref().is_none_or(|path| touches_path(path, act))
}

fn touches_command(rule: &PolicyRule, act: &Act<'_>) -> bool {
    if rule.command.is_none() && rule.pattern.is_none() && rule.exact.is_none() {
        return true;
    }
    let Some(text) = command_of(act) else { return false };
    let blind =
        [Reason::NotParsed, Reason::TooManyParts, Reason::TooLong, Reason::TooDeep, Reason::NotAssessed];
    // What cannot be read may hold what the rule is about.
    if rule.effect == PolicyEffect::Deny
        && act.assessment.notes.iter().any(|note| blind.iter().any(|reason| reason.word() == note.word))
    {
        return true;
    }
    let raw: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let command = rule.command.as_deref().map(words);
    let by_command = command.as_ref().is_some_and(|wanted| {
        !wanted.is_empty()
            && (act.assessment.parts.iter().any(|part| holds_in_order(part, wanted))
                || holds_words(&raw, &wanted.join(" ")))
    });
    let by_pattern = rule.pattern.as_deref().is_some_and(|pattern| {
        act.assessment.parts.iter().any(|part| glob(pattern, &joined(part), false))
            || glob(&format!("*{pattern}*"), &raw, false)
    });
    let by_exact = rule.exact.as_deref().is_some_and(|exact| exact.trim() == text.trim());
    by_command || by_pattern || by_exact
}

/// Words of a rule's command.
fn words(command: &str) -> Vec<String> {
    shell_words::split(command).unwrap_or_else(|_| command.split_whitespace().map(str::to_owned).collect())
}

/// The program and the other words stand in the part in this order, whatever is between: `git push` in `git -C x push -f`.
fn holds_in_order(part: &Part, wanted: &[String]) -> bool {
    let mut given = part.words.iter().flatten();
    wanted.iter().all(|word| given.any(|given| given == word || given.rsplit('/').next() == Some(word)))
}

fn holds_words(text: &str, wanted: &str) -> bool {
    let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '-');
    text.match_indices(wanted).any(|(at, _)| {
        is_edge(text[..at].chars().next_back()) && is_edge(text[at + wanted.len()..].chars().next())
    })
}

fn joined(part: &Part) -> String {
    part.words.iter().map(|word| word.as_deref().unwrap_or("\u{fffd}")).collect::<Vec<_>>().join(" ")
}

fn touches_path(pattern: &str, act: &Act<'_>) -> bool {
    let pattern = absolute(pattern, act);
    let start = Path::new(literal_start(&pattern));
    let written = act.assessment.writes.iter().any(|write| {
        matches_path(&pattern, &write.path) || (write.is_tree && start.starts_with(&write.path))
    });
    let named = named_paths(act).iter().any(|path| matches_path(&pattern, Path::new(path)));
    let said = act.assessment.parts.iter().flat_map(|part| part.words.iter().flatten()).any(|word| {
        let word = word.rsplit_once('=').map_or(word.as_str(), |(_, value)| value);
        matches_path(&pattern, &crate::guard::risk::join(act.scope.cwd, word))
    });
    written || named || said
}

/// Files that the input of a tool names.
fn named_paths(act: &Act<'_>) -> Vec<String> {
    ["file_path", "notebook_path", "path"]
        .iter()
        .filter_map(|field| act.input.get(*field).and_then(Value::as_str))
        .map(|path| crate::guard::risk::join(act.scope.cwd, path).to_string_lossy().into_owned())
        .collect()
}

fn absolute(pattern: &str, act: &Act<'_>) -> String {
    match (pattern.strip_prefix("~/"), act.scope.home) {
        (Some(rest), Some(home)) => format!("{}/{rest}", home.display()),
        _ if pattern.starts_with('/') => pattern.to_owned(),
        // A name alone is looked for at any depth, as git does.
        _ if !pattern.trim_end_matches('/').contains('/') => {
            format!("{}/**/{pattern}", act.scope.project.display())
        }
        _ => format!("{}/{}", act.scope.project.display(), pattern.trim_start_matches("./")),
    }
}

fn literal_start(pattern: &str) -> &str {
    let end = pattern.find(['*', '?']).unwrap_or(pattern.len());
    pattern[..end].rsplit_once('/').map_or("/", |(dir, _)| dir)
}

fn matches_path(pattern: &str, path: &Path) -> bool {
    let path = path.to_string_lossy();
    // `dir/**/x` is also `dir/x`, and a directory's name stands for what is in it.
    let pattern = pattern.trim_end_matches('/');
    glob(pattern, &path, true)
        || glob(&format!("{pattern}/**"), &path, true)
        || (pattern.contains("/**/") && glob(&pattern.replacen("/**/", "/", 1), &path, true))
        || (pattern.contains("/**/")
            && glob(&format!("{}/**", pattern.replacen("/**/", "/", 1)), &path, true))
}

/// True if the allow rules together cover the whole act; the names of those that were needed.
pub(super) fn covering<'r>(rules: &[&'r PolicyRule], act: &Act<'_>) -> Option<Vec<&'r PolicyRule>> {
    let rules: Vec<&PolicyRule> = rules.iter().copied().filter(|rule| is_tool(rule, act)).collect();
    if command_of(act).is_none() {
        let rule = rules.into_iter().find(|rule| {
            act.assessment.risk <= most(rule)
                && rule.path.as_deref().is_none_or(|path| covers_paths(path, act))
        })?;
        return Some(vec![rule]);
    }
    if !act.assessment.is_understood || act.assessment.parts.is_empty() {
        return None;
    }
    let text = command_of(act).unwrap_or_default();
    let whole = rules.iter().copied().find(|rule| {
        rule.exact.as_deref().is_some_and(|exact| exact == text)
            && act.assessment.risk <= most(rule)
            && covers_writes(rule, act)
    });
    if let Some(rule) = whole {
        return Some(vec![rule]);
    }
    let mut used: Vec<&PolicyRule> = Vec::new();
    for part in act.assessment.parts.iter().filter(|part| part.role != PartRole::Wrapper) {
        let rule = rules.iter().copied().find(|rule| {
            rule.exact.is_none()
                && part.risk <= most(rule)
                && covers_part(rule, part)
                && covers_writes(rule, act)
        })?;
        if !used.contains(&rule) {
            used.push(rule);
        }
    }
    // What is noted about the whole must be within bounds as well.
    let bound = used.iter().map(|rule| most(rule)).max()?;
    (act.assessment.risk <= bound).then_some(used)
}

fn most(rule: &PolicyRule) -> Risk {
    rule.max_risk.unwrap_or(Risk::Medium)
}

fn covers_part(rule: &PolicyRule, part: &Part) -> bool {
    let Some(given) = part.words.iter().cloned().collect::<Option<Vec<String>>>() else { return false };
    // `cargo test > ~/.bashrc` is more than `cargo test`.
    if given.is_empty() || (part.has_file_redirect && rule.path.is_none()) {
        return false;
    }
    let by_command = rule.command.as_deref().is_none_or(|command| {
        let wanted = words(command);
        !wanted.is_empty() && given.len() >= wanted.len() && given[..wanted.len()] == wanted[..]
    });
    by_command && rule.pattern.as_deref().is_none_or(|pattern| glob(pattern, &given.join(" "), false))
}

fn covers_writes(rule: &PolicyRule, act: &Act<'_>) -> bool {
    rule.path.as_deref().is_none_or(|path| !act.assessment.has_unknown_writes && covers_paths(path, act))
}

/// Everything that is written or named lies within the pattern.
fn covers_paths(pattern: &str, act: &Act<'_>) -> bool {
    let pattern = absolute(pattern, act);
    let named = named_paths(act);
    let writes = act.assessment.writes.iter().all(|write| {
        matches_path(&pattern, &write.path)
            && (!write.is_tree || matches_path(&pattern, &write.path.join("\u{fffd}/\u{fffd}")))
    });
    writes
        && named.iter().all(|path| matches_path(&pattern, Path::new(path)))
        && (!named.is_empty() || !act.assessment.writes.is_empty())
}

/// Matches a pattern with `*` and `?`. In paths `*` stays within a name and `**` does not.
pub(super) fn glob(pattern: &str, text: &str, is_path: bool) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Which lengths of the text the pattern so far matches; cost is the product of both lengths.
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let is_double = is_path && pattern[at..].starts_with(&['*', '*']);
        let mut next = vec![false; text.len() + 1];
        match pattern[at] {
            '*' => {
                let mut is_open = false;
                for index in 0..=text.len() {
                    is_open |= reach[index];
                    next[index] = is_open;
                    if is_path && !is_double && text.get(index) == Some(&'/') {
                        is_open = false;
                    }
                }
            }
            c => {
                for index in 0..text.len() {
                    let fits = c == text[index] || (c == '?' && !(is_path && text[index] == '/'));
                    next[index + 1] = reach[index] && fits;
                }
            }
        }
        reach = next;
        at += if is_double { 2 } else { 1 };
    }
    reach[text.len()]
}

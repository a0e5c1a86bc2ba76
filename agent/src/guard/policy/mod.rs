//! The policy: rules of the configuration and of "always allow…", and what they say about an act.
//!
//! Invariants: deny beats ask, ask beats allow; another deny rule never makes anything more allowed; an allow rule never covers what is
//! not understood. Without a matching rule nothing is said, and Claude Code's own rules decide; high risk asks.

mod matching;
mod ops;

use std::sync::{Arc, PoisonError, RwLock};

use claudenest_shared::approval::{Remember, RuleScope};
use claudenest_shared::id::SessionId;
pub use claudenest_shared::policy::{PolicyEffect as Effect, PolicyRule};
use claudenest_shared::time::UnixMs;
pub use ops::project_of;
use serde_json::Value;

use super::risk::{Assessment, Risk, Scope};
use crate::store::{Store, StoreError};

/// Most rules that are kept; each act is held against all of them.
pub const MAX_RULES: usize = 1_000;
/// Longest name, pattern and reason of a rule.
const MAX_TEXT_CHARS: usize = 2_000;

/// What is about to happen.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    /// Claude Code's tool.
    pub tool: &'a str,
    /// Its exact input.
    pub input: &'a Value,
    /// What [`super::risk::assess`] says about it.
    pub assessment: &'a Assessment,
    /// The session.
    pub session: SessionId,
    /// Where.
    pub scope: Scope<'a>,
}

/// What the policy says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ruling {
    /// What to do; `None` leaves it to Claude Code's own rules.
    pub effect: Option<Effect>,
    /// Names of the rules that decided; empty for the default.
    pub rules: Vec<String>,
    /// A sentence for people and for Claude.
    pub why: String,
}

/// Where a rule comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The configuration file.
    File,
    /// The command line, or "always allow…".
    Store,
}

/// Why a rule was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It says nothing, too much, or what nothing can match.
    #[error("{0}")]
    Rule(String),
    /// It cannot be written.
    #[error("The rule cannot be written down. Is the disk full?")]
    Store(#[from] StoreError),
}

#[derive(Default)]
struct Rules {
    file: Vec<PolicyRule>,
    stored: Vec<PolicyRule>,
}

/// Handle to the policy. Cheap to clone.
#[derive(Clone)]
pub struct Policy {
    rules: Arc<RwLock<Rules>>,
    store: Store,
}

impl Policy {
    /// Reads the stored rules. `file` are those of the configuration, see [`check`].
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read: without all deny rules nothing may be decided.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open(file: Vec<PolicyRule>, store: Store) -> Result<Self, StoreError> {
        let stored = store.rules().await?;
        Ok(Self { rules: Arc::new(RwLock::new(Rules { file, stored })), store })
    }

    /// What the rules say about an act. Costs some ten microseconds with a few rules.
    pub fn decide(&self, act: &Act<'_>, now: UnixMs) -> Ruling {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        decide(rules.file.iter().chain(&rules.stored), act, now)
    }

    /// All rules, those of the configuration first.
    pub fn list(&self) -> Vec<(Origin, PolicyRule)> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let file = rules.file.iter().map(|rule| (Origin::File, rule.clone()));
        file.chain(rules.stored.iter().map(|rule| (Origin::Store, rule.clone()))).collect()
    }

    /// Adds a rule and writes it down before it holds. Rules whose time is over make room.
    ///
    /// # Errors
    /// [`PolicyError`].
    ///
    /// # Cancel safety
    /// Written or not; it holds from the next start at the latest.
    pub async fn add(&self, rule: PolicyRule, now: UnixMs) -> Result<(), PolicyError> {
        check(&rule).map_err(PolicyError::Rule)?;
        let rules = self.list();
        if rules.iter().any(|(_, known)| known.name == rule.name) {
            return Err(PolicyError::Rule(format!(
                "There is a rule `{}` already. Remove it first, or give this one another name.",
                rule.name
            )));
        }
        for (_, old) in rules
            .iter()
            .filter(|(origin, old)| *origin == Origin::Store && old.expires_at.is_some_and(|end| end <= now))
        {
            self.store.remove_rule(&old.name).await?;
        }
        if rules.len() >= MAX_RULES {
            return Err(PolicyError::Rule(format!(
                "There are {MAX_RULES} rules. Remove some: claudenest-agent policy show."
            )));
        }
        self.store.add_rule(&rule).await?;
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        rules.stored.retain(|old| old.expires_at.is_none_or(|end| end > now));
        rules.stored.push(rule);
        Ok(())
    }

    /// Removes a stored rule; false if there is none of this name.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cancel safety
    /// Removed or not; it ends with the next start at the latest.
    pub async fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let is_known = self.list().iter().any(|(origin, rule)| *origin == Origin::Store && rule.name == name);
        if is_known {
            self.store.remove_rule(name).await?;
            let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            rules.stored.retain(|rule| rule.name != name);
        }
        Ok(is_known)
    }
}

/// The allow rule of an act that a person allows for good: this command, this tool on this file, this tool. Not added yet.
///
/// # Errors
/// [`PolicyError::Rule`]: what is not understood cannot become a rule.
pub fn rule_of(act: &Act<'_>, remember: Remember, id: &str, now: UnixMs) -> Result<PolicyRule, PolicyError> {
    let rule = remembered(act, remember, id, now)?;
    // A rule that does not cover its own act would be a promise that is not kept.
    if decide([&rule].into_iter(), act, now).effect != Some(Effect::Allow) {
        return Err(PolicyError::Rule(
            "This cannot be allowed for good: its words are computed when it runs, or it has too many parts to be looked at. Allow it this once."
                .to_owned(),
        ));
    }
    Ok(rule)
}

fn remembered(act: &Act<'_>, remember: Remember, id: &str, now: UnixMs) -> Result<PolicyRule, PolicyError> {
    let text = |field: &str| act.input.get(field).and_then(Value::as_str).map(str::to_owned);
    let path = text("file_path").or_else(|| text("notebook_path"));
    let project = || act.scope.project.to_string_lossy().into_owned();
    if act.tool == "Bash" && text("command").is_none() {
        return Err(PolicyError::Rule("There is no command to make a rule of.".to_owned()));
    }
    Ok(PolicyRule {
        name: format!("allowed-{id}"),
        effect: Effect::Allow,
        tool: Some(act.tool.to_owned()),
        command: None,
        pattern: None,
        exact: text("command").filter(|_| act.tool == "Bash"),
        path: path.map(|path| super::risk::join(act.scope.cwd, &path).to_string_lossy().into_owned()),
        max_risk: Some(act.assessment.risk),
        reason: None,
        session: (remember.scope == RuleScope::Session).then_some(act.session),
        project: (remember.scope == RuleScope::Project).then(project),
        expires_at: remember.duration_s.map(|seconds| UnixMs(now.0 + i64::from(seconds) * 1000)),
    })
}

/// Says what is wrong with a rule, as a sentence.
///
/// # Errors
/// The sentence.
pub fn check(rule: &PolicyRule) -> Result<(), String> {
    let texts =
        [&rule.tool, &rule.command, &rule.pattern, &rule.exact, &rule.path, &rule.reason, &rule.project];
    if rule.name.is_empty()
        || rule.name.len() > 100
        || rule.name.chars().any(|c| c.is_control() || c.is_whitespace())
    {
        return Err("A rule needs a name of at most 100 characters without blanks.".to_owned());
    }
    if texts.iter().any(|text| {
        text.as_ref().is_some_and(|text| text.trim().is_empty() || text.chars().count() > MAX_TEXT_CHARS)
    }) {
        return Err(format!(
            "The rule `{}` has an empty text, or one of more than {MAX_TEXT_CHARS} characters.",
            rule.name
        ));
    }
    if [&rule.tool, &rule.command, &rule.pattern, &rule.exact, &rule.path].iter().all(|text| text.is_none())
        && rule.max_risk.is_none()
    {
        return Err(format!(
            "The rule `{}` would match everything. Give it a tool, a command, a path or a highest risk.",
            rule.name
        ));
    }
    if [&rule.command, &rule.pattern, &rule.exact].iter().filter(|text| text.is_some()).count() > 1 {
        return Err(format!(
            "The rule `{}` has more than one of `command`, `pattern` and `exact`. Make a rule of each.",
            rule.name
        ));
    }
    if rule.project.as_deref().is_some_and(|project| !project.starts_with('/')) {
        return Err(format!("The project of the rule `{}` must be an absolute path.", rule.name));
    }
    Ok(())
}

/// What `rules` say about an act.
pub fn decide<'r>(rules: impl Iterator<Item = &'r PolicyRule>, act: &Act<'_>, now: UnixMs) -> Ruling {
    let rules: Vec<&PolicyRule> = rules.filter(|rule| matching::is_in_force(rule, act, now)).collect();
    for effect in [Effect::Deny, Effect::Ask] {
        let hit = rules.iter().find(|rule| rule.effect == effect && matching::touches(rule, act));
        if let Some(rule) = hit {
            let verb = if effect == Effect::Deny { "denies it" } else { "asks a person first" };
            let why = rule
                .reason
                .clone()
                .unwrap_or_else(|| format!("The rule `{}` of this machine {verb}.", rule.name));
            return Ruling { effect: Some(effect), rules: vec![rule.name.clone()], why };
        }
    }
    let allowing: Vec<&PolicyRule> = rules.into_iter().filter(|rule| rule.effect == Effect::Allow).collect();
    if let Some(used) = matching::covering(&allowing, act) {
        let names: Vec<String> = used.iter().map(|rule| rule.name.clone()).collect();
        let why = format!("Allowed by the rule `{}` of this machine.", names.join("` and `"));
        return Ruling { effect: Some(Effect::Allow), rules: names, why };
    }
    if act.assessment.risk == Risk::High {
        let reason = act.assessment.notes.first().map_or("is of high risk", |note| note.text.as_str());
        return Ruling {
            effect: Some(Effect::Ask),
            rules: Vec::new(),
            why: format!("High risk: it {reason}."),
        };
    }
    Ruling {
        effect: None,
        rules: Vec::new(),
        why: "No rule matches: Claude Code's own rules decide.".to_owned(),
    }
}

#[cfg(test)]
mod tests;

//! `policy …`: what may run, what is asked, what never runs; and what a given command would get, and why.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use claudenest_shared::id::SessionId;
use claudenest_shared::lock::Lock;
use claudenest_shared::policy::{KnownRule, PolicyEffect, PolicyRule};
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::{Op, Reply};
use serde_json::json;

use super::args::value::duration;
use super::exit::{Exit, fail};
use super::output::{moment, now, print_json, say, table};
use super::{Context, daemon};
use crate::control::Client;
use crate::guard::policy::{Act, check, decide, project_of};
use crate::guard::risk::{PartRole, Risk, Scope, assess};
use crate::store::Store;

/// Commands on rules.
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// List the rules: those of the configuration file, and those that were added.
    #[command(visible_alias = "ls")]
    Show,
    /// Say what a command would get, and why: its risk, its parts, the rule, the locks. Runs nothing.
    #[command(after_help = "\
Examples:
  claudenest-agent policy test 'cargo test && git push --force'
  claudenest-agent policy test --tool Edit --input '{\"file_path\": \"src/main.rs\"}'
It is judged as if a session in this directory wanted it.")]
    Test {
        /// The shell command, in quotes.
        #[arg(required_unless_present = "input")]
        command: Option<String>,
        /// The tool that would run it.
        #[arg(long, default_value = "Bash")]
        tool: String,
        /// The tool's input as JSON, instead of a command.
        #[arg(long, value_name = "JSON", conflicts_with = "command")]
        input: Option<String>,
        /// Directory in which it would run.
        #[arg(long, value_name = "DIR")]
        cwd: Option<PathBuf>,
    },
    /// Add a rule. Deny beats ask, ask beats allow, whatever their order.
    #[command(after_help = "\
Examples:
  claudenest-agent policy add no-push deny --command 'git push' --reason 'A person pushes here.'
  claudenest-agent policy add tests allow --command 'cargo test' --here
  claudenest-agent policy add no-keys deny --path '**/*.pem'
Allow covers a command only if every part of it is covered, word for word, and its risk is at most medium
(or what --max-risk says).")]
    Add {
        /// A name for the rule, without blanks.
        name: String,
        /// What it does.
        effect: EffectArg,
        /// The tool, with * for any text.
        #[arg(long)]
        tool: Option<String>,
        /// First words of a command.
        #[arg(long, value_name = "WORDS")]
        command: Option<String>,
        /// A whole simple command, with * for any text.
        #[arg(long)]
        pattern: Option<String>,
        /// Files, with *, ** and ?; relative ones lie in the project.
        #[arg(long)]
        path: Option<String>,
        /// The highest risk that it matches.
        #[arg(long, value_name = "RISK")]
        max_risk: Option<RiskArg>,
        /// Only in this project.
        #[arg(long, value_name = "DIR", conflicts_with = "here")]
        project: Option<PathBuf>,
        /// Only in the project of this directory.
        #[arg(long)]
        here: bool,
        /// For how long; until it is removed without it.
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        lasts: Option<Duration>,
        /// Why: shown to Claude and to people.
        #[arg(long, short, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Remove a rule that was added, by its name.
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name.
        name: String,
    },
}

/// What a rule does.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum EffectArg {
    /// It runs without a question.
    Allow,
    /// A person is asked.
    Ask,
    /// It does not run.
    Deny,
}

/// A risk.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RiskArg {
    /// Only reads within the project.
    Low,
    /// Changes the project, or is not understood completely.
    Medium,
    /// Anything.
    High,
}

pub(super) async fn run(context: &Context, command: PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::Show => show(context).await?,
        PolicyCommand::Test { command, tool, input, cwd } => {
            let input = match (command, input) {
                (Some(command), _) => json!({"command": command}),
                (None, input) => serde_json::from_str(&input.unwrap_or_default())
                    .map_err(|error| fail(Exit::Usage, format!("--input is not JSON: {error}.")))?,
            };
            let cwd = std::path::absolute(cwd.unwrap_or_else(|| PathBuf::from(".")))?;
            test(context, &tool, &input, &cwd).await?;
        }
        PolicyCommand::Add {
            name,
            effect,
            tool,
            command,
            pattern,
            path,
            max_risk,
            project,
            here,
            lasts,
            reason,
        } => {
            let project = match (project, here) {
                (Some(dir), _) => Some(std::path::absolute(dir)?),
                (None, true) => Some(project_of(&std::path::absolute(".")?).to_owned()),
                (None, false) => None,
            };
            let rule = PolicyRule {
                name,
                effect: match effect {
                    EffectArg::Allow => PolicyEffect::Allow,
                    EffectArg::Ask => PolicyEffect::Ask,
                    EffectArg::Deny => PolicyEffect::Deny,
                },
                tool,
                command,
                pattern,
                exact: None,
                path,
                max_risk: max_risk.map(|risk| match risk {
                    RiskArg::Low => Risk::Low,
                    RiskArg::Medium => Risk::Medium,
                    RiskArg::High => Risk::High,
                }),
                reason,
                session: None,
                project: project.map(|dir| dir.to_string_lossy().into_owned()),
                expires_at: lasts.map(|time| {
                    UnixMs(now().0.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
                }),
            };
            check(&rule).map_err(|text| fail(Exit::Usage, text))?;
            let mut client = daemon::connect_or_start(context).await?;
            client.request(Op::PolicyAdd { rule: Box::new(rule.clone()) }).await.map_err(daemon::refused)?;
            done(
                context,
                &format!("The rule `{}` holds from now on, also for sessions that run.", rule.name),
            );
        }
        PolicyCommand::Remove { name } => {
            let mut client = daemon::connect_or_start(context).await?;
            client.request(Op::PolicyRemove { name: name.clone() }).await.map_err(daemon::refused)?;
            done(context, &format!("The rule `{name}` is removed."));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn done(context: &Context, text: &str) {
    if context.json {
        print_json(&json!({"done": true}));
    } else {
        say!("{text}");
    }
}

/// The rules that hold: the daemon's, or what it would read if it started now.
async fn rules(context: &Context, client: Option<&mut Client>) -> anyhow::Result<Vec<KnownRule>> {
    if let Some(client) = client {
        return match client.request(Op::PolicyList {}).await.map_err(daemon::refused)? {
            Reply::Rules { rules } => Ok(rules),
            _ => Err(fail(Exit::Failed, "The daemon gave an answer that is none to this.")),
        };
    }
    let file =
        context.effective.config.policy.iter().cloned().map(|rule| KnownRule { rule, is_from_file: true });
    let stored = Store::peek_rules(&context.paths.data_dir).await?;
    Ok(file.chain(stored.into_iter().map(|rule| KnownRule { rule, is_from_file: false })).collect())
}

async fn show(context: &Context) -> anyhow::Result<()> {
    let mut client = daemon::connect(context).await.ok();
    let rules = rules(context, client.as_mut()).await?;
    if context.json {
        print_json(&json!({"rules": rules, "is_running": client.is_some()}));
        return Ok(());
    }
    if rules.is_empty() {
        say!(
            "No rules. What Claude Code's own settings allow runs; high risk and conflicts of locks are asked."
        );
        say!("  claudenest-agent policy add no-push deny --command 'git push'");
        return Ok(());
    }
    let row = |known: &KnownRule| {
        let rule = &known.rule;
        let until = rule.expires_at.map_or_else(|| "removed".to_owned(), moment);
        let from = if known.is_from_file { "file" } else { "added" };
        vec![rule.name.clone(), rule.effect.as_str().to_owned(), matches_text(rule), until, from.to_owned()]
    };
    let rows: Vec<Vec<String>> = rules.iter().map(row).collect();
    say!("{}", table(&["NAME", "EFFECT", "MATCHES", "UNTIL", "FROM"], &rows).trim_end());
    Ok(())
}

/// What a rule matches, in one line.
fn matches_text(rule: &PolicyRule) -> String {
    let session = rule.session.map(|session: SessionId| session.short());
    let fields = [
        ("", rule.tool.clone()),
        ("", rule.command.as_ref().map(|words| format!("`{words} …`"))),
        ("", rule.pattern.as_ref().map(|pattern| format!("`{pattern}`"))),
        ("exactly ", rule.exact.as_ref().map(|text| format!("`{text}`"))),
        ("on ", rule.path.clone()),
        ("up to risk ", rule.max_risk.map(|risk| risk.as_str().to_owned())),
        ("in session ", session),
        ("in ", rule.project.clone()),
    ];
    let texts: Vec<String> =
        fields.into_iter().filter_map(|(label, text)| text.map(|text| format!("{label}{text}"))).collect();
    texts.join(" ")
}

async fn test(context: &Context, tool: &str, input: &serde_json::Value, cwd: &Path) -> anyhow::Result<()> {
    let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
    let scope = Scope { cwd, project: project_of(cwd), home: home.as_deref() };
    let assessment = assess(tool, input, &scope);
    let mut client = daemon::connect(context).await.ok();
    let rules = rules(context, client.as_mut()).await?;
    // No session is asked about: rules of one session match nothing here.
    let act = Act { tool, input, assessment: &assessment, session: SessionId::from_bytes([0; 16]), scope };
    let ruling = decide(rules.iter().map(|known| &known.rule), &act, now());
    let locks = match client.as_mut() {
        Some(client) => match client.request(Op::LockList {}).await.map_err(daemon::refused)? {
            Reply::Locks { locks } => locks,
            _ => Vec::new(),
        },
        None => Vec::new(),
    };
    let touched: Vec<&Lock> = locks
        .iter()
        .filter(|lock| {
            let path = Path::new(&lock.path);
            assessment
                .writes
                .iter()
                .any(|write| write.path.starts_with(path) || (write.is_tree && path.starts_with(&write.path)))
        })
        .collect();
    let writes: BTreeSet<String> = assessment
        .writes
        .iter()
        .map(|write| format!("{}{}", write.path.display(), if write.is_tree { "/…" } else { "" }))
        .collect();
    if context.json {
        print_json(&json!({
            "effect": ruling.effect, "rules": ruling.rules, "why": ruling.why,
            "risk": assessment.risk, "notes": assessment.notes, "is_understood": assessment.is_understood,
            "parts": assessment.parts.iter().map(|part| json!({"text": part.text, "words": part.words, "risk": part.risk, "is_inner": part.role == PartRole::Inner})).collect::<Vec<_>>(),
            "writes": writes, "has_unknown_writes": assessment.has_unknown_writes, "locks": touched, "is_running": client.is_some(),
        }));
        return Ok(());
    }
    let effect = ruling.effect.map_or("left to Claude Code", PolicyEffect::as_str);
    say!("{effect}: {}", ruling.why);
    say!("risk {}", assessment.risk.as_str());
    for note in &assessment.notes {
        let part = note.part.as_deref().map(|part| format!(": {}", part.escape_debug())).unwrap_or_default();
        say!("  {:6}  {} ({}){part}", note.risk.as_str(), note.text, note.word);
    }
    if assessment.parts.len() > 1 {
        say!("parts");
        for part in &assessment.parts {
            let inner = if part.role == PartRole::Inner { " (run by another part)" } else { "" };
            say!("  {:6}  {}{inner}", part.risk.as_str(), part.text.escape_debug());
        }
    }
    if !writes.is_empty() || assessment.has_unknown_writes {
        say!("writes");
        for path in &writes {
            say!("  {path}");
        }
        if assessment.has_unknown_writes {
            say!("  what cannot be known before");
        }
    }
    for lock in touched {
        say!("locked: {}, see claudenest-agent locks list", lock.path);
    }
    if client.is_none() {
        say!("No daemon runs: these are the rules that it would start with; locks are not known.");
    }
    Ok(())
}

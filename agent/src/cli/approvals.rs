//! `approvals …`: what Claude wants to do, and the word of the person at the machine.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use claudenest_shared::approval::{
    Answer, Approval, ApprovalKind, ApprovalState, Remember, RuleScope, Verdict,
};
use claudenest_shared::id::ApprovalId;
use claudenest_shared::wire::agent::{AgentMessage, Op, Reply};
use serde_json::{Value, json};

use super::args::value::duration;
use super::exit::{Exit, fail, wire};
use super::output::{age, moment, now, print_json, say, short_path, span, table};
use super::{Context, daemon};
use crate::control::{Client, ClientError, Incoming};

/// Ended approvals of `list --all`.
const MOST: u32 = 200;
/// Longest command in a list, in characters; `show` has it whole.
const LIST_CHARS: usize = 60;

/// Commands on approvals. APPROVAL is an id, or the last digits of one.
#[derive(Subcommand, Debug)]
pub enum ApprovalsCommand {
    /// List what waits for an answer.
    #[command(visible_alias = "ls")]
    List {
        /// Show answered, expired and withdrawn ones as well.
        #[arg(long, short)]
        all: bool,
    },
    /// Show everything about an approval: the exact command, directory, risk and why.
    Show {
        /// The approval.
        approval: String,
    },
    /// Allow it. The first answer counts, wherever it comes from.
    #[command(after_help = "\
Examples:
  claudenest-agent approvals approve 3f9c21
  claudenest-agent approvals approve 3f9c21 --always project --for 2h
  claudenest-agent approvals approve 3f9c21 --answer 'Which colour?=Blue'     a question of Claude
  claudenest-agent approvals approve 3f9c21 --text 'Use the staging server'   asked by the ask_human tool
Ends with 5 when somebody else was first.")]
    Approve {
        /// The approval.
        approval: String,
        /// Answer to one of Claude's questions; may be repeated. Several choices are separated by a comma and a blank.
        #[arg(long, value_name = "QUESTION=ANSWER", value_parser = question)]
        answer: Vec<(String, String)>,
        /// Answer as text; `-` reads it from standard input.
        #[arg(long, value_name = "TEXT", conflicts_with = "answer")]
        text: Option<String>,
        /// Allow the same from now on without asking.
        #[arg(long, value_name = "SCOPE", value_enum)]
        always: Option<Scope>,
        /// For how long, 1 min to 1 year; until the rule is removed without it.
        #[arg(long = "for", value_name = "DURATION", value_parser = duration, requires = "always")]
        time: Option<Duration>,
    },
    /// Deny it. Claude is told the reason.
    Deny {
        /// The approval.
        approval: String,
        /// Why, and what to do instead; `-` reads it from standard input.
        #[arg(long, short, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Print approvals as they come and are answered. Ends with Ctrl-C.
    Watch,
}

/// How far "always" reaches.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// This session.
    Session,
    /// Sessions in the same project.
    Project,
    /// All sessions of this machine.
    Machine,
}

pub(super) async fn run(context: &Context, command: ApprovalsCommand) -> anyhow::Result<ExitCode> {
    match command {
        ApprovalsCommand::List { all } => list(context, all).await?,
        ApprovalsCommand::Show { approval } => {
            let (_, approval) = find(context, &approval).await?;
            if context.json {
                print_json(&approval);
            } else {
                show(&approval);
            }
        }
        ApprovalsCommand::Approve { approval, answer, text, always, time } => {
            let (client, approval) = find(context, &approval).await?;
            let answers = match (text, answer.is_empty()) {
                (Some(text), _) => Some(Value::String(given(text)?)),
                (None, false) => Some(Value::Object(
                    answer.into_iter().map(|(question, text)| (question, Value::String(text))).collect(),
                )),
                (None, true) => None,
            };
            let remember = always.map(|scope| Remember {
                scope: match scope {
                    Scope::Session => RuleScope::Session,
                    Scope::Project => RuleScope::Project,
                    Scope::Machine => RuleScope::Machine,
                },
                duration_s: time.map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX)),
            });
            let answer = Answer { verdict: Verdict::Allow, reason: None, answers, remember };
            decide(context, client, &approval, answer).await?;
        }
        ApprovalsCommand::Deny { approval, reason } => {
            let (client, approval) = find(context, &approval).await?;
            let reason = reason.map(given).transpose()?;
            let answer = Answer { verdict: Verdict::Deny, reason, answers: None, remember: None };
            decide(context, client, &approval, answer).await?;
        }
        ApprovalsCommand::Watch => watch(context).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn question(text: &str) -> Result<(String, String), String> {
    // A question may hold the sign, an answer does not.
    let parts = text.rsplit_once('=').filter(|(question, answer)| !question.is_empty() && !answer.is_empty());
    let (question, answer) = parts.ok_or("an answer looks like 'Which colour?=Blue'")?;
    Ok((question.to_owned(), answer.to_owned()))
}

fn given(text: String) -> anyhow::Result<String> {
    if text != "-" {
        return Ok(text);
    }
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text)?;
    Ok(text.trim_end().to_owned())
}

async fn fetch(client: &mut Client, states: Vec<ApprovalState>) -> anyhow::Result<(Vec<Approval>, bool)> {
    match client.request(Op::ApprovalList { states, limit: MOST }).await.map_err(daemon::refused)? {
        Reply::Approvals { approvals, is_cut } => Ok((approvals, is_cut)),
        _ => Err(daemon::refused(ClientError::Protocol)),
    }
}

async fn list(context: &Context, all: bool) -> anyhow::Result<()> {
    let mut client = daemon::connect(context).await?;
    let states = if all { Vec::new() } else { vec![ApprovalState::Pending] };
    let (approvals, is_cut) = fetch(&mut client, states).await?;
    if context.json {
        print_json(&json!({"approvals": approvals, "is_cut": is_cut}));
        return Ok(());
    }
    if approvals.is_empty() {
        say!("Nobody waits for your word. Look again, or stay: claudenest-agent approvals watch");
        return Ok(());
    }
    let row = |approval: &Approval| {
        vec![
            approval.id.short(),
            visible(&approval.session_name),
            approval.risk.as_str().to_owned(),
            age(approval.created_at),
            state(approval),
            short_path(&visible(&approval.cwd)),
            shortened(&subject(approval)),
        ]
    };
    let rows: Vec<_> = approvals.iter().map(row).collect();
    let header = ["APPROVAL", "SESSION", "RISK", "AGE", "STATE", "DIRECTORY", "WANTS"];
    say!("{}", table(&header, &rows).trim_end());
    if is_cut {
        say!("There are more; the newest {} are shown.", approvals.len());
    }
    if approvals.iter().any(|approval| approval.state == ApprovalState::Pending) {
        say!(
            "Look: claudenest-agent approvals show APPROVAL. Answer: approvals approve, or approvals deny --reason TEXT."
        );
    }
    Ok(())
}

/// What it is about, on one line, with nothing that a terminal would take for a command.
fn subject(approval: &Approval) -> String {
    match approval.input.get("command").and_then(Value::as_str) {
        Some(command) => visible(command).replace('\n', "⏎"),
        None => visible(&approval.summary).replace('\n', "⏎"),
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LIST_CHARS {
        return text.to_owned();
    }
    text.chars().take(LIST_CHARS - 1).chain(['…']).collect()
}

/// Text with everything visible that could make it read differently from what it is; line ends stay.
fn visible(text: &str) -> String {
    let is_deceptive = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}')
            || (c.is_whitespace() && c != ' ' && c != '\n')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// State with who and why, for a cell.
fn state(approval: &Approval) -> String {
    match &approval.decision {
        Some(decision) => {
            let word = if decision.answer.verdict == Verdict::Allow { "allowed" } else { "denied" };
            let receipt = match approval.state {
                ApprovalState::Applied => ", applied",
                ApprovalState::Withdrawn => ", withdrawn",
                _ => "",
            };
            format!("{word} by {}{receipt}", visible(&decision.by.label))
        }
        None => approval.state.as_str().to_owned(),
    }
}

fn show(approval: &Approval) {
    say!(
        "{} in session {}: {}",
        approval.id.short(),
        visible(&approval.session_name),
        visible(&approval.summary)
    );
    let line = |name: &str, text: &str| say!("{name:<10} {text}");
    line("tool", &visible(&approval.tool));
    line("directory", &visible(&approval.cwd));
    if let Some(agent) = &approval.agent {
        line("subagent", &visible(agent));
    }
    line("risk", approval.risk.as_str());
    for note in &approval.notes {
        let part = note.part.as_deref().map(|part| format!(": {}", visible(part))).unwrap_or_default();
        line("", &format!("{} ({}){part}", visible(&note.text), note.risk.as_str()));
    }
    line("why", &visible(&approval.why));
    line("asked", &format!("{} ago, {}", age(approval.created_at), moment(approval.created_at)));
    if let Some(at) = approval.expires_at.filter(|_| approval.state == ApprovalState::Pending) {
        line("ends", &format!("in {}, without an answer", span(at.since(now()))));
    }
    line("state", &format!("{} for {}", state(approval), age(approval.state_since)));
    if let Some(reason) = approval.decision.as_ref().and_then(|decision| decision.answer.reason.as_deref()) {
        line("reason", &visible(reason));
    }
    if let Some(text) = &approval.state_text {
        line("", &visible(text));
    }
    line("sha256", &approval.input_sha256);
    say!("");
    match (&approval.diff, &approval.input) {
        (Some(diff), _) => indented(diff),
        (None, Value::Object(input)) => {
            for (key, value) in input {
                match value.as_str() {
                    Some(text) => {
                        say!("{}:", visible(key));
                        indented(text);
                    }
                    None => say!("{}: {}", visible(key), visible(&value.to_string())),
                }
            }
        }
        (None, Value::Null) => {
            say!("The input is too long to be shown here; look at the terminal of the session.")
        }
        (None, other) => indented(&other.to_string()),
    }
    if approval.state == ApprovalState::Pending {
        let id = approval.id.short();
        let hint = match approval.kind {
            ApprovalKind::Question => " --answer 'QUESTION=ANSWER'",
            ApprovalKind::Human => " --text TEXT",
            ApprovalKind::Tool | ApprovalKind::Plan => "",
        };
        say!("");
        say!("Allow:  claudenest-agent approvals approve {id}{hint}");
        say!("Deny:   claudenest-agent approvals deny {id} --reason TEXT");
    }
}

fn indented(text: &str) {
    for line in visible(text).lines() {
        say!("  {line}");
    }
}

/// The approval that `target` names: an id or its last digits; those that wait come first.
async fn find(context: &Context, target: &str) -> anyhow::Result<(Client, Approval)> {
    let mut client = daemon::connect(context).await?;
    if let Ok(approval) = target.parse::<ApprovalId>() {
        return match client.request(Op::ApprovalGet { approval }).await.map_err(daemon::refused)? {
            Reply::Approval { approval } => Ok((client, *approval)),
            _ => Err(daemon::refused(ClientError::Protocol)),
        };
    }
    let digits = target.to_lowercase();
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        let message = format!("{target:?} is no approval. List them: claudenest-agent approvals list");
        return Err(fail(Exit::Usage, message));
    }
    for states in [vec![ApprovalState::Pending], Vec::new()] {
        let (approvals, _) = fetch(&mut client, states).await?;
        let fits = |approval: &&Approval| approval.id.0.simple().to_string().ends_with(&digits);
        match approvals.iter().filter(fits).collect::<Vec<_>>().as_slice() {
            [] => {}
            [only] => return Ok((client, (*only).clone())),
            several => {
                let ids: Vec<_> = several.iter().map(|approval| approval.id.short()).collect();
                let message =
                    format!("{target} fits several approvals: {}. Give more digits.", ids.join(", "));
                return Err(fail(Exit::Usage, message));
            }
        }
    }
    let message = format!("There is no approval {target}. List them: claudenest-agent approvals list --all");
    Err(fail(Exit::NotFound, message))
}

async fn decide(
    context: &Context,
    mut client: Client,
    approval: &Approval,
    answer: Answer,
) -> anyhow::Result<()> {
    let op = Op::ApprovalDecide {
        approval: approval.id,
        // Exactly what was looked at: if it is another by now, it is refused.
        input_sha256: approval.input_sha256.clone(),
        answer,
        by: None,
    };
    match client.request(op).await.map_err(daemon::refused)? {
        Reply::Approval { approval } if context.json => print_json(&approval),
        Reply::Approval { approval } => {
            say!(
                "{} in session {}: {}",
                state(&approval),
                visible(&approval.session_name),
                visible(&approval.summary)
            );
        }
        _ => return Err(daemon::refused(ClientError::Protocol)),
    }
    Ok(())
}

async fn watch(context: &Context) -> anyhow::Result<()> {
    let client = daemon::connect(context).await?;
    let (_sender, mut changes) = client.subscribe_guard().await.map_err(daemon::refused)?;
    let mut known: BTreeMap<ApprovalId, u64> = BTreeMap::new();
    // Those that were over before are no news.
    let mut over: HashSet<ApprovalId> = HashSet::new();
    let mut is_told = false;
    loop {
        let message = match changes.next().await.map_err(daemon::refused)? {
            Incoming::Message(message) => *message,
            Incoming::Failed(error) => return Err(wire(error)),
            Incoming::Frame(_) => continue,
        };
        let approval = match message {
            AgentMessage::Approval { approval } => approval,
            AgentMessage::ApprovalsSent {} => {
                is_told = true;
                continue;
            }
            _ => continue,
        };
        if !is_told && approval.state.is_final() {
            over.insert(approval.id);
            continue;
        }
        if over.contains(&approval.id)
            || known.get(&approval.id).is_some_and(|version| *version >= approval.version)
        {
            continue;
        }
        known.insert(approval.id, approval.version);
        if context.json {
            print_json(&approval);
        } else {
            let (id, session) = (approval.id.short(), visible(&approval.session_name));
            let risk = approval.risk.as_str();
            say!(
                "{}  {id}  {session}  {}  {risk}  {}",
                moment(approval.state_since),
                state(&approval),
                subject(&approval)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_deceptive_reaches_the_terminal() {
        assert_eq!(visible("rm \u{1b}[2K\u{202e}x\u{200b}\r\ty"), "rm \\u{1b}[2K\\u{202e}x\\u{200b}\\r\\ty");
        assert_eq!(visible("a\nb é 界 👍"), "a\nb é 界 👍");
        assert_eq!(visible("\u{a0}\u{e0041}\u{fe0f}"), "\\u{a0}\\u{e0041}\\u{fe0f}");
        assert_eq!(shortened(&"x".repeat(100)).chars().count(), LIST_CHARS);
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(question("Is a=b?=Yes"), Ok(("Is a=b?".into(), "Yes".into())));
        assert!(question("Which").is_err() && question("=x").is_err() && question("x=").is_err());
    }
}

//! `audit …`: what was asked, decided and done. Reads the database itself: no daemon is needed.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};

use super::exit::{Exit, fail};
use super::output::{moment, print_json, say};
use super::{Context, recorded, session};
use crate::guard::audit::{AuditRow, Chain};
use crate::store::Store;

/// Rows that are read at once.
const PAGE: u32 = 1000;

/// Commands on the audit log.
#[derive(Subcommand, Debug)]
pub enum AuditCommand {
    /// Print the newest rows: who asked, who decided, what exactly ran.
    Show {
        /// Only of this session.
        #[arg(long, value_name = "SESSION")]
        session: Option<String>,
        /// How many.
        #[arg(long, short = 'n', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        lines: u32,
    },
    /// Check that no row was changed, taken out or put in.
    #[command(after_help = "\
Prints number and hash of the last row. Note them somewhere else: with --expect NUMBER:HASH a later run also finds that rows
at the end were cut off. Ends with 1 if something is wrong.")]
    Verify {
        /// A row that was noted before.
        #[arg(long, value_name = "NUMBER:HASH", value_parser = head)]
        expect: Option<(i64, String)>,
    },
}

fn head(text: &str) -> Result<(i64, String), String> {
    let parts = text.split_once(':').and_then(|(number, hash)| Some((number.parse().ok()?, hash.to_owned())));
    parts.ok_or_else(|| "looks like 1204:9f86d0…".to_owned())
}

pub(super) async fn run(context: &Context, command: AuditCommand) -> anyhow::Result<ExitCode> {
    let Some(store) = Store::reader(&context.paths.data_dir).await.context("The audit log cannot be read")?
    else {
        return Err(fail(
            Exit::NotFound,
            "There is no audit log yet: no agent has run with this data directory.",
        ));
    };
    let result = match command {
        AuditCommand::Show { session, lines } => show(context, &store, session, lines).await,
        AuditCommand::Verify { expect } => verify(context, &store, expect).await,
    };
    store.close().await;
    result
}

async fn show(
    context: &Context,
    store: &Store,
    target: Option<String>,
    lines: u32,
) -> anyhow::Result<ExitCode> {
    let session = match target {
        Some(target) => match target.parse() {
            Ok(session) => Some(session),
            Err(_) => Some(session::pick(&recorded::sessions(context).await?, &target)?.id),
        },
        None => None,
    };
    let rows = store.audit_tail(session, lines).await.context("The audit log cannot be read")?;
    for row in &rows {
        let body: Value = serde_json::from_str(&row.body).unwrap_or(Value::Null);
        if context.json {
            print_json(&json!({
                "number": row.number, "at": row.at, "kind": row.kind, "session": row.session, "body": body, "hash": row.hash,
            }));
        } else {
            let session = row.session.map(|session| session.short()).unwrap_or_default();
            say!("{:>6}  {}  {session:8}  {:<12} {}", row.number, moment(row.at), row.kind, told(&body));
        }
    }
    if rows.is_empty() && !context.json {
        say!("The audit log has no such rows yet.");
    }
    Ok(ExitCode::SUCCESS)
}

/// The row for people, on one line.
fn told(body: &Value) -> String {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    let mut parts = Vec::new();
    if let Some(verdict) = text("verdict") {
        let by = body.pointer("/by/label").and_then(Value::as_str).unwrap_or("somebody");
        parts.push(format!("{verdict} by {by}"));
    }
    parts.extend(
        ["effect", "tool", "path", "why", "reason", "text"].into_iter().filter_map(text).map(str::to_owned),
    );
    if let Some(input) = body.get("input").filter(|input| !input.is_null()) {
        parts.push(input.get("command").map_or_else(|| input.to_string(), Value::to_string));
    }
    parts.join(" · ").escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

async fn verify(context: &Context, store: &Store, expect: Option<(i64, String)>) -> anyhow::Result<ExitCode> {
    let mut chain = Chain::default();
    let mut expected = expect.clone();
    loop {
        let rows: Vec<AuditRow> =
            store.audit_after(chain.head().0, PAGE).await.context("The audit log cannot be read")?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            chain.follow(row).map_err(|problem| broken(&problem))?;
            if expected
                .as_ref()
                .is_some_and(|(number, hash)| *number == row.number && row.hash.starts_with(hash.as_str()))
            {
                expected = None;
            }
        }
    }
    if let Some((number, _)) = expected {
        return Err(broken(&format!(
            "Row {number} is not the one that was noted, or rows at the end were cut off."
        )));
    }
    let (number, hash) = chain.head();
    if context.json {
        print_json(&json!({"rows": number, "hash": hash, "is_intact": true}));
    } else {
        say!("The audit log is intact: {number} rows. The last one: {number}:{hash}");
    }
    Ok(ExitCode::SUCCESS)
}

fn broken(problem: &str) -> anyhow::Error {
    let message = format!(
        "The audit log was tampered with, or its file is damaged. {problem} Keep a copy of the database before anything else writes to it."
    );
    fail(Exit::Failed, message)
}

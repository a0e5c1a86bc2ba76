//! `locks …`: who has which file, and taking, giving back and taking away.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use claudenest_shared::id::LockId;
use claudenest_shared::lock::{Lock, LockEnd, LockHolder, LockKind};
use claudenest_shared::wire::agent::{AgentMessage, Op, Reply};
use serde_json::json;

use super::args::value::duration;
use super::exit::{Exit, fail, wire};
use super::output::{age, moment, now, print_json, say, short_path, span, table};
use super::{Context, daemon};
use crate::control::{Client, Incoming};
use crate::guard::lock::second::Alert;

/// Commands on locks. LOCK is the id, the last digits of an id, or the path of a locked file.
#[derive(Subcommand, Debug)]
pub enum LocksCommand {
    /// List the locks that are held: who, why, until when.
    #[command(visible_alias = "ls")]
    List,
    /// Lock a file or directory for yourself, so that no session may change it.
    #[command(after_help = "\
Examples:
  claudenest-agent locks acquire src/schema.sql --reason 'editing by hand'
  claudenest-agent locks acquire migrations/ --lease 2h --wait 10m
The lock ends when it is released or its lease is over. Ends with 5 when somebody else has it.")]
    Acquire {
        /// File or directory; it need not exist yet.
        path: PathBuf,
        /// Lock a directory that does not exist yet, with everything below.
        #[arg(long)]
        directory: bool,
        /// How long it is held, 10 s to 24 h; 30 min without it. Acquire it again to renew it.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        lease: Option<Duration>,
        /// Why: shown to sessions that are refused.
        #[arg(long, short, value_name = "TEXT")]
        reason: Option<String>,
        /// Wait for it, at most an hour.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        wait: Option<Duration>,
    },
    /// Give back a lock of a person.
    Release {
        /// The lock.
        lock: String,
    },
    /// Take a lock away from the session or person that holds it.
    #[command(after_help = "\
The holder may be in the middle of a change: it is not stopped, its next write is refused if another has the lock then.
What was done is in the audit log.")]
    ForceRelease {
        /// The lock.
        lock: String,
        /// Why, for the audit log.
        #[arg(long, short, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Put back what a locked file had before it was changed by no tool of the session that holds it.
    #[command(
        after_help = "What is in the file now is kept beside it. Copies are kept of files up to 4 MiB, while they are locked."
    )]
    Restore {
        /// The lock.
        lock: String,
    },
    /// Print locks as they come and go, and changes by those who do not hold them. Ends with Ctrl-C.
    Watch,
}

pub(super) async fn run(context: &Context, command: LocksCommand) -> anyhow::Result<ExitCode> {
    match command {
        LocksCommand::List => list(context).await?,
        LocksCommand::Acquire { path, directory, lease, reason, wait } => {
            let path = std::path::absolute(&path)?;
            let kind = if directory || path.is_dir() { LockKind::Directory } else { LockKind::File };
            let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
            let op = Op::LockAcquire {
                path: path.to_string_lossy().into_owned(),
                kind,
                lease_s: lease.map(seconds),
                reason,
                by: None,
                wait_s: wait.map(seconds),
            };
            let mut client = daemon::connect_or_start(context).await?;
            let mut locks = locks(&mut client, op).await?;
            let lock =
                locks.pop().ok_or_else(|| fail(Exit::Failed, "The daemon answered without a lock."))?;
            if context.json {
                print_json(&lock);
            } else {
                say!("{} is locked for {} until {}.", lock.path, who(&lock.holder), until(&lock));
                say!("Give it back: claudenest-agent locks release {}", lock.id.short());
            }
        }
        LocksCommand::Release { lock } => end(context, &lock, false, None).await?,
        LocksCommand::ForceRelease { lock, reason } => end(context, &lock, true, reason).await?,
        LocksCommand::Restore { lock } => restore(context, &lock).await?,
        LocksCommand::Watch => watch(context).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn locks(client: &mut Client, op: Op) -> anyhow::Result<Vec<Lock>> {
    match client.request(op).await.map_err(daemon::refused)? {
        Reply::Locks { locks } => Ok(locks),
        _ => Err(fail(Exit::Failed, "The daemon gave an answer that is none to this.")),
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let mut client = daemon::connect(context).await?;
    let locks = locks(&mut client, Op::LockList {}).await?;
    if context.json {
        print_json(&json!({"locks": locks}));
        return Ok(());
    }
    if locks.is_empty() {
        say!("No locks. A session locks each file with its first write to it; lock one yourself:");
        say!("  claudenest-agent locks acquire PATH --reason TEXT");
        return Ok(());
    }
    let row = |lock: &Lock| {
        vec![
            lock.id.short(),
            path(lock),
            who(&lock.holder),
            age(lock.since),
            span(lock.expires_at.since(now())),
            lock.waiters.len().to_string(),
            lock.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = locks.iter().map(row).collect();
    let header = ["LOCK", "PATH", "HELD BY", "FOR", "ENDS IN", "WAIT", "REASON"];
    say!("{}", table(&header, &rows).trim_end());
    Ok(())
}

async fn end(context: &Context, target: &str, force: bool, reason: Option<String>) -> anyhow::Result<()> {
    let mut client = daemon::connect(context).await?;
    let all = locks(&mut client, Op::LockList {}).await?;
    let lock = pick(&all, target)?;
    let op = Op::LockRelease { lock: lock.id, force, reason, by: None };
    client.request(op).await.map_err(daemon::refused)?;
    if context.json {
        print_json(&json!({"lock": lock.id, "path": lock.path, "forced": force, "released": true}));
    } else if force {
        say!("{} was taken away from {}.", lock.path, who(&lock.holder));
    } else {
        say!("{} is free again.", lock.path);
    }
    Ok(())
}

/// The lock that `target` names: an id, its last digits, or a path.
fn pick<'a>(locks: &'a [Lock], target: &str) -> anyhow::Result<&'a Lock> {
    let digits: String = target.chars().filter(|c| *c != '-').collect::<String>().to_lowercase();
    let is_hex = digits.len() >= 4 && digits.chars().all(|c| c.is_ascii_hexdigit());
    let path = std::path::absolute(target).ok();
    let path = path.map(|path| path.canonicalize().unwrap_or(path));
    let fits = |lock: &&Lock| {
        (is_hex && lock.id.0.simple().to_string().ends_with(&digits))
            || path.as_ref().is_some_and(|path| path.as_os_str() == lock.path.as_str())
    };
    let found: Vec<&Lock> = locks.iter().filter(fits).collect();
    match found.as_slice() {
        [only] => Ok(only),
        [] => {
            Err(fail(Exit::NotFound, format!("There is no lock {target}. See: claudenest-agent locks list")))
        }
        several => {
            let ids: Vec<_> =
                several.iter().map(|lock| format!("{} ({})", lock.id.short(), lock.path)).collect();
            Err(fail(
                Exit::Usage,
                format!("{target} fits several locks: {}. Give more digits.", ids.join(", ")),
            ))
        }
    }
}

/// Prints what is held, then each change.
async fn watch(context: &Context) -> anyhow::Result<()> {
    let client = daemon::connect(context).await?;
    let (_sender, mut receiver) = client.subscribe_guard().await.map_err(daemon::refused)?;
    let mut known: BTreeMap<LockId, Lock> = BTreeMap::new();
    let mut seen: BTreeMap<LockId, Lock> = BTreeMap::new();
    let mut is_list = true;
    loop {
        let message = match receiver.next_or_alert().await.map_err(daemon::refused)? {
            Ok(Incoming::Message(message)) => *message,
            Ok(Incoming::Failed(error)) => return Err(wire(error)),
            Ok(Incoming::Frame(_)) => continue,
            Err(alert) => {
                broken(context, &alert);
                continue;
            }
        };
        match message {
            // A list begins with the approvals, also when it comes again after a lag.
            AgentMessage::ApprovalsSent {} => {
                is_list = true;
                seen.clear();
            }
            AgentMessage::Lock { lock } if is_list => {
                seen.insert(lock.id, *lock);
            }
            AgentMessage::LocksSent {} => {
                is_list = false;
                for (id, lock) in &known {
                    if !seen.contains_key(id) {
                        ended(context, lock, None);
                    }
                }
                for (id, lock) in &seen {
                    changed(context, known.get(id), lock);
                }
                known = std::mem::take(&mut seen);
            }
            AgentMessage::Lock { lock } => {
                changed(context, known.get(&lock.id), &lock);
                known.insert(lock.id, *lock);
            }
            AgentMessage::LockEnded { lock, end } => {
                if let Some(lock) = known.remove(&lock) {
                    ended(context, &lock, Some(end));
                }
            }
            _ => {}
        }
    }
}

async fn restore(context: &Context, target: &str) -> anyhow::Result<()> {
    let mut client = daemon::connect(context).await?;
    let all = locks(&mut client, Op::LockList {}).await?;
    let lock = pick(&all, target)?;
    let (path, aside) = client.restore(lock.id).await.map_err(daemon::refused)?;
    if context.json {
        print_json(&json!({"lock": lock.id, "path": path, "other": aside}));
    } else {
        say!("{path} is as {} had it.", who(&lock.holder));
        if let Some(aside) = aside {
            say!("What was there is in {aside}");
        }
    }
    Ok(())
}

fn broken(context: &Context, alert: &Alert) {
    if context.json {
        return print_json(&json!({"event": "lock_broken", "alert": alert}));
    }
    let (lock, what) = (&alert.lock, if alert.is_there { "CHANGED" } else { "REMOVED" });
    let suspects = match alert.suspects.as_slice() {
        [] => "no session used a tool".to_owned(),
        some => format!("tools were used by {}", some.join(", ")),
    };
    say!(
        "{}  {}  {}  {what} while {} used no tool ({suspects})",
        moment(alert.at),
        lock.id.short(),
        path(lock),
        who(&lock.holder)
    );
    if alert.has_copy {
        say!("  Put back what it had: claudenest-agent locks restore {}", lock.id.short());
    }
}

fn changed(context: &Context, before: Option<&Lock>, lock: &Lock) {
    if before == Some(lock) {
        return;
    }
    if context.json {
        return print_json(&json!({"event": "lock", "lock": lock}));
    }
    let what = match before {
        None => "locked by",
        Some(before) if before.waiters.len() < lock.waiters.len() => "waited for; held by",
        Some(_) => "renewed by",
    };
    let reason = lock.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let since = moment(if before.is_none() { lock.since } else { now() });
    say!(
        "{since}  {}  {}  {what} {}{reason}, until {}",
        lock.id.short(),
        path(lock),
        who(&lock.holder),
        until(lock)
    );
}

fn ended(context: &Context, lock: &Lock, end: Option<LockEnd>) {
    if context.json {
        return print_json(&json!({"event": "lock_ended", "lock": lock, "end": end}));
    }
    let why = match end {
        Some(LockEnd::Released) => "given back by",
        Some(LockEnd::SessionEnded) => "free: end of",
        Some(LockEnd::Expired) => "free: no activity of",
        Some(LockEnd::Forced) => "taken away from",
        None => "no longer held by",
    };
    say!("{}  {}  {}  {why} {}", moment(now()), lock.id.short(), path(lock), who(&lock.holder));
}

fn path(lock: &Lock) -> String {
    let short = lock.path.strip_prefix(&lock.project).map(|rest| rest.trim_start_matches('/'));
    let short = match short {
        Some(rest) if !rest.is_empty() => format!("{}: {rest}", short_path(&lock.project)),
        _ => short_path(&lock.path),
    };
    if lock.kind == LockKind::Directory { format!("{short}/") } else { short }
}

fn who(holder: &LockHolder) -> String {
    match holder {
        LockHolder::Session { name, .. } => name.clone(),
        LockHolder::Person { label } => label.clone(),
    }
}

fn until(lock: &Lock) -> String {
    format!("{} (in {})", moment(lock.expires_at), span(lock.expires_at.since(now())))
}

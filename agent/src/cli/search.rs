//! `session search`.

use std::process::ExitCode;

use claudenest_shared::time::UnixMs;
use serde_json::json;

use super::args::SearchArgs;
use super::exit::{Exit, fail};
use super::output::{moment, print_json, say};
use super::replay::position_text;
use super::session::pick;
use super::{Context, recorded};
use crate::history::{runs, search};

pub(super) async fn run(context: &Context, args: SearchArgs) -> anyhow::Result<ExitCode> {
    let (target, text) = match (args.all, args.words.as_slice()) {
        (true, [pattern]) => (None, pattern),
        (false, [target, pattern]) => (Some(target), pattern),
        (true, _) => {
            return Err(fail(Exit::Usage, "With --all no session is named: give the pattern alone."));
        }
        (false, _) => {
            let message = "Name a session and a pattern, or search all sessions with --all PATTERN.";
            return Err(fail(Exit::Usage, message));
        }
    };
    if text.is_empty() {
        return Err(fail(Exit::Usage, "The pattern is empty: say what to look for."));
    }
    let pattern = search::pattern(text, args.regex)
        .map_err(|problem| fail(Exit::Usage, format!("The pattern is not understood: {problem}")))?;
    let all = recorded::sessions(context).await?;
    let wanted = match target {
        Some(target) => vec![pick(&all, target)?],
        None => all.iter().collect(),
    };
    let mut left = args.limit as usize;
    let mut matches = Vec::new();
    let mut is_cut = false;
    for info in &wanted {
        for run in runs::of(&context.paths.sessions_dir(), info.id) {
            if left == 0 {
                is_cut = true;
                break;
            }
            let (found, is_more) = search::run(&run.dir, &pattern, usize::from(args.context), left)?;
            is_cut |= is_more;
            left -= found.len();
            for one in found {
                if context.json {
                    matches.push(json!({
                        "session": info.id, "name": info.name, "run": run.epoch, "offset": one.line.offset,
                        "at_ms": one.line.at_us / 1000, "time": one.wall_us / 1000, "line": one.line.text,
                        "before": one.before, "after": one.after,
                    }));
                    continue;
                }
                let time = moment(UnixMs(i64::try_from(one.wall_us / 1000).unwrap_or(i64::MAX)));
                let at = position_text(one.line.at_us);
                one.before.iter().for_each(|line| say!("    {line}"));
                say!("{} #{} {time} ({at})  {}", info.name, run.epoch, one.line.text);
                one.after.iter().for_each(|line| say!("    {line}"));
                if args.context > 0 {
                    say!("");
                }
            }
        }
    }
    let is_found = left < args.limit as usize;
    if context.json {
        print_json(&json!({"matches": matches, "is_cut": is_cut}));
    } else if !is_found {
        eprintln!("Nothing found in the recordings of {}.", target.map_or("all sessions", String::as_str));
    } else if is_cut {
        eprintln!("There may be more; see them with a larger --limit.");
    }
    Ok(if is_found { ExitCode::SUCCESS } else { ExitCode::from(Exit::NotFound as u8) })
}

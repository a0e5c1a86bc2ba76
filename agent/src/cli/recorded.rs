//! Finds recorded sessions: from the daemon, or from the disk when none runs.

use claudenest_shared::session::SessionInfo;

use super::exit::{Exit, fail};
use super::session::pick;
use super::{Context, daemon};
use crate::control::{Client, ClientError, Identity};
use crate::history::runs::{self, Run};
use crate::store::Store;

/// Every session that this machine knows.
pub(super) async fn sessions(context: &Context) -> anyhow::Result<Vec<SessionInfo>> {
    match Client::connect(&context.paths.control_socket(), &Identity::from_env()).await {
        Ok(mut client) => client.sessions().await.map_err(daemon::refused),
        Err(ClientError::NotRunning) => {
            let records = Store::peek(&context.paths.data_dir).await?;
            Ok(records.into_iter().map(|record| record.info).collect())
        }
        Err(error) => Err(daemon::refused(error)),
    }
}

/// The session that `target` names, with a run of it: number `wanted`, or the last that was recorded.
pub(super) async fn run(
    context: &Context,
    target: &str,
    wanted: Option<u32>,
) -> anyhow::Result<(SessionInfo, Run)> {
    let sessions = sessions(context).await?;
    let info = pick(&sessions, target)?.clone();
    let mut runs = runs::of(&context.paths.sessions_dir(), info.id);
    let known: Vec<String> = runs.iter().map(|run| run.epoch.to_string()).collect();
    let found = match wanted {
        Some(wanted) => runs.into_iter().find(|run| run.epoch == wanted),
        None => runs.pop(),
    };
    let run = found.ok_or_else(|| {
        let message = match (known.is_empty(), wanted) {
            (false, Some(wanted)) => format!(
                "{} has no recording of run {wanted}. Recorded runs: {}.",
                info.name,
                known.join(", ")
            ),
            _ if !context.effective.config.recording => format!(
                "{} has no recording, and `recording` is false in the configuration. Set it to true for new sessions.",
                info.name
            ),
            _ => format!(
                "{} has no recording: it printed nothing, or its recording was dropped at `recording_total_bytes`.",
                info.name
            ),
        };
        fail(Exit::NotFound, message)
    })?;
    Ok((info, run))
}

//! The daemon's part in recordings: the cap on all of them together, and saying loudly when one stops.
//!
//! The holder of a run writes, keeps the cap of one session, and goes on when a full disk has room again; a session runs
//! whatever becomes of its recording. What has ended longest ago goes first, what runs is never touched.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use claudenest_shared::id::SessionId;
use claudenest_shared::session::SessionInfo;
use tokio_util::sync::CancellationToken;

use crate::supervisor::Supervisor;

/// How often the disk is looked at: a session writes tens of megabytes in this time at most.
const INTERVAL: Duration = Duration::from_secs(60);
/// How often it is looked whether recordings follow. Two looks with the same bytes missing are a stop: a holder writes
/// within 50 ms, and tries a full disk again every second.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// What a session's description says while its output is not recorded.
pub const PROBLEM: &str = "Output is not being recorded: the disk is full or cannot be written. The session goes on; \
    what comes now will be missing in replays. Recording goes on by itself when there is room.";

/// Watches whether the recordings of live sessions follow their output, until `cancel`.
///
/// # Cancel safety
/// Cancel safe.
pub async fn watch(supervisor: Supervisor, sessions_dir: PathBuf, cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut followed: HashMap<SessionId, Followed> = HashMap::new();
    while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
        let mut before = std::mem::take(&mut followed);
        for info in supervisor.sessions().iter().filter(|info| info.state.is_live()) {
            let Some(handle) = supervisor.session(info.id).filter(|handle| handle.is_recorded()) else {
                continue;
            };
            let last = before.remove(&info.id).filter(|last| last.epoch == info.epoch).unwrap_or_default();
            let head = info.output_bytes;
            if last.recorded >= head && last.epoch == info.epoch {
                followed.insert(info.id, last);
                continue;
            }
            let dir = run_dir(&sessions_dir, info.id, info.epoch);
            let looked = tokio::task::spawn_blocking(move || {
                crate::holder::Recording::of(&dir)
                    .segments()
                    .unwrap_or_default()
                    .last()
                    .map_or(0, |last| last.1)
            });
            let recorded = looked.await.unwrap_or_default();
            let is_stuck = recorded < head
                && last.epoch == info.epoch
                && last.recorded == recorded
                && last.head > recorded;
            if handle.note_recording(is_stuck) {
                let (missing_bytes, id) = (head.saturating_sub(recorded), info.id);
                if is_stuck {
                    tracing::error!(session.id = %id, missing_bytes, "output is not being recorded: the disk is full or cannot be written");
                } else {
                    tracing::info!(session.id = %id, "output is recorded again");
                }
            }
            followed.insert(info.id, Followed { epoch: info.epoch, recorded, head });
        }
    }
}

/// How far a recording was at the last look.
#[derive(Clone, Copy, Default)]
struct Followed {
    epoch: u32,
    recorded: u64,
    head: u64,
}

/// Directory of a run.
pub fn run_dir(sessions_dir: &Path, session: SessionId, epoch: u32) -> PathBuf {
    sessions_dir.join(session.to_string()).join(epoch.to_string())
}

/// Keeps all recordings below `total_bytes` until `cancel`.
///
/// # Cancel safety
/// Cancel safe.
pub async fn keep(
    supervisor: Supervisor,
    sessions_dir: PathBuf,
    total_bytes: u64,
    cancel: CancellationToken,
) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
        let (sessions, dir) = (supervisor.sessions(), sessions_dir.clone());
        let trimmed = tokio::task::spawn_blocking(move || trim(&dir, &sessions, total_bytes)).await;
        if let Ok(freed @ 1..) = trimmed {
            tracing::info!(freed_bytes = freed, "old recordings were removed (recording_total_bytes)");
        }
    }
}

/// One recording of one run.
struct Recording {
    dir: PathBuf,
    bytes: u64,
    /// Order of removal; absent for what is being written.
    ended_at: Option<(i64, u64)>,
}

/// Removes the oldest recordings of ended runs until the rest fits. Returns the bytes freed.
fn trim(sessions_dir: &Path, sessions: &[SessionInfo], total_bytes: u64) -> u64 {
    let known: HashMap<String, &SessionInfo> =
        sessions.iter().map(|session| (session.id.to_string(), session)).collect();
    let mut recordings = Vec::new();
    for session_dir in entries(sessions_dir) {
        // A directory without a session is being made or removed.
        let Some(info) = name(&session_dir).and_then(|name| known.get(&name)) else { continue };
        for run in entries(&session_dir) {
            let Some(epoch) = name(&run).and_then(|name| name.parse::<u64>().ok()) else { continue };
            let dir = run.join("recording");
            let bytes =
                entries(&dir).iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum();
            // What is neither live nor ended may be started any moment.
            let is_over = info.state.is_final() || epoch < u64::from(info.epoch);
            let ended_at = is_over.then(|| (info.ended_at.unwrap_or(info.state_since).0, epoch));
            recordings.push(Recording { dir, bytes, ended_at });
        }
    }
    let mut total: u64 = recordings.iter().map(|recording| recording.bytes).sum();
    recordings.retain(|recording| recording.ended_at.is_some() && recording.bytes > 0);
    recordings.sort_by_key(|recording| recording.ended_at);
    let before = total;
    for recording in recordings {
        if total <= total_bytes {
            break;
        }
        match fs::remove_dir_all(&recording.dir) {
            Ok(()) => total -= recording.bytes,
            Err(error) => tracing::warn!(%error, "an old recording could not be removed"),
        }
    }
    before - total
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name(path: &Path) -> Option<String> {
    path.file_name()?.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudenest_shared::session::TermSize;
    use serde_json::json;

    fn session(byte: u8, state: &str, ended_at: i64, epoch: u32) -> SessionInfo {
        serde_json::from_value(json!({
            "id": SessionId::from_bytes([byte; 16]), "name": "x", "mode": "shell", "cwd": "/", "state": state,
            "state_since": 0, "created_at": 0, "ended_at": ended_at, "size": TermSize::default(), "epoch": epoch,
            "output_bytes": 0,
        }))
        .unwrap()
    }

    fn record(dir: &Path, session: &SessionInfo, epoch: u32, bytes: usize) -> PathBuf {
        let recording = dir.join(session.id.to_string()).join(epoch.to_string()).join("recording");
        fs::create_dir_all(&recording).unwrap();
        fs::write(recording.join("0.raw"), vec![0; bytes]).unwrap();
        recording
    }

    #[test]
    fn what_ended_longest_ago_goes_first_and_what_runs_stays() {
        let dir = tempfile::tempdir().unwrap();
        let old = session(1, "completed", 10, 1);
        let new = session(2, "failed", 20, 1);
        let running = session(3, "running", 0, 2);
        let (a, b) = (record(dir.path(), &old, 1, 100), record(dir.path(), &new, 1, 100));
        let (c, d) = (record(dir.path(), &running, 1, 100), record(dir.path(), &running, 2, 100));
        let stranger = record(dir.path(), &session(4, "completed", 1, 1), 1, 1000);
        let sessions = [running, new, old];
        assert_eq!(trim(dir.path(), &sessions, 400), 0);
        assert_eq!(trim(dir.path(), &sessions, 250), 200);
        assert!(!a.exists() && b.exists() && !c.exists() && d.exists() && stranger.exists());
        assert_eq!(trim(dir.path(), &sessions, 0), 100);
        assert!(!b.exists() && d.exists(), "what runs is never touched");
    }
}

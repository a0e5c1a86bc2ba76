//! Which runs of a session are on disk. A run is a directory named by its epoch in the session's directory.

use std::path::{Path, PathBuf};

use claudenest_shared::id::SessionId;

use crate::holder::Recording;

/// A run that has a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Its number, from 1.
    pub epoch: u32,
    /// Its directory.
    pub dir: PathBuf,
}

/// The runs of a session with something recorded, oldest first.
pub fn of(sessions_dir: &Path, session: SessionId) -> Vec<Run> {
    let entries = std::fs::read_dir(sessions_dir.join(session.to_string())).into_iter().flatten().flatten();
    let mut runs: Vec<Run> = entries
        .filter_map(|entry| {
            let epoch = entry.file_name().to_str()?.parse().ok()?;
            let dir = entry.path();
            let is_recorded = Recording::of(&dir).segments().is_ok_and(|segments| !segments.is_empty());
            is_recorded.then_some(Run { epoch, dir })
        })
        .collect();
    runs.sort_by_key(|run| run.epoch);
    runs
}

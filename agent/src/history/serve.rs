//! Answers about recordings to pages: what there is, parts of it, and search.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use claudenest_shared::history::{
    HistoryChunk, HistoryGap, HistoryMatch, HistoryPoint, HistoryResize, HistoryRun, HistorySource,
    MAX_MARKS, MAX_POINTS, SessionHistory,
};
use claudenest_shared::id::SessionId;
use claudenest_shared::session::SessionInfo;
use claudenest_shared::time::UnixMs;

use super::chunk::Chunker;
use super::core::{EventKind, Timeline};
use super::reader::Reader;
use super::{runs, search};

/// Readers that stay open for the next question: pages ask for one chunk after the other.
const OPEN_READERS: usize = 4;
/// Pauses of this length keep both their ends in a thinned time line.
const PAUSE_MS: u64 = 1_000;
/// Runs that are listed of a session: as many as the agent keeps.
const MAX_RUNS: usize = 3;
/// A search ends after this time; a page waits no longer.
const SEARCH_TIME: Duration = Duration::from_secs(8);
/// Longest line in an answer: a match is read in a list.
const MAX_LINE_CHARS: usize = 300;

struct Open {
    session: SessionId,
    epoch: u32,
    chunker: Chunker,
}

/// Answers questions about recordings. Every method blocks: call it on a thread that may.
#[derive(Default)]
pub struct Shelf {
    open: Mutex<VecDeque<Open>>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl Shelf {
    /// What is recorded of a session.
    ///
    /// # Errors
    /// If a recording cannot be read.
    pub fn list(&self, sessions_dir: &Path, session: SessionId) -> io::Result<SessionHistory> {
        let mut found = runs::of(sessions_dir, session);
        found.drain(..found.len().saturating_sub(MAX_RUNS));
        let runs: io::Result<Vec<HistoryRun>> = found
            .into_iter()
            .map(|run| Ok(describe(run.epoch, Reader::open(&run.dir, false)?.timeline())))
            .collect();
        let runs = runs?;
        let source = if runs.is_empty() { HistorySource::None } else { HistorySource::Machine };
        Ok(SessionHistory { source, runs })
    }

    /// The part of a run at `offset`, or the first one behind it.
    ///
    /// # Errors
    /// If the recording cannot be read.
    pub fn read(
        &self,
        sessions_dir: &Path,
        session: SessionId,
        epoch: u32,
        offset: u64,
        with_screen: bool,
    ) -> io::Result<Option<HistoryChunk>> {
        let dir = crate::recordings::run_dir(sessions_dir, session, epoch);
        let mut chunker = match self.take(session, epoch) {
            Some(mut chunker) => {
                chunker.refresh()?;
                if chunker.position() != offset || with_screen {
                    chunker.seek(offset)?;
                }
                chunker
            }
            None => Chunker::open(&dir, offset, false)?,
        };
        let chunk = chunker.next(with_screen)?;
        let (position, end) = (chunker.position(), chunker.timeline().end);
        self.put(Open { session, epoch, chunker });
        Ok(chunk.map(|chunk| chunk.answer(epoch, (position < end).then_some(position))))
    }

    fn take(&self, session: SessionId, epoch: u32) -> Option<Chunker> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|open| open.session == session && open.epoch == epoch)?;
        open.remove(at).map(|open| open.chunker)
    }

    fn put(&self, one: Open) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_front(one);
        open.truncate(OPEN_READERS);
    }

    /// Searches sessions in their order. True if there may be more.
    ///
    /// # Errors
    /// A sentence, if the text cannot be looked for, or a recording not be read.
    pub fn search(
        &self,
        sessions_dir: &Path,
        sessions: &[SessionInfo],
        text: &str,
        limit: usize,
    ) -> Result<(Vec<HistoryMatch>, bool), String> {
        let pattern = search::pattern(text, false)?;
        let (mut matches, deadline) = (Vec::new(), Instant::now() + SEARCH_TIME);
        for info in sessions {
            for run in runs::of(sessions_dir, info.id).into_iter().rev() {
                let left = limit.saturating_sub(matches.len());
                if left == 0 || Instant::now() >= deadline {
                    return Ok((matches, true));
                }
                let found = search::run_until(&run.dir, &pattern, 1, left, deadline);
                let (found, is_cut) = found
                    .map_err(|error| format!("The recording of {} cannot be read: {error}.", info.name))?;
                matches.extend(found.into_iter().map(|one| HistoryMatch {
                    session_id: info.id,
                    machine_id: None,
                    name: info.name.clone(),
                    epoch: run.epoch,
                    offset: one.line.offset,
                    at_ms: one.line.at_us / 1000,
                    time: UnixMs(i64::try_from(one.wall_us / 1000).unwrap_or(i64::MAX)),
                    line: short(&one.line.text),
                    before: one.before.last().map(|line| short(line)),
                    after: one.after.first().map(|line| short(line)),
                }));
                if is_cut {
                    return Ok((matches, true));
                }
            }
        }
        Ok((matches, false))
    }
}

fn short(line: &str) -> String {
    line.chars().take(MAX_LINE_CHARS).collect()
}

/// A run's time line for a slider.
fn describe(epoch: u32, line: &Timeline) -> HistoryRun {
    let mut points: Vec<HistoryPoint> = Vec::new();
    let mut resizes = Vec::new();
    for event in &line.events {
        let at_ms = event.at_us / 1000;
        match event.kind {
            EventKind::Output { .. } if points.last().is_none_or(|last| last.at_ms < at_ms) => {
                points.push(HistoryPoint { offset: event.offset, at_ms });
            }
            EventKind::Resize(size) => resizes.push(HistoryResize { offset: event.offset, at_ms, size }),
            EventKind::Output { .. } | EventKind::Gap { .. } => {}
        }
    }
    resizes.truncate(MAX_MARKS);
    HistoryRun {
        epoch,
        end: line.end,
        bytes: line.recorded_bytes(),
        started_at: UnixMs(i64::try_from(line.started_us / 1000).unwrap_or(i64::MAX)),
        duration_ms: line.duration_us / 1000,
        size: line.size,
        points: thin(points),
        resizes,
        gaps: line
            .gaps()
            .take(MAX_MARKS)
            .map(|(from, to, at_us)| HistoryGap { from, to, at_ms: at_us / 1000 })
            .collect(),
    }
}

/// At most [`MAX_POINTS`]: the longest pauses keep both their ends, the rest is thinned evenly.
fn thin(points: Vec<HistoryPoint>) -> Vec<HistoryPoint> {
    if points.len() <= MAX_POINTS {
        return points;
    }
    let mut pauses: Vec<(u64, usize)> = points
        .windows(2)
        .enumerate()
        .map(|(at, pair)| (pair[1].at_ms - pair[0].at_ms, at))
        .filter(|(length, _)| *length >= PAUSE_MS)
        .collect();
    pauses.sort_unstable_by(|one, other| other.cmp(one));
    pauses.truncate(MAX_POINTS / 4);
    let mut is_kept = vec![false; points.len()];
    for (_, at) in pauses {
        (is_kept[at], is_kept[at + 1]) = (true, true);
    }
    let step = points.len().div_ceil(MAX_POINTS / 2);
    (0..points.len()).step_by(step).for_each(|at| is_kept[at] = true);
    points.into_iter().zip(is_kept).filter_map(|(point, is_kept)| is_kept.then_some(point)).collect()
}

/// Where recordings are, and who answers about them.
#[derive(Debug)]
pub struct Library {
    /// Directory of all sessions.
    pub sessions_dir: PathBuf,
    /// The readers.
    pub shelf: Shelf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_time_line_keeps_its_pauses() {
        let mut points: Vec<HistoryPoint> =
            (0..50_000u64).map(|at| HistoryPoint { offset: at, at_ms: at * 20 }).collect();
        for point in &mut points[20_001..] {
            point.at_ms += 60_000;
        }
        let thinned = thin(points.clone());
        assert!(thinned.len() <= MAX_POINTS, "{}", thinned.len());
        assert!(thinned.contains(&points[20_000]) && thinned.contains(&points[20_001]));
        assert_eq!(thinned[0], points[0]);
    }
}

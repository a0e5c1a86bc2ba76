//! The shell around a [`Viewer`]: waits for changes, makes snapshots, reads the disk.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use claudenest_shared::wire::frame::Frame;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::core::Core;
use super::sanitise::Sanitiser;
use super::shared::Shared;
use super::viewer::{Step, Viewer};
use crate::holder::Recording;

/// One read from disk; a few output frames.
const DISK_BYTES: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    granted: u64,
    snapshots: u64,
}

/// Output of a session at its own pace.
pub struct OutputStream {
    shared: Arc<Shared>,
    viewer: Viewer,
    changed: watch::Receiver<u64>,
    wishes: watch::Receiver<Wishes>,
    control: StreamControl,
    snapshots_seen: u64,
    reading: Option<(u64, JoinHandle<Option<DiskRead>>)>,
    /// Where the last read ended.
    read_on: Option<Position>,
}

impl std::fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputStream").field("position", &self.viewer.position()).finish_non_exhaustive()
    }
}

struct DiskRead {
    bytes: Bytes,
    end: Position,
}

/// Where a read of the recording ended.
#[derive(Clone)]
struct Position {
    /// Offset of the next filtered byte.
    clean: u64,
    /// Offset of the next raw byte.
    raw: u64,
    sanitiser: Sanitiser,
}

enum Start {
    Further(Position),
    Checkpoint(Option<u64>),
}

/// Steers an [`OutputStream`] from elsewhere.
#[derive(Clone, Debug)]
pub struct StreamControl {
    wishes: Arc<watch::Sender<Wishes>>,
}

impl StreamControl {
    /// Allows `total` payload bytes since the stream was opened. Less than before is ignored.
    pub fn grant(&self, total: u64) {
        self.wishes.send_if_modified(|wishes| {
            let is_more = total > wishes.granted;
            wishes.granted = wishes.granted.max(total);
            is_more
        });
    }

    /// Wants a snapshot at the stream's position, without a gap.
    pub fn request_snapshot(&self) {
        self.wishes.send_modify(|wishes| wishes.snapshots += 1);
    }
}

impl OutputStream {
    pub(super) fn new(shared: Arc<Shared>, viewer: Viewer) -> Self {
        let (sender, wishes) = watch::channel(Wishes::default());
        let changed = shared.subscribe();
        Self {
            shared,
            viewer,
            changed,
            wishes,
            control: StreamControl { wishes: Arc::new(sender) },
            snapshots_seen: 0,
            reading: None,
            read_on: None,
        }
    }

    /// The handle that grants credit and asks for snapshots.
    pub fn control(&self) -> StreamControl {
        self.control.clone()
    }

    /// The next frame, with channel 0; `None` after the exit frame or when the session was closed.
    ///
    /// # Cancel safety
    /// Cancel safe: a frame is either returned or still to come.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            // Marked as seen before the state is looked at, so that no change is missed.
            self.changed.borrow_and_update();
            let wishes = *self.wishes.borrow_and_update();
            self.viewer.grant(wishes.granted);
            if wishes.snapshots > self.snapshots_seen {
                self.snapshots_seen = wishes.snapshots;
                self.viewer.want_snapshot();
            }
            let step = self.viewer.poll(&self.shared.lock(), Instant::now());
            match step {
                Step::Frame(frame) => return Some(frame),
                Step::End => return None,
                Step::Snapshot => {
                    self.viewer.snapshot(self.shared.snapshot());
                }
                Step::Disk(from) => self.read(from).await,
                Step::Until(deadline) => {
                    tokio::select! {
                        _ = self.changed.changed() => {}
                        _ = self.wishes.changed() => {}
                        () = tokio::time::sleep_until(deadline.into()) => {}
                    }
                }
                Step::Wait => {
                    tokio::select! {
                        _ = self.changed.changed() => {}
                        _ = self.wishes.changed() => {}
                    }
                }
            }
        }
    }

    /// Reads older output; a cancelled read is taken up again.
    async fn read(&mut self, from: u64) {
        if self.reading.as_ref().is_none_or(|(started, _)| *started != from) {
            let further = self.read_on.take().filter(|position| position.clean == from);
            let start = match further {
                Some(position) => Start::Further(position),
                None => Start::Checkpoint(self.shared.lock().checkpoint(from)),
            };
            let until = self.shared.lock().ring.tail();
            let recording = Recording::of(&self.shared.config.dir);
            let task = tokio::task::spawn_blocking(move || read_clean(&recording, start, from, until));
            self.reading = Some((from, task));
        }
        let Some((_, task)) = &mut self.reading else { return };
        let result = task.await.ok().flatten();
        self.reading = None;
        self.read_on = result.as_ref().map(|read| read.end.clone());
        self.viewer.disk(from, result.map(|read| read.bytes));
    }
}

impl Drop for OutputStream {
    fn drop(&mut self) {
        self.shared.viewer_left();
    }
}

/// Reads raw output and filters it as it was filtered when it was new: from a place at or below `from` where the
/// filter was as new, or from where the last read ended.
fn read_clean(recording: &Recording, start: Start, from: u64, until: u64) -> Option<DiskRead> {
    let (mut position, mut sanitiser) = match start {
        Start::Further(position) => (position.raw, position.sanitiser),
        Start::Checkpoint(known) => {
            let oldest = contiguous_start(&recording.segments().ok()?, from);
            // Where nothing is known, the oldest contiguous byte is the best beginning there is.
            (known.unwrap_or(oldest).max(oldest), Sanitiser::default())
        }
    };
    let mut out = Vec::new();
    let mut events = Vec::new();
    let mut out_from = position - sanitiser.pending_len() as u64;
    let until = until.max(from + 1);
    loop {
        let end = out_from + out.len() as u64;
        if end > from && (end >= until || end - from >= DISK_BYTES as u64) {
            break;
        }
        let raw = match recording.read(position, DISK_BYTES) {
            Ok(Some(raw)) => raw,
            Ok(None) | Err(_) if end > from => break,
            Ok(None) | Err(_) => return None,
        };
        position += raw.len() as u64;
        sanitiser.push(&raw, &mut out, &mut events);
        events.clear();
        // What comes before the place wanted is of no use.
        let useless = usize::try_from(from.saturating_sub(out_from)).unwrap_or(usize::MAX).min(out.len());
        out.drain(..useless);
        out_from += useless as u64;
    }
    let end = Position { clean: out_from + out.len() as u64, raw: position, sanitiser };
    Some(DiskRead { bytes: Bytes::from(out), end })
}

/// The oldest offset from which the recording reaches `offset` without a gap.
fn contiguous_start(segments: &[(u64, u64)], offset: u64) -> u64 {
    let mut start = offset;
    for (from, to) in segments.iter().rev() {
        if *from <= start && start <= *to {
            start = *from;
        }
    }
    start
}

/// Fills `core` with what is on disk of a run that is over: the newest bytes that fit into its ring.
pub(super) fn fill_from_disk(core: &mut Core, recording: &Recording, until: u64) {
    while core.raw_head() < until {
        match recording.read(core.raw_head(), DISK_BYTES) {
            Ok(Some(bytes)) => drop(core.output(core.raw_head(), &bytes)),
            Ok(None) | Err(_) => return,
        }
    }
}

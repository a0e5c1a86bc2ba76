//! A machine: runs of a child, each with its bytes, sizes and core, and the streams that a relay has opened.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use claudenest_shared::id::SessionId;
use claudenest_shared::session::{Exit, TermSize};
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::frame::Frame;
use claudenest_shared::wire::holder::HolderExit;

use super::core::Core;
use super::sanitise::Sanitiser;
use super::screen::{Model, ScreenModel};
use super::viewer::{Snapshot, Step, Viewer};

/// One read from disk, as in the program.
const DISK_BYTES: usize = 256 * 1024;

/// One process of the session.
pub struct Run {
    epoch: u32,
    core: Core,
    /// What the child wrote.
    raw: Vec<u8>,
    /// What viewers must see: the whole of it through a filter of its own.
    pub clean: Vec<u8>,
    filter: Sanitiser,
    /// Places at which the filter held nothing back.
    grounds: Vec<usize>,
    pub sizes: Vec<(u64, TermSize)>,
    follower: Follower,
    pub has_ended: bool,
}

/// The daemon's screen.
struct Follower {
    model: Model,
    offset: u64,
    next_resize: u64,
}

impl Follower {
    fn at(core: &Core, offset: u64) -> Self {
        Self {
            model: Model::new(core.size_at(offset)),
            offset,
            next_resize: core.resize_number_after(offset),
        }
    }

    fn catch_up(&mut self, core: &Core) {
        loop {
            let mut until = core.head();
            if let Some((number, offset, size)) = core.resize_number(self.next_resize) {
                if offset <= self.offset {
                    self.next_resize = number + 1;
                    self.model.resize(size);
                    continue;
                }
                until = until.min(offset);
            }
            let bytes = core.ring.slice(self.offset, (until - self.offset) as usize);
            if bytes.is_empty() {
                return;
            }
            self.model.process(&bytes);
            self.offset += bytes.len() as u64;
        }
    }
}

const FIRST_SIZE: TermSize = TermSize { cols: 40, rows: 12 };

impl Run {
    fn new(epoch: u32) -> Self {
        let core = Core::new(epoch, 0, FIRST_SIZE, FIRST_SIZE, 0);
        let follower = Follower::at(&core, 0);
        Self {
            epoch,
            core,
            raw: Vec::new(),
            clean: Vec::new(),
            filter: Sanitiser::default(),
            grounds: vec![0],
            sizes: vec![(0, FIRST_SIZE)],
            follower,
            has_ended: false,
        }
    }

    fn print(&mut self, raw: &[u8]) {
        let at = self.raw.len() as u64;
        self.raw.extend_from_slice(raw);
        self.filter.push(raw, &mut self.clean, &mut Vec::new());
        if self.filter.is_ground() {
            self.grounds.push(self.clean.len());
        }
        self.core.output(at, raw);
    }

    /// The child has ended, and its last unfinished sequence with it.
    fn end(&mut self, now: Instant) {
        if !self.has_ended {
            self.has_ended = true;
            self.filter.flush(&mut self.clean);
            let exit = HolderExit { offset: 0, exit: Exit::Code { code: 7 }, at: UnixMs(0) };
            self.core.end(exit, now);
        }
    }

    /// A new daemon reads what the holder still has, from a place where nothing was cut.
    fn restart_daemon(&mut self, back: usize, now: Instant) {
        let from = self.raw.len().saturating_sub(back);
        let behind = self.grounds.partition_point(|at| *at <= from);
        let start = self.grounds[behind - 1] as u64;
        // Sizes from before the holder's memory are in the index of the recording.
        let mut core = Core::new(self.epoch, start, FIRST_SIZE, FIRST_SIZE, self.raw.len() as u64);
        core.output(start, &self.raw[start as usize..]);
        for (offset, size) in &self.sizes {
            core.resized(*offset, *size);
        }
        // Its screen comes from the one on disk; what follows is the same.
        let mut model = Model::new(FIRST_SIZE);
        self.screen_at(start, &mut model);
        self.follower = Follower { model, offset: start, next_resize: core.resize_number_after(start) };
        self.core = core;
        if std::mem::take(&mut self.has_ended) {
            self.core.end(HolderExit { offset: 0, exit: Exit::Code { code: 7 }, at: UnixMs(0) }, now);
            self.has_ended = true;
        }
    }

    /// Feeds everything below `until`, sizes at their places.
    pub fn screen_at(&self, until: u64, model: &mut Model) {
        let mut at = 0;
        for (offset, size) in self.sizes.iter().filter(|(offset, _)| *offset <= until) {
            model.process(&self.clean[at..*offset as usize]);
            model.resize(*size);
            at = *offset as usize;
        }
        model.process(&self.clean[at..until as usize]);
    }
}

/// A stream that a relay has opened; it ends with its run.
struct Stream {
    viewer: Viewer,
    run: usize,
    /// More output comes while its snapshot is made.
    is_slow: bool,
}

/// See the module. `K` names a stream.
pub struct Machine<K> {
    session: SessionId,
    pub runs: Vec<Run>,
    streams: BTreeMap<K, Stream>,
    now: Instant,
    /// Bytes that the disk keeps behind the memory.
    pub disk: u64,
}

impl<K: Ord + Copy> Machine<K> {
    /// Before the first byte. `now` is any time; it moves with [`Self::pass`].
    pub fn new(session: SessionId, now: Instant, disk: u64) -> Self {
        Self { session, runs: vec![Run::new(0)], streams: BTreeMap::new(), now, disk }
    }

    fn last(&mut self) -> &mut Run {
        self.runs.last_mut().expect("there is always a run")
    }

    /// The run that goes on.
    pub fn current(&self) -> &Run {
        self.runs.last().expect("there is always a run")
    }

    /// Epoch and end of the last run, as viewers count.
    pub fn end(&self) -> StreamPosition {
        let run = self.current();
        StreamPosition { epoch: run.epoch, offset: run.core.head() }
    }

    pub fn print(&mut self, raw: &[u8]) {
        if !self.current().has_ended {
            self.last().print(raw);
        }
    }

    pub fn resize(&mut self, size: TermSize) {
        let run = self.last();
        if !run.has_ended && run.core.size_at(u64::MAX) != size {
            let head = run.core.head();
            run.core.resized(head, size);
            run.sizes.push((head, size));
        }
    }

    pub fn end_child(&mut self) {
        let now = self.now;
        self.last().end(now);
    }

    /// A new process in the same session; returns its epoch.
    pub fn restart_child(&mut self) -> u32 {
        let epoch = self.runs.len() as u32;
        let now = self.now;
        self.last().end(now);
        self.runs.push(Run::new(epoch));
        epoch
    }

    /// The daemon is killed and another one comes; streams are gone with it.
    pub fn restart_daemon(&mut self, back: usize) {
        self.streams.clear();
        let now = self.now;
        self.last().restart_daemon(back, now);
    }

    pub fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// Opens a stream; says where it begins, the head and the size.
    pub fn open(
        &mut self,
        key: K,
        from: Option<StreamPosition>,
        lag_limit: u64,
        credit: u64,
        is_slow: bool,
    ) -> (StreamPosition, u64, TermSize) {
        let core = &self.current().core;
        let viewer = Viewer::open(core, self.session, from, lag_limit, credit);
        let opened = (
            StreamPosition { epoch: core.epoch, offset: viewer.position() },
            core.head(),
            core.size_at(u64::MAX),
        );
        self.streams.insert(key, Stream { viewer, run: self.runs.len() - 1, is_slow });
        opened
    }

    pub fn grant(&mut self, key: K, total: u64) {
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.viewer.grant(total);
        }
    }

    pub fn want_snapshot(&mut self, key: K) {
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.viewer.want_snapshot();
        }
    }

    pub fn close(&mut self, key: K) {
        self.streams.remove(&key);
    }

    pub fn cut(&mut self) {
        self.streams.clear();
    }

    pub fn keys(&self) -> Vec<K> {
        self.streams.keys().copied().collect()
    }

    /// One step of a stream. `meanwhile` is printed while a slow snapshot is made.
    pub fn poll(&mut self, key: K, meanwhile: &[u8]) -> Option<Frame> {
        let stream = self.streams.get_mut(&key)?;
        let is_last = stream.run + 1 == self.runs.len();
        let run = &mut self.runs[stream.run];
        match stream.viewer.poll(&run.core, self.now) {
            Step::Frame(frame) => Some(frame),
            Step::Snapshot => {
                run.follower.catch_up(&run.core);
                let snapshot = Snapshot {
                    offset: run.follower.offset,
                    size: run.follower.model.size(),
                    next_resize: run.follower.next_resize,
                    bytes: run.follower.model.snapshot().into(),
                };
                if std::mem::take(&mut stream.is_slow) && is_last && !run.has_ended {
                    run.print(meanwhile);
                }
                stream.viewer.snapshot(snapshot);
                None
            }
            Step::Disk(from) => {
                let tail = run.core.ring.tail();
                let bytes = (tail - from <= self.disk).then(|| {
                    let end = (from as usize + DISK_BYTES).min(tail as usize);
                    Bytes::copy_from_slice(&run.clean[from as usize..end])
                });
                stream.viewer.disk(from, bytes);
                None
            }
            Step::Until(_) | Step::Wait | Step::End => None,
        }
    }
}

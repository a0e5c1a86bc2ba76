//! Reads a recorded run in order, through the sanitiser and, where screens are wanted, through a screen model.
//!
//! Invariants: pieces are contiguous in offsets or separated by an explicit gap; what was filtered once is filtered the
//! same way after every seek; a keyframe reflects exactly the bytes below its offset.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use claudenest_shared::session::TermSize;

use super::core::{EventKind, Timeline};
use crate::holder::{Recording, read_exit};
use crate::session::sanitise::{Event, Sanitiser};
use crate::session::screen::{Model, ScreenModel};

/// Distance of keyframes: seeking back reads at most this much again.
const KEYFRAME_BYTES: u64 = 1024 * 1024;
/// Keyframes kept, each of some KiB: they reach over the largest usual recording.
const MAX_KEYFRAMES: usize = 512;
/// One read from disk.
const READ_BYTES: usize = 256 * 1024;

/// Something that a viewer has to be shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Offset in the output.
    pub offset: u64,
    /// What.
    pub kind: PieceKind,
}

/// Kinds of [`Piece`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PieceKind {
    /// Filtered output.
    Output(Bytes),
    /// The terminal has another size.
    Resize(TermSize),
    /// Bytes up to `to` are missing.
    Gap {
        /// Offset of the first byte that is there again.
        to: u64,
    },
}

impl Piece {
    /// Offset behind it.
    pub fn end(&self) -> u64 {
        match &self.kind {
            PieceKind::Output(bytes) => self.offset + bytes.len() as u64,
            PieceKind::Resize(_) => self.offset,
            PieceKind::Gap { to } => *to,
        }
    }
}

/// The screen at a place of the recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Screenful {
    /// It reflects exactly the bytes below.
    pub offset: u64,
    /// Size.
    pub size: TermSize,
    /// Escape sequences for a reset terminal of that size.
    pub snapshot: Vec<u8>,
}

/// Where reading goes on.
#[derive(Clone, Default)]
struct Place {
    /// Offset of the next byte to read.
    raw: u64,
    /// Offset of the next filtered byte.
    clean: u64,
    /// The next event of the time line.
    event: usize,
    size: TermSize,
    sanitiser: Sanitiser,
}

struct Keyframe {
    place: Place,
    snapshot: Vec<u8>,
}

/// See the module.
pub struct Reader {
    dir: PathBuf,
    recording: Recording,
    line: Timeline,
    is_over: bool,
    place: Place,
    model: Option<Model>,
    keyframes: Vec<Keyframe>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("dir", &self.dir)
            .field("offset", &self.place.clean)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens the run in `dir`; it may be still running. `with_screen` for [`Self::seek`] and [`Self::screen`].
    ///
    /// # Errors
    /// If the recording cannot be read.
    pub fn open(dir: &Path, with_screen: bool) -> io::Result<Self> {
        let mut reader = Self {
            dir: dir.to_owned(),
            recording: Recording::of(dir),
            line: Timeline::default(),
            is_over: false,
            place: Place::default(),
            model: None,
            keyframes: Vec::new(),
        };
        reader.refresh()?;
        reader.place.size = reader.line.size;
        reader.model = with_screen.then(|| Model::new(reader.line.size));
        Ok(reader)
    }

    /// Looks again at what is on disk. True if there is more than before.
    ///
    /// # Errors
    /// If the recording cannot be read.
    pub fn refresh(&mut self) -> io::Result<bool> {
        let exit = read_exit(&self.dir);
        let end = exit.map(|exit| (exit.offset, u64::try_from(exit.at.0).unwrap_or(0).saturating_mul(1000)));
        // The index first: what it names beyond the segments is left out, never the other way round.
        let index = self.recording.index()?;
        let line = Timeline::new(&self.recording.segments()?, &index, end);
        let is_more = line.end > self.line.end || (exit.is_some() && !self.is_over);
        self.line = line;
        self.is_over = exit.is_some();
        // Events may have become fewer (the oldest were dropped) or have been cut anew.
        self.place.event = next_event(&self.line, self.place.raw);
        for frame in &mut self.keyframes {
            frame.place.event = next_event(&self.line, frame.place.raw);
        }
        Ok(is_more)
    }

    /// The time line as it was read last.
    pub fn timeline(&self) -> &Timeline {
        &self.line
    }

    /// True if the run had ended when the disk was looked at.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Offset of the next byte that comes.
    pub fn offset(&self) -> u64 {
        self.place.clean
    }

    /// Offset of the next byte that is read; the filter may hold some back before it.
    pub fn raw(&self) -> u64 {
        self.place.raw
    }

    /// Size at that offset.
    pub fn size(&self) -> TermSize {
        self.place.size
    }

    /// Reads on, up to the output that had come before `until`. At most `READ_BYTES` at a time; empty at the end.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(&mut self, until: u64) -> io::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        while pieces.is_empty() {
            let Some(event) = self.line.events.get(self.place.event).copied() else {
                self.finish(until, &mut pieces);
                break;
            };
            if event.offset.max(self.place.raw) >= until {
                break;
            }
            match event.kind {
                EventKind::Resize(size) => {
                    self.place.event += 1;
                    self.resize(event.offset, size, &mut pieces);
                }
                EventKind::Gap { to } => {
                    self.place.event += 1;
                    self.gap(to, &mut pieces);
                }
                EventKind::Output { .. } => self.output(until, &mut pieces)?,
            }
        }
        Ok(pieces)
    }

    /// Output from here to the next event of another kind, in one read.
    fn output(&mut self, until: u64, pieces: &mut Vec<Piece>) -> io::Result<()> {
        let mut to = self.place.raw;
        let mut event = self.place.event;
        let limit = until.min(self.place.raw + READ_BYTES as u64);
        while to < limit
            && let Some(next) = self.line.events.get(event)
            && let EventKind::Output { to: end } = next.kind
        {
            to = end.min(limit);
            event += usize::from(end <= limit);
        }
        if to <= self.place.raw {
            self.place.event = event.max(self.place.event + 1);
            return Ok(());
        }
        let max = usize::try_from(to - self.place.raw).unwrap_or(READ_BYTES);
        match self.recording.read(self.place.raw, max)? {
            Some(raw) => {
                self.place.raw += raw.len() as u64;
                let (mut clean, mut events): (Vec<u8>, Vec<Event>) = (Vec::new(), Vec::new());
                self.place.sanitiser.push(&raw, &mut clean, &mut events);
                self.place.event =
                    if self.place.raw == to { event } else { next_event(&self.line, self.place.raw) };
                self.emit(clean, pieces);
            }
            None => {
                // The segment was dropped while we read: what is missing is a gap up to where there is more.
                let segments = self.recording.segments()?;
                let raw = self.place.raw;
                let next = segments.iter().map(|(start, _)| *start).find(|start| *start > raw);
                self.gap(next.unwrap_or(self.line.end.max(raw)), pieces);
            }
        }
        Ok(())
    }

    /// Output behind the last event: what the filter holds back once the run is over.
    fn finish(&mut self, until: u64, pieces: &mut Vec<Piece>) {
        if self.is_over && until >= self.line.end && self.place.sanitiser.pending_len() > 0 {
            let mut clean = Vec::new();
            self.place.sanitiser.flush(&mut clean);
            self.emit(clean, pieces);
        }
    }

    fn emit(&mut self, clean: Vec<u8>, pieces: &mut Vec<Piece>) {
        if clean.is_empty() {
            return;
        }
        if let Some(model) = &mut self.model {
            model.process(&clean);
        }
        let offset = self.place.clean;
        self.place.clean += clean.len() as u64;
        pieces.push(Piece { offset, kind: PieceKind::Output(clean.into()) });
        self.keep();
    }

    fn resize(&mut self, offset: u64, size: TermSize, pieces: &mut Vec<Piece>) {
        if size == self.place.size {
            return;
        }
        self.place.size = size;
        if let Some(model) = &mut self.model {
            model.resize(size);
        }
        pieces.push(Piece { offset: offset.max(self.place.clean), kind: PieceKind::Resize(size) });
    }

    /// The state stays as it was: most modes will still hold, and programs draw anew.
    fn gap(&mut self, to: u64, pieces: &mut Vec<Piece>) {
        // What was held back belongs to a sequence whose end is missing.
        let mut rest = Vec::new();
        self.place.sanitiser.flush(&mut rest);
        self.emit(rest, pieces);
        pieces.push(Piece { offset: self.place.clean, kind: PieceKind::Gap { to } });
        (self.place.raw, self.place.clean) = (to, to);
        self.place.event = next_event(&self.line, to);
        self.keep();
    }

    /// Remembers this place, if the last one remembered is far enough.
    fn keep(&mut self) {
        let Some(model) = &mut self.model else { return };
        let last = self.keyframes.last().map_or(0, |frame| frame.place.raw);
        if self.place.raw >= last + KEYFRAME_BYTES
            && self.keyframes.len() < MAX_KEYFRAMES
            && !model.is_broken()
        {
            self.keyframes.push(Keyframe { place: self.place.clone(), snapshot: model.snapshot() });
        }
    }

    /// Goes to the last whole sequence of the output that had come before `offset`, and answers the screen there.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn seek(&mut self, offset: u64) -> io::Result<Screenful> {
        let near = self.keyframes.iter().rposition(|frame| frame.place.raw <= offset);
        let is_behind = self.place.raw > offset;
        let better = near
            .map(|near| &self.keyframes[near])
            .filter(|frame| is_behind || frame.place.raw > self.place.raw);
        match better {
            Some(frame) => {
                self.place = frame.place.clone();
                let mut model = Model::new(frame.place.size);
                model.process(&frame.snapshot);
                self.model = Some(model);
            }
            None if is_behind || self.model.is_none() => {
                self.place = Place { size: self.line.size, ..Place::default() };
                self.model = Some(Model::new(self.line.size));
            }
            None => {}
        }
        while !self.read(offset)?.is_empty() {}
        Ok(self.screen())
    }

    /// The screen here.
    ///
    /// # Panics
    /// If the reader was opened without screens and never sought.
    pub fn screen(&mut self) -> Screenful {
        let model = self.model.as_mut().expect("a reader with screens has a model");
        Screenful { offset: self.place.clean, size: model.size(), snapshot: model.snapshot() }
    }
}

/// The first event that is not over at `raw`. A change of size right there may come again; that changes nothing.
fn next_event(line: &Timeline, raw: u64) -> usize {
    line.events.partition_point(|event| match event.kind {
        EventKind::Output { to } | EventKind::Gap { to } => to <= raw,
        EventKind::Resize(_) => event.offset < raw,
    })
}

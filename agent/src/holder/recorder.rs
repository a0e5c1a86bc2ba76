//! The recording while the holder writes it; the format is that of `recording.rs`.
//!
//! Invariants: what is on disk stays below the limit, the index included; the index never claims bytes that are not
//! there once a gap was closed; after a failed write everything on disk is whole again before anything is added.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use claudenest_shared::session::TermSize;

use super::core::Mark;
use super::recording::{INDEX, INDEX_RECORD_BYTES, IndexKind, IndexRecord, Recording, segment_path};

/// A segment is dropped as a whole, so this is the grain of the cap: at most this, and an eighth of the limit.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// The smallest grain, for limits that are themselves small.
const MIN_SEGMENT_BYTES: u64 = 64 * 1024;
/// What a segment's part of the index may weigh before a new segment begins: a child that writes single bytes must
/// not fill the disk with marks.
const SEGMENT_INDEX_SHARE: u64 = 4;

/// A segment on disk.
struct Segment {
    start: u64,
    bytes: u64,
    /// Bytes of index written while it was the newest.
    index_bytes: u64,
}

/// The recording while it is written. Used by one thread.
pub(super) struct Recorder {
    dir: PathBuf,
    /// Absent until it could be made, and after a failed write.
    index: Option<File>,
    segment: Option<File>,
    segments: Vec<Segment>,
    /// Bytes of index before the first segment, or left over from dropped ones.
    index_bytes: u64,
    /// Offset of the next byte.
    position: u64,
    limit: u64,
}

impl Recorder {
    /// A recording that is made with the first write.
    pub(super) fn new(run: &Path, limit: u64) -> Self {
        Self {
            dir: run.join("recording"),
            index: None,
            segment: None,
            segments: Vec::new(),
            index_bytes: 0,
            position: 0,
            limit,
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Makes the directory and an index that says the first size.
    pub(super) fn begin(&mut self, size: TermSize, now_us: u64) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.write_index(IndexRecord { offset: 0, time_us: now_us, kind: IndexKind::Resize(size) })
    }

    /// Makes what is on disk whole after a failed write: cut records and bytes that are not counted go.
    pub(super) fn repair(&mut self) -> io::Result<()> {
        (self.index, self.segment) = (None, None);
        if let Some(last) = self.segments.last() {
            let file = OpenOptions::new().write(true).open(segment_path(&self.dir, last.start))?;
            if file.metadata()?.len() > last.bytes {
                file.set_len(last.bytes)?;
            }
        }
        match OpenOptions::new().write(true).open(self.dir.join(INDEX)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                file.set_len(length - length % INDEX_RECORD_BYTES as u64)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn write_index(&mut self, record: IndexRecord) -> io::Result<()> {
        let index = match &mut self.index {
            Some(index) => index,
            slot => {
                let path = self.dir.join(INDEX);
                slot.insert(OpenOptions::new().append(true).create(true).mode(0o600).open(path)?)
            }
        };
        index.write_all(&record.encode())?;
        let bytes = INDEX_RECORD_BYTES as u64;
        match self.segments.last_mut() {
            Some(segment) => segment.index_bytes += bytes,
            None => self.index_bytes += bytes,
        }
        Ok(())
    }

    pub(super) fn mark(&mut self, mark: Mark) -> io::Result<()> {
        self.write_index(match mark {
            Mark::Data { offset, time_us } => IndexRecord { offset, time_us, kind: IndexKind::Data },
            Mark::Resize { offset, time_us, size } => {
                IndexRecord { offset, time_us, kind: IndexKind::Resize(size) }
            }
        })
    }

    /// Goes on at `offset`: the bytes before it were evicted before they could be written. `size` is that at `offset`.
    pub(super) fn skip_to(&mut self, offset: u64, size: TermSize, now_us: u64) -> io::Result<()> {
        self.write_index(IndexRecord { offset, time_us: now_us, kind: IndexKind::Gap })?;
        // The change of size may have come while nothing could be written.
        self.write_index(IndexRecord { offset, time_us: now_us, kind: IndexKind::Resize(size) })?;
        self.segment = None;
        self.position = offset;
        Ok(())
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let grain = (self.limit / 8).clamp(MIN_SEGMENT_BYTES, SEGMENT_BYTES);
            let is_full = self.segments.last().is_some_and(|segment| {
                segment.bytes >= grain || segment.index_bytes >= grain / SEGMENT_INDEX_SHARE
            });
            if self.segment.is_none() || is_full {
                self.make_room(grain)?;
                let path = segment_path(&self.dir, self.position);
                self.segment = Some(OpenOptions::new().append(true).create(true).mode(0o600).open(path)?);
                // After a repair the same place may be begun again.
                if self.segments.last().is_none_or(|segment| segment.start != self.position) {
                    self.segments.push(Segment { start: self.position, bytes: 0, index_bytes: 0 });
                }
            }
            let (Some(file), Some(segment)) = (&mut self.segment, self.segments.last_mut()) else {
                return Ok(());
            };
            let room = usize::try_from(grain.saturating_sub(segment.bytes).max(1)).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            file.write_all(now)?;
            segment.bytes += now.len() as u64;
            self.position += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Drops the oldest segments until one of `grain` bytes with its part of the index fits below the limit.
    fn make_room(&mut self, grain: u64) -> io::Result<()> {
        let new = grain + grain / SEGMENT_INDEX_SHARE;
        let weigh = |segments: &[Segment]| -> u64 {
            segments.iter().map(|segment| segment.bytes + segment.index_bytes).sum()
        };
        let mut dropped = 0;
        while dropped < self.segments.len()
            && self.index_bytes + weigh(&self.segments[dropped..]) + new > self.limit
        {
            dropped += 1;
        }
        if dropped == 0 {
            return Ok(());
        }
        for segment in self.segments.drain(..dropped) {
            self.index_bytes += segment.index_bytes;
            match fs::remove_file(segment_path(&self.dir, segment.start)) {
                // The daemon may have removed it for the cap on all recordings.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.compact()
    }

    /// Writes the index anew without what points into dropped segments. The size there is kept, and the time at which the
    /// run began: times in a recording count from there.
    fn compact(&mut self) -> io::Result<()> {
        let start = self.segments.first().map_or(self.position, |segment| segment.start);
        let recording = Recording::at(self.dir.clone());
        let (mut first, mut kept) = (None, Vec::new());
        let index = recording.index()?;
        let began_us = index.first().map_or(0, |record| record.time_us);
        for record in index {
            if record.offset >= start {
                kept.extend_from_slice(&record.encode());
            } else if let IndexKind::Resize(_) = record.kind {
                first = Some(IndexRecord { offset: start, time_us: began_us, ..record });
            }
        }
        let mut bytes = first.map(|record| record.encode().to_vec()).unwrap_or_default();
        bytes.extend_from_slice(&kept);
        let new = self.dir.join("index.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        fs::rename(&new, self.dir.join(INDEX))?;
        self.index = None;
        let counted: u64 = self.segments.iter().map(|segment| segment.index_bytes).sum();
        self.index_bytes = (bytes.len() as u64).saturating_sub(counted);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn recorder(run: &Path, limit: u64) -> Recorder {
        let mut recorder = Recorder::new(run, limit);
        recorder.begin(TermSize::default(), 1).unwrap();
        recorder
    }

    #[test]
    fn what_was_written_is_read_back_across_segments_and_gaps() {
        let run = tempfile::tempdir().unwrap();
        let size = TermSize::default();
        let mut recorder = recorder(run.path(), u64::MAX);
        let piece: Vec<u8> = (0..1024 * 1024).map(|at: u32| (at % 251) as u8).collect();
        for _ in 0..9 {
            recorder.write(&piece).unwrap();
        }
        recorder.mark(Mark::Data { offset: 5, time_us: 6 }).unwrap();
        recorder.skip_to(20_000_000, size, 7).unwrap();
        recorder.write(b"after").unwrap();
        let recording = Recording::of(run.path());
        let (first, whole) = (8 * MIB, 9 * MIB);
        assert_eq!(recording.segments().unwrap(), [(0, first), (first, whole), (20_000_000, 20_000_005)]);
        assert_eq!(recording.read(251 * 4, 3).unwrap().unwrap(), [0, 1, 2]);
        assert_eq!(recording.read(first - 2, 100).unwrap().unwrap().len(), 2);
        assert_eq!(recording.read(whole, 100).unwrap(), None);
        assert_eq!(recording.read(20_000_001, 100).unwrap().unwrap(), b"fter");
        let kinds: Vec<_> =
            recording.index().unwrap().iter().map(|record| (record.offset, record.kind)).collect();
        let gap = 20_000_000;
        let resize = IndexKind::Resize(size);
        assert_eq!(kinds, [(0, resize), (5, IndexKind::Data), (gap, IndexKind::Gap), (gap, resize)]);
    }

    #[test]
    fn the_oldest_segments_go_at_the_cap() {
        for limit in [1, 2, 16, 64] {
            let run = tempfile::tempdir().unwrap();
            let limit = limit * MIB;
            let mut recorder = recorder(run.path(), limit);
            let piece = vec![7; 1024 * 1024];
            let recording = Recording::of(run.path());
            for _ in 0..100 {
                recorder.write(&piece).unwrap();
                assert!(recording.size_bytes() <= limit, "{} of {limit}", recording.size_bytes());
            }
            let segments = recording.segments().unwrap();
            let held: u64 = segments.iter().map(|(start, end)| end - start).sum();
            assert!(held >= limit / 2, "{held} of {limit}");
            assert_eq!(segments.last().unwrap().1, 100 * MIB);
        }
    }

    #[test]
    fn marks_of_single_bytes_stay_below_the_cap_too() {
        let run = tempfile::tempdir().unwrap();
        let mut recorder = recorder(run.path(), MIB);
        let size = TermSize { cols: 90, rows: 20 };
        recorder.mark(Mark::Resize { offset: 0, time_us: 5, size }).unwrap();
        let recording = Recording::of(run.path());
        for offset in 0..100_000 {
            recorder.mark(Mark::Data { offset, time_us: offset }).unwrap();
            recorder.write(b"x").unwrap();
        }
        assert!(recording.size_bytes() <= MIB, "{}", recording.size_bytes());
        let (start, end) = (recording.segments().unwrap()[0].0, recorder.position());
        assert_eq!(end, 100_000);
        assert!(start > 0 && end - start > 10_000, "{start}");
        let index = recording.index().unwrap();
        assert_eq!((index[0].offset, index[0].kind), (start, IndexKind::Resize(size)), "the size is kept");
        assert_eq!(index[0].time_us, 1, "the time line begins where the run began");
        assert!(index.iter().all(|record| record.offset >= start));
    }

    #[test]
    fn a_cut_write_is_repaired_and_the_recording_goes_on() {
        let run = tempfile::tempdir().unwrap();
        let mut recorder = recorder(run.path(), MIB);
        recorder.write(b"before").unwrap();
        // What a full disk leaves behind: parts of a record and of the output.
        let dir = run.path().join("recording");
        let append = |name: &str, bytes: &[u8]| {
            OpenOptions::new().append(true).open(dir.join(name)).unwrap().write_all(bytes).unwrap();
        };
        append(INDEX, &[1; 10]);
        append("00000000000000000000.raw", b"half");
        recorder.repair().unwrap();
        recorder.skip_to(1000, TermSize::default(), 9).unwrap();
        recorder.write(b"after").unwrap();
        let recording = Recording::of(run.path());
        assert_eq!(recording.segments().unwrap(), [(0, 6), (1000, 1005)]);
        assert_eq!(recording.index().unwrap().len(), 3);
        recorder.repair().unwrap();
        recorder.write(b" and more").unwrap();
        assert_eq!(recording.segments().unwrap(), [(0, 6), (1000, 1005), (1005, 1014)]);
    }
}

//! The raw recording of a run: what is on disk, written by the holder, read by the daemon.
//!
//! `recording/<offset>.raw` hold the output as the child wrote it, each from its offset on, and `recording/index`
//! has records of 24 bytes: offset u64, time in µs since the epoch u64, kind u8, 3 bytes of zero, columns u16,
//! rows u16, little endian. Keystrokes are never recorded. A crash may cost the last 50 ms.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use claudenest_shared::session::TermSize;

use super::core::Mark;

/// A segment is dropped as a whole, so this is the grain of the cap.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Length of an index record.
pub const INDEX_RECORD_BYTES: usize = 24;

/// What an index record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexKind {
    /// Output from this offset on came at this time.
    Data,
    /// The terminal has this size from this offset on.
    Resize(TermSize),
    /// Bytes below this offset, down to the end of the segment before, were not recorded.
    Gap,
}

/// One point of the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexRecord {
    /// Offset in the output.
    pub offset: u64,
    /// Microseconds since the Unix epoch.
    pub time_us: u64,
    /// What it says.
    pub kind: IndexKind,
}

impl IndexRecord {
    fn encode(self) -> [u8; INDEX_RECORD_BYTES] {
        let mut out = [0; INDEX_RECORD_BYTES];
        out[..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..16].copy_from_slice(&self.time_us.to_le_bytes());
        out[16] = match self.kind {
            IndexKind::Data => 0,
            IndexKind::Resize(_) => 1,
            IndexKind::Gap => 2,
        };
        if let IndexKind::Resize(size) = self.kind {
            out[20..22].copy_from_slice(&size.cols.to_le_bytes());
            out[22..24].copy_from_slice(&size.rows.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8; INDEX_RECORD_BYTES]) -> Option<Self> {
        let long = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let kind = match bytes[16] {
            0 => IndexKind::Data,
            1 => IndexKind::Resize(TermSize::clamped(short(20), short(22))),
            2 => IndexKind::Gap,
            _ => return None,
        };
        Some(Self { offset: long(0), time_us: long(8), kind })
    }
}

/// The recording while it is written. Used by one thread.
pub(super) struct Recorder {
    dir: PathBuf,
    index: File,
    segment: Option<File>,
    /// Start offsets of the segments on disk.
    segments: Vec<u64>,
    /// Offset of the next byte.
    position: u64,
    limit: u64,
}

impl Recorder {
    /// Makes the directory and an empty recording.
    pub(super) fn create(run: &Path, limit: u64, size: TermSize, now_us: u64) -> io::Result<Self> {
        let dir = run.join("recording");
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let index = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join("index"))?;
        let mut recorder = Self { dir, index, segment: None, segments: Vec::new(), position: 0, limit };
        recorder.write_index(IndexRecord { offset: 0, time_us: now_us, kind: IndexKind::Resize(size) })?;
        Ok(recorder)
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    fn write_index(&mut self, record: IndexRecord) -> io::Result<()> {
        self.index.write_all(&record.encode())
    }

    pub(super) fn mark(&mut self, mark: Mark) -> io::Result<()> {
        self.write_index(match mark {
            Mark::Data { offset, time_us } => IndexRecord { offset, time_us, kind: IndexKind::Data },
            Mark::Resize { offset, time_us, size } => {
                IndexRecord { offset, time_us, kind: IndexKind::Resize(size) }
            }
        })
    }

    /// Goes on at `offset`: the bytes before it were evicted before they could be written.
    pub(super) fn skip_to(&mut self, offset: u64, now_us: u64) -> io::Result<()> {
        self.segment = None;
        self.position = offset;
        self.write_index(IndexRecord { offset, time_us: now_us, kind: IndexKind::Gap })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_full = self.segments.last().is_some_and(|start| self.position - start >= SEGMENT_BYTES);
        if self.segment.is_none() || is_full {
            let path = segment_path(&self.dir, self.position);
            self.segment = Some(OpenOptions::new().append(true).create(true).mode(0o600).open(path)?);
            self.segments.push(self.position);
            while self.segments.len() > 1 && self.position - self.segments[0] + SEGMENT_BYTES > self.limit {
                let oldest = self.segments.remove(0);
                fs::remove_file(segment_path(&self.dir, oldest))?;
            }
        }
        let Some(segment) = &mut self.segment else { return Ok(()) };
        segment.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

fn segment_path(dir: &Path, offset: u64) -> PathBuf {
    dir.join(format!("{offset:020}.raw"))
}

/// Reads a recording, also while it is being written.
#[derive(Clone, Debug)]
pub struct Recording {
    dir: PathBuf,
}

impl Recording {
    /// The recording of the run in `dir`; it may be empty.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.join("recording") }
    }

    /// Start and end offset of each segment, oldest first.
    ///
    /// # Errors
    /// If the directory cannot be read. A missing one is empty.
    pub fn segments(&self) -> io::Result<Vec<(u64, u64)>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut segments = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(start) =
                name.to_str().and_then(|name| name.strip_suffix(".raw")).and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // It may be dropped while we look.
            if let Ok(metadata) = entry.metadata() {
                segments.push((start, start + metadata.len()));
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// Reads at most `max` bytes from `from` on, without a gap in them. `None` if that byte is not on disk.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(&self, from: u64, max: usize) -> io::Result<Option<Vec<u8>>> {
        let segments = self.segments()?;
        let Some((start, end)) = segments.into_iter().find(|(start, end)| *start <= from && from < *end)
        else {
            return Ok(None);
        };
        let mut file = match File::open(segment_path(&self.dir, start)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        file.seek(SeekFrom::Start(from - start))?;
        let want = (end - from).min(max as u64);
        let mut out = Vec::with_capacity(usize::try_from(want).unwrap_or(max));
        file.take(want).read_to_end(&mut out)?;
        Ok((!out.is_empty()).then_some(out))
    }

    /// The index, oldest first. A record cut by a crash is left out.
    ///
    /// # Errors
    /// If the file cannot be read. A missing one is empty.
    pub fn index(&self) -> io::Result<Vec<IndexRecord>> {
        let bytes = match fs::read(self.dir.join("index")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bytes => bytes?,
        };
        let records = bytes.as_chunks::<INDEX_RECORD_BYTES>().0;
        Ok(records.iter().filter_map(IndexRecord::decode).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_across_segments_and_gaps() {
        let run = tempfile::tempdir().unwrap();
        let size = TermSize::default();
        let mut recorder = Recorder::create(run.path(), u64::MAX, size, 1).unwrap();
        let piece: Vec<u8> = (0..1024 * 1024).map(|at: u32| (at % 251) as u8).collect();
        for _ in 0..9 {
            recorder.write(&piece).unwrap();
        }
        recorder.mark(Mark::Data { offset: 5, time_us: 6 }).unwrap();
        recorder.skip_to(20_000_000, 7).unwrap();
        recorder.write(b"after").unwrap();
        let recording = Recording::of(run.path());
        let (first, whole) = (8 * 1024 * 1024, 9 * 1024 * 1024);
        assert_eq!(recording.segments().unwrap(), [(0, first), (first, whole), (20_000_000, 20_000_005)]);
        assert_eq!(recording.read(251 * 4, 3).unwrap().unwrap(), [0, 1, 2]);
        assert_eq!(recording.read(first - 2, 100).unwrap().unwrap().len(), 2);
        assert_eq!(recording.read(whole, 100).unwrap(), None);
        assert_eq!(recording.read(20_000_001, 100).unwrap().unwrap(), b"fter");
        let kinds: Vec<_> =
            recording.index().unwrap().iter().map(|record| (record.offset, record.kind)).collect();
        assert_eq!(kinds, [(0, IndexKind::Resize(size)), (5, IndexKind::Data), (20_000_000, IndexKind::Gap)]);
    }

    #[test]
    fn the_oldest_segments_go_at_the_cap() {
        let run = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(run.path(), 16 * 1024 * 1024, TermSize::default(), 1).unwrap();
        let piece = vec![7; 1024 * 1024];
        for _ in 0..40 {
            recorder.write(&piece).unwrap();
        }
        let segments = Recording::of(run.path()).segments().unwrap();
        let held: u64 = segments.iter().map(|(start, end)| end - start).sum();
        assert!((8 * 1024 * 1024..=16 * 1024 * 1024).contains(&held), "{held}");
        assert_eq!(segments.last().unwrap().1, 40 * 1024 * 1024);
    }
}

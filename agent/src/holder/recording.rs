//! The raw recording of a run: what is on disk. The holder writes it (`recorder.rs`), daemon and command line read it.
//!
//! `recording/<offset>.raw` hold the output as the child wrote it, each from its offset on, and `recording/index`
//! has records of 24 bytes: offset u64, time in µs since the epoch u64, kind u8, 3 bytes of zero, columns u16,
//! rows u16, little endian. Keystrokes are never recorded. A crash may cost the last 50 ms. Whoever reads expects
//! torn records, missing segments and marks that point beyond the end.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use claudenest_shared::session::TermSize;

/// Name of the index within a recording's directory.
pub(super) const INDEX: &str = "index";

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
    pub(super) fn encode(self) -> [u8; INDEX_RECORD_BYTES] {
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

    /// Reads a record; `None` for bytes that are none.
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
        let is_padded = bytes[17..20] == [0; 3] && (bytes[16] == 1 || bytes[20..24] == [0; 4]);
        is_padded.then(|| Self { offset: long(0), time_us: long(8), kind })
    }

    /// Reads an index. Bytes that are no record (a write that a full disk or a crash cut) are skipped.
    fn decode_all(mut bytes: &[u8]) -> Vec<Self> {
        let mut records = Vec::with_capacity(bytes.len() / INDEX_RECORD_BYTES);
        while let Some((record, rest)) = bytes.split_first_chunk::<INDEX_RECORD_BYTES>() {
            match Self::decode(record) {
                Some(record) => {
                    records.push(record);
                    bytes = rest;
                }
                None => bytes = &bytes[1..],
            }
        }
        records
    }
}

pub(super) fn segment_path(dir: &Path, offset: u64) -> PathBuf {
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

    /// The recording in this directory itself.
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
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

    /// The index in the order in which it was written. Records cut by a crash or a full disk are left out.
    ///
    /// # Errors
    /// If the file cannot be read. A missing one is empty.
    pub fn index(&self) -> io::Result<Vec<IndexRecord>> {
        match fs::read(self.dir.join(INDEX)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            bytes => Ok(IndexRecord::decode_all(&bytes?)),
        }
    }

    /// Bytes on disk, the index included.
    pub fn size_bytes(&self) -> u64 {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, kind: IndexKind) -> IndexRecord {
        IndexRecord { offset, time_us: offset + 1_700_000_000_000_000, kind }
    }

    #[test]
    fn an_index_with_cut_records_keeps_the_whole_ones() {
        let records = [
            record(0, IndexKind::Resize(TermSize { cols: 80, rows: 24 })),
            record(7, IndexKind::Data),
            record(9, IndexKind::Gap),
            record(12, IndexKind::Data),
        ];
        for cut in 0..INDEX_RECORD_BYTES {
            let mut bytes = records[0].encode().to_vec();
            bytes.extend_from_slice(&records[1].encode());
            // A write that a full disk cut, and more behind it.
            bytes.extend_from_slice(&records[2].encode()[..cut]);
            bytes.extend_from_slice(&records[2].encode());
            bytes.extend_from_slice(&records[3].encode());
            bytes.extend_from_slice(&records[3].encode()[..cut]);
            let read = IndexRecord::decode_all(&bytes);
            assert!(records.iter().all(|wanted| read.contains(wanted)) || cut > 16, "cut {cut}: {read:?}");
            assert_eq!(read.first(), Some(&records[0]));
        }
    }
}

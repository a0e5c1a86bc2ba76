//! `screen` in the directory of a run: the screen at an offset, so that a later daemon knows modes that were set
//! before the holder's memory begins.
//!
//! Offset u64, columns u16, rows u16, little endian, then a snapshot. Written whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use claudenest_shared::session::TermSize;

const FILE: &str = "screen";
const HEADER: usize = 12;

/// A screen on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Checkpoint {
    pub(super) offset: u64,
    pub(super) size: TermSize,
    pub(super) snapshot: Vec<u8>,
}

impl Checkpoint {
    /// Reads the last one; `None` if there is none that is whole.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let bytes = fs::read(dir.join(FILE)).ok()?;
        let (header, snapshot) = bytes.split_at_checked(HEADER)?;
        let offset = u64::from_le_bytes(header[..8].try_into().ok()?);
        let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        Some(Self { offset, size: TermSize::clamped(word(8), word(10)), snapshot: snapshot.to_vec() })
    }

    /// Replaces the one on disk.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join("screen.new");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&self.offset.to_le_bytes())?;
        file.write_all(&self.size.cols.to_le_bytes())?;
        file.write_all(&self.size.rows.to_le_bytes())?;
        file.write_all(&self.snapshot)?;
        fs::rename(new, dir.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_back_and_a_cut_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoint::read(dir.path()), None);
        let size = TermSize { cols: 90, rows: 20 };
        let checkpoint = Checkpoint { offset: 1 << 40, size, snapshot: b"\x1b[31mx".to_vec() };
        checkpoint.write(dir.path()).unwrap();
        assert_eq!(Checkpoint::read(dir.path()), Some(checkpoint));
        fs::write(dir.path().join(FILE), b"short").unwrap();
        assert_eq!(Checkpoint::read(dir.path()), None);
    }
}

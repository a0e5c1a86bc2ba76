//! Cuts a recorded run into chunks: for relays that keep a copy, and for pages that play from the machine.
//!
//! Invariant: chunks are contiguous in offsets; what is missing between two is named by the second.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claudenest_shared::history::{
    CHUNK_BYTES, CHUNK_MS, ChunkHead, ChunkLine, HistoryChunk, HistoryPoint, HistoryResize,
};
use claudenest_shared::session::TermSize;
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::history::ChunkUpload;
use claudenest_shared::wire::limits::MAX_HISTORY_PART_BYTES;

use super::core::Timeline;
use super::reader::{PieceKind, Reader};
use super::search::feed;
use super::text::Lines;

/// Marks of time in a chunk: 20 ms apart over its five seconds.
const MAX_CHUNK_MARKS: usize = 250;
/// Text in a chunk; what a screen of the largest size holds.
const MAX_CHUNK_TEXT: usize = 192 * 1024;
/// zstd's default level: 64 KiB take less than a millisecond.
const LEVEL: i32 = 3;

/// A part of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Chunk {
    /// What it is.
    pub head: ChunkHead,
    /// Offset of the first byte.
    pub start: u64,
    /// The screen there.
    pub screen: Option<Vec<u8>>,
    /// The bytes.
    pub data: Vec<u8>,
    /// Text that was seen.
    pub lines: Vec<ChunkLine>,
}

/// Hands out the chunks of a run, one after the other.
#[derive(Debug)]
pub struct Chunker {
    reader: Reader,
    /// Offset behind the last chunk; the reader may be further when something is missing.
    from: u64,
    lines: Option<Lines>,
}

fn ms(us: u64) -> u64 {
    us / 1000
}

impl Chunker {
    /// Begins at `offset` of the run in `dir`; with `with_lines` the text that was seen comes along.
    ///
    /// # Errors
    /// If the recording cannot be read.
    pub fn open(dir: &Path, offset: u64, with_lines: bool) -> io::Result<Self> {
        let mut chunker = Self { reader: Reader::open(dir, true)?, from: 0, lines: None };
        chunker.seek(offset)?;
        if with_lines {
            let screen = chunker.reader.screen();
            let mut lines = Lines::new(screen.size);
            // What stands there already belongs to the chunks before.
            lines.output(0, 0, &screen.snapshot);
            lines.settle();
            lines.take();
            chunker.lines = Some(lines);
        }
        Ok(chunker)
    }

    /// Goes to `offset`.
    ///
    /// # Errors
    /// If the recording cannot be read.
    pub fn seek(&mut self, offset: u64) -> io::Result<()> {
        let at = self.reader.seek(offset)?.offset;
        // Behind the offset: it lies in a gap. Before it: in the middle of a sequence.
        self.from = at.min(offset);
        Ok(())
    }

    /// Names what lies between `from` and here as missing.
    pub fn skip_from(&mut self, from: u64) {
        self.from = self.from.min(from);
    }

    /// Looks again at what is on disk.
    ///
    /// # Errors
    /// If the recording cannot be read.
    pub fn refresh(&mut self) -> io::Result<bool> {
        self.reader.refresh()
    }

    /// Offset behind the last chunk.
    pub fn position(&self) -> u64 {
        self.from
    }

    /// The time line as it was read last.
    pub fn timeline(&self) -> &Timeline {
        self.reader.timeline()
    }

    /// The next chunk; `None` when there is no more now.
    ///
    /// # Errors
    /// If the recording cannot be read.
    pub fn next(&mut self, with_screen: bool) -> io::Result<Option<Chunk>> {
        let mut chunk: Option<Chunk> = None;
        loop {
            let raw = self.reader.raw();
            let until = chunk.as_ref().map_or_else(|| self.limit(raw), |chunk| self.limit(chunk.start));
            let size = self.reader.size();
            let screen = (with_screen && chunk.is_none()).then(|| self.reader.screen().snapshot);
            let pieces = self.reader.read(until)?;
            if pieces.is_empty() {
                break;
            }
            let (mut screen, mut is_cut) = (screen, false);
            for piece in pieces {
                let (at_us, wall_us) = self.reader.timeline().time_of(piece.offset);
                match piece.kind {
                    PieceKind::Output(bytes) => {
                        let open = chunk.get_or_insert_with(|| Chunk {
                            head: ChunkHead {
                                from: self.from,
                                at_ms: ms(at_us),
                                time: UnixMs(i64::try_from(ms(wall_us)).unwrap_or(i64::MAX)),
                                size,
                                ..ChunkHead::default()
                            },
                            start: piece.offset,
                            screen: screen.take(),
                            data: Vec::new(),
                            lines: Vec::new(),
                        });
                        mark(open, self.reader.timeline(), piece.offset, bytes.len());
                        if let Some(lines) = &mut self.lines {
                            feed(lines, &self.reader, piece.offset, &bytes);
                        }
                        open.data.extend_from_slice(&bytes);
                    }
                    PieceKind::Resize(size) => {
                        if let Some(lines) = &mut self.lines {
                            lines.resize(size);
                        }
                        // Before the first byte it is the size with which the chunk begins.
                        if let Some(open) = &mut chunk {
                            resize(open, piece.offset, at_us, size);
                        }
                    }
                    PieceKind::Gap { .. } => is_cut = chunk.is_some(),
                }
            }
            if is_cut {
                break;
            }
        }
        let Some(mut chunk) = chunk else { return Ok(None) };
        chunk.head.end = chunk.start + chunk.data.len() as u64;
        let end_us = self.reader.timeline().time_of(chunk.head.end.saturating_sub(1)).0;
        chunk.head.end_ms = ms(end_us).max(chunk.head.at_ms);
        self.from = chunk.head.end;
        if let Some(lines) = &mut self.lines {
            lines.settle();
            let mut room = MAX_CHUNK_TEXT;
            chunk.lines = lines
                .take()
                .into_iter()
                .map(|line| ChunkLine { offset: line.offset, at_ms: ms(line.at_us), text: line.text })
                .take_while(|line| {
                    room = room.saturating_sub(line.text.len() + 64);
                    room > 0
                })
                .collect();
        }
        Ok(Some(chunk))
    }

    /// Where a chunk that begins at `start` ends at the latest.
    fn limit(&self, start: u64) -> u64 {
        let line = self.reader.timeline();
        let at_us = line.time_of(start).0;
        let in_time = match line.events.get(line.event_after(at_us + CHUNK_MS * 1000)) {
            Some(event) => event.offset,
            None => u64::MAX,
        };
        (start + CHUNK_BYTES).min(in_time)
    }
}

fn mark(chunk: &mut Chunk, line: &Timeline, offset: u64, length: usize) {
    let end = offset + length as u64;
    let first = line.events.partition_point(|event| event.offset < offset);
    for event in line.events[first..].iter().take_while(|event| event.offset < end) {
        let point = HistoryPoint { offset: event.offset, at_ms: ms(event.at_us) };
        let last = chunk.head.marks.last().map_or(chunk.head.at_ms, |last| last.at_ms);
        if point.at_ms > last && chunk.head.marks.len() < MAX_CHUNK_MARKS {
            chunk.head.marks.push(point);
        }
    }
}

fn resize(chunk: &mut Chunk, offset: u64, at_us: u64, size: TermSize) {
    chunk.head.resizes.push(HistoryResize { offset, at_ms: ms(at_us), size });
}

impl Chunk {
    /// As it is answered to a page.
    pub fn answer(self, epoch: u32, next: Option<u64>) -> HistoryChunk {
        HistoryChunk {
            epoch,
            from: self.head.from,
            start: self.start,
            end: self.head.end,
            at_ms: self.head.at_ms,
            size: self.head.size,
            marks: self.head.marks,
            resizes: self.head.resizes,
            screen: self.screen.map(|screen| STANDARD.encode(screen)),
            data: STANDARD.encode(self.data),
            next,
        }
    }

    /// As it is uploaded.
    ///
    /// # Errors
    /// If it cannot be compressed.
    pub fn upload(&self) -> io::Result<ChunkUpload> {
        let pack = |bytes: &[u8]| zstd::bulk::compress(bytes, LEVEL);
        let screen = match &self.screen {
            Some(screen) => pack(screen)?,
            None => Vec::new(),
        };
        Ok(ChunkUpload {
            head: self.head.clone(),
            lines: pack(&serde_json::to_vec(&self.lines)?)?.into(),
            // One that does not fit is of the largest size and full of colours; an earlier one will do.
            screen: if screen.len() <= MAX_HISTORY_PART_BYTES { screen.into() } else { Default::default() },
            data: pack(&self.data)?.into(),
        })
    }
}

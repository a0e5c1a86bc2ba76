//! Exports of a recorded run: asciicast (versions 2 and 3, <https://docs.asciinema.org/manual/asciicast/>), the filtered
//! bytes, and plain text.

use std::io::{self, Write};
use std::path::Path;

use claudenest_shared::session::{Exit, TermSize};
use serde_json::json;

use super::reader::{PieceKind, Reader};
use super::search;
use crate::holder::read_exit;

/// Version of the asciicast format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// Times since the beginning. Every player reads it.
    V2,
    /// Times since the event before; tells how the program ended.
    V3,
}

/// What an export told about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exported {
    /// Bytes of output in it.
    pub output_bytes: u64,
    /// Bytes that were not recorded, or not kept.
    pub missing_bytes: u64,
    /// Microseconds.
    pub duration_us: u64,
}

/// Writes the run in `dir` as asciicast. Every gap is a marker; idle time above `idle_limit_s` is cut by players.
///
/// # Errors
/// If the recording cannot be read or `out` not be written.
pub fn asciicast(
    dir: &Path,
    version: Version,
    title: &str,
    idle_limit_s: Option<f64>,
    out: &mut impl Write,
) -> io::Result<Exported> {
    let mut reader = Reader::open(dir, false)?;
    let size = reader.timeline().size;
    let mut header = match version {
        Version::V2 => json!({
            "version": 2, "width": size.cols, "height": size.rows, "env": {"TERM": "xterm-256color"},
            "duration": reader.timeline().duration_us as f64 / 1e6,
        }),
        Version::V3 => json!({
            "version": 3, "term": {"cols": size.cols, "rows": size.rows, "type": "xterm-256color"},
        }),
    };
    header["timestamp"] = (reader.timeline().started_us / 1_000_000).into();
    header["title"] = title.into();
    if let Some(limit) = idle_limit_s {
        header["idle_time_limit"] = limit.into();
    }
    writeln!(out, "{header}")?;
    let mut cast = Cast { out, version, last_us: 0, carry: Vec::new() };
    let mut exported = Exported { duration_us: reader.timeline().duration_us, ..Exported::default() };
    loop {
        let pieces = reader.read(u64::MAX)?;
        if pieces.is_empty() {
            break;
        }
        for piece in pieces {
            let at_us = reader.timeline().time_of(piece.offset).0;
            match piece.kind {
                PieceKind::Output(bytes) => {
                    exported.output_bytes += bytes.len() as u64;
                    cast.output(&reader, piece.offset, &bytes)?;
                }
                PieceKind::Resize(TermSize { cols, rows }) => {
                    cast.event(at_us, "r", &format!("{cols}x{rows}"))?;
                }
                PieceKind::Gap { to } => {
                    exported.missing_bytes += to - piece.offset;
                    let label = format!("{} bytes of output are missing here", to - piece.offset);
                    cast.event(at_us, "m", &label)?;
                }
            }
        }
    }
    if version == Version::V3
        && let Some(exit) = read_exit(dir)
    {
        let status = match exit.exit {
            Exit::Code { code } => i64::from(code),
            Exit::Signal { signal } => 128 + i64::from(signal),
            Exit::Lost {} => 1,
        };
        cast.event(exported.duration_us, "x", &status.to_string())?;
    }
    out.flush()?;
    Ok(exported)
}

struct Cast<'a, W> {
    out: &'a mut W,
    version: Version,
    last_us: u64,
    /// The beginning of a character that a change of size cut.
    carry: Vec<u8>,
}

impl<W: Write> Cast<'_, W> {
    fn event(&mut self, at_us: u64, code: &str, data: &str) -> io::Result<()> {
        let at_us = at_us.max(self.last_us);
        let time = match self.version {
            Version::V2 => at_us,
            Version::V3 => at_us - self.last_us,
        };
        self.last_us = at_us;
        let data = serde_json::to_string(data).map_err(io::Error::other)?;
        writeln!(self.out, "[{}.{:06}, \"{code}\", {data}]", time / 1_000_000, time % 1_000_000)
    }

    /// Output as it came: one event for each moment.
    fn output(&mut self, reader: &Reader, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let line = reader.timeline();
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let next = line.events.partition_point(|event| event.offset <= at);
            let to = line.events.get(next).map_or(u64::MAX, |event| event.offset);
            let size = usize::try_from(to - at).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(size);
            // What the filter took away is NUL, which says nothing to anybody.
            self.carry.extend(now.iter().filter(|byte| **byte != 0));
            let whole = match std::str::from_utf8(&self.carry) {
                Ok(text) => text.len(),
                Err(error) => error.valid_up_to(),
            };
            let left = self.carry.split_off(whole);
            let text =
                String::from_utf8(std::mem::replace(&mut self.carry, left)).map_err(io::Error::other)?;
            if !text.is_empty() {
                self.event(line.time_of(at).0, "o", &text)?;
            }
            (at, rest) = (at + size as u64, later);
        }
        Ok(())
    }
}

/// Writes the output of the run in `dir`: every byte in its place but those that could type into a terminal, which are
/// NUL. Missing bytes are left out.
///
/// # Errors
/// If the recording cannot be read or `out` not be written.
pub fn raw(dir: &Path, out: &mut impl Write) -> io::Result<Exported> {
    let mut reader = Reader::open(dir, false)?;
    let mut exported = Exported { duration_us: reader.timeline().duration_us, ..Exported::default() };
    loop {
        let pieces = reader.read(u64::MAX)?;
        if pieces.is_empty() {
            out.flush()?;
            return Ok(exported);
        }
        for piece in pieces {
            match piece.kind {
                PieceKind::Output(bytes) => {
                    exported.output_bytes += bytes.len() as u64;
                    out.write_all(&bytes)?;
                }
                PieceKind::Gap { to } => exported.missing_bytes += to - piece.offset,
                PieceKind::Resize(_) => {}
            }
        }
    }
}

/// Writes the text that people saw, a line each.
///
/// # Errors
/// If the recording cannot be read or `out` not be written.
pub fn text(dir: &Path, out: &mut impl Write) -> io::Result<Exported> {
    let line = Reader::open(dir, false)?.timeline().clone();
    let mut exported = Exported {
        missing_bytes: line.end - line.recorded_bytes(),
        duration_us: line.duration_us,
        ..Exported::default()
    };
    let mut result = Ok(());
    search::lines(dir, |line, _| {
        exported.output_bytes += line.text.len() as u64 + 1;
        result = writeln!(out, "{}", line.text);
        result.is_ok()
    })?;
    result?;
    out.flush()?;
    Ok(exported)
}

//! Past output of sessions: what a relay keeps of it, what a machine answers about it, and what a page plays.
//!
//! Offsets are those of the stream: a byte has one offset wherever it is read. Times count from the beginning of the run
//! and never go back. Bytes have passed the machine's filter; keystrokes are in none of this.

use serde::{Deserialize, Serialize};

use crate::id::{MachineId, SessionId};
use crate::session::TermSize;
use crate::time::UnixMs;

/// Output of one chunk: as much as an output frame.
pub const CHUNK_BYTES: u64 = 64 * 1024;
/// A chunk of a slow session covers at most this much time.
pub const CHUNK_MS: u64 = 5_000;
/// Points of a run's time line that are listed; a slider has fewer pixels.
pub const MAX_POINTS: usize = 1_000;
/// Gaps and changes of size that are listed of a run.
pub const MAX_MARKS: usize = 200;

/// Where past output comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HistorySource {
    /// There is none.
    #[default]
    None,
    /// The recording on the machine, which is online.
    Machine,
    /// The relay's copy.
    Relay,
}

/// A place in a run: an offset, and when its byte came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryPoint {
    /// Offset in the output.
    pub offset: u64,
    /// Milliseconds since the run began.
    pub at_ms: u64,
}

/// A change of the terminal's size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryResize {
    /// It holds from this offset on.
    pub offset: u64,
    /// Milliseconds since the run began.
    pub at_ms: u64,
    /// The new size.
    pub size: TermSize,
}

/// Output that is missing: dropped at a cap, lost to a full disk, or skipped because the upload lagged too far behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryGap {
    /// First byte that is missing.
    pub from: u64,
    /// First byte that is there again.
    pub to: u64,
    /// Milliseconds since the run began.
    pub at_ms: u64,
}

/// What there is of one run of a session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryRun {
    /// Its number, from 1; grows with every restart of the session.
    pub epoch: u32,
    /// Offset behind the last byte that is known of.
    pub end: u64,
    /// Bytes that are there.
    pub bytes: u64,
    /// When it began, by the machine's clock.
    pub started_at: UnixMs,
    /// Its length in milliseconds.
    pub duration_ms: u64,
    /// Size at its beginning.
    pub size: TermSize,
    /// Its time line, thinned; idle times keep both their ends.
    pub points: Vec<HistoryPoint>,
    /// Changes of size.
    pub resizes: Vec<HistoryResize>,
    /// What is missing.
    pub gaps: Vec<HistoryGap>,
}

/// What there is of a session's past output.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionHistory {
    /// Where it comes from; chunks are to be asked from there.
    pub source: HistorySource,
    /// Its runs, oldest first.
    pub runs: Vec<HistoryRun>,
}

/// A part of a run's output.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryChunk {
    /// The run.
    pub epoch: u32,
    /// Bytes from here up to `start` are missing; equal to it if none are.
    pub from: u64,
    /// Offset of the first byte. It may lie below the offset that was asked for.
    pub start: u64,
    /// Offset behind the last byte.
    pub end: u64,
    /// Milliseconds since the run began, of the first byte.
    pub at_ms: u64,
    /// Size at `start`.
    pub size: TermSize,
    /// When further bytes came, in order.
    pub marks: Vec<HistoryPoint>,
    /// Changes of size in it.
    pub resizes: Vec<HistoryResize>,
    /// Escape sequences (base64) that bring a reset terminal of `size` to the screen at `start`, where there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screen: Option<String>,
    /// The bytes (base64).
    pub data: String,
    /// Offset of the next chunk; absent at the end of what there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A line of text that was found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryMatch {
    /// The session.
    pub session_id: SessionId,
    /// Its machine; absent in answers of the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<MachineId>,
    /// The session's name.
    pub name: String,
    /// The run.
    pub epoch: u32,
    /// Offset in the output by which the line stood there.
    pub offset: u64,
    /// Milliseconds since the run began.
    pub at_ms: u64,
    /// When, by the machine's clock.
    pub time: UnixMs,
    /// The line.
    pub line: String,
    /// The line before it, if it is known.
    #[serde(default)]
    pub before: Option<String>,
    /// The line after it, if it is known.
    #[serde(default)]
    pub after: Option<String>,
}

/// How far a relay has a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryPosition {
    /// The session.
    pub session: SessionId,
    /// The run.
    pub epoch: u32,
    /// Offset behind the last byte that the relay has, or knows to be missing.
    pub end: u64,
}

/// What became of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryOutcome {
    /// It is stored.
    Stored,
    /// It does not begin where the relay's copy ends: go on there.
    Elsewhere,
    /// The session is not known (yet). Try again later.
    Unknown,
    /// The relay keeps no more of this user, or the database is away. Try again later.
    Later,
}

/// Describes an uploaded chunk; see [`crate::wire::history`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ChunkHead {
    /// As in [`HistoryChunk`].
    pub from: u64,
    /// Offset behind the last byte.
    pub end: u64,
    /// Milliseconds since the run began, of the first byte.
    pub at_ms: u64,
    /// Milliseconds since the run began, of the last byte.
    pub end_ms: u64,
    /// When the first byte came, by the machine's clock.
    pub time: UnixMs,
    /// Size at the first byte.
    pub size: TermSize,
    /// As in [`HistoryChunk`].
    pub marks: Vec<HistoryPoint>,
    /// As in [`HistoryChunk`].
    pub resizes: Vec<HistoryResize>,
}

/// A line of text that people saw, as it is uploaded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkLine {
    /// Offset by which it stood there.
    pub offset: u64,
    /// Milliseconds since the run began.
    pub at_ms: u64,
    /// The text.
    pub text: String,
}

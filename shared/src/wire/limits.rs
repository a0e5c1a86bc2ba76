//! Sizes that every decoder enforces and every sender keeps. Each constant says why it is what it is.

/// Header of a binary frame.
pub const HEADER_BYTES: usize = 32;
/// Largest output payload: 16 PTY reads; larger frames gain nothing (measured).
pub const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// Largest input payload of one frame; larger pastes are chunked with the MORE flag.
pub const MAX_INPUT_BYTES: usize = 64 * 1024;
/// Largest snapshot: the worst case of 500 × 300 cells, each with its own colour, stays below.
pub const MAX_SNAPSHOT_BYTES: usize = 1024 * 1024;
/// Largest part of a history chunk: 64 KiB of output that does not compress, with what a filter held back before it;
/// compressed screens and lines are far smaller.
pub const MAX_HISTORY_PART_BYTES: usize = 256 * 1024;
/// What a part of a history chunk may become when it is unpacked: against a small frame that fills the memory.
pub const MAX_HISTORY_UNPACKED_BYTES: usize = 2 * 1024 * 1024;
/// Largest JSON message.
pub const MAX_TEXT_BYTES: usize = 256 * 1024;
/// Largest WebSocket message of any kind: a snapshot with its header.
pub const MAX_MESSAGE_BYTES: usize = MAX_SNAPSHOT_BYTES + HEADER_BYTES + 4;

/// Credit a viewer may have open: xterm.js stays responsive below about 500 KiB of pending bytes (measured).
pub const VIEWER_WINDOW_BYTES: u64 = 256 * 1024;
/// A viewer grants new credit whenever it has consumed this much.
pub const CREDIT_STEP_BYTES: u64 = 32 * 1024;
/// Credit between relay and agent for one stream: covers 100 ms at 10 MB/s.
pub const STREAM_WINDOW_BYTES: u64 = 1024 * 1024;
/// A viewer that lags more gets a snapshot instead of the backlog, unless it asked for every byte.
pub const DEFAULT_LAG_LIMIT_BYTES: u64 = 512 * 1024;
/// The most a viewer may ask to be allowed to lag; older bytes are an explicit gap.
pub const MAX_LAG_LIMIT_BYTES: u64 = 64 * 1024 * 1024;
/// Input that one writer may have unacknowledged.
pub const INPUT_WINDOW_BYTES: usize = 256 * 1024;
/// Attachments that one browser socket may hold: a grid of miniatures fits.
pub const MAX_ATTACHMENTS: usize = 64;

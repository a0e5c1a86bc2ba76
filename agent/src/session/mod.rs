//! One run of a session as the daemon sees it: the connection to its holder, the sanitised stream, the screen
//! model, writers and size.
//!
//! [`SessionHandle`] is the only way in. Nothing here knows relays, users or Claude Code. Nobody who reads can
//! slow the child down, and nobody who writes can get between the bytes of another's paste.

pub mod sanitise;
pub mod screen;

use std::path::PathBuf;

use bytes::Bytes;
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::session::{Exit, TermSize};
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::{Screen, StreamPosition};
use claudenest_shared::wire::frame::Frame;
use claudenest_shared::wire::holder::IoKind;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Which run to connect to.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The session.
    pub session: SessionId,
    /// The run.
    pub epoch: u32,
    /// Directory of the run, as in [`crate::holder::HolderSpec::dir`].
    pub dir: PathBuf,
    /// Socket of the holder.
    pub socket: PathBuf,
}

/// Something the supervisor wants to know.
#[derive(Clone, PartialEq, Debug)]
pub struct Notice {
    /// The session.
    pub session: SessionId,
    /// The run.
    pub epoch: u32,
    /// What happened.
    pub event: NoticeEvent,
}

/// What happened in a session.
#[derive(Clone, PartialEq, Debug)]
pub enum NoticeEvent {
    /// The child has written its first byte.
    FirstOutput,
    /// The child has ended. Store it, then call [`SessionHandle::acknowledge_exit`].
    Exited {
        /// How.
        exit: Exit,
        /// When.
        at: UnixMs,
        /// Bytes of output.
        offset: u64,
    },
    /// Title, size, owner of the size or number of viewers have changed; see [`SessionHandle::info_part`].
    Changed,
    /// The holder is gone without an exit: it was killed.
    HolderLost,
}

/// The part of [`claudenest_shared::session::SessionInfo`] that this module knows.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct InfoPart {
    /// Epoch.
    pub epoch: u32,
    /// Bytes of output so far.
    pub output_bytes: u64,
    /// Terminal size.
    pub size: TermSize,
    /// Label of the writer that owns the size.
    pub size_owner: Option<String>,
    /// Title without control characters.
    pub title: Option<String>,
    /// Open streams.
    pub viewers: u32,
    /// Process id of the child, while it lives.
    pub child_pid: Option<u32>,
    /// Process id of the holder, while it lives.
    pub holder_pid: Option<u32>,
    /// The exit, once known.
    pub exit: Option<Exit>,
    /// True if recording on disk stopped by an error.
    pub is_recording_failed: bool,
}

/// Why a holder could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens there: the holder is gone.
    #[error("the holder is gone")]
    Gone(#[source] std::io::Error),
    /// It answers something that is not the protocol.
    #[error("the holder does not speak the protocol")]
    Protocol,
}

/// Answer to [`SessionHandle::open_stream`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamOpened {
    /// Epoch.
    pub epoch: u32,
    /// First byte that will come (a snapshot may come first and say another).
    pub offset: u64,
    /// Bytes of output so far.
    pub head: u64,
    /// Size.
    pub size: TermSize,
}

/// Who wants to write.
#[derive(Clone, Debug)]
pub struct WriterOpen {
    /// Identity, kept over reconnects.
    pub writer: WriterId,
    /// For people: "browser of alice".
    pub label: String,
    /// True if its resizes may take the size when nobody owns it.
    pub may_size: bool,
    /// True for `attach` on this machine: it takes the size at its first resize.
    pub is_local_terminal: bool,
}

/// Answer to input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InputAck {
    /// The sequence number; with `refused` absent everything up to it was written.
    pub seq: u64,
    /// Why it was not written.
    pub refused: Option<ErrorCode>,
}

/// One run of a session. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    config: std::sync::Arc<SessionConfig>,
}

impl SessionHandle {
    /// Connects to a running holder.
    ///
    /// `notices` is awaited by a task of the session, so a slow supervisor delays notices, never output.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn connect(
        config: SessionConfig,
        notices: mpsc::Sender<Notice>,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self, ConnectError> {
        let _ = (config, notices, tasks, cancel);
        Err(ConnectError::Protocol)
    }

    /// A session whose holder is gone, from what is on disk: its last output can be read, nothing can be written.
    pub fn from_disk(config: SessionConfig, exit: Exit) -> Self {
        let _ = exit;
        Self { config: config.into() }
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.config.session
    }

    /// Its epoch.
    pub fn epoch(&self) -> u32 {
        self.config.epoch
    }

    /// How its streams are connected.
    pub fn io(&self) -> IoKind {
        IoKind::Pty
    }

    /// Opens a stream of output from a position, or from a snapshot.
    ///
    /// # Errors
    /// If there is nothing to read any more.
    pub fn open_stream(
        &self,
        from: Option<StreamPosition>,
        lag_limit_bytes: u64,
        credit: u64,
    ) -> Result<(StreamOpened, OutputStream), WireError> {
        let _ = (from, lag_limit_bytes, credit);
        Err(unavailable())
    }

    /// Opens a writer. The number is the highest of its sequence numbers that was written to the child.
    ///
    /// # Errors
    /// If the session has ended.
    pub fn open_writer(&self, open: WriterOpen) -> Result<(Writer, u64), WireError> {
        let _ = open;
        Err(unavailable())
    }

    /// Sends a signal to the child's process group and the terminal's foreground group.
    ///
    /// # Errors
    /// If the session has ended.
    pub fn signal(&self, signo: u8) -> Result<(), WireError> {
        let _ = signo;
        Err(unavailable())
    }

    /// Pipe sessions: no more input will come.
    ///
    /// # Errors
    /// If the session has ended.
    pub fn close_input(&self) -> Result<(), WireError> {
        Err(unavailable())
    }

    /// The screen as plain text.
    ///
    /// # Errors
    /// If the session has no terminal.
    pub async fn screen(&self) -> Result<Screen, WireError> {
        Err(unavailable())
    }

    /// Types `text`, as a bracketed paste where the program asked for that, then Enter if wanted. Returns after the write.
    ///
    /// # Errors
    /// If the session has ended or takes no input now.
    pub async fn send_text(&self, text: &str, enter: bool) -> Result<(), WireError> {
        let _ = (text, enter);
        Err(unavailable())
    }

    /// Writes bytes as they are (a line of `stream-json`, for pipe sessions). Returns after the write.
    ///
    /// # Errors
    /// As [`Self::send_text`].
    pub async fn send_bytes(&self, bytes: Bytes) -> Result<(), WireError> {
        let _ = bytes;
        Err(unavailable())
    }

    /// What goes into the session's description.
    pub fn info_part(&self) -> InfoPart {
        InfoPart::default()
    }

    /// Tells the holder that the exit is stored, so that it may go. Output stays readable through this handle.
    pub fn acknowledge_exit(&self) {}

    /// Ends the tasks of this run and its streams. The holder and its child are not touched.
    pub fn close(&self) {}
}

fn unavailable() -> WireError {
    WireError::new(ErrorCode::Unavailable, "This session cannot be used yet. Try again in a moment.")
}

/// Output of a session at its own pace.
#[derive(Debug)]
pub struct OutputStream {}

impl OutputStream {
    /// The next frame, with channel 0; `None` after the exit frame or when the session was closed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Frame> {
        None
    }

    /// The handle that grants credit and asks for snapshots.
    pub fn control(&self) -> StreamControl {
        StreamControl {}
    }
}

/// Steers an [`OutputStream`] from elsewhere.
#[derive(Clone, Debug)]
pub struct StreamControl {}

impl StreamControl {
    /// Allows `total` payload bytes since the stream was opened. Less than before is ignored.
    pub fn grant(&self, total: u64) {
        let _ = total;
    }

    /// Wants a snapshot at the current position.
    pub fn request_snapshot(&self) {}
}

/// One writer's attachment. Dropping it detaches.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Applies input, or refuses it; the answer comes as an ack.
    pub fn input(&self, seq: u64, flags: u8, bytes: Bytes) {
        let _ = (seq, flags, bytes);
    }

    /// Says which size this writer has.
    pub fn resize(&self, size: TermSize) {
        let _ = size;
    }

    /// Makes this writer the owner of the size.
    pub fn take_size(&self, size: TermSize) {
        let _ = size;
    }

    /// The receiver of this writer's acks; the first call gets it.
    pub fn take_acks(&mut self) -> Option<mpsc::Receiver<InputAck>> {
        None
    }
}

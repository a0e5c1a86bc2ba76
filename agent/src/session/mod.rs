//! One run of a session as the daemon sees it: the connection to its holder, the sanitised stream, the screen
//! model, writers and size.
//!
//! [`SessionHandle`] is the only way in. Nothing here knows relays, users or Claude Code. Nobody who reads can
//! slow the child down, and nobody who writes can get between the bytes of another's paste.

mod actor;
mod checkpoint;
mod core;
mod input;
pub(crate) mod paste;
mod queues;
mod ring;
pub mod sanitise;
pub mod screen;
mod shared;
mod size;
mod skim;
mod stream;
mod viewer;
mod writer;

pub use stream::{OutputStream, StreamControl};
pub use writer::{AckReceiver, Writer};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::session::{Exit, TermSize};
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::{Screen, StreamPosition};
use claudenest_shared::wire::holder::{
    HOLDER_PROTOCOL, HolderExit, HolderHello, InputState, IoKind, RecordingState, ToHolder,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::checkpoint::Checkpoint;
use self::core::Core;
use self::shared::Shared;
use self::viewer::Viewer;
use crate::holder::{IndexKind, Recording};

/// Reading 4 MiB from a holder takes milliseconds; a session is usable before, so this is no error.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);

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
#[derive(Clone)]
pub struct SessionHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionHandle").field("session", &self.shared.config.session).finish_non_exhaustive()
    }
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
        let connection = actor::connect(&config.socket, 0).await?;
        if connection.hello.epoch != config.epoch {
            return Err(ConnectError::Protocol);
        }
        let mut core = Core::of(&connection.hello, std::time::Instant::now());
        core.knew_sizes(&recorded_sizes(&Recording::of(&config.dir)));
        let hello = connection.hello.clone();
        let head = hello.head;
        let shared = Arc::new(Shared::new(config, core, hello, cancel.child_token()));
        if let Some(saved) = Checkpoint::read(&shared.config.dir) {
            shared.restore(saved);
        }
        let mut changed = shared.subscribe();
        actor::start(&shared, connection, notices, tasks);
        // Viewers that come back name offsets up to the holder's head; they must find them here.
        let catch_up = async { while shared.lock().raw_head() < head && changed.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(CATCH_UP_TIMEOUT, catch_up).await;
        Ok(Self { shared })
    }

    /// A run whose holder is gone, from what is on disk: its last output can be read, nothing can be written.
    ///
    /// Reads up to 4 MiB; call it where blocking for some milliseconds is allowed.
    pub fn from_disk(config: SessionConfig, exit: Exit) -> Self {
        let recording = Recording::of(&config.dir);
        let end =
            recording.segments().ok().and_then(|segments| segments.last().map(|(_, end)| *end)).unwrap_or(0);
        let start = recording
            .segments()
            .unwrap_or_default()
            .iter()
            .map(|(start, _)| *start)
            .find(|start| end - start <= core::RING_BYTES)
            .unwrap_or_else(|| end.saturating_sub(core::RING_BYTES));
        let sizes = recorded_sizes(&recording);
        let first = sizes
            .iter()
            .rev()
            .find(|(offset, _)| *offset <= start)
            .map_or(TermSize::default(), |(_, size)| *size);
        let last = sizes.last().map_or(first, |(_, size)| *size);
        let mut core = Core::new(config.epoch, start, first, last, u64::MAX);
        core.knew_sizes(&sizes);
        for (offset, size) in sizes.into_iter().filter(|(offset, _)| *offset > start) {
            core.resized(offset, size);
        }
        stream::fill_from_disk(&mut core, &recording, end);
        core.end(HolderExit { offset: end, exit, at: UnixMs(0) }, std::time::Instant::now());
        let hello = HolderHello {
            proto: HOLDER_PROTOCOL,
            holder_pid: 0,
            child_pid: 0,
            epoch: config.epoch,
            io: IoKind::Pty,
            recording: RecordingState::Off,
            tail: start,
            head: end,
            start,
            start_size: first,
            size: last,
            exit: None,
            writers: Vec::new(),
            input: InputState::default(),
        };
        let shared = Shared::new(config, core, hello, CancellationToken::new());
        if let Some(saved) = Checkpoint::read(&shared.config.dir) {
            shared.restore(saved);
        }
        Self { shared: Arc::new(shared) }
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.shared.config.session
    }

    /// Its epoch.
    pub fn epoch(&self) -> u32 {
        self.shared.config.epoch
    }

    /// How its streams are connected.
    pub fn io(&self) -> IoKind {
        self.shared.hello.io
    }

    /// Opens a stream of output from a position, or from a snapshot.
    ///
    /// # Errors
    /// If the run was closed.
    pub fn open_stream(
        &self,
        from: Option<StreamPosition>,
        lag_limit_bytes: u64,
        credit: u64,
    ) -> Result<(StreamOpened, OutputStream), WireError> {
        let core = self.shared.lock();
        if core.is_closed {
            return Err(WireError::new(ErrorCode::Unavailable, "The session is being restarted. Try again."));
        }
        let viewer = Viewer::open(&core, self.id(), from, lag_limit_bytes, credit);
        let opened = StreamOpened {
            epoch: core.epoch,
            offset: viewer.position(),
            head: core.head(),
            size: core.size_at(u64::MAX),
        };
        drop(core);
        self.shared.viewer_came();
        Ok((opened, OutputStream::new(Arc::clone(&self.shared), viewer)))
    }

    /// Opens a writer. The number is the highest of its sequence numbers that was written to the child.
    ///
    /// # Errors
    /// If the session has ended.
    pub fn open_writer(&self, open: WriterOpen) -> Result<(Writer, u64), WireError> {
        // Whose input has reached the child learns how much of it, also when the child has ended since: it must not be
        // told that what was delivered was not.
        let is_known = {
            let core = self.shared.lock();
            !core.is_closed && core.input.has_applied(open.writer.0)
        };
        if !is_known {
            self.shared.check_alive()?;
        }
        Ok(Writer::open(&self.shared, open))
    }

    /// Sends a signal to the child's process group and the terminal's foreground group.
    ///
    /// # Errors
    /// If the session has ended.
    pub fn signal(&self, signo: u8) -> Result<(), WireError> {
        self.shared.check_alive()?;
        self.shared.send(ToHolder::Signal { signo });
        Ok(())
    }

    /// Pipe sessions: no more input will come.
    ///
    /// # Errors
    /// If the session has ended.
    pub fn close_input(&self) -> Result<(), WireError> {
        self.shared.check_alive()?;
        self.shared.send(ToHolder::CloseInput);
        Ok(())
    }

    /// The screen as plain text.
    ///
    /// # Errors
    /// If the session has no terminal.
    pub async fn screen(&self) -> Result<Screen, WireError> {
        if self.io() == IoKind::Pipe {
            return Err(WireError::new(
                ErrorCode::Invalid,
                "This session has no terminal, so it has no screen.",
            ));
        }
        Ok(self.shared.screen())
    }

    /// Types `text`, as a bracketed paste where the program asked for that, then Enter if wanted. Returns after the write.
    ///
    /// # Errors
    /// If the session has ended or takes no input now.
    ///
    /// # Cancel safety
    /// If dropped, the text may have been typed.
    pub async fn send_text(&self, text: &str, enter: bool) -> Result<(), WireError> {
        let mut typed = writer::typed(text, self.io() == IoKind::Pty && self.shared.is_bracketed_paste());
        if enter {
            typed.extend_from_slice(if self.io() == IoKind::Pty { b"\r" } else { b"\n" });
        }
        self.send_bytes(typed.into()).await
    }

    /// Writes bytes as they are (a line of `stream-json`, for pipe sessions). Returns after the write.
    ///
    /// # Errors
    /// As [`Self::send_text`].
    ///
    /// # Cancel safety
    /// If dropped, the bytes may have been written.
    pub async fn send_bytes(&self, bytes: Bytes) -> Result<(), WireError> {
        self.shared.check_alive()?;
        writer::send(&self.shared, bytes).await
    }

    /// What goes into the session's description.
    pub fn info_part(&self) -> InfoPart {
        self.shared.info_part()
    }

    /// True if the holder was told to record.
    pub fn is_recorded(&self) -> bool {
        self.shared.hello.recording != RecordingState::Off
    }

    /// Notes that recording on disk has stopped, or goes on. True if that is news.
    pub fn note_recording(&self, is_failed: bool) -> bool {
        let is_news = std::mem::replace(&mut self.shared.lock().is_recording_failed, is_failed) != is_failed;
        if is_news {
            self.shared.notice(NoticeEvent::Changed);
        }
        is_news
    }

    /// Tells the holder that the exit is stored, so that it may go. Output stays readable through this handle.
    pub fn acknowledge_exit(&self) {
        self.shared.send(ToHolder::ExitAck);
    }

    /// Ends the tasks of this run and its streams. The holder and its child are not touched.
    pub fn close(&self) {
        self.shared.close();
    }
}

/// Changes of size in order; none if there is no recording.
fn recorded_sizes(recording: &Recording) -> Vec<(u64, TermSize)> {
    let records = recording.index().unwrap_or_default().into_iter();
    records
        .filter_map(|record| match record.kind {
            IndexKind::Resize(size) => Some((record.offset, size)),
            IndexKind::Data | IndexKind::Gap => None,
        })
        .collect()
}

//! One attached terminal: output in, keys out, over the control socket, across restarts of the daemon.

use std::time::{Duration, Instant};

use bytes::Bytes;
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::session::Exit as ChildExit;
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage, StreamPosition};
use claudenest_shared::wire::frame::{FLAG_REFUSED, Frame, FrameKind, encode_size};
use claudenest_shared::wire::limits::{CREDIT_STEP_BYTES, MAX_LAG_LIMIT_BYTES, VIEWER_WINDOW_BYTES};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::input::{InputQueue, Piece};
use super::terminal::{self, Display, Keyboard, RawMode};
use crate::config::keys::{DetachFilter, DetachKeys};
use crate::control::{Client, ClientError, Identity, Incoming, Receiver, Sender};

const STREAM: u16 = 1;
const WRITER: u16 = 2;
/// A daemon that restarts is back within a second or two; one that was stopped on purpose is given up.
const DAEMON_PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries to reach the daemon, and to open a session that is still starting.
const RETRY: Duration = Duration::from_millis(100);
/// A session that was just created may take this long until it has a screen.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// After this long without the daemon the person is told.
const QUIET: Duration = Duration::from_secs(2);

/// How to attach.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) is_read_only: bool,
    pub(super) takes_size: bool,
    pub(super) may_size: bool,
    pub(super) detach_keys: DetachKeys,
    pub(super) label: String,
}

/// Why an attachment ended.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum End {
    /// The person typed the detach keys.
    Detached,
    /// The child has ended.
    Exited(ChildExit),
    /// A signal ended this program, or the terminal went away.
    Hangup,
    /// The daemon did not come back.
    DaemonGone,
    /// The session cannot be shown any more.
    Refused(WireError),
}

/// What an attachment learned for the message at its end.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Outcome {
    pub(super) end: End,
    /// Typed bytes that did not reach the session.
    pub(super) undelivered: usize,
}

struct View {
    session: SessionId,
    socket: std::path::PathBuf,
    options: Options,
    writer: WriterId,
    sender: Sender,
    receiver: Receiver,
    display: Display,
    input: InputQueue,
    position: Option<StreamPosition>,
    /// Payload bytes received on the stream since it was opened.
    received: u64,
    /// Bytes handed to the display in all, and the part of them that counts as payload of this stream.
    shown: u64,
    granted: u64,
    is_writer_open: bool,
    is_stream_open: bool,
    opened_at: Instant,
    undelivered: usize,
    size_wanted: bool,
}

/// Attaches this terminal until the person leaves or the session ends.
pub(super) async fn attach(
    client: Client,
    socket: std::path::PathBuf,
    session: SessionId,
    options: Options,
) -> std::io::Result<Outcome> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    let mut keyboard = Keyboard::new()?;
    let mut signals = Signals::new()?;
    let mut filter = DetachFilter::new(options.detach_keys.clone());
    let raw = RawMode::enter()?;
    let display = Display::new()?;
    let (sender, receiver) = client.into_halves();
    let mut view = View {
        session,
        socket,
        options,
        writer: WriterId(u64::from_le_bytes(random)),
        sender,
        receiver,
        display,
        input: InputQueue::default(),
        position: None,
        received: 0,
        shown: 0,
        granted: 0,
        is_writer_open: false,
        is_stream_open: false,
        opened_at: Instant::now(),
        undelivered: 0,
        size_wanted: true,
    };
    let rows = terminal::size().map_or(24, |size| size.rows);
    view.show(terminal::keep_screen(rows).into()).await;
    let mut is_open = view.open().await.is_ok();
    let end = loop {
        if !is_open {
            match view.reconnect(&mut keyboard, &mut signals, &mut filter).await {
                Ok(()) => is_open = true,
                Err(end) => break end,
            }
            continue;
        }
        let is_reading = view.options.is_read_only || !view.input.is_full();
        let step = tokio::select! {
            incoming = view.receiver.next() => view.incoming(incoming).await,
            typed = keyboard.read(), if is_reading => match typed {
                Ok([]) | Err(_) => Err(Stop::End(End::Hangup)),
                Ok(bytes) => {
                    let typed = filter.feed(bytes);
                    let is_leaving = typed.is_detach || view.options.is_read_only && typed.bytes.contains(&3);
                    let sent = view.typed(&typed.bytes).await;
                    if is_leaving { Err(Stop::End(End::Detached)) } else { sent }
                }
            },
            changed = view.display.written.changed() => match changed {
                Ok(()) => view.grant().await,
                Err(_) => Err(Stop::End(End::Hangup)),
            },
            event = signals.next() => match event {
                SignalEvent::End => Err(Stop::End(End::Hangup)),
                SignalEvent::Resize => view.resize().await,
                SignalEvent::Continue => {
                    raw.again()?;
                    view.sender.message(&RelayMessage::StreamSnapshot { channel: STREAM }).await.map_err(Stop::from)
                }
            },
        };
        match step {
            Ok(()) => {}
            Err(Stop::Lost) => is_open = false,
            Err(Stop::End(end)) => break end,
        }
    };
    view.display.finish().await;
    drop(raw);
    Ok(Outcome { end, undelivered: view.undelivered })
}

enum Stop {
    /// The daemon is gone; it may come back.
    Lost,
    End(End),
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(error) => Self::End(End::Refused(error)),
            ClientError::Protocol => Self::End(End::Refused(WireError::new(
                ErrorCode::VersionMismatch,
                ClientError::Protocol.to_string(),
            ))),
            _ => Self::Lost,
        }
    }
}

type Step = Result<(), Stop>;

impl View {
    /// Opens writer and stream on a fresh connection.
    async fn open(&mut self) -> Step {
        (self.is_writer_open, self.is_stream_open) = (false, false);
        if !self.options.is_read_only {
            self.sender
                .message(&RelayMessage::WriterOpen {
                    channel: WRITER,
                    session: self.session,
                    writer: self.writer,
                    label: self.options.label.clone(),
                    may_size: self.options.may_size,
                })
                .await?;
        }
        self.open_stream().await
    }

    async fn open_stream(&mut self) -> Step {
        (self.received, self.granted) = (0, VIEWER_WINDOW_BYTES);
        self.shown = *self.display.written.borrow();
        let open = RelayMessage::StreamOpen {
            channel: STREAM,
            session: self.session,
            from: self.position,
            lag_limit_bytes: MAX_LAG_LIMIT_BYTES,
            credit: VIEWER_WINDOW_BYTES,
        };
        Ok(self.sender.message(&open).await?)
    }

    async fn incoming(&mut self, incoming: Result<Incoming, ClientError>) -> Step {
        match incoming? {
            Incoming::Frame(frame) => self.frame(frame).await,
            Incoming::Failed(error) => Err(Stop::End(End::Refused(error))),
            Incoming::Message(message) => match *message {
                AgentMessage::StreamOpened { channel: STREAM, epoch, offset, .. } => {
                    self.is_stream_open = true;
                    self.position = Some(StreamPosition { epoch, offset });
                    Ok(())
                }
                AgentMessage::WriterOpened { channel: WRITER, acked } => {
                    self.is_writer_open = true;
                    let (again, lost) = self.input.reconnect(acked, Instant::now());
                    self.undelivered += lost;
                    for piece in again {
                        self.send(piece).await?;
                    }
                    if std::mem::take(&mut self.size_wanted) { self.announce_size().await } else { Ok(()) }
                }
                AgentMessage::ChannelClosed { channel, error } => self.closed(channel, error).await,
                _ => Ok(()),
            },
        }
    }

    /// A channel was refused or ended. A session that is still starting is asked again.
    async fn closed(&mut self, channel: u16, error: Option<WireError>) -> Step {
        let Some(error) = error else { return Ok(()) };
        // An ended session takes no input, but its last screen can be seen.
        if channel == WRITER {
            let is_over = matches!(error.code, ErrorCode::SessionEnded | ErrorCode::ReadOnly);
            self.options.is_read_only |= is_over;
            if is_over {
                return Ok(());
            }
        }
        let may_come =
            matches!(error.code, ErrorCode::NotFound | ErrorCode::Unavailable | ErrorCode::Conflict);
        if !may_come || self.is_stream_open || self.opened_at.elapsed() > START_PATIENCE {
            return Err(Stop::End(End::Refused(error)));
        }
        sleep(RETRY).await;
        if channel == WRITER {
            let open = RelayMessage::WriterOpen {
                channel: WRITER,
                session: self.session,
                writer: self.writer,
                label: self.options.label.clone(),
                may_size: self.options.may_size,
            };
            return Ok(self.sender.message(&open).await?);
        }
        self.open_stream().await
    }

    async fn frame(&mut self, frame: Frame) -> Step {
        match frame.kind {
            FrameKind::Output => {
                let offset = frame.offset + frame.payload.len() as u64;
                self.position = Some(StreamPosition { epoch: frame.epoch, offset });
                self.received += frame.payload.len() as u64;
                self.show(frame.payload).await;
            }
            FrameKind::Snapshot => {
                self.position = Some(StreamPosition { epoch: frame.epoch, offset: frame.offset });
                self.received += frame.payload.len() as u64;
                let mut bytes = terminal::blank();
                bytes.extend_from_slice(&frame.payload[4..]);
                self.show(bytes.into()).await;
            }
            FrameKind::InputAck if frame.flags & FLAG_REFUSED != 0 => {
                let code = ErrorCode::from_text(&String::from_utf8_lossy(&frame.payload));
                // A full queue drains; the same number may be sent again.
                if code != ErrorCode::InputFull {
                    self.input.acknowledge(frame.offset);
                }
                self.undelivered += 1;
            }
            FrameKind::InputAck => self.input.acknowledge(frame.offset),
            FrameKind::Exit => {
                let exit = frame.exit().unwrap_or(ChildExit::Lost {});
                return Err(Stop::End(End::Exited(exit)));
            }
            FrameKind::Resize | FrameKind::Input | FrameKind::Credit => {}
        }
        self.grant().await
    }

    /// Grants credit for what the terminal has really taken.
    async fn grant(&mut self) -> Step {
        let written = self.display.written.borrow_and_update().saturating_sub(self.shown);
        // Reset sequences around snapshots count a little too much; the cap keeps the grant honest.
        let consumed = written.min(self.received);
        let wanted = consumed + VIEWER_WINDOW_BYTES;
        if wanted < self.granted + CREDIT_STEP_BYTES {
            return Ok(());
        }
        self.granted = wanted;
        Ok(self.sender.frame(&self.make(FrameKind::Credit, STREAM, wanted, 0, Bytes::new())).await?)
    }

    async fn typed(&mut self, bytes: &[u8]) -> Step {
        if bytes.is_empty() || self.options.is_read_only {
            return Ok(());
        }
        for piece in self.input.push(bytes, Instant::now()) {
            // Before the writer is open the queue keeps it; `writer_opened` sends it.
            if self.is_writer_open {
                self.send(piece).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, piece: Piece) -> Step {
        let frame = self.make(FrameKind::Input, WRITER, piece.seq, piece.flags, piece.bytes);
        Ok(self.sender.frame(&frame).await?)
    }

    async fn resize(&mut self) -> Step {
        if !self.is_writer_open {
            self.size_wanted = true;
            return Ok(());
        }
        self.announce_size().await
    }

    async fn announce_size(&mut self) -> Step {
        let (true, Some(size)) = (self.options.may_size, terminal::size()) else { return Ok(()) };
        if std::mem::take(&mut self.options.takes_size) {
            return Ok(self.sender.message(&RelayMessage::TakeSize { channel: WRITER, size }).await?);
        }
        Ok(self.sender.frame(&self.make(FrameKind::Resize, WRITER, 0, 0, encode_size(size))).await?)
    }

    fn make(&self, kind: FrameKind, channel: u16, offset: u64, flags: u8, payload: Bytes) -> Frame {
        let epoch = self.position.map_or(0, |position| position.epoch);
        Frame { kind, flags, channel, epoch, session: self.session, offset, payload }
    }

    async fn show(&self, bytes: Bytes) {
        if let Some(place) = self.display.reserve().await {
            place.send(bytes);
        }
    }

    /// Waits for the daemon to come back. Keys are kept; the detach keys work.
    async fn reconnect(
        &mut self,
        keyboard: &mut Keyboard,
        signals: &mut Signals,
        filter: &mut DetachFilter,
    ) -> Result<(), End> {
        let lost_at = Instant::now();
        let mut is_told = false;
        self.is_writer_open = false;
        loop {
            if let Ok(client) = Client::connect(&self.socket, &Identity::from_env()).await {
                (self.sender, self.receiver) = client.into_halves();
                if is_told {
                    // The notice stands on the screen: draw it anew.
                    self.position = None;
                }
                self.opened_at = Instant::now();
                self.size_wanted = true;
                if self.open().await.is_ok() {
                    return Ok(());
                }
            }
            if lost_at.elapsed() > DAEMON_PATIENCE {
                return Err(End::DaemonGone);
            }
            if !is_told && lost_at.elapsed() > QUIET {
                is_told = true;
                let text = format!(
                    "\x1b7\x1b[999;1H\x1b[7m The daemon is away; the session goes on. {} leaves. \x1b[0m\x1b8",
                    self.options.detach_keys.label()
                );
                self.show(text.into()).await;
            }
            let is_reading = !self.input.is_full();
            tokio::select! {
                () = sleep(RETRY) => {}
                typed = keyboard.read(), if is_reading => match typed {
                    Ok([]) | Err(_) => return Err(End::Hangup),
                    Ok(bytes) => {
                        let typed = filter.feed(bytes);
                        if !self.options.is_read_only && !typed.bytes.is_empty() {
                            self.input.push(&typed.bytes, Instant::now());
                        }
                        if typed.is_detach {
                            return Err(End::Detached);
                        }
                    }
                },
                event = signals.next() => if event == SignalEvent::End { return Err(End::Hangup) },
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum SignalEvent {
    Resize,
    Continue,
    End,
}

struct Signals {
    resize: Signal,
    go_on: Signal,
    ends: [Signal; 4],
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            resize: signal(SignalKind::window_change())?,
            go_on: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
            ends: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
            ],
        })
    }

    async fn next(&mut self) -> SignalEvent {
        let [a, b, c, d] = &mut self.ends;
        tokio::select! {
            _ = self.resize.recv() => SignalEvent::Resize,
            _ = self.go_on.recv() => SignalEvent::Continue,
            _ = a.recv() => SignalEvent::End,
            _ = b.recv() => SignalEvent::End,
            _ = c.recv() => SignalEvent::End,
            _ = d.recv() => SignalEvent::End,
        }
    }
}

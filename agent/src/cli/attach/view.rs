//! One attached terminal: output in, keys out, over the control socket, across restarts of the daemon.

use std::time::{Duration, Instant};

use bytes::Bytes;
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::session::{Exit as ChildExit, TermSize};
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage, StreamPosition};
use claudenest_shared::wire::frame::{FLAG_REFUSED, Frame, FrameKind, encode_size};
use claudenest_shared::wire::limits::{CREDIT_STEP_BYTES, MAX_LAG_LIMIT_BYTES, VIEWER_WINDOW_BYTES};
use tokio::time::sleep;

use super::fit::{self, Fit};
use super::input::InputQueue;
use super::signals::{SignalEvent, Signals};
use super::terminal::{self, Display, Keyboard, RawMode};
use crate::config::keys::{DetachFilter, DetachKeys, has_key};
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
    /// Bytes that were typed and did not reach the session.
    pub(super) undelivered: usize,
    /// The session's size, if it is not this terminal's.
    pub(super) misfit: Option<TermSize>,
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
    /// When refused input goes again; nothing else is sent before.
    resend_at: Option<tokio::time::Instant>,
    /// Size of the session.
    size: TermSize,
    /// Payload bytes that the display never got.
    skipped: u64,
    /// When a difference of the sizes is taken for lasting.
    misfit_at: Option<tokio::time::Instant>,
    wants_fit: bool,
    fit: Option<Fit>,
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
        resend_at: None,
        size: terminal::size().unwrap_or_default(),
        skipped: 0,
        misfit_at: None,
        wants_fit: false,
        fit: None,
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
        let deadline = view.deadline();
        let step = tokio::select! {
            incoming = view.receiver.next() => view.incoming(incoming).await,
            typed = keyboard.read(), if is_reading => match typed {
                Ok([]) | Err(_) => Err(Stop::End(End::Hangup)),
                Ok(bytes) => {
                    let typed = filter.feed(bytes);
                    let is_leaving = typed.is_detach || view.options.is_read_only && has_key(&typed.bytes, 3);
                    let sent = view.typed(&typed.bytes).await;
                    if is_leaving { Err(Stop::End(End::Detached)) } else { sent }
                }
            },
            changed = view.display.written.changed() => match changed {
                Ok(()) => view.grant().await,
                Err(_) => Err(Stop::End(End::Hangup)),
            },
            () = at(deadline) => view.on_deadline().await,
            event = signals.next() => match event {
                SignalEvent::End => Err(Stop::End(End::Hangup)),
                SignalEvent::Resize => {
                    view.compare_sizes();
                    view.resize().await
                }
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
    // What was sent arrives also when nobody waits for it, as long as there is a machine to take it.
    view.undelivered += match end {
        End::Detached | End::Hangup => view.input.unsent_bytes(),
        End::Exited(_) | End::DaemonGone | End::Refused(_) => view.input.give_up(),
    };
    let misfit = view.fit.as_ref().map(|_| view.size);
    view.display.finish().await;
    drop(raw);
    Ok(Outcome { end, undelivered: view.undelivered, misfit })
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
            self.open_writer().await?;
        }
        self.open_stream().await
    }

    async fn open_writer(&mut self) -> Step {
        self.is_writer_open = false;
        let open = RelayMessage::WriterOpen {
            channel: WRITER,
            session: self.session,
            writer: self.writer,
            label: self.options.label.clone(),
            may_size: self.options.may_size,
        };
        Ok(self.sender.message(&open).await?)
    }

    async fn open_stream(&mut self) -> Step {
        (self.received, self.granted, self.skipped) = (0, VIEWER_WINDOW_BYTES, 0);
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
                AgentMessage::StreamOpened { channel: STREAM, epoch, offset, size, .. } => {
                    self.is_stream_open = true;
                    self.position = Some(StreamPosition { epoch, offset });
                    self.sized(size).await
                }
                AgentMessage::WriterOpened { channel: WRITER, acked } => {
                    self.is_writer_open = true;
                    self.undelivered += self.input.reconnect(acked, Instant::now());
                    self.resend_at = None;
                    self.pump().await?;
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
        // A writer alone is closed when its answers could not be kept: the next attachment learns them.
        let is_writer_lost = channel == WRITER && self.is_writer_open && error.code == ErrorCode::Unavailable;
        if !may_come || self.is_stream_open && !is_writer_lost || self.opened_at.elapsed() > START_PATIENCE {
            return Err(Stop::End(End::Refused(error)));
        }
        sleep(RETRY).await;
        if channel == WRITER { self.open_writer().await } else { self.open_stream().await }
    }

    async fn frame(&mut self, frame: Frame) -> Step {
        match frame.kind {
            FrameKind::Output => {
                let offset = frame.offset + frame.payload.len() as u64;
                self.position = Some(StreamPosition { epoch: frame.epoch, offset });
                self.received += frame.payload.len() as u64;
                self.output(frame.payload).await?;
            }
            FrameKind::Snapshot => {
                self.position = Some(StreamPosition { epoch: frame.epoch, offset: frame.offset });
                self.received += frame.payload.len() as u64;
                self.snapshot(&frame).await?;
            }
            FrameKind::InputAck if frame.flags & FLAG_REFUSED != 0 => self.refused(&frame).await?,
            FrameKind::InputAck => {
                self.input.acknowledge(frame.offset);
                self.pump().await?;
            }
            FrameKind::Exit => {
                let exit = frame.exit().unwrap_or(ChildExit::Lost {});
                if let Some(screen) = self.draw() {
                    self.show(screen.into()).await;
                }
                return Err(Stop::End(End::Exited(exit)));
            }
            FrameKind::Resize => {
                if let Some(size) = frame.size() {
                    self.sized(size).await?;
                }
            }
            FrameKind::Input | FrameKind::Credit | FrameKind::History => {}
        }
        self.grant().await
    }

    async fn output(&mut self, bytes: Bytes) -> Step {
        let Some(fit) = &mut self.fit else {
            self.show(bytes).await;
            return Ok(());
        };
        fit.process(&bytes);
        self.skipped += bytes.len() as u64;
        if fit.is_broken() {
            self.sender.message(&RelayMessage::StreamSnapshot { channel: STREAM }).await?;
        }
        Ok(())
    }

    async fn snapshot(&mut self, frame: &Frame) -> Step {
        if let Some(size) = frame.size() {
            self.size = size;
        }
        let screen = &frame.payload[4..];
        self.wants_fit &= terminal::size().is_some_and(|size| size != self.size);
        if self.wants_fit {
            self.skipped += frame.payload.len() as u64;
            self.fit = Some(Fit::new(self.size, screen));
        } else {
            self.fit = None;
            let mut bytes = terminal::blank();
            bytes.extend_from_slice(screen);
            self.show(bytes.into()).await;
            self.compare_sizes();
        }
        Ok(())
    }

    /// The session has this size from here on.
    async fn sized(&mut self, size: TermSize) -> Step {
        self.size = size;
        if let Some(fit) = &mut self.fit {
            fit.resize(size);
        }
        self.compare_sizes();
        Ok(())
    }

    /// Looks whether the session and this terminal still have the same size.
    fn compare_sizes(&mut self) {
        let differs = terminal::size().is_some_and(|size| size != self.size);
        if differs == self.wants_fit {
            self.misfit_at = None;
        } else {
            let patience = if differs { fit::PATIENCE } else { Duration::ZERO };
            self.misfit_at.get_or_insert_with(|| tokio::time::Instant::now() + patience);
        }
        if let Some(fit) = &mut self.fit {
            fit.draw_soon();
        }
    }

    /// The machine did not take a piece of input.
    async fn refused(&mut self, frame: &Frame) -> Step {
        let seq = frame.offset;
        match ErrorCode::from_text(&String::from_utf8_lossy(&frame.payload)) {
            // A full queue drains; everything from this piece on goes again, under the same numbers.
            ErrorCode::InputFull => {
                self.resend_at.get_or_insert_with(|| tokio::time::Instant::now() + RETRY);
            }
            // Behind a refused piece every other has a gap before it: that is no news.
            ErrorCode::Conflict if !self.input.is_first(seq) => {
                self.resend_at.get_or_insert_with(|| tokio::time::Instant::now() + RETRY);
            }
            // The machine does not know what came before: ask what it has.
            ErrorCode::Conflict => self.open_writer().await?,
            _ => self.undelivered += self.input.give_up(),
        }
        Ok(())
    }

    fn deadline(&self) -> Option<tokio::time::Instant> {
        let draw = self.fit.as_ref().and_then(Fit::deadline);
        [self.resend_at, self.misfit_at, draw].into_iter().flatten().min()
    }

    async fn on_deadline(&mut self) -> Step {
        let now = tokio::time::Instant::now();
        let is_due = |at: Option<tokio::time::Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.resend_at) {
            self.resend_at = None;
            self.input.rewind();
            self.pump().await?;
        }
        if is_due(self.misfit_at) {
            self.misfit_at = None;
            self.wants_fit = !self.wants_fit;
            self.sender.message(&RelayMessage::StreamSnapshot { channel: STREAM }).await?;
        }
        if is_due(self.fit.as_ref().and_then(Fit::deadline))
            && let Some(screen) = self.draw()
        {
            self.show(screen.into()).await;
        }
        Ok(())
    }

    fn draw(&mut self) -> Option<Vec<u8>> {
        self.fit.as_mut()?.draw(terminal::size()?)
    }

    /// Grants credit for what the terminal has really taken.
    async fn grant(&mut self) -> Step {
        let written = self.display.written.borrow_and_update().saturating_sub(self.shown);
        // Reset sequences around snapshots count a little too much; the cap keeps the grant honest.
        let consumed = (written + self.skipped).min(self.received);
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
        self.input.push(bytes, Instant::now());
        self.pump().await
    }

    /// Sends what waits, as far as the window goes. Before the writer is open the queue keeps it.
    async fn pump(&mut self) -> Step {
        if !self.is_writer_open || self.resend_at.is_some() {
            return Ok(());
        }
        while let Some(piece) = self.input.next_to_send() {
            let frame = self.make(FrameKind::Input, WRITER, piece.seq, piece.flags, piece.bytes);
            self.sender.frame(&frame).await?;
        }
        Ok(())
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
        self.display.show(bytes).await;
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

/// Waits for a moment; for ever without one.
async fn at(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

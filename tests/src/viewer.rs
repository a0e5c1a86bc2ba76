//! A viewer of one session through the relay that behaves as the web app must: it names the next byte it wants, grants credit, comes back after
//! every break, numbers its input and sends again what was not acknowledged. It checks every promise on the way: no gap, no byte twice, one exit.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::session::Exit;
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::browser::{BrowserMessage, ServerMessage};
use claudenest_shared::wire::frame::{FLAG_GAP, FLAG_MORE, FLAG_REFUSED, Frame, FrameKind};
use claudenest_shared::wire::limits::{
    INPUT_WINDOW_BYTES, MAX_INPUT_BYTES, MAX_LAG_LIMIT_BYTES, STREAM_WINDOW_BYTES,
};
use sha2::{Digest, Sha256};

use crate::browser::{Event, Socket};
use crate::http::Http;
use crate::random;

/// The channel that viewers use on their sockets.
const CHANNEL: u16 = 7;

/// What a viewer has seen so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Bytes of output, contiguous from the start of the attachment.
    pub bytes: u64,
    /// The end of each run that was reported. The same end told again is not a second one, see `repeated_exits`.
    pub exits: Vec<Exit>,
    /// Ends that were told again, with the same run, place and status, after the viewer had attached again.
    pub repeated_exits: u32,
    /// Breaks of the socket that were mended.
    pub reconnects: u32,
    /// Snapshots that arrived.
    pub snapshots: u32,
    /// Snapshots that said bytes were left out.
    pub gaps: u32,
}

/// A viewer that wants every byte.
pub struct Viewer {
    user: Http,
    session: SessionId,
    writer: WriterId,
    socket: Option<Socket>,
    from: Option<StreamPosition>,
    is_attached: bool,
    is_link_up: bool,
    /// Payload bytes consumed on the present channel, for its credit.
    consumed: u64,
    granted: u64,
    hash: Sha256,
    tail: Vec<u8>,
    keep: Option<Vec<u8>>,
    seen: Seen,
    /// Where each run ended, and how.
    ends: Vec<(StreamPosition, Exit)>,
    /// The present attachment was told of an exit.
    has_exit: bool,
    next_sequence: u64,
    unacked: VecDeque<Frame>,
}

impl Viewer {
    /// Attaches to the session's output from its first byte, as soon as the relay knows the session: a machine that
    /// started one has told its user before it tells the relay.
    ///
    /// # Errors
    /// If the relay refuses, or never hears of the session.
    pub async fn attach(user: &Http, session: SessionId) -> Result<Self> {
        let mut socket = Box::pin(Socket::open(user)).await?;
        let known = socket.sessions.iter().find(|info| info.id == session).map(|info| info.epoch);
        let epoch = match known {
            Some(epoch) => epoch,
            None => socket
                .wait_for(|message| match message {
                    ServerMessage::Session { session: info } if info.id == session => Some(info.epoch),
                    _ => None,
                })
                .await
                .context("waiting for the relay to know the session")?,
        };
        Box::pin(Self::attach_from(user, session, Some(StreamPosition { epoch, offset: 0 }))).await
    }

    /// Attaches at a position, or with a snapshot.
    ///
    /// # Errors
    /// If the relay refuses.
    pub async fn attach_from(user: &Http, session: SessionId, from: Option<StreamPosition>) -> Result<Self> {
        let mut viewer = Self {
            user: user.clone(),
            session,
            writer: WriterId(u64::from_le_bytes(random())),
            socket: None,
            from,
            is_attached: false,
            is_link_up: true,
            consumed: 0,
            granted: 0,
            hash: Sha256::new(),
            tail: Vec::new(),
            keep: None,
            seen: Seen::default(),
            ends: Vec::new(),
            has_exit: false,
            next_sequence: 1,
            unacked: VecDeque::new(),
        };
        viewer.connect().await?;
        viewer.until(|viewer| viewer.is_attached).await?;
        Ok(viewer)
    }

    /// What it has seen.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// SHA-256 of every output byte so far, in order, hexadecimal.
    pub fn sha256(&self) -> String {
        crate::hex(&self.hash.clone().finalize())
    }

    /// Position of the next byte.
    pub fn position(&self) -> Option<StreamPosition> {
        self.from
    }

    /// Keeps the output from now on; see [`Viewer::kept`].
    pub fn keep_output(&mut self) {
        self.keep = Some(Vec::new());
    }

    /// Payloads of snapshots (without their size) and output since [`Viewer::keep_output`].
    pub fn kept(&self) -> &[u8] {
        self.keep.as_deref().unwrap_or_default()
    }

    /// Cuts the socket, as a network that goes away does; the next event reconnects.
    pub fn cut(&mut self) {
        self.socket = None;
    }

    /// Comes back after a break: handles events until it is attached and the machine is linked.
    ///
    /// # Errors
    /// If a promise is broken, or the relay does not come back.
    pub async fn come_back(&mut self) -> Result<()> {
        self.until(|viewer| viewer.socket.is_some() && viewer.is_attached && viewer.is_link_up).await
    }

    /// Number of input frames without an acknowledgement.
    pub fn unacked(&self) -> usize {
        self.unacked.len()
    }

    /// Sends input and waits until all of it has reached the PTY.
    ///
    /// # Errors
    /// If it was refused, or never acknowledged.
    pub async fn write(&mut self, input: &[u8]) -> Result<()> {
        self.send(input).await?;
        self.until(|viewer| viewer.unacked.is_empty()).await
    }

    /// Sends input and does not wait for it to arrive; what a fault swallows goes again with the next attachment.
    ///
    /// # Errors
    /// If a promise is broken while it waits for room.
    pub async fn send(&mut self, input: &[u8]) -> Result<()> {
        let total = input.chunks(MAX_INPUT_BYTES / 2).count();
        for (index, chunk) in input.chunks(MAX_INPUT_BYTES / 2).enumerate() {
            self.until(|viewer| {
                viewer.unacked.iter().map(|frame| frame.payload.len()).sum::<usize>() + chunk.len()
                    <= INPUT_WINDOW_BYTES
            })
            .await?;
            let frame = Frame {
                kind: FrameKind::Input,
                flags: if index + 1 < total { FLAG_MORE } else { 0 },
                channel: CHANNEL,
                epoch: 0,
                session: self.session,
                offset: self.next_sequence,
                payload: Bytes::copy_from_slice(chunk),
            };
            self.next_sequence += 1;
            self.unacked.push_back(frame.clone());
            self.send_frame(&frame).await;
        }
        Ok(())
    }

    /// Handles events until the output ends with or contains `text` in its last kilobytes.
    ///
    /// # Errors
    /// If it never comes.
    pub async fn until_text(&mut self, text: &str) -> Result<()> {
        let wanted = text.as_bytes().to_owned();
        let result = self
            .until(|viewer| {
                viewer.tail.windows(wanted.len().max(1)).any(|window| window == wanted.as_slice())
            })
            .await;
        result
            .with_context(|| format!("waiting for {text:?} after {:?}", String::from_utf8_lossy(&self.tail)))
    }

    /// Handles events until the child has ended.
    ///
    /// # Errors
    /// If it does not.
    pub async fn until_exit(&mut self) -> Result<Exit> {
        self.until(|viewer| !viewer.seen.exits.is_empty()).await?;
        self.seen.exits.first().copied().context("an exit")
    }

    /// Handles events until `is_done`. Reconnects after breaks.
    ///
    /// # Errors
    /// If a promise is broken, or nothing happens for too long.
    pub async fn until(&mut self, mut is_done: impl FnMut(&Self) -> bool) -> Result<()> {
        while !is_done(self) {
            self.step().await?;
        }
        Ok(())
    }

    /// Handles every event that comes within `time`.
    ///
    /// # Errors
    /// If a promise is broken.
    pub async fn follow(&mut self, time: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + time;
        loop {
            match tokio::time::timeout_at(deadline, self.step()).await {
                Ok(step) => step?,
                Err(_) => return Ok(()),
            }
        }
    }

    async fn step(&mut self) -> Result<()> {
        let Some(socket) = self.socket.as_mut() else {
            self.seen.reconnects += 1;
            return self.connect().await;
        };
        match socket.next().await {
            Ok(Event::Frame(frame)) => self.on_frame(&frame).await,
            Ok(Event::Message(message)) => self.on_message(*message).await,
            Ok(Event::Closed(_)) | Err(_) => {
                self.socket = None;
                self.is_attached = false;
                Ok(())
            }
        }
    }

    /// Connects again and again until the relay is there.
    async fn connect(&mut self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + crate::PATIENCE;
        let mut socket = loop {
            let error = match Box::pin(Socket::open(&self.user)).await {
                Ok(socket) => break socket,
                Err(error) => error,
            };
            if tokio::time::Instant::now() > deadline {
                return Err(error.context("coming back to the relay"));
            }
            // A refused connection answers at once: without a pause this would be a busy loop.
            let mut pause = tokio::time::interval(Duration::from_millis(100));
            pause.tick().await;
            pause.tick().await;
        };
        self.consumed = 0;
        self.granted = STREAM_WINDOW_BYTES;
        self.is_attached = false;
        self.has_exit = false;
        socket
            .send(&BrowserMessage::Attach {
                channel: CHANNEL,
                session: self.session,
                from: self.from,
                writer: Some(self.writer),
                may_size: false,
                lag_limit_bytes: Some(MAX_LAG_LIMIT_BYTES),
                credit: self.granted,
            })
            .await?;
        self.socket = Some(socket);
        Ok(())
    }

    async fn send_frame(&mut self, frame: &Frame) {
        if let Some(socket) = self.socket.as_mut()
            && self.is_attached
            && self.is_link_up
            && socket.send_frame(frame).await.is_err()
        {
            self.socket = None;
            self.is_attached = false;
        }
    }

    async fn resend(&mut self) {
        for frame in self.unacked.clone() {
            self.send_frame(&frame).await;
        }
    }

    async fn on_message(&mut self, message: ServerMessage) -> Result<()> {
        match message {
            ServerMessage::Attached { channel: CHANNEL, acked, epoch, .. } => {
                self.is_attached = true;
                self.is_link_up = true;
                if let Some(from) = self.from.as_mut() {
                    from.epoch = epoch;
                }
                if let Some(acked) = acked {
                    self.unacked.retain(|frame| frame.offset > acked);
                }
                self.resend().await;
            }
            ServerMessage::Detached { channel: CHANNEL, error } => {
                self.is_attached = false;
                // The machine may be away just now, or the daemon may not know the session again yet.
                if self.seen.exits.is_empty() {
                    self.socket = None;
                }
                if let Some(error) = error.filter(|_| self.seen.reconnects > 500) {
                    bail!("detached again and again: {error}");
                }
            }
            ServerMessage::Link { channel: CHANNEL, is_up } => {
                let came_back = is_up && !self.is_link_up;
                self.is_link_up = is_up;
                if came_back && self.is_attached {
                    self.resend().await;
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn on_frame(&mut self, frame: &Frame) -> Result<()> {
        ensure!(frame.channel == CHANNEL, "frame of channel {}", frame.channel);
        ensure!(frame.session == self.session, "frame of session {}", frame.session);
        let size = frame.payload.len() as u64;
        match frame.kind {
            FrameKind::Output => {
                let at = self.from.map_or(frame.offset, |from| from.offset);
                ensure!(frame.offset == at, "output at {} instead of {at}", frame.offset);
                self.hash.update(&frame.payload);
                self.seen.bytes += size;
                self.take(&frame.payload, StreamPosition { epoch: frame.epoch, offset: at + size });
                self.consume(size).await;
            }
            FrameKind::Snapshot => {
                self.seen.snapshots += 1;
                self.seen.gaps += u32::from(frame.flags & FLAG_GAP != 0);
                let position = StreamPosition { epoch: frame.epoch, offset: frame.offset };
                self.take(&frame.payload.slice(4..), position);
                self.consume(size).await;
            }
            FrameKind::InputAck => {
                if frame.flags & FLAG_REFUSED != 0 {
                    let reason = String::from_utf8_lossy(&frame.payload).into_owned();
                    // Refused because the machine was away: the numbers stay, and go again when it is back.
                    if reason != "machine_offline" {
                        bail!("input {} refused: {reason}", frame.offset);
                    }
                } else {
                    self.unacked.retain(|waiting| waiting.offset > frame.offset);
                }
            }
            FrameKind::Exit => {
                self.on_exit(frame)?;
            }
            FrameKind::Resize => {}
            FrameKind::Input | FrameKind::Credit | FrameKind::History => {
                bail!("a {:?} frame from the server", frame.kind)
            }
        }
        Ok(())
    }

    /// An attachment hears of the end of a run once, behind its last byte; another attachment hears the same again.
    fn on_exit(&mut self, frame: &Frame) -> Result<()> {
        let exit = frame.exit().context("an exit payload")?;
        let at = StreamPosition { epoch: frame.epoch, offset: frame.offset };
        ensure!(!std::mem::replace(&mut self.has_exit, true), "{exit:?} was told twice on one attachment");
        ensure!(self.from == Some(at), "{exit:?} at {at:?} with output up to {:?}", self.from);
        match self.ends.iter().find(|(known, _)| known.epoch == at.epoch) {
            Some(known) => {
                ensure!(*known == (at, exit), "{exit:?} at {at:?} after {known:?} for the same run");
                self.seen.repeated_exits += 1;
            }
            None => {
                self.ends.push((at, exit));
                self.seen.exits.push(exit);
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], position: StreamPosition) {
        self.from = Some(position);
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 64 * 1024 {
            self.tail.drain(..self.tail.len() - 32 * 1024);
        }
        if let Some(keep) = self.keep.as_mut() {
            keep.extend_from_slice(bytes);
        }
    }

    async fn consume(&mut self, size: u64) {
        self.consumed += size;
        let wanted = self.consumed + STREAM_WINDOW_BYTES;
        if wanted - self.granted >= STREAM_WINDOW_BYTES / 4 {
            self.granted = wanted;
            let credit = Frame {
                kind: FrameKind::Credit,
                flags: 0,
                channel: CHANNEL,
                epoch: 0,
                session: self.session,
                offset: wanted,
                payload: Bytes::new(),
            };
            if let Some(socket) = self.socket.as_mut()
                && socket.send_frame(&credit).await.is_err()
            {
                self.socket = None;
                self.is_attached = false;
            }
        }
    }
}

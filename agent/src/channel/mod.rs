//! The streams and writers of one connection, by channel number.
//!
//! Used by the relay link and by the control socket alike: both hand in [`RelayMessage`]s and frames, and send
//! out what comes from the [`Outgoing`] receiver. A channel belongs to one session; frames of another are refused.
//! A stream waits for its connection, never the other way round: what it cannot send it skips by a snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage, StreamPosition};
use claudenest_shared::wire::frame::{FLAG_REFUSED, Frame, FrameKind};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::session::sanitise::offer::OfferBlanker;
use crate::session::{
    AckReceiver, OutputStream, SessionHandle, StreamControl, StreamOpened, Writer, WriterOpen,
};

/// Channels of one connection: every viewer of a busy relay has two on this machine.
const MAX_CHANNELS: usize = 4096;

/// What goes out on the connection, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Outgoing {
    /// A JSON message.
    Message(AgentMessage),
    /// A binary frame.
    Frame(Frame),
}

/// Finds the live run of a session.
pub type FindSession = Arc<dyn Fn(SessionId) -> Option<SessionHandle> + Send + Sync>;

enum Purpose {
    Stream(StreamControl),
    Writer(Writer),
}

struct Channel {
    session: SessionId,
    purpose: Purpose,
    task: AbortHandle,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Table of the channels of one connection. Dropping it closes them all.
pub struct Channels {
    find: FindSession,
    out: mpsc::Sender<Outgoing>,
    is_local: bool,
    open: HashMap<u16, Channel>,
    tasks: JoinSet<()>,
}

impl Channels {
    /// An empty table. `is_local` is true on the control socket, where writers are terminals of this machine.
    pub fn new(find: FindSession, out: mpsc::Sender<Outgoing>, is_local: bool) -> Self {
        Self { find, out, is_local, open: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Handles a message about channels; gives any other message back.
    ///
    /// # Errors
    /// The message itself, when it is not about channels.
    ///
    /// # Cancel safety
    /// Not cancel safe: an answer may be lost. Await it to the end.
    pub async fn message(&mut self, message: RelayMessage) -> Result<(), Box<RelayMessage>> {
        // Tasks that ended by themselves are forgotten here.
        while self.tasks.try_join_next().is_some() {}
        match message {
            RelayMessage::StreamOpen { channel, session, from, lag_limit_bytes, credit } => {
                let opened = self.open_stream(channel, session, from, lag_limit_bytes, credit).await;
                self.refuse(channel, opened).await;
            }
            RelayMessage::StreamSnapshot { channel } => {
                if let Some(Purpose::Stream(control)) = self.open.get(&channel).map(|open| &open.purpose) {
                    control.request_snapshot();
                }
            }
            RelayMessage::WriterOpen { channel, session, writer, label, may_size } => {
                let open =
                    WriterOpen { writer, label, may_size, is_local_terminal: self.is_local && may_size };
                let opened = self.open_writer(channel, session, open).await;
                self.refuse(channel, opened).await;
            }
            RelayMessage::TakeSize { channel, size } => {
                if let Some(Purpose::Writer(writer)) = self.open.get(&channel).map(|open| &open.purpose) {
                    writer.take_size(size);
                }
            }
            RelayMessage::ChannelClose { channel } => {
                self.open.remove(&channel);
                self.say(AgentMessage::ChannelClosed { channel, error: None }).await;
            }
            other => return Err(Box::new(other)),
        }
        Ok(())
    }

    /// Handles a frame (input, resize, credit). Frames of unknown channels are ignored: they may have crossed a close.
    ///
    /// # Errors
    /// A sentence, when the frame breaks the protocol; close the connection.
    pub fn frame(&mut self, frame: Frame) -> Result<(), &'static str> {
        let Some(channel) = self.open.get(&frame.channel) else { return Ok(()) };
        if channel.session != frame.session {
            return Err("a frame names another session than its channel");
        }
        match (&channel.purpose, frame.kind) {
            (Purpose::Writer(writer), FrameKind::Input) => {
                writer.input(frame.offset, frame.flags, frame.payload);
            }
            (Purpose::Writer(writer), FrameKind::Resize) => {
                writer.resize(frame.size().unwrap_or_default());
            }
            (Purpose::Stream(control), FrameKind::Credit) => control.grant(frame.offset),
            _ => return Err("a frame of this kind does not belong on its channel"),
        }
        Ok(())
    }

    fn session(&self, channel: u16, session: SessionId) -> Result<SessionHandle, WireError> {
        if channel == 0 || (self.open.len() >= MAX_CHANNELS && !self.open.contains_key(&channel)) {
            return Err(WireError::new(ErrorCode::BadRequest, "This channel number cannot be used."));
        }
        (self.find)(session).ok_or_else(|| {
            WireError::new(ErrorCode::NotFound, "There is no such session with output on this machine.")
        })
    }

    async fn open_stream(
        &mut self,
        channel: u16,
        session: SessionId,
        from: Option<StreamPosition>,
        lag_limit_bytes: u64,
        credit: u64,
    ) -> Result<(), WireError> {
        let handle = self.session(channel, session)?;
        let (opened, stream) = handle.open_stream(from, lag_limit_bytes, credit)?;
        let StreamOpened { epoch, offset, head, size } = opened;
        let control = stream.control();
        // The old one first: its frames must not follow the new answer.
        self.open.remove(&channel);
        self.say(AgentMessage::StreamOpened { channel, epoch, offset, head, size }).await;
        // What a program wants on the clipboard is for pages, which ask a person first.
        let blanker = self.is_local.then(OfferBlanker::default);
        let task = self.tasks.spawn(stream_out(stream, channel, blanker, self.out.clone()));
        self.open.insert(channel, Channel { session, purpose: Purpose::Stream(control), task });
        Ok(())
    }

    async fn open_writer(
        &mut self,
        channel: u16,
        session: SessionId,
        open: WriterOpen,
    ) -> Result<(), WireError> {
        let handle = self.session(channel, session)?;
        self.open.remove(&channel);
        let (mut writer, acked) = handle.open_writer(open)?;
        let acks = writer.take_acks();
        self.say(AgentMessage::WriterOpened { channel, acked }).await;
        let answers = answers_out(acks, channel, session, handle.epoch(), self.out.clone());
        let task = self.tasks.spawn(answers);
        self.open.insert(channel, Channel { session, purpose: Purpose::Writer(writer), task });
        Ok(())
    }

    async fn refuse(&mut self, channel: u16, opened: Result<(), WireError>) {
        if let Err(error) = opened {
            self.say(AgentMessage::ChannelClosed { channel, error: Some(error) }).await;
        }
    }

    async fn say(&self, message: AgentMessage) {
        // A connection that is gone needs no answer.
        let _ = self.out.send(Outgoing::Message(message)).await;
    }
}

fn was_closed(channel: u16) -> Outgoing {
    let error =
        WireError::new(ErrorCode::Unavailable, "The session was started anew or removed. Attach again.");
    Outgoing::Message(AgentMessage::ChannelClosed { channel, error: Some(error) })
}

async fn stream_out(
    mut stream: OutputStream,
    channel: u16,
    mut blanker: Option<OfferBlanker>,
    out: mpsc::Sender<Outgoing>,
) {
    while let Some(mut frame) = stream.next().await {
        match &mut blanker {
            Some(blanker) if frame.kind == FrameKind::Output => frame.payload = blanker.blank(frame.payload),
            // A screen is complete: what was begun before it is not gone on with.
            Some(blanker) if frame.kind == FrameKind::Snapshot => *blanker = OfferBlanker::default(),
            _ => {}
        }
        let is_end = frame.kind == FrameKind::Exit;
        if out.send(Outgoing::Frame(Frame { channel, ..frame })).await.is_err() {
            return;
        }
        if is_end {
            // The viewer keeps the channel until it closes it.
            return;
        }
    }
    let _ = out.send(was_closed(channel)).await;
}

async fn answers_out(
    acks: Option<AckReceiver>,
    channel: u16,
    session: SessionId,
    epoch: u32,
    out: mpsc::Sender<Outgoing>,
) {
    let Some(mut acks) = acks else { return };
    while let Some(ack) = acks.next().await {
        let (flags, payload) = match ack.refused {
            None => (0, Bytes::new()),
            Some(code) => (FLAG_REFUSED, Bytes::from_static(code.as_str().as_bytes())),
        };
        let kind = FrameKind::InputAck;
        let frame = Frame { kind, flags, channel, epoch, session, offset: ack.seq, payload };
        if out.send(Outgoing::Frame(frame)).await.is_err() {
            return;
        }
    }
    let _ = out.send(was_closed(channel)).await;
}

//! The streams and writers of one connection, by channel number.
//!
//! Used by the relay link and by the control socket alike: both hand in [`RelayMessage`]s and frames, and send
//! out what comes from the [`Outgoing`] receiver. A channel belongs to one session; frames of another are refused.

use std::sync::Arc;

use claudenest_shared::id::SessionId;
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage};
use claudenest_shared::wire::frame::Frame;
use tokio::sync::mpsc;

use crate::session::SessionHandle;

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

/// Table of the channels of one connection. Dropping it closes them all.
pub struct Channels {
    find: FindSession,
    out: mpsc::Sender<Outgoing>,
    is_local: bool,
}

impl Channels {
    /// An empty table. `is_local` is true on the control socket, where writers are terminals of this machine.
    pub fn new(find: FindSession, out: mpsc::Sender<Outgoing>, is_local: bool) -> Self {
        Self { find, out, is_local }
    }

    /// Handles a message about channels; gives any other message back.
    ///
    /// # Errors
    /// The message itself, when it is not about channels.
    ///
    /// # Cancel safety
    /// Not cancel safe: an answer may be lost. Await it to the end.
    pub async fn message(&mut self, message: RelayMessage) -> Result<(), Box<RelayMessage>> {
        let _ = (&self.find, &self.out, self.is_local);
        Err(Box::new(message))
    }

    /// Handles a frame (input, resize, credit). Frames of unknown channels are ignored: they may have crossed a close.
    ///
    /// # Errors
    /// A sentence, when the frame breaks the protocol; close the connection.
    pub fn frame(&mut self, frame: Frame) -> Result<(), &'static str> {
        let _ = frame;
        Ok(())
    }
}

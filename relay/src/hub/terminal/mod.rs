//! One session's terminal at this relay: the [`core`] behind a lock, its streams on the machine's link, its viewers' sockets.
//!
//! The lock is held for microseconds and never across an await. Whatever goes to the machine is queued while it is held,
//! so that messages are queued in the order in which the core wanted them. Lock order: registry, terminal, link, outbox.

pub(crate) mod core;
mod place;
mod ring;
mod track;
pub(crate) mod viewer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{MachineId, SessionId};
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::agent::{RelayMessage, StreamPosition};
use claudenest_shared::wire::frame::{Frame, FrameKind};

use self::core::{Attach, Core, Effect, Key, Pulled, ViewerId, Violation};
use self::viewer::Item;
use super::link::Link;
use super::outbox::Outgoing;
use super::socket::Socket;

struct State {
    core: Core,
    link: Option<Arc<Link>>,
    channels: HashMap<Key, u16>,
    wakers: HashMap<ViewerId, Waker>,
}

struct Waker {
    socket: Arc<Socket>,
    slot: usize,
}

/// See the module.
pub(crate) struct Terminal {
    pub(crate) machine: MachineId,
    pub(crate) session: SessionId,
    state: Mutex<State>,
}

impl Terminal {
    /// A terminal that nobody watches, on a link if there is one.
    pub(crate) fn new(machine: MachineId, session: SessionId, link: Option<Arc<Link>>) -> Arc<Self> {
        let mut core = Core::new(session);
        if link.is_some() {
            core.link_up();
        }
        let state = State { core, link, channels: HashMap::new(), wakers: HashMap::new() };
        Arc::new(Self { machine, session, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `event` on the core and does what it wants done.
    fn with<R>(self: &Arc<Self>, event: impl FnOnce(&mut Core) -> R) -> R {
        let mut state = self.lock();
        let answer = event(&mut state.core);
        self.apply(&mut state);
        answer
    }

    fn apply(self: &Arc<Self>, state: &mut State) {
        loop {
            let effects = state.core.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.apply_one(state, effect);
            }
        }
    }

    fn apply_one(self: &Arc<Self>, state: &mut State, effect: Effect) {
        if let Effect::Wake { viewer } = effect {
            if let Some(waker) = state.wakers.get(&viewer) {
                waker.socket.wake(waker.slot);
            }
            return;
        }
        let Some(link) = state.link.clone() else { return };
        match effect {
            Effect::OpenStream { key, from, lag_limit_bytes, credit } => {
                let session = self.session;
                self.open(state, &link, key, |channel| RelayMessage::StreamOpen {
                    channel,
                    session,
                    from,
                    lag_limit_bytes,
                    credit,
                });
            }
            Effect::OpenWriter { key, writer, label, may_size } => {
                let session = self.session;
                self.open(state, &link, key, |channel| RelayMessage::WriterOpen {
                    channel,
                    session,
                    writer,
                    label,
                    may_size,
                });
            }
            Effect::Snapshot { key } => {
                if let Some(&channel) = state.channels.get(&key) {
                    link.send(&RelayMessage::StreamSnapshot { channel });
                }
            }
            Effect::TakeSize { key, size } => {
                if let Some(&channel) = state.channels.get(&key) {
                    link.send(&RelayMessage::TakeSize { channel, size });
                }
            }
            Effect::Credit { key, total } => {
                let frame = Frame {
                    kind: FrameKind::Credit,
                    flags: 0,
                    channel: 0,
                    epoch: 0,
                    session: self.session,
                    offset: total,
                    payload: Bytes::new(),
                };
                Self::forward(state, &link, key, frame);
            }
            Effect::Forward { key, frame } => Self::forward(state, &link, key, frame),
            Effect::Close { key } => {
                if let Some(channel) = state.channels.remove(&key) {
                    link.close_channel(channel);
                }
            }
            Effect::Wake { .. } => {}
        }
    }

    fn open(
        self: &Arc<Self>,
        state: &mut State,
        link: &Link,
        key: Key,
        message: impl FnOnce(u16) -> RelayMessage,
    ) {
        match link.open(self, key) {
            Some(channel) => {
                state.channels.insert(key, channel);
                link.send(&message(channel));
            }
            None => state.core.channel_closed(
                key,
                Some(WireError::new(
                    ErrorCode::Unavailable,
                    "Too many terminals are open on this machine. Close some and try again.",
                )),
            ),
        }
    }

    fn forward(state: &State, link: &Link, key: Key, mut frame: Frame) {
        if let Some(&channel) = state.channels.get(&key) {
            frame.channel = channel;
            link.out.push(Outgoing::Binary(frame.encode()));
        }
    }

    /// Adds a viewer whose wake-ups go to that slot of the socket.
    ///
    /// The slot may be woken before this returns: wake it once more when the answer is stored.
    ///
    /// # Errors
    /// If the wish is outside the documented limits.
    pub(crate) fn attach(
        self: &Arc<Self>,
        wish: Attach,
        socket: &Arc<Socket>,
        slot: usize,
    ) -> Result<ViewerId, WireError> {
        let mut state = self.lock();
        let viewer = state.core.attach(wish)?;
        state.wakers.insert(viewer, Waker { socket: Arc::clone(socket), slot });
        self.apply(&mut state);
        Ok(viewer)
    }

    /// Removes a viewer. True if nobody watches any more.
    pub(crate) fn detach(self: &Arc<Self>, viewer: ViewerId) -> bool {
        let mut state = self.lock();
        state.core.detach(viewer);
        state.wakers.remove(&viewer);
        self.apply(&mut state);
        state.core.is_idle()
    }

    /// True if nobody watches.
    pub(crate) fn is_idle(&self) -> bool {
        self.lock().core.is_idle()
    }

    /// The machine has a link. Called with the registry locked.
    pub(crate) fn link_up(self: &Arc<Self>, link: &Arc<Link>) {
        let mut state = self.lock();
        if state.link.take().is_some() {
            state.core.link_down();
        }
        state.channels.clear();
        state.link = Some(Arc::clone(link));
        state.core.link_up();
        self.apply(&mut state);
    }

    /// That link is gone. Called with the registry locked.
    pub(crate) fn link_down(self: &Arc<Self>, link: &Arc<Link>) {
        let mut state = self.lock();
        if state.link.as_ref().is_some_and(|present| Arc::ptr_eq(present, link)) {
            state.link = None;
            state.channels.clear();
            state.core.link_down();
            self.apply(&mut state);
        }
    }

    /// The machine has opened a stream.
    pub(crate) fn stream_opened(self: &Arc<Self>, key: Key, at: StreamPosition, head: u64, size: TermSize) {
        self.with(|core| core.stream_opened(key, at, head, size));
    }

    /// The machine says which epoch the session is in.
    pub(crate) fn named_epoch(self: &Arc<Self>, epoch: u32) {
        self.with(|core| core.named_epoch(epoch));
    }

    /// The machine has opened a writer.
    pub(crate) fn writer_opened(self: &Arc<Self>, key: Key, acked: u64) {
        self.with(|core| core.writer_opened(key, acked));
    }

    /// The machine has closed a stream or writer.
    pub(crate) fn channel_closed(self: &Arc<Self>, key: Key, error: Option<WireError>) {
        let mut state = self.lock();
        state.channels.remove(&key);
        state.core.channel_closed(key, error);
        self.apply(&mut state);
    }

    /// Frames of the machine, in order, with the messages that they were decoded from.
    ///
    /// # Errors
    /// If one does not belong on its channel: the link must be closed.
    pub(crate) fn frames(self: &Arc<Self>, frames: &[(Key, Frame, Bytes)]) -> Result<(), Violation> {
        let mut state = self.lock();
        let mut result = Ok(());
        for (key, frame, encoded) in frames {
            if frame.session != self.session {
                result = Err(Violation("a frame names another session than its channel"));
                break;
            }
            result = state.core.frame(*key, frame, encoded);
            if result.is_err() {
                break;
            }
        }
        self.apply(&mut state);
        result
    }

    /// A credit, input or resize frame of a viewer.
    pub(crate) fn viewer_frame(self: &Arc<Self>, viewer: ViewerId, frame: Frame) {
        let mut state = self.lock();
        let has_room = state.link.as_ref().is_some_and(|link| link.out.has_room());
        let result = match frame.kind {
            FrameKind::Credit => state.core.grant(viewer, frame.offset),
            _ => state.core.input(viewer, frame, has_room),
        };
        if let Err(error) = result {
            state.core.end(viewer, Some(error));
        }
        self.apply(&mut state);
    }

    /// The viewer wants to own the size.
    pub(crate) fn take_size(self: &Arc<Self>, viewer: ViewerId, size: TermSize) {
        self.with(|core| core.take_size(viewer, size));
    }

    /// Moves what the viewer may have now to `out`, about `budget` bytes of it.
    pub(crate) fn pull(self: &Arc<Self>, viewer: ViewerId, budget: usize, out: &mut Vec<Item>) -> Pulled {
        let mut state = self.lock();
        let pulled = state.core.pull(viewer, budget, out);
        if pulled == Pulled::Gone {
            state.wakers.remove(&viewer);
        }
        self.apply(&mut state);
        pulled
    }
}

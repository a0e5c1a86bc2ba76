//! One session's fan-out as a pure state machine: streams from the machine, viewers, writers.
//!
//! All viewers share one stream and its [`Ring`]; a viewer whose bytes are older than the ring has a stream of its own
//! until it has caught up. Events change the state and leave [`Effect`]s; [`Core::pull`] hands a viewer what it may
//! have now. Whoever changes something for a viewer leaves an [`Effect::Wake`], so a viewer that is told about nothing
//! has nothing to fetch.
//!
//! Must not know channels, sockets, payloads or the time.

use std::collections::{BTreeMap, HashMap};

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::frame::{Frame, FrameKind};
use claudenest_shared::wire::limits::{
    DEFAULT_LAG_LIMIT_BYTES, MAX_LAG_LIMIT_BYTES, STREAM_WINDOW_BYTES, VIEWER_WINDOW_BYTES,
};

use super::track::Track;
use super::viewer::{Cursor, MAX_CLOSINGS, Place, Viewer, Writer};

/// Names one stream or writer on the machine's link. Never used twice in a [`Core`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Key(u64);

/// Names one viewer of a [`Core`]. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ViewerId(pub(super) u64);

/// What the surroundings must do, in this order.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Effect {
    /// Open a stream on a free channel.
    OpenStream { key: Key, from: Option<StreamPosition>, lag_limit_bytes: u64, credit: u64 },
    /// Ask for a snapshot on an open stream.
    Snapshot { key: Key },
    /// Grant credit, in total.
    Credit { key: Key, total: u64 },
    /// Open a writer on a free channel.
    OpenWriter { key: Key, writer: WriterId, label: String, may_size: bool },
    /// Send an input or resize frame on the writer's channel.
    Forward { key: Key, frame: Frame },
    /// Make the writer the owner of the size.
    TakeSize { key: Key, size: TermSize },
    /// Close a stream or writer; its key will not be heard of again.
    Close { key: Key },
    /// The viewer has something to pull.
    Wake { viewer: ViewerId },
}

/// What a viewer asks for when it attaches.
#[derive(Clone, Debug)]
pub(crate) struct Attach {
    /// Its channel on its own socket.
    pub(crate) channel: u16,
    /// Next byte wanted; absent for a snapshot.
    pub(crate) from: Option<StreamPosition>,
    /// Its writer id; absent for read-only.
    pub(crate) writer: Option<WriterId>,
    /// For people, when this viewer owns the size.
    pub(crate) label: String,
    /// True if it may own the size.
    pub(crate) may_size: bool,
    /// Lag limit, absent for the default.
    pub(crate) lag_limit_bytes: Option<u64>,
    /// First credit.
    pub(crate) credit: u64,
}

/// The machine broke the protocol; the link must be closed with this reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Violation(pub(crate) &'static str);

/// What a pull left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pulled {
    /// Nothing; a wake announces more.
    All,
    /// More is ready: pull again.
    Part,
    /// The viewer is gone; `detached` was its last message.
    Gone,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Shared,
    Own(ViewerId),
    Writer(ViewerId),
}

/// See the module.
pub(crate) struct Core {
    pub(super) session: SessionId,
    pub(super) is_link_up: bool,
    pub(super) shared: Track,
    pub(super) epoch: u32,
    /// The epoch that the machine's news of the session named.
    pub(super) named_epoch: u32,
    pub(super) head: u64,
    pub(super) size: TermSize,
    pub(super) viewers: BTreeMap<ViewerId, Viewer>,
    roles: HashMap<Key, Role>,
    last_id: u64,
    pub(super) effects: Vec<Effect>,
}

impl Core {
    /// A session that nobody watches yet.
    pub(crate) fn new(session: SessionId) -> Self {
        Self {
            session,
            is_link_up: false,
            shared: Track::default(),
            epoch: 0,
            named_epoch: 0,
            head: 0,
            size: TermSize::default(),
            viewers: BTreeMap::new(),
            roles: HashMap::new(),
            last_id: 0,
            effects: Vec::new(),
        }
    }

    /// Takes what must be done, in order.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// True if nobody watches.
    pub(crate) fn is_idle(&self) -> bool {
        self.viewers.is_empty()
    }

    /// Memory that the shared ring holds.
    #[cfg(test)]
    pub(crate) fn ring_bytes(&self) -> usize {
        self.shared.ring.bytes()
    }

    /// Adds a viewer.
    ///
    /// # Errors
    /// If the wish is outside the documented limits.
    pub(crate) fn attach(&mut self, wish: Attach) -> Result<ViewerId, WireError> {
        let lag_limit = wish.lag_limit_bytes.unwrap_or(DEFAULT_LAG_LIMIT_BYTES).min(MAX_LAG_LIMIT_BYTES);
        let window =
            if lag_limit > DEFAULT_LAG_LIMIT_BYTES { STREAM_WINDOW_BYTES } else { VIEWER_WINDOW_BYTES };
        if wish.credit > window {
            return Err(WireError::new(
                ErrorCode::BadRequest,
                format!("The first credit of this attachment may be at most {window} bytes."),
            ));
        }
        let id = ViewerId(self.next_id());
        let writer = wish.writer.map(|writer| Writer {
            id: writer,
            label: wish.label,
            may_size: wish.may_size,
            key: None,
            acked: None,
            closings: 0,
            refused: None,
            unacked: Default::default(),
            unacked_bytes: 0,
            acks: Default::default(),
        });
        let viewer = Viewer {
            channel: wish.channel,
            lag_limit,
            window,
            credit: wish.credit,
            sent: 0,
            position: wish.from,
            told_size: None,
            exit: None,
            place: Place::Wanting,
            was_attached: false,
            is_attached: false,
            link_notice: (!self.is_link_up).then_some(false),
            writer,
            closing: None,
        };
        self.viewers.insert(id, viewer);
        self.wake(id);
        self.reconcile();
        Ok(id)
    }

    /// Removes a viewer at once. It is not told: whoever calls this does.
    pub(crate) fn detach(&mut self, id: ViewerId) {
        let Some(viewer) = self.viewers.remove(&id) else { return };
        if let Place::Own(track, _) = viewer.place {
            self.close_track(*track);
        }
        if let Some(key) = viewer.writer.and_then(|writer| writer.key) {
            self.close(key);
        }
        self.reconcile();
    }

    /// Ends an attachment; the viewer learns why with its next pull.
    pub(crate) fn end(&mut self, id: ViewerId, error: Option<WireError>) {
        let Some(viewer) = self.viewers.get_mut(&id) else { return };
        viewer.closing.get_or_insert(error);
        let place = std::mem::replace(&mut viewer.place, Place::Wanting);
        let key = viewer.writer.as_mut().and_then(|writer| writer.key.take());
        if let Place::Own(track, _) = place {
            self.close_track(*track);
        }
        if let Some(key) = key {
            self.close(key);
        }
        self.wake(id);
    }

    fn end_where(&mut self, error: &WireError, is_meant: impl Fn(&Viewer) -> bool) {
        for id in self.ids() {
            if self.viewers.get(&id).is_some_and(&is_meant) {
                self.end(id, Some(error.clone()));
            }
        }
        self.reconcile();
    }

    /// The machine's link is up: opens what the viewers need.
    pub(crate) fn link_up(&mut self) {
        self.is_link_up = true;
        for id in self.ids() {
            if let Some(viewer) = self.viewers.get_mut(&id) {
                viewer.link_notice = Some(true);
            }
            self.wake(id);
        }
        self.reconcile();
    }

    /// The machine's link is gone, and every stream and writer on it.
    pub(crate) fn link_down(&mut self) {
        self.is_link_up = false;
        self.roles.clear();
        self.shared.stream = None;
        for id in self.ids() {
            let Some(viewer) = self.viewers.get_mut(&id) else { continue };
            viewer.link_notice = Some(false);
            viewer.is_attached = false;
            if matches!(viewer.place, Place::Own(..)) {
                viewer.place = Place::Wanting;
            }
            if let Some(writer) = &mut viewer.writer {
                writer.link_lost();
            }
            self.wake(id);
        }
    }

    /// The machine has opened a stream.
    pub(crate) fn stream_opened(&mut self, key: Key, at: StreamPosition, head: u64, size: TermSize) {
        match self.roles.get(&key).copied() {
            Some(Role::Shared) => self.shared.opened(at),
            Some(Role::Own(id)) => match self.viewers.get_mut(&id).map(|viewer| &mut viewer.place) {
                Some(Place::Own(track, _)) => track.opened(at),
                _ => return,
            },
            _ => return,
        }
        if at.epoch >= self.epoch {
            self.head = if at.epoch == self.epoch { self.head.max(head) } else { head };
            self.epoch = at.epoch;
            self.size = size;
        }
        self.reconcile();
        for id in self.ids() {
            self.wake(id);
        }
    }

    /// The machine says which epoch the session is in. A stream that has ended with its process is opened anew for the next.
    pub(crate) fn named_epoch(&mut self, epoch: u32) {
        if epoch > self.named_epoch {
            self.named_epoch = epoch;
            for id in self.ids() {
                self.wake(id); // Streams of their own are looked at when they are pulled.
            }
        }
        if !self.shared.is_over() || self.named_epoch <= self.epoch {
            return;
        }
        if let Some(stream) = self.shared.stream.take() {
            self.close(stream.key);
        }
        for id in self.ids() {
            if let Some(viewer) = self.viewers.get_mut(&id) {
                viewer.is_attached = false;
                if let Some(writer) = &mut viewer.writer {
                    writer.refused = None;
                    writer.closings = 0;
                }
            }
        }
        self.reconcile();
    }

    /// The machine has opened a writer.
    pub(crate) fn writer_opened(&mut self, key: Key, acked: u64) {
        if let Some(Role::Writer(id)) = self.roles.get(&key).copied() {
            if let Some(writer) = self.viewers.get_mut(&id).and_then(|viewer| viewer.writer.as_mut()) {
                writer.opened(acked);
            }
            self.wake(id);
        }
    }

    /// The machine has closed a stream or writer, or could not open it.
    pub(crate) fn channel_closed(&mut self, key: Key, error: Option<WireError>) {
        let error = error.unwrap_or_else(|| {
            WireError::new(
                ErrorCode::SessionEnded,
                "The session is gone from its machine. Go back to the list.",
            )
        });
        match self.roles.remove(&key) {
            Some(Role::Shared) => {
                self.shared.stream = None;
                self.shared.ring.clear();
                self.end_where(&error, Viewer::is_on_shared);
            }
            Some(Role::Own(id)) => {
                if let Some(Place::Own(track, _)) = self.viewers.get_mut(&id).map(|viewer| &mut viewer.place)
                {
                    track.stream = None;
                }
                self.end(id, Some(error));
                self.reconcile();
            }
            Some(Role::Writer(id)) => {
                let Some(viewer) = self.viewers.get_mut(&id) else { return };
                let Some(writer) = &mut viewer.writer else { return };
                writer.key = None;
                writer.closings = writer.closings.saturating_add(1);
                if writer.acked.take().is_some() && writer.closings <= MAX_CLOSINGS {
                    // It was open: the process may have been replaced, so the writer is opened anew, and the viewer
                    // learns what was applied.
                    viewer.is_attached = false;
                } else {
                    writer.refuse_all(error.code);
                }
                self.wake(id);
                self.reconcile();
            }
            None => {}
        }
    }

    /// A frame from the machine; `encoded` is the whole message.
    ///
    /// # Errors
    /// If the frame does not belong on that channel.
    pub(crate) fn frame(&mut self, key: Key, frame: &Frame, encoded: &[u8]) -> Result<(), Violation> {
        match self.roles.get(&key).copied() {
            None => Ok(()), // Closed by us; the frame was on its way.
            Some(Role::Writer(id)) => {
                if frame.kind != FrameKind::InputAck {
                    return Err(Violation("a writer's channel carries only acknowledgements"));
                }
                if let Some(writer) = self.viewers.get_mut(&id).and_then(|viewer| viewer.writer.as_mut()) {
                    writer.answered(frame.offset, frame.flags, frame.payload.clone());
                    self.wake(id);
                }
                Ok(())
            }
            Some(Role::Own(id)) => {
                check_stream_kind(frame.kind)?;
                let Some(viewer) = self.viewers.get_mut(&id) else { return Ok(()) };
                let Place::Own(track, _) = &mut viewer.place else { return Ok(()) };
                if track.push(frame, encoded, viewer.channel)? {
                    self.wake(id);
                } else {
                    self.end(id, Some(out_of_order()));
                    self.reconcile();
                }
                Ok(())
            }
            Some(Role::Shared) => self.shared_frame(frame, encoded),
        }
    }

    fn shared_frame(&mut self, frame: &Frame, encoded: &[u8]) -> Result<(), Violation> {
        check_stream_kind(frame.kind)?;
        let channel = self.viewers.values().next().map_or(1, |viewer| viewer.channel);
        let seq = self.shared.ring.end_seq();
        if !self.shared.push(frame, encoded, channel)? {
            self.reset_shared();
            self.end_where(&out_of_order(), Viewer::is_on_shared);
            return Ok(());
        }
        if let Some(size) = frame.size() {
            self.size = size;
        }
        if frame.epoch > self.epoch {
            (self.epoch, self.head) = (frame.epoch, frame.offset);
        }
        let is_snapshot = frame.kind == FrameKind::Snapshot;
        let mut is_awaited = false;
        for (id, viewer) in &mut self.viewers {
            match viewer.place {
                Place::Awaiting if is_snapshot => {
                    viewer.place = Place::Following(Cursor { seq, takes_snapshot: true });
                    self.effects.push(Effect::Wake { viewer: *id });
                }
                Place::Awaiting => is_awaited = true,
                // A viewer without credit is woken by its grant.
                Place::Following(_) if viewer.has_credit() || frame.payload.len() <= 4 => {
                    self.effects.push(Effect::Wake { viewer: *id });
                }
                _ => {}
            }
        }
        if is_awaited {
            // Who waits for a snapshot has given up all bytes before it.
            let received = self.shared.ring.received();
            self.shared.consume(received, &mut self.effects);
        }
        if frame.kind == FrameKind::Exit {
            // Who still waits for a snapshot needs a new stream, and so does everybody if a new process runs already.
            self.reconcile();
            self.named_epoch(0);
        }
        Ok(())
    }

    /// A viewer's grant.
    ///
    /// # Errors
    /// If it is more than its window beyond what was sent: the attachment must be ended.
    pub(crate) fn grant(&mut self, id: ViewerId, total: u64) -> Result<(), WireError> {
        let Some(viewer) = self.viewers.get_mut(&id) else { return Ok(()) };
        if total > viewer.sent + viewer.window {
            return Err(WireError::new(
                ErrorCode::BadRequest,
                "More credit was granted than the window of this attachment. Attach again.",
            ));
        }
        if total > viewer.credit {
            viewer.credit = total;
            self.wake(id);
        }
        Ok(())
    }

    /// An input or resize frame of a viewer. `has_room` is false when the way to the machine is full.
    ///
    /// # Errors
    /// If more is under way than a writer may have: the attachment must be ended.
    pub(crate) fn input(&mut self, id: ViewerId, frame: Frame, has_room: bool) -> Result<(), WireError> {
        let Some(viewer) = self.viewers.get_mut(&id) else { return Ok(()) };
        let is_input = frame.kind == FrameKind::Input;
        let Some(writer) = &mut viewer.writer else {
            return match frame.kind {
                FrameKind::Input => Err(WireError::new(
                    ErrorCode::ReadOnly,
                    "This attachment only reads, and input came for it. Attach again as a writer.",
                )),
                _ => Ok(()),
            };
        };
        let refusal = match writer.key {
            _ if !self.is_link_up => Some(ErrorCode::MachineOffline),
            None => Some(writer.refused.unwrap_or(ErrorCode::MachineOffline)),
            Some(_) if !has_room => Some(ErrorCode::InputFull),
            Some(_) => None,
        };
        match (writer.key, refusal) {
            (Some(key), None) => {
                if is_input {
                    writer.count(frame.offset, frame.payload.len())?;
                }
                self.effects.push(Effect::Forward { key, frame });
            }
            (_, Some(code)) if is_input => {
                writer.refuse(frame.offset, code);
                self.wake(id);
            }
            _ => {}
        }
        Ok(())
    }

    /// The viewer wants to own the size.
    pub(crate) fn take_size(&mut self, id: ViewerId, size: TermSize) {
        if let Some(key) =
            self.viewers.get(&id).and_then(|viewer| viewer.writer.as_ref()).and_then(|writer| writer.key)
        {
            self.effects.push(Effect::TakeSize { key, size });
        }
    }

    pub(super) fn close(&mut self, key: Key) {
        if self.roles.remove(&key).is_some() {
            self.effects.push(Effect::Close { key });
        }
    }

    pub(super) fn role(&mut self, role: Role) -> Key {
        let key = Key(self.next_id());
        self.roles.insert(key, role);
        key
    }

    pub(super) fn wake(&mut self, viewer: ViewerId) {
        self.effects.push(Effect::Wake { viewer });
    }

    fn ids(&self) -> Vec<ViewerId> {
        self.viewers.keys().copied().collect()
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

fn check_stream_kind(kind: FrameKind) -> Result<(), Violation> {
    match kind {
        FrameKind::Output | FrameKind::Snapshot | FrameKind::Resize | FrameKind::Exit => Ok(()),
        _ => Err(Violation("a stream carries output, snapshots, sizes and the exit")),
    }
}

pub(super) fn out_of_order() -> WireError {
    WireError::new(
        ErrorCode::Internal,
        "The machine sent terminal output out of order. Reload the page; the session itself goes on.",
    )
}

//! One browser socket as the hub sees it: its attachments, the news that wait for it, and what wakes its writing task.
//!
//! Attachments are slots of a bit set: whoever has something for one sets its bit and leaves a permit, so a wake-up is
//! neither missed nor queued twice. News are bounded; when they are too many they are dropped *and known to be*: the
//! socket then gets the full state anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claudenest_shared::id::UserId;
use claudenest_shared::wire::browser::ServerMessage;
use claudenest_shared::wire::limits::MAX_ATTACHMENTS;
use uuid::Uuid;

use super::outbox::{Batch, Outbox, Outgoing};
use super::terminal::Terminal;
use super::terminal::core::ViewerId;

/// News that may wait for one socket. Beyond, one full state is cheaper than the changes.
const MAX_EVENTS: usize = 512;
/// Answers that may wait for one socket: each is caused by a message of the page, so only a page that does not read gets there.
const MAX_REPLY_BYTES: usize = 1024 * 1024;

const _: () = assert!(MAX_ATTACHMENTS <= 64, "one bit per attachment");

/// An attachment of the socket.
#[derive(Clone)]
pub(crate) struct Attachment {
    pub(crate) channel: u16,
    pub(crate) terminal: Arc<Terminal>,
    pub(crate) viewer: ViewerId,
}

enum Events {
    /// The page has the full state; changes follow.
    Flowing(VecDeque<Arc<str>>),
    /// The full state is being read; these changes come after it.
    Syncing(VecDeque<Arc<str>>),
    /// Changes were lost: the full state must be read again.
    Lost,
}

/// What the full state is read for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sync {
    /// Delivered: the changes since follow it.
    Done,
    /// Too much has changed meanwhile: read it again.
    Again,
}

/// See the module.
pub(crate) struct Socket {
    pub(crate) user: UserId,
    pub(crate) login: Uuid,
    /// For people: whose browser it is.
    pub(crate) label: String,
    pub(crate) out: Outbox,
    dirty: AtomicU64,
    events: Mutex<Events>,
    slots: Mutex<Vec<Option<Attachment>>>,
    /// Channels whose session's machine is being looked up, each with the number of its wish.
    waiting: Mutex<BTreeMap<u16, u64>>,
    wishes: AtomicU64,
}

impl Socket {
    /// A socket that has not got the full state yet.
    pub(crate) fn new(user: UserId, login: Uuid, label: String) -> Self {
        Self {
            user,
            login,
            label,
            out: Outbox::new(MAX_REPLY_BYTES),
            dirty: AtomicU64::new(0),
            events: Mutex::new(Events::Syncing(VecDeque::new())),
            slots: Mutex::new(vec![None; MAX_ATTACHMENTS]),
            waiting: Mutex::default(),
            wishes: AtomicU64::new(0),
        }
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Option<Attachment>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attachment in that slot has something to pull.
    pub(crate) fn wake(&self, slot: usize) {
        let bit = 1 << slot;
        // The permit is left after the bit is set; a set bit means that its permit was left already.
        if self.dirty.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.out.wake();
        }
    }

    /// Takes the slots that have something to pull, as bits.
    pub(crate) fn take_dirty(&self) -> u64 {
        self.dirty.swap(0, Ordering::AcqRel)
    }

    /// Queues an answer.
    pub(crate) fn reply(&self, message: &ServerMessage) {
        self.out.push(Outgoing::json(message));
    }

    /// Queues a change.
    pub(crate) fn event(&self, text: &Arc<str>) {
        {
            let mut events = self.events();
            let (Events::Flowing(queue) | Events::Syncing(queue)) = &mut *events else { return };
            if queue.len() < MAX_EVENTS {
                queue.push_back(Arc::clone(text));
            } else {
                *events = Events::Lost;
            }
        }
        self.out.wake();
    }

    /// Takes what waits, except the attachments' output. The flag says that the full state must be read.
    pub(crate) fn take(&self) -> (Batch, bool) {
        let mut batch = self.out.take();
        let mut events = self.events();
        let must_sync = match &mut *events {
            Events::Flowing(queue) => {
                batch.messages.extend(queue.drain(..).map(Outgoing::Text));
                false
            }
            Events::Syncing(_) => false,
            Events::Lost => {
                *events = Events::Syncing(VecDeque::new());
                true
            }
        };
        (batch, must_sync)
    }

    /// The full state was read; changes that came while it was read follow it.
    pub(crate) fn synced(&self, state: Arc<str>) -> Sync {
        let mut events = self.events();
        match std::mem::replace(&mut *events, Events::Lost) {
            Events::Syncing(mut queue) => {
                queue.push_front(state);
                *events = Events::Flowing(queue);
                drop(events);
                self.out.wake();
                Sync::Done
            }
            _ => {
                *events = Events::Syncing(VecDeque::new());
                Sync::Again
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u16, u64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if nothing is or will be attached on that channel.
    pub(crate) fn is_free(&self, channel: u16) -> bool {
        // In this order: a wish that is granted meanwhile is found by the second look.
        !self.waiting().contains_key(&channel) && self.find(channel).is_none()
    }

    /// Notes that a channel waits for its machine; its number for [`Socket::granted`]. Absent if too many wait.
    pub(crate) fn wish(&self, channel: u16) -> Option<u64> {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_ATTACHMENTS {
            return None;
        }
        let wish = self.wishes.fetch_add(1, Ordering::Relaxed);
        waiting.insert(channel, wish);
        Some(wish)
    }

    /// The page does not want the channel any more. True if it was waiting.
    pub(crate) fn unwish(&self, channel: u16) -> bool {
        self.waiting().remove(&channel).is_some()
    }

    /// Runs `attach` for a channel that still waits with that number, which is then over.
    pub(crate) fn granted<R>(&self, channel: u16, wish: u64, attach: impl FnOnce() -> R) -> Option<R> {
        // Locked to the end: the channel is never seen as free in between.
        let mut waiting = self.waiting();
        if waiting.get(&channel) != Some(&wish) {
            return None;
        }
        let answer = attach();
        waiting.remove(&channel);
        Some(answer)
    }

    /// A free slot, for a channel that is not in use.
    pub(crate) fn free_slot(&self) -> Option<usize> {
        self.slots().iter().position(Option::is_none)
    }

    /// The attachment on that channel with its slot.
    pub(crate) fn find(&self, channel: u16) -> Option<(usize, Attachment)> {
        self.slots().iter().enumerate().find_map(|(slot, attachment)| {
            attachment
                .as_ref()
                .filter(|attachment| attachment.channel == channel)
                .map(|found| (slot, found.clone()))
        })
    }

    /// The attachment in that slot.
    pub(crate) fn attachment(&self, slot: usize) -> Option<Attachment> {
        self.slots().get(slot).cloned().flatten()
    }

    /// Stores an attachment and makes the writing task look at it.
    pub(crate) fn store(&self, slot: usize, attachment: Attachment) {
        if let Some(place) = self.slots().get_mut(slot) {
            *place = Some(attachment);
        }
        self.wake(slot);
    }

    /// Frees the slot if that viewer is still in it.
    pub(crate) fn free(&self, slot: usize, viewer: ViewerId) -> Option<Attachment> {
        let mut slots = self.slots();
        let place = slots.get_mut(slot)?;
        if place.as_ref().is_some_and(|attachment| attachment.viewer == viewer) { place.take() } else { None }
    }

    /// Takes every attachment: the socket is gone.
    pub(crate) fn take_all(&self) -> Vec<Attachment> {
        self.slots().iter_mut().filter_map(Option::take).collect()
    }
}

//! One machine's link: what is on which channel, requests under way, and what waits to be written.
//!
//! Channels of this link are numbered by the relay. A number is free again only when the machine has confirmed its end,
//! and is taken round robin, so that a late message never meets a new owner.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{MachineId, SessionId, UserId};
use claudenest_shared::wire::agent::{Op, RelayMessage, Reply};
use claudenest_shared::wire::limits::MAX_TEXT_BYTES;
use tokio::sync::oneshot;

use super::outbox::{Outbox, Outgoing, to_json};
use super::recorder::Recorder;
use super::terminal::Terminal;
use super::terminal::core::Key;

/// Most that waits to be written to one machine: pastes of many viewers at once, but no more than a moment's worth.
const MAX_QUEUED_BYTES: usize = 8 * 1024 * 1024;
/// Requests that may be under way on one link: a person causes a few, a script hundreds.
const MAX_REQUESTS: usize = 1024;

/// Where a channel leads.
#[derive(Clone)]
pub(crate) enum Route {
    /// To a stream or writer.
    Open(Arc<Terminal>, Key),
    /// The relay has closed it; the machine may still be sending.
    Closing,
}

#[derive(Default)]
struct State {
    routes: HashMap<u16, Route>,
    last_channel: u16,
    /// Highest channel used so far.
    highest_channel: u16,
    requests: HashMap<u64, oneshot::Sender<Reply>>,
    last_request: u64,
    sessions: HashSet<SessionId>,
    is_down: bool,
}

/// See the module.
pub(crate) struct Link {
    pub(crate) machine: MachineId,
    pub(crate) user: UserId,
    /// Connection epoch: a newer link has a higher one.
    pub(crate) epoch: u64,
    pub(crate) out: Outbox,
    pub(crate) recorder: Recorder,
    state: Mutex<State>,
}

impl Link {
    /// A link that is up.
    pub(crate) fn new(machine: MachineId, user: UserId, epoch: u64) -> Self {
        Self {
            machine,
            user,
            epoch,
            out: Outbox::new(MAX_QUEUED_BYTES),
            recorder: Recorder::default(),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below is a single insertion or removal: a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message.
    pub(crate) fn send(&self, message: &RelayMessage) {
        self.out.push(Outgoing::json(message));
    }

    /// Finds a free channel and notes where it leads. Absent when all 65,535 are taken or the link is down.
    pub(crate) fn open(&self, terminal: &Arc<Terminal>, key: Key) -> Option<u16> {
        let mut state = self.lock();
        if state.is_down {
            return None;
        }
        for _ in 0..u16::MAX {
            state.last_channel = state.last_channel.checked_add(1).unwrap_or(1);
            let channel = state.last_channel;
            if let std::collections::hash_map::Entry::Vacant(slot) = state.routes.entry(channel) {
                slot.insert(Route::Open(Arc::clone(terminal), key));
                state.highest_channel = state.highest_channel.max(channel);
                return Some(channel);
            }
        }
        None
    }

    /// Closes a channel: the machine is told, and its number stays taken until it has confirmed.
    pub(crate) fn close_channel(&self, channel: u16) {
        if let Some(route) = self.lock().routes.get_mut(&channel) {
            *route = Route::Closing;
        }
        self.send(&RelayMessage::ChannelClose { channel });
    }

    /// Where a channel leads.
    pub(crate) fn route(&self, channel: u16) -> Option<Route> {
        self.lock().routes.get(&channel).cloned()
    }

    /// True if the channel was open at some time: its last frames may come after the machine has confirmed its end.
    pub(crate) fn was_open(&self, channel: u16) -> bool {
        (1..=self.lock().highest_channel).contains(&channel)
    }

    /// The machine has closed the channel, or confirms that the relay has: its number is free.
    pub(crate) fn channel_closed(&self, channel: u16) -> Option<Route> {
        self.lock().routes.remove(&channel)
    }

    /// Notes a session that the machine has named, before the database knows it.
    pub(crate) fn add_session(&self, session: SessionId) {
        self.lock().sessions.insert(session);
    }

    /// The machine has forgotten a session.
    pub(crate) fn remove_session(&self, session: SessionId) {
        self.lock().sessions.remove(&session);
    }

    /// True if the machine has named this session on this link.
    pub(crate) fn has_session(&self, session: SessionId) -> bool {
        self.lock().sessions.contains(&session)
    }

    /// Number of sessions named on this link.
    pub(crate) fn session_count(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Asks the machine and waits for its answer.
    ///
    /// # Errors
    /// `machine_offline` when the link ends first, `machine_timeout`, `too_large`, or the machine's refusal.
    ///
    /// # Cancel safety
    /// Dropping it forgets the answer; the machine does what was asked.
    pub(crate) async fn request(&self, op: Op, timeout: Duration) -> Result<Reply, WireError> {
        let (sender, receiver) = oneshot::channel();
        let request = {
            let mut state = self.lock();
            if state.is_down {
                return Err(offline());
            }
            state.requests.retain(|_, sender| !sender.is_closed());
            if state.requests.len() >= MAX_REQUESTS {
                return Err(WireError::new(
                    ErrorCode::Unavailable,
                    "The machine has too many requests to answer. Try again in a few seconds.",
                ));
            }
            state.last_request += 1;
            let request = state.last_request;
            state.requests.insert(request, sender);
            request
        };
        let message = to_json(&RelayMessage::Request { request, op });
        if message.len() > MAX_TEXT_BYTES {
            self.lock().requests.remove(&request);
            return Err(WireError::new(
                ErrorCode::TooLarge,
                format!("The request is larger than {MAX_TEXT_BYTES} bytes. Make the text shorter."),
            ));
        }
        self.out.push(Outgoing::Text(message));
        let answer = tokio::time::timeout(timeout, receiver).await;
        self.lock().requests.remove(&request);
        match answer {
            Ok(Ok(Reply::Error { error })) => Err(error),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(offline()),
            Err(_) => Err(WireError::new(
                ErrorCode::MachineTimeout,
                "The machine did not answer in time. It may still do what was asked: look before you try again.",
            )),
        }
    }

    /// Hands a machine's answer to who asked. An answer that nobody waits for any more is dropped.
    pub(crate) fn answer(&self, request: u64, reply: Reply) {
        if let Some(sender) = self.lock().requests.remove(&request) {
            // The asker may have given up in this moment.
            drop(sender.send(reply));
        }
    }

    /// The link is gone: nothing can be opened or asked any more, and who waits learns it.
    pub(crate) fn down(&self) {
        let mut state = self.lock();
        state.is_down = true;
        state.routes.clear();
        state.requests.clear();
    }
}

/// The machine has no link.
pub(crate) fn offline() -> WireError {
    WireError::new(
        ErrorCode::MachineOffline,
        "The machine is not connected. Start the agent there, or wait until it is back.",
    )
}

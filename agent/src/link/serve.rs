//! What an open link does: answers requests, moves frames, and tells the relay what changes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;
use claudenest_shared::machine::MachineFacts;
use claudenest_shared::session::SessionInfo;
use claudenest_shared::wire::agent::{AgentMessage, Op, RelayMessage, Reply};
use claudenest_shared::wire::frame::Frame;
use claudenest_shared::wire::limits::MAX_TEXT_BYTES;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::actor::LinkHost;
use super::guard;
use super::history::{ANSWERS, Answer, Uploader};
use crate::channel::{Channels, Outgoing};
use crate::config::HistoryPolicy;
use crate::supervisor::SessionEvent;

/// Requests of one relay that run at the same time; further ones are refused as "overloaded".
const MAX_REQUESTS: usize = 64;
/// Facts (load, memory) are told this often when they have changed.
const FACTS_INTERVAL: Duration = Duration::from_secs(60);

/// The serving side of one connection.
pub(super) struct Service<H> {
    host: Arc<H>,
    out: mpsc::Sender<Outgoing>,
    channels: Channels,
    requests: Arc<Semaphore>,
    over: CancellationToken,
    tasks: TaskTracker,
    policy: HistoryPolicy,
    /// To the task that uploads history, if there is one.
    answers: Option<mpsc::Sender<Answer>>,
}

impl<H: LinkHost> Service<H> {
    pub(super) fn new(
        host: Arc<H>,
        out: mpsc::Sender<Outgoing>,
        over: CancellationToken,
        tasks: TaskTracker,
        policy: HistoryPolicy,
    ) -> Self {
        let finder = Arc::clone(&host);
        let channels = Channels::new(Arc::new(move |session| finder.session(session)), out.clone(), false);
        Self {
            host,
            out,
            channels,
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            over,
            tasks,
            policy,
            answers: None,
        }
    }

    /// Starts to send past output.
    pub(super) fn upload_history(&mut self, sessions_dir: PathBuf) {
        let (answers, receiver) = mpsc::channel(ANSWERS);
        self.answers = Some(answers);
        let uploader = Uploader::new(Arc::clone(&self.host), sessions_dir, self.out.clone(), receiver);
        let over = self.over.clone();
        self.tasks.spawn(async move {
            over.run_until_cancelled(uploader.run()).await;
        });
    }

    /// Starts to tell the relay about approvals and locks.
    pub(super) fn tell_guard(&self) {
        // Subscribed first: what changes while everything is read comes behind it.
        let events = self.host.guard_events();
        let (host, out, over) = (Arc::clone(&self.host), self.out.clone(), self.over.clone());
        self.tasks.spawn(async move {
            over.run_until_cancelled(guard::tell(host, out, events)).await;
        });
    }

    fn history_answer(&self, answer: Answer) {
        // One question at a time: a full queue means answers that nobody asked for.
        if let Some(Err(error)) = self.answers.as_ref().map(|answers| answers.try_send(answer)) {
            tracing::debug!(%error, "an answer about history that nobody waits for is ignored");
        }
    }

    /// Starts to tell the relay about changes since `events` was subscribed.
    pub(super) fn start(
        &self,
        facts: MachineFacts,
        unsent: Vec<SessionId>,
        events: broadcast::Receiver<SessionEvent>,
    ) {
        let (host, out, over) = (Arc::clone(&self.host), self.out.clone(), self.over.clone());
        self.tasks.spawn(async move {
            over.run_until_cancelled(tell(host, out, facts, unsent, events)).await;
        });
    }

    pub(super) async fn message(&mut self, message: RelayMessage) {
        let other = match message {
            RelayMessage::HistoryHave { runs } => return self.history_answer(Answer::Have(runs)),
            RelayMessage::HistoryStored { position, outcome } => {
                return self.history_answer(Answer::Stored(position, outcome));
            }
            RelayMessage::Request { request, op } if self.policy == HistoryPolicy::Off && is_history(&op) => {
                let error = WireError::new(
                    ErrorCode::Forbidden,
                    "This machine shows no past output (history = \"off\" in its configuration). Set it to \"metadata\" to replay \
                     recordings while the machine is online, or to \"full\" to keep a copy on the relay.",
                );
                return self.answer(request, Reply::Error { error }).await;
            }
            RelayMessage::Request { request, op } => {
                let Ok(permit) = Arc::clone(&self.requests).try_acquire_owned() else {
                    let error = WireError::new(
                        ErrorCode::Unavailable,
                        "The machine is busy with other requests. Try again in a moment.",
                    );
                    return self.answer(request, Reply::Error { error }).await;
                };
                let (host, out, over) = (Arc::clone(&self.host), self.out.clone(), self.over.clone());
                self.tasks.spawn(async move {
                    let reply = guard::fit_reply(host.execute(op).await);
                    drop(permit);
                    let response = Outgoing::Message(AgentMessage::Response { request, reply });
                    over.run_until_cancelled(out.send(response)).await;
                });
                return;
            }
            other => other,
        };
        if self.channels.message(other).await.is_err() {
            tracing::debug!("a message of the relay has no meaning here and is ignored");
        }
    }

    pub(super) async fn refuse_unknown(&self, request: u64) {
        let error = WireError::new(
            ErrorCode::VersionMismatch,
            "This machine's agent does not know that request. Update claudenest-agent on the machine.",
        );
        self.answer(request, Reply::Error { error }).await;
    }

    pub(super) fn frame(&mut self, frame: Frame) -> Result<(), &'static str> {
        self.channels.frame(frame)
    }

    async fn answer(&self, request: u64, reply: Reply) {
        // A closed queue means that the connection is over.
        let _ = self.out.send(Outgoing::Message(AgentMessage::Response { request, reply })).await;
    }
}

fn is_history(op: &Op) -> bool {
    matches!(op, Op::HistoryList { .. } | Op::HistoryRead { .. } | Op::HistorySearch { .. })
}

/// The sessions of a hello: as many as fit, those that live first; the ids of the others; and all others.
pub(super) struct Split {
    pub(super) sessions: Vec<SessionInfo>,
    pub(super) others: Vec<SessionId>,
    /// True if not even all ids fit.
    pub(super) has_unnamed: bool,
    /// What has to be told after the welcome.
    pub(super) unsent: Vec<SessionId>,
}

/// Splits the sessions into those that fit into the first message and the others.
pub(super) fn split_to_fit(mut sessions: Vec<SessionInfo>) -> Split {
    // A quarter of the message is left for facts and signature.
    const SESSIONS: usize = MAX_TEXT_BYTES / 2;
    const ID_BYTES: usize = "\"01234567-89ab-cdef-0123-456789abcdef\",".len();
    const MAX_OTHERS: usize = MAX_TEXT_BYTES / 4 / ID_BYTES;
    sessions.sort_by_key(|session| !session.state.is_live());
    let mut room = SESSIONS;
    let fitting = sessions
        .iter()
        .take_while(|session| {
            let size = serde_json::to_string(session).map_or(usize::MAX, |text| text.len() + 1);
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        })
        .count();
    let unsent: Vec<SessionId> = sessions.split_off(fitting).iter().map(|session| session.id).collect();
    let others = unsent.iter().copied().take(MAX_OTHERS).collect();
    Split { sessions, others, has_unnamed: unsent.len() > MAX_OTHERS, unsent }
}

/// Tells changes until the connection is over. Many changes of one session between two writes become one.
async fn tell<H: LinkHost>(
    host: Arc<H>,
    out: mpsc::Sender<Outgoing>,
    mut facts: MachineFacts,
    unsent: Vec<SessionId>,
    mut events: broadcast::Receiver<SessionEvent>,
) {
    let mut changed: BTreeSet<SessionId> = unsent.into_iter().collect();
    let mut ticks = tokio::time::interval(FACTS_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        while let Some(session) = changed.pop_first() {
            let message = match host.info(session) {
                Some(info) => AgentMessage::Session { session: Box::new(info) },
                None => AgentMessage::SessionRemoved { session },
            };
            if out.send(Outgoing::Message(message)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => note(&mut changed, &event),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    changed.extend(host.sessions().iter().map(|session| session.id));
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
            _ = ticks.tick() => {
                let now = host.facts().await;
                if now != facts {
                    facts = now;
                    let message = AgentMessage::Facts { facts: Box::new(facts.clone()) };
                    if out.send(Outgoing::Message(message)).await.is_err() {
                        return;
                    }
                }
            }
        }
        while let Ok(event) = events.try_recv() {
            note(&mut changed, &event);
        }
    }
}

fn note(changed: &mut BTreeSet<SessionId>, event: &SessionEvent) {
    changed.insert(match event {
        SessionEvent::Changed(info) => info.id,
        SessionEvent::Removed(session) => *session,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudenest_shared::session::TermSize;
    use serde_json::json;

    fn sessions(count: u16) -> Vec<SessionInfo> {
        let session = |at: u16| {
            let [high, low] = at.to_be_bytes();
            let mut id = [1; 16];
            (id[14], id[15]) = (high, low);
            // Every tenth lives.
            let state = if at.is_multiple_of(10) { "running" } else { "completed" };
            serde_json::from_value(json!({
                "id": SessionId::from_bytes(id), "name": format!("session-{at}"), "mode": "interactive",
                "cwd": "/home/alice/projects/shop", "state": state, "state_since": 0, "created_at": 0,
                "size": TermSize::default(), "epoch": 1, "output_bytes": 0,
            }))
            .unwrap()
        };
        (0..count).map(session).collect()
    }

    #[test]
    fn a_hello_holds_live_sessions_first_and_names_the_others() {
        let split = split_to_fit(sessions(20));
        assert_eq!((split.sessions.len(), split.others.len(), split.has_unnamed), (20, 0, false));
        for (count, has_unnamed) in [(1500, false), (5000, true)] {
            let split = split_to_fit(sessions(count));
            assert!(
                split.sessions.iter().take(usize::from(count) / 10).all(|session| session.state.is_live())
            );
            assert_eq!(split.sessions.len() + split.unsent.len(), usize::from(count));
            assert_eq!(split.has_unnamed, has_unnamed);
            assert!(split.unsent.starts_with(&split.others));
            let hello = AgentMessage::Hello {
                signature: "0".repeat(128),
                facts: Box::default(),
                sessions: split.sessions,
                others: split.others,
                has_unnamed: split.has_unnamed,
            };
            assert!(serde_json::to_string(&hello).unwrap().len() < MAX_TEXT_BYTES * 7 / 8);
        }
    }
}

//! Notes what a machine says about itself in the directory, and tells its users: off the path of terminal bytes.
//!
//! What the machine says is kept per subject, newest only, so the memory is bounded by the number of its sessions and a
//! slow database delays news but never the reader of the link.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claudenest_shared::id::SessionId;
use claudenest_shared::machine::MachineFacts;
use claudenest_shared::session::SessionInfo;
use claudenest_shared::wire::browser::ServerMessage;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::directory::DirectoryError;
use super::guard::{GuardNews, TooMuch};
use super::link::Link;
use super::{Hub, is_current};

/// Pause before the directory is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What a `hello` says about the machine's sessions.
#[derive(Default)]
pub(crate) struct SessionList {
    /// As many as fitted.
    pub(crate) sessions: Vec<SessionInfo>,
    /// They exist as well and are told next.
    pub(crate) others: Vec<SessionId>,
    /// There are more that are not named.
    pub(crate) has_unnamed: bool,
}

#[derive(Default)]
struct Pending {
    /// The list of a `hello`, before everything else.
    all: Option<SessionList>,
    facts: Option<Box<MachineFacts>>,
    /// Absent value: forgotten.
    sessions: BTreeMap<SessionId, Option<SessionInfo>>,
    /// Approvals and locks, after the sessions that they are about.
    guard: GuardNews,
}

impl Pending {
    /// Drops what [`write`] tries first.
    fn drop_first(&mut self) {
        if self.all.take().is_none() && self.facts.take().is_none() && self.sessions.pop_first().is_none() {
            self.guard.drop_first();
        }
    }

    fn is_empty(&self) -> bool {
        self.all.is_none() && self.facts.is_none() && self.sessions.is_empty() && self.guard.is_empty()
    }
}

/// News of one link that are not noted yet.
#[derive(Default)]
pub(crate) struct Recorder {
    pending: Mutex<Pending>,
    notify: Notify,
}

impl Recorder {
    fn note(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }

    /// The machine's list.
    pub(crate) fn all(&self, list: SessionList) {
        self.note(|pending| pending.all = Some(list));
    }

    /// New facts.
    pub(crate) fn facts(&self, facts: Box<MachineFacts>) {
        self.note(|pending| pending.facts = Some(facts));
    }

    /// A session is new or has changed.
    pub(crate) fn session(&self, session: SessionInfo) {
        self.note(|pending| {
            pending.sessions.insert(session.id, Some(session));
        });
    }

    /// A session was forgotten.
    pub(crate) fn removed(&self, session: SessionId) {
        self.note(|pending| {
            pending.sessions.insert(session, None);
        });
    }

    /// News of approvals and locks.
    ///
    /// # Errors
    /// The machine sends more than can be noted.
    pub(crate) fn guard(
        &self,
        change: impl FnOnce(&mut GuardNews) -> Result<(), TooMuch>,
    ) -> Result<(), TooMuch> {
        let mut result = Ok(());
        self.note(|pending| result = change(&mut pending.guard));
        result
    }

    fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts back what could not be noted, unless something newer came.
    fn put_back(&self, old: Pending) {
        self.note(|pending| {
            if pending.all.is_none() {
                pending.all = old.all;
            }
            if pending.facts.is_none() {
                pending.facts = old.facts;
            }
            for (id, session) in old.sessions {
                pending.sessions.entry(id).or_insert(session);
            }
            pending.guard.put_back(old.guard);
        });
    }
}

/// Notes news of `link` until `ended`, and then once more.
pub(crate) async fn run(hub: Hub, link: Arc<Link>, ended: CancellationToken) {
    loop {
        let is_last = ended.is_cancelled();
        let mut pending = link.recorder.take();
        if pending.is_empty() {
            if is_last {
                return;
            }
            tokio::select! {
                () = link.recorder.notify.notified() => {}
                () = ended.cancelled() => {}
            }
            continue;
        }
        if let Err(error) = write(&hub, &link, &mut pending).await {
            if error.is_final() {
                // Tried again, it would keep all later news of this machine waiting for ever.
                tracing::error!(machine.id = %link.machine, %error, "news of a machine cannot be noted; dropped");
                pending.drop_first();
                link.recorder.put_back(pending);
                continue;
            }
            tracing::warn!(machine.id = %link.machine, %error, "news of a machine wait for the database");
            link.recorder.put_back(pending);
            if is_last {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_PAUSE) => {}
                () = ended.cancelled() => {}
            }
        }
    }
}

/// Notes and publishes; what was noted is removed from `pending`.
async fn write(hub: &Hub, link: &Link, pending: &mut Pending) -> Result<(), DirectoryError> {
    let directory = hub.directory();
    // An older link must not write over what the newer one said.
    if !is_current(hub, link) {
        *pending = Pending::default();
        return Ok(());
    }
    if let Some(SessionList { sessions, others, has_unnamed }) = &pending.all {
        if *has_unnamed {
            directory.set_sessions(link.machine, sessions).await?;
        } else {
            for session in directory.replace_sessions(link.machine, sessions, others).await? {
                hub.publish(link.user, ServerMessage::SessionRemoved { session });
            }
        }
        for session in pending.all.take().unwrap_or_default().sessions {
            publish_session(hub, link, session);
        }
    }
    if let Some(facts) = &pending.facts {
        if directory.set_facts(link.machine, link.epoch, facts).await? {
            hub.publish_machine(link.user, link.machine).await?;
        }
        pending.facts = None;
    }
    while let Some((id, session)) = pending.sessions.first_key_value() {
        let id = *id;
        match session {
            Some(session) => directory.set_sessions(link.machine, std::slice::from_ref(session)).await?,
            None => directory.remove_session(link.machine, id).await?,
        }
        match pending.sessions.remove(&id).flatten() {
            Some(session) => publish_session(hub, link, session),
            None => hub.publish(link.user, ServerMessage::SessionRemoved { session: id }),
        }
    }
    pending.guard.write(hub, link).await
}

fn publish_session(hub: &Hub, link: &Link, mut session: SessionInfo) {
    session.machine_id = Some(link.machine);
    hub.publish(link.user, ServerMessage::Session { session: Box::new(session) });
}

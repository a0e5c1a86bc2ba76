//! What everybody may read without asking the owner task: the last told state of each session, its run, and
//! the digest of its capability.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claudenest_shared::id::SessionId;
use claudenest_shared::session::{Exit, SessionInfo};
use sha2::{Digest, Sha256};

use super::settings::Settings;
use crate::session::SessionHandle;

/// Ended sessions whose output is kept open for readers: each costs memory for its screen.
const OPEN_ENDED: usize = 16;

struct Entry {
    info: SessionInfo,
    digest: Option<String>,
    handle: Option<SessionHandle>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<SessionId, Entry>,
    ended: VecDeque<SessionId>,
}

pub(super) struct View {
    settings: Arc<Settings>,
    inner: Mutex<Inner>,
}

impl View {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { settings, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Newest first.
    pub(super) fn sessions(&self) -> Vec<SessionInfo> {
        let mut all: Vec<SessionInfo> = self.lock().entries.values().map(merged).collect();
        all.sort_by_key(|info| std::cmp::Reverse((info.created_at, info.id)));
        all
    }

    pub(super) fn info(&self, session: SessionId) -> Option<SessionInfo> {
        self.lock().entries.get(&session).map(merged)
    }

    pub(super) fn has_capability(&self, session: SessionId, capability: &str) -> bool {
        self.lock()
            .entries
            .get(&session)
            .and_then(|entry| entry.digest.as_ref())
            .is_some_and(|known| *known == digest(capability))
    }

    /// The live run, or that of an ended session from disk.
    pub(super) fn handle(&self, session: SessionId) -> Option<SessionHandle> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(&session)?;
        if let Some(handle) = &entry.handle {
            // The run before a restart is not what anybody wants to see.
            let is_current = handle.epoch() == entry.info.epoch || !entry.info.state.is_live();
            return is_current.then(|| handle.clone());
        }
        if entry.info.state.is_live() || entry.info.epoch == 0 {
            return None;
        }
        let run = self.settings.run(session, entry.info.epoch);
        if !run.dir.exists() {
            return None;
        }
        let handle = SessionHandle::from_disk(run, entry.info.exit.unwrap_or(Exit::Lost {}));
        entry.handle = Some(handle.clone());
        inner.retire(session);
        Some(handle)
    }

    /// The live or last handle, without opening anything.
    pub(super) fn open_handle(&self, session: SessionId) -> Option<SessionHandle> {
        self.lock().entries.get(&session)?.handle.clone()
    }

    /// Puts the told state in place and answers it with its live part.
    pub(super) fn put(&self, info: SessionInfo, digest: Option<String>) -> SessionInfo {
        let mut inner = self.lock();
        let id = info.id;
        let handle = inner.entries.remove(&id).and_then(|entry| entry.handle);
        let entry = Entry { info, digest, handle };
        let told = merged(&entry);
        inner.entries.insert(id, entry);
        told
    }

    pub(super) fn set_handle(&self, session: SessionId, handle: SessionHandle) {
        let mut inner = self.lock();
        inner.ended.retain(|id| *id != session);
        if let Some(entry) = inner.entries.get_mut(&session)
            && let Some(old) = entry.handle.replace(handle)
        {
            old.close();
        }
    }

    /// The run has ended: its handle stays for readers until others need the room.
    pub(super) fn ended(&self, session: SessionId) {
        self.lock().retire(session);
    }

    pub(super) fn drop_handle(&self, session: SessionId) {
        if let Some(handle) = self.lock().entries.get_mut(&session).and_then(|entry| entry.handle.take()) {
            handle.close();
        }
    }

    pub(super) fn remove(&self, session: SessionId) {
        let mut inner = self.lock();
        inner.ended.retain(|id| *id != session);
        if let Some(handle) = inner.entries.remove(&session).and_then(|entry| entry.handle) {
            handle.close();
        }
    }
}

impl Inner {
    fn retire(&mut self, session: SessionId) {
        self.ended.retain(|id| *id != session);
        self.ended.push_back(session);
        while self.ended.len() > OPEN_ENDED {
            let Some(oldest) = self.ended.pop_front() else { return };
            if let Some(handle) = self.entries.get_mut(&oldest).and_then(|entry| entry.handle.take()) {
                handle.close();
            }
        }
    }
}

/// The record's state with what only the run itself knows.
fn merged(entry: &Entry) -> SessionInfo {
    let mut info = entry.info.clone();
    if let Some(handle) = &entry.handle
        && handle.epoch() == info.epoch
    {
        let part = handle.info_part();
        info.output_bytes = part.output_bytes;
        if info.state.is_live() {
            info.size = part.size;
            info.size_owner = part.size_owner;
        }
        info.viewers = part.viewers;
        info.recording_problem = part.is_recording_failed.then(|| crate::recordings::PROBLEM.to_owned());
        info.title = part.title.or(info.title);
    }
    info
}

/// SHA-256 in hexadecimal: what is kept of a capability.
pub(super) fn digest(capability: &str) -> String {
    Sha256::digest(capability.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

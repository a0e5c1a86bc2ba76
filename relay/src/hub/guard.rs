//! News of approvals and locks between a machine's link and the directory.
//!
//! The newest of each subject is kept, and no more than there is room for: a machine that sends faster than the database
//! writes gets no further than that. Everything that it says about itself is made fit to be shown, except what is asked:
//! that stays as it is, and pages make it visible.

use std::collections::BTreeMap;

use claudenest_shared::approval::{Approval, MAX_REASON_CHARS};
use claudenest_shared::id::{ApprovalId, LockId};
use claudenest_shared::lock::{Lock, LockEnd, LockHolder};
use claudenest_shared::wire::browser::{ApprovalInfo, ServerMessage};

use super::Hub;
use super::directory::{DirectoryError, MAX_BRIEF_BYTES};
use super::link::Link;
use crate::text::fit;

/// News that may wait for the directory, in bytes: two hundred of the longest approvals.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// News that may wait for the directory: as many locks as are kept of a machine.
const MAX_SUBJECTS: usize = 12_000;
/// Longest name of a tool, a session or a person, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// Longest sentence, in bytes.
const MAX_SENTENCE_BYTES: usize = 1_024;
/// Longest path, in bytes: what systems allow.
const MAX_PATH_BYTES: usize = 4_096;
/// Reasons for a risk that are shown.
const MAX_NOTES: usize = 32;
/// Waiters for a lock that are shown.
const MAX_WAITERS: usize = 64;

#[derive(Clone)]
enum LockNews {
    Held(Box<Lock>),
    Ended(LockEnd),
}

/// What waits to be noted.
#[derive(Default)]
pub(crate) struct GuardNews {
    approvals: BTreeMap<ApprovalId, (Approval, usize)>,
    locks: BTreeMap<LockId, (LockNews, usize)>,
    bytes: usize,
    are_approvals_sent: bool,
    are_locks_sent: bool,
}

/// The machine sends more than can be noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooMuch;

impl GuardNews {
    /// An approval is new or has changed; it came in a message of that size.
    pub(crate) fn approval(&mut self, mut approval: Approval, size_bytes: usize) -> Result<(), TooMuch> {
        if self.approvals.get(&approval.id).is_some_and(|(known, _)| known.version > approval.version) {
            return Ok(());
        }
        clean_approval(&mut approval);
        if let Some((_, old)) = self.approvals.insert(approval.id, (approval, size_bytes)) {
            self.bytes -= old;
        }
        self.grown(size_bytes)
    }

    /// Every approval was named.
    pub(crate) fn approvals_sent(&mut self) {
        self.are_approvals_sent = true;
    }

    /// A lock is new or has changed; it came in a message of that size.
    pub(crate) fn lock(&mut self, mut lock: Lock, size_bytes: usize) -> Result<(), TooMuch> {
        clean_lock(&mut lock);
        self.lock_news(lock.id, LockNews::Held(Box::new(lock)), size_bytes)
    }

    /// A lock has ended.
    pub(crate) fn lock_ended(&mut self, lock: LockId, end: LockEnd) -> Result<(), TooMuch> {
        self.lock_news(lock, LockNews::Ended(end), 0)
    }

    /// Every lock was named.
    pub(crate) fn locks_sent(&mut self) {
        self.are_locks_sent = true;
    }

    fn lock_news(&mut self, id: LockId, news: LockNews, size_bytes: usize) -> Result<(), TooMuch> {
        if let Some((_, old)) = self.locks.insert(id, (news, size_bytes)) {
            self.bytes -= old;
        }
        self.grown(size_bytes)
    }

    fn grown(&mut self, by_bytes: usize) -> Result<(), TooMuch> {
        self.bytes += by_bytes;
        let subjects = self.approvals.len() + self.locks.len();
        if self.bytes > MAX_BYTES || subjects > MAX_SUBJECTS { Err(TooMuch) } else { Ok(()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.approvals.is_empty() && self.locks.is_empty() && !self.are_approvals_sent && !self.are_locks_sent
    }

    /// Puts back what could not be noted, unless something newer came.
    pub(super) fn put_back(&mut self, old: Self) {
        for (id, (approval, size)) in old.approvals {
            self.approvals.entry(id).or_insert_with(|| {
                self.bytes += size;
                (approval, size)
            });
        }
        for (id, (news, size)) in old.locks {
            self.locks.entry(id).or_insert_with(|| {
                self.bytes += size;
                (news, size)
            });
        }
        self.are_approvals_sent |= old.are_approvals_sent;
        self.are_locks_sent |= old.are_locks_sent;
    }

    /// Drops what [`GuardNews::write`] tries first.
    pub(super) fn drop_first(&mut self) {
        if let Some((_, (_, size))) = self.approvals.pop_first() {
            self.bytes -= size;
        } else if std::mem::take(&mut self.are_approvals_sent) {
        } else if let Some((_, (_, size))) = self.locks.pop_first() {
            self.bytes -= size;
        } else {
            self.are_locks_sent = false;
        }
    }

    /// Notes and publishes; what was noted is removed.
    pub(super) async fn write(&mut self, hub: &Hub, link: &Link) -> Result<(), DirectoryError> {
        let directory = hub.directory();
        while let Some((_, (approval, _))) = self.approvals.first_key_value() {
            let is_taken = directory.set_approval(link.machine, link.epoch, approval).await?;
            let Some((_, (mut approval, size))) = self.approvals.pop_first() else { break };
            self.bytes -= size;
            if is_taken {
                approval.machine_id = Some(link.machine);
                let approval = Box::new(ApprovalInfo::new(approval, MAX_BRIEF_BYTES));
                hub.publish(link.user, ServerMessage::Approval { approval });
            }
        }
        if self.are_approvals_sent {
            for approval in directory.forget_approvals(link.machine, link.epoch).await? {
                let machine = link.machine;
                hub.publish(link.user, ServerMessage::ApprovalRemoved { machine, approval });
            }
            self.are_approvals_sent = false;
        }
        while let Some((id, (news, _))) = self.locks.first_key_value() {
            let id = *id;
            let is_news = match news {
                LockNews::Held(lock) => directory.set_lock(link.machine, link.epoch, lock).await?,
                LockNews::Ended(_) => directory.remove_lock(link.machine, id).await?,
            };
            let Some((_, (news, size))) = self.locks.pop_first() else { break };
            self.bytes -= size;
            if !is_news {
                continue;
            }
            let machine = link.machine;
            hub.publish(
                link.user,
                match news {
                    LockNews::Held(mut lock) => {
                        lock.machine_id = Some(machine);
                        ServerMessage::Lock { lock }
                    }
                    LockNews::Ended(end) => ServerMessage::LockRemoved { machine, lock: id, end: Some(end) },
                },
            );
        }
        if self.are_locks_sent {
            for lock in directory.forget_locks(link.machine, link.epoch).await? {
                let machine = link.machine;
                hub.publish(link.user, ServerMessage::LockRemoved { machine, lock, end: None });
            }
            self.are_locks_sent = false;
        }
        Ok(())
    }
}

/// Only length: a path with odd characters is one of the things that a person has to see.
fn clean_path(path: &mut String) {
    path.truncate(path.floor_char_boundary(MAX_PATH_BYTES));
}

/// Makes fit what is said about an act; the act itself (`input`, `diff`) stays as it is.
pub(crate) fn clean_approval(approval: &mut Approval) {
    approval.machine_id = None;
    for name in [&mut approval.session_name, &mut approval.tool, &mut approval.input_sha256] {
        fit(name, MAX_NAME_BYTES);
    }
    for sentence in [&mut approval.summary, &mut approval.why] {
        fit(sentence, MAX_SENTENCE_BYTES);
    }
    if let Some(agent) = &mut approval.agent {
        fit(agent, MAX_NAME_BYTES);
    }
    if let Some(sentence) = &mut approval.state_text {
        fit(sentence, MAX_SENTENCE_BYTES);
    }
    clean_path(&mut approval.cwd);
    approval.notes.truncate(MAX_NOTES);
    for note in &mut approval.notes {
        fit(&mut note.word, MAX_NAME_BYTES);
        fit(&mut note.text, MAX_SENTENCE_BYTES);
        if let Some(part) = &mut note.part {
            part.truncate(part.floor_char_boundary(MAX_SENTENCE_BYTES));
        }
    }
    if let Some(decision) = &mut approval.decision {
        fit(&mut decision.by.label, MAX_NAME_BYTES);
        if let Some(reason) = &mut decision.answer.reason {
            reason.truncate(reason.floor_char_boundary(MAX_REASON_CHARS * 4));
        }
    }
}

/// Makes fit what is said about a lock.
pub(crate) fn clean_lock(lock: &mut Lock) {
    lock.machine_id = None;
    clean_path(&mut lock.path);
    clean_path(&mut lock.project);
    if let Some(reason) = &mut lock.reason {
        fit(reason, MAX_SENTENCE_BYTES);
    }
    lock.waiters.truncate(MAX_WAITERS);
    let waiters = lock.waiters.iter_mut().map(|waiter| &mut waiter.who);
    for holder in waiters.chain([&mut lock.holder]) {
        let (LockHolder::Session { name, .. } | LockHolder::Person { label: name }) = holder;
        fit(name, MAX_NAME_BYTES);
    }
}

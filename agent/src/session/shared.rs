//! What the tasks, streams and writers of one run share: two locks, held for moments and never across an await.
//!
//! Lock order: model, then core. Whoever changes the core wakes those who watch before it lets go of its turn.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::agent::Screen;
use claudenest_shared::wire::holder::{HolderExit, HolderHello, IoKind, ToHolder};
use claudenest_shared::wire::limits::MAX_SNAPSHOT_BYTES;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::checkpoint::Checkpoint;
use super::core::{Core, Todo};
use super::queues::{AckQueue, Outbox};
use super::sanitise::{AnswerContext, Query, Sanitiser, answer};
use super::screen::{Model, ScreenModel};
use super::skim::skippable;
use super::viewer::Snapshot;
use super::{InfoPart, InputAck, NoticeEvent, SessionConfig};
use crate::holder::Recording;

/// How far the model may stay behind before the one who brings output takes it along: a quarter of the ring, 5 ms of work.
const MODEL_LAG_BYTES: u64 = 1024 * 1024;
/// What the model takes at a time, so that nobody waits long for its lock: 1 ms of work at most.
pub(super) const MODEL_STEP_BYTES: u64 = 256 * 1024;
/// What is copied for the model at a time: large enough that most of a flood is skimmed.
const MODEL_SLICE_BYTES: u64 = 256 * 1024;
/// The screen is written to disk whenever this much has come: a quarter of what a holder keeps in memory.
const SAVE_BYTES: u64 = 1024 * 1024;
/// One read while a screen is restored.
const RESTORE_BYTES: usize = 256 * 1024;
/// The writer that answers queries of the child. Viewers choose 64 random bits.
const ANSWERER: u64 = u64::MAX;

/// The screen, following the output.
struct Follower {
    model: Model,
    offset: u64,
    next_resize: u64,
    /// Changes of size below this are in the model already.
    knows_sizes_below: u64,
    /// Offset of the screen on disk.
    saved: u64,
}

/// Notices that wait for the supervisor; equal ones are merged.
#[derive(Default)]
struct Notices {
    waiting: VecDeque<NoticeEvent>,
    has_output: bool,
}

/// See the module.
pub(super) struct Shared {
    pub(super) config: SessionConfig,
    core: Mutex<Core>,
    follower: Mutex<Follower>,
    changed: watch::Sender<u64>,
    pub(super) outbox: Outbox,
    acks: Mutex<HashMap<u64, (u64, Arc<AckQueue>)>>,
    attachments: AtomicU64,
    /// The task that follows has been woken and has not begun yet.
    is_follow_due: AtomicBool,
    notices: Mutex<Notices>,
    /// Wakes the task that follows, tells notices and keeps deadlines.
    pub(super) housekeeping: Notify,
    pub(super) hello: HolderHello,
    pub(super) cancel: CancellationToken,
}

impl Shared {
    pub(super) fn new(
        config: SessionConfig,
        core: Core,
        hello: HolderHello,
        cancel: CancellationToken,
    ) -> Self {
        let start = core.ring.tail();
        let follower = Follower {
            model: Model::new(core.size_at(start)),
            offset: start,
            next_resize: core.resize_number_after(start),
            knows_sizes_below: 0,
            saved: start,
        };
        Self {
            config,
            core: Mutex::new(core),
            follower: Mutex::new(follower),
            changed: watch::Sender::new(0),
            outbox: Outbox::default(),
            acks: Mutex::default(),
            attachments: AtomicU64::new(1),
            is_follow_due: AtomicBool::new(false),
            notices: Mutex::default(),
            housekeeping: Notify::new(),
            hello,
            cancel,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        // The core is changed by whole calls, so a panic elsewhere leaves it usable.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follower(&self) -> MutexGuard<'_, Follower> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes every stream.
    pub(super) fn wake(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Carries out what a change of the core asks for.
    pub(super) fn carry_out(&self, todo: Todo) {
        self.outbox.push(&todo.send);
        if todo.answers.is_empty() {
            return;
        }
        let acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        for answer in todo.answers {
            if let Some((_, queue)) = acks.get(&answer.writer) {
                queue.push(InputAck { seq: answer.seq, refused: answer.refused });
            }
        }
    }

    /// Sends messages to the holder that are no input.
    pub(super) fn send(&self, message: ToHolder) {
        self.outbox.push(&[message]);
    }

    /// Output came from the holder. Whoever brings it calls [`Shared::will_follow`] when it has been sent on.
    pub(super) fn output(&self, offset: u64, bytes: &Bytes) {
        let mut core = self.lock();
        let before = core.head();
        let title = core.title.clone();
        let queries = core.output(offset, bytes);
        let head = core.head();
        let is_new_title = core.title != title;
        drop(core);
        self.wake();
        // A program without a terminal asks nobody; what looks like a question must not type into its input.
        if !queries.is_empty() && self.hello.io == IoKind::Pty {
            self.answer(&queries);
        }
        if before == 0 && head > 0 {
            self.notice(NoticeEvent::FirstOutput);
        }
        if is_new_title {
            self.notice(NoticeEvent::Changed);
        }
        let behind = head - self.follower_offset().min(head);
        if behind > MODEL_LAG_BYTES {
            self.follow();
        }
    }

    /// Makes the task that follows look, unless it will anyway.
    pub(super) fn will_follow(&self) {
        if !self.is_follow_due.swap(true, Ordering::AcqRel) {
            self.housekeeping.notify_one();
        }
    }

    /// The task that follows begins: what comes from now on is to be told again.
    pub(super) fn begin_to_follow(&self) {
        self.is_follow_due.store(false, Ordering::Release);
    }

    fn follower_offset(&self) -> u64 {
        // A busy follower is moving on already.
        self.follower.try_lock().map_or(u64::MAX, |follower| follower.offset)
    }

    /// Answers queries, each once: the holder knows the number of an answer by the query's offset.
    fn answer(&self, queries: &[(u64, Query)]) {
        for (offset, query) in queries {
            let bytes = {
                let mut follower = self.follower();
                self.catch_up(&mut follower, *offset, u64::MAX);
                answer_from(&follower.model, query)
            };
            let Some(bytes) = bytes else { continue };
            let todo = {
                let mut core = self.lock();
                core.input.open(ANSWERER);
                core.write(ANSWERER, *offset + 1, 0, bytes.into(), Instant::now())
            };
            self.carry_out(todo);
        }
    }

    /// Moves the model towards `target`, by at most `most` bytes.
    fn catch_up(&self, follower: &mut Follower, target: u64, most: u64) {
        let mut left = most;
        while left > 0 {
            let core = self.lock();
            if follower.offset < core.ring.tail() {
                // What was missed is gone; the next full redraw makes it right.
                follower.offset = core.ring.tail();
                follower.next_resize = core.resize_number_after(follower.offset);
                let size = core.size_at(follower.offset);
                follower.model.resize(size);
            }
            let mut until = target.min(core.head());
            if let Some((number, offset, size)) = core.resize_number(follower.next_resize) {
                if offset <= follower.offset {
                    drop(core);
                    follower.next_resize = number + 1;
                    if offset >= follower.knows_sizes_below {
                        follower.model.resize(size);
                    }
                    continue;
                }
                until = until.min(offset);
            }
            let size = until.saturating_sub(follower.offset).min(left).min(MODEL_SLICE_BYTES);
            if size == 0 {
                break;
            }
            let bytes = core.ring.slice(follower.offset, size as usize);
            drop(core);
            let skipped = follower.model.scrolls_whole().map_or(0, |rows| skippable(&bytes, rows));
            follower.model.process(&bytes[skipped..]);
            if follower.model.is_broken() {
                follower.model = self.rebuild(follower.offset);
                follower.model.process(&bytes);
                if follower.model.is_broken() {
                    // It is these bytes: the screen goes on without them, and the next full redraw makes it right.
                    follower.model = self.rebuild(follower.offset);
                }
            }
            follower.offset += bytes.len() as u64;
            left -= bytes.len() as u64;
        }
    }

    /// A new model in the place of one that failed behind `offset`: from what the ring has below it.
    fn rebuild(&self, offset: u64) -> Model {
        tracing::warn!(session.id = %self.config.session, "the screen model failed and is built anew");
        let core = self.lock();
        let (mut at, mut number) = (core.ring.tail(), core.resize_number_after(core.ring.tail()));
        let mut model = Model::new(core.size_at(at));
        while at < offset {
            let mut until = offset;
            if let Some((next, change, size)) = core.resize_number(number) {
                if change <= at {
                    model.resize(size);
                    number = next + 1;
                    continue;
                }
                until = until.min(change);
            }
            let bytes = core.ring.slice(at, usize::try_from(until - at).unwrap_or(usize::MAX));
            model.process(&bytes);
            at += bytes.len().max(1) as u64;
        }
        if model.is_broken() { Model::new(core.size_at(offset)) } else { model }
    }

    /// Lets the model follow a step. True if more is waiting.
    pub(super) fn follow(&self) -> bool {
        let mut follower = self.follower();
        self.catch_up(&mut follower, u64::MAX, MODEL_STEP_BYTES);
        follower.offset < self.lock().head()
    }

    /// Begins with a screen on disk, if the output in memory begins too late to know the modes. Blocks for the
    /// time that reading up to there takes.
    pub(super) fn restore(&self, saved: Checkpoint) {
        let start = self.lock().ring.tail();
        if start == 0 {
            return;
        }
        let mut model = Model::new(saved.size);
        model.process(&saved.snapshot);
        let recording = Recording::of(&self.config.dir);
        let (mut offset, mut sanitiser) = (saved.offset, Sanitiser::default());
        while offset < start {
            let size = usize::try_from(start - offset).unwrap_or(RESTORE_BYTES).min(RESTORE_BYTES);
            let Ok(Some(raw)) = recording.read(offset, size) else { return };
            let (mut clean, mut events) = (Vec::new(), Vec::new());
            sanitiser.push(&raw, &mut clean, &mut events);
            model.process(&clean);
            offset += raw.len() as u64;
        }
        if offset == start {
            model.resize(self.lock().size_at(start));
        }
        let mut core = self.lock();
        core.title = model.title().map(str::to_owned);
        drop(core);
        *self.follower() =
            Follower { model, offset, next_resize: 0, knows_sizes_below: offset, saved: saved.offset };
    }

    /// The screen to be kept on disk, when enough has come since the last one.
    pub(super) fn to_save(&self) -> Option<Checkpoint> {
        let mut follower = self.follower();
        // Only where the filter holds nothing back can a later daemon go on reading.
        if follower.offset < follower.saved + SAVE_BYTES || !self.lock().is_at_ground(follower.offset) {
            return None;
        }
        let snapshot = follower.model.snapshot();
        follower.saved = follower.offset;
        Some(Checkpoint { offset: follower.offset, size: follower.model.size(), snapshot })
    }

    /// The model, up to date. Takes up to 5 ms when it was far behind.
    fn current(&self) -> MutexGuard<'_, Follower> {
        let mut follower = self.follower();
        self.catch_up(&mut follower, u64::MAX, u64::MAX);
        follower
    }

    /// A snapshot of everything so far.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut follower = self.current();
        let mut bytes = follower.model.snapshot();
        if bytes.len() > MAX_SNAPSHOT_BYTES {
            bytes = plain_snapshot(&follower.model);
        }
        let (offset, size, next_resize) = (follower.offset, follower.model.size(), follower.next_resize);
        Snapshot { offset, size, next_resize, bytes: bytes.into() }
    }

    /// The screen as text, with the offset it reflects.
    pub(super) fn screen(&self) -> Screen {
        let follower = self.current();
        let text = follower.model.text();
        Screen {
            size: follower.model.size(),
            rows: text.rows,
            cursor_col: text.cursor_col,
            cursor_row: text.cursor_row,
            offset: follower.offset,
        }
    }

    /// True if the program asked for brackets around pastes.
    pub(super) fn is_bracketed_paste(&self) -> bool {
        self.current().model.modes().bracketed_paste
    }

    pub(super) fn resized(&self, offset: u64, size: TermSize) {
        self.lock().resized(offset, size);
        self.will_follow();
        self.wake();
        self.notice(NoticeEvent::Changed);
    }

    /// The child has ended, or its holder is gone.
    pub(super) fn end(&self, exit: HolderExit, is_lost: bool) {
        let mut core = self.lock();
        if core.exit().is_some() {
            return;
        }
        let todo = core.end(exit, Instant::now());
        let offset = core.head();
        drop(core);
        self.carry_out(todo);
        self.wake();
        self.notice(if is_lost {
            NoticeEvent::HolderLost
        } else {
            NoticeEvent::Exited { exit: exit.exit, at: exit.at, offset }
        });
    }

    /// Ends every stream and writer.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.cancel.cancel();
        self.wake();
        for (_, queue) in self.acks.lock().unwrap_or_else(PoisonError::into_inner).values() {
            queue.close();
        }
        self.housekeeping.notify_one();
    }

    pub(super) fn viewer_came(&self) {
        self.lock().viewers += 1;
        self.notice(NoticeEvent::Changed);
    }

    pub(super) fn viewer_left(&self) {
        {
            let mut core = self.lock();
            core.viewers = core.viewers.saturating_sub(1);
        }
        self.notice(NoticeEvent::Changed);
    }

    /// A writer's attachment: its number, its answers, and its highest number that reached the child.
    pub(super) fn attach(
        &self,
        writer: u64,
        label: String,
        may_size: bool,
        is_local: bool,
    ) -> (u64, Arc<AckQueue>, u64) {
        let number = self.attachments.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(AckQueue::default());
        let older = {
            let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
            acks.insert(writer, (number, Arc::clone(&queue)))
        };
        if let Some((_, older)) = older {
            older.close();
        }
        let acked = self.lock().open_writer(writer, label, may_size, is_local);
        self.notice(NoticeEvent::Changed);
        (number, queue, acked)
    }

    /// The attachment ends, unless the writer has a newer one.
    pub(super) fn detach(&self, writer: u64, number: u64) {
        {
            let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
            match acks.get(&writer) {
                Some((current, queue)) if *current == number => {
                    queue.close();
                    acks.remove(&writer);
                }
                _ => return,
            }
        }
        let todo = self.lock().close_writer(writer, Instant::now());
        self.carry_out(todo);
        self.notice(NoticeEvent::Changed);
    }

    /// Something that the supervisor should hear.
    pub(super) fn notice(&self, event: NoticeEvent) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            NoticeEvent::FirstOutput if std::mem::replace(&mut notices.has_output, true) => return,
            NoticeEvent::Changed if notices.waiting.contains(&NoticeEvent::Changed) => return,
            event => notices.waiting.push_back(event),
        }
        drop(notices);
        self.housekeeping.notify_one();
    }

    pub(super) fn next_notice(&self) -> Option<NoticeEvent> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).waiting.pop_front()
    }

    pub(super) fn info_part(&self) -> InfoPart {
        let core = self.lock();
        let is_live = core.exit().is_none();
        InfoPart {
            epoch: core.epoch,
            output_bytes: core.head(),
            size: core.size_at(u64::MAX),
            size_owner: core.size.owner_label().map(str::to_owned),
            title: core.title.clone(),
            viewers: core.viewers,
            child_pid: is_live.then_some(self.hello.child_pid),
            holder_pid: is_live.then_some(self.hello.holder_pid),
            exit: core.exit().map(|exit| exit.exit),
            // What has ended is not being recorded any more.
            is_recording_failed: core.is_recording_failed && is_live,
        }
    }

    /// Refusal of anything that needs the child.
    pub(super) fn check_alive(&self) -> Result<(), claudenest_shared::code::WireError> {
        let core = self.lock();
        if core.exit().is_some() || core.is_closed {
            return Err(claudenest_shared::code::WireError::new(
                ErrorCode::SessionEnded,
                "This session has ended. Restart it to go on.",
            ));
        }
        Ok(())
    }
}

/// The answer to a query, from the model as it was where the query was asked.
fn answer_from(model: &Model, query: &Query) -> Option<Vec<u8>> {
    let (text, size) = (model.text(), model.size());
    let mode = |mode| model.mode_state(mode);
    let context = AnswerContext {
        kitty_flags: Some(model.modes().kitty_flags),
        ..AnswerContext::dark((text.cursor_row + 1, text.cursor_col + 1), (size.rows, size.cols), &mode)
    };
    answer(query, &context)
}

/// A screen without styles, for the rare one that is larger with them than a frame may be.
fn plain_snapshot(model: &Model) -> Vec<u8> {
    let text = model.text();
    let mut out = text.rows.join("\r\n");
    out.push_str(&format!("\x1b[{};{}H", text.cursor_row + 1, text.cursor_col + 1));
    let mut bytes = out.into_bytes();
    bytes.truncate(MAX_SNAPSHOT_BYTES);
    bytes
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;

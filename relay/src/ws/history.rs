//! Chunks of past output from a machine's link to the database: beside the path of terminal bytes, in order, and each
//! answered.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};

use claudenest_shared::history::{ChunkLine, HistoryOutcome, HistoryPosition};
use claudenest_shared::wire::agent::RelayMessage;
use claudenest_shared::wire::frame::Frame;
use claudenest_shared::wire::history::ChunkUpload;
use claudenest_shared::wire::limits::MAX_HISTORY_UNPACKED_BYTES;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::db::history::NewChunk;
use crate::hub::Hub;
use crate::hub::link::Link;

/// Questions and chunks that wait for the database. An agent has one of them under way.
const MAX_WAITING: usize = 8;
/// Runs that may be asked about at once.
const MAX_RUNS: usize = 200;
/// Lines of a chunk; 64 KiB of output have no more.
const MAX_LINES: usize = 64 * 1024;

enum Work {
    Query(Vec<HistoryPosition>),
    Chunk(Box<NewChunk>),
}

/// What waits to be stored of one link.
#[derive(Default)]
pub(super) struct Shelf {
    waiting: Mutex<VecDeque<Work>>,
    notify: Notify,
}

impl Shelf {
    fn push(&self, work: Work) -> Result<(), &'static str> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_WAITING {
            return Err("history is sent without waiting for answers");
        }
        waiting.push_back(work);
        drop(waiting);
        self.notify.notify_one();
        Ok(())
    }

    /// The machine asks how far its runs are stored.
    pub(super) fn query(&self, runs: Vec<HistoryPosition>) -> Result<(), &'static str> {
        if runs.len() > MAX_RUNS {
            return Err("a history query names too many runs");
        }
        self.push(Work::Query(runs))
    }

    /// A chunk came.
    pub(super) fn chunk(&self, frame: Frame) -> Result<(), &'static str> {
        self.push(Work::Chunk(Box::new(unpack(frame)?)))
    }

    fn take(&self) -> Option<Work> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Checks that a chunk is what it says.
fn unpack(frame: Frame) -> Result<NewChunk, &'static str> {
    const BAD: &str = "a history chunk is malformed";
    let upload = ChunkUpload::decode(frame.payload).map_err(|_| BAD)?;
    let head = upload.head;
    let length = head.end.checked_sub(frame.offset).ok_or(BAD)?;
    let is_ordered = head.from <= frame.offset && head.at_ms <= head.end_ms && length > 0;
    if !is_ordered || i64::try_from(head.end).is_err() || i64::try_from(head.end_ms).is_err() {
        return Err(BAD);
    }
    let data = unpacked(&upload.data).ok_or(BAD)?;
    if data.len() as u64 != length || (!upload.screen.is_empty() && unpacked(&upload.screen).is_none()) {
        return Err(BAD);
    }
    let lines: Vec<ChunkLine> =
        unpacked(&upload.lines).and_then(|json| serde_json::from_slice(&json).ok()).ok_or(BAD)?;
    if lines.len() > MAX_LINES || lines.iter().any(|line| line.text.contains('\n')) {
        return Err(BAD);
    }
    Ok(NewChunk {
        session: frame.session,
        epoch: frame.epoch,
        start: frame.offset,
        head,
        lines,
        screen: upload.screen.to_vec(),
        data: upload.data.to_vec(),
    })
}

/// What a compressed part holds; `None` if it is malformed or too large.
pub(crate) fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let limit = MAX_HISTORY_UNPACKED_BYTES as u64;
    let mut out = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(packed).ok()?;
    decoder.take(limit + 1).read_to_end(&mut out).ok()?;
    (out.len() as u64 <= limit).then_some(out)
}

/// Stores what comes on `link` until `ended`.
pub(super) async fn run(hub: Hub, link: Arc<Link>, shelf: Arc<Shelf>, ended: CancellationToken) {
    loop {
        let Some(work) = shelf.take() else {
            tokio::select! {
                () = shelf.notify.notified() => continue,
                () = ended.cancelled() => return,
            }
        };
        match work {
            Work::Query(runs) => match hub.directory().history_have(link.machine, &runs).await {
                Ok(runs) => link.send(&RelayMessage::HistoryHave { runs }),
                // The agent asks again.
                Err(error) => tracing::warn!(%error, "a question about history waits for the database"),
            },
            Work::Chunk(chunk) => {
                let (session, epoch) = (chunk.session, chunk.epoch);
                let stored = hub.directory().store_history(link.machine, &chunk).await;
                let (end, outcome) = stored.unwrap_or_else(|error| {
                    tracing::warn!(session.id = %session, %error, "a history chunk was not stored");
                    (0, HistoryOutcome::Later)
                });
                let position = HistoryPosition { session, epoch, end };
                link.send(&RelayMessage::HistoryStored { position, outcome });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use claudenest_shared::history::ChunkHead;
    use claudenest_shared::id::SessionId;
    use claudenest_shared::wire::frame::FrameKind;

    type Change = Box<dyn FnOnce(&mut ChunkUpload)>;

    fn pack(bytes: &[u8]) -> Bytes {
        zstd::bulk::compress(bytes, 3).unwrap().into()
    }

    fn frame(change: impl FnOnce(&mut ChunkUpload)) -> Frame {
        let mut upload = ChunkUpload {
            head: ChunkHead { from: 5, end: 13, at_ms: 1, end_ms: 2, ..ChunkHead::default() },
            lines: pack(br#"[{"offset":13,"at_ms":2,"text":"a line"}]"#),
            screen: Bytes::new(),
            data: pack(b"output"),
        };
        change(&mut upload);
        let session = SessionId::from_bytes([1; 16]);
        let payload = upload.encode();
        Frame { kind: FrameKind::History, flags: 0, channel: 0, epoch: 1, session, offset: 7, payload }
    }

    #[test]
    fn a_chunk_must_be_what_it_says() {
        let chunk = unpack(frame(|_| ())).unwrap();
        assert_eq!((chunk.start, chunk.head.from, chunk.lines[0].text.as_str()), (7, 5, "a line"));
        let bomb = pack(&vec![0; MAX_HISTORY_UNPACKED_BYTES + 1]);
        let changes: [Change; 9] = [
            Box::new(|upload| upload.head.end = 14),
            Box::new(|upload| upload.head.end = 7),
            Box::new(|upload| upload.head.end = u64::MAX),
            Box::new(|upload| upload.head.from = 8),
            Box::new(|upload| upload.head.end_ms = 0),
            Box::new(|upload| upload.data = Bytes::from_static(b"not packed")),
            Box::new(|upload| upload.lines = pack(b"{}")),
            Box::new(|upload| upload.lines = pack(br#"[{"offset":1,"at_ms":1,"text":"a\nb"}]"#)),
            Box::new(move |upload| upload.screen = bomb),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(unpack(frame(change)).is_err(), "change {number}");
        }
    }

    #[test]
    fn what_is_sent_without_waiting_is_refused() {
        let shelf = Shelf::default();
        for _ in 0..MAX_WAITING {
            shelf.chunk(frame(|_| ())).unwrap();
        }
        assert!(shelf.chunk(frame(|_| ())).is_err());
        assert!(shelf.query(vec![]).is_err());
    }
}

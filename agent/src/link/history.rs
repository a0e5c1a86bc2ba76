//! Sends past output to a relay that keeps it (`history = "full"`): read from the recordings on disk, one chunk after the
//! other, each acknowledged before the next.
//!
//! Invariants: the relay says where its copy ends, and nothing is sent twice; frames of terminals go first; what the
//! upload lags behind is bounded, and what is skipped is named as missing. Nothing here is on the way of live output.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use claudenest_shared::history::{HistoryOutcome, HistoryPosition};
use claudenest_shared::id::SessionId;
use claudenest_shared::session::SessionInfo;
use claudenest_shared::wire::agent::AgentMessage;
use claudenest_shared::wire::frame::{Frame, FrameKind};
use claudenest_shared::wire::limits::MAX_LAG_LIMIT_BYTES;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::actor::LinkHost;
use crate::channel::Outgoing;
use crate::history::chunk::{Chunk, Chunker};
use crate::history::runs;

/// How often it is looked for new output: a chunk covers at most this much time.
const INTERVAL: Duration = Duration::from_secs(5);
/// Output sent in a second at most: far above what sessions print on the average, far below what a link carries.
const BYTES_PER_SECOND: u64 = 2 * 1024 * 1024;
/// A relay that does not answer within this has lost the question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// After "later": a full store is emptied by a job, a database that is away comes back.
const LATER: Duration = Duration::from_secs(30);
/// What the upload of a run may lag behind; beyond it the oldest part is skipped and named.
const MAX_LAG: u64 = MAX_LAG_LIMIT_BYTES;
/// Output between two screens in the relay's copy: a page that seeks reads at most this much.
const SCREEN_BYTES: u64 = 256 * 1024;
/// Runs that stay open between two looks; each holds a screen and a time line.
const MAX_OPEN: usize = 16;
/// Runs that are asked about at once.
const MAX_QUERY: usize = 200;
/// While frames of terminals wait, a chunk waits this long at a time, and so often at most.
const BACK_OFF: (Duration, u32) = (Duration::from_millis(10), 100);
/// Answers of the relay that wait here; there is one question at a time.
pub(super) const ANSWERS: usize = 4;

/// What the relay said.
#[derive(Debug)]
pub(super) enum Answer {
    /// How far it has runs.
    Have(Vec<HistoryPosition>),
    /// What became of a chunk.
    Stored(HistoryPosition, HistoryOutcome),
}

type Key = (SessionId, u32);

/// A run on its way to the relay.
struct Upload {
    /// Where the relay's copy ends.
    end: u64,
    chunker: Option<Chunker>,
    /// Offset of the last screen that was sent.
    screen: Option<u64>,
    /// Not before this.
    pause_until: Option<Instant>,
    used: u64,
}

/// The connection is over.
struct Over;

/// See the module.
pub(super) struct Uploader<H> {
    host: Arc<H>,
    sessions_dir: PathBuf,
    out: mpsc::Sender<Outgoing>,
    answers: mpsc::Receiver<Answer>,
    uploads: BTreeMap<Key, Upload>,
    /// What was seen of each session when everything of it had been sent.
    done: HashMap<SessionId, (u32, u64, bool)>,
    turn: u64,
}

impl<H: LinkHost> Uploader<H> {
    pub(super) fn new(
        host: Arc<H>,
        sessions_dir: PathBuf,
        out: mpsc::Sender<Outgoing>,
        answers: mpsc::Receiver<Answer>,
    ) -> Self {
        Self { host, sessions_dir, out, answers, uploads: BTreeMap::new(), done: HashMap::new(), turn: 0 }
    }

    /// Uploads until the connection is over.
    pub(super) async fn run(mut self) {
        loop {
            let begin = Instant::now();
            if self.round().await.is_err() {
                return;
            }
            sleep(INTERVAL.saturating_sub(begin.elapsed()).max(Duration::from_millis(100))).await;
        }
    }

    /// Sends what has come since the last round, in turn from each run.
    async fn round(&mut self) -> Result<(), Over> {
        let sessions = self.host.sessions();
        self.done.retain(|id, _| sessions.iter().any(|info| info.id == *id));
        self.uploads.retain(|(id, _), _| sessions.iter().any(|info| info.id == *id));
        let mark = |info: &SessionInfo| (info.epoch, info.output_bytes, info.state.is_live());
        let changed: Vec<&SessionInfo> =
            sessions.iter().filter(|info| self.done.get(&info.id) != Some(&mark(info))).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let mut keys = self.runs_of(&changed).await;
        let unknown: Vec<Key> = keys.iter().filter(|key| !self.uploads.contains_key(key)).copied().collect();
        for part in unknown.chunks(MAX_QUERY) {
            self.query(part).await?;
        }
        let now = Instant::now();
        keys.retain(|key| {
            self.uploads.get(key).is_some_and(|upload| upload.pause_until.is_none_or(|until| until <= now))
        });
        let mut is_whole: HashMap<SessionId, bool> = HashMap::new();
        while !keys.is_empty() {
            let mut next = Vec::new();
            for key in keys {
                match self.send_one(key).await? {
                    Sent::More => next.push(key),
                    Sent::End => {}
                    Sent::NotNow => {
                        is_whole.insert(key.0, false);
                    }
                }
            }
            keys = next;
        }
        for info in changed {
            if is_whole.get(&info.id).copied().unwrap_or(true) && self.is_on_disk(info) {
                self.done.insert(info.id, mark(info));
            }
        }
        self.close_some();
        Ok(())
    }

    /// True if the upload has reached what the session says that it has printed; a recording follows after a moment.
    fn is_on_disk(&self, info: &SessionInfo) -> bool {
        let end = self.uploads.get(&(info.id, info.epoch)).map_or(0, |upload| upload.end);
        end >= info.output_bytes || !info.state.is_live()
    }

    async fn runs_of(&mut self, sessions: &[&SessionInfo]) -> Vec<Key> {
        let (dir, ids) = (self.sessions_dir.clone(), sessions.iter().map(|info| info.id).collect::<Vec<_>>());
        let list = move || -> Vec<Key> {
            ids.into_iter()
                .flat_map(|id| runs::of(&dir, id).into_iter().map(move |run| (id, run.epoch)))
                .collect()
        };
        tokio::task::spawn_blocking(list).await.unwrap_or_default()
    }

    /// Asks how far the relay has these runs.
    async fn query(&mut self, keys: &[Key]) -> Result<(), Over> {
        let runs =
            keys.iter().map(|(session, epoch)| HistoryPosition { session: *session, epoch: *epoch, end: 0 });
        self.say(Outgoing::Message(AgentMessage::HistoryQuery { runs: runs.collect() })).await?;
        while let Some(answer) = self.answer().await? {
            if let Answer::Have(runs) = answer {
                for HistoryPosition { session, epoch, end } in runs {
                    if keys.contains(&(session, epoch)) {
                        let upload =
                            Upload { end, chunker: None, screen: None, pause_until: None, used: self.turn };
                        self.uploads.insert((session, epoch), upload);
                    }
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends the next chunk of a run and waits for what becomes of it.
    async fn send_one(&mut self, key: Key) -> Result<Sent, Over> {
        let begin = Instant::now();
        self.turn += 1;
        let turn = self.turn;
        let Some(upload) = self.uploads.get_mut(&key) else { return Ok(Sent::End) };
        upload.used = turn;
        let dir = crate::recordings::run_dir(&self.sessions_dir, key.0, key.1);
        let (chunker, end) = (upload.chunker.take(), upload.end);
        let wants_screen = upload.screen.is_none_or(|last| end >= last + SCREEN_BYTES);
        let read = tokio::task::spawn_blocking(move || next_chunk(dir, chunker, end, wants_screen)).await;
        let Some(upload) = self.uploads.get_mut(&key) else { return Ok(Sent::End) };
        let (chunker, chunk) = match read {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => {
                tracing::warn!(session.id = %key.0, %error, "a recording cannot be read for its relay");
                upload.pause_until = Some(Instant::now() + LATER);
                return Ok(Sent::NotNow);
            }
            Err(_) => return Ok(Sent::NotNow),
        };
        upload.chunker = Some(chunker);
        let Some((chunk, payload)) = chunk else { return Ok(Sent::End) };
        let kind = FrameKind::History;
        let frame =
            Frame { kind, flags: 0, channel: 0, epoch: key.1, session: key.0, offset: chunk.start, payload };
        self.wait_for_room().await;
        self.say(Outgoing::Frame(frame)).await?;
        let outcome = loop {
            match self.answer().await? {
                Some(Answer::Stored(position, outcome)) if (position.session, position.epoch) == key => {
                    break Some((position.end, outcome));
                }
                Some(_) => {}
                None => break None,
            }
        };
        let Some(upload) = self.uploads.get_mut(&key) else { return Ok(Sent::End) };
        match outcome {
            Some((end, HistoryOutcome::Stored)) if end == chunk.head.end => {
                upload.end = end;
                if chunk.screen.is_some() {
                    upload.screen = Some(chunk.start);
                }
                let owed = Duration::from_millis(chunk.data.len() as u64 * 1000 / BYTES_PER_SECOND);
                sleep(owed.saturating_sub(begin.elapsed())).await;
                Ok(Sent::More)
            }
            Some((end, HistoryOutcome::Stored | HistoryOutcome::Elsewhere)) => {
                // Another connection of this machine was faster, or an answer was lost: go on where the copy ends.
                let is_news = end != upload.end;
                (upload.end, upload.chunker) = (end, None);
                if is_news {
                    return Ok(Sent::More);
                }
                upload.pause_until = Some(Instant::now() + LATER);
                Ok(Sent::NotNow)
            }
            Some((_, HistoryOutcome::Unknown)) => {
                upload.chunker = None;
                Ok(Sent::NotNow)
            }
            Some((_, HistoryOutcome::Later)) => {
                upload.chunker = None;
                upload.pause_until = Some(Instant::now() + LATER);
                Ok(Sent::NotNow)
            }
            None => {
                self.uploads.remove(&key);
                Ok(Sent::NotNow)
            }
        }
    }

    /// Lets frames of terminals go first.
    async fn wait_for_room(&mut self) {
        let (pause, most) = BACK_OFF;
        for _ in 0..most {
            if self.out.capacity() == self.out.max_capacity() {
                return;
            }
            sleep(pause).await;
        }
    }

    async fn say(&mut self, outgoing: Outgoing) -> Result<(), Over> {
        self.out.send(outgoing).await.map_err(|_| Over)
    }

    /// What the relay says; `None` if it says nothing.
    async fn answer(&mut self) -> Result<Option<Answer>, Over> {
        match timeout(ANSWER_TIMEOUT, self.answers.recv()).await {
            Ok(Some(answer)) => Ok(Some(answer)),
            Ok(None) => Err(Over),
            Err(_) => Ok(None),
        }
    }

    /// Closes what was used longest ago.
    fn close_some(&mut self) {
        let mut open: Vec<(u64, Key)> = self
            .uploads
            .iter()
            .filter(|(_, upload)| upload.chunker.is_some())
            .map(|(key, upload)| (upload.used, *key))
            .collect();
        open.sort_unstable();
        for (_, key) in open.iter().take(open.len().saturating_sub(MAX_OPEN)) {
            if let Some(upload) = self.uploads.get_mut(key) {
                upload.chunker = None;
            }
        }
    }
}

/// What became of a try to send a chunk.
enum Sent {
    /// It is stored; there may be more.
    More,
    /// There is no more.
    End,
    /// The relay or the disk does not want now.
    NotNow,
}

type Read = (Chunker, Option<(Chunk, Bytes)>);

/// Reads the next chunk behind `end`. Blocks.
fn next_chunk(dir: PathBuf, open: Option<Chunker>, end: u64, wants_screen: bool) -> std::io::Result<Read> {
    let mut is_new = false;
    let mut chunker = match open {
        Some(mut chunker) => {
            chunker.refresh()?;
            chunker
        }
        None => {
            is_new = true;
            Chunker::open(&dir, end, true)?
        }
    };
    let newest = chunker.timeline().end;
    if newest.saturating_sub(end) > MAX_LAG {
        chunker.seek(newest - MAX_LAG)?;
        chunker.skip_from(end);
        is_new = true;
    }
    let chunk = loop {
        let Some(mut chunk) = chunker.next(wants_screen || is_new)? else { break None };
        if chunk.head.end <= end {
            // The filter began before the place: the relay has this part.
            continue;
        }
        if chunk.start < end {
            let known = usize::try_from(end - chunk.start).unwrap_or(usize::MAX);
            chunk.data.drain(..known.min(chunk.data.len()));
            (chunk.start, chunk.head.from, chunk.screen) = (end, end, None);
            chunk.head.marks.retain(|mark| mark.offset >= end);
            chunk.head.resizes.retain(|resize| resize.offset >= end);
        }
        break Some(chunk);
    };
    let packed = match chunk {
        Some(chunk) => {
            let payload = chunk.upload()?.encode();
            Some((chunk, payload))
        }
        None => None,
    };
    Ok((chunker, packed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies more than 64 MiB back is skipped and named; what follows begins with a screen.
    #[test]
    fn a_backlog_beyond_64_mib_becomes_an_explicit_gap() {
        let run = tempfile::tempdir().unwrap();
        let recording = run.path().join("recording");
        std::fs::create_dir(&recording).unwrap();
        let size = 70 * 1024 * 1024;
        let file = std::fs::File::create(recording.join(format!("{:020}.raw", 0))).unwrap();
        file.set_len(size).unwrap();
        let (chunker, chunk) = next_chunk(run.path().to_owned(), None, 1000, false).unwrap();
        let (chunk, _) = chunk.unwrap();
        assert_eq!((chunk.head.from, chunk.start), (1000, size - MAX_LAG));
        assert_eq!((chunk.head.end, chunk.data.len()), (chunk.start + 64 * 1024, 64 * 1024));
        assert!(chunk.screen.is_some());
        // Nearer than that nothing is skipped.
        let (_, next) = next_chunk(run.path().to_owned(), Some(chunker), chunk.head.end, false).unwrap();
        let (next, _) = next.unwrap();
        assert_eq!((next.head.from, next.start), (chunk.head.end, chunk.head.end));
    }
}

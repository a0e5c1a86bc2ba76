//! A session's daemon side and its viewers, for tests: over real holders, through the channel table that link and
//! control socket use.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use claudenest_agent::channel::{Channels, FindSession, Outgoing};
use claudenest_agent::session::{Notice, NoticeEvent, SessionConfig, SessionHandle};
use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::session::{Exit, TermSize};
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage, StreamPosition};
use claudenest_shared::wire::frame::*;
use claudenest_shared::wire::limits::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::holder::Run;

pub struct Daemon {
    pub handle: SessionHandle,
    pub notices: mpsc::Receiver<Notice>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

pub fn config(run: &Run) -> SessionConfig {
    SessionConfig {
        session: run.spec.session,
        epoch: run.spec.epoch,
        dir: run.spec.dir.clone(),
        socket: run.spec.socket.clone(),
    }
}

impl Daemon {
    pub async fn connect(run: &Run) -> Self {
        let (sender, notices) = mpsc::channel(64);
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let handle = SessionHandle::connect(config(run), sender, &tasks, cancel.clone()).await.unwrap();
        Self { handle, notices, cancel, tasks }
    }

    /// As `kill -9` of the daemon looks to the holder: every socket is closed, nothing is said.
    pub async fn kill(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub fn find(&self) -> FindSession {
        let handle = self.handle.clone();
        Arc::new(move |session| (session == handle.id()).then(|| handle.clone()))
    }

    pub async fn until_exit(&mut self) -> Exit {
        loop {
            let notice = timeout(self.notices.recv()).await.expect("notices go on");
            match notice.event {
                NoticeEvent::Exited { exit, .. } => return exit,
                NoticeEvent::HolderLost => return Exit::Lost {},
                _ => {}
            }
        }
    }

    /// Ends the child and lets the holder go.
    pub async fn finish(mut self, run: &Run) {
        let _ = self.handle.signal(9);
        if self.handle.info_part().exit.is_none() {
            self.until_exit().await;
        }
        self.handle.acknowledge_exit();
        crate::wait::until_true("the holder goes", || !run.spec.socket.exists()).await;
    }
}

pub async fn timeout<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("in time")
}

/// A viewer with one stream (channel 1) and one writer (channel 2).
pub struct Viewer {
    pub channels: Channels,
    out: mpsc::Receiver<Outgoing>,
    pub session: SessionId,
    pub bytes: Vec<u8>,
    pub start: Option<u64>,
    pub snapshots: Vec<Frame>,
    pub exit: Option<Exit>,
    pub sizes: Vec<(u64, TermSize)>,
    pub acks: Vec<(u64, Option<ErrorCode>)>,
    received: u64,
    next_seq: u64,
}

impl Viewer {
    pub fn new(daemon: &Daemon, is_local: bool) -> Self {
        let (sender, out) = mpsc::channel(16);
        Self {
            channels: Channels::new(daemon.find(), sender, is_local),
            out,
            session: daemon.handle.id(),
            bytes: Vec::new(),
            start: None,
            snapshots: Vec::new(),
            exit: None,
            sizes: Vec::new(),
            acks: Vec::new(),
            received: 0,
            next_seq: 1,
        }
    }

    pub async fn stream(daemon: &Daemon, from: Option<StreamPosition>, lag_limit_bytes: u64) -> Self {
        let mut viewer = Self::new(daemon, false);
        let open = RelayMessage::StreamOpen {
            channel: 1,
            session: viewer.session,
            from,
            lag_limit_bytes,
            credit: VIEWER_WINDOW_BYTES,
        };
        viewer.channels.message(open).await.unwrap();
        assert!(matches!(
            viewer.next().await,
            Outgoing::Message(AgentMessage::StreamOpened { channel: 1, .. })
        ));
        viewer
    }

    pub async fn from_start(daemon: &Daemon) -> Self {
        let from = StreamPosition { epoch: daemon.handle.epoch(), offset: 0 };
        Self::stream(daemon, Some(from), MAX_LAG_LIMIT_BYTES).await
    }

    pub async fn writer(&mut self, writer: u64, may_size: bool) -> u64 {
        let open = RelayMessage::WriterOpen {
            channel: 2,
            session: self.session,
            writer: WriterId(writer),
            label: format!("writer {writer}"),
            may_size,
        };
        self.channels.message(open).await.unwrap();
        loop {
            if let Outgoing::Message(AgentMessage::WriterOpened { channel: 2, acked }) = self.next().await {
                self.next_seq = acked + 1;
                return acked;
            }
        }
    }

    pub fn input_as(&mut self, seq: u64, flags: u8, bytes: &[u8]) {
        let frame = Frame {
            kind: FrameKind::Input,
            flags,
            channel: 2,
            epoch: 0,
            session: self.session,
            offset: seq,
            payload: Bytes::copy_from_slice(bytes),
        };
        self.channels.frame(frame).unwrap();
    }

    pub fn input(&mut self, bytes: &[u8]) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.input_as(seq, 0, bytes);
        seq
    }

    pub fn resize(&mut self, cols: u16, rows: u16) {
        let payload = encode_size(TermSize { cols, rows });
        let kind = FrameKind::Resize;
        let frame = Frame { kind, flags: 0, channel: 2, epoch: 0, session: self.session, offset: 0, payload };
        self.channels.frame(frame).unwrap();
    }

    pub fn grant(&mut self, total: u64) {
        let kind = FrameKind::Credit;
        let payload = Bytes::new();
        let frame =
            Frame { kind, flags: 0, channel: 1, epoch: 0, session: self.session, offset: total, payload };
        self.channels.frame(frame).unwrap();
    }

    /// The next thing that comes; output is collected and credit granted.
    pub async fn next(&mut self) -> Outgoing {
        let outgoing = timeout(self.out.recv()).await.expect("the table lives");
        if let Outgoing::Frame(frame) = &outgoing {
            self.take(frame.clone());
        }
        outgoing
    }

    fn take(&mut self, frame: Frame) {
        match frame.kind {
            FrameKind::Output => {
                let start = *self.start.get_or_insert(frame.offset);
                assert_eq!(frame.offset, start + self.bytes.len() as u64, "output is contiguous");
                self.bytes.extend_from_slice(&frame.payload);
                self.received += frame.payload.len() as u64;
                self.grant(self.received + VIEWER_WINDOW_BYTES);
            }
            FrameKind::Snapshot => {
                self.received += frame.payload.len() as u64;
                self.grant(self.received + VIEWER_WINDOW_BYTES);
                let start = self.start.unwrap_or(0);
                if frame.offset != start + self.bytes.len() as u64 || self.start.is_none() {
                    self.start = Some(frame.offset);
                    self.bytes.clear();
                }
                self.snapshots.push(frame);
            }
            FrameKind::Exit => self.exit = frame.exit(),
            FrameKind::Resize => self.sizes.push((frame.offset, frame.size().unwrap())),
            FrameKind::InputAck => {
                let refused = (frame.flags & FLAG_REFUSED != 0)
                    .then(|| ErrorCode::from_text(std::str::from_utf8(&frame.payload).unwrap()));
                self.acks.push((frame.offset, refused));
            }
            FrameKind::Input | FrameKind::Credit | FrameKind::History => panic!("not towards a viewer"),
        }
    }

    pub async fn until(&mut self, needle: &[u8]) {
        while !self.bytes.windows(needle.len()).any(|window| window == needle) {
            self.next().await;
        }
    }

    pub async fn until_ack(&mut self, seq: u64) -> Option<ErrorCode> {
        loop {
            if let Some((_, refused)) = self.acks.iter().find(|(acked, _)| *acked == seq) {
                return *refused;
            }
            self.next().await;
        }
    }

    pub async fn until_exit(&mut self) -> Exit {
        while self.exit.is_none() {
            self.next().await;
        }
        self.exit.unwrap()
    }
}

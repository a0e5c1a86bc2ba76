//! Sessions over real holders, through the channel table that link and control socket use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use claudenest_agent::channel::{Channels, FindSession, Outgoing};
use claudenest_agent::session::{Notice, NoticeEvent, SessionConfig, SessionHandle};
use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::session::{Exit, TermSize};
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage, StreamPosition};
use claudenest_shared::wire::frame::*;
use claudenest_shared::wire::limits::*;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::holder::{Run, shell};

pub struct Daemon {
    pub handle: SessionHandle,
    pub notices: mpsc::Receiver<Notice>,
    cancel: CancellationToken,
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
        let cancel = CancellationToken::new();
        let handle =
            SessionHandle::connect(config(run), sender, &TaskTracker::new(), cancel.clone()).await.unwrap();
        Self { handle, notices, cancel }
    }

    /// As `kill -9` of the daemon looks to the holder: every socket is closed, nothing is said.
    pub fn kill(self) {
        self.cancel.cancel();
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
        let began = Instant::now();
        while run.spec.socket.exists() {
            assert!(began.elapsed() < Duration::from_secs(20), "the holder goes");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub async fn timeout<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("in time")
}

/// A viewer with one stream (channel 1) and one writer (channel 2).
pub struct Viewer {
    pub channels: Channels,
    out: mpsc::Receiver<Outgoing>,
    session: SessionId,
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
            FrameKind::Input | FrameKind::Credit => panic!("not towards a viewer"),
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

#[tokio::test]
async fn typing_is_echoed_acknowledged_and_the_exit_comes_once() {
    let run = shell("stty raw -echo; printf ready; head -c 3; exit 7");
    run.start().await;
    let mut daemon = Daemon::connect(&run).await;
    let mut viewer = Viewer::from_start(&daemon).await;
    assert_eq!(viewer.writer(5, true).await, 0);
    viewer.until(b"ready").await;
    assert_eq!(viewer.input(b"a"), 1);
    assert_eq!(viewer.until_ack(1).await, None);
    viewer.input(b"bc");
    assert_eq!(viewer.until_exit().await, Exit::Code { code: 7 });
    assert_eq!(viewer.bytes, b"readyabc");
    assert_eq!(daemon.until_exit().await, Exit::Code { code: 7 });
    viewer.input(b"late");
    assert_eq!(viewer.until_ack(3).await, Some(ErrorCode::SessionEnded));
    daemon.finish(&run).await;
}

#[tokio::test]
async fn sixty_thousand_lines_arrive_byte_by_byte_through_twenty_killed_daemons() {
    let run = shell(
        "stty -opost -echo; printf ready; read x; i=0; while [ $i -lt 600 ]; do cat lines; i=$((i+1)); done; exit 7",
    );
    let lines: String =
        (0..100).map(|at| format!("{at} é ü 漢字 🚀 ❤️ ─│┌ \x1b[38;2;1;2;3mcolour\x1b[0m\n")).collect();
    std::fs::write(run.dir.path().join("lines"), &lines).unwrap();
    let spawned = run.start().await;
    let mut all: Vec<u8> = Vec::new();
    let mut daemon = Daemon::connect(&run).await;
    let mut viewer = Viewer::from_start(&daemon).await;
    viewer.writer(1, true).await;
    viewer.until(b"ready").await;
    viewer.input(b"\n");
    for round in 0..20 {
        while viewer.bytes.len() < 20_000 && viewer.exit.is_none() {
            viewer.next().await;
        }
        all.extend_from_slice(&viewer.bytes);
        let child = daemon.handle.info_part().child_pid;
        assert!(child.is_none_or(|pid| pid == spawned.child_pid), "round {round}");
        daemon.kill();
        daemon = Daemon::connect(&run).await;
        let from = StreamPosition { epoch: 1, offset: all.len() as u64 };
        viewer = Viewer::stream(&daemon, Some(from), MAX_LAG_LIMIT_BYTES).await;
    }
    assert_eq!(viewer.until_exit().await, Exit::Code { code: 7 });
    all.extend_from_slice(&viewer.bytes);
    let all = &all[5..];
    assert_eq!(all.len(), lines.len() * 600);
    let mut expected = Sha256::new();
    (0..600).for_each(|_| expected.update(lines.as_bytes()));
    assert_eq!(Sha256::digest(all), expected.finalize());
    daemon.finish(&run).await;
}

#[tokio::test]
async fn a_paste_of_a_megabyte_arrives_whole_with_back_pressure() {
    let size = 1_000_000;
    let run = shell(&format!("stty raw -echo; printf ready; head -c {size} | sha256sum"));
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let mut viewer = Viewer::from_start(&daemon).await;
    viewer.writer(1, true).await;
    viewer.until(b"ready").await;
    let paste: Vec<u8> = (0..size).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let pieces: Vec<&[u8]> = paste.chunks(MAX_INPUT_BYTES).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let seq = index as u64 + 1;
        let flags = if index + 1 < pieces.len() { FLAG_MORE } else { 0 };
        viewer.input_as(seq, flags, piece);
        if seq > 3 {
            assert_eq!(viewer.until_ack(seq - 3).await, None);
        }
    }
    viewer.until_exit().await;
    let expected: String = Sha256::digest(&paste).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(String::from_utf8_lossy(&viewer.bytes).contains(&expected));
    daemon.finish(&run).await;
}

#[tokio::test]
async fn sequence_numbers_survive_the_daemon() {
    let run = shell("stty raw -echo; printf ready; exec cat");
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let mut viewer = Viewer::from_start(&daemon).await;
    viewer.writer(9, true).await;
    viewer.until(b"ready").await;
    for byte in [b"1", b"2", b"3"] {
        viewer.input(byte);
    }
    viewer.until(b"123").await;
    viewer.until_ack(3).await;
    daemon.kill();
    let daemon = Daemon::connect(&run).await;
    let mut viewer = Viewer::from_start(&daemon).await;
    assert_eq!(viewer.writer(9, true).await, 3);
    viewer.input_as(3, 0, b"again");
    assert_eq!(viewer.until_ack(3).await, None);
    viewer.input_as(4, 0, b"4");
    viewer.until(b"1234").await;
    viewer.input_as(9, 0, b"gap");
    assert_eq!(viewer.until_ack(9).await, Some(ErrorCode::Conflict));
    daemon.finish(&run).await;
}

#[tokio::test]
async fn who_joins_late_gets_a_snapshot_and_then_bytes() {
    let run = shell("stty -echo; printf '\\033[31mhello\\033[m'; read x; printf world; read x");
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let mut early = Viewer::from_start(&daemon).await;
    early.writer(1, true).await;
    early.until(b"hello\x1b[m").await;
    let mut late = Viewer::stream(&daemon, None, DEFAULT_LAG_LIMIT_BYTES).await;
    while late.snapshots.is_empty() {
        late.next().await;
    }
    let snapshot = &late.snapshots[0];
    assert_eq!((snapshot.offset, snapshot.flags), (early.bytes.len() as u64, 0));
    assert_eq!(snapshot.size().unwrap(), TermSize { cols: 80, rows: 24 });
    let text = String::from_utf8_lossy(&snapshot.payload[4..]);
    assert!(text.contains("31mhello"), "{text:?}");
    early.input(b"\n");
    late.until(b"world").await;
    let screen = daemon.handle.screen().await.unwrap();
    assert!(screen.rows[0].contains("hello"), "{screen:?}");
    // The relay asks for a snapshot in an open stream: it comes exactly at the stream's position.
    late.channels.message(RelayMessage::StreamSnapshot { channel: 1 }).await.unwrap();
    while late.snapshots.len() < 2 {
        late.next().await;
    }
    assert_eq!(late.snapshots[1].offset, late.start.unwrap() + late.bytes.len() as u64);
    assert_eq!(late.snapshots[1].flags, 0);
    daemon.finish(&run).await;
}

#[tokio::test]
async fn a_viewer_that_lags_jumps_by_a_snapshot_with_a_gap() {
    let run = shell(
        "stty raw -echo; printf ready; head -c 1; yes 0123456789 | head -c 3000000; printf done; head -c 1",
    );
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let from = StreamPosition { epoch: 1, offset: 0 };
    let mut viewer = Viewer::stream(&daemon, Some(from), 100_000).await;
    viewer.writer(1, true).await;
    viewer.until(b"ready").await;
    let mut fast = Viewer::from_start(&daemon).await;
    viewer.input(b"x");
    // One reads everything; the other does not read meanwhile.
    fast.until(b"done").await;
    let end = fast.bytes.len() as u64;
    while viewer.start.unwrap() + (viewer.bytes.len() as u64) < end {
        viewer.next().await;
    }
    let jumps = viewer.snapshots.iter().filter(|frame| frame.flags & FLAG_GAP != 0).count();
    assert!(jumps >= 1, "{} snapshots", viewer.snapshots.len());
    assert_eq!(fast.bytes.len(), 5 + 1 + 3_000_000 + 4);
    assert!(fast.snapshots.is_empty());
    daemon.finish(&run).await;
}

#[tokio::test]
async fn older_output_comes_from_disk_in_order() {
    let size: usize = 12_000_000;
    let run = shell(&format!("stty raw -echo; yes abcdefghi | head -c {size}; printf done; head -c 1"));
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let mut first = Viewer::stream(&daemon, None, DEFAULT_LAG_LIMIT_BYTES).await;
    while daemon.handle.info_part().output_bytes < size as u64 + 4 {
        first.next().await;
    }
    let mut viewer = Viewer::from_start(&daemon).await;
    viewer.until(b"done").await;
    assert_eq!(viewer.start, Some(0));
    assert_eq!(viewer.bytes.len(), size + 4);
    assert!(viewer.bytes[..size].chunks(10).all(|line| line == b"abcdefghi\n"));
    assert!(viewer.snapshots.is_empty());
    daemon.finish(&run).await;
}

/// The child reads exactly the answers, and nothing more comes within half a second.
#[tokio::test]
async fn queries_are_answered_once_however_many_watch_and_never_in_replay() {
    let script = "stty raw -echo; printf ready; head -c 1 >/dev/null; \
                  printf '\\033[6n\\033[c\\033[?2026$p\\033]11;?\\007'; head -c 51 | od -An -v -tx1; printf asked; \
                  head -c 1 >/dev/null; stty min 0 time 5; printf '<'; head -c 10 | od -An -v -tx1; printf '>done'; \
                  stty min 1; head -c 1";
    let run = shell(script);
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let mut viewers = Vec::new();
    for _ in 0..3 {
        viewers.push(Viewer::from_start(&daemon).await);
    }
    let typist = &mut viewers[0];
    typist.writer(1, true).await;
    typist.until(b"ready").await;
    typist.input(b"x");
    typist.until(b"asked").await;
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let answers = hex("\x1b[1;6R\x1b[?62;22c\x1b[?2026;2$y\x1b]11;rgb:0000/0000/0000\x1b\\");
    let shown = String::from_utf8_lossy(&typist.bytes).replace(char::is_whitespace, "");
    assert!(shown.contains(&answers), "{shown}");
    // Late viewers and a new daemon replay the questions.
    for viewer in &mut viewers[1..] {
        viewer.until(b"asked").await;
    }
    daemon.kill();
    let daemon = Daemon::connect(&run).await;
    let mut late = Viewer::from_start(&daemon).await;
    late.until(b"asked").await;
    assert_eq!(late.writer(1, true).await, 1);
    late.input(b"y");
    late.until(b">done").await;
    let shown = String::from_utf8_lossy(&late.bytes).replace(char::is_whitespace, "");
    assert!(shown.contains("<>done"), "{shown}");
    daemon.finish(&run).await;
}

#[tokio::test]
async fn one_owner_decides_the_size() {
    let run = shell("stty -echo; while read x; do stty size; done");
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let mut browser = Viewer::from_start(&daemon).await;
    browser.writer(1, true).await;
    browser.resize(100, 30);
    browser.input(b"\n");
    browser.until(b"30 100").await;
    let mut phone = Viewer::new(&daemon, false);
    phone.writer(2, false).await;
    phone.resize(40, 20);
    let mut attach = Viewer::new(&daemon, true);
    attach.writer(3, true).await;
    attach.resize(90, 25);
    while daemon.handle.info_part().size != (TermSize { cols: 90, rows: 25 }) {
        browser.next().await;
    }
    assert_eq!(daemon.handle.info_part().size_owner.as_deref(), Some("writer 3"));
    drop(attach);
    while daemon.handle.info_part().size != (TermSize { cols: 100, rows: 30 }) {
        browser.next().await;
    }
    assert_eq!(daemon.handle.info_part().size_owner.as_deref(), Some("writer 1"));
    let sizes: Vec<u16> = browser.sizes.iter().map(|(_, size)| size.cols).collect();
    assert_eq!(sizes, [80, 100, 90, 100]);
    daemon.finish(&run).await;
}

#[tokio::test]
async fn text_is_sent_as_a_paste_when_the_program_wants_that() {
    let run =
        shell("stty raw -echo; printf '\\033[?2004hready'; head -c 17 | od -An -c; printf done; head -c 1");
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let mut viewer = Viewer::from_start(&daemon).await;
    viewer.until(b"ready").await;
    timeout(daemon.handle.send_text("a\nb\x1bc", true)).await.unwrap();
    viewer.until(b"done").await;
    let text = String::from_utf8_lossy(&viewer.bytes).replace(char::is_whitespace, "");
    assert!(text.contains("033[200~a\\rbc033[201~\\r"), "{text}");
    daemon.finish(&run).await;
}

#[tokio::test]
async fn a_killed_holder_is_told_as_lost() {
    let run = shell("printf ready; exec sleep 60");
    let spawned = run.start().await;
    let mut daemon = Daemon::connect(&run).await;
    let mut viewer = Viewer::from_start(&daemon).await;
    viewer.until(b"ready").await;
    let pid = |pid: u32| rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid(spawned.holder_pid), rustix::process::Signal::KILL).unwrap();
    assert_eq!(daemon.until_exit().await, Exit::Lost {});
    assert_eq!(viewer.until_exit().await, Exit::Lost {});
    let _ = rustix::process::kill_process(pid(spawned.child_pid), rustix::process::Signal::KILL);
}

#[tokio::test]
async fn the_output_of_an_ended_session_is_read_from_disk() {
    let run = shell("printf 'one\\ntwo'; exit 3");
    run.start().await;
    let mut daemon = Daemon::connect(&run).await;
    assert_eq!(daemon.until_exit().await, Exit::Code { code: 3 });
    daemon.finish(&run).await;
    let handle = SessionHandle::from_disk(config(&run), Exit::Code { code: 3 });
    let screen = handle.screen().await.unwrap();
    assert_eq!(&screen.rows[..2], ["one", "two"]);
    let from = StreamPosition { epoch: 1, offset: 0 };
    let (_, mut stream) = handle.open_stream(Some(from), 1000, 1000).unwrap();
    let mut seen = Vec::new();
    while let Some(frame) = timeout(stream.next()).await {
        match frame.kind {
            FrameKind::Output => seen.extend_from_slice(&frame.payload),
            FrameKind::Exit => assert_eq!(frame.exit(), Some(Exit::Code { code: 3 })),
            _ => {}
        }
    }
    assert_eq!(seen, b"one\r\ntwo");
}

#[tokio::test]
async fn frames_of_another_session_break_the_protocol() {
    let run = shell("exec sleep 60");
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let mut viewer = Viewer::from_start(&daemon).await;
    viewer.session = SessionId::from_bytes([9; 16]);
    let frame = Frame {
        kind: FrameKind::Credit,
        flags: 0,
        channel: 1,
        epoch: 0,
        session: viewer.session,
        offset: 1,
        payload: Bytes::new(),
    };
    assert!(viewer.channels.frame(frame.clone()).is_err());
    assert!(viewer.channels.frame(Frame { channel: 77, ..frame }).is_ok());
    let open = RelayMessage::StreamOpen {
        channel: 3,
        session: viewer.session,
        from: None,
        lag_limit_bytes: 0,
        credit: 0,
    };
    viewer.channels.message(open).await.unwrap();
    loop {
        if let Outgoing::Message(AgentMessage::ChannelClosed { channel: 3, error }) = viewer.next().await {
            assert_eq!(error.unwrap().code, ErrorCode::NotFound);
            break;
        }
    }
    daemon.finish(&run).await;
}

#[tokio::test]
async fn a_new_daemon_knows_modes_that_were_set_long_before_the_holders_memory() {
    let script = "stty raw -echo; printf '\\033[?2004h\\033[?1006h'; yes abcdefghi | head -c 9000000; printf done; head -c 1";
    let run = shell(script);
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let mut viewer = Viewer::from_start(&daemon).await;
    viewer.until(b"done").await;
    let began = Instant::now();
    while !run.spec.dir.join("screen").exists() {
        assert!(began.elapsed() < Duration::from_secs(30), "the screen is saved");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    daemon.kill();
    let daemon = Daemon::connect(&run).await;
    let mut late = Viewer::stream(&daemon, None, DEFAULT_LAG_LIMIT_BYTES).await;
    while late.snapshots.is_empty() {
        late.next().await;
    }
    let text = String::from_utf8_lossy(&late.snapshots[0].payload[4..]).into_owned();
    assert!(text.contains("\x1b[?2004h") && text.contains("\x1b[?1006h"), "{text:?}");
    assert!(text.contains("done"));
    daemon.finish(&run).await;
}

/// A holder of version 1 as it was when the protocol was frozen: recorded bytes, not our encoder.
#[tokio::test]
async fn an_old_holder_still_works() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let run = shell("");
    std::fs::create_dir_all(&run.spec.dir).unwrap();
    let listener = tokio::net::UnixListener::bind(&run.spec.socket).unwrap();
    let holder = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 15];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello.to_vec(), hex("0b000000 01 0100 0000000000000000"));
        let fixed = "0100 02000000 03000000 01000000 00 01 0000000000000000 0200000000000000 0000000000000000 5000 1800 5000 1800";
        let writers = "0100 0500000000000000 0700000000000000";
        stream.write_all(&hex(&format!("44000000 01 {fixed} 00 {writers}"))).await.unwrap();
        stream.write_all(&hex("0b000000 02 0000000000000000 6869")).await.unwrap();
        let mut input = [0; 23];
        stream.read_exact(&mut input).await.unwrap();
        assert_eq!(input.to_vec(), hex("13000000 02 0500000000000000 0800000000000000 01 79"));
        stream.write_all(&hex("11000000 03 0500000000000000 0800000000000000")).await.unwrap();
        stream.write_all(&hex("13000000 06 0200000000000000 00 07 0000000000000000")).await.unwrap();
        let mut ack = [0; 5];
        stream.read_exact(&mut ack).await.unwrap();
        assert_eq!(ack.to_vec(), hex("01000000 06"));
    });
    let mut daemon = Daemon::connect(&run).await;
    let mut viewer = Viewer::from_start(&daemon).await;
    assert_eq!(viewer.writer(5, true).await, 7);
    viewer.until(b"hi").await;
    viewer.input_as(8, 0, b"y");
    assert_eq!(viewer.until_ack(8).await, None);
    assert_eq!(daemon.until_exit().await, Exit::Code { code: 7 });
    daemon.handle.acknowledge_exit();
    timeout(holder).await.unwrap();
}

//! Sessions over real holders, through the channel table that link and control socket use.

use std::time::{Duration, Instant};

use bytes::Bytes;
use claudenest_agent::channel::Outgoing;
use claudenest_agent::session::SessionHandle;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::SessionId;
use claudenest_shared::session::{Exit, TermSize};
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage, StreamPosition};
use claudenest_shared::wire::frame::*;
use claudenest_shared::wire::limits::*;
use sha2::{Digest, Sha256};

use crate::holder::shell;
use crate::run::*;

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
        daemon.kill().await;
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
    daemon.kill().await;
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

/// The child asks three questions fifty times, reads exactly the answers, and nothing more comes within half a second.
#[tokio::test]
async fn queries_are_answered_once_however_many_watch_and_never_in_replay() {
    let script = "stty raw -echo; printf ready; head -c 1 >/dev/null; i=0; while [ $i -lt 50 ]; do \
                  printf '\\033[H\\033[6n\\033[c\\033[?2026$p'; head -c 26 | od -An -v -tx1; i=$((i+1)); done; \
                  printf '\\033[?1003h\\033[?1006h\\033[?1003$p\\033[?1000$p\\033[?1006$p'; head -c 33 | od -An -v -tx1; \
                  printf asked; head -c 1 >/dev/null; stty min 0 time 5; printf '<'; head -c 10 | od -An -v -tx1; \
                  printf '>done'; stty min 1; head -c 1";
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
    let shown = String::from_utf8_lossy(&typist.bytes).replace(|c: char| c.is_whitespace() || c == '\0', "");
    assert_eq!(shown.matches(&hex("\x1b[1;1R\x1b[?62;22c\x1b[?2026;2$y")).count(), 50, "{shown}");
    // Modes are told as they are: motion replaced clicks.
    assert!(shown.contains(&hex("\x1b[?1003;1$y\x1b[?1000;2$y\x1b[?1006;1$y")), "{shown}");
    // Late viewers and a new daemon replay the questions, from the first byte and from a snapshot.
    for viewer in &mut viewers[1..] {
        viewer.until(b"asked").await;
    }
    daemon.kill().await;
    let daemon = Daemon::connect(&run).await;
    let mut late = Viewer::from_start(&daemon).await;
    late.until(b"asked").await;
    let _from_a_snapshot = Viewer::stream(&daemon, None, MAX_LAG_LIMIT_BYTES).await;
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
    assert_eq!(
        sizes,
        [80, 100, 90, 100],
        "{:?} {:?}",
        browser.sizes,
        String::from_utf8_lossy(&browser.bytes)
    );
    daemon.finish(&run).await;
}

/// Three windows that are dragged at once, and a phone: a resize every 10 ms of each, for two seconds.
#[tokio::test]
async fn a_storm_of_sizes_reaches_the_terminal_four_times_a_second_and_ends_with_the_owners_last() {
    const EVERY: Duration = Duration::from_millis(10);
    const ROUNDS: u16 = 200;
    let run = shell("stty -echo; while read x; do stty size; done");
    run.start().await;
    let mut daemon = Daemon::connect(&run).await;
    let mut watcher = Viewer::from_start(&daemon).await;
    let mut viewers = Vec::new();
    // The last one is the phone.
    for writer in 1..=4 {
        let mut viewer = Viewer::new(&daemon, false);
        viewer.writer(writer, writer < 4).await;
        viewers.push(viewer);
    }
    let (began, mut ticks) = (Instant::now(), tokio::time::interval(EVERY));
    for round in 1..=ROUNDS {
        ticks.tick().await;
        for (at, viewer) in viewers.iter_mut().enumerate() {
            viewer.resize(20 + 100 * at as u16 + round % 90, 10 + round);
        }
        // The supervisor reads them; a session's tasks wait for it when they are many.
        while daemon.notices.try_recv().is_ok() {}
    }
    let last = TermSize { cols: 20 + ROUNDS % 90, rows: 10 + ROUNDS };
    while daemon.handle.info_part().size != last {
        watcher.next().await;
    }
    let (took, sizes) = (began.elapsed(), watcher.sizes.len() - 1);
    println!("{sizes} changes of size in {took:?}");
    let most = took.as_millis() / 250 + 2;
    assert!(sizes as u128 <= most && sizes >= 4, "{sizes} changes in {took:?}");
    assert!(watcher.sizes.iter().all(|(_, size)| size.cols < 120), "only the owner's: {:?}", watcher.sizes);
    assert_eq!(daemon.handle.info_part().size_owner.as_deref(), Some("writer 1"));
    // The program sees what the viewers were told.
    let mut asker = Viewer::from_start(&daemon).await;
    asker.writer(9, false).await;
    asker.input(b"\n");
    asker.until(format!("{} {}", last.rows, last.cols).as_bytes()).await;
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
    crate::wait::until_true("the screen is saved", || run.spec.dir.join("screen").exists()).await;
    daemon.kill().await;
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

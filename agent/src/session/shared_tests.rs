//! A model that fails costs nothing but the time to build another.

use claudenest_shared::id::SessionId;
use claudenest_shared::session::Exit;
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::frame::FrameKind;
use claudenest_shared::wire::holder::{HOLDER_PROTOCOL, RecordingState};

use super::super::stream::OutputStream;
use super::super::viewer::Viewer;
use super::*;

/// What the model under test panics at.
const BOOM: &[u8] = b"BOOM";

fn shared() -> Arc<Shared> {
    let size = TermSize { cols: 40, rows: 10 };
    let session = SessionId::from_bytes([3; 16]);
    let dir = std::path::PathBuf::from("nowhere");
    let config = SessionConfig { session, epoch: 1, dir: dir.clone(), socket: dir };
    let hello = HolderHello {
        proto: HOLDER_PROTOCOL,
        holder_pid: 0,
        child_pid: 0,
        epoch: 1,
        io: IoKind::Pty,
        recording: RecordingState::Off,
        tail: 0,
        head: 0,
        start: 0,
        start_size: size,
        size,
        exit: None,
        writers: Vec::new(),
        input: Default::default(),
    };
    let core = Core::of(&hello, Instant::now());
    Arc::new(Shared::new(config, core, hello, CancellationToken::new()))
}

/// Output as it comes from the holder, behind what came before.
fn print(shared: &Shared, text: &[u8]) {
    let head = shared.lock().raw_head();
    shared.output(head, &Bytes::copy_from_slice(text));
}

async fn received(shared: &Arc<Shared>, len: usize) -> Vec<u8> {
    let viewer = {
        let core = shared.lock();
        let from = claudenest_shared::wire::agent::StreamPosition { epoch: 1, offset: 0 };
        Viewer::open(&core, shared.config.session, Some(from), 1 << 20, 1 << 20)
    };
    let mut stream = OutputStream::new(Arc::clone(shared), viewer);
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let frame = stream.next().await.expect("the session goes on");
        if frame.kind == FrameKind::Output {
            bytes.extend_from_slice(&frame.payload);
        }
    }
    bytes
}

#[tokio::test]
async fn a_model_that_panics_once_is_rebuilt_with_everything() {
    let shared = shared();
    let output: [&[u8]; 3] = [b"before\x1b[?2004h\x1b[31m\r\n", b"BOOM\r\n", b"after"];
    print(&shared, output[0]);
    assert_eq!(shared.screen().rows[0], "before");
    shared.follower().model.panics_at = Some(BOOM);
    print(&shared, output[1]);
    print(&shared, output[2]);
    let screen = shared.screen();
    assert_eq!(&screen.rows[..3], ["before", "BOOM", "after"]);
    assert!(shared.is_bracketed_paste(), "modes from before the panic hold");
    assert_eq!(screen.offset, shared.lock().head());
    let mut late = Model::new(screen.size);
    late.process(&shared.snapshot().bytes);
    assert_eq!(late.text().rows, screen.rows);
    assert_eq!(received(&shared, output.concat().len()).await, output.concat());
}

#[tokio::test]
async fn output_that_every_model_panics_at_is_left_out_of_the_screen_only() {
    let shared = shared();
    screen_panics_at(Some(BOOM));
    let output: [&[u8]; 3] = [b"before\x1b[?2004h\r\n", b"BOOM\r\n", b"after"];
    for piece in output {
        print(&shared, piece);
        while shared.follow() {}
    }
    let rows = shared.screen().rows;
    screen_panics_at(None);
    assert_eq!(&rows[..2], ["before", "after"]);
    assert!(shared.is_bracketed_paste());
    assert_eq!(received(&shared, output.concat().len()).await, output.concat());
    // The session goes on to its end.
    shared.end(HolderExit { offset: 0, exit: Exit::Code { code: 0 }, at: UnixMs(0) }, false);
    assert!(shared.lock().exit().is_some());
}

fn screen_panics_at(bytes: Option<&'static [u8]>) {
    super::super::screen::PANICS_AT.set(bytes);
}

//! A real holder with real children.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use claudenest_agent::holder::{HolderSpec, Recording, SpawnError, Spawned, read_exit, spawn};
use claudenest_shared::id::SessionId;
use claudenest_shared::session::{Exit, TermSize};
use claudenest_shared::wire::holder::*;
use sha2::{Digest, Sha256};

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_claudenest-agent"))
}

pub struct Run {
    pub dir: tempfile::TempDir,
    pub spec: HolderSpec,
}

pub fn shell(script: &str) -> Run {
    run(&["/bin/sh", "-c", script], IoKind::Pty)
}

pub fn run(argv: &[&str], io: IoKind) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let spec = HolderSpec {
        session: SessionId::from_bytes([7; 16]),
        epoch: 1,
        argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
        env: vec![
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("TERM".into(), "xterm-256color".into()),
            ("LANG".into(), "C.UTF-8".into()),
        ],
        cwd: dir.path().to_owned(),
        size: TermSize { cols: 80, rows: 24 },
        io,
        dir: dir.path().join("run"),
        socket: dir.path().join("s"),
        ring_bytes: 4 * 1024 * 1024,
        recording_bytes: 64 * 1024 * 1024,
    };
    Run { dir, spec }
}

impl Run {
    pub async fn start(&self) -> Spawned {
        spawn(program(), &self.spec).await.unwrap()
    }
}

/// A daemon's end of the protocol, blocking.
pub struct Client {
    stream: UnixStream,
    buffer: BytesMut,
    pub hello: HolderHello,
    pub output: Vec<u8>,
}

impl Client {
    pub fn connect(socket: &Path, from: u64) -> Self {
        let mut client = Self {
            stream: UnixStream::connect(socket).unwrap(),
            buffer: BytesMut::new(),
            hello: HolderHello {
                proto: 0,
                holder_pid: 0,
                child_pid: 0,
                epoch: 0,
                io: IoKind::Pty,
                recording: RecordingState::Off,
                tail: 0,
                head: 0,
                start: 0,
                start_size: TermSize::default(),
                size: TermSize::default(),
                exit: None,
                writers: vec![],
                input: InputState::default(),
            },
            output: Vec::new(),
        };
        client.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client.send(&ToHolder::Hello { proto: HOLDER_PROTOCOL, from });
        match client.next() {
            Some(FromHolder::Hello(hello)) => client.hello = *hello,
            other => panic!("no hello but {other:?}"),
        }
        client
    }

    pub fn send(&mut self, message: &ToHolder) {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        self.stream.write_all(&out).unwrap();
    }

    pub fn input(&mut self, seq: u64, bytes: &[u8]) {
        self.send(&ToHolder::Input { writer: 1, seq, flags: 0, bytes: Bytes::copy_from_slice(bytes) });
    }

    pub fn next(&mut self) -> Option<FromHolder> {
        let mut scratch = [0; 65536];
        loop {
            if let Some(message) = FromHolder::decode(&mut self.buffer).unwrap() {
                if let FromHolder::Output { offset, bytes } = &message {
                    assert_eq!(*offset, self.hello.start + self.output.len() as u64, "contiguous");
                    self.output.extend_from_slice(bytes);
                }
                return Some(message);
            }
            let size = match self.stream.read(&mut scratch) {
                // The children of other tests end.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                size => size.expect("an answer in time"),
            };
            if size == 0 {
                return None;
            }
            self.buffer.extend_from_slice(&scratch[..size]);
        }
    }

    pub fn until_exit(&mut self) -> HolderExit {
        loop {
            if let FromHolder::Exit(exit) = self.next().expect("an exit") {
                return exit;
            }
        }
    }

    pub fn until_output(&mut self, needle: &[u8]) {
        while !contains(&self.output, needle) {
            self.next().unwrap_or_else(|| panic!("{:?} in the output", String::from_utf8_lossy(needle)));
        }
    }

    pub fn until_ack(&mut self, wanted: u64) {
        loop {
            if let FromHolder::InputAck { writer: 1, seq } = self.next().expect("an ack")
                && seq >= wanted
            {
                return;
            }
        }
    }

    /// Lets the holder go and waits until it has.
    pub fn finish(&mut self, run: &Run) {
        self.send(&ToHolder::ExitAck);
        while self.next().is_some() {}
        assert!(!run.spec.socket.exists(), "the holder cleaned up");
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn is_alive(pid: u32) -> bool {
    // A zombie is not alive.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

#[tokio::test]
async fn exit_code_seven_arrives_as_seven_once_after_all_output() {
    let run = shell("printf hello; exit 7");
    run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    let exit = client.until_exit();
    assert_eq!(exit.exit, Exit::Code { code: 7 });
    assert_eq!((client.output.as_slice(), exit.offset), (&b"hello"[..], 5));
    assert_eq!(read_exit(&run.spec.dir).unwrap().exit, Exit::Code { code: 7 });
    // It is kept for the next daemon.
    drop(client);
    let mut client = Client::connect(&run.spec.socket, 5);
    assert_eq!(client.hello.exit, Some(exit));
    assert_eq!(client.until_exit(), exit);
    client.finish(&run);
    assert_eq!(Recording::of(&run.spec.dir).read(0, 100).unwrap().unwrap(), b"hello");
}

/// Nobody is left who could ask: no process stays behind for ever.
#[tokio::test]
async fn an_ended_holder_goes_when_no_daemon_can_find_it_any_more() {
    // The socket went: the exit is on disk, where the next daemon finds it.
    let run = shell("exit 7");
    let spawned = run.start().await;
    crate::wait::until("the exit", || read_exit(&run.spec.dir)).await;
    let mut client = Client::connect(&run.spec.socket, 0);
    assert_eq!(client.until_exit().exit, Exit::Code { code: 7 });
    drop(client);
    assert!(is_alive(spawned.holder_pid), "as long as a daemon may come, it stays");
    std::fs::remove_file(&run.spec.socket).unwrap();
    crate::wait::until_true("it goes without a socket", || !is_alive(spawned.holder_pid)).await;
    assert_eq!(read_exit(&run.spec.dir).unwrap().exit, Exit::Code { code: 7 });

    // The directory went while the child ran: there is no place for the exit, and nobody looks for it.
    let run = shell("read x; exit 7");
    let spawned = run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    std::fs::remove_dir_all(&run.spec.dir).unwrap();
    client.input(1, b"go\n");
    assert_eq!(client.until_exit().exit, Exit::Code { code: 7 }, "who is connected still hears it");
    crate::wait::until_true("it goes without a directory", || !is_alive(spawned.holder_pid)).await;
    assert!(!run.spec.socket.exists(), "the holder cleaned up");

    // Everything went at once, as with a test's directory, and nobody is connected.
    let run = shell("read x");
    let spawned = run.start().await;
    drop(run);
    kill(spawned.child_pid);
    crate::wait::until_true("it goes without anything", || !is_alive(spawned.holder_pid)).await;
}

/// A disk that cannot take the exit does not lose it: the holder stays, and writes it when it can.
#[tokio::test]
async fn an_exit_that_cannot_be_written_is_kept_until_it_can() {
    let run = shell("read x; exit 7");
    let spawned = run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    // Something in the way of the file, which also stops root.
    let in_the_way = run.spec.dir.join("exit.json.new");
    std::fs::create_dir(&in_the_way).unwrap();
    client.input(1, b"go\n");
    assert_eq!(client.until_exit().exit, Exit::Code { code: 7 });
    drop(client);
    std::fs::remove_file(&run.spec.socket).unwrap();
    assert!(is_alive(spawned.holder_pid) && read_exit(&run.spec.dir).is_none());
    std::fs::remove_dir(&in_the_way).unwrap();
    crate::wait::until_true("it goes", || !is_alive(spawned.holder_pid)).await;
    assert_eq!(read_exit(&run.spec.dir).unwrap().exit, Exit::Code { code: 7 });
}

#[tokio::test]
async fn a_signal_is_told_as_a_signal() {
    let run = shell("kill -KILL $$");
    run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    assert_eq!(client.until_exit().exit, Exit::Signal { signal: 9 });
    client.finish(&run);
}

#[tokio::test]
async fn signals_reach_the_process_group() {
    let run = shell("trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 1; done");
    run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    client.until_output(b"ready");
    client.send(&ToHolder::Signal { signo: 15 });
    assert_eq!(client.until_exit().exit, Exit::Code { code: 3 });
    client.finish(&run);
}

#[tokio::test]
async fn a_program_that_cannot_start_is_refused_with_a_sentence() {
    for (argv, word) in [("/nonexistent/claude", "could not be started"), ("/", "could not be started")] {
        let run = run(&[argv], IoKind::Pty);
        match spawn(program(), &run.spec).await {
            Err(SpawnError::Refused(message)) => assert!(message.contains(word), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    let mut run = shell("true");
    run.spec.cwd = PathBuf::from("/nonexistent");
    match spawn(program(), &run.spec).await {
        Err(SpawnError::Refused(message)) => assert!(message.contains("/nonexistent"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_child_survives_its_connections_and_the_offsets_go_on() {
    let run = shell("stty raw -echo; echo ready; exec cat");
    let spawned = run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    client.until_output(b"ready\n");
    client.input(1, b"one ");
    client.until_output(b"one ");
    let seen = client.output.len() as u64;
    drop(client);
    assert!(is_alive(spawned.child_pid));
    let mut client = Client::connect(&run.spec.socket, seen);
    assert_eq!(client.hello.writers, [(1, 1)]);
    assert_eq!(client.hello.start, seen);
    // The daemon did not hear the ack: it sends the same number again, and it is not typed twice.
    client.input(1, b"one ");
    client.until_ack(1);
    client.input(2, b"two ");
    client.until_output(b"two ");
    assert_eq!(client.output, b"two ");
    client.send(&ToHolder::Signal { signo: 9 });
    client.until_exit();
    client.finish(&run);
}

/// A daemon that is killed takes nothing along: the holder left its session, group and pipes.
#[tokio::test]
async fn the_holder_is_out_of_the_daemons_family() {
    let run = shell("exec sleep 60");
    let spawned = run.start().await;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", spawned.holder_pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let (group, session) = (fields[2], fields[3]);
    assert_eq!((group, session), (&*spawned.holder_pid.to_string(), &*spawned.holder_pid.to_string()));
    for fd in std::fs::read_dir(format!("/proc/{}/fd", spawned.holder_pid)).unwrap() {
        let target = std::fs::read_link(fd.unwrap().path()).unwrap();
        assert!(!target.to_string_lossy().starts_with("pipe:"), "{target:?} is still open");
    }
    let holder = rustix::process::Pid::from_raw(spawned.holder_pid as i32).unwrap();
    for signal in [rustix::process::Signal::HUP, rustix::process::Signal::INT] {
        rustix::process::kill_process(holder, signal).unwrap();
    }
    let mut client = Client::connect(&run.spec.socket, 0);
    // SIGTERM (the machine goes down) waits for the child, then needs no daemon.
    rustix::process::kill_process(holder, rustix::process::Signal::TERM).unwrap();
    assert!(is_alive(spawned.child_pid));
    client.send(&ToHolder::Signal { signo: 15 });
    assert_eq!(client.until_exit().exit, Exit::Signal { signal: 15 });
    while client.next().is_some() {}
    assert_eq!(read_exit(&run.spec.dir).unwrap().exit, Exit::Signal { signal: 15 });
}

#[tokio::test]
async fn a_paste_of_a_megabyte_arrives_byte_by_byte() {
    let size = 1_000_000;
    let run = shell(&format!("stty raw -echo; printf ready; head -c {size} | sha256sum"));
    run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    client.until_output(b"ready");
    let paste: Vec<u8> = (0..size).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (index, piece) in paste.chunks(MAX_HOLDER_CHUNK_BYTES).enumerate() {
        let seq = index as u64 + 1;
        client.input(seq, piece);
        if seq > 4 {
            client.until_ack(seq - 4);
        }
    }
    client.until_exit();
    let expected: String = Sha256::digest(&paste).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(contains(&client.output, expected.as_bytes()), "{}", String::from_utf8_lossy(&client.output));
    client.finish(&run);
}

#[tokio::test]
async fn sixty_thousand_lines_of_utf8_keep_their_hash() {
    let script = "stty -opost; i=0; while [ $i -lt 600 ]; do cat lines; i=$((i+1)); done";
    let run = shell(script);
    let lines: String =
        (0..100).map(|at| format!("{at} é ü 漢字 🚀 ❤️ ─│┌ \x1b[38;2;1;2;3mcolour\x1b[0m\n")).collect();
    std::fs::write(run.dir.path().join("lines"), &lines).unwrap();
    run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    client.until_exit();
    assert_eq!(client.output.len(), lines.len() * 600);
    let mut expected = Sha256::new();
    (0..600).for_each(|_| expected.update(lines.as_bytes()));
    assert_eq!(Sha256::digest(&client.output), expected.finalize());
    client.finish(&run);
}

#[tokio::test]
async fn a_flood_that_nobody_reads_is_drained_and_recorded_and_does_not_grow_the_holder() {
    let size: u64 = 40_000_000;
    let run = shell(&format!("stty raw; yes 0123456789abcdefghijklmnopqrstuvwxyz | head -c {size}"));
    let spawned = run.start().await;
    // A connection that never reads must not slow it down.
    let _stuck = Client::connect(&run.spec.socket, 0);
    let began = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(5));
    while read_exit(&run.spec.dir).is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "drained");
        look.tick().await;
    }
    let rss = rss_kib(spawned.holder_pid);
    println!("drained {} MB/s, holder {} KiB", size as f64 / 1e6 / began.elapsed().as_secs_f64(), rss);
    let mut client = Client::connect(&run.spec.socket, 0);
    assert!(client.hello.head == size && client.hello.start == client.hello.tail && client.hello.tail > 0);
    client.until_exit();
    let recording = Recording::of(&run.spec.dir);
    let before = client.hello.tail;
    assert_eq!(recording.segments().unwrap().first().unwrap().0, 0);
    let disk = recording.read(before - 370, 370).unwrap().unwrap();
    assert!(disk.starts_with(
        &b"0123456789abcdefghijklmnopqrstuvwxyz\n".repeat(2)[(before - 370) as usize % 37..][..37]
    ));
    client.finish(&run);
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_idle_holder_is_small() {
    let run = shell("echo ready; exec sleep 60");
    let spawned = run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    client.until_output(b"ready");
    let rss = rss_kib(spawned.holder_pid);
    println!("idle holder {rss} KiB of its own");
    assert!(rss < 3 * 1024, "{rss} KiB");
    client.send(&ToHolder::Signal { signo: 9 });
    client.until_exit();
    client.finish(&run);
}

/// How often the threads of a process have gone to sleep so far: what wakes up has to.
fn sleeps(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |status: String| {
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    threads.map(|thread| of(std::fs::read_to_string(thread.path().join("status")).unwrap())).sum()
}

#[tokio::test]
async fn a_holder_with_nothing_to_do_does_nothing() {
    let run = shell("printf ready; exec sleep 60");
    let spawned = run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    client.until_output(b"ready");
    // The recorder's last look comes 50 ms behind the last byte.
    let second = shell("sleep 1");
    second.start().await;
    Client::connect(&second.spec.socket, 0).until_exit();
    let before = sleeps(spawned.holder_pid);
    // Another second, by the clock of a child.
    let third = shell("sleep 1");
    third.start().await;
    let mut other = Client::connect(&third.spec.socket, 0);
    other.until_exit();
    assert_eq!(sleeps(spawned.holder_pid), before, "it woke up");
    client.send(&ToHolder::Signal { signo: 9 });
    client.until_exit();
    client.finish(&run);
    other.finish(&third);
}

#[tokio::test]
async fn sizes_are_told_in_the_stream() {
    let run = shell("stty -echo; stty size; read x; stty size; read x");
    run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    client.until_output(b"24 80");
    let size = TermSize { cols: 100, rows: 30 };
    client.send(&ToHolder::Resize { size });
    let at = loop {
        if let FromHolder::Resized { offset, size: told } = client.next().unwrap() {
            assert_eq!(told, size);
            break offset;
        }
    };
    assert_eq!(at, client.output.len() as u64);
    client.input(1, b"\n");
    client.until_output(b"30 100");
    let mut other = Client::connect(&run.spec.socket, 0);
    assert_eq!((other.hello.start_size, other.hello.size), (run.spec.size, size));
    let resized = std::iter::from_fn(|| other.next()).find_map(|message| match message {
        FromHolder::Resized { offset, size } => Some((offset, size)),
        _ => None,
    });
    assert_eq!(resized, Some((at, size)));
    client.send(&ToHolder::Signal { signo: 9 });
    client.until_exit();
    client.finish(&run);
}

#[tokio::test]
async fn a_pipe_session_has_no_terminal_and_its_input_can_be_closed() {
    let run = run(&["/bin/sh", "-c", "test -t 0 && echo tty; cat; echo end >&2; exit 4"], IoKind::Pipe);
    run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    client.input(1, b"{\"a\":1}\n");
    client.until_output(b"{\"a\":1}\n");
    client.send(&ToHolder::CloseInput);
    assert_eq!(client.until_exit().exit, Exit::Code { code: 4 });
    assert_eq!(client.output, b"{\"a\":1}\nend\n");
    client.finish(&run);
}

#[tokio::test]
async fn a_grandchild_that_keeps_the_terminal_does_not_keep_the_exit() {
    let run = shell("sh -c 'trap \"\" HUP; sleep 30' & echo started; sleep 0.1; kill -KILL $$");
    let began = Instant::now();
    run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    assert_eq!(client.until_exit().exit, Exit::Signal { signal: 9 });
    assert!(began.elapsed() < Duration::from_secs(10));
    client.finish(&run);
}

#[tokio::test]
async fn the_environment_is_exactly_the_given_one() {
    let run = run(&["/usr/bin/env"], IoKind::Pty);
    run.start().await;
    let mut client = Client::connect(&run.spec.socket, 0);
    client.until_exit();
    let text = String::from_utf8(client.output.clone()).unwrap();
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["LANG", "PATH", "TERM"]);
    client.finish(&run);
}

#[tokio::test]
async fn garbage_on_the_socket_ends_only_that_connection() {
    let run = shell("echo ready; exec sleep 60");
    let spawned = run.start().await;
    for garbage in [&[0u8, 0, 0, 0][..], &[255; 64], &[1, 0, 0, 0, 2], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = UnixStream::connect(&run.spec.socket).unwrap();
        stream.write_all(garbage).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
    let mut client = Client::connect(&run.spec.socket, 0);
    client.until_output(b"ready");
    kill(spawned.child_pid);
    assert_eq!(client.until_exit().exit, Exit::Signal { signal: 9 });
    client.finish(&run);
}

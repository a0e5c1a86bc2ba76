//! The threads of a holder process and how they end.
//!
//! Reader (PTY → ring), writer (queue → PTY), reaper (main), recorder, listener, signals, and two per connection.
//! All share one lock that nobody holds across IO, except for the size of the terminal.
//!
//! A wake-up of another thread costs more than anything else on the way of a keystroke. So the thread that brings input
//! writes it, and the thread that reads output sends it, as long as neither has to wait: what the terminal or a socket
//! does not take at once is left to the writer and to the senders.

use std::collections::VecDeque;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use claudenest_shared::session::TermSize;
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::holder::{HolderExit, IoKind, RecordingState};

use super::child::{Child, Reader, Writer};
use super::core::{Core, Job};
use super::exit::{Address, ExitRecord, write_exit};
use super::outlet::{Outlet, Pushed};
use super::recorder::Recorder;
use super::spawn::Ready;
use super::{HolderSpec, connection, sys};

/// A PTY gives about 4 KiB per read however large the buffer (measured); a pipe fills it.
const READ_BYTES: usize = 64 * 1024;
/// Threads of a holder call little; 200 holders have 1,400 of them.
const STACK_BYTES: usize = 256 * 1024;
/// How long output may pause before it counts as ended, when a grandchild keeps the terminal open after the child.
const DRAIN_IDLE: Duration = Duration::from_millis(300);
/// How long a grandchild that goes on writing can delay the exit.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// How long a write that is under way can delay the exit: a terminal that nobody reads takes nothing more.
const WRITE_LIMIT: Duration = Duration::from_millis(200);
/// The recorder looks this long after output that is not on disk: what a crash of the machine may cost.
const RECORD_INTERVAL: Duration = Duration::from_millis(50);
/// Marks that wait for a disk that is full: those of 40 s of busy output.
const MAX_WAITING_MARKS: usize = 4096;
/// A disk that was full is tried again this often.
const RECORD_RETRY: Duration = Duration::from_secs(1);
/// Unless this much waits for it.
pub(super) const RECORD_EAGER_BYTES: u64 = 256 * 1024;
/// How soon, and how often at most, a holder whose child has ended looks whether a daemon can still come for the exit. It
/// is the only thing that a holder does without being asked, and a running session does not do it.
const LONELY_CHECK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Output after a pause of this length is sent at once; closer output is part of a burst, which the senders gather.
const QUIET_US: u64 = 1000;
/// How long a sender gathers a burst.
const GATHER: Duration = Duration::from_millis(1);
/// Time for the last messages to reach their readers before the process goes.
const FAREWELL: Duration = Duration::from_secs(2);

pub(super) struct State {
    pub(super) core: Core,
    pub(super) recording: RecordingState,
    /// Offset up to which output is on disk; the largest number when nothing is recorded (any more).
    pub(super) recorded: u64,
    /// The reader has seen the end of the output.
    pub(super) is_drained: bool,
    /// The child has ended: its number may soon be another's, so no signal is sent any more.
    is_child_over: bool,
    /// The exit is on disk and may be told.
    pub(super) is_exit_stored: bool,
    /// The daemon has stored the exit, or the machine goes down.
    may_leave: bool,
    /// Threads that wait on `Shared::changed`.
    waiting: u32,
    /// Connections that have not heard of the exit.
    pub(super) unsaid: u32,
    /// Connections to send on.
    pub(super) outlets: Vec<Arc<Outlet>>,
    /// Senders that wait until they are told.
    senders_waiting: u32,
    /// When output came last.
    last_output_us: u64,
    /// The last output came in a burst.
    is_burst: bool,
    /// A thread writes to the child.
    is_writing: bool,
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// Output, acknowledgements, the exit, or leave to go.
    changed: Condvar,
    /// Something to send.
    send: Condvar,
    /// Input to write.
    input: Condvar,
    /// Something to record.
    record: Condvar,
    pub(super) child: Child,
    writer: Writer,
    pub(super) epoch: u32,
    pub(super) io: IoKind,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked cannot have left half a change: the core is changed by whole calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits for output, acknowledgements or the exit.
    pub(super) fn tell(&self, state: &State) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
        if state.senders_waiting > 0 {
            self.send.notify_all();
        }
    }

    /// Sends on every connection what it takes at once.
    pub(super) fn push(&self) {
        let outlets = self.lock().outlets.clone();
        for outlet in outlets {
            if outlet.push(self) == Pushed::Rest {
                self.tell(&self.lock());
            }
        }
    }

    /// Waits until there may be something to send.
    pub(super) fn wait_to_send<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.senders_waiting += 1;
        let mut state = self.send.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.senders_waiting -= 1;
        state
    }

    /// Waits a moment in a burst, so that more of it goes at once. Nobody is woken for what comes meanwhile.
    pub(super) fn gather<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if !state.is_burst || state.core.exit().is_some() {
            return state;
        }
        self.send.wait_timeout(state, GATHER).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn wait<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    fn wait_for<'a>(&self, mut state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let (mut state, _) = self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    /// Input was queued: writes it, if nobody is writing and the terminal takes it at once.
    pub(super) fn input_came(&self, mut state: MutexGuard<'_, State>) {
        if state.is_writing {
            return; // Whoever writes looks again.
        }
        let Some(job) = state.core.next_job() else { return };
        state.is_writing = true;
        drop(state);
        let written = self.writer.write_now(&job.bytes);
        let mut state = self.lock();
        state.is_writing = false;
        match written {
            // The acknowledgement goes with the echo, or a little later: see `connection`.
            Ok(size) if size == job.bytes.len() => state.core.applied(job.writer, job.seq, job.size),
            Ok(size) => state.core.put_back(Job { bytes: job.bytes.slice(size..), ..job }),
            // A terminal whose child is gone takes nothing more; the exit answers what was not acknowledged.
            Err(_) => {}
        }
        if state.core.has_jobs() || state.core.is_input_closed() {
            self.input.notify_one();
        }
    }

    pub(super) fn close_input(&self) {
        self.lock().core.close_input();
        self.input.notify_one();
    }

    pub(super) fn resize(&self, size: TermSize) {
        let mut state = self.lock();
        if state.core.resize(size, now_us()) {
            self.child.resize(size);
            self.record.notify_one();
            self.tell(&state);
        }
    }

    pub(super) fn signal(&self, signo: u8) {
        let state = self.lock();
        if !state.is_child_over {
            self.child.signal(signo);
        }
    }

    pub(super) fn leave(&self) {
        let mut state = self.lock();
        if state.is_exit_stored {
            state.may_leave = true;
            self.tell(&state);
        }
    }
}

pub(super) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Starts a thread with a small stack; without it the holder is of no use.
pub(super) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(body).map(drop)
}

/// Runs the holder: reads the specification, starts the child, serves until the daemon has the exit.
pub(super) fn run() -> ExitCode {
    sys::use_one_arena();
    sys::close_inherited();
    // It fails only for a group leader, which is already out of the daemon's group.
    let _ = rustix::process::setsid();
    sys::shield_from_signals();
    let mut json = Vec::new();
    let (shared, address) = match read_spec(&mut json).and_then(|spec| prepare(&spec)) {
        Ok(parts) => parts,
        Err(message) => {
            say(&Ready::Failed { message });
            return ExitCode::FAILURE;
        }
    };
    // The environment of the child may hold secrets.
    json.fill(0);
    say(&Ready::Ready { holder_pid: std::process::id(), child_pid: shared.child.pid() });
    detach_stdio();
    reap(&shared, &address);
    ExitCode::SUCCESS
}

fn read_spec(json: &mut Vec<u8>) -> Result<HolderSpec, String> {
    io::stdin()
        .lock()
        .read_to_end(json)
        .map_err(|error| format!("No specification could be read: {error}."))?;
    serde_json::from_slice(json).map_err(|error| format!("The specification is not understood: {error}."))
}

fn say(ready: &Ready) {
    let mut out = io::stdout().lock();
    let _ = serde_json::to_writer(&mut out, ready);
    let _ = out.write_all(b"\n");
    let _ = out.flush();
}

/// Lets go of the daemon's pipes; the daemon reads our answer to its end.
fn detach_stdio() {
    use std::os::fd::AsRawFd;
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        for fd in 0..3 {
            let _ = sys::duplicate_onto(null.as_raw_fd(), fd);
        }
    }
}

fn prepare(spec: &HolderSpec) -> Result<(Arc<Shared>, Address), String> {
    let cannot =
        |what: &str, path: &Path, error: &io::Error| format!("{what} {} failed: {error}.", path.display());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&spec.dir)
        .map_err(|error| cannot("Making the directory", &spec.dir, &error))?;
    // A socket that is left from a holder of the same run that was killed.
    let _ = std::fs::remove_file(&spec.socket);
    let listener =
        bind_private(&spec.socket).map_err(|error| cannot("Opening the socket", &spec.socket, &error))?;
    let address = Address::new(&spec.dir, &spec.socket);
    sys::take_in_orphans();
    let child = Child::start(spec)?;
    let writer = child.writer().map_err(|error| cannot("Opening the input of", &spec.cwd, &error))?;
    let mut recorder = (spec.recording_bytes > 0).then(|| Recorder::new(&spec.dir, spec.recording_bytes));
    let recording = match recorder.as_mut().map(|recorder| recorder.begin(spec.size, now_us())) {
        None => RecordingState::Off,
        Some(Ok(())) => RecordingState::On,
        Some(Err(_)) => RecordingState::Failed,
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            core: Core::new(spec.ring_bytes, spec.size),
            recording,
            recorded: if recording == RecordingState::Off { u64::MAX } else { 0 },
            is_drained: false,
            is_child_over: false,
            is_exit_stored: false,
            may_leave: false,
            waiting: 0,
            unsaid: 0,
            outlets: Vec::new(),
            senders_waiting: 0,
            last_output_us: 0,
            is_burst: false,
            is_writing: false,
        }),
        changed: Condvar::new(),
        send: Condvar::new(),
        input: Condvar::new(),
        record: Condvar::new(),
        writer,
        child,
        epoch: spec.epoch,
        io: spec.io,
    });
    start_threads(&shared, recorder, listener).map_err(|error| {
        shared.child.signal(libc::SIGKILL as u8);
        format!("The holder could not start its threads: {error}.")
    })?;
    Ok((shared, address))
}

fn bind_private(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    // The directory is 0700, so nobody else can connect between the two calls.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn start_threads(shared: &Arc<Shared>, recorder: Option<Recorder>, listener: UnixListener) -> io::Result<()> {
    let reader = shared.child.reader()?;
    let each = |body: fn(&Arc<Shared>)| {
        let shared = Arc::clone(shared);
        move || body(&shared)
    };
    start("signals", each(|shared| watch_signals(shared)))?;
    start("orphans", each(|shared| sys::reap_orphans(shared.child.pid())))?;
    let own = Arc::clone(shared);
    start("output", move || read_output(&own, reader))?;
    start("input", each(|shared| write_input(shared)))?;
    if let Some(recorder) = recorder {
        let own = Arc::clone(shared);
        start("recorder", move || record(&own, recorder))?;
    }
    let own = Arc::clone(shared);
    start("listener", move || connection::listen(&own, &listener))
}

/// SIGTERM means that the machine goes down: leave when the child has ended, without waiting for a daemon. `exit.json` is on disk.
fn watch_signals(shared: &Shared) {
    loop {
        if sys::wait_for_signal() == sys::SIGTERM {
            let mut state = shared.lock();
            state.may_leave = true;
            shared.tell(&state);
        }
    }
}

fn read_output(shared: &Shared, mut reader: Reader) {
    let mut buffer = vec![0; READ_BYTES];
    // When the recorder is to look. Waking it costs as much as sending an echo, so it is woken when nothing comes.
    let mut record_at: Option<Instant> = None;
    loop {
        let size = match reader.read_until(&mut buffer, record_at) {
            Ok(Some(size)) => size,
            Ok(None) => {
                record_at = None;
                shared.record.notify_one();
                continue;
            }
            Err(_) => 0,
        };
        let mut state = shared.lock();
        if size == 0 {
            state.is_drained = true;
            shared.tell(&state);
            shared.record.notify_one();
            return;
        }
        let now = now_us();
        let before = state.core.head().saturating_sub(state.recorded);
        state.core.output(&buffer[..size], now);
        let after = state.core.head().saturating_sub(state.recorded);
        let is_to_record = (before < RECORD_EAGER_BYTES && after >= RECORD_EAGER_BYTES)
            || record_at.is_some_and(|at| at <= Instant::now());
        record_at = match before {
            // Nothing is recorded at all.
            _ if is_to_record || state.recorded == u64::MAX => None,
            0 => Some(Instant::now() + RECORD_INTERVAL),
            _ => record_at,
        };
        state.is_burst = now.saturating_sub(state.last_output_us) < QUIET_US;
        state.last_output_us = now;
        if state.is_burst || state.core.exit().is_some() {
            shared.tell(&state);
        } else {
            if state.waiting > 0 {
                shared.changed.notify_all();
            }
            drop(state);
            shared.push();
        }
        // Last: viewers wait, the disk does not.
        if is_to_record {
            shared.record.notify_one();
        }
    }
}

/// Writes what could not be written at once.
fn write_input(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        if !state.is_writing
            && let Some(job) = state.core.next_job()
        {
            state.is_writing = true;
            drop(state);
            let written = shared.writer.write_all(&job.bytes);
            state = shared.lock();
            state.is_writing = false;
            // A terminal whose child is gone takes nothing more; the exit answers what was not acknowledged.
            if written.is_ok() {
                state.core.applied(job.writer, job.seq, job.size);
                shared.tell(&state);
            }
        } else {
            if state.core.is_input_closed() && !state.is_writing {
                shared.child.close_input();
            }
            state = shared.input.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn record(shared: &Shared, mut recorder: Recorder) {
    let mut buffer = Vec::new();
    let mut marks = VecDeque::new();
    let mut state = shared.lock();
    loop {
        let is_failed = state.recording == RecordingState::Failed;
        let head = state.core.head();
        marks.extend(state.core.take_marks());
        if recorder.position() == head && marks.is_empty() && !is_failed {
            if state.may_leave && state.core.exit().is_some() {
                return;
            }
            state = shared.record.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let skip = (recorder.position() < state.core.tail()).then(|| state.core.tail());
        let from = skip.unwrap_or(recorder.position());
        let size = state.core.size_at(from);
        buffer.clear();
        state.core.ring.copy(from, 1024 * 1024, &mut buffer);
        drop(state);
        let written = (|| {
            if is_failed {
                recorder.repair()?;
                if recorder.position() == 0 {
                    recorder.begin(size, now_us())?;
                }
            }
            if let Some(offset) = skip {
                recorder.skip_to(offset, size, now_us())?;
                // What they say of the bytes that are gone is in the gap.
                marks.retain(|mark| mark.offset() >= offset);
            }
            while let Some(mark) = marks.front() {
                recorder.mark(*mark)?;
                marks.pop_front();
            }
            recorder.write(&buffer)
        })();
        state = shared.lock();
        match written {
            Ok(()) => {
                state.recording = RecordingState::On;
                state.recorded = recorder.position();
            }
            // The session goes on. The ring holds what comes meanwhile; what it evicts is a gap.
            Err(_) => {
                state.recording = RecordingState::Failed;
                if state.may_leave && state.core.exit().is_some() {
                    state.recorded = u64::MAX;
                    shared.tell(&state);
                    return;
                }
                let until = Instant::now() + RECORD_RETRY;
                while let Some(left) = until.checked_duration_since(Instant::now())
                    && !(state.may_leave && state.core.exit().is_some())
                {
                    state = shared.record.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                // Marks are bounded where they are made, so they are bounded here.
                let excess = marks.len().saturating_sub(MAX_WAITING_MARKS);
                marks.drain(..excess);
            }
        }
    }
}

/// Waits for the child, lets its last output arrive, tells everybody, and stays until the exit is stored, or nobody can
/// come for it any more.
fn reap(shared: &Shared, address: &Address) {
    shared.child.wait_for_end();
    let mut state = shared.lock();
    state.is_child_over = true;
    let exit = shared.child.reap();
    let at = UnixMs(i64::try_from(now_us() / 1000).unwrap_or(i64::MAX));
    let (since, mut head, mut quiet_since) = (Instant::now(), state.core.head(), Instant::now());
    while !state.is_drained && since.elapsed() < DRAIN_LIMIT && quiet_since.elapsed() < DRAIN_IDLE {
        state = shared.wait_for(state, DRAIN_IDLE.saturating_sub(quiet_since.elapsed()));
        if state.core.head() != head {
            (head, quiet_since) = (state.core.head(), Instant::now());
        }
    }
    // Input that a thread is writing is in the terminal or not; who typed it is told which, not that nobody was there.
    let since = Instant::now();
    while state.is_writing && since.elapsed() < WRITE_LIMIT {
        state = shared.wait_for(state, Duration::from_millis(1));
    }
    let offset = state.core.head();
    state.core.end(HolderExit { offset, exit, at });
    drop(state);
    // Nobody is told before it is on disk; if the disk is full, memory has to do until it is not.
    let record = ExitRecord { epoch: shared.epoch, offset, exit, at };
    let mut is_durable = write_exit(address.dir(), &record).is_ok();
    let mut state = shared.lock();
    state.is_exit_stored = true;
    shared.tell(&state);
    shared.record.notify_one();
    let (mut pause, longest) = LONELY_CHECK;
    while !state.may_leave {
        drop(state);
        is_durable = is_durable || write_exit(address.dir(), &record).is_ok();
        let is_lonely = address.is_forgotten() || (is_durable && address.is_unreachable());
        state = shared.lock();
        if is_lonely {
            state.may_leave = true;
        } else if !state.may_leave {
            state = shared.wait_for(state, pause);
            pause = (pause * 2).min(longest);
        }
    }
    shared.record.notify_one();
    // The last messages and the last recorded bytes.
    let since = Instant::now();
    while (state.unsaid > 0 || state.recorded < offset) && since.elapsed() < FAREWELL {
        state = shared.wait_for(state, Duration::from_millis(20));
    }
    address.remove_socket();
}

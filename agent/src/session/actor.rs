//! The tasks of one run: reading the holder, writing to it, and housekeeping.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use claudenest_shared::session::Exit;
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::holder::{
    FromHolder, HOLDER_PROTOCOL, HolderExit, HolderHello, RecordingState, ToHolder,
};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::shared::Shared;
use super::{ConnectError, Notice};
use crate::holder::read_exit;
use crate::unix_socket::{self, ReadHalf, WriteHalf};
use crate::yields;

/// A holder answers at once; a machine that swaps gets this long.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The model follows when output has paused this long, so that it is not on the way of an echo.
const FOLLOW_DELAY: Duration = Duration::from_millis(15);
/// A flooding session saves its screen this often at most.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// Attempts to reach a holder whose connection broke.
const RECONNECTS: u32 = 5;
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// What is taken from a holder before others have their turn: the streams send as much in one frame or two.
const YIELD_BYTES: usize = 64 * 1024;
/// Room for one full output message.
const READ_BYTES: usize = 128 * 1024;

/// A fresh connection, after both hellos.
pub(super) struct Connection {
    pub(super) hello: HolderHello,
    read: ReadHalf,
    write: WriteHalf,
    buffer: BytesMut,
}

/// Connects to a holder and asks for output from `from` on.
pub(super) async fn connect(socket: &std::path::Path, from: u64) -> Result<Connection, ConnectError> {
    let (read, write) = unix_socket::connect(socket).await.map_err(ConnectError::Gone)?;
    let exchange = async {
        let mut wire = BytesMut::new();
        ToHolder::Hello { proto: HOLDER_PROTOCOL, from }.encode(&mut wire);
        write.write_all(&wire).await.map_err(ConnectError::Gone)?;
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        match next(&read, &mut buffer).await {
            Ok(Some(FromHolder::Hello(hello))) => Ok((hello, buffer)),
            Ok(Some(_)) => Err(ConnectError::Protocol),
            Ok(None) => Err(ConnectError::Gone(io::ErrorKind::UnexpectedEof.into())),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(ConnectError::Protocol),
            Err(error) => Err(ConnectError::Gone(error)),
        }
    };
    match tokio::time::timeout(HELLO_TIMEOUT, exchange).await {
        Ok(Ok((hello, buffer))) => Ok(Connection { hello: *hello, read, write, buffer }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ConnectError::Gone(io::ErrorKind::TimedOut.into())),
    }
}

/// The next message. Cancel safe: bytes stay in `buffer`.
async fn next(read: &ReadHalf, buffer: &mut BytesMut) -> io::Result<Option<FromHolder>> {
    loop {
        if let Some(message) = decode(buffer)? {
            return Ok(Some(message));
        }
        if fill(read, buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn decode(buffer: &mut BytesMut) -> io::Result<Option<FromHolder>> {
    FromHolder::decode(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

async fn fill(read: &ReadHalf, buffer: &mut BytesMut) -> io::Result<usize> {
    buffer.reserve(READ_BYTES);
    read.read(buffer).await
}

/// Starts the tasks of a run.
pub(super) fn start(
    shared: &Arc<Shared>,
    connection: Connection,
    notices: mpsc::Sender<Notice>,
    tasks: &TaskTracker,
) {
    shared.outbox.connect(connection.write.direct());
    let own = Arc::clone(shared);
    tasks.spawn(async move {
        tokio::select! {
            () = own.cancel.cancelled() => {}
            () = serve(&own, connection) => {}
        }
        // Writers may live on for a moment; what they bring now is not delivered.
        own.outbox.disconnect();
    });
    let own = Arc::clone(shared);
    tasks.spawn(async move {
        tokio::select! {
            () = own.cancel.cancelled() => {}
            () = keep_house(&own, &notices) => {}
        }
    });
}

/// Reads and writes until the session is over, reconnecting when a connection breaks.
async fn serve(shared: &Shared, mut connection: Connection) {
    loop {
        shared.lock().is_recording_failed = connection.hello.recording == RecordingState::Failed;
        let Connection { read, write, mut buffer, .. } = connection;
        tokio::select! {
            () = receive(shared, &read, &mut buffer) => {}
            () = forward(shared, &write) => {}
        }
        let exit = shared.lock().exit();
        if exit.is_some() {
            // What is still to be said is that the exit was stored.
            let _ = tokio::time::timeout(HELLO_TIMEOUT, forward(shared, &write)).await;
            return;
        }
        shared.outbox.disconnect();
        match reconnect(shared).await {
            Some(again) => {
                shared.outbox.connect(again.write.direct());
                let todo = {
                    let mut core = shared.lock();
                    let effects = core.input.resend(&again.hello.writers, Instant::now());
                    super::core::Todo { send: effects.send, answers: effects.answers }
                };
                shared.carry_out(todo);
                connection = again;
            }
            None => {
                lose(shared);
                return;
            }
        }
    }
}

async fn receive(shared: &Shared, read: &ReadHalf, buffer: &mut BytesMut) {
    let (mut bytes_since_yield, mut has_output) = (0, false);
    loop {
        // In a flood there is always more to read; those who send it on have to keep up.
        if bytes_since_yield >= YIELD_BYTES {
            bytes_since_yield = 0;
            tokio::task::yield_now().await;
        }
        let message = match decode(buffer) {
            Ok(Some(message)) => message,
            Ok(None) => {
                if std::mem::take(&mut has_output) {
                    // Streams, then the writer of their connection; only then the follower with its timers.
                    yields::to_the_end().await;
                    yields::to_the_end().await;
                    shared.will_follow();
                }
                match fill(read, buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => continue,
                }
            }
            Err(_) => return,
        };
        match message {
            FromHolder::Hello(_) => {}
            FromHolder::Output { offset, bytes } => {
                bytes_since_yield += bytes.len();
                has_output = true;
                shared.output(offset, &bytes);
            }
            FromHolder::InputAck { writer, seq } => {
                let (effects, has_deadline) = {
                    let mut core = shared.lock();
                    let effects = core.input.acked(writer, seq, Instant::now());
                    (effects, core.input.deadline().is_some())
                };
                shared.carry_out(super::core::Todo { send: effects.send, answers: effects.answers });
                if has_deadline {
                    shared.housekeeping.notify_one();
                }
            }
            FromHolder::InputRefused { writer, seq, reason } => {
                let effects = shared.lock().input.refused(writer, seq, reason, Instant::now());
                shared.carry_out(super::core::Todo { send: effects.send, answers: effects.answers });
            }
            FromHolder::Resized { offset, size } => shared.resized(offset, size),
            FromHolder::Exit(exit) => {
                shared.end(exit, false);
                return;
            }
        }
    }
}

/// Writes what the holder did not take at once.
async fn forward(shared: &Shared, write: &WriteHalf) {
    loop {
        shared.outbox.left_over().await;
        if write.writable().await.is_err() || !shared.outbox.write() {
            return;
        }
    }
}

async fn reconnect(shared: &Shared) -> Option<Connection> {
    for _ in 0..RECONNECTS {
        let from = shared.lock().raw_head();
        match connect(&shared.config.socket, from).await {
            Ok(connection) if connection.hello.epoch == shared.config.epoch => return Some(connection),
            _ => tokio::time::sleep(RECONNECT_PAUSE).await,
        }
    }
    None
}

/// The holder is gone. If it wrote the exit down before, that counts.
fn lose(shared: &Shared) {
    let record = read_exit(&shared.config.dir).filter(|record| record.epoch == shared.config.epoch);
    match record {
        Some(record) => {
            shared.end(HolderExit { offset: record.offset, exit: record.exit, at: record.at }, false);
        }
        None => shared.end(HolderExit { offset: 0, exit: Exit::Lost {}, at: UnixMs(0) }, true),
    }
}

/// Lets the model follow, keeps deadlines and tells notices.
async fn keep_house(shared: &Shared, notices: &mpsc::Sender<Notice>) {
    let (mut follow_at, mut saved_at): (Option<Instant>, Option<Instant>) = (None, None);
    loop {
        let deadline = shared.lock().deadline();
        let wake_at = [deadline, follow_at].into_iter().flatten().min();
        tokio::select! {
            () = shared.housekeeping.notified() => {
                if follow_at.is_none() {
                    follow_at = Some(Instant::now() + FOLLOW_DELAY);
                }
            }
            () = sleep_until(wake_at) => {}
        }
        let now = Instant::now();
        if deadline.is_some_and(|at| now >= at) {
            let todo = shared.lock().on_deadline(now);
            shared.carry_out(todo);
        }
        if follow_at.is_some_and(|at| now >= at) {
            follow_at = None;
            shared.begin_to_follow();
            while shared.follow() {
                tokio::task::yield_now().await;
            }
            if saved_at.is_none_or(|at| now >= at + SAVE_INTERVAL)
                && let Some(screen) = shared.to_save()
            {
                saved_at = Some(now);
                let dir = shared.config.dir.clone();
                // A full disk costs modes after a restart of the daemon, nothing now.
                let _ = tokio::task::spawn_blocking(move || screen.write(&dir)).await;
            }
        }
        while let Some(event) = shared.next_notice() {
            let notice = Notice { session: shared.config.session, epoch: shared.config.epoch, event };
            // Nobody listens any more: the daemon is ending.
            let _ = notices.send(notice).await;
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

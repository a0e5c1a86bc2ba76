//! Connections to a holder: each reads and writes on threads of its own, at its own pace.
//!
//! A connection that does not read costs its two threads and nothing else: see [`super::outlet`].

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use bytes::BytesMut;
use claudenest_shared::wire::holder::ToHolder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::core::Taken;
use super::outlet::Outlet;
use super::process::{Shared, start};
use super::sys;

/// One daemon, one that is dying, and somebody who debugs. The oldest goes when one more comes.
const MAX_CONNECTIONS: usize = 4;
/// How long an acknowledgement waits for an echo to go with; an editor echoes within this time.
const ACK_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// What one read takes from the socket.
const READ_BYTES: usize = 64 * 1024;

/// Accepts connections for ever.
pub(super) fn listen(shared: &Arc<Shared>, listener: &UnixListener) {
    let mut open: VecDeque<UnixStream> = VecDeque::new();
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Out of descriptors, for example. A daemon tries again; a busy loop would help nobody.
            Err(_) => {
                std::thread::sleep(std::time::Duration::from_millis(100));
                continue;
            }
        };
        if !sys::is_same_user(&stream) {
            continue;
        }
        if open.len() == MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            let _ = oldest.shutdown(Shutdown::Both);
        }
        if let Ok(copy) = stream.try_clone() {
            open.push_back(copy);
        }
        let shared = Arc::clone(shared);
        // Without a thread there is no service; the peer sees the end and tries again.
        let _ = start("connection", move || serve(&shared, stream));
    }
}

fn serve(shared: &Arc<Shared>, mut stream: UnixStream) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut scratch = vec![0; READ_BYTES];
    let Some(ToHolder::Hello { from, .. }) = next(&mut stream, &mut buffer, &mut scratch) else { return };
    let Ok(out) = stream.try_clone() else { return };
    shared.lock().unsaid += 1;
    let outlet = Outlet::open(shared, out, from);
    let (own, its) = (Arc::clone(shared), Arc::clone(&outlet));
    if start("sender", move || send(&own, &its)).is_err() {
        let mut state = shared.lock();
        state.unsaid -= 1;
        state.outlets.retain(|other| !Arc::ptr_eq(other, &outlet));
        return;
    }
    loop {
        let message = match ToHolder::decode(&mut buffer) {
            Ok(Some(message)) => message,
            Ok(None) => {
                say_acks(shared, &outlet, &stream);
                match receive(&mut stream, &mut buffer, &mut scratch) {
                    Some(()) => continue,
                    None => break,
                }
            }
            Err(_) => break,
        };
        match message {
            // A second hello means nothing.
            ToHolder::Hello { .. } => {}
            ToHolder::Input { writer, seq, flags, bytes } => {
                let mut state = shared.lock();
                match state.core.input(writer, seq, flags, bytes) {
                    Taken::Queued => shared.input_came(state),
                    Taken::Known => shared.tell(&state),
                    Taken::Refused(reason) => {
                        if !outlet.refuse(writer, seq, reason) {
                            break;
                        }
                        shared.tell(&state);
                    }
                }
            }
            ToHolder::Resize { size } => shared.resize(size),
            ToHolder::Signal { signo } => shared.signal(signo),
            ToHolder::CloseInput => shared.close_input(),
            ToHolder::ExitAck => shared.leave(),
        }
    }
    // The sender may sleep in a write or on the state: wake it from both.
    let _ = stream.shutdown(Shutdown::Both);
    let state = shared.lock();
    outlet.end();
    shared.tell(&state);
}

/// Sends acknowledgements that no output takes along within a moment. Most keys are echoed before.
fn say_acks(shared: &Shared, outlet: &Outlet, stream: &UnixStream) {
    if !outlet.lacks_acks(&shared.lock()) {
        return;
    }
    let mut waiting = [PollFd::new(stream, PollFlags::IN)];
    if !matches!(poll(&mut waiting, Some(&ACK_PATIENCE)), Ok(1..)) {
        shared.push();
    }
}

/// The first message; `None` at the end of the connection or when the peer breaks the protocol.
fn next(stream: &mut UnixStream, buffer: &mut BytesMut, scratch: &mut [u8]) -> Option<ToHolder> {
    loop {
        match ToHolder::decode(buffer) {
            Ok(Some(message)) => return Some(message),
            Ok(None) => receive(stream, buffer, scratch)?,
            Err(_) => return None,
        }
    }
}

/// Reads once; `None` at the end of the connection.
fn receive(stream: &mut UnixStream, buffer: &mut BytesMut, scratch: &mut [u8]) -> Option<()> {
    loop {
        match stream.read(scratch) {
            Ok(0) => return None,
            Ok(size) => {
                buffer.extend_from_slice(&scratch[..size]);
                return Some(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// The thread that sends what others cannot send at once; the holder stays a little while a connection has not heard of the exit.
fn send(shared: &Shared, outlet: &Arc<Outlet>) {
    let is_exit_said = send_until_exit(shared, outlet);
    let mut state = shared.lock();
    state.unsaid -= 1;
    shared.tell(&state);
    // Nothing follows but acknowledgements of input that came too late.
    while is_exit_said && !outlet.is_over() {
        state = shared.wait(state);
    }
    state.outlets.retain(|other| !Arc::ptr_eq(other, outlet));
}

/// True once the exit was sent; false when the connection has ended.
fn send_until_exit(shared: &Shared, outlet: &Outlet) -> bool {
    loop {
        match outlet.send_all(shared) {
            Ok(true) => return true,
            Ok(false) => {}
            Err(_) => return false,
        }
        let mut state = shared.lock();
        while outlet.is_idle(&state, false) {
            if outlet.is_over() {
                return false;
            }
            state = shared.wait_to_send(state);
        }
        if outlet.is_over() {
            return false;
        }
        // More is coming in a flood: few large messages cost less than many small ones.
        drop(shared.gather(state));
    }
}

//! Connections to a holder: each reads and writes on threads of its own, at its own pace.
//!
//! A connection that does not read costs its two threads and nothing else: it has a position in the ring, no
//! queue. Acknowledgements are read off the state, so they cannot pile up; refusals are bounded.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use claudenest_shared::wire::holder::{
    FromHolder, HOLDER_PROTOCOL, HolderHello, InputRefusal, MAX_HOLDER_CHUNK_BYTES, ToHolder,
};

use super::core::Taken;
use super::process::{Shared, start};
use super::sys;

/// One daemon, one that is dying, and somebody who debugs. The oldest goes when one more comes.
const MAX_CONNECTIONS: usize = 4;
/// Refusals that wait to be sent; a peer that does not read them is gone.
const MAX_REFUSALS: usize = 1024;
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

/// What the reading thread of a connection tells its writing thread. Guarded apart from the holder's state.
#[derive(Default)]
struct Side {
    refusals: VecDeque<(u64, u64, InputRefusal)>,
    is_over: bool,
}

fn serve(shared: &Arc<Shared>, mut stream: UnixStream) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut scratch = vec![0; READ_BYTES];
    let Some(ToHolder::Hello { from, .. }) = next(&mut stream, &mut buffer, &mut scratch) else { return };
    let side = Arc::new(Mutex::new(Side::default()));
    let Ok(out) = stream.try_clone() else { return };
    let (own, its) = (Arc::clone(shared), Arc::clone(&side));
    if start("sender", move || send(&own, &its, out, from)).is_err() {
        return;
    }
    while let Some(message) = next(&mut stream, &mut buffer, &mut scratch) {
        match message {
            // A second hello means nothing.
            ToHolder::Hello { .. } => {}
            ToHolder::Input { writer, seq, flags, bytes } => {
                let mut state = shared.lock();
                match state.core.input(writer, seq, flags, bytes) {
                    Taken::Queued => shared.input_came(),
                    Taken::Known => shared.tell(&state),
                    Taken::Refused(reason) => {
                        let mut side = side.lock().unwrap_or_else(PoisonError::into_inner);
                        if side.refusals.len() == MAX_REFUSALS {
                            break;
                        }
                        side.refusals.push_back((writer, seq, reason));
                        shared.tell(&state);
                    }
                }
            }
            ToHolder::Resize { size } => shared.resize(size),
            ToHolder::Signal { signo } => shared.signal(signo),
            ToHolder::CloseInput => {
                shared.lock().core.close_input();
                shared.input_came();
            }
            ToHolder::ExitAck => shared.leave(),
        }
    }
    // The sender may sleep in a write or on the state: wake it from both.
    let _ = stream.shutdown(Shutdown::Both);
    let state = shared.lock();
    side.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
    shared.tell(&state);
}

/// The next message; `None` at the end of the connection or when the peer breaks the protocol.
fn next(stream: &mut UnixStream, buffer: &mut BytesMut, scratch: &mut [u8]) -> Option<ToHolder> {
    loop {
        match ToHolder::decode(buffer) {
            Ok(Some(message)) => return Some(message),
            Ok(None) => {}
            Err(_) => return None,
        }
        match stream.read(scratch) {
            Ok(0) => return None,
            Ok(size) => buffer.extend_from_slice(&scratch[..size]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Sends everything; the holder stays a little while a connection has not heard of the exit.
fn send(shared: &Shared, side: &Mutex<Side>, out: UnixStream, from: u64) {
    let is_counted = Cell::new(true);
    shared.lock().unsaid += 1;
    send_all(shared, side, out, from, &is_counted);
    if is_counted.get() {
        let mut state = shared.lock();
        state.unsaid -= 1;
        shared.tell(&state);
    }
}

/// Sends hello and then output, sizes, acknowledgements, refusals and the exit.
fn send_all(shared: &Shared, side: &Mutex<Side>, mut out: UnixStream, from: u64, is_counted: &Cell<bool>) {
    let mut wire = BytesMut::new();
    let mut chunk = Vec::new();
    let mut state = shared.lock();
    let mut position = from.clamp(state.core.tail(), state.core.head());
    let mut resize_number = state.core.resize_number_after(position);
    let mut ack_version = state.core.ack_version();
    let mut is_exit_said = false;
    FromHolder::Hello(Box::new(HolderHello {
        proto: HOLDER_PROTOCOL,
        holder_pid: std::process::id(),
        child_pid: shared.child.pid(),
        epoch: shared.epoch,
        io: shared.io,
        recording: state.recording,
        tail: state.core.tail(),
        head: state.core.head(),
        start: position,
        start_size: state.core.size_at(position),
        size: state.core.size(),
        exit: state.core.exit().filter(|_| state.is_exit_stored),
        writers: state.core.writers(),
        input: state.core.input_state(),
    }))
    .encode(&mut wire);
    loop {
        for (writer, seq) in state.core.acks_since(ack_version) {
            FromHolder::InputAck { writer, seq }.encode(&mut wire);
        }
        ack_version = state.core.ack_version();
        {
            let mut side = side.lock().unwrap_or_else(PoisonError::into_inner);
            if side.is_over {
                return;
            }
            for (writer, seq, reason) in side.refusals.drain(..) {
                FromHolder::InputRefused { writer, seq, reason }.encode(&mut wire);
            }
        }
        if position < state.core.tail() {
            position = state.core.tail();
            resize_number = state.core.resize_number_after(position);
            let size = state.core.size_at(position);
            FromHolder::Resized { offset: position, size }.encode(&mut wire);
        }
        let mut until = state.core.head();
        while let Some((number, offset, size)) = state.core.resize_number(resize_number) {
            if offset > position {
                until = until.min(offset);
                break;
            }
            resize_number = number + 1;
            FromHolder::Resized { offset, size }.encode(&mut wire);
        }
        let size = usize::try_from(until - position).unwrap_or(usize::MAX).min(MAX_HOLDER_CHUNK_BYTES);
        chunk.clear();
        state.core.ring.copy(position, size, &mut chunk);
        if let Some(exit) = state.core.exit()
            && state.is_exit_stored
            && !is_exit_said
            && position + chunk.len() as u64 == exit.offset
        {
            is_exit_said = true;
        }
        let has_exit = is_exit_said.then(|| state.core.exit()).flatten();
        if wire.is_empty() && chunk.is_empty() && has_exit.is_none() {
            state = shared.wait(state);
            continue;
        }
        drop(state);
        if !chunk.is_empty() {
            let offset = position;
            position += chunk.len() as u64;
            FromHolder::Output { offset, bytes: Bytes::copy_from_slice(&chunk) }.encode(&mut wire);
        }
        if let Some(exit) = has_exit {
            FromHolder::Exit(exit).encode(&mut wire);
        }
        let sent = out.write_all(&wire);
        wire.clear();
        state = shared.lock();
        if sent.is_err() {
            return;
        }
        if has_exit.is_some() {
            state.unsaid -= 1;
            is_counted.set(false);
            shared.tell(&state);
            // Nothing follows but acknowledgements of input that came too late.
            while !side.lock().unwrap_or_else(PoisonError::into_inner).is_over {
                state = shared.wait(state);
            }
            return;
        }
    }
}

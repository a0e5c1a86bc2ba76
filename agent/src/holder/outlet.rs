//! What a holder sends on one connection, whoever sends it.
//!
//! Usually that is the thread that has just read the child's output: one wake-up less on the way of an echo. What the
//! socket does not take at once, and everything in a flood, is left to the connection's own sender, which may wait. An
//! outlet has a position in the ring, no queue of output; acknowledgements are read off the state, so they cannot
//! pile up; refusals are bounded.
//!
//! Lock order: [`Progress`], then the holder's state, then [`Side`].

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use bytes::{Buf, Bytes, BytesMut};
use claudenest_shared::wire::holder::{
    FromHolder, HOLDER_PROTOCOL, HolderHello, InputRefusal, MAX_HOLDER_CHUNK_BYTES,
};
use rustix::net::SendFlags;

use super::process::{Shared, State};

/// Refusals that wait to be sent; a peer that does not read them is gone.
const MAX_REFUSALS: usize = 1024;

/// What the reading thread of a connection tells those who send on it.
#[derive(Default)]
struct Side {
    refusals: VecDeque<(u64, u64, InputRefusal)>,
    is_over: bool,
}

/// What was sent so far.
struct Progress {
    /// Encoded and not yet taken by the socket: one message of output at most.
    wire: BytesMut,
    position: u64,
    resize_number: u64,
    ack_version: u64,
}

/// What became of an attempt to send without waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pushed {
    /// Nothing is left.
    All,
    /// The sender has to go on.
    Rest,
    /// The sender is at it.
    Busy,
}

/// See the module.
pub(super) struct Outlet {
    out: UnixStream,
    progress: Mutex<Progress>,
    side: Mutex<Side>,
}

impl Outlet {
    /// A new outlet that begins with the holder's hello and goes on with output from `from`.
    pub(super) fn open(shared: &Shared, out: UnixStream, from: u64) -> Arc<Self> {
        let mut wire = BytesMut::new();
        let mut state = shared.lock();
        let position = from.clamp(state.core.tail(), state.core.head());
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
        let progress = Progress {
            wire,
            position,
            resize_number: state.core.resize_number_after(position),
            ack_version: state.core.ack_version(),
        };
        let outlet = Arc::new(Self { out, progress: Mutex::new(progress), side: Mutex::default() });
        state.outlets.push(Arc::clone(&outlet));
        outlet
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn side(&self) -> MutexGuard<'_, Side> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a refusal; false if too many wait.
    pub(super) fn refuse(&self, writer: u64, seq: u64, reason: InputRefusal) -> bool {
        let mut side = self.side();
        if side.refusals.len() == MAX_REFUSALS {
            return false;
        }
        side.refusals.push_back((writer, seq, reason));
        true
    }

    /// The connection has ended.
    pub(super) fn end(&self) {
        self.side().is_over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.side().is_over
    }

    /// Sends what there is, as far as the socket takes it at once.
    pub(super) fn push(&self, shared: &Shared) -> Pushed {
        let mut progress = match self.progress.try_lock() {
            Ok(progress) => progress,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Pushed::Busy,
        };
        loop {
            if progress.wire.is_empty() {
                self.fill(&mut progress, &shared.lock());
            }
            if progress.wire.is_empty() {
                return Pushed::All;
            }
            match rustix::net::send(&self.out, &progress.wire, SendFlags::DONTWAIT) {
                Ok(size) => progress.wire.advance(size),
                Err(rustix::io::Errno::INTR) => {}
                // Full, or gone: the sender finds out.
                Err(_) => return Pushed::Rest,
            }
        }
    }

    /// Sends until nothing is left, and waits for the socket. The exit comes last; true once it is sent.
    pub(super) fn send_all(&self, shared: &Shared) -> io::Result<bool> {
        loop {
            let mut progress = self.progress();
            let mut has_exit = false;
            if progress.wire.is_empty() {
                let state = shared.lock();
                self.fill(&mut progress, &state);
                if let Some(exit) = state.core.exit()
                    && state.is_exit_stored
                    && progress.position == exit.offset
                {
                    FromHolder::Exit(exit).encode(&mut progress.wire);
                    has_exit = true;
                }
            }
            if progress.wire.is_empty() {
                return Ok(false);
            }
            let wire = progress.wire.split();
            (&self.out).write_all(&wire)?;
            if has_exit {
                return Ok(true);
            }
        }
    }

    /// True if there is nothing to send. Whoever then waits must not let go of the state in between.
    pub(super) fn is_idle(&self, state: &State, is_exit_said: bool) -> bool {
        // Locked by another only while it sends; then there is something.
        let Ok(progress) = self.progress.try_lock() else { return false };
        let side = self.side();
        let has_exit = !is_exit_said && state.core.exit().is_some() && state.is_exit_stored;
        progress.wire.is_empty()
            && progress.position == state.core.head()
            && progress.ack_version == state.core.ack_version()
            && state.core.resize_number(progress.resize_number).is_none()
            && side.refusals.is_empty()
            && !has_exit
    }

    /// True if acknowledgements wait that no output has taken along.
    pub(super) fn lacks_acks(&self, state: &State) -> bool {
        self.progress.try_lock().is_ok_and(|progress| progress.ack_version != state.core.ack_version())
    }

    /// Encodes what is new: acknowledgements, refusals, sizes, and one message of output.
    fn fill(&self, progress: &mut Progress, state: &State) {
        for (writer, seq) in state.core.acks_since(progress.ack_version) {
            FromHolder::InputAck { writer, seq }.encode(&mut progress.wire);
        }
        progress.ack_version = state.core.ack_version();
        for (writer, seq, reason) in self.side().refusals.drain(..) {
            FromHolder::InputRefused { writer, seq, reason }.encode(&mut progress.wire);
        }
        if progress.position < state.core.tail() {
            progress.position = state.core.tail();
            progress.resize_number = state.core.resize_number_after(progress.position);
            let size = state.core.size_at(progress.position);
            FromHolder::Resized { offset: progress.position, size }.encode(&mut progress.wire);
        }
        let mut until = state.core.head();
        while let Some((number, offset, size)) = state.core.resize_number(progress.resize_number) {
            if offset > progress.position {
                until = until.min(offset);
                break;
            }
            progress.resize_number = number + 1;
            FromHolder::Resized { offset, size }.encode(&mut progress.wire);
        }
        let size =
            usize::try_from(until - progress.position).unwrap_or(usize::MAX).min(MAX_HOLDER_CHUNK_BYTES);
        if size > 0 {
            let mut chunk = Vec::with_capacity(size);
            state.core.ring.copy(progress.position, size, &mut chunk);
            FromHolder::Output { offset: progress.position, bytes: Bytes::from(chunk) }
                .encode(&mut progress.wire);
            progress.position += size as u64;
        }
    }
}

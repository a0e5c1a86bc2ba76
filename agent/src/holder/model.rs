//! The holder's state without its threads, for simulations of what speaks to it.

use bytes::Bytes;
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::holder::{FromHolder, InputState, ToHolder};

use super::core::{Core, Job, Taken};

/// A holder that takes messages, writes and acknowledges when it is told to.
pub(crate) struct Model {
    core: Core,
    /// What is being written to the child, and not yet known to be written.
    writing: Option<Job>,
    told: u64,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { core: Core::new(0, TermSize::default()), writing: None, told: 0 }
    }

    /// What a hello says: numbers applied, and what is queued.
    pub(crate) fn hello(&mut self) -> (Vec<(u64, u64)>, InputState) {
        self.told = self.core.ack_version();
        (self.core.writers(), self.core.input_state())
    }

    /// A message of the daemon; a refusal, if it is one.
    pub(crate) fn take(&mut self, message: ToHolder) -> Option<FromHolder> {
        let ToHolder::Input { writer, seq, flags, bytes } = message else { return None };
        match self.core.input(writer, seq, flags, bytes) {
            Taken::Queued | Taken::Known => None,
            Taken::Refused(reason) => Some(FromHolder::InputRefused { writer, seq, reason }),
        }
    }

    /// First step: the bytes of the next input, which the child has from now on.
    pub(crate) fn write(&mut self) -> Option<(u64, u64, Bytes)> {
        if self.writing.is_some() {
            return None;
        }
        self.writing = self.core.next_job();
        self.writing.as_ref().map(|job| (job.writer, job.seq, job.bytes.clone()))
    }

    /// Second step: it is known to be written.
    pub(crate) fn apply(&mut self) {
        if let Some(job) = self.writing.take() {
            self.core.applied(job.writer, job.seq, job.bytes.len());
        }
    }

    /// Third step: what the connection tells of it.
    pub(crate) fn acknowledgements(&mut self) -> Vec<FromHolder> {
        let acks = self.core.acks_since(self.told);
        let acks = acks.map(|(writer, seq)| FromHolder::InputAck { writer, seq }).collect();
        self.told = self.core.ack_version();
        acks
    }
}

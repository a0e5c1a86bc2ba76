//! The signals that an attached terminal gets.

use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(PartialEq, Eq)]
pub(in crate::cli) enum SignalEvent {
    Resize,
    Continue,
    End,
}

pub(in crate::cli) struct Signals {
    resize: Signal,
    go_on: Signal,
    ends: [Signal; 4],
}

impl Signals {
    pub(in crate::cli) fn new() -> std::io::Result<Self> {
        Ok(Self {
            resize: signal(SignalKind::window_change())?,
            go_on: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
            ends: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
            ],
        })
    }

    pub(in crate::cli) async fn next(&mut self) -> SignalEvent {
        let [a, b, c, d] = &mut self.ends;
        tokio::select! {
            _ = self.resize.recv() => SignalEvent::Resize,
            _ = self.go_on.recv() => SignalEvent::Continue,
            _ = a.recv() => SignalEvent::End,
            _ = b.recv() => SignalEvent::End,
            _ = c.recv() => SignalEvent::End,
            _ = d.recv() => SignalEvent::End,
        }
    }
}

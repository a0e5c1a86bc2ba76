//! A viewer as it should be: what it has, what it may get, what must never come, and the screen that results.

use claudenest_shared::session::{Exit, TermSize};
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::browser::ServerMessage;
use claudenest_shared::wire::frame::{FLAG_GAP, Frame, FrameKind};

use crate::agent::machine::Run;
use crate::agent::screen::{Model, ScreenModel};
use crate::hub::Item;

/// A size that no run ever has: whoever is not told another fails.
const NO_SIZE: TermSize = TermSize { cols: 5, rows: 5 };

/// See the module.
pub(crate) struct Viewer {
    pub(crate) channel: u16,
    pub(crate) position: Option<StreamPosition>,
    pub(crate) lag_limit: u64,
    pub(crate) is_stalled: bool,
    pub(crate) is_attached: bool,
    pub(crate) woken: bool,
    pub(crate) granted: u64,
    pub(crate) received: u64,
    pub(crate) gaps: u64,
    pub(crate) snapshots: u64,
    pub(crate) bytes: u64,
    pub(crate) exit: Option<StreamPosition>,
    /// What it was told about sizes.
    pub(crate) told: Vec<(StreamPosition, char, TermSize)>,
    /// Its screen, once it knows what to begin with.
    pub(crate) screen: Option<Model>,
}

impl Viewer {
    /// One that opens a page; `from` is the beginning of a run or nothing.
    pub(crate) fn new(channel: u16, from: Option<StreamPosition>, lag_limit: u64, is_stalled: bool) -> Self {
        Self {
            channel,
            position: from,
            lag_limit,
            is_stalled,
            is_attached: false,
            woken: true,
            granted: 0,
            received: 0,
            gaps: 0,
            snapshots: 0,
            bytes: 0,
            exit: None,
            told: Vec::new(),
            screen: from.map(|_| Model::new(NO_SIZE)),
        }
    }

    /// Its socket broke; it attaches again from where it is.
    pub(crate) fn attach_again(&mut self, channel: u16, credit: u64) {
        self.channel = channel;
        (self.is_attached, self.woken) = (false, true);
        (self.granted, self.received) = (credit, 0);
        // A relay tells every attachment of the exit.
        self.exit = None;
    }

    pub(crate) fn take(&mut self, item: Item, runs: &[Run]) {
        let bytes = match item {
            Item::Frame(bytes) => bytes,
            Item::Message(ServerMessage::Attached { channel, .. }) => {
                assert_eq!(channel, self.channel);
                self.is_attached = true;
                return;
            }
            Item::Message(ServerMessage::Link { channel, .. }) => return assert_eq!(channel, self.channel),
            Item::Message(other) => panic!("unexpected {other:?}"),
        };
        assert!(self.is_attached, "frames come after `attached`");
        let frame = Frame::decode(&bytes).expect("a whole frame");
        assert_eq!(frame.channel, self.channel);
        let at = StreamPosition { epoch: frame.epoch, offset: frame.offset };
        let run = &runs[frame.epoch as usize];
        match frame.kind {
            FrameKind::Output => {
                self.count(frame.payload.len(), true);
                let is_new_run =
                    self.position.is_some_and(|position| position.epoch < at.epoch) && at.offset == 0;
                assert!(is_new_run || self.position == Some(at), "a hole: {:?} to {at:?}", self.position);
                if is_new_run {
                    let size = self.screen.as_ref().map_or(NO_SIZE, Model::size);
                    self.screen = Some(Model::new(size));
                }
                let (start, len) = (at.offset as usize, frame.payload.len());
                assert!(frame.payload[..] == run.clean[start..start + len], "other bytes at {at:?}");
                self.bytes += len as u64;
                self.position = Some(StreamPosition { offset: at.offset + len as u64, ..at });
                let screen = self.screen.as_mut().expect("a screen before output");
                let size = run.sizes.iter().rev().find(|(offset, _)| *offset <= at.offset);
                assert_eq!(
                    Some(screen.size()),
                    size.map(|(_, size)| *size),
                    "in the size it was written for: {at:?}, sizes {:?}, told {:?}",
                    run.sizes,
                    self.told
                );
                screen.process(&frame.payload);
            }
            FrameKind::Snapshot => {
                self.count(frame.payload.len(), false);
                let is_gap = self.position.is_some_and(|position| position != at);
                assert_eq!(frame.flags & FLAG_GAP != 0, is_gap, "a gap is marked, and nothing else is");
                if let Some(position) = self.position {
                    assert!(
                        at.epoch > position.epoch || at.offset >= position.offset,
                        "never back: {position:?} to {at:?}"
                    );
                }
                self.gaps += u64::from(is_gap);
                self.snapshots += 1;
                self.position = Some(at);
                self.told.push((at, 's', frame.size().expect("a size")));
                let mut screen = Model::new(frame.size().expect("a size"));
                screen.process(&frame.payload[4..]);
                self.screen = Some(screen);
            }
            FrameKind::Resize => {
                let size = frame.size().expect("a size");
                self.told.push((at, 'r', size));
                if let Some(screen) = &mut self.screen {
                    screen.resize(size);
                }
            }
            FrameKind::Exit => {
                assert_eq!(frame.exit(), Some(Exit::Code { code: 7 }));
                assert_eq!(self.position, Some(at), "the exit comes after the last byte");
                assert_eq!(at.offset, run.clean.len() as u64);
                assert_ne!(self.exit.replace(at), Some(at), "an exit is told once");
            }
            kind => panic!("unexpected {kind:?}"),
        }
    }

    fn count(&mut self, len: usize, is_output: bool) {
        assert!(self.received < self.granted, "payload without credit");
        self.received += len as u64;
        assert!(!is_output || self.received <= self.granted, "more output than credit");
    }
}

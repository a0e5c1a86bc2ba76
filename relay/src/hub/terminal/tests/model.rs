//! A viewer as it should be: what it has, what it may get, and what must never come.

use std::collections::VecDeque;

use bytes::Bytes;
use claudenest_shared::id::WriterId;
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::browser::ServerMessage;
use claudenest_shared::wire::frame::{FLAG_GAP, FLAG_REFUSED, Frame, FrameKind};

use super::super::viewer::Item;
use super::{SESSION, reference};

#[derive(Default)]
pub(super) struct Model {
    pub(super) woken: bool,
    pub(super) channel: u16,
    pub(super) expected: Option<StreamPosition>,
    pub(super) lag_limit: u64,
    pub(super) is_stalled: bool,
    pub(super) is_attached: bool,
    pub(super) granted: u64,
    pub(super) received: u64,
    pub(super) gaps: u64,
    pub(super) snapshots: u64,
    pub(super) exit: Option<StreamPosition>,
    pub(super) writer: Option<WriterId>,
    pub(super) next_seq: u64,
    pub(super) acks: VecDeque<u64>,
}

impl Model {
    pub(super) fn take(&mut self, item: Item, pattern: &Bytes) {
        let bytes = match item {
            Item::Frame(bytes) => bytes,
            Item::Message(ServerMessage::Attached { channel, acked, .. }) => {
                assert_eq!(channel, self.channel);
                self.is_attached = true;
                if let (Some(acked), Some(_)) = (acked, self.writer) {
                    assert!(acked <= self.next_seq, "only what was typed is acknowledged");
                    self.next_seq = acked + 1;
                }
                return;
            }
            Item::Message(ServerMessage::Link { channel, .. }) => return assert_eq!(channel, self.channel),
            Item::Message(other) => panic!("unexpected {other:?}"),
        };
        assert!(self.is_attached, "frames come after `attached`");
        let frame = Frame::decode(&bytes).expect("a whole frame");
        assert_eq!(
            (frame.channel, frame.session),
            (self.channel, if frame.kind == FrameKind::InputAck { frame.session } else { SESSION })
        );
        let at = StreamPosition { epoch: frame.epoch, offset: frame.offset };
        match frame.kind {
            FrameKind::Output => {
                assert!(self.received < self.granted, "output without credit");
                self.received += frame.payload.len() as u64;
                assert!(self.received <= self.granted, "more output than credit");
                assert_eq!(self.expected, Some(at), "a hole in the output");
                assert_eq!(frame.payload, reference(pattern, at.epoch, at.offset, frame.payload.len()));
                self.expected = Some(StreamPosition { offset: at.offset + frame.payload.len() as u64, ..at });
            }
            FrameKind::Snapshot => {
                assert!(self.received < self.granted, "a snapshot without credit");
                self.received += frame.payload.len() as u64;
                assert_eq!(&frame.payload[4..], format!("{} {}", at.epoch, at.offset).as_bytes());
                let is_gap = self.expected.is_some_and(|expected| expected != at);
                assert_eq!(frame.flags & FLAG_GAP != 0, is_gap, "a gap is marked, and nothing else is");
                assert_ne!(self.expected, Some(at), "a snapshot that nobody needs");
                self.gaps += u64::from(is_gap);
                self.snapshots += 1;
                self.expected = Some(at);
            }
            FrameKind::Resize => assert!(frame.size().is_some()),
            FrameKind::Exit => {
                assert_eq!(self.expected, Some(at), "the exit comes after the last byte");
                assert_ne!(self.exit.replace(at), Some(at), "an exit is told once");
            }
            FrameKind::InputAck => {
                self.acks.push_back(at.offset);
                if frame.flags & FLAG_REFUSED == 0 && at.offset == self.next_seq {
                    self.next_seq += 1;
                }
            }
            kind => panic!("unexpected {kind:?}"),
        }
    }
}

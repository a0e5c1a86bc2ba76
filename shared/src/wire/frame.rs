//! Binary frames: a 32-byte header, little endian, and an opaque payload.
//!
//! ```text
//! offset  0  kind      u8
//!         1  flags     u8
//!         2  channel   u16   chosen by the side that opened the stream; routes the frame
//!         4  epoch     u32   restarts of the session's byte sequence
//!         8  session   [u8; 16]
//!        24  offset    u64   meaning depends on the kind
//!        32  payload
//! ```
//!
//! A relay routes by the header alone and never reads a payload of output, snapshot or input.

use bytes::{BufMut, Bytes, BytesMut};

use super::limits::{
    HEADER_BYTES, MAX_HISTORY_PART_BYTES, MAX_INPUT_BYTES, MAX_OUTPUT_BYTES, MAX_SNAPSHOT_BYTES,
};
use crate::id::SessionId;
use crate::session::{Exit, TermSize};

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// Output bytes; `offset` is that of the first payload byte.
    Output = 1,
    /// A screen; it reflects exactly the bytes below `offset`. Payload: columns u16, rows u16, then escape sequences for a reset terminal.
    Snapshot = 2,
    /// Input bytes; `offset` is the writer's sequence number, starting at 1.
    Input = 3,
    /// Answer to an input frame; `offset` is the sequence number it answers.
    InputAck = 4,
    /// Terminal size. Towards the machine: a wish. From the machine: in-stream, it holds from `offset` on. Payload: columns u16, rows u16.
    Resize = 5,
    /// The child has ended at `offset`. Payload: see [`encode_exit`].
    Exit = 6,
    /// Credit: the receiver may send until `offset` payload bytes in total have been sent on this channel. No payload.
    Credit = 7,
    /// A chunk of past output for a relay that keeps it; `offset` is that of its first byte, the channel is 0. Payload: see [`super::history`].
    History = 8,
}

impl FrameKind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Output,
            2 => Self::Snapshot,
            3 => Self::Input,
            4 => Self::InputAck,
            5 => Self::Resize,
            6 => Self::Exit,
            7 => Self::Credit,
            8 => Self::History,
            _ => return None,
        })
    }

    const fn max_payload(self) -> usize {
        match self {
            Self::Output => MAX_OUTPUT_BYTES,
            Self::Snapshot => MAX_SNAPSHOT_BYTES + 4,
            Self::Input => MAX_INPUT_BYTES,
            Self::InputAck => 64,
            Self::Resize => 4,
            Self::Exit => 2,
            Self::Credit => 0,
            Self::History => 4 * (MAX_HISTORY_PART_BYTES + 4),
        }
    }
}

/// Snapshot flag: bytes between the viewer's position and this snapshot were not sent (an explicit gap).
pub const FLAG_GAP: u8 = 1;
/// Input flag: more frames of the same paste follow; no other writer's bytes may come between.
pub const FLAG_MORE: u8 = 1;
/// Input-ack flag: the input was not written; the payload is an error code.
pub const FLAG_REFUSED: u8 = 1;

/// One binary frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// Flags of that kind; unknown bits are ignored.
    pub flags: u8,
    /// Stream, attachment or writer that it belongs to.
    pub channel: u16,
    /// Epoch of the session's byte sequence.
    pub epoch: u32,
    /// The session.
    pub session: SessionId,
    /// Offset, sequence number or total, by kind.
    pub offset: u64,
    /// The payload, not copied when decoded.
    pub payload: Bytes,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Shorter than a header.
    #[error("a frame of {0} bytes is shorter than its header")]
    Short(usize),
    /// Unknown kind.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Payload above the limit of its kind.
    #[error("payload of {size} bytes is above the limit of {kind:?} frames")]
    TooLarge {
        /// The kind.
        kind: FrameKind,
        /// Payload size in bytes.
        size: usize,
    },
    /// The payload has the wrong form for its kind.
    #[error("malformed payload of a {0:?} frame")]
    Payload(FrameKind),
}

impl Frame {
    /// Encodes header and payload into one buffer.
    ///
    /// # Panics
    /// If the payload is above the limit of its kind: a programming error of the sender.
    pub fn encode(&self) -> Bytes {
        assert!(self.payload.len() <= self.kind.max_payload(), "payload above the limit of {:?}", self.kind);
        let mut out = BytesMut::with_capacity(HEADER_BYTES + self.payload.len());
        out.put_u8(self.kind as u8);
        out.put_u8(self.flags);
        out.put_u16_le(self.channel);
        out.put_u32_le(self.epoch);
        out.put_slice(self.session.as_bytes());
        out.put_u64_le(self.offset);
        out.put_slice(&self.payload);
        out.freeze()
    }

    /// Decodes a message; the payload is a slice of it.
    ///
    /// # Errors
    /// [`FrameError`] for every malformed message; nothing panics.
    pub fn decode(message: &Bytes) -> Result<Self, FrameError> {
        if message.len() < HEADER_BYTES {
            return Err(FrameError::Short(message.len()));
        }
        let kind = FrameKind::from_byte(message[0]).ok_or(FrameError::Kind(message[0]))?;
        let payload = message.slice(HEADER_BYTES..);
        if payload.len() > kind.max_payload() {
            return Err(FrameError::TooLarge { kind, size: payload.len() });
        }
        let is_whole = match kind {
            FrameKind::Resize => payload.len() == 4,
            FrameKind::Exit => payload.len() == 2,
            FrameKind::Snapshot => payload.len() >= 4,
            _ => true,
        };
        if !is_whole {
            return Err(FrameError::Payload(kind));
        }
        let array = |from: usize| -> [u8; 8] {
            message[from..from + 8].try_into().expect("eight bytes of a checked header")
        };
        Ok(Self {
            kind,
            flags: message[1],
            channel: u16::from_le_bytes([message[2], message[3]]),
            epoch: u32::from_le_bytes([message[4], message[5], message[6], message[7]]),
            session: SessionId::from_bytes(
                message[8..24].try_into().expect("sixteen bytes of a checked header"),
            ),
            offset: u64::from_le_bytes(array(24)),
            payload,
        })
    }

    /// The size in a resize frame or at the start of a snapshot, clamped to the allowed range.
    pub fn size(&self) -> Option<TermSize> {
        if !matches!(self.kind, FrameKind::Resize | FrameKind::Snapshot) || self.payload.len() < 4 {
            return None;
        }
        let word = |at: usize| u16::from_le_bytes([self.payload[at], self.payload[at + 1]]);
        Some(TermSize::clamped(word(0), word(2)))
    }

    /// How the child ended, from an exit frame.
    pub fn exit(&self) -> Option<Exit> {
        if self.kind != FrameKind::Exit || self.payload.len() != 2 {
            return None;
        }
        Some(match self.payload[0] {
            0 => Exit::Code { code: self.payload[1] },
            1 => Exit::Signal { signal: self.payload[1] },
            _ => Exit::Lost {},
        })
    }
}

/// Writes the header of an encoded frame anew for another channel, copying the payload once.
///
/// For a relay that sends one stream to viewers which chose different channel numbers.
pub fn with_channel(encoded: &[u8], channel: u16) -> BytesMut {
    let mut out = BytesMut::from(encoded);
    if let Some(slot) = out.get_mut(2..4) {
        slot.copy_from_slice(&channel.to_le_bytes());
    }
    out
}

/// Payload of a resize frame: columns and rows, u16 each, little endian.
pub fn encode_size(size: TermSize) -> Bytes {
    let mut out = BytesMut::with_capacity(4);
    out.put_u16_le(size.cols);
    out.put_u16_le(size.rows);
    out.freeze()
}

/// Payload of an exit frame: 0 and the code, 1 and the signal, or 2 and 0 when the status was lost.
pub fn encode_exit(exit: Exit) -> Bytes {
    let bytes = match exit {
        Exit::Code { code } => [0, code],
        Exit::Signal { signal } => [1, signal],
        Exit::Lost {} => [2, 0],
    };
    Bytes::copy_from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: FrameKind, payload: &'static [u8]) -> Frame {
        Frame {
            kind,
            flags: 1,
            channel: 0x0203,
            epoch: 0x0405_0607,
            session: SessionId::from_bytes(std::array::from_fn(|index| 0xa0 + index as u8)),
            offset: 0x1112_1314_1516_1718,
            payload: Bytes::from_static(payload),
        }
    }

    #[test]
    fn golden_bytes_of_every_kind() {
        let header = |kind: u8| {
            let mut bytes = vec![kind, 1, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04];
            bytes.extend(0xa0..=0xaf);
            bytes.extend([0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
            bytes
        };
        let cases: [(u8, FrameKind, &'static [u8]); 8] = [
            (1, FrameKind::Output, b"\x1b[1mhi"),
            (2, FrameKind::Snapshot, b"\x78\x00\x28\x00\x1b[H"),
            (3, FrameKind::Input, b"y\r"),
            (4, FrameKind::InputAck, b"read_only"),
            (5, FrameKind::Resize, b"\x78\x00\x28\x00"),
            (6, FrameKind::Exit, b"\x00\x07"),
            (7, FrameKind::Credit, b""),
            (8, FrameKind::History, b"\0\0\0\0"),
        ];
        for (byte, kind, payload) in cases {
            let mut golden = header(byte);
            golden.extend(payload);
            assert_eq!(frame(kind, payload).encode(), golden, "{kind:?}");
            assert_eq!(Frame::decode(&Bytes::from(golden)).unwrap(), frame(kind, payload));
        }
    }

    #[test]
    fn every_malformed_class_is_refused() {
        let decode = |bytes: Vec<u8>| Frame::decode(&Bytes::from(bytes));
        assert_eq!(decode(vec![]), Err(FrameError::Short(0)));
        assert_eq!(decode(vec![1; 31]), Err(FrameError::Short(31)));
        for kind in [0, 9, 255] {
            let mut bytes = vec![0; 32];
            bytes[0] = kind;
            assert_eq!(decode(bytes), Err(FrameError::Kind(kind)));
        }
        for (kind, limit) in [(1u8, 64 * 1024), (3, 64 * 1024), (2, 1024 * 1024 + 4), (5, 4), (6, 2), (7, 0)]
        {
            let mut bytes = vec![0; 32 + limit + 1];
            bytes[0] = kind;
            assert!(matches!(decode(bytes), Err(FrameError::TooLarge { .. })), "kind {kind}");
        }
        for (kind, size) in [(5u8, 3), (6, 1), (2, 3), (6, 0)] {
            let mut bytes = vec![0; 32 + size];
            bytes[0] = kind;
            assert!(matches!(decode(bytes), Err(FrameError::Payload(_))), "kind {kind}");
        }
    }

    #[test]
    fn exits_and_sizes_round_trip() {
        for exit in [Exit::Code { code: 7 }, Exit::Signal { signal: 9 }, Exit::Lost {}] {
            let frame = Frame { payload: encode_exit(exit), ..frame(FrameKind::Exit, b"") };
            assert_eq!(frame.exit(), Some(exit));
        }
        let size = TermSize { cols: 80, rows: 24 };
        let frame = Frame { payload: encode_size(size), ..frame(FrameKind::Resize, b"") };
        assert_eq!(frame.size(), Some(size));
    }

    #[test]
    fn only_the_channel_changes_for_another_viewer() {
        let original = frame(FrameKind::Output, b"x");
        let moved = Frame::decode(&with_channel(&original.encode(), 9).freeze()).unwrap();
        assert_eq!(moved, Frame { channel: 9, ..original });
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_reencodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(frame.encode(), bytes);
            }
        }
    }
}

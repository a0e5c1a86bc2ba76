//! Cutting the byte stream of the control socket into messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use claudenest_shared::wire::frame::{Frame, FrameError};
use claudenest_shared::wire::limits::MAX_MESSAGE_BYTES;
use serde::Serialize;

/// Length and kind.
const HEADER: usize = 5;
/// Largest JSON message: a hook's input holds whole files that Claude writes.
const MAX_JSON_BYTES: usize = 16 * 1024 * 1024;

const JSON: u8 = 0;
const FRAME: u8 = 1;

/// One message.
#[derive(Clone, PartialEq, Debug)]
pub enum Packet {
    /// JSON text, not yet parsed.
    Json(Bytes),
    /// A binary frame.
    Frame(Frame),
}

/// Why bytes are not a message. The connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Above the limit of its kind.
    #[error("a message of {0} bytes is above the limit")]
    TooLarge(usize),
    /// Neither JSON nor a frame.
    #[error("unknown kind of message {0}")]
    Kind(u8),
    /// A malformed frame.
    #[error("malformed frame")]
    Frame(#[from] FrameError),
}

/// Takes the first whole message out of the buffer; `None` while it is incomplete.
///
/// # Errors
/// [`CodecError`].
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Packet>, CodecError> {
    let Some((header, _)) = buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [a, b, c, d, kind] = *header;
    let size = u32::from_le_bytes([a, b, c, d]) as usize;
    let limit = match kind {
        JSON => MAX_JSON_BYTES,
        FRAME => MAX_MESSAGE_BYTES,
        other => return Err(CodecError::Kind(other)),
    };
    if size > limit {
        return Err(CodecError::TooLarge(size));
    }
    if buffer.len() < HEADER + size {
        buffer.reserve(HEADER + size - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEADER);
    let body = buffer.split_to(size).freeze();
    Ok(Some(if kind == JSON { Packet::Json(body) } else { Packet::Frame(Frame::decode(&body)?) }))
}

/// Encodes a JSON message.
///
/// # Errors
/// [`CodecError::TooLarge`] when the other side would refuse it.
pub fn encode_json(message: &impl Serialize) -> Result<Bytes, CodecError> {
    let body = serde_json::to_vec(message).unwrap_or_default();
    if body.is_empty() || body.len() > MAX_JSON_BYTES {
        return Err(CodecError::TooLarge(body.len()));
    }
    Ok(packet(JSON, &body))
}

/// Encodes a frame.
pub fn encode_frame(frame: &Frame) -> Bytes {
    packet(FRAME, &frame.encode())
}

fn packet(kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + body.len());
    // Both limits are far below 4 GiB.
    out.put_u32_le(u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.put_u8(kind);
    out.put_slice(body);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudenest_shared::id::SessionId;
    use claudenest_shared::wire::frame::FrameKind;
    use proptest::prelude::*;

    fn frame() -> Frame {
        Frame {
            kind: FrameKind::Output,
            flags: 0,
            channel: 1,
            epoch: 2,
            session: SessionId::from_bytes([3; 16]),
            offset: 4,
            payload: Bytes::from_static(b"hi"),
        }
    }

    #[test]
    fn golden_bytes_and_refusals() {
        let json = encode_json(&serde_json::json!({"a": 1})).unwrap();
        assert_eq!(&json[..], b"\x07\0\0\0\0{\"a\":1}");
        assert_eq!(&encode_frame(&frame())[..6], b"\x22\0\0\0\x01\x01");
        let refused = |bytes: &[u8]| decode(&mut BytesMut::from(bytes)).is_err();
        assert!(refused(b"\xff\xff\xff\xff\0"));
        assert!(refused(b"\0\0\0\0\x02"));
        assert!(refused(b"\x01\0\0\0\x01x"));
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut(cut in 0usize..60, garbage in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut all = BytesMut::new();
            all.extend_from_slice(&encode_json(&"text").unwrap());
            all.extend_from_slice(&encode_frame(&frame()));
            let cut = cut.min(all.len());
            let mut buffer = BytesMut::from(&all[..cut]);
            let mut seen = Vec::new();
            while let Some(packet) = decode(&mut buffer).unwrap() { seen.push(packet); }
            buffer.extend_from_slice(&all[cut..]);
            while let Some(packet) = decode(&mut buffer).unwrap() { seen.push(packet); }
            prop_assert_eq!(seen, vec![Packet::Json(Bytes::from_static(b"\"text\"")), Packet::Frame(frame())]);
            // Whatever comes, nothing panics.
            let _ = decode(&mut BytesMut::from(&garbage[..]));
        }
    }
}

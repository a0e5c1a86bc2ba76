//! Payload of a history frame: a chunk of past output on its way to the relay.
//!
//! Four parts, each a length (u32, little endian) and as many bytes: the [`ChunkHead`] as JSON; the lines of text as a
//! JSON array of [`ChunkLine`](crate::history::ChunkLine), compressed; the screen at the first byte, compressed, or
//! empty; the output, compressed. Compression is zstd; the parts are opaque here.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::limits::MAX_HISTORY_PART_BYTES;
use crate::history::ChunkHead;

/// A chunk on its way.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ChunkUpload {
    /// What it is.
    pub head: ChunkHead,
    /// Compressed lines.
    pub lines: Bytes,
    /// Compressed screen, or empty.
    pub screen: Bytes,
    /// Compressed output.
    pub data: Bytes,
}

/// Why bytes are no chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChunkError {
    /// A part is cut, or something follows the last one.
    #[error("a history chunk has the wrong length")]
    Length,
    /// A part is above its limit.
    #[error("a part of a history chunk is too large")]
    TooLarge,
    /// The head is not understood.
    #[error("the head of a history chunk is not understood")]
    Head,
}

impl ChunkUpload {
    /// Writes it down.
    ///
    /// # Panics
    /// If a part is above its limit: a programming error of the sender.
    pub fn encode(&self) -> Bytes {
        let head = serde_json::to_vec(&self.head).expect("a head is plain data");
        let mut out = BytesMut::new();
        for part in [head.as_slice(), &self.lines, &self.screen, &self.data] {
            assert!(part.len() <= MAX_HISTORY_PART_BYTES, "a part above its limit");
            out.put_u32_le(u32::try_from(part.len()).expect("parts are below 4 GiB"));
            out.put_slice(part);
        }
        out.freeze()
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`ChunkError`] for every malformed payload; nothing panics.
    pub fn decode(mut payload: Bytes) -> Result<Self, ChunkError> {
        let mut part = || {
            let length = payload.try_get_u32_le().map_err(|_| ChunkError::Length)? as usize;
            if length > MAX_HISTORY_PART_BYTES {
                return Err(ChunkError::TooLarge);
            }
            if length > payload.len() {
                return Err(ChunkError::Length);
            }
            Ok(payload.split_to(length))
        };
        let (head, lines, screen, data) = (part()?, part()?, part()?, part()?);
        if !payload.is_empty() {
            return Err(ChunkError::Length);
        }
        let head = serde_json::from_slice(&head).map_err(|_| ChunkError::Head)?;
        Ok(Self { head, lines, screen, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::HistoryPoint;
    use crate::session::TermSize;
    use crate::time::UnixMs;
    use proptest::prelude::*;

    fn chunk() -> ChunkUpload {
        ChunkUpload {
            head: ChunkHead {
                from: 1,
                end: 5,
                at_ms: 7,
                end_ms: 8,
                time: UnixMs(9),
                size: TermSize { cols: 80, rows: 24 },
                marks: vec![HistoryPoint { offset: 3, at_ms: 8 }],
                resizes: vec![],
            },
            lines: Bytes::from_static(b"L"),
            screen: Bytes::new(),
            data: Bytes::from_static(b"DD"),
        }
    }

    #[test]
    fn golden_bytes_of_a_chunk() {
        let head = br#"{"from":1,"end":5,"at_ms":7,"end_ms":8,"time":9,"size":{"cols":80,"rows":24},"marks":[{"offset":3,"at_ms":8}],"resizes":[]}"#;
        let mut golden = vec![u8::try_from(head.len()).unwrap(), 0, 0, 0];
        golden.extend_from_slice(head);
        golden.extend_from_slice(b"\x01\0\0\0L\0\0\0\0\x02\0\0\0DD");
        assert_eq!(chunk().encode(), golden);
        assert_eq!(ChunkUpload::decode(golden.into()), Ok(chunk()));
    }

    #[test]
    fn every_malformed_class_is_refused() {
        let whole = chunk().encode();
        for cut in 0..whole.len() {
            assert_eq!(ChunkUpload::decode(whole.slice(..cut)), Err(ChunkError::Length), "cut at {cut}");
        }
        let longer: Vec<u8> = whole.iter().copied().chain([0]).collect();
        assert_eq!(ChunkUpload::decode(longer.into()), Err(ChunkError::Length));
        assert_eq!(ChunkUpload::decode(Bytes::from_static(&[0xff; 8])), Err(ChunkError::TooLarge));
        let mut bad = whole.to_vec();
        bad[4] = b'x';
        assert_eq!(ChunkUpload::decode(bad.into()), Err(ChunkError::Head));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ChunkUpload::decode(bytes.into());
        }
    }
}

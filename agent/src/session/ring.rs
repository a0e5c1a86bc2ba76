//! Sanitised output addressed by offset: bounded, shared without copying.
//!
//! Invariants: chunks are contiguous; `tail <= head`; at least `limit` bytes are kept once so many have come.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Chunks shorter than this are merged, so that a megabyte typed letter by letter does not become a million of them.
const MERGE_BYTES: usize = 4 * 1024;

/// The newest bytes of a stream.
#[derive(Debug)]
pub(super) struct Ring {
    chunks: VecDeque<(u64, Bytes)>,
    tail: u64,
    head: u64,
    limit: u64,
}

impl Ring {
    /// An empty ring whose next byte has the offset `start`.
    pub(super) fn new(start: u64, limit: u64) -> Self {
        Self { chunks: VecDeque::new(), tail: start, head: start, limit }
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let at = self.head;
        self.head += bytes.len() as u64;
        match self.chunks.back_mut() {
            Some((_, last)) if last.len() + bytes.len() <= MERGE_BYTES => {
                let mut merged = BytesMut::with_capacity(last.len() + bytes.len());
                merged.extend_from_slice(last);
                merged.extend_from_slice(&bytes);
                *last = merged.freeze();
            }
            _ => self.chunks.push_back((at, bytes)),
        }
        while let Some((_, front)) = self.chunks.front()
            && self.head - self.tail - front.len() as u64 >= self.limit
        {
            self.tail += front.len() as u64;
            self.chunks.pop_front();
        }
    }

    /// Drops everything and goes on at `offset`.
    pub(super) fn jump(&mut self, offset: u64) {
        self.chunks.clear();
        (self.tail, self.head) = (offset, offset);
    }

    /// At most `max` bytes from `from` on; empty at the head or below the tail. Copies only to join chunks.
    pub(super) fn slice(&self, from: u64, max: usize) -> Bytes {
        if from < self.tail || from >= self.head || max == 0 {
            return Bytes::new();
        }
        let index = self.chunks.partition_point(|(start, _)| *start <= from).saturating_sub(1);
        let Some((start, chunk)) = self.chunks.get(index) else { return Bytes::new() };
        let skip = usize::try_from(from - start).unwrap_or(usize::MAX);
        let first = chunk.slice(skip.min(chunk.len())..(skip + max).min(chunk.len()));
        if first.len() == max || index + 1 == self.chunks.len() {
            return first;
        }
        let available = usize::try_from(self.head - from).unwrap_or(usize::MAX);
        let mut joined = BytesMut::with_capacity(max.min(available));
        joined.extend_from_slice(&first);
        for (_, chunk) in self.chunks.iter().skip(index + 1) {
            let room = max - joined.len();
            if room == 0 {
                break;
            }
            joined.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        joined.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_vector(
            sizes in proptest::collection::vec(1usize..9000, 1..40),
            limit in 0u64..50_000,
            start in 0u64..1000,
            probes in proptest::collection::vec((0.0f64..1.0, 1usize..20_000), 1..10),
        ) {
            let mut ring = Ring::new(start, limit);
            let mut all = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                let piece: Vec<u8> = (0..*size).map(|at| (at * 13 + index * 7) as u8).collect();
                all.extend_from_slice(&piece);
                ring.push(piece.into());
            }
            prop_assert_eq!(ring.head(), start + all.len() as u64);
            let held = ring.head() - ring.tail();
            prop_assert!(held >= limit.min(all.len() as u64) && held <= limit + 9000);
            for (at, max) in probes {
                let from = ring.tail() + (at * held as f64) as u64;
                let expected = &all[(from - start) as usize..];
                let expected = &expected[..expected.len().min(max)];
                prop_assert_eq!(&ring.slice(from, max)[..], expected);
            }
            prop_assert!(ring.slice(ring.head(), 5).is_empty());
        }
    }
}

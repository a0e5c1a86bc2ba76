//! What was typed and is not acknowledged yet: numbering, paste marks, sending again after a reconnect.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use claudenest_shared::wire::frame::FLAG_MORE;
use claudenest_shared::wire::limits::{INPUT_WINDOW_BYTES, MAX_INPUT_BYTES};

/// Input older than this is not sent again after a reconnect: the screen it was meant for is gone.
const RESEND_WITHIN: Duration = Duration::from_secs(10);
const PASTE_START: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";

/// One numbered piece of input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) seq: u64,
    pub(super) flags: u8,
    pub(super) bytes: Bytes,
}

/// Input of one writer, kept until it is acknowledged.
#[derive(Debug, Default)]
pub(super) struct InputQueue {
    last: u64,
    unacked: VecDeque<(Piece, Instant)>,
    unacked_bytes: usize,
    paste: PasteMarks,
}

impl InputQueue {
    /// True if no more may be read from the terminal now.
    pub(super) fn is_full(&self) -> bool {
        self.unacked_bytes + MAX_INPUT_BYTES > INPUT_WINDOW_BYTES
    }

    /// Numbers typed bytes.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant) -> Vec<Piece> {
        let pieces: Vec<Piece> = bytes
            .chunks(MAX_INPUT_BYTES)
            .map(|chunk| {
                self.last += 1;
                self.paste.feed(chunk);
                let flags = if self.paste.is_inside { FLAG_MORE } else { 0 };
                Piece { seq: self.last, flags, bytes: Bytes::copy_from_slice(chunk) }
            })
            .collect();
        self.unacked_bytes += bytes.len();
        self.unacked.extend(pieces.iter().map(|piece| (piece.clone(), now)));
        pieces
    }

    /// Everything up to `seq` was written to the terminal, or refused for good.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        while let Some((piece, _)) = self.unacked.front()
            && piece.seq <= seq
        {
            self.unacked_bytes -= piece.bytes.len();
            self.unacked.pop_front();
        }
    }

    /// After a reconnect: the machine has everything up to `acked`. Returns what to send again, under the
    /// same numbers, and how many bytes are too old for that and stay undelivered.
    pub(super) fn reconnect(&mut self, acked: u64, now: Instant) -> (Vec<Piece>, usize) {
        self.acknowledge(acked);
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > RESEND_WITHIN;
        if !self.unacked.front().is_some_and(|(_, at)| is_old(at)) {
            return (self.unacked.iter().map(|(piece, _)| piece.clone()).collect(), 0);
        }
        // Numbers must have no gap: what is young is numbered anew behind what the machine has.
        let (old, young): (Vec<_>, Vec<_>) = self.unacked.drain(..).partition(|(_, at)| is_old(at));
        let lost = old.iter().map(|(piece, _)| piece.bytes.len()).sum();
        self.unacked_bytes = 0;
        self.last = acked;
        self.paste = PasteMarks::default();
        let pieces = young.into_iter().flat_map(|(piece, at)| self.push(&piece.bytes, at)).collect();
        (pieces, lost)
    }
}

/// Whether the typed bytes end inside a bracketed paste; marks may be cut anywhere.
#[derive(Debug, Default)]
struct PasteMarks {
    is_inside: bool,
    tail: Vec<u8>,
}

impl PasteMarks {
    fn feed(&mut self, bytes: &[u8]) {
        let mut text = std::mem::take(&mut self.tail);
        text.extend_from_slice(bytes);
        for window in text.windows(PASTE_START.len()) {
            if window == PASTE_START {
                self.is_inside = true;
            } else if window == PASTE_END {
                self.is_inside = false;
            }
        }
        // A whole mark never stays in the tail, so it is not counted twice.
        self.tail = text[text.len().saturating_sub(PASTE_START.len() - 1)..].to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_one_paste_carry_the_more_flag() {
        let mut queue = InputQueue::default();
        let now = Instant::now();
        let mut paste = PASTE_START.to_vec();
        paste.extend(vec![b'x'; MAX_INPUT_BYTES]);
        let flags =
            |pieces: Vec<Piece>| pieces.iter().map(|piece| (piece.seq, piece.flags)).collect::<Vec<_>>();
        assert_eq!(flags(queue.push(b"a", now)), [(1, 0)]);
        assert_eq!(flags(queue.push(&paste, now)), [(2, FLAG_MORE), (3, FLAG_MORE)]);
        assert_eq!(flags(queue.push(b"y\x1b[20", now)), [(4, FLAG_MORE)]);
        assert_eq!(flags(queue.push(b"1~", now)), [(5, 0)]);
    }

    #[test]
    fn acknowledged_input_makes_room_and_is_not_sent_again() {
        let mut queue = InputQueue::default();
        let now = Instant::now();
        for _ in 0..3 {
            queue.push(&vec![0; MAX_INPUT_BYTES], now);
        }
        assert!(!queue.is_full());
        queue.push(b"x", now);
        assert!(queue.is_full());
        queue.acknowledge(2);
        assert!(!queue.is_full());
        let (again, lost) = queue.reconnect(3, now);
        assert_eq!((again.len(), again[0].seq, lost), (1, 4, 0));
    }

    #[test]
    fn old_input_is_reported_and_the_numbers_keep_no_gap() {
        let mut queue = InputQueue::default();
        let start = Instant::now();
        queue.push(b"old", start);
        queue.push(b"older", start);
        let later = start + Duration::from_secs(11);
        queue.push(b"young", later);
        let (again, lost) = queue.reconnect(0, later);
        assert_eq!(lost, 8);
        assert_eq!((again.len(), again[0].seq, &again[0].bytes[..]), (1, 1, &b"young"[..]));
        assert_eq!(queue.push(b"next", later)[0].seq, 2);
    }
}

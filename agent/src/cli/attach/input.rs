//! What was typed and is not acknowledged yet: numbering, paste marks, sending again after a reconnect.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use claudenest_shared::wire::frame::FLAG_MORE;
use claudenest_shared::wire::limits::{INPUT_WINDOW_BYTES, MAX_INPUT_BYTES};

/// Input older than this is not sent again after a reconnect: the screen it was meant for is gone.
const RESEND_WITHIN: Duration = Duration::from_secs(10);
/// What may wait here for a program that does not read: a large paste, so that the detach keys behind it are seen.
const MAX_WAITING_BYTES: usize = 16 << 20;
/// Pieces on their way at a time: the machine takes 4096 of single keys.
const MAX_SENT_PIECES: usize = 1024;
const PASTE_START: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";

/// One numbered piece of input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) seq: u64,
    pub(super) flags: u8,
    pub(super) bytes: Bytes,
}

/// Input of one writer, kept until it is acknowledged. What is sent goes in order, a window at a time; after a
/// refusal it goes again from the first piece that is not acknowledged, under the same numbers.
#[derive(Debug, Default)]
pub(super) struct InputQueue {
    last: u64,
    unacked: VecDeque<(Piece, Instant)>,
    unacked_bytes: usize,
    /// How many of `unacked`, from the front, were sent.
    sent: usize,
    sent_bytes: usize,
    paste: PasteMarks,
}

impl InputQueue {
    /// True if no more may be read from the terminal now.
    pub(super) fn is_full(&self) -> bool {
        self.unacked_bytes >= MAX_WAITING_BYTES
    }

    /// Numbers typed bytes.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant) {
        for chunk in bytes.chunks(MAX_INPUT_BYTES) {
            self.last += 1;
            self.paste.feed(chunk);
            let flags = if self.paste.is_inside { FLAG_MORE } else { 0 };
            let piece = Piece { seq: self.last, flags, bytes: Bytes::copy_from_slice(chunk) };
            self.unacked.push_back((piece, now));
        }
        self.unacked_bytes += bytes.len();
    }

    /// The next piece to send, if the window has room for it.
    pub(super) fn next_to_send(&mut self) -> Option<Piece> {
        let (piece, _) = self.unacked.get(self.sent)?;
        if self.sent >= MAX_SENT_PIECES || self.sent_bytes + piece.bytes.len() > INPUT_WINDOW_BYTES {
            return None;
        }
        self.sent += 1;
        self.sent_bytes += piece.bytes.len();
        Some(piece.clone())
    }

    /// Everything that is not acknowledged goes again.
    pub(super) fn rewind(&mut self) {
        (self.sent, self.sent_bytes) = (0, 0);
    }

    /// Everything up to `seq` was written to the terminal.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        while let Some((piece, _)) = self.unacked.front()
            && piece.seq <= seq
        {
            let size = piece.bytes.len();
            self.unacked_bytes -= size;
            if self.sent > 0 {
                self.sent -= 1;
                self.sent_bytes -= size;
            }
            self.unacked.pop_front();
        }
    }

    /// True if `seq` is the first piece that is not acknowledged.
    pub(super) fn is_first(&self, seq: u64) -> bool {
        self.unacked.front().is_some_and(|(piece, _)| piece.seq == seq)
    }

    /// Nothing of it will be taken any more: how many bytes are lost.
    pub(super) fn give_up(&mut self) -> usize {
        self.rewind();
        self.unacked.clear();
        std::mem::take(&mut self.unacked_bytes)
    }

    /// Bytes that were never sent, or refused.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unacked_bytes - self.sent_bytes
    }

    /// After a reconnect: the machine has everything up to `acked`; the rest is sent again under the same
    /// numbers. Returns how many bytes are too old for that and stay undelivered.
    pub(super) fn reconnect(&mut self, acked: u64, now: Instant) -> usize {
        self.acknowledge(acked);
        self.rewind();
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > RESEND_WITHIN;
        if !self.unacked.front().is_some_and(|(_, at)| is_old(at)) {
            return 0;
        }
        // Numbers must have no gap: what is young is numbered anew behind what the machine has.
        let (old, young): (Vec<_>, Vec<_>) = self.unacked.drain(..).partition(|(_, at)| is_old(at));
        let lost = old.iter().map(|(piece, _)| piece.bytes.len()).sum();
        self.unacked_bytes = 0;
        self.last = acked;
        self.paste = PasteMarks::default();
        for (piece, at) in young {
            self.push(&piece.bytes, at);
        }
        lost
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

    fn send(queue: &mut InputQueue) -> Vec<Piece> {
        std::iter::from_fn(|| queue.next_to_send()).collect()
    }

    fn seqs(pieces: &[Piece]) -> Vec<u64> {
        pieces.iter().map(|piece| piece.seq).collect()
    }

    #[test]
    fn frames_of_one_paste_carry_the_more_flag() {
        let mut queue = InputQueue::default();
        let now = Instant::now();
        let mut paste = PASTE_START.to_vec();
        paste.extend(vec![b'x'; MAX_INPUT_BYTES]);
        for bytes in [&b"a"[..], &paste, b"y\x1b[20", b"1~"] {
            queue.push(bytes, now);
        }
        let sent: Vec<_> = send(&mut queue).iter().map(|piece| (piece.seq, piece.flags)).collect();
        assert_eq!(sent, [(1, 0), (2, FLAG_MORE), (3, FLAG_MORE), (4, FLAG_MORE), (5, 0)]);
    }

    #[test]
    fn a_window_is_sent_at_a_time_and_acknowledgements_open_it() {
        let mut queue = InputQueue::default();
        let now = Instant::now();
        queue.push(&vec![0; 6 * MAX_INPUT_BYTES], now);
        assert_eq!(seqs(&send(&mut queue)), [1, 2, 3, 4]);
        assert_eq!(queue.unsent_bytes(), 2 * MAX_INPUT_BYTES);
        queue.acknowledge(1);
        assert_eq!(seqs(&send(&mut queue)), [5]);
        assert_eq!(queue.reconnect(3, now), 0);
        assert_eq!(seqs(&send(&mut queue)), [4, 5, 6]);
        assert!(!queue.is_full());
        queue.push(&vec![0; MAX_WAITING_BYTES], now);
        assert!(queue.is_full());
    }

    #[test]
    fn after_a_refusal_everything_goes_again_in_order() {
        let mut queue = InputQueue::default();
        let now = Instant::now();
        for key in [b"a", b"b", b"c"] {
            queue.push(key, now);
        }
        assert_eq!(seqs(&send(&mut queue)), [1, 2, 3]);
        queue.acknowledge(1);
        assert!(queue.is_first(2) && !queue.is_first(3));
        queue.rewind();
        assert_eq!(seqs(&send(&mut queue)), [2, 3]);
        assert_eq!(queue.give_up(), 2);
        assert_eq!((queue.unsent_bytes(), send(&mut queue).len()), (0, 0));
    }

    #[test]
    fn old_input_is_reported_and_the_numbers_keep_no_gap() {
        let mut queue = InputQueue::default();
        let start = Instant::now();
        queue.push(b"old", start);
        queue.push(b"older", start);
        let later = start + Duration::from_secs(11);
        queue.push(b"young", later);
        assert_eq!(queue.reconnect(0, later), 8);
        queue.push(b"next", later);
        let again = send(&mut queue);
        assert_eq!(seqs(&again), [1, 2]);
        assert_eq!((&again[0].bytes[..], &again[1].bytes[..]), (&b"young"[..], &b"next"[..]));
    }
}

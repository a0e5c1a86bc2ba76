//! What was typed and is not acknowledged yet: numbering, paste marks, sending again after a reconnect.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use claudenest_shared::wire::frame::FLAG_MORE;
use claudenest_shared::wire::limits::{INPUT_WINDOW_BYTES, MAX_INPUT_BYTES};

use crate::session::paste::PasteMarks;

/// Input older than this is not sent again after a reconnect: the screen it was meant for is gone.
const RESEND_WITHIN: Duration = Duration::from_secs(10);
/// What may wait here for a program that does not read: a large paste, so that the detach keys behind it are seen.
const MAX_WAITING_BYTES: usize = 16 << 20;
/// Pieces on their way at a time: the machine takes 4096 of single keys.
const MAX_SENT_PIECES: usize = 1024;

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
    highest_sent: u64,
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
            let flags = if self.paste.is_inside() { FLAG_MORE } else { 0 };
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
        self.highest_sent = self.highest_sent.max(piece.seq);
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
        // Numbers are never used twice: what was sent may still be written, and new bytes would be taken for it. So
        // what was sent goes with what is old, and so does the rest of a paste; the others get numbers of their own,
        // behind a gap that the machine allows after a writer was opened.
        let (mut lost, mut kept, mut is_midway) = (0, Vec::new(), false);
        for (piece, at) in self.unacked.drain(..) {
            if is_midway || piece.seq <= self.highest_sent || is_old(&at) {
                lost += piece.bytes.len();
                is_midway = piece.flags & FLAG_MORE != 0;
            } else {
                kept.push((piece, at));
            }
        }
        self.unacked_bytes = 0;
        self.last += 1;
        self.paste = PasteMarks::default();
        for (piece, at) in kept {
            self.push(&piece.bytes, at);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::paste::PASTE_START;

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
    fn old_input_is_reported_and_no_number_is_used_twice() {
        let mut queue = InputQueue::default();
        let start = Instant::now();
        queue.push(b"old", start);
        queue.push(b"older", start);
        let later = start + Duration::from_secs(11);
        queue.push(b"young", later);
        assert_eq!(queue.reconnect(0, later), 8);
        queue.push(b"next", later);
        let again = send(&mut queue);
        assert!(again[0].seq > 3 && again[1].seq == again[0].seq + 1, "{again:?}");
        assert_eq!((&again[0].bytes[..], &again[1].bytes[..]), (&b"young"[..], &b"next"[..]));
        // What was sent, and the rest of a paste, go with what is old: nobody knows what of it is written.
        let (mut queue, mut paste) = (InputQueue::default(), PASTE_START.to_vec());
        paste.extend(b"begins");
        queue.push(&paste, start);
        queue.push(b"sent", later);
        assert_eq!(send(&mut queue).len(), 2);
        queue.push(b"ends\x1b[201~", later);
        queue.push(b"typed", later);
        assert_eq!(queue.reconnect(0, later), paste.len() + 4 + 10);
        let again = send(&mut queue);
        assert_eq!((again.len(), &again[0].bytes[..], again[0].flags), (1, &b"typed"[..], 0));
    }
}

//! What is typed: over a daemon that is killed a hundred times, and beside a large paste.

use std::collections::VecDeque;

use claudenest_shared::code::ErrorCode;
use claudenest_shared::wire::frame::FLAG_MORE;
use claudenest_shared::wire::limits::MAX_INPUT_BYTES;

use crate::holder::shell;
use crate::run::*;

const KILLS: u64 = 100;

/// What is typed under a number.
fn key(seq: u64) -> String {
    format!("<{seq}>")
}

/// How many keys come before the kill with this number.
fn keys(round: u64) -> u64 {
    round % 5 + 1
}

/// The viewer comes back each time and sends again what was not acknowledged; the kill hits while none, some or all of
/// it is written or acknowledged, and some keys come when the daemon is already gone.
#[tokio::test]
async fn a_hundred_killed_daemons_type_every_key_once() {
    let last: u64 = (0..KILLS).map(keys).sum();
    let expected: String = (1..=last).map(key).collect();
    let script = format!("stty raw -echo; printf ready; head -c {} > typed; echo done", expected.len());
    let run = shell(&script);
    run.start().await;
    let (mut next, mut unacked) = (1, VecDeque::new());
    let mut resent = 0;
    for round in 0..=KILLS {
        let daemon = Daemon::connect(&run).await;
        let mut viewer = Viewer::from_start(&daemon).await;
        if round == 0 {
            viewer.until(b"ready").await;
        }
        let acked = viewer.writer(9, false).await;
        unacked.retain(|seq| *seq > acked);
        resent += unacked.len();
        if round < KILLS {
            for _ in 0..keys(round) {
                unacked.push_back(next);
                next += 1;
            }
        }
        // So many reach the daemon while it lives.
        let sent = if round < KILLS { (round * 5) as usize % (unacked.len() + 1) } else { unacked.len() };
        for seq in unacked.iter().take(sent) {
            viewer.input_as(*seq, 0, key(*seq).as_bytes());
        }
        // As many answers as this round is to see; the others are lost with the daemon.
        let seen = if round < KILLS { (round * 7) as usize % (sent + 1) } else { sent };
        if let Some(seq) = seen.checked_sub(1).and_then(|at| unacked.get(at)) {
            assert_eq!(viewer.until_ack(*seq).await, None);
        }
        if round < KILLS {
            daemon.kill().await;
            for seq in unacked.iter().skip(sent) {
                viewer.input_as(*seq, 0, key(*seq).as_bytes());
            }
        } else {
            viewer.until(b"done").await;
            daemon.finish(&run).await;
        }
    }
    println!("{last} keys, {resent} of them sent again");
    assert_eq!(std::fs::read_to_string(run.dir.path().join("typed")).unwrap(), expected);
    assert!(resent >= 10, "the kills came too late: {resent}");
}

/// A megabyte between marks, into a program that reads nothing for a while, and somebody else who types all the time: the
/// paste stays whole, the keys stand before and behind it, and what waits is refused rather than kept without end.
#[tokio::test]
async fn a_megabyte_between_marks_stays_whole_beside_somebody_who_types() {
    const KEYS: u64 = 200;
    let body: Vec<u8> =
        (0..1_000_000u32).map(|at| b' ' + (at.wrapping_mul(2_654_435_761) >> 26) as u8).collect();
    let paste = [&b"\x1b[200~"[..], &body, b"\x1b[201~"].concat();
    let typed: String = (1..=KEYS).map(key).collect();
    let script = format!(
        "stty raw -echo; printf ready; until [ -e go ]; do sleep 0.01; done; head -c {} > typed; echo done",
        paste.len() + typed.len()
    );
    let run = shell(&script);
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let (mut paster, mut typist) = (Viewer::from_start(&daemon).await, Viewer::new(&daemon, false));
    paster.writer(1, false).await;
    typist.writer(2, false).await;
    paster.until(b"ready").await;
    let pieces: Vec<&[u8]> = paste.chunks(MAX_INPUT_BYTES).collect();
    let mut next = 1;
    for (index, piece) in pieces.iter().enumerate() {
        let seq = index as u64 + 1;
        paster.input_as(seq, if index + 1 < pieces.len() { FLAG_MORE } else { 0 }, piece);
        for _ in 0..KEYS / pieces.len() as u64 {
            typist.input_as(next, 0, key(next).as_bytes());
            next += 1;
        }
        if index == 3 {
            // Four pieces are under way and nothing is read: the window is full until the program goes on.
            std::fs::write(run.dir.path().join("go"), "").unwrap();
        }
        if seq > 3 {
            assert_eq!(paster.until_ack(seq - 3).await, None);
        }
    }
    for seq in next..=KEYS {
        typist.input_as(seq, 0, key(seq).as_bytes());
    }
    paster.until(b"done").await;
    let all = std::fs::read(run.dir.path().join("typed")).unwrap();
    let at = all.windows(paste.len()).position(|window| window == paste).expect("the paste in one piece");
    let keys = [&all[..at], &all[at + paste.len()..]].concat();
    assert_eq!(String::from_utf8(keys).unwrap(), typed);
    daemon.finish(&run).await;
}

/// The daemon is killed when a key has made the child end, and its acknowledgement was lost with it: the next daemon knows
/// that the key was delivered, although the child is gone.
#[tokio::test]
async fn a_key_that_ended_the_child_counts_as_delivered_for_the_next_daemon() {
    let run = shell("stty raw -echo; printf ready; head -c 1 > typed; exit 7");
    run.start().await;
    let daemon = Daemon::connect(&run).await;
    let mut viewer = Viewer::from_start(&daemon).await;
    viewer.until(b"ready").await;
    assert_eq!(viewer.writer(9, false).await, 0);
    viewer.input_as(1, 0, b"x");
    daemon.kill().await;
    let mut daemon = Daemon::connect(&run).await;
    daemon.until_exit().await;
    let mut viewer = Viewer::from_start(&daemon).await;
    assert_eq!(viewer.writer(9, false).await, 1);
    viewer.input_as(1, 0, b"x");
    assert_eq!(viewer.until_ack(1).await, None);
    viewer.input_as(2, 0, b"y");
    assert_eq!(viewer.until_ack(2).await, Some(ErrorCode::SessionEnded));
    daemon.finish(&run).await;
}

//! What is typed, over a daemon that is killed a hundred times.

use std::collections::VecDeque;

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
/// it is on its way, written, or acknowledged.
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
        for seq in &unacked {
            viewer.input_as(*seq, 0, key(*seq).as_bytes());
        }
        // As many answers as this round is to see; the others are lost with the daemon.
        let seen = if round < KILLS { (round * 7) as usize % (unacked.len() + 1) } else { unacked.len() };
        if let Some(seq) = seen.checked_sub(1).and_then(|at| unacked.get(at)) {
            assert_eq!(viewer.until_ack(*seq).await, None);
        }
        if round < KILLS {
            daemon.kill();
        } else {
            viewer.until(b"done").await;
            daemon.finish(&run).await;
        }
    }
    println!("{last} keys, {resent} of them sent again");
    assert_eq!(std::fs::read_to_string(run.dir.path().join("typed")).unwrap(), expected);
    assert!(resent >= 10, "the kills came too late: {resent}");
}

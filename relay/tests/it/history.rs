//! Stored history: each chunk once and in order, days that end, and what is above a user's limit.

use claudenest_relay::db::history::{self, NewChunk, SearchIn};
use claudenest_relay::db::session;
use claudenest_relay::job;
use claudenest_shared::history::{ChunkHead, ChunkLine, HistoryOutcome, HistoryPosition};
use claudenest_shared::id::{MachineId, SessionId, UserId};
use claudenest_shared::session::TermSize;
use claudenest_shared::time::UnixMs;
use uuid::Uuid;

use crate::foreign::session_info;
use crate::harness::{Browser, Relay};
use crate::pairing::Agent;

const DAY_MS: i64 = 86_400_000;
const LIMIT: u64 = 1 << 30;

struct Bed<'a> {
    relay: &'a Relay,
    machine: MachineId,
    session: SessionId,
    user: UserId,
}

async fn bed<'a>(relay: &'a Relay, owner: &Browser<'_>) -> Bed<'a> {
    let machine =
        Agent::new(relay).pair_with(owner).await.body["machine_id"].as_str().unwrap().parse().unwrap();
    let session = SessionId(Uuid::now_v7());
    session::upsert(&relay.db, machine, &session_info(session), relay.now()).await.unwrap();
    let user = owner.get("/api/me").await.body["user"]["id"].as_str().unwrap().parse().unwrap();
    Bed { relay, machine, session, user }
}

impl Bed<'_> {
    fn chunk(&self, from: u64, start: u64, end: u64, text: &str) -> NewChunk {
        let head = ChunkHead {
            from,
            end,
            at_ms: start,
            end_ms: end,
            time: UnixMs(1_700_000_000_000),
            size: TermSize::default(),
            marks: vec![],
            resizes: vec![],
        };
        let lines = vec![ChunkLine { offset: end, at_ms: end, text: text.to_owned() }];
        let data = vec![b'x'; 1000];
        let screen = if start == 0 { b"screen".to_vec() } else { vec![] };
        NewChunk { session: self.session, epoch: 1, start, head, lines, screen, data }
    }

    async fn store(&self, chunk: &NewChunk) -> (u64, HistoryOutcome) {
        history::store(&self.relay.db, self.machine, chunk, LIMIT, self.relay.now()).await.unwrap()
    }

    async fn runs(&self) -> Vec<history::StoredRun> {
        history::list(&self.relay.db, self.user, self.machine, self.session).await.unwrap()
    }

    async fn found(&self, text: &str) -> usize {
        let place = SearchIn::default();
        history::search(&self.relay.db, self.user, text, place, 100).await.unwrap().0.len()
    }
}

#[tokio::test]
async fn a_chunk_is_stored_once_and_only_where_the_copy_ends() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let bed = bed(&relay, &alice).await;
    use HistoryOutcome::{Elsewhere, Stored, Unknown};
    let first = bed.chunk(0, 0, 10, "First line");
    assert_eq!(bed.store(&first).await, (10, Stored));
    for _ in 0..3 {
        assert_eq!(bed.store(&first).await, (10, Elsewhere), "sent again");
    }
    assert_eq!(bed.store(&bed.chunk(20, 20, 30, "")).await, (10, Elsewhere), "one is missing between");
    let second = bed.chunk(10, 15, 30, "second");
    let same = futures_util::future::join_all((0..8).map(|_| bed.store(&second))).await;
    assert_eq!(same.iter().filter(|(_, outcome)| *outcome == Stored).count(), 1, "{same:?}");
    let run = &bed.runs().await[0];
    assert_eq!((run.end, run.bytes, run.gaps.len()), (30, 25, 1));
    assert_eq!((run.gaps[0].from, run.gaps[0].to), (10, 15));
    let stranger = NewChunk { session: SessionId(Uuid::now_v7()), ..first.clone() };
    assert_eq!(bed.store(&stranger).await, (0, Unknown));
    let ask = [1, 2].map(|epoch| HistoryPosition { session: bed.session, epoch, end: 0 });
    let have = history::have(&relay.db, bed.machine, &ask).await.unwrap();
    assert_eq!((have[0].end, have[1].end), (30, 0));
    assert_eq!((bed.found("first").await, bed.found("First").await, bed.found("FIRST").await), (1, 1, 0));
    // A percent sign is a percent sign.
    assert_eq!(bed.found("%").await, 0);
    let place = (bed.machine, bed.session, 1);
    let read =
        async |offset, screen| history::read(&relay.db, bed.user, place, offset, screen).await.unwrap();
    assert_eq!(read(12, false).await.unwrap().start, 15, "the first behind what is missing");
    let with_screen = read(20, true).await.unwrap();
    assert_eq!((with_screen.start, with_screen.screen.is_some(), with_screen.has_next), (0, true, true));
    assert!(read(30, false).await.is_none());
    let bob = relay.log_in("bob@example.com").await;
    let other: UserId = bob.get("/api/me").await.body["user"]["id"].as_str().unwrap().parse().unwrap();
    assert!(history::read(&relay.db, other, place, 0, false).await.unwrap().is_none());
    assert!(history::list(&relay.db, other, bed.machine, bed.session).await.unwrap().is_empty());
    assert!(history::search(&relay.db, other, "first", SearchIn::default(), 9).await.unwrap().0.is_empty());
    // With its session it goes.
    session::remove(&relay.db, bed.machine, bed.session).await.unwrap();
    assert_eq!((bed.runs().await.len(), bed.found("first").await), (0, 0));
    assert_eq!(bed.store(&first).await, (0, Unknown));
}

#[tokio::test]
async fn days_end_and_what_is_pruned_never_comes_again() {
    let relay = Relay::with(|config| config.history_retention_days = 3).await;
    let alice = relay.log_in("alice@example.com").await;
    let bed = bed(&relay, &alice).await;
    for day in 0..6u64 {
        let text = format!("day-{day}");
        assert_eq!(
            bed.store(&bed.chunk(day * 10, day * 10, day * 10 + 10, &text)).await.1,
            HistoryOutcome::Stored
        );
        job::clean_up(&relay.app).await.unwrap();
        relay.pass(DAY_MS);
    }
    let run = &bed.runs().await[0];
    // Days 2 to 5 are at most three days old on day 5.
    assert_eq!((run.end, run.bytes), (60, 40));
    assert_eq!((run.gaps[0].from, run.gaps[0].to), (0, 20), "what is gone is a gap");
    assert_eq!((bed.found("day-1").await, bed.found("day-2").await), (0, 1));
    let old = bed.chunk(0, 0, 10, "day-0");
    assert_eq!(bed.store(&old).await, (60, HistoryOutcome::Elsewhere), "it is not wanted again");
    relay.pass(30 * DAY_MS);
    job::clean_up(&relay.app).await.unwrap();
    assert!(bed.runs().await.is_empty());
    let ask = [HistoryPosition { session: bed.session, epoch: 1, end: 0 }];
    assert_eq!(history::have(&relay.db, bed.machine, &ask).await.unwrap()[0].end, 60);
}

#[tokio::test]
async fn above_a_users_limit_the_oldest_goes_and_far_above_nothing_is_taken() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let bob = relay.log_in("bob@example.com").await;
    let (hers, his) = (bed(&relay, &alice).await, bed(&relay, &bob).await);
    for at in 0..10u64 {
        relay.pass(1000);
        for bed in [&hers, &his] {
            assert_eq!(
                bed.store(&bed.chunk(at * 10, at * 10, at * 10 + 10, "x")).await.1,
                HistoryOutcome::Stored
            );
        }
    }
    // A chunk is stored in about 1,000 bytes.
    let limit = 5_500;
    let refused =
        history::store(&relay.db, hers.machine, &hers.chunk(100, 100, 110, "x"), limit, relay.now()).await;
    assert_eq!(refused.unwrap(), (100, HistoryOutcome::Later));
    let gone = history::prune(&relay.db, 30, limit, relay.now()).await.unwrap();
    assert_eq!(gone, 10, "five of each");
    let run = &hers.runs().await[0];
    assert_eq!((run.bytes, run.gaps[0].to), (50, 50));
    let taken =
        history::store(&relay.db, hers.machine, &hers.chunk(100, 100, 110, "x"), limit, relay.now()).await;
    assert_eq!(taken.unwrap(), (110, HistoryOutcome::Stored));
}

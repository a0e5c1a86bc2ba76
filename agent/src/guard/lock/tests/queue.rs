//! Waiting for locks, and disks that are full.

use super::*;

fn waiting(n: u128, path: &Path) -> Wish {
    Wish { wait: Duration::from_secs(600), ..wish(n, path, LockKind::File) }
}

/// Waits until so many wait for the lock.
async fn until_waiting(locks: &Locks, count: usize) {
    let mut events = locks.subscribe();
    loop {
        if locks.list().iter().any(|lock| lock.waiters.len() == count) {
            return;
        }
        tokio::time::timeout(LEASE, events.recv()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn who_waits_gets_the_lock_in_turn_and_is_shown() {
    let bed = Bed::new();
    let running = bed.start().await;
    let path = bed.file("a");
    let first = running.write(1, &path).await.unwrap().remove(0);
    let mut waiters = Vec::new();
    for n in [2, 3] {
        let (locks, wish) = (running.locks.clone(), waiting(n, &path));
        waiters.push(tokio::spawn(async move { locks.acquire(wish).await }));
        until_waiting(&running.locks, waiters.len()).await;
    }
    let shown = running.locks.list().remove(0);
    assert_eq!(shown.waiters[0].who, LockHolder::Session { session: session(2), name: name(2) });
    assert!(shown.version > first.version, "copies learn who waits");
    running.locks.release(first.id, Releaser::Session(session(1))).await.unwrap();
    let second = waiters.remove(0).await.unwrap().unwrap();
    assert_eq!((second.fence, second.reason.as_deref()), (2, Some("big change")));
    conflict(running.write(1, &path).await);
    running.locks.session_ended(session(2)).await;
    assert_eq!(waiters.remove(0).await.unwrap().unwrap().fence, 3);
}

#[tokio::test]
async fn waiting_ends_with_its_time_its_session_and_with_who_hung_up() {
    let bed = Bed::new();
    let running = bed.start().await;
    let path = bed.file("a");
    running.write(1, &path).await.unwrap();
    let spawn = |wish: Wish| {
        let locks = running.locks.clone();
        tokio::spawn(async move { locks.acquire(wish).await })
    };
    let late = spawn(Wish { wait: Duration::from_secs(5), ..waiting(2, &path) });
    until_waiting(&running.locks, 1).await;
    bed.clock.advance(Duration::from_secs(5));
    running.locks.activity(session(1));
    assert_eq!(conflict(late.await.unwrap()).lock.waiters, []);
    let ended = spawn(waiting(3, &path));
    until_waiting(&running.locks, 1).await;
    running.locks.session_ended(session(3)).await;
    conflict(ended.await.unwrap());
    let gone = spawn(waiting(4, &path));
    until_waiting(&running.locks, 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    running.locks.activity(session(1));
    until_waiting(&running.locks, 0).await;
    running.locks.session_ended(session(1)).await;
    assert_eq!(running.locks.list(), []);
}

#[tokio::test]
async fn a_circle_of_waiting_is_refused() {
    let bed = Bed::new();
    let running = bed.start().await;
    let (a, b) = (bed.file("a"), bed.file("b"));
    running.write(1, &a).await.unwrap();
    running.write(2, &b).await.unwrap();
    let (locks, wish) = (running.locks.clone(), waiting(1, &b));
    let first = tokio::spawn(async move { locks.acquire(wish).await });
    until_waiting(&running.locks, 1).await;
    let refused = running.locks.acquire(waiting(2, &a)).await;
    let Err(refusal @ Refusal::Deadlock(_)) = refused else { panic!("{refused:?}") };
    assert!(refusal.for_claude().contains("lock_release"), "{}", refusal.for_claude());
    running.locks.session_ended(session(2)).await;
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_granted_and_nothing_is_lost() {
    let bed = Bed::new();
    let running = bed.start().await;
    let kept = running.write(1, &bed.file("kept")).await.unwrap().remove(0);
    running.store.fill_up().await;
    let mut granted = vec![kept];
    let mut refused = None;
    for index in 0..2_000 {
        match running.write(1, &bed.file(&format!("file-{index}"))).await {
            Ok(mut locks) => granted.append(&mut locks),
            Err(refusal) => {
                refused = Some((index, refusal));
                break;
            }
        }
    }
    let (index, refusal) = refused.expect("the disk is full at last");
    assert_eq!(refusal, Refusal::NotStored);
    assert!(refusal.for_claude().contains("disk full"), "{}", refusal.for_claude());
    let free = bed.work().join(format!("file-{index}"));
    let ids = |locks: Vec<Lock>| locks.iter().map(|lock| (lock.id, lock.fence)).collect::<Vec<_>>();
    assert_eq!(ids(running.locks.list()), ids(granted.clone()));
    running.kill().await;
    let running = bed.start().await;
    assert_eq!(ids(running.locks.list()), ids(granted.clone()), "and the same is on disk");
    let fence = running.write(2, &free).await.unwrap()[0].fence;
    assert!(granted.iter().all(|lock| lock.fence < fence));
}

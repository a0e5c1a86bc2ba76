use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use claudenest_shared::id::SessionId;
use claudenest_shared::lock::{Lock, LockEnd, LockHolder, LockKind, LockOrigin};
use claudenest_shared::time::UnixMs;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::store::Store;

mod histories;
mod judge;
mod places;
mod queue;
mod second_line;
mod spellings;

/// Clocks that a test moves.
#[derive(Clone, Default)]
pub(super) struct TestClock {
    mono: Arc<AtomicU64>,
    wall: Arc<AtomicI64>,
}

impl TestClock {
    pub(super) fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap();
        self.mono.fetch_add(ms, Ordering::SeqCst);
        self.jump(i64::try_from(ms).unwrap());
    }

    pub(super) fn mono_ms(&self) -> u64 {
        self.clock()().mono.0
    }

    pub(super) fn jump(&self, ms: i64) {
        self.wall.fetch_add(ms, Ordering::SeqCst);
    }

    fn wall_only(&self) -> Clock {
        let clock = self.clock();
        Arc::new(move || {
            let wall = clock().wall;
            Now { mono: Mono(wall.0.unsigned_abs()), wall }
        })
    }

    fn clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || Now {
            mono: Mono(1_000_000 + clock.mono.load(Ordering::SeqCst)),
            wall: UnixMs(1_700_000_000_000 + clock.wall.load(Ordering::SeqCst)),
        })
    }
}

/// A data directory and a directory with files, which outlive daemons.
pub(super) struct Bed {
    dir: tempfile::TempDir,
    pub(super) clock: TestClock,
    pub(super) boot: String,
    pub(super) folds: Folds,
    /// The fault of leases that follow the wall clock.
    pub(super) is_wall_lease: bool,
}

pub(super) struct Running {
    pub(super) locks: Locks,
    pub(super) store: Store,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Bed {
    pub(super) fn new() -> Self {
        // In memory where that is possible: thousands of changes are each written through to the disk.
        let shm = Path::new("/dev/shm");
        let root = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("locks").tempdir_in(root).unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        Self {
            dir,
            clock: TestClock::default(),
            boot: "first boot".to_owned(),
            folds: Folds::default(),
            is_wall_lease: false,
        }
    }

    pub(super) fn work(&self) -> PathBuf {
        self.dir.path().join("work").canonicalize().unwrap()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        let path = self.work().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, name).unwrap();
        path
    }

    pub(super) async fn start(&self) -> Running {
        self.start_with(|_| true).await
    }

    pub(super) async fn start_with(&self, is_live: impl Fn(SessionId) -> bool) -> Running {
        let store = Store::open(&self.dir.path().join("data")).await.unwrap();
        self.start_on(store, is_live).await
    }

    pub(super) async fn start_on(&self, store: Store, is_live: impl Fn(SessionId) -> bool) -> Running {
        self.start_booted(store, None, is_live).await
    }

    /// After another boot, if it has a number.
    pub(super) async fn start_booted(
        &self,
        store: Store,
        boot: Option<u64>,
        is_live: impl Fn(SessionId) -> bool,
    ) -> Running {
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let settings = LockSettings {
            clock: if self.is_wall_lease { self.clock.wall_only() } else { self.clock.clock() },
            boot: boot.map_or_else(|| self.boot.clone(), |boot| format!("boot {boot}")),
            folds: self.folds.clone(),
        };
        let locks = Locks::start(settings, store.clone(), is_live, &tasks, cancel.clone()).await.unwrap();
        Running { locks, store, tasks, cancel }
    }
}

impl Running {
    /// Ends as if killed: nothing is said to anybody.
    pub(super) async fn kill(self) {
        self.end().await;
        self.store.close().await;
    }

    /// Only the owner task ends, wherever it is; the store stays open.
    pub(super) async fn end(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(super) async fn write(&self, n: u128, path: &Path) -> Result<Vec<Lock>, Refusal> {
        self.write_tree(n, path, false).await
    }

    pub(super) async fn write_tree(&self, n: u128, path: &Path, is_tree: bool) -> Result<Vec<Lock>, Refusal> {
        let cwd = path.parent().unwrap_or(path).to_owned();
        let write = WrittenPath { path: path.to_owned(), is_tree };
        self.locks.write(session(n), &name(n), &cwd, &[write]).await
    }
}

pub(super) fn session(n: u128) -> SessionId {
    SessionId(uuid::Uuid::from_u128(n))
}

pub(super) fn name(n: u128) -> String {
    format!("session-{n}")
}

pub(super) fn wish(n: u128, path: &Path, kind: LockKind) -> Wish {
    Wish {
        who: LockHolder::Session { session: session(n), name: name(n) },
        origin: LockOrigin::Tool,
        path: path.to_owned(),
        kind,
        lease_s: None,
        reason: Some("big change".to_owned()),
        cwd: path.parent().unwrap().to_owned(),
        wait: Duration::ZERO,
    }
}

#[track_caller]
pub(super) fn conflict<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Conflict {
    match result {
        Err(Refusal::Held(conflict)) => *conflict,
        other => panic!("no conflict: {other:?}"),
    }
}

const LEASE: Duration = Duration::from_secs(claudenest_shared::lock::DEFAULT_LEASE_S as u64);

#[tokio::test]
async fn the_first_write_locks_and_claude_is_told_who_why_and_until_when() {
    let bed = Bed::new();
    let running = bed.start().await;
    let path = bed.file("a.rs");
    let locks = running.write(1, &path).await.unwrap();
    assert_eq!((locks.len(), locks[0].fence, locks[0].origin), (1, 1, LockOrigin::Write));
    assert_eq!(locks[0].path, path.to_str().unwrap());
    let again = running.write(1, &path).await.unwrap();
    assert_eq!((again[0].id, again[0].fence), (locks[0].id, 1), "the second write renews");
    let told = conflict(running.write(2, &path).await).for_claude();
    for part in
        ["a.rs", "session \"session-1\"", "22:13:20 UTC", "22:43:20 UTC", "lock_acquire", "session_message"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    let person = Wish {
        who: LockHolder::Person { label: "dev on pts/3".to_owned() },
        origin: LockOrigin::Person,
        ..wish(0, &bed.file("b.rs"), LockKind::File)
    };
    running.locks.acquire(person).await.unwrap();
    let told = conflict(running.write(2, &bed.work().join("b.rs")).await).for_claude();
    assert!(told.contains("dev on pts/3") && told.contains("big change"), "{told}");
    assert_eq!(running.locks.list().len(), 2);
}

#[tokio::test]
async fn several_paths_are_locked_together_or_not_at_all() {
    let bed = Bed::new();
    let running = bed.start().await;
    let (a, b) = (bed.file("a"), bed.file("b"));
    running.write(1, &b).await.unwrap();
    let both = [&a, &b].map(|path| WrittenPath { path: path.clone(), is_tree: false });
    let refused = running.locks.write(session(2), "two", &bed.work(), &both).await;
    assert_eq!(conflict(refused).path, b);
    assert_eq!(running.locks.list().len(), 1);
    running.write(3, &a).await.unwrap();
}

#[tokio::test]
async fn locks_and_fences_outlive_the_daemon_and_a_session_that_is_gone_loses_its_locks() {
    let bed = Bed::new();
    let running = bed.start().await;
    let (a, b) = (bed.file("a"), bed.file("b"));
    let first = running.write(1, &a).await.unwrap().remove(0);
    running.write(2, &b).await.unwrap();
    running.kill().await;
    let running = bed.start_with(|id| id == session(1)).await;
    let left = running.locks.list();
    assert_eq!((left.len(), left[0].id, left[0].fence), (1, first.id, 1));
    conflict(running.write(3, &a).await);
    assert_eq!(running.write(3, &b).await.unwrap()[0].fence, 3, "2 was given to another grant");
    running.locks.session_ended(session(1)).await;
    assert_eq!(running.write(3, &a).await.unwrap()[0].fence, 4);
}

#[tokio::test]
async fn a_lease_ends_by_the_monotonic_clock_alone_and_activity_renews_it() {
    let bed = Bed::new();
    let running = bed.start().await;
    let path = bed.file("a");
    running.write(1, &path).await.unwrap();
    let hour = 3_600_000;
    for jump in [hour, -2 * hour, 24 * hour, -24 * hour] {
        bed.clock.jump(jump);
        conflict(running.write(2, &path).await);
    }
    bed.clock.advance(LEASE - Duration::from_millis(1));
    conflict(running.write(2, &path).await);
    running.locks.activity(session(1));
    bed.clock.advance(LEASE - Duration::from_millis(1));
    conflict(running.write(2, &path).await);
    bed.clock.advance(Duration::from_millis(1));
    let mut events = running.locks.subscribe();
    assert_eq!(running.locks.list(), []);
    assert_eq!(running.write(2, &path).await.unwrap()[0].fence, 2);
    let Ok(LockEvent::Ended { end, .. }) = events.recv().await else { panic!("an end") };
    assert_eq!(end, LockEnd::Expired);
}

#[tokio::test]
async fn only_the_holder_gives_a_lock_back_and_a_person_takes_it_away() {
    let bed = Bed::new();
    let running = bed.start().await;
    let path = bed.file("a");
    let lock = running.write(1, &path).await.unwrap().remove(0);
    let refused = running.locks.release(lock.id, Releaser::Session(session(2))).await;
    assert!(matches!(refused, Err(Refusal::NotYours(_))), "{refused:?}");
    let refused = running.locks.release(lock.id, Releaser::Person).await;
    assert!(matches!(refused, Err(Refusal::NotYours(_))), "{refused:?}");
    let mut events = running.locks.subscribe();
    running.locks.release(lock.id, Releaser::Force).await.unwrap();
    let Ok(LockEvent::Ended { end, lock: ended }) = events.recv().await else { panic!("an end") };
    assert_eq!((end, ended.id), (LockEnd::Forced, lock.id));
    assert_eq!(running.locks.release(lock.id, Releaser::Force).await, Err(Refusal::NotFound));
    let lock = running.write(2, &path).await.unwrap().remove(0);
    running.locks.release(lock.id, Releaser::Session(session(2))).await.unwrap();
    running.write(1, &path).await.unwrap();
}

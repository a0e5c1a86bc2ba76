//! The words of locks inside the agent: times, keys, refusals.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::lock::{Lock, LockHolder, LockKind};
use claudenest_shared::time::UnixMs;

/// Milliseconds on a clock that only goes forward, since the machine was started. It outlives the daemon, not the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// `self` plus `ms`.
    pub fn plus(self, ms: u64) -> Mono {
        Mono(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier`; 0 if that is later.
    pub fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Both clocks: one for leases, one for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Monotonic.
    pub mono: Mono,
    /// Wall clock.
    pub wall: UnixMs,
}

/// Identity of a file or directory on this machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Node {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

/// One sign by which a file is known. Two files with a sign in common are taken for one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// The file itself, by whatever name.
    Node(Node),
    /// A name in a directory, whatever file is there.
    Name {
        /// The nearest directory that exists.
        dir: Node,
        /// The name folded as that directory folds names; with `/` when directories between are missing.
        name: Vec<u8>,
    },
}

/// What is seen of a place, to notice that its keys are not true any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The nearest directory that exists.
    pub dir: Option<Node>,
    /// What the name means.
    pub entry: Option<Node>,
}

/// Every sign of a path.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keys {
    /// The places: each symbolic link that was followed at the end of the path, then the file itself; without symbolic
    /// links in their directories.
    pub spots: Vec<PathBuf>,
    /// Signs of the file.
    pub own: BTreeSet<Key>,
    /// Signs of every directory above it.
    pub above: BTreeSet<Key>,
    /// What was seen at each spot.
    pub marks: Vec<Mark>,
    /// True if the file has further names (hard links), which may lie anywhere on its file system.
    pub is_linked: bool,
}

impl Keys {
    /// The file itself.
    pub fn path(&self) -> &Path {
        self.spots.last().map_or(Path::new("/"), PathBuf::as_path)
    }

    /// True if both are, or one contains, the same thing. `is_tree`: together with everything below.
    pub fn collide(&self, is_tree: bool, other: &Keys, is_other_tree: bool) -> bool {
        !self.own.is_disjoint(&other.own)
            || (is_tree && !self.own.is_disjoint(&other.above))
            || (is_other_tree && !other.own.is_disjoint(&self.above))
    }

    /// True if whoever has `self` has all of `other` as well.
    pub fn covers(&self, is_tree: bool, other: &Keys, is_other_tree: bool) -> bool {
        let is_same = other.own.is_subset(&self.own) && (is_tree || !is_other_tree);
        // A link that leads into the tree lies elsewhere itself, and so may another name of the file.
        let is_below =
            is_tree && other.spots.len() == 1 && !other.is_linked && !self.own.is_disjoint(&other.above);
        is_same || is_below
    }
}

/// A lock of somebody else stands in the way.
#[derive(Clone, PartialEq, Debug)]
pub struct Conflict {
    /// The lock.
    pub lock: Lock,
    /// What was to be written.
    pub path: PathBuf,
}

impl Conflict {
    /// Who holds it, why, until when, and what to do instead: for Claude.
    pub fn for_claude(&self) -> String {
        let lock = &self.lock;
        let path = self.path.to_string_lossy();
        let what = match lock.kind {
            LockKind::Directory => format!("{path} lies in the directory {}, which", lock.path),
            LockKind::File if lock.path == path => path.into_owned(),
            LockKind::File => format!("{path} is the file {}, which", lock.path),
        };
        let (who, ask) = match &lock.holder {
            LockHolder::Session { name, .. } => (
                format!("the session \"{name}\""),
                format!(", or ask that session with session_message (to: \"{name}\")"),
            ),
            LockHolder::Person { label } => (label.clone(), ", or ask the user".to_owned()),
        };
        let why = match &lock.reason {
            Some(reason) => format!(" Reason given: \"{reason}\"."),
            None => String::new(),
        };
        format!(
            "Not written: {what} is locked by {who} since {}.{why} The lock ends when it is given back, at the latest \
             at {} if its holder does nothing until then. Nothing was changed. Do not write this file in another way. \
             Work on something else, wait for it with the tool lock_acquire (path, wait_s){ask}.",
            clock(lock.since),
            clock(lock.expires_at),
        )
    }

    /// The same for a person at the command line or in a browser.
    pub fn for_person(&self) -> String {
        let lock = &self.lock;
        let who = match &lock.holder {
            LockHolder::Session { name, .. } => format!("the session {name}"),
            LockHolder::Person { label } => label.clone(),
        };
        format!(
            "{} is locked by {who} since {}{}, until {} at the latest. Wait for it, or take the lock away: \
             claudenest-agent locks force-release {}",
            lock.path,
            clock(lock.since),
            lock.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default(),
            clock(lock.expires_at),
            lock.id.short(),
        )
    }
}

/// Why a lock was not granted or not ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// Somebody else has it.
    Held(Box<Conflict>),
    /// Somebody else has it and waits for the asker: waiting would never end.
    Deadlock(Box<Conflict>),
    /// The limit of locks or waiters is reached.
    TooMany(usize),
    /// The path cannot be locked; a sentence.
    BadPath(String),
    /// The request is wrong in itself; a sentence.
    Invalid(String),
    /// There is no such lock.
    NotFound,
    /// A lock of another holder.
    NotYours(Box<Lock>),
    /// It could not be written to disk; the cause is in the log.
    NotStored,
    /// The daemon is stopping.
    Stopping,
}

impl Refusal {
    /// For Claude: what is, and what to do.
    pub fn for_claude(&self) -> String {
        match self {
            Self::Held(conflict) => conflict.for_claude(),
            Self::Deadlock(conflict) => format!(
                "{} Waiting would never end: its holder waits for a lock of yours. Give yours back with lock_release first.",
                conflict.for_claude()
            ),
            other => format!("Nothing was written or locked. {}", other.sentence()),
        }
    }

    /// For the wire.
    pub fn to_wire(&self) -> WireError {
        let code = match self {
            Self::Held(_) | Self::Deadlock(_) => ErrorCode::Conflict,
            Self::TooMany(_) => ErrorCode::RateLimited,
            Self::BadPath(_) | Self::Invalid(_) => ErrorCode::Invalid,
            Self::NotFound => ErrorCode::NotFound,
            Self::NotYours(_) => ErrorCode::Forbidden,
            Self::NotStored => ErrorCode::Internal,
            Self::Stopping => ErrorCode::Unavailable,
        };
        WireError::new(code, self.sentence())
    }

    fn sentence(&self) -> String {
        match self {
            Self::Held(conflict) => conflict.for_person(),
            Self::Deadlock(conflict) => {
                format!("{} Waiting would never end: its holder waits for a lock of yours.", conflict.for_person())
            }
            Self::TooMany(limit) => {
                format!("There are {limit} already, the most that is allowed. Release some first, or lock a directory.")
            }
            Self::BadPath(sentence) | Self::Invalid(sentence) => sentence.clone(),
            Self::NotFound => "There is no such lock; it may have ended. See: claudenest-agent locks list".to_owned(),
            Self::NotYours(lock) => {
                let who = match &lock.holder {
                    LockHolder::Session { name, .. } => format!("the session {name}"),
                    LockHolder::Person { label } => label.clone(),
                };
                format!("The lock on {} belongs to {who}. Only its holder gives it back; a person can take it away with \
                         force-release.", lock.path)
            }
            Self::NotStored => {
                "The lock could not be written to the agent's database, so it was not changed. Is the disk full? The \
                 agent's log says more."
                    .to_owned()
            }
            Self::Stopping => "The agent is stopping. Try again when it runs.".to_owned(),
        }
    }
}

/// A time of day with its zone; the day is clear from the context of a lease.
fn clock(at: UnixMs) -> String {
    let format = time::macros::format_description!("[hour]:[minute]:[second] UTC");
    time::OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000))
        .ok()
        .and_then(|at| at.format(format).ok())
        .unwrap_or_else(|| at.0.to_string())
}

/// The clocks of this machine. The monotonic one does not count the time that a Linux machine sleeps: nobody could
/// have been active then.
pub fn now() -> Now {
    let mono = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(mono.tv_sec).unwrap_or_default();
    let millis = u64::try_from(mono.tv_nsec).unwrap_or_default() / 1_000_000;
    Now { mono: Mono(seconds * 1000 + millis), wall: crate::supervisor::now().wall }
}

/// Names the run of this machine since its last start; empty where it cannot be known, which counts as a new one.
pub fn boot() -> String {
    #[cfg(target_os = "linux")]
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    #[cfg(not(target_os = "linux"))]
    let id = std::process::Command::new("/usr/sbin/sysctl")
        .args(["-n", "kern.bootsessionuuid"])
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

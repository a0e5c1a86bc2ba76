//! The second line: looks whether locked files change while their holder uses no tool, tells it, and has the former content.
//!
//! The first line, the gate, cannot know what a script writes. This one sees every change of a locked file, whoever makes it,
//! but only afterwards. Only files that sessions hold are looked at: a person who locks a file means to edit it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use claudenest_shared::id::{LockId, SessionId};
use claudenest_shared::lock::{Lock, LockHolder, LockKind};
use claudenest_shared::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::guard;

/// How often to look: one `stat` for each lock, so that a thousand cost a millisecond.
pub const PERIOD: Duration = Duration::from_secs(1);
/// Larger files are not copied.
pub const MAX_COPY_BYTES: u64 = 4 * 1024 * 1024;
/// All copies together; further files are watched but not copied.
const MAX_ALL_BYTES: u64 = 256 * 1024 * 1024;

/// A locked file was changed, and not by a tool of its holder.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Alert {
    /// The lock.
    pub lock: Lock,
    /// When it was seen.
    pub at: UnixMs,
    /// False if the file is gone.
    pub is_there: bool,
    /// True if the former content can be put back.
    pub has_copy: bool,
    /// Sessions that used a tool meanwhile.
    pub suspects: Vec<String>,
}

/// Which sessions use tools.
#[derive(Debug, Default)]
pub struct Busy {
    sessions: Mutex<BTreeMap<SessionId, Tools>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tools {
    under_way: u32,
    /// Something has begun or ended since it was last asked.
    is_fresh: bool,
}

impl Busy {
    /// Takes in a hook.
    pub fn note(&self, session: SessionId, event: &str) {
        let mut sessions = guard(&self.sessions);
        let tools = sessions.entry(session).or_default();
        match event {
            "PreToolUse" => tools.under_way += 1,
            "PostToolUse" | "PostToolUseFailure" => tools.under_way = tools.under_way.saturating_sub(1),
            // A tool that was refused has no end of its own.
            "Stop" | "StopFailure" | "UserPromptSubmit" | "SessionStart" => tools.under_way = 0,
            "SessionEnd" => {
                sessions.remove(&session);
                return;
            }
            _ => return,
        }
        tools.is_fresh = true;
    }

    /// Sessions that use a tool, or have since this was last asked.
    fn take(&self) -> Vec<SessionId> {
        let mut sessions = guard(&self.sessions);
        let busy = sessions.iter().filter(|(_, tools)| tools.under_way > 0 || tools.is_fresh);
        let busy = busy.map(|(session, _)| *session).collect();
        sessions.values_mut().for_each(|tools| tools.is_fresh = false);
        busy
    }
}

/// What a file looks like from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sight {
    dev: u64,
    ino: u64,
    size: u64,
    changed: (i64, i64),
}

fn sight(path: &Path) -> Option<Sight> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let changed = (metadata.mtime(), metadata.mtime_nsec());
    Some(Sight { dev: metadata.dev(), ino: metadata.ino(), size: metadata.size(), changed })
}

/// Copies of locked files, and how the files looked last.
#[derive(Debug)]
pub struct Copies {
    dir: PathBuf,
    seen: BTreeMap<LockId, Option<Sight>>,
}

impl Copies {
    /// Copies in `dir`, which is made when it is needed.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, seen: BTreeMap::new() }
    }

    fn copy(&self, lock: LockId) -> PathBuf {
        self.dir.join(lock.to_string())
    }

    /// Looks at every locked file: what was changed by nobody who may. Copies of what is new, or was changed by its holder,
    /// are taken.
    pub fn look(&mut self, locks: &[Lock], busy: &Busy, at: UnixMs) -> Vec<Alert> {
        let working = busy.take();
        let mut alerts = Vec::new();
        let mut seen = BTreeMap::new();
        for lock in locks.iter().filter(|lock| lock.kind == LockKind::File) {
            let LockHolder::Session { session, .. } = &lock.holder else { continue };
            let now = sight(Path::new(&lock.path));
            match self.seen.get(&lock.id) {
                Some(before) if *before == now => {}
                Some(_) if !working.contains(session) => {
                    let has_copy = self.copy(lock.id).exists();
                    let suspects = names(&working, locks);
                    alerts.push(Alert {
                        lock: lock.clone(),
                        at,
                        is_there: now.is_some(),
                        has_copy,
                        suspects,
                    });
                }
                _ => self.keep(lock, now),
            }
            seen.insert(lock.id, now);
        }
        for gone in self.seen.keys().filter(|id| !seen.contains_key(id)) {
            let _ = std::fs::remove_file(self.copy(*gone));
        }
        self.seen = seen;
        alerts
    }

    fn keep(&self, lock: &Lock, now: Option<Sight>) {
        let copy = self.copy(lock.id);
        let kept = match now {
            Some(sight) if sight.size <= MAX_COPY_BYTES && self.all_bytes() + sight.size <= MAX_ALL_BYTES => {
                self.write(Path::new(&lock.path), &copy)
            }
            // The copy of an older content would put back the wrong thing.
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        if kept.is_err() {
            let _ = std::fs::remove_file(copy);
        }
    }

    fn write(&self, from: &Path, to: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let mut reader = io::Read::take(std::fs::File::open(from)?, MAX_COPY_BYTES);
        let part = to.with_extension("part");
        let mut writer =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        io::copy(&mut reader, &mut writer)?;
        std::fs::rename(part, to)
    }

    fn all_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// Forgets the copies of locks that ended while nobody looked.
    pub fn sweep(&self, locks: &[Lock]) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let is_held = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<LockId>().ok())
                .is_some_and(|id| locks.iter().any(|lock| lock.id == id));
            if !is_held {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Puts the former content of a locked file back. What is there now goes to a file beside it, whose path is answered.
    ///
    /// # Errors
    /// `NotFound` without a copy; any other error of the file system. Then nothing was changed.
    pub fn restore(&mut self, lock: &Lock) -> io::Result<Option<PathBuf>> {
        let (path, copy) = (PathBuf::from(&lock.path), self.copy(lock.id));
        let content = std::fs::read(&copy)?;
        let beside = |ending: &str| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}.{ending}", lock.id.short()));
            path.with_file_name(name)
        };
        let part = beside("part");
        std::fs::write(&part, content)?;
        let mut aside = None;
        if let Ok(metadata) = std::fs::metadata(&path) {
            std::fs::set_permissions(&part, metadata.permissions())?;
            let other = beside("other");
            // A second name, so that the file is never missing.
            let _ = std::fs::remove_file(&other);
            std::fs::hard_link(&path, &other).or_else(|_| std::fs::copy(&path, &other).map(|_| ()))?;
            aside = Some(other);
        }
        std::fs::rename(&part, &path)?;
        self.seen.insert(lock.id, sight(&path));
        Ok(aside)
    }
}

/// Names of working sessions, as far as locks tell them; others by the end of their id.
fn names(working: &[SessionId], locks: &[Lock]) -> Vec<String> {
    let name = |id: &SessionId| {
        let known = locks.iter().find_map(|lock| match &lock.holder {
            LockHolder::Session { session, name } if session == id => Some(name.clone()),
            _ => None,
        });
        known.unwrap_or_else(|| id.short())
    };
    working.iter().map(name).collect()
}

//! By what signs a file is known: reads the file system, decides nothing.
//!
//! A path is walked as the kernel walks it, name by name, so that every spelling of it ends at the same signs: `.`, `..`,
//! `//`, symbolic links, hard links, bind mounts, `/proc/self/cwd`, another case where the directory does not
//! tell cases apart. What is in doubt gets more signs rather than fewer: two files may be taken for one, never one for two.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use super::fold::Folds;
use super::mounts::Mounts;
use super::words::{Key, Keys, Mark, Node};

/// Symbolic links on the way, as in Linux.
const MAX_LINKS: usize = 40;
/// Parts of a path; the longest path of Linux has 2,048.
const MAX_PARTS: usize = 4_096;
/// Entries that are looked at when another name of a hard-linked file is searched in a locked directory.
const MAX_SEARCHED: usize = 50_000;

/// Why a path has no keys.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// It is not absolute.
    #[error("{} is not an absolute path.", .0.display())]
    NotAbsolute(PathBuf),
    /// Symbolic links lead in a circle, or the path is too long.
    #[error("{} cannot be followed: its symbolic links lead in a circle.", .0.display())]
    Circle(PathBuf),
    /// A terminal, a pipe, a device: nothing that could be locked.
    #[error("{} is not a file or directory, so it cannot be locked.", .0.display())]
    NotAFile(PathBuf),
    /// A descriptor of the process that will run; what is behind it cannot be known here.
    #[error("{} is known only to the process that uses it.", .0.display())]
    OfProcess(PathBuf),
}

/// The identity in `stat`'s answer.
pub fn node(metadata: &Metadata) -> Node {
    Node { dev: metadata.dev(), ino: metadata.ino() }
}

/// Finds keys; holds what is worth reading only once for many paths.
#[derive(Debug, Default)]
pub struct Finder {
    folds: Folds,
    mounts: Option<Mounts>,
}

/// Where a walk has ended.
struct Walk {
    /// Links that were followed at the end of the path, and the file itself: existing directory, names below.
    spots: Vec<(PathBuf, Vec<OsString>)>,
}

impl Finder {
    /// A finder whose directories are asked for their folding by `folds`.
    pub fn with_folds(folds: Folds) -> Self {
        Self { folds, mounts: None }
    }

    /// The keys of a path. `cwd` is the directory of the process that uses it, for `/proc/self/cwd`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn keys(&mut self, path: &Path, cwd: &Path) -> Result<Keys, KeyError> {
        if !path.is_absolute() {
            return Err(KeyError::NotAbsolute(path.to_owned()));
        }
        let mut keys = self.keys_of_walk(path, cwd)?;
        // Programs that put paths in order before they use them see `a/link/../b` as `a/b`, the kernel does not.
        let ordered = without_dots(path);
        if ordered != path
            && let Ok(other) = self.keys_of_walk(&ordered, cwd)
            && other.own != keys.own
        {
            keys.own.extend(other.own);
            keys.above.extend(other.above);
            keys.is_linked |= other.is_linked;
            // The file as the kernel sees it stays the last one.
            keys.spots.splice(0..0, other.spots);
            keys.marks.splice(0..0, other.marks);
        }
        Ok(keys)
    }

    /// Finds the keys of known places again, after something was replaced.
    pub fn keys_of_spots(&mut self, spots: &[PathBuf]) -> Keys {
        let mut keys = Keys::default();
        for spot in spots {
            // A place that was a file may have become a link to another one, which then is meant as well.
            let found = self.keys_of_walk(spot, Path::new("/")).unwrap_or_default();
            keys.own.extend(found.own);
            keys.above.extend(found.above);
            keys.is_linked |= found.is_linked;
        }
        keys.spots = spots.to_vec();
        keys.marks = spots.iter().map(|spot| mark(spot)).collect();
        keys
    }

    /// True if what was seen at the places of these keys is still there.
    pub fn is_fresh(&self, keys: &Keys) -> bool {
        keys.spots.iter().zip(&keys.marks).all(|(spot, seen)| mark(spot) == *seen)
    }

    fn keys_of_walk(&mut self, path: &Path, cwd: &Path) -> Result<Keys, KeyError> {
        let walk = walk(path, cwd)?;
        let mut keys = Keys::default();
        for (dir, names) in &walk.spots {
            self.add_spot(&mut keys, dir, names);
        }
        // What the path leads to in the end, also where a link of `/proc` shows no usable text.
        if let Ok(metadata) = std::fs::metadata(path_for_stat(path, cwd)) {
            let kind = metadata.file_type();
            if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket() {
                return Err(KeyError::NotAFile(path.to_owned()));
            }
            keys.own.insert(Key::Node(node(&metadata)));
            keys.is_linked = metadata.is_file() && metadata.nlink() > 1;
        }
        Ok(keys)
    }

    fn add_spot(&mut self, keys: &mut Keys, dir: &Path, names: &[OsString]) {
        let spot = names.iter().fold(dir.to_owned(), |path, name| path.join(name));
        keys.marks.push(mark(&spot));
        if names.is_empty() {
            // Only the root has no name.
            self.add_directory(&mut keys.own, dir);
        } else {
            self.add_above(keys, dir, names);
        }
        keys.spots.push(spot);
    }

    /// The name and what it means, then every directory above.
    fn add_above(&mut self, keys: &mut Keys, dir: &Path, names: &[OsString]) {
        let Ok(metadata) = std::fs::metadata(dir) else { return };
        let within = node(&metadata);
        let (mut plain, mut folded): (Vec<u8>, Vec<u8>) = Default::default();
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                plain.push(b'/');
                folded.push(b'/');
            }
            // A missing directory will fold as the one it is made in. Both forms: what is found out about a directory may
            // change with the names in it.
            plain.extend(name.as_bytes());
            folded.extend(self.folds.fold(dir, &metadata, name));
            let into = if index + 1 == names.len() { &mut keys.own } else { &mut keys.above };
            into.insert(Key::Name { dir: within, name: plain.clone() });
            into.insert(Key::Name { dir: within, name: folded.clone() });
        }
        let spot = names.iter().fold(dir.to_owned(), |path, name| path.join(name));
        for above in dir.ancestors() {
            self.add_directory(&mut keys.above, above);
        }
        let mounts = self.mounts.get_or_insert_with(Mounts::read);
        let places = match std::fs::symlink_metadata(&spot) {
            Ok(metadata) => {
                keys.own.insert(Key::Node(node(&metadata)));
                mounts.other_places(&spot, node(&metadata))
            }
            Err(_) => {
                let places = mounts.other_places(dir, within).into_iter();
                places.map(|place| names.iter().fold(place, |path, name| path.join(name))).collect()
            }
        };
        for place in places {
            self.add_directory(&mut keys.own, &place);
            for above in place.ancestors().skip(1) {
                self.add_directory(&mut keys.above, above);
            }
        }
    }

    /// A directory, or a file that is mounted somewhere, by itself and by its name.
    fn add_directory(&mut self, into: &mut BTreeSet<Key>, dir: &Path) {
        if let Ok(metadata) = std::fs::symlink_metadata(dir) {
            into.insert(Key::Node(node(&metadata)));
        }
        if let (Some(parent), Some(name)) = (dir.parent(), dir.file_name())
            && let Ok(of_parent) = std::fs::metadata(parent)
        {
            let folded = self.folds.fold(parent, &of_parent, name);
            into.insert(Key::Name { dir: node(&of_parent), name: folded });
            into.insert(Key::Name { dir: node(&of_parent), name: name.as_bytes().to_vec() });
        }
    }
}

/// Another name of a hard-linked file below `dir`? `None` if there are too many files to say.
pub fn has_name_below(dir: &Path, wanted: Node) -> Option<bool> {
    let Ok(metadata) = std::fs::metadata(dir) else { return Some(false) };
    if metadata.dev() != wanted.dev {
        return Some(false); // Hard links stay on one file system.
    }
    let mut open = vec![dir.to_owned()];
    let mut seen = 0;
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > MAX_SEARCHED {
                return None;
            }
            use std::os::unix::fs::DirEntryExt;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(_) if entry.ino() == wanted.ino => return Some(true),
                _ => {}
            }
        }
    }
    Some(false)
}

/// The root of the project of a file: its git work tree, else `cwd` if it lies there, else its own directory.
pub fn project_of(path: &Path, cwd: &Path) -> PathBuf {
    let with_git = path.ancestors().find(|dir| std::fs::symlink_metadata(dir.join(".git")).is_ok());
    match with_git {
        Some(root) => root.to_owned(),
        None if path.starts_with(cwd) => cwd.to_owned(),
        None => path.parent().unwrap_or(path).to_owned(),
    }
}

/// What is seen at a place; two calls unless directories are missing.
fn mark(spot: &Path) -> Mark {
    let entry = std::fs::symlink_metadata(spot).ok().map(|metadata| node(&metadata));
    let dirs = spot.ancestors().skip(1);
    let dir = dirs.filter_map(|dir| std::fs::metadata(dir).ok()).next().map(|metadata| node(&metadata));
    Mark { dir, entry }
}

/// Follows a path name by name, as the kernel would for a process in `cwd`.
fn walk(path: &Path, cwd: &Path) -> Result<Walk, KeyError> {
    let circle = || KeyError::Circle(path.to_owned());
    let mut at = PathBuf::from("/");
    let mut missing: Vec<OsString> = Vec::new();
    let mut spots = Vec::new();
    let mut pending: VecDeque<OsString> = parts(path);
    let (mut links, mut steps) = (0, 0);
    while let Some(name) = pending.pop_front() {
        steps += 1;
        if steps > MAX_PARTS {
            return Err(circle());
        }
        match name.as_bytes() {
            b"/" => {
                at = PathBuf::from("/");
                missing.clear();
                continue;
            }
            b"." => continue,
            b".." => {
                if missing.pop().is_none() {
                    at.pop();
                }
                continue;
            }
            _ => {}
        }
        if !missing.is_empty() {
            missing.push(name);
            continue;
        }
        if let Some(own) =
            of_process(&at, &name, &mut pending, cwd).map_err(|()| KeyError::OfProcess(path.to_owned()))?
        {
            // In front of what is left of the path.
            for part in own.into_iter().rev() {
                pending.push_front(part);
            }
            continue;
        }
        let next = at.join(&name);
        match std::fs::symlink_metadata(&next) {
            Ok(metadata) if metadata.file_type().is_symlink() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(circle());
                }
                let target = std::fs::read_link(&next).unwrap_or_default();
                if pending.iter().all(|part| part == ".") {
                    spots.push((at.clone(), vec![name]));
                }
                for part in parts(&target).into_iter().rev() {
                    pending.push_front(part);
                }
            }
            Ok(metadata) if metadata.is_dir() => at = next,
            // A file in the middle of a path, or nothing, or nothing that may be looked at: names only.
            Ok(_) | Err(_) => missing.push(name),
        }
    }
    let last = match (missing.is_empty(), at.file_name().map(OsStr::to_owned)) {
        (false, _) => (at, missing),
        (true, Some(name)) => {
            at.pop();
            (at, vec![name])
        }
        (true, None) => (at, Vec::new()),
    };
    spots.push(last);
    Ok(Walk { spots })
}

/// `/proc/self` means the process that will use the path, not this one. `Ok(None)`: it is not about that.
fn of_process(
    at: &Path,
    name: &OsStr,
    pending: &mut VecDeque<OsString>,
    cwd: &Path,
) -> Result<Option<Vec<OsString>>, ()> {
    if at != Path::new("/proc") || !(name == "self" || name == "thread-self") {
        return Ok(None);
    }
    while pending.front().is_some_and(|part| part == ".") {
        pending.pop_front();
    }
    if pending.front().is_some_and(|part| part == "task") {
        pending.drain(..2.min(pending.len()));
    }
    match pending.pop_front() {
        Some(part) if part == "cwd" => Ok(Some(parts(cwd).into())),
        Some(part) if part == "root" => Ok(Some(vec![OsString::from("/")])),
        _ => Err(()),
    }
}

/// The names of a path; the first is `/` if it is absolute.
fn parts(path: &Path) -> VecDeque<OsString> {
    let bytes = path.as_os_str().as_bytes();
    let names = bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let root = bytes.first().filter(|byte| **byte == b'/').map(|_| OsString::from("/"));
    root.into_iter().chain(names.map(|name| OsString::from_vec(name.to_vec()))).collect()
}

/// The path with `.` and `..` taken out by their text alone.
fn without_dots(path: &Path) -> PathBuf {
    let mut ordered = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                ordered.pop();
            }
            Component::Normal(name) => ordered.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    ordered
}

/// `/proc/self/cwd/…` for another process.
fn path_for_stat(path: &Path, cwd: &Path) -> PathBuf {
    for own in ["/proc/self/cwd", "/proc/thread-self/cwd"] {
        if let Ok(rest) = path.strip_prefix(own) {
            return cwd.join(rest);
        }
    }
    path.to_owned()
}

/// Reads the names of a directory, at most `limit`.
pub(super) fn some_names(dir: &Path, limit: usize) -> io::Result<Vec<OsString>> {
    Ok(std::fs::read_dir(dir)?.take(limit).flatten().map(|entry| entry.file_name()).collect())
}

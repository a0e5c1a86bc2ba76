//! One directory in several places: bind mounts.
//!
//! A file below a bind mount is the same by device and inode, but the directories above it are others. A lock on one of
//! those must hold in every place.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::words::Node;

/// Places of one directory that are looked at; more than this many bind mounts of it do not occur by accident.
const MAX_PLACES: usize = 64;

#[derive(Clone, Debug)]
struct Mount {
    dev: u64,
    root: PathBuf,
    point: PathBuf,
}

/// The mounts of this process.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    mounts: Vec<Mount>,
}

impl Mounts {
    /// Reads the kernel's list; empty where there is none.
    pub fn read() -> Self {
        std::fs::read_to_string("/proc/self/mountinfo").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Reads the text of `/proc/self/mountinfo` (proc(5)).
    fn parse(text: &str) -> Self {
        let mounts = text
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ').skip(2);
                let (major, minor) = fields.next()?.split_once(':')?;
                let dev = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
                Some(Mount { dev, root: unescape(fields.next()?), point: unescape(fields.next()?) })
            })
            .collect();
        Self { mounts }
    }

    /// Other places of what is at `path`, which has no symbolic links in its directories and the identity `node`.
    pub fn other_places(&self, path: &Path, node: Node) -> Vec<PathBuf> {
        let lies_in = |mount: &&Mount| path.starts_with(&mount.point);
        // The last one counts among mounts at one point: it lies on top.
        let Some(here) =
            self.mounts.iter().filter(lies_in).max_by_key(|mount| mount.point.components().count())
        else {
            return Vec::new();
        };
        let Ok(rest) = path.strip_prefix(&here.point) else { return Vec::new() };
        let inside = here.root.join(rest);
        self.mounts
            .iter()
            .filter(|mount| mount.dev == here.dev && mount.point != here.point)
            .filter_map(|mount| Some(join(&mount.point, inside.strip_prefix(&mount.root).ok()?)))
            // Hidden by another mount, it would be another directory.
            .filter(|place| {
                std::fs::symlink_metadata(place)
                    .is_ok_and(|found| (found.dev(), found.ino()) == (node.dev, node.ino))
            })
            .take(MAX_PLACES)
            .collect()
    }
}

/// `join` without a trailing slash for an empty rest.
fn join(point: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { point.to_owned() } else { point.join(rest) }
}

/// `\040` and the like stand for blanks, tabs, line ends and backslashes.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = field.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let value = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        plain.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 4 } else { 1 };
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_kernel_are_read_with_their_escapes() {
        let text = "36 35 98:0 / / rw - ext4 /dev/root rw\n\
                    37 36 98:0 /src\\040dir /mnt/b\\134x rw,noatime shared:1 - ext4 /dev/root rw\n\
                    nonsense\n";
        let mounts = Mounts::parse(text).mounts;
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[1].root, Path::new("/src dir"));
        assert_eq!(mounts[1].point, Path::new("/mnt/b\\x"));
        assert_eq!(mounts[0].dev, mounts[1].dev);
    }
}

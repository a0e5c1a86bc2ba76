//! How directories fold names: whether `README` and `readme` are one file there.
//!
//! It is looked up and tried out, never assumed. Where names are folded, ours fold at least as much as any file system
//! does: the worst that follows is that two files are taken for one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use unicode_normalization::UnicodeNormalization;

use super::keys::{node, some_names};
use super::words::Node;

/// Names that are tried out in a directory; one with a letter is nearly always among the first.
const TRIED: usize = 64;

/// How names are folded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    /// Byte for byte.
    None,
    /// Composed and decomposed letters are the same.
    Normalised,
    /// Cases are the same as well.
    Caseless,
    /// Trailing dots and blanks do not count either (FAT, NTFS and the network file systems that imitate them).
    Trimmed,
}

/// Asks directories how they fold, each once.
#[derive(Clone, Debug)]
pub struct Folds {
    ask: fn(&Path, &Metadata) -> Fold,
    known: BTreeMap<Node, Fold>,
}

impl Default for Folds {
    fn default() -> Self {
        Self::of(look)
    }
}

impl Folds {
    /// Asks `ask` instead of the file system.
    pub fn of(ask: fn(&Path, &Metadata) -> Fold) -> Self {
        Self { ask, known: BTreeMap::new() }
    }

    /// A name as `dir` folds it.
    pub fn fold(&mut self, dir: &Path, metadata: &Metadata, name: &OsStr) -> Vec<u8> {
        let ask = self.ask;
        let how = *self.known.entry(node(metadata)).or_insert_with(|| ask(dir, metadata));
        fold(name, how)
    }
}

/// A name folded.
pub fn fold(name: &OsStr, how: Fold) -> Vec<u8> {
    let (Some(text), true) = (name.to_str(), how != Fold::None) else { return name.as_bytes().to_vec() };
    let folded: String = match how {
        Fold::None | Fold::Normalised => text.nfd().collect(),
        Fold::Caseless | Fold::Trimmed => {
            // Compatibility forms and both ways of changing case: more than any file system folds.
            let caseless = text.nfkd().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
            let caseless: String = caseless.nfkd().filter(|c| !is_ignorable(*c)).collect();
            match how {
                Fold::Trimmed => caseless.trim_end_matches(['.', ' ']).to_owned(),
                _ => caseless,
            }
        }
    };
    // A name of nothing but what does not count stays itself.
    if folded.is_empty() { name.as_bytes().to_vec() } else { folded.into_bytes() }
}

/// Characters that folding file systems leave out (Default_Ignorable_Code_Point, the parts in use).
fn is_ignorable(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// Looks how a directory folds.
fn look(dir: &Path, metadata: &Metadata) -> Fold {
    if let Some(known) = by_system(dir) {
        return known;
    }
    // Another case of a name that is there: the same file?
    match try_names(dir).or_else(|| try_own_name(dir, metadata)) {
        // Nothing to try it with: in doubt, two names are one.
        Some(true) | None => Fold::Caseless,
        Some(false) if cfg!(target_os = "macos") => Fold::Normalised,
        Some(false) => Fold::None,
    }
}

/// What the file system itself says; `None` if that is not enough.
#[cfg(target_os = "linux")]
fn by_system(dir: &Path) -> Option<Fold> {
    use rustix::fs::{IFlags, Mode, OFlags};
    // The kernel's numbers of file systems (linux/magic.h and the drivers): vfat, exfat, both NTFS, CIFS, SMB2.
    const TRIMMING: [u64; 6] = [0x4d44, 0x2011_bab0, 0x5346_544e, 0x7366_746e, 0xff53_4d42, 0xfe53_4d42];
    // HFS and HFS+.
    const CASELESS: [u64; 2] = [0x4244, 0x482b];
    // Those that fold by a flag of the directory, or never.
    const BY_FLAG: [u64; 4] = [0xef53, 0xf2f5_2010, 0x0102_1994, 0x9123_683e]; // ext, f2fs, tmpfs, btrfs
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let open = rustix::fs::open(dir, flags, Mode::empty()).ok()?;
    if rustix::fs::ioctl_getflags(&open)
        .is_ok_and(|flags| flags.contains(IFlags::from_bits_retain(0x4000_0000)))
    {
        return Some(Fold::Caseless); // FS_CASEFOLD_FL
    }
    let magic = rustix::fs::fstatfs(&open).ok()?.f_type.cast_unsigned() & 0xffff_ffff;
    if TRIMMING.contains(&magic) {
        return Some(Fold::Trimmed);
    }
    if CASELESS.contains(&magic) {
        return Some(Fold::Caseless);
    }
    BY_FLAG.contains(&magic).then_some(Fold::None)
}

#[cfg(not(target_os = "linux"))]
fn by_system(_dir: &Path) -> Option<Fold> {
    None
}

/// True if another case of a name in `dir` is the same file; `None` without a name to try.
fn try_names(dir: &Path) -> Option<bool> {
    let names = some_names(dir, TRIED).ok()?;
    let name = names.iter().find(|name| other_case(name).is_some())?;
    let other = other_case(name)?;
    if names.contains(&other.clone().into()) {
        return Some(false); // Both are there.
    }
    let there = std::fs::symlink_metadata(dir.join(name)).ok()?;
    Some(std::fs::symlink_metadata(dir.join(other)).is_ok_and(|found| node(&found) == node(&there)))
}

/// The same for the directory's own name, if its parent is on the same file system.
fn try_own_name(dir: &Path, metadata: &Metadata) -> Option<bool> {
    let (parent, name) = (dir.parent()?, dir.file_name()?);
    let other = other_case(name)?;
    if std::fs::metadata(parent).ok()?.dev() != metadata.dev() {
        return None;
    }
    Some(std::fs::symlink_metadata(parent.join(other)).is_ok_and(|found| node(&found) == node(metadata)))
}

/// The name with every ASCII letter in its other case; `None` without letters.
fn other_case(name: &OsStr) -> Option<String> {
    let text = name.to_str().filter(|text| text.contains(|c: char| c.is_ascii_alphabetic()))?;
    let turn = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    Some(text.chars().map(turn).collect())
}

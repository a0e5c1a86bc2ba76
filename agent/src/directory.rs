//! Directories of the machine for a picker, and the check of a session's working directory.
//!
//! Invariant: nothing outside of the allowed roots is listed or used, whatever links and `..` say: a path is
//! resolved first and compared afterwards.

use std::path::{Path, PathBuf};

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::wire::agent::{Directory, DirectoryEntry};

/// Most entries in one answer; a directory with more is shown cut.
const MAX_ENTRIES: usize = 1000;
/// Most entries looked at: a mail spool or cache must not keep a thread busy for minutes.
const MAX_LOOKED_AT: usize = 50_000;

/// Where sessions may start.
#[derive(Clone, Debug)]
pub struct Roots {
    home: PathBuf,
    roots: Vec<PathBuf>,
}

impl Roots {
    /// No roots means everywhere. `~` in a root is the home directory.
    pub fn new(home: PathBuf, roots: &[String]) -> Self {
        let roots = roots.iter().map(|root| expand(&home, root)).collect();
        Self { home, roots }
    }

    /// The roots, for people and for the machine's facts.
    pub fn as_text(&self) -> Vec<String> {
        self.roots.iter().map(|root| root.to_string_lossy().into_owned()).collect()
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Resolves a directory and checks that it exists, can be entered and lies in a root. Blocking.
    ///
    /// # Errors
    /// `bad_directory`, with what to do. The same sentence for what is missing and what is forbidden
    /// outside of the roots, so that nothing outside can be explored.
    pub fn resolve(&self, path: &str) -> Result<PathBuf, WireError> {
        if path.contains('\0') {
            return Err(bad("A path cannot contain a zero byte."));
        }
        let asked = expand(&self.home, path);
        if !asked.is_absolute() {
            return Err(bad(&format!(
                "The directory must be an absolute path or start with ~/; {} is neither.",
                shown(path)
            )));
        }
        let resolved = asked.canonicalize();
        if !self.roots.is_empty() {
            let is_inside = resolved.as_ref().is_ok_and(|resolved| self.is_inside(resolved));
            if !is_inside {
                return Err(bad(&format!(
                    "{} is not a directory below {}, where sessions of this machine may start.",
                    shown(path),
                    self.as_text().join(" or ")
                )));
            }
        }
        let resolved = resolved.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => bad(&format!(
                "The directory {} does not exist on this machine. Create it or choose another.",
                shown(path)
            )),
            std::io::ErrorKind::PermissionDenied => {
                bad(&format!("The directory {} may not be read by the user of the agent.", shown(path)))
            }
            _ => bad(&format!(
                "The directory {} cannot be used: it is no directory, or its links go in a circle.",
                shown(path)
            )),
        })?;
        if !resolved.is_dir() {
            return Err(bad(&format!("{} is a file, not a directory.", shown(path))));
        }
        // Entering needs the x bit; listing alone is not enough to work there.
        if rustix::fs::access(&resolved, rustix::fs::Access::EXEC_OK).is_err() {
            return Err(bad(&format!(
                "The directory {} may not be entered by the user of the agent.",
                shown(path)
            )));
        }
        if resolved.to_str().is_none() {
            return Err(bad("The path of this directory is not valid UTF-8; sessions cannot start there."));
        }
        Ok(resolved)
    }

    fn is_inside(&self, resolved: &Path) -> bool {
        self.roots.iter().any(|root| root.canonicalize().is_ok_and(|root| resolved.starts_with(root)))
    }

    /// Lists the directories in `path`; an empty path is the home directory, or the first root when home is
    /// outside of the roots. Blocking.
    ///
    /// # Errors
    /// As [`Roots::resolve`].
    pub fn list(&self, path: &str) -> Result<Directory, WireError> {
        let start = if path.is_empty() {
            let home = self.home.to_string_lossy().into_owned();
            self.resolve(&home).or_else(|error| match self.roots.first() {
                Some(root) => self.resolve(&root.to_string_lossy()),
                None => Err(error),
            })?
        } else {
            self.resolve(path)?
        };
        let read = std::fs::read_dir(&start).map_err(|_| {
            bad(&format!("The directory {} may not be read by the user of the agent.", shown(path)))
        })?;
        let mut names: Vec<String> = read
            .take(MAX_LOOKED_AT)
            .flatten()
            .filter(|entry| match entry.file_type() {
                Ok(kind) if kind.is_dir() => true,
                // A link is shown if it leads to a directory that may be used.
                Ok(kind) if kind.is_symlink() => self.leads_inside(&entry.path()),
                _ => false,
            })
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.chars().any(char::is_control))
            .collect();
        names.sort_by_cached_key(|name| (name.starts_with('.'), name.to_lowercase(), name.clone()));
        let is_cut = names.len() > MAX_ENTRIES;
        names.truncate(MAX_ENTRIES);
        let entries = names
            .into_iter()
            .map(|name| DirectoryEntry { is_git: start.join(&name).join(".git").exists(), name })
            .collect();
        let parent = start
            .parent()
            .filter(|parent| self.roots.is_empty() || self.is_inside(parent))
            .map(|parent| parent.to_string_lossy().into_owned());
        Ok(Directory { path: start.to_string_lossy().into_owned(), parent, entries, is_cut })
    }

    fn leads_inside(&self, link: &Path) -> bool {
        link.canonicalize()
            .is_ok_and(|target| target.is_dir() && (self.roots.is_empty() || self.is_inside(&target)))
    }
}

/// `~` and `~/…` become the home directory.
fn expand(home: &Path, path: &str) -> PathBuf {
    match path.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(path),
    }
}

fn shown(path: &str) -> String {
    let text: String = path.chars().take(200).collect();
    if text.is_empty() { "an empty path".to_owned() } else { text.escape_debug().to_string() }
}

fn bad(sentence: &str) -> WireError {
    WireError::new(ErrorCode::BadDirectory, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, PathBuf, Roots) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for sub in ["root/a/.git", "root/.hidden", "root/B", "outside/secret", "rootless"] {
            std::fs::create_dir_all(base.join(sub)).unwrap();
        }
        std::fs::write(base.join("root/file"), "x").unwrap();
        symlink(base.join("outside"), base.join("root/escape")).unwrap();
        symlink(base.join("root/a"), base.join("root/link")).unwrap();
        symlink("loop", base.join("root/loop")).unwrap();
        let roots = Roots::new(base.join("root"), &[base.join("root").to_string_lossy().into_owned()]);
        (dir, base, roots)
    }

    #[test]
    fn only_directories_inside_are_listed_hidden_ones_last() {
        let (_dir, base, roots) = tree();
        let listed = roots.list("").unwrap();
        let names: Vec<_> = listed.entries.iter().map(|entry| (entry.name.as_str(), entry.is_git)).collect();
        assert_eq!(names, [("a", true), ("B", false), ("link", true), (".hidden", false)]);
        assert_eq!((listed.parent, listed.is_cut), (None, false));
        let below = roots.list("~/a").unwrap();
        assert_eq!(below.parent.as_deref(), base.join("root").to_str());
    }

    #[test]
    fn no_spelling_leads_outside() {
        let (_dir, base, roots) = tree();
        let root = base.join("root").to_string_lossy().into_owned();
        for escape in [
            format!("{root}/.."),
            format!("{root}/../outside"),
            format!("{root}/escape"),
            format!("{root}/escape/secret"),
            format!("{root}/a/../../rootless"),
            base.join("rootless").to_string_lossy().into_owned(),
            format!("{root}/loop"),
            format!("{root}/missing"),
            format!("{root}/a\0b"),
            "/".to_owned(),
            "relative".to_owned(),
            "~other".to_owned(),
        ] {
            let error = roots.list(&escape).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadDirectory, "{escape}");
            assert!(roots.resolve(&escape).is_err());
        }
        // What exists outside and what does not cannot be told apart.
        let there = roots.list(&format!("{root}/../outside")).unwrap_err().message.replace("outside", "X");
        let not_there =
            roots.list(&format!("{root}/../nowhere")).unwrap_err().message.replace("nowhere", "X");
        assert_eq!(there, not_there);
    }

    #[test]
    fn without_roots_errors_say_what_is_wrong() {
        let (_dir, base, _) = tree();
        let free = Roots::new(base.join("root"), &[]);
        assert!(free.list("/").is_ok());
        assert!(free.resolve("~").is_ok());
        let text = |path: &str| free.resolve(path).unwrap_err().message;
        assert!(text("~/nothing").contains("does not exist"));
        assert!(text("~/file").contains("not a directory"));
        assert!(text("x").contains("absolute"));
    }

    #[test]
    fn a_huge_directory_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..1003 {
            std::fs::create_dir(dir.path().join(format!("d{n}"))).unwrap();
        }
        let listed = Roots::new(dir.path().to_owned(), &[]).list("").unwrap();
        assert_eq!((listed.entries.len(), listed.is_cut), (1000, true));
    }
}

//! Finds the PostgreSQL programs that are installed on this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PostgresError;

/// Oldest version that the relay works with.
pub const OLDEST_MAJOR: u32 = 15;

/// One set of PostgreSQL programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installation {
    /// Directory of `initdb` and `postgres`.
    pub bin_dir: PathBuf,
    /// Major version.
    pub major: u32,
}

impl Installation {
    /// Path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

/// Every usable installation, newest first; only the given one if a directory is given.
///
/// # Errors
/// With the command that installs PostgreSQL, when there is none.
pub fn find(given: Option<&Path>) -> Result<Vec<Installation>, PostgresError> {
    if let Some(dir) = given {
        let found = examine(dir).ok_or_else(|| PostgresError::NotThere { dir: dir.to_owned() })?;
        return if found.major >= OLDEST_MAJOR {
            Ok(vec![found])
        } else {
            Err(PostgresError::TooOld { dir: found.bin_dir, major: found.major })
        };
    }
    let mut found: Vec<Installation> = candidates().iter().filter_map(|dir| examine(dir)).collect();
    found.sort_by_key(|installation| std::cmp::Reverse(installation.major));
    found.dedup_by_key(|installation| installation.major);
    if let Some(newest) = found.first()
        && newest.major < OLDEST_MAJOR
    {
        return Err(PostgresError::TooOld { dir: newest.bin_dir.clone(), major: newest.major });
    }
    found.retain(|installation| installation.major >= OLDEST_MAJOR);
    if found.is_empty() { Err(PostgresError::NotInstalled { hint: install_hint() }) } else { Ok(found) }
}

/// Directories where systems and package managers put the programs. Debian keeps them out of `PATH`.
fn candidates() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    // Parent directory, what the name of a version begins with, what follows it.
    for (parent, start, rest) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ] {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        let mut versions: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
            .map(|entry| entry.path().join(rest))
            .collect();
        versions.sort();
        dirs.extend(versions);
    }
    dirs.push(PathBuf::from("/usr/local/pgsql/bin"));
    dirs.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    dirs
}

fn examine(dir: &Path) -> Option<Installation> {
    let postgres = dir.join("postgres");
    if !dir.is_absolute() || !postgres.is_file() || !dir.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(postgres).arg("--version").stdin(Stdio::null()).output().ok()?;
    let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
    Some(Installation { bin_dir: dir.to_owned(), major })
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian …)` and `postgres (PostgreSQL) 18beta1`.
fn major_of(text: &str) -> Option<u32> {
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).map_or(version, |end| &version[..end]);
    digits.parse().ok()
}

fn install_hint() -> &'static str {
    if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else if Path::new("/etc/debian_version").exists() {
        "apt install postgresql"
    } else if Path::new("/etc/redhat-release").exists() {
        "dnf install postgresql-server"
    } else {
        "install the package `postgresql` of your system"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("postgres"), None);
    }

    #[test]
    fn a_directory_without_programs_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = find(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
    }
}

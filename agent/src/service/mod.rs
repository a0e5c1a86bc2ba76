//! The daemon as a service of the user: a systemd user unit on Linux, a launch agent on macOS.
//!
//! Invariant: no way of stopping the service ends a session.

mod launchd;
mod systemd;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use serde::Serialize;

/// What the service starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// Absolute path of this program.
    pub path: PathBuf,
    /// Arguments before `run`: configuration and data directory, where they are not the usual ones.
    pub arguments: Vec<String>,
    /// Search path for programs, as in the shell that installs the service.
    pub search_path: Option<String>,
    /// Home directory.
    pub home: PathBuf,
    /// Directory for configuration of programs, when it is not below the home directory.
    pub config_home: Option<PathBuf>,
}

/// State of the service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServiceStatus {
    /// `systemd` or `launchd`.
    pub manager: &'static str,
    /// The service file, if it is installed.
    pub file: Option<PathBuf>,
    /// True if it starts at login.
    pub is_enabled: bool,
    /// True if it runs now.
    pub is_running: bool,
    /// True if it also runs while nobody is logged in; absent where that does not apply or is unknown.
    pub lingers: Option<bool>,
    /// Why the manager could not be asked.
    pub problem: Option<String>,
}

/// What an installation did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Installed {
    /// The service file.
    pub file: PathBuf,
    /// Sentences for the person: what else to do.
    pub hints: Vec<String>,
}

/// Why the service cannot be changed. The texts are complete for a person.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No home directory.
    #[error("No home directory is known, so there is no place for the service file. Set HOME.")]
    NoHome,
    /// The path cannot stand in a service file.
    #[error(
        "The path {0} cannot stand in a service file. Move the program or the directory to a path of plain text."
    )]
    Path(PathBuf),
    /// The file cannot be written or removed.
    #[error("The service file {path} cannot be changed: {source}.")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The service manager refused.
    #[error(
        "{manager} does not take the service: {reason}. The file {file} is written; without a service manager run the daemon yourself: claudenest-agent run"
    )]
    Manager {
        /// `systemd` or `launchd`.
        manager: &'static str,
        /// What it said.
        reason: String,
        /// The service file.
        file: PathBuf,
    },
}

/// The text of the service file.
///
/// # Errors
/// [`ServiceError::Path`].
pub fn render(program: &Program) -> Result<String, ServiceError> {
    if cfg!(target_os = "macos") { launchd::render(program) } else { systemd::render(program) }
}

/// Writes the service file, starts the service now and at every login.
///
/// # Errors
/// [`ServiceError`].
pub fn install(program: &Program) -> Result<Installed, ServiceError> {
    if cfg!(target_os = "macos") { launchd::install(program) } else { systemd::install(program) }
}

/// Stops the service and removes its file; false if it was not installed. Sessions go on.
///
/// # Errors
/// [`ServiceError`].
pub fn uninstall(program: &Program) -> Result<bool, ServiceError> {
    if cfg!(target_os = "macos") { launchd::uninstall(program) } else { systemd::uninstall(program) }
}

/// Asks the service manager.
pub fn status(program: &Program) -> ServiceStatus {
    if cfg!(target_os = "macos") { launchd::status(program) } else { systemd::status(program) }
}

fn write(file: &std::path::Path, text: &str) -> Result<(), ServiceError> {
    let failed = |source| ServiceError::File { path: file.to_owned(), source };
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    std::fs::write(file, text).map_err(failed)
}

fn remove(file: &std::path::Path) -> Result<bool, ServiceError> {
    match std::fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(ServiceError::File { path: file.to_owned(), source }),
    }
}

/// Runs a command of the service manager: what it printed, or why it failed.
fn ask(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments.iter().map(OsString::from))
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| format!("{program} cannot be run ({error})"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let (said, printed) = (text(&output.stderr), text(&output.stdout));
    Err(if said.is_empty() { printed } else { said.lines().next().unwrap_or_default().to_owned() })
}

/// A path as text; control characters have no place in a service file.
fn plain(path: &std::path::Path) -> Result<&str, ServiceError> {
    path.to_str()
        .filter(|text| !text.chars().any(char::is_control))
        .ok_or_else(|| ServiceError::Path(path.to_owned()))
}

#[cfg(test)]
fn sample() -> Program {
    Program {
        path: PathBuf::from("/opt/my tools/100% \"x\"/claudenest-agent"),
        arguments: vec!["--data-dir".into(), "/srv/a&b <c>".into()],
        search_path: Some("/usr/bin:/opt/x y/bin".into()),
        home: PathBuf::from("/home/alice"),
        config_home: None,
    }
}

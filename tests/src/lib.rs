//! Harness of the end-to-end tests: the real programs, each in directories of its own, on loopback, ended by process id.
//!
//! Everything waits for events (readiness notices, socket messages, terminal output, process ends) with a deadline;
//! nothing sleeps. A harness object that is dropped ends what it started, also the sessions of an agent.

pub mod agent;
pub mod browser;
pub mod claude;
pub mod http;
pub mod process;
pub mod proxy;
pub mod pty;
pub mod relay;
pub mod terminal;
pub mod viewer;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long anything may take before a test gives up: generous, for a loaded machine with two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The root of the repository.
///
/// # Panics
/// Never: the crate lies in the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// Path of a program that cargo built together with the running test.
///
/// # Panics
/// If it is not there: only `cargo build --workspace --bins` builds the programs of other crates.
pub fn program(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the path of the running test");

    exe.ancestors()
        .skip(1)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not built: run `cargo build --workspace --bins`"))
}

/// A directory below the memory file system where there is one: PostgreSQL starts much faster there. Other users may pass through it.
///
/// # Panics
/// If it cannot be made.
pub fn scratch(what: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    let dir = tempfile::Builder::new()
        .prefix(&format!("cn-{what}-"))
        .tempdir_in(base)
        .expect("a scratch directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions of it");
    dir
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Random bytes.
///
/// # Panics
/// If the system has none.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("random bytes of the system");
    bytes
}

/// A loopback port that is free now. Below the range from which outgoing connections take theirs.
///
/// # Panics
/// If none of many is free.
pub fn free_port() -> u16 {
    (0..200)
        .map(|_| 18_000 + u16::from_le_bytes(random()) % 14_000)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port among 200")
}

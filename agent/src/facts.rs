//! What the machine says about itself. Cheap: a few small files, and Claude Code's version from a cache.

use std::collections::BTreeMap;

use claudenest_shared::machine::MachineFacts;

use crate::claude::Claude;
use crate::directory::Roots;

/// What this agent can do; unknown words are ignored by whoever reads them.
const CAPABILITIES: [&str; 9] = [
    "modes.interactive",
    "modes.headless",
    "modes.oneshot",
    "modes.shell",
    "session.hibernate",
    "session.queue",
    "session.screen",
    "session.worktree",
    "directory.list",
];

/// Gathers the facts. Blocking: may run `claude --version`, once per version.
pub fn gather(
    claude: &Claude,
    session_env: &BTreeMap<String, String>,
    roots: &Roots,
    max_sessions: u32,
) -> MachineFacts {
    let (load_1m, memory) = (load(), memory());
    let cpus =
        std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
    MachineFacts {
        hostname: hostname(),
        os: std::env::consts::OS.to_owned(),
        os_version: os_version(),
        arch: std::env::consts::ARCH.to_owned(),
        user: user_name(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        claude_version: claude
            .installed()
            .ok()
            .and_then(|found| found.version)
            .map(|version| version.to_string()),
        claude_logged_in: claude.is_logged_in(session_env),
        capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
        max_sessions,
        cpus,
        load_1m,
        memory_bytes: memory.0,
        memory_available_bytes: memory.1,
        roots: roots.as_text(),
        home: roots.home().to_string_lossy().into_owned(),
    }
}

/// The host name without control characters, at most 253 bytes.
pub fn hostname() -> String {
    #[cfg(target_os = "macos")]
    let name = command("/bin/hostname", &[]).unwrap_or_default();
    #[cfg(not(target_os = "macos"))]
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(253).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// Login name of the user that this process runs as.
pub fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw();
    let from_file = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, uid_field) = (fields.next()?, fields.nth(1)?);
            (uid_field.parse() == Ok(uid)).then(|| name.to_owned())
        })
    });
    from_file.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| uid.to_string())
}

/// Login shell of the user: from the account, else `$SHELL`, else `/bin/sh`.
pub fn login_shell() -> std::path::PathBuf {
    let uid = rustix::process::getuid().as_raw();
    let from_file = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| {
        text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.len() == 7 && fields[2].parse() == Ok(uid)).then(|| fields[6].trim().to_owned())
        })
    });
    let is_usable = |path: &String| {
        path.starts_with('/')
            && !path.ends_with("nologin")
            && !path.ends_with("/false")
            && std::path::Path::new(path).exists()
    };
    std::env::var("SHELL")
        .ok()
        .filter(is_usable)
        .or_else(|| from_file.filter(is_usable))
        .unwrap_or_else(|| "/bin/sh".to_owned())
        .into()
}

/// Changes with every boot; empty when the system does not say.
pub fn boot_id() -> String {
    #[cfg(target_os = "macos")]
    let text = command("/usr/sbin/sysctl", &["-n", "kern.bootsessionuuid"]);
    #[cfg(not(target_os = "macos"))]
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    text.map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(not(target_os = "macos"))]
fn os_version() -> String {
    std::fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|line| {
                line.strip_prefix("PRETTY_NAME=").map(|name| name.trim_matches('"').to_owned())
            })
        })
        .unwrap_or_else(|| {
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            format!("Linux {}", release.trim())
        })
}

#[cfg(target_os = "macos")]
fn os_version() -> String {
    let version = command("/usr/bin/sw_vers", &["-productVersion"]).unwrap_or_default();
    format!("macOS {}", version.trim())
}

#[cfg(not(target_os = "macos"))]
fn load() -> f64 {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

#[cfg(target_os = "macos")]
fn load() -> f64 {
    // "{ 1.20 1.10 1.00 }"
    command("/usr/sbin/sysctl", &["-n", "vm.loadavg"])
        .and_then(|text| text.split_whitespace().nth(1)?.replace(',', ".").parse().ok())
        .unwrap_or(0.0)
}

/// Physical and available memory in bytes.
#[cfg(not(target_os = "macos"))]
fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |key: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(key)?.strip_prefix(':')?.split_whitespace().next()?.parse::<u64>().ok()
            })
            .unwrap_or(0)
    };
    (kib("MemTotal") * 1024, kib("MemAvailable") * 1024)
}

#[cfg(target_os = "macos")]
fn memory() -> (u64, u64) {
    let total = command("/usr/sbin/sysctl", &["-n", "hw.memsize"])
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    // "Mach Virtual Memory Statistics: (page size of 16384 bytes)", then "Pages free:   1234."
    let text = command("/usr/bin/vm_stat", &[]).unwrap_or_default();
    let page: u64 = text
        .split("page size of ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(4096);
    let pages = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().trim_end_matches('.').parse::<u64>().ok())
            .unwrap_or(0)
    };
    (total, (pages("Pages free:") + pages("Pages inactive:") + pages("Pages speculative:")) * page)
}

#[cfg(target_os = "macos")]
fn command(program: &str, args: &[&str]) -> Option<String> {
    let output =
        std::process::Command::new(program).args(args).stdin(std::process::Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_true_for_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let claude = Claude::new(Some(dir.path().join("none")), dir.path().to_owned(), None);
        let facts = gather(&claude, &BTreeMap::new(), &Roots::new(dir.path().to_owned(), &[]), 10);
        assert!(!facts.hostname.is_empty() && !facts.user.is_empty() && !facts.os_version.is_empty());
        assert!(facts.memory_bytes > facts.memory_available_bytes && facts.memory_available_bytes > 0);
        assert!(facts.cpus >= 1);
        assert_eq!((facts.claude_version, facts.claude_logged_in), (None, None));
        assert!(login_shell().exists());
        assert!(!boot_id().is_empty());
    }
}

//! What the kernel says: CPU time, memory and context switches of processes, and what machine this is.

use std::fs::read_to_string;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time that processes have used so far, in seconds; those that are gone count nothing.
pub fn cpu(pids: &[u32]) -> f64 {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let of = |pid: &u32| {
        let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((user + system) / ticks)
    };
    pids.iter().filter_map(of).sum()
}

/// Context switches of all threads of processes.
pub fn switches(pids: &[u32]) -> u64 {
    let mut sum = 0;
    for pid in pids {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let status = read_to_string(task.path().join("status")).unwrap_or_default();
            let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
            sum += lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum::<u64>();
        }
    }
    sum
}

/// Memory of a process in KiB.
#[derive(Clone, Copy, Default, Debug)]
pub struct Memory {
    /// Its share of everything, shared pages divided.
    pub pss: f64,
    /// What is its own and not of a file.
    pub anonymous: f64,
}

/// Memory of a process.
pub fn memory(pid: u32) -> Memory {
    let rollup = read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let of = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0.0)
    };
    Memory { pss: of("Pss:"), anonymous: of("Anonymous:") }
}

/// The parent of a process.
pub fn parent(pid: u32) -> Option<u32> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// All descendants of a process, and itself.
pub fn tree(root: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&pid) = found.get(at) {
        found.extend(all.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        at += 1;
    }
    found
}

/// Lets time pass.
///
/// # Errors
/// If the kernel does not let it.
pub fn pause(time: Duration) -> Result<()> {
    super::workload::ready::<0>([], Some(time)).map(drop)
}

fn first_line(path: &str, start: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(start))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The share of the CPUs that others use now, as the kernel's load average says.
pub fn load() -> String {
    let text = read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

/// The machine in one line.
///
/// # Errors
/// Never on Linux.
pub fn machine() -> Result<String> {
    let cpus = std::thread::available_parallelism()?;
    let model = first_line("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let memory = first_line("/proc/meminfo", "MemTotal").unwrap_or_default();
    let gib =
        memory.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1048576.0;
    let kernel = read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
    let is_virtual = read_to_string("/proc/cpuinfo")?.contains("hypervisor");
    Ok(format!(
        "{cpus} CPUs ({model}{}), {gib:.0} GiB, Linux {}, loopback, terminals {}x{}",
        if is_virtual { ", virtual machine" } else { "" },
        kernel.trim(),
        super::terminal::COLS,
        super::terminal::ROWS,
    ))
}

/// Whether a program is on the PATH, and which version it says it is.
pub fn version(program: &str, argument: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| Path::new(path).is_file())?;
    let output = std::process::Command::new(program).arg(argument).output().ok()?;
    let text =
        String::from_utf8_lossy(if output.stdout.is_empty() { &output.stderr } else { &output.stdout });
    Some(text.lines().next().unwrap_or(program).to_owned())
}

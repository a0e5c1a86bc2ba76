//! CPU and memory of process trees. A sample costs one read per process of the machine, so it is taken only
//! while sessions live.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use claudenest_shared::machine::ResourceUse;
use claudenest_shared::time::UnixMs;

/// One process.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Process {
    pid: u32,
    parent: u32,
    /// Leader of its session; a process that lost its parent is still found by it.
    session: u32,
    cpu_seconds: f64,
    memory_bytes: u64,
}

/// Takes samples and remembers the last one, because CPU use is a difference.
#[derive(Debug, Default)]
pub struct Sampler {
    last: HashMap<u32, f64>,
    last_at: Option<Instant>,
}

impl Sampler {
    /// Samples the trees below `roots` (process ids of the sessions' children). Blocking, some milliseconds.
    pub fn sample(&mut self, roots: &[u32], now: Instant, wall: UnixMs) -> HashMap<u32, ResourceUse> {
        let processes = processes();
        let family = Family::of(&processes);
        let elapsed = self.last_at.map(|at| now.saturating_duration_since(at).as_secs_f64());
        let mut seen = HashMap::new();
        let mut result = HashMap::new();
        for root in roots {
            let mut sum = ResourceUse { sampled_at: wall, ..ResourceUse::default() };
            for process in family.tree(*root) {
                sum.processes += 1;
                sum.memory_bytes += process.memory_bytes;
                // A process seen for the first time may have used its time before the last sample.
                if let (Some(before), Some(elapsed)) = (self.last.get(&process.pid), elapsed)
                    && elapsed > 0.0
                {
                    sum.cpu_percent += (process.cpu_seconds - before).max(0.0) / elapsed * 100.0;
                }
                seen.insert(process.pid, process.cpu_seconds);
            }
            if sum.processes > 0 {
                sum.cpu_percent = (sum.cpu_percent * 10.0).round() / 10.0;
                result.insert(*root, sum);
            }
        }
        self.last = seen;
        self.last_at = Some(now);
        result
    }
}

/// Process ids of the tree below `root`, itself included, for a kill that spares nobody. Blocking.
pub fn tree_of(root: u32) -> Vec<u32> {
    Family::of(&processes()).tree(root).into_iter().map(|process| process.pid).collect()
}

/// Who belongs to whom, looked up many times.
struct Family<'a> {
    children: HashMap<u32, Vec<&'a Process>>,
    /// By process id and by the session that it is in: where trees start.
    starts: HashMap<u32, Vec<&'a Process>>,
}

impl<'a> Family<'a> {
    fn of(processes: &'a [Process]) -> Self {
        let (mut children, mut starts) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for process in processes {
            children.entry(process.parent).or_default().push(process);
            starts.entry(process.pid).or_default().push(process);
            if process.session != process.pid {
                starts.entry(process.session).or_default().push(process);
            }
        }
        Self { children, starts }
    }

    fn tree(&self, root: u32) -> Vec<Process> {
        let mut pending = self.starts.get(&root).cloned().unwrap_or_default();
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        while let Some(process) = pending.pop() {
            if seen.insert(process.pid) {
                found.push(*process);
                pending.extend(self.children.get(&process.pid).into_iter().flatten());
            }
        }
        found
    }
}

#[cfg(target_os = "linux")]
fn processes() -> Vec<Process> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as u64;
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    // A line has at most 52 numbers and a name of 64 characters; it comes in one piece.
    let mut buffer = [0; 2048];
    let mut read = |pid: u32| {
        let mut file = std::fs::File::open(format!("/proc/{pid}/stat")).ok()?;
        let size = std::io::Read::read(&mut file, &mut buffer).ok()?;
        parse_stat(&String::from_utf8_lossy(&buffer[..size]), ticks, page)
    };
    entries.flatten().filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// `pid (name) state ppid pgrp session … utime(14) stime(15) … rss(24)`; the name may hold anything, even `)`.
#[cfg(any(target_os = "linux", test))]
fn parse_stat(stat: &str, ticks: f64, page: u64) -> Option<Process> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    let rest: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| rest.get(field - 3)?.parse::<u64>().ok();
    Some(Process {
        pid,
        parent: u32::try_from(number(4)?).ok()?,
        session: u32::try_from(number(6)?).ok()?,
        cpu_seconds: (number(14)? + number(15)?) as f64 / ticks,
        memory_bytes: number(24)? * page,
    })
}

#[cfg(not(target_os = "linux"))]
fn processes() -> Vec<Process> {
    let output = std::process::Command::new("/bin/ps")
        .args(["-axo", "pid=,ppid=,sess=,rss=,time="])
        .stdin(std::process::Stdio::null())
        .output();
    let Ok(output) = output else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(parse_ps).collect()
}

/// `pid ppid sess rss(KiB) [[dd-]hh:]mm:ss.cc`; the session of macOS is a pointer and says nothing.
#[cfg(any(not(target_os = "linux"), test))]
fn parse_ps(line: &str) -> Option<Process> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [pid, parent, _, rss, time] = fields.as_slice() else { return None };
    let (days, clock) =
        time.split_once('-').map_or((0.0, *time), |(days, rest)| (days.parse().unwrap_or(0.0), rest));
    let mut cpu_seconds = 0.0;
    for part in clock.split(':') {
        cpu_seconds = cpu_seconds * 60.0 + part.parse::<f64>().ok()?;
    }
    Some(Process {
        pid: pid.parse().ok()?,
        parent: parent.parse().ok()?,
        session: 0,
        cpu_seconds: cpu_seconds + days * 86_400.0,
        memory_bytes: rss.parse::<u64>().ok()? * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_and_spaces_are_no_trouble() {
        let stat =
            "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 1 1000 3 18446744073709551615";
        assert_eq!(
            parse_stat(stat, 100.0, 4096),
            Some(Process { pid: 42, parent: 7, session: 42, cpu_seconds: 3.0, memory_bytes: 12_288 })
        );
        assert_eq!(parse_stat("", 100.0, 4096), None);
        assert_eq!(
            parse_ps("  501     1      0   2048   1-02:03:04.50"),
            Some(Process { pid: 501, parent: 1, session: 0, cpu_seconds: 93_784.5, memory_bytes: 2_097_152 })
        );
    }

    #[test]
    fn a_tree_holds_descendants_and_orphans_of_the_session_but_nobody_else() {
        let process =
            |pid, parent, session| Process { pid, parent, session, cpu_seconds: 0.0, memory_bytes: 0 };
        let all = [
            process(10, 1, 10),
            process(11, 10, 10),
            process(12, 1, 10),
            process(13, 12, 13),
            process(20, 1, 20),
        ];
        let mut pids: Vec<u32> = Family::of(&all).tree(10).iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [10, 11, 12, 13]);
    }

    #[test]
    fn a_busy_child_is_seen() {
        let mut child =
            std::process::Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let mut sampler = Sampler::default();
        let start = Instant::now();
        sampler.sample(&[child.id()], start, UnixMs(0));
        // The loop below is bounded by the kernel: the child gets CPU time sooner or later.
        let mut used = ResourceUse::default();
        while used.cpu_percent == 0.0 && start.elapsed().as_secs() < 20 {
            std::thread::yield_now();
            used = Sampler { last: sampler.last.clone(), last_at: sampler.last_at }
                .sample(&[child.id()], Instant::now(), UnixMs(1))
                .remove(&child.id())
                .unwrap_or_default();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(used.cpu_percent > 0.0 && used.memory_bytes > 0 && used.processes == 1, "{used:?}");
    }
}

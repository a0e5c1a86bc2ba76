//! Who is at the other end of the control socket: a person's program, or something that a supervised session has started.
//!
//! A process does not decide this itself. Its kernel-given number is followed up through its ancestors: whatever has a holder
//! above it, runs in the terminal session of a session's process, or was given a session's environment, is that
//! session's. Holders take in orphans (they are subreapers), so that leaving the parent does not help.
//! What cannot be looked at is nobody's, and may nothing. A limit: who may start processes through another service of the same user
//! (a running tmux, cron, systemd) is not below a holder any more.

use std::collections::HashMap;
use std::path::Path;

use claudenest_shared::id::SessionId;

/// Deeper than any tree of processes; a longer chain is cut, and refused.
const MAX_ANCESTORS: usize = 256;

/// What a process is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Peer {
    /// A program of the user; the label is for people: "dev on pts/3".
    Person(String),
    /// It belongs to a session: this one, or one that is not known any more.
    Session(Option<SessionId>),
    /// Nothing can be said about it.
    Unknown,
}

/// What is known of one process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Process {
    pid: u32,
    parent: u32,
    /// Number of its terminal session; 0 where the system does not say.
    session: u32,
    /// Its terminal: "pts/3".
    terminal: Option<String>,
    is_holder: bool,
    /// The session in its environment, if that was made by this daemon.
    marked: Option<Option<SessionId>>,
}

/// Finds out who the process `pid` is. `children` are the processes of live sessions, `socket` is the daemon's own.
/// Blocking: reads a few files for each ancestor.
pub(super) fn identify(pid: Option<u32>, children: &[(u32, SessionId)], socket: &Path) -> Peer {
    match pid {
        Some(pid) => follow(pid, children, |pid| read(pid, socket)),
        None => Peer::Unknown,
    }
}

fn follow(pid: u32, children: &[(u32, SessionId)], read: impl Fn(u32) -> Option<Process>) -> Peer {
    let children: HashMap<u32, SessionId> = children.iter().copied().collect();
    // The holder of a session is the parent of its process.
    let kept_by = |holder: u32| {
        let is_its = |child: &u32| read(*child).is_some_and(|process| process.parent == holder);
        children.iter().find(|(child, _)| is_its(child)).map(|(_, session)| *session)
    };
    let mut terminal = None;
    let mut at = pid;
    for _ in 0..MAX_ANCESTORS {
        let Some(process) = read(at) else {
            // An ancestor may end while it is looked at; the peer itself waits for its answer.
            return Peer::Unknown;
        };
        if let Some(session) = children.get(&process.pid).or_else(|| children.get(&process.session)) {
            return Peer::Session(Some(*session));
        }
        if process.is_holder {
            return Peer::Session(kept_by(process.pid));
        }
        if let Some(session) = process.marked {
            return Peer::Session(session);
        }
        terminal = terminal.or(process.terminal);
        if process.parent <= 1 {
            return Peer::Person(label(terminal.as_deref()));
        }
        at = process.parent;
    }
    Peer::Unknown
}

fn label(terminal: Option<&str>) -> String {
    let name =
        ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let name = name.unwrap_or_else(|| format!("user {}", rustix::process::geteuid().as_raw()));
    match terminal {
        Some(terminal) => format!("{name} on {terminal}"),
        None => format!("{name} on the command line"),
    }
}

/// True for `claudenest-agent holder`, however that program is called here.
fn is_holder(program: Option<&Path>, first_argument: Option<&str>) -> bool {
    first_argument == Some("holder")
        && program.is_some_and(|program| {
            let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_own = std::env::current_exe().is_ok_and(|own| own == program);
            // A program that an update has replaced is called "… (deleted)".
            is_own || name.starts_with("claudenest-agent")
        })
}

#[cfg(target_os = "linux")]
fn read(pid: u32, socket: &Path) -> Option<Process> {
    let dir = Path::new("/proc").join(pid.to_string());
    let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
    let mut process = parse_stat(&stat)?;
    let arguments = std::fs::read(dir.join("cmdline")).unwrap_or_default();
    let first = arguments.split(|byte| *byte == 0).nth(1).and_then(|text| std::str::from_utf8(text).ok());
    process.is_holder = first == Some("holder") && {
        let program = std::fs::read_link(dir.join("exe")).ok();
        is_holder(program.as_deref(), first)
    };
    // Not readable for processes of other users, which are above every session.
    let environment = std::fs::read(dir.join("environ")).unwrap_or_default();
    process.marked = marked(&environment, socket);
    Some(process)
}

/// `pid (name) state ppid pgrp session tty_nr …`; the name may hold anything, even `)`.
#[cfg(target_os = "linux")]
fn parse_stat(stat: &str) -> Option<Process> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    let rest: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| rest.get(at)?.parse::<u32>().ok();
    // See proc(5) and the kernel's admin-guide/devices.txt: 136 to 143 are pseudo-terminals, 4 is the console.
    let device = number(4)?;
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    let terminal = match major {
        136..=143 => Some(format!("pts/{}", minor + (major - 136) * 256)),
        4 if minor < 64 => Some(format!("tty{minor}")),
        _ => None,
    };
    Some(Process { pid, parent: number(1)?, session: number(3)?, terminal, ..Process::default() })
}

/// The session that an environment names, if it names this daemon's socket.
#[cfg(target_os = "linux")]
fn marked(environment: &[u8], socket: &Path) -> Option<Option<SessionId>> {
    use std::os::unix::ffi::OsStrExt;
    let value = |name: &[u8]| {
        let mut variables = environment.split(|byte| *byte == 0);
        variables.find_map(|variable| variable.strip_prefix(name)?.strip_prefix(b"="))
    };
    (value(b"CLAUDENEST_SOCKET")? == socket.as_os_str().as_bytes()).then(|| {
        let session = std::str::from_utf8(value(b"CLAUDENEST_SESSION")?).ok()?;
        session.parse().ok()
    })
}

/// Without `/proc`: one run of `ps`. It shows no environments.
#[cfg(not(target_os = "linux"))]
fn read(pid: u32, _socket: &Path) -> Option<Process> {
    let output = std::process::Command::new("/bin/ps")
        .args(["-o", "ppid=,tty=,command=", "-p", &pid.to_string()])
        .stdin(std::process::Stdio::null())
        .output()
        .ok()?;
    parse_ps(pid, &String::from_utf8_lossy(&output.stdout))
}

#[cfg(any(not(target_os = "linux"), test))]
fn parse_ps(pid: u32, line: &str) -> Option<Process> {
    let mut words = line.split_whitespace();
    let parent = words.next()?.parse().ok()?;
    let terminal = words.next().filter(|terminal| !terminal.starts_with('?')).map(str::to_owned);
    let (program, first) = (words.next().map(Path::new), words.next());
    Some(Process { pid, parent, terminal, is_holder: is_holder(program, first), ..Process::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(n: u8) -> SessionId {
        SessionId::from_bytes([n; 16])
    }

    fn process(pid: u32, parent: u32, session: u32) -> Process {
        Process { pid, parent, session, ..Process::default() }
    }

    /// A holder 10 with the session's process 11 below it, and a shell 20 of a person.
    fn world(pid: u32) -> Option<Process> {
        Some(match pid {
            10 => Process { is_holder: true, ..process(10, 1, 10) },
            11 => process(11, 10, 11),
            12 => process(12, 11, 11),
            // A daemon that left its terminal session and was taken in by the holder.
            13 => process(13, 10, 13),
            // An orphan of a killed holder, still in the terminal session.
            14 => process(14, 1, 11),
            // The same that left it too, with its environment.
            15 => Process { marked: Some(Some(session(1))), ..process(15, 1, 15) },
            16 => process(16, 15, 15),
            20 => Process { terminal: Some("pts/3".into()), ..process(20, 1, 20) },
            21 => process(21, 20, 20),
            30 => process(30, 31, 30), // Its parent has just ended.
            40 => Process { is_holder: true, ..process(40, 1, 40) },
            41 => process(41, 40, 41), // Below the holder of a session that has ended.
            50 => process(50, 50, 50), // Its own parent: nonsense.
            _ => return None,
        })
    }

    #[test]
    fn what_is_below_a_holder_is_its_sessions_whatever_it_says() {
        let children = [(11, session(1))];
        let check = |pid, expected: Peer| {
            let found = follow(pid, &children, world);
            let is_person = matches!((&found, &expected), (Peer::Person(found), Peer::Person(wanted)) if found.ends_with(wanted.as_str()));
            assert!(found == expected || is_person, "{pid}: {found:?}");
        };
        for pid in [11, 12, 13, 14, 15, 16] {
            check(pid, Peer::Session(Some(session(1))));
        }
        check(41, Peer::Session(None));
        check(21, Peer::Person(" on pts/3".into()));
        check(30, Peer::Unknown);
        check(50, Peer::Unknown);
        check(99, Peer::Unknown);
        assert_eq!(identify(None, &children, Path::new("/s")), Peer::Unknown);
    }

    #[test]
    fn this_test_is_a_persons_program() {
        assert!(matches!(identify(Some(std::process::id()), &[], Path::new("/nowhere")), Peer::Person(_)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_says_what_is_needed() {
        let found = parse_stat("42 (a) b (c)) S 7 42 41 34819 42 4194560 1 2 3").unwrap();
        assert_eq!((found.pid, found.parent, found.session), (42, 7, 41));
        assert_eq!(found.terminal.as_deref(), Some("pts/3"));
        assert_eq!(parse_stat("1 (init) S 0 1 1 0 -1").unwrap().terminal, None);
        let socket = Path::new("/run/x/control.sock");
        let id = session(1);
        let environment = format!("A=1\0CLAUDENEST_SESSION={id}\0CLAUDENEST_SOCKET=/run/x/control.sock\0");
        assert_eq!(marked(environment.as_bytes(), socket), Some(Some(id)));
        assert_eq!(marked(b"CLAUDENEST_SOCKET=/run/x/control.sock\0", socket), Some(None));
        assert_eq!(marked(environment.as_bytes(), Path::new("/run/other")), None);
        assert_eq!(marked(b"", socket), None);
    }

    #[test]
    fn ps_says_what_is_needed() {
        let found = parse_ps(7, " 501 ttys003  /opt/bin/claudenest-agent holder\n").unwrap();
        assert_eq!((found.parent, found.terminal.as_deref(), found.is_holder), (501, Some("ttys003"), true));
        let other = parse_ps(8, "1 ?? /bin/sh holder").unwrap();
        assert_eq!((other.terminal, other.is_holder), (None, false));
        assert_eq!(parse_ps(9, ""), None);
    }
}

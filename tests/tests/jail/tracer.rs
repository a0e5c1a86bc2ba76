//! Runs a command in real bash and watches, at the kernel's door, what it executes, opens for writing and connects to.
//!
//! A seccomp filter stops the traced processes at the system calls that matter and at no others. Whatever was not allowed is
//! recorded and does not happen, so that a wrong rating costs a failed test and not a disk.
#![expect(unsafe_code, reason = "fork, ptrace and seccomp have no safe wrapper")]

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::path::Path;

use libc::{c_int, c_long, pid_t};

/// What a traced command did that somebody must judge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// It executed this program with these words.
    Exec {
        /// Path of the program.
        path: String,
        /// Its words.
        words: Vec<String>,
    },
    /// It did something else than read.
    Other(String),
}

/// System calls at which a process stops. Everything that makes, changes or removes files, and everything that leaves the process.
const STOPS: &[(c_long, &str)] = &[
    (libc::SYS_execve, "execve"),
    (libc::SYS_execveat, "execveat"),
    (libc::SYS_open, "open"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_openat2, "openat2"),
    (libc::SYS_creat, "creat"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_bind, "bind"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_rename, "rename"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_mkdir, "mkdir"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_rmdir, "rmdir"),
    (libc::SYS_link, "link"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_symlink, "symlink"),
    (libc::SYS_symlinkat, "symlinkat"),
    (libc::SYS_truncate, "truncate"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_chmod, "chmod"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fchmodat, "fchmodat"),
    (libc::SYS_chown, "chown"),
    (libc::SYS_lchown, "lchown"),
    (libc::SYS_fchownat, "fchownat"),
    (libc::SYS_mknod, "mknod"),
    (libc::SYS_mknodat, "mknodat"),
    (libc::SYS_utimensat, "utimensat"),
    (libc::SYS_setxattr, "setxattr"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_ptrace, "ptrace"),
    (libc::SYS_setuid, "setuid"),
    (libc::SYS_reboot, "reboot"),
    (libc::SYS_sethostname, "sethostname"),
    (libc::SYS_clock_settime, "clock_settime"),
    (libc::SYS_init_module, "init_module"),
];

/// Runs `bash` with `arguments` in `dir`; `allow` says of every act whether it may happen. Returns those that may not.
pub fn run(
    arguments: &[&str],
    dir: &Path,
    environment: &[(&str, &str)],
    allow: impl Fn(&Act) -> bool,
) -> Vec<Act> {
    let text = |text: &str| CString::new(text).expect("no zero bytes in arguments");
    let words: Vec<CString> = std::iter::once("bash").chain(arguments.iter().copied()).map(text).collect();
    let variables: Vec<CString> =
        environment.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect();
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (words_at, variables_at) = (pointers(&words), pointers(&variables));
    let dir = text(dir.to_str().expect("the jail's path is UTF-8"));
    let filter = filter();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    let mut gate = [0; 2];
    // SAFETY: the child calls nothing but system calls between fork and exec, on memory made before.
    let child = unsafe {
        assert_eq!(libc::pipe2(gate.as_mut_ptr(), libc::O_CLOEXEC), 0);
        let child = libc::fork();
        if child == 0 {
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            for descriptor in 0..3 {
                libc::dup2(null, descriptor);
            }
            libc::setsid();
            // Endless output must end.
            let limit = libc::rlimit { rlim_cur: 2, rlim_max: 2 };
            libc::setrlimit(libc::RLIMIT_CPU, &limit);
            let mut byte = 0u8;
            // The tracer is there once this returns.
            if libc::read(gate[0], (&raw mut byte).cast(), 1) != 1
                || libc::chdir(dir.as_ptr()) != 0
                || libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
            {
                libc::_exit(253);
            }
            libc::execve(c"/bin/bash".as_ptr(), words_at.as_ptr(), variables_at.as_ptr());
            libc::_exit(254);
        }
        child
    };
    assert!(child > 0, "a process can be made");
    let options = libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_EXITKILL;
    // SAFETY: the process is a child of this thread that waits at the gate.
    unsafe {
        assert_eq!(
            libc::ptrace(libc::PTRACE_SEIZE, child, 0, options as usize),
            0,
            "the child can be traced"
        );
        assert_eq!(libc::write(gate[1], b"x".as_ptr().cast(), 1), 1);
        libc::close(gate[0]);
        libc::close(gate[1]);
    }
    let (acts, code) = watch(child, allow);
    assert!(code != Some(253) && code != Some(254), "bash could not be started in the jail");
    acts
}

fn filter() -> Vec<libc::sock_filter> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    // The number of the system call is the first field.
    let mut steps = vec![step(LOAD, 0, 0, 0)];
    let count = STOPS.len();
    for (index, (number, _)) in STOPS.iter().enumerate() {
        steps.push(step(EQUAL, (count - index) as u8, 0, *number as u32));
    }
    steps.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    steps.push(step(RETURN, 0, 0, libc::SECCOMP_RET_TRACE));
    steps
}

/// Follows the process and all that it starts to their ends.
fn watch(root: pid_t, allow: impl Fn(&Act) -> bool) -> (Vec<Act>, Option<c_int>) {
    let mut acts = Vec::new();
    let mut alive: HashMap<pid_t, ()> = HashMap::from([(root, ())]);
    let mut code = None;
    let mut is_first = true;
    while !alive.is_empty() {
        let mut status = 0;
        // SAFETY: a plain system call; only children and tracees of this thread are waited for.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if pid < 0 {
            break;
        }
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if pid == root && libc::WIFEXITED(status) {
                code = Some(libc::WEXITSTATUS(status));
            }
            alive.remove(&pid);
            continue;
        }
        alive.insert(pid, ());
        let event = status >> 16;
        let mut signal = 0;
        if event == libc::PTRACE_EVENT_SECCOMP {
            if let Some(act) = act_of(pid) {
                // The first is bash itself.
                let is_bash = std::mem::take(&mut is_first);
                if !is_bash && !allow(&act) {
                    refuse(pid);
                    acts.push(act);
                }
            }
        } else if event == 0 && libc::WSTOPSIG(status) != libc::SIGTRAP {
            signal = libc::WSTOPSIG(status);
        }
        // SAFETY: the process is stopped and traced by this thread.
        unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, signal as usize) };
    }
    (acts, code)
}

fn registers(pid: pid_t) -> Option<libc::user_regs_struct> {
    // SAFETY: the structure is plain data that the kernel fills.
    unsafe {
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        (libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut registers) == 0).then_some(registers)
    }
}

/// Makes the system call at which the process stands fail without an effect.
fn refuse(pid: pid_t) {
    let Some(mut registers) = registers(pid) else { return };
    registers.orig_rax = u64::MAX;
    registers.rax = (-i64::from(libc::EPERM)) as u64;
    // SAFETY: the process is stopped; only its registers change.
    unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, 0, &raw const registers) };
}

/// What the system call would do; nothing if it only reads.
fn act_of(pid: pid_t) -> Option<Act> {
    let registers = registers(pid)?;
    let number = registers.orig_rax as c_long;
    let name = STOPS.iter().find(|(known, _)| *known == number).map_or("unknown", |(_, name)| name);
    let (path_at, flags) = match number {
        libc::SYS_execve => {
            let words = pointers(pid, registers.rsi).into_iter().map(|at| string(pid, at)).collect();
            return Some(Act::Exec { path: string(pid, registers.rdi), words });
        }
        libc::SYS_open => (registers.rdi, registers.rsi),
        libc::SYS_openat => (registers.rsi, registers.rdx),
        libc::SYS_openat2 => (registers.rsi, word(pid, registers.rdx)),
        libc::SYS_connect | libc::SYS_bind => return address(pid, name, registers.rsi, registers.rdx),
        libc::SYS_sendto if registers.r8 == 0 => return None,
        libc::SYS_sendto => return address(pid, name, registers.r8, registers.r9),
        libc::SYS_sendmsg => return Some(Act::Other("sendmsg".to_owned())),
        _ => return Some(Act::Other(format!("{name} {}", string(pid, registers.rdi)))),
    };
    let path = string(pid, path_at);
    let writes = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND) as u64;
    // bash looks for a terminal of its own; writing there is what a terminal is for.
    let is_stream = path == "/dev/null" || path == "/dev/tty";
    (flags & writes != 0 && !is_stream).then(|| Act::Other(format!("{name} {path} for writing")))
}

fn address(pid: pid_t, name: &str, at: u64, length: u64) -> Option<Act> {
    let bytes = bytes(pid, at, length.min(128) as usize);
    let family = bytes.get(..2).map_or(0, |two| u16::from_ne_bytes([two[0], two[1]]));
    let path = bytes.get(2..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
    let path = String::from_utf8_lossy(path).into_owned();
    // The C library asks the name service cache for names of users, if there is one.
    if c_int::from(family) == libc::AF_UNIX && path == "/var/run/nscd/socket" {
        return None;
    }
    Some(Act::Other(format!("{name} family {family} {path:?}")))
}

fn bytes(pid: pid_t, at: u64, length: usize) -> Vec<u8> {
    let mut buffer = vec![0u8; length];
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: length };
    let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: length };
    // SAFETY: the kernel checks both ranges; the buffer is as long as it says.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    buffer.truncate(read.max(0) as usize);
    buffer
}

fn word(pid: pid_t, at: u64) -> u64 {
    bytes(pid, at, 8).try_into().map_or(0, u64::from_ne_bytes)
}

fn pointers(pid: pid_t, at: u64) -> Vec<u64> {
    (0..4096).map(|index| word(pid, at + index * 8)).take_while(|pointer| *pointer != 0).collect()
}

/// A string, read page by page: the next page may not be there.
fn string(pid: pid_t, at: u64) -> String {
    let mut text = Vec::new();
    while text.len() < 64 * 1024 {
        let from = at + text.len() as u64;
        let chunk = bytes(pid, from, (4096 - from % 4096) as usize);
        if chunk.is_empty() {
            break;
        }
        if let Ok(end) = CStr::from_bytes_until_nul(&chunk) {
            text.extend_from_slice(end.to_bytes());
            break;
        }
        text.extend_from_slice(&chunk);
    }
    String::from_utf8_lossy(&text).into_owned()
}

//! The few system calls that no safe wrapper offers. Nothing else in the crate may be unsafe.
#![expect(unsafe_code, reason = "signal masks, fork hooks and descriptors have no safe wrapper")]

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Signals that must not end a holder by accident.
const SHIELDED: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

fn shielded_set() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set before it is read, and every signal number is valid.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in SHIELDED {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Blocks the signals that others may send to the daemon's family, in this thread and in those it starts later.
pub(super) fn shield_from_signals() {
    let set = shielded_set();
    // SAFETY: the set is initialised; a null old set is allowed.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Waits for one of the shielded signals and returns it.
pub(super) fn wait_for_signal() -> i32 {
    let set = shielded_set();
    let mut signal = 0;
    // SAFETY: both pointers are valid for the call.
    unsafe {
        libc::sigwait(&raw const set, &raw mut signal);
    }
    signal
}

/// SIGTERM, the only shielded signal with a meaning.
pub(super) const SIGTERM: i32 = libc::SIGTERM;

/// Closes every descriptor above the standard three. Call before any thread or file is opened.
pub(super) fn close_inherited() {
    #[cfg(target_os = "linux")]
    // SAFETY: no Rust object owns a descriptor above 2 at this point.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
    }
    #[cfg(not(target_os = "linux"))]
    for fd in 3..256 {
        // SAFETY: as above; closing a descriptor that is not open is harmless.
        unsafe {
            libc::close(fd);
        }
    }
}

/// Makes the descriptor `from` (which stays open) also `to`.
pub(super) fn duplicate_onto(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: dup2 takes any two numbers and fails cleanly.
    if unsafe { libc::dup2(from, to) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets the child start a session of its own with default signals, and `has_terminal` make its standard input the controlling terminal.
pub(super) fn prepare_child(command: &mut Command, has_terminal: bool) {
    let prepare = move || {
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe {
            for signal in [
                libc::SIGCHLD,
                libc::SIGHUP,
                libc::SIGINT,
                libc::SIGQUIT,
                libc::SIGTERM,
                libc::SIGALRM,
                libc::SIGPIPE,
                libc::SIGTSTP,
                libc::SIGTTIN,
                libc::SIGTTOU,
            ] {
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut empty: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut empty);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut());
            if libc::setsid() < 0 {
                return Err(io::Error::last_os_error());
            }
            if has_terminal && libc::ioctl(0, libc::TIOCSCTTY as _, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Makes this process the parent of what its descendants leave behind: a daemon that a session starts stays below the
/// holder, where everybody can see whose it is. Does nothing where the system has no such thing.
pub(super) fn take_in_orphans() {
    #[cfg(target_os = "linux")]
    // SAFETY: takes numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    }
}

/// Waits for the end of orphans that were taken in, until `child` has ended, which is left for its own waiter.
pub(super) fn reap_orphans(child: u32) {
    loop {
        // SAFETY: an all-zero siginfo_t is valid, and the pointer is valid for the call.
        let ended = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            match libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOWAIT) {
                0 => info.si_pid(),
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => continue,
                _ => return,
            }
        };
        if u32::try_from(ended) == Ok(child) {
            return; // The run is over; init takes in what is left when this process ends.
        }
        // SAFETY: a null status is allowed.
        unsafe {
            libc::waitpid(ended, std::ptr::null_mut(), libc::WNOHANG);
        }
    }
}

/// True if the process at the other end belongs to the user of this one.
pub(super) fn is_same_user(stream: &UnixStream) -> bool {
    // SAFETY: geteuid has no preconditions.
    let own = unsafe { libc::geteuid() };
    peer_user(stream).is_some_and(|user| user == own)
}

#[cfg(target_os = "linux")]
fn peer_user(stream: &UnixStream) -> Option<libc::uid_t> {
    rustix::net::sockopt::socket_peercred(stream).ok().map(|peer| peer.uid.as_raw())
}

#[cfg(not(target_os = "linux"))]
fn peer_user(stream: &UnixStream) -> Option<libc::uid_t> {
    use std::os::fd::AsRawFd;
    let (mut user, mut group) = (0, 0);
    // SAFETY: the descriptor is open and both pointers are valid for the call.
    let result = unsafe { libc::getpeereid(stream.as_raw_fd(), &raw mut user, &raw mut group) };
    (result == 0).then_some(user)
}

/// Keeps glibc from giving every thread an arena of its own: a holder has seven threads and little memory.
pub(super) fn use_one_arena() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: called before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

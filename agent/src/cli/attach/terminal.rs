//! The person's terminal: raw mode, its restoration whatever happens, reading and writing it.
//!
//! Invariant: once raw mode was entered, the terminal is restored on return, on error, on a panic and on
//! every signal that can be caught.

use std::io::{self, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use bytes::{Buf, Bytes};
use claudenest_shared::session::TermSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use crate::unix_socket;

/// Puts a terminal that any program may have left in any mode back to what a shell expects:
/// synchronized update, alternate screen, mouse modes, focus, bracketed paste, kitty and xterm keyboards,
/// keypad, insert, origin, margins, character set, autowrap, cursor, colours, tab stops.
const RESET: &str = "\x1b[?2026l\x1b[?1049l\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\
                     \x1b[?1015l\x1b[?1016l\x1b[?2004l\x1b[<8u\x1b[=0u\x1b[>4;0m\x1b[?1l\x1b>\x1b[4l\x1b[20l\x1b[?6l\x1b[?69l\
                     \x1b[r\x1b(B\x1b)B\x0f\x1b[?7h\x1b[?45l\x1b[?25h\x1b[0 q\x1b[0m\x1b]8;;\x1b\\\x1b[?5W";
/// Output that waits for a slow terminal; more would only be latency.
const PENDING: usize = 16;
/// One read: a paste comes in large pieces.
const READ_BYTES: usize = 64 * 1024;

static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Raw mode as long as this lives.
pub(in crate::cli) struct RawMode;

impl RawMode {
    /// Enters raw mode.
    pub(in crate::cli) fn enter() -> io::Result<Self> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                before(info);
            }));
        });
        let saved = tcgetattr(io::stdin())?;
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        let raw = Self;
        raw.again()?;
        Ok(raw)
    }

    /// Sets raw mode anew, after somebody else has changed it.
    pub(in crate::cli) fn again(&self) -> io::Result<()> {
        let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(mut attributes) = saved {
            attributes.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Now, &attributes)?;
        }
        Ok(())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal; harmless when it is not in raw mode.
fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(attributes) = saved {
        let rows = size().map_or(24, |size| size.rows);
        let mut out = io::stdout().lock();
        // Leaving the alternate screen moves the cursor: only then it goes below everything, to an empty line.
        let _ = write!(out, "{RESET}\x1b[{rows};1H\r\n").and_then(|()| out.flush());
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &attributes);
    }
}

/// Standard output's terminal as a descriptor that does not wait.
fn open_again() -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let name = rustix::termios::ttyname(io::stdout(), Vec::new())?;
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(name, flags, Mode::empty())?)
}

/// Size of this terminal, if standard output is one.
pub(in crate::cli) fn size() -> Option<TermSize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let size = tcgetwinsize(io::stdout()).ok()?;
    // Some terminals know no size and say 0.
    (size.ws_col > 0 && size.ws_row > 0).then(|| TermSize::clamped(size.ws_col, size.ws_row))
}

/// Bytes that make the terminal ready for a snapshot: everything reset, screen empty, cursor at home.
pub(in crate::cli) fn blank() -> Vec<u8> {
    format!("{RESET}\x1b[H\x1b[2J").into_bytes()
}

/// Bytes that move what is on the screen into the scrollback, so that attaching overwrites nothing.
pub(in crate::cli) fn keep_screen(rows: u16) -> Vec<u8> {
    let mut bytes = format!("\x1b[{rows};1H").into_bytes();
    bytes.extend(std::iter::repeat_n(b'\n', usize::from(rows)));
    bytes
}

/// Standard input, read when something is there.
pub(in crate::cli) struct Keyboard {
    stdin: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Keyboard {
    pub(in crate::cli) fn new() -> io::Result<Self> {
        let own = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 0)?;
        let stdin = unix_socket::poll(own, Interest::READABLE)?;
        Ok(Self { stdin, buffer: vec![0; READ_BYTES] })
    }

    /// What was typed; empty when the terminal is gone. Cancel safe: nothing is read before it is returned.
    pub(in crate::cli) async fn read(&mut self) -> io::Result<&[u8]> {
        loop {
            let mut ready = self.stdin.readable().await?;
            // The descriptor blocks (it is shared with the shell), but it is readable now.
            let result = rustix::io::read(self.stdin.get_ref(), &mut self.buffer[..]);
            ready.clear_ready();
            match result {
                Ok(size) => return Ok(&self.buffer[..size]),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                // The terminal was hung up.
                Err(rustix::io::Errno::IO) => return Ok(&[]),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Standard output. What the terminal takes at once is written at once; the rest on a thread of its own: a terminal that
/// is stopped must not stop the detach keys.
pub(in crate::cli) struct Display {
    sender: Option<mpsc::Sender<Bytes>>,
    /// Bytes that the terminal has taken.
    pub(in crate::cli) written: watch::Receiver<u64>,
    total: Arc<watch::Sender<u64>>,
    /// Pieces that the thread has not written yet: nothing may overtake them.
    waiting: Arc<AtomicUsize>,
    /// The same terminal, opened anew so that only this descriptor does not wait (the other is shared with the shell).
    direct: Option<OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Display {
    pub(in crate::cli) fn new() -> io::Result<Self> {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(PENDING);
        let (total, written) = watch::channel(0);
        let (total, waiting) = (Arc::new(total), Arc::new(AtomicUsize::new(0)));
        let (its_total, its_waiting) = (Arc::clone(&total), Arc::clone(&waiting));
        let thread = std::thread::Builder::new().name("display".to_owned()).spawn(move || {
            while let Some(bytes) = receiver.blocking_recv() {
                let mut out = io::stdout().lock();
                if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
                    return;
                }
                its_waiting.fetch_sub(1, Ordering::AcqRel);
                its_total.send_modify(|total| *total += bytes.len() as u64);
            }
        })?;
        let sender = Some(sender);
        Ok(Self { sender, written, total, waiting, direct: open_again().ok(), thread: Some(thread) })
    }

    /// Shows a piece of output, or waits for a place where it can wait.
    pub(in crate::cli) async fn show(&self, mut bytes: Bytes) {
        self.write_now(&mut bytes);
        if bytes.is_empty() {
            return;
        }
        let Some(sender) = &self.sender else { return };
        // Nothing can be shown on a terminal that is gone; the reader finds that out.
        if let Ok(place) = sender.reserve().await {
            self.waiting.fetch_add(1, Ordering::AcqRel);
            place.send(bytes);
        }
    }

    /// Writes as much as the terminal takes at once.
    fn write_now(&self, bytes: &mut Bytes) {
        let Some(direct) = &self.direct else { return };
        if self.waiting.load(Ordering::Acquire) > 0 {
            return;
        }
        if let Ok(size) = rustix::io::write(direct, bytes) {
            bytes.advance(size);
            // Nobody needs to be woken: whoever shows something looks at the total next.
            self.total.send_if_modified(|total| {
                *total += size as u64;
                false
            });
        }
    }

    /// Waits until everything is on the terminal, but not for one that is stopped.
    pub(in crate::cli) async fn finish(mut self) {
        self.sender = None;
        let Some(thread) = self.thread.take() else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join());
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), joined).await;
    }
}

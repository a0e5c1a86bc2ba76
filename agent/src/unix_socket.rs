//! Unix stream sockets between our own processes, without needless wake-ups.
//!
//! The kernel tells a poller of a Unix socket that it can be written again whenever the other side has read something, and
//! tokio's own streams always poll for both directions: every keystroke would wake its sender a second time, on the way
//! of the echo. Here a socket is polled for reading only; writing is tried at once, and polled for only while the
//! other side does not take what there is.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room that a read makes at least.
const MIN_READ_BYTES: usize = 4 * 1024;

/// Connects to the socket at `path`.
///
/// # Errors
/// As `connect(2)`: `NotFound` or `ConnectionRefused` when nobody listens.
///
/// # Cancel safety
/// Cancel safe.
pub(crate) async fn connect(path: &Path) -> io::Result<(ReadHalf, WriteHalf)> {
    split(tokio::net::UnixStream::connect(path).await?)
}

/// Takes a connected stream over.
///
/// # Errors
/// When the descriptor cannot be registered anew.
pub(crate) fn split(stream: tokio::net::UnixStream) -> io::Result<(ReadHalf, WriteHalf)> {
    let stream = Arc::new(stream.into_std()?);
    let polled = poll(Arc::clone(&stream), Interest::READABLE)?;
    Ok((ReadHalf { polled }, WriteHalf { stream }))
}

/// Registers a descriptor with the reactor.
///
/// # Errors
/// When it cannot be polled, or not a second time.
#[expect(unsafe_code, reason = "registering a descriptor with the reactor is an unsafe call")]
pub(crate) fn poll<T: AsRawFd>(descriptor: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: the descriptor is owned by the `AsyncFd`, and stays open and the same until it is dropped.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }
        .map_err(|error| io::Error::other(error.to_string()))
}

/// The reading half.
pub(crate) struct ReadHalf {
    polled: AsyncFd<Arc<UnixStream>>,
}

impl std::fmt::Debug for ReadHalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadHalf")
    }
}

impl ReadHalf {
    /// Appends what has come to `buffer`; 0 at the end.
    ///
    /// # Errors
    /// As `recv(2)`.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is read before it is returned.
    pub(crate) async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        if buffer.capacity() - buffer.len() < MIN_READ_BYTES {
            buffer.reserve(MIN_READ_BYTES);
        }
        loop {
            let mut ready = self.polled.readable().await?;
            let room = buffer.spare_capacity_mut();
            let wanted = room.len();
            match rustix::net::recv(self.polled.get_ref(), room, RecvFlags::DONTWAIT) {
                Ok(((_, _), size)) => {
                    // Everything was taken; what comes from now on is told anew.
                    if size > 0 && size < wanted {
                        ready.clear_ready();
                    }
                    #[expect(unsafe_code, reason = "the kernel has filled that much of the spare room")]
                    // SAFETY: `recv` has initialised `size` bytes, which is at most the spare capacity.
                    unsafe {
                        buffer.advance_mut(size);
                    }
                    return Ok(size);
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The writing half.
pub(crate) struct WriteHalf {
    stream: Arc<UnixStream>,
}

impl std::fmt::Debug for WriteHalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriteHalf")
    }
}

impl WriteHalf {
    /// The part that writes what can be written at once.
    pub(crate) fn direct(&self) -> Direct {
        Direct(Arc::clone(&self.stream))
    }

    /// Waits until something can be written, with a second descriptor that is polled for writing as long as this waits.
    ///
    /// # Errors
    /// When no second descriptor can be had.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        let blocked = poll(self.stream.try_clone()?, Interest::WRITABLE)?;
        blocked.writable().await.map(drop)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// As `send(2)`.
    ///
    /// # Cancel safety
    /// Not cancel safe: a part may have been written.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let direct = self.direct();
        loop {
            bytes = &bytes[direct.write(bytes)?..];
            if bytes.is_empty() {
                return Ok(());
            }
            self.writable().await?;
        }
    }
}

/// Writes without waiting.
#[derive(Clone, Debug)]
pub(crate) struct Direct(Arc<UnixStream>);

impl Direct {
    /// Writes what the other side takes at once; 0 if nothing.
    ///
    /// # Errors
    /// As `send(2)`, but for a socket that is full.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match rustix::net::send(&*self.0, &bytes[written..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(size) => written += size,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> ((ReadHalf, WriteHalf), (ReadHalf, WriteHalf)) {
        let (a, b) = tokio::net::UnixStream::pair().unwrap();
        (split(a).unwrap(), split(b).unwrap())
    }

    #[tokio::test]
    async fn more_than_the_socket_takes_arrives_whole_and_in_order() {
        let ((_, writer), (reader, _)) = pair();
        let sent: Vec<u8> = (0..4_000_000u32).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            for piece in sent.chunks(70_001) {
                writer.write_all(piece).await.unwrap();
            }
        });
        let mut got = BytesMut::new();
        while reader.read(&mut got).await.unwrap() > 0 {}
        writing.await.unwrap();
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    }

    #[tokio::test]
    async fn a_direct_write_says_how_much_was_taken_and_the_end_is_seen() {
        let ((_, writer), (reader, other)) = pair();
        let direct = writer.direct();
        let piece = [7; 64 * 1024];
        let mut taken = 0;
        loop {
            match direct.write(&piece).unwrap() {
                0 => break,
                size => taken += size,
            }
        }
        drop((writer, direct));
        drop(other);
        let mut got = BytesMut::new();
        // The first end still lives in its reading half: only what was written comes.
        while got.len() < taken {
            assert!(reader.read(&mut got).await.unwrap() > 0);
        }
        assert_eq!(got.len(), taken);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_end_and_an_error() {
        let ((gone_reader, gone_writer), (reader, writer)) = pair();
        drop((gone_reader, gone_writer));
        assert_eq!(reader.read(&mut BytesMut::new()).await.unwrap(), 0);
        assert!(writer.direct().write(b"x").is_err());
    }
}

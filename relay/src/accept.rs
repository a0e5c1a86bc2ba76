//! What a connection must do before it costs anything: speak HTTP/1.1, and begin in time.
//!
//! The HTTP server waits without end for the first bytes, because it wants to know which version they are of; and it has
//! no switch against the second version that leaves WebSockets possible.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum_server::accept::Accept;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How a connection of HTTP/2 begins. No request of HTTP/1.1 does.
const OTHER_VERSION: &[u8] = b"PRI * HTTP/2";

/// Accepts as `inner` does, and cuts connections that begin too late or as HTTP/2.
#[derive(Clone, Debug)]
pub struct Begins<A> {
    inner: A,
    within: Duration,
}

impl<A> Begins<A> {
    /// Wraps an acceptor.
    pub fn new(inner: A, within: Duration) -> Self {
        Self { inner, within }
    }
}

impl<I, S, A> Accept<I, S> for Begins<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
    A::Stream: Send,
    A::Service: Send,
{
    type Stream = Beginning<A::Stream>;
    type Service = A::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let (accepting, within) = (self.inner.accept(stream, service), self.within);
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            let begins = Some(Start { deadline: Box::pin(sleep(within)), matched: 0 });
            Ok((Beginning { stream, begins }, service))
        })
    }
}

#[derive(Debug)]
struct Start {
    deadline: Pin<Box<Sleep>>,
    /// Bytes so far, all of them as HTTP/2 has them.
    matched: usize,
}

/// A stream that is looked at until its first bytes have come.
#[derive(Debug)]
pub struct Beginning<S> {
    stream: S,
    begins: Option<Start>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Beginning<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Some(start) = &mut self.begins else { return read };
        if read.is_pending() {
            ready!(start.deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        for byte in &buf.filled()[before..] {
            if OTHER_VERSION.get(start.matched) != Some(byte) {
                self.begins = None;
                return read;
            }
            start.matched += 1;
            if start.matched == OTHER_VERSION.len() {
                buf.set_filled(before); // A read that fails has read nothing.
                return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Beginning<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    fn beginning() -> (DuplexStream, Beginning<DuplexStream>) {
        let (client, stream) = tokio::io::duplex(64);
        let start = Start { deadline: Box::pin(sleep(Duration::from_secs(75))), matched: 0 };
        (client, Beginning { stream, begins: Some(start) })
    }

    #[tokio::test(start_paused = true)]
    async fn what_begins_late_is_cut_and_what_has_begun_is_not() {
        for first in ["", "P", "PRI * HTTP/"] {
            let (mut client, mut server) = beginning();
            client.write_all(first.as_bytes()).await.unwrap();
            let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{first}");
        }
        let (mut client, mut server) = beginning();
        client.write_all(b"PRINT").await.unwrap();
        let mut bytes = [0; 5];
        server.read_exact(&mut bytes).await.unwrap();
        let later = tokio::time::timeout(Duration::from_secs(3_600), server.read_u8()).await;
        assert!(later.is_err(), "it waits as long as the HTTP server lets it");
    }

    #[tokio::test]
    async fn the_other_version_is_refused_however_it_is_cut() {
        for cut in [1, 5, 11] {
            let (mut client, mut server) = beginning();
            let (head, rest) = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".split_at(cut);
            let sending = async {
                client.write_all(head).await.unwrap();
                tokio::task::yield_now().await;
                client.write_all(rest).await.unwrap();
            };
            let mut bytes = Vec::new();
            let (_, result) = tokio::join!(sending, server.read_to_end(&mut bytes));
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::Unsupported, "{cut}");
        }
    }
}

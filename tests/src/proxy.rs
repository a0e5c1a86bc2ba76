//! A TCP proxy that can be cut, closed, stalled, or made to answer every request with an HTTP error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does with connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weather {
    /// Passes everything on.
    Clear,
    /// Answers every new connection with this HTTP status, and cuts the present ones.
    Status(u16),
    /// Closes every new connection at once, and cuts the present ones.
    Away,
}

/// A proxy on a loopback port; it ends when it is dropped.
pub struct Proxy {
    port: u16,
    weather: watch::Sender<(u64, Weather)>,
    refused: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on `listen` and passes on to `target`, both loopback ports. Listen on 0 for any.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn start(listen: u16, target: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", listen)).await?;
        let port = listener.local_addr()?.port();
        let (weather, watched) = watch::channel((0, Weather::Clear));
        let refused = Arc::new(AtomicU64::new(0));
        let counter = refused.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, target, watched.clone(), counter.clone()));
            }
        });
        Ok(Self { port, weather, refused, task })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the weather; connections that do not fit are cut.
    pub fn set(&self, weather: Weather) {
        self.weather.send_modify(|(turn, now)| {
            *turn += 1;
            *now = weather;
        });
    }

    /// Connections that were answered with an error or closed.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits until so many connections in all were refused.
    pub async fn wait_refused(&self, count: u64) -> Result<()> {
        let deadline = tokio::time::Instant::now() + crate::PATIENCE;
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
        while self.refused() < count {
            anyhow::ensure!(
                tokio::time::Instant::now() < deadline,
                "only {} connections came",
                self.refused()
            );
            tick.tick().await;
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Weather::Away);
    }
}

async fn serve(
    mut stream: TcpStream,
    target: u16,
    mut watched: watch::Receiver<(u64, Weather)>,
    refused: Arc<AtomicU64>,
) {
    let (_, weather) = *watched.borrow_and_update();
    match weather {
        Weather::Clear => {
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
            let _ = stream.set_nodelay(true);
            let _ = server.set_nodelay(true);
            tokio::select! {
                _ = copy_bidirectional(&mut stream, &mut server) => {}
                _ = watched.changed() => {}
            }
        }
        Weather::Status(status) => {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = format!(
                "HTTP/1.1 {status} Storm\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\nstorm"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            refused.fetch_add(1, Ordering::Relaxed);
        }
        Weather::Away => {
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

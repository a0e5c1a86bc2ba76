//! Viewers: of a session through the relay, of the floor, of ttyd. They check what they receive while they measure.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::wire::BROWSER_SUBPROTOCOL;
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::browser::{BrowserMessage, ServerMessage};
use claudenest_shared::wire::frame::{Frame, FrameKind};
use claudenest_shared::wire::limits::{
    DEFAULT_LAG_LIMIT_BYTES, HEADER_BYTES, MAX_LAG_LIMIT_BYTES, STREAM_WINDOW_BYTES, VIEWER_WINDOW_BYTES,
};
use claudenest_tests::PATIENCE;
use claudenest_tests::http::Http;
use serde_json::json;

use super::wire::Wire;

const CHANNEL: u16 = 1;

/// What came.
pub enum Came<'a> {
    /// Output, contiguous.
    Output(&'a [u8]),
    /// A screen in the place of bytes.
    Snapshot(&'a [u8]),
}

/// How a viewer is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Server {
    Relay,
    Floor,
    Ttyd,
}

/// Where a viewer of a session begins, and what it may skip.
#[derive(Clone, Copy, Debug)]
pub enum Join {
    /// With the present screen; a lag is skipped, as in the web app.
    Screen,
    /// At a byte, and every byte from there on.
    EveryByte(StreamPosition),
}

/// One viewer.
pub struct Viewer {
    wire: Wire,
    server: Server,
    session: SessionId,
    /// Next byte; known from the first output or snapshot on.
    pub position: Option<StreamPosition>,
    /// Output bytes so far.
    pub bytes: u64,
    /// Snapshots so far.
    pub snapshots: u32,
    /// Snapshots that left bytes out.
    pub gaps: u32,
    consumed: u64,
    granted: u64,
    window: u64,
    sequence: u64,
    is_attached: bool,
}

impl Viewer {
    fn new(wire: Wire, server: Server) -> Self {
        Self {
            wire,
            server,
            session: SessionId(uuid::Uuid::nil()),
            position: None,
            bytes: 0,
            snapshots: 0,
            gaps: 0,
            consumed: 0,
            granted: 0,
            window: 0,
            sequence: 0,
            is_attached: false,
        }
    }

    /// A viewer of the floor.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn floor(port: u16) -> Result<Self> {
        Ok(Self::new(Wire::connect(port, "/ws", "floor")?, Server::Floor))
    }

    /// A viewer of ttyd.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn ttyd(port: u16) -> Result<Self> {
        let mut wire = Wire::connect(port, "/ws", "tty")?;
        wire.send(2, br#"{"AuthToken":"","columns":120,"rows":40}"#)?;
        Ok(Self::new(wire, Server::Ttyd))
    }

    /// A viewer of a session, as a browser is one. `writes` opens a writer too. What comes together with the answer is
    /// counted and not handed out: for sessions that are silent now.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn attach(user: &Http, port: u16, session: SessionId, join: Join, writes: bool) -> Result<Self> {
        let mut viewer = Self::attaching(user, port, session, join, writes)?;
        let deadline = Instant::now() + PATIENCE;
        while !viewer.is_attached {
            viewer.step(deadline, &mut |_| Ok(()))?;
        }
        Ok(viewer)
    }

    /// The same, but does not wait for the answer.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn attaching(user: &Http, port: u16, session: SessionId, join: Join, writes: bool) -> Result<Self> {
        let ticket = user.post("/api/ws-tickets", &json!({}))?.ok()?;
        let ticket = ticket["ticket"].as_str().context("a ticket")?.to_owned();
        let mut wire = Wire::connect(port, "/ws", BROWSER_SUBPROTOCOL)?;
        wire.send(1, &serde_json::to_vec(&BrowserMessage::Auth { ticket })?)?;
        let mut viewer = Self::new(wire, Server::Relay);
        viewer.session = session;
        let (from, lag_limit) = match join {
            Join::Screen => {
                viewer.window = VIEWER_WINDOW_BYTES;
                (None, DEFAULT_LAG_LIMIT_BYTES)
            }
            Join::EveryByte(from) => {
                viewer.window = STREAM_WINDOW_BYTES;
                viewer.position = Some(from);
                (Some(from), MAX_LAG_LIMIT_BYTES)
            }
        };
        viewer.granted = viewer.window;
        let attach = BrowserMessage::Attach {
            channel: CHANNEL,
            session,
            from,
            writer: writes.then(|| WriterId(u64::from_le_bytes(claudenest_tests::random()))),
            may_size: false,
            lag_limit_bytes: Some(lag_limit),
            credit: viewer.granted,
        };
        viewer.wire.send(1, &serde_json::to_vec(&attach)?)?;
        Ok(viewer)
    }

    /// The socket, for polling.
    pub fn socket(&self) -> &TcpStream {
        self.wire.socket()
    }

    /// Types bytes, and does not wait.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self.server {
            Server::Floor => self.wire.send(2, bytes),
            Server::Ttyd => self.wire.send(2, &[b"0", bytes].concat()),
            Server::Relay => {
                self.sequence += 1;
                self.send(FrameKind::Input, self.sequence, Bytes::copy_from_slice(bytes))
            }
        }
    }

    fn send(&mut self, kind: FrameKind, offset: u64, payload: Bytes) -> Result<()> {
        let session = self.session;
        let frame = Frame { kind, flags: 0, channel: CHANNEL, epoch: 0, session, offset, payload };
        self.wire.send(2, &frame.encode())
    }

    /// Waits for something to read and handles all of it.
    ///
    /// # Errors
    /// If nothing came until `deadline`, the connection ended, or a promise was broken.
    pub fn step(&mut self, deadline: Instant, on: &mut dyn FnMut(Came<'_>) -> Result<()>) -> Result<()> {
        let limit = deadline.saturating_duration_since(Instant::now());
        ensure!(self.wire.wait(limit)?, "nothing came for {limit:?}");
        self.take(on)
    }

    /// Reads once and handles what is whole.
    ///
    /// # Errors
    /// If the connection ended or a promise was broken.
    pub fn take(&mut self, on: &mut dyn FnMut(Came<'_>) -> Result<()>) -> Result<()> {
        ensure!(self.wire.fill()?, "the connection ended");
        while let Some((opcode, payload)) = self.wire.next()? {
            match (self.server, opcode) {
                (Server::Floor, _) => {
                    self.bytes += payload.len() as u64;
                    on(Came::Output(payload))?;
                }
                (Server::Ttyd, _) => {
                    if let Some((b'0', rest)) = payload.split_first() {
                        self.bytes += rest.len() as u64;
                        on(Came::Output(rest))?;
                    }
                }
                (Server::Relay, 1) => match serde_json::from_slice(payload)? {
                    ServerMessage::Attached { .. } => self.is_attached = true,
                    ServerMessage::Detached { error, .. } => bail!("detached: {error:?}"),
                    _ => {}
                },
                (Server::Relay, _) => {
                    let (kind, flags) = (payload[0], payload[1]);
                    let epoch = u32::from_le_bytes(payload[4..8].try_into()?);
                    let offset = u64::from_le_bytes(payload[24..HEADER_BYTES].try_into()?);
                    let body = &payload[HEADER_BYTES..];
                    if kind == FrameKind::Output as u8 {
                        let at = StreamPosition { epoch, offset };
                        let expected = *self.position.get_or_insert(at);
                        ensure!(expected == at, "output at {at:?} instead of {expected:?}");
                        self.position = Some(StreamPosition { epoch, offset: offset + body.len() as u64 });
                        self.bytes += body.len() as u64;
                        self.consumed += body.len() as u64;
                        on(Came::Output(body))?;
                    } else if kind == FrameKind::Snapshot as u8 {
                        self.position = Some(StreamPosition { epoch, offset });
                        self.snapshots += 1;
                        self.gaps += u32::from(flags & 1);
                        self.consumed += body.len() as u64;
                        on(Came::Snapshot(&body[4..]))?;
                    } else if kind == FrameKind::InputAck as u8 {
                        ensure!(flags & 1 == 0, "input refused: {}", String::from_utf8_lossy(body));
                    }
                }
            }
        }
        self.grant()
    }

    /// Grants credit as the web app does: when an eighth of the window was consumed.
    fn grant(&mut self) -> Result<()> {
        let wanted = self.consumed + self.window;
        if self.server != Server::Relay || wanted < self.granted + self.window / 8 {
            return Ok(());
        }
        self.granted = wanted;
        self.send(FrameKind::Credit, wanted, Bytes::new())
    }

    /// Types one byte and waits until it comes back; answers how long that took.
    ///
    /// # Errors
    /// If it does not come back.
    pub fn key(&mut self, key: u8) -> Result<Duration> {
        let from = Instant::now();
        self.write(&[key])?;
        let mut is_back = false;
        while !is_back {
            self.step(from + PATIENCE, &mut |came| {
                let (Came::Output(bytes) | Came::Snapshot(bytes)) = came;
                is_back |= bytes.contains(&key);
                Ok(())
            })?;
        }
        Ok(from.elapsed())
    }
}

//! The viewer's end of a WebSocket, as lean as it can be: one socket, one buffer, no runtime. It measures the product and the floor alike.
//!
//! Server frames are never fragmented here (both servers send whole messages), and the mask of what is sent is zero,
//! which RFC 6455 allows to read but not to rely on; nothing on loopback does.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use claudenest_tests::PATIENCE;

use super::workload::ready;

/// What one read takes.
const READ_BYTES: usize = 256 * 1024;

/// A WebSocket connection.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Wire {
    /// Connects and upgrades.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn connect(port: u16, path: &str, protocol: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut wire = Self { stream, buffer: vec![0; READ_BYTES], start: 0, end: 0 };
        loop {
            let text = &wire.buffer[..wire.end];
            if let Some(at) = text.windows(4).position(|window| window == b"\r\n\r\n") {
                ensure!(text.starts_with(b"HTTP/1.1 101"), "no upgrade: {}", String::from_utf8_lossy(text));
                wire.start = at + 4;
                return Ok(wire);
            }
            ensure!(wire.wait(PATIENCE)? && wire.fill()?, "the server ended the upgrade");
        }
    }

    /// The socket, for polling.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Waits until something can be read.
    ///
    /// # Errors
    /// If polling fails.
    pub fn wait(&self, limit: Duration) -> Result<bool> {
        Ok(ready([&self.stream], Some(limit))?[0])
    }

    /// Reads once; false at the end of the connection. With nothing to read on a non-blocking socket it does nothing.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn fill(&mut self) -> Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.end < READ_BYTES / 4 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let room = self.end + READ_BYTES / 2;
            if self.buffer.len() < room {
                self.buffer.resize(room, 0);
            }
        }
        match self.stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => Ok(false),
            Ok(size) => {
                self.end += size;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The next whole message in the buffer: opcode and payload. Pings are answered.
    ///
    /// # Errors
    /// If the server closed the socket or masked a frame.
    pub fn next(&mut self) -> Result<Option<(u8, &[u8])>> {
        loop {
            let bytes = &self.buffer[self.start..self.end];
            let [first, second, ..] = *bytes else { return Ok(None) };
            ensure!(first & 0x80 != 0 && second & 0x80 == 0, "a frame that is fragmented or masked");
            let (header, size) = match second {
                126 if bytes.len() >= 4 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
                127 if bytes.len() >= 10 => {
                    let size: [u8; 8] = bytes[2..10].try_into()?;
                    (10, usize::try_from(u64::from_be_bytes(size))?)
                }
                126 | 127 => return Ok(None),
                size => (2, usize::from(size)),
            };
            if bytes.len() < header + size {
                return Ok(None);
            }
            let from = self.start + header;
            self.start = from + size;
            match first & 0x0f {
                opcode @ (1 | 2) => return Ok(Some((opcode, &self.buffer[from..from + size]))),
                9 => {
                    let payload = self.buffer[from..from + size].to_vec();
                    self.send(10, &payload)?;
                }
                8 => bail!("closed: {}", String::from_utf8_lossy(&self.buffer[from..from + size])),
                _ => {}
            }
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<()> {
        let mut out = Vec::with_capacity(payload.len() + 14);
        out.push(0x80 | opcode);
        match payload.len() {
            size @ 0..126 => out.push(0x80 | size as u8),
            size @ 126..0x1_0000 => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(size as u16).to_be_bytes());
            }
            size => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(size as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(payload);
        // A grant of credit on a non-blocking socket: its buffer is never full of those.
        Ok(self.stream.write_all(&out)?)
    }
}

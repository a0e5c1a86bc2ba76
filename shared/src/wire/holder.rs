//! The protocol between daemon and holder, version 1. **Frozen.**
//!
//! A holder lives as long as its session and is never updated, so every later daemon must speak to it.
//! Messages are `u32` length (little endian, of what follows), `u8` kind, body; numbers are little endian.
//! What may change: new kinds (a reader skips kinds it does not know) and new bytes at the end of a body
//! (a reader ignores them). What may not: everything in the golden tests below.
//!
//! The daemon says hello first, naming the next offset it wants. The holder answers hello and then sends
//! output from there, or from the oldest byte it still has. Input is applied at most once per writer and
//! sequence number, in order; acknowledgements are cumulative.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::session::{Exit, TermSize};
use crate::time::UnixMs;

/// Version of this protocol.
pub const HOLDER_PROTOCOL: u16 = 1;
/// Largest message after its length word: 64 KiB of bytes or 4,096 writers, with room to spare.
pub const MAX_HOLDER_MESSAGE_BYTES: usize = 128 * 1024;
/// Largest run of output or input bytes in one message.
pub const MAX_HOLDER_CHUNK_BYTES: usize = 64 * 1024;
/// Input flag: the sequence number may leave a gap after the writer's last one (first input after a writer was opened).
pub const INPUT_MAY_SKIP: u8 = 1;
/// Input flag: the writer's paste goes on with its next number. Older holders forget it.
pub const INPUT_MORE: u8 = 2;
/// Input flag: behind this input the terminal is inside a bracketed paste. Older holders forget it.
pub const INPUT_IS_BRACKETED: u8 = 4;

/// Messages from the daemon to the holder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToHolder {
    /// First message on a connection.
    Hello {
        /// [`HOLDER_PROTOCOL`] of the daemon.
        proto: u16,
        /// Next output offset wanted.
        from: u64,
    },
    /// Bytes for the child.
    Input {
        /// Who writes.
        writer: u64,
        /// Sequence number of this writer, from 1.
        seq: u64,
        /// [`INPUT_MAY_SKIP`], [`INPUT_MORE`], [`INPUT_IS_BRACKETED`].
        flags: u8,
        /// At most [`MAX_HOLDER_CHUNK_BYTES`].
        bytes: Bytes,
    },
    /// Set the size of the PTY. Answered by [`FromHolder::Resized`] in the stream.
    Resize {
        /// The size.
        size: TermSize,
    },
    /// Send a signal to the child's process group and to the terminal's foreground group.
    Signal {
        /// Signal number of this system.
        signo: u8,
    },
    /// Pipe mode: no more input will come, close the child's standard input once what is queued is written.
    CloseInput,
    /// The daemon has stored the exit: the holder may go.
    ExitAck,
}

/// How the child's standard streams are connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IoKind {
    /// A pseudo-terminal.
    Pty,
    /// A socket pair: standard input, output and error without a terminal.
    Pipe,
}

/// The exit of the child as the holder keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HolderExit {
    /// End of the output.
    pub offset: u64,
    /// How the child ended.
    pub exit: Exit,
    /// When it was reaped.
    pub at: UnixMs,
}

/// State of the recording on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RecordingState {
    /// Not wanted.
    Off = 0,
    /// Being written.
    On = 1,
    /// Stopped by an error, for example a full disk. The session goes on.
    Failed = 2,
}

/// What the holder says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HolderHello {
    /// [`HOLDER_PROTOCOL`] of the holder.
    pub proto: u16,
    /// Process id of the holder.
    pub holder_pid: u32,
    /// Process id (and process group) of the child.
    pub child_pid: u32,
    /// Epoch that the holder was started with.
    pub epoch: u32,
    /// Connection of the child's streams.
    pub io: IoKind,
    /// State of the recording.
    pub recording: RecordingState,
    /// Oldest offset in the holder's memory.
    pub tail: u64,
    /// Offset of the next byte that the child will write.
    pub head: u64,
    /// Offset at which the output on this connection starts: the one asked for, or the oldest.
    pub start: u64,
    /// Size of the terminal at `start`.
    pub start_size: TermSize,
    /// Size of the terminal now.
    pub size: TermSize,
    /// The exit, if the child has ended.
    pub exit: Option<HolderExit>,
    /// Last applied sequence number per writer, the most recent writers first; at most 256.
    pub writers: Vec<(u64, u64)>,
    /// What is queued and not applied yet, and pastes. Nothing from older holders.
    pub input: InputState,
}

/// What a daemon has to know that comes after one which was killed in the middle of something.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InputState {
    /// Behind all that is queued, the terminal is inside a bracketed paste ([`INPUT_IS_BRACKETED`]).
    pub is_bracketed: bool,
    /// Writers with queued input or an unfinished paste, the most recent first.
    pub writers: Vec<WriterState>,
}

/// One writer whose input is not all applied, or whose paste has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriterState {
    /// The writer.
    pub writer: u64,
    /// Its highest number that is queued: applied, or sure to be.
    pub queued: u64,
    /// Its last input had [`INPUT_MORE`].
    pub has_more: bool,
    /// Its last input had [`INPUT_IS_BRACKETED`].
    pub is_bracketed: bool,
}

/// Why input was not taken. Its number is not used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum InputRefusal {
    /// The queue is full.
    Full = 1,
    /// The number is not the next one of its writer.
    Gap = 2,
    /// The child has ended or its input is closed.
    Ended = 3,
    /// A reason that this version does not know.
    Other = 255,
}

/// Messages from the holder to the daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromHolder {
    /// First message on a connection.
    Hello(Box<HolderHello>),
    /// Output bytes. An offset beyond the end of the last message means that bytes in between were evicted; the recording may have them.
    Output {
        /// Offset of the first byte.
        offset: u64,
        /// At most [`MAX_HOLDER_CHUNK_BYTES`].
        bytes: Bytes,
    },
    /// Everything up to `seq` of this writer was written to the child.
    InputAck {
        /// The writer.
        writer: u64,
        /// The highest number written.
        seq: u64,
    },
    /// Input was not taken.
    InputRefused {
        /// The writer.
        writer: u64,
        /// The number refused.
        seq: u64,
        /// Why.
        reason: InputRefusal,
    },
    /// The terminal has this size from `offset` on.
    Resized {
        /// The offset.
        offset: u64,
        /// The size.
        size: TermSize,
    },
    /// The child has ended; nothing follows.
    Exit(HolderExit),
}

/// Why bytes are not a message of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HolderWireError {
    /// The length word is zero or above the limit.
    #[error("a holder message of {0} bytes is outside the allowed range")]
    Length(u32),
    /// The body is shorter than its kind needs, or holds a value that it may not.
    #[error("malformed holder message of kind {0}")]
    Body(u8),
}

impl ToHolder {
    /// Appends the encoded message.
    pub fn encode(&self, out: &mut BytesMut) {
        message(out, |out| match self {
            Self::Hello { proto, from } => {
                out.put_u8(1);
                out.put_u16_le(*proto);
                out.put_u64_le(*from);
            }
            Self::Input { writer, seq, flags, bytes } => {
                out.put_u8(2);
                out.put_u64_le(*writer);
                out.put_u64_le(*seq);
                out.put_u8(*flags);
                out.put_slice(bytes);
            }
            Self::Resize { size } => {
                out.put_u8(3);
                put_size(out, *size);
            }
            Self::Signal { signo } => {
                out.put_u8(4);
                out.put_u8(*signo);
            }
            Self::CloseInput => out.put_u8(5),
            Self::ExitAck => out.put_u8(6),
        });
    }

    /// Takes the next message from the front of `buffer`: `Ok(None)` if it is not complete.
    ///
    /// Messages of unknown kinds are skipped.
    ///
    /// # Errors
    /// [`HolderWireError`]; the connection cannot be used any more.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, HolderWireError> {
        while let Some((kind, mut body)) = next_message(buffer)? {
            let bad = HolderWireError::Body(kind);
            return Ok(Some(match kind {
                1 => {
                    need(&body, 10, bad)?;
                    Self::Hello { proto: body.get_u16_le(), from: body.get_u64_le() }
                }
                2 => {
                    need(&body, 17, bad)?;
                    let (writer, seq, flags) = (body.get_u64_le(), body.get_u64_le(), body.get_u8());
                    if body.len() > MAX_HOLDER_CHUNK_BYTES {
                        return Err(bad);
                    }
                    Self::Input { writer, seq, flags, bytes: body }
                }
                3 => Self::Resize { size: get_size(&mut body, bad)? },
                4 => {
                    need(&body, 1, bad)?;
                    Self::Signal { signo: body.get_u8() }
                }
                5 => Self::CloseInput,
                6 => Self::ExitAck,
                _ => continue,
            }));
        }
        Ok(None)
    }
}

impl FromHolder {
    /// Appends the encoded message.
    pub fn encode(&self, out: &mut BytesMut) {
        message(out, |out| match self {
            Self::Hello(hello) => {
                out.put_u8(1);
                hello.put(out);
            }
            Self::Output { offset, bytes } => {
                out.put_u8(2);
                out.put_u64_le(*offset);
                out.put_slice(bytes);
            }
            Self::InputAck { writer, seq } => {
                out.put_u8(3);
                out.put_u64_le(*writer);
                out.put_u64_le(*seq);
            }
            Self::InputRefused { writer, seq, reason } => {
                out.put_u8(4);
                out.put_u64_le(*writer);
                out.put_u64_le(*seq);
                out.put_u8(*reason as u8);
            }
            Self::Resized { offset, size } => {
                out.put_u8(5);
                out.put_u64_le(*offset);
                put_size(out, *size);
            }
            Self::Exit(exit) => {
                out.put_u8(6);
                put_exit(out, exit);
            }
        });
    }

    /// Takes the next message from the front of `buffer`: `Ok(None)` if it is not complete.
    ///
    /// Messages of unknown kinds are skipped.
    ///
    /// # Errors
    /// [`HolderWireError`]; the connection cannot be used any more.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, HolderWireError> {
        while let Some((kind, mut body)) = next_message(buffer)? {
            let bad = HolderWireError::Body(kind);
            return Ok(Some(match kind {
                1 => Self::Hello(Box::new(HolderHello::get(&mut body, bad)?)),
                2 => {
                    need(&body, 8, bad)?;
                    let offset = body.get_u64_le();
                    if body.len() > MAX_HOLDER_CHUNK_BYTES {
                        return Err(bad);
                    }
                    Self::Output { offset, bytes: body }
                }
                3 => {
                    need(&body, 16, bad)?;
                    Self::InputAck { writer: body.get_u64_le(), seq: body.get_u64_le() }
                }
                4 => {
                    need(&body, 17, bad)?;
                    let (writer, seq) = (body.get_u64_le(), body.get_u64_le());
                    let reason = match body.get_u8() {
                        1 => InputRefusal::Full,
                        2 => InputRefusal::Gap,
                        3 => InputRefusal::Ended,
                        _ => InputRefusal::Other,
                    };
                    Self::InputRefused { writer, seq, reason }
                }
                5 => {
                    need(&body, 12, bad)?;
                    Self::Resized { offset: body.get_u64_le(), size: get_size(&mut body, bad)? }
                }
                6 => Self::Exit(get_exit(&mut body, bad)?),
                _ => continue,
            }));
        }
        Ok(None)
    }
}

impl HolderHello {
    fn put(&self, out: &mut BytesMut) {
        out.put_u16_le(self.proto);
        out.put_u32_le(self.holder_pid);
        out.put_u32_le(self.child_pid);
        out.put_u32_le(self.epoch);
        out.put_u8(match self.io {
            IoKind::Pty => 0,
            IoKind::Pipe => 1,
        });
        out.put_u8(self.recording as u8);
        out.put_u64_le(self.tail);
        out.put_u64_le(self.head);
        out.put_u64_le(self.start);
        put_size(out, self.start_size);
        put_size(out, self.size);
        match &self.exit {
            None => out.put_u8(0),
            Some(exit) => {
                out.put_u8(1);
                put_exit(out, exit);
            }
        }
        out.put_u16_le(u16::try_from(self.writers.len()).unwrap_or(u16::MAX));
        for (writer, seq) in self.writers.iter().take(usize::from(u16::MAX)) {
            out.put_u64_le(*writer);
            out.put_u64_le(*seq);
        }
        if self.input != InputState::default() {
            out.put_u8(u8::from(self.input.is_bracketed));
            out.put_u16_le(u16::try_from(self.input.writers.len()).unwrap_or(u16::MAX));
            for state in self.input.writers.iter().take(usize::from(u16::MAX)) {
                out.put_u64_le(state.writer);
                out.put_u64_le(state.queued);
                out.put_u8(u8::from(state.has_more) | u8::from(state.is_bracketed) << 1);
            }
        }
    }

    fn get(body: &mut Bytes, bad: HolderWireError) -> Result<Self, HolderWireError> {
        need(body, 49, bad)?;
        let (proto, holder_pid, child_pid, epoch) =
            (body.get_u16_le(), body.get_u32_le(), body.get_u32_le(), body.get_u32_le());
        let io = match body.get_u8() {
            0 => IoKind::Pty,
            1 => IoKind::Pipe,
            _ => return Err(bad),
        };
        let recording = match body.get_u8() {
            0 => RecordingState::Off,
            1 => RecordingState::On,
            _ => RecordingState::Failed,
        };
        let (tail, head, start) = (body.get_u64_le(), body.get_u64_le(), body.get_u64_le());
        let (start_size, size) = (get_size(body, bad)?, get_size(body, bad)?);
        need(body, 1, bad)?;
        let exit = match body.get_u8() {
            0 => None,
            1 => Some(get_exit(body, bad)?),
            _ => return Err(bad),
        };
        need(body, 2, bad)?;
        let count = usize::from(body.get_u16_le());
        need(body, count * 16, bad)?;
        let writers = (0..count).map(|_| (body.get_u64_le(), body.get_u64_le())).collect();
        let mut input = InputState::default();
        if body.len() >= 3 {
            input.is_bracketed = body.get_u8() != 0;
            let count = usize::from(body.get_u16_le());
            need(body, count * 17, bad)?;
            let mut state = |_| {
                let (writer, queued, flags) = (body.get_u64_le(), body.get_u64_le(), body.get_u8());
                WriterState { writer, queued, has_more: flags & 1 != 0, is_bracketed: flags & 2 != 0 }
            };
            input.writers = (0..count).map(&mut state).collect();
        }
        Ok(Self {
            proto,
            holder_pid,
            child_pid,
            epoch,
            io,
            recording,
            tail,
            head,
            start,
            start_size,
            size,
            exit,
            writers,
            input,
        })
    }
}

/// Writes the length word around what `body` writes.
fn message(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32_le(0);
    body(out);
    let length = u32::try_from(out.len() - start - 4).expect("messages are bounded far below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Splits the next whole message off: its kind and body.
fn next_message(buffer: &mut BytesMut) -> Result<Option<(u8, Bytes)>, HolderWireError> {
    let Some(word) = buffer.get(..4) else { return Ok(None) };
    let length = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if size == 0 || size > MAX_HOLDER_MESSAGE_BYTES {
        return Err(HolderWireError::Length(length));
    }
    if buffer.len() < 4 + size {
        return Ok(None);
    }
    buffer.advance(4);
    let mut body = buffer.split_to(size).freeze();
    let kind = body.get_u8();
    Ok(Some((kind, body)))
}

fn need(body: &Bytes, size: usize, bad: HolderWireError) -> Result<(), HolderWireError> {
    if body.len() < size { Err(bad) } else { Ok(()) }
}

fn put_size(out: &mut BytesMut, size: TermSize) {
    out.put_u16_le(size.cols);
    out.put_u16_le(size.rows);
}

fn get_size(body: &mut Bytes, bad: HolderWireError) -> Result<TermSize, HolderWireError> {
    need(body, 4, bad)?;
    Ok(TermSize::clamped(body.get_u16_le(), body.get_u16_le()))
}

fn put_exit(out: &mut BytesMut, exit: &HolderExit) {
    out.put_u64_le(exit.offset);
    let (kind, value) = match exit.exit {
        Exit::Code { code } => (0, code),
        Exit::Signal { signal } => (1, signal),
        Exit::Lost {} => (2, 0),
    };
    out.put_u8(kind);
    out.put_u8(value);
    out.put_i64_le(exit.at.0);
}

fn get_exit(body: &mut Bytes, bad: HolderWireError) -> Result<HolderExit, HolderWireError> {
    need(body, 18, bad)?;
    let offset = body.get_u64_le();
    let exit = match (body.get_u8(), body.get_u8()) {
        (0, code) => Exit::Code { code },
        (1, signal) => Exit::Signal { signal },
        _ => Exit::Lost {},
    };
    Ok(HolderExit { offset, exit, at: UnixMs(body.get_i64_le()) })
}

#[cfg(test)]
mod tests;

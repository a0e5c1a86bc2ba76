//! The output of a session on a pipe.

use std::io::Write;
use std::process::ExitCode;

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::session::{Exit as ChildExit, SessionInfo};
use claudenest_shared::wire::agent::{AgentMessage, Op, RelayMessage, StreamPosition};
use claudenest_shared::wire::frame::{Frame, FrameKind};
use claudenest_shared::wire::limits::MAX_LAG_LIMIT_BYTES;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Duration, Instant, sleep};

use super::super::exit::wire;
use super::super::session::{exit_code, find};
use super::super::{Context, daemon};
use crate::control::{Client, Incoming};

const STREAM: u16 = 1;
/// Signals are 1 to 64 in exit codes above 128; these three have their numbers everywhere.
const SIGINT: u8 = 2;
const SIGPIPE: u8 = 13;
const SIGTERM: u8 = 15;
/// A single answer has nothing to save.
const STOP_GRACE_MS: u32 = 2000;
/// A session that was just created may take this long until it has output.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// `session logs`.
pub(in crate::cli) async fn logs(context: &Context, target: &str, follow: bool) -> anyhow::Result<ExitCode> {
    let (client, info) = find(context, target).await?;
    copy(client, &info, follow, false).await.map(|_| ExitCode::SUCCESS)
}

/// `claude -p` on a terminal: prints with plain line ends, and ends as the child ends. Ctrl-C ends the session, as
/// it would end Claude Code; closing the terminal does not.
pub(in crate::cli) async fn print(
    context: &Context,
    client: Client,
    info: &SessionInfo,
) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let signal = tokio::select! {
        copied = copy(client, info, true, true) => {
            return match copied? {
                Some(exit) => Ok(exit_code(exit)),
                None => Ok(ExitCode::from(128 + SIGPIPE)),
            };
        }
        _ = tokio::signal::ctrl_c() => SIGINT,
        _ = terminate.recv() => SIGTERM,
    };
    let mut client = daemon::connect(context).await?;
    let stop = Op::SessionStop { session: info.id, grace_ms: STOP_GRACE_MS };
    client.request(stop).await.map_err(daemon::refused)?;
    Ok(ExitCode::from(128 + signal))
}

/// Copies output from its beginning; to its end, or to where it is now.
async fn copy(
    client: Client,
    info: &SessionInfo,
    to_end: bool,
    is_plain: bool,
) -> anyhow::Result<Option<ChildExit>> {
    let (mut sender, mut receiver) = client.into_halves();
    let open = RelayMessage::StreamOpen {
        channel: STREAM,
        session: info.id,
        from: Some(StreamPosition { epoch: info.epoch, offset: 0 }),
        lag_limit_bytes: MAX_LAG_LIMIT_BYTES,
        // Writing to the pipe is the only bound that is needed: what is not read is not asked for.
        credit: u64::MAX,
    };
    sender.message(&open).await.map_err(daemon::refused)?;
    let started = Instant::now();
    let mut head = u64::MAX;
    let mut out = LineEnds { is_plain, has_return: false };
    loop {
        match receiver.next().await.map_err(daemon::refused)? {
            Incoming::Failed(error) => return Err(wire(error)),
            Incoming::Message(message) => match *message {
                AgentMessage::StreamOpened { channel: STREAM, head: now, .. } => {
                    if !to_end {
                        head = now;
                    }
                    if head == 0 {
                        return Ok(None);
                    }
                }
                AgentMessage::ChannelClosed { channel: STREAM, error: Some(error) } => {
                    if !may_come(&error) || started.elapsed() > START_PATIENCE || !to_end {
                        return Err(wire(error));
                    }
                    sleep(Duration::from_millis(50)).await;
                    sender.message(&open).await.map_err(daemon::refused)?;
                }
                _ => {}
            },
            Incoming::Frame(frame) => {
                if !out.write(&frame) {
                    return Ok(None); // Nobody reads any more.
                }
                if frame.kind == FrameKind::Exit {
                    return Ok(frame.exit());
                }
                let end = match frame.kind {
                    FrameKind::Output => frame.offset + frame.payload.len() as u64,
                    _ => frame.offset,
                };
                if end >= head {
                    return Ok(None);
                }
            }
        }
    }
}

fn may_come(error: &WireError) -> bool {
    matches!(error.code, ErrorCode::NotFound | ErrorCode::Unavailable | ErrorCode::Conflict)
}

/// Writes output; for pipes, the line ends of a terminal become plain ones.
struct LineEnds {
    is_plain: bool,
    has_return: bool,
}

impl LineEnds {
    /// False when nobody reads any more.
    fn write(&mut self, frame: &Frame) -> bool {
        let bytes = match frame.kind {
            FrameKind::Output => &frame.payload[..],
            FrameKind::Snapshot => &frame.payload[4..],
            _ => return true,
        };
        let mut out = std::io::stdout().lock();
        let result = if self.is_plain { out.write_all(&self.plain(bytes)) } else { out.write_all(bytes) };
        result.and_then(|()| out.flush()).is_ok()
    }

    /// Drops the carriage return of every CR LF, also when the two are cut apart.
    fn plain(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if std::mem::take(&mut self.has_return) && byte != b'\n' {
                out.push(b'\r');
            }
            if byte == b'\r' {
                self.has_return = true;
            } else {
                out.push(byte);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_become_plain_also_when_cut() {
        let mut ends = LineEnds { is_plain: true, has_return: false };
        assert_eq!(ends.plain(b"a\r\nb\r"), b"a\nb");
        assert_eq!(ends.plain(b"\nc\rd"), b"\nc\rd");
    }
}

//! Starting a holder, from the daemon's side.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::HolderSpec;

/// A holder opens a terminal and starts a program: milliseconds. A machine under memory pressure gets this long.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// The ready line is one short JSON object.
const MAX_READY_BYTES: u64 = 16 * 1024;

/// A holder that is ready: its socket answers and its child runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spawned {
    /// Process id of the holder.
    pub holder_pid: u32,
    /// Process id of the child.
    pub child_pid: u32,
}

/// Why there is no holder.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The holder process itself could not be started.
    #[error("the holder process could not be started")]
    Start(#[source] io::Error),
    /// The holder says why it could not start the child; the sentence is for people.
    #[error("{0}")]
    Refused(String),
    /// It ended or stayed silent without saying anything.
    #[error("the holder process gave no answer")]
    Silent,
}

/// What the holder prints on its standard output, once, as one line.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Ready {
    /// The child runs and the socket listens.
    Ready {
        /// Process id of the holder.
        holder_pid: u32,
        /// Process id of the child.
        child_pid: u32,
    },
    /// It could not be started.
    Failed {
        /// A sentence for people.
        message: String,
    },
}

/// Starts a holder from `program` (the agent's own binary) and waits until it is ready.
///
/// The holder leaves the daemon's session and process group, so that neither Ctrl-C nor the end of the daemon reaches it.
///
/// # Errors
/// [`SpawnError`]; no process is left behind.
///
/// # Cancel safety
/// If dropped, the holder may have been started; it is found by its socket.
pub async fn spawn(program: &Path, spec: &HolderSpec) -> Result<Spawned, SpawnError> {
    let mut child = Command::new(program)
        .arg("holder")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .current_dir("/")
        .kill_on_drop(false)
        .spawn()
        .map_err(SpawnError::Start)?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(SpawnError::Silent);
    };
    let json = serde_json::to_vec(spec).map_err(|error| SpawnError::Start(error.into()))?;
    let exchange = async {
        stdin.write_all(&json).await?;
        drop(stdin);
        let mut line = Vec::new();
        stdout.take(MAX_READY_BYTES).read_to_end(&mut line).await?;
        Ok::<_, io::Error>(line)
    };
    let line = match tokio::time::timeout(READY_TIMEOUT, exchange).await {
        Ok(Ok(line)) => line,
        Ok(Err(_)) | Err(_) => {
            // It never became ready, so nothing depends on it.
            let _ = child.kill().await;
            return Err(SpawnError::Silent);
        }
    };
    match serde_json::from_slice(&line) {
        Ok(Ready::Ready { holder_pid, child_pid }) => Ok(Spawned { holder_pid, child_pid }),
        Ok(Ready::Failed { message }) => Err(SpawnError::Refused(message)),
        Err(_) => Err(SpawnError::Silent),
    }
}

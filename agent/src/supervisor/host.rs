//! Starting, finding and ending processes: everything of the supervisor that touches them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::session::Exit;
use claudenest_shared::wire::holder::IoKind;
use rustix::process::{Pid, Signal as Signo};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::Signal;
use super::record::Record;
use super::settings::{Settings, run_dir};
use crate::claude::{Claude, Conversation, Launch, LaunchRequest, guarding};
use crate::holder::{self, HolderSpec};
use crate::resources;
use crate::session::{ConnectError, Notice, SessionConfig, SessionHandle, WriterOpen};

/// A daemon that died while a holder was coming up may be back before it listens.
const LATE_HOLDER: [Duration; 5] = [Duration::from_millis(200); 5];
/// Runs of a session whose recordings are kept.
const KEPT_RUNS: u32 = 3;

/// What [`start`] needs besides the settings.
pub(super) struct Start {
    pub record: Record,
    pub conversation: Conversation,
    pub prompt: Option<String>,
    pub capability: String,
    pub notices: mpsc::Sender<Notice>,
    pub tasks: TaskTracker,
    pub cancel: CancellationToken,
}

/// Starts the process of a session. Answers its process id and run, or a sentence for people.
pub(super) async fn start(
    settings: Arc<Settings>,
    claude: Arc<Claude>,
    start: Start,
) -> Result<(u32, SessionHandle), String> {
    let Start { record, conversation, prompt, capability, notices, tasks, cancel } = start;
    let session = record.info.id;
    let run = settings.run(session, record.info.epoch);
    let builder = Arc::clone(&settings);
    let size = record.info.size;
    let epoch = record.info.epoch;
    let launch = tokio::task::spawn_blocking(move || {
        build(&builder, &claude, &record, conversation, prompt.as_deref(), capability)
    });
    let launch = launch
        .await
        .map_err(|_| "The command line could not be made; the agent's log says more.".to_owned())??;
    let argv = std::iter::once(launch.program.to_string_lossy().into_owned()).chain(launch.args).collect();
    let spec = HolderSpec {
        session,
        epoch,
        argv,
        env: launch.env,
        cwd: launch.cwd,
        size,
        io: if launch.is_terminal { IoKind::Pty } else { IoKind::Pipe },
        dir: run.dir.clone(),
        socket: run.socket.clone(),
        ring_bytes: settings.ring_bytes,
        recording_bytes: settings.recording_bytes,
    };
    let spawned =
        holder::spawn(&settings.surroundings.agent_program, &spec).await.map_err(|error| match error {
            holder::SpawnError::Refused(sentence) => sentence,
            other => {
                tracing::warn!(session.id = %session, error = %other, "a holder could not be started");
                format!("{}.", capitalised(&other.to_string()))
            }
        })?;
    let handle = SessionHandle::connect(run, notices, &tasks, cancel).await.map_err(|error| {
        tracing::error!(session.id = %session, %error, "a new holder does not answer");
        "Its keeper process does not answer.".to_owned()
    });
    let handle = match handle {
        Ok(handle) => handle,
        Err(sentence) => {
            // Nobody could ever reach it again.
            kill(spawned.child_pid, Signo::KILL);
            kill(spawned.holder_pid, Signo::KILL);
            return Err(sentence);
        }
    };
    if let Some(bytes) = launch.first_input {
        first_input(&handle, bytes);
    }
    Ok((spawned.child_pid, handle))
}

fn build(
    settings: &Settings,
    claude: &Claude,
    record: &Record,
    conversation: Conversation,
    prompt: Option<&str>,
    capability: String,
) -> Result<Launch, String> {
    prune_runs(&settings.session_dir(record.info.id), record.info.epoch);
    let mut spec = record.spec.clone();
    let is_shell = spec.mode == claudenest_shared::session::SessionMode::Shell;
    if let (Conversation::Resume(_), Some(cwd)) = (&conversation, &record.conversation_cwd)
        && Path::new(cwd).is_dir()
    {
        spec.cwd.clone_from(cwd);
    }
    if !Path::new(&spec.cwd).is_dir() {
        return Err(format!("The directory {} does not exist any more.", spec.cwd));
    }
    let program = if is_shell {
        None
    } else {
        // Asked at every start: Claude Code may have been replaced since the session was made.
        let installed = claude.installed().map_err(|error| error.to_string())?;
        if let Some(gap) = guarding::gaps(&spec, installed.version.as_ref()).first() {
            if settings.refuses_unguarded {
                return Err(gap.clone());
            }
            tracing::warn!(session.id = %record.info.id, "a session starts whose tools the guard cannot hold back: {gap}");
        }
        Some(installed.path)
    };
    let request = LaunchRequest {
        spec: &spec,
        name: &record.info.name,
        conversation,
        prompt,
        session: record.info.id.to_string(),
        capability,
        claude: program,
    };
    Launch::build(&request, &settings.surroundings).map_err(|error| error.to_string())
}

/// Recordings of older runs go, the last ones stay.
fn prune_runs(session_dir: &Path, epoch: u32) {
    for old in (1..epoch.saturating_sub(KEPT_RUNS - 1)).rev().take(8) {
        let _ = std::fs::remove_dir_all(run_dir(session_dir, old));
    }
}

/// Writes the first message of a headless conversation: exactly once, however often it is called for one run,
/// because the holder knows the writer and the number.
pub(super) fn first_input(handle: &SessionHandle, bytes: bytes::Bytes) {
    let open = WriterOpen {
        writer: WriterId(1),
        label: "first prompt".to_owned(),
        may_size: false,
        is_local_terminal: false,
    };
    match handle.open_writer(open) {
        Ok((writer, 0)) => {
            let chunks: Vec<_> = chunks(bytes);
            let last = chunks.len();
            for (index, chunk) in chunks.into_iter().enumerate() {
                let flags = if index + 1 < last { claudenest_shared::wire::frame::FLAG_MORE } else { 0 };
                writer.input(index as u64 + 1, flags, chunk);
            }
        }
        Ok(_) => {}
        Err(error) => {
            tracing::error!(session.id = %handle.id(), %error, "the first prompt could not be written")
        }
    }
}

fn chunks(mut bytes: bytes::Bytes) -> Vec<bytes::Bytes> {
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        chunks.push(bytes.split_to(bytes.len().min(claudenest_shared::wire::limits::MAX_INPUT_BYTES)));
    }
    chunks
}

/// What was found of a run.
pub(super) enum Found {
    /// Its holder answers (the child may have ended; then a notice says so).
    Live(SessionHandle),
    /// The holder is gone, the exit is on disk.
    Ended(Exit),
    /// The holder was killed or the machine restarted.
    Lost,
    /// A holder is there and cannot be talked to.
    Unreachable,
}

/// Looks for the holder of a run.
pub(super) async fn find(
    run: SessionConfig,
    is_starting: bool,
    notices: mpsc::Sender<Notice>,
    tasks: &TaskTracker,
    cancel: CancellationToken,
) -> Found {
    let mut pauses = if is_starting { LATE_HOLDER.iter() } else { [].iter() };
    loop {
        match SessionHandle::connect(run.clone(), notices.clone(), tasks, cancel.clone()).await {
            Ok(handle) => return Found::Live(handle),
            Err(ConnectError::Gone(_)) => {
                let exit = holder::read_exit(&run.dir).filter(|record| record.epoch == run.epoch);
                if let Some(record) = exit {
                    return Found::Ended(record.exit);
                }
                match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Found::Lost,
                }
            }
            Err(error) => {
                tracing::error!(session.id = %run.session, %error, "a running session cannot be taken over");
                return Found::Unreachable;
            }
        }
    }
}

/// Sends a signal to a session. A kill also reaches descendants that left the process group.
pub(super) fn signal(handle: &SessionHandle, pid: Option<u32>, signal: Signal, tasks: &TaskTracker) {
    let signo = match signal {
        Signal::Terminate => Signo::TERM,
        Signal::Hangup => Signo::HUP,
        Signal::Kill => Signo::KILL,
        Signal::Stop => Signo::STOP,
        Signal::Continue => Signo::CONT,
    };
    let handle = handle.clone();
    let number = u8::try_from(signo.as_raw()).unwrap_or(9);
    if signal != Signal::Kill {
        if let Err(error) = handle.signal(number) {
            tracing::debug!(session.id = %handle.id(), %error, "a signal was not sent");
        }
        return;
    }
    tasks.spawn_blocking(move || {
        // First who they are: once the leader is gone, they are nobody's children.
        let tree = pid.map(resources::tree_of).unwrap_or_default();
        let _ = handle.signal(number);
        for pid in tree {
            kill(pid, Signo::KILL);
        }
    });
}

/// Ends what a stopped session has left behind: processes that still belong to its terminal session.
pub(super) fn sweep(pid: u32, tasks: &TaskTracker) {
    tasks.spawn_blocking(move || {
        for straggler in resources::tree_of(pid) {
            if straggler != pid {
                kill(straggler, Signo::KILL);
            }
        }
    });
}

fn kill(pid: u32, signo: Signo) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signo);
    }
}

/// Removes everything that is on disk about a session.
pub(super) fn remove_files(settings: &Settings, session: SessionId) {
    let dir = settings.session_dir(session);
    if let Err(error) = std::fs::remove_dir_all(&dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(session.id = %session, %error, "the files of a forgotten session could not be removed");
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

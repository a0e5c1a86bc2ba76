//! A supervisor with its own directories and environment, for tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use claudenest_agent::claude::Surroundings;
use claudenest_agent::control::{self, Client, Identity, NoLinks};
use claudenest_agent::guard::{Guard, Who};
use claudenest_agent::paths::Paths;
use claudenest_agent::store::Store;
use claudenest_agent::supervisor::core::Limits;
use claudenest_agent::supervisor::{Settings, Supervisor};
use claudenest_shared::code::WireError;
use claudenest_shared::id::SessionId;
use claudenest_shared::session::{SessionInfo, SessionMode, SessionSpec};
use claudenest_shared::wire::agent::{Op, Reply};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::holder::program;

/// Far longer than anything takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Directories that outlive daemons.
pub struct Nest {
    pub dir: tempfile::TempDir,
    pub limits: Limits,
    pub claude: Option<PathBuf>,
    pub env: Vec<(String, String)>,
    /// The agent's own program, for holders and hooks.
    pub program: PathBuf,
    /// Scripts say no version; the real Claude Code does.
    pub refuses_unguarded: bool,
}

/// One daemon in them. Dropping it is a clean stop; sessions go on.
pub struct Daemon {
    pub supervisor: Supervisor,
    pub guard: Guard,
    pub socket: PathBuf,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Nest {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("nest").tempdir().unwrap();
        for sub in ["home", "work", "data"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        Self {
            dir,
            limits: Limits::default(),
            claude: None,
            env: Vec::new(),
            program: program().to_owned(),
            refuses_unguarded: false,
        }
    }

    /// A stand-in for Claude Code: a shell script.
    pub fn with_script(script: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let mut nest = Self::new();
        let path = nest.dir.path().join("claude");
        // Asked about itself it says nothing, unless the script does: scripts are for sessions.
        let silent = if script.contains("--version") { "" } else { "[ \"$1\" = --version ] && exit\n" };
        std::fs::write(&path, format!("#!/bin/sh\n{silent}{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        nest.claude = Some(path);
        nest
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub fn paths(&self) -> Paths {
        let data = self.dir.path().join("data");
        Paths::resolve(Some(data), Some(self.dir.path().join("config.toml"))).unwrap()
    }

    pub async fn start(&self) -> Daemon {
        let paths = self.paths();
        paths.ensure().unwrap();
        let bound = control::bind(&paths).unwrap();
        let mut environment: BTreeMap<String, String> = BTreeMap::from([
            ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
            ("HOME".into(), self.dir.path().join("home").to_string_lossy().into_owned()),
            ("SHELL".into(), "/bin/bash".into()),
        ]);
        environment.extend(self.env.clone());
        let settings = Settings {
            limits: self.limits.clone(),
            sessions_dir: paths.sessions_dir(),
            runtime_dir: paths.runtime_dir.clone(),
            claude_path: self.claude.clone(),
            roots: Vec::new(),
            refuses_unguarded: self.refuses_unguarded,
            surroundings: Surroundings {
                environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
                passed: self.env.iter().map(|(name, _)| name.clone()).collect(),
                agent_program: self.program.clone(),
                control_socket: paths.control_socket(),
                shell: "/bin/bash".into(),
                home: self.dir.path().join("home"),
            },
            ring_bytes: 1 << 20,
            recording_bytes: 8 << 20,
        };
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let store = Store::open(&paths.data_dir).await.unwrap();
        let supervisor = Supervisor::start(settings, store.clone(), &tasks, cancel.clone()).await.unwrap();
        let guard =
            Guard::start(supervisor.clone(), store, Vec::new(), &tasks, cancel.clone()).await.unwrap();
        let served = control::serve(bound, guard.clone(), Arc::new(NoLinks), tasks.clone(), cancel.clone());
        tasks.spawn(served);
        Daemon { supervisor, guard, socket: paths.control_socket(), tasks, cancel }
    }

    pub fn spec(&self, mode: SessionMode) -> SessionSpec {
        SessionSpec { mode, cwd: self.work().to_string_lossy().into_owned(), ..SessionSpec::default() }
    }
}

impl Drop for Nest {
    /// Sessions outlive daemons, but not tests: every holder names this directory's processes.
    fn drop(&mut self) {
        sweep(self.dir.path());
    }
}

/// Kills every process whose environment or directory lies in `dir`: only this test's own.
pub fn sweep(dir: &Path) {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    let needle = dir.to_string_lossy().into_owned();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let cwd = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        let env = || {
            std::fs::read(entry.path().join("environ"))
                .is_ok_and(|env| String::from_utf8_lossy(&env).contains(&needle))
        };
        // A holder whose child was killed waits for a daemon to ask how it ended.
        let files = || {
            let fds = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|file| file.starts_with(dir))
        };
        if pid != std::process::id().cast_signed() && (cwd || env() || files()) {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid).unwrap(),
                rustix::process::Signal::KILL,
            );
        }
    }
}

impl Daemon {
    pub async fn op(&self, op: Op) -> Result<Reply, WireError> {
        match self.guard.execute(op, &Who::Local { label: "tester".into() }).await {
            Reply::Error { error } => Err(error),
            reply => Ok(reply),
        }
    }

    pub async fn session(&self, op: Op) -> Result<SessionInfo, WireError> {
        match self.op(op).await? {
            Reply::Session { session } => Ok(*session),
            other => panic!("not a session: {other:?}"),
        }
    }

    pub async fn create(&self, spec: SessionSpec) -> SessionInfo {
        self.session(Op::SessionCreate { spec: Box::new(spec) }).await.unwrap()
    }

    pub async fn until(
        &self,
        session: SessionId,
        what: &str,
        is_met: impl Fn(&SessionInfo) -> bool,
    ) -> SessionInfo {
        match tokio::time::timeout(PATIENCE, self.supervisor.wait(session, is_met)).await {
            Ok(info) => info.unwrap(),
            Err(_) => panic!("waited for {what} in vain: {:#?}", self.supervisor.info(session)),
        }
    }

    pub async fn screen(&self, session: SessionId) -> String {
        match self.op(Op::SessionScreen { session }).await {
            Ok(Reply::Screen { screen }) => screen.rows.join("\n"),
            other => format!("{other:?}"),
        }
    }

    /// Waits until the screen shows a text: looks again whenever something changes.
    pub async fn shows(&self, session: SessionId, text: &str) -> String {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let look = async {
            loop {
                ticks.tick().await;
                let screen = self.screen(session).await;
                if screen.contains(text) {
                    return screen;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(screen) => screen,
            Err(_) => panic!("waited for {text:?} in vain:\n{}", self.screen(session).await),
        }
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.socket, &Identity::Operator).await.unwrap()
    }

    /// Ends the daemon as if it was killed: nothing is said to anybody.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        tokio::time::timeout(PATIENCE, self.tasks.wait()).await.expect("all tasks end");
    }
}

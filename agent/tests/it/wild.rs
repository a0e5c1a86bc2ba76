//! A daemon as a process of its own that can be killed, in a nest whose sessions run the real Claude Code.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use claudenest_agent::control::{Client, Identity};
use claudenest_shared::approval::Approval;
use claudenest_shared::session::{SessionInfo, SessionSpec};
use claudenest_shared::wire::agent::{Op, Reply};

use crate::holder::program;
use crate::nest::Nest;

pub struct Wild<'a> {
    nest: &'a Nest,
    child: Child,
}

impl<'a> Wild<'a> {
    /// Starts it; returns when it serves. A file that may not grow is an error for it and not its end, as on a full disk.
    pub fn start(nest: &'a Nest) -> Self {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" run --background"])
            .arg(program())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", nest.dir.path().join("home"))
            .env("SHELL", "/bin/bash")
            .env("CLAUDENEST_AGENT_DATA_DIR", nest.dir.path().join("data"))
            .env("CLAUDENEST_AGENT_CLAUDE_PATH", nest.claude.as_ref().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"ready\n");
        Self { nest, child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(self) {
        drop(self);
    }

    fn socket(&self) -> PathBuf {
        self.nest.paths().control_socket()
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.socket(), &Identity::Operator).await.unwrap()
    }

    /// A session with the environment in which the real Claude Code talks to the mock.
    pub async fn create(&self, mut spec: SessionSpec) -> SessionInfo {
        spec.env.extend(self.nest.env.clone());
        self.client().await.session(Op::SessionCreate { spec: Box::new(spec) }).await.unwrap()
    }

    /// The newest approval that is like this, once there is one.
    pub async fn approval(&self, what: &str, is_it: impl Fn(&Approval) -> bool) -> Approval {
        let mut client = self.client().await;
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
        let look = async {
            loop {
                ticks.tick().await;
                let list = Op::ApprovalList { states: vec![], limit: 1000 };
                let Ok(Reply::Approvals { approvals, .. }) = client.request(list).await else { continue };
                if let Some(found) = approvals.into_iter().find(&is_it) {
                    return found;
                }
            }
        };
        tokio::time::timeout(crate::nest::PATIENCE, look)
            .await
            .unwrap_or_else(|_| panic!("no approval {what}"))
    }
}

impl Drop for Wild<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

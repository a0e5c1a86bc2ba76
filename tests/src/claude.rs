//! The real Claude Code against a scripted mock of its API: nothing leaves the machine, no account is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::http::Http;
use crate::process::{self, Running};
use crate::{PATIENCE, repository, scratch};

/// The pinned real program.
///
/// # Errors
/// If `make setup` has not installed it. Tests fail then; they are never skipped silently.
pub fn real_claude() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CLAUDE_BIN") {
        return Ok(path.into());
    }
    let modules = repository().join(".tools/claude/node_modules/@anthropic-ai");
    let dirs = std::fs::read_dir(&modules)
        .with_context(|| format!("no Claude Code in {}: run `make setup` first", modules.display()))?;
    dirs.filter_map(|entry| Some(entry.ok()?.path().join("claude")))
        .find(|path| path.is_file() && path.parent().is_some_and(|dir| !dir.ends_with("claude-code")))
        .with_context(|| format!("no program for this platform in {}: run `make setup`", modules.display()))
}

/// A running mock of the Anthropic API.
pub struct Mock {
    #[expect(dead_code, reason = "ends the mock when it is dropped")]
    running: Running,
    dir: tempfile::TempDir,
    http: Http,
    port: u16,
}

impl Mock {
    /// Starts the mock with a scenario of `tests/scenarios`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(scenario: &str) -> Result<Self> {
        let dir = scratch("mock");
        let tests = repository().join("tests");
        let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output()?;
        let python = String::from_utf8(python.stdout)?;
        let mut command = process::command(python.trim(), dir.path());
        command
            .arg("-u")
            .arg(tests.join("mock_anthropic.py"))
            .arg("--scenario")
            .arg(tests.join("scenarios").join(scenario))
            .args(["--port", "0", "--max-seconds", "600"])
            .arg("--port-file")
            .arg(dir.path().join("port.txt"))
            .arg("--log")
            .arg(dir.path().join("requests.jsonl"));
        let mut running = Running::start(command, None)?;
        let port = running.wait_line(PATIENCE, |line| {
            let digits: String = line.rsplit(':').next()?.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u16>().ok()
        })?;
        let http = Http::anonymous(&format!("http://127.0.0.1:{port}"));
        Ok(Self { running, dir, http, port })
    }

    /// Base URL for Claude Code.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Directory of its log.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces the script.
    ///
    /// # Errors
    /// If the mock does not take it.
    pub fn script(&self, scenario: &Value) -> Result<()> {
        self.http.post("/_mock/scenario", scenario)?.ok().map(drop)
    }

    /// Summaries of the requests so far.
    ///
    /// # Errors
    /// If the mock is gone.
    pub fn requests(&self) -> Result<Value> {
        self.http.get("/_mock/requests")?.ok()
    }
}

/// Seeds the home of `agent` so that no first-run dialog comes and its work directory is trusted.
///
/// # Errors
/// If the file cannot be written.
pub fn seed_home(agent: &Agent) -> Result<()> {
    let seed = json!({
        "hasCompletedOnboarding": true,
        "customApiKeyResponses": {"approved": ["dummy"], "rejected": []},
        "projects": {agent.work().display().to_string(): {"hasTrustDialogAccepted": true}},
    });
    Ok(std::fs::write(agent.home().join(".claude.json"), seed.to_string())?)
}

/// The variables with which Claude Code talks to `mock` and to nothing else; they go into a session's environment.
pub fn environment(mock: &Mock) -> [(&'static str, String); 4] {
    [
        ("ANTHROPIC_BASE_URL", mock.url()),
        ("ANTHROPIC_API_KEY", "dummy".to_owned()),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ("DISABLE_AUTOUPDATER", "1".to_owned()),
    ]
}

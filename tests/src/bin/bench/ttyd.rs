//! ttyd, for comparison where it is installed.

use std::time::Duration;

use anyhow::{Context, Result};
use claudenest_tests::process::Running;
use claudenest_tests::{PATIENCE, free_port, process, scratch};

use super::puppet::{Puppet, Stage};
use super::viewer::Viewer;
use super::workload;

/// A running ttyd. It starts its program when its viewer comes.
pub struct Ttyd {
    _running: Running,
    _dir: tempfile::TempDir,
}

impl Ttyd {
    /// Starts it with a workload and one viewer.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start() -> Result<(Self, Viewer, Puppet)> {
        let dir = scratch("ttyd");
        let stage = Stage::new(dir.path())?;
        let (name, value) = stage.variable();
        let port = free_port();
        let mut command = process::command("ttyd", dir.path());
        command.env(name, value).args(["-W", "-i", "127.0.0.1", "-p", &port.to_string()]);
        command.arg(std::env::current_exe()?).arg(workload::ROLE);
        let running = Running::start(command, None)?;
        let viewer = (0..PATIENCE.as_millis() / 50)
            .find_map(|_| {
                Viewer::ttyd(port).ok().or_else(|| {
                    // It says nothing when it listens.
                    let _ = super::facts::pause(Duration::from_millis(50));
                    None
                })
            })
            .context("ttyd does not listen")?;
        Ok((Self { _running: running, _dir: dir }, viewer, stage.wait()?))
    }
}

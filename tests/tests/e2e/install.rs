//! Installer and packages: they install, update under a running session without losing it, and remove what they brought.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use claudenest_tests::agent::Agent;
use claudenest_tests::process::{self, is_alive};
use claudenest_tests::pty::Terminal;
use claudenest_tests::{PATIENCE, program, repository, scratch};

use crate::support::pid_of;

/// Both programs without debug information, as they are shipped, in a directory of their own.
fn artefacts() -> Result<tempfile::TempDir> {
    let dir = scratch("built");
    for name in ["claudenest-agent", "claudenest-relay"] {
        let target = dir.path().join(name);
        let strip = if cfg!(target_os = "macos") { vec!["-x"] } else { vec![] };
        let status = Command::new("strip").args(strip).arg("-o").arg(&target).arg(program(name)).status()?;
        ensure!(status.success(), "strip of {name}");
    }
    Ok(dir)
}

fn install_sh(home: &Path, args: &[&str]) -> Result<String> {
    let mut command = process::command(repository().join("installers/install.sh"), home);
    process::run(command.args(args), PATIENCE)?.ok()
}

/// Starts a session with the installed agent, lets `update` happen, starts the daemon anew, and checks that the session is the same.
fn check_update(installed: &Path, update: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut agent = Agent::new()?;
    agent.use_program(installed);
    agent.run_daemon()?;
    let session =
        agent.new_session("stays", "raw; print HELLO; wait again; print STILL\\shere; echo bye; exit 0")?;
    update()?;
    ensure!(is_alive(pid_of(&session)?), "the update ended the session");
    agent.stop_daemon()?;
    ensure!(is_alive(pid_of(&session)?), "stopping the daemon ended the session");
    agent.run_daemon()?;
    ensure!(pid_of(&agent.show("stays")?)? == pid_of(&session)?, "the session is another one now");
    let mut command = agent.command();
    command.args(["attach", "--wait-exit", "stays"]);
    let mut terminal = Terminal::start(&command, 80, 24)?;
    terminal.until_screen("HELLO")?;
    terminal.write(b"again")?;
    terminal.until_screen("STILL here")?;
    terminal.write(b"bye")?;
    ensure!(terminal.wait()? == 0);
    Ok(())
}

#[test]
fn the_installer_installs_updates_and_removes() -> Result<()> {
    let built = artefacts()?;
    let home = scratch("installer");
    let from = built.path().to_str().context("a UTF-8 path")?;
    let prefix = home.path().join("place");
    let prefix_text = prefix.to_str().context("a UTF-8 path")?;
    let install = ["install", "--user", "--prefix", prefix_text, "--from", from];

    let said = install_sh(home.path(), &[&install[..], &["--dry-run"]].concat())?;
    ensure!(said.contains("would be installed") && !prefix.exists(), "{said}");
    let said = install_sh(home.path(), &install)?;
    ensure!(
        said.contains("installed claudenest-agent") && said.contains("installed claudenest-relay"),
        "{said}"
    );
    for file in [
        "bin/claudenest-relay",
        "share/bash-completion/completions/claudenest-agent",
        "share/zsh/site-functions/_claudenest-agent",
        "share/fish/vendor_completions.d/claudenest-agent.fish",
        "share/man/man1/claudenest-agent.1",
        "share/man/man1/claudenest-agent-session-new.1",
        "share/man/man1/claudenest-relay-serve.1",
    ] {
        ensure!(prefix.join(file).metadata().is_ok_and(|file| file.len() > 0), "{file} is missing");
    }
    check_update(&prefix.join("bin/claudenest-agent"), || {
        let said = install_sh(home.path(), &install)?;
        ensure!(said.contains("updated claudenest-agent"), "{said}");
        Ok(())
    })?;
    let said = install_sh(home.path(), &["remove", "--user", "--prefix", prefix_text])?;
    ensure!(said.contains("removed claudenest-agent"), "{said}");
    let left = Command::new("find").arg(&prefix).args(["-type", "f"]).output()?;
    ensure!(left.stdout.is_empty(), "left behind: {}", String::from_utf8_lossy(&left.stdout));
    let said = install_sh(home.path(), &["remove", "--user", "--prefix", prefix_text])?;
    ensure!(said.contains("is not installed"), "{said}");
    Ok(())
}

#[test]
fn the_installer_explains_wrong_usage() -> Result<()> {
    let home = scratch("installer");
    let nowhere = home.path().join("nowhere");
    let nowhere = nowhere.to_str().context("a UTF-8 path")?;
    let mut command = process::command(repository().join("installers/install.sh"), home.path());
    let finished = process::run(command.args(["install", "--user", "--from", nowhere]), PATIENCE)?;
    ensure!(finished.code == Some(2) && finished.stderr.contains("is missing. Build it"), "{finished:?}");
    let mut command = process::command(repository().join("installers/install.sh"), home.path());
    let finished = process::run(command.arg("--frobnicate"), PATIENCE)?;
    ensure!(finished.code == Some(2) && finished.stderr.contains("unknown argument"), "{finished:?}");
    Ok(())
}

fn build_debs(from: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    let mut command = process::command(repository().join("installers/deb.sh"), out);
    command.env("DEB_COMPRESSION", "none").arg("--from").arg(from).arg("--out").arg(out);
    let said = process::run(&mut command, PATIENCE)?.ok()?;
    Ok(said.lines().map(PathBuf::from).collect())
}

fn dpkg(args: &[&str], files: &[PathBuf]) -> Result<String> {
    // Another installation may be running on this machine: wait for its lock as apt does.
    let mut command = Command::new("flock");
    command.args(["/tmp/claudenest-tests-dpkg.lock", "dpkg"]).args(args).args(files);
    process::run(&mut command, PATIENCE)?.ok()
}

#[test]
fn the_packages_install_update_and_remove() -> Result<()> {
    if cfg!(target_os = "macos") {
        return Ok(()); // There are no Debian packages.
    }
    let built = artefacts()?;
    let out = scratch("debs");
    let debs = build_debs(built.path(), out.path())?;
    ensure!(debs.len() == 2, "{debs:?}");
    let listing = dpkg(&["-c"], &debs[..1])?;
    for file in [
        "usr/bin/claudenest-agent",
        "usr/share/man/man1/claudenest-agent.1.gz",
        "usr/share/man/man1/claudenest-agent-session-attach.1.gz",
        "lib/systemd/user/claudenest-agent.service",
    ] {
        ensure!(listing.contains(file), "{file} is not in the package:\n{listing}");
    }
    let field = dpkg(&["-f"], &debs[1..])?;
    ensure!(field.contains("Package: claudenest-relay") && field.contains("libc6 (>= 2."), "{field}");

    // A machine of the build fleet may be changed; that of a developer not.
    let may_install = std::env::var_os("CI").is_some() && rustix::process::getuid().is_root();
    if !may_install || Path::new("/usr/bin/claudenest-agent").exists() {
        let root = scratch("root");
        let target = root.path().to_str().context("a UTF-8 path")?;
        dpkg(&["-x", debs[0].to_str().context("a UTF-8 path")?, target], &[])?;
        return check_update(&root.path().join("usr/bin/claudenest-agent"), || Ok(()));
    }
    dpkg(&["-i"], &debs)?;
    let removal = Removal;
    check_update(Path::new("/usr/bin/claudenest-agent"), || dpkg(&["-i"], &debs).map(drop))?;
    let unit = Path::new("/usr/lib/systemd/system/claudenest-relay.service");
    let home = scratch("verify");
    let mut verify = process::command("systemd-analyze", home.path());
    let verified =
        process::run(verify.args(["--man=no", "--recursive-errors=no", "verify"]).arg(unit), PATIENCE)?;
    ensure!(verified.code == Some(0), "{}", verified.stderr);
    let users = std::fs::read_to_string("/etc/passwd")?;
    ensure!(users.contains("\nclaudenest-relay:"), "the package makes the user of the service");
    drop(removal);
    ensure!(!Path::new("/usr/bin/claudenest-agent").exists() && !unit.exists());
    ensure!(Path::new("/etc/claudenest-relay/relay.toml").exists(), "a removal keeps the configuration");
    dpkg(&["--purge", "claudenest-agent", "claudenest-relay"], &[])?;
    ensure!(!Path::new("/etc/claudenest-relay/relay.toml").exists());
    Ok(())
}

/// Removes the packages, also when the test fails.
struct Removal;

impl Drop for Removal {
    fn drop(&mut self) {
        let _ = dpkg(&["--remove", "claudenest-agent", "claudenest-relay"], &[]);
    }
}

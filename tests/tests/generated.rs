//! Generated files are what the programs generate now, and what the system's own checkers accept.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use claudenest_tests::{PATIENCE, process, program, repository, scratch};

fn output(name: &str, args: &[&str]) -> Result<String> {
    let home = scratch("generated");
    process::run(process::command(program(name), home.path()).args(args), PATIENCE)?.ok()
}

fn check_fresh(path: &str, fresh: &str, command: &str) -> Result<()> {
    let kept = std::fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())?;
    ensure!(kept.trim_end() == fresh.trim_end(), "{path} is stale: {command} > {path}");
    Ok(())
}

#[test]
fn the_openapi_document_is_fresh() -> Result<()> {
    let fresh = output("claudenest-relay", &["openapi"])?;
    check_fresh("relay/openapi.json", &fresh, "claudenest-relay openapi")
}

#[test]
fn the_agents_configuration_table_is_fresh() -> Result<()> {
    let fresh = output("claudenest-agent", &["config", "--docs"])?;
    check_fresh("docs/agent-config.md", &fresh, "claudenest-agent config --docs")
}

#[test]
fn completions_and_man_pages_are_made_for_every_shell() -> Result<()> {
    for shell in ["bash", "zsh", "fish"] {
        let script = output("claudenest-agent", &["completions", shell])?;
        ensure!(script.contains("hibernate"), "{shell}: {script}");
    }
    let page = output("claudenest-agent", &["man"])?;
    ensure!(page.contains(".TH claudenest-agent 1"), "{page}");
    Ok(())
}

/// Renders a unit with programs that exist (`systemd-analyze` looks for them) and has it verified.
fn verify_unit(unit: &Path, is_user: bool) -> Result<()> {
    let dir = scratch("unit");
    let text = std::fs::read_to_string(unit).with_context(|| format!("{}", unit.display()))?;
    let mut rendered = String::new();
    for line in text.lines().filter(|line| !line.starts_with("Documentation=")) {
        let line = match line.strip_prefix("ExecStart=").and_then(|rest| rest.split_once(' ')) {
            Some((_, arguments)) => format!("ExecStart=/bin/true {arguments}"),
            None => line.to_owned(),
        };
        rendered.push_str(&line);
        rendered.push('\n');
    }
    let path = dir.path().join(unit.file_name().context("a file name")?);
    std::fs::write(&path, rendered)?;
    let mut command = process::command("systemd-analyze", dir.path());
    command.env("XDG_RUNTIME_DIR", dir.path()).arg(if is_user { "--user" } else { "--system" });
    let finished =
        process::run(command.args(["--man=no", "--recursive-errors=no", "verify"]).arg(&path), PATIENCE)?;
    ensure!(finished.code == Some(0), "{}: {}", unit.display(), finished.stderr);
    Ok(())
}

#[test]
fn systemd_accepts_the_units() -> Result<()> {
    if cfg!(target_os = "macos") {
        return Ok(()); // There is no systemd.
    }
    let dir = repository().join("systemd");
    verify_unit(&dir.join("claudenest-relay.service"), false)
}

#[test]
fn property_lists_are_well_formed() -> Result<()> {
    let dir = repository().join("launchd");
    let Ok(entries) = std::fs::read_dir(&dir) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let check = "import plistlib, sys; d = plistlib.load(open(sys.argv[1], 'rb')); assert d['Label'] and d['ProgramArguments'], d";
        let finished = Command::new("python3").args(["-c", check]).arg(&path).output()?;
        ensure!(
            finished.status.success(),
            "{}: {}",
            path.display(),
            String::from_utf8_lossy(&finished.stderr)
        );
    }
    Ok(())
}

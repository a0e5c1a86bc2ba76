//! One machine with no relay, no keyring and no D-Bus: the command line does everything.

use anyhow::{Result, ensure};
use claudenest_tests::agent::Agent;
use claudenest_tests::process::{is_alive, wait_end};
use claudenest_tests::pty::Terminal;
use claudenest_tests::{PATIENCE, sha256};

use crate::support::{pid_of, tally};

fn attach(agent: &Agent, name: &str) -> Result<Terminal> {
    let mut command = agent.command();
    command.args(["session", "attach", "--wait-exit", name]);
    Terminal::start(&command, 100, 30)
}

#[test]
fn sixty_thousand_lines_and_a_megabyte_paste_pass_through_attach() -> Result<()> {
    let agent = Agent::start()?;
    let (lines, pasted) = (agent.home().join("lines"), agent.home().join("pasted"));
    let paste: Vec<u8> =
        (0..1_048_576u32).map(|n| b' ' + (n.wrapping_mul(2_654_435_761) >> 27) as u8).collect();
    let script = format!(
        "raw; print READY; wait go; print BEGIN; lines 60000 {}; print END; read {} {}; print THANKS; exit 7",
        lines.display(),
        paste.len(),
        pasted.display()
    );
    agent.new_session("bulk", &script)?;
    let mut terminal = attach(&agent, "bulk")?;
    terminal.until_bytes("READY")?;
    terminal.write(b"go")?;
    terminal.until_bytes("END")?;
    let bytes = terminal.bytes().to_vec();
    let find = |wanted: &[u8]| bytes.windows(wanted.len()).position(|window| window == wanted);
    let (Some(begin), Some(end)) = (find(b"BEGIN"), find(b"END")) else { anyhow::bail!("no marks") };
    let body = &bytes[begin + 5..end];
    let (count, digest) = tally(&lines)?;
    ensure!(body.len() as u64 == count && sha256(body) == digest, "{} of {count} bytes", body.len());
    terminal.write(&paste)?;
    terminal.until_bytes("THANKS")?;
    ensure!(tally(&pasted)? == (paste.len() as u64, sha256(&paste)), "the paste was changed");
    ensure!(terminal.wait()? == 7, "attach exits as the child did");
    Ok(())
}

#[test]
fn detach_leaves_the_session_and_a_later_attach_finds_the_screen() -> Result<()> {
    let agent = Agent::start()?;
    let session = agent.new_session("stay", "raw; alt; print \\e[22\\p5Hbottom\\sline; echo bye; exit 0")?;
    let mut first = attach(&agent, "stay")?;
    first.until_screen("bottom line")?;
    first.write(b"\x1dd")?;
    ensure!(first.wait()? == 0);
    ensure!(is_alive(pid_of(&session)?));
    let mut second = attach(&agent, "stay")?;
    second.until_screen("bottom line")?;
    ensure!(second.screen().contains("ALT SCREEN") && second.screen().contains("row 19 漢字 ✓"));
    let shown = agent.run(&["session", "screen", "stay"])?.ok()?;
    ensure!(shown.contains("ALT SCREEN") && shown.contains("bottom line"), "{shown}");
    second.write(b"bye")?;
    ensure!(second.wait()? == 0);
    Ok(())
}

#[test]
fn killing_ends_a_child_that_ignores_every_polite_signal() -> Result<()> {
    let agent = Agent::start()?;
    let session = agent.new_session("stubborn", "raw; ignore; print READY; wait never")?;
    agent.run(&["session", "kill", "stubborn", "--grace", "200ms"])?.ok()?;
    wait_end(pid_of(&session)?, PATIENCE)?;
    let info = agent.json(&["session", "wait", "stubborn"])?;
    ensure!(info["exit"]["signal"] == 9 && info["state"] == "terminated", "{info}");
    Ok(())
}

#[test]
fn exit_codes_of_the_command_line_say_what_happened() -> Result<()> {
    let mut agent = Agent::new()?;
    let code = |agent: &Agent, args: &[&str]| agent.run(args).map(|finished| finished.code);
    ensure!(code(&agent, &["session", "list"])? == Some(3), "the daemon is not running");
    agent.run_daemon()?;
    ensure!(code(&agent, &["session", "list"])? == Some(0));
    ensure!(code(&agent, &["session", "show", "nobody"])? == Some(4));
    ensure!(code(&agent, &["session", "frobnicate"])? == Some(2));
    agent.new_session("name", "raw; print +; wait never")?;
    let taken = agent.run(&["session", "new", "--name", "name"])?;
    ensure!(taken.code == Some(5) && !taken.stderr.contains("panicked"), "{taken:?}");
    let late = agent.run(&["session", "wait", "name", "--timeout", "300ms"])?;
    ensure!(late.code == Some(124), "{late:?}");
    Ok(())
}

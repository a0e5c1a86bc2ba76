//! Whoever joins late or comes back sees the same screen as one that never left. The judge is xterm.js (`tests/web/judge.mjs`).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use claudenest_tests::viewer::Viewer;
use claudenest_tests::{repository, scratch};
use serde_json::Value;

use crate::support::{World, id_of};

/// The screens after each of these bytes, as xterm.js draws them.
pub fn judge(cols: u64, rows: u64, streams: &[&[u8]]) -> Result<Vec<Value>> {
    let dir = scratch("judge");
    let mut command = Command::new("node");
    command.arg(repository().join("tests/web/judge.mjs")).arg(cols.to_string()).arg(rows.to_string());
    for (index, bytes) in streams.iter().enumerate() {
        let path = dir.path().join(format!("{index}"));
        std::fs::write(&path, bytes)?;
        command.arg(path);
    }
    let output = command.output().context("node: run `make setup`")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Says where two screens differ, and nothing when they do not.
pub fn difference(left: &Value, right: &Value) -> Option<String> {
    for part in ["type", "cursor", "modes"] {
        if left[part] != right[part] {
            return Some(format!("{part}: {} against {}", left[part], right[part]));
        }
    }
    let rows = left["lines"].as_array()?.iter().zip(right["lines"].as_array()?);
    let (number, (one, other)) = rows.enumerate().find(|(_, (one, other))| one != other)?;
    Some(format!("row {number}:\n  {one}\n  {other}"))
}

async fn check(world: &World, name: &str, recording: &Path) -> Result<()> {
    let script = format!(
        "raw; print +; wait go; file {}; print \\e]2\\pEND-MARK\\a; echo bye; exit 0",
        recording.display()
    );
    let session = world.agent.new_session(name, &script)?;
    let id = id_of(&session)?;
    let (cols, rows) = (
        session["size"]["cols"].as_u64().context("cols")?,
        session["size"]["rows"].as_u64().context("rows")?,
    );
    let mut first = Viewer::attach(&world.alice, id).await?;
    first.keep_output();
    first.write(b"go").await?;
    first.until_text("END-MARK").await?;
    let mut late = Viewer::attach_from(&world.alice, id, None).await?;
    late.keep_output();
    late.until(|viewer| viewer.position().is_some()).await?;
    // Both go on with the same bytes.
    first.write("mørk 漢 \x1b[7mlive\x1b[0m".as_bytes()).await?;
    for viewer in [&mut first, &mut late] {
        viewer.until_text("live").await?;
    }
    ensure!(
        late.seen().snapshots >= 1 && late.seen().bytes < first.seen().bytes,
        "the late one got everything"
    );
    let screens = judge(cols, rows, &[first.kept(), late.kept()])?;
    if let Some(difference) = difference(&screens[0], &screens[1]) {
        anyhow::bail!("{name}: {difference}");
    }
    first.write(b"bye").await?;
    first.until_exit().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn late_viewers_see_what_the_first_one_sees() -> Result<()> {
    let world = World::new().await?;
    let samples = repository().join("tests/fixtures/samples/pty");
    for name in ["claude_session", "claude_session_fullscreen", "claude_session_ghostty"] {
        check(&world, name, &samples.join(format!("{name}.raw"))).await?;
    }
    Ok(())
}

//! Terminal bytes through the relay: every one of them, in both directions, and the same screen for whoever comes late.

use anyhow::{Result, ensure};
use claudenest_shared::session::Exit;
use claudenest_tests::sha256;
use claudenest_tests::viewer::Viewer;
use serde_json::json;

use crate::support::{World, id_of, tally};

#[tokio::test(flavor = "multi_thread")]
async fn sixty_thousand_lines_and_a_megabyte_paste_arrive_byte_for_byte() -> Result<()> {
    let world = World::new().await?;
    let (lines, pasted) = (world.agent.home().join("lines"), world.agent.home().join("pasted"));
    let paste: Vec<u8> =
        (0..1_048_576u32).map(|n| b' ' + (n.wrapping_mul(2_654_435_761) >> 27) as u8).collect();
    let script = format!(
        "raw; print +; wait go; lines 60000 {}; read {} {}; print THANKS; exit 0",
        lines.display(),
        paste.len(),
        pasted.display()
    );
    let session = world.agent.new_session("bulk", &script)?;
    let mut viewer = Viewer::attach(&world.alice, id_of(&session)?).await?;
    viewer.write(b"go").await?;
    viewer.until_text("\r\n059999 ").await?;
    viewer.write(&paste).await?;
    viewer.until_text("THANKS").await?;
    ensure!(viewer.until_exit().await? == Exit::Code { code: 0 });
    ensure!(tally(&pasted)? == (paste.len() as u64, sha256(&paste)), "the paste was changed");
    let (bytes, _) = tally(&lines)?;
    ensure!(viewer.seen().bytes == bytes + 7, "{} of {bytes} bytes", viewer.seen().bytes);
    ensure!(viewer.seen().gaps == 0 && viewer.seen().snapshots == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_api_starts_names_feeds_and_stops_sessions() -> Result<()> {
    let world = World::new().await?;
    let machine = world.alice.get("/api/machines")?.ok()?[0]["id"].clone();
    let work = world.agent.work();
    let spec = json!({"name": "from-web", "cwd": work, "env": {"FAKE_CLAUDE": "raw; print HELLO; echo bye; exit 3"}});
    let answer = world.alice.post("/api/sessions", &json!({"machine_id": machine, "spec": spec}))?;
    ensure!(answer.status == 201, "{answer:?}");
    let session = answer.ok()?;
    let id = id_of(&session)?;
    let mut viewer = Viewer::attach(&world.alice, id).await?;
    viewer.until_text("HELLO").await?;
    let renamed =
        world.alice.send("PATCH", &format!("/api/sessions/{id}"), Some(&json!({"name": "renamed"})))?.ok()?;
    ensure!(renamed["name"] == "renamed");
    ensure!(world.agent.show("renamed")?["id"] == session["id"]);
    let taken = world
        .alice
        .post("/api/sessions", &json!({"machine_id": machine, "spec": {"name": "renamed", "cwd": work}}))?;
    ensure!(taken.status == 409 && taken.code() == "name_taken", "{taken:?}");
    let screen = world.alice.get(&format!("/api/sessions/{id}/screen"))?.ok()?;
    ensure!(screen["rows"][0].as_str().is_some_and(|row| row.starts_with("HELLO")), "{screen}");
    let sent =
        world.alice.post(&format!("/api/sessions/{id}/send"), &json!({"text": "bye", "enter": false}))?;
    ensure!(sent.status == 204, "{sent:?}");
    ensure!(viewer.until_exit().await? == Exit::Code { code: 3 });
    let bad = world
        .alice
        .post("/api/sessions", &json!({"machine_id": machine, "spec": {"cwd": "/no/such/place"}}))?;
    ensure!(bad.status == 422 && bad.code() == "bad_directory", "{bad:?}");
    let gone = world.alice.send("DELETE", &format!("/api/sessions/{id}"), None)?;
    ensure!(gone.status == 204, "{gone:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_cut_twenty_times_lose_and_repeat_nothing() -> Result<()> {
    let world = World::new().await?;
    let file = world.agent.home().join("poured");
    let session = world.agent.new_session(
        "cut",
        &format!("raw; print +; wait go; pour {0}.poured; total {0}; exit 0", file.display()),
    )?;
    let mut viewer = Viewer::attach(&world.alice, id_of(&session)?).await?;
    viewer.write(b"go").await?;
    for _ in 0..20 {
        let wanted = viewer.seen().bytes + 2_000;
        viewer.until(|viewer| viewer.seen().bytes >= wanted).await?;
        viewer.cut();
    }
    viewer.write(b"stop").await?;
    viewer.until_exit().await?;
    let (bytes, digest) = tally(&file)?;
    ensure!((viewer.seen().bytes, viewer.sha256()) == (bytes, digest), "{:?} of {bytes}", viewer.seen());
    Ok(())
}

//! Input over the whole way, with its hops cut: everything arrives once, in order, and pastes stay whole.

use anyhow::{Result, ensure};
use claudenest_shared::session::Exit;
use claudenest_tests::viewer::Viewer;

use crate::support::{World, id_of};

/// Two viewers: one types numbered lines, one pastes. Their sockets are cut 60 times, the relay is killed 5 times and the
/// daemon 10 times in between.
#[tokio::test(flavor = "multi_thread")]
async fn typing_and_pasting_survive_every_cut() -> Result<()> {
    const ROUNDS: usize = 60;
    let mut world = World::new().await?;
    let file = world.agent.home().join("typed");
    let script = format!("raw; print READY; save \\a {}; print THANKS; exit 7", file.display());
    let session = world.agent.new_session("typed", &script)?;
    let mut typist = Viewer::attach(&world.alice, id_of(&session)?).await?;
    let mut paster = Viewer::attach(&world.alice, id_of(&session)?).await?;
    typist.until_text("READY").await?;
    let body = "0123456789abcdef".repeat(6_000);
    let (mut typed, mut pasted) = (String::new(), 0);
    for round in 0..ROUNDS {
        for viewer in [&mut typist, &mut paster] {
            viewer.come_back().await?;
        }
        let key = format!("<{round}>");
        typist.send(key.as_bytes()).await?;
        typed += &key;
        if round % 4 == 0 {
            let paste = format!("\x1b[200~P{body}\x1b[201~");
            paster.send(paste.as_bytes()).await?;
            pasted += 1;
        }
        match round % 12 {
            3 | 9 => {
                world.agent.kill_daemon();
                world.agent.run_daemon()?;
            }
            6 => {
                world.relay.kill();
                world.relay.resume()?;
            }
            at if at % 2 == 0 => typist.cut(),
            _ => paster.cut(),
        }
    }
    typist.write(b"").await?;
    paster.write(b"").await?;
    typist.write(b"\x07").await?;
    ensure!(typist.until_exit().await? == Exit::Code { code: 7 });
    let text = String::from_utf8(std::fs::read(&file)?)?;
    // What is between marks is paste, what is outside is typing.
    let (mut outside, mut inside) = (String::new(), String::new());
    for (index, part) in text.split("\x1b[200~").enumerate() {
        if index == 0 {
            outside += part;
            continue;
        }
        let parts: Vec<&str> = part.split("\x1b[201~").collect();
        ensure!(parts.len() == 2, "marks are not in pairs: {} parts", parts.len());
        inside += parts[0];
        outside += parts[1];
    }
    ensure!(outside == typed, "typed {typed}\narrived {outside}");
    ensure!(inside == format!("P{body}").repeat(pasted), "{} bytes of pastes arrived", inside.len());
    let reconnects = typist.seen().reconnects + paster.seen().reconnects;
    eprintln!("{reconnects} reconnects, {} typed and {} pasted bytes", outside.len(), inside.len());
    ensure!(reconnects >= 45, "only {reconnects} breaks were mended");
    Ok(())
}

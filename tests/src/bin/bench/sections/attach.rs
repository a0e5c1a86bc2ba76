//! Attaching to a session with a long history: the first right screen, and the whole history.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use claudenest_shared::wire::agent::StreamPosition;
use sha2::{Digest, Sha256};

use super::Bench;
use crate::figures::{Goal, Row, Series};
use crate::terminal::Terminal;
use crate::viewer::{Came, Join, Viewer};
use crate::workload::{Kind, digest};
use crate::world::Tmux;

/// The last words of the history.
const END: &str = "END-OF-HISTORY";
const LIMIT: Duration = Duration::from_secs(60);

/// Milliseconds until a terminal shows the end.
fn shown(start: impl FnOnce() -> Result<Terminal>) -> Result<f64> {
    let from = Instant::now();
    let mut terminal = start()?;
    terminal.until_text(END)?;
    Ok(from.elapsed().as_secs_f64() * 1e3)
}

/// Milliseconds until a new page shows the end: ticket, socket, attachment, screen.
fn shown_in_page(open: impl FnOnce() -> Result<Viewer>) -> Result<f64> {
    let from = Instant::now();
    let mut viewer = open()?;
    let mut is_shown = false;
    while !is_shown {
        viewer.step(from + LIMIT, &mut |came| {
            let (Came::Output(bytes) | Came::Snapshot(bytes)) = came;
            is_shown |= bytes.windows(END.len()).any(|window| window == END.as_bytes());
            Ok(())
        })?;
    }
    Ok(from.elapsed().as_secs_f64() * 1e3)
}

/// See the module.
///
/// # Errors
/// If a screen or a byte is missing.
pub fn run(bench: &mut Bench) -> Result<()> {
    let scale = bench.scale;
    let blocks = scale.of(10, 2);
    let mut session = bench.world.session()?;
    let (user, port) = (bench.world.user.clone(), bench.world.relay.port());
    let mut tmux = if bench.has_tmux { Some(Tmux::start()?) } else { None };
    session.puppet.flood(blocks, Kind::Plain)?;
    session.puppet.done()?;
    session.puppet.print(END)?;
    if let Some((_, puppet)) = &mut tmux {
        puppet.flood(blocks, Kind::Plain)?;
        puppet.done()?;
        puppet.print(END)?;
    }
    let world = &bench.world;
    let [mut local, mut others, mut page, mut whole] = [const { Series(Vec::new()) }; 4];
    // The first of each reads programs from disk.
    for round in 0..=scale.rounds * scale.of(4, 1) {
        let tmux_time = match &tmux {
            Some((tmux, _)) => shown(|| tmux.attach())?,
            None => 0.0,
        };
        let ours = shown(|| world.attach(&session))?;
        let paged = shown_in_page(|| Viewer::attaching(&user, port, session.id, Join::Screen, false))?;
        if round > 0 {
            others.push(tmux_time);
            local.push(ours);
            page.push(paged);
        }
    }
    let (head, expected) = (world.head(&session)?, digest(Kind::Plain, blocks));
    for _ in 0..scale.rounds {
        let from = Instant::now();
        let start = StreamPosition { epoch: head.epoch, offset: 0 };
        let mut viewer = Viewer::attaching(&user, port, session.id, Join::EveryByte(start), false)?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < head.offset {
            viewer.step(from + LIMIT, &mut |came| {
                let Came::Output(piece) = came else { anyhow::bail!("bytes were skipped") };
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
        }
        let text = bytes.len() - END.len();
        ensure!(
            claudenest_tests::hex(&Sha256::digest(&bytes[..text])) == expected,
            "the history is not what was written"
        );
        whole.push(from.elapsed().as_secs_f64() * 1e3);
    }
    let goal = if tmux.is_some() { Goal::Most(1.0) } else { Goal::None };
    bench.table.add(Row {
        what: "10 MB of history: `session attach` until the right screen, ms".into(),
        ours: local.spread(1),
        others: vec![("tmux attach", others.spread(1))],
        figure: Some(("× tmux", local.over(&others).median())).filter(|_| tmux.is_some()),
        goal,
    });
    bench.table.add(Row {
        what: "the same in a new page (ticket, socket, screen), ms".into(),
        ours: page.spread(1),
        others: Vec::new(),
        figure: None,
        goal: Goal::None,
    });
    bench.table.add(Row {
        what: "the whole history in order, every byte hashed, ms".into(),
        ours: whole.spread(0),
        others: Vec::new(),
        figure: None,
        goal: Goal::None,
    });
    Ok(())
}

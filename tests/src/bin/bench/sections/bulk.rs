//! Bulk: text as fast as it comes to one viewer, who hashes every byte; and what it costs in CPU time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::Bench;
use crate::facts::cpu;
use crate::figures::{Goal, Row, Series};
use crate::floor::Floor;
use crate::puppet::Puppet;
use crate::terminal::Terminal;
use crate::viewer::{Came, Join, Viewer};
use crate::workload::{Kind, block, digest};
use crate::world::stage;

/// Longer than any bulk takes.
const LIMIT: Duration = Duration::from_secs(120);

struct Run {
    seconds: f64,
    /// CPU seconds of the servers, and of the viewer.
    servers: f64,
    viewer: f64,
}

struct Text {
    kind: Kind,
    blocks: u64,
    total: u64,
    digest: String,
}

/// Absent when the viewer fell so far behind that bytes were skipped, which it is told.
fn receive(viewer: &mut Viewer, puppet: &mut Puppet, text: &Text, pids: &[u32]) -> Result<Option<Run>> {
    let own = [std::process::id()];
    let (servers, mine, from) = (cpu(pids), cpu(&own), Instant::now());
    let mut hash = Sha256::new();
    let (mut seen, mut is_skipped) = (0u64, false);
    puppet.flood(text.blocks, text.kind)?;
    while seen < text.total && !is_skipped {
        viewer.step(from + LIMIT, &mut |came| {
            match came {
                Came::Output(bytes) => {
                    hash.update(bytes);
                    seen += bytes.len() as u64;
                }
                Came::Snapshot(_) => is_skipped = true,
            }
            Ok(())
        })?;
    }
    let seconds = from.elapsed().as_secs_f64();
    let run = Run { seconds, servers: cpu(pids) - servers, viewer: cpu(&own) - mine };
    puppet.done()?;
    if is_skipped {
        ensure!(viewer.gaps > 0, "bytes were skipped without a word");
        return Ok(None);
    }
    ensure!(
        claudenest_tests::hex(&hash.finalize()) == text.digest,
        "the bytes are not those that were written"
    );
    Ok(Some(run))
}

fn raw(terminal: &mut Terminal, puppet: &mut Puppet, text: &Text) -> Result<f64> {
    let from = Instant::now();
    puppet.flood(text.blocks, text.kind)?;
    let mut seen = 0;
    while seen < text.total {
        seen += terminal.read()?.len() as u64;
    }
    puppet.done()?;
    Ok(from.elapsed().as_secs_f64())
}

/// See the module.
///
/// # Errors
/// If a byte is lost or changed.
pub fn run(bench: &mut Bench) -> Result<()> {
    let scale = bench.scale;
    let (mut terminal, mut raw_puppet) = stage(Terminal::start)?;
    let (floor, mut floor_puppet) = stage(Floor::start)?;
    let mut floor_viewer = Viewer::floor(floor.port)?;
    let mut session = bench.world.session()?;
    for kind in [Kind::Plain, Kind::Colour] {
        let blocks = scale.of(256, 4);
        let text =
            Text { kind, blocks, total: block(kind).len() as u64 * blocks, digest: digest(kind, blocks) };
        let gigabytes = text.total as f64 / 1e9;
        let [mut raws, mut floors, mut ours] = [const { Series(Vec::new()) }; 3];
        let [mut floor_cpu, mut our_cpu, mut floor_servers, mut our_servers] =
            [const { Series(Vec::new()) }; 4];
        let mut lagged = 0;
        for _ in 0..scale.rounds {
            raws.push(text.total as f64 / 1e6 / raw(&mut terminal, &mut raw_puppet, &text)?);
            let run = receive(&mut floor_viewer, &mut floor_puppet, &text, &floor.pids())?;
            let run = run.context("the floor skips nothing")?;
            floors.push(text.total as f64 / 1e6 / run.seconds);
            floor_cpu.push((run.servers + run.viewer) / gigabytes);
            floor_servers.push(run.servers / gigabytes);
            let pids = bench.world.pids(&session)?;
            // Nothing ever slows the child down: a machine without CPU time to spare may fall 64 MiB behind.
            let mut run = None;
            while run.is_none() {
                let head = bench.world.head(&session)?;
                let mut viewer = bench.world.viewer(&session, Join::EveryByte(head), false)?;
                run = receive(&mut viewer, &mut session.puppet, &text, &pids)?;
                lagged += u32::from(run.is_none());
                ensure!(lagged < 10, "the viewer falls more than 64 MiB behind again and again");
                bench.world.until_screen(&session, head.offset + text.total)?;
            }
            let run = run.context("a run")?;
            ours.push(text.total as f64 / 1e6 / run.seconds);
            our_cpu.push((run.servers + run.viewer) / gigabytes);
            our_servers.push(run.servers / gigabytes);
        }
        let name = kind.name();
        let size = text.total / 1_000_000;
        bench.table.add(Row {
            what: format!("{size} MB of {name} text through the relay to a viewer, every byte hashed, MB/s"),
            ours: ours.spread(0),
            others: vec![
                ("raw", raws.spread(0)),
                ("floor", floors.spread(0)),
                ("× raw", ours.over(&raws).spread(2)),
                ("fell 64 MiB behind", format!("{lagged} times")),
            ],
            figure: Some(("× floor", ours.over(&floors).median())),
            goal: Goal::Least(0.8),
        });
        bench.table.add(Row {
            what: "CPU of all processes with the viewer, without the child, s/GB".into(),
            ours: our_cpu.spread(1),
            others: vec![("floor", floor_cpu.spread(1))],
            figure: Some(("× floor", our_cpu.over(&floor_cpu).median())),
            goal: Goal::Most(1.6),
        });
        bench.table.add(Row {
            what: "of that holder, daemon and relay, s/GB".into(),
            ours: our_servers.spread(1),
            others: vec![("floor", floor_servers.spread(1))],
            figure: Some(("× floor", our_servers.over(&floor_servers).median())),
            goal: Goal::None,
        });
    }
    Ok(())
}

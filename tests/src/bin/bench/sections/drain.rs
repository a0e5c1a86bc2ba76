//! How fast a flooding child gets rid of its output: its own time, from the first write to the end of the last.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::Bench;
use crate::facts::{cpu, pause};
use crate::figures::{Goal, Row, Series};
use crate::puppet::Puppet;
use crate::terminal::Terminal;
use crate::workload::{Kind, block};
use crate::world::stage;

/// Lets a terminal be read by a loop that does nothing else, until the workload is done; megabytes a second.
fn raw(terminal: &mut Terminal, puppet: &mut Puppet, blocks: u64, kind: Kind) -> Result<f64> {
    let total = block(kind).len() as u64 * blocks;
    puppet.flood(blocks, kind)?;
    let mut seen = 0;
    while seen < total {
        seen += terminal.read()?.len() as u64;
    }
    ensure!(seen == total, "{seen} bytes instead of {total}");
    Ok(speed(total, puppet.done()? as f64 / 1e9))
}

fn speed(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / 1e6 / seconds
}

/// See the module.
///
/// # Errors
/// If the workload fails.
pub fn run(bench: &mut Bench) -> Result<()> {
    let scale = bench.scale;
    let blocks = scale.of(96, 2);
    let (mut terminal, mut puppet) = stage(Terminal::start)?;
    let mut session = bench.world.session()?;
    for kind in [Kind::Plain, Kind::Colour] {
        let (mut raws, mut ours, mut followed, mut burnt) =
            (Series::default(), Series::default(), Series::default(), Series::default());
        let total = block(kind).len() as u64 * blocks;
        for _ in 0..scale.rounds {
            raws.push(raw(&mut terminal, &mut puppet, blocks, kind)?);
            let pids = bench.world.pids(&session)?;
            let end = bench.world.head(&session)?.offset + total;
            let (before, from) = (cpu(&pids), Instant::now());
            session.puppet.flood(blocks, kind)?;
            ours.push(speed(total, session.puppet.done()? as f64 / 1e9));
            bench.world.until_screen(&session, end)?;
            followed.push(speed(total, from.elapsed().as_secs_f64()));
            burnt.push((cpu(&pids) - before) / (total as f64 / 1e9));
            pause(std::time::Duration::from_millis(100))?;
        }
        let name = kind.name();
        bench.table.add(Row {
            what: format!("drain of {name} text, nobody watching, MB/s"),
            ours: ours.spread(0),
            others: vec![("raw", raws.spread(0))],
            figure: Some(("× raw", ours.over(&raws).median())),
            goal: Goal::Least(0.9),
        });
        bench.table.add(Row {
            what: "the same, until the screen model is right, MB/s".into(),
            ours: followed.spread(0),
            others: vec![("CPU s/GB", burnt.spread(1))],
            figure: Some(("× raw", followed.over(&raws).median())),
            goal: Goal::Least(0.7),
        });
    }
    Ok(())
}

//! ^C into a flood: how long a person looks at old output after stopping a program that prints as fast as it can.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Bench;
use crate::facts::pause;
use crate::figures::{Goal, Row, Series};
use crate::viewer::{Came, Join};
use crate::workload::{Kind, MARK};

/// A page that has much to draw takes no more than this (xterm.js, measured on a laptop: 5 to 35 MB/s).
const PAGE_BYTES_PER_SECOND: f64 = 10e6;
/// How long the flood goes on before ^C is typed: every queue on the way is as full as it gets.
const FLOOD: Duration = Duration::from_millis(700);
const LIMIT: Duration = Duration::from_secs(30);

/// See the module.
///
/// # Errors
/// If the end is never seen.
pub fn run(bench: &mut Bench) -> Result<()> {
    let mut session = bench.world.session()?;
    let mut times = Series::default();
    for _ in 0..bench.scale.rounds {
        let mut viewer = bench.world.viewer(&session, Join::Screen, true)?;
        let before = viewer.bytes;
        session.puppet.until_interrupt(Kind::Plain)?;
        let (from, mut typed, mut seen) = (Instant::now(), None, None);
        while seen.is_none() {
            viewer.step(from + LIMIT, &mut |came| {
                let (Came::Output(bytes) | Came::Snapshot(bytes)) = came;
                if typed.is_some() && memchr::memchr(MARK, bytes).is_some() {
                    seen = Some(Instant::now());
                }
                Ok(())
            })?;
            let drawn = Duration::from_secs_f64((viewer.bytes - before) as f64 / PAGE_BYTES_PER_SECOND);
            pause(drawn.saturating_sub(from.elapsed()).min(Duration::from_millis(20)))?;
            if typed.is_none() && from.elapsed() > FLOOD {
                viewer.write(&[3])?;
                typed = Some(Instant::now());
            }
        }
        session.puppet.done()?;
        if let (Some(typed), Some(seen)) = (typed, seen) {
            times.push(seen.duration_since(typed).as_secs_f64() * 1e3);
        }
    }
    bench.table.add(Row {
        what: "^C into a flood until its end is seen, in a page that takes 10 MB/s, ms".into(),
        ours: times.spread(0),
        others: Vec::new(),
        figure: Some(("ms at most", times.quantile(1.0))),
        goal: Goal::Most(300.0),
    });
    Ok(())
}

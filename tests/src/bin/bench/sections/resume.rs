//! Away and back: what a viewer that was cut off gets when it returns, and how long a killed daemon is missed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use claudenest_shared::wire::agent::StreamPosition;

use super::Bench;
use super::fanout::Marks;
use crate::figures::{Goal, Row, Series, short};
use crate::viewer::{Came, Join, Viewer};
use crate::workload::{Kind, block, now_ns};
use crate::world::Session;

const LIMIT: Duration = Duration::from_secs(60);

/// Reads until `position` is reached; answers gaps, as bytes that were left out.
fn read_to(viewer: &mut Viewer, mut at: StreamPosition, head: u64) -> Result<u64> {
    let deadline = Instant::now() + LIMIT;
    let mut lost = 0;
    while viewer.position.is_none_or(|position| position.offset < head) {
        let before = viewer.snapshots;
        viewer.step(deadline, &mut |_| Ok(()))?;
        let now = viewer.position.context("a position")?;
        if viewer.snapshots > before {
            ensure!(viewer.gaps > 0, "a snapshot did not say that bytes are missing");
            lost += now.offset.saturating_sub(at.offset);
        }
        at = now;
    }
    Ok(lost)
}

/// Cuts the viewer off while `work` goes on, and comes back: bytes lost and resent, milliseconds to the first byte and to the end.
fn away(
    bench: &Bench,
    session: &mut Session,
    work: impl FnOnce(&mut Session) -> Result<()>,
) -> Result<[f64; 4]> {
    let start = bench.world.head(session)?;
    let mut viewer = bench.world.viewer(session, Join::EveryByte(start), false)?;
    session.puppet.print("before")?;
    read_to(&mut viewer, start, start.offset + 6)?;
    let at = viewer.position.context("a position")?;
    drop(viewer);
    work(session)?;
    // What was written must have come so far that the head is known.
    bench.world.agent.json(&["session", "screen", &session.name])?;
    let head = bench.world.head(session)?;
    let from = Instant::now();
    let mut viewer = Viewer::attaching(
        &bench.world.user,
        bench.world.relay.port(),
        session.id,
        Join::EveryByte(at),
        false,
    )?;
    while viewer.bytes == 0 && viewer.snapshots == 0 {
        viewer.step(from + LIMIT, &mut |_| Ok(()))?;
    }
    let first = from.elapsed().as_secs_f64() * 1e3;
    let skipped = if viewer.gaps > 0 {
        viewer.position.context("a position")?.offset - viewer.bytes - at.offset
    } else {
        0
    };
    let at_first = viewer.position.context("a position")?;
    let lost = skipped + read_to(&mut viewer, at_first, head.offset)?;
    let resent = (viewer.bytes + lost).saturating_sub(head.offset - at.offset);
    Ok([lost as f64, resent as f64, first, from.elapsed().as_secs_f64() * 1e3])
}

/// See the module.
///
/// # Errors
/// If a promise is broken.
pub fn run(bench: &mut Bench) -> Result<()> {
    let scale = bench.scale;
    let mut session = bench.world.session()?;
    let mebibyte = block(Kind::Plain).len() as u64;
    let time = Duration::from_millis(scale.of(5000, 500));
    let add = |bench: &mut Bench, what: String, runs: &[[f64; 4]], goal: Goal| {
        let column = |at: usize| Series(runs.iter().map(|run| run[at]).collect());
        bench.table.add(Row {
            what,
            ours: format!(
                "{} lost, {} resent",
                short(column(0).quantile(1.0)),
                short(column(1).quantile(1.0))
            ),
            others: vec![("ms to the first byte", column(2).spread(1)), ("to the last", column(3).spread(0))],
            figure: Some(("bytes lost or resent", column(0).quantile(1.0) + column(1).quantile(1.0))),
            goal,
        });
    };
    let mut runs = Vec::new();
    for _ in 0..scale.of(3, 1) {
        runs.push(away(bench, &mut session, |session| {
            session.puppet.pace(2_000_000, time)?;
            session.puppet.done().map(drop)
        })?);
    }
    add(bench, format!("away {} s at 2 MB/s and back, bytes", time.as_secs_f64()), &runs, Goal::Most(0.0));
    for (blocks, goal) in [(scale.of(60, 6), Goal::Most(0.0)), (80, Goal::None)] {
        if scale.is_quick && blocks == 80 {
            continue;
        }
        let runs = [away(bench, &mut session, |session| {
            session.puppet.flood(blocks, Kind::Plain)?;
            session.puppet.done().map(drop)
        })?];
        let what = format!("away while {} MiB came, bytes", blocks * mebibyte / 1024 / 1024);
        if matches!(goal, Goal::None) {
            ensure!(runs[0][0] > 0.0, "80 MiB are beyond what a viewer may lag, but there was no gap");
        }
        add(bench, what, &runs, goal);
    }
    killed(bench)
}

/// `kill -9` of the daemon under a running stream; it is started anew at once, as a service manager does.
fn killed(bench: &mut Bench) -> Result<()> {
    let scale = bench.scale;
    let mut session = bench.world.session()?;
    let start = bench.world.head(&session)?;
    let mut viewer = bench.world.viewer(&session, Join::EveryByte(start), false)?;
    let mut missed = Series::default();
    for _ in 0..scale.of(5, 1) {
        let mut marks = Marks::default();
        session.puppet.pace(2_000_000, Duration::from_secs(3))?;
        let mut is_streaming = false;
        while !is_streaming {
            viewer.step(Instant::now() + LIMIT, &mut |came| {
                if let Came::Output(bytes) = came {
                    marks.find(bytes, |_| is_streaming = true);
                }
                Ok(())
            })?;
        }
        bench.world.agent.kill_daemon();
        let killed_at = now_ns();
        let agent = &mut bench.world.agent;
        let back = std::thread::scope(|scope| -> Result<u64> {
            let starting = scope.spawn(move || agent.run_daemon());
            // What is written after the end of the old daemon can only come through the new one.
            let mut back = None;
            while back.is_none() {
                viewer.step(Instant::now() + LIMIT, &mut |came| {
                    if let Came::Output(bytes) = came {
                        let now = now_ns();
                        marks.find(bytes, |stamp| {
                            if stamp > killed_at && back.is_none() {
                                back = Some(now);
                            }
                        });
                    }
                    Ok(())
                })?;
            }
            starting.join().unwrap_or_else(|_| anyhow::bail!("the daemon did not start"))?;
            back.context("a line")
        })?;
        missed.push((back - killed_at) as f64 / 1e6);
        let total = session.puppet.done()?;
        let head = start.offset + viewer.bytes;
        ensure!(
            total > 0 && viewer.gaps == 0 && viewer.snapshots == 0,
            "bytes were lost with the daemon at {head}"
        );
        // The rest of this round.
        let end = bench.world.head(&session)?.offset;
        let at = viewer.position.context("a position")?;
        read_to(&mut viewer, at, end)?;
    }
    bench.table.add(Row {
        what: "daemon killed (kill -9) and started → streaming through the relay again, 0 bytes lost, ms"
            .into(),
        ours: missed.spread(0),
        others: Vec::new(),
        figure: Some(("ms", missed.median())),
        goal: Goal::Most(1000.0),
    });
    Ok(())
}

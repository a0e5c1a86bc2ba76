//! Memory of daemon, relay and holders with many idle sessions, and what they do while nothing happens.

use std::time::Duration;

use anyhow::Result;

use super::Bench;
use crate::facts::{cpu, memory, pause, switches};
use crate::figures::{Goal, Row, Series, short};
use crate::workload::Kind;
use crate::world::{Session, World};

/// See the module.
///
/// # Errors
/// If a session does not start.
pub fn run(bench: &mut Bench) -> Result<()> {
    let scale = bench.scale;
    let mut world = World::start()?;
    let mut sessions: Vec<Session> = Vec::new();
    let mut daemons: Vec<(usize, f64)> = Vec::new();
    for count in [1, scale.of(50, 3), scale.of(200, 5)] {
        while sessions.len() < count {
            sessions.push(world.session()?);
        }
        pause(Duration::from_secs(scale.of(3, 1)))?;
        let relay = world.relay_tree()?;
        let (own, holders) = ([world.daemon()?, relay[0]], sessions.iter().map(|session| session.holder));
        let holders: Vec<u32> = holders.collect();
        let mib = |pid: u32| memory(pid).anonymous / 1024.0;
        let shares = Series(holders.iter().map(|pid| memory(*pid).pss / 1024.0).collect());
        let database: f64 = relay[1..].iter().map(|pid| memory(*pid).pss / 1024.0).sum();
        daemons.push((count, mib(own[0])));
        let mut idle = own.to_vec();
        idle.extend(&holders);
        let seconds = scale.of(10, 1);
        let (used, turns, data) = (cpu(&idle), switches(&idle), cpu(&relay[1..]));
        let daemon_turns = switches(&own[..1]);
        pause(Duration::from_secs(seconds))?;
        let (used, turns, data) = (cpu(&idle) - used, switches(&idle) - turns, cpu(&relay[1..]) - data);
        let daemon_turns = switches(&own[..1]) - daemon_turns;
        bench.table.add(Row {
            what: format!("{count} idle sessions: anonymous memory of daemon / relay / each holder, MiB"),
            ours: format!(
                "{} / {} / {}",
                short(mib(own[0])),
                short(mib(own[1])),
                short(Series(holders.iter().map(|pid| mib(*pid)).collect()).median())
            ),
            others: vec![("holder's PSS", shares.spread(2)), ("database's PSS", short(database))],
            figure: Some(("MiB PSS a holder", shares.median())),
            goal: Goal::Most(3.0),
        });
        bench.table.add(Row {
            what: format!("{count} idle sessions: CPU of daemon, relay and holders in {seconds} s, s"),
            ours: short(used),
            others: vec![
                ("context switches", turns.to_string()),
                ("of them the daemon's", daemon_turns.to_string()),
                ("database", short(data)),
            ],
            figure: Some(("cores", used / seconds as f64)),
            goal: Goal::Most(0.005),
        });
    }
    if let (Some((few, small)), Some((many, large))) = (daemons.first(), daemons.last()) {
        let each = (large - small) / (many - few) as f64;
        bench.table.add(Row {
            what: "an idle session more in the daemon, MiB".into(),
            ours: short(each),
            others: Vec::new(),
            figure: Some(("MiB", each)),
            goal: Goal::Most(1.0),
        });
    }
    // One that has printed much: its ring is full.
    if let Some(session) = sessions.last_mut() {
        session.puppet.flood(scale.of(32, 8), Kind::Colour)?;
        session.puppet.done()?;
        world.agent.json(&["session", "screen", &session.name])?;
        let full = memory(session.holder).pss / 1024.0;
        bench.table.add(Row {
            what: "a holder whose ring of 4 MiB is full, PSS in MiB".into(),
            ours: short(full),
            others: Vec::new(),
            figure: Some(("MiB", full)),
            goal: Goal::Most(7.0),
        });
    }
    Ok(())
}

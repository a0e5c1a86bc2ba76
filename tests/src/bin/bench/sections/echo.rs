//! Keystroke to echo: one byte typed, the same byte seen. All ways are open at once and take turns key by key, so that
//! whatever else the machine does meets them alike.

use std::time::Duration;

use anyhow::Result;

use super::Bench;
use crate::facts::{cpu, pause, switches};
use crate::figures::{Goal, Row, Series, short};
use crate::floor::Floor;
use crate::puppet::Puppet;
use crate::terminal::Terminal;
use crate::ttyd::Ttyd;
use crate::viewer::{Came, Join, Viewer};
use crate::workload::Kind;
use crate::world::{Session, Tmux, stage};

/// Keys that occur in no escape sequence that a terminal program sends here.
const KEYS: &[u8] = b"xzvywk";
/// Between two keys while their cost is counted: beyond what is left to do for one after its echo.
const COST_GAP: Duration = Duration::from_millis(5);
/// Between two keys, whichever ways they take: longer than any coalescing, so that each way sees a typist of 20 to 30 keys a second.
const GAP: Duration = Duration::from_millis(8);

enum Way {
    Terminal(Terminal),
    Viewer(Viewer),
}

struct Lane {
    name: &'static str,
    way: Way,
    rounds: Vec<Series>,
}

impl Lane {
    fn new(name: &'static str, way: Way) -> Self {
        Self { name, way, rounds: Vec::new() }
    }

    fn key(&mut self, key: u8) -> Result<Duration> {
        match &mut self.way {
            Way::Terminal(terminal) => terminal.key(key),
            Way::Viewer(viewer) => viewer.key(key),
        }
    }

    /// A figure of each round, in microseconds.
    fn each(&self, share: f64) -> Series {
        Series(self.rounds.iter().map(|round| round.quantile(share)).collect())
    }
}

/// The ways that a keystroke can take, with what keeps them open.
struct Ways {
    lanes: Vec<Lane>,
    /// The processes between keyboard and child of the ways that are ours, by name.
    pids: Vec<(&'static str, Vec<u32>)>,
    _keep: (Vec<Puppet>, Vec<Session>, Floor, Option<Tmux>, Option<Ttyd>),
}

impl Ways {
    fn open(bench: &mut Bench) -> Result<Self> {
        let mut puppets = Vec::new();
        let (raw, puppet) = stage(Terminal::start)?;
        puppets.push(puppet);
        let (floor, puppet) = stage(Floor::start)?;
        puppets.push(puppet);
        let world = &mut bench.world;
        let (remote, local) = (world.session()?, world.session()?);
        let mut attached = world.attach(&local)?;
        attached.until_quiet(Duration::from_millis(500))?;
        let attached_pid = attached.pid();
        let mut lanes = vec![
            Lane::new("raw", Way::Terminal(raw)),
            Lane::new("floor", Way::Viewer(Viewer::floor(floor.port)?)),
            Lane::new("relay", Way::Viewer(world.viewer(&remote, Join::Screen, true)?)),
            Lane::new("attach", Way::Terminal(attached)),
        ];
        let mut pids = vec![("floor", floor.pids().to_vec()), ("relay", world.pids(&remote)?)];
        pids.push(("attach", vec![attached_pid, world.daemon()?, local.holder]));
        let mut tmux = None;
        if bench.has_tmux {
            let (server, puppet) = Tmux::start()?;
            puppets.push(puppet);
            let mut terminal = server.attach()?;
            terminal.until_quiet(Duration::from_millis(500))?;
            lanes.push(Lane::new("tmux", Way::Terminal(terminal)));
            tmux = Some(server);
        }
        let mut ttyd = None;
        if bench.has_ttyd {
            let (server, viewer, puppet) = Ttyd::start()?;
            puppets.push(puppet);
            lanes.push(Lane::new("ttyd", Way::Viewer(viewer)));
            ttyd = Some(server);
        }
        Ok(Self { lanes, pids, _keep: (puppets, vec![remote, local], floor, tmux, ttyd) })
    }

    fn measure(&mut self, rounds: usize, keys: usize, between: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        for round in 0..=rounds {
            // The first round warms up.
            let keys = if round == 0 { 5 } else { keys };
            self.lanes.iter_mut().for_each(|lane| lane.rounds.push(Series::default()));
            for key in 0..keys {
                for lane in &mut self.lanes {
                    let time = lane.key(KEYS[key % KEYS.len()])?;
                    if let Some(round) = lane.rounds.last_mut() {
                        round.push(time.as_secs_f64() * 1e6);
                    }
                    pause(GAP)?;
                    between()?;
                }
            }
            if round == 0 {
                self.lanes.iter_mut().for_each(|lane| lane.rounds.clear());
            }
        }
        Ok(())
    }

    /// What one key costs the processes on a way: microseconds of CPU time, and context switches.
    fn cost(&mut self, name: &str, keys: usize) -> Result<(f64, f64)> {
        let Some((_, pids)) = self.pids.iter().find(|(way, _)| *way == name) else { return Ok((0.0, 0.0)) };
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.name == name) else { return Ok((0.0, 0.0)) };
        let (used, turns) = (cpu(pids), switches(pids));
        for key in 0..keys {
            lane.key(KEYS[key % KEYS.len()])?;
            pause(COST_GAP)?;
        }
        let each = |total: f64| total / keys as f64;
        Ok((each((cpu(pids) - used) * 1e6), each((switches(pids) - turns) as f64)))
    }

    fn lane(&self, name: &str) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.name == name)
    }

    /// What a way takes beyond the raw terminal, round by round.
    fn added(&self, name: &str) -> Series {
        match (self.lane(name), self.lane("raw")) {
            (Some(lane), Some(raw)) => lane.each(0.5).minus(&raw.each(0.5)),
            _ => Series::default(),
        }
    }

    fn others(&self, names: &[&'static str], figure: impl Fn(&str) -> Series) -> Vec<(&'static str, String)> {
        let known = names.iter().filter(|name| self.lane(name).is_some());
        known.map(|name| (*name, figure(name).spread(0))).collect()
    }

    /// Quantile of all keys of a way.
    fn all(&self, name: &str, share: f64) -> f64 {
        let rounds = self.lane(name).map(|lane| lane.rounds.as_slice()).unwrap_or_default();
        Series(rounds.iter().flat_map(|round| round.0.iter().copied()).collect()).quantile(share)
    }
}

/// Nothing else runs.
///
/// # Errors
/// If a way breaks.
pub fn alone(bench: &mut Bench) -> Result<()> {
    let mut ways = Ways::open(bench)?;
    let scale = bench.scale;
    ways.measure(scale.rounds, scale.of(60, 8), &mut || Ok(()))?;
    let each = |name: &str| ways.lane(name).map(|lane| lane.each(0.5)).unwrap_or_default();
    bench.table.add(Row {
        what: "echo through the relay, p50 in µs".into(),
        ours: each("relay").spread(0),
        others: ways.others(&["raw", "floor", "ttyd"], each),
        figure: None,
        goal: Goal::None,
    });
    bench.table.add(Row {
        what: "the same, added to raw, p50 in µs".into(),
        ours: ways.added("relay").spread(0),
        others: ways.others(&["floor", "ttyd"], |name| ways.added(name)),
        figure: Some(("× floor", ways.added("relay").over(&ways.added("floor")).median())),
        goal: Goal::Most(1.6),
    });
    bench.table.add(Row {
        what: "the same, p99 of all keys in µs".into(),
        ours: short(ways.all("relay", 0.99)),
        others: ["raw", "floor"].map(|name| (name, short(ways.all(name, 0.99)))).to_vec(),
        figure: None,
        goal: Goal::None,
    });
    let goal = if bench.has_tmux { Goal::Most(1.0) } else { Goal::None };
    bench.table.add(Row {
        what: "echo through `session attach`, added to raw, p50 in µs".into(),
        ours: ways.added("attach").spread(0),
        others: ways.others(&["tmux"], |name| ways.added(name)),
        figure: Some(("× tmux", ways.added("attach").over(&ways.added("tmux")).median()))
            .filter(|_| bench.has_tmux),
        goal,
    });
    bench.table.add(Row {
        what: "the same, p99 of all keys in µs".into(),
        ours: short(ways.all("attach", 0.99)),
        others: vec![("tmux", short(ways.all("tmux", 0.99)))],
        figure: None,
        goal: Goal::None,
    });
    let keys = scale.of(400, 20);
    let costs: Result<Vec<_>> = ["relay", "floor", "attach"].iter().map(|way| ways.cost(way, keys)).collect();
    let costs = costs?;
    bench.table.add(Row {
        what: "what a key through the relay costs, µs of CPU; context switches".into(),
        ours: format!("{}; {}", short(costs[0].0), short(costs[0].1)),
        others: vec![
            ("floor", format!("{}; {}", short(costs[1].0), short(costs[1].1))),
            ("attach", format!("{}; {}", short(costs[2].0), short(costs[2].1))),
        ],
        figure: Some(("× floor's switches", costs[0].1 / costs[1].1.max(1.0))),
        goal: Goal::None,
    });
    Ok(())
}

/// Another session of the same machine floods; first nobody watches it, then a viewer does, through the same relay.
///
/// # Errors
/// If a way breaks.
pub fn flooded(bench: &mut Bench) -> Result<()> {
    let mut ways = Ways::open(bench)?;
    let scale = bench.scale;
    let mut flood = bench.world.session()?;
    for is_watched in [false, true] {
        ways.lanes.iter_mut().for_each(|lane| lane.rounds.clear());
        let watcher = if is_watched { Some(bench.world.viewer(&flood, Join::Screen, false)?) } else { None };
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        // The watcher reads as fast as it can, as a browser would, on a thread of its own.
        let reading = std::thread::spawn(move || -> Result<u64> {
            let Some(mut watcher) = watcher else { return Ok(0) };
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                if watcher_has_news(&watcher)? {
                    watcher.take(&mut |_: Came<'_>| Ok(()))?;
                }
            }
            Ok(watcher.bytes)
        });
        flood.puppet.endless(Kind::Plain)?;
        ways.measure(scale.rounds, scale.of(40, 5), &mut || Ok(()))?;
        let flooded = flood.puppet.stop()?;
        drop(stop);
        let seen = reading.join().unwrap_or_else(|_| anyhow::bail!("the watcher failed"))?;
        anyhow::ensure!(flooded > 0 && (seen > 0) == is_watched, "the flood: {flooded} bytes, {seen} seen");
        let who = if is_watched { "watched through the same relay" } else { "watched by nobody" };
        bench.table.add(Row {
            what: format!("echo through the relay beside a flooding session, {who}, p50 in µs"),
            ours: ways.lane("relay").map(|lane| lane.each(0.5)).unwrap_or_default().spread(0),
            others: ways.others(&["raw", "floor"], |name| {
                ways.lane(name).map(|lane| lane.each(0.5)).unwrap_or_default()
            }),
            figure: None,
            goal: Goal::None,
        });
        let p99 = ways.all("relay", 0.99) / 1000.0;
        bench.table.add(Row {
            what: "the same, p99 of all keys in ms".into(),
            ours: short(p99),
            others: ["raw", "floor", "attach", "tmux"]
                .map(|name| (name, short(ways.all(name, 0.99) / 1000.0)))
                .to_vec(),
            figure: Some(("ms", p99)),
            goal: Goal::Most(10.0),
        });
    }
    Ok(())
}

fn watcher_has_news(watcher: &Viewer) -> Result<bool> {
    Ok(crate::workload::ready([watcher.socket()], Some(Duration::from_millis(50)))?[0])
}

//! Fan-out: one session, a hundred viewers through the relay, read by one thread of the bench.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::event::epoll;

use super::Bench;
use crate::facts::{cpu, memory, pause};
use crate::figures::{Goal, Row, Series, short};
use crate::floor::Floor;
use crate::puppet::Puppet;
use crate::viewer::{Came, Join, Viewer};
use crate::workload::{MARK, now_ns};
use crate::world::{Session, stage};

const STAMP_DIGITS: usize = 20;

/// Finds the times in marked lines, which may be cut anywhere.
#[derive(Default)]
pub struct Marks {
    digits: Option<Vec<u8>>,
}

impl Marks {
    /// Hands the times in `bytes` to `on`.
    pub fn find(&mut self, mut bytes: &[u8], mut on: impl FnMut(u64)) {
        loop {
            if let Some(digits) = &mut self.digits {
                let (now, rest) = bytes.split_at(bytes.len().min(STAMP_DIGITS - digits.len()));
                digits.extend_from_slice(now);
                bytes = rest;
                if digits.len() < STAMP_DIGITS {
                    return;
                }
                if let Some(time) = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()) {
                    on(time);
                }
                self.digits = None;
            }
            let Some(at) = memchr::memchr(MARK, bytes) else { return };
            bytes = &bytes[at + 1..];
            self.digits = Some(Vec::with_capacity(STAMP_DIGITS));
        }
    }
}

struct Crowd {
    poll: std::os::fd::OwnedFd,
    viewers: Vec<(Viewer, Marks)>,
}

/// What a crowd saw of one paced run.
struct Seen {
    /// Milliseconds from the write to each viewer.
    delays: Series,
    /// Cores that were used.
    cores: f64,
}

impl Crowd {
    fn new(viewers: Vec<Viewer>) -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (number, viewer) in viewers.iter().enumerate() {
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&poll, viewer.socket(), data, epoll::EventFlags::IN)?;
            viewer.socket().set_nonblocking(true)?;
        }
        let viewers = viewers.into_iter().map(|viewer| (viewer, Marks::default())).collect();
        Ok(Self { poll, viewers })
    }

    fn of(bench: &Bench, session: &Session, count: usize) -> Result<Self> {
        let viewers: Result<Vec<Viewer>> =
            (0..count).map(|_| bench.world.viewer(session, Join::Screen, false)).collect();
        let mut crowd = Self::new(viewers?)?;
        crowd.settle()?;
        Ok(crowd)
    }

    /// Reads until everybody is silent.
    fn settle(&mut self) -> Result<()> {
        while self.read(Duration::from_millis(300), &mut |_, _| {})? {}
        Ok(())
    }

    /// Reads what is there; false if nothing came in time. `on` gets the time of reading and that of each mark.
    fn read(&mut self, limit: Duration, on: &mut dyn FnMut(u64, u64)) -> Result<bool> {
        let mut events = Vec::<epoll::Event>::with_capacity(128);
        let timeout = rustix::event::Timespec::try_from(limit)?;
        let count = match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))
        {
            Err(rustix::io::Errno::INTR) => return Ok(true),
            other => other?,
        };
        for event in &events {
            let number = event.data.u64() as usize;
            let Some((viewer, marks)) = self.viewers.get_mut(number) else { continue };
            viewer.take(&mut |came| {
                if let Came::Output(bytes) = came {
                    let now = now_ns();
                    marks.find(bytes, |stamp| on(now, stamp));
                }
                Ok(())
            })?;
        }
        Ok(count > 0)
    }

    /// Lets the workload print at a pace and waits until everybody has everything.
    fn watch(&mut self, puppet: &mut Puppet, rate: u64, time: Duration, pids: &[u32]) -> Result<Seen> {
        let before: Vec<u64> = self.viewers.iter().map(|(viewer, _)| viewer.bytes).collect();
        let (used, from) = (cpu(pids), Instant::now());
        let mut delays = Series::default();
        puppet.pace(rate, time)?;
        while from.elapsed() < time {
            self.read(Duration::from_millis(20), &mut |now, stamp| {
                delays.push((now.saturating_sub(stamp)) as f64 / 1e6);
            })?;
        }
        let total = puppet.done()?;
        let late = Instant::now() + Duration::from_secs(10);
        loop {
            let lacking =
                self.viewers.iter().zip(&before).filter(|((viewer, _), had)| viewer.bytes - **had < total);
            let lacking = lacking.count();
            if lacking == 0 {
                break;
            }
            ensure!(Instant::now() < late, "{lacking} viewers did not get everything");
            self.read(Duration::from_millis(20), &mut |now, stamp| {
                delays.push((now.saturating_sub(stamp)) as f64 / 1e6);
            })?;
        }
        let cores = (cpu(pids) - used) / from.elapsed().as_secs_f64();
        for ((viewer, _), had) in self.viewers.iter().zip(&before) {
            ensure!(viewer.bytes - had == total, "a viewer has {} of {total} bytes", viewer.bytes - had);
            ensure!(viewer.gaps == 0, "a viewer was sent a gap");
        }
        Ok(Seen { delays, cores })
    }
}

/// A hundred viewers at 2 MB/s.
///
/// # Errors
/// If one does not get everything.
pub fn run(bench: &mut Bench) -> Result<()> {
    let scale = bench.scale;
    let (count, rate) = (scale.of(100, 10), 2_000_000);
    let time = Duration::from_millis(scale.of(3000, 400));
    let (floor, mut floor_puppet) = stage(Floor::start)?;
    let viewers: Result<Vec<Viewer>> = (0..count).map(|_| Viewer::floor(floor.port)).collect();
    let mut floor_crowd = Crowd::new(viewers?)?;
    let mut session = bench.world.session()?;
    let mut crowd = Crowd::of(bench, &session, count)?;
    let [mut cores, mut floor_cores, mut middle, mut floor_middle, mut late, mut floor_late] =
        [const { Series(Vec::new()) }; 6];
    for _ in 0..scale.rounds {
        let seen = floor_crowd.watch(&mut floor_puppet, rate, time, &floor.pids())?;
        floor_cores.push(seen.cores);
        floor_middle.push(seen.delays.median());
        floor_late.push(seen.delays.quantile(0.99));
        let pids = bench.world.pids(&session)?;
        let seen = crowd.watch(&mut session.puppet, rate, time, &pids)?;
        cores.push(seen.cores);
        middle.push(seen.delays.median());
        late.push(seen.delays.quantile(0.99));
    }
    bench.table.add(Row {
        what: format!("{count} viewers × 2 MB/s, all bytes delivered; cores of holder, daemon and relay"),
        ours: cores.spread(2),
        others: vec![("floor", floor_cores.spread(2))],
        figure: Some(("cores", cores.median())),
        goal: Goal::Most(0.3),
    });
    bench.table.add(Row {
        what: "the same, delay of each line, p99 in ms".into(),
        ours: late.spread(1),
        others: vec![
            ("floor", floor_late.spread(1)),
            ("p50", middle.spread(1)),
            ("floor's p50", floor_middle.spread(1)),
        ],
        figure: Some(("ms", late.median())),
        goal: Goal::Most(5.0),
    });
    Ok(())
}

/// A hundred viewers at 1 MB/s, with and without one that never reads.
///
/// # Errors
/// If one does not get everything.
pub fn stalled(bench: &mut Bench) -> Result<()> {
    let scale = bench.scale;
    let (count, rate) = (scale.of(100, 10), 1_000_000);
    let time = Duration::from_millis(scale.of(2500, 400));
    let mut session = bench.world.session()?;
    let mut crowd = Crowd::of(bench, &session, count)?;
    let pids = bench.world.pids(&session)?;
    let servers = [bench.world.daemon()?, bench.world.relay_tree()?[0]];
    let anonymous = || servers.map(|pid| memory(pid).anonymous / 1024.0);
    // Everything that is allocated once is allocated now: the rings of daemon and relay hold 4 MiB each.
    for _ in 0..2 {
        crowd.watch(&mut session.puppet, rate, time, &pids)?;
    }
    let (mut without, mut with) = (Series::default(), Series::default());
    let before = anonymous();
    for _ in 0..scale.rounds {
        without.push(crowd.watch(&mut session.puppet, rate, time, &pids)?.delays.quantile(0.99));
        let staller = bench.world.viewer(&session, Join::Screen, false)?;
        with.push(crowd.watch(&mut session.puppet, rate, time, &pids)?.delays.quantile(0.99));
        drop(staller);
        pause(Duration::from_millis(100))?;
    }
    let after = anonymous();
    bench.table.add(Row {
        what: format!("{count} viewers × 1 MB/s beside one that never reads, p99 of the others in ms"),
        ours: with.spread(2),
        others: vec![("without it", without.spread(2))],
        figure: Some(("× without", with.over(&without).median())),
        goal: Goal::Most(1.1),
    });
    bench.table.add(Row {
        what: "the same, memory of daemon and relay, MiB at first → at last".into(),
        ours: format!(
            "{} → {}; {} → {}",
            short(before[0]),
            short(after[0]),
            short(before[1]),
            short(after[1])
        ),
        others: Vec::new(),
        figure: Some(("MiB more", after.iter().sum::<f64>() - before.iter().sum::<f64>())),
        goal: Goal::Most(2.0),
    });
    Ok(())
}

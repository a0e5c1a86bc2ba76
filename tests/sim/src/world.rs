//! The world: steps chosen by a seed, effects carried both ways with delay, and what must hold at the end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use claudenest_shared::id::SessionId;
use claudenest_shared::session::TermSize;
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::frame::Frame;
use claudenest_shared::wire::limits::{DEFAULT_LAG_LIMIT_BYTES, MAX_LAG_LIMIT_BYTES};

use crate::agent::machine::Machine;
use crate::agent::screen::{Model, ScreenModel};
use crate::hub::core::{Attach, Core, Effect, Key, Pulled, ViewerId};
use crate::terminal::Rng;
use crate::terminal::streams::{Family, stream};
use crate::viewer::Viewer;

const SESSION: SessionId = SessionId::from_bytes([7; 16]);
/// What a page grants ahead of what it has taken.
const WINDOW: u64 = 200 * 1024;

/// What a simulation did: if nothing of one kind ever happens, it proves nothing about that kind.
#[derive(Clone, Copy, Default, Debug)]
pub struct Totals {
    /// Steps.
    pub steps: u64,
    /// Bytes of output that viewers got and compared.
    pub bytes: u64,
    /// Snapshots that they got.
    pub snapshots: u64,
    /// Those that left something out, and said so.
    pub gaps: u64,
    /// Links that were cut.
    pub cuts: u64,
    /// Sockets of viewers that broke.
    pub breaks: u64,
    /// Daemons that were killed.
    pub daemons: u64,
    /// Runs of the child.
    pub runs: u64,
    /// Screens compared with that of plain reference bytes.
    pub screens: u64,
}

impl Totals {
    /// Adds another simulation's.
    pub fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.bytes += other.bytes;
        self.snapshots += other.snapshots;
        self.gaps += other.gaps;
        self.cuts += other.cuts;
        self.breaks += other.breaks;
        self.daemons += other.daemons;
        self.runs += other.runs;
        self.screens += other.screens;
    }
}

enum FromMachine {
    Opened(Key, StreamPosition, u64, TermSize),
    Frame(Key, Frame),
    NamedEpoch(u32),
}

struct World {
    rng: Rng,
    hub: Core,
    machine: Machine<Key>,
    is_linked: bool,
    to_machine: VecDeque<Effect>,
    to_relay: VecDeque<FromMachine>,
    /// What a link that was cut still delivers, later, beside the new one.
    stale: VecDeque<FromMachine>,
    viewers: BTreeMap<ViewerId, Viewer>,
    /// Output in large pieces: the rings overflow.
    is_loud: bool,
    may_restart: bool,
    resizes: bool,
    totals: Totals,
}

impl World {
    fn new(seed: u64, now: Instant) -> Self {
        let mut rng = Rng(seed);
        let disk = [u64::MAX, u64::MAX, 300_000, 0][rng.below(4)];
        let (is_loud, may_restart, resizes) = (rng.chance(10), rng.chance(25), rng.chance(50));
        Self {
            rng,
            hub: Core::new(SESSION),
            machine: Machine::new(SESSION, now, disk),
            is_linked: false,
            to_machine: VecDeque::new(),
            to_relay: VecDeque::new(),
            stale: VecDeque::new(),
            viewers: BTreeMap::new(),
            is_loud,
            may_restart,
            resizes,
            totals: Totals::default(),
        }
    }

    fn settle(&mut self) {
        for effect in self.hub.take_effects() {
            match effect {
                Effect::Wake { viewer } => {
                    if let Some(viewer) = self.viewers.get_mut(&viewer) {
                        viewer.woken = true;
                    }
                }
                effect => {
                    assert!(self.is_linked, "nothing may be sent without a link: {effect:?}");
                    self.to_machine.push_back(effect);
                }
            }
        }
    }

    // ---- the machine ----

    fn output(&mut self) -> String {
        let family = Family::ALL[self.rng.below(4)];
        let pieces = self.rng.within(1, 8);
        let text = stream(family, &mut self.rng, 40, 12, pieces);
        if self.is_loud { text.repeat(self.rng.within(1, 300)) } else { text }
    }

    fn machine_takes(&mut self) -> bool {
        let Some(effect) = self.to_machine.pop_front() else { return false };
        match effect {
            Effect::OpenStream { key, from, lag_limit_bytes, credit } => {
                let is_slow = self.rng.chance(20);
                let (at, head, size) = self.machine.open(key, from, lag_limit_bytes, credit, is_slow);
                self.to_relay.push_back(FromMachine::Opened(key, at, head, size));
            }
            Effect::Snapshot { key } => self.machine.want_snapshot(key),
            Effect::Credit { key, total } => self.machine.grant(key, total),
            Effect::Close { key } => self.machine.close(key),
            other => panic!("nobody types in this simulation: {other:?}"),
        }
        true
    }

    fn machine_sends(&mut self) -> bool {
        let keys = self.machine.keys();
        if keys.is_empty() {
            return false;
        }
        let first = self.rng.below(keys.len());
        let meanwhile = self.output();
        (0..keys.len()).any(|turn| {
            let key = keys[(first + turn) % keys.len()];
            let Some(frame) = self.machine.poll(key, meanwhile.as_bytes()) else { return false };
            self.to_relay.push_back(FromMachine::Frame(key, frame));
            true
        })
    }

    fn restart_child(&mut self) {
        let epoch = self.machine.restart_child();
        if self.is_linked {
            self.to_relay.push_back(FromMachine::NamedEpoch(epoch));
        }
    }

    /// The link ends with the daemon; streams of the old one are closed.
    fn restart_daemon(&mut self) {
        self.cut();
        let back = self.rng.below(2 << 20);
        self.machine.restart_daemon(back);
        self.totals.daemons += 1;
    }

    // ---- the network ----

    fn relay_takes(&mut self) -> bool {
        let Some(event) = self.to_relay.pop_front() else { return false };
        self.relay_gets(event);
        true
    }

    fn relay_gets(&mut self, event: FromMachine) {
        match event {
            FromMachine::Opened(key, at, head, size) => self.hub.stream_opened(key, at, head, size),
            FromMachine::NamedEpoch(epoch) => self.hub.named_epoch(epoch),
            FromMachine::Frame(key, frame) => {
                let encoded = frame.encode();
                self.hub.frame(key, &frame, &encoded).expect("the machine keeps the protocol");
            }
        }
        self.settle();
    }

    fn cut(&mut self) {
        if !self.is_linked {
            return;
        }
        self.is_linked = false;
        self.totals.cuts += 1;
        self.hub.link_down();
        self.settle();
        self.machine.cut();
        self.to_machine.clear();
        // News of an epoch are true on whatever link they come; frames of the old link must change nothing.
        let late = self.to_relay.drain(..).filter(|event| !matches!(event, FromMachine::NamedEpoch(_)));
        self.stale.extend(late);
    }

    fn connect(&mut self) {
        if !self.is_linked {
            self.is_linked = true;
            self.hub.link_up();
            self.settle();
            self.to_relay.push_back(FromMachine::NamedEpoch(self.machine.end().epoch));
        }
    }

    // ---- viewers ----

    fn attach(&mut self, mut viewer: Viewer) {
        let channel = self.rng.within(1, 7) as u16;
        let credit = self.rng.within(1, 200 * 1024) as u64;
        viewer.attach_again(channel, credit);
        let lag_limit_bytes = (viewer.lag_limit != DEFAULT_LAG_LIMIT_BYTES).then_some(viewer.lag_limit);
        let wish = Attach {
            channel,
            from: viewer.position,
            writer: None,
            label: "test".into(),
            may_size: false,
            lag_limit_bytes,
            credit,
        };
        let id = self.hub.attach(wish).expect("a wish within the limits");
        self.viewers.insert(id, viewer);
        self.settle();
    }

    fn join(&mut self) {
        let lag_limit = [DEFAULT_LAG_LIMIT_BYTES, DEFAULT_LAG_LIMIT_BYTES, 20_000, MAX_LAG_LIMIT_BYTES]
            [self.rng.below(4)];
        let from = self.rng.chance(50).then(|| StreamPosition { offset: 0, ..self.machine.end() });
        let is_stalled = self.rng.chance(15);
        self.attach(Viewer::new(1, from, lag_limit, is_stalled));
    }

    fn some_viewer(&mut self) -> Option<ViewerId> {
        let at = self.rng.below(self.viewers.len());
        self.viewers.keys().nth(at).copied()
    }

    fn pull(&mut self, id: ViewerId) -> bool {
        let Some(viewer) = self.viewers.get_mut(&id) else { return false };
        if !std::mem::take(&mut viewer.woken) {
            return false;
        }
        let budget = self.rng.within(1, 300_000);
        let mut items = Vec::new();
        let pulled = self.hub.pull(id, budget, &mut items);
        self.settle();
        let Some(viewer) = self.viewers.get_mut(&id) else { return false };
        viewer.woken |= pulled == Pulled::Part;
        assert_ne!(pulled, Pulled::Gone, "nobody ends a viewer in this simulation: {items:?}");
        for item in items {
            viewer.take(item, &self.machine.runs);
        }
        true
    }

    fn grant(&mut self, id: ViewerId) -> bool {
        let Some(viewer) = self.viewers.get_mut(&id) else { return false };
        let total = viewer.received + WINDOW;
        if viewer.is_stalled || total <= viewer.granted {
            return false;
        }
        viewer.granted = total;
        self.hub.grant(id, total).expect("within the window");
        self.settle();
        true
    }

    /// The socket of a viewer breaks; the page comes back with its screen and its position, or is closed.
    fn break_socket(&mut self) {
        let Some(id) = self.some_viewer() else { return };
        let Some(viewer) = self.viewers.remove(&id) else { return };
        self.hub.detach(id);
        self.settle();
        self.totals.breaks += 1;
        if self.rng.chance(70) {
            self.attach(viewer);
        } else {
            self.count(&viewer);
        }
    }

    fn count(&mut self, viewer: &Viewer) {
        self.totals.bytes += viewer.bytes;
        self.totals.snapshots += viewer.snapshots;
        self.totals.gaps += viewer.gaps;
    }

    // ---- the run ----

    fn step(&mut self) {
        match self.rng.below(200) {
            0..=2 if self.viewers.len() < 8 => self.join(),
            3 | 4 => self.break_socket(),
            5 if self.rng.chance(30) => self.cut(),
            6 if self.rng.chance(10) => self.restart_daemon(),
            7..=14 => self.connect(),
            15 if self.may_restart && self.rng.chance(10) => self.restart_child(),
            16 if self.rng.chance(3) => self.machine.end_child(),
            17 if self.resizes => {
                let size =
                    TermSize { cols: self.rng.within(20, 60) as u16, rows: self.rng.within(6, 20) as u16 };
                self.machine.resize(size);
            }
            18..=45 => {
                let text = self.output();
                // A piece ends anywhere, also inside a sequence or a character.
                let cut = self.rng.below(text.len() + 1);
                self.machine.print(&text.as_bytes()[..cut]);
                self.machine.print(&text.as_bytes()[cut..]);
            }
            46..=60 => self.machine.pass(self.rng.below(6) as u64),
            61..=90 => drop(self.machine_sends()),
            91..=100 => drop(self.machine_takes()),
            101..=135 => drop(self.relay_takes()),
            136 | 137 => {
                if let Some(event) = self.stale.pop_front() {
                    self.relay_gets(event);
                }
            }
            138..=160 => {
                if let Some(id) = self.some_viewer() {
                    self.grant(id);
                }
            }
            _ => {
                if let Some(id) = self.some_viewer() {
                    self.pull(id);
                }
            }
        }
        self.totals.steps += 1;
    }

    /// Lets everything come to rest and checks that everybody who reads has everything.
    fn rest(&mut self) {
        self.connect();
        let ids: Vec<ViewerId> = self.viewers.keys().copied().collect();
        for round in 0.. {
            let mut is_busy = false;
            while self.machine_takes() {
                is_busy = true;
            }
            self.machine.pass(5);
            is_busy |= self.machine_sends();
            while self.relay_takes() {
                is_busy = true;
            }
            for id in &ids {
                is_busy |= self.pull(*id);
                is_busy |= self.grant(*id);
            }
            if !is_busy {
                // A snapshot that was made is sent in a later turn than it was asked for.
                self.machine.pass(5);
                if !self.machine_sends() && !self.machine_sends() && self.to_relay.is_empty() {
                    break;
                }
            }
            assert!(round < 50_000, "it never comes to rest");
        }
        let end = self.machine.end();
        let run = self.machine.current();
        let mut plain = Model::new(TermSize { cols: 40, rows: 12 });
        run.screen_at(end.offset, &mut plain);
        let mut screens = 0;
        for (id, viewer) in &self.viewers {
            assert!(viewer.is_attached || viewer.is_stalled, "{id:?} was never attached");
            if viewer.is_stalled {
                continue;
            }
            assert_eq!(viewer.position, Some(end), "{id:?} has not reached the end");
            assert_eq!(viewer.exit == Some(end), run.has_ended, "{id:?} and the exit");
            let screen = viewer.screen.as_ref().expect("a screen");
            assert_eq!(screen.size(), plain.size(), "{id:?}");
            assert_eq!(screen.modes(), plain.modes(), "{id:?}");
            if !self.resizes {
                // Lines that scrolled away come back to nobody's wider screen; without sizes nothing else differs.
                assert_eq!(screen.text(), plain.text(), "{id:?}");
                screens += 1;
            }
        }
        self.totals.screens += screens;
        self.totals.runs += self.machine.runs.len() as u64;
        for viewer in std::mem::take(&mut self.viewers).values() {
            self.count(viewer);
        }
    }
}

/// Simulates `steps` steps of the seed's world and brings it to rest.
///
/// # Panics
/// If anything is not as it must be.
pub fn run(seed: u64, steps: u64, now: Instant) -> Totals {
    let mut world = World::new(seed, now);
    world.connect();
    for _ in 0..steps {
        world.step();
    }
    world.rest();
    world.totals
}

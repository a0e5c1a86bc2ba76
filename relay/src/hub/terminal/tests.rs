//! The core against plain reference bytes: a machine, a network that delays and cuts, and viewers of every kind.
//!
//! Viewers pull only when they were woken, so a missing wake-up shows as a viewer that never reaches the end.

mod model;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bytes::{Bytes, BytesMut};
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::session::{Exit, TermSize};
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::frame::{FLAG_GAP, FLAG_REFUSED, Frame, FrameKind, encode_exit, encode_size};
use claudenest_shared::wire::limits::{MAX_LAG_LIMIT_BYTES, MAX_OUTPUT_BYTES};

use self::model::Model;
use super::core::{Attach, Core, Effect, Key, Pulled, ViewerId};
use super::ring::RING_BYTES;

const SESSION: SessionId = SessionId::from_bytes([7; 16]);
const PERIOD: u64 = 251;

/// SplitMix64: enough for choosing steps, and the same on every machine.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The byte at an offset is a function of epoch and offset: any slice can be made and checked without storing the stream.
fn reference(pattern: &Bytes, epoch: u32, offset: u64, len: usize) -> Bytes {
    let start = (offset + u64::from(epoch) * 17) % PERIOD;
    pattern.slice(start as usize..start as usize + len)
}

struct AgentStream {
    position: u64,
    epoch: u32,
    lag_limit: u64,
    credit: u64,
    sent: u64,
    wants_snapshot: bool,
    /// The next snapshot skips bytes.
    is_gap: bool,
    /// The exit was sent.
    is_over: bool,
}

enum FromAgent {
    Opened(Key, StreamPosition, u64, TermSize),
    WriterOpened(Key, u64),
    Closed(Key),
    NamedEpoch(u32),
    Frame(Key, Frame),
}

struct Sim {
    rng: Rng,
    pattern: Bytes,
    core: Core,
    link: bool,
    to_agent: VecDeque<Effect>,
    to_relay: VecDeque<FromAgent>,
    epoch: u32,
    head: u64,
    /// Bytes that the machine still has.
    retention: u64,
    has_ended: bool,
    streams: BTreeMap<Key, AgentStream>,
    agent_writers: HashMap<Key, WriterId>,
    applied: HashMap<WriterId, u64>,
    viewers: BTreeMap<ViewerId, Model>,
    may_restart: bool,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let pattern: Bytes = (0..MAX_OUTPUT_BYTES as u64 + PERIOD).map(|at| (at % PERIOD) as u8).collect();
        let mut rng = Rng(seed);
        let retention = [u64::MAX, u64::MAX, 8 << 20, 300_000][rng.below(4) as usize];
        let may_restart = rng.chance(25);
        Self {
            rng,
            pattern,
            core: Core::new(SESSION),
            link: false,
            to_agent: VecDeque::new(),
            to_relay: VecDeque::new(),
            epoch: 0,
            head: 0,
            retention,
            has_ended: false,
            streams: BTreeMap::new(),
            agent_writers: HashMap::new(),
            applied: HashMap::new(),
            viewers: BTreeMap::new(),
            may_restart,
        }
    }

    fn settle(&mut self) {
        for effect in self.core.take_effects() {
            match effect {
                Effect::Wake { viewer } => {
                    if let Some(model) = self.viewers.get_mut(&viewer) {
                        model.woken = true;
                    }
                }
                effect => {
                    assert!(self.link, "nothing may be sent without a link: {effect:?}");
                    self.to_agent.push_back(effect);
                }
            }
        }
    }

    fn size(&self) -> TermSize {
        TermSize { cols: 80, rows: 24 }
    }

    // ---- the machine ----

    fn agent_takes(&mut self) {
        let Some(effect) = self.to_agent.pop_front() else { return };
        match effect {
            Effect::OpenStream { key, from, lag_limit_bytes, credit } => {
                let tail = self.head.saturating_sub(self.retention);
                let here = from.filter(|from| {
                    from.epoch == self.epoch
                        && (tail..=self.head).contains(&from.offset)
                        && self.head - from.offset <= lag_limit_bytes
                });
                let at = here.unwrap_or(StreamPosition { epoch: self.epoch, offset: self.head });
                let stream = AgentStream {
                    position: at.offset,
                    epoch: at.epoch,
                    lag_limit: lag_limit_bytes,
                    credit,
                    sent: 0,
                    wants_snapshot: here.is_none(),
                    is_gap: here.is_none() && from.is_some(),
                    is_over: false,
                };
                self.streams.insert(key, stream);
                self.to_relay.push_back(FromAgent::Opened(key, at, self.head, self.size()));
            }
            Effect::Snapshot { key } => {
                if let Some(stream) = self.streams.get_mut(&key) {
                    stream.wants_snapshot = true;
                }
            }
            Effect::Credit { key, total } => {
                if let Some(stream) = self.streams.get_mut(&key) {
                    stream.credit = stream.credit.max(total);
                }
            }
            Effect::OpenWriter { key, writer, .. } => {
                self.agent_writers.insert(key, writer);
                let acked = self.applied.get(&writer).copied().unwrap_or(0);
                self.to_relay.push_back(FromAgent::WriterOpened(key, acked));
            }
            Effect::Forward { key, frame } => {
                let Some(writer) = self.agent_writers.get(&key) else { return };
                let applied = self.applied.entry(*writer).or_default();
                let mut ack = Frame { kind: FrameKind::InputAck, flags: 0, payload: Bytes::new(), ..frame };
                if ack.offset == *applied + 1 {
                    *applied += 1;
                } else if ack.offset > *applied {
                    ack.flags = FLAG_REFUSED;
                    ack.payload = Bytes::from_static(b"bad_request");
                }
                self.to_relay.push_back(FromAgent::Frame(key, ack));
            }
            Effect::TakeSize { .. } => {}
            Effect::Close { key } => {
                self.streams.remove(&key);
                self.agent_writers.remove(&key);
            }
            Effect::Wake { .. } => unreachable!("kept by settle"),
        }
    }

    fn agent_sends(&mut self) -> bool {
        let keys: Vec<Key> = self.streams.keys().copied().collect();
        if keys.is_empty() {
            return false;
        }
        let first = self.rng.below(keys.len() as u64) as usize;
        (0..keys.len()).any(|turn| self.agent_sends_on(keys[(first + turn) % keys.len()]))
    }

    fn agent_sends_on(&mut self, key: Key) -> bool {
        let (epoch, head) = (self.epoch, self.head);
        let tail = head.saturating_sub(self.retention);
        let max = self.rng.below(MAX_OUTPUT_BYTES as u64) + 1;
        let Some(stream) = self.streams.get_mut(&key).filter(|stream| !stream.is_over) else { return false };
        if stream.epoch != epoch || stream.position < tail || head - stream.position > stream.lag_limit {
            stream.epoch = epoch;
            stream.position = head;
            stream.wants_snapshot = true;
            stream.is_gap = true;
        }
        if stream.sent >= stream.credit {
            return false;
        }
        let mut frame = Frame {
            kind: FrameKind::Output,
            flags: 0,
            channel: 1,
            epoch,
            session: SESSION,
            offset: stream.position,
            payload: Bytes::new(),
        };
        if stream.wants_snapshot {
            frame.kind = FrameKind::Snapshot;
            frame.flags = if stream.is_gap { FLAG_GAP } else { 0 };
            let mut payload = BytesMut::from(&encode_size(TermSize { cols: 80, rows: 24 })[..]);
            payload.extend_from_slice(format!("{epoch} {}", stream.position).as_bytes());
            frame.payload = payload.freeze();
            stream.wants_snapshot = false;
            stream.is_gap = false;
        } else {
            let len = max.min(head - stream.position).min(stream.credit - stream.sent);
            if len == 0 {
                if self.has_ended && stream.position == head {
                    stream.is_over = true;
                    frame.kind = FrameKind::Exit;
                    frame.payload = encode_exit(Exit::Code { code: 7 });
                    self.to_relay.push_back(FromAgent::Frame(key, frame));
                    return true;
                }
                return false;
            }
            frame.payload = reference(&self.pattern, epoch, stream.position, len as usize);
            stream.position += len;
        }
        stream.sent += frame.payload.len() as u64;
        self.to_relay.push_back(FromAgent::Frame(key, frame));
        true
    }

    /// A size, in-stream on every stream that is at the head.
    fn agent_resizes(&mut self, payload: &Bytes) {
        for (key, stream) in &self.streams {
            let is_at_head = stream.epoch == self.epoch && stream.position == self.head;
            if is_at_head && !stream.wants_snapshot && !stream.is_over {
                let frame = Frame {
                    kind: FrameKind::Resize,
                    flags: 0,
                    channel: 1,
                    epoch: self.epoch,
                    session: SESSION,
                    offset: self.head,
                    payload: payload.clone(),
                };
                self.to_relay.push_back(FromAgent::Frame(*key, frame));
            }
        }
    }

    /// A new process in the same session.
    fn restart(&mut self) {
        self.epoch += 1;
        self.head = 0;
        self.has_ended = false;
        self.applied.clear();
        for (key, _) in self.agent_writers.drain() {
            self.to_relay.push_back(FromAgent::Closed(key));
        }
        if self.link {
            self.to_relay.push_back(FromAgent::NamedEpoch(self.epoch));
        }
    }

    // ---- the network ----

    fn relay_takes(&mut self) -> bool {
        let Some(event) = self.to_relay.pop_front() else { return false };
        self.relay_gets(event);
        true
    }

    fn relay_gets(&mut self, event: FromAgent) {
        match event {
            FromAgent::Opened(key, at, head, size) => self.core.stream_opened(key, at, head, size),
            FromAgent::Closed(key) => self.core.channel_closed(key, None),
            FromAgent::NamedEpoch(epoch) => self.core.named_epoch(epoch),
            FromAgent::WriterOpened(key, acked) => self.core.writer_opened(key, acked),
            FromAgent::Frame(key, frame) => {
                let encoded = frame.encode();
                self.core.frame(key, &frame, &encoded).expect("the machine keeps the protocol");
            }
        }
        self.settle();
        assert!(self.core.ring_bytes() <= RING_BYTES + MAX_OUTPUT_BYTES, "the ring is bounded");
    }

    fn cut(&mut self) {
        if !self.link {
            return;
        }
        self.link = false;
        self.core.link_down();
        self.settle();
        self.streams.clear();
        self.agent_writers.clear();
        self.to_agent.clear();
        // What the old link still delivers must change nothing.
        for event in std::mem::take(&mut self.to_relay) {
            self.relay_gets(event);
        }
    }

    fn connect(&mut self) {
        if !self.link {
            self.link = true;
            self.core.link_up();
            self.settle();
        }
    }

    // ---- viewers ----

    fn join(&mut self) {
        let lag_limit = [None, None, Some(64 * 1024), Some(MAX_LAG_LIMIT_BYTES)][self.rng.below(4) as usize];
        let from = match self.rng.below(4) {
            0 => None,
            1 => Some(StreamPosition { epoch: self.epoch, offset: self.head }),
            2 => Some(StreamPosition { epoch: self.epoch, offset: self.rng.below(self.head + 1) }),
            _ => {
                let back = self.rng.below(6 << 20);
                Some(StreamPosition { epoch: self.epoch, offset: self.head.saturating_sub(back) })
            }
        };
        let channel = self.rng.below(7) as u16 + 1;
        let writer = self.rng.chance(50).then(|| WriterId(self.rng.next()));
        let credit = 1 + self.rng.below(256 * 1024);
        let is_stalled = self.rng.chance(20);
        let wish = Attach {
            channel,
            from,
            writer,
            label: "test".into(),
            may_size: false,
            lag_limit_bytes: lag_limit,
            credit,
        };
        let id = self.core.attach(wish).expect("a wish within the limits");
        let model = Model {
            channel,
            expected: from,
            lag_limit: lag_limit.unwrap_or(512 * 1024),
            is_stalled,
            granted: credit,
            writer,
            next_seq: 1,
            woken: true,
            ..Model::default()
        };
        self.viewers.insert(id, model);
        self.settle();
    }

    fn some_viewer(&mut self) -> Option<ViewerId> {
        let at = self.rng.below(self.viewers.len() as u64) as usize;
        self.viewers.keys().nth(at).copied()
    }

    fn pull(&mut self, id: ViewerId) -> bool {
        let Some(model) = self.viewers.get_mut(&id) else { return false };
        if !std::mem::take(&mut model.woken) {
            return false;
        }
        let budget = 1 + self.rng.below(300_000) as usize;
        let mut items = Vec::new();
        let pulled = self.core.pull(id, budget, &mut items);
        self.settle();
        let Some(model) = self.viewers.get_mut(&id) else { return false };
        model.woken |= pulled == Pulled::Part;
        assert_ne!(pulled, Pulled::Gone, "nobody ends a viewer in this simulation: {items:?}");
        for item in items {
            model.take(item, &self.pattern);
        }
        true
    }

    fn grant(&mut self, id: ViewerId) {
        let Some(model) = self.viewers.get_mut(&id) else { return };
        let total = model.received + 200 * 1024;
        if !model.is_stalled && total > model.granted {
            model.granted = total;
            self.core.grant(id, total).expect("within the window");
        }
        self.settle();
    }

    fn types(&mut self, id: ViewerId) {
        let Some(model) = self.viewers.get_mut(&id) else { return };
        if model.writer.is_none() || !model.is_attached {
            return;
        }
        let frame = Frame {
            kind: FrameKind::Input,
            flags: 0,
            channel: model.channel,
            epoch: 0,
            session: SESSION,
            offset: model.next_seq,
            payload: Bytes::from_static(b"x"),
        };
        // The page goes on with the next number only when this one was answered.
        self.core.input(id, frame, true).expect("within the window");
        self.settle();
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..=1 if self.viewers.len() < 12 => self.join(),
            2 => {
                if let Some(id) = self.some_viewer()
                    && self.rng.chance(40)
                {
                    self.viewers.remove(&id);
                    self.core.detach(id);
                    self.settle();
                }
            }
            3 if self.rng.chance(15) => self.cut(),
            4..=6 => self.connect(),
            7 if self.may_restart && self.rng.chance(5) => self.restart(),
            7 => self.has_ended |= self.rng.chance(2),
            8 => {
                let size = encode_size(self.size());
                self.agent_resizes(&size);
            }
            9..=20 => self.head += if self.has_ended { 0 } else { self.rng.below(200_000) },
            21..=40 => drop(self.agent_sends()),
            41..=45 => self.agent_takes(),
            46..=65 => drop(self.relay_takes()),
            66..=70 => {
                if let Some(id) = self.some_viewer() {
                    self.types(id);
                }
            }
            71..=80 => {
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
    }

    /// Lets everything come to rest and checks that everybody who reads has everything.
    fn rest(&mut self) {
        self.connect();
        let ids: Vec<ViewerId> = self.viewers.keys().copied().collect();
        for round in 0.. {
            let mut is_busy = false;
            while !self.to_agent.is_empty() {
                self.agent_takes();
                is_busy = true;
            }
            is_busy |= self.agent_sends();
            while self.relay_takes() {
                is_busy = true;
            }
            for id in &ids {
                is_busy |= self.pull(*id);
                let before = self.viewers.get(id).map(|model| model.granted);
                self.grant(*id);
                is_busy |= before != self.viewers.get(id).map(|model| model.granted);
            }
            if !is_busy {
                break;
            }
            assert!(round < 20_000, "it never comes to rest");
        }
        let end = Some(StreamPosition { epoch: self.epoch, offset: self.head });
        for (id, model) in &self.viewers {
            assert!(model.is_attached || model.is_stalled, "{id:?} was never attached");
            if !model.is_stalled {
                assert_eq!(model.expected, end, "{id:?} has not reached the end");
                assert_eq!(model.exit.filter(|exit| Some(*exit) == end).is_some(), self.has_ended, "{id:?}");
            }
            if model.lag_limit == MAX_LAG_LIMIT_BYTES && self.retention == u64::MAX && !self.may_restart {
                assert_eq!(model.gaps, 0, "{id:?} asked for every byte and the machine has them all");
            }
        }
        let open: HashSet<_> = self.streams.keys().collect();
        assert!(open.len() <= 1 + self.viewers.len(), "streams of viewers that are gone are closed");
    }
}

fn run(seed: u64, steps: u64) {
    let mut sim = Sim::new(seed);
    sim.connect();
    for _ in 0..steps {
        sim.step();
    }
    sim.rest();
}

/// Seeds that once failed, with their steps. What they do changes with the simulation; they are kept all the same.
const KEPT: [(u64, u64); 6] =
    [(0, 1_000), (11, 1_000), (31, 1_000), (1016, 2_500), (1074, 2_500), (1077, 2_500)];

#[test]
fn seeds_that_once_failed() {
    for (seed, steps) in KEPT {
        run(seed, steps);
    }
}

/// 40,000 steps in the ordinary run; more by the environment, for nights and for hunting.
#[test]
fn viewers_see_every_byte_or_an_explicit_snapshot() {
    let setting = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let (first, seeds) = (setting("HUB_SIM_FIRST", 0), setting("HUB_SIM_SEEDS", 40));
    for seed in first..first + seeds {
        let result = std::panic::catch_unwind(|| run(seed, setting("HUB_SIM_STEPS", 1_000)));
        if let Err(panic) = result {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

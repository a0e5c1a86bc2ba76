//! Input through viewer, relay, daemon and holder, with every hop cut and the daemon killed between every pair of steps.
//!
//! The real cores of daemon and holder stand between viewers that behave as the web app does (numbers that are never used
//! twice, everything sent again under its number after a break, a paste that takes too long given up) and a terminal that
//! is read back. Checked: each piece is written exactly once and in the order of its writer, or reported and not written;
//! nobody's bytes come between the marks of another's paste, whatever is cut; and the rest of a paste is never typing.

use std::collections::VecDeque;

use claudenest_shared::wire::holder::FromHolder;

use super::*;
use crate::holder::model::Model;

const WRITERS: usize = 3;
const STEPS: usize = 4_000;

/// One numbered piece of a viewer.
#[derive(Clone, Debug)]
struct Sent {
    seq: u64,
    flags: u8,
    bytes: Bytes,
    unit: usize,
}

#[derive(Default)]
struct Viewer {
    id: u64,
    next: u64,
    /// Numbered and not acknowledged.
    unacked: VecDeque<Sent>,
    /// Not numbered yet: the window is full or there is no way.
    waiting: VecDeque<Sent>,
    is_open: bool,
    /// Frames towards the daemon, and answers from it.
    up: VecDeque<Sent>,
    down: VecDeque<Answer>,
    units: usize,
}

/// What became of a unit (a key or a paste), as its viewer was told.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Pending,
    Delivered,
    Reported,
}

/// Repeatable randomness (splitmix64).
struct Random(u64);

impl Random {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }
}

struct World {
    rng: Random,
    now: Instant,
    viewers: Vec<Viewer>,
    /// Whether it is a paste, and its fate.
    fates: HashMap<(u64, usize), (bool, Fate)>,
    daemon: InputCore,
    to_holder: VecDeque<ToHolder>,
    from_holder: VecDeque<FromHolder>,
    holder: Model,
    terminal: Vec<(u64, u64, Bytes)>,
    cuts: [u32; 4],
}

impl World {
    fn new(seed: u64) -> Self {
        let viewers = (0..WRITERS).map(|id| Viewer { id: id as u64 + 1, next: 1, ..Viewer::default() });
        Self {
            rng: Random(seed),
            now: Instant::now(),
            viewers: viewers.collect(),
            fates: HashMap::new(),
            daemon: InputCore::default(),
            to_holder: VecDeque::new(),
            from_holder: VecDeque::new(),
            holder: Model::new(),
            terminal: Vec::new(),
            cuts: [0; 4],
        }
    }

    fn effects(&mut self, effects: Effects) {
        self.to_holder.extend(effects.send);
        for answer in effects.answers {
            let viewer = self.viewers.iter_mut().find(|viewer| viewer.id == answer.writer);
            if let Some(viewer) = viewer.filter(|viewer| viewer.is_open) {
                viewer.down.push_back(answer);
            }
        }
    }

    /// A key, or a paste between marks in pieces.
    fn type_something(&mut self, at: usize) {
        let is_paste = self.rng.below(10) < 4;
        let viewer = &mut self.viewers[at];
        viewer.units += 1;
        let unit = viewer.units;
        self.fates.insert((viewer.id, unit), (is_paste, Fate::Pending));
        let text = format!("<{}.{unit}>", viewer.id);
        let whole = if is_paste { format!("\x1b[200~{}\x1b[201~", pasted(&text)) } else { text };
        let size = if is_paste { whole.len().div_ceil(1 + self.rng.below(5)) } else { whole.len() };
        let pieces: Vec<_> = whole.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
        let last = pieces.len() - 1;
        for (index, bytes) in pieces.into_iter().enumerate() {
            let flags = if index < last { FLAG_MORE } else { 0 };
            viewer.waiting.push_back(Sent { seq: 0, flags, bytes, unit });
        }
        self.flush(at);
    }

    fn flush(&mut self, at: usize) {
        let viewer = &mut self.viewers[at];
        while viewer.is_open
            && viewer.unacked.len() < 4
            && let Some(mut piece) = viewer.waiting.pop_front()
        {
            piece.seq = viewer.next;
            viewer.next += 1;
            viewer.unacked.push_back(piece.clone());
            viewer.up.push_back(piece);
        }
    }

    /// The way between viewer and daemon breaks: what is on it is lost.
    fn lose(&mut self, at: usize) {
        let viewer = &mut self.viewers[at];
        if !std::mem::take(&mut viewer.is_open) {
            return;
        }
        // Some of it may still arrive: a cut is seen on both sides at different times.
        let arrives = self.rng.below(viewer.up.len() + 1);
        let id = viewer.id;
        let (up, _) = (std::mem::take(&mut viewer.up), std::mem::take(&mut viewer.down));
        for piece in up.into_iter().take(arrives) {
            let effects = self.daemon.input(id, piece.seq, piece.flags, piece.bytes, self.now);
            self.effects(effects);
        }
        let effects = self.daemon.close(id, self.now);
        self.effects(effects);
    }

    /// The viewer is back: it learns what arrived and sends the rest again, or gives it up.
    fn reopen(&mut self, at: usize, gives_up: bool) {
        if self.viewers[at].is_open {
            return;
        }
        let acked = self.daemon.open(self.viewers[at].id);
        let viewer = &mut self.viewers[at];
        viewer.is_open = true;
        viewer.up.clear();
        viewer.down.clear();
        settle(viewer, acked, &mut self.fates);
        viewer.next = viewer.next.max(acked + 1);
        if gives_up {
            // Reported although some of it may be on its way: the web app waits for a moment before it says so.
            for piece in viewer.unacked.drain(..).chain(viewer.waiting.drain(..)) {
                if let Some((_, fate)) = self.fates.get_mut(&(viewer.id, piece.unit)) {
                    *fate = Fate::Reported;
                }
            }
            viewer.next += 1;
        }
        viewer.up.extend(viewer.unacked.iter().cloned());
        self.flush(at);
    }

    fn deliver_up(&mut self, at: usize) {
        let id = self.viewers[at].id;
        if let Some(piece) = self.viewers[at].up.pop_front() {
            let effects = self.daemon.input(id, piece.seq, piece.flags, piece.bytes, self.now);
            self.effects(effects);
        }
    }

    fn deliver_down(&mut self, at: usize) {
        let Some(answer) = self.viewers[at].down.pop_front() else { return };
        if answer.refused.is_some() {
            // The numbers are agreed anew.
            self.lose(at);
            return;
        }
        settle(&mut self.viewers[at], answer.seq, &mut self.fates);
        self.flush(at);
    }

    fn deliver_to_holder(&mut self) {
        if let Some(message) = self.to_holder.pop_front()
            && let Some(refusal) = self.holder.take(message)
        {
            self.from_holder.push_back(refusal);
        }
    }

    fn deliver_from_holder(&mut self) {
        let effects = match self.from_holder.pop_front() {
            Some(FromHolder::InputAck { writer, seq }) => self.daemon.acked(writer, seq, self.now),
            Some(FromHolder::InputRefused { writer, seq, reason }) => {
                self.daemon.refused(writer, seq, reason, self.now)
            }
            _ => return,
        };
        self.effects(effects);
    }

    fn cut_holder(&mut self) {
        let arrives = self.rng.below(self.to_holder.len() + 1);
        for _ in 0..arrives {
            self.deliver_to_holder();
        }
        self.to_holder.clear();
        self.from_holder.clear();
    }

    /// A new connection of the same daemon.
    fn reconnect(&mut self) {
        self.cut_holder();
        let (writers, _) = self.holder.hello();
        let effects = self.daemon.resend(&writers, self.now);
        self.effects(effects);
    }

    fn kill_daemon(&mut self) {
        self.cut_holder();
        for viewer in &mut self.viewers {
            viewer.is_open = false;
            viewer.up.clear();
            viewer.down.clear();
        }
        let (writers, input) = self.holder.hello();
        self.daemon = InputCore::default();
        self.daemon.holder_knows(&writers, &input, self.now);
    }

    fn write(&mut self) {
        self.terminal.extend(self.holder.write());
    }

    fn acknowledge(&mut self) {
        self.from_holder.extend(self.holder.acknowledgements());
    }

    fn step(&mut self) {
        let at = self.rng.below(WRITERS);
        match self.rng.below(100) {
            0..14 => self.type_something(at),
            14..32 => self.deliver_up(at),
            32..46 => self.deliver_down(at),
            46..62 => self.deliver_to_holder(),
            62..72 => self.deliver_from_holder(),
            72..80 => self.write(),
            80..86 => self.holder.apply(),
            86..91 => self.acknowledge(),
            91..94 => {
                self.cuts[0] += 1;
                self.lose(at);
            }
            94 => {
                self.cuts[1] += 1;
                (0..WRITERS).for_each(|at| self.lose(at)); // The link between relay and agent.
            }
            95 => {
                self.cuts[2] += 1;
                self.reconnect();
            }
            96 => {
                self.cuts[3] += 1;
                self.kill_daemon();
            }
            97 => {
                self.now += Duration::from_millis(self.rng.below(7_000) as u64);
                let effects = self.daemon.pump(self.now);
                self.effects(effects);
            }
            _ => {
                let gives_up = self.rng.below(10) == 0;
                self.reopen(at, gives_up);
            }
        }
    }

    /// Everything heals and arrives.
    fn drain(&mut self) {
        for _ in 0..STEPS {
            for at in 0..WRITERS {
                self.reopen(at, false);
                self.flush(at);
                self.deliver_up(at);
                self.deliver_down(at);
            }
            self.deliver_to_holder();
            self.write();
            self.holder.apply();
            self.acknowledge();
            self.deliver_from_holder();
            self.now += Duration::from_millis(10);
            let effects = self.daemon.pump(self.now);
            self.effects(effects);
        }
        self.now += PASTE_HOLD * 2;
        let effects = self.daemon.pump(self.now);
        self.effects(effects);
        while !self.to_holder.is_empty() {
            self.deliver_to_holder();
        }
        for _ in 0..10 {
            self.write();
            self.holder.apply();
        }
    }

    fn check(&self, seed: u64) {
        let mut inside: Option<u64> = None;
        let mut marks = PasteMarks::default();
        let mut last: HashMap<u64, u64> = HashMap::new();
        let mut text: HashMap<u64, Vec<u8>> = HashMap::new();
        for (writer, seq, bytes) in &self.terminal {
            let before = last.insert(*writer, *seq).unwrap_or(0);
            assert!(*seq > before, "seed {seed}: {writer}/{seq} after {before}");
            let was_inside = marks.is_inside();
            marks.feed(bytes);
            if *writer == MARKER {
                assert_ne!(was_inside, marks.is_inside(), "seed {seed}: a mark that changes nothing");
                inside = None;
                continue;
            }
            // A piece inside marks belongs to the one writer of that paste.
            if was_inside {
                assert_eq!(
                    *inside.get_or_insert(*writer),
                    *writer,
                    "seed {seed}: {writer} in a foreign paste"
                );
            } else {
                let typed = String::from_utf8_lossy(bytes);
                assert!(
                    typed.starts_with('<') || typed.starts_with('\x1b'),
                    "seed {seed}: a part of a paste was typed: {typed:?}"
                );
            }
            inside = marks.is_inside().then_some(*writer);
            text.entry(*writer).or_default().extend_from_slice(bytes);
        }
        assert!(!marks.is_inside(), "seed {seed}: the terminal was left inside a paste");
        // Where each unit stands in what its writer wrote.
        let mut places: HashMap<(u64, usize), Vec<usize>> = HashMap::new();
        for (writer, text) in &text {
            for (at, _) in text.iter().enumerate().filter(|(_, byte)| **byte == b'<') {
                let label = text[at + 1..].split(|byte| *byte == b'>').next().unwrap();
                // A label that is cut belongs to a paste that was given up.
                let Some((id, unit)) =
                    std::str::from_utf8(label).ok().and_then(|label| label.split_once('.'))
                else {
                    continue;
                };
                let (Ok(id), Ok(unit)) = (id.parse::<u64>(), unit.parse()) else { continue };
                assert_eq!(id, *writer, "seed {seed}");
                places.entry((*writer, unit)).or_default().push(at);
            }
        }
        for ((writer, unit), (is_paste, fate)) in &self.fates {
            let label = format!("<{writer}.{unit}>");
            let found = places.get(&(*writer, *unit)).map_or(&[][..], Vec::as_slice);
            assert_ne!(*fate, Fate::Pending, "seed {seed}: {label} was never answered");
            let most = if *is_paste { 2 } else { 1 };
            assert!(found.len() <= most, "seed {seed}: {label} was written more than once");
            if *fate == Fate::Delivered {
                let whole = if *is_paste { pasted(&label) } else { label.clone() };
                let is_whole =
                    found.first().is_some_and(|at| text[writer][*at..].starts_with(whole.as_bytes()));
                assert!(is_whole, "seed {seed}: {label} was acknowledged and is not there as it was typed");
            }
        }
        for writer in text.keys() {
            let mut order: Vec<_> = places.iter().filter(|((id, _), _)| id == writer).collect();
            order.sort_by_key(|(_, places)| places[0]);
            let is_ordered = order.windows(2).all(|pair| pair[0].0.1 < pair[1].0.1);
            assert!(is_ordered, "seed {seed}: {writer} was written in another order");
        }
    }
}

/// The text between the marks of a paste.
fn pasted(label: &str) -> String {
    format!("{label}one\rtwo\rthree{label}")
}

/// Everything up to `acked` has arrived.
fn settle(viewer: &mut Viewer, acked: u64, fates: &mut HashMap<(u64, usize), (bool, Fate)>) {
    while let Some(piece) = viewer.unacked.front()
        && piece.seq <= acked
    {
        if let Some((_, fate @ Fate::Pending)) = fates.get_mut(&(viewer.id, piece.unit))
            && piece.flags & FLAG_MORE == 0
        {
            *fate = Fate::Delivered;
        }
        viewer.unacked.pop_front();
    }
}

/// A thousand cuts of each hop and more than a hundred daemon kills, between any two steps.
#[test]
fn a_thousand_cuts_of_each_hop_lose_and_repeat_nothing() {
    let (mut cuts, mut written) = ([0u32; 4], 0);
    let mut seed = 0;
    while cuts.iter().any(|count| *count < 1_000) {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.drain();
        world.check(seed);
        for (total, count) in cuts.iter_mut().zip(world.cuts) {
            *total += count;
        }
        written += world.terminal.len();
        seed += 1;
        assert!(seed < 1_000, "the mixture of events changed");
    }
    eprintln!("{seed} runs, {written} pieces written; cuts viewer, link, holder, daemon kills: {cuts:?}");
}

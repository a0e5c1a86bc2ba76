use super::*;
use claudenest_shared::session::Exit;
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::holder::HolderExit;
use proptest::prelude::*;

const SESSION: SessionId = SessionId::from_bytes([1; 16]);

fn core() -> Core {
    Core::new(3, 0, TermSize::default(), TermSize::default(), 0)
}

fn at(offset: u64) -> Option<StreamPosition> {
    Some(StreamPosition { epoch: 3, offset })
}

fn frame(step: Step) -> Frame {
    match step {
        Step::Frame(frame) => frame,
        other => panic!("a frame, not {other:?}"),
    }
}

fn made(core: &Core) -> Snapshot {
    Snapshot {
        offset: core.head(),
        size: core.size_at(u64::MAX),
        next_resize: core.resize_number_after(core.head()),
        bytes: Bytes::from_static(b"screen"),
    }
}

#[test]
fn first_bytes_after_silence_go_at_once_and_later_ones_gather() {
    let (mut core, now) = (core(), Instant::now());
    let mut viewer = Viewer::open(&core, SESSION, at(0), 1_000_000, 1_000_000);
    assert_eq!(frame(viewer.poll(&core, now)).kind, FrameKind::Resize);
    core.output(0, b"a");
    assert_eq!(&frame(viewer.poll(&core, now)).payload[..], b"a");
    core.output(1, b"b");
    assert!(matches!(viewer.poll(&core, now), Step::Until(deadline) if deadline == now + GATHER));
    core.output(2, b"c");
    assert_eq!(&frame(viewer.poll(&core, now + GATHER)).payload[..], b"bc");
    core.output(3, &[b'x'; 20_000]);
    assert_eq!(frame(viewer.poll(&core, now + GATHER)).payload.len(), 20_000);
}

#[test]
fn another_epoch_or_an_offset_of_the_future_gets_a_snapshot() {
    let (mut core, now) = (core(), Instant::now());
    core.output(0, b"abc");
    for from in [None, at(4), Some(StreamPosition { epoch: 2, offset: 1 })] {
        let mut viewer = Viewer::open(&core, SESSION, from, 1000, 1000);
        assert!(matches!(viewer.poll(&core, now), Step::Snapshot));
        viewer.snapshot(made(&core));
        let snapshot = frame(viewer.poll(&core, now));
        assert_eq!((snapshot.kind, snapshot.offset), (FrameKind::Snapshot, 3));
        assert_eq!(snapshot.flags, if from.is_some() { FLAG_GAP } else { 0 });
        assert!(matches!(viewer.poll(&core, now), Step::Wait));
    }
}

#[test]
fn nothing_goes_without_credit_and_a_repeated_grant_is_harmless() {
    let (mut core, now) = (core(), Instant::now());
    core.output(0, &[b'x'; 100]);
    let mut viewer = Viewer::open(&core, SESSION, at(0), 1000, 0);
    assert_eq!(frame(viewer.poll(&core, now)).kind, FrameKind::Resize);
    assert!(matches!(viewer.poll(&core, now), Step::Wait));
    viewer.grant(30);
    viewer.grant(10);
    assert_eq!(frame(viewer.poll(&core, now)).payload.len(), 30);
    assert!(matches!(viewer.poll(&core, now), Step::Wait));
    let mut late = Viewer::open(&core, SESSION, None, 1000, 0);
    assert!(matches!(late.poll(&core, now), Step::Wait));
}

#[test]
fn bytes_that_are_neither_in_memory_nor_on_disk_are_a_gap() {
    let (mut core, now) = (core(), Instant::now());
    for index in 0..200u64 {
        core.output(index * 65_536, &[b'x'; 65_536]);
    }
    assert!(core.ring.tail() > 0);
    let mut viewer = Viewer::open(&core, SESSION, at(10), MAX_LAG_LIMIT_BYTES, 1_000_000);
    frame(viewer.poll(&core, now));
    assert!(matches!(viewer.poll(&core, now), Step::Disk(10)));
    viewer.disk(10, None);
    assert!(matches!(viewer.poll(&core, now), Step::Snapshot));
    viewer.snapshot(made(&core));
    assert_eq!(frame(viewer.poll(&core, now)).flags, FLAG_GAP);
}

#[test]
fn older_output_comes_in_the_size_it_was_written_for() {
    let (wide, narrow, now_size) =
        (TermSize { cols: 100, rows: 30 }, TermSize { cols: 60, rows: 20 }, TermSize { cols: 90, rows: 25 });
    let mut core = Core::new(3, 1_000, now_size, now_size, 1_000);
    core.knew_sizes(&[(0, wide), (400, narrow), (2_000, wide)]);
    core.output(1_000, b"new");
    let mut now = Instant::now();
    let mut viewer = Viewer::open(&core, SESSION, at(100), 1_000_000, 1_000_000);
    let mut told = Vec::new();
    while viewer.position() < 1_003 {
        match viewer.poll(&core, now) {
            Step::Frame(frame) => told.extend(frame.size().map(|size| (frame.offset, size))),
            Step::Disk(from) => viewer.disk(from, Some(Bytes::from(vec![b'x'; (1_000 - from) as usize]))),
            Step::Until(deadline) => now = deadline,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, [(100, wide), (400, narrow), (1_000, now_size)]);
    let late = Viewer::open(&core, SESSION, at(1_000), 1_000_000, 1_000_000).poll(&core, now);
    assert_eq!(frame(late).size(), Some(now_size));
}

#[derive(Clone, Debug)]
enum Event {
    Output(usize),
    Resize(u16),
    Poll {
        times: usize,
    },
    Grant(u64),
    WantSnapshot,
    Time(u64),
    /// The viewer's connection breaks; it comes back with its position.
    Reconnect,
    /// The shell makes a snapshot later than it was asked to: more has come meanwhile.
    SlowSnapshot(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => prop_oneof![1usize..50, 1000usize..100_000].prop_map(Event::Output),
        1 => (2u16..200).prop_map(Event::Resize),
        6 => (1usize..6).prop_map(|times| Event::Poll { times }),
        4 => (0u64..200_000).prop_map(Event::Grant),
        1 => Just(Event::WantSnapshot),
        2 => (0u64..8).prop_map(Event::Time),
        1 => Just(Event::Reconnect),
        1 => (1usize..5000).prop_map(Event::SlowSnapshot),
    ]
}

/// A viewer's end: what it has seen, checked against the plain bytes.
struct Seen {
    /// Next byte, once a snapshot or output came.
    next: Option<u64>,
    received: u64,
    granted: u64,
    size: Option<TermSize>,
    is_over: bool,
}

struct Simulation {
    core: Core,
    reference: Vec<u8>,
    sizes: Vec<(u64, TermSize)>,
    now: Instant,
    viewer: Viewer,
    seen: Seen,
    lag_limit: u64,
    slow: usize,
}

impl Simulation {
    fn output(&mut self, size: usize) {
        // Every byte is told from its neighbours by its offset.
        let from = self.reference.len();
        self.reference.extend((from..from + size).map(|at| b'a' + (at * 7 % 26) as u8));
        self.core.output(from as u64, &self.reference[from..]);
    }

    fn size_at(&self, offset: u64) -> TermSize {
        self.sizes.iter().rev().find(|(at, _)| *at <= offset).map_or(TermSize::default(), |(_, size)| *size)
    }

    /// One step; false if nothing can be done now.
    fn step(&mut self) -> bool {
        match self.viewer.poll(&self.core, self.now) {
            Step::Frame(frame) => self.take(frame),
            Step::Snapshot => {
                let slow = std::mem::take(&mut self.slow);
                let snapshot = made(&self.core);
                self.output(slow);
                self.viewer.snapshot(snapshot);
            }
            Step::Disk(from) => {
                // The disk has everything.
                let end = (from as usize + 100_000).min(self.core.ring.tail() as usize);
                let bytes = Bytes::copy_from_slice(&self.reference[from as usize..end]);
                self.viewer.disk(from, Some(bytes));
            }
            Step::Until(_) | Step::Wait => return false,
            Step::End => {
                assert!(self.seen.is_over);
                return false;
            }
        }
        true
    }

    fn take(&mut self, frame: Frame) {
        assert!(!self.seen.is_over, "nothing follows the exit");
        assert_eq!((frame.epoch, frame.channel), (3, 0));
        match frame.kind {
            FrameKind::Output => {
                assert!(!frame.payload.is_empty());
                assert_eq!(Some(frame.offset), self.seen.next, "contiguous");
                let end = frame.offset + frame.payload.len() as u64;
                assert_eq!(&frame.payload[..], &self.reference[frame.offset as usize..end as usize]);
                assert_eq!(
                    self.seen.size,
                    Some(self.size_at(frame.offset)),
                    "in the size it was written for"
                );
                assert!(
                    self.sizes.iter().all(|(at, _)| *at <= frame.offset || *at >= end),
                    "cut at a new size"
                );
                self.seen.received += frame.payload.len() as u64;
                assert!(self.seen.received <= self.seen.granted, "within the credit");
                self.seen.next = Some(end);
            }
            FrameKind::Snapshot => {
                assert!(self.seen.received < self.seen.granted, "only while credit is left");
                let is_gap = frame.flags & FLAG_GAP != 0;
                if let Some(next) = self.seen.next {
                    assert!(is_gap || frame.offset == next, "a jump says so");
                    assert!(frame.offset >= next, "never back");
                }
                // A change at the same offset, after it was made, follows.
                let size = frame.size().unwrap();
                let before = self.sizes.iter().rev().find(|(at, _)| *at < frame.offset);
                let possible = self.sizes.iter().filter(|(at, _)| *at == frame.offset).map(|(_, size)| *size);
                let before = before.map_or(TermSize::default(), |(_, size)| *size);
                assert!(possible.chain([before]).any(|known| known == size));
                self.seen.received += frame.payload.len() as u64;
                (self.seen.next, self.seen.size) = (Some(frame.offset), frame.size());
            }
            FrameKind::Resize => self.seen.size = frame.size(),
            FrameKind::Exit => {
                assert_eq!(frame.exit(), Some(Exit::Code { code: 7 }));
                assert_eq!(frame.offset, self.reference.len() as u64);
                assert_eq!(self.seen.next, Some(frame.offset), "after the last byte");
                self.seen.is_over = true;
            }
            other => panic!("{other:?} never goes to a viewer"),
        }
    }

    fn grant(&mut self, more: u64) {
        self.seen.granted = self.seen.granted.max(self.seen.received + more);
        self.viewer.grant(self.seen.granted);
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Output(size) => self.output(size),
            Event::Resize(cols) => {
                let (offset, size) = (self.core.head(), TermSize { cols, rows: 24 });
                self.core.resized(offset, size);
                if size != self.size_at(u64::MAX) {
                    self.sizes.push((offset, size));
                }
            }
            Event::Poll { times } => {
                for _ in 0..times {
                    self.step();
                }
            }
            Event::Grant(more) => self.grant(more),
            Event::WantSnapshot => self.viewer.want_snapshot(),
            Event::Time(ms) => self.now += Duration::from_millis(ms),
            Event::SlowSnapshot(size) => self.slow = size,
            Event::Reconnect => {
                let from = self.seen.next.and_then(at);
                self.viewer = Viewer::open(&self.core, SESSION, from, self.lag_limit, 1000);
                let next = self.seen.next;
                self.seen = Seen { next, received: 0, granted: 1000, size: None, is_over: false };
            }
        }
    }
}

fn simulate(events: Vec<Event>, lag_limit: u64) {
    let core = core();
    let viewer = Viewer::open(&core, SESSION, at(0), lag_limit, 1000);
    let seen = Seen { next: Some(0), received: 0, granted: 1000, size: None, is_over: false };
    let (reference, sizes) = (Vec::new(), Vec::new());
    let mut world =
        Simulation { core, reference, sizes, now: Instant::now(), viewer, seen, lag_limit, slow: 0 };
    for event in events {
        world.apply(event);
    }
    world.core.end(HolderExit { offset: 0, exit: Exit::Code { code: 7 }, at: UnixMs(0) }, Instant::now());
    for _ in 0..10_000 {
        world.grant(100_000);
        world.now += GATHER;
        world.slow = 0;
        if !world.step() {
            break;
        }
    }
    assert!(world.seen.is_over, "every viewer comes to the end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_viewer_sees_the_plain_bytes_or_a_gap(
        events in proptest::collection::vec(event(), 0..150),
        lag_limit in prop_oneof![Just(0), 1u64..200_000, Just(MAX_LAG_LIMIT_BYTES)],
    ) {
        simulate(events, lag_limit);
    }
}

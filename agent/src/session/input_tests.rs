use super::*;
use proptest::prelude::*;

fn byte() -> Bytes {
    Bytes::from_static(b"x")
}

fn sent(effects: &Effects) -> Vec<(u64, u64)> {
    effects
        .send
        .iter()
        .filter_map(|message| match message {
            ToHolder::Input { writer, seq, .. } => Some((*writer, *seq)),
            _ => None,
        })
        .collect()
}

fn refusals(effects: &Effects) -> Vec<(u64, ErrorCode)> {
    effects.answers.iter().filter_map(|answer| answer.refused.map(|code| (answer.seq, code))).collect()
}

#[test]
fn numbers_are_taken_once_and_gaps_are_refused_except_after_opening() {
    let (mut core, now) = (InputCore::default(), Instant::now());
    assert_eq!(core.open(1), 0);
    assert_eq!(sent(&core.input(1, 5, 0, byte(), now)), [(1, 5)]);
    assert!(sent(&core.input(1, 5, 0, byte(), now)).is_empty());
    assert_eq!(refusals(&core.input(1, 7, 0, byte(), now)), [(7, ErrorCode::Conflict)]);
    assert_eq!(sent(&core.input(1, 6, 0, byte(), now)), [(1, 6)]);
    let told: Vec<u64> = core.acked(1, 6, now).answers.iter().map(|answer| answer.seq).collect();
    assert_eq!(told, [5, 6]);
    assert_eq!(core.input(1, 5, 0, byte(), now).answers, [Answer { writer: 1, seq: 5, refused: None }]);
    assert_eq!(core.open(1), 6);
    assert_eq!(sent(&core.input(1, 20, 0, byte(), now)), [(1, 20)]);
}

#[test]
fn pastes_do_not_mix_and_do_not_wait_for_ever() {
    let (mut core, now) = (InputCore::default(), Instant::now());
    core.open(1);
    core.open(2);
    assert_eq!(sent(&core.input(1, 1, FLAG_MORE, byte(), now)), [(1, 1)]);
    assert!(sent(&core.input(2, 1, 0, byte(), now)).is_empty());
    assert_eq!(sent(&core.input(1, 2, FLAG_MORE, byte(), now)), [(1, 2)]);
    assert_eq!(sent(&core.input(1, 3, 0, byte(), now)), [(1, 3), (2, 1)]);
    // A paste that stops.
    core.input(1, 4, FLAG_MORE, byte(), now);
    assert!(sent(&core.input(2, 2, 0, byte(), now)).is_empty());
    assert_eq!(
        core.deadline(),
        None,
        "as long as the program has not read it, nobody else could write either"
    );
    core.acked(1, 4, now);
    assert_eq!(core.deadline(), Some(now + PASTE_HOLD));
    assert_eq!(sent(&core.pump(now + PASTE_HOLD)), [(2, 2)]);
    // A paste whose writer leaves.
    core.input(1, 5, FLAG_MORE, byte(), now);
    core.input(2, 3, 0, byte(), now);
    assert_eq!(sent(&core.close(1, now)), [(2, 3)]);
}

#[test]
fn what_waits_is_bounded_and_the_number_stays_free() {
    let (mut core, now) = (InputCore::default(), Instant::now());
    let piece = Bytes::from(vec![0; 64 * 1024]);
    core.open(1);
    let mut seq = 0;
    let refused = loop {
        seq += 1;
        let effects = core.input(1, seq, 0, piece.clone(), now);
        if !effects.answers.is_empty() {
            break effects;
        }
    };
    assert_eq!(refusals(&refused), [(9, ErrorCode::InputFull)]);
    assert_eq!(sent(&core.acked(1, 1, now)), [(1, 5)]);
    assert!(core.input(1, 9, 0, piece, now).answers.is_empty());
}

#[test]
fn the_end_refuses_everything_unwritten() {
    let (mut core, now) = (InputCore::default(), Instant::now());
    core.open(1);
    for seq in 1..=3 {
        core.input(1, seq, 0, byte(), now);
    }
    core.acked(1, 1, now);
    let told: Vec<_> = core.end(now).iter().map(|answer| (answer.seq, answer.refused)).collect();
    assert_eq!(told, [(2, Some(ErrorCode::SessionEnded)), (3, Some(ErrorCode::SessionEnded))]);
    assert_eq!(refusals(&core.input(1, 4, 0, byte(), now)), [(4, ErrorCode::SessionEnded)]);
    assert_eq!(core.input(1, 1, 0, byte(), now).answers[0].refused, None);
}

#[test]
fn a_new_connection_sends_again_what_is_not_known_to_be_written() {
    let (mut core, now) = (InputCore::default(), Instant::now());
    core.open(1);
    for seq in 1..=3 {
        core.input(1, seq, 0, byte(), now);
    }
    let effects = core.resend(&[(1, 2)], now);
    assert_eq!(effects.answers.len(), 2);
    assert_eq!(sent(&effects), [(1, 3)]);
}

/// A plain holder: applies each number once; may lose its connection at any time.
#[derive(Default)]
struct Holder {
    applied: HashMap<u64, u64>,
    written: Vec<(u64, u64)>,
}

impl Holder {
    fn take(&mut self, messages: &[ToHolder]) {
        for message in messages {
            let ToHolder::Input { writer, seq, flags, .. } = message else { continue };
            let applied = self.applied.entry(*writer).or_default();
            assert!(
                *seq <= *applied + 1 || *applied == 0 || flags & INPUT_MAY_SKIP != 0,
                "a gap reached the holder"
            );
            if *seq > *applied {
                *applied = *seq;
                self.written.push((*writer, *seq));
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Input {
        writer: u64,
        has_more: bool,
        size: usize,
    },
    Duplicate {
        writer: u64,
    },
    Ack {
        writer: u64,
    },
    /// The connection to the holder is cut; messages in flight may be lost.
    Cut,
    Reopen {
        writer: u64,
    },
    Time {
        ms: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0u64..3, any::<bool>(), 1usize..40_000).prop_map(|(writer, has_more, size)| Event::Input { writer, has_more, size }),
        2 => (0u64..3).prop_map(|writer| Event::Duplicate { writer }),
        6 => (0u64..3).prop_map(|writer| Event::Ack { writer }),
        1 => Just(Event::Cut),
        1 => (0u64..3).prop_map(|writer| Event::Reopen { writer }),
        1 => (0u64..6000).prop_map(|ms| Event::Time { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_number_is_written_once_in_order_or_refused(events in proptest::collection::vec(event(), 1..200)) {
        let (mut core, mut holder, mut now) = (InputCore::default(), Holder::default(), Instant::now());
        let mut next = [1u64; 3];
        let mut answered: HashMap<(u64, u64), Option<ErrorCode>> = HashMap::new();
        let mut sent_by_viewer: Vec<(u64, u64)> = Vec::new();
        for writer in 0..3 {
            core.open(writer);
        }
        for event in events {
            let effects = match event {
                Event::Input { writer, has_more, size } => {
                    let seq = next[writer as usize];
                    next[writer as usize] += 1;
                    sent_by_viewer.push((writer, seq));
                    core.input(writer, seq, u8::from(has_more), Bytes::from(vec![0; size]), now)
                }
                Event::Duplicate { writer } if next[writer as usize] > 1 => {
                    let seq = next[writer as usize] - 1;
                    core.input(writer, seq, 0, byte(), now)
                }
                Event::Duplicate { .. } => Effects::default(),
                Event::Ack { writer } => match holder.applied.get(&writer) {
                    Some(seq) => core.acked(writer, *seq, now),
                    None => Effects::default(),
                },
                Event::Cut => {
                    let known: Vec<_> = holder.applied.iter().map(|(writer, seq)| (*writer, *seq)).collect();
                    core.resend(&known, now)
                }
                Event::Reopen { writer } => {
                    core.open(writer);
                    Effects::default()
                }
                Event::Time { ms } => {
                    now += Duration::from_millis(ms);
                    core.pump(now)
                }
            };
            holder.take(&effects.send);
            for answer in effects.answers {
                if answer.refused.is_some() {
                    // The viewer tries a refused number again.
                    next[answer.writer as usize] = next[answer.writer as usize].min(answer.seq);
                } else {
                    prop_assert!(holder.applied[&answer.writer] >= answer.seq, "acknowledged before written");
                }
                answered.insert((answer.writer, answer.seq), answer.refused);
            }
            prop_assert!(core.in_flight <= IN_FLIGHT_BYTES + 64 * 1024);
        }
        // Let everything drain.
        for _ in 0..50 {
            now += PASTE_HOLD;
            let mut effects = core.pump(now);
            for writer in 0..3 {
                if let Some(seq) = holder.applied.get(&writer).copied() {
                    let more = core.acked(writer, seq, now);
                    effects.send.extend(more.send);
                    answered.extend(more.answers.iter().map(|answer| ((answer.writer, answer.seq), answer.refused)));
                }
            }
            holder.take(&effects.send);
        }
        for writer in 0..3u64 {
            let numbers: Vec<u64> = holder.written.iter().filter(|(id, _)| *id == writer).map(|(_, seq)| *seq).collect();
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "once and in order: {numbers:?}");
        }
        for (writer, seq) in sent_by_viewer {
            let was_written = holder.written.contains(&(writer, seq));
            match answered.get(&(writer, seq)) {
                Some(None) => prop_assert!(was_written),
                Some(Some(_)) => {}
                None => prop_assert!(false, "{writer}/{seq} was never answered"),
            }
        }
    }
}

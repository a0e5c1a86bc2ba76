//! The time line of one recorded run: what came when, and what is missing. No IO, no clock.
//!
//! Invariants: events are ordered by offset and by time; together with the gaps they cover every byte up to the end;
//! time never runs backwards, whatever the machine's clock did.

use claudenest_shared::session::TermSize;

use crate::holder::{IndexKind, IndexRecord};

/// What happens at a point of the time line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// Output from the event's offset up to `to`.
    Output {
        /// Offset behind it.
        to: u64,
    },
    /// The terminal has another size.
    Resize(TermSize),
    /// Bytes from the event's offset up to `to` were not recorded, or are no longer kept.
    Gap {
        /// Offset of the first byte that is there again.
        to: u64,
    },
}

/// A point of the time line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Microseconds since the run began; a clock that jumps back stands still here.
    pub at_us: u64,
    /// What the machine's clock said, in microseconds since the Unix epoch.
    pub wall_us: u64,
    /// Offset in the output.
    pub offset: u64,
    /// What happens.
    pub kind: EventKind,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Timeline {
    /// Size before the first output.
    pub size: TermSize,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Offset behind the last byte that is known of, recorded or not.
    pub end: u64,
    /// Length in microseconds.
    pub duration_us: u64,
    /// When the run began, by the machine's clock, in microseconds since the Unix epoch.
    pub started_us: u64,
}

/// How a run ended: offset and machine's clock in microseconds.
pub type End = Option<(u64, u64)>;

impl Timeline {
    /// Puts in order what is on disk: `segments` are start and end of what is there, oldest first.
    pub fn new(segments: &[(u64, u64)], index: &[IndexRecord], end: End) -> Self {
        let mut records = index.to_vec();
        // A gap is written when it ends, behind marks of what came meanwhile.
        records.sort_by_key(|record| record.offset);
        let mut line = Self { size: first_size(&records), ..Self::default() };
        line.started_us = records.iter().map(|record| record.time_us).next().unwrap_or_default();
        let (mut clock, mut at_us) = (line.started_us, 0);
        let mut records = records.into_iter().peekable();
        let mut position = 0;
        for &(start, stop) in segments {
            let start = start.max(position);
            if stop <= position {
                continue;
            }
            // What happened before this segment, and then the hole before it.
            line.take_until(&mut records, start, &mut clock, &mut at_us, position);
            if start > position {
                // The first byte behind the hole says when it ended.
                let behind =
                    records.peek().filter(|record| record.offset == start).map(|record| record.time_us);
                let time_us = behind.unwrap_or(clock);
                tick(&mut clock, &mut at_us, time_us);
                line.push(at_us, clock, position, EventKind::Gap { to: start });
            }
            position = start;
            while position < stop {
                while let Some(record) = records.next_if(|record| record.offset <= position) {
                    tick(&mut clock, &mut at_us, record.time_us);
                    line.resize(&record, at_us, clock, position);
                }
                let next = records.peek().map_or(stop, |record| record.offset.min(stop));
                line.push(at_us, clock, position, EventKind::Output { to: next });
                position = next;
            }
        }
        // Changes of size after the last output. Marks beyond it belong to bytes that are not on disk yet.
        while let Some(record) = records.next_if(|record| record.offset <= position) {
            tick(&mut clock, &mut at_us, record.time_us);
            line.resize(&record, at_us, clock, position);
        }
        line.end = position;
        if let Some((offset, wall_us)) = end {
            tick(&mut clock, &mut at_us, wall_us);
            if offset > position {
                line.push(at_us, clock, position, EventKind::Gap { to: offset });
                line.end = offset;
            }
        }
        line.duration_us = at_us;
        line
    }

    /// Changes of size within what is missing hold behind it; marks of missing bytes only move the clock.
    fn take_until(
        &mut self,
        records: &mut std::iter::Peekable<std::vec::IntoIter<IndexRecord>>,
        start: u64,
        clock: &mut u64,
        at_us: &mut u64,
        position: u64,
    ) {
        while let Some(record) = records.next_if(|record| record.offset < start) {
            tick(clock, at_us, record.time_us);
            self.resize(&record, *at_us, *clock, position);
        }
    }

    fn resize(&mut self, record: &IndexRecord, at_us: u64, clock: u64, offset: u64) {
        if let IndexKind::Resize(size) = record.kind
            && self.size_at_end() != size
        {
            self.push(at_us, clock, offset, EventKind::Resize(size));
        }
    }

    fn push(&mut self, at_us: u64, wall_us: u64, offset: u64, kind: EventKind) {
        self.events.push(Event { at_us, wall_us, offset, kind });
    }

    fn size_at_end(&self) -> TermSize {
        let last = self.events.iter().rev().find_map(|event| match event.kind {
            EventKind::Resize(size) => Some(size),
            EventKind::Output { .. } | EventKind::Gap { .. } => None,
        });
        last.unwrap_or(self.size)
    }

    /// Number of the first event that is later than `at_us`: everything before it has happened by then.
    pub fn event_after(&self, at_us: u64) -> usize {
        self.events.partition_point(|event| event.at_us <= at_us)
    }

    /// Offset up to which output had come at `at_us`.
    pub fn offset_at(&self, at_us: u64) -> u64 {
        self.events.get(self.event_after(at_us)).map_or(self.end, |event| event.offset)
    }

    /// When the byte at `offset` came: microseconds since the run began, and the machine's clock.
    pub fn time_of(&self, offset: u64) -> (u64, u64) {
        let after = self.events.partition_point(|event| event.offset <= offset);
        // Of several events at one offset, output is the last.
        let event = self.events.get(after.saturating_sub(1)).or(self.events.first());
        event.map_or((0, self.started_us), |event| (event.at_us, event.wall_us))
    }

    /// Parts that are missing: from, to, and when the hole ended.
    pub fn gaps(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.events.iter().filter_map(|event| match event.kind {
            EventKind::Gap { to } => Some((event.offset, to, event.at_us)),
            EventKind::Output { .. } | EventKind::Resize(_) => None,
        })
    }

    /// Bytes that are there.
    pub fn recorded_bytes(&self) -> u64 {
        self.end - self.gaps().map(|(from, to, _)| to - from).sum::<u64>()
    }
}

fn first_size(records: &[IndexRecord]) -> TermSize {
    let sizes = records.iter().find_map(|record| match record.kind {
        IndexKind::Resize(size) => Some(size),
        IndexKind::Data | IndexKind::Gap => None,
    });
    sizes.unwrap_or_default()
}

/// Moves the time on as the machine's clock moved, unless that went back.
fn tick(clock: &mut u64, at_us: &mut u64, time_us: u64) {
    *at_us += time_us.saturating_sub(*clock);
    *clock = time_us;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: TermSize = TermSize { cols: 80, rows: 24 };
    const OTHER: TermSize = TermSize { cols: 100, rows: 30 };

    fn record(offset: u64, time_us: u64, kind: IndexKind) -> IndexRecord {
        IndexRecord { offset, time_us, kind }
    }

    fn short(line: &Timeline) -> Vec<(u64, u64, EventKind)> {
        line.events.iter().map(|event| (event.at_us, event.offset, event.kind)).collect()
    }

    #[test]
    fn output_sizes_and_gaps_come_in_order() {
        let index = [
            record(0, 1000, IndexKind::Resize(SIZE)),
            record(0, 1010, IndexKind::Data),
            record(5, 1020, IndexKind::Data),
            record(8, 1030, IndexKind::Resize(OTHER)),
            record(30, 1050, IndexKind::Gap),
            record(30, 1060, IndexKind::Data),
        ];
        let line = Timeline::new(&[(0, 10), (30, 35)], &index, Some((40, 1100)));
        use EventKind::{Gap, Output, Resize};
        assert_eq!(
            short(&line),
            [
                (10, 0, Output { to: 5 }),
                (20, 5, Output { to: 8 }),
                (30, 8, Resize(OTHER)),
                (30, 8, Output { to: 10 }),
                (50, 10, Gap { to: 30 }),
                (60, 30, Output { to: 35 }),
                (100, 35, Gap { to: 40 }),
            ]
        );
        assert_eq!((line.size, line.end, line.duration_us, line.started_us), (SIZE, 40, 100, 1000));
        assert_eq!(line.recorded_bytes(), 15);
        assert_eq!(
            (line.offset_at(0), line.offset_at(20), line.offset_at(55), line.offset_at(1000)),
            (0, 8, 30, 40)
        );
        assert_eq!((line.time_of(6), line.time_of(32).0), ((20, 1020), 60));
    }

    #[test]
    fn a_clock_that_jumps_back_never_turns_the_time_back() {
        let index = [
            record(0, 5_000, IndexKind::Resize(SIZE)),
            record(0, 5_100, IndexKind::Data),
            record(3, 1_000, IndexKind::Data),
            record(6, 1_200, IndexKind::Data),
        ];
        let line = Timeline::new(&[(0, 9)], &index, None);
        let times: Vec<u64> = line.events.iter().map(|event| event.at_us).collect();
        assert_eq!(times, [100, 100, 300]);
        assert_eq!(line.time_of(7), (300, 1_200));
    }

    #[test]
    fn a_recording_whose_beginning_was_dropped_begins_with_a_gap() {
        let index = [record(100, 7, IndexKind::Resize(OTHER)), record(100, 9, IndexKind::Data)];
        let line = Timeline::new(&[(100, 120)], &index, None);
        assert_eq!(line.size, OTHER);
        assert_eq!(line.gaps().collect::<Vec<_>>(), [(0, 100, 0)]);
        assert_eq!(line.recorded_bytes(), 20);
    }

    #[test]
    fn nothing_on_disk_is_an_empty_line_or_one_gap() {
        assert_eq!(Timeline::new(&[], &[], None), Timeline::default());
        let line = Timeline::new(&[], &[], Some((50, 9)));
        assert_eq!(line.gaps().map(|(from, to, _)| (from, to)).collect::<Vec<_>>(), [(0, 50)]);
    }

    proptest! {
        /// Whatever a crash left of segments and index: the line is ordered and covers every byte once.
        #[test]
        fn every_byte_is_covered_once_and_in_order(
            mut segments in proptest::collection::vec((0u64..500, 1u64..80), 0..6),
            index in proptest::collection::vec((0u64..600, 0u64..1000, 0u8..3), 0..40),
            end in proptest::option::of((0u64..700, 0u64..2000)),
        ) {
            segments.sort_unstable();
            let segments: Vec<_> = segments.into_iter().map(|(start, len)| (start, start + len)).collect();
            let index: Vec<_> = index.into_iter().map(|(offset, time, kind)| record(offset, time, match kind {
                0 => IndexKind::Data,
                1 => IndexKind::Resize(if time % 2 == 0 { SIZE } else { OTHER }),
                _ => IndexKind::Gap,
            })).collect();
            let line = Timeline::new(&segments, &index, end);
            let (mut position, mut at) = (0, 0);
            for event in &line.events {
                prop_assert!(event.offset == position && event.at_us >= at);
                at = event.at_us;
                match event.kind {
                    EventKind::Output { to } => {
                        prop_assert!(to > position);
                        for byte in position..to {
                            prop_assert!(segments.iter().any(|(start, stop)| (*start..*stop).contains(&byte)));
                        }
                        position = to;
                    }
                    EventKind::Gap { to } => {
                        prop_assert!(to > position);
                        for byte in position..to {
                            prop_assert!(!segments.iter().any(|(start, stop)| (*start..*stop).contains(&byte)));
                        }
                        position = to;
                    }
                    EventKind::Resize(_) => {}
                }
            }
            prop_assert_eq!(position, line.end);
            prop_assert!(line.duration_us >= at);
        }
    }
}

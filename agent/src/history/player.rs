//! The clock of a replay: which events are due, with speed, pauses, jumps and a limit on idle time. No IO; the time is an
//! argument.

use std::time::Duration;

use super::core::Timeline;

/// Slowest and fastest play.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.1..=100.0;

/// What is to be done now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Play {
    /// Show the events from the last one shown up to this number.
    Events {
        /// Behind the last one.
        to: usize,
    },
    /// Show the state before this event anew: the position has jumped.
    Jump {
        /// The event.
        to: usize,
    },
    /// Nothing, until this moment.
    Wait {
        /// On the clock of the caller.
        until: Duration,
    },
    /// Nothing, until somebody acts: it is paused.
    Paused,
    /// Everything has been shown.
    End,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Player {
    speed: f64,
    idle_limit_us: Option<u64>,
    is_paused: bool,
    /// Position at `since`.
    at_us: u64,
    since: Duration,
    /// Events that were shown.
    next: usize,
    has_jumped: bool,
}

impl Player {
    /// Begins at `from_us`, playing.
    pub fn new(
        line: &Timeline,
        from_us: u64,
        speed: f64,
        idle_limit: Option<Duration>,
        now: Duration,
    ) -> Self {
        let idle_limit_us = idle_limit.map(|limit| u64::try_from(limit.as_micros()).unwrap_or(u64::MAX));
        let mut player = Self {
            speed: 1.0,
            idle_limit_us,
            is_paused: false,
            at_us: 0,
            since: now,
            next: 0,
            has_jumped: false,
        };
        player.set_speed(speed, now);
        if from_us > 0 {
            player.jump(line, from_us, now);
        }
        player
    }

    /// Position in the recording, in microseconds.
    pub fn position_us(&self, now: Duration) -> u64 {
        if self.is_paused {
            return self.at_us;
        }
        let passed = now.saturating_sub(self.since).as_secs_f64() * self.speed * 1e6;
        self.at_us.saturating_add(passed as u64)
    }

    /// Speed; 1 is that of the recording.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// True if it stands still.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Stops or goes on.
    pub fn pause(&mut self, is_paused: bool, now: Duration) {
        self.at_us = self.position_us(now);
        self.since = now;
        self.is_paused = is_paused;
    }

    /// Plays faster or slower from now on.
    pub fn set_speed(&mut self, speed: f64, now: Duration) {
        self.at_us = self.position_us(now);
        self.since = now;
        self.speed = if speed.is_finite() { speed.clamp(*SPEEDS.start(), *SPEEDS.end()) } else { 1.0 };
    }

    /// Goes to a moment of the recording.
    pub fn jump(&mut self, line: &Timeline, to_us: u64, now: Duration) {
        self.at_us = to_us.min(line.duration_us);
        self.since = now;
        self.next = line.event_after(self.at_us);
        self.has_jumped = true;
    }

    /// Goes forward or back.
    pub fn jump_by(&mut self, line: &Timeline, by_us: i64, now: Duration) {
        let position = self.position_us(now).min(line.duration_us);
        self.jump(line, position.saturating_add_signed(by_us), now);
    }

    /// What to do now. Call it again after it was done.
    pub fn poll(&mut self, line: &Timeline, now: Duration) -> Play {
        if std::mem::take(&mut self.has_jumped) {
            return Play::Jump { to: self.next };
        }
        if self.is_paused {
            return Play::Paused;
        }
        let position = self.position_us(now);
        let due = line.event_after(position).max(self.next);
        if due > self.next {
            self.next = due;
            return Play::Events { to: due };
        }
        let Some(event) = line.events.get(self.next) else { return Play::End };
        if let Some(limit) = self.idle_limit_us
            && event.at_us - position > limit
        {
            let last = self.next.checked_sub(1).and_then(|last| line.events.get(last));
            if event.at_us - last.map_or(0, |last| last.at_us) > limit {
                self.at_us = event.at_us - limit;
                self.since = now;
            }
        }
        let left = event.at_us.saturating_sub(self.position_us(now));
        let wait = Duration::from_secs_f64(left as f64 / 1e6 / self.speed);
        // Never zero: a caller that waits must get on.
        Play::Wait { until: now + wait.max(Duration::from_micros(100)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holder::{IndexKind, IndexRecord};
    use claudenest_shared::session::TermSize;

    /// Output at 1 s, 2 s and 100 s.
    fn line() -> Timeline {
        let record = |offset, time_us, kind| IndexRecord { offset, time_us, kind };
        let index = [
            record(0, 0, IndexKind::Resize(TermSize::default())),
            record(0, 1_000_000, IndexKind::Data),
            record(1, 2_000_000, IndexKind::Data),
            record(2, 100_000_000, IndexKind::Data),
        ];
        Timeline::new(&[(0, 3)], &index, None)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Plays on a clock that jumps to each deadline; when each event was shown, in milliseconds.
    fn play(player: &mut Player, line: &Timeline) -> Vec<u128> {
        let (mut now, mut shown) = (Duration::ZERO, Vec::new());
        loop {
            match player.poll(line, now) {
                Play::Events { to } => shown.extend((shown.len()..to).map(|_| now.as_millis())),
                Play::Jump { to } => shown.resize(to, now.as_millis()),
                Play::Wait { until } => now = until,
                Play::Paused => panic!("nobody paused"),
                Play::End => return shown,
            }
        }
    }

    #[test]
    fn events_come_when_they_came_and_faster_if_wanted() {
        let line = line();
        assert_eq!(play(&mut Player::new(&line, 0, 1.0, None, ms(0)), &line), [1000, 2000, 100_000]);
        assert_eq!(play(&mut Player::new(&line, 0, 4.0, None, ms(0)), &line), [250, 500, 25_000]);
    }

    #[test]
    fn idle_time_is_cut_to_its_limit() {
        let line = line();
        let shown = play(&mut Player::new(&line, 0, 1.0, Some(ms(1500)), ms(0)), &line);
        assert_eq!(shown, [1000, 2000, 3500]);
    }

    #[test]
    fn jumps_pauses_and_speed_keep_the_position() {
        let line = line();
        let mut player = Player::new(&line, 1_500_000, 1.0, None, ms(0));
        assert_eq!(player.poll(&line, ms(0)), Play::Jump { to: 1 });
        assert_eq!(player.poll(&line, ms(0)), Play::Wait { until: ms(500) });
        player.pause(true, ms(100));
        assert_eq!(player.position_us(ms(9999)), 1_600_000);
        assert_eq!(player.poll(&line, ms(9999)), Play::Paused);
        player.pause(false, ms(10_000));
        player.set_speed(2.0, ms(10_000));
        assert_eq!(player.poll(&line, ms(10_000)), Play::Wait { until: ms(10_200) });
        player.jump_by(&line, -60_000_000, ms(10_000));
        assert_eq!(
            (player.position_us(ms(10_000)), player.poll(&line, ms(10_000))),
            (0, Play::Jump { to: 0 })
        );
        player.jump_by(&line, 600_000_000, ms(10_000));
        assert_eq!(player.poll(&line, ms(10_000)), Play::Jump { to: 3 });
        assert_eq!(player.poll(&line, ms(10_000)), Play::End);
        player.set_speed(f64::NAN, ms(0));
        assert_eq!(player.speed(), 1.0);
    }
}

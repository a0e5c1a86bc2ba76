use std::time::Duration;

use claudenest_shared::id::MachineId;
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::RelayMessage;

use super::core::*;
use super::status::{LinkState, LinkStatus};
use crate::credential::PairedRelay;

struct Bench {
    core: Core,
    now: Duration,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let relay = PairedRelay {
            url: "https://relay.test".into(),
            account: "a@b".into(),
            machine_id: MachineId::from_bytes([1; 16]),
            machine_name: "studio".into(),
            paired_at: UnixMs(0),
            allow_plain_http: false,
            extra_ca: vec![],
        };
        let now = Duration::from_secs(1000);
        Self { core: Core::new(now, LinkStatus::new(&relay, UnixMs(1)), seed), now }
    }

    fn wall(&self) -> UnixMs {
        UnixMs(self.now.as_millis() as i64)
    }

    fn send(&mut self, event: Event) {
        let wall = self.wall();
        self.core.handle(self.now, wall, event);
    }

    fn message(&mut self, message: RelayMessage) {
        self.send(Event::Heard);
        self.send(Event::Message(Box::new(message)));
    }

    /// Moves to the deadline and returns how long that took.
    fn pass(&mut self) -> Duration {
        let before = self.now;
        self.now = self.core.deadline().max(self.now);
        let wall = self.wall();
        self.core.on_deadline(self.now, wall);
        self.now - before
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.core.poll_effect()).filter(|effect| *effect != Effect::Publish).collect()
    }

    fn state(&self) -> LinkState {
        self.core.status().state
    }

    fn bring_up(&mut self) {
        self.pass();
        assert_eq!(self.effects(), [Effect::Connect]);
        self.send(Event::Opened);
        let time = self.wall().plus(5000);
        self.message(RelayMessage::Challenge { nonce: "07".repeat(32), time });
        assert_eq!(self.effects(), [Effect::SendHello { nonce: [7; 32] }]);
        self.message(welcome());
        assert_eq!(self.effects(), [Effect::Serve { takes_history: false, takes_guard: false }]);
        assert_eq!(self.state(), LinkState::Online);
    }
}

fn welcome() -> RelayMessage {
    RelayMessage::Welcome {
        machine_id: MachineId::from_bytes([2; 16]),
        machine_name: "studio".into(),
        connection_epoch: 1,
        heartbeat_ms: 1000,
        takes_history: false,
        takes_guard: false,
    }
}

fn broken() -> Event {
    Event::Lost(Loss::Broken("The network is gone.".into()))
}

#[test]
fn the_handshake_brings_the_link_up_and_tells_the_clock_difference() {
    let mut bench = Bench::new(1);
    bench.bring_up();
    assert_eq!(bench.core.status().clock_difference_ms, Some(5000));
    assert_eq!(bench.core.status().last_error, None);
    let request = RelayMessage::ChannelClose { channel: 1 };
    bench.message(request.clone());
    assert_eq!(bench.effects(), [Effect::Deliver(Box::new(request))]);
}

#[test]
fn pauses_double_to_thirty_seconds_with_full_jitter_and_never_end() {
    let mut longest = [Duration::ZERO; 10];
    for seed in 0..200 {
        let mut bench = Bench::new(seed);
        bench.pass();
        for slot in &mut longest {
            bench.send(broken());
            *slot = (*slot).max(bench.pass());
            assert!(bench.effects().contains(&Effect::Connect));
        }
    }
    for (index, longest) in longest.iter().enumerate() {
        let bound = (FIRST_BACKOFF * (1 << index)).min(MAX_BACKOFF);
        assert!(*longest <= bound && *longest > bound.mul_f64(0.8), "{index}: {longest:?} of {bound:?}");
    }
    let mut bench = Bench::new(3);
    for _ in 0..1000 {
        bench.pass();
        bench.send(broken());
    }
    assert!(bench.pass() <= MAX_BACKOFF);
}

#[test]
fn silence_for_three_heartbeats_ends_the_link() {
    let mut bench = Bench::new(1);
    bench.bring_up();
    for _ in 0..10 {
        bench.now += Duration::from_millis(2900);
        bench.send(Event::Heard);
    }
    assert_eq!(bench.pass(), Duration::from_secs(3));
    assert_eq!(bench.effects(), [Effect::Disconnect]);
    assert_eq!(bench.state(), LinkState::Waiting);
    assert!(bench.core.status().last_error.as_ref().unwrap().contains("3 s"));
}

#[test]
fn a_link_that_dies_at_once_does_not_reset_the_pauses() {
    let mut longest = Duration::ZERO;
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        for _ in 0..8 {
            bench.bring_up();
            bench.send(broken());
        }
        longest = longest.max(bench.pass());
        bench.effects();
        let mut bench = Bench::new(seed);
        for _ in 0..8 {
            bench.bring_up();
            bench.now += Duration::from_millis(2500);
            bench.send(Event::Heard);
            bench.now += Duration::from_secs(10);
            bench.send(broken());
        }
        assert!(bench.pass() <= FIRST_BACKOFF, "a stable link comes back quickly");
    }
    assert!(longest > Duration::from_secs(10));
}

#[test]
fn a_revoked_token_is_tried_every_five_minutes_and_shown() {
    for loss in [
        Event::Lost(Loss::Revoked("Unpaired.".into())),
        Event::Lost(Loss::Closed { code: 4401, reason: String::new() }),
        Event::Message(Box::new(RelayMessage::Revoked { message: "Unpaired.".into() })),
    ] {
        let mut bench = Bench::new(1);
        bench.bring_up();
        bench.send(loss);
        bench.effects();
        assert_eq!(bench.state(), LinkState::Revoked);
        let pause = bench.pass();
        assert!((300..=330).contains(&pause.as_secs()), "{pause:?}");
        assert_eq!(bench.state(), LinkState::Revoked, "still shown while it tries");
        bench.core.hurry(bench.now);
    }
}

#[test]
fn a_restarting_relay_is_given_the_time_it_asks_for() {
    let mut bench = Bench::new(1);
    bench.bring_up();
    bench.message(RelayMessage::Restarting { retry_after_ms: 2000 });
    assert_eq!(bench.effects(), [Effect::Disconnect]);
    let pause = bench.pass();
    assert!((2000..=2500).contains(&pause.as_millis()), "{pause:?}");
}

#[test]
fn a_person_can_hurry_the_next_try() {
    let mut bench = Bench::new(1);
    bench.pass();
    bench.effects();
    bench.send(Event::Lost(Loss::Revoked("x".into())));
    bench.core.hurry(bench.now);
    assert_eq!(bench.pass(), Duration::ZERO);
    assert_eq!(bench.effects(), [Effect::Connect]);
}

#[test]
fn wrong_messages_and_slow_handshakes_end_the_connection() {
    for message in [welcome(), RelayMessage::ChannelClose { channel: 1 }] {
        let mut bench = Bench::new(1);
        bench.pass();
        bench.send(Event::Opened);
        bench.effects();
        bench.message(message);
        assert_eq!(bench.effects(), [Effect::Disconnect]);
    }
    let mut bench = Bench::new(1);
    bench.pass();
    bench.send(Event::Opened);
    bench.effects();
    assert_eq!(bench.pass(), HANDSHAKE_TIMEOUT);
    assert_eq!(bench.effects(), [Effect::Disconnect]);
    let mut bench = Bench::new(1);
    bench.pass();
    bench.effects();
    bench.message(RelayMessage::Challenge { nonce: "zz".into(), time: UnixMs(0) });
    assert_eq!(bench.effects(), [], "before the socket is open nothing counts");
}

#[test]
fn since_tells_how_long_the_relay_is_away() {
    let mut bench = Bench::new(1);
    bench.bring_up();
    bench.now += Duration::from_secs(60);
    let lost_at = bench.wall();
    bench.send(Event::Heard);
    for _ in 0..5 {
        bench.send(broken());
        bench.pass();
    }
    assert_eq!(bench.core.status().since, lost_at);
    assert_eq!(bench.core.status().attempts, 6);
}

#[test]
fn after_sleep_the_link_is_opened_anew_at_once() {
    let mut bench = Bench::new(1);
    bench.bring_up();
    bench.effects();
    bench.core.woke(bench.now, bench.wall());
    assert_eq!(bench.effects(), [Effect::Disconnect]);
    assert_eq!(bench.pass(), Duration::ZERO);
    assert_eq!(bench.effects(), [Effect::Connect]);
    for _ in 0..8 {
        bench.send(broken());
        bench.pass();
    }
    bench.send(broken());
    bench.effects();
    bench.core.woke(bench.now, bench.wall());
    assert_eq!(bench.pass(), Duration::ZERO, "pauses are over");
}

proptest::proptest! {
    #[test]
    fn any_order_of_events_keeps_a_deadline_and_never_panics(events in proptest::collection::vec(0u8..10, 0..60), seed: u64) {
        let mut bench = Bench::new(seed);
        let mut is_connecting = false;
        for event in events {
            match event {
                0 => { bench.pass(); }
                1 => bench.send(Event::Opened),
                2 => bench.message(RelayMessage::Challenge { nonce: "00".repeat(32), time: UnixMs(0) }),
                3 => bench.message(welcome()),
                4 => bench.send(broken()),
                5 => bench.message(RelayMessage::Restarting { retry_after_ms: u32::MAX }),
                6 => bench.send(Event::Lost(Loss::Closed { code: 4409, reason: "x".into() })),
                7 => bench.send(Event::Heard),
                8 => bench.core.woke(bench.now, bench.wall()),
                _ => bench.core.hurry(bench.now),
            }
            for effect in bench.effects() {
                if effect == Effect::Connect {
                    proptest::prop_assert!(!is_connecting, "two connections at once");
                    is_connecting = true;
                } else if effect == Effect::Disconnect {
                    is_connecting = false;
                }
            }
            if matches!(bench.state(), LinkState::Waiting) { is_connecting = false; }
            proptest::prop_assert!(bench.core.deadline() <= bench.now + Duration::from_secs(1000));
        }
    }
}

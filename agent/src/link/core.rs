//! The life of one link as a pure state machine: when to connect, what the handshake expects, when silence
//! means death, how long to wait before the next try.

use std::time::Duration;

use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::RelayMessage;

use super::status::{LinkState, LinkStatus};

/// First upper bound of the pause before a new try.
pub const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Last upper bound: a relay that comes back is found within half a minute.
pub const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Pause while the token is revoked: a person has to act, and an error of the relay still heals by itself.
pub const REVOKED_PAUSE: Duration = Duration::from_secs(300);
/// Name resolution, TCP, TLS and upgrade may take this long together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Challenge and welcome may take this long together.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// A link that lived this long starts with short pauses again; one that dies at once does not.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Bounds for the heartbeat that the relay asks for.
const HEARTBEAT_RANGE: (u32, u32) = (100, 300_000);

/// What happened to the link.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The WebSocket is open.
    Opened,
    /// The relay sent a message.
    Message(Box<RelayMessage>),
    /// Anything at all came from the relay.
    Heard,
    /// The connection failed or ended.
    Lost(Loss),
}

/// How a connection failed or ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Loss {
    /// Network, TLS, HTTP status, broken connection: the sentence says which.
    Broken(String),
    /// The relay refused the token.
    Revoked(String),
    /// The relay closed with this code.
    Closed {
        /// Close code of the WebSocket.
        code: u16,
        /// Reason given with it.
        reason: String,
    },
    /// The token or key cannot be read.
    NoSecret(String),
}

/// What the actor must do.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Open the WebSocket.
    Connect,
    /// Answer the challenge.
    SendHello {
        /// The relay's nonce.
        nonce: [u8; 32],
    },
    /// The link is up: forward requests and events from now on.
    Serve {
        /// True if the relay keeps history.
        takes_history: bool,
        /// True if the relay takes approvals and locks.
        takes_guard: bool,
    },
    /// Hand a message to whoever serves.
    Deliver(Box<RelayMessage>),
    /// Cut the connection.
    Disconnect,
    /// [`Core::status`] has changed.
    Publish,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Phase {
    Waiting { until: Duration },
    Connecting { until: Duration },
    Challenge { until: Duration },
    Welcome { until: Duration },
    Up { heartbeat: Duration, heard: Duration, since: Duration },
}

/// State of one link. Times are monotonic durations since any fixed moment.
#[derive(Debug)]
pub struct Core {
    phase: Phase,
    failures: u32,
    seed: u64,
    effects: std::collections::VecDeque<Effect>,
    status: LinkStatus,
}

impl Core {
    /// A link that connects at once. `seed` makes the pauses of different machines different.
    pub fn new(now: Duration, status: LinkStatus, seed: u64) -> Self {
        Self {
            phase: Phase::Waiting { until: now },
            failures: 0,
            seed,
            effects: std::collections::VecDeque::new(),
            status,
        }
    }

    /// What people see.
    pub fn status(&self) -> &LinkStatus {
        &self.status
    }

    /// The next thing to do, if any.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Core::on_deadline`] must be called.
    pub fn deadline(&self) -> Duration {
        match self.phase {
            Phase::Waiting { until }
            | Phase::Connecting { until }
            | Phase::Challenge { until }
            | Phase::Welcome { until } => until,
            Phase::Up { heartbeat, heard, .. } => heard + heartbeat * 3,
        }
    }

    /// Handles the passing of time. Harmless before the deadline.
    pub fn on_deadline(&mut self, now: Duration, wall: UnixMs) {
        if now < self.deadline() {
            return;
        }
        let silent = match self.phase {
            Phase::Waiting { .. } => {
                self.phase = Phase::Connecting { until: now + CONNECT_TIMEOUT };
                self.status.attempts = self.failures + 1;
                self.status.next_attempt_at = None;
                if self.status.state != LinkState::Revoked {
                    self.show(LinkState::Connecting, wall);
                }
                self.effects.push_back(Effect::Connect);
                return;
            }
            Phase::Connecting { .. } => "The relay did not answer within 15 s.".to_owned(),
            Phase::Challenge { .. } | Phase::Welcome { .. } => {
                "The relay accepted the connection but did not complete the handshake within 15 s.".to_owned()
            }
            Phase::Up { heartbeat, .. } => format!(
                "Nothing came from the relay for {} s: the connection is dead.",
                (heartbeat * 3).as_secs_f32().ceil()
            ),
        };
        self.effects.push_back(Effect::Disconnect);
        self.lost(now, wall, Loss::Broken(silent));
    }

    /// Handles what happened.
    pub fn handle(&mut self, now: Duration, wall: UnixMs, event: Event) {
        match event {
            Event::Opened => {
                if matches!(self.phase, Phase::Connecting { .. }) {
                    self.phase = Phase::Challenge { until: now + HANDSHAKE_TIMEOUT };
                }
            }
            Event::Heard => {
                if let Phase::Up { heard, .. } = &mut self.phase {
                    *heard = now;
                }
            }
            Event::Message(message) => self.message(now, wall, *message),
            Event::Lost(loss) => {
                if !matches!(self.phase, Phase::Waiting { .. }) {
                    self.lost(now, wall, loss);
                }
            }
        }
    }

    /// A person wants it now: the next try comes at once.
    pub fn hurry(&mut self, now: Duration) {
        if let Phase::Waiting { until } = &mut self.phase {
            *until = now;
        }
    }

    /// The machine was asleep: what was open is most likely dead, and pauses are over.
    pub fn woke(&mut self, now: Duration, wall: UnixMs) {
        // A token that was revoked stays so.
        if self.status.state == LinkState::Revoked {
            return;
        }
        if !matches!(self.phase, Phase::Waiting { .. }) {
            self.effects.push_back(Effect::Disconnect);
        }
        self.failures = 0;
        self.wait(now, wall, Duration::ZERO, LinkState::Waiting, "This machine was asleep.".to_owned());
    }

    fn message(&mut self, now: Duration, wall: UnixMs, message: RelayMessage) {
        match (self.phase, message) {
            (Phase::Waiting { .. } | Phase::Connecting { .. }, _) => {}
            (_, RelayMessage::Revoked { message }) => {
                self.effects.push_back(Effect::Disconnect);
                self.lost(now, wall, Loss::Revoked(message));
            }
            (_, RelayMessage::Restarting { retry_after_ms }) => {
                self.effects.push_back(Effect::Disconnect);
                self.failures = 0;
                let wait = Duration::from_millis(u64::from(retry_after_ms)).min(MAX_BACKOFF);
                let wait = wait + self.jitter(FIRST_BACKOFF);
                self.wait(now, wall, wait, LinkState::Waiting, "The relay restarts.".to_owned());
            }
            (Phase::Challenge { until }, RelayMessage::Challenge { nonce, time }) => {
                let Some(nonce) = crate::credential::unhex::<32>(&nonce) else {
                    return self.protocol_error(now, wall, "its challenge is malformed");
                };
                self.status.clock_difference_ms = Some(time.0.saturating_sub(wall.0));
                self.phase = Phase::Welcome { until };
                self.effects.push_back(Effect::SendHello { nonce });
            }
            (
                Phase::Welcome { .. },
                RelayMessage::Welcome {
                    machine_id,
                    machine_name,
                    heartbeat_ms,
                    takes_history,
                    takes_guard,
                    ..
                },
            ) => {
                let (low, high) = HEARTBEAT_RANGE;
                let heartbeat = Duration::from_millis(u64::from(heartbeat_ms.clamp(low, high)));
                self.phase = Phase::Up { heartbeat, heard: now, since: now };
                self.status.machine_id = machine_id;
                self.status.machine_name = crate::relay_http::clean(&machine_name);
                self.status.last_error = None;
                self.show(LinkState::Online, wall);
                self.effects.push_back(Effect::Serve { takes_history, takes_guard });
            }
            (Phase::Up { .. }, RelayMessage::Challenge { .. } | RelayMessage::Welcome { .. })
            | (Phase::Challenge { .. } | Phase::Welcome { .. }, _) => {
                self.protocol_error(now, wall, "it sent a message that does not belong there");
            }
            (Phase::Up { .. }, message) => self.effects.push_back(Effect::Deliver(Box::new(message))),
        }
    }

    fn protocol_error(&mut self, now: Duration, wall: UnixMs, what: &str) {
        self.effects.push_back(Effect::Disconnect);
        let text = format!("The relay breaks the protocol: {what}. Update the relay or the agent.");
        self.lost(now, wall, Loss::Broken(text));
    }

    fn lost(&mut self, now: Duration, wall: UnixMs, loss: Loss) {
        if let Phase::Up { since, .. } = self.phase
            && now.saturating_sub(since) >= STABLE_AFTER
        {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let bound = FIRST_BACKOFF.saturating_mul(1 << (self.failures - 1).min(16)).min(MAX_BACKOFF);
        let pause = self.jitter(bound);
        let (pause, state, text) = match loss {
            Loss::Broken(text) => (pause, LinkState::Waiting, text),
            Loss::NoSecret(text) => (self.spread(MAX_BACKOFF), LinkState::NoSecret, text),
            Loss::Revoked(text) => (self.spread(REVOKED_PAUSE), LinkState::Revoked, text),
            Loss::Closed { code: 4401, reason } => {
                let text = if reason.is_empty() {
                    "The relay does not accept this machine's token. Pair the machine again: `claudenest-agent pair`.".to_owned()
                } else {
                    reason
                };
                (self.spread(REVOKED_PAUSE), LinkState::Revoked, text)
            }
            // Two agents with one identity would take the link from each other for ever.
            Loss::Closed { code: 4409, .. } => (
                self.spread(MAX_BACKOFF),
                LinkState::Waiting,
                "Another agent with this machine's identity has taken the link. Is the data directory copied, or a second agent running?"
                    .to_owned(),
            ),
            Loss::Closed { code: 4503, .. } => (pause, LinkState::Waiting, "The relay restarts.".to_owned()),
            Loss::Closed { code, reason } if reason.is_empty() => {
                (pause, LinkState::Waiting, format!("The relay closed the connection (code {code})."))
            }
            Loss::Closed { code, reason } => {
                (pause, LinkState::Waiting, format!("The relay closed the connection (code {code}): {reason}"))
            }
        };
        self.wait(now, wall, pause, state, text);
    }

    fn wait(&mut self, now: Duration, wall: UnixMs, pause: Duration, state: LinkState, text: String) {
        self.phase = Phase::Waiting { until: now + pause };
        self.status.next_attempt_at = Some(wall.plus(pause.as_millis() as i64));
        self.status.last_error = Some(crate::relay_http::clean(&text));
        self.show(state, wall);
    }

    fn show(&mut self, state: LinkState, wall: UnixMs) {
        // "Since" tells how long it has been away, not when the last try began.
        if self.status.state.is_away() != state.is_away() || self.status.since.0 == 0 {
            self.status.since = wall;
        }
        self.status.state = state;
        self.effects.push_back(Effect::Publish);
    }

    /// Full jitter: anything from nothing to `bound`.
    fn jitter(&mut self, bound: Duration) -> Duration {
        bound.mul_f64(self.random())
    }

    /// Long pauses: `pause`, up to a tenth more.
    fn spread(&mut self, pause: Duration) -> Duration {
        pause + pause.mul_f64(self.random() / 10.0)
    }

    /// SplitMix64; spreads load, protects nothing.
    fn random(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.seed;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

//! Rate limits of requests, in memory. The budgets of pairing codes, which must survive restarts, are in `db::attempt`.

use std::num::NonZeroU32;

use claudenest_shared::code::ErrorCode;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::http::error::ApiError;

/// Which limit a request counts against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Requests of one browser login: far above what a page does, below what a loop does.
    Login,
    /// Requests without a login from one network.
    Anonymous,
    /// Login links tried from one network. They hold 178 bits; this only keeps the log and the database quiet.
    LoginLink,
    /// Pairings begun from one network.
    PairingStart,
    /// WebSockets opened from one network: a restart of the relay brings a whole office and its machines back at once.
    Socket,
    /// Polls of pairings from one network: twenty machines behind one address, one poll in two seconds each.
    PairingPoll,
}

/// All limits of a relay.
#[derive(Debug)]
pub struct Limits {
    login: DefaultKeyedRateLimiter<String>,
    anonymous: DefaultKeyedRateLimiter<String>,
    login_link: DefaultKeyedRateLimiter<String>,
    socket: DefaultKeyedRateLimiter<String>,
    pairing_start: DefaultKeyedRateLimiter<String>,
    pairing_poll: DefaultKeyedRateLimiter<String>,
}

impl Default for Limits {
    fn default() -> Self {
        let per_minute = |rate: u32, burst: u32| {
            let quota = Quota::per_minute(NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN));
            RateLimiter::keyed(quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)))
        };
        Self {
            login: per_minute(1_200, 300),
            anonymous: per_minute(1_200, 600),
            login_link: per_minute(10, 20),
            socket: per_minute(3_000, 2_000),
            pairing_start: per_minute(10, 20),
            pairing_poll: per_minute(600, 120),
        }
    }
}

impl Limits {
    /// Counts a request of `key`.
    ///
    /// # Errors
    /// `rate_limited`, with the seconds to wait in the sentence.
    pub fn check(&self, limit: Limit, key: &str) -> Result<(), ApiError> {
        self.of(limit).check_key(&key.to_owned()).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now()).as_secs() + 1;
            ApiError::new(ErrorCode::RateLimited, format!("Too many requests. Try again in {wait} s."))
        })
    }

    /// Forgets keys that have been quiet; called now and then so that the tables stay small.
    pub fn clean_up(&self) {
        for limit in [
            Limit::Login,
            Limit::Anonymous,
            Limit::LoginLink,
            Limit::Socket,
            Limit::PairingStart,
            Limit::PairingPoll,
        ] {
            self.of(limit).retain_recent();
        }
    }

    fn of(&self, limit: Limit) -> &DefaultKeyedRateLimiter<String> {
        match limit {
            Limit::Login => &self.login,
            Limit::Anonymous => &self.anonymous,
            Limit::LoginLink => &self.login_link,
            Limit::Socket => &self.socket,
            Limit::PairingStart => &self.pairing_start,
            Limit::PairingPoll => &self.pairing_poll,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_runs_dry_and_the_other_does_not() {
        let limits = Limits::default();
        for _ in 0..20 {
            limits.check(Limit::LoginLink, "a").unwrap();
        }
        let refused = limits.check(Limit::LoginLink, "a").unwrap_err();
        assert_eq!(refused.0.code, ErrorCode::RateLimited);
        limits.check(Limit::LoginLink, "b").unwrap();
        limits.check(Limit::PairingStart, "a").unwrap();
    }
}

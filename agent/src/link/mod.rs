//! The links to relays: one WebSocket for each paired relay, for ever.
//!
//! Invariants: no relay, network or viewer can hold up a session; nothing is queued without a bound; a
//! link that is down is tried again whatever the reason, and says the reason.

mod actor;
pub mod core;
mod guard;
mod history;
mod serve;
mod socket;
mod status;

#[cfg(test)]
mod core_tests;
#[cfg(test)]
mod tests;

pub use actor::{LinkHost, Links, probe};
pub use status::{LinkState, LinkStatus};

//! Words and rules that the agent and the relay share.
//!
//! Invariants: no IO, no clock, no randomness, no environment, no async runtime and no database
//! in this crate. Whatever needs the time or random bytes takes them as arguments.

pub mod approval;
pub mod code;
pub mod history;
pub mod id;
pub mod lock;
pub mod machine;
pub mod pairing;
pub mod policy;
pub mod reason;
pub mod risk;
pub mod secret;
pub mod session;
pub mod time;
pub mod token;
pub mod wire;

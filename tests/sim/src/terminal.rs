//! The generator of the streams that xterm.js judges.
#![allow(dead_code, reason = "only a part is used here")]

#[path = "../../src/terminal/rng.rs"]
mod rng;
#[path = "../../src/terminal/streams.rs"]
pub mod streams;

pub use rng::Rng;

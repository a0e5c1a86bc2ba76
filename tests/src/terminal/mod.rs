//! Terminal fidelity: streams made from seeds, and xterm.js as their judge.

pub mod judge;
mod rng;
pub mod streams;

pub use rng::Rng;

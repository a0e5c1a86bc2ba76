//! The terminal stream as one chain: the agent's core, a network that delays, cuts and doubles connections, the relay's
//! core, and viewers with screens, all against plain reference bytes.
//!
//! The cores are the programs' own source files, taken in by path: they are private to their crates, and here they are
//! compiled with optimisation, so that a million steps take seconds. Nothing here does IO or reads a clock.

// The cores' own unit tests run where they live.
#![cfg(not(test))]

mod agent;
mod hub;
mod terminal;
mod viewer;
mod world;

pub use world::{Totals, run};

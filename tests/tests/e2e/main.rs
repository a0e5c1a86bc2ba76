//! End to end: the real programs on loopback, a scripted Claude, faults with counts.

mod faults;
mod fidelity;
mod history;
mod input;
mod install;
mod local;
mod machines;
mod ownership;
mod pairing;
mod proxies;
mod stream;
mod support;
mod troubles;

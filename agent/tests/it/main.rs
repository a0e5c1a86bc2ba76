//! Tests of the agent with real processes.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod control;
mod holder;
mod nest;
mod real_claude;
mod run;
mod session;
mod supervisor;
mod wait;

//! Tests of the agent with real processes.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod approvals;
mod attach;
mod cli;
mod control;
mod gate;
mod holder;
mod input;
mod lifecycle;
mod mcp;
mod nest;
mod own;
mod pairing;
mod real_claude;
mod recording;
mod roles;
mod run;
mod session;
mod supervisor;
mod wait;
mod wild;

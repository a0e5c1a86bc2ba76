//! Tests of the agent with real processes.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod holder;
mod session;

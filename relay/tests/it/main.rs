//! Tests of the relay from outside: HTTP on a real PostgreSQL, and the program itself.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod auth;
mod builtin;
mod foreign;
mod guard;
mod guard_killed;
mod harness;
mod history;
mod hostile;
mod live;
mod openapi;
mod pairing;
mod pairing_model;
mod pg;
mod program;

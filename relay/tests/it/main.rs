//! Tests of the relay from outside: HTTP on a real PostgreSQL, and the program itself.

mod auth;
mod builtin;
mod foreign;
mod harness;
mod openapi;
mod pairing;
mod pairing_model;
mod pg;
mod program;

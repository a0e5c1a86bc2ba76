//! Supervises Claude Code sessions on one machine: daemon, holder, CLI and link to a relay.
//!
//! Dependencies point inward: cores, then actors, then the edges (`cli`, `link`, `control`), then `main.rs`.

pub mod channel;
pub mod claude;
pub mod cli;
pub mod config;
pub mod control;
pub mod credential;
pub mod daemon;
pub mod directory;
pub mod doctor;
pub mod facts;
pub mod guard;
pub mod history;
pub mod holder;
pub mod hook;
pub mod link;
pub mod log;
pub mod mcp;
pub mod near;
pub mod pairing;
pub mod paths;
pub mod reason;
pub mod recordings;
pub mod relay_http;
pub mod relay_url;
pub mod resources;
pub mod service;
pub mod session;
pub mod store;
pub mod supervisor;
pub mod tls;
mod unix_socket;
mod yields;

//! The ClaudeNest agent: supervises Claude Code sessions on one machine.

pub mod channel;
pub mod holder;
pub mod session;

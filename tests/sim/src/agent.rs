//! The agent's cores, and a machine around them: a child, a holder, a daemon that may be killed.
#![allow(dead_code, unused_imports, reason = "the simulation calls a part of what the program calls")]

#[path = "../../../agent/src/session/core.rs"]
mod core;
#[path = "../../../agent/src/session/input.rs"]
mod input;
pub mod machine;
#[path = "../../../agent/src/session/paste.rs"]
mod paste;
#[path = "../../../agent/src/session/ring.rs"]
mod ring;
#[path = "../../../agent/src/session/sanitise/mod.rs"]
pub mod sanitise;
#[path = "../../../agent/src/session/screen/mod.rs"]
pub mod screen;
#[path = "../../../agent/src/session/size.rs"]
mod size;
#[path = "../../../agent/src/session/viewer.rs"]
mod viewer;

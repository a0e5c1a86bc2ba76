//! The relay's core.
#![allow(dead_code, unused_imports, reason = "the simulation calls a part of what the program calls")]

#[path = "../../../relay/src/hub/terminal/core.rs"]
pub(crate) mod core;
#[path = "../../../relay/src/hub/terminal/place.rs"]
mod place;
#[path = "../../../relay/src/hub/terminal/ring.rs"]
mod ring;
#[path = "../../../relay/src/hub/terminal/track.rs"]
mod track;
#[path = "../../../relay/src/hub/terminal/viewer.rs"]
mod viewer;

pub(crate) use viewer::Item;

//! What sessions printed in the past: recordings as a time line, played, searched, exported and sent to relays.
//!
//! [`core`] orders what is on disk, [`Player`] keeps the time, [`Reader`] reads through the sanitiser: nothing in here
//! hands on bytes as the child wrote them. It knows no terminal, no network and no daemon.

pub mod cast;
pub mod chunk;
pub mod core;
mod player;
mod reader;
pub mod runs;
pub mod search;
pub mod serve;
mod text;

pub use core::{Event, EventKind, Timeline};
pub use player::{Play, Player};
pub use reader::{Piece, PieceKind, Reader, Screenful};
pub use text::{Line, Lines};

//! What travels between the programs: binary frames for terminal bytes, tagged JSON for everything else.
//!
//! JSON messages are tagged by `type`, written in snake_case, and unknown fields are ignored, so that old
//! and new programs understand each other. The version is in the WebSocket subprotocol.

pub mod agent;
pub mod browser;
pub mod frame;
pub mod history;
pub mod holder;
pub mod limits;

/// Subprotocol of the agent link.
pub const AGENT_SUBPROTOCOL: &str = "claudenest.agent.v1";
/// Subprotocol of the browser socket.
pub const BROWSER_SUBPROTOCOL: &str = "claudenest.browser.v1";

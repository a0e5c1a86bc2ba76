//! Effective configuration.

/// Effective configuration of a relay.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Address of the web app as people open it, without a slash at the end.
    pub public_url: String,
}

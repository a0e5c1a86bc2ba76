//! Who is asking, from where, and how often: browser logins, tickets, origins, client addresses, rate limits.

pub mod address;
pub mod limit;
pub mod login;
pub mod origin;
pub mod ticket;

use claudenest_shared::secret::Secret;
use claudenest_shared::token::{self, TokenKind};

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes: {0}")]
pub struct NoRandom(getrandom::Error);

/// Fills an array with random bytes of the system.
///
/// # Errors
/// When the system has none, which does not happen on a running machine.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NoRandom)?;
    Ok(bytes)
}

/// Mints a token and its digest.
///
/// # Errors
/// As [`random`].
pub fn mint(kind: TokenKind) -> Result<(Secret<String>, [u8; 32]), NoRandom> {
    let token = token::mint(kind, &random()?);
    let digest = token::digest(token.expose());
    Ok((token, digest))
}

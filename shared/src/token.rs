//! Bearer tokens: `<prefix>_` + 30 base62 characters (178 bits) + 6 base62 characters of CRC-32.
//!
//! The layout follows GitHub's token format: the prefix says what a leaked token opens, the checksum
//! rejects typing errors before any database is asked and lets scanners find tokens with near-zero
//! false positives. Only the SHA-256 digest of a token is ever stored.

use sha2::{Digest, Sha256};

use crate::secret::Secret;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BODY_LEN: usize = 30;
const CHECK_LEN: usize = 6;

/// Random bytes that [`mint`] consumes: 64 give 30 unbiased base62 characters with overwhelming probability.
pub const ENTROPY_BYTES: usize = 64;

/// What a token opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// The agent link of one machine, and nothing else.
    Machine,
    /// The API, in the name of a user (personal access token).
    Personal,
    /// One pairing without a person at the machine.
    Enrolment,
    /// One login in a browser.
    LoginLink,
    /// A browser's login session (cookie).
    WebSession,
    /// One WebSocket of a browser, for five minutes.
    Ticket,
}

impl TokenKind {
    /// The prefix, without the underscore.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Machine => "mn",
            Self::Personal => "cn",
            Self::Enrolment => "cne",
            Self::LoginLink => "cnl",
            Self::WebSession => "cns",
            Self::Ticket => "cnt",
        }
    }
}

/// Makes a token of `kind` from random bytes of a CSPRNG.
///
/// # Panics
/// If fewer than 30 of the 64 bytes are usable after removing modulo bias (probability below 2^-60
/// for random input): a fixed, non-random input was given.
pub fn mint(kind: TokenKind, entropy: &[u8; ENTROPY_BYTES]) -> Secret<String> {
    let mut body = String::with_capacity(BODY_LEN);
    for byte in entropy {
        // 248 = 4 * 62: bytes above would favour the first characters.
        if *byte < 248 && body.len() < BODY_LEN {
            body.push(char::from(ALPHABET[usize::from(byte % 62)]));
        }
    }
    assert_eq!(body.len(), BODY_LEN, "entropy must be random bytes");
    let head = format!("{}_{body}", kind.prefix());
    let check = checksum(&head);
    Secret::new(head + &check)
}

/// True if `text` has the form of a token of `kind` and its checksum holds. Says nothing about validity.
pub fn is_well_formed(kind: TokenKind, text: &str) -> bool {
    let Some(rest) = text.strip_prefix(kind.prefix()).and_then(|rest| rest.strip_prefix('_')) else {
        return false;
    };
    if rest.len() != BODY_LEN + CHECK_LEN || !rest.bytes().all(|byte| ALPHABET.contains(&byte)) {
        return false;
    }
    let (head, check) = text.split_at(text.len() - CHECK_LEN);
    checksum(head) == check
}

/// The digest that is stored in place of the token.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn checksum(head: &str) -> String {
    let mut rest = crc32fast::hash(head.as_bytes());
    let mut out = [b'0'; CHECK_LEN];
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    out.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entropy(seed: u8) -> [u8; ENTROPY_BYTES] {
        std::array::from_fn(|index| seed.wrapping_add((index as u8).wrapping_mul(3)))
    }

    #[test]
    fn minted_tokens_are_well_formed_for_their_kind_only() {
        let token = mint(TokenKind::Machine, &entropy(7));
        assert!(token.expose().starts_with("mn_"));
        assert_eq!(token.expose().len(), 3 + 36);
        assert!(is_well_formed(TokenKind::Machine, token.expose()));
        assert!(!is_well_formed(TokenKind::Personal, token.expose()));
    }

    #[test]
    fn one_changed_character_breaks_the_checksum() {
        let token = mint(TokenKind::Personal, &entropy(9)).expose().clone();
        for index in 3..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(!is_well_formed(TokenKind::Personal, &changed), "{changed}");
        }
    }

    #[test]
    fn non_ascii_and_short_texts_are_refused() {
        for text in ["", "cn", "cn_", "cn_ä", "mn_000000000000000000000000000000é00000"] {
            assert!(!is_well_formed(TokenKind::Personal, text));
            assert!(!is_well_formed(TokenKind::Machine, text));
        }
    }
}

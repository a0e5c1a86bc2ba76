//! Pairing a machine with an account: the code, the signed messages, the six digits and the state machine.
//!
//! The code (30 bits) is a rendezvous and never a credential: every request of the agent is signed with
//! its Ed25519 identity, a person confirms on the machine, and only then a token is minted, once.
//! RFC 8628 §5.1 explains why so short a code cannot carry the security by itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::PairingId;

/// Life of a pairing code.
pub const CODE_TTL_MS: i64 = 600_000;
/// How often the agent polls.
pub const POLL_INTERVAL_MS: u64 = 2_000;
/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A pairing code, `XXX-XXX`: six Crockford base-32 characters, 30 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairingCode([u8; 6]);

impl PairingCode {
    /// Makes a code from 30 of the 32 bits of a random number.
    pub fn from_random(random: u32) -> Self {
        Self(std::array::from_fn(|index| ALPHABET[(random >> (5 * index) & 31) as usize]))
    }
}

impl fmt::Display for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if index == 3 {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(*byte))?;
        }
        Ok(())
    }
}

impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A live code must not end up in a log.
        f.write_str("PairingCode(***)")
    }
}

/// A text that is not a pairing code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCode {
    /// Not six characters.
    #[error("A pairing code has six characters, for example A7K-M2X; {0} were given.")]
    Length(usize),
    /// A character that no code contains.
    #[error("A pairing code has digits and letters only; {0:?} is neither.")]
    Character(char),
}

impl FromStr for PairingCode {
    type Err = BadCode;

    /// Reads a code as people type it: case, blanks and dashes do not matter, O is 0, I and L are 1.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut code = [0; 6];
        let mut length = 0;
        for c in text.chars() {
            let c = match c.to_ascii_uppercase() {
                '-' | '\u{2010}'..='\u{2015}' => continue,
                c if c.is_whitespace() => continue,
                'O' => '0',
                'I' | 'L' => '1',
                c => c,
            };
            let byte = u8::try_from(c).ok().filter(|byte| ALPHABET.contains(byte));
            let byte = byte.ok_or(BadCode::Character(c))?;
            if let Some(slot) = code.get_mut(length) {
                *slot = byte;
            }
            length += 1;
        }
        if length == 6 { Ok(Self(code)) } else { Err(BadCode::Length(length)) }
    }
}

/// State of a pairing. Every arrow is one conditional update; nothing returns to `Pending`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PairingState {
    /// The code is shown on the machine; nobody has entered it.
    Pending,
    /// A user entered the code and saw the machine; the machine has not confirmed.
    Claimed,
    /// Confirmed on the machine; the token is about to be delivered.
    Confirmed,
    /// The token was delivered. Final.
    Consumed,
    /// Refused on either side. Final.
    Denied,
    /// Time ran out. Final.
    Expired,
}

/// What can happen to a pairing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PairingEvent {
    /// A user claims the code.
    Claim,
    /// The machine says yes (signed).
    Confirm,
    /// The token is handed out.
    Deliver,
    /// Either side says no.
    Deny,
    /// The deadline passed.
    Expire,
}

impl PairingState {
    /// The state after `event`, or `None` where the event is refused and nothing changes.
    pub const fn after(self, event: PairingEvent) -> Option<PairingState> {
        use PairingEvent as E;
        use PairingState as S;
        match (self, event) {
            (S::Pending, E::Claim) => Some(S::Claimed),
            (S::Claimed, E::Confirm) => Some(S::Confirmed),
            (S::Confirmed, E::Deliver) => Some(S::Consumed),
            (S::Pending | S::Claimed, E::Deny) => Some(S::Denied),
            (S::Pending | S::Claimed | S::Confirmed, E::Expire) => Some(S::Expired),
            _ => None,
        }
    }

    /// True if nothing can happen any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Consumed | Self::Denied | Self::Expired)
    }

    /// The word stored in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Claimed => "claimed",
            Self::Confirmed => "confirmed",
            Self::Consumed => "consumed",
            Self::Denied => "denied",
            Self::Expired => "expired",
        }
    }
}

/// Bytes that are signed or hashed: a domain, then every part behind its length (u32, little endian).
///
/// The lengths make the encoding injective: no two lists of parts give the same bytes.
pub fn transcript(domain: &str, parts: &[&[u8]]) -> Vec<u8> {
    let size = domain.len() + 1 + parts.iter().map(|part| part.len() + 4).sum::<usize>();
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(domain.as_bytes());
    bytes.push(0);
    for part in parts {
        // Parts are ids, nonces and short texts: far below 4 GiB.
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// What the agent sends in advance: a commitment to `nonce` that it reveals after the claim.
pub fn commitment(public_key: &[u8; 32], nonce: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(transcript("claudenest pairing commitment v1", &[public_key, nonce])).into()
}

/// Bytes that the agent signs when it polls. `sequence` grows with every poll of a pairing, so that no
/// captured poll can be replayed. `reveal` is the committed nonce once the agent has seen the claim.
pub fn poll_message(id: PairingId, code: &PairingCode, sequence: u64, reveal: Option<&[u8; 32]>) -> Vec<u8> {
    transcript(
        "claudenest pairing poll v1",
        &[id.as_bytes(), &code.0, &sequence.to_le_bytes(), reveal.map_or(&[][..], |nonce| &nonce[..])],
    )
}

/// Bytes that the agent signs to say yes or no. They name the account and both nonces, so that the
/// signature is worth nothing for another claimant.
pub fn decision_message(is_confirmed: bool, facts: &SasInput<'_>) -> Vec<u8> {
    let domain = if is_confirmed { "claudenest pairing confirm v1" } else { "claudenest pairing deny v1" };
    transcript(domain, &facts.parts())
}

/// Everything the two sides must agree on.
#[derive(Clone, Copy, Debug)]
pub struct SasInput<'a> {
    /// The pairing.
    pub pairing_id: PairingId,
    /// The agent's Ed25519 public key.
    pub public_key: &'a [u8; 32],
    /// The nonce that the agent committed to.
    pub agent_nonce: &'a [u8; 32],
    /// The nonce that the browser chose after it saw the commitment.
    pub browser_nonce: &'a [u8; 32],
    /// The claimant's account, as the machine shows it.
    pub account: &'a str,
}

impl SasInput<'_> {
    fn parts(&self) -> [&[u8]; 5] {
        [
            self.pairing_id.as_bytes(),
            self.public_key,
            self.agent_nonce,
            self.browser_nonce,
            self.account.as_bytes(),
        ]
    }

    /// The six digits that both sides show ("short authentication string"), 000000 to 999999.
    ///
    /// The agent's nonce was committed before the browser's was known: somebody in the middle has one
    /// try in a million, and a wrong one is visible.
    pub fn digits(&self) -> String {
        let hash = Sha256::digest(transcript("claudenest pairing digits v1", &self.parts()));
        let number = u64::from_le_bytes(hash[..8].try_into().expect("a SHA-256 has 32 bytes"));
        format!("{:06}", number % 1_000_000)
    }
}

/// Bytes that the agent signs to use an enrolment token. They bind the token to this key.
pub fn enrol_message(token_digest: &[u8; 32], public_key: &[u8; 32]) -> Vec<u8> {
    transcript("claudenest enrol v1", &[token_digest, public_key])
}

/// Bytes that the agent signs to open its link: the relay's nonce and the digest of the machine token.
///
/// The digest makes the signature useless at any other relay to which the same identity is paired.
pub fn link_message(nonce: &[u8; 32], token_digest: &[u8; 32]) -> Vec<u8> {
    transcript("claudenest link v1", &[nonce, token_digest])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_are_read_as_people_type_them() {
        let code: PairingCode = "A7K-M2X".parse().unwrap();
        for text in ["a7km2x", " A7K M2X ", "a7k\u{2013}m2x"] {
            assert_eq!(text.parse::<PairingCode>().unwrap(), code);
        }
        assert_eq!("oil-OIL".parse::<PairingCode>().unwrap().to_string(), "011-011");
        assert_eq!("A7K".parse::<PairingCode>(), Err(BadCode::Length(3)));
        assert_eq!("A7K-M2XX".parse::<PairingCode>(), Err(BadCode::Length(7)));
        assert_eq!("A7K-M2U".parse::<PairingCode>(), Err(BadCode::Character('U')));
        assert_eq!("A7K-M2é".parse::<PairingCode>(), Err(BadCode::Character('é')));
    }

    #[test]
    fn nothing_leaves_a_final_state_and_nothing_returns_to_pending() {
        use PairingState::*;
        let events = [
            PairingEvent::Claim,
            PairingEvent::Confirm,
            PairingEvent::Deliver,
            PairingEvent::Deny,
            PairingEvent::Expire,
        ];
        for state in [Pending, Claimed, Confirmed, Consumed, Denied, Expired] {
            for event in events {
                let next = state.after(event);
                assert_ne!(next, Some(Pending));
                assert!(!state.is_final() || next.is_none());
            }
        }
    }

    #[test]
    fn the_six_digits_depend_on_every_part() {
        let base = SasInput {
            pairing_id: PairingId::from_bytes([1; 16]),
            public_key: &[2; 32],
            agent_nonce: &[3; 32],
            browser_nonce: &[4; 32],
            account: "alice@example.com",
        };
        // The web app computes the same digits; its tests hold this value too.
        assert_eq!(base.digits(), "638252");
        assert_ne!(SasInput { browser_nonce: &[5; 32], ..base }.digits(), base.digits());
        assert_ne!(SasInput { account: "mallory@example.com", ..base }.digits(), base.digits());
        assert_ne!(decision_message(true, &base), decision_message(false, &base));
    }

    proptest! {
        #[test]
        fn every_code_reads_back(random: u32) {
            let code = PairingCode::from_random(random);
            prop_assert_eq!(code.to_string().parse::<PairingCode>().unwrap(), code);
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<PairingCode>();
        }

        #[test]
        fn transcripts_of_different_parts_differ(a: Vec<Vec<u8>>, b: Vec<Vec<u8>>) {
            let bytes = |parts: &[Vec<u8>]| {
                transcript("d", &parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
            };
            prop_assert_eq!(bytes(&a) == bytes(&b), a == b);
        }
    }
}

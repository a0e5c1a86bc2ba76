//! Pairing this machine with a relay: the agent's side of docs/PROTOCOL.md.
//!
//! Invariants: the claimant (account and nonce) that was shown is the one that is confirmed; whoever
//! comes later is refused. Nothing but a person's yes, an expected account or an enrolment token
//! confirms. Leaving in any other way tells the relay no.

mod flow;

use claudenest_shared::id::{MachineId, PairingId};
use claudenest_shared::machine::MachineFacts;
use claudenest_shared::pairing::{PairingCode, PairingState};
use claudenest_shared::secret::Secret;
use claudenest_shared::time::UnixMs;
use serde::{Deserialize, Serialize};

pub use flow::{enrol, pair};

use crate::relay_http::CallError;

/// What the person at the machine sees and says.
pub trait Person {
    /// Shows the code, and the address that opens it.
    fn show_code(&mut self, code: &Shown);
    /// Somebody claims the machine: shows account and digits and asks. Pending until answered.
    fn ask(&mut self, claim: &Claim) -> impl Future<Output = bool>;
    /// Tells about something that passes by itself, for example a relay that does not answer.
    fn note(&mut self, text: &str);
}

/// A code to show.
#[derive(Clone, PartialEq, Debug)]
pub struct Shown {
    /// The code.
    pub code: PairingCode,
    /// Address that opens the relay's page with the code filled in.
    pub url: String,
    /// Address of the relay for people.
    pub relay: String,
    /// Until when the code is valid.
    pub expires_at: UnixMs,
}

/// Somebody who entered the code.
#[derive(Clone, PartialEq, Debug)]
pub struct Claim {
    /// The account, without control characters.
    pub account: String,
    /// Address from which it was claimed.
    pub address: Option<String>,
    /// The six digits that both sides show.
    pub digits: String,
}

/// A pairing that succeeded.
#[derive(Clone, Debug, Deserialize)]
pub struct Paired {
    /// The machine's id at the relay.
    pub machine_id: MachineId,
    /// Its name there.
    pub machine_name: String,
    /// Its token.
    #[serde(deserialize_with = "secret")]
    pub token: Secret<String>,
    /// The account that it belongs to.
    pub account: String,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// Why a pairing did not succeed. The texts are complete for a person.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The relay could not be asked, or refused.
    #[error("{0}")]
    Call(#[from] CallError),
    /// The person at the machine said no.
    #[error("Not paired: you did not confirm. The relay was told.")]
    Declined,
    /// The person at the machine pressed Ctrl-C.
    #[error("Not paired: you cancelled it. The relay was told; the code is void.")]
    Interrupted,
    /// The claimant gave up or was refused.
    #[error(
        "Not paired: the request was cancelled in the browser. Run `claudenest-agent pair` again for a new code."
    )]
    Cancelled,
    /// Nobody entered or confirmed the code in time.
    #[error("Not paired: the code has expired. Run `claudenest-agent pair` again for a new one.")]
    Expired,
    /// Another account than the expected one claimed the code.
    #[error(
        "Not paired: {account} entered the code, but --expect-account allows only {expected}. The relay was told no."
    )]
    WrongAccount {
        /// Who claimed it.
        account: String,
        /// Who should have.
        expected: String,
    },
    /// The claim changed after it was shown.
    #[error(
        "Not paired: the account behind the code changed after it was shown. The relay was told no; somebody may be tampering. Check the relay before you try again."
    )]
    Changed,
    /// The relay speaks another language.
    #[error("The relay's answer is not understood ({0}). Update the relay or this program.")]
    Answer(&'static str),
    /// The confirmation was sent and its answer lost.
    #[error(
        "The relay was told yes, but its answer with the token was lost ({0}). Remove this machine in the web app and pair again."
    )]
    AnswerLost(CallError),
    /// Random bytes could not be had.
    #[error("The system gives no random bytes: {0}.")]
    Random(String),
}

#[derive(Serialize)]
struct Initiate<'a> {
    public_key: String,
    commitment: String,
    facts: &'a MachineFacts,
}

#[derive(Deserialize)]
struct Initiated {
    pairing_id: PairingId,
    code: String,
    expires_at: UnixMs,
    interval_ms: u64,
    relay_url: String,
}

#[derive(Serialize)]
struct Poll {
    pairing_id: PairingId,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reveal: Option<String>,
    signature: String,
}

#[derive(Deserialize)]
struct Polled {
    state: PairingState,
    account: Option<String>,
    browser_nonce: Option<String>,
    address: Option<String>,
}

#[derive(Serialize)]
struct Decision {
    pairing_id: PairingId,
    signature: String,
}

#[derive(Serialize)]
struct Enrol<'a> {
    token: &'a str,
    public_key: String,
    facts: &'a MachineFacts,
    signature: String,
}

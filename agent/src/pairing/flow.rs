//! The two ways to pair: with a code and a person, or with an enrolment token.

use std::time::Duration;

use claudenest_shared::machine::MachineFacts;
use claudenest_shared::pairing::{
    self as rules, CODE_TTL_MS, POLL_INTERVAL_MS, PairingCode, PairingState, SasInput,
};
use claudenest_shared::secret::Secret;
use claudenest_shared::{id::PairingId, token};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Claim, Decision, Enrol, Initiate, Initiated, PairError, Paired, Person, Poll, Polled, Shown};
use crate::credential::{Identity, hex, unhex};
use crate::relay_http::{CallError, RelayHttp, clean};
use crate::relay_url::RelayUrl;

/// Bounds for the interval that the relay asks for.
const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// See [`MIN_INTERVAL`].
const MAX_INTERVAL: Duration = Duration::from_secs(15);
/// A confirmation that certainly did not arrive is sent again this often.
const CONFIRM_TRIES: u32 = 5;

/// One pairing that the relay knows under a code.
struct Attempt<'a> {
    relay: RelayHttp,
    identity: &'a Identity,
    id: PairingId,
    code: PairingCode,
    nonce: [u8; 32],
    sequence: u64,
    claim: Option<Claimed>,
    /// True once the relay has the nonce: only then the digits and a yes mean anything.
    is_revealed: bool,
}

/// The claim that was shown; it may not change any more.
#[derive(Clone, PartialEq)]
struct Claimed {
    account: String,
    browser_nonce: [u8; 32],
}

/// Pairs with a code: shows it, waits for the claim, asks, confirms. `cancel` ends it with a no.
///
/// # Errors
/// [`PairError`]; in every case but a lost answer the relay knows that the machine is not paired.
///
/// # Cancel safety
/// Not cancel safe: use `cancel`, so that the relay is told.
pub async fn pair(
    relay: RelayHttp,
    identity: &Identity,
    facts: &MachineFacts,
    person: &mut impl Person,
    cancel: impl Future<Output = ()>,
) -> Result<Paired, PairError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| PairError::Random(error.to_string()))?;
    let public_key = identity.public_key();
    let initiate = Initiate {
        public_key: hex(&public_key),
        commitment: hex(&rules::commitment(&public_key, &nonce)),
        facts,
    };
    let started: Initiated = call(&relay, "/api/pairing/initiate".to_owned(), &initiate).await?;
    let code: PairingCode =
        started.code.parse().map_err(|_| PairError::Answer("it gives no pairing code"))?;
    // The relay may know a better address for browsers than the one that the agent uses.
    let site = RelayUrl::parse(&started.relay_url, true).unwrap_or_else(|_| relay.url().clone());
    person.show_code(&Shown {
        code,
        url: site.pair(&code),
        relay: site.to_string(),
        expires_at: started.expires_at,
    });
    let mut attempt = Attempt {
        relay,
        identity,
        id: started.pairing_id,
        code,
        nonce,
        sequence: 0,
        claim: None,
        is_revealed: false,
    };
    let interval = Duration::from_millis(started.interval_ms).clamp(MIN_INTERVAL, MAX_INTERVAL);
    let outcome = tokio::select! {
        outcome = attempt.decide(interval, person) => outcome,
        () = cancel => Err(PairError::Interrupted),
    };
    match outcome {
        Ok(()) => attempt.confirm(person).await,
        Err(error) => {
            // Nothing to deny where the relay has already ended it.
            if !matches!(error, PairError::Expired | PairError::Cancelled) {
                attempt.deny().await;
            }
            Err(error)
        }
    }
}

/// Pairs with an enrolment token, without a person.
///
/// # Errors
/// [`PairError`].
///
/// # Cancel safety
/// Not cancel safe: the token may be used up.
pub async fn enrol(
    relay: RelayHttp,
    identity: &Identity,
    facts: &MachineFacts,
    enrolment: &Secret<String>,
) -> Result<Paired, PairError> {
    let public_key = identity.public_key();
    let digest = token::digest(enrolment.expose());
    let body = Enrol {
        token: enrolment.expose(),
        public_key: hex(&public_key),
        facts,
        signature: identity.sign(&rules::enrol_message(&digest, &public_key)),
    };
    call(&relay, "/api/pairing/enrol".to_owned(), &body).await.map(tidy).map_err(lost)
}

impl Attempt<'_> {
    /// Polls until somebody claims, asks the person, and goes on polling while the person thinks.
    async fn decide(&mut self, interval: Duration, person: &mut impl Person) -> Result<(), PairError> {
        // Ours, so that a wrong clock on either side does not matter.
        let deadline = Instant::now() + Duration::from_millis(CODE_TTL_MS as u64);
        let mut next = Instant::now() + interval;
        let mut was_away = false;
        let claim = loop {
            sleep_until(next.min(deadline)).await;
            if Instant::now() >= deadline {
                return Err(PairError::Expired);
            }
            match self.poll().await {
                Ok(Some(claim)) if self.is_revealed => break claim,
                Ok(Some(_)) => next = Instant::now(), // Reveals the nonce.
                Ok(None) => {
                    if std::mem::take(&mut was_away) {
                        person.note("The relay answers again.");
                    }
                    next = Instant::now() + interval;
                }
                Err(error) => {
                    next = Instant::now() + self.wait_after(error, interval, person, &mut was_away)?
                }
            }
        };
        let answer = person.ask(&claim);
        tokio::pin!(answer);
        let mut next = Instant::now() + interval;
        loop {
            tokio::select! {
                biased;
                is_confirmed = &mut answer => {
                    return if is_confirmed { Ok(()) } else { Err(PairError::Declined) };
                }
                () = sleep_until(next.min(deadline)) => {}
            }
            if Instant::now() >= deadline {
                return Err(PairError::Expired);
            }
            next = Instant::now() + interval;
            match self.poll().await {
                Ok(_) => {}
                Err(PairError::Call(error)) if error.is_transient() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// How long to wait after a failed poll; the error itself when waiting is no use.
    fn wait_after(
        &self,
        error: PairError,
        interval: Duration,
        person: &mut impl Person,
        was_away: &mut bool,
    ) -> Result<Duration, PairError> {
        match error {
            PairError::Call(error) if error.is_transient() => {
                if !std::mem::replace(was_away, true) {
                    person.note(&format!("{error} Still trying; the code stays valid."));
                }
                let wait = match &error {
                    CallError::Refused { retry_after, .. } => retry_after.unwrap_or(interval * 2),
                    _ => interval * 2,
                };
                Ok(wait.clamp(interval, Duration::from_secs(60)))
            }
            error => Err(error),
        }
    }

    async fn poll(&mut self) -> Result<Option<Claim>, PairError> {
        self.sequence += 1;
        let reveal = self.claim.is_some().then_some(&self.nonce);
        let message = rules::poll_message(self.id, &self.code, self.sequence, reveal);
        let body = Poll {
            pairing_id: self.id,
            sequence: self.sequence,
            reveal: reveal.map(|nonce| hex(nonce)),
            signature: self.identity.sign(&message),
        };
        let polled: Polled = match call(&self.relay, self.path("poll"), &body).await {
            Ok(polled) => polled,
            // Consumed, forgotten, or a code of a relay that was set up anew.
            Err(error) if error.code() == Some(claudenest_shared::code::ErrorCode::PairingNotFound) => {
                return Err(PairError::Expired);
            }
            Err(error) => return Err(error.into()),
        };
        match polled.state {
            PairingState::Pending => Ok(None),
            PairingState::Denied => Err(PairError::Cancelled),
            PairingState::Expired => Err(PairError::Expired),
            PairingState::Claimed | PairingState::Confirmed | PairingState::Consumed => {
                let account = polled.account.ok_or(PairError::Answer("a claim without an account"))?;
                let browser_nonce = polled.browser_nonce.as_deref().and_then(unhex::<32>);
                let browser_nonce = browser_nonce.ok_or(PairError::Answer("a claim without a nonce"))?;
                let claimed = Claimed { account, browser_nonce };
                if *self.claim.get_or_insert_with(|| claimed.clone()) != claimed {
                    return Err(PairError::Changed);
                }
                self.is_revealed |= body.reveal.is_some();
                let public_key = self.identity.public_key();
                Ok(Some(Claim {
                    account: clean(&claimed.account),
                    address: polled.address.as_deref().map(clean),
                    digits: if self.is_revealed { self.facts(&public_key).digits() } else { String::new() },
                }))
            }
        }
    }

    async fn confirm(&self, person: &mut impl Person) -> Result<Paired, PairError> {
        let body = self.decision(true);
        for attempt in 1.. {
            match call::<_, Paired>(&self.relay, self.path("confirm"), &body).await {
                Ok(paired) => {
                    // Belt and braces: the signature already names the account.
                    let is_same = self.claim.as_ref().is_some_and(|claim| claim.account == paired.account);
                    return if is_same { Ok(tidy(paired)) } else { Err(PairError::Changed) };
                }
                Err(error) if error.never_arrived() && error.is_transient() && attempt < CONFIRM_TRIES => {
                    person.note(&format!("{error} Trying again."));
                    sleep(Duration::from_millis(POLL_INTERVAL_MS)).await;
                }
                Err(error) if error.code() == Some(claudenest_shared::code::ErrorCode::PairingNotFound) => {
                    return Err(PairError::Cancelled);
                }
                Err(error) => return Err(lost(error)),
            }
        }
        unreachable!("the loop above ends by returning")
    }

    /// Tells the relay no. It also learns it by itself when the code expires, so a failure is no matter.
    async fn deny(&self) {
        let body = self.decision(false);
        let (relay, path) = (self.relay.clone(), self.path("deny"));
        let denied = tokio::task::spawn_blocking(move || relay.post_empty(&path, &body, None)).await;
        if let Ok(Err(error)) = denied {
            tracing::debug!(%error, "the relay was not told that the pairing is refused");
        }
    }

    fn decision(&self, is_confirmed: bool) -> Decision {
        let public_key = self.identity.public_key();
        let message = rules::decision_message(is_confirmed, &self.facts(&public_key));
        Decision { pairing_id: self.id, signature: self.identity.sign(&message) }
    }

    /// What both sides agree on; before a claim the unknown parts are zero and empty.
    fn facts<'a>(&'a self, public_key: &'a [u8; 32]) -> SasInput<'a> {
        const UNKNOWN: &[u8; 32] = &[0; 32];
        SasInput {
            pairing_id: self.id,
            public_key,
            agent_nonce: if self.is_revealed { &self.nonce } else { UNKNOWN },
            browser_nonce: self.claim.as_ref().map_or(UNKNOWN, |claim| &claim.browser_nonce),
            account: self.claim.as_ref().map_or("", |claim| &claim.account),
        }
    }

    fn path(&self, action: &str) -> String {
        format!("/api/pairing/{}/{action}", self.code)
    }
}

/// Errors of a call that may have been carried out.
fn lost(error: CallError) -> PairError {
    match error {
        CallError::Timeout(_) | CallError::Broken { .. } => PairError::AnswerLost(error),
        error => PairError::Call(error),
    }
}

fn tidy(paired: Paired) -> Paired {
    Paired { machine_name: clean(&paired.machine_name), account: clean(&paired.account), ..paired }
}

async fn call<B: Serialize, A: DeserializeOwned + Send + 'static>(
    relay: &RelayHttp,
    path: String,
    body: &B,
) -> Result<A, CallError> {
    let relay = relay.clone();
    // Serialised here: the body may borrow.
    let body = serde_json::to_value(body).expect("pairing messages are plain data");
    tokio::task::spawn_blocking(move || relay.post(&path, &body)).await.unwrap_or_else(|error| {
        Err(CallError::Broken { address: "the relay".to_owned(), reason: error.to_string() })
    })
}

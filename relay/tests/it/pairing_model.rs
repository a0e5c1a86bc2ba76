//! The statements of `db::pairing` against the state machine of `shared::pairing`, on generated histories.

use claudenest_relay::db::pairing::{self, Claim, NewPairing};
use claudenest_relay::db::{Db, new_id, user};
use claudenest_shared::id::{PairingId, UserId};
use claudenest_shared::machine::MachineFacts;
use claudenest_shared::pairing::{PairingCode, PairingEvent, PairingState};
use claudenest_shared::time::UnixMs;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::pg::TestDb;

#[derive(Clone, Copy, Debug)]
enum Step {
    Claim {
        user: usize,
    },
    ClaimWithWrongCode {
        user: usize,
    },
    Reveal,
    /// The machine's yes: confirm and deliver.
    Confirm,
    DenyByMachine,
    DenyBy {
        user: usize,
    },
    Poll {
        sequence: u64,
    },
    Wait {
        ms: i64,
    },
    CleanUp,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let user = 0..2usize;
    vec(
        prop_oneof![
            4 => user.clone().prop_map(|user| Step::Claim { user }),
            1 => user.clone().prop_map(|user| Step::ClaimWithWrongCode { user }),
            3 => Just(Step::Reveal),
            4 => Just(Step::Confirm),
            1 => Just(Step::DenyByMachine),
            1 => user.prop_map(|user| Step::DenyBy { user }),
            2 => (0..6u64).prop_map(|sequence| Step::Poll { sequence }),
            1 => prop_oneof![Just(1), Just(299_999), Just(600_000)].prop_map(|ms| Step::Wait { ms }),
            1 => Just(Step::CleanUp),
        ],
        1..14,
    )
}

/// What the rules say.
struct Model {
    state: PairingState,
    claimant: Option<usize>,
    is_revealed: bool,
    sequence: u64,
    expires_at: i64,
}

impl Model {
    fn apply(&mut self, event: PairingEvent) -> bool {
        match self.state.after(event) {
            Some(next) => {
                self.state = next;
                true
            }
            None => false,
        }
    }
}

#[test]
fn the_statements_do_what_the_rules_say() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(TestDb::new());
    let db = runtime.block_on(async { database.db() });
    let users = runtime.block_on(async {
        let mut users = Vec::new();
        for name in ["a@example.com", "b@example.com"] {
            users.push(user::find_or_create(&db, name, "x", UnixMs(0)).await.unwrap().0.id);
        }
        users
    });
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&steps(), |steps| {
            runtime.block_on(check(&db, &users, &steps));
            Ok(())
        })
        .unwrap();
    runtime.block_on(db.close());
}

async fn check(db: &Db, users: &[UserId], steps: &[Step]) {
    let id = PairingId(new_id());
    let code = PairingCode::from_random(u32::from_le_bytes(claudenest_relay::auth::random().unwrap()));
    let wrong = PairingCode::from_random(u32::from_le_bytes(claudenest_relay::auth::random().unwrap()));
    let key: [u8; 32] = claudenest_relay::auth::random().unwrap();
    let mut now = UnixMs(1_000_000);
    let new = NewPairing {
        id,
        code: &code,
        public_key: &key,
        commitment: &[1; 32],
        facts: &MachineFacts::default(),
        address: "x",
        expires_at: now.plus(600_000),
    };
    assert!(pairing::initiate(db, new.clone(), now).await.unwrap());
    let twin = NewPairing { id: PairingId(new_id()), ..new };
    assert!(!pairing::initiate(db, twin, now).await.unwrap(), "a live code is unique");
    let mut model = Model {
        state: PairingState::Pending,
        claimant: None,
        is_revealed: false,
        sequence: 0,
        expires_at: now.0 + 600_000,
    };
    for step in steps {
        if now.0 >= model.expires_at {
            model.apply(PairingEvent::Expire);
        }
        match *step {
            Step::Claim { user } => {
                let claim = Claim { user: users[user], account: "x", browser_nonce: &[2; 32], address: "y" };
                let done = pairing::claim(db, id, &code, claim, now).await.unwrap().is_some();
                let expected = model.apply(PairingEvent::Claim);
                if expected {
                    model.claimant = Some(user);
                }
                assert_eq!(done, expected, "{step:?} of {steps:?}");
            }
            Step::ClaimWithWrongCode { user } => {
                let claim = Claim { user: users[user], account: "x", browser_nonce: &[2; 32], address: "y" };
                assert!(pairing::claim(db, id, &wrong, claim, now).await.unwrap().is_none());
            }
            Step::Reveal => {
                let done = pairing::reveal(db, id, &[3; 32], now).await.unwrap();
                let expected = model.state == PairingState::Claimed && !model.is_revealed;
                model.is_revealed |= expected;
                assert_eq!(done, expected, "{step:?} of {steps:?}");
            }
            Step::Confirm => {
                let digest = claudenest_relay::auth::random().unwrap();
                let machine = pairing::consume(db, id, &digest, now).await.unwrap();
                let expected = model.is_revealed
                    && model.apply(PairingEvent::Confirm)
                    && model.apply(PairingEvent::Deliver);
                assert_eq!(machine.is_some(), expected, "{step:?} of {steps:?}");
                if let Some(machine) = machine {
                    assert_eq!(Some(machine.user), model.claimant.map(|user| users[user]));
                }
            }
            Step::DenyByMachine => {
                let done = pairing::deny(db, id, None, now).await.unwrap();
                assert_eq!(done, model.apply(PairingEvent::Deny), "{step:?} of {steps:?}");
            }
            Step::DenyBy { user } => {
                let done = pairing::deny(db, id, Some(users[user]), now).await.unwrap();
                let expected = model.claimant == Some(user) && model.apply(PairingEvent::Deny);
                assert_eq!(done, expected, "{step:?} of {steps:?}");
            }
            Step::Poll { sequence } => {
                let done = pairing::note_poll(db, id, sequence).await.unwrap();
                let expected = model.state != PairingState::Consumed && sequence > model.sequence;
                if expected {
                    model.sequence = sequence;
                }
                assert_eq!(done, expected, "{step:?} of {steps:?}");
            }
            Step::Wait { ms } => now = now.plus(ms),
            Step::CleanUp => {
                pairing::clean_up(db, now, UnixMs(0)).await.unwrap();
            }
        }
        if now.0 >= model.expires_at {
            model.apply(PairingEvent::Expire);
        }
        let stored = pairing::for_agent(db, id, &code, now).await.unwrap().unwrap();
        assert_eq!(stored.state, model.state, "after {step:?} of {steps:?}");
        assert_eq!(stored.user, model.claimant.map(|user| users[user]), "after {step:?} of {steps:?}");
        let other = 1 - model.claimant.unwrap_or(0);
        let foreign = pairing::for_claimant(db, id, users[other], now).await.unwrap();
        assert!(foreign.is_none(), "nobody else sees it");
    }
}

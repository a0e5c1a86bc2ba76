//! The chain, over many seeds.
//!
//! `SIM_SEEDS` sets how many worlds are tried (500 in the ordinary run), `SIM_STEPS` the steps of each (2,000), `SIM_FIRST`
//! the first seed.

use std::time::Instant;

use claudenest_sim::{Totals, run};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn every_viewer_sees_every_byte_or_an_explicit_snapshot() {
    let (first, seeds, steps) =
        (setting("SIM_FIRST", 0), setting("SIM_SEEDS", 500), setting("SIM_STEPS", 2_000));
    let mut totals = Totals::default();
    for seed in first..first + seeds {
        match std::panic::catch_unwind(|| run(seed, steps, Instant::now())) {
            Ok(one) => totals.add(one),
            Err(panic) => {
                eprintln!("seed {seed}, {steps} steps");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{totals:?}");
    assert_eq!(totals.steps, seeds * steps);
    if totals.steps >= 100_000 {
        let all = [totals.bytes, totals.snapshots, totals.gaps, totals.cuts, totals.breaks, totals.daemons];
        assert!(all.iter().all(|count| *count > 0), "something never happened: {totals:?}");
        assert!(totals.runs > seeds && totals.screens > 0, "{totals:?}");
    }
}

/// Seeds that once failed, with their steps. What they do changes with the simulation; they are kept all the same.
const KEPT: [(u64, u64); 9] = [
    (3, 1_000),
    (5, 1_000),
    (9, 1_000),
    (12, 1_000),
    (14, 1_500),
    (20, 1_500),
    (48, 1_500),
    (111, 1_500),
    (343, 2_000),
];

#[test]
fn seeds_that_once_failed() {
    for (seed, steps) in KEPT {
        run(seed, steps, Instant::now());
    }
}

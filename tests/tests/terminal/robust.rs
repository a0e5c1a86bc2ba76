//! Nothing that a program prints, at any size, breaks the screen model.
//!
//! An input is one piece of output, of 1 to some 100 bytes, given to a model that has seen the inputs before it: pieces of
//! all four families, of everything that terminals answer, cut sequences, and random bytes, sanitised or not. One in ten
//! is followed by a new size of 1 to 500 columns and rows, one in a hundred by a snapshot that a new model reads.
//! The ordinary run lasts 20 s; `TERMINAL_INPUTS` sets a number instead (10,000,000 for the figure in ADR 11).

use std::time::{Duration, Instant};

use claudenest_agent::session::screen::{Model, ScreenModel};
use claudenest_shared::session::TermSize;
use claudenest_tests::terminal::Rng;
use claudenest_tests::terminal::streams::{Family, stream};

use crate::answers::{PIECES, QUESTIONS};
use crate::{sanitised, setting};

/// Inputs that one model gets.
const INPUTS_PER_MODEL: u64 = 500;

fn size(rng: &mut Rng) -> TermSize {
    let most = if rng.chance(80) { 40 } else { 500 };
    TermSize { cols: rng.within(1, most) as u16, rows: rng.within(1, most) as u16 }
}

fn input(rng: &mut Rng) -> Vec<u8> {
    let mut raw = Vec::new();
    for _ in 0..rng.within(1, 4) {
        match rng.below(10) {
            0..=4 => raw.extend_from_slice(stream(Family::ALL[rng.below(4)], rng, 30, 12, 1).as_bytes()),
            5 => raw.extend_from_slice(rng.pick(QUESTIONS).as_bytes()),
            6 | 7 => raw.extend_from_slice(rng.pick(PIECES).as_bytes()),
            8 => {
                let number = [0, 1, 2, 255, 512, 9_999, u64::MAX][rng.below(7)];
                let last = char::from(rng.within(0x40, 0x7e) as u8);
                raw.extend_from_slice(format!("\x1b[{number};{}{last}", rng.below(600)).as_bytes());
            }
            _ => raw.extend((0..rng.within(1, 20)).map(|_| rng.bits() as u8).collect::<Vec<_>>()),
        }
    }
    if rng.chance(10) {
        raw.truncate(rng.below(raw.len()));
    }
    if rng.chance(50) { sanitised(&raw).0 } else { raw }
}

/// One model and its inputs.
fn round(seed: u64) {
    let mut rng = Rng(seed);
    let mut model = Model::new(size(&mut rng));
    for index in 0..INPUTS_PER_MODEL {
        model.process(&input(&mut rng));
        if rng.chance(10) {
            model.resize(size(&mut rng));
        }
        if rng.chance(1) {
            let mut late = Model::new(model.size());
            late.process(&model.snapshot());
            assert_eq!(late.text().rows.len(), usize::from(model.size().rows));
            assert!(!late.is_broken(), "seed {seed}, input {index}, by its snapshot");
        }
        assert!(!model.is_broken(), "seed {seed}, input {index}");
    }
}

#[test]
fn nothing_breaks_the_model() {
    let (wanted, first) = (setting("TERMINAL_INPUTS", 0), setting("TERMINAL_FIRST", 0));
    let until = Instant::now() + Duration::from_secs(20);
    let mut inputs = 0;
    let mut seed = first;
    while if wanted > 0 { inputs < wanted } else { Instant::now() < until } {
        round(seed);
        seed += 1;
        inputs += INPUTS_PER_MODEL;
    }
    println!("{inputs} inputs, seeds {first} to {seed}, nothing broke");
    assert!(inputs > 0);
}

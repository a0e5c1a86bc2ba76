//! The bench program works: every section runs to its end in its quick form. Its figures are not judged here, they belong to a quiet machine.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use claudenest_tests::{process, program};

/// Debug builds on a loaded machine.
const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn every_section_of_the_bench_runs() -> Result<()> {
    let finished = process::run(
        Command::new(program("bench")).env("BENCH_QUICK", "1").env_remove("BENCH").env_remove("BENCH_ROUNDS"),
        LIMIT,
    )?;
    ensure!(finished.code == Some(0), "exit {:?}\n{}\n{}", finished.code, finished.stdout, finished.stderr);
    ensure!(finished.stdout.contains("0 sections broken"), "no last line:\n{}", finished.stdout);
    for what in [
        "echo through the relay",
        "drain of plain",
        "history",
        "viewers × 2 MB/s",
        "never reads",
        "away",
        "daemon killed",
        "idle sessions",
    ] {
        ensure!(finished.stdout.contains(what), "no line about {what:?}:\n{}", finished.stdout);
    }
    Ok(())
}

#[test]
fn an_unknown_section_is_refused_and_the_known_ones_are_named() -> Result<()> {
    let finished = process::run(Command::new(program("bench")).env("BENCH", "ecko"), LIMIT)?;
    ensure!(finished.code == Some(1), "exit {:?}", finished.code);
    ensure!(finished.stderr.contains("there is no section \"ecko\"; there are echo,"), "{}", finished.stderr);
    Ok(())
}

//! `make bench`: how fast the product is, beside a raw terminal, a floor of dumb copying, tmux and ttyd, in one run.
//!
//! Figures are ratios within one round wherever they can be: machines differ and are never quiet. The same program plays
//! the workloads and the floor, by its first argument.
//!
//! `BENCH=echo,bulk` runs single sections, `BENCH_QUICK=1` shows only that everything works, `BENCH_ROUNDS=9` asks for more rounds.

mod facts;
mod figures;
mod floor;
mod puppet;
mod sections;
mod terminal;
mod ttyd;
mod viewer;
mod wire;
mod workload;
mod world;

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use self::figures::Table;
use self::sections::{ALL, Bench, Scale};
use self::world::World;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let role = args.first().map(String::as_str).unwrap_or_default();
    // The agent starts its sessions' programs by the name of Claude Code, and asks it for its version first.
    let name = std::env::args().next().unwrap_or_default();
    if name.ends_with("claude") {
        if matches!(role, "--version" | "-v") {
            println!("2.1.329 (Claude Code)");
            return Ok(());
        }
        return workload::run();
    }
    match role {
        workload::ROLE => workload::run(),
        floor::AGENT => floor::run_agent(&args[1..]),
        floor::RELAY => floor::run_relay(),
        terminal::BECOME => {
            terminal::become_program(args.get(1).context("a program")?, args.get(2..).unwrap_or_default())
        }
        "" => run(),
        other => bail!("unknown argument {other}; see the head of the source"),
    }
}

fn run() -> Result<()> {
    let is_quick = std::env::var("BENCH_QUICK").is_ok_and(|value| !value.is_empty() && value != "0");
    let wanted = std::env::var("BENCH").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split([',', ' ']).filter(|name| !name.is_empty()).collect();
    for name in &wanted {
        let known: Vec<&str> = ALL.iter().map(|(name, ..)| *name).collect();
        ensure!(known.contains(name), "there is no section {name:?}; there are {}", known.join(", "));
    }
    let rounds = match std::env::var("BENCH_ROUNDS") {
        Ok(text) if !text.is_empty() => text.parse().context("BENCH_ROUNDS is a number")?,
        _ => {
            if is_quick {
                1
            } else {
                5
            }
        }
    };
    let scale = Scale { rounds, is_quick };
    let (tmux, ttyd) = (facts::version("tmux", "-V"), facts::version("ttyd", "--version"));
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    let machine = format!(
        "{}; {build}; {}; {}; load {} at the start",
        facts::machine()?,
        tmux.as_deref().unwrap_or("no tmux"),
        ttyd.as_deref().unwrap_or("no ttyd"),
        facts::load(),
    );
    println!("{machine}");
    let started = Instant::now();
    let world = World::start()?;
    let mut bench =
        Bench { world, scale, table: Table::default(), has_tmux: tmux.is_some(), has_ttyd: ttyd.is_some() };
    let sections = ALL.iter().filter(|(name, ..)| wanted.is_empty() || wanted.contains(name));
    let mut broken = Vec::new();
    for (name, title, section) in sections {
        println!("── {name}: {title} ({} s so far)", started.elapsed().as_secs());
        if let Err(error) = section(&mut bench) {
            println!("   BROKEN: {error:#}");
            broken.push(*name);
        }
    }
    let table = &bench.table;
    let text = format!(
        "{machine}; load {} at the end; {rounds} rounds; each cell min / **median** / max\n\n{}",
        facts::load(),
        table.markdown()
    );
    let file = claudenest_tests::repository().join("target/bench.md");
    if !is_quick {
        std::fs::write(&file, &text).with_context(|| format!("writing {}", file.display()))?;
    }
    println!("\n{text}");
    println!(
        "make bench: {} of {} figures reached, {} sections broken, {} s{}",
        table.judged() - table.missed(),
        table.judged(),
        broken.len(),
        started.elapsed().as_secs(),
        if is_quick { "" } else { "; the table is in target/bench.md" }
    );
    ensure!(broken.is_empty(), "broken: {}", broken.join(", "));
    Ok(())
}

//! Whole clusters in one thread, from one seed: the real engines, logs and recovery, over disks, networks and clocks that fail.
//!
//! `cargo test --test simulation` runs a few hundred seeds, `scripts/simulate N` as many as asked. A failure prints the seed, and
//! `scripts/simulate --seed SEED` tells its story. docs/simulation.md says what is checked and what was found.
#![allow(missing_docs, reason = "tests")]

mod broker;
mod brokers;
mod clients;
mod commands;
mod controllers;
mod coverage;
mod damage;
mod faults;
mod metadata;
#[cfg(feature = "mutants")]
mod mutants;
mod net;
mod oracle;
mod replicas;
mod reports;
mod rules;
mod run;
mod topics;
mod voters;
mod world;

use run::{Outcome, run};

/// How many seeds the test suite runs.
const SEEDS: u64 = 300;

fn check(seed: u64) -> Outcome {
    let outcome = run(seed, false);
    if let Some(violation) = &outcome.violation {
        let told = run(seed, true);
        panic!(
            "seed {seed}: {violation}\n\n{}\n\nreplay it with: scripts/simulate --seed {seed}",
            told.story.iter().rev().take(60).rev().cloned().collect::<Vec<_>>().join("\n")
        );
    }
    outcome
}

#[test]
fn nothing_acknowledged_is_lost_whatever_goes_wrong() {
    for seed in 0..SEEDS {
        check(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..10 {
        assert_eq!(run(seed, false).hash, run(seed, true).hash, "seed {seed}");
    }
}

/// Run by `scripts/simulate`: `CALLBOARD_SEEDS=FROM..TO`, or one with its story.
#[test]
#[ignore = "run by scripts/simulate"]
fn simulate() {
    let range = std::env::var("CALLBOARD_SEEDS").expect("CALLBOARD_SEEDS=FROM..TO");
    let (from, to) = range.split_once("..").expect("FROM..TO");
    let (from, to): (u64, u64) = (from.parse().expect("a number"), to.parse().expect("a number"));
    let is_told = to == from + 1;
    let mut coverage = coverage::Coverage::default();
    let (mut steps, mut failed) = (0, Vec::new());
    for seed in from..to {
        let outcome = run(seed, is_told);
        steps += outcome.steps;
        coverage.add(&outcome.coverage);
        if is_told {
            outcome.story.iter().for_each(|line| println!("{line}"));
        }
        if let Some(violation) = outcome.violation {
            println!("seed {seed}: {violation}");
            failed.push(seed);
        }
    }
    coverage.lines().iter().for_each(|line| println!("{line}"));
    println!("{} seeds, {steps} steps, {} failed", to - from, failed.len());
    assert!(failed.is_empty(), "replay with: scripts/simulate --seed {}", failed[0]);
}

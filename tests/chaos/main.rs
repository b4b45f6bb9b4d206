//! A cluster of real processes, put through everything that can go wrong, while clients write down what they are told.
//!
//! ```text
//!   seed ─► schedule ─► nemesis ─► stage: LocalCluster (kill, SIGSTOP), net (proxies), disk (no room, flipped bits)
//!                          │          ▲
//!                       report     workload: producers, consumers ─► journal ─► callboard::cli::evaluate::history: check
//! ```
//!
//! `cargo test --test chaos` runs a few faults of each kind, `scripts/chaos MINUTES` as many as fit. docs/chaos.md says what is injected
//! and what is checked.
//!
//! Reading order: [`schedule`], [`run`], [`nemesis`], [`stage`], [`net`], [`disk`], [`workload`], [`gap`], [`report`].
#![allow(missing_docs, reason = "tests")]

mod disk;
mod gap;
mod nemesis;
mod net;
mod report;
mod run;
mod schedule;
mod stage;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use run::Run;

/// Where a run keeps everything. It stays when something does not hold.
fn home() -> PathBuf {
    tempfile::Builder::new().prefix("callboard-chaos-").tempdir().expect("a temporary directory").keep()
}

/// The number in an environment variable.
fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: give a whole number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_of_each_kind_costs_nothing_that_was_acknowledged() {
    let home = home();
    let mut run = Run::begin(&home, 1).await;
    let steps = schedule::subset();
    run.round(1, &steps).await;
    println!("\n{}", run.report());
    // Some may meet nobody; where most do, nothing was put to the test.
    assert!(2 * run.report().injected() > steps.len() as u64, "hardly anything was injected");
    drop(run);
    std::fs::remove_dir_all(&home).expect("it is this test's own");
}

/// Run by `scripts/chaos`: `CALLBOARD_CHAOS_MINUTES`, and `CALLBOARD_CHAOS_SEED` for the faults of an earlier run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by scripts/chaos"]
async fn chaos() {
    let minutes = given("CALLBOARD_CHAOS_MINUTES").expect("CALLBOARD_CHAOS_MINUTES=N");
    let seed = given("CALLBOARD_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let home = home();
    println!("seed {seed}, in {}", home.display());
    let mut run = Run::begin(&home, seed).await;
    let mut number = 0;
    while run.elapsed() < Duration::from_secs(60 * minutes) {
        number += 1;
        run.round(number, &schedule::round(seed, number)).await;
    }
    println!("\n{}", run.report());
    drop(run);
    std::fs::remove_dir_all(&home).expect("it is this run's own");
}

//! How large a node is and how fast it starts: what docs/performance.md says under "Size and start". It starts the release
//! binary again and again, in directories of its own, on loopback only. `scripts/measure-size` builds both and runs it.
//!
//! ```text
//! measure_size BINARY DIRECTORY [start|partitions|segments|crash|idle|slow|load …]      all parts without a choice
//! ```
//!
//! | part | what is measured |
//! | --- | --- |
//! | start | from exec to the first answered `Hello`, and to the ready line; memory |
//! | partitions | 100, 1,000 and 10,000 empty ones: creating them, memory, starting with them |
//! | segments | a clean start with 10,000 segments |
//! | crash | a start after kill -9 with a gigabyte that was never synced, in one partition and in 100 |
//! | idle | 10,000 connections that ask nothing: how fast they come, what each takes |
//! | slow | another client's latencies beside 1,000 slow readers and 1,000 slow senders, and without them |
//! | load | memory while everything that a budget bounds is used up at once |

#![allow(clippy::disallowed_methods, missing_docs, reason = "a measurement reads the clock")]

mod connections;
mod load;
mod logs;
mod node;
mod slow;
mod start;
mod wire;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What to run, and where.
pub struct Setup {
    pub binary: PathBuf,
    pub directory: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(binary), Some(directory)) = (arguments.first(), arguments.get(1)) else {
        eprintln!("usage: measure_size BINARY DIRECTORY [start|partitions|segments|crash|idle|slow|load ...]");
        return ExitCode::from(2);
    };
    let setup = Setup { binary: binary.into(), directory: directory.into() };
    match run(&setup, &arguments[2..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(setup: &Setup, chosen: &[String]) -> Result<()> {
    std::fs::create_dir_all(&setup.directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|choice| choice == part);
    println!("| what | figure |\n| --- | --- |");
    runtime.block_on(async {
        if wanted("start") {
            start::bare(setup).await?;
        }
        if wanted("partitions") {
            for partitions in [100, 1_000, 10_000] {
                start::with_partitions(setup, partitions).await?;
            }
        }
        if wanted("segments") {
            logs::many_segments(setup).await?;
        }
        if wanted("crash") {
            for partitions in [1, 100] {
                logs::after_a_kill(setup, partitions).await?;
            }
        }
        if wanted("idle") {
            connections::idle(setup).await?;
        }
        if wanted("slow") {
            slow::experiment(setup).await?;
        }
        if wanted("load") {
            load::experiment(setup).await?;
        }
        Ok(())
    })
}

/// A row of the table.
pub fn row(what: &str, figure: &str) {
    println!("| {what} | {figure} |");
}

/// Least, middle and most of some figures, in milliseconds.
pub fn spread(mut milliseconds: Vec<f64>) -> String {
    milliseconds.sort_by(f64::total_cmp);
    match milliseconds.as_slice() {
        [] => "none".to_owned(),
        [one] => format!("{one:.0} ms"),
        all => format!("{:.0} ms ({:.0} to {:.0})", all[all.len() / 2], all[0], all[all.len() - 1]),
    }
}

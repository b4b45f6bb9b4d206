//! What can be typed after `callboard evaluate`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Below `callboard evaluate failures --help`.
pub const FAILURES_EXAMPLES: &str = "\
Examples:
  callboard evaluate failures                            several minutes; everything is removed when all holds
  callboard evaluate failures --dir evaluation --seconds-per-step 10

It starts 3 controllers and 4 brokers of its own, kills clients and brokers, and checks every record that was sent.
docs/evaluation.md tells the story. What it writes stays in DIR when something did not hold.
Exit codes: 0 everything held, 1 something did not or could not be tried, 2 wrong usage.";

/// Below `callboard evaluate failover --help`.
pub const FAILOVER_EXAMPLES: &str = "\
Examples:
  callboard evaluate failover                            each fault 10 times
  callboard evaluate failover --rounds 50 --only leader-killed,follower-killed
  callboard evaluate failover --partitions 2000 --only leader-stops

It starts 3 controllers and 4 brokers of its own, hurts one or two at a time, and measures how long a producer with
acks = all waits for its next acknowledgement. docs/performance.md explains the columns.
Exit codes: 0 measured, 1 a record failed or was lost, or it could not be tried, 2 wrong usage.";

/// `callboard evaluate`.
#[derive(Debug, Subcommand)]
pub enum EvaluateCommand {
    /// Kill clients, followers and leaders, one after the other, and see that nothing acknowledged is lost
    #[command(after_help = FAILURES_EXAMPLES)]
    Failures(FailuresArgs),
    /// Measure how long producers wait when a broker is killed, hangs, or hands its leaderships over
    #[command(after_help = FAILOVER_EXAMPLES)]
    Failover(FailoverArgs),
}

/// `callboard evaluate failover`.
#[derive(Clone, Debug, Args)]
pub struct FailoverArgs {
    /// A new or empty directory for data and logs; left out, a temporary one
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How often each fault is tried
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
    /// Partitions beside the one that is measured, with as many replicas
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// These faults only
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',')]
    pub only: Vec<Fault>,
}

/// What happens to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// kill -9 of the leader
    LeaderKilled,
    /// kill -9 of an in-sync follower
    FollowerKilled,
    /// kill -9 of the leader and of the controller that decides
    LeaderAndControllerKilled,
    /// SIGSTOP of the leader
    LeaderHangs,
    /// SIGSTOP of an in-sync follower
    FollowerHangs,
    /// Another replica is to lead
    HandOver,
    /// SIGTERM of the leader
    LeaderStops,
}

/// `callboard evaluate failures`.
#[derive(Clone, Debug, Args)]
pub struct FailuresArgs {
    /// A new or empty directory for data and logs; left out, a temporary one
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How long records are to flow, or not to flow, in each step before it is judged
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds_per_step: u64,
}

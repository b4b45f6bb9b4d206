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

/// `callboard evaluate`.
#[derive(Debug, Subcommand)]
pub enum EvaluateCommand {
    /// Kill clients, followers and leaders, one after the other, and see that nothing acknowledged is lost
    #[command(after_help = FAILURES_EXAMPLES)]
    Failures(FailuresArgs),
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

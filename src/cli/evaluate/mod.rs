//! `callboard evaluate`: a cluster of its own is put through failures, every record is accounted for, and what failures cost is measured.
//!
//! ```text
//!   story: acts of steps ─► stage ─► LocalCluster: kill, start
//!                             │  ───► clients: producers and readers ─► journal: history, failed deliveries
//!                             └─ report: what was done, what held ◄──── history: check
//! ```
//!
//! Reading order: [`story`], [`history`], [`violation`], [`clients`], [`stage`], [`report`], [`failures`]; then [`probe`], [`failover`].

pub mod args;
pub mod clients;
pub mod failover;
pub mod failures;
pub mod history;
pub mod probe;
pub mod report;
pub mod stage;
pub mod story;
pub mod violation;

use super::error::CliError;
use args::EvaluateCommand;

/// Carries out one command.
///
/// # Errors
/// [`CliError`] when something did not hold, or could not be tried.
pub async fn run(command: EvaluateCommand) -> Result<(), CliError> {
    match command {
        EvaluateCommand::Failures(args) => failures::run(&args).await,
        EvaluateCommand::Failover(args) => failover::run(&args).await,
    }
}

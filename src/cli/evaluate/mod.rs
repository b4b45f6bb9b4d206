//! `callboard evaluate`: a cluster of its own is put through failures, and every record is accounted for.
//!
//! ```text
//!   story: acts of steps ─► stage ─► LocalCluster: kill, start
//!                             │  ───► clients: producers and readers ─► journal: history, failed deliveries
//!                             └─ report: what was done, what held ◄──── history: check
//! ```
//!
//! Reading order: [`story`], [`history`], [`clients`], [`stage`], [`report`], [`failures`].

pub mod args;
pub mod clients;
pub mod failures;
pub mod history;
pub mod report;
pub mod stage;
pub mod story;

use super::error::CliError;
use args::EvaluateCommand;

/// Carries out one command.
///
/// # Errors
/// [`CliError`] when something did not hold, or could not be tried.
pub async fn run(command: EvaluateCommand) -> Result<(), CliError> {
    match command {
        EvaluateCommand::Failures(args) => failures::run(&args).await,
    }
}

//! `callboard doctor`: what is wrong with a node, why, and what to do about it.
//!
//! ```text
//!   running ─ probe, DescribeNode, DescribeCluster, topics ─┐                       ┌─► text: the worst first, then what was checked
//!                                                           ├─► checks ─► findings ─┤
//!   stopped ─ files, metadata, config ──────────────────────┘   (plain functions)   └─► JSON
//! ```
//!
//! Gathering and judging are apart: `checks` are functions from facts to findings, and know neither sockets nor files. Each
//! broker that the metadata names is looked at in turn, so that a cluster is no other case than a node; what only all of them
//! together are, controllers and replicas, is [`checks::cluster`].
//!
//! Reading order: [`code`], [`finding`], [`checks`], then [`running`] and [`stopped`].

pub mod args;
pub mod checks;
pub mod code;
pub mod finding;
pub mod partition_files;
pub mod probe;
pub mod report;
pub mod running;
pub mod stopped;

use args::DoctorArgs;
use code::Severity;

use super::args::ConnectArgs;
use super::error::CliError;
use super::output;

/// Looks, and prints what was found.
///
/// # Errors
/// [`CliError::Failed`] when something is an error, after it was printed; [`CliError::Usage`] when a node uses the directory.
pub async fn run(connect: &ConnectArgs, args: &DoctorArgs) -> Result<(), CliError> {
    let report = match &args.data_dir {
        Some(root) => stopped::examine(args, root)?,
        None if args.names_a_config() => {
            return Err(CliError::Usage(
                "--config and --set go with --data-dir: a running node is asked what it was started with".to_owned(),
            ));
        }
        None => running::examine(&connect.server).await,
    };
    if connect.json {
        output::print_json(&report.to_json())?;
    } else {
        output::print(&report.to_text())?;
    }
    match report.count(Severity::Error) {
        0 => Ok(()),
        _ => Err(CliError::Failed(report.counts())),
    }
}

//! `callboard evaluate failures`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::FailuresArgs;
use super::report::Report;
use super::stage::Stage;
use super::story::{ACTS, REPLICATION_FACTOR};
use crate::cli::error::CliError;
use crate::cli::local_cluster::LocalCluster;
use crate::cli::output;
use crate::cli::stop::Stop;

/// Controllers of the cluster: no act kills one, and three are what a cluster that is to stay has.
const CONTROLLERS: u16 = 3;

/// Tells the story, and the verdict.
///
/// # Errors
/// [`CliError`] when something did not hold, or could not be tried.
pub async fn run(args: &FailuresArgs) -> Result<(), CliError> {
    let stop = Stop::on_signals()?;
    let directory = directory(args.dir.as_deref())?;
    let result = tokio::select! {
        result = tell(&directory, Duration::from_secs(args.seconds_per_step)) => result,
        () = stop.wait() => Err(CliError::Failed("stopped before the end: nothing was decided".to_owned())),
    };
    leave(&directory, args.dir.is_some(), result)
}

/// Keeps the directory where it was asked for or something did not hold, and says so.
pub(super) fn leave(directory: &Path, is_wanted: bool, result: Result<(), CliError>) -> Result<(), CliError> {
    match result {
        Ok(()) => {
            if !is_wanted {
                // What cannot be removed is the temporary directory's to clean up.
                let _ = std::fs::remove_dir_all(directory);
            }
            Ok(())
        }
        Err(CliError::OutputClosed) => Err(CliError::OutputClosed),
        Err(error) => {
            let kept = directory.display();
            Err(CliError::Failed(format!("{error}; data and the logs of all nodes are in {kept}")))
        }
    }
}

/// A directory with nothing in it: what an earlier run left would be part of the story.
pub(super) fn directory(given: Option<&Path>) -> Result<PathBuf, CliError> {
    let Some(given) = given else {
        let name = format!("callboard-evaluation-{}", uuid::Uuid::new_v4().as_simple());
        return Ok(std::env::temp_dir().join(name));
    };
    match std::fs::read_dir(given).map(|mut entries| entries.next().is_none()) {
        Ok(false) => Err(CliError::Usage(format!("{} is not empty: give a new directory", given.display()))),
        // One that is missing is created; anything else that is wrong with it is told then.
        Ok(true) | Err(_) => Ok(given.to_owned()),
    }
}

async fn tell(directory: &Path, step_time: Duration) -> Result<(), CliError> {
    let brokers = u16::try_from(REPLICATION_FACTOR).unwrap_or(u16::MAX);
    output::print(&format!("start {CONTROLLERS} controllers and {brokers} brokers in {}", directory.display()))?;
    let cluster = LocalCluster::builder(directory).apart(CONTROLLERS, brokers).start().await?;
    for node in cluster.nodes().filter_map(|node| Some(format!("{} at {}", node.name, node.address()?))) {
        output::print(&format!("           {node}"))?;
    }
    let mut stage = Stage::open(cluster, step_time).await?;
    for (number, act) in ACTS.iter().enumerate() {
        stage.act(number, act).await?;
    }
    verdict(&stage.report)
}

fn verdict(report: &Report) -> Result<(), CliError> {
    let (holds, verdict) = report.verdict();
    output::print(&verdict)?;
    if holds { Ok(()) } else { Err(CliError::Failed("not everything held: see the verdict".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_is_taken() {
        let home = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(directory(Some(home.path())).expect("empty"), home.path());
        let missing = home.path().join("new");
        assert_eq!(directory(Some(&missing)).expect("missing"), missing);
        std::fs::write(home.path().join("left"), "").expect("a small file");
        let refused = directory(Some(home.path())).expect_err("something is in it");
        assert_eq!(refused.exit_code(), 2);
        assert!(directory(None).expect("always").starts_with(std::env::temp_dir()));
    }
}

//! `callboard topic reassign`: begins to move partitions or ends that, at a pace if wanted, and waits until it is done if wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::args::ReassignArgs;
use super::{error_json, keep_first, no_answer, refused};
use crate::cli::error::CliError;
use crate::cli::lag;
use crate::cli::output::{self, counted};
use crate::cli::progress::{Bulletin, grouped, print_line};
use crate::cli::stop::Stop;
use crate::client::Admin;
use crate::protocol::messages::{AlterTopic, PartitionMove, TopicDescription};
use crate::types::topic_config::CATCH_UP_BYTES_PER_SECOND;
use crate::types::{NodeId, PartitionIndex};

/// How often it is looked how far the moves are.
const LOOK: Duration = Duration::from_millis(500);
/// A partition without its targets for so long is not on its way to them any more. The node that is asked may be a moment behind.
const ENDED_AFTER: Duration = Duration::from_secs(10);

/// Begins to move partitions, or ends that.
pub(super) async fn run(admin: &Admin, args: &ReassignArgs, json: bool) -> Result<(), CliError> {
    let stop = args.wait.then(Stop::on_signals).transpose()?;
    let throttled = match args.throttle {
        Some(limit) => Some(Throttled::set(admin, &args.topic, limit).await?),
        None => None,
    };
    let (begun, mut report, refusal) = match begin(admin, args, json).await {
        Ok(begun) => begun,
        Err(error) => {
            // Whether anything moves is not known.
            throttled.iter().for_each(Throttled::tell_how_to_end);
            return Err(error);
        }
    };
    let outcome = match &stop {
        Some(stop) if !begun.is_empty() => tokio::select! {
            ended = wait(admin, args, &begun) => ended,
            () = stop.wait() => Err(CliError::Failed(
                "interrupted: the move goes on; callboard topic describe shows how far it is, --cancel ends it".to_owned(),
            )),
        },
        _ => Ok(()),
    };
    let is_over = begun.is_empty() || (stop.is_some() && outcome.is_ok());
    match throttled {
        Some(throttled) if is_over => throttled.end(admin).await?,
        Some(throttled) => throttled.tell_how_to_end(),
        None => {}
    }
    outcome?;
    let is_done = stop.is_some() && !begun.is_empty();
    if is_done {
        let moved = report.iter_mut().filter(|entry| entry["error"].is_null());
        moved.for_each(|entry| entry["replicas"] = json!(args.replicas));
    }
    if json {
        output::print_json(&report.into())?;
    } else if is_done {
        let count = counted(begun.len() as u64, "partition");
        let named = names(args.replicas.iter());
        output::print(&format!("moved: {count} of topic {} now on {named}", args.topic))?;
    }
    refusal.map_or(Ok(()), Err)
}

/// What came of asking for the moves: the partitions whose moves were begun, what to report, and the first refusal.
type Begun = (BTreeSet<u32>, Vec<serde_json::Value>, Option<CliError>);

async fn begin(admin: &Admin, args: &ReassignArgs, json: bool) -> Result<Begun, CliError> {
    let numbers: Vec<u32> = match args.partition.as_slice() {
        [] => describe(admin, &args.topic).await?.partitions.iter().map(|partition| partition.partition.0).collect(),
        named => named.to_vec(),
    };
    let targets = (!args.cancel).then(|| args.replicas.iter().copied().map(NodeId).collect::<Vec<_>>());
    let to_move = |number: &u32| PartitionMove {
        topic: args.topic.clone(),
        partition: PartitionIndex(*number),
        replicas: targets.clone(),
    };
    let moves: Vec<_> = numbers.iter().map(to_move).collect();
    let answers = admin.reassign_partitions(&moves).await?;
    let topic = &args.topic;
    let (mut begun, mut report, mut first_error) = (BTreeSet::new(), Vec::new(), None);
    for (number, answer) in numbers.into_iter().zip(answers) {
        match answer {
            Ok(replicas) => {
                begun.insert(number);
                if !json {
                    let how = if args.cancel { "goes back" } else { "moves" };
                    let named = names(replicas.iter());
                    output::print(&format!("partition {number} of topic {topic} {how}; replicas now: {named}"))?;
                }
                report.push(json!({"partition": number, "replicas": replicas, "error": null}));
            }
            Err(error) => {
                report.push(json!({"partition": number, "replicas": null, "error": error_json(&error)}));
                keep_first(&mut first_error, refused(format!("partition {number} of topic '{topic}' stays"), error));
            }
        }
    }
    Ok((begun, report, first_error))
}

async fn describe(admin: &Admin, topic: &str) -> Result<TopicDescription, CliError> {
    let described = admin.describe_topics(Some(&[topic.to_owned()])).await?.into_iter().next();
    described.ok_or_else(no_answer)?.map_err(|error| refused(format!("topic '{topic}' cannot be moved"), error))
}

fn names<T: ToString>(nodes: impl Iterator<Item = T>) -> String {
    nodes.map(|node| node.to_string()).collect::<Vec<_>>().join(",")
}

/// Waits until all that was begun is done, and tells how far it is.
async fn wait(admin: &Admin, args: &ReassignArgs, begun: &BTreeSet<u32>) -> Result<(), CliError> {
    let targets: Vec<NodeId> = args.replicas.iter().copied().map(NodeId).collect();
    let mut bulletin = Bulletin::start();
    let mut without_targets: BTreeMap<u32, Instant> = BTreeMap::new();
    loop {
        let topic = describe(admin, &args.topic).await?;
        let moving = topic.partitions.iter().filter(|partition| begun.contains(&partition.partition.0));
        let moving = moving.filter(|partition| partition.replicas != targets);
        let left = moving.clone().count();
        if left == 0 {
            return Ok(());
        }
        let counts = |node: NodeId| targets.contains(&node);
        let lack = lag::lacking(admin, moving.clone().map(|partition| (&topic, partition)), counts).await;
        let (done, all) = (begun.len() - left, begun.len());
        let line = format!("{done} of {} moved; new replicas lack {}", counted(all as u64, "partition"), records(lack));
        bulletin.tell(done as u64, line);
        for partition in moving {
            let number = partition.partition.0;
            if targets.iter().all(|node| partition.replicas.contains(node)) {
                without_targets.remove(&number);
            } else if without_targets.entry(number).or_insert_with(Instant::now).elapsed() >= ENDED_AFTER {
                return Err(CliError::Failed(format!(
                    "partition {number} of topic '{}' does not move any more: somebody has ended it, or moves it elsewhere",
                    args.topic
                )));
            }
        }
        sleep(LOOK).await;
    }
}

/// "1 record", "12,345 records".
fn records(count: u64) -> String {
    counted(count, "record").replacen(&count.to_string(), &grouped(count), 1)
}

/// A topic whose replicas catch up at the pace that this command has set.
struct Throttled {
    topic: String,
    /// What the topic had set itself before.
    before: Option<String>,
}

impl Throttled {
    async fn set(admin: &Admin, topic: &str, limit: i64) -> Result<Self, CliError> {
        let described = describe(admin, topic).await?;
        let own = described.config.iter().find(|entry| entry.key == CATCH_UP_BYTES_PER_SECOND && entry.overridden);
        let throttled = Self { topic: topic.to_owned(), before: own.map(|entry| entry.value.clone()) };
        throttled.alter(admin, Some(limit.to_string())).await?;
        Ok(throttled)
    }

    /// Back to what was before.
    async fn end(self, admin: &Admin) -> Result<(), CliError> {
        self.alter(admin, self.before.clone()).await.inspect_err(|_| self.tell_how_to_end())
    }

    async fn alter(&self, admin: &Admin, limit: Option<String>) -> Result<(), CliError> {
        let key = CATCH_UP_BYTES_PER_SECOND.to_owned();
        let mut change = AlterTopic { name: self.topic.clone(), set: BTreeMap::new(), reset: Vec::new() };
        match limit {
            Some(limit) => drop(change.set.insert(key, limit)),
            None => change.reset.push(key),
        }
        let what = || format!("{CATCH_UP_BYTES_PER_SECOND} of topic '{}' was not changed", self.topic);
        let altered = admin.alter_topics(&[change]).await?.into_iter().next().ok_or_else(no_answer)?;
        altered.map(drop).map_err(|error| refused(what(), error))
    }

    fn tell_how_to_end(&self) {
        let change = match &self.before {
            Some(before) => format!("--set {CATCH_UP_BYTES_PER_SECOND}={before}"),
            None => format!("--reset {CATCH_UP_BYTES_PER_SECOND}"),
        };
        print_line(&format!(
            "topic {} stays throttled; once it has moved: callboard topic alter {} {change}",
            self.topic, self.topic
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_for_people() {
        assert_eq!([0, 1, 12_345].map(records), ["0 records", "1 record", "12,345 records"]);
    }
}

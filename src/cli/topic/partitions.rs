//! `callboard topic add-partitions` and `callboard topic reassign`.

use serde_json::json;

use super::args::ReassignArgs;
use super::{error_json, keep_first, no_answer, refused};
use crate::cli::error::CliError;
use crate::cli::output::{self, counted};
use crate::client::Admin;
use crate::protocol::messages::{PartitionAddition, PartitionMove};
use crate::types::{NodeId, PartitionIndex};

/// Gives a topic more partitions.
pub(super) async fn add(admin: &Admin, name: String, total: u32, json: bool) -> Result<(), CliError> {
    let wanted = PartitionAddition { name: name.clone(), total };
    match admin.add_partitions(&[wanted]).await?.into_iter().next() {
        Some(Ok(_)) if json => output::print_json(&json!({"name": name, "partitions": total})),
        Some(Ok(_)) => output::print(&format!("topic {name} has {} now", counted(total.into(), "partition"))),
        Some(Err(error)) => Err(refused(format!("topic '{name}' got no more partitions"), error)),
        None => Err(no_answer()),
    }
}

/// Begins to move partitions, or ends that.
pub(super) async fn reassign(admin: &Admin, args: ReassignArgs, json: bool) -> Result<(), CliError> {
    let ReassignArgs { topic, partition, replicas, cancel } = args;
    let numbers = if partition.is_empty() { all_partitions(admin, &topic).await? } else { partition };
    let targets = (!cancel).then(|| replicas.into_iter().map(NodeId).collect::<Vec<_>>());
    let to_move = |number: &u32| PartitionMove {
        topic: topic.clone(),
        partition: PartitionIndex(*number),
        replicas: targets.clone(),
    };
    let moves: Vec<_> = numbers.iter().map(to_move).collect();
    let answers = admin.reassign_partitions(&moves).await?;
    let (mut first_error, mut report) = (None, Vec::new());
    for (number, answer) in numbers.into_iter().zip(answers) {
        match answer {
            Ok(replicas) if json => report.push(json!({"partition": number, "replicas": replicas, "error": null})),
            Ok(replicas) => {
                let names: Vec<String> = replicas.iter().map(ToString::to_string).collect();
                let begun = if cancel { "goes back" } else { "moves" };
                output::print(&format!(
                    "partition {number} of topic {topic} {begun}; replicas now: {}",
                    names.join(",")
                ))?;
            }
            Err(error) => {
                report.push(json!({"partition": number, "replicas": null, "error": error_json(&error)}));
                keep_first(&mut first_error, refused(format!("partition {number} of topic '{topic}' stays"), error));
            }
        }
    }
    if json {
        output::print_json(&report.into())?;
    }
    first_error.map_or(Ok(()), Err)
}

async fn all_partitions(admin: &Admin, topic: &str) -> Result<Vec<u32>, CliError> {
    let described = admin.describe_topics(Some(&[topic.to_owned()])).await?.into_iter().next();
    match described {
        Some(Ok(described)) => Ok(described.partitions.iter().map(|partition| partition.partition.0).collect()),
        Some(Err(error)) => Err(refused(format!("topic '{topic}' cannot be moved"), error)),
        None => Err(no_answer()),
    }
}

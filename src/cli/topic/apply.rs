//! `callboard topic apply`: creates what is missing, never changes what exists, and says what it did.

use std::collections::BTreeMap;

use serde_json::json;

use super::{error_json, keep_first, no_answer, refused};
use crate::cli::error::CliError;
use crate::cli::output::{self, counted};
use crate::client::Admin;
use crate::config::topics_file::DeclaredTopic;
use crate::protocol::messages::{NewTopic, TopicDescription};
use crate::protocol::{ApiError, ErrorCode};

/// What became of one declared topic.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Became {
    Created {
        partitions: u32,
    },
    /// It was there; where it differs from the file.
    Kept {
        differences: Vec<String>,
    },
    Failed(ApiError),
}

/// Applies the topics of a file.
pub(super) async fn run(admin: &Admin, declared: Vec<DeclaredTopic>, json: bool) -> Result<(), CliError> {
    let outcomes = apply(admin, &declared).await?;
    let changes_nothing = outcomes.iter().all(|outcome| matches!(outcome, Became::Kept { .. }));
    let mut first_error = None;
    let mut report = Vec::new();
    for (topic, outcome) in declared.iter().zip(outcomes) {
        let name = &topic.name;
        if json {
            report.push(outcome_json(name.as_str(), &outcome));
        }
        match outcome {
            Became::Failed(error) => {
                keep_first(&mut first_error, refused(format!("topic '{name}' was not created"), error))
            }
            _ if json => {}
            Became::Created { partitions } => {
                output::print(&format!("topic {name} created: {}", counted(partitions.into(), "partition")))?;
            }
            Became::Kept { differences } => {
                output::print(&format!("topic {name} exists, left as it is"))?;
                for difference in differences {
                    crate::cli::progress::print_line(&format!(
                        "warning: topic {name} differs from the file: {difference}"
                    ));
                }
            }
        }
    }
    if json {
        output::print_json(&report.into())?;
    } else if changes_nothing {
        output::print("nothing to do")?;
    }
    first_error.map_or(Ok(()), Err)
}

async fn apply(admin: &Admin, declared: &[DeclaredTopic]) -> Result<Vec<Became>, CliError> {
    if declared.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = declared.iter().map(|topic| topic.name.to_string()).collect();
    let found = admin.describe_topics(Some(&names)).await?;
    if found.len() != declared.len() {
        return Err(no_answer());
    }
    let mut outcomes: Vec<Option<Became>> = Vec::new();
    let mut missing = Vec::new();
    for (topic, found) in declared.iter().zip(found) {
        outcomes.push(match found {
            Ok(existing) => Some(Became::Kept { differences: differences(topic, &existing) }),
            Err(error) if error.code == ErrorCode::UnknownTopicOrPartition => {
                missing.push(new_topic(topic));
                None
            }
            Err(error) => Some(Became::Failed(error)),
        });
    }
    let created = if missing.is_empty() { Vec::new() } else { admin.create_topics(&missing, false).await? };
    let mut created = created.into_iter();
    outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Some(outcome) => Ok(outcome),
            None => Ok(match created.next().ok_or_else(no_answer)? {
                Ok(topic) => Became::Created { partitions: topic.partitions },
                // Somebody else created it in between: that is what was wanted.
                Err(error) if error.code == ErrorCode::TopicExists => Became::Kept { differences: Vec::new() },
                Err(error) => Became::Failed(error),
            }),
        })
        .collect()
}

fn new_topic(topic: &DeclaredTopic) -> NewTopic {
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        config: topic.config.clone(),
    }
}

/// Where an existing topic is not what the file says. What the file leaves open is no difference.
fn differences(declared: &DeclaredTopic, existing: &TopicDescription) -> Vec<String> {
    let mut differences = Vec::new();
    let partitions = existing.partitions.len();
    if let Some(wanted) = declared.partitions
        && wanted as usize != partitions
    {
        differences.push(format!("it has {partitions} partitions, the file says {wanted}"));
    }
    let replicas = existing.partitions.first().map_or(0, |partition| partition.replicas.len());
    if let Some(wanted) = declared.replication_factor
        && wanted as usize != replicas
    {
        differences.push(format!("its replication factor is {replicas}, the file says {wanted}"));
    }
    let in_force: BTreeMap<&str, &str> =
        existing.config.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    for (key, wanted) in &declared.config {
        let value = in_force.get(key.as_str()).copied().unwrap_or("unknown");
        if value != wanted {
            differences.push(format!("{key} is {value}, the file says {wanted}"));
        }
    }
    differences
}

fn outcome_json(name: &str, outcome: &Became) -> serde_json::Value {
    match outcome {
        Became::Created { partitions } => json!({"name": name, "outcome": "created", "partitions": partitions}),
        Became::Kept { differences } => json!({"name": name, "outcome": "exists", "differences": differences}),
        Became::Failed(error) => json!({"name": name, "outcome": "failed", "error": error_json(error)}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::{ConfigEntry, PartitionMetadata};
    use crate::types::{LeaderEpoch, NodeId, PartitionIndex, TopicId, TopicName};

    fn existing(partitions: u32, retention_ms: &str) -> TopicDescription {
        let partition = |number| PartitionMetadata {
            partition: PartitionIndex(number),
            leader: None,
            leader_epoch: LeaderEpoch(0),
            replicas: vec![NodeId(1)],
            in_sync: vec![NodeId(1)],
        };
        TopicDescription {
            id: TopicId::random(),
            name: TopicName::new("orders").expect("legal"),
            config: vec![ConfigEntry { key: "retention_ms".into(), value: retention_ms.into(), overridden: true }],
            partitions: (0..partitions).map(partition).collect(),
            eligible: (0..partitions).map(|_| Vec::new()).collect(),
        }
    }

    fn declared(partitions: Option<u32>, replication_factor: Option<u32>, retention_ms: Option<&str>) -> DeclaredTopic {
        DeclaredTopic {
            name: TopicName::new("orders").expect("legal"),
            partitions,
            replication_factor,
            config: retention_ms.map(|value| ("retention_ms".to_owned(), value.to_owned())).into_iter().collect(),
        }
    }

    #[test]
    fn what_the_file_leaves_open_is_no_difference() {
        assert_eq!(differences(&declared(None, None, None), &existing(3, "5")), Vec::<String>::new());
        assert_eq!(differences(&declared(Some(3), Some(1), Some("5")), &existing(3, "5")), Vec::<String>::new());
    }

    #[test]
    fn each_difference_says_what_is_and_what_the_file_says() {
        assert_eq!(
            differences(&declared(Some(2), Some(3), Some("7")), &existing(3, "5")),
            [
                "it has 3 partitions, the file says 2",
                "its replication factor is 1, the file says 3",
                "retention_ms is 5, the file says 7",
            ]
        );
    }
}

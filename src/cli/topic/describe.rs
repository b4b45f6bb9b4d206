//! `callboard topic describe`.

use serde_json::{Value, json};

use super::{error_json, keep_first, refused};
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::progress::print_line;
use crate::client::Admin;
use crate::protocol::ApiError;
use crate::protocol::messages::{ConfigEntry, LogDescription, PartitionMetadata, TopicDescription};
use crate::types::NodeId;

/// What is known of a partition's log: an answer, a refusal, or nothing when the leaders could not be asked.
type Log = Option<Result<LogDescription, ApiError>>;

/// Describes `names`, or all topics.
pub(super) async fn run(admin: &Admin, names: &[String], json: bool) -> Result<(), CliError> {
    let asked = (!names.is_empty()).then_some(names);
    let described = admin.describe_topics(asked).await?;
    let mut first_error = None;
    let mut all = Vec::new();
    for (index, outcome) in described.into_iter().enumerate() {
        let name = names.get(index).map_or("?", String::as_str);
        match outcome {
            Ok(topic) => {
                let logs = logs_of(admin, &topic).await;
                if json {
                    all.push(topic_json(&topic, &logs));
                } else {
                    let apart = if index > 0 { "\n" } else { "" };
                    output::print(&format!("{apart}{}", topic_text(&topic, &logs)))?;
                }
            }
            Err(error) => {
                all.push(json!({"name": name, "error": error_json(&error)}));
                keep_first(&mut first_error, refused(format!("topic '{name}' cannot be described"), error));
            }
        }
    }
    if json {
        output::print_json(&all.into())?;
    }
    first_error.map_or(Ok(()), Err)
}

/// Asks the leaders. Where that fails the rest of the description is still worth having.
async fn logs_of(admin: &Admin, topic: &TopicDescription) -> Vec<Log> {
    let places: Vec<_> =
        topic.partitions.iter().map(|partition| (topic.name.to_string(), partition.partition.0)).collect();
    match admin.describe_logs(&places).await {
        Ok(logs) if logs.len() == places.len() => logs.into_iter().map(Some).collect(),
        Ok(_) => places.iter().map(|_| None).collect(),
        Err(error) => {
            print_line(&format!("warning: offsets and sizes of topic '{}' are not known: {error}", topic.name));
            places.iter().map(|_| None).collect()
        }
    }
}

fn topic_text(topic: &TopicDescription, logs: &[Log]) -> String {
    let with_logs = topic.partitions.iter().zip(&topic.eligible).zip(logs);
    let rows = with_logs.map(|((partition, eligible), log)| partition_row(partition, eligible, log));
    let header = [
        "PARTITION",
        "LEADER",
        "EPOCH",
        "REPLICAS",
        "IN SYNC",
        "ELIGIBLE",
        "START",
        "END",
        "SIZE",
        "SEGMENTS",
        "STATE",
    ];
    format!(
        "topic {} (id {})\n\n{}\n\n{}",
        topic.name,
        topic.id,
        output::table(&header, rows),
        settings_table(&topic.config)
    )
}

fn partition_row(partition: &PartitionMetadata, eligible: &[NodeId], log: &Log) -> Vec<String> {
    let unknown = || "-".to_owned();
    let of_log = |text: &dyn Fn(&LogDescription) -> String| {
        log.as_ref().and_then(|log| log.as_ref().ok()).map_or_else(unknown, text)
    };
    let nodes = |nodes: &[NodeId]| {
        let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        if names.is_empty() { unknown() } else { names.join(",") }
    };
    let state = match log {
        None => unknown(),
        Some(Err(error)) => error.code.name().to_owned(),
        Some(Ok(log)) if log.damaged.is_empty() => "ok".to_owned(),
        Some(Ok(log)) => {
            let ranges: Vec<String> = log.damaged.iter().map(|(from, end)| format!("{from} to {end}")).collect();
            format!("DAMAGED from {}", ranges.join(", "))
        }
    };
    vec![
        partition.partition.to_string(),
        partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
        partition.leader_epoch.to_string(),
        nodes(&partition.replicas),
        nodes(&partition.in_sync),
        nodes(eligible),
        of_log(&|log| log.log_start_offset.to_string()),
        of_log(&|log| log.high_watermark.to_string()),
        of_log(&|log| output::bytes(log.size_bytes)),
        of_log(&|log| log.segments.to_string()),
        state,
    ]
}

pub(super) fn settings_table(settings: &[ConfigEntry]) -> String {
    let rows = settings.iter().map(|setting| {
        let from = if setting.overridden { "this topic" } else { "default" };
        vec![setting.key.clone(), setting.value.clone(), from.to_owned()]
    });
    output::table(&["SETTING", "VALUE", "FROM"], rows)
}

pub(super) fn settings_json(settings: &[ConfigEntry]) -> Value {
    let entries = settings
        .iter()
        .map(|setting| (setting.key.clone(), json!({"value": setting.value, "overridden": setting.overridden})));
    Value::Object(entries.collect())
}

fn topic_json(topic: &TopicDescription, logs: &[Log]) -> Value {
    let partitions = topic.partitions.iter().zip(&topic.eligible).zip(logs).map(|((partition, eligible), log)| {
        let answer = log.as_ref().and_then(|log| log.as_ref().ok());
        let error = log.as_ref().and_then(|log| log.as_ref().err());
        json!({
            "partition": partition.partition,
            "leader": partition.leader,
            "leader_epoch": partition.leader_epoch,
            "replicas": partition.replicas,
            "in_sync": partition.in_sync,
            "eligible": eligible,
            "error": error.map(error_json),
            "log": answer.map(|log| json!({
                "log_start_offset": log.log_start_offset,
                "high_watermark": log.high_watermark,
                "durable_end_offset": log.durable_end_offset,
                "log_end_offset": log.log_end_offset,
                "size_bytes": log.size_bytes,
                "segments": log.segments,
                "damaged": log.damaged,
                "followers": log.followers.iter().map(|follower| json!({
                    "node_id": follower.node_id,
                    "end_offset": follower.end_offset,
                    "behind": log.behind(follower.node_id),
                    "caught_up_ms": follower.caught_up_ms,
                })).collect::<Vec<_>>(),
            })),
        })
    });
    json!({
        "name": topic.name.to_string(),
        "id": topic.id.to_string(),
        "config": settings_json(&topic.config),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

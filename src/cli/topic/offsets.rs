//! `callboard topic offsets`.

use serde_json::json;

use super::args::OffsetsArgs;
use super::{error_json, keep_first, no_answer, refused};
use crate::cli::error::CliError;
use crate::cli::output;
use crate::client::Admin;
use crate::protocol::ApiError;
use crate::protocol::messages::{ListedOffset, OffsetAt};

/// Shows where partitions start and end, or one place of each.
pub(super) async fn run(admin: &Admin, args: &OffsetsArgs, json: bool) -> Result<(), CliError> {
    let partitions = partitions_of(admin, &args.topic, &args.partition).await?;
    match args.at {
        Some(at) => show_place(admin, &args.topic, &partitions, at, json).await,
        None => show_ends(admin, &args.topic, &partitions, json).await,
    }
}

/// The partitions that are meant: those named, each once, or all of the topic.
pub(super) async fn partitions_of(admin: &Admin, topic: &str, named: &[u32]) -> Result<Vec<u32>, CliError> {
    let described = admin.describe_topics(Some(&[topic.to_owned()])).await?.into_iter().next().ok_or_else(no_answer)?;
    let described = described.map_err(|error| refused(format!("topic '{topic}' cannot be used"), error))?;
    if named.is_empty() {
        return Ok(described.partitions.iter().map(|partition| partition.partition.0).collect());
    }
    let mut partitions = named.to_vec();
    partitions.sort_unstable();
    partitions.dedup();
    Ok(partitions)
}

/// One place in each of these partitions.
pub(super) async fn list(
    admin: &Admin,
    topic: &str,
    partitions: &[u32],
    at: OffsetAt,
) -> Result<Vec<Result<ListedOffset, ApiError>>, CliError> {
    let places: Vec<_> = partitions.iter().map(|partition| (topic.to_owned(), *partition, at)).collect();
    Ok(admin.list_offsets(&places).await?)
}

async fn show_place(admin: &Admin, topic: &str, partitions: &[u32], at: OffsetAt, json: bool) -> Result<(), CliError> {
    let listed = list(admin, topic, partitions, at).await?;
    let mut first_error = None;
    let (mut rows, mut report) = (Vec::new(), Vec::new());
    for (partition, listed) in partitions.iter().zip(listed) {
        let found = listed.as_ref().ok();
        let number = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        rows.push(vec![
            partition.to_string(),
            number(found.and_then(|found| found.offset).map(|offset| offset.to_string())),
            number(found.and_then(|found| found.timestamp).map(output::time)),
            number(found.map(|found| found.leader_epoch.to_string())),
        ]);
        report.push(json!({
            "partition": partition,
            "offset": found.and_then(|found| found.offset),
            "timestamp": found.and_then(|found| found.timestamp),
            "leader_epoch": found.map(|found| found.leader_epoch),
            "error": listed.as_ref().err().map(error_json),
        }));
        if let Err(error) = listed {
            keep_first(&mut first_error, unknown(topic, *partition, error));
        }
    }
    if json {
        output::print_json(&report.into())?;
    } else {
        output::print(&output::table(&["PARTITION", "OFFSET", "TIMESTAMP", "EPOCH"], rows))?;
    }
    first_error.map_or(Ok(()), Err)
}

async fn show_ends(admin: &Admin, topic: &str, partitions: &[u32], json: bool) -> Result<(), CliError> {
    let earliest = list(admin, topic, partitions, OffsetAt::Earliest).await?;
    let latest = list(admin, topic, partitions, OffsetAt::Latest).await?;
    let mut first_error = None;
    let (mut rows, mut report) = (Vec::new(), Vec::new());
    for (partition, (earliest, latest)) in partitions.iter().zip(earliest.into_iter().zip(latest)) {
        let offset = |listed: &Result<ListedOffset, ApiError>| listed.as_ref().ok().and_then(|listed| listed.offset);
        let (start, end) = (offset(&earliest), offset(&latest));
        let text = |offset: Option<crate::types::Offset>| offset.map_or_else(|| "-".to_owned(), |o| o.to_string());
        rows.push(vec![partition.to_string(), text(start), text(end)]);
        let error = earliest.err().or(latest.err());
        report.push(json!({
            "partition": partition, "earliest": start, "latest": end, "error": error.as_ref().map(error_json),
        }));
        if let Some(error) = error {
            keep_first(&mut first_error, unknown(topic, *partition, error));
        }
    }
    if json {
        output::print_json(&report.into())?;
    } else {
        output::print(&output::table(&["PARTITION", "EARLIEST", "LATEST"], rows))?;
    }
    first_error.map_or(Ok(()), Err)
}

/// The offsets of a partition are not known.
pub(super) fn unknown(topic: &str, partition: u32, error: ApiError) -> CliError {
    refused(format!("the offsets of partition {partition} of topic '{topic}' are not known"), error)
}

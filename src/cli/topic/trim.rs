//! `callboard topic trim`.

use serde_json::json;

use super::args::{TrimArgs, TrimPlace};
use super::offsets::{list, partitions_of, unknown};
use super::{error_json, keep_first, refused};
use crate::cli::error::CliError;
use crate::cli::output;
use crate::client::Admin;
use crate::protocol::ApiError;
use crate::protocol::messages::{DeleteBefore, ListedOffset, OffsetAt};
use crate::types::{Offset, TimestampMs};

/// What is asked on a terminal.
pub(super) fn question(args: &TrimArgs) -> String {
    let what = match &args.place {
        TrimPlace { before_offset: Some(offset), .. } => format!("all records before offset {offset}"),
        TrimPlace { before_time: Some(time), .. } => format!("all records before {}", output::time(*time)),
        _ => "all records".to_owned(),
    };
    let partitions: Vec<String> = args.partition.iter().map(ToString::to_string).collect();
    let whence = if partitions.is_empty() {
        "every partition".to_owned()
    } else {
        format!("partition {}", partitions.join(", "))
    };
    format!("delete {what} of {whence} of topic {}, for good?", args.topic)
}

/// Moves the log start of the partitions that are meant.
pub(super) async fn run(admin: &Admin, args: &TrimArgs, json: bool) -> Result<(), CliError> {
    let topic = args.topic.as_str();
    let partitions = partitions_of(admin, topic, &args.partition).await?;
    if args.place.before_offset.is_some() && args.partition.is_empty() && partitions.len() > 1 {
        let text = format!(
            "topic '{topic}' has {} partitions, each with offsets of its own: name those meant with --partition, or give --before-time",
            partitions.len()
        );
        return Err(CliError::Usage(text));
    }
    let starts = list(admin, topic, &partitions, OffsetAt::Earliest).await?;
    let places = places(admin, topic, &partitions, &args.place).await?;
    let asked: Vec<_> = partitions
        .iter()
        .zip(&places)
        .filter_map(|(partition, place)| Some((topic.to_owned(), *partition, *place.as_ref().ok()?)))
        .collect();
    let mut deleted = admin.delete_records(&asked).await?.into_iter();
    let outcomes = places.into_iter().map(|place| match place {
        Ok(_) => deleted.next().unwrap_or_else(|| Err(missing())),
        Err(error) => Err(error),
    });
    report(topic, &partitions, &starts, outcomes, json)
}

/// Where the records that stay begin, partition by partition.
async fn places(
    admin: &Admin,
    topic: &str,
    partitions: &[u32],
    place: &TrimPlace,
) -> Result<Vec<Result<DeleteBefore, ApiError>>, CliError> {
    Ok(match place {
        TrimPlace { before_offset: Some(offset), .. } => {
            partitions.iter().map(|_| Ok(DeleteBefore::Offset(*offset))).collect()
        }
        TrimPlace { before_time: Some(time), .. } => by_time(admin, topic, partitions, *time).await?,
        _ => partitions.iter().map(|_| Ok(DeleteBefore::HighWatermark)).collect(),
    })
}

/// The first record of that time or later. Where there is none, all that was there before the question was asked is older;
/// what arrives meanwhile stays.
async fn by_time(
    admin: &Admin,
    topic: &str,
    partitions: &[u32],
    time: TimestampMs,
) -> Result<Vec<Result<DeleteBefore, ApiError>>, CliError> {
    let ends = list(admin, topic, partitions, OffsetAt::Latest).await?;
    let found = list(admin, topic, partitions, OffsetAt::Timestamp(time)).await?;
    let place = |(end, found): (Result<ListedOffset, ApiError>, Result<ListedOffset, ApiError>)| {
        let offset = match found?.offset {
            Some(offset) => Some(offset),
            None => end?.offset,
        };
        offset.map(DeleteBefore::Offset).ok_or_else(missing)
    };
    Ok(ends.into_iter().zip(found).map(place).collect())
}

fn report(
    topic: &str,
    partitions: &[u32],
    starts: &[Result<ListedOffset, ApiError>],
    outcomes: impl Iterator<Item = Result<Offset, ApiError>>,
    json: bool,
) -> Result<(), CliError> {
    let mut first_error = None;
    let (mut rows, mut report) = (Vec::new(), Vec::new());
    for ((partition, start), outcome) in partitions.iter().zip(starts).zip(outcomes) {
        let was = start.as_ref().ok().and_then(|listed| listed.offset);
        let now = outcome.as_ref().ok().copied();
        let gone = was.zip(now).map(|(was, now)| now.0.saturating_sub(was.0));
        let text = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        rows.push(vec![partition.to_string(), text(was.map(|o| o.0)), text(now.map(|o| o.0)), text(gone)]);
        report.push(json!({
            "partition": partition,
            "log_start_offset_before": was,
            "log_start_offset": now,
            "deleted_offsets": gone,
            "error": outcome.as_ref().err().map(error_json),
        }));
        if let Err(error) = outcome {
            let what = format!("partition {partition} of topic '{topic}' was not trimmed");
            keep_first(&mut first_error, refused(what, error));
        } else if let Err(error) = start {
            keep_first(&mut first_error, unknown(topic, *partition, error.clone()));
        }
    }
    if json {
        output::print_json(&report.into())?;
    } else {
        output::print(&output::table(&["PARTITION", "START BEFORE", "START", "DELETED"], rows))?;
    }
    first_error.map_or(Ok(()), Err)
}

fn missing() -> ApiError {
    ApiError::new(crate::protocol::ErrorCode::Unknown, "the leader left this partition unanswered: try again")
}

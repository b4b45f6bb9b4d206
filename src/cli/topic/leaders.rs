//! `callboard topic elect-leader`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::args::ElectLeaderArgs;
use super::{error_json, keep_first, no_answer, refused};
use crate::cli::error::CliError;
use crate::cli::output;
use crate::client::Admin;
use crate::protocol::messages::PartitionElection;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{NodeId, PartitionIndex};

/// How long the leaders have to hand over. A hand-over takes milliseconds; a controller that is replaced meanwhile forgets it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked whether they have.
const PAUSE: Duration = Duration::from_millis(20);

/// Who leads each partition, by topic and number.
type Leaders = BTreeMap<(String, u32), Option<NodeId>>;

/// Has the preferred replicas lead, and waits until they do.
pub(super) async fn elect(admin: &Admin, args: &ElectLeaderArgs, json: bool) -> Result<(), CliError> {
    if args.names.len() > 1 && !args.partition.is_empty() {
        return Err(CliError::Usage("--partition is for one topic: name one".to_owned()));
    }
    let partitions = named(admin, args).await?;
    let to_elect = |(topic, number): &(String, u32)| PartitionElection {
        topic: topic.clone(),
        partition: PartitionIndex(*number),
    };
    let wanted: Vec<_> = partitions.iter().map(to_elect).collect();
    let answers = admin.elect_leaders(&wanted).await?;
    let lead = wait(admin, args, partitions.iter().zip(&answers)).await?;
    let (mut first_error, mut report) = (None, Vec::new());
    for (place, answer) in partitions.into_iter().zip(answers) {
        let leader = lead.get(&place).copied().flatten();
        let (topic, number) = place;
        let error = answer.and_then(|to| if leader == Some(to) { Ok(()) } else { Err(too_late(to)) }).err();
        report.push(json!({
            "topic": topic,
            "partition": number,
            "leader": leader,
            "error": error.as_ref().map(error_json),
        }));
        match (error, leader) {
            (Some(error), _) => {
                let what = format!("partition {number} of topic '{topic}' is not led by its preferred replica");
                keep_first(&mut first_error, refused(what, error));
            }
            (None, Some(leader)) if !json => {
                output::print(&format!("partition {number} of topic {topic} is led by broker {leader}"))?;
            }
            (None, _) => {}
        }
    }
    if json {
        output::print_json(&report.into())?;
    }
    first_error.map_or(Ok(()), Err)
}

/// The partitions that are meant.
async fn named(admin: &Admin, args: &ElectLeaderArgs) -> Result<Vec<(String, u32)>, CliError> {
    match (args.names.as_slice(), args.partition.as_slice()) {
        ([topic], numbers) if !numbers.is_empty() => {
            Ok(numbers.iter().map(|number| (topic.clone(), *number)).collect())
        }
        _ => Ok(leaders(admin, &args.names).await?.into_keys().collect()),
    }
}

/// Waits until whoever is to lead does, and says who leads then.
async fn wait<'a>(
    admin: &Admin,
    args: &ElectLeaderArgs,
    wanted: impl Iterator<Item = (&'a (String, u32), &'a Result<NodeId, ApiError>)> + Clone,
) -> Result<Leaders, CliError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lead = leaders(admin, &args.names).await?;
        let is_done = wanted.clone().all(|(place, answer)| match answer {
            Ok(to) => lead.get(place) == Some(&Some(*to)),
            Err(_) => true,
        });
        if is_done || Instant::now() >= deadline {
            return Ok(lead);
        }
        sleep(PAUSE).await;
    }
}

async fn leaders(admin: &Admin, names: &[String]) -> Result<Leaders, CliError> {
    let asked = (!names.is_empty()).then_some(names);
    let mut leaders = Leaders::new();
    for (index, described) in admin.describe_topics(asked).await?.into_iter().enumerate() {
        let topic = described.map_err(|error| {
            let name = names.get(index).map_or("?", String::as_str);
            refused(format!("the leaders of topic '{name}' stay"), error)
        })?;
        let of_topic = topic.partitions.iter();
        leaders.extend(of_topic.map(|state| ((topic.name.to_string(), state.partition.0), state.leader)));
    }
    if names.len() > leaders.len() {
        return Err(no_answer());
    }
    Ok(leaders)
}

fn too_late(to: NodeId) -> ApiError {
    let text = format!(
        "it was not handed over to broker {to} within {} s: see callboard cluster describe, then try again",
        PATIENCE.as_secs()
    );
    ApiError::new(ErrorCode::TimedOut, text)
}

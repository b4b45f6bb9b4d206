//! `callboard topic`.
//!
//! Reading order: [`args`], `run`, [`describe`], [`apply`], [`trim`], [`partitions`], [`reassign`], [`leaders`].

pub mod apply;
pub mod args;
pub mod describe;
pub mod leaders;
pub mod offsets;
pub mod partitions;
pub mod reassign;
pub mod trim;

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::json;

use super::args::ConnectArgs;
use super::error::CliError;
use super::output::{self, counted};
use super::progress::print_line;
use crate::client::Admin;
use crate::protocol::messages::{AlterTopic, NewTopic};
use crate::protocol::{ApiError, ErrorCode};
use args::{CreateTopicArgs, TopicCommand};

/// Carries out one command.
///
/// # Errors
/// [`CliError`] for the first thing that failed; what succeeded before is printed.
pub async fn run(connect: &ConnectArgs, command: TopicCommand) -> Result<(), CliError> {
    // What can be refused without the cluster is refused before it is asked.
    let confirmed = match &command {
        TopicCommand::Delete { names, yes } => {
            confirm(&delete_question(names), "deleting takes all records with it", *yes)?
        }
        TopicCommand::Trim(args) => confirm(&trim::question(args), "what is trimmed is gone for good", args.yes)?,
        _ => true,
    };
    if !confirmed {
        return output::print("nothing was deleted");
    }
    let declared = match &command {
        TopicCommand::Apply { file } => crate::config::topics_file::read(file)?,
        _ => Vec::new(),
    };
    let admin = super::connect(connect, "callboard").await?.admin();
    match command {
        TopicCommand::Create(args) => create(&admin, args, connect.json).await,
        TopicCommand::List => list(&admin, connect.json).await,
        TopicCommand::Describe { names } => describe::run(&admin, &names, connect.json).await,
        TopicCommand::Alter { name, set, reset } => alter(&admin, name, set, reset, connect.json).await,
        TopicCommand::Trim(args) => trim::run(&admin, &args, connect.json).await,
        TopicCommand::Offsets(args) => offsets::run(&admin, &args, connect.json).await,
        TopicCommand::AddPartitions { name, total } => partitions::add(&admin, name, total, connect.json).await,
        TopicCommand::Reassign(args) => reassign::run(&admin, &args, connect.json).await,
        TopicCommand::ElectLeader(args) => leaders::elect(&admin, &args, connect.json).await,
        TopicCommand::Delete { names, .. } => delete(&admin, &names, connect.json).await,
        TopicCommand::Apply { .. } => apply::run(&admin, declared, connect.json).await,
    }
}

async fn create(admin: &Admin, args: CreateTopicArgs, json: bool) -> Result<(), CliError> {
    let name = args.name.clone();
    let topic = NewTopic {
        name: args.name,
        partitions: args.partitions,
        replication_factor: args.replication_factor,
        config: args.config.into_iter().collect(),
    };
    let created = admin.create_topics(&[topic], args.validate_only).await?.into_iter().next();
    match created {
        Some(Ok(created)) if json => output::print_json(&json!({
            "name": created.name.to_string(),
            "id": (!args.validate_only).then(|| created.id.to_string()),
            "partitions": created.partitions,
            "replication_factor": created.replication_factor,
            "created": !args.validate_only,
        })),
        Some(Ok(created)) => {
            let would = if args.validate_only { "would be created" } else { "created" };
            output::print(&format!(
                "topic {} {would}: {}, replication factor {}",
                created.name,
                counted(created.partitions.into(), "partition"),
                created.replication_factor
            ))
        }
        Some(Err(error)) if args.if_not_exists && error.code == ErrorCode::TopicExists => {
            if json {
                output::print_json(&json!({"name": name, "created": false}))
            } else {
                output::print(&format!("topic {name} exists already"))
            }
        }
        Some(Err(error)) => Err(refused(format!("topic '{name}' was not created"), error)),
        None => Err(no_answer()),
    }
}

/// Creates `name` with the cluster's defaults, unless it exists.
pub(super) async fn create_if_missing(admin: &Admin, name: &str) -> Result<(), CliError> {
    let topic = NewTopic { name: name.to_owned(), partitions: None, replication_factor: None, config: BTreeMap::new() };
    match admin.create_topics(&[topic], false).await?.into_iter().next() {
        Some(Err(error)) if error.code != ErrorCode::TopicExists => {
            Err(refused(format!("topic '{name}' was not created"), error))
        }
        Some(_) => Ok(()),
        None => Err(no_answer()),
    }
}

async fn list(admin: &Admin, json: bool) -> Result<(), CliError> {
    let mut topics: Vec<_> = admin.metadata(None).await?.topics.into_iter().collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let known = topics.into_iter().filter_map(|entry| entry.topic.into_result().ok());
    if json {
        let topics = known.map(|topic| {
            json!({"name": topic.name.to_string(), "id": topic.id.to_string(), "partitions": topic.partitions.len()})
        });
        return output::print_json(&topics.collect());
    }
    let rows: Vec<_> = known.map(|topic| vec![topic.name.to_string(), topic.partitions.len().to_string()]).collect();
    if rows.is_empty() {
        print_line("there are no topics; create one with callboard topic create NAME");
        return Ok(());
    }
    output::print(&output::table(&["TOPIC", "PARTITIONS"], rows))
}

async fn alter(
    admin: &Admin,
    name: String,
    set: Vec<(String, String)>,
    reset: Vec<String>,
    json: bool,
) -> Result<(), CliError> {
    let change = AlterTopic { name: name.clone(), set: set.into_iter().collect(), reset };
    match admin.alter_topics(&[change]).await?.into_iter().next() {
        Some(Ok(settings)) if json => {
            output::print_json(&json!({"name": name, "config": describe::settings_json(&settings)}))
        }
        Some(Ok(settings)) => {
            output::print(&format!("topic {name} altered; in force now:\n{}", describe::settings_table(&settings)))
        }
        Some(Err(error)) => Err(refused(format!("topic '{name}' was not altered"), error)),
        None => Err(no_answer()),
    }
}

/// Asks on a terminal. Without one there is nobody to ask, and no is the answer that loses nothing.
fn confirm(question: &str, why: &str, yes: bool) -> Result<bool, CliError> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(CliError::Usage(format!("{why}: confirm with --yes")));
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question} [y/N] ").and_then(|()| io::stdin().lock().read_line(&mut answer));
    asked.map_err(|error| CliError::Failed(format!("cannot ask on the terminal ({error}): confirm with --yes")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn delete_question(names: &[String]) -> String {
    format!("delete {} ({}) with all records?", counted(names.len() as u64, "topic"), names.join(", "))
}

async fn delete(admin: &Admin, names: &[String], json: bool) -> Result<(), CliError> {
    let deleted = admin.delete_topics(names).await?;
    let mut first_error = None;
    let mut report = Vec::new();
    for (name, outcome) in names.iter().zip(deleted) {
        let error = outcome.err();
        report.push(json!({"name": name, "deleted": error.is_none(), "error": error.as_ref().map(error_json)}));
        match error {
            None if !json => output::print(&format!("topic {name} deleted"))?,
            None => {}
            Some(error) => {
                let error = refused(format!("topic '{name}' was not deleted"), error);
                keep_first(&mut first_error, error);
            }
        }
    }
    if json {
        output::print_json(&report.into())?;
    }
    first_error.map_or(Ok(()), Err)
}

/// Keeps the first error for the end, and prints the others now.
fn keep_first(first: &mut Option<CliError>, error: CliError) {
    if first.is_none() {
        *first = Some(error);
    } else {
        print_line(&format!("error: {error}"));
    }
}

fn error_json(error: &ApiError) -> serde_json::Value {
    json!({"code": error.code.name(), "message": error.message})
}

fn refused(what: String, error: ApiError) -> CliError {
    CliError::Refused { what, error }
}

fn no_answer() -> CliError {
    CliError::Failed("the cluster answered without saying what became of the topic".to_owned())
}

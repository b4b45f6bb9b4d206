//! `callboard topic add-partitions`.

use serde_json::json;

use super::{no_answer, refused};
use crate::cli::error::CliError;
use crate::cli::output::{self, counted};
use crate::client::Admin;
use crate::protocol::messages::PartitionAddition;

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

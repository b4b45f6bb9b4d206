//! `callboard cluster add-controller`, `remove-controller` and `reset-controller`.

use serde_json::json;

use super::args::{AddControllerArgs, RemoveControllerArgs, ResetControllerArgs};
use crate::cli::error::CliError;
use crate::cli::output;
use crate::client::Admin;
use crate::protocol::messages::{ChangeControllers, ControllerAction, ControllerDescription, ControllerRole};
use crate::types::NodeId;

pub(super) async fn add(admin: &Admin, args: &AddControllerArgs, json: bool) -> Result<(), CliError> {
    let to = &args.controller;
    let (host, port) = (Some(to.host.clone()), Some(to.port));
    let change = ChangeControllers { action: ControllerAction::Add, node_id: to.node, host, port };
    carry_out(admin, &change, "name it in cluster.controllers of all nodes", json).await
}

pub(super) async fn remove(admin: &Admin, args: &RemoveControllerArgs, json: bool) -> Result<(), CliError> {
    let node_id = NodeId(args.node);
    let change = ChangeControllers { action: ControllerAction::Remove, node_id, host: None, port: None };
    carry_out(admin, &change, "take it out of cluster.controllers of all nodes, and stop it", json).await
}

pub(super) async fn reset(admin: &Admin, args: &ResetControllerArgs, json: bool) -> Result<(), CliError> {
    let (host, port) = args.address.clone().unzip();
    let change = ChangeControllers { action: ControllerAction::Reset, node_id: NodeId(args.node), host, port };
    let next = if args.address.is_some() { "correct its address in cluster.controllers of all nodes" } else { "" };
    carry_out(admin, &change, next, json).await
}

async fn carry_out(admin: &Admin, change: &ChangeControllers, next: &str, json: bool) -> Result<(), CliError> {
    let controllers = admin.change_controllers(change).await?;
    if json {
        let controllers: Vec<_> = controllers.iter().map(as_json).collect();
        return output::print_json(&json!({ "controllers": controllers }));
    }
    let mut text = as_table(&controllers);
    if !next.is_empty() {
        text.push_str(&format!("\n\nnow {next}"));
    }
    let voters = controllers.iter().filter(|one| one.role != ControllerRole::Learner).count();
    if voters.is_multiple_of(2) {
        text.push_str(&format!(
            "\n{voters} controllers survive no more losses than {}: an odd number is better",
            voters - 1
        ));
    }
    output::print(&text)
}

pub(super) fn as_json(controller: &ControllerDescription) -> serde_json::Value {
    json!({
        "node_id": controller.node_id,
        "directory": controller.directory.to_string(),
        "host": controller.host,
        "port": controller.port,
        "role": controller.role.name(),
        "behind": controller.behind,
        "trouble": controller.trouble,
    })
}

pub(super) fn as_table(controllers: &[ControllerDescription]) -> String {
    let row = |controller: &ControllerDescription| {
        // The only controller of a cluster may be reached by nobody.
        let address = match controller.host.as_str() {
            "" => "-".to_owned(),
            host => format!("{host}:{}", controller.port),
        };
        vec![
            controller.node_id.to_string(),
            address,
            controller.role.name().to_owned(),
            controller.behind.to_string(),
            controller.directory.to_string(),
            controller.trouble.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    output::table(&["CONTROLLER", "ADDRESS", "ROLE", "BEHIND", "DIRECTORY", "TROUBLE"], controllers.iter().map(row))
}

//! The command line of `callboard cluster`.

use clap::{Args, Subcommand};

use crate::cli::examples;
use crate::config::ControllerAddress;
use crate::config::keys::host_and_port;

/// `callboard cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the cluster, its controllers, its brokers, and the partitions that are not whole
    #[command(after_help = examples::CLUSTER_DESCRIBE)]
    Describe,
    /// Move everything that a broker holds to the others, so that it can go
    #[command(after_help = examples::CLUSTER_DECOMMISSION)]
    Decommission(DecommissionArgs),
    /// Make a node that runs with an empty data directory a controller, or move one to another address
    #[command(after_help = examples::CLUSTER_ADD_CONTROLLER)]
    AddController(AddControllerArgs),
    /// Take a controller away, whether it runs or not
    #[command(after_help = examples::CLUSTER_REMOVE_CONTROLLER)]
    RemoveController(RemoveControllerArgs),
    /// Take a controller back whose data directory was lost or damaged
    #[command(after_help = examples::CLUSTER_RESET_CONTROLLER)]
    ResetController(ResetControllerArgs),
}

/// `callboard cluster decommission`.
#[derive(Clone, Debug, Args)]
pub struct DecommissionArgs {
    /// The broker: its node.id
    pub broker: u32,
    /// Show the moves, make none
    #[arg(long)]
    pub dry_run: bool,
}

/// `callboard cluster add-controller`.
#[derive(Clone, Debug, Args)]
pub struct AddControllerArgs {
    /// The node and where other nodes reach it, as in cluster.controllers
    #[arg(value_name = "ID@HOST:PORT")]
    pub controller: ControllerAddress,
}

/// `callboard cluster remove-controller`.
#[derive(Clone, Debug, Args)]
pub struct RemoveControllerArgs {
    /// The controller: its node.id
    pub node: u32,
}

/// `callboard cluster reset-controller`.
#[derive(Clone, Debug, Args)]
pub struct ResetControllerArgs {
    /// The controller: its node.id
    pub node: u32,
    /// Where other nodes reach it; left out, where they did before
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub address: Option<(String, u16)>,
}

fn address(text: &str) -> Result<(String, u16), String> {
    let (host, port) =
        host_and_port(text).filter(|(_, port)| *port != 0).ok_or("an address is HOST:PORT, such as 10.0.0.9:9646")?;
    Ok((host.to_owned(), port))
}

//! `callboard cluster`.

use serde_json::json;

use super::args::{ClusterCommand, ConnectArgs};
use super::error::CliError;
use super::output::{self, counted};

/// Carries out one command.
///
/// # Errors
/// [`CliError`] when the cluster was not reached or did not answer.
pub async fn run(connect: &ConnectArgs, command: &ClusterCommand) -> Result<(), CliError> {
    let ClusterCommand::Describe = command;
    let client = super::connect(connect, "callboard").await?;
    let cluster = client.admin().describe_cluster().await?;
    if connect.json {
        let brokers = cluster.brokers.iter().map(|broker| {
            json!({
                "node_id": broker.node_id, "host": broker.host, "port": broker.port, "rack": broker.rack,
                "fenced": broker.fenced, "leads": broker.leads, "replicas": broker.replicas, "software": broker.software,
            })
        });
        return output::print_json(&json!({
            "cluster_id": cluster.cluster_id.to_string(),
            "controller": cluster.controller,
            "topics": cluster.topics,
            "partitions": cluster.partitions,
            "brokers": brokers.collect::<Vec<_>>(),
        }));
    }
    let controller = cluster.controller.map_or_else(|| "none known".to_owned(), |node| format!("node {node}"));
    output::print(&format!(
        "cluster {}\ncontroller: {controller}\n{} with {}\n",
        cluster.cluster_id,
        counted(cluster.topics.into(), "topic"),
        counted(cluster.partitions.into(), "partition")
    ))?;
    let rows = cluster.brokers.iter().map(|broker| {
        vec![
            broker.node_id.to_string(),
            format!("{}:{}", broker.host, broker.port),
            broker.rack.clone().unwrap_or_else(|| "-".to_owned()),
            if broker.fenced { "fenced" } else { "up" }.to_owned(),
            broker.leads.to_string(),
            broker.replicas.to_string(),
            broker.software.clone(),
        ]
    });
    output::print(&output::table(&["BROKER", "ADDRESS", "RACK", "STATE", "LEADS", "REPLICAS", "SOFTWARE"], rows))
}

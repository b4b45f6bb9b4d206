//! What can be typed after `callboard dev-cluster`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::local_cluster::plan::Shape;
use crate::cli::local_cluster::ports::Ports;

/// Below `callboard dev-cluster --help`.
pub const EXAMPLES: &str = "\
Examples:
  callboard dev-cluster                                  3 controllers and 4 brokers, data under ./dev-cluster
  callboard dev-cluster --brokers 2 --set log.level=warn
  callboard dev-cluster --base-port 19644 --dir /tmp/second

It prints the logs of all nodes and, when all are ready, where clients connect. docs/cluster.md says what to try.
Ctrl-C stops brokers, then controllers; a second one kills them. Data, configurations (NAME.toml) and logs (NAME.log) stay in
the directory, and the next start goes on with the data.
Exit codes: 0 all stopped cleanly, 1 a node did not start or stop cleanly, 2 wrong usage.";

/// `callboard dev-cluster`.
#[derive(Clone, Debug, Args)]
pub struct DevClusterArgs {
    /// Nodes that keep the metadata: 3 can lose one, 5 two
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(Shape::MOST_CONTROLLERS)))]
    pub controllers: u16,
    /// Nodes that keep partitions and serve clients
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(Shape::MOST_BROKERS)))]
    pub brokers: u16,
    /// Where data, configurations and logs go
    #[arg(long, value_name = "DIR", default_value = "./dev-cluster")]
    pub dir: PathBuf,
    /// The first broker's port; the others follow, and nodes connect to each other at P + 56 + ID, HTTP is at P + 156 + ID
    #[arg(long, value_name = "P", default_value_t = 9_644,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(Ports::HIGHEST_BASE)))]
    pub base_port: u16,
    /// Set one key on every node
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

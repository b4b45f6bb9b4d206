//! What `callboard doctor` takes.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::ConfigArgs;

/// Below `callboard doctor --help`.
pub const EXAMPLES: &str = "\
Examples:
  callboard doctor                                      look at the node at 127.0.0.1:9644
  callboard doctor --server broker-1:9644 --json
  callboard doctor --data-dir data                      look at the files of a node that is stopped
  callboard doctor --data-dir /var/lib/callboard --config /etc/callboard/node.toml

Each finding has a code, what was seen, the likely cause and the fix; docs/doctor.md lists all codes. Nothing is changed.
Exit codes: 0 no errors (there may be warnings and notes), 1 errors were found, 2 wrong usage, or a node uses the directory.";

/// `callboard doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Look at this data directory, of a node that is stopped, instead of at a running node
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// With --data-dir: do not read all records to verify them, which takes as long as reading the disk
    #[arg(long, requires = "data_dir")]
    pub skip_records: bool,
    /// With --data-dir: the configuration that the node is started with, to be compared with the directory
    #[command(flatten)]
    pub config: ConfigArgs,
}

impl DoctorArgs {
    /// Whether a configuration was given that says something about the node.
    #[must_use]
    pub fn names_a_config(&self) -> bool {
        self.config.config.is_some() || !self.config.set.is_empty()
    }
}

//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bench::args::BenchCommand;
use super::cluster::args::ClusterCommand;
use super::completions::CompletionsArgs;
use super::consume::format::Format;
use super::consume::start::From;
use super::dev_cluster::{self, args::DevClusterArgs};
use super::doctor;
use super::error::CliError;
use super::evaluate::args::EvaluateCommand;
use super::examples;
use super::man::ManArgs;
use super::produce::lines::Delimiter;
pub use super::topic::args::TopicCommand;
use crate::client::{Acks, Compression, ReadFrom};
use crate::config::keys::host_and_port;

/// Where the help lists what every command takes.
const EVERYWHERE: &str = "Options of all commands";

/// A distributed commit log: run a node, administer topics, send and read records.
#[derive(Debug, Parser)]
#[command(name = "callboard", version, after_help = examples::CALLBOARD)]
pub struct Callboard {
    /// Where the cluster is.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Send records: one for each line of standard input, or a load of numbered ones (--producers).
#[derive(Debug, Parser)]
#[command(name = "callboard-producer", version, after_help = examples::PRODUCE)]
pub struct ProducerProgram {
    /// Where the cluster is.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// What to send.
    #[command(flatten)]
    pub produce: ProduceArgs,
}

/// Read records and print them, or write them to files.
#[derive(Debug, Parser)]
#[command(name = "callboard-consumer", version, after_help = examples::CONSUME)]
pub struct ConsumerProgram {
    /// Where the cluster is.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// What to read.
    #[command(flatten)]
    pub consume: ConsumeArgs,
}

/// Where the cluster is, and for whom to print.
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// Nodes to ask first; one that answers is enough
    #[arg(
        long,
        global = true,
        env = "CALLBOARD_SERVER",
        hide_env_values = true,
        value_name = "HOST:PORT[,..]",
        default_value = "127.0.0.1:9644",
        value_parser = servers,
        help_heading = EVERYWHERE
    )]
    pub server: String,
    /// Print JSON for programs
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
}

/// The commands of `callboard`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node until Ctrl-C or SIGTERM
    #[command(after_help = examples::NODE)]
    Node(NodeArgs),
    /// Check or show a node's configuration without starting it
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Create, list, describe, alter, trim and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// See who makes up the cluster
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Find out what is wrong with a node, running or stopped, and what to do
    #[command(after_help = doctor::args::EXAMPLES)]
    Doctor(doctor::args::DoctorArgs),
    /// Look into a partition's files, without a node
    #[command(subcommand)]
    Log(LogCommand),
    /// Send records, as callboard-producer does
    #[command(after_help = examples::PRODUCE)]
    Produce(Box<ProduceArgs>),
    /// Read records, as callboard-consumer does
    #[command(after_help = examples::CONSUME)]
    Consume(Box<ConsumeArgs>),
    /// Print a script that completes commands and options in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Write manual pages, one for each command
    #[command(after_help = examples::MAN)]
    Man(ManArgs),
    /// Measure how fast a node is, beside what its machine allows
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Run a whole cluster on this machine, to try things out, until Ctrl-C
    #[command(after_help = dev_cluster::args::EXAMPLES)]
    DevCluster(DevClusterArgs),
    /// Put a cluster of its own through failures, and check every record
    #[command(subcommand)]
    Evaluate(EvaluateCommand),
}

/// `callboard node`.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// Its configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Stop when standard input ends, as it does when the program that started this one has ended, however that came about
    #[arg(long, hide = true)]
    pub stop_with_parent: bool,
}

/// Where a node's configuration comes from.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// A TOML file; the built-in configuration (configs/single.toml) when it is left out
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, over the file and the environment (CALLBOARD__SECTION__KEY)
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

/// `callboard config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read the file, the environment and --set, and print what is in force
    #[command(after_help = examples::CONFIG_CHECK)]
    Check(ConfigArgs),
    /// Print every key with the value in force and where it comes from
    #[command(after_help = examples::CONFIG_SHOW)]
    Show(ConfigArgs),
}

/// `callboard log`.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Print every batch of a partition
    #[command(after_help = examples::LOG_DUMP)]
    Dump {
        /// The partition's directory in the data directory: TOPIC-ID-PARTITION
        directory: PathBuf,
        /// Print the records, too
        #[arg(long)]
        records: bool,
    },
    /// Check every batch and index of a partition; exit code 1 when something is wrong
    #[command(after_help = examples::LOG_VERIFY)]
    Verify {
        /// The partition's directory in the data directory: TOPIC-ID-PARTITION
        directory: PathBuf,
    },
}

/// What a producer sends, and how.
#[derive(Clone, Debug, Args)]
pub struct ProduceArgs {
    /// The topic
    #[arg(long, short)]
    pub topic: String,
    /// Create the topic first when it is missing, with the cluster's defaults
    #[arg(long)]
    pub create_topic: bool,
    /// The key of every record
    #[arg(long, short, conflicts_with_all = ["key_separator", "keys"], allow_hyphen_values = true)]
    pub key: Option<String>,
    /// Split each line at the first SEPARATOR into key and value; a line without it has no key
    #[arg(long, value_name = "SEPARATOR", value_parser = separator, allow_hyphen_values = true)]
    pub key_separator: Option<Delimiter>,
    /// A header of every record; may repeat
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub header: Vec<(String, String)>,
    /// The partition of every record; left out, the key chooses it
    #[arg(long, short, value_name = "N")]
    pub partition: Option<u32>,
    /// When a record counts as delivered: 0 when sent, 1 when the leader wrote it, all when it is safe
    #[arg(long, value_name = "0|1|all", default_value = "all", value_parser = acks)]
    pub acks: Acks,
    /// How batches are compressed: none, gzip, snappy, lz4, zstd
    #[arg(long, value_name = "NAME", default_value = "none", value_parser = compression)]
    pub compression: Compression,
    /// How long a record waits for company, such as 5ms
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = duration)]
    pub linger: Duration,
    /// Bytes of records in a batch
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10)]
    pub batch_bytes: usize,
    /// What ends a record in the input: text with \n, \r, \t, \0 and \\
    #[arg(long, value_name = "TEXT", default_value = "\\n", value_parser = separator, allow_hyphen_values = true, conflicts_with = "producers")]
    pub delimiter: Delimiter,
    /// Send numbered records instead of lines, from N producers with a connection each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub producers: Option<u32>,
    /// With --producers: the time between two records of one producer; 0ms for as fast as it goes
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = duration, requires = "producers")]
    pub interval: Duration,
    /// With --producers: producer number i sends with key PREFIXi, such as user1, user2, ...
    #[arg(long, value_name = "PREFIX", requires = "producers")]
    pub keys: Option<String>,
    /// End after M records (with --producers: M of each)
    #[arg(long, value_name = "M")]
    pub count: Option<u64>,
}

/// What a consumer reads, and where to.
#[derive(Clone, Debug, Args)]
pub struct ConsumeArgs {
    /// The topic
    #[arg(long, short)]
    pub topic: String,
    /// Read this partition only; may repeat
    #[arg(long, short, value_name = "N")]
    pub partition: Vec<u32>,
    /// Where to start: earliest, latest, an offset, a time such as 2026-01-31T12:00:00Z, or @MILLISECONDS since 1970. Left
    /// out: latest, or earliest with --exit-at-end
    #[arg(long, short, value_name = "PLACE", value_parser = From::parse)]
    pub from: Option<From>,
    /// End after M records (with --consumers: M of each)
    #[arg(long, value_name = "M")]
    pub count: Option<u64>,
    /// End at what is the end of the topic now
    #[arg(long)]
    pub exit_at_end: bool,
    /// What to print of a record: value, key=value, or json (one object a line)
    #[arg(long, value_name = "FORMAT", default_value = "value", value_parser = Format::parse)]
    pub format: Format,
    /// What stands between key and value with --format key=value
    #[arg(long, value_name = "SEPARATOR", default_value = "=", value_parser = separator, allow_hyphen_values = true)]
    pub key_separator: Delimiter,
    /// What ends each record in the output: text with \n, \r, \t, \0 and \\
    #[arg(long, value_name = "TEXT", default_value = "\\n", value_parser = separator, allow_hyphen_values = true)]
    pub delimiter: Delimiter,
    /// Leave out the delimiter after the very last record: gives back a file whose last line has no end, byte for byte
    #[arg(long)]
    pub no_final_newline: bool,
    /// Which replicas to read: the leaders, any that are in sync (so that many consumers spread over the brokers), or those on
    /// brokers of a rack
    #[arg(long, value_name = "WHICH", default_value = "leader")]
    pub read_from: ReadFromKind,
    /// With --read-from rack: the rack, as the brokers' node.rack names it. Where it has no replica in sync, the leader is read
    #[arg(long, value_name = "NAME", required_if_eq("read_from", "rack"))]
    pub rack: Option<String>,
    /// Write to this file instead of standard output; with --consumers, a directory
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Read N times side by side: every consumer reads everything, and writes DIR/consumer-1.txt and so on
    #[arg(long, value_name = "N", requires = "output", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub consumers: Option<u32>,
}

/// Which replicas a consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReadFromKind {
    /// The leader of each partition
    Leader,
    /// Any replica that is in sync
    Any,
    /// A replica that is in sync on a broker of the rack in --rack
    Rack,
}

impl ConsumeArgs {
    /// Which replicas to read.
    ///
    /// # Errors
    /// A rack is named and not asked for.
    pub fn read_from(&self) -> Result<ReadFrom, CliError> {
        match (self.read_from, &self.rack) {
            (ReadFromKind::Rack, Some(rack)) => Ok(ReadFrom::Rack(rack.clone())),
            (ReadFromKind::Leader, None) => Ok(ReadFrom::Leader),
            (ReadFromKind::Any, None) => Ok(ReadFrom::Any),
            (ReadFromKind::Rack, None) => {
                Err(CliError::Usage("--read-from rack needs the rack: --rack NAME".to_owned()))
            }
            (_, Some(rack)) => Err(CliError::Usage(format!(
                "--rack {rack} counts with --read-from rack only: add that, or leave it out"
            ))),
        }
    }
}

fn servers(text: &str) -> Result<String, String> {
    let addresses: Vec<&str> = text.split(',').map(str::trim).filter(|address| !address.is_empty()).collect();
    if addresses.is_empty() {
        return Err("give HOST:PORT, such as 127.0.0.1:9644".to_owned());
    }
    match addresses.iter().find(|address| host_and_port(address).is_none_or(|(_, port)| port == 0)) {
        Some(wrong) => Err(format!("'{wrong}' is not HOST:PORT, such as 127.0.0.1:9644")),
        None => Ok(addresses.join(",")),
    }
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("give KEY=VALUE".to_owned()),
    }
}

fn separator(text: &str) -> Result<Delimiter, String> {
    Delimiter::parse(text)
}

pub(super) fn acks(text: &str) -> Result<Acks, String> {
    match text {
        "0" => Ok(Acks::None),
        "1" => Ok(Acks::Leader),
        "all" | "-1" => Ok(Acks::All),
        _ => Err("give 0, 1 or all".to_owned()),
    }
}

pub(super) fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        "snappy" => Ok(Compression::Snappy),
        "lz4" => Ok(Compression::Lz4),
        "zstd" => Ok(Compression::Zstd),
        _ => Err("give none, gzip, snappy, lz4 or zstd".to_owned()),
    }
}

/// A number and one of the units us, ms, s, m and h; at most a day, because timers of longer ones are a slip of the hand.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let micros: u64 = match unit {
        "us" | "µs" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err("give a number and a unit: us, ms, s, m or h, such as 10ms".to_owned()),
    };
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(micros));
    match total {
        Some(total) if total <= 24 * 3_600_000_000 => Ok(Duration::from_micros(total)),
        Some(_) => Err("give at most 24h".to_owned()),
        None => Err("give a number and a unit: us, ms, s, m or h, such as 10ms".to_owned()),
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;

//! What can be typed after `callboard bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::record::SHORTEST_BYTES;
use crate::cli::args::{acks, compression, duration};
use crate::cli::examples;
use crate::client::{Acks, Compression};

/// `callboard bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Send records as fast as it goes, or at a rate
    #[command(after_help = examples::BENCH_PRODUCE)]
    Produce(Box<ProduceBench>),
    /// Fill a topic, then read it back and verify every record
    #[command(after_help = examples::BENCH_CONSUME)]
    Consume(Box<ConsumeBench>),
    /// Time single records: one after the other, or at a rate and end to end
    #[command(after_help = examples::BENCH_LATENCY)]
    Latency(Box<LatencyBench>),
    /// Measure what sockets and disk of this machine allow, without Callboard
    #[command(after_help = examples::BENCH_LIMIT)]
    Limit(LimitBench),
    /// Run a node that checks and acknowledges records and stores nothing, until Ctrl-C
    #[command(after_help = examples::BENCH_NULL)]
    Null(NullBench),
    /// Run every comparison that Callboard's speed is judged by, interleaved, and print the table
    #[command(after_help = examples::BENCH_GATES)]
    Gates(GatesBench),
}

/// What is measured in the same run, beside the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Beside {
    /// What the machine allows: `callboard bench limit`
    Limit,
    /// Our own server side that stores nothing: `callboard bench null`
    Null,
}

/// When records of the bench's topic are synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    /// Before they are acknowledged (with --acks all)
    #[default]
    Always,
    /// Once a second
    Interval,
    /// When the operating system likes
    Os,
}

impl Flush {
    /// The value of the topic's setting.
    #[must_use]
    pub fn setting(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Interval => "interval",
            Self::Os => "os",
        }
    }
}

/// What all benches of a node take.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Bytes of a record's value; such as 100, 1KiB, 1MB
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = record_size)]
    pub record_size: usize,
    /// Producers, each with its own numbering, sending to partition number (producer modulo partitions)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub producers: u32,
    /// Connections that the producers share, dealt out in turn; one for each producer when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: Option<u32>,
    /// Partitions of the topic that is created for the run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// When a record counts as delivered: 0 when sent, 1 when the leader wrote it, all when it is safe
    #[arg(long, value_name = "0|1|all", default_value = "all", value_parser = acks)]
    pub acks: Acks,
    /// When the records are synced to disk
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub flush: Flush,
    /// How batches are compressed: none, gzip, snappy, lz4, zstd
    #[arg(long, value_name = "NAME", default_value = "none", value_parser = compression)]
    pub compression: Compression,
    /// Use this topic, which exists, and leave it; without it a topic is created and deleted afterwards
    #[arg(long, short, value_name = "NAME")]
    pub topic: Option<String>,
    /// Do not delete the topic that was created
    #[arg(long, conflicts_with = "topic")]
    pub keep: bool,
    /// Threads of the client side
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Repeat the measurement so often, what stands beside it interleaved, and show minimum, median and maximum
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
    /// Measure this in the same run, too, and print the ratio
    #[arg(long, value_name = "WHAT[,WHAT]", value_enum, value_delimiter = ',')]
    pub beside: Vec<Beside>,
    /// Where --beside puts its files: choose the file system of the node's data
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
}

/// How records become batches.
#[derive(Clone, Debug, Args)]
pub struct BatchArgs {
    /// Records in a batch
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub batch_records: u32,
    /// Bytes of records in a batch, instead of --batch-records
    #[arg(long, value_name = "BYTES", value_parser = size, conflicts_with = "batch_records")]
    pub batch_size: Option<usize>,
    /// How long a record waits for company, such as 5ms; 20ms when left out, so that batches are full, and 0ms with --rate
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub linger: Option<Duration>,
    /// Batches of a partition, and requests of a connection, that wait for their acknowledgement at a time; with --acks all
    /// at most 5
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub batches_in_flight: u16,
}

/// How much is sent.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
pub struct AmountArgs {
    /// Send so many records in all
    #[arg(long, value_name = "N")]
    pub records: Option<u64>,
    /// Send so many bytes of values in all; such as 512MiB
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub bytes: Option<usize>,
    /// Send for so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
}

/// `callboard bench produce`.
#[derive(Clone, Debug, Args)]
pub struct ProduceBench {
    /// See [`CommonArgs`].
    #[command(flatten)]
    pub common: CommonArgs,
    /// See [`BatchArgs`].
    #[command(flatten)]
    pub batch: BatchArgs,
    /// See [`AmountArgs`]; 1 GiB when left out.
    #[command(flatten)]
    pub amount: AmountArgs,
    /// Records a second of all producers together; as fast as it goes when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// Send for so long first, without counting it
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = duration)]
    pub warm_up: Duration,
}

/// `callboard bench consume`.
#[derive(Clone, Debug, Args)]
pub struct ConsumeBench {
    /// See [`CommonArgs`].
    #[command(flatten)]
    pub common: CommonArgs,
    /// See [`BatchArgs`].
    #[command(flatten)]
    pub batch: BatchArgs,
    /// See [`AmountArgs`]: how much the topic is filled with, 512 MiB when left out.
    #[command(flatten)]
    pub amount: AmountArgs,
    /// Consumers, a connection each, which share the partitions among them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub consumers: u32,
    /// Every consumer reads every partition
    #[arg(long)]
    pub fan_out: bool,
    /// Bytes of one partition that a fetch asks for
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = size)]
    pub fetch_size: usize,
    /// Read everything so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub passes: u32,
    /// Drop the topic's files in this data directory, of a node on this machine, from the page cache before reading
    #[arg(long, value_name = "DATA_DIR")]
    pub cold: Option<PathBuf>,
}

/// `callboard bench latency`.
#[derive(Clone, Debug, Args)]
pub struct LatencyBench {
    /// See [`CommonArgs`].
    #[command(flatten)]
    pub common: CommonArgs,
    /// See [`AmountArgs`]; 5 s when left out.
    #[command(flatten)]
    pub amount: AmountArgs,
    /// Records that each producer has sent and not yet seen acknowledged: the next one waits for an acknowledgement
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "rate")]
    pub in_flight: u32,
    /// Send at this rate instead, records a second in all, and time each record until a consumer has it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
    /// With --rate: consumers, a connection each, which share the partitions among them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub consumers: u32,
    /// Send for so long first, without counting it
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = duration)]
    pub warm_up: Duration,
}

/// `callboard bench limit`.
#[derive(Clone, Debug, Args)]
pub struct LimitBench {
    /// What is measured.
    #[command(flatten)]
    pub what: LimitWhat,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub connections: u16,
    /// Files that they append to, dealt out in turn; one for each connection when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub files: Option<u16>,
    /// Sync each file to disk before its bytes are acknowledged; all that came during one sync shares the next
    #[arg(long, conflicts_with_all = ["loopback", "ping_pong", "read", "sync_latency"])]
    pub sync: bool,
    /// Bytes sent in all
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = size)]
    pub bytes: usize,
    /// Bytes of one write to a socket or file
    #[arg(long, value_name = "BYTES", default_value = "256KiB", value_parser = write_size)]
    pub write_size: usize,
    /// Bytes of one message with --ping-pong, of one append with --sync-latency
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = write_size)]
    pub record_size: usize,
    /// Messages with --ping-pong, appends with --sync-latency
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rounds: u64,
    /// Where the files are put: choose the file system of the node's data
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// Repeat the measurement so often, and show minimum, median and maximum
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
}

/// What `callboard bench limit` measures; without any of these, sockets and files together.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(multiple = false)]
pub struct LimitWhat {
    /// Sockets alone: the receiver drops what it gets
    #[arg(long)]
    pub loopback: bool,
    /// One message to and fro at a time
    #[arg(long)]
    pub ping_pong: bool,
    /// Reading a file that is not in the page cache, from its start to its end
    #[arg(long)]
    pub read: bool,
    /// One append and its fdatasync at a time
    #[arg(long)]
    pub sync_latency: bool,
}

/// `callboard bench null`.
#[derive(Clone, Debug, Args)]
pub struct NullBench {
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9645")]
    pub listen: String,
    /// Core threads; 0 for one a CPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub core_threads: usize,
    /// End when the process that started this one ends, however it does
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

/// `callboard bench gates`.
#[derive(Clone, Debug, Args)]
pub struct GatesBench {
    /// Interleaved runs
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
    /// Only the gates whose name contains this; may repeat
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,
    /// Bytes that each measurement of a rate moves
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = size)]
    pub bytes: usize,
    /// How long each measurement of a latency takes
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub duration: Duration,
    /// Where the node's data and the files of the limits go, in a directory that is removed afterwards
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// Set a key of the node that is measured
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

/// A number of bytes: digits, and perhaps a unit.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(SIZE_HELP.to_owned()),
    };
    let total = number.parse::<usize>().ok().and_then(|number| number.checked_mul(factor));
    total.filter(|total| (1..=1 << 50).contains(total)).ok_or_else(|| SIZE_HELP.to_owned())
}

const SIZE_HELP: &str = "give a number of bytes from 1, with B, KiB, MiB, GiB, kB, MB or GB if you like, such as 1KiB";

/// The largest record: a frame holds it with room to spare.
const LONGEST_BYTES: usize = 8 << 20;

fn record_size(text: &str) -> Result<usize, String> {
    let bytes = size(text)?;
    if (SHORTEST_BYTES..=LONGEST_BYTES).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("give {SHORTEST_BYTES} to {LONGEST_BYTES} bytes: a record carries its number and time"))
}

fn write_size(text: &str) -> Result<usize, String> {
    let bytes = size(text)?;
    if bytes <= 64 << 20 { Ok(bytes) } else { Err("give at most 64MiB".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes = ["1", "100B", "1KiB", "2MiB", "1GiB", "5kB", "1MB"].map(|text| size(text).expect("legal"));
        assert_eq!(sizes, [1, 100, 1_024, 2 << 20, 1 << 30, 5_000, 1_000_000]);
        for wrong in ["", "0", "KiB", "1 KiB", "-1", "1.5MiB", "99999999GiB", "1TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(record_size("23").is_err() && record_size("24").is_ok() && record_size("9MiB").is_err());
    }
}

//! The measurements behind the gates: each is a command that anybody can type, and the part of its JSON that counts.

use std::time::Duration;

/// What a command is run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The node that the gates have started.
    Node,
    /// The null server that they have started.
    Null,
    /// None: a limit.
    Nothing,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Its name, by which gates refer to it.
    pub name: &'static str,
    /// What it runs against.
    pub server: Server,
    /// What follows `callboard bench`.
    pub arguments: Vec<String>,
    /// Bytes that it writes to the page cache, with what it writes before it counts: so much memory is warmed before.
    pub warmed_bytes: usize,
}

impl Leg {
    /// Where its figures stand in a run of the command's JSON.
    #[must_use]
    pub fn measured(&self) -> &'static str {
        if self.server == Server::Nothing { "limit" } else { "node" }
    }

    /// The command, as one would type it, with words for what this run made up.
    #[must_use]
    pub fn command(&self) -> String {
        let mut words = vec!["callboard bench".to_owned()];
        for word in &self.arguments {
            let shown = match words.last().map(String::as_str) {
                Some("--directory") => "DIR",
                Some("--cold") => "DATA_DIR",
                _ => word,
            };
            words.push(shown.to_owned());
        }
        if self.server == Server::Null {
            words.push("--server NULL".to_owned());
        }
        words.join(" ")
    }
}

/// How large the measurements are.
#[derive(Clone, Debug)]
pub struct Size {
    /// Bytes that each measurement of a rate moves.
    pub bytes: usize,
    /// How long each measurement of a latency takes.
    pub duration: Duration,
    /// Where the limits put their files.
    pub directory: String,
    /// The node's data directory.
    pub data_dir: String,
}

/// Syncs in a measurement of their latency: half a second of them, and a p99 of ten.
const SYNCS: &str = "1000";

/// At most what a producer writes during its warm-up of 50 ms. A longer one would use up memory that was warmed.
const WARM_UP_BYTES: usize = 160 << 20;

/// All measurements, in the order in which a run takes them: what is compared stands side by side.
#[must_use]
pub fn all(size: &Size) -> Vec<Leg> {
    let bytes = |part: usize| (size.bytes / part).max(1).to_string();
    let (whole, quarter, half) = (bytes(1), bytes(4), bytes(2));
    let time = format!("{}ms", size.duration.as_millis());
    let limit = |name, words: String| {
        let arguments = words_of(&format!("limit {words} --directory {}", size.directory));
        Leg { name, server: Server::Nothing, arguments, warmed_bytes: 0 }
    };
    let leg = |name, server, words: String, part: usize| {
        let warmed_bytes = if server == Server::Node && part > 0 { size.bytes / part + WARM_UP_BYTES } else { 0 };
        Leg { name, server, arguments: words_of(&words), warmed_bytes }
    };
    let (node, null) = (Server::Node, Server::Null);
    let fast = "produce --acks 1 --flush os --warm-up 50ms";
    let small = format!("{fast} --record-size 100 --bytes {quarter}");
    let at_a_rate = format!("latency --rate 10000 --acks 1 --flush os --warm-up 500ms --duration {time}");
    vec![
        limit("limit, 1 connection", format!("--bytes {whole}")),
        leg("produce, 1 connection", node, format!("{fast} --bytes {whole}"), 1),
        limit("limit, 2 connections", format!("--connections 2 --bytes {whole}")),
        leg("produce, 2 connections", node, format!("{fast} --producers 2 --partitions 2 --bytes {whole}"), 1),
        limit("limit, synced", format!("--connections 8 --files 1 --sync --bytes {whole}")),
        leg(
            "produce, synced",
            node,
            format!("produce --producers 8 --acks all --flush always --warm-up 50ms --bytes {whole}"),
            1,
        ),
        leg("null, 100 B x 1,000", null, format!("{small} --batch-records 1000"), 0),
        leg("produce, 100 B x 1,000", node, format!("{small} --batch-records 1000"), 4),
        leg("null, 100 B x 10,000", null, format!("{small} --batch-records 10000"), 0),
        leg("produce, 100 B x 10,000", node, format!("{small} --batch-records 10000"), 4),
        limit("loopback", format!("--loopback --write-size 1MiB --bytes {half}")),
        leg("consume, in memory", node, format!("consume --acks 1 --flush os --fetch-size 1MiB --bytes {half}"), 2),
        limit("disk, sequential read", format!("--read --write-size 1MiB --bytes {half}")),
        leg(
            "consume, cold",
            node,
            format!("consume --acks 1 --flush os --fetch-size 1MiB --bytes {half} --cold {}", size.data_dir),
            2,
        ),
        limit("TCP ping-pong", "--ping-pong --record-size 1KiB".to_owned()),
        leg("one in flight", node, format!("latency --acks 1 --flush os --warm-up 200ms --duration {time}"), 0),
        leg("null, 10,000/s", null, at_a_rate.clone(), 0),
        leg("end to end, 10,000/s", node, at_a_rate, 0),
        limit("fdatasync", format!("--sync-latency --record-size 1KiB --rounds {SYNCS}")),
        leg(
            "one in flight, synced",
            node,
            format!("latency --acks all --flush always --warm-up 200ms --duration {time}"),
            0,
        ),
    ]
}

fn words_of(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

//! Prometheus' text format, version 0.0.4, written piece by piece: a node with ten thousand partitions has ten megabytes to
//! tell, of which one piece is in memory at a time.
//!
//! ```text
//!   Scrape: catalogue × (node | partitions) ─ next_piece ─► "# HELP …\n# TYPE …\nname{label="value"} 1\n…" ─► the socket
//! ```
//!
//! The official client library writes OpenMetrics only, whose counters have another name in `# TYPE` than in their samples,
//! and writes all at once: docs/adr/0010-http-and-metrics.md.

use std::convert::Infallible;
use std::fmt::{self, Display, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;

use super::catalogue::{CATALOGUE, Family, Samples};
use super::process::ProcessSample;
use super::{NodeSample, NodeStatus};
use crate::metrics::{Histogram, Metrics, PartitionMetrics};

/// What the format is called in HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A piece ends after this much: about what a socket takes at once.
const PIECE_BYTES: usize = 32 << 10;

/// What one scrape tells of.
pub struct Source {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How things stand.
    pub node: NodeSample,
    /// Whether the node can acknowledge.
    pub ready: bool,
    /// The process; `None` where the system does not tell.
    pub process: Option<ProcessSample>,
}

/// One scrape, as far as it has been written. The values are read when they are written.
pub struct Scrape {
    source: Source,
    partitions: Vec<Arc<PartitionMetrics>>,
    family: usize,
    /// The next partition of the family at hand; 0 at its beginning.
    partition: usize,
    piece: Lines,
}

impl Scrape {
    /// Begins to tell how things stand.
    #[must_use]
    pub fn begin(metrics: &Arc<Metrics>, status: &dyn NodeStatus) -> Self {
        let process = ProcessSample::take().inspect_err(|error| tracing::debug!(%error, "no process metrics"));
        let source = Source {
            metrics: Arc::clone(metrics),
            node: status.sample(),
            ready: status.not_ready().is_empty(),
            process: process.ok(),
        };
        Self { partitions: metrics.partitions.all(), source, family: 0, partition: 0, piece: Lines::default() }
    }

    /// The next piece: whole lines.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        while self.piece.text.len() < PIECE_BYTES
            && let Some(family) = CATALOGUE.get(self.family)
        {
            self.write_some_of(family);
        }
        if self.piece.text.is_empty() {
            return None;
        }
        Some(Bytes::from(std::mem::take(&mut self.piece.text)))
    }

    fn write_some_of(&mut self, family: &Family) {
        if self.partition == 0 {
            self.piece.head(family);
        }
        match family.samples {
            Samples::One(value) => self.piece.sample(family.name, &[], value(&self.source)),
            Samples::Several(write) => write(&self.source, &mut self.piece.of(family)),
            Samples::Histogram { of, unit } => self.piece.histogram(family.name, of(&self.source), unit),
            Samples::Partitions(value) => {
                while let Some(entry) = self.partitions.get(self.partition) {
                    self.piece.partition(family.name, entry, value(entry));
                    self.partition += 1;
                    if self.piece.text.len() >= PIECE_BYTES && self.partition < self.partitions.len() {
                        return;
                    }
                }
                self.partition = 0;
            }
        }
        self.family += 1;
    }
}

/// For the body of a response.
impl Stream for Scrape {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.get_mut().next_piece().map(Ok))
    }
}

/// Lines of the format.
#[derive(Debug, Default)]
pub struct Lines {
    text: String,
}

/// The lines of one family, for those with labels of their own.
pub struct FamilyLines<'a> {
    lines: &'a mut Lines,
    family: &'a Family,
}

impl FamilyLines<'_> {
    /// A sample with the values of the family's labels, in their order.
    pub fn sample(&mut self, labels: &[&str], value: f64) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "a value for each label of {}", self.family.name);
        let named: Vec<_> = self.family.labels.iter().copied().zip(labels.iter().copied()).collect();
        self.lines.sample(self.family.name, &named, value);
    }
}

impl Lines {
    fn of<'a>(&'a mut self, family: &'a Family) -> FamilyLines<'a> {
        FamilyLines { lines: self, family }
    }

    fn head(&mut self, Family { name, kind, help, .. }: &Family) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.name()));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.write(format_args!("{name}"));
        for (at, (label, text)) in labels.iter().enumerate() {
            self.write(format_args!("{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, Escaped(text)));
        }
        self.write(format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }

    fn partition(&mut self, name: &str, entry: &PartitionMetrics, value: u64) {
        // The letters that a topic's name may have need no escape.
        self.write(format_args!("{name}{{topic=\"{}\",partition=\"{}\"}} {value}\n", entry.topic, entry.partition));
    }

    fn histogram(&mut self, name: &str, histogram: &Histogram, unit: f64) {
        let (ranges, count, sum) = histogram.read();
        for (bound, up_to) in ranges {
            self.write(format_args!("{name}_bucket{{le=\"{}\"}} {up_to}\n", bound as f64 / unit));
        }
        self.write(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}\n"));
        self.write(format_args!("{name}_sum {}\n{name}_count {count}\n", sum as f64 / unit));
    }

    fn write(&mut self, arguments: fmt::Arguments<'_>) {
        self.text.write_fmt(arguments).expect("a String takes everything");
    }
}

/// A label's value as it stands between quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::LogFiles;
    use crate::types::{Offset, PartitionIndex, TopicName};

    struct Nothing;

    impl NodeStatus for Nothing {
        fn not_ready(&self) -> Vec<String> {
            Vec::new()
        }

        fn sample(&self) -> NodeSample {
            NodeSample::default()
        }
    }

    #[test]
    fn labels_are_escaped_and_histograms_add_up() {
        let mut lines = Lines::default();
        lines.sample("a", &[("b", "say \"hi\"\\\n")], 1.5);
        lines.sample("c", &[], 7);
        let histogram = Histogram::new(&[500, 1_000_000]);
        [400, 500, 2_000_000].into_iter().for_each(|value| histogram.observe(value));
        lines.histogram("h", &histogram, 1e6);
        assert_eq!(
            lines.text,
            "a{b=\"say \\\"hi\\\"\\\\\\n\"} 1.5\nc 7\nh_bucket{le=\"0.0005\"} 2\nh_bucket{le=\"1\"} 2\n\
             h_bucket{le=\"+Inf\"} 3\nh_sum 2.0009\nh_count 3\n"
        );
    }

    #[test]
    fn many_partitions_come_in_pieces_each_of_whole_lines_and_each_family_together() {
        let metrics = Arc::new(Metrics::default());
        let topic = TopicName::new("t").expect("legal");
        let enter = |n| metrics.partitions.enter(topic.clone(), PartitionIndex(n), LogFiles::default);
        let held: Vec<_> = (0..2_000).map(enter).collect();
        held[1_234].moved(Offset(5), Offset(6), Offset(7));
        let mut scrape = Scrape::begin(&metrics, &Nothing);
        let pieces: Vec<Bytes> = std::iter::from_fn(|| scrape.next_piece()).collect();
        assert!(pieces.len() > 10, "{} pieces", pieces.len());
        assert!(pieces.iter().all(|piece| piece.ends_with(b"\n") && piece.len() < 2 * PIECE_BYTES));
        let text = String::from_utf8(pieces.concat()).expect("text");
        let of_family: Vec<usize> = text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.starts_with("callboard_partition_log_start_offset{"))
            .map(|(at, _)| at)
            .collect();
        assert_eq!(of_family.len(), 2_000);
        assert_eq!(of_family[1_999] - of_family[0], 1_999, "nothing stands between");
        assert!(text.contains("callboard_partition_high_watermark{topic=\"t\",partition=\"1234\"} 6\n"));
    }
}

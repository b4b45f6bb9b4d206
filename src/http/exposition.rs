//! What a scrape answers, in Prometheus' text format, version 0.0.4. The `prometheus` library writes it, from samples that are
//! gathered for one metric at a time: a node with ten thousand partitions has ten megabytes to tell, of which one metric is in
//! memory at a time.
//!
//! ```text
//!   Scrape: for each Family of the catalogue
//!     (node | partitions) ─► FamilySamples ─► TextEncoder ─► text ─ next_piece ─► the socket
//! ```
//!
//! Nothing is registered with the library, and nothing counts with it: docs/adr/0010-http-and-metrics.md.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily};
use prometheus::{Encoder, TextEncoder};

use super::catalogue::{CATALOGUE, Family, Kind, Samples};
use super::process::ProcessSample;
use super::{NodeSample, NodeStatus};
use crate::metrics::{Histogram, Metrics, PartitionMetrics};

/// What the format is called in HTTP. The library leaves the letters' encoding out.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A piece has this much at most: about what a socket takes at once.
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

/// One scrape, as far as it has been written. The values of a metric are read when it is written.
pub struct Scrape {
    source: Source,
    partitions: Vec<Arc<PartitionMetrics>>,
    /// The metric to be written next.
    family: usize,
    /// What was written and not taken yet: the rest of one metric, or a few small ones.
    text: BytesMut,
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
        Self { partitions: metrics.partitions.all(), source, family: 0, text: BytesMut::new() }
    }

    /// The next piece, which may end anywhere in a line.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        while self.text.len() < PIECE_BYTES
            && let Some(family) = CATALOGUE.get(self.family)
        {
            self.gather(family).write(&mut self.text);
            self.family += 1;
        }
        let bytes = self.text.len().min(PIECE_BYTES);
        (bytes > 0).then(|| self.text.split_to(bytes).freeze())
    }

    fn gather<'a>(&self, family: &'a Family) -> FamilySamples<'a> {
        let mut samples = FamilySamples { family, metrics: Vec::new() };
        match family.samples {
            Samples::One(value) => samples.sample(&[], value(&self.source)),
            Samples::Several(gather) => gather(&self.source, &mut samples),
            Samples::Histogram { of, unit } => samples.histogram(of(&self.source), unit),
            Samples::Partitions(value) => {
                samples.metrics.reserve_exact(self.partitions.len());
                for entry in &self.partitions {
                    samples.sample(&[entry.topic.as_str(), &entry.partition.to_string()], value(entry) as f64);
                }
            }
        }
        samples
    }
}

/// For the body of a response.
impl Stream for Scrape {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.get_mut().next_piece().map(Ok))
    }
}

/// The samples of one metric, as they are gathered.
pub struct FamilySamples<'a> {
    family: &'a Family,
    metrics: Vec<Metric>,
}

impl FamilySamples<'_> {
    /// A sample with the values of the metric's labels, in their order. Histograms have none such.
    pub fn sample(&mut self, labels: &[&str], value: f64) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "a value for each label of {}", self.family.name);
        let named = self.family.labels.iter().zip(labels).map(|(name, value)| label(name, value));
        let mut metric = Metric::from_label(named.collect());
        if self.family.kind == Kind::Counter {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    fn histogram(&mut self, counted: &Histogram, unit: f64) {
        let (ranges, count, sum) = counted.read();
        let bucket = |(bound, up_to)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound as f64 / unit);
            bucket.set_cumulative_count(up_to);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(ranges.into_iter().map(bucket).collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum as f64 / unit);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// Writes the metric; nothing of one without samples, such as those of partitions where there are none.
    fn write(self, text: &mut BytesMut) {
        // The encoder calls that an error.
        if self.metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.family.name.to_owned());
        family.set_help(self.family.help.to_owned());
        family.set_field_type(self.family.kind.metric_type());
        family.set_metric(self.metrics);
        TextEncoder::new().encode(&[family], &mut text.writer()).expect("a name and samples, written to memory");
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
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

    /// A metric of this kind, written with the samples that `gather` gives it.
    fn written(kind: Kind, labels: &'static [&'static str], gather: impl FnOnce(&mut FamilySamples<'_>)) -> String {
        let family = Family { name: "m", kind, help: "Help.", labels, samples: Samples::One(|_| 0.0) };
        let (mut samples, mut text) = (FamilySamples { family: &family, metrics: Vec::new() }, BytesMut::new());
        gather(&mut samples);
        samples.write(&mut text);
        String::from_utf8(text.to_vec()).expect("text")
    }

    #[test]
    fn labels_are_escaped_and_histograms_add_up() {
        assert_eq!(
            written(Kind::Gauge, &["b"], |samples| samples.sample(&["say \"hi\"\\\n"], 1.5)),
            "# HELP m Help.\n# TYPE m gauge\nm{b=\"say \\\"hi\\\"\\\\\\n\"} 1.5\n"
        );
        assert_eq!(
            written(Kind::Counter, &[], |samples| samples.sample(&[], 7.0)),
            "# HELP m Help.\n# TYPE m counter\nm 7\n"
        );
        let histogram = Histogram::new(&[500, 1_000_000]);
        [400, 500, 2_000_000].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!(
            written(Kind::Histogram, &[], |samples| samples.histogram(&histogram, 1e6)),
            "# HELP m Help.\n# TYPE m histogram\nm_bucket{le=\"0.0005\"} 2\nm_bucket{le=\"1\"} 2\n\
             m_bucket{le=\"+Inf\"} 3\nm_sum 2.0009\nm_count 3\n"
        );
    }

    #[test]
    fn a_metric_without_samples_is_left_out() {
        assert_eq!(written(Kind::Counter, &["b"], |_| ()), "");
    }

    #[test]
    fn many_partitions_come_in_pieces_and_each_metric_together() {
        let metrics = Arc::new(Metrics::default());
        let topic = TopicName::new("t").expect("legal");
        let enter = |n| metrics.partitions.enter(topic.clone(), PartitionIndex(n), LogFiles::default);
        let held: Vec<_> = (0..2_000).map(enter).collect();
        held[1_234].moved(Offset(5), Offset(6), Offset(7));
        let mut scrape = Scrape::begin(&metrics, &Nothing);
        let (mut pieces, mut most_waiting) = (Vec::new(), 0);
        while let Some(piece) = scrape.next_piece() {
            most_waiting = most_waiting.max(scrape.text.len());
            pieces.push(piece);
        }
        assert!(pieces.len() > 10, "{} pieces", pieces.len());
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        let text = String::from_utf8(pieces.concat()).expect("text");
        assert!(most_waiting < text.len() / 5, "{most_waiting} of {} bytes wait", text.len());
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

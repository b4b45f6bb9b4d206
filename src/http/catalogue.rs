//! Every metric there is: name, kind, help, labels, and where its value comes from. docs/metrics.md documents the same, and a
//! test compares the two.
//!
//! Names follow Prometheus' conventions: the unit at the end, base units (bytes, seconds), `_total` for what only rises.

use prometheus::proto::MetricType;

use super::exposition::{FamilySamples, Source};
use super::process::ProcessSample;
use crate::metrics::{Histogram, PartitionMetrics};

/// Which kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, and begins at 0 when the node starts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many values fell into each range.
    Histogram,
}

impl Kind {
    /// What the encoder calls it.
    #[must_use]
    pub fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::COUNTER,
            Self::Gauge => MetricType::GAUGE,
            Self::Histogram => MetricType::HISTOGRAM,
        }
    }
}

/// Where the values come from.
#[derive(Clone, Copy)]
pub enum Samples {
    /// One value.
    One(fn(&Source) -> f64),
    /// A value for each partition, with the labels `topic` and `partition`.
    Partitions(fn(&PartitionMetrics) -> u64),
    /// Values with labels of their own.
    Several(fn(&Source, &mut FamilySamples<'_>)),
    /// A histogram, counted in parts of the unit.
    Histogram {
        /// The counts.
        of: fn(&Source) -> &Histogram,
        /// How many of what is counted make one of the metric's unit.
        unit: f64,
    },
}

/// One metric, with all its labels' values.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it is, in a line.
    pub help: &'static str,
    /// The labels, in order.
    pub labels: &'static [&'static str],
    /// Where the values come from.
    pub samples: Samples,
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Source) -> f64) -> Family {
    Family { name, kind: Kind::Gauge, help, labels: &[], samples: Samples::One(value) }
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Source) -> f64) -> Family {
    Family { name, kind: Kind::Counter, help, labels: &[], samples: Samples::One(value) }
}

const fn each(kind: Kind, name: &'static str, help: &'static str, value: fn(&PartitionMetrics) -> u64) -> Family {
    Family { name, kind, help, labels: &["topic", "partition"], samples: Samples::Partitions(value) }
}

const fn several(
    kind: Kind,
    (name, labels): (&'static str, &'static [&'static str]),
    help: &'static str,
    write: fn(&Source, &mut FamilySamples<'_>),
) -> Family {
    Family { name, kind, help, labels, samples: Samples::Several(write) }
}

const fn histogram(name: &'static str, help: &'static str, of: fn(&Source) -> &Histogram, unit: f64) -> Family {
    Family { name, kind: Kind::Histogram, help, labels: &[], samples: Samples::Histogram { of, unit } }
}

/// Every metric, in the order in which they are served.
pub const CATALOGUE: &[Family] = &[
    several(
        Kind::Gauge,
        ("callboard_build_info", &["version"]),
        "The version of the program; always 1.",
        |_, samples| samples.sample(&[env!("CARGO_PKG_VERSION")], 1.0),
    ),
    gauge("callboard_ready", "Whether the node can acknowledge records: what /ready answers.", |source| {
        f64::from(u8::from(source.ready))
    }),
    gauge("callboard_topics", "Topics of the cluster.", |source| source.node.topics as f64),
    several(
        Kind::Gauge,
        ("callboard_partitions", &["state"]),
        "Partitions of this node, by state.",
        |source, samples| {
            samples.sample(&["online"], source.node.partitions_online as f64);
            samples.sample(&["offline"], source.node.partitions_offline as f64);
        },
    ),
    gauge("callboard_partitions_led", "Partitions that this node leads.", |source| source.node.partitions_led as f64),
    several(
        Kind::Gauge,
        ("callboard_cluster_brokers", &["state"]),
        "Brokers of the cluster, by state.",
        |source, samples| {
            let cluster = &source.node.cluster;
            samples.sample(&["up"], cluster.brokers_up as f64);
            samples.sample(&["stopping"], cluster.brokers_stopping as f64);
            samples.sample(&["fenced"], cluster.brokers_fenced as f64);
        },
    ),
    several(
        Kind::Gauge,
        ("callboard_cluster_partitions", &["trouble"]),
        "Partitions of the cluster that are not as they should be. One counts wherever it fits.",
        |source, samples| {
            let cluster = &source.node.cluster;
            samples.sample(&["without_leader"], cluster.without_leader as f64);
            samples.sample(&["below_minimum"], cluster.below_minimum as f64);
            samples.sample(&["under_replicated"], cluster.under_replicated as f64);
        },
    ),
    gauge("callboard_controller_active", "Whether this controller decides.", |source| {
        source.metrics.controller.active.get() as f64
    }),
    gauge("callboard_controller_has_leader", "Whether this controller knows of one that leads.", |source| {
        source.metrics.controller.has_leader.get() as f64
    }),
    several(
        Kind::Gauge,
        ("callboard_controllers", &["role"]),
        "Controllers of the cluster that this one knows of, by role.",
        |source, samples| {
            samples.sample(&["voter"], source.metrics.controller.voters.get() as f64);
            samples.sample(&["learner"], source.metrics.controller.learners.get() as f64);
        },
    ),
    gauge("callboard_raft_term", "The term of Raft that this controller is in.", |source| {
        source.metrics.controller.term.get() as f64
    }),
    several(
        Kind::Gauge,
        ("callboard_raft_log_index", &["position"]),
        "Entries of the metadata log: the newest one here, and the newest one that was applied.",
        |source, samples| {
            samples.sample(&["last"], source.metrics.controller.last_index.get() as f64);
            samples.sample(&["applied"], source.metrics.controller.applied_index.get() as f64);
        },
    ),
    several(
        Kind::Gauge,
        ("callboard_broker_lease_seconds", &["broker"]),
        "For how long a broker is counted on without another sign of life, at the controller that decides.",
        |source, samples| {
            for (node, left) in source.metrics.controller.leases() {
                samples.sample(&[&node.to_string()], left.as_secs_f64());
            }
        },
    ),
    several(Kind::Gauge, ("callboard_connections", &["listener"]), "Connections that are open.", |source, samples| {
        samples.sample(&["native"], source.node.native.open as f64);
        samples.sample(&["http"], source.metrics.http.open.get() as f64);
    }),
    several(
        Kind::Counter,
        ("callboard_connections_accepted_total", &["listener"]),
        "Connections that were let in.",
        |source, samples| {
            samples.sample(&["native"], source.node.native.accepted as f64);
            samples.sample(&["http"], source.metrics.http.accepted.get() as f64);
        },
    ),
    several(
        Kind::Counter,
        ("callboard_connections_refused_total", &["listener", "reason"]),
        "Connections that were refused, by the limit that was reached.",
        |source, samples| {
            let native = &source.node.native;
            samples.sample(&["native", "max_connections"], native.refused_by_node_limit as f64);
            samples.sample(&["native", "max_connections_per_address"], native.refused_by_address_limit as f64);
        },
    ),
    several(
        Kind::Counter,
        ("callboard_requests_total", &["api"]),
        "Requests that came in, by kind.",
        |source, samples| {
            for (api, count) in source.metrics.requests.requests() {
                samples.sample(&[&format!("{api:?}")], count as f64);
            }
        },
    ),
    several(
        Kind::Counter,
        ("callboard_request_errors_total", &["api", "code"]),
        "Errors that were answered, for whole requests and for single items of one, by kind of request and code.",
        |source, samples| {
            for (api, code, count) in source.metrics.requests.errors() {
                let api = api.map_or("none".to_owned(), |api| format!("{api:?}"));
                samples.sample(&[&api, code.name()], count as f64);
            }
        },
    ),
    several(
        Kind::Gauge,
        ("callboard_memory_used_bytes", &["budget"]),
        "Memory taken of a budget.",
        |source, samples| {
            for budget in &source.node.budgets {
                samples.sample(&[budget.name], budget.used_bytes as f64);
            }
        },
    ),
    several(
        Kind::Gauge,
        ("callboard_memory_limit_bytes", &["budget"]),
        "Memory that a budget has.",
        |source, samples| {
            for budget in &source.node.budgets {
                samples.sample(&[budget.name], budget.limit_bytes as f64);
            }
        },
    ),
    gauge("callboard_disk_free_bytes", "Free space on the disk of the data directory.", |source| {
        source.metrics.disk.free_bytes.get() as f64
    }),
    gauge("callboard_disk_full", "Whether appends are refused because the disk is nearly full.", |source| {
        f64::from(u8::from(source.metrics.disk.refusing().is_some()))
    }),
    histogram(
        "callboard_log_sync_seconds",
        "How long syncs of partition logs took.",
        |source| &source.metrics.partitions.logs().sync_ns,
        1e9,
    ),
    histogram(
        "callboard_log_write_batches",
        "Record batches that went into one write of a partition log.",
        |source| &source.metrics.partitions.logs().write_batches,
        1.0,
    ),
    histogram(
        "callboard_log_write_bytes",
        "Bytes that went into one write of a partition log.",
        |source| &source.metrics.partitions.logs().write_bytes,
        1.0,
    ),
    counter("callboard_scrub_bytes_total", "Bytes that the background scrub has read.", |source| {
        source.metrics.scrub.bytes.get() as f64
    }),
    counter(
        "callboard_scrub_damage_found_total",
        "Damaged ranges of offsets that the background scrub was the first to find.",
        |source| source.metrics.scrub.damage_found.get() as f64,
    ),
    counter(
        "callboard_scrub_rounds_total",
        "Rounds of the background scrub through all replicas that came to their end.",
        |source| source.metrics.scrub.rounds.get() as f64,
    ),
    gauge(
        "callboard_scrub_last_round_seconds",
        "When the newest round of the background scrub ended, in seconds since 1970; 0 before that.",
        |source| source.metrics.scrub.last_round_ended_ms.get() as f64 / 1e3,
    ),
    each(Kind::Gauge, "callboard_partition_log_start_offset", "The first offset that the log holds.", |partition| {
        partition.log_start.get()
    }),
    each(Kind::Gauge, "callboard_partition_log_end_offset", "The end of what is written, exclusive.", |partition| {
        partition.log_end.get()
    }),
    each(
        Kind::Gauge,
        "callboard_partition_high_watermark",
        "The end of what is committed, exclusive: consumers read up to here.",
        |partition| partition.high_watermark.get(),
    ),
    each(Kind::Gauge, "callboard_partition_size_bytes", "Bytes of records in all segments.", |partition| {
        partition.files().size_bytes
    }),
    each(Kind::Gauge, "callboard_partition_segments", "Segments of the log.", |partition| partition.files().segments),
    each(
        Kind::Gauge,
        "callboard_partition_damaged_ranges",
        "Ranges of offsets that are known to be damaged and are not served.",
        |partition| partition.files().damaged_ranges,
    ),
    each(
        Kind::Gauge,
        "callboard_partition_write_queue_bytes",
        "Bytes that were accepted and wait for their write.",
        |partition| partition.write_queue_bytes.get(),
    ),
    each(Kind::Counter, "callboard_partition_records_in_total", "Records appended.", |partition| {
        partition.records_in.get()
    }),
    each(
        Kind::Counter,
        "callboard_partition_bytes_in_total",
        "Bytes of record batches appended, as sent (compressed).",
        |partition| partition.bytes_in.get(),
    ),
    each(Kind::Counter, "callboard_partition_records_out_total", "Records that consumers fetched.", |partition| {
        partition.records_out.get()
    }),
    each(
        Kind::Counter,
        "callboard_partition_bytes_out_total",
        "Bytes of record batches that consumers fetched.",
        |partition| partition.bytes_out.get(),
    ),
    several(
        Kind::Counter,
        ("process_cpu_seconds_total", &[]),
        "CPU time of the process, in user mode and in the kernel.",
        |source, samples| process(source, samples, |process| process.cpu_seconds),
    ),
    several(Kind::Gauge, ("process_resident_memory_bytes", &[]), "Memory of the process in RAM.", |source, samples| {
        process(source, samples, |process| process.resident_bytes as f64);
    }),
    several(Kind::Gauge, ("process_virtual_memory_bytes", &[]), "Address space of the process.", |source, samples| {
        process(source, samples, |process| process.virtual_bytes as f64);
    }),
    several(Kind::Gauge, ("process_open_fds", &[]), "Open file descriptors.", |source, samples| {
        process(source, samples, |process| process.open_fds as f64);
    }),
    several(Kind::Gauge, ("process_max_fds", &[]), "How many file descriptors there may be.", |source, samples| {
        process(source, samples, |process| process.max_fds as f64);
    }),
    several(Kind::Gauge, ("process_threads", &[]), "Threads of the process.", |source, samples| {
        process(source, samples, |process| process.threads as f64);
    }),
    several(
        Kind::Gauge,
        ("process_start_time_seconds", &[]),
        "When the process started, in seconds since 1970.",
        |source, samples| process(source, samples, |process| process.start_time_seconds),
    ),
];

fn process(source: &Source, samples: &mut FamilySamples<'_>, value: fn(&ProcessSample) -> f64) {
    if let Some(process) = &source.process {
        samples.sample(&[], value(process));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_follow_the_conventions() {
        let names: BTreeSet<_> = CATALOGUE.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), CATALOGUE.len());
        for Family { name, kind, help, samples, .. } in CATALOGUE {
            assert!(name.starts_with("callboard_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(matches!(samples, Samples::Histogram { .. }), *kind == Kind::Histogram, "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
        }
    }
}

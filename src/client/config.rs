//! What can be set on a client, a producer and a consumer. Every limit has its default and its reason here.

use std::time::Duration;

use super::ClientError;
use crate::protocol::messages::Acks;
use crate::types::record_batch::Compression;
use crate::types::{Offset, TimestampMs};

/// The most batches of one partition that an idempotent producer may have in flight: brokers remember that many to
/// recognise a retry (Kafka's number).
pub const MAX_IDEMPOTENT_IN_FLIGHT: usize = 5;

macro_rules! with_setters {
    ($name:ident { $($(#[$doc:meta])* $field:ident: $kind:ty,)* }) => {
        impl $name {
            $($(#[$doc])*
            #[must_use]
            pub fn $field(mut self, $field: $kind) -> Self {
                self.$field = $field;
                self
            })*
        }
    };
}

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where to ask first, `host:port` each. Tried in turn, the next when one fails or has not answered within 250 ms; one that
    /// answers is enough, it names the others.
    pub bootstrap: Vec<String>,
    /// What this client calls itself in the brokers' logs, at most 255 bytes.
    pub client_id: String,
    /// How long opening one connection may take, `Hello` included. A machine that accepts none within two seconds is given up
    /// before.
    pub connect_timeout: Duration,
    /// How long one request may take (a long poll: on top of its waiting time). A connection that misses it is given up.
    pub request_timeout: Duration,
    /// How long an administrative or read request is retried in all.
    pub delivery_timeout: Duration,
    /// Leaders and addresses are asked for again when what is known is older than this.
    pub metadata_max_age: Duration,
    /// How long to wait for a topic that nobody knows yet, before the error. Covers the moment after its creation.
    pub unknown_topic_wait: Duration,
    /// The largest frame sent or taken, in bytes. Brokers name their own limit; the smaller one holds.
    pub max_frame_bytes: usize,
    /// The most requests without a reply on one connection. Bounds the memory of the table that matches replies.
    pub max_in_flight: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap: vec!["127.0.0.1:9644".to_owned()],
            client_id: "callboard-client".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(30),
            metadata_max_age: Duration::from_secs(300),
            unknown_topic_wait: Duration::from_secs(1),
            max_frame_bytes: 64 << 20,
            max_in_flight: 1_024,
        }
    }
}

impl ClientConfig {
    /// The defaults, asking at `bootstrap` first: one `host:port`, or several with commas between them.
    #[must_use]
    pub fn new(bootstrap: impl AsRef<str>) -> Self {
        let list = bootstrap.as_ref().split(',').map(str::trim).filter(|address| !address.is_empty());
        Self { bootstrap: list.map(str::to_owned).collect(), ..Self::default() }
    }

    /// Sets [`ClientConfig::client_id`].
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = client_id.into();
        self
    }

    pub(super) fn validate(&self) -> Result<(), ClientError> {
        check("bootstrap", !self.bootstrap.is_empty(), "give at least one host:port")?;
        check("client_id", self.client_id.len() <= 255, "give at most 255 bytes")?;
        check("max_frame_bytes", self.max_frame_bytes >= 16 << 10, "give at least 16384")?;
        check("max_in_flight", self.max_in_flight > 0, "give at least 1")
    }
}

with_setters!(ClientConfig {
    /// Sets [`ClientConfig::connect_timeout`].
    connect_timeout: Duration,
    /// Sets [`ClientConfig::request_timeout`].
    request_timeout: Duration,
    /// Sets [`ClientConfig::delivery_timeout`].
    delivery_timeout: Duration,
    /// Sets [`ClientConfig::metadata_max_age`].
    metadata_max_age: Duration,
    /// Sets [`ClientConfig::unknown_topic_wait`].
    unknown_topic_wait: Duration,
    /// Sets [`ClientConfig::max_frame_bytes`].
    max_frame_bytes: usize,
});

/// How a producer batches, and what an acknowledgement means to it.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// When a record counts as delivered.
    pub acks: Acks,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a record waits for company at least. With 0 a batch goes out at once while nothing else of its partition
    /// is on its way, and fills up behind one that is: quiet producers are quick, busy ones send full batches.
    pub linger: Duration,
    /// A batch is closed when its records have this many bytes. A larger record travels alone.
    pub batch_bytes: usize,
    /// The most bytes of records that wait or are on their way. [`super::Producer::send`] waits for room beyond it. Up to half
    /// as much again is kept of batches that were acknowledged, to be used once more.
    pub buffer_bytes: usize,
    /// The most requests in flight to one broker, and batches in flight of one partition.
    pub max_in_flight: usize,
    /// Whether a retry can never become a duplicate. Needs `acks = all`.
    pub idempotence: bool,
    /// How long a record may take from [`super::Producer::send`] until it is acknowledged, retries included.
    pub delivery_timeout: Duration,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            compression: Compression::None,
            linger: Duration::ZERO,
            batch_bytes: 64 << 10,
            buffer_bytes: 32 << 20,
            max_in_flight: MAX_IDEMPOTENT_IN_FLIGHT,
            idempotence: true,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

impl ProducerConfig {
    /// Sets [`ProducerConfig::acks`]. Anything but [`Acks::All`] turns idempotence off, because it needs acknowledgements
    /// that hold.
    #[must_use]
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        if acks != Acks::All {
            self.idempotence = false;
        }
        self
    }

    pub(super) fn validate(&self) -> Result<(), ClientError> {
        check(
            "idempotence",
            !self.idempotence || self.acks == Acks::All,
            "it needs acks = all: turn it off, or use acks = all",
        )?;
        check("batch_bytes", (1..=1 << 30).contains(&self.batch_bytes), "give 1 to 1073741824")?;
        check("buffer_bytes", self.buffer_bytes >= self.batch_bytes, "give at least batch_bytes")?;
        check("max_in_flight", self.max_in_flight > 0, "give at least 1")?;
        check(
            "max_in_flight",
            !self.idempotence || self.max_in_flight <= MAX_IDEMPOTENT_IN_FLIGHT,
            "give at most 5 with idempotence: brokers remember that many batches to recognise a retry",
        )?;
        check("delivery_timeout", self.delivery_timeout > self.linger, "give more than linger")
    }
}

with_setters!(ProducerConfig {
    /// Sets [`ProducerConfig::compression`].
    compression: Compression,
    /// Sets [`ProducerConfig::linger`].
    linger: Duration,
    /// Sets [`ProducerConfig::batch_bytes`].
    batch_bytes: usize,
    /// Sets [`ProducerConfig::buffer_bytes`].
    buffer_bytes: usize,
    /// Sets [`ProducerConfig::max_in_flight`].
    max_in_flight: usize,
    /// Sets [`ProducerConfig::idempotence`].
    idempotence: bool,
    /// Sets [`ProducerConfig::delivery_timeout`].
    delivery_timeout: Duration,
});

/// What a consumer does when the offset it wants is not in the log: deleted by retention, or cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfRange {
    /// Goes on with the first record that there is.
    #[default]
    Earliest,
    /// Goes on with the next record to come.
    Latest,
    /// Ends with [`ClientError::OffsetOutOfRange`]; [`super::Consumer::seek`] goes on.
    Error,
}

/// Which replicas a consumer reads. Offsets are asked of leaders in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The leader of each partition.
    #[default]
    Leader,
    /// Any replica that is in sync, the leader among them. Each consumer begins with another one and stays with it, so that
    /// many consumers spread over all replicas.
    Any,
    /// A replica that is in sync on a broker of this rack; the leader while there is none.
    Rack(String),
}

/// What a consumer does about records that are damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damaged {
    /// Ends with [`ClientError::Damaged`]; [`super::Consumer::seek`] goes on.
    #[default]
    Error,
    /// Leaves them out, with a warning in the log.
    Skip,
}

/// How a consumer reads.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// How long a fetch may wait at the broker for records. A longer wait is fewer requests, never more latency.
    pub max_wait: Duration,
    /// The broker answers once this many bytes are there, or `max_wait` is over.
    pub min_bytes: usize,
    /// About how many bytes one fetch brings.
    pub max_bytes: usize,
    /// About how many bytes one fetch brings of one partition.
    pub partition_max_bytes: usize,
    /// About how many bytes are fetched ahead of [`super::Consumer::recv`]; at most one fetch's first batch more.
    pub prefetch_bytes: usize,
    /// Which replicas are read. Another one than the leader has records a little later; it has the same ones.
    pub read_from: ReadFrom,
    /// What to do when an offset is not in the log.
    pub out_of_range: OutOfRange,
    /// The most bytes that a compressed batch may inflate to.
    pub inflate_limit_bytes: usize,
    /// What to do about damaged records.
    pub on_damaged: Damaged,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 8 << 20,
            partition_max_bytes: 1 << 20,
            prefetch_bytes: 16 << 20,
            read_from: ReadFrom::Leader,
            out_of_range: OutOfRange::Earliest,
            inflate_limit_bytes: 64 << 20,
            on_damaged: Damaged::Error,
        }
    }
}

impl ConsumerConfig {
    pub(super) fn validate(&self) -> Result<(), ClientError> {
        check("max_bytes", self.max_bytes > 0, "give at least 1")?;
        check("partition_max_bytes", self.partition_max_bytes > 0, "give at least 1")?;
        check("prefetch_bytes", self.prefetch_bytes > 0, "give at least 1")?;
        check("inflate_limit_bytes", self.inflate_limit_bytes > 0, "give at least 1")
    }
}

with_setters!(ConsumerConfig {
    /// Sets [`ConsumerConfig::max_wait`].
    max_wait: Duration,
    /// Sets [`ConsumerConfig::min_bytes`].
    min_bytes: usize,
    /// Sets [`ConsumerConfig::max_bytes`].
    max_bytes: usize,
    /// Sets [`ConsumerConfig::partition_max_bytes`].
    partition_max_bytes: usize,
    /// Sets [`ConsumerConfig::prefetch_bytes`].
    prefetch_bytes: usize,
    /// Sets [`ConsumerConfig::read_from`].
    read_from: ReadFrom,
    /// Sets [`ConsumerConfig::out_of_range`].
    out_of_range: OutOfRange,
    /// Sets [`ConsumerConfig::inflate_limit_bytes`].
    inflate_limit_bytes: usize,
    /// Sets [`ConsumerConfig::on_damaged`].
    on_damaged: Damaged,
});

/// Where to start reading a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// The first record that there is.
    Earliest,
    /// The next record to come.
    Latest,
    /// This offset.
    Offset(Offset),
    /// The first record with this timestamp or a later one; the next to come when there is none.
    Timestamp(TimestampMs),
}

fn check(setting: &'static str, holds: bool, reason: &'static str) -> Result<(), ClientError> {
    if holds { Ok(()) } else { Err(ClientError::InvalidConfig { setting, reason }) }
}

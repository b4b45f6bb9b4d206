//! Error codes of the native protocol, shared by every layer that answers clients.

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $retry:literal;)*) => {
        /// What went wrong, as a number that never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "u16", into = "u16")]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its number on the wire.
            #[must_use]
            pub fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// Its name on command lines and in documents.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether the same request may succeed later, after refreshing metadata where that helps.
            #[must_use]
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }
        }

        impl From<u16> for ErrorCode {
            fn from(number: u16) -> Self {
                match number { $($number => Self::$name,)* _ => Self::Unknown }
            }
        }
    };
}

error_codes! {
    /// A code that this version does not know, or a fault inside the node. The message says more.
    Unknown = 1, "unknown", false;
    /// The frame or its body does not have the documented form.
    InvalidRequest = 2, "invalid-request", false;
    /// No such request number.
    UnknownApi = 3, "unknown-api", false;
    /// The request exists, this version of it is not served.
    UnsupportedVersion = 4, "unsupported-version", false;
    /// Something came before `Hello`.
    HelloRequired = 5, "hello-required", false;
    /// The frame is larger than the limit in force.
    FrameTooLarge = 6, "frame-too-large", false;
    /// Too many connections, requests, topics or partitions. The message names the config key.
    LimitExceeded = 7, "limit-exceeded", true;
    /// The node is busy beyond its limits right now.
    Overloaded = 8, "overloaded", true;
    /// The principal lacks the right.
    NotAuthorized = 9, "not-authorized", false;
    /// The node is stopping.
    ShuttingDown = 10, "shutting-down", true;
    /// The deadline of the request passed. What it asked for may still happen.
    TimedOut = 11, "timed-out", true;
    /// No topic of that name or id, or no partition of that number.
    UnknownTopicOrPartition = 20, "unknown-topic-or-partition", true;
    /// A topic of that name exists.
    TopicExists = 21, "topic-exists", false;
    /// Empty, too long or with illegal characters.
    InvalidTopicName = 22, "invalid-topic-name", false;
    /// The number of partitions is 0 or above the limit.
    InvalidPartitions = 23, "invalid-partitions", false;
    /// The replication factor is 0 or above the number of brokers.
    InvalidReplicationFactor = 24, "invalid-replication-factor", false;
    /// An unknown setting or an illegal value.
    InvalidConfig = 25, "invalid-config", false;
    /// Another broker leads the partition, or none does.
    NotLeader = 30, "not-leader", true;
    /// The leader epoch in the request is older than the partition's.
    FencedLeaderEpoch = 31, "fenced-leader-epoch", true;
    /// The leader epoch in the request is newer than this broker knows.
    UnknownLeaderEpoch = 32, "unknown-leader-epoch", true;
    /// Fewer replicas are in sync than the topic demands.
    NotEnoughReplicas = 33, "not-enough-replicas", true;
    /// No broker is alive to place a partition on.
    NoLiveBroker = 34, "no-live-broker", true;
    /// This node is not the active controller.
    NotController = 35, "not-controller", true;
    /// The metadata has changed since the request was made up.
    StaleMetadata = 36, "stale-metadata", true;
    /// Between nodes: another cluster, node or data directory stands at this end than the other one looked for.
    WrongNode = 37, "wrong-node", false;
    /// A newer process of the broker has registered: this one is over.
    BrokerSuperseded = 38, "broker-superseded", false;
    /// The first replica of the partition is not in sync, or may not lead now.
    PreferredLeaderNotAvailable = 39, "preferred-leader-not-available", true;
    /// Below the log start offset or above the log end.
    OffsetOutOfRange = 40, "offset-out-of-range", false;
    /// The records there are damaged on this disk and are not served. The message names the next offset that is whole.
    DamagedLog = 41, "damaged-log", false;
    /// The replica is offline after a failed write or sync.
    StorageFailed = 42, "storage-failed", true;
    /// The disk is full, or nearly.
    DiskFull = 43, "disk-full", true;
    /// Wrong checksum, wrong counts or a malformed header.
    InvalidBatch = 50, "invalid-batch", false;
    /// A record format other than magic 2.
    UnsupportedFormat = 51, "unsupported-format", false;
    /// Larger than the topic's `max_batch_bytes`.
    BatchTooLarge = 52, "batch-too-large", false;
    /// The idempotent producer skipped a sequence number.
    OutOfOrderSequence = 60, "out-of-order-sequence", false;
    /// A newer instance of the producer exists.
    ProducerFenced = 61, "producer-fenced", false;
    /// The partition knows nothing of this producer id at this sequence.
    UnknownProducer = 62, "unknown-producer", false;
    /// A duplicate of a batch too old to remember where it went.
    DuplicateSequence = 63, "duplicate-sequence", false;
}

impl From<ErrorCode> for u16 {
    fn from(code: ErrorCode) -> Self {
        code.number()
    }
}

/// An error as it travels: a code for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong and what to do.
    pub message: String,
}

impl ApiError {
    /// An error with this code and sentence.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// See [`ErrorCode::is_retryable`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.code.is_retryable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_distinct_and_come_back() {
        let mut numbers: Vec<u16> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from(code.number()), *code);
        }
        assert_eq!(ErrorCode::from(9_999), ErrorCode::Unknown);
    }
}

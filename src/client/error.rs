//! What can go wrong for a client.

use std::time::Duration;

use crate::protocol::ApiError;
use crate::types::Offset;

/// Why a client's request, record or read failed. Cheap enough to clone: all records of a batch share one cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No bootstrap address, and no broker known, could be reached.
    #[error("cannot reach the cluster; tried {}: check that a node runs there", join(tried))]
    Unreachable {
        /// Each address and why it failed.
        tried: Vec<(String, String)>,
    },
    /// The connection broke, or could not be opened. What was asked on it may have happened.
    #[error("the connection to {address} is lost: {cause}")]
    Disconnected {
        /// The broker's address.
        address: String,
        /// Why.
        cause: String,
    },
    /// No reply came in time. What was asked may have happened.
    #[error("{address} did not answer within {} ms: raise request_timeout if it is only slow", after.as_millis())]
    RequestTimedOut {
        /// The broker's address.
        address: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// Too many requests are waiting on this connection.
    #[error(
        "{limit} requests to {address} are waiting for their replies already: raise max_in_flight or send less at once"
    )]
    Busy {
        /// The broker's address.
        address: String,
        /// The limit in force.
        limit: usize,
    },
    /// The other side does not speak the protocol as documented, or an incompatible version of it.
    #[error("{address} answered something that this client cannot use: {reason}")]
    Protocol {
        /// The address.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The cluster refused.
    #[error("{what}: {error}")]
    Refused {
        /// What was asked.
        what: String,
        /// The refusal.
        error: ApiError,
    },
    /// No such topic.
    #[error("topic '{topic}' does not exist: create it first (callboard topic create {topic})")]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// The topic that was written or read is gone.
    #[error("topic '{topic}' was deleted{}", if *recreated { " and created anew: start again to use the new one" } else { "" })]
    TopicDeleted {
        /// Its name.
        topic: String,
        /// Whether another topic has the name now.
        recreated: bool,
    },
    /// The topic has fewer partitions.
    #[error("topic '{topic}' has no partition {partition}: it has {partitions}, numbered from 0")]
    UnknownPartition {
        /// Its name.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// Nobody leads the partition at the moment.
    #[error("partition {partition} of topic '{topic}' has no leader now")]
    NoLeader {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// The partition is not assigned to this consumer.
    #[error("partition {partition} of topic '{topic}' is not assigned to this consumer: assign it first")]
    NotAssigned {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// A single record is above a limit.
    #[error(
        "the record has {bytes} bytes, more than the {limit} that {setting} allows: make it smaller or raise {setting}"
    )]
    RecordTooLarge {
        /// The record's encoded size.
        bytes: usize,
        /// The limit in force.
        limit: usize,
        /// The setting that holds it.
        setting: &'static str,
    },
    /// A record was not acknowledged in time. It may be in the log or not.
    #[error(
        "no acknowledgement from partition {partition} of topic '{topic}' within the delivery_timeout of {} ms; {}",
        after.as_millis(),
        last_error.as_ref().map_or_else(|| "nothing was answered".to_owned(), |error| format!("the last attempt failed: {error}"))
    )]
    DeliveryTimedOut {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The delivery timeout.
        after: Duration,
        /// Why the last attempt failed.
        last_error: Option<Box<ClientError>>,
    },
    /// The broker no longer knows what this producer sent, so another attempt could write the record twice.
    #[error(
        "the record may be in partition {partition} of topic '{topic}' already, and the broker cannot tell any more ({cause}): \
         read the partition before sending it again"
    )]
    OutcomeUnknown {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// What the broker said.
        cause: String,
    },
    /// A record could not be encoded.
    #[error("the batch for topic '{topic}' could not be encoded: {reason}")]
    Encode {
        /// The topic.
        topic: String,
        /// What is wrong.
        reason: String,
    },
    /// The offset is not in the log, and the consumer is told to stop then.
    #[error(
        "offset {offset} is not in partition {partition} of topic '{topic}', which holds {log_start_offset} up to but not \
         {end_offset}: seek to one of these, or set out_of_range to earliest or latest"
    )]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset wanted.
        offset: Offset,
        /// The first offset there is.
        log_start_offset: Offset,
        /// The end (exclusive) of what is committed.
        end_offset: Offset,
    },
    /// Records are damaged, and the consumer is told to stop then.
    #[error(
        "the records of partition {partition} of topic '{topic}' at offset {offset} cannot be read: {reason}; seek past them, or set \
         on_damaged to skip"
    )]
    Damaged {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Where.
        offset: Offset,
        /// What is wrong.
        reason: String,
    },
    /// A setting is outside its limits.
    #[error("the client setting {setting} is not valid: {reason}")]
    InvalidConfig {
        /// The setting.
        setting: &'static str,
        /// What to give instead.
        reason: &'static str,
    },
    /// Nothing is assigned, so nothing will ever come.
    #[error("no partition is assigned to this consumer: call assign first")]
    NothingAssigned,
    /// The producer or consumer was closed, or its last handle dropped, before this was done.
    #[error("the {what} was closed before this was done; close() or flush() wait for what was sent")]
    Closed {
        /// `producer` or `consumer`.
        what: &'static str,
    },
}

impl ClientError {
    /// Whether the same call may succeed later. Where a producer gives up, it has retried already.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Disconnected { .. }
            | Self::RequestTimedOut { .. }
            | Self::Busy { .. }
            | Self::NoLeader { .. }
            | Self::DeliveryTimedOut { .. } => true,
            Self::Refused { error, .. } => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether a request that failed like this may have been carried out all the same.
    pub(super) fn leaves_outcome_unknown(&self) -> bool {
        use crate::protocol::ErrorCode;
        match self {
            Self::Disconnected { .. } | Self::RequestTimedOut { .. } | Self::Protocol { .. } => true,
            // These are answered after the append may have been made.
            Self::Refused { error, .. } => matches!(
                error.code,
                ErrorCode::TimedOut
                    | ErrorCode::NotLeader
                    | ErrorCode::StorageFailed
                    | ErrorCode::ShuttingDown
                    | ErrorCode::Unknown
            ),
            _ => false,
        }
    }
}

fn join(tried: &[(String, String)]) -> String {
    let each: Vec<String> = tried.iter().map(|(address, why)| format!("{address} ({why})")).collect();
    each.join(", ")
}

//! What became of a record: one shared completion a batch, and a cheap future a record.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::client::connection::lock;
use crate::client::{ClientError, RecordMetadata};
use crate::types::{Offset, TimestampMs};

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// The offset of its first record, when somebody said.
    pub base_offset: Option<Offset>,
    /// The broker's time for all its records, with log-append time.
    pub append_time: Option<TimestampMs>,
}

/// Resolved once, for all records of a batch.
#[derive(Debug)]
pub(super) struct Completion {
    pub topic: Arc<str>,
    pub partition: u32,
    outcome: OnceLock<Result<Placed, ClientError>>,
    wakers: Mutex<Vec<Waker>>,
}

impl Completion {
    pub fn new(topic: Arc<str>, partition: u32) -> Arc<Self> {
        Arc::new(Self { topic, partition, outcome: OnceLock::new(), wakers: Mutex::default() })
    }

    /// The first outcome stands; whether this was it.
    pub fn resolve(&self, outcome: Result<Placed, ClientError>) -> bool {
        if self.outcome.set(outcome).is_err() {
            return false;
        }
        for waker in std::mem::take(&mut *lock(&self.wakers)) {
            waker.wake();
        }
        true
    }

    pub fn is_resolved(&self) -> bool {
        self.outcome.get().is_some()
    }
}

/// What became of one record: a future. Dropping it changes nothing about the record.
///
/// # Errors
/// [`ClientError::DeliveryTimedOut`], [`ClientError::Refused`], [`ClientError::OutcomeUnknown`], and
/// [`ClientError::Closed`] when the last handle of the producer was dropped before the record was acknowledged.
#[derive(Debug)]
#[must_use = "a record is only known to be delivered once its delivery says so"]
pub struct Delivery {
    completion: Arc<Completion>,
    /// The record's place in its batch.
    index: u32,
    timestamp: TimestampMs,
    /// Where this future's waker stands in the completion's list.
    waker: Option<usize>,
}

impl Delivery {
    pub(super) fn new(completion: Arc<Completion>, index: u32, timestamp: TimestampMs) -> Self {
        Self { completion, index, timestamp, waker: None }
    }

    /// The partition that the record goes to.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.completion.partition
    }

    /// Whether the outcome is known: the future is ready then.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.completion.is_resolved()
    }

    fn outcome(&self) -> Option<Result<RecordMetadata, ClientError>> {
        let placed = match self.completion.outcome.get()? {
            Ok(placed) => placed,
            Err(error) => return Some(Err(error.clone())),
        };
        Some(Ok(RecordMetadata {
            topic: Arc::clone(&self.completion.topic),
            partition: self.completion.partition,
            offset: placed.base_offset.map(|base| base.plus(self.index.into())),
            timestamp: placed.append_time.unwrap_or(self.timestamp),
        }))
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        let completion = Arc::clone(&self.completion);
        let mut wakers = lock(&completion.wakers);
        // Resolved meanwhile: whoever did it takes the list after this, or took it before and this waker would be lost.
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        match self.waker {
            Some(place) => wakers[place].clone_from(context.waker()),
            None => {
                self.waker = Some(wakers.len());
                wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

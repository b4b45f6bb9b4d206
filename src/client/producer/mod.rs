//! Sending records: batched by partition, compressed once, retried in order, each with a result of its own.
//!
//! ```text
//!   send() ─► accumulator: one open batch a partition ─► sender task ─► one request a leader ─► Connection
//!     │            ▲ room                                    │
//!     ▼            └────────────────────────────────────────┤ acknowledged, or failed for good
//!   Delivery ◄──────────── completion, one a batch ◄─────────┘
//! ```
//!
//! What is kept: records of one partition are appended in the order of the calls to `send`, through retries, too (with
//! idempotence, or with `max_in_flight = 1`); an idempotent record is appended at most once; every [`Delivery`] resolves.
//!
//! Reading order: [`partitioner`], `delivery`, `batch`, `partition`, `accumulator`, `sender`; then `topic`.

mod accumulator;
mod batch;
mod deliveries;
mod delivery;
mod partition;
pub mod partitioner;
mod sender;
mod topic;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::connection::lock;
use super::spare::Spares;
use super::{Client, ClientError, OutgoingRecord, ProducerConfig, RecordRef};
use crate::types::{Clock, SystemClock};
use accumulator::{Accumulator, Limits, News, Offered};
pub use deliveries::Deliveries;
pub use delivery::Delivery;
use sender::Sender;
pub use topic::TopicProducer;

/// Sends records. Cheap to clone; clones share batches and buffer, and may be used from many tasks. Who sends many records to one
/// topic uses [`Producer::topic`].
///
/// Dropping the last handle sends nothing more: what is not acknowledged by then fails with [`ClientError::Closed`]. Call
/// [`Producer::close`] or [`Producer::flush`] first.
///
/// ```
/// # use callboard::client::{Client, ClientConfig, OutgoingRecord, ProducerConfig};
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = callboard::testing::Node::start()?;
/// # let client = Client::connect(ClientConfig::new(node.address())).await?;
/// # client.admin().create_topic("rides", 3).await?;
/// let producer = client.producer(ProducerConfig::default()).await?;
/// let mut deliveries = Vec::new();
/// for number in 0..1_000 {
///     deliveries.push(producer.send(OutgoingRecord::to("rides").value(format!("position {number}"))).await?);
/// }
/// for delivery in deliveries {
///     delivery.await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// Counters of a producer since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerStats {
    /// Records that were taken by [`Producer::send`].
    pub sent_records: u64,
    /// Records that were acknowledged (with `acks = 0`: written to the connection).
    pub delivered_records: u64,
    /// Records that failed.
    pub failed_records: u64,
    /// Bytes of batches that were acknowledged, as they stand on the wire.
    pub delivered_bytes: u64,
    /// Batches that were acknowledged.
    pub delivered_batches: u64,
    /// Attempts after the first, counted in batches.
    pub retries: u64,
    /// Bytes of records waiting or on their way now.
    pub buffered_bytes: u64,
}

/// What all handles share. Its end is the producer's end.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    clock: SystemClock,
}

/// What the handles and the sender share.
#[derive(Debug)]
struct Shared {
    client: Client,
    config: ProducerConfig,
    state: Mutex<Accumulator>,
    /// Tells the sender that there is something to do.
    wake: Notify,
    /// Tells those who wait for room that there may be some.
    room: Notify,
    /// A batch was filled since anybody paused.
    owes_pause: AtomicBool,
}

/// A topic by name, and where it stands in the producer's table.
#[derive(Clone, Debug)]
struct TopicAt {
    name: Arc<str>,
    at: usize,
}

impl Producer {
    pub(super) fn start(client: Client, config: ProducerConfig) -> Result<Self, ClientError> {
        config.validate()?;
        // Half the buffer again, and never more than that, is kept to be used once more.
        let state = Accumulator::new(Spares::new(config.buffer_bytes / 2));
        let shared = Arc::new(Shared {
            client,
            config,
            state: Mutex::new(state),
            wake: Notify::new(),
            room: Notify::new(),
            owes_pause: AtomicBool::new(false),
        });
        tokio::spawn(Sender::new(Arc::clone(&shared)).run());
        Ok(Self { handle: Arc::new(Handle { shared, clock: SystemClock::start() }) })
    }

    /// A handle that sends to `topic` only: nothing is looked up for a record, and its bytes are borrowed.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], or that the cluster cannot be asked about the topic.
    pub async fn topic(&self, topic: &str) -> Result<TopicProducer, ClientError> {
        Ok(TopicProducer::new(self.clone(), self.find(topic).await?))
    }

    /// Takes a record; waits for room in the buffer only (and, the first time, to learn about the topic). The answer is a
    /// future that tells what became of the record.
    ///
    /// Dropped before it is ready, this has taken nothing.
    ///
    /// # Errors
    /// [`ClientError::RecordTooLarge`], [`ClientError::UnknownTopic`], [`ClientError::UnknownPartition`],
    /// [`ClientError::Closed`], or that the cluster cannot be asked about the topic.
    pub async fn send(&self, record: OutgoingRecord) -> Result<Delivery, ClientError> {
        self.take(&record.topic, None, RecordRef::from(&record)).await
    }

    /// `at` is where the topic stands in the table, if the caller knows.
    async fn take(&self, topic: &Arc<str>, at: Option<usize>, record: RecordRef<'_>) -> Result<Delivery, ClientError> {
        self.pause().await;
        let shared = &*self.handle.shared;
        loop {
            match self.offer(topic, at, &record)? {
                (Offered::Taken(news), Some(delivery)) => {
                    shared.tell(news);
                    return Ok(delivery);
                }
                (Offered::UnknownTopic, _) => drop(self.learn(topic).await?),
                _ => self.wait_for_room(&record).await,
            }
        }
    }

    fn offer(
        &self,
        topic: &str,
        at: Option<usize>,
        record: &RecordRef<'_>,
    ) -> Result<(Offered, Option<Delivery>), ClientError> {
        let shared = &*self.handle.shared;
        let limits = self.limits();
        let mut delivery = None;
        let note = |completion: &Arc<_>, index, time| {
            delivery = Some(Delivery::new(Arc::clone(completion), index, time));
        };
        let mut state = lock(&shared.state);
        let offered = match at.or_else(|| state.find_topic(topic)) {
            Some(at) => state.offer(at, record, &shared.config, limits, note)?,
            None => Offered::UnknownTopic,
        };
        Ok((offered, delivery))
    }

    /// A sender that never waits would starve the task that sends, on a runtime of one thread or when that was woken on this
    /// one: lets it run when a batch was filled, and now and then.
    async fn pause(&self) {
        if self.handle.shared.owes_pause.load(Ordering::Relaxed) {
            self.handle.shared.owes_pause.store(false, Ordering::Relaxed);
            tokio::task::yield_now().await;
        } else {
            tokio::task::coop::consume_budget().await;
        }
    }

    fn limits(&self) -> Limits {
        Limits { frame_bytes: self.handle.shared.client.frame_limit(), now: self.handle.clock.wall() }
    }

    /// The topic as it is known, or as it is learned now.
    async fn find(&self, name: &str) -> Result<TopicAt, ClientError> {
        let known = {
            let mut state = lock(&self.handle.shared.state);
            let at = state.find_topic(name).filter(|at| !state.topics[*at].is_gone);
            at.map(|at| TopicAt { name: Arc::clone(&state.topics[at].name), at })
        };
        match known {
            Some(known) => Ok(known),
            None => self.learn(&name.into()).await,
        }
    }

    async fn learn(&self, name: &Arc<str>) -> Result<TopicAt, ClientError> {
        let shared = &*self.handle.shared;
        let topic = shared.client.topic(name).await?;
        let mut state = lock(&shared.state);
        let (at, landed) = state.learn(&topic);
        state.finish(landed);
        Ok(TopicAt { name: Arc::clone(&topic.name), at })
    }

    async fn wait_for_room(&self, record: &RecordRef<'_>) {
        let shared = &*self.handle.shared;
        let room = shared.room.notified();
        tokio::pin!(room);
        // From here on no notification is missed, so the buffer can be looked at again.
        room.as_mut().enable();
        {
            let mut state = lock(&shared.state);
            if state.is_abandoned || state.is_closing || state.has_room(record, &shared.config) {
                return;
            }
            state.waiting_for_room += 1;
        }
        let _leaving = Waiting(shared);
        shared.wake.notify_one();
        room.await;
    }

    /// Sends all that was taken so far without lingering, and waits until it is acknowledged or has failed.
    ///
    /// # Errors
    /// The first failure among these records.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let shared = &*self.handle.shared;
        let completions = {
            let mut state = lock(&shared.state);
            for at in 0..state.active.len() {
                let slot = state.active[at];
                state.seal(slot);
            }
            let all = state.active.iter().flat_map(|slot| state.partitions[*slot].completions());
            all.collect::<Vec<_>>()
        };
        shared.wake.notify_one();
        let mut first_failure = Ok(());
        for completion in completions {
            let outcome = Delivery::new(completion, 0, crate::types::TimestampMs::NONE).await;
            if first_failure.is_ok() {
                first_failure = outcome.map(drop);
            }
        }
        first_failure
    }

    /// Takes no more records, and waits until all that were taken are acknowledged or have failed. Other handles of this
    /// producer are closed with it.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(self) -> Result<(), ClientError> {
        lock(&self.handle.shared.state).is_closing = true;
        let outcome = self.flush().await;
        self.handle.shared.abandon();
        outcome
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> ProducerStats {
        let state = lock(&self.handle.shared.state);
        ProducerStats { buffered_bytes: state.buffered_bytes as u64, ..state.stats }
    }
}

impl Shared {
    /// Tells the sender what it has to know.
    fn tell(&self, news: News) {
        if news >= News::Begun {
            self.wake.notify_one();
        }
        if news == News::Filled {
            self.owes_pause.store(true, Ordering::Relaxed);
        }
    }

    fn abandon(&self) {
        lock(&self.state).is_abandoned = true;
        self.wake.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// One that waits for room, for as long as it does.
struct Waiting<'a>(&'a Shared);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).waiting_for_room -= 1;
    }
}

//! The task behind a consumer: fetches ahead from every broker that is read, and deals with what they answer.
//!
//! One turn: each broker that has partitions to read without a fetch on its way gets one request for all of them. Fetches
//! are parked at the brokers until records come, over connections of their own.
//!
//! Other replicas than the leader (KIP-392) are believed in all they have. What they say that they do not have is asked of the
//! leader: their logs may begin elsewhere, and may be damaged where the leader's is not.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::buffer::Buffer;
use crate::client::cluster::{Lane, Retry};
use crate::client::connection::lock;
use crate::client::known::Topic;
use crate::client::{Client, ClientError, Damaged, OutOfRange};
use crate::protocol::messages::{Fetch, FetchPartition, FetchReply, FetchedPartition, OffsetAt};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{NodeId, Offset};

/// How often to ask who is in sync, where others than leaders are read: nobody else says that a replica lags.
const LOOK_AROUND: Duration = Duration::from_secs(10);

/// Runs until the consumer is dropped.
pub(super) struct Fetcher {
    shared: Arc<Shared>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    learning: HashSet<Arc<str>>,
}

/// A partition at the generation for which something was asked, and who was asked.
#[derive(Clone, Copy)]
struct Asked {
    slot: usize,
    generation: u64,
    source: NodeId,
}

enum Event {
    Fetched(Vec<Asked>, Result<(FetchReply, Vec<Bytes>), ClientError>),
    Learned(Arc<str>, Result<Arc<Topic>, ClientError>),
    /// Where to go on after an offset that is out of range or damaged.
    Found(Asked, Result<Found, ClientError>),
}

/// Where to go on.
enum Found {
    /// At this offset.
    At(Offset),
    /// Where it was, from the leader: it has what another replica does not.
    AtLeader,
}

impl Fetcher {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, events: FuturesUnordered::new(), learning: HashSet::new() }
    }

    pub async fn run(mut self) {
        loop {
            let Some(wake_at) = self.turn() else { return };
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                Some(event) = self.events.next(), if !self.events.is_empty() => {
                    self.on_event(event);
                    while let Some(Some(event)) = self.events.next().now_or_never() {
                        self.on_event(event);
                    }
                }
                () = shared.wake.notified() => {}
                () = sleep_until(wake_at) => {}
            }
        }
    }

    fn turn(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut wake_at = now + Duration::from_secs(60);
        let shared = Arc::clone(&self.shared);
        let mut fetches: HashMap<NodeId, (Vec<Asked>, Vec<FetchPartition>)> = HashMap::new();
        let mut buffer = lock(&shared.buffer);
        if buffer.is_closed {
            return None;
        }
        let share_bytes = buffer.share_bytes(&shared.config);
        let reads_followers = lock(&shared.choice).is_for_followers();
        let interval = shared.client.config().metadata_max_age.min(LOOK_AROUND);
        for (slot, reading) in buffer.readings.iter_mut().enumerate().filter(|(_, reading)| reading.is_waiting()) {
            let later = |moment: &Instant| *moment > now;
            let Some(source) = reading.source.filter(|_| !reading.needs_leader) else {
                reading.needs_leader = true;
                match reading.learn_at.filter(later) {
                    Some(moment) => wake_at = wake_at.min(moment),
                    None => self.learn(&reading.topic),
                }
                continue;
            };
            if let Some(moment) = reading.not_before.filter(later) {
                wake_at = wake_at.min(moment);
                continue;
            }
            if let Some(fetch) = reading.next_fetch(share_bytes, &shared.config) {
                (reading.is_busy, reading.asked_at) = (true, now);
                let (asked, partitions) = fetches.entry(source).or_default();
                asked.push(Asked { slot, generation: reading.generation, source });
                partitions.push(fetch);
            }
        }
        // With those whose fetch begins now.
        for reading in buffer.readings.iter().filter(|reading| reading.is_read()) {
            match reading.look_around_at(reads_followers, interval, shared.config.max_wait) {
                Some(moment) if moment > now => wake_at = wake_at.min(moment),
                Some(_) => self.learn(&reading.topic),
                None => {}
            }
        }
        drop(buffer);
        for (source, (asked, partitions)) in fetches {
            self.fetch(source, asked, partitions);
        }
        Some(wake_at)
    }

    fn learn(&mut self, topic: &Arc<str>) {
        if self.learning.insert(Arc::clone(topic)) {
            let (client, name) = (self.shared.client.clone(), Arc::clone(topic));
            self.events.push(
                async move {
                    let learned = client.learn_topic(&name).await;
                    Event::Learned(name, learned)
                }
                .boxed(),
            );
        }
    }

    fn fetch(&mut self, source: NodeId, asked: Vec<Asked>, partitions: Vec<FetchPartition>) {
        let config = &self.shared.config;
        let wanted: usize = partitions.iter().map(|partition| partition.max_bytes as usize).sum();
        let to_u32 = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let fetch = Fetch {
            max_wait_ms: u32::try_from(config.max_wait.as_millis()).unwrap_or(u32::MAX),
            min_bytes: to_u32(config.min_bytes),
            // Well below the frame limit, which a last batch may still overshoot.
            max_bytes: to_u32(config.max_bytes.min(wanted).min(self.shared.client.config().max_frame_bytes / 2)),
            partitions,
        };
        let patience = config.max_wait + self.shared.client.config().request_timeout;
        let client = self.shared.client.clone();
        let fetching = async move {
            // Each partition has a backoff of its own, in which it may find somebody else to read from.
            let connection = client.connect_to(source, Lane::Fetch, Retry::Fail).await?;
            connection.begin(&fetch, Vec::new())?.wait(patience).await
        };
        self.events.push(fetching.map(|result| Event::Fetched(asked, result)).boxed());
    }

    fn on_event(&mut self, event: Event) {
        let shared = Arc::clone(&self.shared);
        let mut buffer = lock(&shared.buffer);
        match event {
            Event::Fetched(asked, result) => self.on_fetched(&mut buffer, asked, result),
            Event::Learned(topic, result) => self.on_learned(&mut buffer, &topic, result),
            Event::Found(asked, result) => on_found(&mut buffer, asked, result),
        }
        drop(buffer);
        shared.arrived.notify_one();
    }

    fn on_fetched(
        &mut self,
        buffer: &mut Buffer,
        asked: Vec<Asked>,
        result: Result<(FetchReply, Vec<Bytes>), ClientError>,
    ) {
        let now = Instant::now();
        let mut answers = result.map(|(reply, bytes)| reply.partitions.into_iter().zip(bytes));
        for asked in asked {
            let outcome = match &mut answers {
                Err(error) => Err(error.clone()),
                Ok(answers) => Ok(answers.next()),
            };
            let Some(reading) = buffer.readings.get_mut(asked.slot).filter(|r| r.generation == asked.generation) else {
                continue;
            };
            reading.is_busy = false;
            match outcome {
                Ok(Some((outcome, bytes))) => match outcome.into_result() {
                    Ok(state) => self.on_records(buffer, asked, state, bytes),
                    Err(error) => self.on_refused(buffer, asked, error, now),
                },
                Ok(None) => reading.try_again(now),
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "a fetch failed and is tried again");
                    reading.failed_at(asked.source, now);
                }
                Err(error) => buffer.stop(asked.slot, error),
            }
        }
    }

    fn on_records(&self, buffer: &mut Buffer, asked: Asked, state: FetchedPartition, bytes: Bytes) {
        buffer.on_fetched(asked.slot, state, bytes, &self.shared.config);
    }

    fn on_refused(&mut self, buffer: &mut Buffer, asked: Asked, error: ApiError, now: Instant) {
        let config = &self.shared.config;
        let reading = &mut buffer.readings[asked.slot];
        let is_leader = reading.leader == Some(asked.source);
        match error.code {
            ErrorCode::OffsetOutOfRange => {
                reading.is_busy = true;
                let (client, topic, number) = (self.shared.client.clone(), reading.topic.to_string(), reading.number);
                let policy = Policy { out_of_range: config.out_of_range, is_to_be_confirmed: !is_leader };
                let offset = reading.fetch_from;
                let finding = async move { range_end(&client, topic, number, offset, policy).await };
                self.events.push(finding.map(move |found| Event::Found(asked, found)).boxed());
            }
            ErrorCode::DamagedLog if !is_leader => reading.failed_at(asked.source, now),
            ErrorCode::DamagedLog if config.on_damaged == Damaged::Skip => {
                reading.is_busy = true;
                let (client, topic, number) = (self.shared.client.clone(), reading.topic.to_string(), reading.number);
                let damage = reading.damaged(error.message);
                let from = reading.fetch_from;
                let finding = async move { end_of_damage(&client, topic, number, from, damage).await };
                self.events.push(finding.map(move |found| Event::Found(asked, found)).boxed());
            }
            ErrorCode::DamagedLog => {
                let damage = reading.damaged(error.message);
                buffer.stop(asked.slot, damage);
            }
            // It is ahead of what is known here: whom to read from is not the question.
            ErrorCode::FencedLeaderEpoch => reading.try_again(now),
            code if code.is_retryable() => reading.failed_at(asked.source, now),
            _ => {
                let what = format!("partition {} of topic '{}' cannot be read", reading.number, reading.topic);
                buffer.stop(asked.slot, ClientError::Refused { what, error });
            }
        }
    }

    fn on_learned(&mut self, buffer: &mut Buffer, topic: &Arc<str>, result: Result<Arc<Topic>, ClientError>) {
        self.learning.remove(topic);
        let now = Instant::now();
        self.shared.learn_brokers();
        let choice = lock(&self.shared.choice);
        for slot in 0..buffer.readings.len() {
            let reading = &mut buffer.readings[slot];
            if reading.topic != *topic || !reading.is_assigned || reading.stopped.is_some() {
                continue;
            }
            let deleted = |recreated| ClientError::TopicDeleted { topic: topic.to_string(), recreated };
            match &result {
                Ok(described) if described.id != reading.topic_id => buffer.stop(slot, deleted(true)),
                Ok(described) => {
                    reading.follow(described, &choice, now);
                    if reading.needs_leader {
                        reading.try_again(now);
                    }
                }
                Err(ClientError::UnknownTopic { .. }) => buffer.stop(slot, deleted(false)),
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%topic, %error, "cannot find out who leads, will go on trying");
                    reading.try_again(now);
                }
                Err(error) => buffer.stop(slot, error.clone()),
            }
        }
    }
}

fn on_found(buffer: &mut Buffer, asked: Asked, result: Result<Found, ClientError>) {
    let Some(reading) = buffer.readings.get_mut(asked.slot).filter(|r| r.generation == asked.generation) else {
        return;
    };
    reading.is_busy = false;
    match result {
        Ok(Found::AtLeader) => reading.avoid(asked.source, Instant::now()),
        Ok(Found::At(offset)) => {
            let (topic, partition, from) = (&reading.topic, reading.number, reading.fetch_from);
            tracing::warn!(%topic, partition, %from, to = %offset, "the offset cannot be read; reading goes on elsewhere");
            reading.fetch_from = offset;
        }
        Err(error) if error.is_retryable() => reading.try_again(Instant::now()),
        Err(error) => buffer.stop(asked.slot, error),
    }
}

/// What to do about an offset that a replica does not have.
struct Policy {
    out_of_range: OutOfRange,
    /// It was not the leader who said so.
    is_to_be_confirmed: bool,
}

/// Where the policy says to go on.
async fn range_end(
    client: &Client,
    topic: String,
    partition: u32,
    offset: Offset,
    policy: Policy,
) -> Result<Found, ClientError> {
    let places = [(topic.clone(), partition, OffsetAt::Earliest), (topic.clone(), partition, OffsetAt::Latest)];
    let mut ends = Vec::with_capacity(2);
    for listed in client.admin().list_offsets(&places).await? {
        let what = || format!("the range of partition {partition} of topic '{topic}' is not known");
        let listed = listed.map_err(|error| ClientError::Refused { what: what(), error })?;
        ends.push(listed.offset.unwrap_or(Offset::ZERO));
    }
    let (log_start_offset, end_offset) =
        (ends.first().copied().unwrap_or_default(), ends.last().copied().unwrap_or_default());
    if policy.is_to_be_confirmed && (log_start_offset..=end_offset).contains(&offset) {
        return Ok(Found::AtLeader);
    }
    match policy.out_of_range {
        OutOfRange::Earliest => Ok(Found::At(log_start_offset)),
        OutOfRange::Latest => Ok(Found::At(end_offset)),
        OutOfRange::Error => {
            Err(ClientError::OffsetOutOfRange { topic, partition, offset, log_start_offset, end_offset })
        }
    }
}

/// The end of the damaged range at `from`, as the leader knows it; `damage` when it knows none.
async fn end_of_damage(
    client: &Client,
    topic: String,
    partition: u32,
    from: Offset,
    damage: ClientError,
) -> Result<Found, ClientError> {
    let described = client.admin().describe_logs(&[(topic, partition)]).await?;
    let ranges = described.into_iter().flatten().flat_map(|log| log.damaged);
    // The fetch may have stopped at a batch that starts before the damage is listed to begin.
    let next = ranges.filter(|(_, end)| *end > from).map(|(_, end)| end).min();
    next.map(Found::At).ok_or(damage)
}

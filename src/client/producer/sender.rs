//! The task behind a producer: closes batches that are due, sends them to the leaders, and deals with what comes back.
//!
//! One turn: expire what is late, learn what is unknown, then one request to each leader that has room for one, with the
//! next batches of each of its partitions. Then it sleeps until a reply, a new batch, or the next moment that matters.

mod nodes;
mod replies;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::accumulator::{Accumulator, TopicState};
use super::batch::{Batch, Identity};
use crate::client::backoff::Backoff;
use crate::client::connection::{Connection, lock};
use crate::client::known::Topic;
use crate::client::{Acks, ClientError};
use crate::protocol::frame::Attachment;
use crate::protocol::messages::{InitProducer, InitProducerReply, Outcome, Produce, ProducePartition, ProducedBatch};
use crate::types::{NodeId, PartitionIndex};
use nodes::{Node, SILENCE};

/// About how many bytes of batches go into one request. Larger ones make a failure dearer and save nothing.
const REQUEST_BYTES: usize = 1 << 20;

/// Runs until the last handle of the producer is dropped.
pub(super) struct Sender {
    shared: Arc<Shared>,
    nodes: HashMap<NodeId, Node>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    flights: HashMap<u64, Flight>,
    next_flight: u64,
    identity: Option<Identity>,
    identity_backoff: Backoff,
    identity_not_before: Option<Instant>,
    is_asking_identity: bool,
    /// Why nothing can be sent at all, for the error of records that time out.
    trouble: Option<ClientError>,
}

/// A request on its way.
struct Flight {
    node: NodeId,
    batches: Vec<(usize, Batch)>,
    /// When to ask whether another leads by now, if no answer has come.
    doubted_at: Instant,
}

enum Event {
    Connected(NodeId, Result<Arc<Connection>, ClientError>),
    Identified(Result<InitProducerReply, ClientError>),
    Learned(usize, Result<Arc<Topic>, ClientError>),
    Landed(u64, Result<Vec<Outcome<ProducedBatch>>, ClientError>),
}

/// What goes to one leader in one request.
type Load = Vec<(usize, ProducePartition, Batch)>;

impl Sender {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            nodes: HashMap::new(),
            events: FuturesUnordered::new(),
            flights: HashMap::new(),
            next_flight: 0,
            identity: None,
            identity_backoff: Backoff::default(),
            identity_not_before: None,
            is_asking_identity: false,
            trouble: None,
        }
    }

    pub async fn run(mut self) {
        // Kept over the turns: with a request in flight each turn moves the moment on, and arming a timer for each of them is
        // dearer than waking now and then for nothing.
        let mut alarm = pin!(sleep_until(Instant::now()));
        loop {
            let Some(wake_at) = self.turn() else { return };
            if alarm.is_elapsed() || wake_at < alarm.deadline() {
                alarm.as_mut().reset(wake_at);
            }
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                Some(event) = self.events.next(), if !self.events.is_empty() => {
                    self.on_event(event);
                    // Whatever else has come already belongs to the same turn.
                    while let Some(Some(event)) = self.events.next().now_or_never() {
                        self.on_event(event);
                    }
                }
                () = shared.wake.notified() => {}
                () = &mut alarm => {}
            }
        }
    }

    /// Does all that can be done now. Returns when to look again at the latest; `None` when the producer is gone.
    fn turn(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut wake_at = now + Duration::from_secs(60);
        let shared = Arc::clone(&self.shared);
        let (loads, tell_waiting) = {
            let mut state = lock(&shared.state);
            if state.is_abandoned {
                return None;
            }
            self.expire(&mut state, now, &mut wake_at);
            self.doubt_the_silent(&mut state, now, &mut wake_at);
            self.learn_stale_topics(&mut state, now, &mut wake_at);
            self.seal_due(&mut state, now, &mut wake_at);
            let loads = self.load(&mut state, now, &mut wake_at);
            let Accumulator { active, partitions, .. } = &mut *state;
            active.retain(|slot| {
                partitions[*slot].is_active = !partitions[*slot].is_idle();
                partitions[*slot].is_active
            });
            // Only then: whoever is told and finds no room wakes this task, which would tell it again, and so on.
            (loads, std::mem::take(&mut state.room_freed) || state.is_closing)
        };
        if !loads.is_empty() {
            sooner(&mut wake_at, Some(now + SILENCE), now);
        }
        let mut failed = false;
        for (node, load) in loads {
            failed |= !self.send(node, load);
        }
        if failed {
            wake_at = now + Duration::from_millis(1);
        }
        if tell_waiting {
            self.shared.room.notify_waiters();
        }
        Some(wake_at)
    }

    fn expire(&self, state: &mut Accumulator, now: Instant, wake_at: &mut Instant) {
        let timeout = self.shared.config.delivery_timeout;
        for at in 0..state.active.len() {
            let slot = state.active[at];
            let partition = &mut state.partitions[slot];
            let (number, leader) = (partition.number, partition.leader);
            let trouble = leader.and_then(|node| self.nodes.get(&node)?.trouble.clone()).or(self.trouble.clone());
            let landed = partition.expire(now, |batch| timed_out(batch, number, timeout, trouble.clone()));
            let waiting = partition.sealed.front().or(partition.open.as_ref());
            sooner(wake_at, waiting.map(|batch| batch.deadline), now);
            state.finish(landed);
        }
        for (slot, batch) in self.flights.values().flat_map(|flight| &flight.batches) {
            if batch.deadline > now {
                sooner(wake_at, Some(batch.deadline), now);
            } else if !batch.completion.is_resolved() {
                let error = timed_out(batch, state.partitions[*slot].number, timeout, None);
                if batch.completion.resolve(Err(error)) {
                    state.stats.failed_records += u64::from(batch.records);
                }
            }
        }
    }

    fn learn_stale_topics(&self, state: &mut Accumulator, now: Instant, wake_at: &mut Instant) {
        let max_age = self.shared.client.config().metadata_max_age;
        for (at, topic) in state.topics.iter_mut().enumerate() {
            // One that is gone is asked for again when a batch that was on its way comes back, or a record is sent.
            let is_due = topic.is_stale || (!topic.is_gone && now.duration_since(topic.learned) > max_age);
            if !is_due || topic.is_learning {
                continue;
            }
            if topic.not_before.is_some_and(|moment| moment > now) {
                sooner(wake_at, topic.not_before, now);
                continue;
            }
            topic.is_learning = true;
            let (client, name) = (self.shared.client.clone(), Arc::clone(&topic.name));
            self.events.push(async move { Event::Learned(at, client.learn_topic(&name).await) }.boxed());
        }
    }

    fn seal_due(&self, state: &mut Accumulator, now: Instant, wake_at: &mut Instant) {
        let is_pressed = state.waiting_for_room > 0 || state.is_closing;
        for at in 0..state.active.len() {
            let slot = state.active[at];
            match state.partitions[slot].open_due_at(self.shared.config.linger) {
                Some(moment) if moment <= now || is_pressed => state.seal(slot),
                moment => sooner(wake_at, moment, now),
            }
        }
    }

    /// Takes what may go now: for each leader with room for a request, the next batches of its partitions.
    fn load(&mut self, state: &mut Accumulator, now: Instant, wake_at: &mut Instant) -> Vec<(NodeId, Load)> {
        let (max_in_flight, is_idempotent) = (self.shared.config.max_in_flight, self.shared.config.idempotence);
        let room = REQUEST_BYTES.min(self.shared.client.frame_limit() / 2);
        // A few leaders at most have room at one time.
        let mut loads: Vec<(NodeId, usize, Load)> = Vec::new();
        // Who was first in line goes to the end, so that a full request does not starve the same partition each time.
        if !state.active.is_empty() {
            state.active.rotate_left(1);
        }
        for at in 0..state.active.len() {
            let slot = state.active[at];
            let Accumulator { partitions, topics, stats, .. } = &mut *state;
            let partition = &mut partitions[slot];
            sooner(wake_at, partition.not_before, now);
            if !partition.may_send(now, max_in_flight) {
                continue;
            }
            let Some(node) = partition.leader else {
                ask_who_leads(&mut topics[partition.topic], now, wake_at);
                continue;
            };
            if is_idempotent && !partition.has_identity(self.identity) {
                self.ask_identity(now, wake_at);
                continue;
            }
            if !self.is_ready(node, now) {
                if self.is_out_of_reach(node, now, wake_at) {
                    ask_who_leads(&mut topics[partition.topic], now, wake_at);
                }
                continue;
            }
            let at = loads.iter().position(|(id, ..)| *id == node).unwrap_or_else(|| {
                loads.push((node, 0, Load::new()));
                loads.len() - 1
            });
            let (_, bytes, load) = &mut loads[at];
            while partition.may_send(now, max_in_flight) {
                let size = partition.sealed.front().map_or(0, Batch::plain_bytes);
                if !load.is_empty() && *bytes + size > room {
                    break;
                }
                let Some(batch) = partition.take_next(is_idempotent) else { break };
                stats.retries += u64::from(batch.attempts > 1);
                *bytes += size;
                let place = ProducePartition {
                    topic: topics[partition.topic].id,
                    partition: PartitionIndex(partition.number),
                    leader_epoch: Some(partition.leader_epoch),
                };
                load.push((slot, place, batch));
            }
        }
        loads.into_iter().map(|(node, _, load)| (node, load)).filter(|(_, load)| !load.is_empty()).collect()
    }

    fn ask_identity(&mut self, now: Instant, wake_at: &mut Instant) {
        if self.is_asking_identity {
            return;
        }
        if self.identity_not_before.is_some_and(|moment| moment > now) {
            sooner(wake_at, self.identity_not_before, now);
            return;
        }
        self.is_asking_identity = true;
        let client = self.shared.client.clone();
        // A new id rather than the next epoch of the old one: other partitions may still be sending under that.
        let asking = async move { Event::Identified(client.ask(&InitProducer { current: None }, true).await) };
        self.events.push(asking.boxed());
    }

    /// Encodes and sends a request. False when nothing could be sent: the batches are back in their queues then.
    fn send(&mut self, id: NodeId, load: Load) -> bool {
        let (mut places, mut attachments, mut batches) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, place, mut batch) in load {
            match batch.encode() {
                Ok(bytes) => {
                    places.push(place);
                    attachments.push(Attachment::from(bytes));
                    batches.push((slot, batch));
                }
                Err(error) => {
                    let topic = batch.completion.topic.to_string();
                    self.land(slot, batch, Err(ClientError::Encode { topic, reason: error.to_string() }));
                }
            }
        }
        if batches.is_empty() {
            return true;
        }
        let request_timeout = self.shared.client.config().request_timeout;
        let request = Produce {
            acks: self.shared.config.acks,
            // Half of what this side waits, so that the broker's own answer comes before the connection is given up.
            timeout_ms: u32::try_from(request_timeout.as_millis() / 2).unwrap_or(u32::MAX),
            partitions: places,
        };
        let flight = self.next_flight;
        self.next_flight += 1;
        match self.begin(id, flight, &request, attachments, request_timeout) {
            Ok(event) => {
                self.events.push(event);
                self.nodes.entry(id).or_default().in_flight += 1;
                self.flights.insert(flight, Flight { node: id, batches, doubted_at: Instant::now() + SILENCE });
                true
            }
            Err(error) => {
                for (slot, batch) in batches {
                    self.land(slot, batch, Err(error.clone()));
                }
                false
            }
        }
    }

    fn begin(
        &self,
        id: NodeId,
        flight: u64,
        request: &Produce,
        attachments: Vec<Attachment>,
        request_timeout: Duration,
    ) -> Result<BoxFuture<'static, Event>, ClientError> {
        let connection = self.nodes.get(&id).and_then(|node| node.connection.as_ref());
        let connection = connection.ok_or_else(|| ClientError::Disconnected {
            address: format!("broker {id}"),
            cause: "it was closed".to_owned(),
        })?;
        if request.acks == Acks::None {
            let written = connection.begin_unanswered(request, attachments)?;
            return Ok(written.map(move |written| Event::Landed(flight, written.map(|()| Vec::new()))).boxed());
        }
        let reply = connection.begin(request, attachments)?.wait(request_timeout);
        Ok(reply.map(move |reply| Event::Landed(flight, reply.map(|(reply, _)| reply.partitions))).boxed())
    }
}

impl Drop for Sender {
    /// No record waits for ever: neither when the producer is dropped nor when the runtime is.
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.is_abandoned = true;
        let error = ClientError::Closed { what: "producer" };
        let all: Vec<_> = state.partitions.iter().flat_map(|partition| partition.completions()).collect();
        for completion in all {
            completion.resolve(Err(error.clone()));
        }
        state.buffered_bytes = 0;
        drop(state);
        self.shared.room.notify_waiters();
    }
}

fn timed_out(batch: &Batch, partition: u32, after: Duration, trouble: Option<ClientError>) -> ClientError {
    ClientError::DeliveryTimedOut {
        topic: batch.completion.topic.to_string(),
        partition,
        after,
        last_error: batch.last_error.clone().or(trouble).map(Box::new),
    }
}

/// The next turn asks who leads the topic's partitions, when it is time to ask again.
fn ask_who_leads(topic: &mut TopicState, now: Instant, wake_at: &mut Instant) {
    topic.is_stale = true;
    if !topic.is_learning {
        let soonest = now + Duration::from_millis(1);
        sooner(wake_at, topic.not_before.map(|moment| moment.max(soonest)).or(Some(soonest)), now);
    }
}

/// Moves `wake_at` forward to `moment` if that is still to come. What is past already waits for an event, not for time.
fn sooner(wake_at: &mut Instant, moment: Option<Instant>, now: Instant) {
    if let Some(moment) = moment.filter(|moment| *moment > now) {
        *wake_at = moment.min(*wake_at);
    }
}

//! What comes back to the sender, and what follows from it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Event, Flight, Sender};
use crate::client::connection::{Connection, lock};
use crate::client::known::Topic;
use crate::client::producer::batch::Batch;
use crate::client::producer::delivery::Placed;
use crate::client::{Acks, ClientError};
use crate::protocol::messages::{InitProducerReply, Outcome, ProducedBatch};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::NodeId;

impl Sender {
    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected(id, result) => self.on_connected(id, result),
            Event::Identified(result) => self.on_identified(result),
            Event::Learned(topic, result) => self.on_learned(topic, result),
            Event::Landed(flight, result) => self.on_landed(flight, result),
        }
    }

    fn on_connected(&mut self, id: NodeId, result: Result<Arc<Connection>, ClientError>) {
        let node = self.nodes.entry(id).or_default();
        node.is_connecting = false;
        match result {
            Ok(connection) => {
                node.connection = Some(connection);
                node.connecting_since = None;
                node.trouble = None;
            }
            Err(error) => {
                node.trouble = Some(error);
                // Another broker may lead by now.
                let mut state = lock(&self.shared.state);
                for at in 0..state.active.len() {
                    let slot = state.active[at];
                    if state.partitions[slot].leader == Some(id) {
                        let topic = state.partitions[slot].topic;
                        state.topics[topic].is_stale = true;
                    }
                }
            }
        }
    }

    fn on_identified(&mut self, result: Result<InitProducerReply, ClientError>) {
        self.is_asking_identity = false;
        match result {
            Ok(reply) => {
                self.identity = Some((reply.producer_id, reply.producer_epoch));
                self.identity_backoff.reset();
                self.identity_not_before = None;
                self.trouble = None;
            }
            Err(error) => {
                self.identity_not_before = Some(Instant::now() + self.identity_backoff.next_delay());
                if !error.is_retryable() {
                    let mut state = lock(&self.shared.state);
                    for at in 0..state.active.len() {
                        let slot = state.active[at];
                        let landed = state.partitions[slot].fail_waiting(&error);
                        state.finish(landed);
                    }
                }
                self.trouble = Some(error);
            }
        }
    }

    fn on_learned(&mut self, at: usize, result: Result<Arc<Topic>, ClientError>) {
        let mut state = lock(&self.shared.state);
        state.topics[at].is_learning = false;
        match result {
            Ok(topic) => {
                let (_, landed) = state.learn(&topic);
                state.finish(landed);
            }
            Err(error) if error.is_retryable() => {
                let delay = state.topics[at].backoff.next_delay();
                state.topics[at].not_before = Some(Instant::now() + delay);
                self.trouble = Some(error);
            }
            Err(error) => {
                state.topics[at].is_gone = true;
                state.topics[at].is_stale = false;
                for slot in state.partitions_of(at) {
                    let landed = state.partitions[slot].fail_waiting(&error);
                    state.finish(landed);
                }
            }
        }
    }

    fn on_landed(&mut self, flight: u64, result: Result<Vec<Outcome<ProducedBatch>>, ClientError>) {
        let Some(Flight { node, batches, .. }) = self.flights.remove(&flight) else { return };
        let node = self.nodes.entry(node).or_default();
        node.in_flight = node.in_flight.saturating_sub(1);
        if let Err(error) = &result {
            node.trouble = Some(error.clone());
        }
        let mut outcomes = result.map(Vec::into_iter);
        for (slot, batch) in batches {
            let outcome = match &mut outcomes {
                Err(error) => Err(error.clone()),
                Ok(_) if self.shared.config.acks == Acks::None => Ok(Placed { base_offset: None, append_time: None }),
                Ok(outcomes) => placed(outcomes.next(), &batch),
            };
            self.land(slot, batch, outcome);
        }
    }

    pub(super) fn land(&self, slot: usize, batch: Batch, outcome: Result<Placed, ClientError>) {
        let now = Instant::now();
        let mut state = lock(&self.shared.state);
        if let Err(error) = &outcome
            && error.is_retryable()
        {
            let topic = state.partitions[slot].topic;
            state.topics[topic].is_stale |= may_have_moved(error);
        }
        let landed = state.partitions[slot].on_landed(batch, outcome, now);
        state.finish(landed);
    }
}

fn placed(outcome: Option<Outcome<ProducedBatch>>, batch: &Batch) -> Result<Placed, ClientError> {
    let nothing = || ApiError::new(ErrorCode::TimedOut, "the reply has no answer for this batch");
    match outcome.map_or_else(|| Err(nothing()), Outcome::into_result) {
        Ok(produced) => Ok(Placed { base_offset: Some(produced.base_offset), append_time: produced.append_time }),
        Err(error) => {
            let (topic, partition) = (&batch.completion.topic, batch.completion.partition);
            Err(ClientError::Refused {
                what: format!("partition {partition} of topic '{topic}' refused a batch"),
                error,
            })
        }
    }
}

/// Whether asking who leads may help.
fn may_have_moved(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { error, .. } => !matches!(error.code, ErrorCode::Overloaded | ErrorCode::LimitExceeded),
        ClientError::Busy { .. } => false,
        _ => true,
    }
}

//! The brokers that a producer sends to: connected, being connected, out of reach.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Event, Sender, sooner};
use crate::client::cluster::Lane;
use crate::client::connection::Connection;
use crate::client::first_answer::PATIENCE_WITH_ONE;
use crate::client::producer::accumulator::Accumulator;
use crate::client::{Client, ClientError};
use crate::types::NodeId;

/// Who leaves a request unanswered for so long may be gone without a word: it is asked whether another leads. A commit takes a few
/// milliseconds, on a slow disk some hundred; who asks in vain has asked for little.
pub(super) const SILENCE: Duration = Duration::from_millis(500);
/// And again after so long, while it is silent: the time that a new leader waits for its producers.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A broker, as the sender sees it.
#[derive(Default)]
pub(super) struct Node {
    pub connection: Option<Arc<Connection>>,
    /// Since when a connection is being opened, with all attempts at it.
    pub connecting_since: Option<Instant>,
    pub is_connecting: bool,
    pub in_flight: usize,
    pub trouble: Option<ClientError>,
}

impl Sender {
    /// Whether a request to `node` may go now. Starts to connect if need be.
    pub(super) fn is_ready(&mut self, id: NodeId, now: Instant) -> bool {
        let node = self.nodes.entry(id).or_default();
        if node.connection.as_ref().is_some_and(|connection| connection.is_open()) {
            return node.in_flight < self.shared.config.max_in_flight;
        }
        node.connection = None;
        if !node.is_connecting {
            node.is_connecting = true;
            node.connecting_since.get_or_insert(now);
            let client: Client = self.shared.client.clone();
            self.events.push(async move { Event::Connected(id, client.connection(id, Lane::Main).await) }.boxed());
        }
        false
    }

    /// Whether `node` is waited for so long, or in such a state, that another broker may lead by now.
    pub(super) fn is_out_of_reach(&self, id: NodeId, now: Instant, wake_at: &mut Instant) -> bool {
        let Some(node) = self.nodes.get(&id) else { return false };
        let Some(since) = node.connecting_since else { return false };
        sooner(wake_at, Some(since + PATIENCE_WITH_ONE), now);
        node.trouble.is_some() || now >= since + PATIENCE_WITH_ONE
    }

    /// Asks who leads what silent brokers were sent, and gives up those that do not lead it any more.
    pub(super) fn doubt_the_silent(&mut self, state: &mut Accumulator, now: Instant, wake_at: &mut Instant) {
        for flight in self.flights.values_mut() {
            if flight.doubted_at > now {
                sooner(wake_at, Some(flight.doubted_at), now);
                continue;
            }
            flight.doubted_at = now + ASK_AGAIN;
            sooner(wake_at, Some(flight.doubted_at), now);
            let connection = self.nodes.get(&flight.node).and_then(|node| node.connection.as_ref());
            let Some(connection) = connection.filter(|connection| connection.is_open()) else { continue };
            connection.doubt();
            for (slot, _) in &flight.batches {
                let partition = &state.partitions[*slot];
                if partition.leader.is_some_and(|leader| leader != flight.node) {
                    // With all that is on its way there: what comes later must not be appended before.
                    connection.give_up("it does not answer, and another broker leads what it was asked for");
                } else {
                    let topic = &mut state.topics[partition.topic];
                    (topic.is_stale, topic.not_before) = (true, None);
                }
            }
        }
    }
}

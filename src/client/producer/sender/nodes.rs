//! The brokers that a producer sends to: connected, being connected, out of reach.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Event, Sender, sooner};
use crate::client::cluster::Lane;
use crate::client::connection::Connection;
use crate::client::first_answer::PATIENCE_WITH_ONE;
use crate::client::{Client, ClientError};
use crate::types::NodeId;

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
}

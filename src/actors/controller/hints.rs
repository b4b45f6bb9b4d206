//! A broker's connection is lost: perhaps its process is gone, and nobody needs to wait until its lease is over.
//!
//! ```text
//!   PeerGone ─► a live broker, with that directory ─► dialled ──┬─ refused: its machine is up, and nothing listens ─► fenced
//!   office taken ─► each live broker ─────────────────────┘     ├─ accepted: dialled again, a few times
//!                                                               └─ nothing, or accepted to the end: its lease decides
//! ```
//!
//! A process that dies closes its sockets one after the other: for a moment its port may still accept. And whoever takes office was told
//! nothing of the connections that its predecessor lost, which may have died together with a broker.

use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler};

use super::actor::{Controller, Office};
use super::messages::Reached;
use super::office::Verdict;
use crate::actors::peer::{PeerAddress, Reach, reach};
use crate::actors::peer_session::PeerGone;
use crate::actors::send::post;
use crate::protocol::messages::peer::PeerConnection;
use crate::types::NodeId;

/// A refusal takes one round trip. Whatever takes longer than this is no refusal.
const DIAL_PATIENCE: Duration = Duration::from_millis(250);
/// Brokers that are dialled at once. When more are lost together the network is, and dialling tells nothing.
const MAX_DIALS: usize = 64;
/// How often a broker is dialled that accepts. A process that is killed is gone long before the last time.
const MAX_ATTEMPTS: u32 = 4;
/// Between the first two; twice as long after each.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

impl Controller {
    /// Dials all brokers that are counted on: some may have died with the controller that was in office before.
    pub(super) fn dial_all(&mut self, ctx: &mut Context<Self>) {
        let image = self.image();
        image.brokers.keys().for_each(|node| self.dial(ctx, *node, 1));
    }

    /// Dials a broker that is counted on, if it can be reached by others.
    fn dial(&mut self, ctx: &mut Context<Self>, node: NodeId, attempt: u32) {
        let (Office::Held(term), true) = (self.office, self.tenure.is_some()) else { return };
        let image = self.image();
        let Some(registration) = image.brokers.get(&node).map(|broker| &broker.registration) else { return };
        let Some(endpoint) = registration.peer.as_ref().filter(|_| image.is_live(node)) else { return };
        if self.dialing.len() >= MAX_DIALS || !self.dialing.insert(node) {
            return;
        }
        let address = PeerAddress { host: endpoint.host.clone(), port: endpoint.port };
        let (epoch, dial, home) = (registration.epoch, Arc::clone(&self.settings.dial), ctx.address());
        actix_rt::spawn(async move {
            let reach = reach(&*dial, &address, DIAL_PATIENCE).await;
            post(&home, Reached { term, node, epoch, reach, attempt });
        });
    }
}

impl Handler<PeerGone> for Controller {
    type Result = ();
    fn handle(&mut self, PeerGone { from }: PeerGone, ctx: &mut Self::Context) {
        let image = self.image();
        let known = image.brokers.get(&from.node).map(|broker| broker.registration.directory);
        if from.connection == PeerConnection::Control && known == Some(from.directory) {
            self.dial(ctx, from.node, 1);
        }
    }
}

impl Handler<Reached> for Controller {
    type Result = ();
    fn handle(&mut self, Reached { term, node, epoch, reach, attempt }: Reached, ctx: &mut Self::Context) {
        if self.office != Office::Held(term) {
            return;
        }
        self.dialing.remove(&node);
        tracing::debug!(%node, ?reach, "a broker whose connection is lost was dialled");
        if reach == Reach::Accepted && attempt < MAX_ATTEMPTS {
            ctx.run_later(FIRST_PAUSE * 2_u32.pow(attempt - 1), move |controller, ctx| {
                controller.dial(ctx, node, attempt + 1)
            });
        }
        let image = self.image();
        let refused = self.tenure.as_ref().filter(|_| reach == Reach::Refused);
        if let Some(broker) = refused.and_then(|tenure| tenure.on_refused(&image, node, epoch)) {
            self.condemn(ctx, broker, Verdict::Gone);
        }
    }
}

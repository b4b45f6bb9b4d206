//! A broker's connection is lost: perhaps its process is gone, and nobody needs to wait until its lease is over.
//!
//! ```text
//!   PeerGone ─► a live broker, with that directory ─► dialled ──┬─ refused: its machine is up, and nothing listens ─► fenced
//!                                                               └─ accepted, or nothing: its lease decides
//! ```

use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Handler};

use super::actor::{Controller, Office};
use super::messages::Reached;
use super::office::Verdict;
use crate::actors::peer::{PeerAddress, Reach, reach};
use crate::actors::peer_session::PeerGone;
use crate::actors::send::post;
use crate::protocol::messages::peer::PeerConnection;

/// A refusal takes one round trip. Whatever takes longer than this is no refusal.
const DIAL_PATIENCE: Duration = Duration::from_millis(250);
/// Brokers that are dialled at once. When more are lost together the network is, and dialling tells nothing.
const MAX_DIALS: usize = 16;

impl Handler<PeerGone> for Controller {
    type Result = ();
    fn handle(&mut self, PeerGone { from }: PeerGone, ctx: &mut Self::Context) {
        let (Office::Held(term), true) = (self.office, self.tenure.is_some()) else { return };
        let (node, image) = (from.node, self.image());
        let Some(registration) = image.brokers.get(&node).map(|broker| &broker.registration) else { return };
        let Some(endpoint) = registration.peer.as_ref() else { return };
        let is_it = from.connection == PeerConnection::Control && registration.directory == from.directory;
        if !is_it || !image.is_live(node) || self.dialing.len() >= MAX_DIALS || !self.dialing.insert(node) {
            return;
        }
        let address = PeerAddress { host: endpoint.host.clone(), port: endpoint.port };
        let (epoch, dial, home) = (registration.epoch, Arc::clone(&self.settings.dial), ctx.address());
        actix_rt::spawn(async move {
            let reach = reach(&*dial, &address, DIAL_PATIENCE).await;
            post(&home, Reached { term, node, epoch, reach });
        });
    }
}

impl Handler<Reached> for Controller {
    type Result = ();
    fn handle(&mut self, Reached { term, node, epoch, reach }: Reached, ctx: &mut Self::Context) {
        if self.office != Office::Held(term) {
            return;
        }
        self.dialing.remove(&node);
        tracing::debug!(%node, ?reach, "a broker whose connection is lost was dialled");
        let image = self.image();
        let refused = self.tenure.as_ref().filter(|_| reach == Reach::Refused);
        if let Some(broker) = refused.and_then(|tenure| tenure.on_refused(&image, node, epoch)) {
            self.condemn(ctx, broker, Verdict::Gone);
        }
    }
}

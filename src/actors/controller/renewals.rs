//! Renewals of leases. Each is answered when a majority has confirmed, after it came, that this controller leads.
//!
//! ```text
//!   renewals ─► waiting ─► asked for ── ensure_linearizable ──► LeaseTable ─► answers
//!                  ▲          one confirmation at a time: it serves all that came before it was asked for
//!                  └─ those that come meanwhile
//! ```
//!
//! A confirmation that was asked for before a renewal came proves nothing for it: the controller may have been replaced in between,
//! and must not prolong a lease that its successor lets lapse.

use std::collections::BTreeMap;

use actix::{AsyncContext, Context, Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::actor::{Controller, Office, not_controller, stopping};
use super::messages::RenewalsConfirmed;
use super::office::Renewing;
use crate::actors::send::post;
use crate::engine::broker::{Answer, Renewal};
use crate::engine::controller::unfence;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::NodeId;

/// Brokers whose renewals may wait. Far more than a cluster has: what fills this is no cluster.
const MAX_WAITING: usize = 10_000;

/// What comes of a request of a broker.
pub(super) type Answered = Result<Option<Answer>, ApiError>;

/// A renewal, and whom to answer.
pub(super) struct Asked {
    renewal: Renewal,
    reply: oneshot::Sender<Answered>,
}

impl Asked {
    fn answer(self, answer: Answered) {
        // Whoever asked may be gone.
        let _ = self.reply.send(answer);
    }
}

/// The renewals that wait for a confirmation, and those that one is asked for.
#[derive(Default)]
pub(super) struct Renewals {
    waiting: BTreeMap<NodeId, Asked>,
    confirming: Option<Vec<Asked>>,
    /// Of the newest confirmation: what earlier ones say is stale.
    number: u64,
}

impl Renewals {
    /// Takes up a renewal. One of the same node that still waits is answered by it: it said less.
    fn add(&mut self, renewal: Renewal) -> oneshot::Receiver<Answered> {
        let (reply, answered) = oneshot::channel();
        let (node, asked) = (renewal.node, Asked { renewal, reply });
        if self.waiting.len() >= MAX_WAITING && !self.waiting.contains_key(&node) {
            let text = format!("renewals of {MAX_WAITING} brokers wait already: try again a little later");
            asked.answer(Err(ApiError::new(ErrorCode::Overloaded, text)));
        } else if let Some(earlier) = self.waiting.insert(node, asked) {
            earlier.answer(Ok(None));
        }
        answered
    }

    /// The number of the confirmation to ask for, if there is one to ask for.
    fn begin(&mut self) -> Option<u64> {
        if self.confirming.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.confirming = Some(std::mem::take(&mut self.waiting).into_values().collect());
        self.number += 1;
        Some(self.number)
    }

    /// The renewals that this confirmation was asked for.
    fn end(&mut self, number: u64) -> Vec<Asked> {
        let is_newest = number == self.number;
        self.confirming.take_if(|_| is_newest).unwrap_or_default()
    }

    /// Answers all with an error.
    pub fn turn_away(&mut self, cause: &ApiError) {
        let waiting = std::mem::take(&mut self.waiting).into_values();
        let all = self.confirming.take().into_iter().flatten().chain(waiting);
        all.for_each(|asked| asked.answer(Err(cause.clone())));
    }
}

impl Controller {
    pub(super) fn take_renewal(&mut self, ctx: &mut Context<Self>, renewal: Renewal) -> ResponseFuture<Answered> {
        let answered = self.renewals.add(renewal);
        self.confirm_renewals(ctx);
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(stopping())) })
    }

    /// Asks for a confirmation, if renewals wait for one and this controller is in office.
    pub(super) fn confirm_renewals(&mut self, ctx: &mut Context<Self>) {
        if !matches!(self.office, Office::Held(_)) {
            return;
        }
        let Some(number) = self.renewals.begin() else { return };
        let (raft, home) = (self.raft.clone(), ctx.address());
        actix_rt::spawn(async move {
            let confirmed = raft.ensure_linearizable().await.is_ok();
            post(&home, RenewalsConfirmed { number, confirmed });
        });
    }

    fn renew(&mut self, ctx: &mut Context<Self>, asked: Asked) {
        let (now, image) = (self.settings.clock.now(), self.image());
        let Some(tenure) = &mut self.tenure else { return asked.answer(Err(not_controller())) };
        let duration = match tenure.renew(now, &image, &asked.renewal) {
            Renewing::Answer(answer) => return asked.answer(Ok(answer)),
            Renewing::Unfence(duration) => duration,
        };
        let Asked { renewal: Renewal { node, epoch, sent, doubtful, .. }, reply } = asked;
        // Of a node by itself that goes without saying.
        let has_others = image.brokers.get(&node).is_some_and(|broker| broker.registration.peer.is_some());
        let decided = self.ask(ctx, move |sitting| {
            // Another registration came first: the next renewal is told.
            let taken = unfence(&sitting.image, node, epoch, &doubtful).and_then(|decision| sitting.take(decision));
            Ok(taken.is_ok() && sitting.image.is_live(node))
        });
        actix_rt::spawn(async move {
            let answer = decided.await.map(|decided| {
                let renewed = || {
                    if has_others {
                        tracing::info!(%node, %epoch, "a broker is counted on");
                    }
                    Answer::Renewed { epoch, sent, duration }
                };
                decided.answer.then(renewed)
            });
            // Whoever asked may be gone.
            let _ = reply.send(answer);
        });
    }
}

impl Handler<RenewalsConfirmed> for Controller {
    type Result = ();
    fn handle(&mut self, RenewalsConfirmed { number, confirmed }: RenewalsConfirmed, ctx: &mut Self::Context) {
        for asked in self.renewals.end(number) {
            if confirmed {
                self.renew(ctx, asked);
            } else {
                asked.answer(Err(not_controller()));
            }
        }
        self.confirm_renewals(ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BrokerEpoch, MonoTime};

    fn renewal(node: u32) -> Renewal {
        let (epoch, sent) = (BrokerEpoch(1), MonoTime::default());
        Renewal { node: NodeId(node), epoch, applied: 0, sent, doubtful: Vec::new() }
    }

    fn nodes(asked: &[Asked]) -> Vec<u32> {
        asked.iter().map(|asked| asked.renewal.node.0).collect()
    }

    #[test]
    fn rule_03_one_confirmation_serves_all_renewals_that_came_before_it_was_asked_for() {
        let mut renewals = Renewals::default();
        assert_eq!(renewals.begin(), None, "nothing waits");
        let _first = renewals.add(renewal(1));
        assert_eq!(renewals.begin(), Some(1));
        let meanwhile: Vec<_> = (1..=3).map(|node| renewals.add(renewal(node))).collect();
        assert_eq!(renewals.begin(), None, "one at a time");
        assert_eq!(nodes(&renewals.end(1)), [1], "those that came meanwhile are not served by it");
        assert_eq!(renewals.begin(), Some(2));
        assert_eq!(nodes(&renewals.end(1)), [0; 0], "an earlier one says nothing");
        assert_eq!(nodes(&renewals.end(2)), [1, 2, 3]);
        drop(meanwhile);
    }

    #[test]
    fn a_renewal_is_answered_by_the_next_one_of_its_node_and_all_are_turned_away_together() {
        let mut renewals = Renewals::default();
        let mut first = renewals.add(renewal(1));
        let mut second = renewals.add(renewal(1));
        assert_eq!(first.try_recv(), Ok(Ok(None)), "it said less");
        renewals.begin();
        let mut third = renewals.add(renewal(1));
        renewals.turn_away(&not_controller());
        for answered in [&mut second, &mut third] {
            assert_eq!(answered.try_recv(), Ok(Err(not_controller())));
        }
        assert_eq!(renewals.begin(), None);
    }
}

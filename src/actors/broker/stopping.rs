//! How a broker ends: handed over, silent, closed, marked; or at once, when another process has taken over.
//!
//! ```text
//!   StopBroker ─► engine ─► HandOver, … ─► GiveUpLease ─► all replicas have heard ─► Close ─► all logs at rest ─► MarkCleanStop
//!                                                                                                                     │
//!   StopBroker is answered ◄─ the marker is on disk, or there is none ◄─ End ◄─ the metadata shows that it stopped ◄──┘
//! ```

use std::sync::Arc;

use actix::{AsyncContext, Context, Handler, ResponseFuture};
use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::actor::Broker;
use super::messages::{CleanStopMarked, LeaseGivenUp, ReplicasClosed, StopBroker};
use crate::actors::partition_leader::{GiveUpLease, Stop, StopReason};
use crate::actors::send::post;
use crate::actors::threads::Lane;
use crate::engine::broker::EndReason;
use crate::storage::LogError;
use crate::types::{BrokerEpoch, MonoTime};

/// How far the end has come.
#[derive(Default)]
pub(super) struct Stopping {
    problems: Vec<String>,
    is_marking: bool,
    ended: Option<EndReason>,
    /// Who waits for the end.
    waiting: Vec<oneshot::Sender<Vec<String>>>,
}

impl Stopping {
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }
}

impl Broker {
    pub(super) fn give_up_lease(&mut self, ctx: &Context<Self>) {
        self.lease_until = MonoTime::default();
        let heard = join_all(self.open_replicas().map(|replica| replica.send(GiveUpLease)));
        let home = ctx.address();
        actix_rt::spawn(async move {
            // One that has ended answers nothing any more, either.
            heard.await;
            post(&home, LeaseGivenUp);
        });
    }

    pub(super) fn close(&mut self, ctx: &Context<Self>) {
        let mut closing = Vec::new();
        for replica in self.open_replicas() {
            let (done, closed) = oneshot::channel::<Result<(), LogError>>();
            post(replica, Stop { why: StopReason::NodeStops, done });
            closing.push(closed);
        }
        self.replicas.clear();
        // Whoever waits for metadata goes on, and meets the end elsewhere.
        self.waiting.clear();
        let (closing, home) = (join_all(closing), ctx.address());
        actix_rt::spawn(async move {
            let problem = |closed: Result<Result<(), LogError>, _>| match closed {
                Ok(closed) => closed.err().map(|error| error.to_string()),
                Err(_) => Some("a partition ended without closing its log".to_owned()),
            };
            post(&home, ReplicasClosed(closing.await.into_iter().filter_map(problem).collect()));
        });
    }

    pub(super) fn mark_clean_stop(&mut self, epoch: BrokerEpoch, ctx: &Context<Self>) {
        self.stopping.is_marking = true;
        let (directory, home) = (Arc::clone(&self.settings.directory), ctx.address());
        self.settings.partitions.disk.run(Lane::Background, move || {
            post(&home, CleanStopMarked(directory.mark_clean_stop(epoch)));
        });
    }

    pub(super) fn end(&mut self, why: EndReason) {
        if why == EndReason::Superseded {
            tracing::error!(
                "another process of this broker has registered: this one ends, and writes nothing any more"
            );
            self.stopping.problems.push("a newer process of this broker has registered".to_owned());
        }
        self.stopping.ended = Some(why);
        self.tell_the_end();
    }

    /// Whoever waits for the end is told, once the marker is on disk.
    fn tell_the_end(&mut self) {
        let Some(why) = self.stopping.ended.filter(|_| !self.stopping.is_marking) else { return };
        self.settings.ended.send_replace(Some(why));
        for waiting in self.stopping.waiting.drain(..) {
            // Whoever stops the broker may be gone.
            let _ = waiting.send(self.stopping.problems.clone());
        }
    }
}

impl Handler<StopBroker> for Broker {
    type Result = ResponseFuture<Vec<String>>;
    fn handle(&mut self, _: StopBroker, ctx: &mut Self::Context) -> Self::Result {
        let (done, ended) = oneshot::channel();
        self.stopping.waiting.push(done);
        self.step(ctx, |engine, now, out| engine.on_stop(now, out));
        self.tell_the_end();
        Box::pin(
            async move { ended.await.unwrap_or_else(|_| vec!["the broker ended without closing its logs".to_owned()]) },
        )
    }
}

impl Handler<LeaseGivenUp> for Broker {
    type Result = ();
    fn handle(&mut self, _: LeaseGivenUp, ctx: &mut Self::Context) {
        self.step(ctx, |engine, now, out| engine.on_lease_given_up(now, out));
    }
}

impl Handler<ReplicasClosed> for Broker {
    type Result = ();
    fn handle(&mut self, ReplicasClosed(problems): ReplicasClosed, ctx: &mut Self::Context) {
        let is_clean = problems.is_empty();
        self.stopping.problems.extend(problems);
        self.step(ctx, |engine, now, out| engine.on_closed(now, is_clean, out));
    }
}

impl Handler<CleanStopMarked> for Broker {
    type Result = ();
    fn handle(&mut self, CleanStopMarked(result): CleanStopMarked, _: &mut Self::Context) {
        self.stopping.is_marking = false;
        self.stopping.problems.extend(result.err().map(|error| error.to_string()));
        self.tell_the_end();
    }
}

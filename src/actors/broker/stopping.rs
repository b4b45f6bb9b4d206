//! How a broker stops: as its engine wants it, and whoever waits for the end is told.

use actix::{AsyncContext, Context, Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::actor::Broker;
use super::messages::*;
use crate::actors::partition_leader::{Stop, StopReason};
use crate::actors::send::post;
use crate::engine::broker::EndReason;
use crate::storage::LogError;
use crate::types::BrokerEpoch;

impl Broker {
    /// Closes all logs, once what was accepted is written.
    pub(super) fn close(&mut self, ctx: &Context<Self>) {
        self.is_closing = true;
        let mut closing = Vec::new();
        for replica in self.open_replicas() {
            let (done, closed) = oneshot::channel::<Result<(), LogError>>();
            post(replica, Stop { why: StopReason::NodeStops, done });
            closing.push(closed);
        }
        self.replicas.clear();
        let home = ctx.address();
        actix_rt::spawn(async move {
            let mut problems = Vec::new();
            for closed in closing {
                match closed.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => problems.push(error.to_string()),
                    Err(_) => problems.push("a partition ended without closing its log".to_owned()),
                }
            }
            post(&home, ReplicasClosed(problems));
        });
    }

    pub(super) fn mark_clean_stop(&mut self, epoch: BrokerEpoch) {
        // Nothing else is left to do on this thread.
        if let Err(error) = self.settings.directory.mark_clean_stop(epoch) {
            self.problems.push(error.to_string());
        }
    }

    pub(super) fn end(&mut self, why: EndReason) {
        if why == EndReason::Superseded {
            tracing::error!("a newer process of this broker has registered: this one ends, and writes nothing more");
            self.is_closing = true;
        }
        self.ended = Some(why);
        // Whoever waits for something that will not come goes on, and meets the end elsewhere.
        self.waiting.clear();
        self.not_counted_on.clear();
        for waiting in std::mem::take(&mut self.waiting_for_end) {
            // Whoever asked may be gone.
            let _ = waiting.send((why, self.problems.clone()));
        }
    }

    fn await_end(&mut self) -> oneshot::Receiver<(EndReason, Vec<String>)> {
        let (told, end) = oneshot::channel();
        match self.ended {
            Some(why) => drop(told.send((why, self.problems.clone()))),
            None => self.waiting_for_end.push(told),
        }
        end
    }
}

impl Handler<ReplicasClosed> for Broker {
    type Result = ();
    fn handle(&mut self, ReplicasClosed(problems): ReplicasClosed, ctx: &mut Self::Context) {
        let is_clean = problems.is_empty();
        self.problems.extend(problems);
        self.with_engine(ctx, |engine, _, now, out| engine.on_closed(now, is_clean, out));
    }
}

impl Handler<StopBroker> for Broker {
    type Result = ResponseFuture<Vec<String>>;
    fn handle(&mut self, _: StopBroker, ctx: &mut Self::Context) -> Self::Result {
        let end = self.await_end();
        self.with_engine(ctx, |engine, _, now, out| engine.on_stop(now, out));
        Box::pin(async move { end.await.map_or_else(|_| Vec::new(), |(_, problems)| problems) })
    }
}

impl Handler<AwaitEnd> for Broker {
    type Result = ResponseFuture<EndReason>;
    fn handle(&mut self, _: AwaitEnd, _: &mut Self::Context) -> Self::Result {
        let end = self.await_end();
        // A broker that is gone without a word went with its node.
        Box::pin(async move { end.await.map_or(EndReason::Stopped { is_clean: false }, |(why, _)| why) })
    }
}

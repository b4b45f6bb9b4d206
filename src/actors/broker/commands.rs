//! What the engine wants done, and what comes of it.
//!
//! ```text
//!   engine ─ Output ─► Ask ──────────► Controllers ─► ControllerAnswered ─► engine
//!                      StoreEpoch ───► disk thread ─► EpochStored ────────► engine
//!                      SetLease, … ──► the replicas here
//!                      Open ─────────► `opening`        GiveUpLease, Close, End ─► `stopping`
//! ```

use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler};
use futures_util::future::join_all;

use super::actor::Broker;
use super::messages::{ControllerAnswered, EndsRead, EpochStored};
use crate::actors::partition_leader::{HandOver, MarkVerified, ProposalRefused, ReadEnd, SetLease};
use crate::actors::send::post;
use crate::actors::threads::Lane;
use crate::engine::broker::{Answer, Command, Output, RefusedProposal, Request};
use crate::types::{BrokerEpoch, MonoTime, NodeId, TopicPartition};

/// How long a request to the controllers is tried. The engine asks again by itself.
const ASK_PATIENCE: Duration = Duration::from_secs(1);

impl Broker {
    pub(super) fn carry_out(&mut self, out: Output, ctx: &Context<Self>) {
        let mut to_open = Vec::new();
        for command in out.0 {
            match command {
                Command::Ask(request) => self.ask(request, ctx),
                Command::StoreEpoch(epoch) => self.store_epoch(epoch, ctx),
                Command::SetLease(until) => {
                    self.lease_until = until;
                    self.open_replicas().for_each(|replica| post(replica, SetLease(until)));
                }
                Command::GiveUpLease => self.give_up_lease(ctx),
                Command::Open(partition) => to_open.push(partition),
                Command::MarkVerified(partition) => {
                    self.replica(partition).into_iter().for_each(|replica| post(replica, MarkVerified));
                }
                Command::ReadEnds(partitions) => self.read_ends(&partitions, ctx),
                Command::ProposalRefused(refused) => self.tell_refused(refused),
                Command::HandOver { partition, to, until } => self.hand_over(partition, to, until),
                Command::Close => self.close(ctx),
                Command::MarkCleanStop(epoch) => self.mark_clean_stop(epoch, ctx),
                Command::End(why) => self.end(why),
            }
        }
        // All of an event at once: new ones share their syncs.
        self.open(to_open, ctx);
    }

    fn ask(&self, request: Request, ctx: &Context<Self>) {
        let (controllers, home) = (self.settings.controllers.clone(), ctx.address());
        actix_rt::spawn(async move {
            match controllers.ask(request, ASK_PATIENCE).await {
                Ok(Some(answer)) => post(&home, ControllerAnswered(answer)),
                Ok(None) => {}
                // The engine asks again, and says so when nobody answers for long.
                Err(error) => tracing::debug!(%error, "the controllers did not take what this broker has to say"),
            }
        });
    }

    fn store_epoch(&self, epoch: BrokerEpoch, ctx: &Context<Self>) {
        let (directory, home) = (Arc::clone(&self.settings.directory), ctx.address());
        self.settings.partitions.disk.run(Lane::Background, move || {
            post(&home, EpochStored(directory.store_broker_epoch(epoch)));
        });
    }

    fn read_ends(&self, partitions: &[TopicPartition], ctx: &Context<Self>) {
        let asked = partitions.iter().filter_map(|partition| {
            let (partition, asked) = (*partition, self.replica(*partition)?.send(ReadEnd));
            Some(async move { asked.await.ok().flatten().map(|(epoch, end)| (partition, epoch, end)) })
        });
        let (asked, home) = (join_all(asked), ctx.address());
        actix_rt::spawn(async move { post(&home, EndsRead(asked.await.into_iter().flatten().collect())) });
    }

    fn tell_refused(&self, refused: RefusedProposal) {
        let RefusedProposal { partition, partition_epoch, why } = refused;
        tracing::debug!(%partition, why, "a proposal for the in-sync set was refused");
        if let Some(leader) = self.replica(partition) {
            post(leader, ProposalRefused { partition_epoch });
        }
    }

    fn hand_over(&self, partition: TopicPartition, to: NodeId, deadline: MonoTime) {
        let Some(leader) = self.replica(partition) else { return };
        let asked = leader.send(HandOver { to, deadline });
        actix_rt::spawn(async move {
            // The metadata tells when it has been handed over; otherwise it is asked for again.
            if let Ok(Err(error)) = asked.await {
                tracing::debug!(%partition, %to, %error, "the leadership is not handed over yet");
            }
        });
    }
}

impl Handler<ControllerAnswered> for Broker {
    type Result = ();
    fn handle(&mut self, ControllerAnswered(answer): ControllerAnswered, ctx: &mut Self::Context) {
        if let Answer::NotRegistered { cause, .. } = &answer {
            tracing::warn!(%cause, "the controllers do not register this broker; trying on");
        }
        self.step(ctx, |engine, now, out| engine.on_answer(now, answer, out));
    }
}

impl Handler<EpochStored> for Broker {
    type Result = ();
    fn handle(&mut self, EpochStored(result): EpochStored, ctx: &mut Self::Context) {
        let image = Arc::clone(&self.image);
        match result {
            Ok(()) => self.step(ctx, |engine, now, out| engine.on_epoch_stored(now, &image, out)),
            Err(error) => {
                tracing::error!(%error, "the broker's registration cannot be written down; trying again");
                self.step(ctx, |engine, now, _| engine.on_epoch_not_stored(now));
            }
        }
        self.work_off(ctx);
    }
}

impl Handler<EndsRead> for Broker {
    type Result = ();
    fn handle(&mut self, EndsRead(ends): EndsRead, ctx: &mut Self::Context) {
        self.step(ctx, |engine, _, out| engine.on_ends(&ends, out));
    }
}

//! The engine of the broker, and what it wants done.
//!
//! ```text
//!   answers, images, replicas, proposals, time ─► BrokerEngine ─► commands ─┬─► Ask ─► Controllers ─► Answered
//!                                                                           ├─► StoreEpoch ─► disk thread ─► EpochStored
//!                                                                           ├─► Open ─► disk threads ─► ReplicaOpened
//!                                                                           └─► lease, ends, hand-overs, refusals ─► replicas
//! ```

use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler};
use futures_util::future::join_all;

use super::actor::Broker;
use super::messages::*;
use crate::actors::partition_leader::{
    GiveUpLease, HandOver, MarkVerified, PartitionLeader, ProposalRefused, ReadEnd, ReplicaReport, Reported, SetLease,
};
use crate::actors::send::post;
use crate::actors::threads::Lane;
use crate::engine::broker::{Answer, BrokerEngine, Command, Output, Request};
use crate::engine::metadata::ClusterImage;
use crate::protocol::ErrorCode;
use crate::types::{BrokerEpoch, MonoTime, TopicPartition};

/// How long a request may look for a controller. The engine repeats each by itself.
const ASK_PATIENCE: Duration = Duration::from_secs(2);

impl Broker {
    /// Lets something happen to the engine, and does what it wants done.
    pub(super) fn with_engine(
        &mut self,
        ctx: &mut Context<Self>,
        event: impl FnOnce(&mut BrokerEngine, &ClusterImage, MonoTime, &mut Output),
    ) {
        let (now, image, mut out) = (self.now(), Arc::clone(&self.image), Output::default());
        event(&mut self.engine, &image, now, &mut out);
        if !self.follows && self.engine.follows_metadata() {
            self.begin_to_follow(ctx);
        }
        let mut to_open = Vec::new();
        for command in out.0 {
            match command {
                Command::Open(partition) => to_open.push(partition),
                command => self.obey(command, ctx),
            }
        }
        self.open(to_open, ctx);
        self.arm(ctx);
    }

    pub(super) fn now(&self) -> MonoTime {
        self.settings.partitions.clock.now()
    }

    /// Keeps one timer for the engine's next deadline. An earlier one replaces it, a later one waits for it to fire.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let Some(next) = self.engine.next_deadline() else { return };
        if let Some((armed, handle)) = self.wake {
            if armed <= next {
                return;
            }
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(next.since(self.now()), |broker, ctx| {
            broker.wake = None;
            broker.with_engine(ctx, |engine, _, now, out| engine.on_tick(now, out));
        });
        self.wake = Some((next, handle));
    }

    fn obey(&mut self, command: Command, ctx: &mut Context<Self>) {
        match command {
            Command::Ask(request) => self.ask(request, ctx),
            Command::StoreEpoch(epoch) => self.store_epoch(epoch, ctx),
            Command::SetLease(until) => {
                self.lease_until = until;
                self.open_replicas().for_each(|replica| post(replica, SetLease(until)));
                self.answer_those_who_count_on_it();
            }
            Command::GiveUpLease => self.give_up_lease(ctx),
            // Those of one event are opened together.
            Command::Open(partition) => self.open(vec![partition], ctx),
            Command::MarkVerified(partition) => self.post_to_replica(partition, MarkVerified),
            Command::ReadEnds(partitions) => self.read_ends(&partitions, ctx),
            Command::ProposalRefused(refused) => {
                let partition_epoch = refused.partition_epoch;
                tracing::debug!(partition = %refused.partition, why = refused.why, "a proposal was refused");
                self.post_to_replica(refused.partition, ProposalRefused { partition_epoch });
            }
            Command::HandOver { partition, to, until } => {
                // The metadata tells when it is done; what stands against it is asked for again.
                self.post_to_replica(partition, HandOver { to, deadline: until });
            }
            Command::Close => self.close(ctx),
            Command::MarkCleanStop(epoch) => self.mark_clean_stop(epoch),
            Command::End(why) => self.end(why),
        }
    }

    pub(super) fn post_to_replica<M>(&self, partition: TopicPartition, message: M)
    where
        PartitionLeader: Handler<M>,
        M: actix::Message + Send + 'static,
        M::Result: Send,
    {
        let held = self.replicas.get(&partition.topic);
        let replica = held.and_then(|held| held.replicas.get(partition.partition.0 as usize));
        if let Some(address) = replica.and_then(Replica::address) {
            post(address, message);
        }
    }

    fn ask(&self, request: Request, ctx: &Context<Self>) {
        let (controllers, home) = (self.settings.controllers.clone(), ctx.address());
        actix_rt::spawn(async move {
            match controllers.ask(request, ASK_PATIENCE).await {
                Ok(Some(answer)) => post(&home, Answered(answer)),
                Ok(None) => {}
                // It is asked again.
                Err(error) => tracing::debug!(%error, "a controller has not answered"),
            }
        });
    }

    fn store_epoch(&self, epoch: BrokerEpoch, ctx: &Context<Self>) {
        let (directory, home) = (Arc::clone(&self.settings.directory), ctx.address());
        self.settings.partitions.disk.run(Lane::Sync, move || {
            post(&home, EpochStored(directory.store_broker_epoch(epoch)));
        });
    }

    /// All replicas fall silent as leaders; the engine is told when each of them has.
    fn give_up_lease(&mut self, ctx: &Context<Self>) {
        self.lease_until = MonoTime::default();
        let silent: Vec<_> = self.open_replicas().map(|replica| replica.send(GiveUpLease)).collect();
        let home = ctx.address();
        actix_rt::spawn(async move {
            // One that has ended answers nobody.
            join_all(silent).await;
            post(&home, LeaseGivenUp);
        });
    }

    fn read_ends(&self, partitions: &[TopicPartition], ctx: &Context<Self>) {
        let replica = |partition: &TopicPartition| {
            let held = self.replicas.get(&partition.topic)?;
            Some((*partition, held.replicas.get(partition.partition.0 as usize)?.address()?.send(ReadEnd)))
        };
        let asked: Vec<_> = partitions.iter().filter_map(replica).collect();
        let home = ctx.address();
        actix_rt::spawn(async move {
            let end = |(partition, answer)| async move {
                let (epoch, end) = Option::flatten(Result::ok(answer.await))?;
                Some((partition, epoch, end))
            };
            let ends: Vec<_> = join_all(asked.into_iter().map(end)).await.into_iter().flatten().collect();
            post(&home, EndsRead(ends));
        });
    }
}

impl Handler<Answered> for Broker {
    type Result = ();
    fn handle(&mut self, Answered(answer): Answered, ctx: &mut Self::Context) {
        if let Answer::NotRegistered { cause, .. } = &answer
            && cause.code != ErrorCode::BrokerSuperseded
            && self.refusal.as_ref() != Some(&cause.message)
        {
            tracing::warn!(%cause, "this broker is not registered, and goes on asking");
            self.refusal = Some(cause.message.clone());
        }
        self.with_engine(ctx, |engine, _, now, out| engine.on_answer(now, answer, out));
    }
}

impl Handler<EpochStored> for Broker {
    type Result = ();
    fn handle(&mut self, EpochStored(result): EpochStored, ctx: &mut Self::Context) {
        match result {
            Ok(()) => self.with_engine(ctx, |engine, image, now, out| engine.on_epoch_stored(now, image, out)),
            Err(error) => {
                tracing::error!(%error, "the broker epoch could not be written down: this broker is not counted on");
                self.with_engine(ctx, |engine, _, now, _| engine.on_epoch_not_stored(now));
            }
        }
        self.answer_those_who_count_on_it();
    }
}

impl Handler<LeaseGivenUp> for Broker {
    type Result = ();
    fn handle(&mut self, _: LeaseGivenUp, ctx: &mut Self::Context) {
        self.with_engine(ctx, |engine, _, now, out| engine.on_lease_given_up(now, out));
    }
}

impl Handler<EndsRead> for Broker {
    type Result = ();
    fn handle(&mut self, EndsRead(ends): EndsRead, ctx: &mut Self::Context) {
        self.with_engine(ctx, |engine, _, _, out| engine.on_ends(&ends, out));
    }
}

impl Handler<ReplicaReport> for Broker {
    type Result = ();
    fn handle(&mut self, ReplicaReport { partition, what }: ReplicaReport, ctx: &mut Self::Context) {
        self.with_engine(ctx, |engine, _, now, _| match what {
            Reported::Proposal(proposal) => engine.on_proposal(now, partition, proposal),
            Reported::Damaged(leader_epoch) => {
                engine.on_damage(partition, true);
                engine.on_damage_to_report(now, partition, leader_epoch);
            }
            Reported::Offline(_) => engine.on_offline(now, partition),
        });
    }
}

//! What makes a replica lead or follow, and what passes between the two: handlers.

use actix::{Context, Handler, MessageResult};

use super::actor::PartitionLeader;
use super::messages::*;
use crate::actors::log_writer::Write;
use crate::actors::send::post;
use crate::storage::queue::LogWork;
use crate::types::Offset;

impl Handler<Assign> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, Assign { assignment, config }: Assign, ctx: &mut Context<Self>) {
        self.step(ctx, |replica, now| replica.assign(now, assignment, config));
    }
}

impl Handler<SetLease> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, SetLease(until): SetLease, ctx: &mut Context<Self>) {
        self.step(ctx, |replica, now| replica.on_lease(now, until));
    }
}

impl Handler<LeaderAnswered> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, LeaderAnswered { fetched, batches }: LeaderAnswered, ctx: &mut Context<Self>) {
        self.step(ctx, |replica, now| replica.on_fetched(now, fetched, batches));
    }
}

impl Handler<ProposalRefused> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, ProposalRefused { partition_epoch }: ProposalRefused, ctx: &mut Context<Self>) {
        let leading = self.replica.leader().map(|leader| leader.leadership().partition_epoch);
        if leading == Some(partition_epoch) {
            self.step(ctx, |replica, now| replica.on_proposal_refused(now));
        }
    }
}

impl Handler<GiveUpLease> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, _: GiveUpLease, ctx: &mut Context<Self>) {
        self.step(ctx, |replica, _| replica.on_lease_given_up());
    }
}

impl Handler<MarkVerified> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, _: MarkVerified, _: &mut Context<Self>) {
        post(&self.writer, Write(LogWork::MarkVerified));
    }
}

impl Handler<ReadEnd> for PartitionLeader {
    type Result = MessageResult<ReadEnd>;
    fn handle(&mut self, _: ReadEnd, _: &mut Context<Self>) -> Self::Result {
        let end = self.cursors().written_end();
        let last = end.0.checked_sub(1).map(|last| self.reader.epoch_of(Offset(last)).unwrap_or_default());
        MessageResult(last.map(|epoch| (epoch, end)))
    }
}

impl Handler<HandOver> for PartitionLeader {
    type Result = MessageResult<HandOver>;
    fn handle(&mut self, HandOver { to, deadline }: HandOver, ctx: &mut Context<Self>) -> Self::Result {
        let mut result = Ok(());
        self.step(ctx, |replica, now| result = replica.on_hand_over(now, to, deadline));
        MessageResult(result)
    }
}

impl Handler<DamageMet> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, _: DamageMet, ctx: &mut Context<Self>) {
        let known = self.reader.damaged_ranges();
        self.step(ctx, |replica, now| replica.on_damage(now, &known));
    }
}

#[cfg(test)]
#[path = "replicating_tests.rs"]
mod tests;

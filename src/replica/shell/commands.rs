//! What the engines command, as effects.

use super::{Answer, Effect, ReadState, Replica};
use crate::engine::{follower, leader};
use crate::replica::ProducerReplay;
use crate::storage::TruncateLeave;
use crate::storage::queue::LogWork;
use crate::types::record_batch::RecordBatch;

impl<R, X> Replica<R, X> {
    pub(super) fn run_leader(&mut self, mut out: leader::Output<R>, batch: Option<(RecordBatch, X)>) {
        let mut batch = batch;
        for command in out.0.drain(..) {
            let effect = match command {
                leader::Command::Append { base_offset, leader_epoch, append_time } => {
                    let (batch, token) = batch.take().expect("the engine appends only the batch of the event at hand");
                    Effect::Write(LogWork::Append(batch.stamped(base_offset, leader_epoch, append_time), token))
                }
                leader::Command::Produced { reply, result } => Effect::Answer(reply, result.map(Answer::Produced)),
                leader::Command::Fetched { reply, result } => Effect::Answer(reply, result.map(Answer::Fetched)),
                leader::Command::Read { reply, range, state } => Effect::Read(reply, range, ReadState::Consumer(state)),
                leader::Command::ReadForFollower { reply, range, state } => {
                    Effect::Read(reply, range, ReadState::Follower(state))
                }
                leader::Command::ReadForRepair { reply, range, state } => {
                    Effect::Read(reply, range, ReadState::Repair(state))
                }
                leader::Command::ReplicaFetched { reply, result } => {
                    Effect::Answer(reply, result.map(|(verdict, state)| Answer::ReplicaFetched(verdict, state)))
                }
                leader::Command::Listed { reply, result } => Effect::Answer(reply, result.map(Answer::Listed)),
                leader::Command::LookUp { reply, at, upper_exclusive } => Effect::LookUp(reply, at, upper_exclusive),
                leader::Command::Propose(proposal) => Effect::Propose(proposal),
                leader::Command::DeleteRecords { before } => Effect::Write(LogWork::DeleteRecords(before)),
                leader::Command::RecordsDeleted { reply, result } => {
                    Effect::Answer(reply, result.map(Answer::RecordsDeleted))
                }
                leader::Command::SnapshotProducers { at, payload } => Effect::Write(LogWork::Snapshot(at, payload)),
            };
            self.effects.push(effect);
        }
        self.leader_out = out;
    }

    pub(super) fn run_follower(&mut self, out: follower::Output<R>, batches: Vec<(RecordBatch, X)>) {
        let mut batches = batches;
        for command in out.0 {
            let effect = match command {
                follower::Command::Fetch { leader, fetch, may_wait } => Effect::Fetch { leader, fetch, may_wait },
                follower::Command::Append { .. } => {
                    for (batch, token) in batches.drain(..) {
                        self.effects.push(Effect::Write(LogWork::AppendReplicated(vec![batch], token)));
                    }
                    continue;
                }
                follower::Command::Truncate { to, unclean_epoch, back_to_damage } => {
                    let leave = TruncateLeave { unclean_election: unclean_epoch, back_to_damage };
                    let replay = ProducerReplay::default();
                    Effect::Write(LogWork::Truncate { to, leave, replay })
                }
                follower::Command::StartAt { offset, unclean_epoch, producers } => {
                    let leave = TruncateLeave { unclean_election: unclean_epoch, back_to_damage: false };
                    let replay = ProducerReplay::default();
                    Effect::Write(LogWork::StartAt { offset, leave, producers, replay })
                }
                follower::Command::Repair { from, to } => {
                    let inside = |batch: &RecordBatch| (from..to).contains(&batch.header.base_offset);
                    let batches = batches.drain(..).map(|(batch, _)| batch).filter(inside).collect();
                    Effect::Write(LogWork::Repair { from, to, batches })
                }
                follower::Command::Scrub { from } => Effect::Write(LogWork::Scrub(from)),
                follower::Command::AdvanceLogStart { to } => Effect::Write(LogWork::DeleteRecords(to)),
                follower::Command::GoOffline { cause } => Effect::Offline(cause),
                follower::Command::Read { reply, range, state } => {
                    Effect::Read(reply, range, ReadState::Consumer(state))
                }
                follower::Command::Fetched { reply, result } => Effect::Answer(reply, result.map(Answer::Fetched)),
                follower::Command::SnapshotProducers { at, payload } => Effect::Write(LogWork::Snapshot(at, payload)),
            };
            self.effects.push(effect);
        }
    }
}

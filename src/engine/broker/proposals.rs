//! What leaders here propose, sent together. A leader proposes again by itself when it hears nothing, so nothing is remembered of
//! what was sent.

use super::{BrokerEngine, Command, Output, Request};
use crate::engine::controller::{InSyncProposal, Member};
use crate::engine::leader::Proposal;
use crate::types::{MonoTime, TopicPartition};

/// How many proposals go in one request at most: they are decided in one entry of the metadata log.
const MOST_PROPOSALS: usize = 1_000;

impl BrokerEngine {
    /// A leader here proposes. It is sent with the next tick, which is due now, with all others that come before that. A newer proposal of
    /// the same leader takes the place of one that was not sent.
    pub fn on_proposal(&mut self, now: MonoTime, partition: TopicPartition, proposal: Proposal) {
        let Some(broker_epoch) = self.serves() else { return };
        let Proposal { leader_epoch, partition_epoch, members, new_leader } = proposal;
        let members = members.into_iter().map(|(node, epoch)| Member { node, epoch }).collect();
        let leader = self.node();
        let proposal =
            InSyncProposal { partition, leader, broker_epoch, leader_epoch, partition_epoch, members, new_leader };
        self.proposals.insert(partition, proposal);
        self.propose_at.get_or_insert(now);
    }

    pub(super) fn propose_all(&mut self, out: &mut Output) {
        self.propose_at = None;
        let mut waiting = std::mem::take(&mut self.proposals).into_values();
        loop {
            let next: Vec<_> = waiting.by_ref().take(MOST_PROPOSALS).collect();
            if next.is_empty() {
                return;
            }
            out.0.push(Command::Ask(Request::Propose(next)));
        }
    }
}

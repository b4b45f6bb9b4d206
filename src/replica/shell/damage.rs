//! Damage of this replica's log: who is told of it, and how often.
//!
//! ```text
//!   a read, a scrub, the opening ──► on_damage ──► engine (a follower has it mended)
//!                                        ├──► Checkpoint: a restart knows of it, too
//!                                        └──► Damaged, again and again, while it is a member ──► controller
//! ```

use super::{Effect, Replica, Role};
use crate::engine::assignment::Assignment;
use crate::engine::follower;
use crate::storage::queue::LogWork;
use crate::types::{LeaderEpoch, MonoTime, Offset};

/// The part of this replica in its partition, as far as somebody has to be told of its damage.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// It may be elected, or leads.
    is_member: bool,
    leader_epoch: LeaderEpoch,
    partition_epoch: u32,
    report_at: Option<MonoTime>,
}

impl Part {
    /// A change of the partition is the moment to report again: another member may lead now.
    pub(super) fn follow(&mut self, assignment: &Assignment) {
        let (is_member, leader_epoch, partition_epoch) = match assignment {
            Assignment::Lead(leading) => (leading.replicas.len() > 1, leading.epoch, leading.partition_epoch),
            Assignment::Follow(following) => (following.is_member, following.leader_epoch, 0),
            Assignment::None => (false, self.leader_epoch, 0),
        };
        let known = (self.is_member, self.leader_epoch, self.partition_epoch);
        if known != (is_member, leader_epoch, partition_epoch) {
            *self = Self { is_member, leader_epoch, partition_epoch, report_at: None };
        }
    }
}

impl<R, X> Replica<R, X> {
    /// These ranges of the log (start, end exclusive), and no others, are known to be damaged now.
    pub fn on_damage(&mut self, now: MonoTime, known: &[(Offset, Offset)]) {
        let is_news = match &mut self.role {
            Some(Role::Leader(engine)) => engine.on_damage(known),
            Some(Role::Follower(engine)) => {
                let mut out = follower::Output::default();
                let is_news = engine.on_damage(now, known, &mut out);
                self.run_follower(out, Vec::new());
                is_news
            }
            None => false,
        };
        if is_news && let Some(cursors) = self.cursors() {
            let high_watermark = cursors.high_watermark();
            self.effects.push(Effect::Write(LogWork::Checkpoint(high_watermark)));
        }
        self.report_damage(now);
    }

    /// Whether part of the log is damaged, or was and has not been looked through since.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        match &self.role {
            Some(Role::Leader(engine)) => engine.damage().first().is_some(),
            Some(Role::Follower(engine)) => !engine.damage().is_whole(),
            None => false,
        }
    }

    pub(super) fn report_damage(&mut self, now: MonoTime) {
        if !self.is_damaged() || !self.part.is_member {
            self.part.report_at = None;
        } else if self.part.report_at.is_none_or(|at| at <= now) {
            self.part.report_at = Some(now.plus(self.settings.leader.proposal_timeout));
            self.effects.push(Effect::Damaged(self.part.leader_epoch));
        }
    }

    pub(super) fn next_report(&self) -> Option<MonoTime> {
        self.part.report_at
    }
}

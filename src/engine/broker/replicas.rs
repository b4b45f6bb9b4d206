//! The replicas that the metadata asks this broker to hold, and how each is.
//!
//! ```text
//!   Missing ──Open──► Opening ──► Open ──► offline, damaged, found whole
//!      ▲                 ├──────► Shut       (cannot be opened: reported as damaged while it is a member)
//!      └── no member ◄── └──────► Lost       (reported until it is no member: then it begins anew)
//! ```

use super::image::Part;
use super::{BrokerEngine, Command, Finding, Output};
use crate::types::{LeaderEpoch, MonoTime, Mutant, Offset, TopicId, TopicPartition};

/// How far a replica has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be opened.
    Missing,
    /// Being opened. The metadata of that index did not call for it yet, as far as is known here: one that did may be any after it.
    Opening { not_before: u64 },
    /// Open, or it was.
    Open,
    /// Its directory was not there.
    Lost { not_before: u64 },
    /// It cannot be opened. A restart tries again.
    Shut,
}

/// A replica here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    state: State,
    pub(super) part: Part,
    is_offline: bool,
    /// Recovery cut a tail that no power loss explains.
    pub(super) is_doubtful: bool,
    /// It was in neither set since it was opened here: a member it is only because it was taken for whole since.
    pub(super) was_out: bool,
    /// Something of its log is known to be damaged, or was and has not been looked through since.
    pub(super) is_damaged: bool,
}

/// What opening a log found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Recovery cut a tail that was not all zeros.
    pub is_doubtful: bool,
    /// Part of the log is damaged.
    pub is_damaged: bool,
}

impl Held {
    pub(super) fn missing(part: Part) -> Self {
        let (is_offline, is_doubtful, was_out, is_damaged) = (false, false, false, false);
        Self { state: State::Missing, part, is_offline, is_doubtful, was_out, is_damaged }
    }

    /// Whether the shell has it in its hands.
    pub(super) fn is_here(&self) -> bool {
        matches!(self.state, State::Open | State::Opening { .. })
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// The newest metadata that it is no obstacle to say that all of it is known; `None`: any.
    fn holds_back(&self) -> Option<u64> {
        match self.state {
            State::Opening { not_before } | State::Lost { not_before } => Some(not_before),
            State::Missing => Some(0),
            State::Open | State::Shut => None,
        }
    }

    /// What is to be said of it as long as the metadata does not show it.
    pub(super) fn finding(&self, partition: TopicPartition) -> Option<Finding> {
        let Part { is_replica, is_member, leader_epoch, has_opened, .. } = self.part;
        match self.state {
            State::Lost { .. } if is_member => Some(Finding::Lost(partition)),
            State::Shut if is_member => Some(Finding::Damaged { partition, leader_epoch }),
            State::Open if is_member && self.is_offline => Some(Finding::Damaged { partition, leader_epoch }),
            State::Open if is_replica && !has_opened => Some(Finding::Opened(partition)),
            _ => None,
        }
    }
}

impl BrokerEngine {
    /// The newest metadata of which all replicas that it calls for are open, or are known not to be. 0 before it knows this registration.
    /// A replica that is lost holds it back until it counts no more: the broker must not be counted on with it.
    #[must_use]
    pub fn caught_up_to(&self) -> u64 {
        if !self.view.is_known {
            return 0;
        }
        if Mutant::CountsBeforeItsReplicasAreOpen.is_on() {
            return self.view.index;
        }
        self.held.values().filter_map(Held::holds_back).fold(self.view.index, u64::min)
    }

    /// Asks for replicas that are not there, each once. One that was lost begins anew when it counts no more.
    pub(super) fn open_what_is_missing(&mut self, out: &mut Output) {
        let before = self.followed;
        for (partition, held) in self.held.iter_mut().filter(|(_, held)| held.part.is_replica) {
            let not_before = match held.state {
                State::Missing => before,
                State::Lost { not_before } if !held.part.is_member => not_before,
                _ => continue,
            };
            held.state = State::Opening { not_before };
            out.0.push(Command::Open(*partition));
        }
    }

    /// A replica is open.
    pub fn on_opened(&mut self, now: MonoTime, partition: TopicPartition, opened: Opened) {
        let Opened { is_doubtful, is_damaged } = opened;
        let is_known = self.view.is_known;
        self.change(now, partition, |held| {
            let was_out = is_known && !held.part.is_member;
            let is_doubtful = is_doubtful || held.is_doubtful;
            *held = Held { state: State::Open, is_doubtful, was_out, is_damaged, ..*held };
        });
    }

    /// A replica should be on this disk and is not.
    pub fn on_lost(&mut self, now: MonoTime, partition: TopicPartition) {
        self.change(now, partition, |held| {
            if let State::Opening { not_before } = held.state {
                held.state = State::Lost { not_before };
            }
        });
    }

    /// A replica cannot be opened.
    pub fn on_cannot_open(&mut self, now: MonoTime, partition: TopicPartition) {
        self.change(now, partition, |held| held.state = State::Shut);
    }

    /// A replica that is open takes no more.
    pub fn on_offline(&mut self, now: MonoTime, partition: TopicPartition) {
        self.change(now, partition, |held| held.is_offline = true);
    }

    /// Whether something of an open replica is known to be damaged. To be told as often as anybody likes.
    pub fn on_damage(&mut self, partition: TopicPartition, is_damaged: bool) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.is_damaged = is_damaged;
        }
    }

    /// A replica wants its damage to be known, as found in that leader epoch. It says so again while it is not heard.
    pub fn on_damage_to_report(&mut self, now: MonoTime, partition: TopicPartition, leader_epoch: LeaderEpoch) {
        if self.follows_metadata() {
            self.damage.insert((partition, leader_epoch));
            self.report_by(now);
        }
    }

    /// A replica is not here any more: its log was closed since its topic is gone, or it was not there any more when it was to be opened.
    pub fn on_gone(&mut self, now: MonoTime, partition: TopicPartition) {
        self.held.remove(&partition);
        self.report_by(now);
    }

    /// No file of a deleted topic is left here. To be told as often as anybody likes.
    pub fn on_files_gone(&mut self, now: MonoTime, topic: TopicId) {
        let is_held = self.held.iter().any(|(partition, held)| partition.topic == topic && held.is_here());
        if let Some(is_gone) = self.tombstones.get_mut(&topic).filter(|is_gone| !**is_gone && !is_held) {
            *is_gone = true;
            self.report_by(now);
        }
    }

    /// How far the logs of last members reach: the epoch of the last record, and the offset after it.
    pub fn on_ends(&mut self, ends: &[(TopicPartition, LeaderEpoch, Offset)], out: &mut Output) {
        let Some(epoch) = self.serves() else { return };
        let is_wanted = |partition: &TopicPartition| {
            self.held.get(partition).is_some_and(|held| held.is_open() && held.part.is_last)
        };
        let wanted = ends.iter().filter(|(partition, ..)| is_wanted(partition));
        let findings = wanted.map(|(partition, leader_epoch, end_offset)| Finding::End {
            partition: *partition,
            leader_epoch: *leader_epoch,
            end_offset: *end_offset,
        });
        self.report(epoch, &findings.collect::<Vec<_>>(), out);
    }

    /// Changes what is known of a replica. The first time that all are known the broker may be counted on: it says so at once.
    fn change(&mut self, now: MonoTime, partition: TopicPartition, change: impl FnOnce(&mut Held)) {
        let Some(held) = self.held.get_mut(&partition) else { return };
        change(held);
        self.report_by(now);
        if !self.view.is_live && self.caught_up_to() == self.view.index {
            self.lease.renew_by(now);
        }
    }

    /// How many replicas there are, and how many of them are not open.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.held.len(), self.held.values().filter(|held| !held.is_open()).count())
    }
}

//! How a broker stops: it hands over, gives its lease up, says that it has stopped, closes, and leaves its marker.
//!
//! In this order, because a controller that is told fences at once, and does not wait for a lease to end: whoever is elected then may
//! commit more, and a leader that still answered here would name an old end.

use super::{BrokerEngine, Command, EndReason, Output, Phase, Request};
use crate::engine::metadata::LastStop;
use crate::types::{BrokerEpoch, MonoTime, Mutant, NodeId, TopicPartition};

impl BrokerEngine {
    /// It is to stop.
    pub fn on_stop(&mut self, now: MonoTime, out: &mut Output) {
        match self.phase {
            Phase::Registering { .. } => {
                // Nothing was opened. What the last process left is as good as it was, and no better: a marker would hide a power loss
                // of which no controller knows.
                let before = self.registration.before;
                let is_clean = before.stop == LastStop::Clean && before.epoch > BrokerEpoch(0);
                self.phase = Phase::Closing { marker: is_clean.then_some(before.epoch) };
                out.0.push(Command::Close);
            }
            // Which epoch the directory holds is not known.
            Phase::Storing { .. } => {
                self.phase = Phase::Closing { marker: None };
                out.0.push(Command::Close);
            }
            Phase::Serving { epoch } => {
                let until = now.plus(self.settings.stop_timeout);
                self.phase = Phase::HandingOver { epoch, until, again_at: now };
                self.go_on_handing_over(now, out);
            }
            _ => {}
        }
    }

    /// What is led here goes to another, until nothing is left that another could lead, or it takes too long.
    pub(super) fn go_on_handing_over(&mut self, now: MonoTime, out: &mut Output) {
        let Phase::HandingOver { epoch, until, .. } = self.phase else { return };
        let led: Vec<_> = self.to_hand_over().collect();
        if led.is_empty() || now >= until {
            self.phase = Phase::Silencing { epoch };
            self.proposals.clear();
            if Mutant::StopsWithItsLease.is_on() {
                return self.on_lease_given_up(now, out);
            }
            self.lease.give_up();
            out.0.push(Command::GiveUpLease);
            return;
        }
        self.phase = Phase::HandingOver { epoch, until, again_at: now.plus(self.settings.retry) };
        if !self.view.is_stopping {
            out.0.push(Command::Ask(Request::Stopping { node: self.node(), epoch }));
        }
        let deadline = now.plus(self.settings.hand_over_timeout);
        out.0.extend(led.into_iter().map(|(partition, to)| Command::HandOver { partition, to, until: deadline }));
    }

    fn to_hand_over(&self) -> impl Iterator<Item = (TopicPartition, NodeId)> {
        self.held
            .iter()
            .filter(|(_, held)| held.is_open())
            .filter_map(|(partition, held)| Some((*partition, held.part.heir?)))
    }

    /// A controller wants a leadership to be where it was meant to be.
    pub fn on_hand_over_wanted(&self, now: MonoTime, partition: TopicPartition, to: NodeId, out: &mut Output) {
        if self.serves().is_some() && self.held.get(&partition).is_some_and(|held| held.is_open()) {
            let until = now.plus(self.settings.hand_over_timeout);
            out.0.push(Command::HandOver { partition, to, until });
        }
    }

    /// All leaders here are silent.
    pub fn on_lease_given_up(&mut self, now: MonoTime, out: &mut Output) {
        let Phase::Silencing { epoch } = self.phase else { return };
        let until = now.plus(self.settings.farewell);
        self.phase = Phase::Leaving { epoch, is_closed: None, until, again_at: now };
        self.go_on_leaving(now, out);
        out.0.push(Command::Close);
    }

    /// All logs are closed; `is_clean`: everything is on the disk.
    pub fn on_closed(&mut self, now: MonoTime, is_clean: bool, out: &mut Output) {
        match &mut self.phase {
            Phase::Leaving { epoch, is_closed, .. } if is_closed.is_none() => {
                *is_closed = Some(is_clean);
                let epoch = *epoch;
                out.0.extend(is_clean.then_some(Command::MarkCleanStop(epoch)));
                self.go_on_leaving(now, out);
            }
            Phase::Closing { marker } => {
                let marker = marker.filter(|_| is_clean);
                out.0.extend(marker.map(Command::MarkCleanStop));
                self.phase = Phase::Ended;
                out.0.push(Command::End(EndReason::Stopped { is_clean: marker.is_some() }));
            }
            _ => {}
        }
    }

    /// Says that it has stopped until the metadata shows it, and ends then, or when that takes too long.
    pub(super) fn go_on_leaving(&mut self, now: MonoTime, out: &mut Output) {
        let Phase::Leaving { epoch, is_closed, until, again_at } = self.phase else { return };
        let is_heard = self.view.is_known && !self.view.is_live;
        if let Some(is_clean) = is_closed.filter(|_| is_heard || now >= until) {
            self.phase = Phase::Ended;
            out.0.push(Command::End(EndReason::Stopped { is_clean }));
        } else if again_at <= now {
            self.phase = Phase::Leaving { epoch, is_closed, until, again_at: now.plus(self.settings.retry) };
            if !is_heard {
                out.0.push(Command::Ask(Request::Stopped { node: self.node(), epoch }));
            }
        }
    }

    pub(super) fn follow_while_stopping(&mut self, now: MonoTime, out: &mut Output) {
        match self.phase {
            // The last of what it led has gone.
            Phase::HandingOver { .. } if self.to_hand_over().next().is_none() => self.go_on_handing_over(now, out),
            Phase::Leaving { .. } => self.go_on_leaving(now, out),
            _ => {}
        }
    }
}

//! The lease, and how it is renewed.
//!
//! ```text
//!   Renew, sent ──────────────── duration ─────────────────► the leaders here fall silent
//!        └──► controller ──► Renewed{epoch, sent, duration}     (and the controller waits for a drift longer)
//! ```

use std::time::Duration;

use super::{BrokerEngine, Command, Held, Output, Renewal, Request};
use crate::types::{BrokerEpoch, MonoTime, Mutant, TopicPartition};

/// Until when it runs, and when to ask next.
#[derive(Debug)]
pub(super) struct Lease {
    until: MonoTime,
    renew_at: MonoTime,
}

impl Lease {
    pub(super) fn none(now: MonoTime) -> Self {
        Self { until: MonoTime::default(), renew_at: now }
    }

    pub(super) fn give_up(&mut self) {
        self.until = MonoTime::default();
    }

    pub(super) fn renew_at(&self) -> MonoTime {
        self.renew_at
    }

    pub(super) fn renew_by(&mut self, at: MonoTime) {
        self.renew_at = self.renew_at.min(at);
    }
}

impl BrokerEngine {
    /// Until when the leaders here may answer.
    #[must_use]
    pub fn lease_until(&self) -> MonoTime {
        self.lease.until
    }

    /// Sends a renewal when it is time, whatever became of the one before. A fenced broker asks more often: it is waited for.
    pub(super) fn renew_if_due(&mut self, now: MonoTime, epoch: BrokerEpoch, out: &mut Output) {
        if self.lease.renew_at > now {
            return;
        }
        let interval = if self.view.is_live { self.settings.renewal_interval } else { self.settings.retry };
        self.lease.renew_at = now.plus(interval);
        let (applied, doubtful) = (self.caught_up_to(), self.doubts());
        let renewal = Renewal { node: self.node(), epoch, applied, sent: now, doubtful };
        out.0.push(Command::Ask(Request::Renew(renewal)));
    }

    /// What is to be known of replicas when the broker is counted on. While it is, each is reported by itself.
    fn doubts(&self) -> Vec<TopicPartition> {
        let is_in_doubt = |held: &Held| held.is_doubtful || held.is_damaged;
        let doubtful = self.held.iter().filter(|(_, held)| !self.view.is_live && is_in_doubt(held));
        doubtful.map(|(partition, _)| *partition).collect()
    }

    pub(super) fn on_renewed(
        &mut self,
        now: MonoTime,
        epoch: BrokerEpoch,
        (sent, duration): (MonoTime, Duration),
        out: &mut Output,
    ) {
        // Whoever is about to say that it has stopped has no lease any more, and gets none.
        if self.serves() != Some(epoch) || sent > now {
            return;
        }
        let counted_from = if Mutant::CountsLeasesFromTheAnswer.is_on() { now } else { sent };
        let until = counted_from.plus(duration);
        if until > self.lease.until {
            self.lease.until = until;
            out.0.push(Command::SetLease(until));
        }
    }
}

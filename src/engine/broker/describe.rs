//! The state of a broker toward the controllers, for people.

use std::time::Duration;

use super::{BrokerEngine, Phase};
use crate::types::MonoTime;

impl BrokerEngine {
    /// For how long no controller has answered.
    #[must_use]
    pub fn unheard_for(&self, now: MonoTime) -> Duration {
        now.since(self.heard_at)
    }

    /// Where it stands, what it waits for, and, if no controller has answered for several renewals, for how long.
    #[must_use]
    pub fn describe(&self, now: MonoTime) -> String {
        let mut text = match self.phase {
            Phase::Registering { .. } => match &self.refusal {
                Some(cause) => format!("not registered: {}", cause.message),
                None => "not registered yet".to_owned(),
            },
            Phase::Storing { epoch, again_at: None } => format!("writes down its broker epoch, {epoch}"),
            Phase::Storing { epoch, .. } => {
                format!("could not write down its broker epoch, {epoch}, and tries again: see to the data directory")
            }
            Phase::Serving { epoch } => self.describe_serving(now, format!("registered under broker epoch {epoch}")),
            Phase::HandingOver { .. } => {
                let led = self.held.values().filter(|held| held.part.heir.is_some()).count();
                format!("stops: {led} partitions are to be handed over")
            }
            Phase::Silencing { .. } => "stops: its leaders fall silent".to_owned(),
            Phase::Leaving { is_closed: Some(_), .. } => {
                "has stopped, and waits for the controllers to know".to_owned()
            }
            Phase::Leaving { .. } | Phase::Closing { .. } => "stops: its logs are being closed".to_owned(),
            Phase::Ended => "over".to_owned(),
        };
        let unheard = self.unheard_for(now);
        if unheard >= self.settings.renewal_interval.saturating_mul(3) && self.phase != Phase::Ended {
            text.push_str(&format!("; no controller has answered for {} s", unheard.as_secs()));
        }
        text
    }

    fn describe_serving(&self, now: MonoTime, name: String) -> String {
        let (replicas, closed) = self.count();
        if !self.view.is_known {
            format!("{name}, and the metadata here does not know that yet")
        } else if !self.view.is_live {
            format!("{name}, fenced; {closed} of {replicas} replicas are not open")
        } else if self.lease_until() <= now {
            format!("{name}; its lease is over, so it answers nothing as a leader")
        } else {
            format!("{name}; {closed} of {replicas} replicas are not open")
        }
    }
}

//! A broker toward the controllers: how it registers, when it may answer, what it tells of its replicas, and how it stops.
//!
//! ```text
//!                 Registered            on disk                  on_stop               nothing is led any more, or time is up
//!   Registering ────────────► Storing ──────────► Serving ──────────────► HandingOver ──────────────► Silencing
//!     │ asks again and again                       │  ▲                    hands over                  │ gives its lease up
//!     │                                      Renew │  │ SetLease                                       ▼
//!     │ on_stop                                    ▼  │                                             Leaving ──► Ended
//!     └──────────────────────► Closing ──► Ended   controllers                        says so, closes, leaves its marker
//!
//!   the metadata: on_image ──► Open, MarkVerified ──► replicas ──► on_opened, on_lost, … ──► Report, until the metadata shows it
//!   a leader here: on_proposal ──► Propose, with all others that are due
//! ```
//!
//! **What it is told.** The time, the metadata as far as it is applied here, what became of its replicas, what leaders here propose, the
//! answers of controllers, and that it is to stop. **What it does.** It fills an [`Output`] with [`Command`]s: requests to whichever
//! controller is active (who that is, its link knows), and work for its shell. **What it remembers.** Its registration, how long its
//! lease runs, what the newest metadata says of each replica here and what is known of it, and when it said what last.
//!
//! Requests are lost, doubled and late, and each is repeated on a clock of its own, so none waits for another, and nothing is built on
//! the order of the answers. A report is repeated until the metadata shows that it was heard; nobody answers it.
//!
//! What holds, by the numbers of docs/replication.md:
//!
//! * A lease is counted from when its renewal was *sent*, by this broker's clock, for the registration that it was sent under. No answer
//!   shortens it, none makes it run longer than that (rule 3).
//! * Nothing is led or followed before the registration is in the data directory and in the metadata that is applied here (rules 5, 14).
//! * A broker says that it knows the metadata only as far as it has opened all replicas that this calls for: by then it has said of each
//!   whether it is lost, damaged or doubtful, and is not counted on before that was heard (rules 14, 16).
//! * A broker that stops gives its lease up, and is silent, before it says that it has stopped: another may lead at once then. The marker
//!   of a clean stop comes after everything was written, and vouches for no time before that of which the controllers do not know
//!   (rules 3, 8, 15).
//! * A process that another has taken over from ends, and touches nothing (rule 14).

mod describe;
mod events;
mod image;
mod lease;
mod proposals;
mod registration;
mod replicas;
mod reports;
mod stopping;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::engine::controller::InSyncProposal;
use crate::engine::metadata::BrokerRegistration;
use crate::protocol::ApiError;
use crate::types::{BrokerEpoch, LeaderEpoch, MonoTime, NodeId, TopicId, TopicPartition};

pub use events::{Answer, Command, EndReason, Finding, Output, RefusedProposal, Renewal, ReplicaReport, Request};
pub use replicas::Opened;

use image::View;
use lease::Lease;
use replicas::Held;

/// How often a broker asks, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerSettings {
    /// What stands in its way (a registration, the announcement of a stop, a renewal while it is fenced, a hand-over of a stop) is asked
    /// for again after this long.
    pub retry: Duration,
    /// The lease is renewed this often. Several renewals within one lease: any one of them may be lost.
    pub renewal_interval: Duration,
    /// What the metadata does not show yet is reported again after this long.
    pub report_interval: Duration,
    /// A hand-over that takes longer is given up for a moment, and appends go on.
    pub hand_over_timeout: Duration,
    /// A broker that stops hands over for at most this long, then it goes.
    pub stop_timeout: Duration,
    /// A broker that has said that it stopped waits at most this long until the metadata shows it.
    pub farewell: Duration,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            retry: Duration::from_millis(250),
            // Kafka's broker.heartbeat.interval.ms is 2 s, for a session of 9 s.
            renewal_interval: Duration::from_secs(1),
            report_interval: Duration::from_secs(1),
            hand_over_timeout: Duration::from_secs(1),
            stop_timeout: Duration::from_secs(10),
            farewell: Duration::from_secs(2),
        }
    }
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No controller has answered with an epoch.
    Registering { ask_at: MonoTime },
    /// The epoch is on its way to the disk; if that failed, it is tried again at `again_at`.
    Storing { epoch: BrokerEpoch, again_at: Option<MonoTime> },
    /// Registered.
    Serving { epoch: BrokerEpoch },
    /// It stops, and hands over what it leads, until `until` at most.
    HandingOver { epoch: BrokerEpoch, until: MonoTime, again_at: MonoTime },
    /// Its leaders are being told that the lease is over.
    Silencing { epoch: BrokerEpoch },
    /// It closes its logs, and says that it has stopped.
    Leaving { epoch: BrokerEpoch, is_closed: Option<bool>, until: MonoTime, again_at: MonoTime },
    /// It stops without ever having been registered. Whether it leaves a marker, and of which registration.
    Closing { marker: Option<BrokerEpoch> },
    /// It is over.
    Ended,
}

/// See the module page.
#[derive(Debug)]
pub struct BrokerEngine {
    /// What it presents.
    registration: BrokerRegistration,
    settings: BrokerSettings,
    phase: Phase,
    lease: Lease,
    view: View,
    /// The index of the metadata that the replicas followed last; 0 before the first. What the next one calls for it may have called for
    /// at any index after this.
    followed: u64,
    held: BTreeMap<TopicPartition, Held>,
    /// Deleted topics that it is on record for as a holder; whether nothing of them is left here.
    tombstones: BTreeMap<TopicId, bool>,
    /// When each finding was reported last, of those that the metadata does not show.
    told: BTreeMap<Finding, MonoTime>,
    /// Damage that replicas have told of and nobody was told. They repeat it themselves.
    damage: BTreeSet<(TopicPartition, LeaderEpoch)>,
    /// When the shell was asked last how far the log of a last member reaches.
    asked_ends: BTreeMap<TopicPartition, MonoTime>,
    /// When to look for something to report.
    report_at: Option<MonoTime>,
    /// The newest of each leader here that was not sent, and since when the first waits.
    proposals: BTreeMap<TopicPartition, InSyncProposal>,
    propose_at: Option<MonoTime>,
    /// When a controller answered last, or this process began.
    heard_at: MonoTime,
    /// What the last refusal said.
    refusal: Option<ApiError>,
}

impl BrokerEngine {
    /// A process that starts `now`. `registration` is what it presents: `epoch` and `before.epoch` as its data directory holds them.
    /// The first tick is due at once.
    #[must_use]
    pub fn new(now: MonoTime, registration: BrokerRegistration, settings: BrokerSettings) -> Self {
        Self {
            registration,
            settings,
            phase: Phase::Registering { ask_at: now },
            lease: Lease::none(now),
            view: View::default(),
            followed: 0,
            held: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            told: BTreeMap::new(),
            damage: BTreeSet::new(),
            asked_ends: BTreeMap::new(),
            report_at: None,
            proposals: BTreeMap::new(),
            propose_at: None,
            heard_at: now,
            refusal: None,
        }
    }

    /// Time has passed: whatever is due is asked, said and reported.
    pub fn on_tick(&mut self, now: MonoTime, out: &mut Output) {
        match self.phase {
            Phase::Registering { ask_at } if ask_at <= now => self.ask_to_register(now, out),
            Phase::Storing { epoch, again_at: Some(at) } if at <= now => self.store(epoch, out),
            Phase::HandingOver { again_at, .. } if again_at <= now => self.go_on_handing_over(now, out),
            Phase::Leaving { .. } => self.go_on_leaving(now, out),
            _ => {}
        }
        if let Some(epoch) = self.serves() {
            self.renew_if_due(now, epoch, out);
            self.propose_all(out);
            self.report_if_due(now, epoch, out);
        }
    }

    /// When [`BrokerEngine::on_tick`] is due, if nothing happens before. Ask after every event.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoTime> {
        let of_phase = match self.phase {
            Phase::Registering { ask_at } => Some(ask_at),
            Phase::Storing { again_at, .. } => again_at,
            Phase::HandingOver { again_at, .. } => Some(again_at),
            Phase::Leaving { is_closed, until, again_at, .. } => {
                Some(if is_closed.is_some() { again_at.min(until) } else { again_at })
            }
            Phase::Serving { .. } | Phase::Silencing { .. } | Phase::Closing { .. } | Phase::Ended => None,
        };
        if self.serves().is_none() {
            return of_phase;
        }
        [of_phase, Some(self.lease.renew_at()), self.propose_at, self.report_at].into_iter().flatten().min()
    }

    /// A controller has answered. Answers come twice, late, from controllers that are deposed, and in any order.
    pub fn on_answer(&mut self, now: MonoTime, answer: Answer, out: &mut Output) {
        if self.phase == Phase::Ended {
            return;
        }
        self.heard_at = self.heard_at.max(now);
        match answer {
            Answer::Registered { incarnation, epoch } => self.on_registered(incarnation, epoch, out),
            Answer::NotRegistered { incarnation, cause } => self.on_not_registered(incarnation, cause, out),
            Answer::Renewed { epoch, sent, duration } => self.on_renewed(now, epoch, (sent, duration), out),
            // It is about to be fenced, and counted on again after that: the next renewal is sent in any case.
            Answer::Lapsed { .. } => {}
            Answer::StaleEpoch { epoch, current } => self.on_stale_epoch(epoch, current, out),
            Answer::ProposalsRefused(refused) => {
                out.0.extend(refused.into_iter().map(Command::ProposalRefused));
            }
        }
    }

    /// The registration, once the data directory holds it.
    #[must_use]
    pub fn epoch(&self) -> Option<BrokerEpoch> {
        match self.phase {
            Phase::Serving { epoch }
            | Phase::HandingOver { epoch, .. }
            | Phase::Silencing { epoch }
            | Phase::Leaving { epoch, .. } => Some(epoch),
            Phase::Registering { .. } | Phase::Storing { .. } | Phase::Closing { .. } | Phase::Ended => None,
        }
    }

    /// The registration, while it renews its lease and reports.
    fn serves(&self) -> Option<BrokerEpoch> {
        match self.phase {
            Phase::Serving { epoch } | Phase::HandingOver { epoch, .. } => Some(epoch),
            _ => None,
        }
    }

    /// Whether the replicas follow the metadata: it is registered, the metadata that is applied here knows that, and it is not closing.
    #[must_use]
    pub fn follows_metadata(&self) -> bool {
        self.serves().is_some() && self.view.is_known
    }

    /// Whether it closes, or has ended.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Silencing { .. } | Phase::Leaving { .. } | Phase::Closing { .. } | Phase::Ended)
    }

    /// Another process of this broker has registered: it is not to be fought.
    fn end(&mut self, why: EndReason, out: &mut Output) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        self.lease.give_up();
        out.0.extend([Command::GiveUpLease, Command::End(why)]);
    }

    fn node(&self) -> NodeId {
        self.registration.node
    }
}

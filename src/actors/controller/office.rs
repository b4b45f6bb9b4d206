//! What a controller in office remembers beside the image, and does by itself from time to time.
//!
//! ```text
//!   a majority confirms ─► Tenure: leases, hand-overs, ends, who is condemned ─► another term, or none: all of it is forgotten
//!                            │ every 100 ms
//!                            ├─ silent for a lease and the drift ─► condemned ─► fenced
//!                            ├─ led by another than the first replica ─► a wish, for its leader to fetch
//!                            └─ something was left undone ─► settled
//! ```
//!
//! Nothing of it is needed to decide rightly: a successor that knows none of it waits a full lease before it fences anyone, asks
//! again for hand-overs, and hears the ends once more, since brokers repeat what the metadata does not show yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actix::{Context, Handler};

use super::actor::{Controller, Office};
use super::messages::{Committed, NotFenced};
use crate::actors::send::post;
use crate::engine::broker::{Answer, Renewal};
use crate::engine::controller::{
    self, Balance, Decision, HandOver, LeaseTable, ReplicaEnd, elect_from_last_members, fence, settle_all,
    without_members,
};
use crate::engine::metadata::ClusterImage;
use crate::protocol::ApiError;
use crate::types::{BrokerEpoch, MonoTime, NodeId, TopicPartition};

/// How often a controller looks for what is due. A fiftieth of a lease, and nothing to a machine at rest.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// What a controller remembers while it is in office. See the module page.
pub(super) struct Tenure {
    leases: LeaseTable,
    balance: Balance,
    /// Brokers that are being fenced. None is counted on meanwhile.
    condemned: BTreeSet<(NodeId, BrokerEpoch)>,
    /// What the last members of partitions without any have told. At most one for each replica.
    ends: BTreeMap<(TopicPartition, NodeId), ReplicaEnd>,
    /// Hand-overs that their leaders were not told of yet.
    wishes: BTreeMap<TopicPartition, HandOver>,
    /// The index of the image that was last looked at for what was left undone.
    settled: Option<u64>,
}

/// What is to be done about a renewal.
pub(super) enum Renewing {
    Answer(Option<Answer>),
    /// Count on the broker again, then say that its lease runs for so long.
    Unfence(Duration),
}

/// Why a broker is fenced that did not ask for it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Silent(Duration),
    Gone,
}

impl Verdict {
    fn announce(self, node: NodeId, epoch: BrokerEpoch) {
        match self {
            Self::Silent(silence) => {
                let silent_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(%node, %epoch, silent_ms, "a broker is fenced: nothing was heard of it for longer than a lease");
            }
            Self::Gone => {
                tracing::warn!(%node, %epoch, "a broker is fenced: its connection is lost and its port refuses, so its process is gone");
            }
        }
    }
}

impl Tenure {
    fn new(settings: &super::ControllerSettings, now: MonoTime, image: &ClusterImage) -> Self {
        Self {
            leases: LeaseTable::new(settings.leases, now, image),
            balance: Balance::new(settings.gentleness),
            condemned: BTreeSet::new(),
            ends: BTreeMap::new(),
            wishes: BTreeMap::new(),
            settled: None,
        }
    }

    /// The image has changed.
    pub fn follow(&mut self, now: MonoTime, image: &ClusterImage) {
        self.leases.follow(now, image);
        self.condemned.retain(|(node, epoch)| image.is_live(*node) && image.is_registered(*node, *epoch));
    }

    /// A renewal came, and since then a majority has confirmed that this controller leads.
    pub fn renew(&mut self, now: MonoTime, image: &ClusterImage, renewal: &Renewal) -> Renewing {
        let Renewal { node, epoch, applied, sent, .. } = *renewal;
        if self.condemned.contains(&(node, epoch)) && image.is_live(node) {
            return Renewing::Answer(Some(Answer::Lapsed { epoch }));
        }
        Renewing::Answer(match self.leases.on_renewal(now, image, (node, epoch), applied) {
            controller::Renewal::Granted { unfence: true, duration } => return Renewing::Unfence(duration),
            // Fenced: the broker does not know enough yet to be counted on.
            controller::Renewal::Granted { .. } if !image.is_live(node) => None,
            controller::Renewal::Granted { duration, .. } => Some(Answer::Renewed { epoch, sent, duration }),
            controller::Renewal::Lapsed => Some(Answer::Lapsed { epoch }),
            controller::Renewal::StaleEpoch { current } => Some(Answer::StaleEpoch { epoch, current }),
        })
    }

    /// The broker to fence, if it is one that is counted on and its port refuses.
    pub fn on_refused(&self, image: &ClusterImage, node: NodeId, epoch: BrokerEpoch) -> Option<(NodeId, BrokerEpoch)> {
        self.leases.on_refused(image, node, epoch)
    }

    /// Takes note of what last members kept. Only of partitions that have nobody else: elsewhere it means nothing, and would mean
    /// something wrong later.
    pub fn remember_ends(&mut self, image: &ClusterImage, ends: Vec<ReplicaEnd>) {
        let wanted: BTreeMap<_, _> = without_members(image).collect();
        let is_wanted =
            |end: &ReplicaEnd| wanted.get(&end.partition).is_some_and(|members| members.contains(&end.node));
        self.ends.extend(ends.into_iter().filter(is_wanted).map(|end| ((end.partition, end.node), end)));
    }

    /// Asks for hand-overs, whatever the balance says.
    pub fn want(&mut self, now: MonoTime, hand_overs: impl Iterator<Item = HandOver>) {
        for wish in hand_overs {
            self.balance.note_asked(now, wish.partition);
            self.wishes.insert(wish.partition, wish);
        }
    }

    /// The hand-overs that the broker has not been told of, if there are any.
    pub fn take_wishes(&mut self, image: &ClusterImage, node: NodeId) -> Vec<(TopicPartition, NodeId)> {
        let (mut taken, mut left) = (Vec::new(), BTreeMap::new());
        for (partition, wish) in std::mem::take(&mut self.wishes) {
            let is_current = image.partition(partition).is_some_and(|state| state.leader == Some(wish.leader));
            match () {
                // Overtaken.
                () if !is_current => {}
                () if wish.leader == node => taken.push((partition, wish.to)),
                () => drop(left.insert(partition, wish)),
            }
        }
        self.wishes = left;
        taken
    }

    /// Whether something was left undone in an image that was not looked at before. A pure function of the image and of `ends`, so
    /// it is asked once for each.
    fn is_unsettled(&mut self, image: &ClusterImage, defaults: &crate::types::TopicConfig) -> bool {
        if self.settled.replace(image.index) == Some(image.index) {
            return false;
        }
        if !self.ends.is_empty() {
            let wanted: BTreeSet<_> = without_members(image).map(|(partition, _)| partition).collect();
            self.ends.retain(|(partition, node), end| {
                wanted.contains(partition) && image.is_registered(*node, end.broker_epoch)
            });
        }
        let has_records = |decision: Result<usize, ApiError>| decision.is_ok_and(|records| records > 0);
        has_records(settle_all(image).map(|decision| decision.records.len()))
            || has_records(elect_from_last_members(image, defaults, &self.ends()).map(|d| d.records.len()))
    }

    /// For how long a broker is counted on without another sign of life.
    pub fn lease_left(&self, now: MonoTime, node: NodeId) -> Duration {
        self.leases.left(now, node)
    }

    pub fn ends(&self) -> Vec<ReplicaEnd> {
        self.ends.values().copied().collect()
    }
}

impl Controller {
    pub(super) fn take_office(&mut self, ctx: &mut Context<Self>) {
        let now = self.settings.clock.now();
        self.tenure = Some(Tenure::new(&self.settings, now, &self.image()));
        self.confirm_renewals(ctx);
        self.answer_followers();
        self.dial_all(ctx);
        self.finish_change();
    }

    /// Forgets all that belonged to the office. Whoever waits is told why.
    pub(super) fn end_tenure(&mut self, cause: &ApiError) {
        self.tenure = None;
        self.producer_ids = 0..0;
        self.dialing.clear();
        self.renewals.turn_away(cause);
        self.followers.turn_away(cause);
    }

    /// What a controller does from time to time.
    pub(super) fn tick(&mut self, ctx: &mut Context<Self>) {
        self.fence_the_silent(ctx);
        self.want_hand_overs();
        self.settle(ctx);
        self.answer_followers();
        self.ask_whether_removed(ctx);
        self.close_old_links();
        self.measure();
    }

    /// Says how it stands.
    pub(super) fn measure(&self) {
        let (now, image) = (self.settings.clock.now(), self.image());
        let figures = &self.settings.metrics.controller;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let count = |count: usize| count as u64;
        let voters = metrics.membership_config.voter_ids().count();
        figures.active.set(u64::from(self.tenure.is_some()));
        figures.has_leader.set(u64::from(metrics.current_leader.is_some()));
        figures.voters.set(count(voters));
        figures.learners.set(count(metrics.membership_config.nodes().count().saturating_sub(voters)));
        figures.term.set(metrics.current_term);
        figures.last_index.set(metrics.last_log_index.unwrap_or_default());
        figures.applied_index.set(metrics.last_applied.map_or(0, |applied| applied.index));
        figures.set_leases(self.leases(now, &image));
    }

    /// The brokers that are counted on, and for how long without another sign of life.
    pub(super) fn leases(&self, now: MonoTime, image: &ClusterImage) -> Vec<(NodeId, Duration)> {
        let Some(tenure) = &self.tenure else { return Vec::new() };
        let live = image.brokers.iter().filter(|(_, broker)| !broker.fenced);
        live.map(|(node, _)| (*node, tenure.lease_left(now, *node))).collect()
    }

    fn fence_the_silent(&mut self, ctx: &mut Context<Self>) {
        let (now, image) = (self.settings.clock.now(), self.image());
        let Some(tenure) = &mut self.tenure else { return };
        tenure.follow(now, &image);
        let expired = tenure.leases.expired(now, &image).into_iter();
        let silent: Vec<_> = expired.map(|broker| (broker, tenure.leases.silence_of(now, broker.0))).collect();
        for (broker, silence) in silent {
            self.condemn(ctx, broker, Verdict::Silent(silence));
        }
    }

    /// Fences a broker that did not ask for it. Once: until that is decided, or has failed, it is condemned.
    pub(super) fn condemn(&mut self, ctx: &mut Context<Self>, broker: (NodeId, BrokerEpoch), verdict: Verdict) {
        let (Office::Held(term), Some(tenure)) = (self.office, &mut self.tenure) else { return };
        if !tenure.condemned.insert(broker) {
            return;
        }
        let (node, epoch) = broker;
        let decided = self.ask(ctx, move |sitting| {
            // It has registered anew meanwhile: then it is fenced.
            let Ok(decision) = fence(&sitting.image, node, epoch) else { return Ok(false) };
            let is_news = !decision.records.is_empty();
            sitting.take(decision).map(|()| is_news)
        });
        let home = actix::AsyncContext::address(ctx);
        actix_rt::spawn(async move {
            match decided.await {
                Ok(Committed { answer: true, .. }) => verdict.announce(node, epoch),
                Ok(_) => {}
                Err(_) => post(&home, NotFenced { term, node, epoch }),
            }
        });
    }

    fn want_hand_overs(&mut self) {
        let (now, image) = (self.settings.clock.now(), self.image());
        let Some(tenure) = &mut self.tenure else { return };
        let wanted = tenure.balance.next(now, &image).into_iter();
        tenure.wishes.extend(wanted.map(|wish| (wish.partition, wish)));
    }

    /// Settles what a decision that was overtaken left undone, and what became possible since, as when a last member came back.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        let image = self.image();
        let Some(tenure) = &mut self.tenure else { return };
        if !tenure.is_unsettled(&image, &self.settings.policy.topic_defaults) {
            return;
        }
        let ends = tenure.ends();
        // It is looked for again in the next image.
        drop(self.ask(ctx, move |sitting| {
            let decision = settle_all(&sitting.image)?;
            sitting.take(decision)?;
            let Decision { records, .. } =
                elect_from_last_members(&sitting.image, &sitting.policy.topic_defaults, &ends)?;
            sitting.take(Decision { records, answer: () })
        }));
    }
}

impl Handler<NotFenced> for Controller {
    type Result = ();
    fn handle(&mut self, NotFenced { term, node, epoch }: NotFenced, _: &mut Self::Context) {
        // The next look at the leases condemns it again.
        if let (true, Some(tenure)) = (self.office == Office::Held(term), &mut self.tenure) {
            tenure.condemned.remove(&(node, epoch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::controller::test_support::{Cluster, policy};
    use crate::types::NodeId;

    fn at(seconds: u64) -> MonoTime {
        MonoTime(Duration::from_secs(seconds))
    }

    fn renewed(tenure: &mut Tenure, now: u64, cluster: &Cluster) -> Option<Answer> {
        let epoch = cluster.epoch(1);
        let renewal = Renewal { node: NodeId(1), epoch, applied: u64::MAX, sent: at(now), doubtful: Vec::new() };
        match tenure.renew(at(now), &cluster.image, &renewal) {
            Renewing::Answer(answer) => answer,
            Renewing::Unfence(_) => panic!("it is counted on already"),
        }
    }

    #[test]
    fn rule_03_a_broker_that_is_being_fenced_is_not_renewed_for_whatever_reason_it_is() {
        let settings = crate::actors::controller::ControllerSettings::new(policy());
        let mut cluster = Cluster::of(2);
        let epoch = cluster.epoch(1);
        let mut tenure = Tenure::new(&settings, at(0), &cluster.image);
        let answer = Answer::Renewed { epoch, sent: at(4), duration: settings.leases.duration };
        assert_eq!(renewed(&mut tenure, 4, &cluster), Some(answer), "in time");
        assert_eq!(renewed(&mut tenure, 10, &cluster), Some(Answer::Lapsed { epoch }), "too late");

        let mut tenure = Tenure::new(&settings, at(0), &cluster.image);
        // Its port refused, though its lease runs.
        tenure.condemned.insert((NodeId(1), epoch));
        tenure.follow(at(1), &cluster.image);
        assert_eq!(renewed(&mut tenure, 1, &cluster), Some(Answer::Lapsed { epoch }));
        cluster.fenced(1);
        tenure.follow(at(2), &cluster.image);
        assert!(tenure.condemned.is_empty(), "it is done");
    }
}

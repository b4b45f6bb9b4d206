//! What controllers do with what they are told: they ask the engine, and have its records decided.

use std::collections::BTreeSet;
use std::sync::Arc;

use callboard::engine::broker::{self, Answer, RefusedProposal, Request};
use callboard::engine::controller::{self, InSyncProposal, Renewal, alter_in_sync};
use callboard::engine::metadata::{ClusterImage, MetadataRecord};
use callboard::raft::encode_image;
use callboard::types::{MonoTime, Mutant, NodeId};

use crate::net::{Message, Place};
use crate::world::{Decision, Event, Then, World};

/// How often a controller looks for silent brokers.
const TICK_US: u64 = 50_000;

impl World {
    fn controller_time(&self) -> MonoTime {
        MonoTime(std::time::Duration::from_micros(self.now))
    }

    /// Whether a controller can reach a majority, itself included.
    pub fn has_quorum(&self, controller: usize) -> bool {
        self.raft.voters.contains(&controller) && self.has_quorum_of(controller, &self.raft.voters)
    }

    /// Whether a controller reaches a majority of `voters`.
    pub fn has_quorum_of(&self, controller: usize, voters: &BTreeSet<usize>) -> bool {
        let count = voters.iter().filter(|other| self.reaches(controller, **other)).count();
        self.controllers[controller].up && count > voters.len() / 2
    }

    pub fn reaches(&self, controller: usize, other: usize) -> bool {
        let (here, there) = (Place::Controller(controller), Place::Controller(other));
        other == controller || (self.controllers[other].up && !self.network.is_cut(here, there))
    }

    /// A controller that can is elected: in the model that happens at once, and to anybody.
    pub fn elect_controller(&mut self) {
        let able: Vec<_> = (0..self.controllers.len()).filter(|number| self.has_quorum(*number)).collect();
        if able.is_empty() {
            return;
        }
        let elected = able[self.rng.usize(0..able.len())];
        self.raft.term += 1;
        self.raft.leader = Some(elected);
        let (term, end) = (self.raft.term, self.raft.entries.len());
        let now = self.controller_time();
        let controller = &mut self.controllers[elected];
        controller.term = Some(term);
        controller.apply_up_to(&self.raft, end);
        controller.take_office(now);
        self.tell(format_args!("controller {elected} is elected in term {term}, with {end} entries"));
        self.coverage.count("a controller is elected");
    }

    pub fn start_controller(&mut self, number: usize) {
        let controller = &mut self.controllers[number];
        if controller.up {
            return;
        }
        controller.up = true;
        controller.life += 1;
        let life = controller.life;
        self.tell(format_args!("controller {number} starts"));
        self.after(TICK_US, Event::WakeController { controller: number, life });
    }

    pub fn stop_controller(&mut self, number: usize) {
        let controller = &mut self.controllers[number];
        controller.up = false;
        controller.life += 1;
        controller.leave_office();
        self.tell(format_args!("controller {number} is killed"));
    }

    pub fn wake_controller(&mut self, number: usize, life: u64) {
        if !self.controllers[number].up || self.controllers[number].life != life {
            return;
        }
        self.after(TICK_US, Event::WakeController { controller: number, life });
        self.follow_raft(number);
        let has_leader = self
            .raft
            .leader
            .is_some_and(|leader| self.controllers[leader].term == Some(self.raft.term) && self.has_quorum(leader));
        if !has_leader && self.rng.u64(0..4) == 0 {
            self.elect_controller();
        }
        if self.controllers[number].office.is_some() {
            self.tend(number);
            self.admit_learner(number);
        }
    }

    /// What a controller in office does from time to time.
    fn tend(&mut self, number: usize) {
        let now = self.controller_time();
        let controller = &mut self.controllers[number];
        let Some(office) = controller.office.as_mut() else { return };
        office.leases.follow(now, &controller.image);
        let silent = office.leases.expired(now, &controller.image);
        office.condemned.extend(&silent);
        let hand_overs = office.balance.next(now, &controller.image);
        for (node, epoch) in silent {
            if let Ok(decision) = controller::fence(&self.controllers[number].image, node, epoch) {
                self.coverage.count("a broker is fenced for its silence");
                self.propose(number, decision.records, Then::Nothing);
            }
        }
        for hand_over in hand_overs {
            let to = Place::Broker(self.broker_of(hand_over.leader));
            let message = Message::HandOver { partition: hand_over.partition, to: hand_over.to };
            self.send(Place::Controller(number), to, message);
        }
        // What a decision that was overtaken left undone.
        if let Ok(decision) = controller::settle_all(&self.controllers[number].image) {
            self.propose(number, decision.records, Then::Nothing);
        }
    }

    /// Has records decided, if this controller leads in the term that it believes in.
    pub fn propose(&mut self, number: usize, records: Vec<MetadataRecord>, then: Then) {
        let Some(term) = self.controllers[number].term else { return };
        let life = self.controllers[number].life;
        // A majority answers soon, most of the time, and in the order in which it was asked.
        let delay = if self.rng.u64(0..30) == 0 { self.rng.u64(4_000..150_000) } else { self.rng.u64(200..4_000) };
        let when = (self.now + delay).max(self.controllers[number].decides_until);
        self.controllers[number].decides_until = when;
        self.at(when, Event::Decide { controller: number, life, term, decision: Decision { records, then } });
    }

    pub fn decide(&mut self, number: usize, life: u64, term: u64, decision: Decision) {
        let is_alive = self.controllers[number].up && self.controllers[number].life == life;
        // An entry may be decided though its proposer died meanwhile, as long as nobody was elected since.
        let may_survive = !is_alive && self.rng.bool();
        if term != self.raft.term || !(is_alive && self.has_quorum(number) || may_survive) {
            if is_alive {
                self.coverage.count("a deposed controller is refused");
                self.tell(format_args!("controller {number} finds that its term {term} is over"));
                self.controllers[number].leave_office();
            }
            return;
        }
        let Decision { records, then } = decision;
        let before = self.raft.entries.len();
        let fits = if records.is_empty() {
            true
        } else {
            self.raft.entries.push(Arc::new(records));
            let fits = self.check_newest_entry(before);
            self.follow_metadata_news(before, fits);
            fits
        };
        if !is_alive {
            return;
        }
        let end = self.raft.entries.len();
        let now = self.controller_time();
        let raft = std::mem::replace(&mut self.raft, crate::metadata::RaftLog::new());
        let controller = &mut self.controllers[number];
        controller.apply_up_to(&raft, end);
        if let Some(office) = controller.office.as_mut() {
            office.leases.follow(now, &controller.image);
        }
        self.raft = raft;
        if !fits {
            self.coverage.count("a decision did not fit what came before it");
            return;
        }
        if let Then::Tell(place, message) = then {
            self.send(Place::Controller(number), place, message);
        }
        if before < end {
            self.push_metadata(number);
        }
    }

    /// Brokers hear of news soon, most of the time.
    fn push_metadata(&mut self, number: usize) {
        let end = self.controllers[number].applied;
        for broker in 0..self.brokers.len() {
            let from = self.brokers[broker].process.as_ref().map_or(end, |process| process.applied.min(end));
            if from < end && from >= self.controllers[number].compacted {
                let entries = self.raft.entries[from..end].to_vec();
                self.send(Place::Controller(number), Place::Broker(broker), Message::Metadata { from, entries });
            }
        }
    }

    /// An entry was decided: what it changed is told, and what must hold of it is checked.
    fn follow_metadata_news(&mut self, at: usize, fits: bool) {
        let entry = Arc::clone(&self.raft.entries[at]);
        for record in entry.iter().filter(|_| fits) {
            match record {
                MetadataRecord::PartitionChanged(change) => {
                    let leader = change.leader.map_or("nobody".to_owned(), |leader| format!("broker {leader}"));
                    let (in_sync, eligible) = (&change.in_sync, &change.eligible);
                    self.tell(format_args!(
                        "{} is led by {leader} in epoch {}, in sync {in_sync:?}, eligible {eligible:?}{}",
                        change.partition,
                        change.leader_epoch,
                        if change.is_unclean { ", uncleanly" } else { "" }
                    ));
                    if !change.eligible.is_empty() {
                        self.coverage.count("a replica is eligible beside the in-sync set");
                    }
                    if change.is_unclean {
                        self.coverage.count("an unclean election");
                    }
                }
                MetadataRecord::BrokerFenced { node, .. } => self.tell(format_args!("broker {node} is fenced")),
                MetadataRecord::BrokerUnfenced { node, .. } => self.tell(format_args!("broker {node} is counted on")),
                MetadataRecord::TopicConfigChanged { topic, config } => {
                    self.tell(format_args!("settings are {:?}", config.0));
                    self.on_settings_changed(*topic);
                }
                MetadataRecord::TopicCreated { topic, .. } | MetadataRecord::TopicPartitionsAdded { topic, .. } => {
                    self.on_partitions_created(*topic);
                }
                MetadataRecord::TopicDeleted { topic } => self.on_topic_deleted(*topic),
                _ => {}
            }
        }
        for partition in self.partitions.clone() {
            self.check_members(partition);
        }
    }

    fn check_newest_entry(&mut self, at: usize) -> bool {
        let entry = Arc::clone(&self.raft.entries[at]);
        let newest = self.plan.newest.get_or_insert_with(|| ClusterImage::empty(self.cluster));
        let before = newest.clone();
        let fits = newest.apply_entry(&entry).is_ok();
        if fits {
            self.check_entry(&before, &entry);
        } else {
            self.check_refused_entry(&before);
        }
        fits
    }

    pub fn deliver_to_controller(&mut self, number: usize, from: Place, message: Message) {
        if !self.controllers[number].up {
            return;
        }
        if let Message::FetchMetadata { entries } = message {
            let end = self.controllers[number].applied;
            if entries < self.controllers[number].compacted {
                let image = encode_image(&self.controllers[number].image).expect("an image can be encoded");
                let message = Message::Image { entries: end, image: Arc::new(image) };
                self.send(Place::Controller(number), from, message);
            } else if entries < end {
                let news = self.raft.entries[entries..end].to_vec();
                self.send(Place::Controller(number), from, Message::Metadata { from: entries, entries: news });
            }
            return;
        }
        let Some(term) = self.controllers[number].term.filter(|_| self.controllers[number].office.is_some()) else {
            return;
        };
        let Message::Ask(request) = message else { return };
        if let Request::Renew(renewal) = request {
            let (life, delay) = (self.controllers[number].life, self.rng.u64(100..1_500));
            self.after(delay, Event::Confirm { controller: number, life, term, renewal });
            return;
        }
        let image = self.controllers[number].image.clone();
        self.ask(number, from, request, &image);
    }

    fn ask(&mut self, number: usize, from: Place, request: Request, image: &ClusterImage) {
        match request {
            Request::Register(registration) => {
                let incarnation = registration.incarnation;
                match controller::register(image, registration, &self.defaults) {
                    Ok(decision) => {
                        let answer = Answer::Registered { incarnation, epoch: decision.answer };
                        self.propose(number, decision.records, Then::Tell(from, Message::Answer(answer)));
                    }
                    Err(cause) => {
                        self.coverage.count("a registration is refused");
                        let answer = Answer::NotRegistered { incarnation, cause };
                        self.send(Place::Controller(number), from, Message::Answer(answer));
                    }
                }
            }
            // It is answered when a majority has confirmed that this controller leads.
            Request::Renew(_) => {}
            Request::Propose(proposals) => self.ask_in_sync(number, from, &proposals, image),
            Request::Report(report) => self.hear(number, report, image),
            Request::Stopping { node, epoch } => {
                if let Ok(decision) = controller::stopping(image, node, epoch) {
                    self.propose(number, decision.records, Then::Nothing);
                }
            }
            Request::Stopped { node, epoch } => {
                if let Ok(decision) = controller::fence(image, node, epoch) {
                    self.propose(number, decision.records, Then::Nothing);
                }
            }
        }
    }

    fn ask_in_sync(&mut self, number: usize, from: Place, proposals: &[InSyncProposal], image: &ClusterImage) {
        let decision = alter_in_sync(image, proposals);
        if !decision.records.is_empty() {
            self.propose(number, decision.records, Then::Nothing);
        }
        let mut refused = Vec::new();
        for (InSyncProposal { partition, partition_epoch, .. }, answer) in proposals.iter().zip(decision.answer) {
            let Err(why) = answer else { continue };
            self.tell(format_args!("a proposal of {from:?} for {partition} is refused: {why}"));
            self.coverage.count("a proposal is refused");
            let (partition, partition_epoch) = (*partition, *partition_epoch);
            refused.push(RefusedProposal { partition, partition_epoch, why: why.to_string() });
        }
        if !refused.is_empty() {
            self.send(Place::Controller(number), from, Message::Answer(Answer::ProposalsRefused(refused)));
        }
    }

    pub fn confirm(&mut self, number: usize, life: u64, term: u64, renewal: broker::Renewal) {
        let is_same = self.controllers[number].life == life && self.controllers[number].term == Some(term);
        if !is_same || !self.controllers[number].up {
            return;
        }
        let leads = self.raft.term == term && self.has_quorum(number);
        if !leads && !Mutant::RenewsWithoutAQuorum.is_on() {
            self.coverage.count("a renewal is not answered for want of a quorum");
            return;
        }
        let broker::Renewal { node, epoch, applied, sent, doubtful } = renewal;
        let now = self.controller_time();
        let to = Place::Broker(self.broker_of(node));
        let controller = &mut self.controllers[number];
        let Some(office) = controller.office.as_mut() else { return };
        match office.leases.on_renewal(now, &controller.image, (node, epoch), applied) {
            Renewal::Granted { .. } if !leads => {
                self.oracle.fail(format!("controller {number} renews a lease, and may have been deposed"));
            }
            Renewal::Granted { unfence: false, duration } => {
                let is_live = controller.image.is_live(node);
                if is_live && office.condemned.contains(&(node, epoch)) {
                    self.oracle.fail(format!("the lease of broker {node} is renewed while it is being fenced"));
                }
                if is_live {
                    let answer = Answer::Renewed { epoch, sent, duration };
                    self.send(Place::Controller(number), to, Message::Answer(answer));
                }
            }
            Renewal::Granted { unfence: true, duration } => {
                office.condemned.remove(&(node, epoch));
                if let Ok(decision) = controller::unfence(&controller.image, node, epoch, &doubtful) {
                    self.tell(format_args!("controller {number} counts on broker {node} again"));
                    let answer = Message::Answer(Answer::Renewed { epoch, sent, duration });
                    self.propose(number, decision.records, Then::Tell(to, answer));
                }
            }
            Renewal::Lapsed => {
                self.coverage.count("a renewal comes too late");
                self.send(Place::Controller(number), to, Message::Answer(Answer::Lapsed { epoch }));
            }
            Renewal::StaleEpoch { current } => {
                let answer = Answer::StaleEpoch { epoch, current };
                self.send(Place::Controller(number), to, Message::Answer(answer));
            }
        }
    }

    /// A closed connection was dialled back and refused.
    pub fn hint_of_death(&mut self, node: NodeId) {
        let Some(number) = self.raft.leader.filter(|number| self.controllers[*number].office.is_some()) else { return };
        let controller = &self.controllers[number];
        let Some(epoch) = controller.image.epoch_of(node) else { return };
        let office = controller.office.as_ref();
        let Some((node, epoch)) = office.and_then(|office| office.leases.on_refused(&controller.image, node, epoch))
        else {
            return;
        };
        if let Ok(decision) = controller::fence(&controller.image, node, epoch) {
            self.coverage.count("a broker is fenced because its process is gone");
            self.propose(number, decision.records, Then::Nothing);
        }
    }
}

//! What brokers do: start, register, follow the metadata, hold the lease, host replicas, serve.

use std::collections::BTreeSet;
use std::sync::Arc;

use callboard::engine::assignment::Assignment;
use callboard::engine::controller::{InSyncProposal, Member, ReplicaEnd};
use callboard::engine::metadata::{BrokerRegistration, DirectoryHistory, MetadataRecord};
use callboard::raft::decode_image;
use callboard::replica::{self, Replica, open_all};
use callboard::storage::LogError;
use callboard::storage::queue::{LogQueue, LogWork};
use callboard::types::{IncarnationId, MonoTime, Mutant, Offset, PartitionIndex, TopicPartition};

use crate::broker::{Hosted, SETTINGS, wall};
use crate::metadata::LEASE;
use crate::net::{Message, Place};
use crate::rules::Duties;
use crate::world::{Event, World};

/// How often a broker renews its lease.
const RENEWAL_US: u64 = 150_000;

impl World {
    pub fn start_broker(&mut self, number: usize) {
        if self.brokers[number].process.is_some() {
            return;
        }
        let incarnation = self.rng.u128(1..u128::MAX);
        let cluster = self.cluster;
        let broker = &mut self.brokers[number];
        broker.life += 1;
        let (life, node) = (broker.life, broker.node);
        match broker.start(cluster, incarnation) {
            Ok(()) => {
                let stop = broker.process.as_ref().map(|process| process.stop);
                self.tell(format_args!("broker {node} starts, after {stop:?}"));
                self.after(1_000, Event::WakeBroker { broker: number, life });
            }
            Err(error) => {
                self.tell(format_args!("broker {node} cannot start: {error}"));
                self.stop_machine(number);
                self.after(200_000, Event::StartBroker { broker: number });
            }
        }
    }

    /// The process is gone, whatever it was doing.
    pub fn stop_process(&mut self, number: usize) {
        let broker = &mut self.brokers[number];
        let Some(process) = broker.process.take() else { return };
        broker.life += 1;
        drop(process);
    }

    /// The disk said that the machine has stopped: it lost its power, or the process was killed.
    fn stop_machine(&mut self, number: usize) {
        self.stop_process(number);
        // What its topics are set to may have changed since the crash was planned.
        let loses_power = std::mem::take(&mut self.brokers[number].loses_power);
        if loses_power && self.may_lose_power(number) {
            self.power_off(number);
        } else {
            self.brokers[number].disk.kill();
        }
    }

    /// Notices that the disk has stopped the machine in the middle of something.
    pub fn has_crashed_now(&mut self, number: usize) -> bool {
        if !self.brokers[number].disk.has_crashed() {
            return false;
        }
        let node = self.brokers[number].node;
        self.tell(format_args!("broker {node} dies in the middle of a disk operation"));
        self.coverage.count("a broker dies in the middle of a disk operation");
        self.stop_machine(number);
        let delay = self.rng.u64(100_000..1_500_000);
        self.after(delay, Event::StartBroker { broker: number });
        if self.rng.bool() {
            self.hint_of_death(node);
        }
        true
    }

    pub fn wake_broker(&mut self, number: usize, life: u64) {
        if self.brokers[number].life != life {
            return;
        }
        let event = Event::WakeBroker { broker: number, life };
        let Some(event) = self.unless_paused(number, event) else { return };
        let jitter = self.rng.u64(0..RENEWAL_US / 4);
        self.after(RENEWAL_US / 2 + jitter, event);
        let broker = &self.brokers[number];
        let Some(process) = broker.process.as_ref() else { return };
        let (node, now) = (broker.node, broker.now(self.now));
        let mut messages = vec![Message::FetchMetadata { entries: process.applied }];
        match process.epoch.filter(|_| process.is_registered) {
            None => messages.push(Message::Register(self.registration(number))),
            Some(epoch) => {
                let applied = if process.has_opened { process.image.index } else { 0 };
                let damaged = process.replicas.iter().filter(|(_, hosted)| hosted.replica.is_damaged());
                let doubtful =
                    process.doubtful.iter().chain(damaged.map(|(partition, _)| partition)).copied().collect();
                messages.push(Message::Renew { node, epoch, applied, sent: now, doubtful });
                for partition in &process.lost {
                    messages.push(Message::Lost { partition: *partition, node, epoch });
                }
                messages.extend(self.other_reports(number));
            }
        }
        for message in messages {
            self.send_to_controllers(number, message);
        }
        self.checkpoint(number);
        self.scrub_sometimes(number);
        self.go_on_stopping(number);
    }

    fn registration(&self, number: usize) -> BrokerRegistration {
        let broker = &self.brokers[number];
        let process = broker.process.as_ref().expect("a running broker registers");
        let meta = process.directory.meta();
        let held = meta.broker_epoch.unwrap_or_default();
        BrokerRegistration {
            node: broker.node,
            epoch: held,
            incarnation: IncarnationId(uuid::Uuid::from_u128(process.incarnation)),
            directory: meta.directory,
            host: "simulated".to_owned(),
            port: 1,
            rack: None,
            software: String::new(),
            before: DirectoryHistory { epoch: held, stop: process.stop },
            decided_at: None,
        }
    }

    /// What a registered broker tells about its replicas.
    fn other_reports(&self, number: usize) -> Vec<Message> {
        let broker = &self.brokers[number];
        let Some(process) = broker.process.as_ref() else { return Vec::new() };
        let (node, Some(epoch)) = (broker.node, process.epoch) else { return Vec::new() };
        let mut messages = Vec::new();
        let offline = process.replicas.iter().filter(|(_, hosted)| hosted.is_offline).map(|(partition, _)| partition);
        for partition in offline.chain(&process.shut) {
            let Some(state) = process.image.partition(*partition) else { continue };
            if state.is_member(node) {
                let leader_epoch = state.leader_epoch;
                messages.push(Message::Damaged { partition: *partition, node, epoch, leader_epoch });
            }
        }
        let ends = self.wanted_ends().into_iter().filter_map(|partition| {
            let hosted = process.replicas.get(&partition)?;
            let end = hosted.replica.cursors()?.written_end();
            let leader_epoch = hosted.reader.epoch_of(Offset(end.0.checked_sub(1)?)).unwrap_or_default();
            Some(ReplicaEnd { partition, node, broker_epoch: epoch, leader_epoch, end_offset: end })
        });
        let ends: Vec<_> = ends.collect();
        if !ends.is_empty() {
            messages.push(Message::Ends(ends));
        }
        for (topic, image) in &process.image.topics {
            let is_news = |index: &PartitionIndex| {
                let partition = TopicPartition::new(*topic, *index);
                process.replicas.contains_key(&partition) && !image.has_opened(*index, node)
            };
            let here = (0..).zip(&image.partitions).filter(|(_, state)| state.replicas.contains(&node));
            let partitions: Vec<_> = here.map(|(index, _)| PartitionIndex(index)).filter(is_news).collect();
            if !partitions.is_empty() {
                messages.push(Message::Opened { topic: *topic, node, partitions });
            }
        }
        messages.extend(process.files_gone(node).map(|topic| Message::FilesGone { topic, node }));
        messages
    }

    pub fn send_to_controllers(&mut self, number: usize, message: Message) {
        for controller in 0..self.controllers.len() {
            self.send(Place::Broker(number), Place::Controller(controller), message.clone());
        }
    }

    /// Writes the watermarks down, as the timers of the log writers do.
    fn checkpoint(&mut self, number: usize) {
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let partitions: Vec<_> = process.replicas.keys().copied().collect();
        for partition in partitions {
            if self.rng.u64(0..4) > 0 {
                continue;
            }
            let Some(hosted) = self.hosted(number, partition) else { continue };
            let Some(watermark) = hosted.replica.cursors().map(|cursors| cursors.high_watermark()) else { continue };
            hosted.queue.push(LogWork::Checkpoint(watermark));
            if self.rng.u64(0..4) == 0 {
                self.hosted(number, partition).into_iter().for_each(|hosted| {
                    hosted.queue.push(LogWork::Retention(watermark));
                });
            }
            self.pump(number, partition);
        }
    }

    pub fn hosted(&mut self, number: usize, partition: TopicPartition) -> Option<&mut Hosted> {
        self.brokers[number].process.as_mut()?.replicas.get_mut(&partition)
    }

    pub fn local_time(&self, number: usize) -> MonoTime {
        self.brokers[number].now(self.now)
    }

    pub fn deliver_to_broker(&mut self, number: usize, from: Place, message: Message) {
        if self.brokers[number].process.is_none() {
            return;
        }
        let event = Event::Deliver { from, to: Place::Broker(number), message };
        let Some(Event::Deliver { message, .. }) = self.unless_paused(number, event) else { return };
        match message {
            Message::Registered { incarnation, epoch } => self.on_registered(number, incarnation, epoch),
            Message::Renewed { epoch, sent } => self.on_renewed(number, epoch, sent),
            Message::StaleEpoch { epoch } => self.on_stale_epoch(number, epoch),
            Message::Metadata { from, entries } => self.on_metadata(number, from, &entries),
            Message::Image { entries, image } => self.on_image(number, entries, &image),
            Message::Refused { partition, partition_epoch } => {
                let now = self.local_time(number);
                let Some(hosted) = self.hosted(number, partition) else { return };
                if hosted.replica.leader().is_some_and(|leader| leader.leadership().partition_epoch == partition_epoch)
                {
                    hosted.replica.on_proposal_refused(now);
                    hosted.duties.is_refused();
                }
                self.pump(number, partition);
            }
            Message::HandOver { partition, to } => self.on_hand_over(number, partition, to),
            message => self.serve(number, from, message),
        }
    }

    fn on_registered(&mut self, number: usize, incarnation: u128, epoch: callboard::types::BrokerEpoch) {
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        if process.incarnation != incarnation || process.is_registered {
            return;
        }
        let stored = process.directory.store_broker_epoch(epoch);
        process.epoch = Some(epoch);
        process.is_registered = stored.is_ok();
        if self.has_crashed_now(number) || stored.is_err() {
            return;
        }
        let node = self.brokers[number].node;
        self.brokers[number].robbed.clear();
        self.brokers[number].is_wiped = false;
        self.brokers[number].is_without_power = false;
        self.tell(format_args!("broker {node} is registered under epoch {epoch}"));
        self.follow_image(number);
    }

    fn on_renewed(&mut self, number: usize, epoch: callboard::types::BrokerEpoch, sent: MonoTime) {
        let now = self.local_time(number);
        let Some(process) = self.brokers[number].process.as_mut().filter(|process| process.epoch == Some(epoch)) else {
            return;
        };
        let asked = if Mutant::CountsLeasesFromTheAnswer.is_on() { now } else { sent };
        let until = asked.plus(LEASE.duration);
        if until <= process.lease_until {
            return;
        }
        process.lease_until = until;
        let knows = process.image.index;
        let partitions: Vec<_> = process.replicas.keys().copied().collect();
        let node = self.brokers[number].node;
        // With a lease it may answer: so it must know by then that it leads no more.
        if let Some((fenced, index)) = self.plan.fenced_at.get(&node)
            && (*fenced, until > now) == (epoch, true)
            && knows < *index
        {
            self.oracle.fail(format!("broker {node} is given a lease, and does not know that it was fenced"));
        }
        for partition in partitions {
            if let Some(hosted) = self.hosted(number, partition) {
                hosted.replica.on_lease(now, until);
            }
            self.pump(number, partition);
        }
    }

    /// Another process of this broker has registered, or the controllers know nothing of it: this one ends.
    fn on_stale_epoch(&mut self, number: usize, epoch: callboard::types::BrokerEpoch) {
        let is_mine = self.brokers[number].process.as_ref().is_some_and(|process| process.epoch == Some(epoch));
        let is_newest =
            self.plan.newest.as_ref().is_some_and(|image| image.is_registered(self.brokers[number].node, epoch));
        if is_mine && !is_newest {
            self.stop_process(number);
            self.brokers[number].disk.kill();
            self.after(100_000, Event::StartBroker { broker: number });
        }
    }

    fn on_metadata(&mut self, number: usize, from: usize, entries: &[Arc<Vec<MetadataRecord>>]) {
        loop {
            let Some(process) = self.brokers[number].process.as_mut() else { return };
            let Some(known) = process.applied.checked_sub(from) else { return };
            let Some(entry) = entries.get(known) else { break };
            let _ = process.image.apply_entry(entry);
            process.applied += 1;
            // Brokers may see each state on the way, or only the last.
            if self.rng.bool() {
                self.follow_image(number);
            }
        }
        self.follow_image(number);
    }

    /// Metadata comes as a whole: what was applied meanwhile may be newer.
    fn on_image(&mut self, number: usize, entries: usize, image: &[u8]) {
        let Ok(image) = decode_image(image, self.cluster) else { return };
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        if process.image.install(image) {
            process.applied = entries;
            self.coverage.count("a broker is given an image");
            self.follow_image(number);
        }
    }

    /// Gives every replica the part that the metadata asks of it.
    fn follow_image(&mut self, number: usize) {
        let node = self.brokers[number].node;
        let now = self.local_time(number);
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        if !process.is_known(node) {
            return;
        }
        let Some(epoch) = process.epoch else { return };
        if process.image.is_live(node) {
            // Whoever is in sync by now has been taken for whole: it said that it is doubtful before it was counted on.
            let image = &process.image;
            let is_in_sync = |partition: &TopicPartition| {
                image.partition(*partition).is_some_and(|state| state.in_sync.contains(&node))
            };
            let (whole, doubtful): (Vec<_>, Vec<_>) = process.doubtful.iter().copied().partition(is_in_sync);
            process.doubtful = doubtful;
            for partition in whole {
                if let Some(hosted) = process.replicas.get_mut(&partition) {
                    hosted.queue.push(LogWork::MarkVerified);
                }
            }
        }
        let wanted: Vec<_> = process.image.partitions().map(|(partition, _)| partition).collect();
        let hosted: Vec<_> = process.replicas.keys().copied().collect();
        let all: BTreeSet<_> = wanted.into_iter().chain(hosted).collect();
        for partition in all {
            let Some(process) = self.brokers[number].process.as_mut() else { return };
            let assignment = Assignment::of(&process.image, node, epoch, partition);
            let config = process.config_of(partition, &self.defaults);
            match process.replicas.get_mut(&partition) {
                Some(hosted) => {
                    hosted.replica.assign(now, assignment, config);
                    self.pump(number, partition);
                }
                None if assignment != Assignment::None && !process.shut.contains(&partition) => {
                    let counts = process.image.partition(partition).is_some_and(|state| state.is_member(node));
                    let was_lost = !counts && process.lost.remove(&partition);
                    if process.opening.insert(partition) || was_lost {
                        let (life, delay) = (self.brokers[number].life, self.rng.u64(100..20_000));
                        self.after(delay, Event::Open { broker: number, life, partition });
                    }
                }
                None => {}
            }
        }
        self.note_opened(number);
        self.tidy(number);
    }

    fn note_opened(&mut self, number: usize) {
        let node = self.brokers[number].node;
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        if process.is_known(node) && process.opening.iter().all(|partition| process.lost.contains(partition)) {
            process.has_opened = true;
        }
    }

    pub fn open_replica(&mut self, number: usize, life: u64, partition: TopicPartition) {
        if self.brokers[number].life != life {
            return;
        }
        let Some(_) = self.unless_paused(number, Event::Open { broker: number, life, partition }) else { return };
        let (node, now) = (self.brokers[number].node, self.local_time(number));
        let defaults = self.defaults.clone();
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let Some(job) = process.open_job(node, partition, &defaults) else {
            process.opening.remove(&partition);
            return;
        };
        let mut result = None;
        open_all(vec![job], |_, opened| result = Some(opened));
        if self.has_crashed_now(number) {
            return;
        }
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        match result.expect("each job is answered") {
            Ok(opened) => {
                process.opening.remove(&partition);
                let config = process.config_of(partition, &defaults);
                if opened.report.as_ref().is_some_and(|report| report.doubtful) {
                    process.doubtful.push(partition);
                }
                let is_doubtful = process.doubtful.contains(&partition);
                let state = replica::state_of(&opened.log, opened.producers);
                let (watermark, end) = (state.high_watermark, state.written_end);
                let lease_until = process.lease_until;
                let queue = LogQueue::new(opened.log, config.flush, 2_000);
                let reader = queue.log().map(|log| log.reader()).expect("the log was just given");
                let mut replica = Replica::new(node, state, config, SETTINGS);
                replica.on_lease(now, lease_until);
                let hosted = Hosted {
                    replica,
                    queue,
                    reader,
                    watermark_seen: watermark,
                    wake_at: None,
                    is_offline: false,
                    is_cutting: false,
                    scrub_from: Offset::ZERO,
                    is_leaving: false,
                    duties: Duties::default(),
                };
                let is_damaged = hosted.replica.is_damaged();
                process.replicas.insert(partition, hosted);
                if is_damaged {
                    self.coverage.count("damage is found at opening");
                }
                self.check_opened(number, partition, end, is_doubtful);
            }
            Err(error) if !matches!(error, LogError::LostPartition { .. }) => {
                self.coverage.count("a log cannot be opened");
                process.opening.remove(&partition);
                process.shut.insert(partition);
                self.tell(format_args!("broker {node} cannot open {partition}: {error}"));
            }
            Err(error) => {
                self.coverage.count("a replica is lost");
                process.lost.insert(partition);
                self.tell(format_args!("broker {node} has lost its replica of {partition}: {error}"));
            }
        }
        self.follow_image(number);
    }

    /// What was durable must still be there.
    fn check_opened(&mut self, number: usize, partition: TopicPartition, end: Offset, is_doubtful: bool) {
        self.check_on_platter(number, partition);
        let broker = &self.brokers[number];
        let node = broker.node;
        if broker.robbed.contains(&partition) {
            return;
        }
        let is_flipped = broker.flipped.contains(&partition);
        let seen = broker.last_seen.get(&partition).map_or(Offset::ZERO, |(durable, _)| *durable);
        self.tell(format_args!("broker {node} opens {partition}: it ends at {end}, {seen} was durable"));
        if end < seen && is_doubtful && is_flipped {
            self.coverage.count("a damaged tail is cut off, and the replica doubtful");
            self.brokers[number].robbed.insert(partition);
            self.check_members(partition);
            return;
        }
        if end < seen && self.plan.newest_state(partition).is_none_or(|state| state.unclean_epoch.is_none()) {
            self.oracle.fail(format!("broker {node} had {seen} of {partition} on disk, and finds {end}"));
        }
    }

    pub fn wake_replica(&mut self, number: usize, life: u64, partition: TopicPartition) {
        if self.brokers[number].life != life {
            return;
        }
        let event = Event::WakeReplica { broker: number, life, partition };
        if self.unless_paused(number, event).is_none() {
            return;
        }
        let now = self.local_time(number);
        let Some(hosted) = self.hosted(number, partition) else { return };
        hosted.wake_at = None;
        hosted.replica.on_tick(now);
        self.pump(number, partition);
    }

    fn on_hand_over(&mut self, number: usize, partition: TopicPartition, to: callboard::types::NodeId) {
        let now = self.local_time(number);
        let Some(hosted) = self.hosted(number, partition) else { return };
        if hosted.hand_over(now, to) {
            self.coverage.count("a hand-over begins");
            self.tell(format_args!("{partition} is to be handed over to broker {to}"));
        }
        self.pump(number, partition);
    }

    /// A proposal of a leader here goes to the controllers.
    pub fn send_proposal(
        &mut self,
        number: usize,
        partition: TopicPartition,
        proposal: callboard::engine::leader::Proposal,
    ) {
        self.check_proposal(number, partition, &proposal);
        let leader = self.brokers[number].node;
        let Some(broker_epoch) = self.brokers[number].process.as_ref().and_then(|process| process.epoch) else {
            return;
        };
        let members = proposal.members.iter().map(|(node, epoch)| Member { node: *node, epoch: *epoch }).collect();
        let proposal = InSyncProposal {
            partition,
            leader,
            broker_epoch,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            members,
            new_leader: proposal.new_leader,
        };
        self.coverage.count(if proposal.new_leader.is_some() {
            "a hand-over is proposed"
        } else {
            "a set is proposed"
        });
        self.send_to_controllers(number, Message::Propose(proposal));
    }

    /// Begins a planned stop: what is led here is handed over first.
    pub fn begin_stopping(&mut self, number: usize) {
        let (now_us, node) = (self.now, self.brokers[number].node);
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let Some(epoch) = process.epoch.filter(|_| process.stopping_since.is_none()) else { return };
        process.stopping_since = Some(now_us);
        self.tell(format_args!("broker {node} is told to stop"));
        self.send_to_controllers(number, Message::Stopping { node, epoch });
    }

    fn go_on_stopping(&mut self, number: usize) {
        let (node, now) = (self.brokers[number].node, self.local_time(number));
        let now_us = self.now;
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let (Some(since), Some(epoch)) = (process.stopping_since, process.epoch) else { return };
        let led: Vec<_> = process
            .replicas
            .iter()
            .filter_map(|(partition, hosted)| {
                let leadership = hosted.replica.leader()?.leadership();
                let to = leadership.in_sync.iter().copied().find(|other| *other != node && leadership.may_join(*other));
                Some((*partition, to?))
            })
            .collect();
        if !led.is_empty() && now_us - since < 2_000_000 {
            for (partition, to) in led {
                if let Some(hosted) = self.hosted(number, partition) {
                    hosted.hand_over(now, to);
                }
                self.pump(number, partition);
            }
            return;
        }
        self.send_to_controllers(number, Message::Stopped { node, epoch });
        self.close(number);
    }

    /// Closes all logs and ends the process. Only when everything was written does the marker say so.
    fn close(&mut self, number: usize) {
        let node = self.brokers[number].node;
        let now_us = self.now;
        let Some(mut process) = self.brokers[number].process.take() else { return };
        self.brokers[number].life += 1;
        let mut is_clean = true;
        for (partition, mut hosted) in std::mem::take(&mut process.replicas) {
            let settled =
                hosted.replica.cursors().is_some_and(|cursors| cursors.written_end() == cursors.next_offset());
            let Some(cursors) = hosted.replica.cursors() else { continue };
            let (high_watermark, producers) = (cursors.high_watermark(), hosted.replica.producers_snapshot());
            hosted.queue.push(LogWork::Close { high_watermark, producers });
            let mut news = Vec::new();
            while let Some(job) = hosted.queue.next(wall(now_us), &mut news) {
                hosted.queue.finish(job.run(), &mut news);
            }
            let closed = news.iter().any(|news| matches!(news, callboard::storage::queue::LogNews::Closed(Ok(()))));
            is_clean &= closed && settled && !hosted.is_offline;
            if let Some((durable, written)) = self.brokers[number].last_seen.get_mut(&partition).filter(|_| closed) {
                *durable = *written;
            }
        }
        if let Some(epoch) = process.epoch.filter(|_| is_clean) {
            is_clean = process.directory.mark_clean_stop(epoch).is_ok();
        }
        drop(process);
        self.tell(format_args!("broker {node} has stopped, {}", if is_clean { "cleanly" } else { "not cleanly" }));
        self.coverage.count("a planned stop");
        if self.brokers[number].disk.has_crashed() {
            self.stop_machine(number);
        } else {
            self.brokers[number].disk.kill();
        }
        let delay = self.rng.u64(100_000..1_000_000);
        self.after(delay, Event::StartBroker { broker: number });
    }
}

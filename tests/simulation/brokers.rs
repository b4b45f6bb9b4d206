//! What brokers do: start, register, follow the metadata, hold the lease, host replicas, serve.

use std::collections::BTreeSet;
use std::sync::Arc;

use callboard::engine::assignment::Assignment;
use callboard::engine::broker::Opened;
use callboard::engine::metadata::MetadataRecord;
use callboard::raft::decode_image;
use callboard::replica::{self, Replica, open_all};
use callboard::storage::LogError;
use callboard::storage::queue::{LogQueue, LogWork};
use callboard::types::{MonoTime, Offset, TopicPartition};

use crate::broker::{Hosted, SETTINGS};
use crate::net::{Message, Place};
use crate::rules::Duties;
use crate::world::{Event, World};

/// About how often a broker asks for metadata, and looks after its files.
const CHORES_US: u64 = 75_000;

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
        match broker.start(cluster, incarnation, self.now) {
            Ok(()) => {
                let stop = broker.process.as_ref().map(|process| process.stop);
                self.tell(format_args!("broker {node} starts, after {stop:?}"));
                self.after(1_000, Event::WakeBroker { broker: number, life });
                self.after(1_000, Event::TickBroker { broker: number, life });
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
    pub fn stop_machine(&mut self, number: usize) {
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
        let jitter = self.rng.u64(0..CHORES_US / 2);
        self.after(CHORES_US + jitter, event);
        let broker = &self.brokers[number];
        let Some(process) = broker.process.as_ref() else { return };
        let (entries, gone) = (process.applied, process.files_gone(broker.node));
        self.send_to_controllers(number, Message::FetchMetadata { entries });
        self.with_engine(number, |process, now, _| {
            gone.into_iter().for_each(|topic| process.engine.on_files_gone(now, topic));
        });
        self.checkpoint(number);
        self.scrub_sometimes(number);
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
            Message::Answer(answer) => {
                self.with_engine(number, |process, now, out| process.engine.on_answer(now, answer, out));
            }
            Message::Metadata { from, entries } => self.on_metadata(number, from, &entries),
            Message::Image { entries, image } => self.on_image(number, entries, &image),
            Message::HandOver { partition, to } => {
                self.with_engine(number, |process, now, out| {
                    process.engine.on_hand_over_wanted(now, partition, to, out);
                });
            }
            message => self.serve(number, from, message),
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
    pub fn follow_image(&mut self, number: usize) {
        let node = self.brokers[number].node;
        let now = self.local_time(number);
        self.with_engine(number, |process, now, out| process.engine.on_image(now, &process.image, out));
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let Some(epoch) = process.epoch().filter(|_| process.engine.follows_metadata()) else { return };
        let hosted: BTreeSet<_> = process.replicas.keys().copied().collect();
        for partition in hosted {
            let Some(process) = self.brokers[number].process.as_mut() else { return };
            let assignment = Assignment::of(&process.image, node, epoch, partition);
            let config = process.config_of(partition, &self.defaults);
            if let Some(hosted) = process.replicas.get_mut(&partition) {
                hosted.replica.assign(now, assignment, config);
                self.pump(number, partition);
            }
        }
        self.tidy(number);
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
            return self.with_engine(number, |process, now, _| process.engine.on_gone(now, partition));
        };
        let mut result = None;
        open_all(vec![job], |_, opened| result = Some(opened));
        if self.has_crashed_now(number) {
            return;
        }
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        match result.expect("each job is answered") {
            Ok(opened) => {
                let config = process.config_of(partition, &defaults);
                if opened.report.as_ref().is_some_and(|report| report.doubtful) {
                    process.doubtful.push(partition);
                }
                let is_doubtful = process.doubtful.contains(&partition);
                let state = replica::state_of(&opened.log, opened.producers);
                let (start, watermark, end) = (state.log_start, state.high_watermark, state.written_end);
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
                    log_start_seen: start,
                    wake_at: None,
                    is_offline: false,
                    is_cutting: false,
                    scrub_from: Offset::ZERO,
                    is_leaving: false,
                    duties: Duties::default(),
                };
                let is_damaged = hosted.replica.is_damaged();
                process.replicas.insert(partition, hosted);
                process.shut.remove(&partition);
                process.engine.on_opened(now, partition, Opened { is_doubtful, is_damaged });
                if is_damaged {
                    self.coverage.count("damage is found at opening");
                }
                self.check_opened(number, partition, end, is_doubtful);
            }
            Err(error) if !matches!(error, LogError::LostPartition { .. }) => {
                self.coverage.count("a log cannot be opened");
                process.shut.insert(partition);
                process.engine.on_cannot_open(now, partition);
                self.tell(format_args!("broker {node} cannot open {partition}: {error}"));
            }
            Err(error) => {
                self.coverage.count("a replica is lost");
                process.engine.on_lost(now, partition);
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
        let is_short = end < seen || end < self.oracle.committed_end(partition);
        if is_short && is_doubtful && is_flipped {
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
}

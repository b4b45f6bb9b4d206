//! What goes wrong, when.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use callboard::engine::controller::{cancel_reassignment, reassign};
use callboard::engine::metadata::{ClusterImage, PartitionImage};
use callboard::storage::disk::Disk as _;
use callboard::storage::disk::virtual_disk::{DiskSnapshot, FaultyOperation};
use callboard::types::{BrokerEpoch, FlushPolicy, NodeId, TopicId, TopicPartition};

use crate::broker::ROOT;
use crate::net::Place;
use crate::world::{Event, Then, World};

/// What a seed is about, and what is known about its metadata.
#[derive(Default)]
pub struct Plan {
    /// The image after the newest entry that was decided.
    pub newest: Option<ClusterImage>,
    pub flush: BTreeMap<TopicPartition, FlushPolicy>,
    /// Under which registration each broker was fenced last, and at which index.
    pub fenced_at: BTreeMap<NodeId, (BrokerEpoch, u64)>,
    /// Topics that somebody has deleted.
    pub deleted: BTreeSet<TopicId>,
    /// Directories that nobody knows: on which broker, and their names.
    pub strays: Vec<(usize, String)>,
    /// Who was on record as a holder of each topic that was deleted.
    pub holders: BTreeMap<TopicId, BTreeSet<NodeId>>,
    /// Brokers whose disk was an older copy once.
    pub rolled_back: BTreeSet<usize>,
    /// Nothing goes wrong any more, and nothing new is produced.
    pub is_over: bool,
    pub ends_at: u64,
    pub snapshots: Vec<(usize, BrokerEpoch, DiskSnapshot)>,
}

impl Plan {
    pub fn newest_state(&self, partition: TopicPartition) -> Option<&PartitionImage> {
        self.newest.as_ref()?.partition(partition)
    }

    pub fn flush_of(&self, partition: TopicPartition) -> FlushPolicy {
        self.flush.get(&partition).copied().unwrap_or_default()
    }
}

/// Something that goes wrong, or changes.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The next one, whatever it is.
    Any,
    Heal(Place, Place),
    CalmDown,
    /// There is space on the disk of that broker again, and somebody restarts it.
    FreeSpace(usize),
}

impl World {
    pub fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Heal(a, b) => {
                self.network.cut.remove(&(a.min(b), a.max(b)));
            }
            Fault::CalmDown => {
                (self.network.drops, self.network.doubles, self.network.delay_us) = (0, 5, 1_000);
            }
            Fault::FreeSpace(number) => {
                self.brokers[number].disk.set_capacity(None);
                self.restart_if_sick(number);
            }
            Fault::Any => {
                if self.now < self.plan.ends_at {
                    let pause = self.rng.u64(20_000..700_000);
                    self.after(pause, Event::Fault(Fault::Any));
                    self.strike_any();
                }
            }
        }
    }

    fn strike_any(&mut self) {
        let number = self.rng.usize(0..self.brokers.len());
        if self.rng.u64(0..100) < 6 {
            return self.flip_bit(number);
        }
        match self.rng.u64(0..124) {
            0..12 => self.kill_process(number),
            12..24 => self.lose_power(number),
            24..38 => self.crash_soon(number),
            38..46 => self.pause(number),
            46..58 => self.cut_somewhere(),
            58..64 => self.trouble_network(),
            64..70 => self.trouble_controllers(),
            70..76 => self.begin_stopping(number),
            76..80 => self.wipe(number),
            80..83 => self.take_snapshot(number),
            83..86 => self.roll_back(number),
            86..90 => self.fail_disk(number),
            90..95 => self.move_replicas(),
            95..98 => self.change_minimum(),
            98..100 => self.lose_power_everywhere(),
            100..110 => self.change_topics(),
            110..115 => self.change_settings(),
            115..118 => self.fill_disk(number),
            118..122 => self.change_voters(),
            _ => self.plant_stray(number),
        }
    }

    fn restart_later(&mut self, number: usize) {
        let delay = self.rng.u64(50_000..2_500_000);
        self.after(delay, Event::StartBroker { broker: number });
    }

    fn kill_process(&mut self, number: usize) {
        if self.brokers[number].process.is_none() {
            return;
        }
        let node = self.brokers[number].node;
        self.tell(format_args!("broker {node} is killed"));
        self.coverage.count("a broker is killed");
        self.stop_process(number);
        self.brokers[number].disk.kill();
        self.restart_later(number);
        if self.rng.bool() {
            self.hint_of_death(node);
        }
    }

    fn lose_power(&mut self, number: usize) {
        if !self.may_lose_power(number) {
            return self.kill_process(number);
        }
        let node = self.brokers[number].node;
        self.tell(format_args!("broker {node} loses its power"));
        self.coverage.count("a broker loses its power");
        self.power_off(number);
        self.restart_later(number);
    }

    /// Whether everything that the broker has not synced is somewhere else.
    pub fn may_lose_power(&self, number: usize) -> bool {
        let is_unsynced = |partition| self.plan.flush_of(partition) != FlushPolicy::Always;
        !self.partitions_on(number).any(is_unsynced) || self.may_destroy(number)
    }

    pub fn power_off(&mut self, number: usize) {
        self.stop_process(number);
        let mut rng = self.rng.fork();
        let flush: Vec<_> =
            self.partitions_on(number).map(|partition| (partition, self.plan.flush_of(partition))).collect();
        let broker = &mut self.brokers[number];
        broker.is_without_power = true;
        broker.disk.power_loss(&mut rng);
        broker.last_seen.values_mut().for_each(|(durable, written)| *written = *durable);
        for (partition, flush) in flush {
            if flush != FlushPolicy::Always {
                self.brokers[number].robbed.insert(partition);
                self.check_members(partition);
            }
        }
    }

    fn lose_power_everywhere(&mut self) {
        if self.plan.flush.values().any(|flush| *flush != FlushPolicy::Always) {
            return;
        }
        self.tell(format_args!("all brokers lose their power"));
        self.coverage.count("all brokers lose their power");
        for number in 0..self.brokers.len() {
            self.power_off(number);
            self.restart_later(number);
        }
    }

    fn crash_soon(&mut self, number: usize) {
        let has_unsynced =
            self.partitions_on(number).any(|partition| self.plan.flush_of(partition) != FlushPolicy::Always);
        self.brokers[number].loses_power = !has_unsynced && self.rng.bool();
        let operations = self.rng.u64(1..30);
        self.brokers[number].disk.crash_after_operations(operations);
    }

    fn pause(&mut self, number: usize) {
        let node = self.brokers[number].node;
        let for_us = self.rng.u64(50_000..4_000_000);
        self.tell(format_args!("broker {node} stands still for {} ms", for_us / 1_000));
        self.coverage.count("a broker stands still");
        let broker = &mut self.brokers[number];
        broker.paused_until = broker.paused_until.max(self.now + for_us);
    }

    fn cut_somewhere(&mut self) {
        let (brokers, controllers) = (self.brokers.len(), self.controllers.len());
        let any = |rng: &mut fastrand::Rng| {
            let number = rng.usize(0..brokers + controllers);
            if number < brokers { Place::Broker(number) } else { Place::Controller(number - brokers) }
        };
        let here = any(&mut self.rng);
        let for_us = self.rng.u64(100_000..4_000_000);
        let all = (0..brokers).map(Place::Broker).chain((0..controllers).map(Place::Controller));
        let alone = self.rng.bool();
        let there = any(&mut self.rng);
        let others: Vec<_> = all.filter(|other| *other != here && (alone || *other == there)).collect();
        let (what, ms) = (if alone { "everybody" } else { "one other" }, for_us / 1_000);
        self.tell(format_args!("{here:?} is cut off from {what} for {ms} ms"));
        self.coverage.count("a link is cut");
        for other in others {
            self.network.cut(here, other);
            self.after(for_us, Event::Fault(Fault::Heal(here, other)));
        }
    }

    fn trouble_network(&mut self) {
        self.network.drops = self.rng.u64(0..300);
        self.network.doubles = self.rng.u64(0..300);
        self.network.delay_us = self.rng.u64(200..20_000);
        self.tell(format_args!("the network loses, doubles and delays"));
        let for_us = self.rng.u64(200_000..3_000_000);
        self.after(for_us, Event::Fault(Fault::CalmDown));
    }

    fn trouble_controllers(&mut self) {
        let number = self.rng.usize(0..self.controllers.len());
        if self.rng.bool() {
            return self.elect_controller();
        }
        if self.controllers[number].up {
            self.stop_controller(number);
            let delay = self.rng.u64(100_000..2_000_000);
            self.after(delay, Event::StartController { controller: number });
        }
    }

    pub fn partitions_on(&self, number: usize) -> impl Iterator<Item = TopicPartition> + use<> {
        let node = self.brokers[number].node;
        let newest = self.plan.newest.as_ref();
        let all = newest.into_iter().flat_map(ClusterImage::partitions);
        let here = all.filter(|(_, state)| state.replicas.contains(&node)).map(|(partition, _)| partition);
        here.collect::<Vec<_>>().into_iter()
    }

    /// Whether what a broker holds may go: of each of its partitions somebody else holds all that is committed.
    fn may_destroy(&self, number: usize) -> bool {
        let node = self.brokers[number].node;
        self.partitions_on(number).all(|partition| {
            let Some(state) = self.plan.newest_state(partition) else { return true };
            let is_intact = |other: &NodeId| *other != node && self.is_intact(*other, partition);
            state.in_sync.iter().chain(&state.eligible).any(is_intact)
        })
    }

    fn rob(&mut self, number: usize) {
        self.stop_process(number);
        let partitions: Vec<_> = self.partitions_on(number).collect();
        let broker = &mut self.brokers[number];
        broker.robbed.extend(partitions.iter().copied());
        broker.is_wiped = true;
        broker.flipped.clear();
        broker.last_seen.clear();
        partitions.into_iter().for_each(|partition| self.check_members(partition));
    }

    fn wipe(&mut self, number: usize) {
        if !self.may_destroy(number) {
            return;
        }
        let node = self.brokers[number].node;
        self.tell(format_args!("the disk of broker {node} is replaced by an empty one"));
        self.coverage.count("a disk is wiped");
        self.rob(number);
        self.brokers[number].disk.wipe();
        self.plan.snapshots.retain(|(other, ..)| *other != number);
        self.plan.strays.retain(|(other, _)| *other != number);
        self.restart_later(number);
    }

    fn take_snapshot(&mut self, number: usize) {
        let Some(process) = self.brokers[number].process.as_ref() else { return };
        let Some(epoch) = process.epoch() else { return };
        if !self.brokers[number].flipped.is_empty() {
            return;
        }
        let snapshot = self.brokers[number].disk.snapshot();
        self.plan.snapshots.push((number, epoch, snapshot));
    }

    /// A backup is put back, of the time of an earlier registration: a later one cannot be told from the newest.
    fn roll_back(&mut self, number: usize) {
        let node = self.brokers[number].node;
        let counted_on =
            self.plan.newest.as_ref().and_then(|image| image.brokers.get(&node)).map(|known| known.unfenced_epoch);
        let Some(counted_on) = counted_on else { return };
        let at = self.plan.snapshots.iter().position(|(other, epoch, _)| *other == number && *epoch < counted_on);
        let Some(at) = at.filter(|_| self.may_destroy(number)) else { return };
        let (_, epoch, snapshot) = self.plan.snapshots.swap_remove(at);
        self.tell(format_args!("the disk of broker {node} is rolled back to registration {epoch}"));
        self.coverage.count("a disk is rolled back");
        self.rob(number);
        self.brokers[number].disk.roll_back(&snapshot);
        self.plan.rolled_back.insert(number);
        self.plan.strays.retain(|(other, _)| *other != number);
        self.restart_later(number);
    }

    fn fail_disk(&mut self, number: usize) {
        let operation = match self.rng.u64(0..5) {
            0 | 1 => FaultyOperation::Sync,
            2 | 3 => FaultyOperation::Write,
            _ => FaultyOperation::Read,
        };
        let nth = self.rng.u64(1..4);
        let node = self.brokers[number].node;
        self.tell(format_args!("the disk of broker {node} is about to fail a {operation:?}"));
        self.brokers[number].disk.fail_nth(operation, nth, ".log");
    }

    fn fill_disk(&mut self, number: usize) {
        let node = self.brokers[number].node;
        let disk = &self.brokers[number].disk;
        disk.set_capacity(Some(u64::MAX >> 1));
        let used = (u64::MAX >> 1) - disk.free_bytes(Path::new(ROOT)).unwrap_or_default();
        disk.set_capacity(Some(used + self.rng.u64(0..4_000)));
        self.tell(format_args!("the disk of broker {node} is nearly full"));
        self.coverage.count("a disk is full");
        let for_us = self.rng.u64(200_000..2_000_000);
        self.after(for_us, Event::Fault(Fault::FreeSpace(number)));
    }

    fn move_replicas(&mut self) {
        let Some(number) = self.raft.leader else { return };
        let partition = self.partitions[self.rng.usize(0..self.partitions.len())];
        let image = self.controllers[number].image.clone();
        let Some(state) = image.partition(partition) else { return };
        let decision = if state.reassignment.is_some() && self.rng.bool() {
            cancel_reassignment(&image, partition)
        } else {
            let mut nodes: Vec<_> = self.brokers.iter().map(|broker| broker.node).collect();
            self.rng.shuffle(&mut nodes);
            nodes.truncate(self.rng.usize(2..=3));
            reassign(&image, partition, &nodes)
        };
        if let Ok(decision) = decision {
            self.tell(format_args!("{partition} is to be moved"));
            self.coverage.count("a reassignment begins");
            self.propose(number, decision.records, Then::Nothing);
        }
    }

    /// Everything works again, and whoever is down is started.
    pub fn heal(&mut self) {
        self.tell(format_args!("everything works again"));
        self.plan.is_over = true;
        self.network.cut.clear();
        (self.network.drops, self.network.doubles, self.network.delay_us) = (0, 0, 1_000);
        for number in 0..self.brokers.len() {
            self.brokers[number].disk.cancel_faults();
        }
        self.restart_sick();
        for number in 0..self.brokers.len() {
            self.after(10_000, Event::StartBroker { broker: number });
        }
        for number in 0..self.controllers.len() {
            self.after(10_000, Event::StartController { controller: number });
        }
    }

    /// Somebody restarts the brokers whose replicas say that they take no more.
    pub fn restart_sick(&mut self) {
        for number in 0..self.brokers.len() {
            self.restart_if_sick(number);
            let flipped: Vec<_> = self.brokers[number].flipped.iter().copied().collect();
            flipped.into_iter().for_each(|partition| self.look_again(number, partition));
        }
    }

    fn restart_if_sick(&mut self, number: usize) {
        let is_sick = self.brokers[number].process.as_ref().is_some_and(|process| {
            !process.shut.is_empty() || process.replicas.values().any(|hosted| hosted.is_offline)
        });
        if is_sick {
            self.stop_process(number);
            self.brokers[number].disk.kill();
            self.after(10_000, Event::StartBroker { broker: number });
        }
    }
}

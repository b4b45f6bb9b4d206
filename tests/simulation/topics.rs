//! Topics that come, grow, change and go while everything else happens; files that are removed on a tombstone, and those that
//! nobody knows.

use std::collections::BTreeMap;
use std::path::Path;

use callboard::engine::assignment::Fate;
use callboard::engine::controller::ControllerPolicy;
use callboard::engine::metadata::ClusterImage;
use callboard::protocol::ErrorCode;
use callboard::protocol::messages::{AlterTopic, NewTopic};
use callboard::storage::data_dir::{QUARANTINE_DIR, parse_partition_dir_name, partition_dir_name};
use callboard::storage::disk::{Disk as _, OpenMode, SyncPoint};
use callboard::storage::queue::LogWork;
use callboard::types::{FlushPolicy, NodeId, PartitionIndex, TopicId, TopicName, TopicPartition};

use crate::broker::{Process, ROOT};
use crate::clients::Client;
use crate::world::{Event, Then, World};

/// The topic that is there all the time, and the one that comes and goes.
pub const LASTING: &str = "rides";
const FLEETING: &str = "gossip";

impl World {
    /// What a controller in office knows, and its number.
    fn office(&self) -> Option<(usize, &ClusterImage)> {
        let number = self.raft.leader.filter(|number| self.controllers[*number].office.is_some())?;
        Some((number, &self.controllers[number].image))
    }

    pub fn create_topic(&mut self, name: &str, partitions: u32, factor: u32, settings: &[(&str, &str)]) -> bool {
        let id = TopicId(uuid::Uuid::from_u128(self.rng.u128(..)));
        let Some((number, image)) = self.office() else { return false };
        let config = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let wanted =
            NewTopic { name: name.to_owned(), partitions: Some(partitions), replication_factor: Some(factor), config };
        let somebody_lives = image.brokers.keys().any(|node| image.may_lead(*node));
        match self.policy().create_topic(image, &wanted, id) {
            Ok(decision) => {
                if !somebody_lives {
                    self.oracle.fail(format!("topic {name} is placed though no broker lives"));
                }
                self.propose(number, decision.records, Then::Nothing);
                true
            }
            Err(error) if error.code != ErrorCode::TopicExists => {
                self.coverage.count("a topic cannot be placed for want of live brokers");
                false
            }
            Err(_) => false,
        }
    }

    /// The fleeting topic is created, gets more partitions, or is deleted.
    pub fn change_topics(&mut self) {
        let policy = self.policy();
        let factor = self.rng.u32(2..=3);
        let Some((number, image)) = self.office() else { return };
        let known = TopicName::new(FLEETING).ok().and_then(|name| image.topic_by_name(&name).cloned());
        let Some(topic) = known else {
            self.create_topic(FLEETING, 1, factor, &[("segment_bytes", "16384")]);
            return;
        };
        let has = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let decision = if has < 2 && self.rng.u64(0..3) == 0 {
            policy.add_partitions(&self.controllers[number].image, FLEETING, has + 1)
        } else {
            policy.delete_topic(&self.controllers[number].image, FLEETING)
        };
        if let Ok(decision) = decision {
            self.propose(number, decision.records, Then::Nothing);
        }
    }

    /// Another minimum, another flush policy, other segments, another retention.
    pub fn change_settings(&mut self) {
        let (key, value) = match self.rng.u64(0..4) {
            0 => ("flush", if self.rng.bool() { "always" } else { "os" }),
            1 => ("segment_bytes", if self.rng.bool() { "16384" } else { "32768" }),
            2 => ("retention_bytes", if self.rng.bool() { "16384" } else { "-1" }),
            _ => ("retention_ms", if self.rng.bool() { "3000" } else { "-1" }),
        };
        self.alter(key, value);
    }

    pub fn change_minimum(&mut self) {
        // It clears the eligible sets: whoever was spared for being in one would be spared in vain.
        if self.brokers.iter().any(|broker| !broker.robbed.is_empty() || !broker.flipped.is_empty()) {
            return;
        }
        let minimum = self.rng.u32(1..=2).to_string();
        self.alter("min_insync_replicas", &minimum);
    }

    fn alter(&mut self, key: &str, value: &str) {
        let policy = self.policy();
        let Some((number, image)) = self.office() else { return };
        let change = AlterTopic {
            name: LASTING.to_owned(),
            set: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            reset: Vec::new(),
        };
        if let Ok(decision) = policy.alter_topic(image, &change) {
            self.coverage.count("a setting is changed");
            self.propose(number, decision.records, Then::Nothing);
        }
    }

    pub fn policy(&self) -> ControllerPolicy {
        ControllerPolicy {
            max_topics: 100,
            max_partitions: 1_000,
            max_partitions_per_topic: 100,
            default_partitions: 1,
            default_replication_factor: None,
            topic_defaults: self.defaults.clone(),
        }
    }

    /// There are more partitions: clients come for each.
    pub fn on_partitions_created(&mut self, topic: TopicId) {
        let Some(image) = self.plan.newest.as_ref().and_then(|newest| newest.topics.get(&topic).cloned()) else {
            return;
        };
        self.coverage.count("a partition is created");
        let is_lasting = image.name.as_str() == LASTING;
        for number in 0..image.partitions.len() {
            let index = PartitionIndex(u32::try_from(number).expect("few"));
            let partition = TopicPartition::new(topic, index);
            if self.partitions.contains(&partition) {
                continue;
            }
            self.tell(format_args!("{} {partition} is created", image.name));
            self.partitions.push(partition);
            let wiped = self.brokers.iter_mut().filter(|broker| broker.is_wiped);
            wiped.for_each(|broker| {
                broker.robbed.insert(partition);
            });
            let first = self.clients.len();
            let producer = i64::try_from(first).expect("few") * 10;
            self.clients.push(Client::producer(partition, Some(producer + 1)));
            self.clients.push(Client::consumer(partition, true));
            if is_lasting {
                self.clients.push(Client::producer(partition, Some(producer + 2)));
                self.clients.push(Client::producer(partition, None));
                self.clients.push(Client::consumer(partition, false));
                self.clients.push(Client::lister(partition));
                self.clients.push(Client::deleter(partition));
            }
            for client in first..self.clients.len() {
                self.after(1_000, Event::WakeClient { client });
            }
        }
        self.on_settings_changed(topic);
    }

    /// What was not synced on every append once is never known to be.
    pub fn on_settings_changed(&mut self, topic: TopicId) {
        let Some(image) = self.plan.newest.as_ref().and_then(|newest| newest.topics.get(&topic).cloned()) else {
            return;
        };
        let flush = image.config.resolve(&self.defaults).map_or(FlushPolicy::Always, |config| config.flush);
        let partitions: Vec<_> = self.partitions.iter().filter(|partition| partition.topic == topic).copied().collect();
        for partition in partitions {
            let known = self.plan.flush.entry(partition).or_insert(flush);
            if flush != FlushPolicy::Always {
                *known = flush;
                // The controller cannot know whether they had heard of it when they went down.
                for broker in self.brokers.iter_mut().filter(|broker| broker.is_without_power) {
                    broker.robbed.insert(partition);
                }
                self.check_members(partition);
            }
        }
    }

    pub fn on_topic_deleted(&mut self, topic: TopicId) {
        self.coverage.count("a topic is deleted");
        self.tell(format_args!("topic {topic} is deleted"));
        self.plan.deleted.insert(topic);
        self.partitions.retain(|partition| partition.topic != topic);
    }

    /// Rule 17: a tombstone goes when nobody who was on record as a holder has files of its topic any more, but for those that a disk
    /// which was rolled back has again.
    pub fn check_files_gone(&mut self, topic: TopicId) {
        let holders = self.plan.holders.remove(&topic).unwrap_or_default();
        for (number, broker) in self.brokers.iter().enumerate().filter(|(_, broker)| holders.contains(&broker.node)) {
            let entries = broker.disk.read_dir(Path::new(ROOT)).unwrap_or_default();
            let has_files = entries
                .iter()
                .filter_map(|entry| parse_partition_dir_name(&entry.name))
                .any(|partition| partition.topic == topic);
            if has_files && !self.plan.rolled_back.contains(&number) {
                self.oracle.fail(format!("the tombstone of {topic} goes, and broker {} has files of it", broker.node));
                return;
            }
        }
    }

    /// Removes the files of deleted topics, and puts aside what nobody knows.
    pub fn tidy(&mut self, number: usize) {
        let (life, node) = (self.brokers[number].life, self.brokers[number].node);
        let Some(process) = self.brokers[number].process.as_mut().filter(|process| process.engine.follows_metadata())
        else {
            return;
        };
        let is_first = !std::mem::replace(&mut process.has_looked, true);
        let is_known = |partition: &TopicPartition| Fate::of(&process.image, *partition) == Fate::Keep;
        if !is_first && process.image.tombstones.is_empty() && process.replicas.keys().all(is_known) {
            return;
        }
        let Ok(found) = process.directory.partitions() else { return };
        for (partition, path) in found {
            let Some(process) = self.brokers[number].process.as_mut() else { return };
            let fate = Fate::of(&process.image, partition);
            if let Some(hosted) = process.replicas.get_mut(&partition).filter(|_| fate != Fate::Keep) {
                if !std::mem::replace(&mut hosted.is_leaving, true) {
                    hosted.queue.push(LogWork::Abandon);
                    self.pump(number, partition);
                }
                continue;
            }
            match fate {
                Fate::Keep => {}
                Fate::Remove => {
                    if process.removing.insert(partition) {
                        let delay = self.rng.u64(100..20_000);
                        self.after(delay, Event::RemoveFiles { broker: number, life, partition });
                    }
                }
                Fate::PutAside => {
                    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                    let is_done = process.directory.quarantine(&name).is_ok();
                    if self.has_crashed_now(number) {
                        return;
                    }
                    if is_done {
                        self.coverage.count("files that nobody knows are put aside");
                        self.tell(format_args!("broker {node} puts aside {name}"));
                    }
                }
            }
        }
    }

    /// The log of a replica is closed: if its topic is gone its files can go.
    pub fn on_log_closed(&mut self, number: usize, partition: TopicPartition) {
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        if process.replicas.get(&partition).is_some_and(|hosted| hosted.is_leaving) {
            process.replicas.remove(&partition);
            process.has_looked = false;
            self.with_engine(number, |process, now, _| process.engine.on_gone(now, partition));
            self.tidy(number);
        }
    }

    pub fn remove_files(&mut self, number: usize, life: u64, partition: TopicPartition) {
        if self.brokers[number].life != life {
            return;
        }
        let event = Event::RemoveFiles { broker: number, life, partition };
        if self.unless_paused(number, event).is_none() {
            return;
        }
        let node = self.brokers[number].node;
        if !self.plan.deleted.contains(&partition.topic) {
            self.oracle.fail(format!("broker {node} removes the files of {partition}, which nobody deleted"));
        }
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let found = process.directory.partitions().unwrap_or_default();
        let path = found.into_iter().find(|(found, _)| *found == partition).map(|(_, path)| path);
        let name = path.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let result = name.map(|name| process.directory.delete_partition_dir(&name));
        path.iter().for_each(|path| process.files.forget_dir(path));
        process.removing.remove(&partition);
        if !self.has_crashed_now(number) && matches!(result, Some(Ok(()))) {
            self.coverage.count("files of a deleted topic are removed");
            self.tell(format_args!("broker {node} has removed {partition}"));
            self.brokers[number].last_seen.remove(&partition);
        }
    }

    /// A directory that nobody knows appears on a broker that is down.
    pub fn plant_stray(&mut self, number: usize) {
        let broker = &mut self.brokers[number];
        let topic = TopicId(uuid::Uuid::from_u128(self.rng.u128(..)));
        let name = TopicName::new("stray").expect("a legal name");
        let name = partition_dir_name(&name, TopicPartition::new(topic, PartitionIndex(0)));
        let root = Path::new(ROOT);
        let is_used = broker.disk.exists(&root.join("callboard.meta")).unwrap_or(false);
        if broker.process.is_some() || !is_used {
            return;
        }
        let directory = root.join(&name);
        let planted = broker
            .disk
            .create_dir_all(&directory)
            .and_then(|()| broker.disk.open(&directory.join("what"), OpenMode::Create).map(drop))
            .and_then(|()| broker.disk.sync_dir(&directory, SyncPoint::PartitionCreated))
            .and_then(|()| broker.disk.sync_dir(root, SyncPoint::PartitionCreated));
        if planted.is_ok() {
            self.plan.strays.push((number, name));
        }
    }

    /// What is left of topics that are gone, and whether strays are where they belong.
    pub fn untidiness(&self) -> Option<String> {
        let newest = self.plan.newest.as_ref()?;
        if let Some(topic) = newest.tombstones.first() {
            let holders = newest.tombstone_holders.get(topic);
            return Some(format!("the tombstone of {topic} is still there: {holders:?} may have files of it"));
        }
        for broker in &self.brokers {
            let found = broker.process.iter().flat_map(|process| process.directory.partitions().unwrap_or_default());
            for (partition, _) in found {
                if newest.partition(partition).is_none() {
                    return Some(format!("broker {} still has files of {partition}", broker.node));
                }
            }
        }
        let is_missing = |(number, name): &&(usize, String)| {
            let path = Path::new(ROOT).join(QUARANTINE_DIR).join(name).join("what");
            !self.brokers[*number].disk.exists(&path).unwrap_or(false)
        };
        let missing = self.plan.strays.iter().find(is_missing)?;
        Some(format!("{}, which nobody knows, is not in quarantine on broker {}", missing.1, missing.0 + 1))
    }
}

impl Process {
    /// Deleted topics of which nothing is left here.
    pub fn files_gone(&self, node: NodeId) -> Vec<TopicId> {
        let held: Vec<_> = if self.is_known(node) {
            let is_held = |topic: &&TopicId| self.image.holds_tombstone(**topic, node);
            self.image.tombstones.iter().filter(is_held).copied().collect()
        } else {
            Vec::new()
        };
        let found = if held.is_empty() { Ok(Vec::new()) } else { self.directory.partitions() };
        let is_gone = move |topic: &TopicId| {
            found.as_ref().is_ok_and(|found| found.iter().all(|(partition, _)| partition.topic != *topic))
        };
        held.into_iter().filter(is_gone).collect()
    }
}

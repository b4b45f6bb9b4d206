//! The controller of the stage, and how brokers come and go.

use std::path::Path;
use std::time::Duration;

use callboard::engine::controller::{
    self as engine, Decision, InSyncAccepted, InSyncProposal, InSyncRefusal, LeaseTable, Leases, Member,
};
use callboard::engine::metadata::{
    BrokerRegistration, ClusterImage, DirectoryHistory, FEATURE_LEVEL, MetadataRecord, PartitionImage,
};
use callboard::protocol::{ApiError, ErrorCode};
use callboard::storage::disk::virtual_disk::DiskSnapshot;
use callboard::storage::queue::LogWork;
use callboard::types::{ClusterId, IncarnationId, MonoTime, NodeId, TopicConfig, TopicConfigOverrides, TopicName};

use super::{Broker, P0, Stage};

pub const LEASE: Leases = Leases { duration: Duration::from_millis(1_000), drift: Duration::from_millis(200) };

impl Stage {
    /// Brokers 1 to 4, and the partition on 1, 2 and 3, with these settings. Broker 1 leads; nothing is written yet.
    pub fn of(settings: &[(&str, &str)]) -> Self {
        Self::on(&[1, 2, 3], settings)
    }

    pub fn on(replicas: &[u32], settings: &[(&str, &str)]) -> Self {
        let mut image = ClusterImage::empty(ClusterId(uuid::Uuid::nil()));
        let level = MetadataRecord::FeatureLevel { level: FEATURE_LEVEL };
        image.apply(&level).expect("known");
        let now = MonoTime(Duration::from_secs(1));
        let mut stage = Self {
            now,
            leases: LeaseTable::new(LEASE, now, &image),
            image,
            entries: vec![vec![level]],
            defaults: TopicConfig::default(),
            brokers: (1..=4).map(|node| (node, Broker::new(node))).collect(),
            mail: Vec::new(),
            proposals: Vec::new(),
            told: Default::default(),
            cut_off: Default::default(),
            silent: Default::default(),
        };
        for node in 1..=4 {
            stage.restart(node);
        }
        let config = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        stage.decide_all(vec![MetadataRecord::TopicCreated {
            topic: P0.topic,
            name: TopicName::new("rides").expect("legal"),
            replicas: vec![replicas.iter().copied().map(NodeId).collect()],
            config: TopicConfigOverrides(config),
        }]);
        for node in 1..=4 {
            stage.metadata(node);
            stage.write(node);
        }
        for node in replicas {
            let partitions = Some(vec![P0.partition]);
            stage.decide_all(vec![MetadataRecord::TopicOpened { topic: P0.topic, node: NodeId(*node), partitions }]);
        }
        for node in 1..=4 {
            stage.metadata(node);
            stage.fetch(node);
        }
        stage
    }

    /// The same, with these records on all replicas, committed everywhere.
    pub fn with_records(settings: &[(&str, &str)], records: &[&'static str]) -> Self {
        let mut stage = Self::of(settings);
        for record in records {
            stage.produce(1, record);
        }
        stage.settle();
        for record in records {
            assert!(stage.acknowledged(record), "{record}: {:?}", stage.told(record));
        }
        stage
    }

    // The controller.

    fn decide_all(&mut self, records: Vec<MetadataRecord>) {
        assert_eq!(self.image.apply_entry(&records), Ok(()), "{records:?}");
        self.entries.push(records);
        self.leases.follow(self.now, &self.image);
    }

    /// Puts a decision into the metadata log, and gives its answer.
    pub fn decide<T>(&mut self, decision: Result<Decision<T>, ApiError>) -> T {
        let Decision { records, answer } = decision.expect("decided");
        self.decide_all(records);
        answer
    }

    pub fn state(&self) -> &PartitionImage {
        self.image.partition(P0).expect("created")
    }

    /// Who leads, in which epoch, and the two sets.
    pub fn sets(&self) -> (Option<u32>, u32, Vec<u32>, Vec<u32>) {
        let numbers = |set: &[NodeId]| set.iter().map(|node| node.0).collect();
        let state = self.state();
        (state.leader.map(|node| node.0), state.leader_epoch.0, numbers(&state.in_sync), numbers(&state.eligible))
    }

    /// What leader `node` has proposed and nobody has decided: the members, and who is to lead.
    pub fn proposed(&self, node: u32) -> Vec<(Vec<u32>, Option<u32>)> {
        let mine = self.proposals.iter().filter(|(leader, _)| leader.0 == node);
        let members = |members: &[(NodeId, _)]| members.iter().map(|(node, _)| node.0).collect();
        mine.map(|(_, proposal)| (members(&proposal.members), proposal.new_leader.map(|node| node.0))).collect()
    }

    /// What leader `node` has proposed is on its way: the test hands it in later, or never.
    pub fn take_proposals(&mut self, node: u32) -> Vec<InSyncProposal> {
        let (mine, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.proposals).into_iter().partition(|(leader, _)| leader.0 == node);
        self.proposals = rest;
        let Some(broker_epoch) = self.process(node).map(|process| process.epoch) else { return Vec::new() };
        let to_wire = |(leader, proposal): (NodeId, callboard::engine::leader::Proposal)| InSyncProposal {
            partition: P0,
            leader,
            broker_epoch,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            members: proposal.members.iter().map(|(node, epoch)| Member { node: *node, epoch: *epoch }).collect(),
            new_leader: proposal.new_leader,
        };
        mine.into_iter().map(to_wire).collect()
    }

    /// The controller decides that. The leader learns of a refusal; of what was decided it learns by the metadata only.
    pub fn hand_in(&mut self, proposal: InSyncProposal) -> Result<InSyncAccepted, InSyncRefusal> {
        let node = proposal.leader.0;
        let Decision { records, mut answer } = engine::alter_in_sync(&self.image, &[proposal]);
        if !records.is_empty() {
            self.decide_all(records);
        }
        let answer = answer.remove(0);
        if answer.is_err() {
            self.with(node, |hosted, now| hosted.replica.on_proposal_refused(now));
        }
        answer
    }

    /// The controller decides what leader `node` has proposed, in order.
    pub fn decide_for(&mut self, node: u32) -> Vec<Result<InSyncAccepted, InSyncRefusal>> {
        self.take_proposals(node).into_iter().map(|proposal| self.hand_in(proposal)).collect()
    }

    pub fn fence(&mut self, node: u32) {
        let decision = engine::fence(&self.image, NodeId(node), self.epoch_of(node));
        self.decide(decision);
    }

    pub fn epoch_of(&self, node: u32) -> callboard::types::BrokerEpoch {
        self.image.epoch_of(NodeId(node)).unwrap_or_default()
    }

    /// The brokers that the controller would fence for their silence now.
    pub fn silent_for_too_long(&self) -> Vec<u32> {
        self.leases.expired(self.now, &self.image).into_iter().map(|(node, _)| node.0).collect()
    }

    /// Another controller takes office: it remembers nothing of what brokers told the one before.
    pub fn change_controller(&mut self) {
        self.leases = LeaseTable::new(LEASE, self.now, &self.image);
    }

    // Brokers.

    /// The broker renews its lease no more.
    pub fn silence(&mut self, node: u32) {
        self.silent.insert(node);
    }

    /// A renewal is sent, and answered at once.
    pub fn renew(&mut self, node: u32) {
        let sent = self.now;
        self.renew_as_sent(node, sent);
    }

    /// A renewal that the broker sent at `sent` is answered now.
    pub fn renew_as_sent(&mut self, node: u32, sent: MonoTime) {
        let Some(process) = self.brokers.get(&node).and_then(|broker| broker.process.as_ref()) else { return };
        let (epoch, applied) = (process.epoch, process.image.index);
        self.leases.on_renewal(self.now, &self.image, (NodeId(node), epoch), applied);
        let until = sent.plus(LEASE.duration);
        if let Some(process) = self.process(node) {
            process.lease_until = process.lease_until.max(until);
        }
        self.with(node, |hosted, now| hosted.replica.on_lease(now, until));
    }

    /// The broker learns everything that was decided.
    pub fn metadata(&mut self, node: u32) {
        let (now, defaults, entries) = (self.now, self.defaults.clone(), self.entries.clone());
        let Some(process) = self.process(node) else { return };
        if process.applied == entries.len() {
            return;
        }
        for entry in &entries[process.applied..] {
            process.image.apply_entry(entry).expect("as the controller applied it");
        }
        process.applied = entries.len();
        process.follow(now, NodeId(node), &defaults);
        self.with(node, |_, _| {});
    }

    /// The process ends, whatever it was doing; what was written is in the page cache.
    pub fn kill(&mut self, node: u32) {
        let broker = self.brokers.get_mut(&node).expect("on the stage");
        broker.process = None;
        broker.disk.kill();
        self.forget_mail(node);
    }

    /// The machine loses its power, and with it all that was not synced.
    pub fn power_loss(&mut self, node: u32) {
        let broker = self.brokers.get_mut(&node).expect("on the stage");
        broker.process = None;
        broker.disk.power_loss_keeping_nothing();
        self.forget_mail(node);
    }

    fn forget_mail(&mut self, node: u32) {
        drop(self.take_mail(|mail| mail.follower().0 == node));
        self.proposals.retain(|(leader, _)| leader.0 != node);
    }

    /// The disk is replaced by an empty one, the process gone.
    pub fn wipe(&mut self, node: u32) {
        self.kill(node);
        self.broker(node).disk.wipe();
    }

    pub fn roll_back(&mut self, node: u32, snapshot: &DiskSnapshot) {
        self.kill(node);
        self.broker(node).disk.roll_back(snapshot);
    }

    /// One bit of the broker's only segment turns over.
    pub fn flip_bit(&mut self, node: u32, position: u64) {
        let dir = Broker::partition_dir(&TopicName::new("rides").expect("legal"));
        let path = dir.join(format!("{:020}.log", 0));
        self.broker(node).disk.flip_bit(&path, position, 3).expect("there is a segment");
    }

    /// A process starts and registers with what its directory says.
    pub fn registers(&mut self, node: u32) -> Result<(), ErrorCode> {
        let cluster = self.image.cluster_id;
        let broker = self.brokers.get_mut(&node).expect("on the stage");
        broker.start(cluster);
        let process = broker.process.as_ref().expect("started");
        let meta = process.directory.meta();
        let held = meta.broker_epoch.unwrap_or_default();
        let registration = BrokerRegistration {
            node: NodeId(node),
            epoch: held,
            incarnation: IncarnationId(uuid::Uuid::from_u128(1)),
            directory: meta.directory,
            host: "stage".to_owned(),
            port: 1,
            rack: None,
            software: String::new(),
            before: DirectoryHistory { epoch: held, stop: process.stop },
            decided_at: None,
        };
        let decision = engine::register(&self.image, registration, &self.defaults).map_err(|error| error.code)?;
        let epoch = self.decide(Ok(decision));
        let process = self.process(node).expect("started");
        process.epoch = epoch;
        process.directory.store_broker_epoch(epoch).expect("stored");
        Ok(())
    }

    /// A registered broker opens its replicas, and is counted on.
    pub fn unfence(&mut self, node: u32) {
        self.metadata(node);
        let process = self.process(node).expect("running");
        let (lost, doubtful) = (process.lost.clone(), process.doubtful.clone());
        for partition in lost {
            let decision = engine::report_lost(&self.image, partition, NodeId(node), self.epoch_of(node));
            self.decide(decision);
        }
        let decision = engine::unfence(&self.image, NodeId(node), self.epoch_of(node), &doubtful);
        self.decide(decision);
        self.silent.remove(&node);
        self.renew(node);
        self.metadata(node);
    }

    pub fn restart(&mut self, node: u32) {
        self.registers(node).expect("accepted");
        self.unfence(node);
    }

    /// The leader is to hand over to `to`.
    pub fn hand_over(&mut self, node: u32, to: u32) -> Result<(), ErrorCode> {
        let mut result = Ok(());
        self.with(node, |hosted, now| {
            result = hosted.replica.on_hand_over(now, NodeId(to), now.plus(Duration::from_millis(400)));
        });
        result.map_err(|error| error.code)
    }

    /// The broker closes its log, notes that it stopped cleanly if it did, and ends.
    pub fn close(&mut self, node: u32) {
        self.with(node, |hosted, _| {
            let high_watermark = hosted.replica.cursors().expect("a role").high_watermark();
            let producers = hosted.replica.producers_snapshot();
            hosted.push(LogWork::Close { high_watermark, producers });
        });
        self.write(node);
        let closed_well = self.hosted(node).is_none_or(|hosted| hosted.closed_well);
        let process = self.process(node).expect("running");
        if closed_well {
            process.directory.mark_clean_stop(process.epoch).expect("marked");
        }
        assert_eq!(process.directory.root(), Path::new("/data"));
        self.brokers.get_mut(&node).expect("on the stage").process = None;
        self.broker(node).disk.kill();
        self.forget_mail(node);
    }

    /// The topic's minimum of in-sync replicas becomes another.
    pub fn set_minimum(&mut self, minimum: &str) {
        let mut config = self.image.topics[&P0.topic].config.clone();
        config.0.insert("min_insync_replicas".to_owned(), minimum.to_owned());
        self.decide_all(vec![MetadataRecord::TopicConfigChanged { topic: P0.topic, config }]);
    }
}

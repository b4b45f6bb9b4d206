//! The controller of the stage: what is decided.

use std::time::Duration;

use callboard::engine::controller::{
    self as engine, DamageOutcome, Decision, InSyncAccepted, InSyncProposal, InSyncRefusal, LeaseTable, Leases, Member,
    Recovery, ReplicaEnd,
};
use callboard::engine::metadata::{ClusterImage, FEATURE_LEVEL, MetadataRecord, PartitionImage};
use callboard::protocol::{ApiError, ErrorCode};
use callboard::types::{
    ClusterId, LeaderEpoch, MonoTime, NodeId, Offset, TopicConfig, TopicConfigOverrides, TopicName,
};

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
        let Some(broker_epoch) = self.process(node).map(|process| process.epoch()) else { return Vec::new() };
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

    /// The leader is to hand over to `to`.
    pub fn hand_over(&mut self, node: u32, to: u32) -> Result<(), ErrorCode> {
        let mut result = Ok(());
        self.with(node, |hosted, now| {
            result = hosted.replica.on_hand_over(now, NodeId(to), now.plus(Duration::from_millis(400)));
        });
        result.map_err(|error| error.code)
    }

    /// The topic's minimum of in-sync replicas becomes another.
    pub fn set_minimum(&mut self, minimum: &str) {
        let mut config = self.image.topics[&P0.topic].config.clone();
        config.0.insert("min_insync_replicas".to_owned(), minimum.to_owned());
        self.decide_all(vec![MetadataRecord::TopicConfigChanged { topic: P0.topic, config }]);
    }

    /// The broker says that it is about to stop.
    pub fn stopping(&mut self, node: u32) {
        let decision = engine::stopping(&self.image, NodeId(node), self.epoch_of(node));
        self.decide(decision);
    }

    /// The partition moves to other replicas.
    pub fn reassign(&mut self, targets: &[u32]) {
        let targets: Vec<_> = targets.iter().copied().map(NodeId).collect();
        let decision = engine::reassign(&self.image, P0, &targets);
        self.decide(decision);
    }

    /// The broker tells the controller that its replica is damaged, in the leader epoch that it knows.
    pub fn report_damaged(&mut self, node: u32) -> DamageOutcome {
        let process = self.process(node).expect("running");
        let (epoch, known) = (process.epoch(), process.image.partition(P0).expect("created").leader_epoch);
        let decision = engine::report_damaged(&self.image, P0, (NodeId(node), epoch), known);
        self.decide(decision)
    }

    /// These brokers tell the controller how far their logs reach; it may elect the best of the last members.
    pub fn recover(&mut self, nodes: &[u32]) -> Recovery {
        let reports: Vec<_> = nodes.iter().map(|node| self.end_of(*node)).collect();
        let decision = engine::elect_from_last_members(&self.image, &self.defaults, &reports);
        self.decide(decision).remove(0).1
    }

    fn end_of(&mut self, node: u32) -> ReplicaEnd {
        let log = self.log(node);
        let epoch = log.rsplit_once('@').map_or(0, |(_, epoch)| epoch.parse().expect("as it was written"));
        ReplicaEnd {
            partition: P0,
            node: NodeId(node),
            broker_epoch: self.epoch_of(node),
            leader_epoch: LeaderEpoch(epoch),
            end_offset: Offset(self.cursors(node).3),
        }
    }
}

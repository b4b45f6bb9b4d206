//! A small vocabulary for stories about the control plane: a cluster whose image changes by decisions only.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::engine::metadata::{BrokerRegistration, DirectoryHistory, FEATURE_LEVEL, LastStop, PartitionImage};
use crate::types::{
    BrokerEpoch, ClusterId, DirectoryId, IncarnationId, LeaderEpoch, NodeId, Offset, PartitionIndex, TopicConfig,
    TopicConfigOverrides, TopicId, TopicName, TopicPartition,
};

/// A registration as a new process of a broker sends it that comes for the first time.
pub(crate) fn registration(node: u32) -> BrokerRegistration {
    BrokerRegistration {
        node: NodeId(node),
        epoch: BrokerEpoch(0),
        incarnation: IncarnationId::random(),
        directory: DirectoryId(Uuid::from_u128(u128::from(node))),
        host: "localhost".into(),
        port: 9_644,
        peer: None,
        rack: None,
        software: String::new(),
        before: DirectoryHistory::default(),
        decided_at: None,
    }
}

/// How a broker's directory looks when it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// As it was, after its last process ended like this.
    After(LastStop),
    /// Another one: the old was wiped.
    Wiped,
    /// Another one, that has seen as many registrations.
    Exchanged,
    /// An older copy.
    RolledBack,
}

/// The partition that most stories are about.
pub(crate) const P0: TopicPartition =
    TopicPartition { topic: TopicId(Uuid::from_u128(1)), partition: PartitionIndex(0) };

pub(crate) fn nodes<const N: usize>(numbers: [u32; N]) -> Vec<NodeId> {
    numbers.map(NodeId).to_vec()
}

pub(crate) fn policy() -> ControllerPolicy {
    ControllerPolicy {
        max_topics: 3,
        max_partitions: 10,
        max_partitions_per_topic: 8,
        default_partitions: 2,
        default_replication_factor: None,
        topic_defaults: TopicConfig::default(),
    }
}

/// A cluster as its controller sees it.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) image: ClusterImage,
    pub(crate) defaults: TopicConfig,
    /// Directories that were wiped so far, for each broker: each new one has an identity of its own.
    wiped: BTreeMap<u32, u128>,
}

impl Cluster {
    /// So many live brokers, from 1 on, and no topics.
    pub(crate) fn of(brokers: u32) -> Self {
        let mut image = ClusterImage::empty(ClusterId(Uuid::nil()));
        image.apply(&MetadataRecord::FeatureLevel { level: FEATURE_LEVEL }).expect("known");
        let mut cluster = Self { image, defaults: TopicConfig::default(), wiped: BTreeMap::new() };
        for node in 1..=brokers {
            cluster.start(node);
        }
        cluster
    }

    /// With the partition [`P0`] on `replicas`, the first of which leads.
    pub(crate) fn with_partition(brokers: u32, replicas: &[NodeId], settings: &[(&str, &str)]) -> Self {
        let mut cluster = Self::of(brokers);
        let config = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        cluster.apply(&[MetadataRecord::TopicCreated {
            topic: P0.topic,
            name: TopicName::new("rides").expect("legal"),
            replicas: vec![replicas.to_vec()],
            config: TopicConfigOverrides(config),
        }]);
        cluster
    }

    pub(crate) fn apply(&mut self, records: &[MetadataRecord]) {
        assert_eq!(self.image.apply_entry(records), Ok(()), "{records:?}");
    }

    /// Applies a decision and gives its answer.
    pub(crate) fn take<T>(&mut self, decision: Result<Decision<T>, ApiError>) -> T {
        let Decision { records, answer } = decision.expect("decided");
        self.apply(&records);
        answer
    }

    pub(crate) fn epoch(&self, node: u32) -> BrokerEpoch {
        self.image.epoch_of(NodeId(node)).unwrap_or_default()
    }

    /// What the broker presents when it comes back like that.
    pub(crate) fn returning(&mut self, node: u32, how: Return) -> BrokerRegistration {
        let held = self.image.brokers.get(&NodeId(node)).map_or(BrokerEpoch(0), |broker| broker.unfenced_epoch);
        let mut registration = registration(node);
        registration.before = DirectoryHistory { epoch: held, stop: LastStop::Clean };
        let wiped = self.wiped.entry(node).or_default();
        match how {
            Return::After(stop) => registration.before.stop = stop,
            Return::Wiped => {
                *wiped += 1;
                registration.before = DirectoryHistory::default();
            }
            Return::Exchanged => *wiped += 1,
            Return::RolledBack => registration.before.epoch = BrokerEpoch(held.0.saturating_sub(1)),
        }
        registration.directory = DirectoryId(Uuid::from_u128(u128::from(node) + (*wiped << 32)));
        registration
    }

    pub(crate) fn registers(&mut self, node: u32, how: Return) -> BrokerEpoch {
        let registration = self.returning(node, how);
        let decision = register(&self.image, registration, &self.defaults);
        self.take(decision)
    }

    /// Registers after a clean stop, and is unfenced.
    pub(crate) fn start(&mut self, node: u32) {
        self.returns(node, Return::After(LastStop::Clean));
    }

    pub(crate) fn returns(&mut self, node: u32, how: Return) {
        self.registers(node, how);
        self.unfenced(node, &[]);
    }

    pub(crate) fn unfenced(&mut self, node: u32, doubtful: &[TopicPartition]) {
        let decision = unfence(&self.image, NodeId(node), self.epoch(node), doubtful);
        self.take(decision);
    }

    pub(crate) fn fenced(&mut self, node: u32) {
        let decision = fence(&self.image, NodeId(node), self.epoch(node));
        self.take(decision);
    }

    pub(crate) fn stopping(&mut self, node: u32) {
        let decision = stopping(&self.image, NodeId(node), self.epoch(node));
        self.take(decision);
    }

    pub(crate) fn p0(&self) -> &PartitionImage {
        self.image.partition(P0).expect("created")
    }

    /// Who leads [`P0`] and the two sets, by number.
    pub(crate) fn sets(&self) -> (Option<u32>, Vec<u32>, Vec<u32>) {
        let numbers = |set: &[NodeId]| set.iter().map(|node| node.0).collect();
        let state = self.p0();
        (state.leader.map(|leader| leader.0), numbers(&state.in_sync), numbers(&state.eligible))
    }

    /// What the leader of [`P0`] proposes in the state there is.
    pub(crate) fn proposal(&self, members: &[u32], new_leader: Option<u32>) -> InSyncProposal {
        let state = self.p0();
        let leader = state.leader.unwrap_or_default();
        InSyncProposal {
            partition: P0,
            leader,
            broker_epoch: self.epoch(leader.0),
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            members: members.iter().map(|node| Member { node: NodeId(*node), epoch: self.epoch(*node) }).collect(),
            new_leader: new_leader.map(NodeId),
        }
    }

    /// Has the leader of [`P0`] propose that, and gives the answer.
    pub(crate) fn proposes(&mut self, proposal: InSyncProposal) -> Result<InSyncAccepted, InSyncRefusal> {
        let Decision { records, mut answer } = alter_in_sync(&self.image, &[proposal]);
        self.apply(&records);
        answer.remove(0)
    }

    /// The leader's in-sync set is these from here on.
    pub(crate) fn in_sync(&mut self, members: &[u32]) {
        let proposal = self.proposal(members, None);
        self.proposes(proposal).expect("accepted");
    }

    /// How far a replica of [`P0`] reaches, as its broker says.
    pub(crate) fn end(&self, node: u32, leader_epoch: u32, end_offset: u64) -> ReplicaEnd {
        ReplicaEnd {
            partition: P0,
            node: NodeId(node),
            broker_epoch: self.epoch(node),
            leader_epoch: LeaderEpoch(leader_epoch),
            end_offset: Offset(end_offset),
        }
    }
}

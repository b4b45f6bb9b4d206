//! Random decisions on a small cluster, some of them made on metadata that has changed since. After each: the sets are in order,
//! epochs rise, whoever leads holds all that was committed, and the log alone gives the same image.
//!
//! What replicas hold is modelled by a number each: how many commits they have. A failure prints the shortest list of steps;
//! `PROPTEST_CASES=10000` looks longer.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::test_support::{Cluster, Return, nodes, policy};
use super::*;
use crate::engine::metadata::{LastStop, PartitionImage};
use crate::protocol::messages::{AlterTopic, NewTopic};
use crate::types::{LeaderEpoch, NodeId, Offset, TopicId, TopicPartition};

const BROKERS: u32 = 4;

#[derive(Clone, Debug)]
enum Step {
    Register(u32, Return),
    Unfence(u32, bool),
    Fence(u32),
    Stopping(u32),
    Alter { at: usize, members: u8, new_leader: Option<u32> },
    Commit(usize),
    Damaged(usize, u32),
    Lost(usize, u32),
    Reassign(usize, Vec<u32>),
    Cancel(usize),
    Minimum(u32),
    AddPartition,
    Create,
    Delete,
    Recover,
}

fn node() -> impl Strategy<Value = u32> {
    1..=BROKERS
}

fn how() -> impl Strategy<Value = Return> {
    prop_oneof![
        4 => Just(Return::After(LastStop::Clean)),
        2 => Just(Return::After(LastStop::Process)),
        3 => Just(Return::After(LastStop::Machine)),
        1 => Just(Return::Wiped),
        1 => Just(Return::Exchanged),
        1 => Just(Return::RolledBack),
    ]
}

/// A step, and how many changes before now the controller that decides it has seen last.
fn step() -> impl Strategy<Value = (Step, usize)> {
    let at = 0..3_usize;
    let step = prop_oneof![
        4 => (node(), how()).prop_map(|(node, how)| Step::Register(node, how)),
        8 => (node(), any::<bool>()).prop_map(|(node, doubtful)| Step::Unfence(node, doubtful)),
        4 => node().prop_map(Step::Fence),
        1 => node().prop_map(Step::Stopping),
        10 => (at.clone(), any::<u8>(), prop::option::weighted(0.3, node()))
            .prop_map(|(at, members, new_leader)| Step::Alter { at, members, new_leader }),
        8 => at.clone().prop_map(Step::Commit),
        1 => (at.clone(), node()).prop_map(|(at, node)| Step::Damaged(at, node)),
        1 => (at.clone(), node()).prop_map(|(at, node)| Step::Lost(at, node)),
        3 => (at.clone(), prop::sample::subsequence(vec![1, 2, 3, 4], 1..=3))
            .prop_map(|(at, targets)| Step::Reassign(at, targets)),
        1 => at.prop_map(Step::Cancel),
        1 => (1..=3_u32).prop_map(Step::Minimum),
        1 => Just(Step::AddPartition),
        1 => Just(Step::Create),
        1 => Just(Step::Delete),
        4 => Just(Step::Recover),
    ];
    (step, prop_oneof![5 => Just(0_usize), 1 => 1..4_usize])
}

struct World {
    cluster: Cluster,
    /// The images so far, the newest last.
    past: Vec<ClusterImage>,
    entries: Vec<Vec<MetadataRecord>>,
    start: ClusterImage,
    committed: BTreeMap<TopicPartition, u64>,
    held: BTreeMap<(TopicPartition, NodeId), u64>,
    topics: u128,
}

impl World {
    fn new(settings: &[(&str, &str)]) -> Self {
        let cluster = Cluster::with_partition(BROKERS, &nodes([1, 2, 3]), settings);
        Self {
            past: vec![cluster.image.clone()],
            start: cluster.image.clone(),
            cluster,
            entries: Vec::new(),
            committed: BTreeMap::new(),
            held: BTreeMap::new(),
            topics: 1,
        }
    }

    fn partition(&self, at: usize) -> Option<TopicPartition> {
        let all: Vec<_> = self.cluster.image.partitions().map(|(partition, _)| partition).collect();
        all.get(at % all.len().max(1)).copied()
    }

    fn state(&self, partition: TopicPartition) -> &PartitionImage {
        self.cluster.image.partition(partition).expect("there")
    }

    fn held(&self, partition: TopicPartition, node: NodeId) -> u64 {
        self.held.get(&(partition, node)).copied().unwrap_or(0)
    }

    /// What a step becomes on the image that its controller knows.
    fn decide(&mut self, step: &Step, known: &ClusterImage) -> Option<Vec<MetadataRecord>> {
        let epoch = |node: u32| known.epoch_of(NodeId(node)).unwrap_or_default();
        let records = |decision: Result<Decision<()>, ApiError>| decision.ok().map(|decision| decision.records);
        match step {
            Step::Register(node, how) => {
                let registration = self.cluster.returning(*node, *how);
                let decision = register(known, registration, &self.cluster.defaults);
                decision.ok().map(|decision| decision.records)
            }
            Step::Unfence(node, is_doubtful) => {
                let all: Vec<_> = known.partitions().map(|(partition, _)| partition).collect();
                records(unfence(known, NodeId(*node), epoch(*node), if *is_doubtful { &all } else { &[] }))
            }
            Step::Fence(node) => records(fence(known, NodeId(*node), epoch(*node))),
            Step::Stopping(node) => records(stopping(known, NodeId(*node), epoch(*node))),
            Step::Alter { at, members, new_leader } => {
                let partition = self.partition(*at)?;
                let state = known.partition(partition)?;
                let leader = state.leader?;
                let chosen = |node: &u32| members & (1 << node) != 0 || (leader.0 == *node && new_leader.is_none());
                let member = |node: u32| Member { node: NodeId(node), epoch: epoch(node) };
                let proposal = InSyncProposal {
                    partition,
                    leader,
                    broker_epoch: epoch(leader.0),
                    leader_epoch: state.leader_epoch,
                    partition_epoch: state.partition_epoch,
                    members: (1..=BROKERS).filter(chosen).map(member).collect(),
                    new_leader: new_leader.map(NodeId),
                };
                Some(alter_in_sync(known, &[proposal]).records)
            }
            Step::Damaged(at, node) => {
                let partition = self.partition(*at)?;
                let leader_epoch = known.partition(partition)?.leader_epoch;
                let decision = report_damaged(known, partition, (NodeId(*node), epoch(*node)), leader_epoch);
                decision.ok().map(|decision| decision.records)
            }
            Step::Lost(at, node) => records(report_lost(known, self.partition(*at)?, NodeId(*node), epoch(*node))),
            Step::Reassign(at, targets) => {
                let targets: Vec<_> = targets.iter().copied().map(NodeId).collect();
                records(reassign(known, self.partition(*at)?, &targets))
            }
            Step::Cancel(at) => records(cancel_reassignment(known, self.partition(*at)?)),
            Step::Recover => {
                let all = known
                    .partitions()
                    .flat_map(|(partition, state)| state.last_members.iter().map(move |node| (partition, *node)));
                let report = |(partition, node): (TopicPartition, NodeId)| ReplicaEnd {
                    partition,
                    node,
                    broker_epoch: epoch(node.0),
                    leader_epoch: LeaderEpoch(0),
                    end_offset: Offset(self.held(partition, node)),
                };
                let reports: Vec<_> = all.map(report).collect();
                let decision = elect_from_last_members(known, &self.cluster.defaults, &reports);
                decision.ok().map(|decision| decision.records)
            }
            Step::Minimum(_) | Step::AddPartition | Step::Create | Step::Delete => self.decide_topic(step, known),
            Step::Commit(_) => None,
        }
    }

    fn decide_topic(&mut self, step: &Step, known: &ClusterImage) -> Option<Vec<MetadataRecord>> {
        let policy = policy();
        let name = known.topic_ids.keys().next().map(ToString::to_string);
        match step {
            Step::Minimum(minimum) => {
                let set = [("min_insync_replicas".to_owned(), minimum.to_string())].into();
                let change = AlterTopic { name: name?, set, reset: Vec::new() };
                policy.alter_topic(known, &change).ok().map(|decision| decision.records)
            }
            Step::AddPartition => {
                let (name, total) = (name?, known.topics.values().next()?.partitions.len() + 1);
                let decision = policy.add_partitions(known, &name, u32::try_from(total).expect("few"));
                decision.ok().map(|decision| decision.records)
            }
            Step::Delete => policy.delete_topic(known, &name?).ok().map(|decision| decision.records),
            _ => {
                self.topics += 1;
                let config = [("flush".to_owned(), "interval".to_owned())].into();
                let wanted = NewTopic { name: "t".to_owned(), partitions: Some(1), replication_factor: None, config };
                let id = TopicId(uuid::Uuid::from_u128(self.topics));
                policy.create_topic(known, &wanted, id).ok().map(|decision| decision.records)
            }
        }
    }

    /// What a broker had in its directory goes before it registers.
    fn lose(&mut self, step: &Step) {
        let (node, how, at) = match step {
            Step::Register(node, how) => (*node, *how, None),
            Step::Lost(at, node) => (*node, Return::Wiped, self.partition(*at)),
            _ => return,
        };
        let image = &self.cluster.image;
        for (partition, _) in image.partitions().filter(|(partition, _)| at.is_none_or(|at| at == *partition)) {
            let flush = image.topics[&partition.topic].config.0.get("flush");
            let is_synced = flush.is_none_or(|flush| flush == "always");
            let Some(held) = self.held.get_mut(&(partition, NodeId(node))) else { continue };
            match how {
                Return::Wiped | Return::Exchanged | Return::RolledBack => *held = 0,
                Return::After(LastStop::Machine) if !is_synced => *held = held.saturating_sub(1),
                Return::After(_) => {}
            }
        }
    }

    fn commit(&mut self, partition: TopicPartition) {
        let minimum = self.cluster.image.topics[&partition.topic].min_in_sync() as usize;
        let PartitionImage { leader, in_sync, .. } = self.state(partition).clone();
        if leader.is_none() || in_sync.len() < minimum {
            return;
        }
        let committed = self.committed.entry(partition).or_default();
        *committed += 1;
        let held = *committed;
        self.held.extend(in_sync.iter().map(|node| ((partition, *node), held)));
    }

    /// Appends the entry to the log, and applies it.
    fn append(&mut self, records: Vec<MetadataRecord>) -> Result<(), ApplyError> {
        for record in &records {
            let bytes = rmp_serde::to_vec_named(record).expect("encodes");
            assert_eq!(rmp_serde::from_slice::<MetadataRecord>(&bytes).expect("decodes"), *record);
        }
        let before = self.cluster.image.clone();
        let outcome = self.cluster.image.apply_entry(&records);
        if outcome.is_err() {
            let unchanged = ClusterImage { index: before.index, ..self.cluster.image.clone() };
            assert_eq!(unchanged, before, "all or nothing");
        } else {
            let mut now = before;
            for record in &records {
                self.watch(&now, record);
                now.apply(record).expect("it fitted");
            }
        }
        self.entries.push(records);
        self.past.push(self.cluster.image.clone());
        outcome
    }

    /// Looks at one change of a partition: whom it elects, who joins.
    fn watch(&mut self, before: &ClusterImage, record: &MetadataRecord) {
        let MetadataRecord::PartitionChanged(change) = record else { return };
        let (partition, state) = (change.partition, before.partition(change.partition).expect("there"));
        let elected = change.leader.filter(|_| change.leader_epoch != state.leader_epoch);
        if let Some(leader) = elected {
            assert!(change.leader_epoch > state.leader_epoch && before.may_lead(leader));
            assert!(change.is_unclean || state.is_member(leader), "{leader} was no member");
            if change.is_unclean {
                let best = state.last_members.iter().map(|node| self.held(partition, *node)).max();
                assert_eq!(Some(self.held(partition, leader)), best, "the one that kept most");
                let kept = self.held(partition, leader);
                self.committed.insert(partition, kept);
                self.held
                    .iter_mut()
                    .filter(|((at, _), _)| *at == partition)
                    .for_each(|(_, held)| *held = (*held).min(kept));
            }
        } else {
            assert_eq!((change.leader_epoch, change.is_unclean), (state.leader_epoch, false));
            assert!(change.leader.is_none() || change.leader == state.leader);
        }
        // A leader lets in only who has caught up.
        let committed = self.committed.get(&partition).copied().unwrap_or(0);
        for (node, _) in change.joining.iter().filter(|(node, _)| Some(*node) != elected) {
            self.held.insert((partition, *node), committed);
        }
    }

    fn check(&self) {
        let image = &self.cluster.image;
        for (partition, state) in image.partitions() {
            let minimum = image.topics[&partition.topic].min_in_sync() as usize;
            let committed = self.committed.get(&partition).copied().unwrap_or(0);
            let members: Vec<_> = state.in_sync.iter().chain(&state.eligible).copied().collect();
            for (at, node) in members.iter().enumerate() {
                assert!(state.replicas.contains(node), "{node} holds no replica: {state:?}");
                assert!(!members[..at].contains(node), "{node} is in both sets: {state:?}");
                assert_eq!(self.held(partition, *node), committed, "{node} lacks what is committed: {state:?}");
            }
            assert!(state.last_members.iter().all(|node| state.replicas.contains(node)), "{state:?}");
            assert!(state.in_sync.iter().all(|node| image.is_live(*node)), "a fenced one is in sync: {state:?}");
            assert!(state.in_sync.len() < minimum || state.eligible.is_empty(), "{state:?}");
            assert!(state.leader.is_none_or(|leader| state.in_sync.contains(&leader)), "{state:?}");
            let could_lead = members.iter().any(|node| image.may_lead(*node));
            assert!(state.leader.is_some() || !could_lead, "nobody leads, and somebody could: {state:?}");
            if let Some(under_way) = &state.reassignment {
                // A leader that is none of them, on the way back or when the target was exchanged, leads until it has handed over.
                let goes_back = under_way.from == under_way.to;
                let all: Vec<_> = under_way.from.iter().chain(&under_way.to).chain(&state.leader).collect();
                assert!(goes_back || state.replicas.iter().all(|node| all.contains(&node)), "{state:?}");
            }
        }
        let previous = &self.past[self.past.len().saturating_sub(2)];
        for (partition, after) in image.partitions() {
            let Some(before) = previous.partition(partition) else { continue };
            assert!(after.leader_epoch >= before.leader_epoch && after.partition_epoch >= before.partition_epoch);
            assert!(after.partition_epoch > before.partition_epoch || after == before, "{before:?} {after:?}");
        }
    }

    fn run(&mut self, (step, behind): &(Step, usize)) {
        if let Step::Commit(at) = step {
            self.partition(*at).into_iter().for_each(|partition| self.commit(partition));
            return;
        }
        // A directory is exchanged only when its process is gone.
        if let Step::Register(node, Return::Wiped | Return::Exchanged) = step {
            let gone = Step::Fence(*node);
            self.run(&(gone, 0));
        }
        let known = self.past[self.past.len().saturating_sub(1 + behind)].clone();
        let is_loss = matches!(step, Step::Register(..) | Step::Lost(..));
        // A controller that has not seen its own last entries does not get as far as to answer a loss.
        let known = if is_loss && !matches!(step, Step::Register(..)) { self.cluster.image.clone() } else { known };
        let Some(records) = self.decide(step, &known) else { return };
        if records.is_empty() {
            return;
        }
        let mut after = self.cluster.image.clone();
        if is_loss && after.apply_entry(&records).is_ok() {
            self.lose(step);
        }
        let outcome = self.append(records);
        if outcome.is_ok() && *behind > 0 {
            let decision = settle_all(&self.cluster.image).expect("decides");
            if !decision.records.is_empty() {
                self.append(decision.records).expect("decided on the newest image");
            }
        }
        assert!(outcome.is_ok() || *behind > 0, "{step:?} did not fit its own image: {outcome:?}");
        if let (Step::Register(node, Return::Wiped | Return::Exchanged | Return::RolledBack), Ok(())) = (step, &outcome)
        {
            let is_member =
                |state: &PartitionImage| state.is_member(NodeId(*node)) || state.last_members.contains(&NodeId(*node));
            assert!(!self.cluster.image.partitions().any(|(_, state)| is_member(state)), "rule 14");
        }
        self.check();
    }
}

fn story(settings: &[(&str, &str)], steps: &[(Step, usize)]) {
    let mut world = World::new(settings);
    steps.iter().for_each(|step| world.run(step));
    let mut replayed = world.start.clone();
    for entry in &world.entries {
        let _ = replayed.apply_entry(entry);
    }
    assert_eq!(replayed, world.cluster.image, "the log alone gives the same image");
    let bytes = rmp_serde::to_vec_named(&replayed).expect("encodes");
    assert_eq!(rmp_serde::from_slice::<ClusterImage>(&bytes).expect("decodes"), replayed);
}

proptest! {
    #[test]
    fn random_decisions_keep_the_sets_in_order_and_everything_committed(
        minimum in 1..=3_u32,
        flush in prop_oneof![Just("always"), Just("os")],
        recovery in prop_oneof![Just("never"), Just("last_members")],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let minimum = minimum.to_string();
        story(&[("min_insync_replicas", &minimum), ("flush", flush), ("unclean_recovery", recovery)], &steps);
    }
}

#[test]
fn a_story_is_told_again_from_its_steps() {
    let steps = [
        (Step::Commit(0), 0),
        (Step::Fence(1), 0),
        (Step::Register(1, Return::Wiped), 0),
        (Step::Unfence(1, false), 0),
        (Step::Alter { at: 0, members: 0b1110, new_leader: None }, 0),
        (Step::Commit(0), 0),
    ];
    story(&[], &steps);
}

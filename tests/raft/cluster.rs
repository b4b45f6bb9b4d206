//! Three members in memory, each on a disk of its own. Time is virtual: it moves when nothing else can happen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard::engine::metadata::{ApplyError, ClusterImage, MetadataRecord};
use callboard::raft::{
    AppliedImage, Decided, Decision, MetadataRaft, Network, RaftId, RaftStorage, RaftWork, TypeConfig,
};
use callboard::storage::disk::{Disk, VirtualDisk};
use callboard::types::{NodeId, ProducerId, TopicConfigOverrides, TopicId, TopicName};
use openraft::error::ClientWriteError;
use openraft::{AsyncRuntime, Raft, ServerState};
use tokio::sync::watch;

use crate::network::{Link, Switch};
use crate::support::{DIR, node, place, raft_config, reserve};

pub const MEMBERS: [RaftId; 3] = [RaftId(1), RaftId(2), RaftId(3)];
const DEADLINE: Duration = Duration::from_secs(60);

struct Member<C: MetadataRaft> {
    raft: Raft<C>,
    images: watch::Receiver<AppliedImage>,
}

/// A cluster of three.
pub struct Cluster<C: MetadataRaft> {
    pub switch: Arc<Switch<C>>,
    disks: BTreeMap<RaftId, Arc<VirtualDisk>>,
    members: BTreeMap<RaftId, Member<C>>,
    rng: fastrand::Rng,
}

/// A topic that can be told from others by its number.
pub fn create_topic(number: u64) -> Decision {
    Decision {
        records: vec![MetadataRecord::TopicCreated {
            topic: TopicId(uuid::Uuid::from_u128(u128::from(number))),
            name: TopicName::new(&format!("topic-{number}")).unwrap(),
            replicas: vec![vec![NodeId(1)]],
            config: TopicConfigOverrides::default(),
        }],
    }
}

impl<C: MetadataRaft> Cluster<C> {
    pub async fn start(seed: u64) -> Self {
        Self::start_with(seed, &MEMBERS).await
    }

    /// A cluster whose first members are these.
    pub async fn start_with(seed: u64, first: &[RaftId]) -> Self {
        let disks = MEMBERS.map(|id| (id, Arc::new(VirtualDisk::new(seed + id.0)))).into();
        let (switch, rng) = (Switch::new(seed), fastrand::Rng::with_seed(seed));
        let mut cluster = Self { switch, disks, members: BTreeMap::new(), rng };
        for id in first {
            cluster.start_member(*id).await;
        }
        let members: BTreeMap<_, _> = first.iter().map(|id| (*id, node(id.0))).collect();
        cluster.raft(RaftId(1)).initialize(members).await.unwrap();
        cluster
    }

    pub async fn start_member(&mut self, id: RaftId) {
        let place = place(&self.disks[&id], id.0);
        let is_new = !self.disks[&id].exists(std::path::Path::new(DIR)).unwrap();
        let work = RaftWork::here();
        let storage = if is_new { RaftStorage::create(&place, &work) } else { RaftStorage::open(&place, &work) };
        let RaftStorage { log, machine, images, .. } = storage.unwrap_or_else(|error| panic!("member {id}: {error}"));
        let network = Network::new(id, Arc::new(Link { from: id, switch: Arc::clone(&self.switch) }));
        let raft = Raft::new(id, raft_config(50, 150..300, 500), network, log, machine).await.unwrap();
        self.switch.plug_in(id, raft.clone());
        self.members.insert(id, Member { raft, images });
    }

    /// The member's machine loses power.
    pub async fn lose_power(&mut self, id: RaftId) {
        let Some(member) = self.members.remove(&id) else { return };
        self.switch.unplug(id);
        self.disks[&id].crash_after_operations(1);
        let _ = member.raft.shutdown().await;
        self.disks[&id].cancel_crash();
        self.disks[&id].power_loss(&mut self.rng);
    }

    pub fn raft(&self, id: RaftId) -> &Raft<C> {
        &self.members[&id].raft
    }

    pub fn running(&self) -> Vec<RaftId> {
        self.members.keys().copied().collect()
    }

    pub fn down(&self) -> Vec<RaftId> {
        MEMBERS.into_iter().filter(|id| !self.members.contains_key(id)).collect()
    }

    pub fn image(&self, id: RaftId) -> Arc<ClusterImage> {
        Arc::clone(&self.members[&id].images.borrow().image)
    }

    /// Waits until the members among `of` agree on a leader among them.
    pub async fn leader(&self, of: &[RaftId]) -> RaftId {
        let agreed = async {
            loop {
                let leaders: Vec<_> = of.iter().map(|id| self.raft(*id).metrics().borrow().current_leader).collect();
                let leader =
                    leaders[0].filter(|leader| of.contains(leader) && leaders.iter().all(|l| *l == Some(*leader)));
                if let Some(leader) = leader
                    && self.raft(leader).metrics().borrow().state == ServerState::Leader
                {
                    return leader;
                }
                C::AsyncRuntime::sleep(Duration::from_millis(10)).await;
            }
        };
        C::AsyncRuntime::timeout(DEADLINE, agreed).await.expect("a leader in time")
    }

    /// Writes through `leader`; `None` when it did not come through.
    pub async fn write(&self, leader: RaftId, decision: Decision, deadline: Duration) -> Option<Decided> {
        let written = C::AsyncRuntime::timeout(deadline, self.raft(leader).client_write(decision)).await;
        written.ok().and_then(Result::ok).map(|response| response.data)
    }

    /// Waits until these members have applied the same up to `index`, the image's.
    pub async fn settle(&self, of: &[RaftId], index: u64) {
        let settled = async {
            while of.iter().any(|id| self.image(*id).index < index) {
                C::AsyncRuntime::sleep(Duration::from_millis(10)).await;
            }
        };
        C::AsyncRuntime::timeout(DEADLINE, settled).await.expect("all caught up in time");
    }

    async fn decided(&self, leader: RaftId, decision: Decision) -> u64 {
        let decided = self.write(leader, decision, DEADLINE).await.expect("a decision that comes through");
        assert_eq!(decided.outcome, Ok(()));
        decided.index
    }
}

type Three = Cluster<TypeConfig>;

#[tokio::test(start_paused = true)]
async fn three_members_elect_a_leader_and_apply_the_same_decisions() {
    let cluster = Three::start(1).await;
    let leader = cluster.leader(&MEMBERS).await;
    cluster.decided(leader, create_topic(1)).await;
    let index = cluster.decided(leader, reserve(10)).await;
    cluster.settle(&MEMBERS, index).await;
    let image = cluster.image(RaftId(1));
    assert_eq!((image.topics.len(), image.next_producer_id, image.index), (1, ProducerId(10), index));
    assert!(MEMBERS.iter().all(|id| cluster.image(*id) == image));
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_does_not_fit_changes_nothing_on_any_member_and_says_why() {
    let cluster = Three::start(2).await;
    let leader = cluster.leader(&MEMBERS).await;
    cluster.decided(leader, reserve(10)).await;
    // The first record fits, the second does not.
    let both = Decision { records: [create_topic(1).records, reserve(10).records].concat() };
    let decided = cluster.write(leader, both, DEADLINE).await.unwrap();
    assert_eq!(decided.outcome, Err(ApplyError::ProducerIdsGoBack { next: ProducerId(10) }));
    cluster.settle(&MEMBERS, decided.index).await;
    for id in MEMBERS {
        assert_eq!((cluster.image(id).topics.len(), cluster.image(id).index), (0, decided.index));
    }
}

#[tokio::test(start_paused = true)]
async fn decisions_survive_the_loss_of_the_leader_and_a_restart_of_all_from_disk() {
    let mut cluster = Three::start(3).await;
    let first = cluster.leader(&MEMBERS).await;
    let index = cluster.decided(first, create_topic(1)).await;
    cluster.settle(&MEMBERS, index).await;
    cluster.lose_power(first).await;
    let others = cluster.running();
    let second = cluster.leader(&others).await;
    assert_ne!(first, second);
    cluster.decided(second, create_topic(2)).await;
    cluster.start_member(first).await;
    let index = cluster.decided(cluster.leader(&MEMBERS).await, create_topic(3)).await;
    cluster.settle(&MEMBERS, index).await;
    assert!(MEMBERS.iter().all(|id| cluster.image(*id).topics.len() == 3));

    for id in MEMBERS {
        cluster.lose_power(id).await;
    }
    for id in MEMBERS {
        cluster.start_member(id).await;
    }
    cluster.leader(&MEMBERS).await;
    cluster.settle(&MEMBERS, index).await;
    assert!(MEMBERS.iter().all(|id| cluster.image(*id).topics.len() == 3));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lags_behind_the_log_gets_a_snapshot_and_keeps_it() {
    let mut cluster = Three::start(4).await;
    let leader = cluster.leader(&MEMBERS).await;
    let lagging = MEMBERS.into_iter().find(|id| *id != leader).unwrap();
    let next = MEMBERS.into_iter().find(|id| *id != leader && *id != lagging).unwrap();
    cluster.lose_power(lagging).await;
    let mut index = 0;
    for number in 0..60 {
        index = cluster.decided(leader, create_topic(number)).await;
    }
    // A leader keeps what a member that is down has not got; a follower does not. So the other one has to lead.
    cluster.settle(&[next], index).await;
    let purged = cluster.raft(next).metrics().borrow().purged;
    assert!(purged.is_some_and(|purged| purged.index > 10), "the next leader's log still has all");
    // One candidacy may be lost to the old leader, whose vote timer runs too: it stands until it wins.
    let wins = async {
        while cluster.raft(next).metrics().borrow().state != ServerState::Leader {
            cluster.raft(next).trigger().elect().await.unwrap();
            let second = Some(Duration::from_secs(1));
            let _ = cluster.raft(next).wait(second).state(ServerState::Leader, "the next leader").await;
        }
    };
    tokio::time::timeout(DEADLINE, wins).await.expect("the next leader in time");
    cluster.start_member(lagging).await;
    cluster.settle(&[lagging], index).await;
    assert_eq!(cluster.image(lagging).topics, cluster.image(leader).topics);
    let chunks = cluster.switch.trace().iter().filter(|line| line.contains("snapshot ")).count();
    assert!(chunks > 5, "only {chunks} chunks");
    assert!(cluster.raft(lagging).metrics().borrow().snapshot.is_some_and(|snapshot| snapshot.index > 10));

    cluster.lose_power(lagging).await;
    cluster.start_member(lagging).await;
    assert!(cluster.image(lagging).topics.len() > 10, "the snapshot is there before anybody was heard");
    cluster.settle(&[lagging], index).await;
    assert_eq!(cluster.image(lagging).topics, cluster.image(leader).topics);
}

#[tokio::test(start_paused = true)]
async fn a_new_member_learns_from_a_snapshot_then_votes_and_the_lost_one_is_removed() {
    let mut cluster = Three::start_with(6, &MEMBERS[..2]).await;
    let leader = cluster.leader(&MEMBERS[..2]).await;
    for number in 0..60 {
        cluster.decided(leader, create_topic(number)).await;
    }
    let purged = cluster.raft(leader).metrics().borrow().purged;
    assert!(purged.is_some_and(|purged| purged.index > 10), "the leader's log still has all");
    let new = MEMBERS[2];
    cluster.start_member(new).await;
    let raft = cluster.raft(leader).clone();
    raft.add_learner(new, node(new.0), true).await.unwrap();
    let lost = MEMBERS.into_iter().find(|id| *id != leader && *id != new).unwrap();
    cluster.lose_power(lost).await;
    // Two of three have to agree, and one of the first two is gone: the new one counts from here on.
    cluster.start_member(lost).await;
    raft.change_membership([leader, new], false).await.unwrap();
    cluster.lose_power(lost).await;
    let index = cluster.decided(leader, create_topic(100)).await;
    cluster.settle(&[leader, new], index).await;
    assert_eq!(cluster.image(new), cluster.image(leader));
    assert!(cluster.switch.trace().iter().any(|line| line.contains("snapshot ")));
}

#[tokio::test(start_paused = true)]
async fn what_a_deposed_leader_was_told_is_refused_and_leaves_no_trace() {
    let cluster = Three::start(5).await;
    let stale = cluster.leader(&MEMBERS).await;
    cluster.decided(stale, create_topic(1)).await;
    cluster.switch.isolate(stale, MEMBERS);
    let raft = cluster.raft(stale).clone();
    let refused = tokio::spawn(async move { raft.client_write(create_topic(2)).await });
    let others: Vec<_> = MEMBERS.into_iter().filter(|id| *id != stale).collect();
    let leader = cluster.leader(&others).await;
    cluster.decided(leader, create_topic(3)).await;
    cluster.switch.heal();
    let index = cluster.decided(leader, create_topic(4)).await;
    cluster.settle(&MEMBERS, index).await;
    let error = refused.await.unwrap().expect_err("nobody else was told");
    assert!(matches!(error.api_error(), Some(ClientWriteError::ForwardToLeader(_))), "{error}");
    for id in MEMBERS {
        let image = cluster.image(id);
        let numbers: Vec<_> = image.topics.keys().map(|topic| topic.0.as_u128()).collect();
        assert_eq!(numbers, [1, 3, 4]);
    }
}

/// Members lose power, are cut off, and come back, messages are lost and late, while topics are created. In the end every topic
/// whose creation was acknowledged is there, on all members.
pub async fn chaos<C: MetadataRaft>(seed: u64, steps: usize) -> Cluster<C> {
    let mut cluster = Cluster::<C>::start(seed).await;
    cluster.leader(&MEMBERS).await;
    cluster.switch.set_weather(20, 10);
    let mut acknowledged = Vec::new();
    for number in 0..steps as u64 {
        C::AsyncRuntime::sleep(Duration::from_millis(50)).await;
        let id = RaftId(1 + cluster.switch.random(3));
        match cluster.switch.random(12) {
            0 if cluster.running().len() == 3 => cluster.lose_power(id).await,
            1 | 2 => {
                for down in cluster.down() {
                    cluster.start_member(down).await;
                }
            }
            3 => cluster.switch.isolate(id, MEMBERS),
            4 | 5 => cluster.switch.heal(),
            _ => {}
        }
        let at = cluster.running()[usize::try_from(cluster.switch.random(2)).unwrap()];
        let to = cluster.raft(at).metrics().borrow().current_leader.filter(|leader| cluster.running().contains(leader));
        let written = cluster.write(to.unwrap_or(at), create_topic(number), Duration::from_millis(500)).await;
        if let Some(decided) = written {
            assert_eq!(decided.outcome, Ok(()), "seed {seed}: topic {number}");
            acknowledged.push(number);
        }
    }
    cluster.switch.heal();
    cluster.switch.set_weather(0, 1);
    for down in cluster.down() {
        cluster.start_member(down).await;
    }
    let last = async {
        loop {
            // Leadership may still change hands, the moment after all agreed.
            let leader = cluster.leader(&MEMBERS).await;
            if let Some(decided) = cluster.write(leader, create_topic(1_000_000), Duration::from_secs(5)).await {
                return (leader, decided);
            }
        }
    };
    let (leader, last) = C::AsyncRuntime::timeout(DEADLINE, last).await.expect("a last decision in time");
    cluster.settle(&MEMBERS, last.index).await;
    let image = cluster.image(leader);
    for number in &acknowledged {
        let topic = TopicId(uuid::Uuid::from_u128(u128::from(*number)));
        assert!(image.topics.contains_key(&topic), "seed {seed}: topic {number} is lost");
    }
    assert!(MEMBERS.iter().all(|id| cluster.image(*id).topics == image.topics), "seed {seed}");
    assert!(!acknowledged.is_empty(), "seed {seed}: nothing came through");
    cluster.switch.note(format!("acknowledged {acknowledged:?}, index {}", image.index));
    cluster
}

#[tokio::test(start_paused = true)]
async fn acknowledged_decisions_survive_power_losses_cuts_and_lost_messages() {
    for seed in 0..10 {
        chaos::<TypeConfig>(seed, 60).await;
    }
}

//! What a leader proposes, told by its commands.

use super::super::{ProduceEvent, ReplicaFetchEvent};
use super::*;
use crate::engine::replication::{ReplicaFetch, ReplicaState};
use crate::engine::waiters::OwnerId;
use crate::protocol::messages::Acks;
use crate::types::record_batch::{BatchBuilder, BatchHeader, Compression};
use crate::types::{Offset, TimestampMs, TopicConfig};

const EPOCH: LeaderEpoch = LeaderEpoch(3);

fn at(ms: u64) -> MonoTime {
    MonoTime(Duration::from_millis(ms))
}

/// Broker 1 leads; of its replicas 2 and 3 these are in sync.
fn leadership(partition_epoch: u32, in_sync: &[u32]) -> Leadership {
    let view =
        |node: u32| ReplicaView { node: NodeId(node), broker_epoch: BrokerEpoch(u64::from(node)), may_join: true };
    let alone = Leadership::alone(EPOCH, NodeId(1), BrokerEpoch(1));
    let in_sync = in_sync.iter().copied().map(NodeId).collect();
    Leadership { partition_epoch, in_sync, replicas: vec![view(1), view(2), view(3)], ..alone }
}

/// A leader, and how often each follower has fetched.
struct Story {
    engine: LeaderEngine<&'static str>,
    fetches: u64,
}

impl Story {
    fn new(in_sync: &[u32]) -> Self {
        let settings = LeaderSettings {
            max_lag: Duration::from_millis(1_000),
            proposal_timeout: Duration::from_millis(300),
            proposal_backoff: Duration::from_millis(50),
            ..LeaderSettings::default()
        };
        let (now, config) = (at(0), TopicConfig::default());
        let mut engine =
            LeaderEngine::new(now, NodeId(1), leadership(1, in_sync), config, ReplicaState::empty(), settings);
        engine.on_lease(now, at(u64::from(u32::MAX)), &mut Output::default());
        Self { engine, fetches: 0 }
    }

    fn run(
        &mut self,
        event: impl FnOnce(&mut LeaderEngine<&'static str>, &mut Output<&'static str>),
    ) -> Vec<(Vec<u32>, Option<u32>)> {
        let mut out = Output::default();
        event(&mut self.engine, &mut out);
        let proposed = |command| match command {
            Command::Propose(proposal) => {
                let members = proposal.members.iter().map(|(node, _)| node.0).collect();
                Some((members, proposal.new_leader.map(|node| node.0)))
            }
            _ => None,
        };
        out.0.into_iter().filter_map(proposed).collect()
    }

    /// A record is appended, written and synced.
    fn appends(&mut self, now: MonoTime) {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        builder.append(TimestampMs(5), None, Some(b"v"), &[]);
        let event = ProduceEvent {
            header: BatchHeader::parse(&builder.build().expect("builds")).expect("parses"),
            batch_bytes: 100,
            leader_epoch: None,
            acks: Acks::Leader,
            deadline: at(100_000),
            wall: TimestampMs(5),
            owner: OwnerId(1),
            reply: "producer",
        };
        self.run(|engine, out| {
            engine.on_produce(now, event, out);
            let end = engine.cursors().next_offset();
            engine.on_written(now, end, out);
            engine.on_synced(now, end, out);
        });
    }

    /// A follower says that it holds everything up to `end`, all of it synced.
    fn fetches(&mut self, now: MonoTime, node: u32, end: u64) -> Vec<(Vec<u32>, Option<u32>)> {
        self.fetches += 1;
        let fetch = ReplicaFetch {
            replica: NodeId(node),
            broker_epoch: BrokerEpoch(u64::from(node)),
            leader_epoch: EPOCH,
            number: self.fetches,
            position: Offset(end),
            last_epoch: (end > 0).then_some(EPOCH),
            lacks_producers: false,
            durable_end: Offset(end),
            high_watermark: Offset(0),
            max_bytes: 100,
            is_damaged: false,
            repair: None,
        };
        self.run(|engine, out| {
            engine.on_replica_fetch(now, ReplicaFetchEvent { fetch, wait_until: None, reply: "" }, out)
        })
    }

    fn ticks(&mut self, now: MonoTime) -> Vec<(Vec<u32>, Option<u32>)> {
        self.run(|engine, out| engine.on_tick(now, out))
    }

    fn learns(&mut self, now: MonoTime, leadership: Leadership) -> Vec<(Vec<u32>, Option<u32>)> {
        self.run(|engine, out| engine.on_leadership(now, leadership, out))
    }

    fn watermark(&self) -> u64 {
        self.engine.cursors().high_watermark().0
    }
}

const NOTHING: [(Vec<u32>, Option<u32>); 0] = [];

#[test]
fn a_leader_alone_with_its_replica_proposes_nothing() {
    let settings = LeaderSettings::default();
    let leadership = Leadership::alone(EPOCH, NodeId(1), BrokerEpoch(1));
    let state = ReplicaState::empty();
    let engine = LeaderEngine::new(at(0), NodeId(1), leadership, TopicConfig::default(), state, settings);
    let mut story = Story { engine, fetches: 0 };
    assert_eq!(story.ticks(at(1_000_000)), NOTHING);
    assert_eq!(story.engine.next_deadline(), None);
}

#[test]
fn one_proposal_is_under_way_at_a_time_and_it_is_made_again_when_there_is_no_answer() {
    let mut story = Story::new(&[1, 2]);
    assert_eq!(story.fetches(at(10), 3, 0), [(vec![1, 2, 3], None)]);
    assert_eq!(story.fetches(at(20), 3, 0), NOTHING);
    assert_eq!(story.ticks(at(309)), NOTHING);
    assert_eq!(story.engine.next_deadline(), Some(at(310)));
    assert_eq!(story.ticks(at(310)), [(vec![1, 2, 3], None)]);
}

#[test]
fn after_a_refusal_it_waits_a_little_and_what_was_proposed_counts_on() {
    let mut story = Story::new(&[1, 2]);
    story.fetches(at(10), 2, 0);
    story.fetches(at(10), 3, 0);
    story.appends(at(10));
    story.engine.on_proposal_refused(at(20));
    assert_eq!(story.fetches(at(30), 2, 1), NOTHING);
    assert_eq!((story.watermark(), story.engine.counts(NodeId(3))), (0, true));
    assert_eq!(story.ticks(at(69)), NOTHING);
    assert_eq!(story.ticks(at(70)), [(vec![1, 2, 3], None)]);
}

#[test]
fn a_proposal_that_is_not_wanted_any_more_is_followed_by_one_that_ends_it() {
    // Broker 3 was proposed, and has fallen behind since. A copy of that proposal may be decided for as long as the partition epoch is the
    // same, so the set that is in force is proposed: it raises that.
    let mut story = Story::new(&[1, 2]);
    story.fetches(at(10), 3, 0);
    story.appends(at(20));
    story.fetches(at(1_000), 2, 1);
    assert_eq!(story.ticks(at(1_300)), [(vec![1, 2], None)], "broker 3 lags");
    assert_eq!(story.watermark(), 0);
    assert_eq!(story.learns(at(1_310), leadership(2, &[1, 2])), NOTHING);
    assert_eq!((story.watermark(), story.engine.counts(NodeId(3))), (1, false));
}

#[test]
fn the_metadata_of_another_state_settles_whatever_was_proposed() {
    let mut story = Story::new(&[1, 2]);
    story.fetches(at(10), 3, 0);
    assert_eq!(story.learns(at(20), leadership(1, &[1, 2])), NOTHING, "the same state says nothing of it");
    assert!(story.engine.counts(NodeId(3)));
    assert_eq!(story.learns(at(20), leadership(2, &[1, 2, 3])), NOTHING);
    assert_eq!(story.learns(at(30), leadership(1, &[1])), NOTHING, "an older state is history");
    assert_eq!(story.engine.leadership().in_sync.len(), 3);
}

#[test]
fn whoever_left_comes_in_again_only_by_what_it_says_from_then_on() {
    // It may have left because its disk failed. What it had said before is still true of nothing.
    let mut story = Story::new(&[1, 2, 3]);
    story.fetches(at(10), 3, 0);
    assert_eq!(story.learns(at(20), leadership(2, &[1, 2])), NOTHING);
    assert_eq!(story.ticks(at(30)), NOTHING);
    assert_eq!(story.fetches(at(40), 3, 0), [(vec![1, 2, 3], None)]);
}

#[test]
fn what_was_said_under_an_earlier_registration_is_forgotten() {
    let mut story = Story::new(&[1, 2, 3]);
    story.fetches(at(10), 2, 0);
    story.fetches(at(10), 3, 0);
    let mut newer = leadership(2, &[1, 2, 3]);
    newer.replicas[2].broker_epoch = BrokerEpoch(33);
    story.learns(at(20), newer);
    story.appends(at(20));
    story.fetches(at(30), 2, 1);
    assert_eq!(story.watermark(), 0, "nobody knows how far broker 3 is");
}

#[test]
fn members_that_lag_leave_and_the_leader_looks_in_time() {
    let mut story = Story::new(&[1, 2, 3]);
    story.appends(at(0));
    assert_eq!(story.fetches(at(500), 2, 1), NOTHING);
    assert_eq!(story.engine.next_deadline(), Some(at(1_000)));
    assert_eq!(story.ticks(at(999)), NOTHING);
    assert_eq!(story.ticks(at(1_000)), [(vec![1, 2], None)]);
    // Broker 2 waits for news and has everything: that is no lag as long as it comes back in time.
    story.learns(at(1_010), leadership(2, &[1, 2]));
    assert_eq!(story.engine.next_deadline(), Some(at(1_500)));
    assert_eq!(story.fetches(at(1_400), 2, 1), NOTHING);
    assert_eq!(story.ticks(at(1_500)), NOTHING);
}

#[test]
fn a_broker_that_may_not_join_is_not_proposed() {
    let mut story = Story::new(&[1, 2]);
    let mut stopping = leadership(2, &[1, 2]);
    stopping.replicas[2].may_join = false;
    story.learns(at(5), stopping);
    assert_eq!(story.fetches(at(10), 3, 0), NOTHING);
    assert_eq!(story.learns(at(20), leadership(3, &[1, 2])), [(vec![1, 2, 3], None)]);
}

#[test]
fn a_hand_over_is_proposed_once_the_target_has_everything_and_ends_with_the_next_state() {
    let mut story = Story::new(&[1, 2, 3]);
    story.appends(at(0));
    let mut result = Ok(());
    let proposed = story.run(|engine, out| result = engine.on_hand_over(at(10), NodeId(2), at(500), out));
    assert_eq!((result, proposed), (Ok(()), vec![]));
    assert_eq!(story.fetches(at(20), 2, 1), [(vec![1, 2, 3], Some(2))]);
    assert_eq!(story.engine.handing_over_to(), Some(NodeId(2)));
    story.learns(at(30), leadership(2, &[1, 2, 3]));
    assert_eq!(story.engine.handing_over_to(), None, "it was decided otherwise");
}

#[test]
fn a_hand_over_that_was_refused_is_not_asked_for_again_but_what_it_proposed_is_ended() {
    let mut story = Story::new(&[1, 2, 3]);
    story.run(|engine, out| drop(engine.on_hand_over(at(10), NodeId(2), at(500), out)));
    assert_eq!(story.fetches(at(20), 2, 0), [(vec![1, 2, 3], Some(2))]);
    story.engine.on_proposal_refused(at(30));
    assert_eq!(story.engine.handing_over_to(), None);
    assert_eq!(story.ticks(at(80)), [(vec![1, 2, 3], None)], "the same set, in a newer partition epoch");
}

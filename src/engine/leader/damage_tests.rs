//! Followers with damage, told by what the leader answers and proposes.

use std::time::Duration;

use super::*;
use crate::engine::replication::{ReplicaFetch, ReplicaVerdict};
use crate::types::BrokerEpoch;

const NOW: MonoTime = MonoTime(Duration::ZERO);

type Engine = LeaderEngine<&'static str>;

/// Broker 1, which leads brokers 2 and 3 in epoch 3 and holds `[0, 14)`, all of it written in epoch 2.
fn leader(in_sync: &[u32]) -> Engine {
    let node = |node: &u32| NodeId(*node);
    let view = |node: u32| ReplicaView { node: NodeId(node), broker_epoch: BrokerEpoch(1), may_join: true };
    let leadership = Leadership {
        in_sync: in_sync.iter().map(node).collect(),
        replicas: [1, 2, 3].map(view).to_vec(),
        ..Leadership::alone(LeaderEpoch(3), NodeId(1), BrokerEpoch(1))
    };
    let mut epochs = EpochHistory::default();
    epochs.note(LeaderEpoch(2), Offset(0));
    let state = ReplicaState::opened(Offset(0), Offset(14), epochs, ProducerTable::default());
    let config = TopicConfig { flush: FlushPolicy::Always, ..TopicConfig::default() };
    let mut engine = LeaderEngine::new(NOW, NodeId(1), leadership, config, state, LeaderSettings::default());
    engine.on_lease(NOW, MonoTime(Duration::from_secs(1_000)), &mut Output::default());
    engine
}

fn fetch(replica: u32, number: u64, is_damaged: bool, repair: Option<(u64, u64)>) -> ReplicaFetch {
    ReplicaFetch {
        replica: NodeId(replica),
        broker_epoch: BrokerEpoch(1),
        leader_epoch: LeaderEpoch(3),
        number,
        position: Offset(14),
        last_epoch: Some(LeaderEpoch(2)),
        lacks_producers: false,
        durable_end: Offset(14),
        high_watermark: Offset(0),
        max_bytes: 100,
        is_damaged,
        repair: repair.map(|(from, to)| (Offset(from), Offset(to))),
    }
}

fn fetched(engine: &mut Engine, fetch: ReplicaFetch) -> Vec<Command<&'static str>> {
    let mut out = Output::default();
    engine.on_replica_fetch(NOW, ReplicaFetchEvent { fetch, wait_until: None, reply: "follower" }, &mut out);
    out.0
}

fn proposed(commands: &[Command<&'static str>]) -> Option<Vec<u32>> {
    let members = |proposal: &Proposal| proposal.members.iter().map(|(node, _)| node.0).collect();
    commands.iter().find_map(|command| match command {
        Command::Propose(proposal) => Some(members(proposal)),
        _ => None,
    })
}

#[test]
fn a_damaged_range_is_read_up_to_where_the_logs_are_known_to_be_the_same() {
    let mut engine = leader(&[1, 3]);
    let commands = fetched(&mut engine, ReplicaFetch { position: Offset(12), ..fetch(2, 1, true, Some((5, 8))) });
    let Some(Command::ReadForRepair { reply: "follower", range, .. }) = commands.last() else { panic!("{commands:?}") };
    assert_eq!(*range, ReadRange { from: Offset(5), upper_exclusive: Offset(12), max_bytes: 100 });
}

#[test]
fn of_damage_before_its_log_the_leader_says_where_that_starts() {
    let mut engine = leader(&[1, 3]);
    engine.on_log_start(Offset(9), &mut Output::default());
    let commands = fetched(&mut engine, fetch(2, 1, true, Some((5, 8))));
    let Some(Command::ReplicaFetched { result: Ok((ReplicaVerdict::Continues, state)), .. }) = commands.last() else {
        panic!("{commands:?}")
    };
    assert_eq!(state.log_start, Offset(9));
    let in_part = fetched(&mut engine, fetch(2, 2, true, Some((5, 11))));
    let Some(Command::ReadForRepair { range, .. }) = in_part.last() else { panic!("{in_part:?}") };
    assert_eq!(range.from, Offset(9));
}

#[test]
fn a_follower_with_another_history_is_told_to_cut_before_it_is_repaired() {
    let mut engine = leader(&[1, 3]);
    let elsewhere = ReplicaFetch { last_epoch: Some(LeaderEpoch(1)), ..fetch(2, 1, true, Some((5, 8))) };
    let commands = fetched(&mut engine, elsewhere);
    assert!(!commands.iter().any(|command| matches!(command, Command::ReadForRepair { .. })), "{commands:?}");
}

#[test]
fn a_member_that_is_damaged_is_to_leave_and_nothing_is_committed_on_its_word() {
    let mut engine = leader(&[1, 2, 3]);
    fetched(&mut engine, fetch(2, 1, false, None));
    let commands = fetched(&mut engine, fetch(3, 1, true, Some((5, 8))));
    assert_eq!(proposed(&commands), Some(vec![1, 2]));
    assert_eq!(engine.cursors().high_watermark(), Offset(0), "it counts until it has left");
}

#[test]
fn a_follower_joins_only_once_it_is_whole() {
    let mut engine = leader(&[1, 2]);
    fetched(&mut engine, fetch(2, 1, false, None));
    for (number, repair) in [(1, Some((5, 8))), (2, None)] {
        assert_eq!(proposed(&fetched(&mut engine, fetch(3, number, true, repair))), None);
    }
    assert_eq!(proposed(&fetched(&mut engine, fetch(3, 3, false, None))), Some(vec![1, 2, 3]));
}

#[test]
fn a_damaged_follower_is_not_handed_the_leadership() {
    let mut engine = leader(&[1, 2, 3]);
    fetched(&mut engine, fetch(2, 1, false, None));
    fetched(&mut engine, fetch(3, 1, true, None));
    let (mut out, later) = (Output::default(), MonoTime(Duration::from_secs(900)));
    engine.on_hand_over(NOW, NodeId(3), later, &mut out).expect("it is in sync as yet");
    engine.on_tick(MonoTime(Duration::from_secs(2)), &mut out);
    let to_another = |command: &Command<_>| matches!(command, Command::Propose(Proposal { new_leader: Some(_), .. }));
    assert!(!out.0.iter().any(to_another), "{:?}", out.0);
}

//! Distinct brokers, distinct racks, even loads.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn broker(node: u32, rack: Option<&str>) -> Candidate {
    Candidate { node: NodeId(node), rack: rack.map(str::to_owned), leads: 0, replicas: 0 }
}

fn brokers(count: u32) -> Vec<Candidate> {
    (1..=count).map(|node| broker(node, None)).collect()
}

fn leads(placed: &[Vec<NodeId>]) -> BTreeMap<NodeId, usize> {
    let mut leads = BTreeMap::new();
    placed.iter().for_each(|replicas| *leads.entry(replicas[0]).or_insert(0) += 1);
    leads
}

#[test]
fn replicas_of_a_partition_are_on_different_brokers_and_leaders_are_even() {
    for (count, factor) in [(1, 1), (2, 2), (4, 3), (5, 5)] {
        let placed = place(&brokers(count), &[], 40, factor).expect("enough brokers");
        for replicas in &placed {
            let distinct: BTreeSet<_> = replicas.iter().collect();
            assert_eq!(distinct.len(), factor as usize, "{replicas:?}");
        }
        assert!(leads(&placed).values().all(|led| *led == 40 / count as usize), "{placed:?}");
    }
}

#[test]
fn the_followers_of_a_lost_broker_are_spread_over_all_others() {
    let placed = place(&brokers(4), &[], 12, 2).expect("enough brokers");
    let followers: BTreeSet<_> = placed.iter().filter(|of| of[0] == NodeId(1)).map(|of| of[1]).collect();
    assert_eq!(followers.len(), 3, "{placed:?}");
}

#[test]
fn replicas_of_a_partition_are_in_different_racks_while_there_are_some() {
    let racks =
        [broker(1, Some("a")), broker(2, Some("a")), broker(3, Some("b")), broker(4, Some("b")), broker(5, None)];
    let rack_of = |node: &NodeId| racks.iter().find(|broker| broker.node == *node).map(|broker| &broker.rack);
    for replicas in place(&racks, &[], 20, 3).expect("enough brokers") {
        let distinct: BTreeSet<_> = replicas.iter().map(rack_of).collect();
        assert_eq!(distinct.len(), 3, "{replicas:?}");
    }
    for replicas in place(&racks, &[], 20, 4).expect("enough brokers") {
        let distinct: BTreeSet<_> = replicas.iter().map(rack_of).collect();
        assert_eq!(distinct.len(), 3, "a rack is used twice only when all are used: {replicas:?}");
    }
}

#[test]
fn a_broker_that_has_just_come_gets_its_share_of_a_topic_and_not_all_of_it() {
    let mut candidates = brokers(3);
    candidates[0] = Candidate { leads: 50, replicas: 90, ..broker(1, None) };
    candidates[1] = Candidate { leads: 40, replicas: 90, ..broker(2, None) };
    let placed = place(&candidates, &[], 7, 1).expect("enough brokers");
    assert_eq!(leads(&placed), BTreeMap::from([(NodeId(1), 2), (NodeId(2), 2), (NodeId(3), 3)]));
    assert_eq!(placed[0], [NodeId(3)], "what brokers have decides between equals");
}

#[test]
fn added_partitions_go_on_where_the_topic_stands() {
    let first = place(&brokers(3), &[], 4, 2).expect("enough brokers");
    let with_load = |mut broker: Candidate| {
        broker.leads = first.iter().filter(|replicas| replicas[0] == broker.node).count();
        broker.replicas = first.iter().filter(|replicas| replicas.contains(&broker.node)).count();
        broker
    };
    let loaded: Vec<_> = brokers(3).into_iter().map(with_load).collect();
    let added = place(&loaded, &first, 5, 2).expect("enough brokers");
    assert_eq!([first, added].concat(), place(&brokers(3), &[], 9, 2).expect("enough brokers"));
}

#[test]
fn rule_19_no_live_broker_and_too_few_brokers_are_errors() {
    assert_eq!(place(&[], &[], 1, 1).map_err(|e| e.code), Err(ErrorCode::NoLiveBroker));
    assert_eq!(place(&brokers(2), &[], 1, 3).map_err(|e| e.code), Err(ErrorCode::InvalidReplicationFactor));
    assert_eq!(place(&brokers(2), &[], 1, 0).map_err(|e| e.code), Err(ErrorCode::InvalidReplicationFactor));
}

proptest! {
    #[test]
    fn whatever_the_racks_are_replicas_are_distinct_racks_are_used_before_they_are_used_again_and_leaders_are_even(
        racks in prop::collection::vec(prop::option::of(0..4_u8), 1..9),
        loads in prop::collection::vec(0..20_usize, 9),
        partitions in 1..40_u32,
        factor in 1..4_u32,
    ) {
        let candidates: Vec<_> = (1..).zip(&racks).zip(loads).map(|((node, rack), load)| {
            let rack = rack.map(|rack| rack.to_string());
            Candidate { node: NodeId(node), rack, leads: load, replicas: load }
        }).collect();
        let factor = factor.min(u32::try_from(candidates.len()).expect("few"));
        let placed = place(&candidates, &[], partitions, factor).expect("enough brokers");
        let rack_of = |node: &NodeId| {
            let broker = candidates.iter().find(|broker| broker.node == *node).expect("a candidate");
            broker.rack.clone().unwrap_or_else(|| format!("own {node}"))
        };
        let all_racks: BTreeSet<_> = candidates.iter().map(|broker| rack_of(&broker.node)).collect();
        for replicas in &placed {
            prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), factor as usize);
            let used: BTreeSet<_> = replicas.iter().map(rack_of).collect();
            prop_assert_eq!(used.len(), all_racks.len().min(factor as usize));
        }
        let leads = leads(&placed);
        let led = candidates.iter().map(|broker| leads.get(&broker.node).copied().unwrap_or(0));
        prop_assert!(led.clone().max().unwrap_or(0) - led.min().unwrap_or(0) <= 1, "{:?}", leads);
    }
}

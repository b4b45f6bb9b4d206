//! Who is fenced for silence, and who is counted on again.

use super::*;
use crate::engine::controller::test_support::{Cluster, Return};
use crate::engine::metadata::LastStop;

const SETTINGS: Leases = Leases { duration: Duration::from_secs(10), drift: Duration::from_secs(1) };

fn at(seconds: u64) -> MonoTime {
    MonoTime(Duration::from_secs(seconds))
}

fn silent(table: &LeaseTable, now: u64, cluster: &Cluster) -> Vec<u32> {
    table.expired(at(now), &cluster.image).into_iter().map(|(node, _)| node.0).collect()
}

#[test]
fn rule_03_a_new_controller_waits_a_lease_and_the_drift_before_it_fences_anyone_for_silence() {
    let cluster = Cluster::of(2);
    let table = LeaseTable::new(SETTINGS, at(100), &cluster.image);
    assert_eq!(silent(&table, 110, &cluster), [0; 0]);
    assert_eq!(table.next_deadline(&cluster.image), Some(at(111)));
    assert_eq!(silent(&table, 111, &cluster), [1, 2]);
}

#[test]
fn whoever_renews_is_not_fenced_and_whoever_is_fenced_is_not_named_again() {
    let mut cluster = Cluster::of(2);
    let mut table = LeaseTable::new(SETTINGS, at(0), &cluster.image);
    let granted = table.on_renewal(at(9), &cluster.image, (NodeId(1), cluster.epoch(1)), 0);
    assert_eq!(granted, Renewal::Granted { duration: SETTINGS.duration, unfence: false }, "it is counted on already");
    assert_eq!(silent(&table, 19, &cluster), [2]);
    cluster.fenced(2);
    assert_eq!(silent(&table, 19, &cluster), [0; 0]);
    assert_eq!(silent(&table, 20, &cluster), [1]);
}

#[test]
fn rule_03_a_lease_that_lapsed_is_not_renewed_while_its_broker_is_being_fenced() {
    let mut cluster = Cluster::of(1);
    let mut table = LeaseTable::new(SETTINGS, at(0), &cluster.image);
    let broker = (NodeId(1), cluster.epoch(1));
    assert_eq!(silent(&table, 11, &cluster), [1], "the decision to fence it is on its way");
    assert_eq!(table.on_renewal(at(11), &cluster.image, broker, 99), Renewal::Lapsed);
    assert_eq!(silent(&table, 12, &cluster), [1], "and is made again if it got lost");
    cluster.fenced(1);
    let granted = Renewal::Granted { duration: SETTINGS.duration, unfence: true };
    assert_eq!(table.on_renewal(at(13), &cluster.image, broker, 99), granted, "it comes back as any other");
}

#[test]
fn a_renewal_of_an_older_registration_renews_nothing() {
    let mut cluster = Cluster::of(1);
    let mut table = LeaseTable::new(SETTINGS, at(0), &cluster.image);
    let old = cluster.epoch(1);
    cluster.start(1);
    table.follow(at(5), &cluster.image);
    let stale = Renewal::StaleEpoch { current: Some(cluster.epoch(1)) };
    assert_eq!(table.on_renewal(at(6), &cluster.image, (NodeId(1), old), 99), stale);
    assert_eq!(silent(&table, 15, &cluster), [0; 0], "the registration was a sign of life");
    assert_eq!(silent(&table, 16, &cluster), [1]);
    let unknown = table.on_renewal(at(6), &cluster.image, (NodeId(7), old), 99);
    assert_eq!(unknown, Renewal::StaleEpoch { current: None });
}

#[test]
fn a_fenced_broker_is_counted_on_once_it_has_applied_what_there_was_when_it_registered() {
    let mut cluster = Cluster::of(2);
    let mut table = LeaseTable::new(SETTINGS, at(0), &cluster.image);
    let epoch = cluster.registers(1, Return::After(LastStop::Process));
    let goal = cluster.image.index;
    table.follow(at(1), &cluster.image);
    cluster.start(2);
    assert!(cluster.image.index > goal, "the log has gone on");
    let mut unfence =
        |applied, cluster: &Cluster| match table.on_renewal(at(2), &cluster.image, (NodeId(1), epoch), applied) {
            Renewal::Granted { unfence, .. } => unfence,
            stale => panic!("{stale:?}"),
        };
    assert!(!unfence(goal - 1, &cluster), "it may not know of its own registration");
    assert!(unfence(goal, &cluster));
    cluster.stopping(1);
    assert!(!unfence(goal, &cluster), "it is about to go");
}

#[test]
fn rule_03_a_broker_that_was_fenced_gets_no_lease_before_it_knows_that() {
    let mut cluster = Cluster::of(2);
    let mut table = LeaseTable::new(SETTINGS, at(0), &cluster.image);
    let (broker, unaware) = ((NodeId(1), cluster.epoch(1)), cluster.image.index);
    cluster.fenced(1);
    let unfence = |applied, table: &mut LeaseTable| match table.on_renewal(at(12), &cluster.image, broker, applied) {
        Renewal::Granted { unfence, .. } => unfence,
        other => panic!("{other:?}"),
    };
    assert!(!unfence(unaware, &mut table), "it may believe that it leads");
    assert!(unfence(cluster.image.index, &mut table));
}

#[test]
fn a_refused_connection_is_no_silence_and_means_the_registration_that_was_connected() {
    let mut cluster = Cluster::of(1);
    let table = LeaseTable::new(SETTINGS, at(0), &cluster.image);
    let epoch = cluster.epoch(1);
    assert_eq!(table.on_refused(&cluster.image, NodeId(1), epoch), Some((NodeId(1), epoch)));
    cluster.start(1);
    assert_eq!(table.on_refused(&cluster.image, NodeId(1), epoch), None, "a new process listens by now");
    cluster.fenced(1);
    assert_eq!(table.on_refused(&cluster.image, NodeId(1), cluster.epoch(1)), None);
}

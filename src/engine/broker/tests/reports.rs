//! What is told of replicas, and for how long.

use super::*;
use crate::engine::controller::{Decision, elect_from_last_members, report_damaged};
use crate::engine::leader::Proposal;
use crate::engine::metadata::MetadataRecord;
use crate::types::{PartitionIndex, TopicName};

fn opened_record(node: u32) -> MetadataRecord {
    MetadataRecord::TopicOpened { topic: P0.topic, node: NodeId(node), partitions: Some(vec![P0.partition]) }
}

/// The reports among what is done.
fn reports(done: Vec<String>) -> Vec<String> {
    done.into_iter().filter(|done| done.starts_with("report")).collect()
}

#[test]
fn what_the_metadata_does_not_show_is_reported_again_after_the_interval_and_no_longer_than_needed() {
    let mut story = Story::registered();
    story.opened(Opened::default());
    assert_eq!(reports(story.at(0)), ["report p0 opened"]);
    assert_eq!(reports(story.at(199)), [""; 0]);
    assert_eq!(reports(story.at(200)), ["report p0 opened"], "nobody heard it");
    story.image();
    assert_eq!(reports(story.at(201)), [""; 0], "metadata that does not show it is no reason to hurry");
    story.cluster.apply(&[opened_record(1)]);
    story.image();
    assert_eq!((reports(story.at(202)), reports(story.at(400)), reports(story.at(1_000))), (vec![], vec![], vec![]));
}

#[test]
fn a_replica_that_takes_no_more_is_reported_while_it_is_a_member_and_at_once_in_a_new_epoch() {
    let mut story = Story::leading();
    let epoch = story.cluster.p0().leader_epoch;
    story.engine.on_offline(ms(1), P0);
    assert_eq!(reports(story.at(1)), [format!("report p0 damaged in {epoch}")]);
    story.cluster.fenced(2);
    story.image();
    assert_eq!(reports(story.at(50)), [""; 0], "the same epoch");
    assert_eq!(reports(story.at(201)), [format!("report p0 damaged in {epoch}")]);
    story.cluster.start(2);
    story.cluster.in_sync(&[1, 2]);
    let heard = report_damaged(&story.cluster.image, P0, (NodeId(1), story.epoch()), epoch);
    story.cluster.take(heard);
    assert_eq!(story.cluster.sets(), (Some(2), vec![2], vec![]));
    story.image();
    assert_eq!((reports(story.at(300)), reports(story.at(900))), (vec![], vec![]), "it is no member any more");
}

#[test]
fn damage_is_passed_on_as_often_as_the_replica_says_it() {
    let mut story = Story::leading();
    let epoch = story.cluster.p0().leader_epoch;
    story.engine.on_damage_to_report(ms(1), P0, epoch);
    story.engine.on_damage_to_report(ms(1), P0, epoch);
    assert_eq!(story.next(), Some(1));
    assert_eq!(reports(story.at(1)), [format!("report p0 damaged in {epoch}")]);
    story.image();
    assert_eq!(reports(story.at(250)), [""; 0]);
    story.engine.on_damage_to_report(ms(250), P0, epoch);
    assert_eq!(reports(story.at(250)), [format!("report p0 damaged in {epoch}")]);
}

#[test]
fn rule_17_files_are_gone_when_nothing_of_the_topic_is_here_and_that_is_told_until_the_tombstone_knows() {
    let mut story = Story::leading();
    story.cluster.apply(&[MetadataRecord::TopicDeleted { topic: P0.topic }]);
    story.engine.on_files_gone(ms(1), P0.topic);
    story.image();
    story.engine.on_files_gone(ms(1), P0.topic);
    assert_eq!(reports(story.at(1)), [""; 0], "its log is still open");
    story.engine.on_gone(ms(2), P0);
    story.engine.on_files_gone(ms(2), P0.topic);
    assert_eq!(reports(story.at(2)), ["report files gone"]);
    story.engine.on_files_gone(ms(3), P0.topic);
    assert_eq!((reports(story.at(3)), reports(story.at(202))), (vec![], vec!["report files gone".to_owned()]));
    story.cluster.apply(&[MetadataRecord::TombstoneCleared { topic: P0.topic, node: Some(NodeId(1)) }]);
    story.image();
    assert_eq!(reports(story.at(500)), [""; 0], "broker 2 has files still, which is not for this one");
}

#[test]
fn rule_15_last_members_say_how_much_they_kept_until_somebody_leads() {
    // Both machines lost their power: nobody is left who may lead.
    let mut cluster = Cluster::with_partition(2, &nodes([1, 2]), &[("flush", "os"), ("min_insync_replicas", "2")]);
    cluster.fenced(1);
    cluster.fenced(2);
    cluster.registers(2, Return::After(LastStop::Machine));
    let mut story = Story::of(cluster, 1, Return::After(LastStop::Machine));
    story.at(0);
    let answer = story.decides();
    story.answered(answer);
    story.stored();
    assert_eq!((story.cluster.sets(), story.cluster.p0().last_members.len()), ((None, vec![], vec![]), 2));
    story.opened(Opened::default());
    let done = story.at(0);
    assert!(done.contains(&"read the ends of p0".to_owned()), "{done:?}");
    let end = (P0, LeaderEpoch(1), Offset(7));
    let told = story.run(|engine, _, out| engine.on_ends(&[end], out));
    assert_eq!(told, ["report p0 ends at 7 in 1"]);
    story.image();
    assert!(!story.at(100).contains(&"read the ends of p0".to_owned()));
    assert!(story.at(200).contains(&"read the ends of p0".to_owned()), "it may have grown old");
    story.counted_on();
    story.cluster.start(2);
    let ends = [story.cluster.end(1, 1, 7), story.cluster.end(2, 1, 5)];
    story.cluster.defaults.unclean_recovery = crate::types::UncleanRecovery::LastMembers;
    let Decision { records, .. } =
        elect_from_last_members(&story.cluster.image, &story.cluster.defaults, &ends).expect("decided");
    story.cluster.apply(&records);
    story.image();
    assert_eq!(story.cluster.sets().0, Some(1));
    assert!(!story.at(500).contains(&"read the ends of p0".to_owned()));
    let late = story.run(|engine, _, out| engine.on_ends(&[end], out));
    assert_eq!(late, [""; 0]);
}

#[test]
fn reports_are_bounded_and_leave_nothing_out() {
    let mut cluster = Cluster::of(1);
    let many = ReplicaReport::MOST * 2 + 5;
    let topic = TopicId(uuid::Uuid::from_u128(7));
    cluster.apply(&[MetadataRecord::TopicCreated {
        topic,
        name: TopicName::new("wide").expect("legal"),
        replicas: vec![nodes([1]); many],
        config: Default::default(),
    }]);
    let mut story = Story::registered_as(cluster, 1);
    for index in 0..many {
        let partition = TopicPartition::new(topic, PartitionIndex(index as u32));
        story.engine.on_opened(ms(0), partition, Opened::default());
    }
    let mut out = Output::default();
    story.engine.on_tick(ms(0), &mut out);
    let sizes = out.0.iter().filter_map(|command| match command {
        Command::Ask(Request::Report(report)) => Some(report.findings.len()),
        _ => None,
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [1_000, 1_000, 5]);
}

#[test]
fn proposals_that_come_together_go_together_the_newest_of_each_leader() {
    let mut story = Story::leading();
    let (other, state) = (TopicPartition::new(P0.topic, PartitionIndex(1)), story.cluster.p0().clone());
    let proposal = |partition_epoch| Proposal {
        leader_epoch: state.leader_epoch,
        partition_epoch,
        members: vec![(NodeId(1), story.epoch())],
        new_leader: None,
    };
    let (first, second) = (proposal(1), proposal(2));
    story.engine.on_proposal(ms(5), P0, first.clone());
    story.engine.on_proposal(ms(5), P0, second);
    story.engine.on_proposal(ms(5), other, first);
    assert_eq!(story.next(), Some(5));
    let mut out = Output::default();
    story.engine.on_tick(ms(5), &mut out);
    let [Command::Ask(Request::Propose(sent))] = &out.0[..] else { panic!("{:?}", out.0) };
    assert_eq!(
        sent.iter().map(|sent| (sent.partition, sent.partition_epoch)).collect::<Vec<_>>(),
        [(P0, 2), (other, 1)]
    );
    assert!(sent.iter().all(|sent| (sent.leader, sent.broker_epoch) == (NodeId(1), story.epoch())));
    assert_eq!(story.at(6), [""; 0], "a leader that hears nothing proposes again");
    let refused = RefusedProposal { partition: P0, partition_epoch: 2, why: "the partition epoch is 3".to_owned() };
    let passed_on = story.answered(Answer::ProposalsRefused(vec![refused]));
    assert_eq!(passed_on, ["p0 is refused: the partition epoch is 3"]);
}

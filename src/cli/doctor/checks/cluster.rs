//! What a running cluster says of its controllers, its brokers, and the partitions that are not whole.

use std::collections::HashSet;

use super::replicas::partition_name;
use crate::cli::doctor::code::Code;
use crate::cli::doctor::finding::Finding;
use crate::cli::output::counted;
use crate::protocol::messages::{
    BrokerDescription, ClusterTrouble, ControllerDescription, ControllerRole, DescribeClusterReply, MissingReason,
    MissingReplica, TroubledPartition,
};
use crate::types::NodeId;

/// One that lacks as many entries does not follow: what is under way to one that does is a handful.
const FAR_BEHIND: u64 = 100;

/// A partition by its topic's name and its number.
pub type PartitionPlace = (String, u32);

/// Everything that is wrong with the cluster. Partitions that are `named`, with a better cause, are left out.
#[must_use]
pub fn examine(cluster: &DescribeClusterReply, named: &HashSet<PartitionPlace>) -> Vec<Finding> {
    let mut findings = controllers(&cluster.controllers);
    findings.extend(cluster.brokers.iter().filter_map(fenced));
    findings.extend(trouble(&cluster.trouble, named));
    findings
}

/// What was looked at, in words.
#[must_use]
pub fn checked(cluster: &DescribeClusterReply) -> String {
    let controllers = match cluster.controllers.len() as u64 {
        0 => "its controllers (no further: none decides)".to_owned(),
        count => counted(count, "controller"),
    };
    let brokers = counted(cluster.brokers.len() as u64, "broker");
    format!("the cluster: {controllers}, {brokers}, leaders and replicas of all partitions")
}

fn votes(controller: &ControllerDescription) -> bool {
    controller.role != ControllerRole::Learner
}

/// Whether somebody decides, will do so for long, and with whom.
fn controllers(all: &[ControllerDescription]) -> Vec<Finding> {
    if all.is_empty() {
        let seen =
            "no controller decides: no topic is created or changed, and nobody takes the place of a leader that ends";
        return vec![Finding::new(Code::NoController, "the controllers", seen)];
    }
    let voters: Vec<&ControllerDescription> = all.iter().filter(|one| votes(one)).collect();
    let reached = voters.iter().filter(|one| one.trouble.is_none()).count();
    let mut findings: Vec<Finding> = all.iter().filter_map(|one| controller(one, &voters, reached)).collect();
    if voters.len().is_multiple_of(2) && !voters.is_empty() {
        let count = voters.len();
        let survived = losses(count, count);
        let seen =
            format!("{count} controllers have a vote, which survive {survived}, no more than {} would", count - 1);
        findings.push(Finding::new(Code::ControllersEven, "the controllers", seen));
    }
    findings
}

fn controller(one: &ControllerDescription, voters: &[&ControllerDescription], reached: usize) -> Option<Finding> {
    let (about, node) = (format!("controller {}", one.node_id), one.node_id);
    let trouble = one.trouble.as_ref().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
    if !votes(one) {
        let seen = match trouble.as_str() {
            "" => format!("it follows the metadata, lacks {}, and has no vote", entries(one.behind)),
            trouble => format!("it has no vote, and is not reached{trouble}"),
        };
        let finding = Finding::new(Code::ControllerWithoutVote, about, seen);
        let takes_a_place = voters.iter().any(|voter| voter.node_id == node);
        return Some(match takes_a_place {
            true => finding
                .because("it came back with another directory, and taking the place of the lost one was broken off")
                .fixed_by(format!("callboard cluster reset-controller {node} goes on from there")),
            false => finding.fixed_by(format!(
                "callboard cluster add-controller {node}@{}:{} goes on from there; callboard cluster remove-controller \
                 {node} takes it back",
                one.host, one.port
            )),
        });
    }
    if one.trouble.is_some() {
        let all = voters.len();
        let seen =
            format!("it is not reached{trouble}; {reached} of {all} are, which survive {}", losses(all, reached));
        let fix = format!(
            "start it; with its directory lost, start it with an empty node.data_dir and run callboard cluster \
             reset-controller {node}; gone for good: callboard cluster remove-controller {node}"
        );
        return Some(Finding::new(Code::ControllerUnreached, about, seen).fixed_by(fix));
    }
    (one.behind >= FAR_BEHIND).then(|| {
        let seen = format!("it lacks {} of the metadata log", entries(one.behind));
        Finding::new(Code::ControllerBehind, about, seen)
    })
}

fn entries(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

/// How many more of `voters` may be lost when `reached` are there.
fn losses(voters: usize, reached: usize) -> String {
    match reached.saturating_sub(voters / 2 + 1) as u64 {
        0 => "no further loss".to_owned(),
        1 => "1 further loss".to_owned(),
        more => format!("{more} further losses"),
    }
}

/// A broker that is not counted on. One that holds nothing is missed by nobody.
fn fenced(broker: &BrokerDescription) -> Option<Finding> {
    (broker.fenced && broker.replicas > 0).then(|| {
        let node = broker.node_id;
        let seen = format!(
            "it is registered at {}:{}, holds {}, and is not counted on",
            broker.host,
            broker.port,
            counted(broker.replicas.into(), "replica")
        );
        let fix = format!(
            "start it, or look in its log for why it does not reach the controllers; gone for good: callboard cluster \
             decommission {node}"
        );
        Finding::new(Code::BrokerFenced, format!("broker {node}"), seen).fixed_by(fix)
    })
}

/// Partitions that are not whole: each that is listed, and how many more there are.
fn trouble(trouble: &ClusterTrouble, named: &HashSet<PartitionPlace>) -> Vec<Finding> {
    let is_named = |one: &&TroubledPartition| named.contains(&(one.topic.as_str().to_owned(), one.partition.0));
    let listed = trouble.partitions.iter().filter(|one| !is_named(one));
    let mut findings: Vec<Finding> = listed.map(partition).collect();
    let unlisted = (trouble.count as usize).saturating_sub(trouble.partitions.len());
    if unlisted > 0 {
        let of_kind = |code| trouble.partitions.iter().filter(|one| code_of(one) == code).count();
        // The worst are listed first: what was not listed is as bad as the last one that was, or better.
        let code = if trouble.without_leader as usize > of_kind(Code::PartitionOffline) {
            Code::PartitionOffline
        } else if of_kind(Code::PartitionUnderReplicated) == 0 {
            Code::PartitionBelowMinimum
        } else {
            Code::PartitionUnderReplicated
        };
        let seen = format!(
            "{} more are not whole: in all {} without a leader, {} below min_insync_replicas, {} with a replica out of sync",
            counted(unlisted as u64, "partition"),
            trouble.without_leader,
            trouble.below_minimum,
            trouble.under_replicated
        );
        let fix = "callboard cluster describe names the first hundred; start the brokers that are missing";
        findings
            .push(Finding::new(code, "the cluster", seen).because("brokers with replicas are missing").fixed_by(fix));
    }
    findings
}

fn code_of(partition: &TroubledPartition) -> Code {
    match partition.leader {
        None => Code::PartitionOffline,
        Some(_) if partition.in_sync.len() < partition.min_in_sync as usize => Code::PartitionBelowMinimum,
        Some(_) => Code::PartitionUnderReplicated,
    }
}

fn partition(partition: &TroubledPartition) -> Finding {
    let about = partition_name(partition.topic.as_str(), partition.partition.0);
    let (in_sync, all) = (partition.in_sync.len(), partition.replicas.len());
    let missing: Vec<String> = partition.missing.iter().map(missing).collect();
    let because = missing.join("; ");
    let sync = format!("{in_sync} of {} in sync", counted(all as u64, "replica"));
    let finding = match (partition.leader, code_of(partition)) {
        (None, code) => Finding::new(code, about, format!("nobody leads it, {sync}"))
            .because("no replica that may lead is alive")
            .fixed_by(format!("start the brokers that hold its replicas: {}", nodes(&partition.replicas))),
        (Some(leader), Code::PartitionBelowMinimum) => {
            let seen = format!("broker {leader} leads it, {sync}, min_insync_replicas is {}", partition.min_in_sync);
            Finding::new(Code::PartitionBelowMinimum, about, seen)
        }
        (Some(leader), code) => Finding::new(code, about, format!("broker {leader} leads it, {sync}")),
    };
    match because.as_str() {
        "" => finding,
        because => {
            let cause = match finding.code {
                Code::PartitionUnderReplicated => because.to_owned(),
                _ => format!("{}: {because}", finding.cause),
            };
            finding.because(cause)
        }
    }
}

fn missing(MissingReplica { node_id, reason }: &MissingReplica) -> String {
    let why = match reason {
        MissingReason::NotRegistered => "has never registered",
        MissingReason::Fenced => "has stopped or is not heard of (fenced)",
        MissingReason::Stopping => "is about to stop",
        MissingReason::CatchingUp => "is there and fetches what it lacks, or mends what is damaged",
    };
    format!("broker {node_id} {why}")
}

fn nodes(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BrokerEpoch, ClusterId, DirectoryId, PartitionIndex, TopicId, TopicName};

    fn member(node: u32, role: ControllerRole, behind: u64, trouble: Option<&str>) -> ControllerDescription {
        ControllerDescription {
            node_id: NodeId(node),
            directory: DirectoryId::random(),
            host: format!("db-{node}"),
            port: 9_646,
            role,
            behind,
            trouble: trouble.map(str::to_owned),
        }
    }

    fn leader() -> ControllerDescription {
        member(1, ControllerRole::Leader, 0, None)
    }

    fn voter(node: u32) -> ControllerDescription {
        member(node, ControllerRole::Voter, 2, None)
    }

    fn gone(node: u32) -> ControllerDescription {
        member(node, ControllerRole::Voter, 900, Some("connection refused"))
    }

    fn codes(findings: &[Finding]) -> Vec<&'static str> {
        findings.iter().map(|finding| finding.code.name()).collect()
    }

    #[test]
    fn a_node_by_itself_and_three_controllers_that_are_there_are_fine() {
        assert_eq!(controllers(&[leader()]), []);
        assert_eq!(controllers(&[leader(), voter(2), voter(3)]), []);
    }

    #[test]
    fn a_controller_that_is_not_reached_is_told_with_how_many_more_may_go() {
        let findings = controllers(&[leader(), voter(2), gone(3)]);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.code, finding.about.as_str()), (Code::ControllerUnreached, "controller 3"));
        assert!(finding.seen.contains("connection refused") && finding.seen.contains("2 of 3"), "{finding:?}");
        assert!(finding.seen.ends_with("survive no further loss"), "{finding:?}");
        assert!(finding.fix.contains("callboard cluster reset-controller 3"), "{finding:?}");
        let findings = controllers(&[leader(), voter(2), voter(3), voter(4), gone(5)]);
        assert!(findings[0].seen.ends_with("4 of 5 are, which survive 1 further loss"), "{findings:?}");
    }

    #[test]
    fn no_controller_that_decides_is_an_error_and_nothing_more_is_said() {
        let findings = controllers(&[]);
        assert_eq!(codes(&findings), ["no-controller"]);
        assert!(findings[0].fix.contains("cluster.controllers") && findings[0].severity().name() == "error");
    }

    #[test]
    fn an_even_number_is_advised_against_and_learners_do_not_count() {
        let learner = |node| member(node, ControllerRole::Learner, 7, None);
        let findings = controllers(&[leader(), voter(2), voter(3), voter(4)]);
        assert_eq!(codes(&findings), ["controllers-even"]);
        assert_eq!(findings[0].seen, "4 controllers have a vote, which survive 1 further loss, no more than 3 would");
        let findings = controllers(&[leader(), voter(2), voter(3), learner(4)]);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(finding.code, Code::ControllerWithoutVote);
        assert!(finding.seen.contains("lacks 7 entries"), "{finding:?}");
        assert!(finding.fix.contains("add-controller 4@db-4:9646") && finding.fix.contains("remove-controller 4"));
        // Its directory was lost, and it has the new one.
        let findings = controllers(&[leader(), voter(2), gone(3), learner(3)]);
        assert_eq!(codes(&findings), ["controller-unreached", "controller-without-vote"]);
        assert!(findings[1].fix.starts_with("callboard cluster reset-controller 3"), "{findings:?}");
    }

    #[test]
    fn a_controller_that_is_there_and_far_behind_is_found() {
        let findings = controllers(&[leader(), voter(2), member(3, ControllerRole::Voter, FAR_BEHIND, None)]);
        assert_eq!(codes(&findings), ["controller-behind"]);
        assert!(findings[0].seen.contains("100 entries"), "{findings:?}");
    }

    #[test]
    fn a_fenced_broker_is_found_unless_it_holds_nothing() {
        let mut broker = BrokerDescription {
            node_id: NodeId(4),
            host: "db-4".to_owned(),
            port: 9_644,
            rack: None,
            fenced: false,
            leads: 0,
            replicas: 3,
            software: String::new(),
            registration_epoch: BrokerEpoch(1),
            stopping: false,
            lease_ms: Some(4_000),
        };
        assert_eq!(fenced(&broker), None);
        (broker.fenced, broker.lease_ms) = (true, None);
        let finding = fenced(&broker).expect("a finding");
        assert_eq!((finding.code, finding.about.as_str()), (Code::BrokerFenced, "broker 4"));
        assert!(finding.seen.contains("holds 3 replicas") && finding.fix.ends_with("decommission 4"), "{finding:?}");
        broker.replicas = 0;
        assert_eq!(fenced(&broker), None);
    }

    /// Partition `number` of topic rides on brokers 1, 2, 3, of which two have to be in sync.
    fn troubled(number: u32, leader: Option<u32>, in_sync: &[u32], reason: MissingReason) -> TroubledPartition {
        let replicas = [1, 2, 3].map(NodeId).to_vec();
        let in_sync: Vec<NodeId> = in_sync.iter().copied().map(NodeId).collect();
        let missing = replicas.iter().filter(|node| !in_sync.contains(node));
        let missing = missing.map(|node| MissingReplica { node_id: *node, reason }).collect();
        TroubledPartition {
            topic_id: TopicId::random(),
            topic: TopicName::new("rides").expect("legal"),
            partition: PartitionIndex(number),
            leader: leader.map(NodeId),
            replicas,
            in_sync,
            min_in_sync: 2,
            missing,
        }
    }

    fn cluster(trouble: ClusterTrouble) -> DescribeClusterReply {
        DescribeClusterReply {
            cluster_id: ClusterId(uuid::Uuid::nil()),
            controller: Some(NodeId(1)),
            controllers: vec![leader()],
            brokers: Vec::new(),
            topics: 1,
            partitions: 200,
            trouble,
        }
    }

    fn three_in_trouble() -> ClusterTrouble {
        let partitions = vec![
            troubled(2, None, &[], MissingReason::Fenced),
            troubled(1, Some(1), &[1], MissingReason::Stopping),
            troubled(0, Some(1), &[1, 2], MissingReason::CatchingUp),
        ];
        ClusterTrouble { count: 3, without_leader: 1, below_minimum: 2, under_replicated: 3, partitions }
    }

    #[test]
    fn each_partition_is_told_once_by_the_worst_of_it_with_who_is_missing_and_why() {
        let findings = examine(&cluster(three_in_trouble()), &HashSet::new());
        assert_eq!(codes(&findings), ["partition-offline", "partition-below-minimum", "partition-under-replicated"]);
        let [offline, below, under] = &findings[..] else { panic!("three findings") };
        assert_eq!(
            (offline.about.as_str(), &*offline.seen),
            ("partition 2 of topic rides", "nobody leads it, 0 of 3 replicas in sync")
        );
        assert!(offline.cause.contains("broker 1 has stopped or is not heard of") && offline.fix.contains("1, 2, 3"));
        assert_eq!(below.seen, "broker 1 leads it, 1 of 3 replicas in sync, min_insync_replicas is 2");
        assert!(below.cause.contains("acks = all") && below.cause.contains("broker 3 is about to stop"), "{below:?}");
        assert!(under.cause.starts_with("broker 3 is there and fetches"), "{under:?}");
    }

    #[test]
    fn a_partition_that_a_node_calls_offline_is_not_told_twice() {
        let named = HashSet::from([("rides".to_owned(), 2), ("rides".to_owned(), 1)]);
        assert_eq!(codes(&examine(&cluster(three_in_trouble()), &named)), ["partition-under-replicated"]);
    }

    #[test]
    fn partitions_beyond_the_list_are_counted_by_the_worst_that_they_can_be() {
        let rest = |without_leader, listed: TroubledPartition| {
            let counts = ClusterTrouble {
                count: 41,
                without_leader,
                below_minimum: 30,
                under_replicated: 41,
                ..Default::default()
            };
            let findings = trouble(&ClusterTrouble { partitions: vec![listed], ..counts }, &HashSet::new());
            let last = findings.last().expect("findings").clone();
            assert!(last.seen.starts_with("40 partitions more are not whole: in all "), "{last:?}");
            last.code
        };
        assert_eq!(rest(5, troubled(0, None, &[], MissingReason::Fenced)), Code::PartitionOffline);
        assert_eq!(rest(1, troubled(0, None, &[], MissingReason::Fenced)), Code::PartitionBelowMinimum);
        assert_eq!(rest(0, troubled(0, Some(1), &[1, 2], MissingReason::Fenced)), Code::PartitionUnderReplicated);
    }

    #[test]
    fn what_was_looked_at_says_when_nobody_could_tell_how_the_controllers_are() {
        let mut cluster = cluster(ClusterTrouble::default());
        let rest = ", 0 brokers, leaders and replicas of all partitions";
        assert_eq!(checked(&cluster), format!("the cluster: 1 controller{rest}"));
        cluster.controllers.clear();
        assert_eq!(checked(&cluster), format!("the cluster: its controllers (no further: none decides){rest}"));
        assert_eq!(codes(&examine(&cluster, &HashSet::new())), ["no-controller"]);
    }
}

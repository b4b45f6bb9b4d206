//! How brokers follow the metadata.

use openraft::raft::AppendEntriesRequest;

use super::bench::Bench;
use super::*;
use crate::engine::broker::{Renewal, Request};
use crate::engine::controller::InSyncProposal;
use crate::engine::metadata::MetadataRecord;
use crate::protocol::messages::PartitionElection;
use crate::raft::{RaftId, Vote};
use crate::types::{MonoTime, PartitionIndex, TopicPartition};

const NODE: NodeId = NodeId(5);
/// By the clock that stands still: for ever.
const LONG: Duration = Duration::from_secs(8);

/// The image after these entries, each of which is one step.
fn applied(image: &ClusterImage, news: &MetadataNews) -> ClusterImage {
    let mut image = image.clone();
    for entry in news.entries.as_ref().expect("they are kept") {
        let records: Vec<MetadataRecord> = rmp_serde::from_slice(entry).expect("records");
        let index = image.index + 1;
        image.apply_entry(&records).expect("it fits");
        image.index = index;
    }
    image
}

#[actix::test]
async fn a_follower_waits_for_news_and_gets_the_entries_that_lead_to_them_exactly() {
    let bench = Bench::new().await;
    let before = bench.image().await;
    let waits = bench.follow(NODE, None, before.index, LONG);
    let (news, epoch) = tokio::join!(waits, bench.register(1, 0, DirectoryHistory::default()));
    let news = news.expect("in office");
    assert_eq!(applied(&before, &news), *news.image);
    assert!(news.image.index > before.index && news.hand_overs.is_empty());
    bench.renewed(1, epoch).await;
    bench.topic(1, &[]).await;
    // An entry of openraft's own counts, and changes nothing.
    bench.raft.add_learner(RaftId(1), bench_node(), false).await.expect("it is a member already");
    let id = bench.controller.send(InitProducer(None)).await.expect("alive").expect("an id");
    assert_eq!(id.producer_epoch, ProducerEpoch(0));
    for from in [&before, &news.image] {
        let later = bench.follow(NODE, None, from.index, LONG).await.expect("in office");
        assert!(later.image.index >= before.index + 5, "{}", later.image.index);
        assert_eq!(applied(from, &later), *later.image);
    }
}

fn bench_node() -> ControllerNode {
    let directory = DirectoryId(uuid::Uuid::from_u128(1));
    ControllerNode { node: NodeId(1), directory, host: String::new(), port: 0 }
}

#[actix::test]
async fn where_the_entries_do_not_reach_back_only_the_image_comes() {
    let disk = VirtualDisk::new(1);
    let bench = Bench::on(&disk).await;
    bench.live(1).await;
    bench.raft.trigger().snapshot().await.expect("it runs");
    let taken = bench.raft.wait(Some(PATIENCE));
    taken.metrics(|metrics| metrics.snapshot.is_some(), "a snapshot").await.expect("in time");
    bench.controller.send(CloseController).await.expect("alive").expect("closed");
    let again = Bench::on(&disk).await;
    again.live(2).await;
    let news = again.follow(NODE, None, 1, LONG).await.expect("in office");
    assert_eq!(news.entries, None);
    assert_eq!(news.image, again.image().await);
    let newer = news.image.index + 10;
    let waits = again.follow(NODE, None, newer, LONG);
    let (news, ()) = tokio::join!(waits, async {
        // It has been taken up when this one is answered.
        again.tick().await;
        again.clock.advance(LONG);
        again.tick().await;
    });
    assert_eq!(news.expect("in office").entries, None, "nothing leads back");
}

#[actix::test]
async fn patience_ends_and_a_newer_request_of_a_node_ends_the_older_one() {
    let bench = Bench::new().await;
    let index = bench.image().await.index;
    let (first, second, ()) =
        tokio::join!(bench.follow(NODE, None, index, LONG), bench.follow(NODE, None, index, LONG), async {
            // Both have been taken up when this one is answered.
            bench.tick().await;
            bench.clock.advance(LONG);
            bench.tick().await;
        });
    for news in [first, second] {
        let news = news.expect("in office");
        assert_eq!((news.image.index, news.entries), (index, Some(Vec::new())));
    }
}

/// A partition whose preferred replica is back and in sync, while the other leads: the partition, the two, and the leader's epoch.
async fn displaced(bench: &Bench) -> (TopicPartition, [NodeId; 2], BrokerEpoch) {
    let epochs = [bench.live(1).await, bench.live(2).await];
    let partition = bench.topic(2, &[]).await;
    let preferred = bench.partition(partition).await.leader.expect("it is led");
    let (at, other) = if preferred == NodeId(1) { (0, NodeId(2)) } else { (1, NodeId(1)) };
    let stopped = Request::Stopped { node: preferred, epoch: epochs[at] };
    assert_eq!(bench.ask(stopped).await, Ok(None));
    assert_eq!(bench.partition(partition).await.leader, Some(other));
    let history = DirectoryHistory { epoch: epochs[at], ..DirectoryHistory::default() };
    let back = bench.register(preferred.0, 1, history).await;
    bench.renewed(preferred.0, back).await;
    if !bench.partition(partition).await.in_sync.contains(&preferred) {
        let both = bench.proposal(partition, &[NodeId(1), NodeId(2)]).await;
        assert_eq!(bench.ask(Request::Propose(vec![both])).await, Ok(None));
    }
    bench.tick().await;
    (partition, [preferred, other], epochs[1 - at])
}

#[actix::test]
async fn a_leader_is_asked_to_hand_over_at_once_when_an_administrator_wants_it() {
    let bench = Bench::new().await;
    let (partition, [preferred, other], epoch) = displaced(&bench).await;
    let index = bench.image().await.index;
    let name = bench.image().await.topics[&partition.topic].name.to_string();
    let wanted = |topic: &str, number| PartitionElection { topic: topic.to_owned(), partition: PartitionIndex(number) };
    let wishes = ElectLeaders(vec![wanted(&name, 0), wanted(&name, 1), wanted("nowhere", 0)]);
    // Without a word of the clock: it has just come back.
    let (news, answer) =
        tokio::join!(bench.follow(other, Some(epoch), index, LONG), bench.controller.send(wishes.clone()));
    let Committed { index: at, answer } = answer.expect("it runs").expect("in office");
    assert_eq!((at, &answer[0]), (index, &Ok(preferred)));
    let codes: Vec<_> = answer[1..].iter().map(|answer| answer.as_ref().map_err(|error| error.code)).collect();
    assert_eq!(codes, [Err(ErrorCode::UnknownTopicOrPartition); 2]);
    let news = news.expect("in office");
    assert_eq!((news.image.index, news.hand_overs), (index, vec![(partition, preferred)]));

    let handed =
        InSyncProposal { new_leader: Some(preferred), ..bench.proposal(partition, &[NodeId(1), NodeId(2)]).await };
    assert_eq!(bench.ask(Request::Propose(vec![handed])).await, Ok(None));
    let answer = bench.controller.send(wishes).await.expect("it runs").expect("in office").answer;
    assert_eq!(answer[0], Ok(preferred), "it leads already");
    let epoch = bench.image().await.epoch_of(preferred);
    let index = bench.image().await.index;
    assert_eq!(bench.follow(preferred, epoch, index, Duration::ZERO).await.expect("in office").hand_overs, []);
}

#[actix::test]
async fn a_leader_is_asked_to_hand_over_once_the_preferred_one_has_settled() {
    let bench = Bench::new().await;
    let (partition, [preferred, other], epoch) = displaced(&bench).await;
    let index = bench.image().await.index;
    let epoch = Some(epoch);
    let waits = bench.follow(other, epoch, index, LONG);
    let settles = async {
        bench.clock.advance(Duration::from_secs(3));
        bench.tick().await;
    };
    let (news, ()) = tokio::join!(waits, settles);
    let news = news.expect("in office");
    assert_eq!((news.image.index, news.entries), (index, Some(Vec::new())));
    assert_eq!(news.hand_overs, [(partition, preferred)]);

    // It has not happened: it is asked for again, and told to the one that leads under that registration only.
    bench.renewed(1, bench.image().await.epoch_of(NodeId(1)).expect("registered")).await;
    bench.renewed(2, bench.image().await.epoch_of(NodeId(2)).expect("registered")).await;
    bench.clock.advance(Duration::from_secs(2));
    bench.tick().await;
    let nothing = bench.follow(other, Some(BrokerEpoch(1)), index, Duration::ZERO).await.expect("in office");
    assert_eq!(nothing.hand_overs, []);
    let news = bench.follow(other, epoch, index, LONG).await.expect("in office");
    assert_eq!(news.hand_overs, [(partition, preferred)]);
}

#[actix::test]
async fn who_waits_when_the_office_is_left_is_sent_to_another_controller() {
    let bench = Bench::new().await;
    let epoch = bench.live(1).await;
    let index = bench.image().await.index;
    let term = bench.raft.metrics().borrow().current_term;
    let waits = bench.follow(NODE, None, index, LONG);
    let deposed = async {
        bench.tick().await;
        // Another leads, in a later term, for good.
        bench.raft.runtime_config().elect(false);
        let vote = Vote::new_committed(term + 5, RaftId(9));
        let heartbeat = AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
        bench.raft.append_entries(heartbeat).await.expect("it runs");
    };
    let (news, ()) = tokio::join!(waits, deposed);
    assert_eq!(news.expect_err("it does not decide").code, ErrorCode::NotController);
    let renewal = Renewal { node: NodeId(1), epoch, applied: index, sent: MonoTime::default(), doubtful: Vec::new() };
    let requests = [Request::Renew(renewal), Request::Stopping { node: NodeId(1), epoch }];
    for request in requests {
        assert_eq!(bench.ask(request).await.expect_err("it does not decide").code, ErrorCode::NotController);
    }
    let found = bench.controller.send(FindController).await.expect("alive");
    assert_eq!((found.decides, found.term), (false, term + 5));
}

#[actix::test]
async fn a_controller_that_stops_says_so_to_whoever_waits() {
    let bench = Bench::new().await;
    let index = bench.image().await.index;
    let closed = async {
        bench.tick().await;
        bench.controller.send(CloseController).await.expect("alive").expect("closed");
    };
    let (news, ()) = tokio::join!(bench.follow(NODE, None, index, LONG), closed);
    assert_eq!(news.expect_err("it stops").code, ErrorCode::ShuttingDown);
}

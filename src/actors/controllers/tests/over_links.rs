//! The same over sockets: what is asked here arrives there as it was meant, and so does the answer. Time is real.

use actix::Arbiter;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::actors::peer::{LinkSettings, Myself, PeerAddress, PeerLinks, PeerTarget};
use crate::actors::peer_session::{PeerServer, PeerServices, PeerSessionSettings};
use crate::engine::broker::{Finding, RefusedProposal, Renewal, ReplicaReport};
use crate::engine::controller::{InSyncProposal, Member};
use crate::engine::metadata::{
    BrokerRegistration, DirectoryHistory, FEATURE_LEVEL, LastStop, MetadataRecord, PeerEndpoint,
};
use crate::net::{ConnectionGate, Listener};
use crate::protocol::messages::{
    self, AlterTopic, ControllerAction, PartitionAddition, PartitionElection, PartitionMove,
};
use crate::types::{
    BufferPool, DirectoryId, IncarnationId, LeaderEpoch, MonoTime, Offset, PartitionIndex, TopicConfigOverrides,
    TopicPartition,
};

/// Longer than anything takes here, short enough to notice a hang.
const PATIENCE: Duration = Duration::from_secs(10);

fn myself(node: u32) -> Myself {
    let directory = DirectoryId(uuid::Uuid::from_u128(u128::from(node) * 11));
    Myself { node: NodeId(node), directory, cluster: CLUSTER.into() }
}

/// A controller that other nodes reach.
struct Served {
    double: Double,
    target: PeerTarget,
    stop: CancellationToken,
}

impl Served {
    async fn start(node: u32, double: Double) -> Self {
        let listener = Listener::bind("127.0.0.1:0", ConnectionGate::new(100, 100)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let services = PeerServices { controller: Some(start(&double).recipient()), ..PeerServices::default() };
        let (stop, here) = (CancellationToken::new(), Arbiter::current());
        let sessions = PeerSessionSettings { myself: myself(node), services, max_frame_bytes: 0, stop: stop.clone() };
        let server = PeerServer::new(sessions, BufferPool::new(0), Arc::new(move |_| here.clone()));
        actix_rt::spawn(server.serve(listener));
        let address = PeerAddress { host: "127.0.0.1".to_owned(), port };
        Self { double, target: PeerTarget { node: Some(NodeId(node)), directory: None, address }, stop }
    }
}

/// Node 1, which is no controller, among these.
fn among(members: &[&Served]) -> Controllers {
    let settings = LinkSettings::new(myself(1), BufferPool::new(0));
    let links = Arc::new(PeerLinks::new(settings, Arbiter::current(), Arbiter::current()));
    let members = members.iter().map(|member| member.target.clone()).collect();
    Controllers::among(members, &links, None::<(NodeId, LocalController)>)
}

fn partition(number: u32) -> TopicPartition {
    TopicPartition::new(topic(), PartitionIndex(number))
}

fn registration() -> BrokerRegistration {
    BrokerRegistration {
        node: NodeId(1),
        epoch: BrokerEpoch(2),
        incarnation: IncarnationId(uuid::Uuid::from_u128(3)),
        directory: DirectoryId(uuid::Uuid::from_u128(11)),
        host: "h".to_owned(),
        port: 1,
        peer: Some(PeerEndpoint { host: "p".to_owned(), port: 2 }),
        rack: Some("r".to_owned()),
        software: "s".to_owned(),
        before: DirectoryHistory { epoch: BrokerEpoch(2), stop: LastStop::Machine },
        decided_at: None,
    }
}

#[actix::test]
async fn what_a_broker_asks_arrives_as_it_was_meant_and_so_does_the_answer() {
    let served = Served::start(2, Double::new(true, 4)).await;
    let controllers = among(&[&served]);
    let (node, epoch) = (NodeId(1), BrokerEpoch(3));
    let sent = MonoTime(Duration::from_secs(5));
    let renewal = Request::Renew(Renewal { node, epoch, applied: 6, sent, doubtful: vec![partition(0)] });
    let arrived =
        Request::Renew(Renewal { node, epoch, applied: 6, sent: MonoTime::default(), doubtful: vec![partition(0)] });
    let registered = Answer::Registered { incarnation: registration().incarnation, epoch };
    let renewed = |sent| Some(Answer::Renewed { epoch, sent, duration: Duration::from_millis(900) });
    let findings = vec![
        Finding::Lost(partition(0)),
        Finding::Damaged { partition: partition(1), leader_epoch: LeaderEpoch(4) },
        Finding::Opened(partition(2)),
        Finding::End { partition: partition(3), leader_epoch: LeaderEpoch(5), end_offset: Offset(6) },
        Finding::FilesGone(topic()),
    ];
    let report = Request::Report(ReplicaReport { node, epoch, findings });
    let proposal = Request::Propose(vec![InSyncProposal {
        partition: partition(0),
        leader: node,
        broker_epoch: epoch,
        leader_epoch: LeaderEpoch(4),
        partition_epoch: 8,
        members: vec![Member { node, epoch }],
        new_leader: Some(NodeId(5)),
    }]);
    let refused = RefusedProposal { partition: partition(0), partition_epoch: 8, why: "so".to_owned() };
    let refused = Some(Answer::ProposalsRefused(vec![refused]));
    let stale = Some(Answer::StaleEpoch { epoch, current: Some(BrokerEpoch(9)) });
    let registering = Request::Register(registration());
    let rounds = [
        (registering.clone(), registering, Some(registered.clone()), Some(registered)),
        // When it was sent only the broker knows.
        (renewal.clone(), arrived.clone(), renewed(MonoTime::default()), renewed(sent)),
        (renewal.clone(), arrived.clone(), None, None),
        (renewal.clone(), arrived.clone(), Some(Answer::Lapsed { epoch }), Some(Answer::Lapsed { epoch })),
        (renewal, arrived, stale.clone(), stale),
        (report.clone(), report, None, None),
        (proposal.clone(), proposal, refused.clone(), refused),
        (stopping(1), stopping(1), None, None),
        (Request::Stopped { node, epoch }, Request::Stopped { node, epoch }, None, None),
    ];
    for (asked, arrived, said, heard) in rounds {
        served.double.set(|part| part.answer = Ok(said));
        assert_eq!(controllers.ask(asked, PATIENCE).await, Ok(heard), "{arrived:?}");
        assert_eq!(served.double.get(|part| part.heard.last().cloned()), Some(arrived));
    }
    assert_eq!(controllers.decides(), Some(NodeId(2)));
    let cause = ApiError::new(ErrorCode::BrokerSuperseded, "over");
    served.double.set(|part| part.answer = Err(cause.clone()));
    let incarnation = registration().incarnation;
    let not_registered = Some(Answer::NotRegistered { incarnation, cause });
    assert_eq!(controllers.ask(Request::Register(registration()), PATIENCE).await, Ok(not_registered));
    let error = controllers.ask(stopping(4), PATIENCE).await.expect_err("a node speaks for itself");
    assert_eq!(error.code, ErrorCode::InvalidRequest, "{error}");
}

#[actix::test]
async fn what_clients_ask_is_passed_on_to_the_one_that_decides_and_found_again_at_the_next() {
    let [first, second] = [(2, true), (3, false)].map(|(node, decides)| (node, Double::new(decides, 4)));
    let (first, second) = (Served::start(first.0, first.1).await, Served::start(second.0, second.1).await);
    let controllers = among(&[&first, &second]);
    let create = || CreateTopics { topics: vec![wanted("a"), wanted("")], validate_only: false };
    let created = controllers.create_topics(create()).await.expect("decided");
    let codes: Vec<_> = created.answer.iter().map(|each| each.as_ref().map(|t| t.id).map_err(|e| e.code)).collect();
    assert_eq!((created.index, codes), (5, vec![Ok(topic()), Err(ErrorCode::InvalidTopicName)]));
    // The first is gone: its port is closed.
    first.stop.cancel();
    second.double.set(|part| (part.decides, part.term) = (true, 5));
    let deleted = tokio::time::timeout(PATIENCE, async {
        loop {
            match controllers.delete_topics(DeleteTopics(vec!["a".to_owned()])).await {
                Ok(deleted) => break deleted,
                // The connection broke under it.
                Err(error) => assert_eq!(error.code, ErrorCode::TimedOut, "{error}"),
            }
        }
    });
    assert_eq!(deleted.await.expect("in time"), Committed { index: 6, answer: vec![Ok(topic())] });
    let change = AlterTopic { name: "a".to_owned(), set: Default::default(), reset: Vec::new() };
    let altered = controllers.alter_topics(AlterTopics(vec![change])).await.expect("decided");
    assert_eq!(altered, Committed { index: 7, answer: vec![Ok(topic())] });
    let addition = PartitionAddition { name: "a".to_owned(), total: 3 };
    let added = controllers.add_partitions(AddPartitions(vec![addition])).await.expect("decided");
    assert_eq!(added, Committed { index: 8, answer: vec![Ok(topic())] });
    let replicas = vec![NodeId(4), NodeId(5)];
    let (topic, partition) = ("a".to_owned(), PartitionIndex(0));
    let moved = PartitionMove { topic, partition, replicas: Some(replicas.clone()) };
    let moved = controllers.reassign(Reassign(vec![moved])).await.expect("decided");
    assert_eq!(moved, Committed { index: 9, answer: vec![Ok(replicas)] });
    let elected = PartitionElection { topic: "a".to_owned(), partition: PartitionIndex(4) };
    let elected = controllers.elect_leaders(ElectLeaders(vec![elected])).await.expect("decided");
    assert_eq!(elected, Committed { index: 10, answer: vec![Ok(NodeId(4))] });
    let (host, port) = (Some("h".to_owned()), Some(9));
    let change = messages::ChangeControllers { action: ControllerAction::Add, node_id: NodeId(6), host, port };
    let changed = controllers.change_controllers(ChangeControllers(change)).await.expect("done");
    let changed: Vec<_> = changed.iter().map(|one| (one.node_id, one.host.as_str(), one.port)).collect();
    assert_eq!(changed, [(NodeId(6), "h", 9)]);
    let described = controllers.describe_controllers().await.expect("described");
    assert_eq!(described.leases, [(NodeId(7), 4_200)]);
    let id = controllers.init_producer(InitProducer(None)).await.expect("an id");
    assert_eq!((id.producer_id, controllers.decides()), (ProducerId(8), Some(NodeId(3))));
}

#[actix::test]
async fn controllers_that_nobody_listed_are_heard_of_and_asked_where_they_are_said_to_be() {
    let [listed, other] = [(2, false), (3, true)].map(|(node, decides)| (node, Double::new(decides, 4)));
    let (listed, other) = (Served::start(listed.0, listed.1).await, Served::start(other.0, other.1).await);
    let named = |port| {
        let directory = DirectoryId(uuid::Uuid::nil());
        // What is listed stays as it is listed.
        let listed = KnownController { node: NodeId(2), directory, host: "nowhere".to_owned(), port: 1 };
        vec![listed, KnownController { node: NodeId(3), directory, host: "127.0.0.1".to_owned(), port }]
    };
    listed.double.set(|part| part.names = named(1));
    let controllers = among(&[&listed, &Served::start(4, Double::new(false, 4)).await]);
    let refused = controllers.ask(stopping(1), Duration::from_millis(200)).await.expect_err("nobody is there");
    assert!(refused.message.contains("node 3 at 127.0.0.1:1"), "{refused}");
    listed.double.set(|part| part.names = named(other.target.address.port));
    assert_eq!(controllers.ask(stopping(1), PATIENCE).await, Ok(None));
    assert_eq!((other.double.heard(), controllers.decides()), (vec![stopping(1)], Some(NodeId(3))));
}

fn created(n: u128) -> MetadataRecord {
    let (topic, name) = (TopicId(uuid::Uuid::from_u128(n)), TopicName::new(&format!("t{n}")).expect("legal"));
    MetadataRecord::TopicCreated {
        topic,
        name,
        replicas: vec![vec![NodeId(1)]],
        config: TopicConfigOverrides::default(),
    }
}

fn entry(records: &[MetadataRecord]) -> Bytes {
    rmp_serde::to_vec_named(records).expect("encodes").into()
}

/// What decided entries leave.
fn applied(entries: &[&[MetadataRecord]], known: &ClusterImage) -> Arc<ClusterImage> {
    let mut image = known.clone();
    for records in entries {
        let index = image.index + 1;
        let _ = image.apply_entry(records);
        image.index = index;
    }
    Arc::new(image)
}

#[actix::test]
async fn metadata_comes_as_the_image_or_as_the_entries_since_and_as_the_image_when_those_do_not_fit() {
    let served = Served::start(2, Double::new(true, 4)).await;
    let controllers = among(&[&served]);
    let level = MetadataRecord::FeatureLevel { level: FEATURE_LEVEL };
    let beginning = applied(&[&[level]], &ClusterImage::empty(CLUSTER));
    let entries: [&[MetadataRecord]; 4] = [&[created(1), created(2)], &[], &[created(1), created(3)], &[created(4)]];
    let end = applied(&entries, &beginning);
    let hand_overs = vec![(partition(0), NodeId(3))];
    let news = |image: &Arc<ClusterImage>, entries| MetadataNews {
        image: Arc::clone(image),
        entries,
        hand_overs: hand_overs.clone(),
    };
    let follow = async |known: &Arc<ClusterImage>| controllers.follow(follow_from(known.index, PATIENCE), known).await;

    let nothing = Arc::new(ClusterImage::empty(CLUSTER));
    served.double.set(|part| part.news = news(&beginning, None));
    let first = follow(&nothing).await.expect("the image");
    assert_eq!((&first.image, &first.hand_overs), (&beginning, &hand_overs));
    served.double.set(|part| part.news = news(&end, Some(entries.iter().map(|records| entry(records)).collect())));
    let second = follow(&first.image).await.expect("entries");
    assert_eq!((&second.image, second.entries.map(|entries| entries.len())), (&end, Some(4)));
    assert_eq!(end.topics.len(), 3, "one decision did not fit");
    assert_eq!(served.double.get(|part| part.followed.last().copied()), Some(follow_from(beginning.index, PATIENCE)));

    // Entries that cannot be read: the image is fetched.
    served.double.set(|part| part.news = news(&end, Some(vec![Bytes::from_static(b"\xc1"); 4])));
    let third = follow(&beginning).await.expect("the image");
    assert_eq!(
        (&third.image, served.double.get(|part| part.followed.last().map(|asked| asked.index))),
        (&end, Some(0))
    );
    let newer = entry(&[MetadataRecord::FeatureLevel { level: FEATURE_LEVEL + 1 }]);
    served.double.set(|part| part.news = news(&applied(&[&[]], &end), Some(vec![newer])));
    let error = follow(&end).await.expect_err("too new");
    assert_eq!(error.code, ErrorCode::UnsupportedVersion);
    assert!(error.message.contains("upgrade this node"), "{error}");
}

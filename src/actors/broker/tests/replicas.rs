//! Replicas: opened, shown, deleted, put aside, as the metadata says.

use super::*;
use crate::engine::metadata::PartitionChange;

#[actix::test]
async fn await_metadata_is_answered_when_the_replicas_that_it_calls_for_are_open() {
    let stage = Stage::new().await;
    let held = stage.thread.hold_up();
    stage.commit(&[mine(1, 2)]);
    stage.commit(&[mine(2, 1), MetadataRecord::TopicDeleted { topic: id(2) }, mine(3, 1)]);
    let waiting = stage.broker.send(AwaitMetadata { index: stage.desk.image().index });
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(early.is_err(), "no replica is open yet");
    assert_eq!(stage.state_of(1, 0), "unknown", "a view is published whole");
    drop(held);
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("in time").expect("alive");
    let states = [(1, 0), (1, 1), (1, 2), (2, 0), (3, 0)].map(|(topic, partition)| stage.state_of(topic, partition));
    assert_eq!(states, ["leads", "leads", "unknown", "unknown", "leads"]);
    let is_gone = |stage: &Stage| stage.desk.findings().contains(&Finding::FilesGone(id(2)));
    stage.until("created and deleted at once: there are no files", is_gone).await;
}

#[actix::test]
async fn during_the_start_sessions_see_topics_whose_replicas_are_still_being_opened() {
    let desk = Desk::new(with(&beginning(), &[mine(1, 2)]));
    desk.tells.send_replace(false);
    let stage = Stage::with(&VirtualDisk::new(1), desk, DiskThread::start());
    stage.until("registered", |stage| stage.directory_epoch().is_some()).await;
    let held = stage.thread.hold_up();
    stage.desk.tells.send_replace(true);
    let index = stage.desk.image().index;
    let seen = |stage: &Stage| stage.view.borrow().replica(place(1, 1)).is_some();
    stage.until("before any replica is open", seen).await;
    let partition = TopicPartition::new(id(1), PartitionIndex(1));
    let Some(Replica::Offline(cause)) = stage.view.borrow().replica(partition).cloned() else { panic!("not open yet") };
    assert_eq!(cause.code, ErrorCode::NotLeader, "clients ask again");
    assert!(cause.message.contains("being opened"), "{}", cause.message);
    let early = tokio::time::timeout(Duration::from_millis(50), stage.broker.send(AwaitMetadata { index })).await;
    assert!(early.is_err(), "ready means that replicas are open");
    drop(held);
    stage.counted_on().await;
    assert_eq!([stage.state_of(1, 0), stage.state_of(1, 1)], ["leads", "leads"]);
}

#[actix::test]
async fn a_deleted_topics_files_go_and_the_controller_is_told_once_all_are_gone() {
    let stage = Stage::new().await;
    stage.commit(&[mine(1, 3)]);
    stage.caught_up().await;
    assert!(stage.disk.exists(&stage.dir_of(1, 2)).unwrap());
    stage.commit(&[MetadataRecord::TopicDeleted { topic: id(1) }]);
    stage.caught_up().await;
    assert_eq!(stage.state_of(1, 0), "unknown");
    let told = |stage: &Stage| stage.desk.findings().iter().filter(|told| **told == Finding::FilesGone(id(1))).count();
    stage.until("it is told", |stage| told(stage) > 0).await;
    stage.until("and on record", |stage| !stage.desk.image().tombstones.contains(&id(1))).await;
    for partition in 0..3 {
        assert!(!stage.disk.exists(&stage.dir_of(1, partition)).unwrap());
    }
}

#[actix::test]
async fn a_replica_that_cannot_be_opened_is_offline_and_the_others_lead() {
    let disk = VirtualDisk::new(1);
    let stage = Stage::on(&disk, beginning());
    stage.counted_on().await;
    stage.commit(&[mine(1, 1), mine(2, 1), mine(3, 1)]);
    stage.caught_up().await;
    assert_eq!(stage.stop().await, [""; 0]);
    let meta = stage.dir_of(2, 0).join("partition.meta");
    let file = disk.open(&meta, OpenMode::Create).expect("it is there");
    drop(file);

    let restarted = Stage::on(&disk, ClusterImage::clone(&stage.desk.image()));
    restarted.counted_on().await;
    let states = [1, 2, 3].map(|topic| restarted.state_of(topic, 0));
    assert_eq!(states, ["leads", "offline", "leads"]);
    let view = Arc::clone(&restarted.view.borrow());
    let Some(Replica::Offline(cause)) = view.replica(TopicPartition::new(id(2), PartitionIndex(0))) else {
        panic!("offline");
    };
    assert_eq!(cause.code, ErrorCode::StorageFailed);
    assert!(cause.message.contains("partition.meta"), "{cause}");
    assert!(disk.exists(&meta).unwrap(), "its files are left as they are");
}

#[actix::test]
async fn a_directory_that_was_here_and_is_gone_is_never_replaced_by_an_empty_one() {
    let disk = VirtualDisk::new(1);
    let stage = Stage::on(&disk, beginning());
    *stage.desk.is_deaf.lock().unwrap() = true;
    stage.counted_on().await;
    stage.commit(&[mine(1, 1), mine(2, 1)]);
    stage.caught_up().await;
    stage.stop().await;
    for topic in [1, 2] {
        disk.remove_dir_all(&stage.dir_of(topic, 0)).expect("it is there");
    }

    let opened = MetadataRecord::TopicOpened { topic: id(1), node: ME, partitions: None };
    let restarted = Stage::on(&disk, with(&stage.desk.image(), &[opened]));
    restarted.until_state(1, "offline").await;
    // The second may never have been.
    restarted.until_state(2, "leads").await;
    assert_eq!(restarted.state_of(1, 0), "offline");
    assert!(!disk.exists(&restarted.dir_of(1, 0)).unwrap());
    let is_given_up = |stage: &Stage| stage.desk.findings().contains(&Finding::Lost(place(1, 0)));
    assert!(!is_given_up(&restarted), "there is no other: the directory may be put back");
}

#[actix::test]
async fn at_the_start_tombstones_are_worked_off_and_strangers_put_aside() {
    let disk = VirtualDisk::new(1);
    let stage = Stage::on(&disk, beginning());
    stage.counted_on().await;
    stage.commit(&[mine(1, 1), mine(2, 2), mine(3, 1)]);
    stage.caught_up().await;
    stage.stop().await;
    let (known, deleted, stranger) = (stage.dir_of(1, 0), stage.dir_of(2, 1), stage.dir_of(3, 0));

    // Topic 2 was deleted while its files could not be removed; topic 3 never was in this metadata.
    let mut image = with(&stage.desk.image(), &[MetadataRecord::TopicDeleted { topic: id(2) }]);
    image.topics.remove(&id(3));
    image.topic_ids.remove(&name(3));
    let restarted = Stage::on(&disk, image);
    restarted.counted_on().await;
    restarted.until("gone", |stage| !stage.desk.image().tombstones.contains(&id(2))).await;
    restarted.thread.settle().await;
    assert!(disk.exists(&known).unwrap() && !disk.exists(&deleted).unwrap());
    let aside = Path::new("/data/quarantine").join(stranger.file_name().unwrap());
    assert!(!disk.exists(&stranger).unwrap() && disk.exists(&aside).unwrap(), "kept, never removed");
}

#[actix::test]
async fn a_replica_leads_or_follows_as_the_metadata_says_and_retires_when_it_has_no_part() {
    let stage = Stage::new().await;
    stage.commit(&other());
    stage.commit(&[created(1, vec![vec![OTHER, ME]])]);
    stage.caught_up().await;
    assert_eq!(stage.state_of(1, 0), "follows");
    // The other one falls silent.
    let fenced = fence(&stage.desk.image(), OTHER, BrokerEpoch(100)).expect("it lives");
    stage.commit(&fenced.records);
    stage.caught_up().await;
    assert_eq!(stage.state_of(1, 0), "leads");
    let (image, partition) = (stage.desk.image(), place(1, 0));
    let state = image.partition(partition).expect("there");
    let moved = PartitionChange {
        replicas: Some(vec![OTHER]),
        in_sync: Vec::new(),
        eligible: vec![OTHER],
        leader: None,
        ..state.to_change(partition)
    };
    stage.commit(&[MetadataRecord::PartitionChanged(moved)]);
    stage.caught_up().await;
    assert_eq!(stage.state_of(1, 0), "retired");
    assert!(stage.disk.exists(&stage.dir_of(1, 0)).unwrap(), "its files are kept");
}

#[actix::test]
async fn partitions_that_are_added_are_opened_and_reported() {
    let stage = Stage::new().await;
    stage.commit(&[mine(1, 1)]);
    stage.caught_up().await;
    let is_opened =
        |number| move |stage: &Stage| stage.desk.image().topics[&id(1)].has_opened(PartitionIndex(number), ME);
    stage.until("on record", is_opened(0)).await;
    let replicas = vec![vec![ME]; 2];
    stage.commit(&[MetadataRecord::TopicPartitionsAdded { topic: id(1), first: PartitionIndex(1), replicas }]);
    stage.caught_up().await;
    assert_eq!([1, 2, 3].map(|partition| stage.state_of(1, partition)), ["leads", "leads", "unknown"]);
    let told =
        |stage: &Stage| [1, 2].iter().all(|number| stage.desk.findings().contains(&Finding::Opened(place(1, *number))));
    stage.until("told", told).await;
}

#[actix::test]
async fn what_the_others_hear_does_not_wait_for_a_replica_that_takes_long_to_open() {
    let stage = Stage::new().await;
    stage.commit(&other());
    stage.commit(&[created(1, vec![vec![OTHER, ME]])]);
    stage.caught_up().await;
    let _held = stage.thread.hold_up();
    stage.commit(&[mine(2, 1)]);
    tokio::task::yield_now().await;
    let fenced = fence(&stage.desk.image(), OTHER, BrokerEpoch(100)).expect("it lives");
    stage.commit(&fenced.records);
    stage.until_state(1, "leads").await;
    assert_eq!(stage.state_of(2, 0), "offline", "it is being opened");
}

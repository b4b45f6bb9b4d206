//! How a broker comes, is counted on, tells of its replicas, and goes.

use super::*;
use crate::actors::partition_leader::{ReplicaReport as Told, Reported};
use crate::actors::send::post;
use crate::engine::metadata::{LastStop, PartitionChange};

#[actix::test]
async fn a_broker_is_counted_on_only_when_its_directory_holds_its_epoch() {
    let thread = DiskThread::start();
    let held = thread.hold_up();
    let stage = Stage::with(&VirtualDisk::new(1), Desk::new(beginning()), thread);
    let is_registered = |stage: &Stage| stage.desk.image().brokers.contains_key(&ME);
    stage.until("registered", is_registered).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let heard = stage.desk.heard();
    assert!(heard.iter().all(|request| matches!(request, Request::Register(_))), "{heard:?}");
    assert_eq!((stage.directory_epoch(), stage.desk.image().is_live(ME)), (None, false));
    drop(held);
    stage.counted_on().await;
    assert_eq!(stage.directory_epoch(), stage.desk.image().epoch_of(ME));
    stage.commit(&[mine(1, 1)]);
    stage.caught_up().await;
    assert_eq!(stage.state_of(1, 0), "leads");
}

#[actix::test]
async fn a_replica_that_fails_is_reported_until_the_metadata_shows_it() {
    let stage = Stage::new().await;
    stage.commit(&other());
    stage.commit(&[created(1, vec![vec![ME, OTHER]])]);
    stage.caught_up().await;
    let failed = Reported::Offline(ApiError::new(ErrorCode::StorageFailed, "a bad disk"));
    post(&stage.broker, Told { partition: place(1, 0), what: failed });
    let is_told =
        |finding: &Finding| matches!(finding, Finding::Damaged { partition, .. } if *partition == place(1, 0));
    let told = move |stage: &Stage| stage.desk.findings().into_iter().filter(is_told).count();
    stage.until("told again and again", |stage| told(stage) >= 3).await;
    // Another leads, and this one is no member any more.
    let image = stage.desk.image();
    let state = image.partition(place(1, 0)).expect("there").clone();
    let change = PartitionChange {
        leader: Some(OTHER),
        leader_epoch: LeaderEpoch(state.leader_epoch.0 + 1),
        in_sync: vec![OTHER],
        eligible: Vec::new(),
        ..state.to_change(place(1, 0))
    };
    stage.commit(&[MetadataRecord::PartitionChanged(change)]);
    stage.caught_up().await;
    let renewals = |stage: &Stage| stage.desk.heard().iter().filter(|heard| matches!(heard, Request::Renew(_))).count();
    let (so_far, renewed) = (told(&stage), renewals(&stage));
    // They come as often as reports would.
    stage.until("it lived on for as long as it told again before", |stage| renewals(stage) >= renewed + 5).await;
    assert!(told(&stage) <= so_far + 1, "one was on its way");
}

#[actix::test]
async fn a_directory_that_was_lost_is_reported_and_holds_the_broker_back() {
    let disk = VirtualDisk::new(1);
    let stage = Stage::on(&disk, beginning());
    stage.counted_on().await;
    stage.commit(&other());
    stage.commit(&[strict(1, vec![vec![ME, OTHER]])]);
    stage.caught_up().await;
    let topic_opened = |stage: &Stage| stage.desk.image().topics[&id(1)].has_opened(PartitionIndex(0), ME);
    stage.until("it is on record", topic_opened).await;
    assert_eq!(stage.stop_handing_over().await, [""; 0]);
    disk.remove_dir_all(&stage.dir_of(1, 0)).expect("it is there");

    let restarted = Stage::on(&disk, ClusterImage::clone(&stage.desk.image()));
    *restarted.desk.is_deaf.lock().unwrap() = true;
    restarted.until("lost", |stage| stage.desk.findings().contains(&Finding::Lost(place(1, 0)))).await;
    assert!(!restarted.exists(&restarted.dir_of(1, 0)), "never replaced by an empty one");
    let applied = |request: &Request| match request {
        Request::Renew(renewal) => Some(renewal.applied),
        _ => None,
    };
    let index = restarted.desk.image().index;
    let said: Vec<_> = restarted.desk.heard().iter().filter_map(applied).collect();
    assert!(said.iter().all(|applied| *applied < index), "{said:?}, {index}");
}

impl Stage {
    /// Stops; what is led here goes to the other broker as soon as the controller knows of the stop.
    async fn stop_handing_over(&self) -> Vec<String> {
        let broker = self.broker.clone();
        let stopped = actix_rt::spawn(async move { broker.send(StopBroker).await.expect("alive") });
        let is_asked = |stage: &Stage| stage.desk.heard().iter().any(|heard| matches!(heard, Request::Stopping { .. }));
        self.until("its stop is known", is_asked).await;
        assert_eq!(self.state_of(1, 0), "leads", "clients are served meanwhile");
        assert!(!self.exists(Path::new("/data/clean-stop")) && self.ended.borrow().is_none());
        let image = self.desk.image();
        let state = image.partition(place(1, 0)).expect("there").clone();
        let leader_epoch = LeaderEpoch(state.leader_epoch.0 + 1);
        let change = PartitionChange { leader: Some(OTHER), leader_epoch, ..state.to_change(place(1, 0)) };
        self.commit(&[MetadataRecord::PartitionChanged(change)]);
        tokio::time::timeout(PATIENCE, stopped).await.expect("in time").expect("no panic")
    }
}

#[actix::test]
async fn a_stop_hands_over_first_says_so_and_leaves_its_marker_last() {
    let disk = VirtualDisk::new(1);
    let stage = Stage::on(&disk, beginning());
    stage.counted_on().await;
    stage.commit(&other());
    stage.commit(&[created(1, vec![vec![ME, OTHER]])]);
    stage.caught_up().await;
    assert_eq!(stage.stop_handing_over().await, [""; 0]);
    let heard = stage.desk.heard();
    let first = |wanted: fn(&Request) -> bool| heard.iter().position(wanted).expect("heard");
    let stopping = first(|request| matches!(request, Request::Stopping { .. }));
    assert!(stopping < first(|request| matches!(request, Request::Stopped { .. })));
    assert!(!stage.desk.image().is_live(ME), "it is fenced by the time it ends");
    assert_eq!(*stage.ended.borrow(), Some(EndReason::Stopped { is_clean: true }));
    let shared: Arc<dyn Disk> = Arc::new(disk);
    let directory = DataDir::open(shared, Path::new("/data"), ME, Some(CLUSTER)).expect("a data directory");
    assert_eq!(replica::last_stop(&directory).expect("readable"), LastStop::Clean);
}

#[actix::test]
async fn where_nobody_else_could_lead_a_stop_is_over_at_once() {
    let stage = Stage::new().await;
    stage.commit(&[mine(1, 3)]);
    stage.caught_up().await;
    let began = tokio::time::Instant::now();
    assert_eq!(stage.stop().await, [""; 0]);
    assert!(began.elapsed() < Duration::from_secs(2), "no timeout is waited for: {:?}", began.elapsed());
    assert_eq!(*stage.ended.borrow(), Some(EndReason::Stopped { is_clean: true }));
    let heard = stage.desk.heard();
    assert!(!heard.iter().any(|request| matches!(request, Request::Stopping { .. })), "nothing to hand over");
    assert_eq!(stage.stop().await, [""; 0], "once more is no harm");
}

#[actix::test]
async fn a_broker_that_another_process_has_taken_over_from_ends_and_leaves_no_marker() {
    let stage = Stage::new().await;
    stage.commit(&[mine(1, 1)]);
    stage.caught_up().await;
    let epoch = BrokerEpoch(stage.directory_epoch().expect("registered").0 + 10);
    let newer = BrokerRegistration { epoch, ..registration(ME, stage.directory.meta().directory) };
    stage.commit(&[MetadataRecord::BrokerRegistered(newer)]);
    stage.until("over", |stage| *stage.ended.borrow() == Some(EndReason::Superseded)).await;
    let problems = stage.stop().await;
    assert!(problems.len() == 1 && problems[0].contains("newer process"), "{problems:?}");
    let epoch_here = stage.directory_epoch();
    assert!(epoch_here < Some(epoch) && !stage.exists(Path::new("/data/clean-stop")));
}

#[actix::test]
async fn damage_is_reported_and_doubted_until_it_is_mended() {
    let stage = Stage::new().await;
    stage.commit(&other());
    stage.commit(&[created(1, vec![vec![ME, OTHER]])]);
    stage.caught_up().await;
    let tell = |what| post(&stage.broker, Told { partition: place(1, 0), what });
    tell(Reported::Health { is_damaged: true });
    let leader_epoch = stage.desk.image().partition(place(1, 0)).expect("there").leader_epoch;
    tell(Reported::Damaged(leader_epoch));
    let finding = Finding::Damaged { partition: place(1, 0), leader_epoch };
    stage.until("reported", |stage| stage.desk.findings().contains(&finding)).await;

    let is_doubtful = |request: &Request| matches!(request, Request::Renew(renewal) if !renewal.doubtful.is_empty());
    let doubts = |stage: &Stage| stage.desk.heard().iter().filter(|request| is_doubtful(request)).count();
    let fenced_once = async || {
        let epoch = stage.desk.image().epoch_of(ME).expect("registered");
        stage.commit(&[MetadataRecord::BrokerFenced { node: ME, epoch }]);
        stage.until("counted on again", |stage| stage.desk.image().is_live(ME)).await;
    };
    assert_eq!(doubts(&stage), 0, "whoever is counted on reports each by itself");
    fenced_once().await;
    let before = doubts(&stage);
    assert!(before > 0, "it was counted on again as one that is damaged");
    tell(Reported::Health { is_damaged: false });
    fenced_once().await;
    assert_eq!(doubts(&stage), before);
}

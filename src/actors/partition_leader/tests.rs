//! A leader with its real log writer on a virtual disk, and a probe where the session would be.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use tokio::sync::oneshot;

use super::*;
use crate::actors::send::post;
use crate::actors::test_support::{DiskThread, Ear, batch, lead, new_log, nowhere, partition, replica_settings};
use crate::engine::leader::Leadership;
use crate::engine::producer_state::ProducerTable;
use crate::engine::waiters::OwnerId;
use crate::protocol::messages::{Acks, DeleteBefore, OffsetAt};
use crate::protocol::{ApiError, ErrorCode};
use crate::storage::LogError;
use crate::storage::disk::VirtualDisk;
use crate::storage::disk::virtual_disk::FaultyOperation;
use crate::types::{
    BrokerEpoch, Clock, CorrelationId, LeaderEpoch, MonoTime, NodeId, Offset, SystemClock, TopicConfig,
};

const ME: OwnerId = OwnerId(1);

struct Stage {
    disk: VirtualDisk,
    thread: DiskThread,
    session: Ear<PartitionAnswer>,
    answers_to: Arc<actix::Recipient<PartitionAnswer>>,
    leader: Addr<PartitionLeader>,
    clock: SystemClock,
}

impl Stage {
    fn new(config: TopicConfig) -> Self {
        Self::with_cache(config, 1 << 20)
    }

    fn with_cache(config: TopicConfig, cache_bytes: usize) -> Self {
        Self::build(config, cache_bytes, Keeping::Log)
    }

    fn build(config: TopicConfig, cache_bytes: usize, keeping: Keeping) -> Self {
        let disk = VirtualDisk::new(1);
        let (log, thread, session) = (new_log(&disk, &config), DiskThread::start(), Ear::new());
        let clock = SystemClock::start();
        let settings = PartitionLeaderSettings {
            clock: Arc::new(clock),
            keeping,
            ..replica_settings(NodeId(1), &thread, cache_bytes)
        };
        let leadership = Leadership::alone(LeaderEpoch(3), NodeId(1), BrokerEpoch(1));
        let (set, log) = (config.clone(), (log, ProducerTable::default()));
        let leader =
            PartitionLeader::create(|ctx| PartitionLeader::new(ctx, partition(), set, log, settings, nowhere()));
        lead(&leader, leadership, config);
        let answers_to = Arc::new(session.recipient());
        Self { disk, thread, session, answers_to, leader, clock }
    }

    fn reply(&self, request: u64) -> ReplyTo {
        ReplyTo::new(
            Arc::clone(&self.answers_to),
            RequestTag { connection: ME, correlation: CorrelationId(0), request, item: 0 },
        )
    }

    fn within(&self, wait: Duration) -> MonoTime {
        self.clock.now().plus(wait)
    }

    fn produce(&self, request: u64, records: usize, acks: Acks) {
        let deadline = self.within(Duration::from_secs(10));
        let reply = self.reply(request);
        post(
            &self.leader,
            Produce { batch: batch(records), room: None, leader_epoch: None, acks, deadline, owner: ME, reply },
        );
    }

    fn fetch(&self, request: u64, offset: u64, wait: Option<Duration>) {
        let wait_until = wait.map(|wait| self.within(wait));
        let (offset, reply) = (Offset(offset), self.reply(request));
        post(&self.leader, Fetch { offset, max_bytes: 1 << 20, leader_epoch: None, wait_until, owner: ME, reply });
    }

    async fn answer(&mut self) -> (u64, Result<Answer, ApiError>) {
        let PartitionAnswer { tag, result } = self.session.next().await;
        (tag.request, result)
    }

    async fn produced_at(&mut self) -> (u64, u64) {
        match self.answer().await {
            (request, Ok(Answer::Produced(placed))) => (request, placed.base_offset.0),
            other => panic!("an acknowledgement was due, there is {other:?}"),
        }
    }

    /// Which fetch was answered, up to which offset, and the high watermark it was told.
    async fn fetched(&mut self) -> (u64, Option<u64>, u64) {
        match self.answer().await {
            (request, Ok(Answer::Fetched(records))) => {
                assert_eq!(records.next_offset.is_some(), records.bytes() > 0);
                (request, records.next_offset.map(|next| next.0), records.state.high_watermark.0)
            }
            other => panic!("records were due, there is {other:?}"),
        }
    }

    async fn refused(&mut self) -> (u64, ErrorCode) {
        match self.answer().await {
            (request, Err(error)) => (request, error.code),
            other => panic!("a refusal was due, there is {other:?}"),
        }
    }

    fn stop(&self, why: StopReason) -> oneshot::Receiver<Result<(), LogError>> {
        let (done, stopped) = oneshot::channel();
        post(&self.leader, Stop { why, done });
        stopped
    }
}

#[actix::test]
async fn acks_1_is_answered_when_written_and_all_only_when_synced() {
    let mut stage = Stage::new(TopicConfig::default());
    stage.produce(0, 1, Acks::All);
    assert_eq!(stage.produced_at().await, (0, 0));
    let held = stage.thread.hold_up();
    stage.produce(1, 2, Acks::All);
    stage.produce(2, 3, Acks::Leader);
    assert_eq!(stage.produced_at().await, (2, 3), "the second, which asks for less, comes first");
    stage.fetch(3, 1, None);
    assert_eq!(stage.fetched().await, (3, None, 1), "what is not committed is not read");
    drop(held);
    assert_eq!(stage.produced_at().await, (1, 1));
    stage.fetch(4, 1, None);
    assert_eq!(stage.fetched().await, (4, Some(6), 6));
}

#[actix::test]
async fn a_parked_fetch_is_answered_by_a_commit_at_its_deadline_or_when_its_partition_goes() {
    let mut stage = Stage::new(TopicConfig::default());
    let long = Some(Duration::from_secs(60));
    stage.fetch(1, 0, long);
    stage.produce(2, 1, Acks::All);
    let mut answered = [stage.answer().await.0, stage.answer().await.0];
    answered.sort_unstable();
    assert_eq!(answered, [1, 2]);

    stage.fetch(3, 1, long);
    stage.fetch(4, 1, Some(Duration::from_millis(30)));
    assert_eq!(stage.fetched().await, (4, None, 1), "its time is over, the longer one's is not");

    stage.fetch(5, 1, long);
    post(&stage.leader, CancelFetch { owner: ME, request: 5 });
    assert_eq!(stage.refused().await.0, 5, "taken back, so nobody waits for it");
    let stopped = stage.stop(StopReason::TopicDeleted);
    assert_eq!(stage.refused().await, (3, ErrorCode::UnknownTopicOrPartition));
    stopped.await.expect("told").expect("given up");
}

#[actix::test]
async fn what_a_stopping_leader_finds_in_its_mailbox_is_answered_too() {
    let mut stage = Stage::new(TopicConfig::default());
    let stopped = stage.stop(StopReason::TopicDeleted);
    stage.produce(1, 1, Acks::All);
    stage.fetch(2, 0, Some(Duration::from_secs(60)));
    let (at, reply) = (OffsetAt::Latest, stage.reply(3));
    post(&stage.leader, ListOffset { at, reply });
    let mut answered = Vec::new();
    for _ in 0..3 {
        let (request, code) = stage.refused().await;
        assert!(code.is_retryable(), "{code:?}");
        answered.push(request);
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3]);
    stopped.await.expect("told").expect("given up");
}

#[actix::test]
async fn a_node_that_stops_first_writes_and_answers_what_it_accepted() {
    let mut stage = Stage::new(TopicConfig::default());
    stage.produce(0, 1, Acks::All);
    assert_eq!(stage.produced_at().await, (0, 0));
    let held = stage.thread.hold_up();
    stage.produce(1, 2, Acks::All);
    stage.fetch(2, 3, Some(Duration::from_secs(60)));
    let stopped = stage.stop(StopReason::NodeStops);
    stage.produce(3, 1, Acks::All);
    assert_eq!(stage.refused().await, (3, ErrorCode::ShuttingDown), "nothing new is taken");
    drop(held);
    assert_eq!(stage.produced_at().await, (1, 1), "what was accepted is acknowledged");
    let (request, _) = stage.answer().await;
    assert_eq!(request, 2, "and the parked fetch goes with it");
    stopped.await.expect("told").expect("closed cleanly");
}

#[actix::test]
async fn after_a_failed_sync_the_partition_is_read_and_never_written() {
    let mut stage = Stage::new(TopicConfig::default());
    stage.produce(1, 2, Acks::All);
    assert_eq!(stage.produced_at().await, (1, 0));
    stage.disk.fail_nth(FaultyOperation::Sync, 1, ".log");
    stage.produce(2, 1, Acks::All);
    assert_eq!(stage.refused().await, (2, ErrorCode::StorageFailed));
    stage.produce(3, 1, Acks::Leader);
    assert_eq!(stage.refused().await, (3, ErrorCode::StorageFailed));
    stage.fetch(4, 0, None);
    assert_eq!(stage.fetched().await, (4, Some(2), 2), "what was acknowledged, and no more");
    let error = stage.stop(StopReason::NodeStops).await.expect("told").expect_err("no clean stop");
    assert!(matches!(error, LogError::Failed { .. }), "{error}");
}

#[actix::test]
async fn a_cold_read_gives_the_same_records_as_the_cache() {
    let mut stage = Stage::new(TopicConfig::default());
    for request in 0..5 {
        stage.produce(request, 2, Acks::All);
        stage.produced_at().await;
    }
    let read = |answer: (u64, Result<Answer, ApiError>)| match answer.1 {
        Ok(Answer::Fetched(records)) => (records.chunks.concat(), records.next_offset),
        other => panic!("records were due, there is {other:?}"),
    };
    stage.fetch(10, 3, None);
    let warm = read(stage.answer().await);
    assert_eq!(stage.disk.read_count(".log"), 0, "a reader that keeps up costs no read");
    let mut cold = Stage::with_cache(TopicConfig::default(), 0);
    for request in 0..5 {
        cold.produce(request, 2, Acks::All);
        cold.produced_at().await;
    }
    cold.fetch(10, 3, None);
    assert_eq!(read(cold.answer().await), warm);
    assert!(cold.disk.read_count(".log") > 0, "this one came from the disk");
}

#[actix::test]
async fn a_connection_that_goes_takes_its_waiting_requests_along() {
    let mut stage = Stage::new(TopicConfig::default());
    stage.fetch(1, 0, Some(Duration::from_secs(60)));
    post(&stage.leader, OwnerGone(ME));
    assert_eq!(stage.refused().await.0, 1, "an answer that the ended session ignores");
    stage.produce(2, 1, Acks::All);
    assert_eq!(stage.produced_at().await, (2, 0));
    assert!(stage.session.pending().is_empty());
}

#[actix::test]
async fn a_nearly_full_disk_refuses_appends_until_there_is_space() {
    let mut stage = Stage::new(TopicConfig::default());
    post(&stage.leader, SetDiskSpace(Some(ApiError::new(ErrorCode::DiskFull, "full"))));
    stage.produce(1, 1, Acks::All);
    assert_eq!(stage.refused().await, (1, ErrorCode::DiskFull));
    stage.fetch(2, 0, None);
    assert_eq!(stage.fetched().await, (2, None, 0));
    post(&stage.leader, SetDiskSpace(None));
    stage.produce(3, 1, Acks::All);
    assert_eq!(stage.produced_at().await, (3, 0));
}

#[actix::test]
async fn records_are_deleted_for_good_and_only_what_is_committed() {
    let mut stage = Stage::new(TopicConfig::default());
    stage.produce(1, 4, Acks::All);
    assert_eq!(stage.produced_at().await, (1, 0));
    let delete = |stage: &Stage, request, before| {
        let (deadline, reply) = (stage.within(Duration::from_secs(10)), stage.reply(request));
        post(&stage.leader, DeleteRecords { before, deadline, owner: ME, reply });
    };
    delete(&stage, 2, DeleteBefore::Offset(Offset(3)));
    assert_eq!(stage.answer().await, (2, Ok(Answer::RecordsDeleted(Offset(3)))));
    stage.fetch(3, 2, None);
    assert_eq!(stage.refused().await, (3, ErrorCode::OffsetOutOfRange));
    delete(&stage, 4, DeleteBefore::Offset(Offset(5)));
    assert_eq!(stage.refused().await, (4, ErrorCode::OffsetOutOfRange));
    delete(&stage, 5, DeleteBefore::HighWatermark);
    assert_eq!(stage.answer().await, (5, Ok(Answer::RecordsDeleted(Offset(4)))));
    stage.produce(6, 1, Acks::All);
    assert_eq!(stage.produced_at().await, (6, 4), "offsets go on");
}

#[actix::test]
async fn a_leader_that_keeps_nothing_acknowledges_at_once_and_serves_the_newest_batches_only() {
    let mut stage = Stage::build(TopicConfig::default(), 200, Keeping::Nothing);
    let operations = stage.disk.operations();
    // No disk thread is needed for a sync that is none.
    let held = stage.thread.hold_up();
    stage.fetch(0, 0, Some(Duration::from_secs(60)));
    stage.produce(1, 1, Acks::All);
    let mut answered = [stage.answer().await.0, stage.answer().await.0];
    answered.sort_unstable();
    assert_eq!(answered, [0, 1], "who waits for records gets them");
    for request in 2..10 {
        stage.produce(request, 1, Acks::All);
        assert_eq!(stage.produced_at().await, (request, request - 1));
    }
    stage.fetch(10, 8, None);
    assert_eq!(stage.fetched().await, (10, Some(9), 9));
    stage.fetch(11, 0, None);
    assert_eq!(stage.refused().await, (11, ErrorCode::OffsetOutOfRange), "what is gone is not called empty");
    assert_eq!(stage.disk.operations(), operations, "nothing was written");
    drop(held);
    stage.stop(StopReason::NodeStops).await.expect("told").expect("there is nothing to close");
}

//! The leader's story, told by its commands.

use std::time::Duration;

use super::*;
use crate::engine::waiters::OwnerId;
use crate::protocol::messages::{DeleteBefore, FetchedPartition};
use crate::types::record_batch::{BatchBuilder, Compression};
use crate::types::{BrokerEpoch, ProducerEpoch, ProducerId};

const EPOCH: LeaderEpoch = LeaderEpoch(3);
const ALICE: OwnerId = OwnerId(1);
const BOB: OwnerId = OwnerId(2);

fn at(ms: u64) -> MonoTime {
    MonoTime(Duration::from_millis(ms))
}

const NOW: MonoTime = MonoTime(Duration::ZERO);

fn leader(flush: FlushPolicy) -> LeaderEngine<&'static str> {
    let config = TopicConfig { flush, ..TopicConfig::default() };
    let leadership = Leadership::alone(EPOCH, NodeId(1), BrokerEpoch(1));
    let mut engine =
        LeaderEngine::new(NOW, NodeId(1), leadership, config, ReplicaState::empty(), LeaderSettings::default());
    run(&mut engine, |e, out| e.on_lease(NOW, at(u64::MAX), out));
    engine
}

fn header(records: i32, producer: Option<(i64, i32)>) -> BatchHeader {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    if let Some((id, sequence)) = producer {
        builder.set_producer(ProducerId(id), ProducerEpoch(0), sequence);
    }
    for _ in 0..records {
        builder.append(TimestampMs(5), None, Some(b"v"), &[]);
    }
    BatchHeader::parse(&builder.build().expect("builds")).expect("parses")
}

fn produce(records: i32, acks: Acks, reply: &'static str) -> ProduceEvent<&'static str> {
    ProduceEvent {
        header: header(records, None),
        batch_bytes: 100,
        leader_epoch: None,
        acks,
        deadline: at(1_000),
        wall: TimestampMs(77),
        owner: ALICE,
        reply,
    }
}

fn fetch(offset: u64, wait_ms: Option<u64>, reply: &'static str) -> FetchEvent<&'static str> {
    let wait_until = wait_ms.map(at);
    FetchEvent { offset: Offset(offset), max_bytes: 10, leader_epoch: None, wait_until, owner: BOB, reply }
}

fn run<R>(engine: &mut LeaderEngine<R>, event: impl FnOnce(&mut LeaderEngine<R>, &mut Output<R>)) -> Vec<Command<R>> {
    let mut out = Output::default();
    event(engine, &mut out);
    out.0
}

fn append(base: u64) -> Command<&'static str> {
    Command::Append { base_offset: Offset(base), leader_epoch: EPOCH, append_time: None }
}

fn produced(reply: &'static str, base: u64) -> Command<&'static str> {
    let batch = ProducedBatch { base_offset: Offset(base), append_time: None, log_start_offset: Offset(0) };
    Command::Produced { reply, result: Ok(batch) }
}

fn state(start: u64, watermark: u64) -> FetchedPartition {
    FetchedPartition {
        log_start_offset: Offset(start),
        high_watermark: Offset(watermark),
        last_stable_offset: Offset(watermark),
    }
}

fn read(reply: &'static str, from: u64, upper: u64) -> Command<&'static str> {
    let range = ReadRange { from: Offset(from), upper_exclusive: Offset(upper), max_bytes: 10 };
    Command::Read { reply, range, state: state(0, upper) }
}

fn refusals(commands: &[Command<&'static str>]) -> Vec<(&'static str, ErrorCode)> {
    let refusal = |command: &Command<&'static str>| match command {
        Command::Produced { reply, result: Err(error) } | Command::Fetched { reply, result: Err(error) } => {
            Some((*reply, error.code))
        }
        _ => None,
    };
    commands.iter().filter_map(refusal).collect()
}

#[test]
fn with_flush_always_a_record_is_acknowledged_and_readable_only_once_synced() {
    let mut engine = leader(FlushPolicy::Always);
    assert_eq!(run(&mut engine, |e, out| e.on_fetch(NOW, fetch(0, Some(900), "reader"), out)), []);
    assert_eq!(run(&mut engine, |e, out| e.on_produce(NOW, produce(3, Acks::All, "all"), out)), [append(0)]);
    assert_eq!(run(&mut engine, |e, out| e.on_produce(NOW, produce(2, Acks::Leader, "one"), out)), [append(3)]);
    assert_eq!(run(&mut engine, |e, out| e.on_written(NOW, Offset(5), out)), [produced("one", 3)]);
    assert_eq!(run(&mut engine, |e, out| e.on_synced(NOW, Offset(3), out)), [produced("all", 0), read("reader", 0, 3)],);
    assert_eq!(engine.cursors().high_watermark(), Offset(3), "what is written but not synced stays hidden");
}

#[test]
fn with_flush_os_the_write_commits() {
    let mut engine = leader(FlushPolicy::Os);
    run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::All, "all"), out));
    assert_eq!(run(&mut engine, |e, out| e.on_written(NOW, Offset(1), out)), [produced("all", 0)]);
}

#[test]
fn acks_none_is_never_answered_unless_refused_which_the_session_decides() {
    let mut engine = leader(FlushPolicy::Os);
    assert_eq!(run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::None, "none"), out)), [append(0)]);
    assert_eq!(run(&mut engine, |e, out| e.on_written(NOW, Offset(1), out)), []);
}

#[test]
fn a_damaged_leader_appends_nothing_of_which_it_may_have_had_the_original() {
    let appends = |has_gaps: bool, is_damaged: bool, others: u32, now: MonoTime| {
        let mut engine = leader(FlushPolicy::Os);
        run(&mut engine, |e, out| e.on_produce(NOW, produce(3, Acks::All, "first"), out));
        run(&mut engine, |e, out| e.on_written(NOW, Offset(3), out));
        let other = |node| ReplicaView { node: NodeId(node), broker_epoch: BrokerEpoch(1), may_join: true };
        engine.leadership.replicas.extend((2..2 + others).map(other));
        if has_gaps {
            engine.producers.note_gap();
        }
        if is_damaged {
            engine.on_damage(&[(Offset(0), Offset(1))]);
        }
        let event = ProduceEvent { header: header(2, Some((7, 0))), ..produce(2, Acks::All, "x") };
        let commands = run(&mut engine, |e, out| e.on_produce(now, event, out));
        assert!(commands.len() == 1 && refusals(&commands).iter().all(|(_, code)| code.is_retryable()), "{commands:?}");
        matches!(commands[0], Command::Append { .. })
    };
    assert!(!appends(true, true, 1, NOW), "another replica, which knows, may lead soon");
    assert!(appends(true, true, 0, NOW), "with one replica nobody ever will");
    let later = NOW.plus(LeaderSettings::default().max_lag);
    assert!(appends(true, true, 1, later), "the other one does not come");
    assert!(appends(true, false, 1, NOW) && appends(false, true, 1, NOW));
}

#[test]
fn a_duplicate_waits_for_the_watermark_to_pass_the_original() {
    let mut engine = leader(FlushPolicy::Always);
    let idempotent = |reply| ProduceEvent { header: header(2, Some((7, 0))), ..produce(2, Acks::All, reply) };
    assert_eq!(run(&mut engine, |e, out| e.on_produce(NOW, idempotent("first"), out)), [append(0)]);
    assert_eq!(run(&mut engine, |e, out| e.on_produce(NOW, idempotent("retry"), out)), []);
    run(&mut engine, |e, out| e.on_written(NOW, Offset(2), out));
    assert_eq!(
        run(&mut engine, |e, out| e.on_synced(NOW, Offset(2), out)),
        [produced("first", 0), produced("retry", 0)],
    );
    assert_eq!(
        run(&mut engine, |e, out| e.on_produce(NOW, idempotent("late retry"), out)),
        [produced("late retry", 0)]
    );
    assert_eq!(engine.cursors().next_offset(), Offset(2), "nothing was appended twice");
}

#[test]
fn log_append_time_is_stamped_and_returned() {
    let mut engine = leader(FlushPolicy::Os);
    let config =
        TopicConfig { flush: FlushPolicy::Os, timestamp_type: TimestampType::LogAppendTime, ..TopicConfig::default() };
    run(&mut engine, |e, out| e.on_config(NOW, config, out));
    let stamp = Some(TimestampMs(77));
    assert_eq!(
        run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::All, "all"), out)),
        [Command::Append { base_offset: Offset(0), leader_epoch: EPOCH, append_time: stamp }],
    );
    let batch = ProducedBatch { base_offset: Offset(0), append_time: stamp, log_start_offset: Offset(0) };
    assert_eq!(
        run(&mut engine, |e, out| e.on_written(NOW, Offset(1), out)),
        [Command::Produced { reply: "all", result: Ok(batch) }],
    );
}

#[test]
fn what_cannot_be_appended_is_refused_by_name_and_leaves_no_trace() {
    let mut engine = leader(FlushPolicy::Os);
    let stale = ProduceEvent { leader_epoch: Some(LeaderEpoch(2)), ..produce(1, Acks::All, "stale") };
    let ahead = ProduceEvent { leader_epoch: Some(LeaderEpoch(4)), ..produce(1, Acks::All, "ahead") };
    let large = ProduceEvent { batch_bytes: 5 << 20, ..produce(1, Acks::All, "large") };
    let gap = ProduceEvent { header: header(1, Some((7, 4))), ..produce(1, Acks::All, "gap") };
    let mut control = produce(1, Acks::All, "control");
    control.header.attributes.0 |= 0x20;
    let commands: Vec<_> = [stale, ahead, large, gap, control]
        .into_iter()
        .flat_map(|event| run(&mut engine, |e, out| e.on_produce(NOW, event, out)))
        .collect();
    assert_eq!(
        refusals(&commands),
        [
            ("stale", ErrorCode::FencedLeaderEpoch),
            ("ahead", ErrorCode::UnknownLeaderEpoch),
            ("large", ErrorCode::BatchTooLarge),
            ("gap", ErrorCode::UnknownProducer),
            ("control", ErrorCode::InvalidBatch),
        ]
    );
    assert_eq!(engine.cursors().next_offset(), Offset(0));
}

#[test]
fn too_few_replicas_refuse_acks_all_and_nothing_else() {
    let mut engine = leader(FlushPolicy::Os);
    let config = TopicConfig { flush: FlushPolicy::Os, min_insync_replicas: 2, ..TopicConfig::default() };
    run(&mut engine, |e, out| e.on_config(NOW, config, out));
    let refused = run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::All, "all"), out));
    assert_eq!(refusals(&refused), [("all", ErrorCode::NotEnoughReplicas)]);
    assert_eq!(run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::Leader, "one"), out)), [append(0)]);
}

#[test]
fn reads_outside_the_log_say_what_it_holds_and_reads_at_its_end_wait() {
    let mut engine = leader(FlushPolicy::Os);
    run(&mut engine, |e, out| e.on_produce(NOW, produce(5, Acks::None, ""), out));
    run(&mut engine, |e, out| e.on_written(NOW, Offset(5), out));
    run(&mut engine, |e, out| e.on_log_start(Offset(2), out));
    for (offset, reply) in [(1, "before"), (6, "beyond")] {
        let refused = run(&mut engine, |e, out| e.on_fetch(NOW, fetch(offset, None, reply), out));
        assert_eq!(refusals(&refused), [(reply, ErrorCode::OffsetOutOfRange)]);
    }
    assert_eq!(
        run(&mut engine, |e, out| e.on_fetch(NOW, fetch(5, None, "end"), out)),
        [Command::Fetched { reply: "end", result: Ok(state(2, 5)) }],
    );
    assert_eq!(run(&mut engine, |e, out| e.on_fetch(NOW, fetch(5, Some(500), "waits"), out)), []);
    assert_eq!(engine.next_deadline(), Some(at(500)));
    assert_eq!(
        run(&mut engine, |e, out| e.on_tick(at(500), out)),
        [Command::Fetched { reply: "waits", result: Ok(state(2, 5)) }],
    );
}

#[test]
fn nobody_who_waits_is_forgotten_deadline_failure_stop() {
    let mut engine = leader(FlushPolicy::Always);
    run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::All, "late"), out));
    let expired = run(&mut engine, |e, out| e.on_tick(at(1_000), out));
    assert_eq!(refusals(&expired), [("late", ErrorCode::TimedOut)]);

    run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::All, "lost disk"), out));
    let cause = ApiError::new(ErrorCode::StorageFailed, "fdatasync: input/output error");
    let failed = run(&mut engine, |e, out| e.on_failed(cause.clone(), out));
    assert_eq!(refusals(&failed), [("lost disk", ErrorCode::StorageFailed)]);
    let refused = run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::All, "after"), out));
    assert_eq!(refusals(&refused), [("after", ErrorCode::StorageFailed)]);

    run(&mut engine, |e, out| e.on_fetch(NOW, fetch(0, Some(9_000), "reader"), out));
    let gone = ApiError::new(ErrorCode::UnknownTopicOrPartition, "the topic was deleted");
    let stopped = run(&mut engine, |e, out| e.on_stop(&gone, out));
    assert_eq!(refusals(&stopped), [("reader", ErrorCode::UnknownTopicOrPartition)]);
    assert_eq!(engine.next_deadline(), None);
}

#[test]
fn what_a_connection_waited_for_goes_with_it() {
    let mut engine = leader(FlushPolicy::Always);
    run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::All, "alice"), out));
    run(&mut engine, |e, out| e.on_fetch(NOW, fetch(0, Some(900), "bob"), out));
    run(&mut engine, |e, out| e.on_fetch(NOW, fetch(0, Some(900), "bob again"), out));
    engine.on_cancel_fetch(BOB, |reply| *reply == "bob");
    engine.on_owner_gone(ALICE);
    run(&mut engine, |e, out| e.on_written(NOW, Offset(1), out));
    assert_eq!(run(&mut engine, |e, out| e.on_synced(NOW, Offset(1), out)), [read("bob again", 0, 1)]);
}

fn delete(before: DeleteBefore, reply: &'static str) -> DeleteRecordsEvent<&'static str> {
    DeleteRecordsEvent { before, deadline: at(1_000), owner: ALICE, reply }
}

fn deleted(reply: &'static str, start: u64) -> Command<&'static str> {
    Command::RecordsDeleted { reply, result: Ok(Offset(start)) }
}

/// A leader that holds 0 to 10, of which 0 to 8 are committed.
fn leader_of_ten() -> LeaderEngine<&'static str> {
    let mut engine = leader(FlushPolicy::Always);
    run(&mut engine, |e, out| e.on_produce(NOW, produce(10, Acks::None, ""), out));
    run(&mut engine, |e, out| e.on_written(NOW, Offset(10), out));
    run(&mut engine, |e, out| e.on_synced(NOW, Offset(8), out));
    engine
}

#[test]
fn records_are_deleted_up_to_what_is_committed_and_answered_once_that_is_on_disk() {
    let mut engine = leader_of_ten();
    let snapshot = |at| Command::SnapshotProducers { at: Offset(at), payload: engine.producers().to_snapshot() };
    let (five, eight) = (snapshot(5), snapshot(8));
    assert_eq!(
        run(&mut engine, |e, out| e.on_delete_records(delete(DeleteBefore::Offset(Offset(5)), "five"), out)),
        [five, Command::DeleteRecords { before: Offset(5) }],
    );
    assert_eq!(
        run(&mut engine, |e, out| e.on_delete_records(delete(DeleteBefore::HighWatermark, "all"), out)),
        [eight, Command::DeleteRecords { before: Offset(8) }],
    );
    assert_eq!(engine.cursors().log_start(), Offset(0), "nothing has happened yet");
    assert_eq!(run(&mut engine, |e, out| e.on_log_start(Offset(5), out)), [deleted("five", 5)]);
    assert_eq!(run(&mut engine, |e, out| e.on_log_start(Offset(8), out)), [deleted("all", 8)]);
    let refused = run(&mut engine, |e, out| e.on_fetch(NOW, fetch(7, None, "late reader"), out));
    assert_eq!(refusals(&refused), [("late reader", ErrorCode::OffsetOutOfRange)]);
    let again = run(&mut engine, |e, out| e.on_delete_records(delete(DeleteBefore::Offset(Offset(3)), "again"), out));
    assert_eq!(again, [deleted("again", 8)], "what is gone already is answered at once");
}

#[test]
fn records_that_are_not_committed_are_not_deleted() {
    let mut engine = leader_of_ten();
    let refused = run(&mut engine, |e, out| e.on_delete_records(delete(DeleteBefore::Offset(Offset(9)), "nine"), out));
    let [Command::RecordsDeleted { reply: "nine", result: Err(error) }] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(error.code, ErrorCode::OffsetOutOfRange);
    let text = "offset 9 is beyond what is committed, 0 to 8 (exclusive): delete before one of these, or up to 8";
    assert_eq!(error.message, text);
}

#[test]
fn whoever_waits_for_a_deletion_is_told_what_became_of_it() {
    let mut engine = leader_of_ten();
    let two = |engine: &mut _| {
        for (before, reply) in [(4, "four"), (6, "six")] {
            run(engine, |e: &mut LeaderEngine<_>, out| {
                e.on_delete_records(delete(DeleteBefore::Offset(Offset(before)), reply), out);
            });
        }
    };
    let refusals = |commands: Vec<Command<&'static str>>| -> Vec<(&'static str, ErrorCode)> {
        let refusal = |command| match command {
            Command::RecordsDeleted { reply, result: Err(error) } => (reply, error.code),
            other => panic!("{other:?}"),
        };
        commands.into_iter().map(refusal).collect()
    };
    let cause = ApiError::new(ErrorCode::StorageFailed, "rename: input/output error");
    two(&mut engine);
    let failed = run(&mut engine, |e, out| e.on_delete_failed(Offset(4), &cause, out));
    assert_eq!(refusals(failed), [("four", ErrorCode::StorageFailed)], "the other one may still succeed");
    assert_eq!(engine.next_deadline(), Some(at(1_000)));
    let expired = run(&mut engine, |e, out| e.on_tick(at(1_000), out));
    assert_eq!(refusals(expired), [("six", ErrorCode::TimedOut)]);
    two(&mut engine);
    engine.on_owner_gone(ALICE);
    assert_eq!(run(&mut engine, |e, out| e.on_log_start(Offset(6), out)), []);
    let all = |engine: &mut LeaderEngine<_>| {
        run(engine, |e, out| e.on_delete_records(delete(DeleteBefore::HighWatermark, "all"), out))
    };
    all(&mut engine);
    let failed = run(&mut engine, |e, out| e.on_failed(cause, out));
    assert_eq!(refusals(failed), [("all", ErrorCode::StorageFailed)]);
    assert_eq!(refusals(all(&mut engine)), [("all", ErrorCode::StorageFailed)], "a failed log deletes nothing");
}

#[test]
fn a_full_disk_refuses_appends_and_serves_reads() {
    let mut engine = leader(FlushPolicy::Os);
    run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::None, ""), out));
    run(&mut engine, |e, out| e.on_written(NOW, Offset(1), out));
    engine.on_disk_space(Some(ApiError::new(ErrorCode::DiskFull, "full")));
    let refused = run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::All, "all"), out));
    assert_eq!(refusals(&refused), [("all", ErrorCode::DiskFull)]);
    assert_eq!(run(&mut engine, |e, out| e.on_fetch(NOW, fetch(0, None, "reader"), out)), [read("reader", 0, 1)]);
    engine.on_disk_space(None);
    assert_eq!(run(&mut engine, |e, out| e.on_produce(NOW, produce(1, Acks::All, "all"), out)), [append(1)]);
}

#[test]
fn a_roll_asks_for_a_snapshot_that_describes_all_appends_before_it() {
    let mut engine = leader(FlushPolicy::Os);
    let first = ProduceEvent { header: header(2, Some((7, 0))), ..produce(2, Acks::All, "a") };
    run(&mut engine, |e, out| e.on_produce(NOW, first, out));
    let payload = engine.producers().to_snapshot();
    assert_eq!(run(&mut engine, |e, out| e.on_rolled(out)), [Command::SnapshotProducers { at: Offset(2), payload }],);
}

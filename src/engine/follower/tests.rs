//! The follower's story, told by its commands.

use super::*;
use crate::engine::leader::{FetchEvent, ReadRange};
use crate::protocol::messages::FetchedPartition;
use crate::types::record_batch::{BatchBuilder, Compression};
use crate::types::{BrokerEpoch, TimestampMs};

const ME: NodeId = NodeId(2);
pub(super) const NOW: MonoTime = MonoTime(Duration::ZERO);

pub(super) fn following(leader: u32, epoch: u32) -> Following {
    Following {
        leader: Some(NodeId(leader)),
        leader_epoch: LeaderEpoch(epoch),
        broker_epoch: BrokerEpoch(9),
        is_member: true,
        unclean_epoch: None,
    }
}

/// A follower that holds `[0, end)`, written in epoch 1 up to 10 and in epoch 2 from there, of which `committed` is known to be so.
pub(super) fn follower(end: u64, committed: u64) -> FollowerEngine<&'static str> {
    let mut epochs = EpochHistory::default();
    for (epoch, start) in [(1, 0), (2, 10)] {
        if start < end {
            epochs.note(LeaderEpoch(epoch), Offset(start));
        }
    }
    let opened = ReplicaState::opened(Offset(0), Offset(end), epochs, ProducerTable::default());
    let state = ReplicaState { high_watermark: Offset(committed), ..opened };
    let settings = FollowerSettings {
        producer_expiry_ms: 1_000,
        fetch_bytes: 100,
        fetch_timeout: Duration::from_millis(500),
        fetch_backoff: Duration::from_millis(50),
    };
    FollowerEngine::new(ME, following(1, 2), state, 0, settings)
}

pub(super) fn run<R>(
    engine: &mut FollowerEngine<R>,
    event: impl FnOnce(&mut FollowerEngine<R>, &mut Output<R>),
) -> Vec<Command<R>> {
    let mut out = Output::default();
    event(engine, &mut out);
    out.0
}

/// What a fetch says: its number, position, last epoch and durable end.
fn said(commands: &[Command<&'static str>]) -> Vec<(u64, u64, Option<u32>, u64)> {
    let fetch = |command: &Command<_>| match command {
        Command::Fetch { fetch, .. } => {
            Some((fetch.number, fetch.position.0, fetch.last_epoch.map(|epoch| epoch.0), fetch.durable_end.0))
        }
        _ => None,
    };
    commands.iter().filter_map(fetch).collect()
}

pub(super) fn leader_state(epoch: u32, watermark: u64, end: u64) -> LeaderState {
    LeaderState {
        leader_epoch: LeaderEpoch(epoch),
        log_start: Offset(0),
        high_watermark: Offset(watermark),
        written_end: Offset(end),
        knows_all: true,
    }
}

pub(super) fn headers(base: u64, records: i32, epoch: u32) -> Vec<BatchHeader> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    (0..records).for_each(|_| builder.append(TimestampMs(5), None, Some(b"v"), &[]));
    let header = BatchHeader::parse(&builder.build().expect("builds")).expect("parses");
    vec![BatchHeader { base_offset: Offset(base), leader_epoch: LeaderEpoch(epoch), ..header }]
}

pub(super) fn answer(
    number: u64,
    verdict: ReplicaVerdict,
    state: LeaderState,
    headers: Vec<BatchHeader>,
) -> ReplicaFetched {
    let id = FetchId { broker_epoch: BrokerEpoch(9), number };
    ReplicaFetched { id, result: Ok((verdict, state)), headers }
}

#[test]
fn records_are_appended_and_acknowledged_twice_as_written_and_as_synced() {
    let mut engine = follower(12, 10);
    let first = run(&mut engine, |e, out| e.on_metadata(NOW, following(1, 3), out));
    assert_eq!(said(&first), [(1, 12, Some(2), 12)]);
    let records = answer(1, ReplicaVerdict::Continues, leader_state(3, 12, 15), headers(12, 3, 3));
    let appended = run(&mut engine, |e, out| e.on_fetched(NOW, records, out));
    assert_eq!(appended, [Command::Append { base_offset: Offset(12) }], "the next fetch waits for the write");
    assert_eq!(engine.cursors().high_watermark(), Offset(12));
    let written = run(&mut engine, |e, out| e.on_written(NOW, Offset(15), out));
    assert_eq!(said(&written), [(2, 15, Some(3), 12)]);
    let synced = run(&mut engine, |e, out| e.on_synced(NOW, Offset(15), out));
    assert_eq!(said(&synced), [(3, 15, Some(3), 15)], "it overtakes the one that is parked at the leader");
}

#[test]
fn an_answer_of_an_earlier_leader_or_to_an_earlier_position_changes_nothing() {
    let mut engine = follower(12, 10);
    run(&mut engine, |e, out| e.on_metadata(NOW, following(1, 3), out));
    run(&mut engine, |e, out| e.on_metadata(NOW, following(3, 4), out));
    let late = answer(1, ReplicaVerdict::Continues, leader_state(3, 12, 15), headers(12, 3, 3));
    assert_eq!(run(&mut engine, |e, out| e.on_fetched(NOW, late, out)), []);
    let mut of_an_earlier_process = answer(2, ReplicaVerdict::Continues, leader_state(4, 12, 15), headers(12, 3, 4));
    of_an_earlier_process.id.broker_epoch = BrokerEpoch(8);
    assert_eq!(run(&mut engine, |e, out| e.on_fetched(NOW, of_an_earlier_process, out)), []);
    let elsewhere = answer(2, ReplicaVerdict::Continues, leader_state(4, 12, 15), headers(9, 3, 3));
    let commands = run(&mut engine, |e, out| e.on_fetched(NOW, elsewhere, out));
    assert_eq!(said(&commands), [(3, 12, Some(2), 12)], "asked again, nothing appended");
}

#[test]
fn a_log_that_parts_from_the_leaders_is_cut_by_epochs_and_goes_on_once_it_is() {
    let mut engine = follower(14, 10);
    run(&mut engine, |e, out| e.on_metadata(NOW, following(1, 3), out));
    let verdict = ReplicaVerdict::Diverged(Some((LeaderEpoch(2), Offset(12))));
    let cut =
        run(&mut engine, |e, out| e.on_fetched(NOW, answer(1, verdict.clone(), leader_state(3, 12, 20), vec![]), out));
    assert_eq!(cut, [Command::Truncate { to: Offset(12), unclean_epoch: None, back_to_damage: false }]);
    let again = run(&mut engine, |e, out| e.on_fetched(NOW, answer(1, verdict, leader_state(3, 12, 20), vec![]), out));
    assert_eq!(again, [], "a doubled answer does not cut what comes after");
    let truncated = Truncated { log_start: Offset(0), end: Offset(12), producers: ProducerTable::default() };
    let next = run(&mut engine, |e, out| e.on_truncated(NOW, truncated, out));
    assert_eq!(said(&next), [(2, 12, Some(2), 12)]);
}

#[test]
fn producers_that_a_gap_hides_are_asked_for_once_of_each_leader() {
    let mut gaps = ProducerTable::default();
    gaps.note_gap();
    let mut engine = follower(14, 12);
    engine.producers = gaps.clone();
    let lacks = |commands: &[Command<&'static str>]| match commands {
        [.., Command::Fetch { fetch, .. }] => fetch.lacks_producers,
        other => panic!("{other:?}"),
    };
    assert!(lacks(&run(&mut engine, |e, out| e.on_metadata(NOW, following(1, 3), out))));
    let told = |engine: &mut FollowerEngine<_>, number, at, table: &ProducerTable| {
        let verdict = ReplicaVerdict::Producers { at: Offset(at), producers: table.to_snapshot() };
        let epoch = engine.following.leader_epoch.0;
        run(engine, |e, out| e.on_fetched(NOW, answer(number, verdict, leader_state(epoch, 12, 14), vec![]), out))
    };
    let late = told(&mut engine, 1, 13, &ProducerTable::default());
    assert!(lacks(&late) && engine.producers().has_gaps(), "it is not as of this end");
    // The leader has gaps of its own: there is no more to know.
    let commands = told(&mut engine, 2, 14, &gaps);
    assert!(matches!(&commands[0], Command::SnapshotProducers { at: Offset(14), .. }), "{commands:?}");
    assert!(!lacks(&commands));
    assert!(lacks(&run(&mut engine, |e, out| e.on_metadata(NOW, following(3, 4), out))), "another may know more");
    assert!(!lacks(&told(&mut engine, 4, 14, &ProducerTable::default())) && !engine.producers().has_gaps());
}

#[test]
fn a_cut_within_damage_waits_until_nobody_counts_on_the_replica() {
    let diverged = |number| {
        let verdict = ReplicaVerdict::Diverged(Some((LeaderEpoch(2), Offset(12))));
        answer(number, verdict, leader_state(3, 12, 20), vec![])
    };
    let mut engine = follower(14, 11);
    run(&mut engine, |e, out| e.on_metadata(NOW, following(1, 3), out));
    let cut = |engine: &mut FollowerEngine<_>, number| run(engine, |e, out| e.on_fetched(NOW, diverged(number), out));
    let refused = [Command::Truncate { to: Offset(12), unclean_epoch: None, back_to_damage: false }];
    assert_eq!(cut(&mut engine, 1), refused);
    run(&mut engine, |e, out| {
        assert!(e.on_damage(NOW, &[(Offset(10), Offset(13))], out), "that is found by it");
    });
    engine.on_not_truncated(NOW);
    let later = engine.next_deadline().expect("it asks again");
    let again = run(&mut engine, |e, out| e.on_tick(later, out));
    assert!(matches!(&again[..], [Command::Fetch { fetch, .. }] if fetch.is_damaged && fetch.number == 2));
    let out_of_both_sets = Following { is_member: false, ..following(1, 3) };
    assert_eq!(run(&mut engine, |e, out| e.on_metadata(NOW, out_of_both_sets, out)), []);
    let allowed = [Command::Truncate { to: Offset(12), unclean_epoch: None, back_to_damage: true }];
    assert_eq!(cut(&mut engine, 2), allowed);
    let truncated = Truncated { log_start: Offset(0), end: Offset(10), producers: ProducerTable::default() };
    let next = run(&mut engine, |e, out| e.on_truncated(NOW, truncated, out));
    let fetch = next.iter().find_map(|command| match command {
        Command::Fetch { fetch, .. } => Some((fetch.position.0, fetch.high_watermark.0, fetch.repair)),
        _ => None,
    });
    assert_eq!(fetch, Some((10, 10, None)), "what was committed is fetched again");
}

#[test]
fn what_is_committed_is_cut_only_when_an_unclean_election_is_on_record() {
    let verdict = ReplicaVerdict::Diverged(Some((LeaderEpoch(1), Offset(10))));
    for (unclean_epoch, is_cut) in [(None, false), (Some(LeaderEpoch(2)), false), (Some(LeaderEpoch(3)), true)] {
        let mut engine = follower(14, 13);
        let following = Following { unclean_epoch, ..following(1, 3) };
        run(&mut engine, |e, out| e.on_metadata(NOW, following, out));
        let event = answer(1, verdict.clone(), leader_state(3, 10, 20), vec![]);
        let commands = run(&mut engine, |e, out| e.on_fetched(NOW, event, out));
        match &commands[..] {
            [Command::Truncate { to, .. }] => assert!(is_cut && *to == Offset(10)),
            [Command::GoOffline { .. }] => assert!(!is_cut && engine.failure().is_some()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn consumers_read_up_to_this_replicas_watermark_and_wait_for_more() {
    let mut engine = follower(12, 10);
    run(&mut engine, |e, out| e.on_metadata(NOW, following(1, 3), out));
    let fetch = |offset, reply| FetchEvent {
        offset: Offset(offset),
        max_bytes: 10,
        leader_epoch: None,
        wait_until: Some(MonoTime(Duration::from_millis(300))),
        owner: OwnerId(1),
        reply,
    };
    let read = |reply, from, upper| {
        let state = FetchedPartition {
            log_start_offset: Offset(0),
            high_watermark: Offset(upper),
            last_stable_offset: Offset(upper),
        };
        let range = ReadRange { from: Offset(from), upper_exclusive: Offset(upper), max_bytes: 10 };
        Command::Read { reply, range, state }
    };
    assert_eq!(run(&mut engine, |e, out| e.on_fetch(NOW, fetch(4, "early"), out)), [read("early", 4, 10)]);
    assert_eq!(run(&mut engine, |e, out| e.on_fetch(NOW, fetch(10, "at the end"), out)), []);
    let news = answer(1, ReplicaVerdict::Continues, leader_state(3, 12, 12), vec![]);
    let commands = run(&mut engine, |e, out| e.on_fetched(NOW, news, out));
    assert_eq!(commands[0], read("at the end", 10, 12), "the watermark alone is news enough");
}

#[test]
fn an_offset_beyond_what_is_known_is_refused_only_by_what_the_leader_says_later() {
    let mut engine = follower(12, 12);
    run(&mut engine, |e, out| e.on_metadata(NOW, following(1, 3), out));
    run(&mut engine, |e, out| {
        e.on_fetched(NOW, answer(1, ReplicaVerdict::Continues, leader_state(3, 12, 12), vec![]), out)
    });
    let fetch = FetchEvent {
        offset: Offset(40),
        max_bytes: 10,
        leader_epoch: None,
        wait_until: Some(MonoTime(Duration::from_millis(300))),
        owner: OwnerId(1),
        reply: "beyond",
    };
    let asked = run(&mut engine, |e, out| e.on_fetch(NOW, fetch, out));
    assert!(matches!(asked[..], [Command::Fetch { may_wait: false, .. }]), "the leader is asked at once: {asked:?}");
    let unsure = LeaderState { knows_all: false, ..leader_state(3, 12, 12) };
    let deposed = answer(3, ReplicaVerdict::Continues, unsure, vec![]);
    let commands = run(&mut engine, |e, out| e.on_fetched(NOW, deposed, out));
    assert!(matches!(commands[..], [Command::Fetch { .. }]), "one that may be deposed judges nothing: {commands:?}");
    let event = answer(4, ReplicaVerdict::Continues, leader_state(3, 12, 12), vec![]);
    let commands = run(&mut engine, |e, out| e.on_fetched(NOW, event, out));
    let Some(Command::Fetched { reply: "beyond", result: Err(error) }) = commands.first() else {
        panic!("{commands:?}")
    };
    assert_eq!(error.code, ErrorCode::OffsetOutOfRange);
}

#[test]
fn rule_6_a_log_that_was_emptied_knows_nothing_of_the_epoch_before_its_start() {
    let mut engine = follower(12, 10);
    run(&mut engine, |e, out| e.on_metadata(NOW, following(1, 5), out));
    // Its leader wrote epochs 3 and 4 meanwhile, and has deleted them.
    let verdict = ReplicaVerdict::StartsAt { offset: Offset(40), producers: Vec::new() };
    let state = LeaderState { log_start: Offset(40), ..leader_state(5, 40, 40) };
    run(&mut engine, |e, out| e.on_fetched(NOW, answer(1, verdict, state, Vec::new()), out));
    let (log_start, end) = (Offset(40), Offset(40));
    let emptied = Truncated { log_start, end, producers: ProducerTable::default() };
    run(&mut engine, |e, out| e.on_truncated(NOW, emptied, out));
    // As a leader it would call everybody's epoch 4 another history, up to where they had it from epoch 2.
    let (state, _) = engine.into_state();
    assert_eq!((state.log_start, state.epochs.latest()), (Offset(40), None));
}

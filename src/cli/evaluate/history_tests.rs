use super::*;

const READERS: [&str; 2] = ["consumer-1", "consumer-2"];

fn record(number: u64) -> RecordId {
    RecordId { producer: 1, number }
}

fn place() -> Place {
    Place::new("orders", 0)
}

/// Records 0, 1 and 2 at offsets 0, 1 and 2; the last one was not acknowledged; both readers saw all.
fn good() -> History {
    let mut history = History::default();
    for number in 0..3 {
        history.sent(record(number), &place());
        if number < 2 {
            history.acknowledged(record(number), Offset(number));
        }
        for reader in READERS {
            see(&mut history, reader, number, &format!("1:{number}"));
        }
    }
    history
}

fn see(history: &mut History, reader: &str, offset: u64, value: &str) {
    history.saw(reader, &place(), Offset(offset), value.as_bytes());
}

fn found(history: &History) -> Vec<String> {
    history.check().iter().map(Violation::to_string).collect()
}

#[test]
fn a_good_history_has_nothing_against_it() {
    assert_eq!(found(&good()), Vec::<String>::new());
    assert_eq!(found(&History::default()), Vec::<String>::new());
}

#[test]
fn an_offset_that_does_not_rise_is_found() {
    let mut history = good();
    history.sent(record(3), &place());
    see(&mut history, READERS[0], 2, "1:3");
    let found = found(&history);
    assert_eq!(found[0], "consumer-1 saw offset 2 of orders-0 after offset 2");
    assert_eq!(found[1], "orders-0@2 is record 1:2 to consumer-1 and record 1:3 to consumer-1");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_record_that_nobody_sent_is_found() {
    let mut history = good();
    see(&mut history, READERS[0], 3, "1:9");
    see(&mut history, READERS[1], 3, "rubbish");
    assert_eq!(
        found(&history),
        [
            "consumer-1 saw '1:9' at orders-0@3, which nobody sent there",
            "consumer-2 saw 'rubbish' at orders-0@3, which nobody sent there"
        ]
    );
}

#[test]
fn a_record_in_another_partition_than_it_was_sent_to_is_found() {
    let mut history = good();
    history.sent(record(3), &Place::new("orders", 1));
    see(&mut history, READERS[0], 3, "1:3");
    assert_eq!(found(&history), ["consumer-1 saw '1:3' at orders-0@3, which nobody sent there"]);
}

#[test]
fn two_contents_of_one_offset_are_found() {
    let mut history = good();
    history.sent(record(3), &place());
    history.sent(record(4), &place());
    see(&mut history, READERS[0], 3, "1:3");
    see(&mut history, READERS[1], 3, "1:4");
    assert_eq!(found(&history), ["orders-0@3 is record 1:3 to consumer-1 and record 1:4 to consumer-2"]);
}

#[test]
fn two_acknowledgements_for_one_offset_are_found() {
    let mut history = good();
    for number in [3, 4] {
        history.sent(record(number), &place());
        history.acknowledged(record(number), Offset(3));
    }
    for reader in READERS {
        history.reader_ended(reader);
    }
    assert_eq!(found(&history), ["orders-0@3 is record 1:3 to its producer and record 1:4 to its producer"]);
}

#[test]
fn a_record_that_is_there_twice_is_found_acknowledged_or_not() {
    let mut history = good();
    see(&mut history, READERS[0], 3, "1:2");
    assert_eq!(found(&history), ["record 1:2 is at orders-0@2 to consumer-1 and at orders-0@3 to consumer-1"]);
}

#[test]
fn a_record_at_two_offsets_is_found_though_no_reader_saw_both() {
    let mut history = good();
    history.sent(record(3), &place());
    see(&mut history, READERS[0], 3, "1:3");
    see(&mut history, READERS[1], 4, "1:3");
    assert_eq!(
        found(&history),
        [
            "record 1:3 is at orders-0@3 to consumer-1 and at orders-0@4 to consumer-2",
            "consumer-2 passed over orders-0@3, where consumer-1 saw record 1:3"
        ]
    );
}

#[test]
fn an_offset_that_a_reader_passed_over_is_found_acknowledged_or_not() {
    let mut history = good();
    for number in [3, 4] {
        history.sent(record(number), &place());
    }
    for (reader, number) in [(READERS[0], 3), (READERS[0], 4), (READERS[1], 4)] {
        see(&mut history, reader, number, &format!("1:{number}"));
    }
    history.reader_ended(READERS[1]);
    assert_eq!(found(&history), ["consumer-2 passed over orders-0@3, where consumer-1 saw record 1:3"]);
    history.acknowledged(record(3), Offset(3));
    assert_eq!(found(&history), ["consumer-2 never saw record 1:3, which was acknowledged at orders-0@3"]);
}

#[test]
fn an_order_that_was_not_kept_is_found() {
    let mut history = good();
    history.sent(record(3), &place());
    history.sent(record(4), &place());
    history.sent(RecordId { producer: 2, number: 0 }, &place());
    for (offset, value) in [(3, "1:4"), (4, "2:0"), (5, "1:3")] {
        see(&mut history, READERS[1], offset, value);
    }
    assert_eq!(found(&history), ["consumer-2 saw record 1:4 before record 1:3 in orders-0"]);
}

#[test]
fn an_acknowledged_record_that_a_reader_did_not_see_is_found() {
    let mut history = good();
    history.sent(record(3), &place());
    history.acknowledged(record(3), Offset(3));
    see(&mut history, READERS[0], 3, "1:3");
    assert_eq!(found(&history), ["consumer-2 never saw record 1:3, which was acknowledged at orders-0@3"]);
    // One that never saw anything has missed everything.
    history.reader_ended(READERS[1]);
    history.reader_begins("consumer-3");
    assert_eq!(found(&history).len(), 3);
}

#[test]
fn a_reader_that_ended_may_lack_what_came_later_and_nothing_before() {
    let mut history = good();
    for number in 3..6 {
        history.sent(record(number), &place());
        history.acknowledged(record(number), Offset(number));
        see(&mut history, READERS[0], number, &format!("1:{number}"));
    }
    history.reader_ended(READERS[1]);
    assert_eq!(found(&history), Vec::<String>::new());
    see(&mut history, READERS[1], 4, "1:4");
    assert_eq!(found(&history), ["consumer-2 never saw record 1:3, which was acknowledged at orders-0@3"]);
}

#[test]
fn an_acknowledged_record_at_another_offset_is_found() {
    let mut history = good();
    history.sent(record(3), &place());
    history.acknowledged(record(3), Offset(3));
    for reader in READERS {
        see(&mut history, reader, 4, "1:3");
    }
    assert_eq!(
        found(&history),
        READERS.map(|reader| format!("{reader} saw record 1:3 at orders-0@4, it was acknowledged at orders-0@3"))
    );
}

#[test]
fn who_is_behind_is_known_without_reading_the_history() {
    let mut history = good();
    assert_eq!(history.behind(), Vec::<String>::new());
    history.reader_begins("consumer-3");
    assert_eq!(history.behind(), ["consumer-3"]);
    history.reader_ended("consumer-3");
    history.sent(record(3), &place());
    history.acknowledged(record(3), Offset(3));
    see(&mut history, READERS[0], 3, "1:3");
    assert_eq!(history.behind(), ["consumer-2"]);
    // What somebody saw must be there for all, acknowledged or not.
    history.sent(record(4), &place());
    see(&mut history, READERS[1], 4, "1:4");
    assert_eq!(history.behind(), ["consumer-1"]);
    assert_eq!(history.acknowledged_counts(), BTreeMap::from([(place(), 3)]));
    assert_eq!((history.sent_count(), history.seen_count()), (5, 8));
}

#[test]
fn a_value_tells_its_record() {
    let record = RecordId { producer: 7, number: u64::MAX };
    assert_eq!(RecordId::of_value(record.to_string().as_bytes()), Some(record));
    for other in ["", "7", "7:", ":7", "7:x", "-1:2", "7:1:2"] {
        assert_eq!(RecordId::of_value(other.as_bytes()), None, "{other}");
    }
}

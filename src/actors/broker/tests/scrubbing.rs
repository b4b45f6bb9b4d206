//! The background scrub goes round, whatever replicas come, go, and cannot be opened.

use super::*;

/// Round after round, with a thousandth of a second between their beginnings.
fn scrubbing(bytes_per_second: u64) -> Stage {
    let thread = DiskThread::start();
    let mut partitions = replica_settings(ME, &thread, 0);
    partitions.storage.scrub_bytes_per_second = bytes_per_second;
    partitions.storage.scrub_interval_ms = 1;
    Stage::set(&VirtualDisk::new(1), Desk::new(beginning()), thread, partitions)
}

impl Stage {
    async fn after_another_round(&self) {
        let before = self.metrics.scrub.rounds.get();
        self.until("two more rounds end", |stage| stage.metrics.scrub.rounds.get() >= before + 2).await;
    }
}

#[actix::test]
async fn rounds_go_on_while_replicas_come_go_and_cannot_be_opened() {
    let stage = scrubbing(1 << 30);
    stage.counted_on().await;
    stage.commit(&[mine(1, 2), mine(2, 3)]);
    stage.caught_up().await;
    stage.after_another_round().await;
    assert!(stage.metrics.scrub.last_round_ended_ms.get() > 0);
    // Rounds wait for a disk thread that is busy, and for nobody who is gone by then.
    let held = stage.thread.hold_up();
    stage.commit(&[MetadataRecord::TopicDeleted { topic: id(2) }, mine(3, 1)]);
    drop(held);
    stage.after_another_round().await;
    stage.caught_up().await;
    stage.after_another_round().await;
    assert_eq!(stage.stop().await, [""; 0]);
}

#[actix::test]
async fn without_a_rate_nothing_is_looked_through() {
    let stage = scrubbing(0);
    stage.counted_on().await;
    stage.commit(&[mine(1, 1)]);
    stage.caught_up().await;
    assert_eq!(stage.stop().await, [""; 0]);
    assert_eq!(stage.metrics.scrub.last_round_ended_ms.get(), 0);
}

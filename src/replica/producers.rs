//! The producers of a partition, rebuilt from its log.

use crate::engine::producer_state::{ProducerTable, Verdict};
use crate::storage::Replay;
use crate::types::Offset;
use crate::types::record_batch::BatchHeader;

/// A table that takes in what a log says of its producers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerReplay(pub ProducerTable);

impl Replay for ProducerReplay {
    fn snapshot(&mut self, _at: Offset, payload: &[u8]) -> bool {
        match ProducerTable::from_snapshot(payload) {
            Some(table) => {
                self.0 = table;
                true
            }
            None => false,
        }
    }

    fn batch(&mut self, header: &BatchHeader) {
        self.0.record(header);
    }

    /// The log holds only what was new when it was appended, and its time seldom leaps.
    fn fits(&self, header: &BatchHeader) -> bool {
        (self.0.has_gaps() || self.0.judge(header) == Verdict::New) && !self.0.leaps_ahead(header)
    }

    fn gap(&mut self) {
        self.0.note_gap();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::storage::disk::{Disk, SyncPoint, VirtualDisk};
    use crate::storage::file_cache::FileCache;
    use crate::storage::{Log, LogConfig, PartitionIdentity};
    use crate::types::record_batch::{BatchBuilder, Compression, RecordBatch};
    use crate::types::{
        ClusterId, LeaderEpoch, PartitionIndex, ProducerEpoch, ProducerId, TimestampMs, TopicConfig, TopicId, TopicName,
    };

    const DAY_MS: i64 = 86_400_000;

    /// One record of that producer, its first, at that time.
    fn batch(producer: i64, offset: u64, time: i64) -> RecordBatch {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        builder.set_producer(ProducerId(producer), ProducerEpoch(0), 0);
        builder.append(TimestampMs(time), None, Some(b"v"), &[]);
        let batch = RecordBatch::from_client(builder.build().unwrap()).unwrap();
        batch.stamped(Offset(offset), LeaderEpoch(0), None)
    }

    /// A log of these batches, and what it says of its producers when a bit has flipped (byte, bit).
    fn replayed(batches: &[RecordBatch], flipped: Option<(u64, u8)>) -> ProducerReplay {
        let disk = VirtualDisk::new(7);
        let files = Arc::new(FileCache::new(Arc::new(disk.clone()), 8));
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/"), SyncPoint::PartitionCreated).unwrap();
        let identity = PartitionIdentity {
            cluster_id: ClusterId(uuid::Uuid::from_u128(1)),
            topic: TopicName::new("t").unwrap(),
            topic_id: TopicId(uuid::Uuid::from_u128(2)),
            partition: PartitionIndex(0),
        };
        let config = LogConfig::from(&TopicConfig::default());
        let dir = Path::new("/data/t-0");
        let mut log = Log::create(Arc::new(disk.clone()), files, dir, &identity, config).unwrap();
        log.append(TimestampMs(0), batches).unwrap();
        if let Some((byte, bit)) = flipped {
            disk.flip_bit(&dir.join("00000000000000000000.log"), byte, bit).unwrap();
        }
        let mut replay = ProducerReplay::default();
        log.replay_producers(&mut replay).unwrap();
        replay.0.expire(DAY_MS);
        replay
    }

    #[test]
    fn a_time_that_a_flipped_bit_made_makes_no_producer_expire() {
        let batches = [batch(1, 0, DAY_MS), batch(2, 1, DAY_MS + 1), batch(3, 2, DAY_MS + 2)];
        let known = |replay: &ProducerReplay| (replay.0.len(), replay.0.has_gaps());
        assert_eq!(known(&replayed(&batches, None)), (3, false));
        // In the largest timestamp, which begins at byte 35.
        for damaged in batches[..2].iter().scan(0, |at, batch| Some(std::mem::replace(at, *at + batch.total_bytes()))) {
            let flipped = Some((damaged as u64 + 36, 5));
            assert_eq!(known(&replayed(&batches, flipped)), (2, true), "the damaged batch is a gap, nothing else");
        }
    }

    #[test]
    fn the_first_batch_tells_of_its_producer_though_its_records_are_damaged() {
        let batches = [batch(1, 0, DAY_MS)];
        let replay = replayed(&batches, Some((batches[0].total_bytes() as u64 - 1, 0)));
        assert_eq!((replay.0.len(), replay.0.has_gaps()), (1, false));
    }

    #[test]
    fn the_last_batch_ends_where_the_log_does_whatever_its_head_says() {
        let batches = [batch(1, 0, DAY_MS), batch(2, 1, DAY_MS)];
        // Its last offset delta, of which the sequence of the producer's next batch is made: bytes 23 to 26.
        let flipped = Some((batches[0].total_bytes() as u64 + 26, 3));
        let replay = replayed(&batches, flipped);
        assert_eq!((replay.0.len(), replay.0.has_gaps()), (1, true), "what the damaged batch says is not known");
        let only = &batches[..1];
        assert_eq!(replayed(only, Some((26, 3))).0.len(), 0);
        assert_eq!(replayed(only, None).0.len(), 1);
    }

    #[test]
    fn producers_expire_by_a_leap_of_time_that_is_in_the_log() {
        let batches = [batch(1, 0, DAY_MS), batch(2, 1, 3 * DAY_MS), batch(3, 2, 3 * DAY_MS)];
        let replay = replayed(&batches, None);
        assert_eq!((replay.0.len(), replay.0.has_gaps()), (2, false));
    }
}

//! The fetches of one connection, as data: which are asked, which are answered, and what goes into the next reply.

use std::collections::{BTreeMap, HashMap};

use crate::protocol::frame::Attachment;
use crate::protocol::messages::peer::ReplicaFetched;
use crate::types::TopicPartition;

/// Answers in a reply, which may have 262,144 values: one has about 15. As many as a request has fetches.
const MAX_ANSWERS: usize = 5_000;

/// Where the newest fetch of a partition is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// With its partition, under this serial number.
    Asked(u64),
    /// Answered, as this one in the order of answers.
    Ready(u64),
}

/// See the module page.
#[derive(Debug, Default)]
pub(super) struct Serving {
    newest: HashMap<TopicPartition, Place>,
    asked: HashMap<u64, (TopicPartition, u64)>,
    ready: BTreeMap<u64, (ReplicaFetched, Attachment)>,
    last_serial: u64,
}

impl Serving {
    /// A fetch came. What is known of an older one of that partition is forgotten. Returns the serial number to ask it under.
    pub fn ask(&mut self, partition: TopicPartition, number: u64) -> u64 {
        self.last_serial += 1;
        match self.newest.insert(partition, Place::Asked(self.last_serial)) {
            Some(Place::Asked(serial)) => drop(self.asked.remove(&serial)),
            Some(Place::Ready(serial)) => drop(self.ready.remove(&serial)),
            None => {}
        }
        self.asked.insert(self.last_serial, (partition, number));
        self.last_serial
    }

    /// The partition and number of the fetch that was asked under `serial`, if it is still the newest of its partition and not answered.
    pub fn asked(&self, serial: u64) -> Option<(TopicPartition, u64)> {
        self.asked.get(&serial).copied()
    }

    /// It was answered.
    pub fn put(&mut self, serial: u64, fetched: ReplicaFetched, records: Attachment) {
        let Some((partition, _)) = self.asked.remove(&serial) else { return };
        self.last_serial += 1;
        self.newest.insert(partition, Place::Ready(self.last_serial));
        self.ready.insert(self.last_serial, (fetched, records));
    }

    /// Whether there is an answer to send.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The oldest answers, as many as `max_bytes` of records hold, and the first of them in any case.
    pub fn take(&mut self, max_bytes: usize) -> (Vec<ReplicaFetched>, Vec<Attachment>) {
        let (mut answers, mut attachments, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(next) = self.ready.first_entry() {
            bytes += next.get().1.len();
            let is_full = bytes > max_bytes || answers.len() == MAX_ANSWERS;
            if is_full && !answers.is_empty() {
                break;
            }
            let (fetched, records) = next.remove();
            self.newest.remove(&fetched.partition);
            answers.push(fetched);
            attachments.push(records);
        }
        (answers, attachments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::Outcome;
    use crate::protocol::{ApiError, ErrorCode};
    use crate::types::{PartitionIndex, TopicId};

    fn place(partition: u32) -> TopicPartition {
        TopicPartition::new(TopicId(uuid::Uuid::from_u128(1)), PartitionIndex(partition))
    }

    /// The fetch under `serial` is answered with so many bytes.
    fn answer(serving: &mut Serving, serial: u64, bytes: usize) {
        let Some((partition, number)) = serving.asked(serial) else { return };
        let outcome = Outcome::from(Err(ApiError::new(ErrorCode::NotLeader, "")));
        let records = Attachment::from(bytes::Bytes::from(vec![0; bytes]));
        serving.put(serial, ReplicaFetched { partition, number, outcome }, records);
    }

    fn take(serving: &mut Serving, max_bytes: usize) -> Vec<(u32, u64)> {
        let (answers, attachments) = serving.take(max_bytes);
        assert_eq!(answers.len(), attachments.len());
        answers.iter().map(|answer| (answer.partition.partition.0, answer.number)).collect()
    }

    #[test]
    fn answers_go_out_in_order_as_many_as_fit_and_one_in_any_case() {
        let mut serving = Serving::default();
        let serials: Vec<_> = (0..4).map(|partition| serving.ask(place(partition), 7)).collect();
        assert!(!serving.is_ready());
        for (serial, bytes) in [(2, 30), (0, 5), (1, 6), (3, 1)] {
            answer(&mut serving, serials[serial], bytes);
        }
        assert_eq!(take(&mut serving, 10), [(2, 7)]);
        assert_eq!(take(&mut serving, 10), [(0, 7)]);
        assert_eq!(take(&mut serving, 10), [(1, 7), (3, 7)]);
        assert_eq!((take(&mut serving, 10), serving.newest.len()), (vec![], 0));
    }

    #[test]
    fn a_newer_fetch_takes_the_place_of_an_older_one_that_is_asked_or_answered() {
        let mut serving = Serving::default();
        let first = serving.ask(place(0), 1);
        let second = serving.ask(place(0), 2);
        answer(&mut serving, first, 1);
        assert!(!serving.is_ready(), "overtaken");
        answer(&mut serving, second, 1);
        let third = serving.ask(place(0), 3);
        assert!(!serving.is_ready(), "what was ready is out of date");
        answer(&mut serving, third, 1);
        answer(&mut serving, third, 1);
        assert_eq!(take(&mut serving, 10), [(0, 3)]);
        assert!(serving.asked.is_empty() && serving.newest.is_empty());
    }
}

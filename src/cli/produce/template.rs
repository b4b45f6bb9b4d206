//! A line as a record: what is the same for all of them stands in the template.

use std::sync::Arc;

use bytes::Bytes;

use super::lines::Delimiter;
use crate::cli::args::ProduceArgs;
use crate::client::{Header, OutgoingRecord};

/// Makes records: everything that is the same for all of them.
#[derive(Debug)]
pub(super) struct Template {
    topic: Arc<str>,
    partition: Option<u32>,
    /// The key of every record.
    pub(super) key: Option<Bytes>,
    key_separator: Option<Delimiter>,
    headers: Vec<Header>,
}

impl Template {
    /// What the arguments say.
    pub(super) fn new(args: &ProduceArgs) -> Self {
        let header = |(key, value): &(String, String)| Header { key: key.clone(), value: Some(value.clone().into()) };
        Self {
            topic: args.topic.as_str().into(),
            partition: args.partition,
            key: args.key.clone().map(Bytes::from),
            key_separator: args.key_separator.clone(),
            headers: args.header.iter().map(header).collect(),
        }
    }

    /// The record of one line.
    pub(super) fn record(&self, line: Bytes) -> OutgoingRecord {
        let (key, value) =
            match self.key_separator.as_ref().and_then(|separator| Some((separator, separator.find(&line)?))) {
                Some((separator, at)) => (Some(line.slice(..at)), line.slice(at + separator.as_bytes().len()..)),
                None => (self.key.clone(), line),
            };
        OutgoingRecord {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            key,
            value: Some(value),
            headers: self.headers.clone(),
            timestamp: None,
        }
    }
}

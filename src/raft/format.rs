//! How Raft's values stand on disk. The forms are ours, not openraft's: a new release of that library changes no file.
//!
//! ```text
//!   entry ──► StoredEntry ──► MessagePack ──► the value of a record ──► a batch of one record     offset = index
//!                                                                       leader epoch = term
//! ```
//!
//! One batch for each entry, so that the log can be cut before and after every entry. The term stands in the batch's leader
//! epoch too, where every tool for logs sees it, but what counts is the payload: a term has 64 bits, and more than one
//! candidate of a term may become leader in openraft's scheme, so that only term and leader together name it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::{CommittedLeaderId, Entry, EntryPayload, Membership};
use serde::{Deserialize, Serialize};

use super::error::{EntryError, RaftStorageError};
use super::types::{ControllerNode, Decision, LogId, MetadataRaft, RaftId, StoredMembership, Vote};
use crate::engine::metadata::MetadataRecord;
use crate::types::record_batch::{BatchBuilder, Compression, RecordBatch, decode_records};
use crate::types::{DirectoryId, LeaderEpoch, NodeId, Offset, TimestampMs};

/// An entry that decodes to more is not ours.
const DECODE_LIMIT_BYTES: usize = 64 << 20;

/// The field in the batch's header is signed.
const MAX_EPOCH: u32 = i32::MAX as u32;

/// A log id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredLogId {
    pub term: u64,
    pub leader: u64,
    pub index: u64,
}

impl From<LogId> for StoredLogId {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id.0, index: id.index }
    }
}

impl From<StoredLogId> for LogId {
    fn from(id: StoredLogId) -> Self {
        Self::new(CommittedLeaderId::new(id.term, RaftId(id.leader)), id.index)
    }
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredVote {
    pub term: u64,
    pub candidate: u64,
    /// A quorum granted it.
    pub granted: bool,
}

impl From<Vote> for StoredVote {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, candidate: vote.leader_id.node_id.0, granted: vote.committed }
    }
}

impl From<StoredVote> for Vote {
    fn from(vote: StoredVote) -> Self {
        let (term, candidate) = (vote.term, RaftId(vote.candidate));
        if vote.granted { Self::new_committed(term, candidate) } else { Self::new(term, candidate) }
    }
}

/// A member with a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredNode {
    node: NodeId,
    directory: DirectoryId,
    host: String,
    port: u16,
}

/// The members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredMembers {
    /// Two sets while the members change.
    voters: Vec<BTreeSet<u64>>,
    /// All members, learners too.
    nodes: BTreeMap<u64, StoredNode>,
}

impl From<&Membership<RaftId, ControllerNode>> for StoredMembers {
    fn from(membership: &Membership<RaftId, ControllerNode>) -> Self {
        let numbers = |set: &BTreeSet<RaftId>| set.iter().map(|id| id.0).collect();
        let stored = |node: &ControllerNode| StoredNode {
            node: node.node,
            directory: node.directory,
            host: node.host.clone(),
            port: node.port,
        };
        Self {
            voters: membership.get_joint_config().iter().map(numbers).collect(),
            nodes: membership.nodes().map(|(id, node)| (id.0, stored(node))).collect(),
        }
    }
}

impl From<StoredMembers> for Membership<RaftId, ControllerNode> {
    fn from(stored: StoredMembers) -> Self {
        let ids = |set: BTreeSet<u64>| set.into_iter().map(RaftId).collect::<BTreeSet<_>>();
        let nodes = stored.nodes.into_iter().map(|(id, node)| {
            let StoredNode { node, directory, host, port } = node;
            (RaftId(id), ControllerNode { node, directory, host, port })
        });
        Self::new(stored.voters.into_iter().map(ids).collect(), nodes.collect::<BTreeMap<_, _>>())
    }
}

/// The members, and the entry that made them so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredMembersAt {
    at: Option<StoredLogId>,
    members: StoredMembers,
}

impl From<&StoredMembership> for StoredMembersAt {
    fn from(membership: &StoredMembership) -> Self {
        Self { at: membership.log_id().map(Into::into), members: membership.membership().into() }
    }
}

impl From<StoredMembersAt> for StoredMembership {
    fn from(stored: StoredMembersAt) -> Self {
        Self::new(stored.at.map(Into::into), stored.members.into())
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum StoredPayload {
    Blank,
    Decision(Vec<MetadataRecord>),
    Members(StoredMembers),
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredEntry {
    /// As the batch's offset, which is outside the batch's checksum.
    index: u64,
    term: u64,
    leader: u64,
    /// All entries before this index were synced when this one was written: if one of them is missing, it was lost.
    synced_before: u64,
    payload: StoredPayload,
}

/// The leader epoch in the header of a batch of that term. One that the field cannot hold is cut to the largest it can: that
/// does not fall either.
pub(super) fn epoch_of(term: u64) -> LeaderEpoch {
    LeaderEpoch(u32::try_from(term).unwrap_or(MAX_EPOCH).min(MAX_EPOCH))
}

/// Encodes an entry that is written when all before `synced_before` are synced.
pub(super) fn encode<C: MetadataRaft>(entry: Entry<C>, synced_before: u64) -> Result<RecordBatch, RaftStorageError> {
    let id = entry.log_id;
    let payload = match entry.payload {
        EntryPayload::Blank => StoredPayload::Blank,
        EntryPayload::Normal(decision) => StoredPayload::Decision(decision.records),
        EntryPayload::Membership(membership) => StoredPayload::Members((&membership).into()),
    };
    let StoredLogId { term, leader, index } = id.into();
    let stored = StoredEntry { index, term, leader, synced_before, payload };
    let undecodable = |reason: String| RaftStorageError::Entry { index: id.index, reason };
    let value = rmp_serde::to_vec_named(&stored).map_err(|error| undecodable(error.to_string()))?;
    let mut builder = BatchBuilder::new(Compression::None, value.len() + 16);
    builder.append(TimestampMs::NONE, None, Some(&value), &[]);
    let mut bytes = builder.build().map_err(|error| undecodable(error.to_string()))?;
    let batch = RecordBatch::split_from(&mut bytes).map_err(|error| undecodable(error.to_string()))?;
    Ok(batch.stamped(Offset(id.index), epoch_of(stored.term), None))
}

/// Encodes an entry for another member: as it stands in the log, but for what is synced here, which is nothing to the other.
///
/// # Errors
/// [`RaftStorageError::Entry`].
pub fn encode_entry<C: MetadataRaft>(entry: Entry<C>) -> Result<RecordBatch, RaftStorageError> {
    encode(entry, 0)
}

/// Decodes an entry that [`encode_entry`] made, here or on another member: exactly one, whole and with a right checksum.
///
/// # Errors
/// [`EntryError`] for anything else.
pub fn decode_entry<C: MetadataRaft>(mut bytes: Bytes) -> Result<Entry<C>, EntryError> {
    let unreadable = |reason: String| EntryError { reason };
    let batch = RecordBatch::split_from(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
    if !bytes.is_empty() {
        return Err(unreadable(format!("{} bytes follow it", bytes.len())));
    }
    batch.verify_checksum().map_err(|error| unreadable(error.to_string()))?;
    let records = decode_records(&batch, DECODE_LIMIT_BYTES).map_err(|error| unreadable(error.to_string()))?;
    let [record] = records.as_slice() else {
        return Err(unreadable(format!("it is a batch of {} records, an entry has one", records.len())));
    };
    let stored: StoredEntry = rmp_serde::from_slice(record.value.as_deref().unwrap_or_default())
        .map_err(|error| unreadable(error.to_string()))?;
    if stored.index != batch.header.base_offset.0 {
        // The offset is outside the checksum.
        return Err(unreadable(format!("entry {} stands at offset {}", stored.index, batch.header.base_offset)));
    }
    Ok(FoundEntry::from(stored).into_entry())
}

/// An entry as it stands in the log.
#[derive(Debug)]
pub struct FoundEntry {
    /// Its position and leader.
    pub id: LogId,
    /// See `StoredEntry`.
    pub(super) synced_before: u64,
    payload: StoredPayload,
}

impl From<StoredEntry> for FoundEntry {
    fn from(stored: StoredEntry) -> Self {
        let id = StoredLogId { term: stored.term, leader: stored.leader, index: stored.index }.into();
        Self { id, synced_before: stored.synced_before, payload: stored.payload }
    }
}

impl FoundEntry {
    /// The decision in it, if it holds one.
    pub(super) fn decision(&self) -> Option<&[MetadataRecord]> {
        match &self.payload {
            StoredPayload::Decision(records) => Some(records),
            StoredPayload::Blank | StoredPayload::Members(_) => None,
        }
    }

    /// How many vote from this entry on, if it changes that.
    pub(super) fn voters(&self) -> Option<usize> {
        match &self.payload {
            StoredPayload::Members(members) => Some(members.voters.iter().flatten().collect::<BTreeSet<_>>().len()),
            StoredPayload::Blank | StoredPayload::Decision(_) => None,
        }
    }

    /// As openraft knows it.
    pub(super) fn into_entry<C: MetadataRaft>(self) -> Entry<C> {
        let payload = match self.payload {
            StoredPayload::Blank => EntryPayload::Blank,
            StoredPayload::Decision(records) => EntryPayload::Normal(Decision { records }),
            StoredPayload::Members(members) => EntryPayload::Membership(members.into()),
        };
        Entry { log_id: self.id, payload }
    }
}

/// Reads the value of a record; `index` is where it was looked for.
fn decode_value(index: u64, value: &[u8]) -> Result<FoundEntry, RaftStorageError> {
    let stored: StoredEntry =
        rmp_serde::from_slice(value).map_err(|error| RaftStorageError::Entry { index, reason: error.to_string() })?;
    Ok(stored.into())
}

/// Reads all entries of the batches in `bytes`.
pub(super) fn decode_batches(mut bytes: Bytes, into: &mut Vec<FoundEntry>) -> Result<(), RaftStorageError> {
    while !bytes.is_empty() {
        let due = into.last().map_or(0, |last| last.id.index + 1);
        let undecodable = |reason: String| RaftStorageError::Entry { index: due, reason };
        let batch = RecordBatch::split_from(&mut bytes).map_err(|error| undecodable(error.to_string()))?;
        let records = decode_records(&batch, DECODE_LIMIT_BYTES).map_err(|error| undecodable(error.to_string()))?;
        for record in records {
            into.push(decode_value(record.offset.0, record.value.as_deref().unwrap_or_default())?);
        }
    }
    Ok(())
}

//! The bytes of what brokers ask of controllers. Written by hand from docs/protocol.md.

use uuid::Uuid;

use super::tests::golden;
use super::*;
use crate::types::{
    BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, NodeId, PartitionIndex, TopicId, TopicPartition,
};

fn partition() -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(7)), PartitionIndex(2))
}

/// Sixteen bytes, the last of which is this one.
macro_rules! uuid_bytes {
    ($last:literal) => {
        [0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, $last]
    };
}

#[test]
fn golden_bytes_of_a_registration() {
    let request = RegisterBroker {
        node: NodeId(3),
        incarnation: IncarnationId(Uuid::from_u128(5)),
        directory: DirectoryId(Uuid::from_u128(33)),
        host: "h".to_owned(),
        port: 9_644,
        peer_host: Some("p".to_owned()),
        peer_port: Some(9_645),
        rack: None,
        software: "x 1".to_owned(),
        held_epoch: BrokerEpoch(4),
        last_stop: 2,
    };
    let bytes = [
        &[0, 0, 0, 61, 0x95, 0xcc, 220, 1, 1][..], // length, api 220, version 1, correlation id 1
        &[0x9b, 3],                                // eleven fields; node
        &uuid_bytes!(5),                           // incarnation
        &uuid_bytes!(33),                          // directory
        &[0xa1, b'h', 0xcd, 0x25, 0xac],           // for clients
        &[0xa1, b'p', 0xcd, 0x25, 0xad, 0xc0],     // for nodes; no rack
        &[0xa3, b'x', b' ', b'1', 4, 2],           // software, held epoch, the machine went down
        &[0x90],                                   // no attachments
    ]
    .concat();
    let reply = BrokerRegistered { epoch: BrokerEpoch(5), index: 300 };
    let reply_bytes = [0, 0, 0, 13, 0x95, 0xcc, 220, 1, 1, 0x92, 0xc0, 0x92, 5, 0xcd, 1, 44, 0x90];
    golden(1, (request, &[], &bytes), (reply, &reply_bytes));
}

#[test]
fn golden_bytes_of_a_renewal() {
    let request = RenewLease { node: NodeId(3), epoch: BrokerEpoch(5), applied: 300, doubtful: vec![partition()] };
    let bytes = [
        &[0, 0, 0, 33, 0x95, 0xcc, 221, 1, 2][..],
        &[0x94, 3, 5, 0xcd, 1, 44, 0x91, 0x92], // node, epoch, applied; one doubtful partition
        &uuid_bytes!(7),
        &[2, 0x90], // its number; no attachments
    ]
    .concat();
    let head = |length: u8| [0, 0, 0, length, 0x95, 0xcc, 221, 1, 2, 0x92, 0xc0, 0x93];
    let replies: [(RenewLeaseReply, u8, &[u8]); 4] = [
        (RenewLeaseReply::Renewed { duration_ms: 900 }, 14, &[0, 0xcd, 3, 132, 0xc0, 0x90]),
        (RenewLeaseReply::Fenced, 12, &[1, 0xc0, 0xc0, 0x90]),
        (RenewLeaseReply::Lapsed, 12, &[2, 0xc0, 0xc0, 0x90]),
        (RenewLeaseReply::Stale { current: Some(BrokerEpoch(6)) }, 12, &[3, 0xc0, 6, 0x90]),
    ];
    for (reply, length, rest) in replies {
        golden(2, (request.clone(), &[], &bytes), (reply, &[&head(length)[..], rest].concat()));
    }
    for wrong in [&[0x93, 0, 0xc0, 0xc0][..], &[0x93, 4, 0xc0, 0xc0], &[0x93, 1, 5, 0xc0]] {
        assert!(rmp_serde::from_slice::<RenewLeaseReply>(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn golden_bytes_of_following_the_metadata() {
    let request = FetchMetadata { node: NodeId(3), epoch: BrokerEpoch(0), index: 300, max_wait_ms: 5_000 };
    let bytes = [0, 0, 0, 15, 0x95, 0xcc, 225, 1, 3, 0x94, 3, 0, 0xcd, 1, 44, 0xcd, 19, 136, 0x90];
    let reply = FetchMetadataReply { index: 301, is_image: false, hand_overs: vec![(partition(), NodeId(4))] };
    let reply_bytes = [
        &[0, 0, 0, 36, 0x95, 0xcc, 225, 1, 3, 0x92, 0xc0][..],
        &[0x93, 0xcd, 1, 45, 0xc2, 0x91, 0x92, 0x92], // index, entries; one leadership
        &uuid_bytes!(7),
        &[2, 4, 0x90], // its number, to whom; the attachments are counted behind it
    ]
    .concat();
    golden(3, (request, &[], &bytes), (reply, &reply_bytes));
}

#[test]
fn golden_bytes_of_a_proposal() {
    let proposed = ProposedInSync {
        partition: partition(),
        leader_epoch: LeaderEpoch(4),
        partition_epoch: 8,
        members: vec![(NodeId(3), BrokerEpoch(5))],
        new_leader: None,
    };
    let request = ProposeInSync { node: NodeId(3), epoch: BrokerEpoch(5), proposals: vec![proposed] };
    let bytes = [
        &[0, 0, 0, 38, 0x95, 0xcc, 223, 1, 4][..],
        &[0x93, 3, 5, 0x91, 0x95, 0x92], // node, epoch; one proposal, its partition
        &uuid_bytes!(7),
        &[2, 4, 8, 0x91, 0x92, 3, 5, 0xc0, 0x90], // epochs, one member, the leader stays
    ]
    .concat();
    let why = "so".to_owned();
    let reply = ProposeInSyncReply { refused: vec![RefusedInSync { partition: partition(), partition_epoch: 8, why }] };
    let reply_bytes = [
        &[0, 0, 0, 35, 0x95, 0xcc, 223, 1, 4, 0x92, 0xc0][..],
        &[0x91, 0x91, 0x93, 0x92], // one that was refused
        &uuid_bytes!(7),
        &[2, 8, 0xa2, b's', b'o', 0x90], // its number, its epoch, why
    ]
    .concat();
    golden(4, (request, &[], &bytes), (reply, &reply_bytes));
}

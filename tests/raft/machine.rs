//! The state machine by itself: what it refuses, what never goes back, and the bytes on disk.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use callboard::engine::metadata::{FEATURE_LEVEL, MetadataRecord};
use callboard::raft::{
    Decision, LogFiles, RaftId, RaftPlace, RaftStorage, RaftWork, SnapshotFiles, StateMachine, TypeConfig, Vote,
};
use callboard::storage::disk::{Disk, OpenMode, VirtualDisk, read_full_at};
use callboard::types::{ClusterId, ProducerId};
use openraft::storage::RaftStateMachine;
use openraft::{Entry, EntryPayload, Membership, RaftSnapshotBuilder, Snapshot};

use crate::support::{entries, entry, log_id, node, place};

fn machine(disk: &Arc<VirtualDisk>) -> StateMachine<TypeConfig> {
    let place = place(disk, 1);
    let storage = if disk.exists(&place.dir).unwrap() {
        RaftStorage::open(&place, &RaftWork::here())
    } else {
        RaftStorage::create(&place, &RaftWork::here())
    };
    storage.unwrap().machine
}

fn disk() -> Arc<VirtualDisk> {
    Arc::new(VirtualDisk::new(1))
}

async fn snapshot(machine: &mut StateMachine<TypeConfig>) -> Snapshot<TypeConfig> {
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap()
}

async fn index(machine: &mut StateMachine<TypeConfig>) -> Option<u64> {
    machine.applied_state().await.unwrap().0.map(|id| id.index)
}

#[tokio::test]
async fn what_was_applied_never_goes_back_whatever_snapshot_arrives() {
    let disk = disk();
    let mut machine = machine(&disk);
    machine.apply(entries(1, 0..5)).await.unwrap();
    let old = snapshot(&mut machine).await;
    machine.apply(entries(1, 5..10)).await.unwrap();
    machine.install_snapshot(&old.meta, old.snapshot.clone()).await.unwrap();
    assert_eq!(index(&mut machine).await, Some(9));

    // Nor does the file: a builder that was slower than an installation does not replace it.
    let mut slow = machine.get_snapshot_builder().await;
    machine.apply(entries(1, 10..12)).await.unwrap();
    let new = snapshot(&mut machine).await;
    slow.build_snapshot().await.unwrap();
    assert_eq!(machine.get_current_snapshot().await.unwrap().unwrap().meta, new.meta);
    drop(machine);
    disk.power_loss_keeping_nothing();
    assert_eq!(index(&mut self::machine(&disk)).await, Some(11));
}

#[tokio::test]
async fn a_snapshot_that_is_damaged_foreign_or_of_another_form_changes_nothing() {
    let mut from = machine(&disk());
    from.apply(entries(1, 0..5)).await.unwrap();
    let good = snapshot(&mut from).await;
    let data = good.snapshot.get_ref().clone();

    let disk = disk();
    let mut machine = machine(&disk);
    for at in [0, 3, 20, data.len() - 1] {
        let mut damaged = data.clone();
        damaged[at] ^= 4;
        assert!(machine.install_snapshot(&good.meta, Box::new(Cursor::new(damaged))).await.is_err(), "byte {at}");
    }
    for length in [0, 5, data.len() - 1] {
        let short = data[..length].to_vec();
        assert!(machine.install_snapshot(&good.meta, Box::new(Cursor::new(short))).await.is_err(), "{length} bytes");
    }
    let foreign = RaftPlace {
        identity: callboard::raft::RaftIdentity { cluster: ClusterId(uuid::Uuid::nil()), ..place(&disk, 1).identity },
        ..place(&Arc::new(VirtualDisk::new(2)), 1)
    };
    let mut other = RaftStorage::<TypeConfig>::create(&foreign, &RaftWork::here()).unwrap().machine;
    assert!(other.install_snapshot(&good.meta, good.snapshot.clone()).await.is_err(), "another cluster's");
    assert_eq!(index(&mut machine).await, None);
    assert!(machine.get_current_snapshot().await.unwrap().is_none());
    machine.install_snapshot(&good.meta, good.snapshot).await.unwrap();
    assert_eq!(index(&mut machine).await, Some(4));
}

#[tokio::test]
async fn a_snapshot_file_that_is_damaged_ends_the_start() {
    let disk = disk();
    let mut machine = machine(&disk);
    machine.apply(entries(1, 0..5)).await.unwrap();
    snapshot(&mut machine).await;
    drop(machine);
    disk.flip_bit(Path::new("/raft/snapshot"), 40, 1).unwrap();
    let error = SnapshotFiles::open(&place(&disk, 1)).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[tokio::test]
async fn a_record_of_newer_software_stops_the_member_instead_of_being_skipped() {
    let mut machine = machine(&disk());
    let records = vec![MetadataRecord::FeatureLevel { level: FEATURE_LEVEL + 1 }];
    let newer = Entry { log_id: log_id(1, 0), payload: EntryPayload::Normal(Decision { records }) };
    let error = machine.apply([newer, entry(1, 1)]).await.unwrap_err();
    assert!(error.to_string().contains("upgrade this node"), "{error}");
    assert_eq!(index(&mut machine).await, None);
}

#[tokio::test]
async fn each_image_is_published_with_the_entry_that_made_it() {
    let RaftStorage { mut machine, images, .. } =
        RaftStorage::<TypeConfig>::create(&place(&disk(), 1), &RaftWork::here()).unwrap();
    machine.apply(entries(1, 0..3)).await.unwrap();
    let image = images.borrow();
    assert_eq!(image.applied, Some(log_id(1, 2)));
    assert_eq!((image.image.index, image.image.next_producer_id), (3, ProducerId(1_002)));
}

fn hex(disk: &VirtualDisk, path: &str) -> String {
    let file = disk.open(Path::new(path), OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    read_full_at(&*file, &mut bytes, 0).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn the_bytes_on_disk_are_golden() {
    let disk = disk();
    let mut log = LogFiles::create(&place(&disk, 1)).unwrap();
    log.save_vote(Vote::new_committed(7, RaftId(2))).unwrap();
    let nodes: BTreeMap<_, _> = [(RaftId(1), node(1))].into();
    let membership = Membership::new(vec![[RaftId(1)].into()], nodes);
    let members = Entry::<TypeConfig> { log_id: log_id(7, 0), payload: EntryPayload::Membership(membership) };
    let blank = Entry { log_id: log_id(7, 1), payload: EntryPayload::Blank };
    log.append(vec![members, blank, entry(7, 2)]).unwrap();
    log.save_committed(Some(log_id(7, 1))).unwrap();
    let found = ["voter", "log/00000000000000000000.log"].map(|name| hex(&disk, &format!("/raft/{name}")));
    assert_eq!(found, GOLDEN.map(|text| text.replace([' ', '\n'], "")), "the format changed: is that on purpose?");
}

/// The voter file, and three entries. The image in a snapshot has its own version: it is the engine's.
const GOLDEN: [&str; 2] = [
    "
    4342727600010000009487a7636c7573746572c41000000000000000000000000000000063a96469726563746f7279c41000000000000000
    0000000000000003e9a2696401a4766f746583a47465726d07a963616e64696461746502a76772616e746564c3a9636f6d6d697474656483
    a47465726d07a66c656164657201a5696e64657801a6707572676564c0af7472756e636174696e675f66726f6dc0e28e397f",
    "
    0000000000000000000000c000000007025ba38f80000000000000ffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
    ff000000019a02000000018c0285a5696e64657800a47465726d07a66c656164657201ad73796e6365645f6265666f726500a77061796c6f
    616481a74d656d6265727382a6766f74657273919101a56e6f646573810184a46e6f646501a96469726563746f7279c41000000000000000
    0000000000000003e9a4686f7374ac636f6e74726f6c6c65722d31a4706f7274cd25ac0000000000000000010000006b00000007024a2e35
    7d000000000000ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff0000000172000000016685a5696e64657801a4
    7465726d07a66c656164657201ad73796e6365645f6265666f726500a77061796c6f6164a5426c616e6b0000000000000000020000009000
    000007022dfc9353000000000000ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff00000001ba0100000001ac01
    85a5696e64657802a47465726d07a66c656164657201ad73796e6365645f6265666f726500a77061796c6f616481a84465636973696f6e91
    81b350726f6475636572496473526573657276656481a46e657874cd1b5a00",
];

//! Beginning with metadata that there is already, and reading a member's files without taking part.

use std::collections::BTreeMap;
use std::sync::Arc;

use callboard::engine::metadata::ClusterImage;
use callboard::raft::{LogFiles, NewestImage, RaftId, RaftStorageError, TypeConfig, begin_with, newest_image, owner};
use callboard::storage::disk::{Disk, VirtualDisk};
use openraft::{Entry, EntryPayload, Membership};

use crate::support::{DIR, cluster, entries, log_id, node, place, reserve};

/// Metadata that has come to `index`, the last decision having reserved that many producer ids.
fn image_at(index: u64) -> ClusterImage {
    let mut image = ClusterImage::empty(cluster());
    image.apply_entry(&reserve(index).records).unwrap();
    ClusterImage { index, ..image }
}

#[test]
fn a_member_goes_on_at_the_index_of_the_metadata_that_it_begins_with() {
    let (disk, image) = (Arc::new(VirtualDisk::new(1)), image_at(57));
    let place = place(&disk, 1);
    assert_eq!(owner(&*disk, &place.dir).unwrap(), None);
    begin_with(&place, &node(1), &image).unwrap();
    disk.power_loss_keeping_nothing();
    assert_eq!(owner(&*disk, &place.dir).unwrap(), Some(place.identity));
    assert_eq!(newest_image(&place).unwrap().image, image);
    assert!(matches!(begin_with(&place, &node(1), &image), Err(RaftStorageError::Exists { .. })), "once");
}

#[test]
fn what_one_voter_has_written_is_decided_and_what_one_of_three_has_only_up_to_where_it_knows() {
    let disk = Arc::new(VirtualDisk::new(1));
    let place = place(&disk, 1);
    let mut log = LogFiles::create(&place).unwrap();
    let members = |ids: &[u64]| -> EntryPayload<TypeConfig> {
        let nodes: BTreeMap<_, _> = ids.iter().map(|id| (RaftId(*id), node(*id))).collect();
        EntryPayload::Membership(Membership::new(vec![nodes.keys().copied().collect()], nodes))
    };
    log.append(vec![Entry { log_id: log_id(1, 0), payload: members(&[1]) }]).unwrap();
    log.append(entries(1, 1..4)).unwrap();
    let newest = newest_image(&place).unwrap();
    assert_eq!((newest.image.next_producer_id.0, newest.voters), (1_003, 1));
    log.append(vec![Entry { log_id: log_id(1, 4), payload: members(&[1, 2, 3]) }]).unwrap();
    log.append(entries(1, 5..8)).unwrap();
    log.save_committed(Some(log_id(1, 6))).unwrap();
    drop(log);
    let NewestImage { image, voters } = newest_image(&place).unwrap();
    assert_eq!((image.next_producer_id.0, image.index, voters), (1_006, 7, 3));
}

#[test]
fn a_member_whose_votes_are_gone_is_nobodys_and_that_is_said() {
    let disk = Arc::new(VirtualDisk::new(1));
    let place = place(&disk, 1);
    drop(LogFiles::create(&place).unwrap());
    disk.remove_file(&std::path::Path::new(DIR).join("voter")).unwrap();
    assert!(matches!(owner(&*disk, &place.dir), Err(RaftStorageError::LostFile { .. })));
}

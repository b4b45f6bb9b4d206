//! The data directory's stories.

use uuid::Uuid;

use super::*;
use crate::storage::disk::{OpenMode, RealDisk, VirtualDisk, write_all_at};
use crate::types::{PartitionIndex, TopicId, TopicName};

const NODE: NodeId = NodeId(1);

fn open(disk: &VirtualDisk) -> Result<DataDir, DataDirError> {
    open_as(disk, NODE, None)
}

fn open_as(disk: &VirtualDisk, node: NodeId, cluster: Option<ClusterId>) -> Result<DataDir, DataDirError> {
    DataDir::open(Arc::new(disk.clone()), Path::new("/var/data"), node, cluster)
}

fn put(disk: &VirtualDisk, path: &str) {
    let path = Path::new(path);
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    write_all_at(&*disk.open(path, OpenMode::Create).unwrap(), b"content", 0).unwrap();
}

fn partition(name: &str, index: u32) -> (String, TopicPartition) {
    let partition = TopicPartition::new(TopicId(Uuid::from_u128(7)), PartitionIndex(index));
    (partition_dir_name(&TopicName::new(name).unwrap(), partition), partition)
}

#[test]
fn a_new_directory_gets_identities_and_keeps_them_through_power_losses_from_the_first_moment() {
    let disk = VirtualDisk::new(1);
    let first = open(&disk).unwrap().meta();
    for seed in 0..50 {
        disk.power_loss(&mut fastrand::Rng::with_seed(seed));
        assert_eq!(open(&disk).unwrap().meta(), first);
    }
    assert_eq!(open_as(&disk, NODE, Some(first.cluster)).unwrap().meta(), first);
    disk.wipe();
    assert_ne!(open(&disk).unwrap().meta().directory, first.directory, "a wiped directory is another one");
}

#[test]
fn a_crash_at_any_step_of_the_creation_leaves_a_directory_that_opens() {
    for step in 1.. {
        for seed in 0..20 {
            let disk = VirtualDisk::new(seed);
            disk.crash_after_operations(step);
            if open(&disk).is_ok() {
                assert!(step > 5, "the creation has steps");
                return;
            }
            if seed % 2 == 0 {
                disk.power_loss(&mut fastrand::Rng::with_seed(seed))
            } else {
                disk.kill()
            }
            let meta = open(&disk).unwrap().meta();
            disk.power_loss_keeping_nothing();
            assert_eq!(open(&disk).unwrap().meta(), meta, "step {step}, seed {seed}");
        }
    }
}

#[test]
fn a_directory_of_another_cluster_or_node_is_refused_in_one_line_that_says_what_to_do() {
    let disk = VirtualDisk::new(1);
    let meta = open(&disk).unwrap().meta();
    let other = ClusterId(Uuid::from_u128(1));
    let error = open_as(&disk, NODE, Some(other)).unwrap_err();
    assert!(
        matches!(error, DataDirError::OtherCluster { found, expected, .. } if found == meta.cluster && expected == other)
    );
    assert_eq!(
        error.to_string(),
        format!(
            "data directory /var/data belongs to cluster {}, this node to cluster {other}: \
             set node.data_dir to this cluster's directory, or to a new one",
            meta.cluster
        )
    );
    let error = open_as(&disk, NodeId(2), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "data directory /var/data belongs to node 1, this is node 2: set node.id to 1, or node.data_dir to another directory"
    );
}

#[test]
fn a_directory_of_a_newer_release_and_a_damaged_one_are_refused() {
    let disk = VirtualDisk::new(1);
    let meta = open(&disk).unwrap().meta();
    let path = Path::new("/var/data/callboard.meta");
    atomic_file::write_atomically(&disk, path, META_MAGIC, FORMAT_VERSION + 1, &encode(&meta)).unwrap();
    let error = open(&disk).unwrap_err();
    assert!(
        matches!(error, DataDirError::File(AtomicFileError::NewerVersion { found: 4, supported: 3, .. })),
        "{error}"
    );
    disk.flip_bit(path, 12, 3).unwrap();
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, DataDirError::File(AtomicFileError::Damaged { .. })), "{error}");
}

#[test]
fn a_directory_with_other_things_in_it_is_refused_and_not_touched() {
    let disk = VirtualDisk::new(1);
    put(&disk, "/var/data/holiday.jpg");
    let error = open(&disk).unwrap_err();
    assert!(matches!(&error, DataDirError::NotEmpty { entry, .. } if entry == "holiday.jpg"), "{error}");
    assert_eq!(disk.read_dir(Path::new("/var/data")).unwrap().len(), 1);
}

#[test]
fn a_clean_stop_counts_once_for_its_own_epoch_and_directory() {
    let disk = VirtualDisk::new(1);
    let data_dir = open(&disk).unwrap();
    assert_eq!(data_dir.take_clean_stop().unwrap(), None);
    data_dir.store_broker_epoch(BrokerEpoch(4)).unwrap();
    data_dir.mark_clean_stop(BrokerEpoch(4)).unwrap();
    disk.power_loss_keeping_nothing();
    let data_dir = open(&disk).unwrap();
    assert_eq!(data_dir.meta().broker_epoch, Some(BrokerEpoch(4)));
    assert_eq!(data_dir.take_clean_stop().unwrap(), Some(BrokerEpoch(4)));
    disk.power_loss_keeping_nothing();
    let data_dir = open(&disk).unwrap();
    assert_eq!(data_dir.take_clean_stop().unwrap(), None, "taken means taken, durably");

    data_dir.mark_clean_stop(BrokerEpoch(3)).unwrap();
    assert_eq!(data_dir.take_clean_stop().unwrap(), None, "of an older epoch");
    data_dir.mark_clean_stop(BrokerEpoch(4)).unwrap();
    disk.flip_bit(Path::new("/var/data/clean-stop"), 11, 0).unwrap();
    assert_eq!(data_dir.take_clean_stop().unwrap(), None, "damaged");
    let foreign = CleanStop { directory: DirectoryId::random(), epoch: BrokerEpoch(4) };
    let path = Path::new("/var/data/clean-stop");
    atomic_file::write_atomically(&disk, path, CLEAN_STOP_MAGIC, FORMAT_VERSION, &encode(&foreign)).unwrap();
    assert_eq!(data_dir.take_clean_stop().unwrap(), None, "of another directory");
    assert!(!disk.exists(path).unwrap());
}

#[test]
fn a_kill_and_a_power_loss_are_told_apart_by_the_boot_of_the_last_registration() {
    let disk = VirtualDisk::new(1);
    let data_dir = open(&disk).unwrap();
    assert!(data_dir.has_seen_another_boot().unwrap(), "a directory that does not tell promises nothing");
    data_dir.store_broker_epoch(BrokerEpoch(4)).unwrap();
    disk.kill();
    assert!(!open(&disk).unwrap().has_seen_another_boot().unwrap());
    disk.power_loss_keeping_nothing();
    let data_dir = open(&disk).unwrap();
    assert!(data_dir.has_seen_another_boot().unwrap());
    data_dir.store_broker_epoch(BrokerEpoch(5)).unwrap();
    assert!(!data_dir.has_seen_another_boot().unwrap());
}

#[test]
fn a_partition_is_named_after_its_topic_and_the_name_is_read_back() {
    let (name, id) = partition("ride-positions", 3);
    assert_eq!(name, "ride-positions-00000000000000000000000000000007-3");
    assert_eq!(parse_partition_dir_name(&name), Some(id));
    let (name, id) = partition(&"x".repeat(249), u32::MAX);
    assert!(name.len() <= 255 - ".deleted".len(), "{}", name.len());
    assert_eq!(parse_partition_dir_name(&name), Some(id));
    let hex = "00000000000000000000000000000007";
    for other in [
        "".to_owned(),
        METADATA_DIR.to_owned(),
        QUARANTINE_DIR.to_owned(),
        format!("{hex}-3"),
        format!("-{hex}-3"),
        format!("a-{hex}-"),
        format!("a-{hex}-03"),
        format!("a-{hex}-+3"),
        format!("a-{hex}-4294967296"),
        format!("a-{hex}-3.deleted"),
        format!("a-{hex}-3.creating"),
        format!("a-{}-3", hex.replace('7', "A")),
        format!("a-{{{hex}}}-3"),
        format!("{}-{hex}-3", "x".repeat(101)),
    ] {
        assert_eq!(parse_partition_dir_name(&other), None, "{other}");
    }
}

#[test]
fn a_deleted_partition_is_gone_after_a_crash_at_any_step_or_untouched() {
    let (name, id) = partition("a", 0);
    let (other, other_id) = partition("a", 1);
    for step in 1.. {
        for seed in 0..30 {
            let disk = VirtualDisk::new(seed);
            let data_dir = open(&disk).unwrap();
            for name in [&name, &other] {
                for file in ["1.log", "1.index"] {
                    put(&disk, &format!("/var/data/{name}/{file}"));
                }
                disk.sync_dir(&data_dir.root().join(name), SyncPoint::SegmentCreated).unwrap();
                disk.sync_dir(data_dir.root(), SyncPoint::PartitionCreated).unwrap();
            }
            disk.crash_after_operations(step);
            let deleted = data_dir.delete_partition_dir(&name).is_ok();
            disk.power_loss(&mut fastrand::Rng::with_seed(seed));
            let data_dir = open(&disk).unwrap();
            let there: Vec<_> = data_dir.partitions().unwrap().into_iter().map(|(id, _)| id).collect();
            if there == [id, other_id] && !deleted {
                assert_eq!(disk.read_dir(&data_dir.root().join(&name)).unwrap().len(), 2, "step {step}, seed {seed}");
            } else {
                assert_eq!(there, [other_id], "step {step}, seed {seed}");
            }
            let names = disk.read_dir(data_dir.root()).unwrap();
            assert!(!names.iter().any(|entry| entry.name.ends_with(".deleted")), "{names:?}");
            if deleted && seed == 29 {
                assert!(step > 4);
                return;
            }
        }
    }
}

#[test]
fn what_nobody_recognises_is_moved_aside_whole_and_twice_the_same_name_is_no_problem() {
    let disk = VirtualDisk::new(1);
    let data_dir = open(&disk).unwrap();
    for expected in ["/var/data/quarantine/odd", "/var/data/quarantine/odd.1"] {
        put(&disk, "/var/data/odd/file");
        disk.sync_dir(Path::new("/var/data/odd"), SyncPoint::SegmentCreated).unwrap();
        assert_eq!(data_dir.quarantine("odd").unwrap(), Path::new(expected));
        disk.power_loss_keeping_nothing();
        assert!(disk.exists(&Path::new(expected).join("file")).unwrap());
        assert!(!disk.exists(Path::new("/var/data/odd")).unwrap());
    }
}

#[test]
fn one_process_at_a_time_uses_a_directory() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("deep/data");
    let lock = lock_directory(&root).unwrap();
    let error = lock_directory(&root).unwrap_err();
    assert!(matches!(error, DataDirError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let meta = DataDir::open(Arc::clone(&disk), &root, NODE, None).unwrap().meta();
    drop(lock);
    let _lock = lock_directory(&root).unwrap();
    assert_eq!(DataDir::open(disk, &root, NODE, None).unwrap().meta(), meta);
}

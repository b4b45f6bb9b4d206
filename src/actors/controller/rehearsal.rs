//! What the metadata of a stopped node says, read without changing it: a start is rehearsed on a copy in memory.
//!
//! Opening a log recovers it, which writes. A second reader that never writes would have to agree with recovery in every
//! detail; a copy agrees by itself.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::metadata_files::{MetadataError, image_in};
use crate::storage::data_dir::DirectoryMeta;
use crate::storage::disk::{Disk, OpenMode, VirtualDisk, child, read_full_at, with_context, write_all_at};
use crate::storage::file_cache::FileCache;
use crate::types::{PartitionIndex, TopicConfigOverrides, TopicId, TopicName};

/// The most metadata that is copied: a hundred times what the largest cluster allowed has.
const MAX_COPIED_BYTES: u64 = 1 << 30;
/// Files of the copy that are kept open.
const OPEN_FILES: usize = 16;

/// A topic as the next start will know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTopic {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Its settings.
    pub config: TopicConfigOverrides,
    /// The partitions that this node holds.
    pub here: Vec<PartitionIndex>,
    /// Whether they were on this disk before: what is missing of them now was lost.
    pub opened: bool,
}

/// All topics as the next start will know them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownTopics {
    /// Those there are.
    pub topics: Vec<KnownTopic>,
    /// Those that were deleted and whose files the next start removes.
    pub deleted: BTreeSet<TopicId>,
}

/// Reads the metadata under `dir` as a start of the node of `meta` would.
///
/// # Errors
/// Those that would end that start.
pub fn rehearse(disk: &dyn Disk, dir: &Path, meta: &DirectoryMeta) -> Result<KnownTopics, MetadataError> {
    // A node that was killed before its first registration has no metadata.
    if !disk.exists(dir)? {
        return Ok(KnownTopics::default());
    }
    let copy: Arc<dyn Disk> = Arc::new(VirtualDisk::new(0));
    copy_dir(disk, &*copy, dir, &mut 0)?;
    let files = Arc::new(FileCache::new(Arc::clone(&copy), OPEN_FILES));
    let (identity, node) = ((meta.cluster, meta.directory, meta.node), meta.node);
    let Some(image) = image_in(&copy, &files, dir.to_owned(), identity)? else { return Ok(KnownTopics::default()) };
    let topics = image.topics.values().map(|topic| {
        let here = (0..).zip(&topic.partitions).filter(|(_, partition)| partition.replicas.contains(&node));
        KnownTopic {
            id: topic.id,
            name: topic.name.clone(),
            config: topic.config.clone(),
            here: here.map(|(number, _)| PartitionIndex(number)).collect(),
            opened: topic.opened.contains(&node),
        }
    });
    Ok(KnownTopics { topics: topics.collect(), deleted: image.tombstones })
}

fn copy_dir(from: &dyn Disk, to: &dyn Disk, dir: &Path, copied: &mut u64) -> io::Result<()> {
    to.create_dir_all(dir)?;
    for entry in from.read_dir(dir)? {
        let path = child(dir, &entry.name);
        if entry.is_dir {
            copy_dir(from, to, &path, copied)?;
            continue;
        }
        *copied += entry.length;
        if *copied > MAX_COPIED_BYTES {
            return Err(with_context("copy", &path, io::ErrorKind::FileTooLarge.into()));
        }
        let mut bytes = vec![0; usize::try_from(entry.length).unwrap_or(usize::MAX)];
        let read = read_full_at(&*from.open(&path, OpenMode::Read)?, &mut bytes, 0)?;
        write_all_at(&*to.open(&path, OpenMode::Create)?, &bytes[..read], 0)?;
    }
    Ok(())
}

//! What the metadata of a stopped node says, read without changing it: a start is rehearsed on a copy in memory.
//!
//! Opening a log recovers it, which writes. A second reader that never writes would have to agree with recovery in every
//! detail; a copy agrees by itself.
//!
//! ```text
//!                         the node is     a controller        a broker only     nobody says
//!   there is metadata                     it is read          not looked at     it is read
//!   none, and the directory was used      it was lost         as it should be   lost, if it has held votes
//!   none, and it was not                  none yet            as it should be   none yet
//! ```

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::metadata_files::{MetadataError, image_in, missing_in};
use crate::engine::metadata::TopicImage;
use crate::storage::data_dir::DirectoryMeta;
use crate::storage::disk::{Disk, OpenMode, VirtualDisk, child, read_full_at, with_context, write_all_at};
use crate::storage::file_cache::FileCache;
use crate::types::{NodeId, PartitionIndex, TopicConfigOverrides, TopicId, TopicName};

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
    /// Those of them that other brokers hold, too.
    pub copied: BTreeSet<PartitionIndex>,
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
    /// How many controllers vote, as far as the files tell. Where there are others, they may have decided more than is known here.
    pub voters: usize,
}

impl KnownTopics {
    /// Whether other controllers may have decided more than is known here.
    #[must_use]
    pub fn may_be_behind(&self) -> bool {
        self.voters > 1
    }
}

/// What a start finds of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rehearsed {
    /// It is here: the node is a controller.
    Known(KnownTopics),
    /// None yet: the node has not come so far.
    NoneYet,
    /// None, since the controllers have it: the node is a broker only.
    Elsewhere {
        /// Whether the node's roles say so. If not, a controller that was the only one and has lost everything looks like this.
        is_certain: bool,
    },
}

/// Reads the metadata under `dir` as a start of the node of `meta` would. `decides` says whether the node is a controller, where that is
/// known.
///
/// # Errors
/// Those that would end that start.
pub fn rehearse(
    disk: &dyn Disk,
    dir: &Path,
    meta: &DirectoryMeta,
    decides: Option<bool>,
) -> Result<Rehearsed, MetadataError> {
    if decides == Some(false) {
        return Ok(Rehearsed::Elsewhere { is_certain: true });
    }
    let copy: Arc<dyn Disk> = Arc::new(VirtualDisk::new(0));
    if disk.exists(dir)? {
        copy_dir(disk, &*copy, dir, &mut 0)?;
    }
    let files = Arc::new(FileCache::new(Arc::clone(&copy), OPEN_FILES));
    if let Some(newest) = image_in(&copy, &files, dir, meta)? {
        let topics = newest.image.topics.values().map(|topic| known(topic, meta.node)).collect();
        return Ok(Rehearsed::Known(KnownTopics { topics, deleted: newest.image.tombstones, voters: newest.voters }));
    }
    match missing_in(dir, meta) {
        Some(error) if decides == Some(true) || meta.holds_votes => Err(error),
        Some(_) => Ok(Rehearsed::Elsewhere { is_certain: false }),
        None => Ok(Rehearsed::NoneYet),
    }
}

fn known(topic: &TopicImage, node: NodeId) -> KnownTopic {
    let held = || (0..).map(PartitionIndex).zip(&topic.partitions).filter(|(_, state)| state.replicas.contains(&node));
    KnownTopic {
        id: topic.id,
        name: topic.name.clone(),
        config: topic.config.clone(),
        here: held().map(|(number, _)| number).collect(),
        copied: held().filter(|(_, state)| state.replicas.len() > 1).map(|(number, _)| number).collect(),
        opened: topic.opened.contains(&node),
    }
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::storage::data_dir::{DataDir, METADATA_DIR};
    use crate::types::BrokerEpoch;

    /// A data directory without metadata, and what a start of its node finds there, by whether it is a controller.
    struct Stage {
        disk: Arc<dyn Disk>,
        directory: DataDir,
    }

    impl Stage {
        fn new() -> Self {
            let disk: Arc<dyn Disk> = Arc::new(VirtualDisk::new(1));
            let directory = DataDir::open(Arc::clone(&disk), Path::new("/data"), NodeId(3), None).unwrap();
            Self { disk, directory }
        }

        fn rehearse(&self, decides: Option<bool>) -> Result<Rehearsed, MetadataError> {
            let dir = PathBuf::from("/data").join(METADATA_DIR);
            rehearse(&*self.disk, &dir, &self.directory.meta(), decides)
        }
    }

    #[test]
    fn metadata_that_is_not_there_was_lost_or_never_was_by_what_the_node_is() {
        let stage = Stage::new();
        let elsewhere = |is_certain| Rehearsed::Elsewhere { is_certain };
        assert_eq!(stage.rehearse(None).unwrap(), Rehearsed::NoneYet);
        assert_eq!(stage.rehearse(Some(true)).unwrap(), Rehearsed::NoneYet);
        assert_eq!(stage.rehearse(Some(false)).unwrap(), elsewhere(true));
        // A broker was registered with it.
        stage.directory.store_broker_epoch(BrokerEpoch(4)).unwrap();
        assert_eq!(stage.rehearse(None).unwrap(), elsewhere(false));
        assert_eq!(stage.rehearse(Some(false)).unwrap(), elsewhere(true));
        assert!(stage.rehearse(Some(true)).unwrap_err().is_loss());
        // It has held votes.
        stage.directory.note_votes().unwrap();
        assert!(stage.rehearse(None).unwrap_err().is_loss());
        assert_eq!(stage.rehearse(Some(false)).unwrap(), elsewhere(true), "a controller that was removed");
    }
}

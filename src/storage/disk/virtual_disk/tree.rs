//! The names: directories as the process sees them and as they are durable, and the changes in between.
//!
//! A change of names is atomic (a rename is old or new, never neither). Changes of different names may survive a power
//! loss in any combination; changes that share a name survive in their order, as with every journal.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use super::content::{FileContent, Survival};

pub(super) type InodeId = u64;
pub(super) const ROOT: InodeId = 0;

#[derive(Debug)]
pub(super) struct Inode {
    pub(super) node: Node,
    /// Shared with every open handle, so that a removed file that is still open is kept.
    pub(super) handles: Arc<()>,
}

impl Clone for Inode {
    fn clone(&self) -> Self {
        Self::new(self.node.clone())
    }
}

impl Inode {
    fn new(node: Node) -> Self {
        Self { node, handles: Arc::default() }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(FileContent),
    Directory(Directory),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) entries: BTreeMap<String, InodeId>,
    durable: BTreeMap<String, InodeId>,
}

/// Names that change together or not at all.
#[derive(Clone, Debug)]
struct NameChange {
    /// Directory, name, and what the name stands for from now on.
    names: Vec<(InodeId, String, Option<InodeId>)>,
    /// A move into another directory does not survive without that directory and those above it.
    requires: Vec<InodeId>,
}

impl NameChange {
    /// Whether this later change cannot survive without `earlier`.
    fn needs(&self, earlier: &Self) -> bool {
        earlier.names.iter().any(|(directory, name, target)| {
            self.names.iter().any(|(d, n, _)| d == directory && n == name)
                || target.is_some_and(|target| self.requires.contains(&target))
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct Tree {
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
    pending: Vec<NameChange>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Inode::new(Node::Directory(Directory::default()));
        Self { inodes: BTreeMap::from([(ROOT, root)]), next_inode: ROOT + 1, pending: Vec::new() }
    }

    pub(super) fn inode(&self, id: InodeId) -> io::Result<&Inode> {
        self.inodes.get(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn directory(&self, id: InodeId) -> io::Result<&Directory> {
        match &self.inode(id)?.node {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn directory_mut(&mut self, id: InodeId) -> Option<&mut Directory> {
        match self.inodes.get_mut(&id).map(|inode| &mut inode.node) {
            Some(Node::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn file_mut(&mut self, id: InodeId) -> io::Result<&mut FileContent> {
        match self.inodes.get_mut(&id).map(|inode| &mut inode.node) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn resolve(&self, path: &Path) -> io::Result<InodeId> {
        let mut current = ROOT;
        for name in names(path)? {
            let entries = &self.directory(current)?.entries;
            current = *entries.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(current)
    }

    /// The directory that holds `path`, and the last name.
    pub(super) fn resolve_parent(&self, path: &Path) -> io::Result<(InodeId, String)> {
        let name = names(path)?.pop().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let parent = self.resolve(path.parent().unwrap_or(path))?;
        self.directory(parent)?;
        Ok((parent, name))
    }

    pub(super) fn create(&mut self, parent: InodeId, name: &str, node: Node) -> InodeId {
        let id = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(id, Inode::new(node));
        self.change(NameChange { names: vec![(parent, name.to_owned(), Some(id))], requires: Vec::new() });
        id
    }

    pub(super) fn unlink(&mut self, parent: InodeId, name: &str) {
        self.change(NameChange { names: vec![(parent, name.to_owned(), None)], requires: Vec::new() });
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_parent, from_name) = self.resolve_parent(from)?;
        let subject = self.resolve(from)?;
        let (to_parent, to_name) = self.resolve_parent(to)?;
        let above_target = self.ancestors(to)?;
        if above_target.contains(&subject) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Some(target) = self.directory(to_parent)?.entries.get(&to_name) {
            if *target == subject {
                return Ok(());
            }
            match (&self.inode(subject)?.node, &self.inode(*target)?.node) {
                (Node::File(_), Node::File(_)) => {}
                (Node::File(_), Node::Directory(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                (Node::Directory(_), Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                (Node::Directory(_), Node::Directory(target)) if target.entries.is_empty() => {}
                (Node::Directory(_), Node::Directory(_)) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
            }
        }
        let requires = if from_parent == to_parent { Vec::new() } else { above_target };
        let names = vec![(from_parent, from_name, None), (to_parent, to_name, Some(subject))];
        self.change(NameChange { names, requires });
        Ok(())
    }

    /// The directories from the root down to the one that holds `path`.
    fn ancestors(&self, path: &Path) -> io::Result<Vec<InodeId>> {
        path.ancestors().skip(1).map(|ancestor| self.resolve(ancestor)).collect()
    }

    fn change(&mut self, change: NameChange) {
        for (directory, name, target) in &change.names {
            if let Some(directory) = self.directory_mut(*directory) {
                set(&mut directory.entries, name, *target);
            }
        }
        self.pending.push(change);
    }

    fn make_durable(&mut self, change: &NameChange) {
        for (directory, name, target) in &change.names {
            if let Some(directory) = self.directory_mut(*directory) {
                set(&mut directory.durable, name, *target);
            }
        }
    }

    /// Makes the changes in a directory durable, and those that they cannot survive without.
    pub(super) fn sync_directory(&mut self, id: InodeId) {
        let mut synced: Vec<bool> = Vec::new();
        let pending = std::mem::take(&mut self.pending);
        synced.resize(pending.len(), false);
        for (index, change) in pending.iter().enumerate().rev() {
            let touches = change.names.iter().any(|(directory, ..)| *directory == id);
            let needed = (index + 1..pending.len()).any(|later| synced[later] && pending[later].needs(change));
            synced[index] = touches || needed;
        }
        for (change, synced) in pending.into_iter().zip(synced) {
            if synced {
                self.make_durable(&change);
            } else {
                self.pending.push(change);
            }
        }
        self.drop_unreachable();
    }

    /// What is shown is on the platter.
    pub(super) fn settle(&mut self) {
        self.pending.clear();
        for inode in self.inodes.values_mut() {
            match &mut inode.node {
                Node::File(content) => content.settle(),
                Node::Directory(directory) => directory.durable.clone_from(&directory.entries),
            }
        }
        self.drop_unreachable();
    }

    /// Forgets an arbitrary part of what was not synced.
    pub(super) fn lose_power(&mut self, survival: &mut Survival<'_>) {
        let mut lost: Vec<NameChange> = Vec::new();
        for change in std::mem::take(&mut self.pending) {
            if !lost.iter().any(|earlier| change.needs(earlier)) && survival.keeps() {
                self.make_durable(&change);
            } else {
                lost.push(change);
            }
        }
        for inode in self.inodes.values_mut() {
            match &mut inode.node {
                Node::File(content) => content.lose_power(survival),
                Node::Directory(directory) => directory.entries.clone_from(&directory.durable),
            }
        }
        self.drop_unreachable();
    }

    /// Drops what no name leads to, now or after a power loss, and no handle holds open.
    fn drop_unreachable(&mut self) {
        let mut reachable = BTreeSet::new();
        let pending = self.pending.iter().flat_map(|change| change.names.iter().filter_map(|name| name.2));
        let mut queue: Vec<InodeId> = pending.chain([ROOT]).collect();
        queue.extend(self.inodes.iter().filter(|(_, inode)| Arc::strong_count(&inode.handles) > 1).map(|(id, _)| *id));
        while let Some(id) = queue.pop() {
            if reachable.insert(id)
                && let Ok(directory) = self.directory(id)
            {
                queue.extend(directory.entries.values().chain(directory.durable.values()));
            }
        }
        self.inodes.retain(|id, _| reachable.contains(id));
    }

    /// The bytes of all files that have a name.
    pub(super) fn used_bytes(&self) -> u64 {
        let (mut used, mut queue) = (0, vec![ROOT]);
        while let Some(id) = queue.pop() {
            match self.inodes.get(&id).map(|inode| &inode.node) {
                Some(Node::File(content)) => used += content.len() as u64,
                Some(Node::Directory(directory)) => queue.extend(directory.entries.values()),
                None => {}
            }
        }
        used
    }
}

fn set(entries: &mut BTreeMap<String, InodeId>, name: &str, target: Option<InodeId>) {
    match target {
        Some(target) => entries.insert(name.to_owned(), target),
        None => entries.remove(name),
    };
}

fn names(path: &Path) -> io::Result<Vec<&str>> {
    path.components()
        .filter_map(|component| match component {
            Component::RootDir | Component::CurDir => None,
            Component::Normal(name) => Some(name.to_str().ok_or_else(|| io::ErrorKind::InvalidFilename.into())),
            Component::ParentDir | Component::Prefix(_) => Some(Err(io::ErrorKind::InvalidInput.into())),
        })
        .collect()
}

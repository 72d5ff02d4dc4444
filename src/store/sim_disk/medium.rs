//! The simulated file system without faults: names, files, space, and what of it a power cut may take back.
//!
//! Names live in folders; each folder has the entries that the cache shows and those that are durable, and every name
//! operation in between waits in `pending`, in order. An operation is atomic (a rename moves or does not), as on a
//! journaling file system.

mod power;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::inode::{Inode, PAGE};
use crate::store::disk::{Entry, Space};

/// Number of a file or folder.
pub type Ino = u64;
/// The mount's folder.
pub const ROOT: Ino = 1;
/// Deleted files are looked for when that many have gathered.
const GARBAGE_MAX: usize = 32;

/// Which un-synced name operations may land without which others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameOrder {
    /// Those of one folder land in order: a prefix of them (a journal).
    #[default]
    PerFolder,
    /// Only operations on the same name keep their order.
    Independent,
}

type Entries = BTreeMap<Arc<str>, Ino>;

#[derive(Clone, Debug, Default)]
struct Folder {
    cached: Entries,
    durable: Entries,
}

/// A file and what may change about it without its content being copied.
#[derive(Clone, Debug)]
struct FileNode {
    inode: Arc<Inode>,
    /// What the trace and the rules call it: the last name it was given.
    name: Arc<str>,
    /// Names it has in the cache's view.
    links: u32,
    /// Open handles.
    handles: u32,
}

#[derive(Clone, Debug)]
enum Node {
    File(FileNode),
    Folder(Arc<Folder>),
}

/// One entry that an operation sets or removes.
#[derive(Clone, Debug)]
struct Change {
    folder: Ino,
    name: Arc<str>,
    to: Option<Ino>,
}

/// One name operation: its changes land together or not at all.
type NameOp = Vec<Change>;

/// The whole medium. Cloning is cheap: contents are shared until written.
#[derive(Clone, Debug)]
pub struct Medium {
    sector: u64,
    order: NameOrder,
    capacity_blocks: u64,
    used_blocks: u64,
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    pending: Vec<NameOp>,
    unnamed: BTreeSet<Ino>,
}

impl Medium {
    pub fn new(sector: u64, order: NameOrder, capacity: u64) -> Self {
        Self {
            sector,
            order,
            capacity_blocks: capacity / PAGE,
            used_blocks: 0,
            nodes: [(ROOT, Node::Folder(Arc::default()))].into(),
            next: ROOT + 1,
            pending: Vec::new(),
            unnamed: BTreeSet::new(),
        }
    }

    pub fn set_capacity(&mut self, bytes: u64) {
        self.capacity_blocks = bytes / PAGE;
    }

    pub const fn sector(&self) -> u64 {
        self.sector
    }

    /// Files and folders that are kept.
    #[cfg(test)]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    pub const fn free_blocks(&self) -> u64 {
        self.capacity_blocks.saturating_sub(self.used_blocks)
    }

    pub const fn space(&self) -> Space {
        Space { total: self.capacity_blocks * PAGE, free: self.free_blocks() * PAGE }
    }

    // --- looking up ---

    fn folder(&self, ino: Ino) -> io::Result<&Folder> {
        match self.nodes.get(&ino) {
            Some(Node::Folder(folder)) => Ok(folder),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn resolve(&self, path: &str) -> io::Result<Ino> {
        let mut at = ROOT;
        for part in path.split('/').filter(|_| !path.is_empty()) {
            at = *self.folder(at)?.cached.get(part).ok_or(ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    /// The folder of `path` and the name in it.
    fn parent<'a>(&self, path: &'a str) -> io::Result<(Ino, &'a str)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let ino = self.resolve(folder)?;
        self.folder(ino)?;
        Ok((ino, name))
    }

    pub fn file(&self, ino: Ino) -> io::Result<&Inode> {
        match self.nodes.get(&ino) {
            Some(Node::File(file)) => Ok(&file.inode),
            Some(Node::Folder(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// The last name that a file was given.
    pub fn name(&self, ino: Ino) -> Arc<str> {
        match self.nodes.get(&ino) {
            Some(Node::File(file)) => file.name.clone(),
            Some(Node::Folder(_)) | None => "".into(),
        }
    }

    /// A file for changing; the space it takes before and after is accounted.
    pub fn change<T>(&mut self, ino: Ino, change: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => {
                let inode = Arc::make_mut(&mut file.inode);
                let before = inode.blocks();
                let result = change(inode);
                self.used_blocks = (self.used_blocks + inode.blocks()).saturating_sub(before);
                Ok(result)
            }
            Some(Node::Folder(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub fn find_file(&self, path: &str) -> io::Result<Ino> {
        let ino = self.resolve(path)?;
        self.file(ino).map(|_| ino)
    }

    pub fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        let folder = self.folder(self.resolve(path)?)?;
        let entry = |(name, ino): (&Arc<str>, &Ino)| {
            let len = self.file(*ino).map(Inode::len);
            Entry { name: name.to_string(), is_dir: len.is_err(), len: len.unwrap_or(0) }
        };
        Ok(folder.cached.iter().map(entry).collect())
    }

    // --- names ---

    /// Shows `op` in the cache and lets it wait for a sync of a folder.
    fn apply(&mut self, op: NameOp) {
        for change in &op {
            let Some(Node::Folder(folder)) = self.nodes.get_mut(&change.folder) else { continue };
            let cached = &mut Arc::make_mut(folder).cached;
            let before = match change.to {
                Some(ino) => cached.insert(change.name.clone(), ino),
                None => cached.remove(&change.name),
            };
            if let Some(ino) = change.to {
                self.count_link(ino, true);
            }
            if let Some(ino) = before {
                self.count_link(ino, false);
            }
        }
        self.pending.push(op);
    }

    fn count_link(&mut self, ino: Ino, more: bool) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&ino) {
            file.links = if more { file.links + 1 } else { file.links.saturating_sub(1) };
        }
        self.release_if_unused(ino);
    }

    pub fn count_handle(&mut self, ino: Ino, more: bool) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&ino) {
            file.handles = if more { file.handles + 1 } else { file.handles.saturating_sub(1) };
        }
        self.release_if_unused(ino);
    }

    /// A file without name and handle gives its space back.
    fn release_if_unused(&mut self, ino: Ino) {
        if let Some(Node::File(file)) = self.nodes.get(&ino)
            && file.links == 0
            && file.handles == 0
            && self.unnamed.insert(ino)
        {
            self.used_blocks = self.used_blocks.saturating_sub(file.inode.blocks());
        }
    }

    pub fn create(&mut self, path: &str) -> io::Result<Ino> {
        let (folder, name) = self.parent(path)?;
        if self.folder(folder)?.cached.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let ino = self.next;
        self.next += 1;
        let inode = Arc::new(Inode::new(self.sector));
        let file = FileNode { inode, name: path.into(), links: 0, handles: 0 };
        self.nodes.insert(ino, Node::File(file));
        self.apply(vec![Change { folder, name: name.into(), to: Some(ino) }]);
        Ok(ino)
    }

    /// Creates one folder; false if it is there already.
    pub fn create_folder(&mut self, path: &str) -> io::Result<bool> {
        let (folder, name) = self.parent(path)?;
        if let Some(ino) = self.folder(folder)?.cached.get(name) {
            return self.folder(*ino).map(|_| false);
        }
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, Node::Folder(Arc::default()));
        self.apply(vec![Change { folder, name: name.into(), to: Some(ino) }]);
        Ok(true)
    }

    /// Whether this folder is there and its name needs no sync of its parent any more.
    pub fn folder_is_durable(&self, path: &str) -> io::Result<bool> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        let parent = self.folder(parent)?;
        let Some(ino) = parent.cached.get(name) else { return Ok(false) };
        self.folder(*ino)?;
        Ok(parent.durable.get(name) == Some(ino))
    }

    pub fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let ino = self.resolve(from)?;
        let (from_folder, from_name) = self.parent(from)?;
        let (to_folder, to_name) = self.parent(to)?;
        match self.folder(to_folder)?.cached.get(to_name) {
            Some(there) if *there == ino => return Ok(()),
            Some(there) if self.folder(*there).is_ok() => {
                return Err(ErrorKind::IsADirectory.into());
            }
            Some(_) if self.folder(ino).is_ok() => return Err(ErrorKind::NotADirectory.into()),
            Some(_) | None => {}
        }
        self.apply(vec![
            Change { folder: to_folder, name: to_name.into(), to: Some(ino) },
            Change { folder: from_folder, name: from_name.into(), to: None },
        ]);
        if let Some(Node::File(file)) = self.nodes.get_mut(&ino) {
            file.name = to.into();
        }
        Ok(())
    }

    pub fn link(&mut self, from: &str, to: &str) -> io::Result<()> {
        let ino = self.find_file(from)?;
        let (folder, name) = self.parent(to)?;
        if self.folder(folder)?.cached.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.apply(vec![Change { folder, name: name.into(), to: Some(ino) }]);
        Ok(())
    }

    pub fn unlink(&mut self, path: &str) -> io::Result<()> {
        self.find_file(path)?;
        let (folder, name) = self.parent(path)?;
        self.apply(vec![Change { folder, name: name.into(), to: None }]);
        Ok(())
    }

    // --- what is durable ---

    /// Makes the operations that touch this folder durable, and those they rest on.
    pub fn sync_folder(&mut self, path: &str) -> io::Result<()> {
        let synced = self.resolve(path)?;
        self.folder(synced)?;
        let mut needed = vec![false; self.pending.len()];
        let mut closure: Vec<usize> = Vec::new();
        for (at, op) in self.pending.iter().enumerate().rev() {
            let touches = op.iter().any(|change| change.folder == synced);
            let rested_on = closure.iter().any(|later| self.related(op, &self.pending[*later]));
            if touches || rested_on {
                needed[at] = true;
                closure.push(at);
            }
        }
        let mut needed = needed.into_iter();
        let (now, later) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|_| needed.next() == Some(true));
        self.pending = later;
        self.land(&now);
        if self.unnamed.len() > GARBAGE_MAX {
            self.collect_garbage();
        }
        Ok(())
    }

    /// Whether the later of the two may not land without the earlier.
    fn related(&self, a: &NameOp, b: &NameOp) -> bool {
        a.iter().any(|x| {
            b.iter().any(|y| {
                x.folder == y.folder && (self.order == NameOrder::PerFolder || x.name == y.name)
            })
        })
    }

    fn land(&mut self, ops: &[NameOp]) {
        for change in ops.iter().flatten() {
            let Some(Node::Folder(folder)) = self.nodes.get_mut(&change.folder) else { continue };
            let durable = &mut Arc::make_mut(folder).durable;
            match change.to {
                Some(ino) => durable.insert(change.name.clone(), ino),
                None => durable.remove(&change.name),
            };
        }
    }

    /// Forgets files that nothing can bring back.
    fn collect_garbage(&mut self) {
        let mut kept: BTreeSet<Ino> =
            self.pending.iter().flatten().filter_map(|change| change.to).collect();
        for node in self.nodes.values() {
            if let Node::Folder(folder) = node {
                kept.extend(folder.durable.values());
            }
        }
        let unnamed = std::mem::take(&mut self.unnamed);
        let (stay, go): (BTreeSet<Ino>, BTreeSet<Ino>) =
            unnamed.into_iter().partition(|ino| kept.contains(ino));
        self.unnamed = stay;
        self.nodes.retain(|ino, _| !go.contains(ino));
    }
}

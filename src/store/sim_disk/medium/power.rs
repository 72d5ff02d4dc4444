//! What of the medium a power cut may take back, and what a kill leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Ino, Inode, Medium, Node, ROOT};

impl Medium {
    /// Un-synced operations in groups that keep their order: one of each group's prefixes lands.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (at, op) in self.pending.iter().enumerate() {
            let of_group =
                |group: &Vec<usize>| group.iter().any(|i| self.related(&self.pending[*i], op));
            let (mine, mut others): (Vec<_>, Vec<_>) = groups.drain(..).partition(of_group);
            let mut joined: Vec<usize> = mine.concat();
            joined.push(at);
            joined.sort_unstable();
            others.push(joined);
            groups = others;
        }
        groups.sort();
        groups
    }

    /// Files that may be there after a power cut.
    fn survivors(&self) -> impl Iterator<Item = (Ino, &Arc<Inode>)> {
        let pending = self.pending.iter().flatten().filter_map(|change| change.to);
        let mut kept: BTreeSet<Ino> = pending.collect();
        for node in self.nodes.values() {
            if let Node::Folder(folder) = node {
                kept.extend(folder.durable.values());
            }
        }
        self.nodes.iter().filter_map(move |(ino, node)| match node {
            Node::File(file) if kept.contains(ino) => Some((*ino, &file.inode)),
            Node::File(_) | Node::Folder(_) => None,
        })
    }

    /// How many ways each un-synced thing can turn out: groups of names, then files in order of creation.
    pub fn outcomes(&self) -> Vec<usize> {
        let names = self.groups().into_iter().map(|group| 1 + group.len());
        names.chain(self.survivors().flat_map(|(_, inode)| inode.outcomes())).collect()
    }

    /// The medium after a power cut, one pick per outcome (missing ones count as 0: did not land).
    pub fn after_power_cut(&self, picks: &[usize]) -> Self {
        let mut after = self.clone();
        after.pending.clear();
        let mut rest = picks;
        for group in self.groups() {
            let (pick, others) = rest.split_first().map_or((0, rest), |(pick, o)| (*pick, o));
            rest = others;
            for at in group.into_iter().take(pick) {
                after.land(std::slice::from_ref(&self.pending[at]));
            }
        }
        let mut files = BTreeMap::new();
        for (ino, inode) in self.survivors() {
            let (picks, others) = rest.split_at(inode.outcomes().count().min(rest.len()));
            rest = others;
            if !inode.is_synced() {
                files.insert(ino, Arc::new(inode.after_power_cut(picks)));
            }
        }
        after.reboot(files);
        after
    }

    /// Keeps what hangs on the root, as the medium has it.
    fn reboot(&mut self, mut changed: BTreeMap<Ino, Arc<Inode>>) {
        let mut old = std::mem::take(&mut self.nodes);
        let mut todo = vec![ROOT];
        let mut links: BTreeMap<Ino, u32> = BTreeMap::new();
        while let Some(ino) = todo.pop() {
            *links.entry(ino).or_default() += 1;
            match old.remove(&ino) {
                Some(Node::Folder(mut folder)) => {
                    let entries = folder.durable.clone();
                    todo.extend(entries.values());
                    Arc::make_mut(&mut folder).cached = entries;
                    self.nodes.insert(ino, Node::Folder(folder));
                }
                Some(Node::File(mut file)) => {
                    if let Some(inode) = changed.remove(&ino) {
                        file.inode = inode;
                    }
                    self.nodes.insert(ino, Node::File(file));
                }
                None => {} // a second name
            }
        }
        self.unnamed.clear();
        self.used_blocks = 0;
        for (ino, node) in &mut self.nodes {
            if let Node::File(file) = node {
                file.links = links.get(ino).copied().unwrap_or(0);
                file.handles = 0;
                self.used_blocks += file.inode.blocks();
            }
        }
    }

    /// The medium after the process was killed: the cache survives, handles do not.
    pub fn after_kill(&self) -> Self {
        let mut after = self.clone();
        let inos: Vec<Ino> = after.nodes.keys().copied().collect();
        for ino in inos {
            if let Some(Node::File(file)) = after.nodes.get_mut(&ino) {
                file.handles = 0;
            }
            after.release_if_unused(ino);
        }
        after
    }

    /// Feeds all that can be read to a hash.
    pub fn digest(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash as _;
        let mut todo = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = todo.pop() {
            path.hash(into);
            match self.nodes.get(&ino) {
                Some(Node::File(file)) => file.inode.digest(into),
                Some(Node::Folder(folder)) => {
                    let below = |(name, ino): (&Arc<str>, &Ino)| (format!("{path}/{name}"), *ino);
                    todo.extend(folder.cached.iter().map(below));
                }
                None => {}
            }
        }
    }
}

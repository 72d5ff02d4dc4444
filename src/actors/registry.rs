//! Finds the actor of a chunkfile, or has it started. One registry per mount.
//!
//! Invariants: only the mount's disk arbiter starts and stops `ChunkFile` actors; what arrives while one starts or
//! stops waits in its entry, in order, so that all changes to a key are in one queue at any time; a task that enters a
//! mailbox does so under the entry's lock, hence before the entry can say that the actor stops.

use super::binlog::{Binlog, Settle, StartChunkFile};
use super::chunk_file::{ChunkFile, StopChunkFile};
use super::task::Task;
use crate::format::ids::ChunkfileId;
use actix::Addr;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Actors of one mount at most: ids are cheap to make up, actors are not (P7). That many chunkfiles in use within ten
/// seconds are 4 TiB of edits; beyond, `Busy`.
const ACTORS_MAX: usize = 1 << 16;

#[derive(Debug)]
enum Entry {
    /// The actor is being started, or is emptying its mailbox to stop.
    Waiting(Vec<Task>),
    Running(Addr<ChunkFile>),
}

/// The chunkfile actors of one mount.
#[derive(Debug)]
pub struct Registry {
    map: DashMap<ChunkfileId, Entry>,
    /// Entries in the map.
    actors: AtomicUsize,
    binlog: OnceLock<Addr<Binlog>>,
    shut: AtomicBool,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            map: DashMap::with_shard_amount(8),
            actors: AtomicUsize::new(0),
            binlog: OnceLock::new(),
            shut: AtomicBool::new(false),
        }
    }
}

impl Registry {
    /// Who starts actors; set once, before the mount serves.
    pub fn attach(&self, binlog: Addr<Binlog>) {
        // A second attempt would be a second actor for the same mount: the first one stays.
        if self.binlog.set(binlog).is_err() {
            tracing::error!("a mount has two binlog actors");
        }
    }

    /// The mount's binlog, once it runs.
    #[must_use]
    pub fn binlog(&self) -> Option<&Addr<Binlog>> {
        self.binlog.get()
    }

    /// Puts a task into the queue of a chunkfile. After [`Registry::shut`] it is dropped, and its reply says so.
    pub fn send(&self, id: ChunkfileId, task: Task) {
        if self.shut.load(Ordering::Acquire) {
            return;
        }
        if let Some(entry) = self.map.get(&id)
            && let Entry::Running(addr) = &*entry
        {
            addr.do_send(task);
            return;
        }
        let Some(binlog) = self.binlog.get() else { return };
        match self.map.entry(id) {
            MapEntry::Occupied(mut entry) => match entry.get_mut() {
                Entry::Waiting(tasks) => tasks.push(task),
                Entry::Running(addr) => addr.do_send(task),
            },
            MapEntry::Vacant(entry) => {
                if self.actors.fetch_add(1, Ordering::Relaxed) >= ACTORS_MAX {
                    self.actors.fetch_sub(1, Ordering::Relaxed);
                    drop(entry);
                    return task.refuse_busy();
                }
                entry.insert(Entry::Waiting(vec![task]));
                binlog.do_send(StartChunkFile(id));
            }
        }
    }

    /// The actor runs: what waited goes to it first. On the disk arbiter.
    pub fn started(&self, id: ChunkfileId, addr: Addr<ChunkFile>) {
        let mut entry = self.map.entry(id).or_insert_with(|| Entry::Waiting(Vec::new()));
        if let Entry::Waiting(tasks) = &mut *entry {
            for task in std::mem::take(tasks) {
                addr.do_send(task);
            }
        }
        *entry = Entry::Running(addr);
    }

    /// The actor wants to stop: from now on tasks wait. On the disk arbiter.
    pub fn stopping(&self, id: ChunkfileId) {
        if let Some(mut entry) = self.map.get_mut(&id) {
            *entry = Entry::Waiting(Vec::new());
        }
    }

    /// Its mailbox is empty: `true` if it may go; else it runs on, with what waited. On the disk arbiter.
    pub fn stopped(&self, id: ChunkfileId, addr: Addr<ChunkFile>) -> bool {
        let idle = |entry: &Entry| matches!(entry, Entry::Waiting(tasks) if tasks.is_empty());
        if self.map.remove_if(&id, |_, entry| idle(entry)).is_some() {
            self.actors.fetch_sub(1, Ordering::Relaxed);
            return true;
        }
        self.started(id, addr);
        false
    }

    /// How many actors run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Takes nothing more, and waits until what was taken is staged.
    pub async fn shut(&self) {
        self.shut.store(true, Ordering::Release);
        let Some(binlog) = self.binlog.get() else { return };
        loop {
            // After this every actor that was asked for has been started. (Gone: nothing is left to do.)
            binlog.send(Settle).await.unwrap_or_default();
            let (mut running, mut waiting) = (Vec::new(), false);
            for entry in &self.map {
                match entry.value() {
                    Entry::Running(addr) => running.push(addr.clone()),
                    Entry::Waiting(tasks) => waiting |= !tasks.is_empty(),
                }
            }
            for addr in running {
                addr.send(StopChunkFile).await.unwrap_or_default();
            }
            if !(waiting && binlog.connected()) {
                break;
            }
        }
        self.map.clear();
    }
}

//! What everybody may know of a mount: its published state, its read side, the way to its actors.
//!
//! Invariants: written by the mount's disk arbiter only (but for the counters); a reader never waits for it; the
//! read side goes away together with the state `Online`.

use super::binlog::Fence;
use super::mirror::{Mirror, Outlook};
use super::read_pool::ReadPool;
use super::registry::Registry;
use super::session::Problem;
use super::shelf::Shelf;
use super::task::Task;
use crate::cluster::view::MountState;
use crate::format::ids::{ChunkfileId, MountIndex};
use crate::messages::error::ErrorCode;
use crate::store::mount::{ContentIds, MountStats};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// What a mount is doing, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// State.
    pub state: MountState,
    /// What is wrong; empty if nothing.
    pub why: String,
    /// What mends it; empty if nothing.
    pub remedy: String,
}

/// The read side of a mount that serves.
pub struct OpenMount {
    /// Reads and temporary files.
    pub shelf: Arc<dyn Shelf>,
    /// Names for the contents of large objects.
    pub content_ids: Arc<ContentIds>,
}

/// A mount as the other threads see it.
pub struct SharedMount {
    /// Its index.
    pub index: MountIndex,
    /// Its folder, for people.
    pub path: String,
    /// The way to its actors.
    pub registry: Registry,
    /// Its readers.
    pub pool: Arc<ReadPool>,
    /// Free bytes that inserts never eat.
    pub reserve_free: u64,
    /// The mount as one of several mirrors.
    pub mirror: Mirror,
    published: ArcSwap<Published>,
    open: ArcSwapOption<OpenMount>,
    lanes: ArcSwap<Vec<ChunkfileId>>,
    next_lane: AtomicUsize,
    stats: ArcSwap<MountStats>,
    full: AtomicBool,
    free: AtomicU64,
}

impl std::fmt::Debug for SharedMount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedMount").field("index", &self.index).finish_non_exhaustive()
    }
}

impl SharedMount {
    /// A mount that is not open yet and has no mirrors.
    #[must_use]
    pub fn new(index: MountIndex, path: String, pool: Arc<ReadPool>, reserve_free: u64) -> Self {
        Self::mirrored(index, path, pool, reserve_free, Mirror::alone())
    }

    /// A mount that is not open yet.
    #[must_use]
    pub fn mirrored(
        index: MountIndex,
        path: String,
        pool: Arc<ReadPool>,
        reserve_free: u64,
        mirror: Mirror,
    ) -> Self {
        let published = Published {
            state: MountState::Failed,
            why: "it is being opened".to_owned(),
            remedy: "wait".to_owned(),
        };
        Self {
            index,
            path,
            registry: Registry::default(),
            pool,
            reserve_free,
            mirror,
            published: ArcSwap::from_pointee(published),
            open: ArcSwapOption::empty(),
            lanes: ArcSwap::from_pointee(Vec::new()),
            next_lane: AtomicUsize::new(0),
            stats: ArcSwap::from_pointee(MountStats::default()),
            full: AtomicBool::new(false),
            free: AtomicU64::new(0),
        }
    }

    /// What it is doing.
    #[must_use]
    pub fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Its numbers, at most some seconds old.
    #[must_use]
    pub fn stats(&self) -> Arc<MountStats> {
        self.stats.load_full()
    }

    /// Its read side, if it serves.
    ///
    /// # Errors
    /// `Fenced`, with the reason and what mends it.
    pub fn open(&self) -> Result<Arc<OpenMount>, Problem> {
        self.open.load_full().ok_or_else(|| self.out_of_service())
    }

    /// The same without counting a user: for reads that are done at once.
    pub fn with_open<T>(&self, look: impl FnOnce(&OpenMount) -> T) -> Result<T, Problem> {
        match &*self.open.load() {
            Some(open) => Ok(look(open)),
            None => Err(self.out_of_service()),
        }
    }

    /// Why it does not serve.
    pub(super) fn out_of_service(&self) -> Problem {
        let published = self.published.load();
        Problem::new(
            ErrorCode::Fenced,
            format!("mount {} ({}) is out of service: {}", self.index, self.path, published.why),
        )
        .remedy(published.remedy.clone())
    }

    /// Whether it serves.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.open.load().is_some()
    }

    /// Whether it serves, takes changes, and was not found full lately.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.is_online()
            && !self.is_full()
            && matches!(self.mirror.outlook(), Outlook::Good | Outlook::Degraded)
    }

    /// Whether it was found full lately.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Free bytes of its file system, lately.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Sends a task about an object that lives in a chunkfile.
    pub fn send(&self, chunkfile: ChunkfileId, task: Task) {
        self.registry.send(chunkfile, task);
    }

    /// The lane that the next new object goes to.
    #[must_use]
    pub fn next_lane(&self) -> usize {
        self.next_lane.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends the task that makes a new object to the chunkfile of `lane`; if there is none yet, to whoever makes one.
    pub fn send_put(&self, lane: usize, task: Task) {
        let lanes = self.lanes.load();
        match lanes.get(lane % lanes.len().max(1)) {
            Some(chunkfile) => self.registry.send(*chunkfile, task),
            None => {
                if let Some(binlog) = self.registry.binlog() {
                    binlog.do_send(task);
                }
            }
        }
    }

    /// Has the mount put out of service.
    pub fn fence(&self, why: String) {
        self.with_open(|open| open.shelf.fence()).unwrap_or_default();
        if let Some(binlog) = self.registry.binlog() {
            binlog.do_send(Fence(why));
        }
    }
}

// --- what only the mount's own arbiter does ---

impl SharedMount {
    pub(super) fn publish_open(&self, open: OpenMount) {
        self.open.store(Some(Arc::new(open)));
        self.published.store(Arc::new(Published {
            state: MountState::Online,
            why: String::new(),
            remedy: String::new(),
        }));
    }

    pub(super) fn publish_closed(&self, state: MountState, why: &str, remedy: &str) {
        if let Some(open) = self.open.swap(None) {
            open.shelf.fence();
        }
        self.published.store(Arc::new(Published {
            state,
            why: why.to_owned(),
            remedy: remedy.to_owned(),
        }));
        self.lanes.store(Arc::new(Vec::new()));
    }

    pub(super) fn publish_lanes(&self, lanes: Vec<ChunkfileId>) {
        if **self.lanes.load() != lanes {
            self.lanes.store(Arc::new(lanes));
        }
    }

    pub(super) fn publish_stats(&self, stats: MountStats) {
        self.free.store(stats.space.free, Ordering::Relaxed);
        self.stats.store(Arc::new(stats));
    }

    pub(super) fn publish_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }
}

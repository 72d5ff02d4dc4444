//! What everybody may know of a mount: its published state, its read side, the way to its actors.
//!
//! Invariants: written by the mount's disk arbiter only (but for the counters); a reader never waits for it; the
//! read side goes away together with the state `Online`.

use super::binlog::{Fence, SetReserve};
use super::meter::{Meter, MountMeters};
use super::mirror::{Mirror, Outlook};
use super::read_pool::ReadPool;
use super::registry::Registry;
use super::scrub_desk::ScrubDesk;
use super::session::Problem;
use super::shelf::Shelf;
use super::task::Task;
use crate::cluster::room::{self, Admission};
use crate::cluster::view::MountState;
use crate::format::ids::{ChunkfileId, MachineId, MountIndex};
use crate::format::recovery_state::RecoveryState;
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

/// How the refilling of a mount stands; for people, trackers and the other members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refill {
    /// What survives a restart; `None`: the mount was not refilled since the storage started.
    pub state: Option<RecoveryState>,
    /// From whom it copies, or with whom it compares.
    pub with: Option<MachineId>,
    /// What it waits for, or how it ended.
    pub why: String,
    /// What an operator can do.
    pub remedy: String,
    /// Bytes that are to be copied from the present source, as far as known.
    pub total: u64,
    /// Bytes of them that are done.
    pub done: u64,
    /// Bytes a second, lately.
    pub rate: u64,
    /// It takes what other members push.
    pub listening: bool,
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
    reserve_free: AtomicU64,
    /// The mount as one of several mirrors.
    pub mirror: Mirror,
    /// What is counted of it.
    pub meters: MountMeters,
    /// What is known of damage on it.
    pub scrub: ScrubDesk,
    published: ArcSwap<Published>,
    open: ArcSwapOption<OpenMount>,
    /// While it is refilled: the read side, for ourselves only.
    refilled: ArcSwapOption<OpenMount>,
    /// An operator wants it refilled whatever its folder looks like.
    confirmed: AtomicBool,
    refill: ArcSwap<Refill>,
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
        Self::mirrored(index, path, pool, reserve_free, Mirror::alone(), Arc::default())
    }

    /// A mount that is not open yet.
    #[must_use]
    pub fn mirrored(
        index: MountIndex,
        path: String,
        pool: Arc<ReadPool>,
        reserve_free: u64,
        mirror: Mirror,
        meter: Arc<Meter>,
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
            reserve_free: AtomicU64::new(reserve_free),
            mirror,
            meters: MountMeters::new(meter),
            scrub: ScrubDesk::default(),
            published: ArcSwap::from_pointee(published),
            open: ArcSwapOption::empty(),
            refilled: ArcSwapOption::empty(),
            confirmed: AtomicBool::new(false),
            refill: ArcSwap::default(),
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

    /// Its read side if it serves or is being refilled: for what other members bring, never for clients.
    ///
    /// # Errors
    /// `Fenced`, with the reason and what mends it.
    pub fn open_to_members(&self) -> Result<Arc<OpenMount>, Problem> {
        match self.open.load_full() {
            Some(open) => Ok(open),
            None => self.refilled.load_full().ok_or_else(|| self.out_of_service()),
        }
    }

    /// Whether it takes what other members push.
    ///
    /// # Errors
    /// `Fenced`, with the reason and what mends it.
    pub fn check_push(&self) -> Result<(), Problem> {
        let listening = self.is_refilling() && self.refill.load().listening;
        if self.is_online() || listening { Ok(()) } else { Err(self.out_of_service()) }
    }

    /// Whether it is being refilled.
    #[must_use]
    pub fn is_refilling(&self) -> bool {
        self.refilled.load().is_some()
    }

    /// An operator wants it refilled although its folder is not empty, or no mounted file system any more.
    pub fn confirm_refill(&self) {
        self.confirmed.store(true, Ordering::Release);
    }

    /// Whether one does; asked once.
    #[must_use]
    pub fn take_confirmed(&self) -> bool {
        self.confirmed.swap(false, Ordering::AcqRel)
    }

    /// How its refilling stands, or stood.
    #[must_use]
    pub fn refill(&self) -> Arc<Refill> {
        self.refill.load_full()
    }

    /// Says how its refilling stands. Only whoever refills it calls this.
    pub fn publish_refill(&self, refill: Refill) {
        if self.is_refilling() {
            let state = refill.state.as_ref();
            let phase = state.map_or("assess", |state| state.phase.name());
            let why = if refill.why.is_empty() {
                format!("refilled from its mirrors ({phase})")
            } else {
                format!("refilled from its mirrors ({phase}): {}", refill.why)
            };
            let known = self.published.load();
            if known.state == MountState::Recovering && known.why != why {
                let (state, remedy) = (known.state, refill.remedy.clone());
                self.published.store(Arc::new(Published { state, why, remedy }));
            }
        }
        self.refill.store(Arc::new(refill));
    }

    /// Whether it serves.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.open.load().is_some()
    }

    /// Whether it serves, takes changes, and was not found full lately, here or on a member.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.is_online()
            && !self.is_full()
            && self.mirror.takes_puts()
            && self.mirror.least_room() > 0
            && matches!(self.mirror.outlook(), Outlook::Good | Outlook::Degraded)
    }

    /// Refuses a new object that its syncgroup could not keep as many copies of as asked for.
    ///
    /// # Errors
    /// `Unavailable`, with who lacks the mount.
    pub fn check_spread(&self) -> Result<(), Problem> {
        let spread = self.mirror.spread();
        if spread.takes_puts() {
            return Ok(());
        }
        let what = format!("mount {} takes no new objects: {}", self.index, spread.why());
        Err(Problem::new(ErrorCode::Unavailable, what).remedy(spread.remedy(self.index)))
    }

    /// Refuses a new object of so many bytes that a member has no room for.
    ///
    /// # Errors
    /// `NoSpace`, with whose; `Busy` if that shows in a moment.
    pub fn check_room(&self, length: u64) -> Result<(), Problem> {
        match self.mirror.admit(length) {
            Admission::Taken => Ok(()),
            Admission::Later => Err(Problem::new(
                ErrorCode::Busy,
                format!(
                    "mount {}: {}; what is on its way comes first",
                    self.index,
                    self.mirror.why_no_room()
                ),
            )
            .remedy("ask again")),
            Admission::Full => Err(self.full_elsewhere()),
        }
    }

    /// What is said of a new object that a member has no room for.
    #[must_use]
    pub fn full_elsewhere(&self) -> Problem {
        let why = self.mirror.why_no_room();
        let what = format!("mount {} takes no new objects: {why}", self.index);
        Problem::new(ErrorCode::NoSpace, what).remedy(room::REMEDY)
    }

    /// Bytes that new objects which other members take may still take here; `None`: not known.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        /// Files and logs grow by steps ahead of what is written.
        const AHEAD: u64 = 4 << 20;
        let left = self.free().saturating_sub(self.reserve_free().saturating_add(AHEAD));
        (self.stats.load().space.total > 0).then_some(if self.is_full() { 0 } else { left })
    }

    /// Free bytes that inserts never eat.
    #[must_use]
    pub fn reserve_free(&self) -> u64 {
        self.reserve_free.load(Ordering::Relaxed)
    }

    /// From now on so many, until the daemon is started again.
    pub fn set_reserve_free(&self, bytes: u64) {
        self.reserve_free.store(bytes, Ordering::Relaxed);
        if let Some(binlog) = self.registry.binlog() {
            binlog.do_send(SetReserve(bytes));
        }
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
    /// Open, but only for what refills it.
    pub(super) fn publish_refilling(&self, open: Arc<OpenMount>, state: RecoveryState) {
        self.published.store(Arc::new(Published {
            state: MountState::Recovering,
            why: "refilled from its mirrors".to_owned(),
            remedy: "nothing: it goes on line by itself; `recover status` shows how far it is"
                .to_owned(),
        }));
        self.refill.store(Arc::new(Refill { state: Some(state), ..Refill::default() }));
        self.refilled.store(Some(open));
        self.open.store(None);
    }

    /// Refilled, and from now on it serves.
    pub(super) fn publish_refilled(&self) {
        if let Some(open) = self.refilled.swap(None) {
            self.publish_open(open);
        }
    }

    pub(super) fn publish_open(&self, open: Arc<OpenMount>) {
        self.open.store(Some(open));
        self.published.store(Arc::new(Published {
            state: MountState::Online,
            why: String::new(),
            remedy: String::new(),
        }));
    }

    pub(super) fn publish_closed(&self, state: MountState, why: &str, remedy: &str) {
        for open in [self.open.swap(None), self.refilled.swap(None)].into_iter().flatten() {
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

    /// Free bytes now; 0 is not known.
    pub(super) fn publish_free(&self, free: u64) {
        if free > 0 {
            self.free.store(free, Ordering::Relaxed);
        }
    }

    pub(super) fn publish_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }
}

//! State exchange, the pulling side: makes a mount have what other members' same mount has, without a log (design section
//! 6). For a member that was away for longer than a log reaches, for what a log lost to damage, and for whole mounts.
//!
//! The order: what the sources cover, the losing versions they keep, then their chunkfiles one by one: those whose digests
//! differ are told apart by marks, and what is news is copied and absorbed in small steps, contents of large objects are
//! fetched before. At the end the mount says that it has what all sources covered when they were asked first.
//!
//! Invariants
//! - *Absence proves nothing*: nothing is ever removed here.
//! - What a source cannot verify it does not send. It is taken from another member, or named, and then the coverage is not
//!   claimed: a gap stays a gap, and is asked for again.
//! - The archive entries of a source come before any version that may have won against them.
//! - Memory does not depend on what there is to copy; the disk arbiter is never held for longer than a megabyte takes.

mod archive;
mod chunkfile;
pub mod compare;
mod limiter;
pub mod pulls;
pub mod repair;
mod source;

use super::absorb_room::{Reached, SyncCopies};
use super::content_fetch::on_pool;
use super::peers::{Peer, PeerTable};
use super::shared_mount::SharedMount;
use super::shelf::Shelf;
use crate::cluster::coverage::Coverage;
use crate::format::bytes::Writer;
use crate::format::crc::Fingerprint;
use crate::format::ids::{ChunkfileId, MachineId};
use crate::format::record::ChunkfileCreated;
use crate::store::archive::ArchivedName;
use futures_util::{TryStreamExt, stream};
use limiter::Limiter;
use source::Source;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Places that are named in a report, at most.
const NAMED_MAX: usize = 16;

/// What to pull, and how fast.
#[derive(Clone)]
pub struct Plan {
    /// Our mount.
    pub mount: Arc<SharedMount>,
    /// From whom: each chunkfile from one of them. None of them may be recovering itself.
    pub sources: Vec<Arc<Peer>>,
    /// Chunkfiles at a time.
    pub streams: usize,
    /// Bytes per second that may come in; 0: no limit. May change while it runs.
    pub bandwidth: Arc<AtomicU64>,
    /// What differs is looked at once more after so long, and left alone if it has come by a log meanwhile or is still being
    /// edited: for comparing while clients write.
    pub patience: Duration,
    /// The mount is being refilled: what goes to blank places takes the short way, and is made durable at the end.
    pub blank: bool,
    /// Our own contents are read before they are believed: a crash may have taken what was not durable.
    pub verify: bool,
}

impl Plan {
    /// Everything from these, in the background.
    #[must_use]
    pub fn of(mount: &Arc<SharedMount>, sources: Vec<Arc<Peer>>) -> Self {
        Self {
            mount: Arc::clone(mount),
            sources,
            streams: 2,
            bandwidth: Arc::default(),
            patience: Duration::ZERO,
            blank: false,
            verify: false,
        }
    }
}

/// How far a pull is, for whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
    received: AtomicU64,
}

impl Progress {
    /// Bytes of chunkfiles to compare or copy, as far as they are known.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Of those, how many are done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Bytes of objects that came.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// What a pull did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulled {
    /// What the mount covers now besides what it did before; `None`: something could not be had from anybody.
    pub reached: Option<Coverage>,
    /// Chunkfiles that the sources have.
    pub chunkfiles: u64,
    /// Of those, how many differed.
    pub different: u64,
    /// Objects, live and deleted, in those that were compared.
    pub objects: u64,
    /// Fingerprint of what the sources have in those that were compared, in whatever order.
    pub fingerprint: [u8; 16],
    /// Versions that were written here.
    pub taken: u64,
    /// Losing versions that were kept here.
    pub archived: u64,
    /// What could not be had: how much, and some of it in words.
    pub missing: u64,
    /// Some of it, in words.
    pub named: Vec<String>,
}

/// One pull while it runs.
struct Pull<'a> {
    table: &'a Arc<PeerTable>,
    plan: &'a Plan,
    shelf: Arc<dyn Shelf>,
    progress: &'a Progress,
    limiter: Limiter,
    tally: Mutex<Pulled>,
    /// What each source covered before the first byte of it was read.
    covered: Mutex<BTreeMap<MachineId, Coverage>>,
    /// The losing versions that are here.
    kept: tokio::sync::Mutex<Kept>,
}

/// The archive while a pull runs.
struct Kept {
    names: BTreeSet<ArchivedName>,
    /// What was given up.
    dropped: BTreeSet<ArchivedName>,
    /// The archive of each source when it was last copied.
    known: HashMap<MachineId, [u8; 16]>,
}

/// A chunkfile, and which sources have it.
struct Work {
    created: ChunkfileCreated,
    sources: Vec<usize>,
}

/// Pulls; durable, and claimed as coverage, when it returns. On an arbiter. Dropping it leaves what came.
///
/// # Errors
/// Why it could not go on: a source that does not answer, our own mount. What came stays, and is not copied again.
pub async fn pull(
    table: &Arc<PeerTable>,
    plan: &Plan,
    progress: &Progress,
) -> Result<Pulled, String> {
    prepare(table, plan, progress).await?.run().await
}

/// A pull that has looked at our own mount only.
async fn prepare<'a>(
    table: &'a Arc<PeerTable>,
    plan: &'a Plan,
    progress: &'a Progress,
) -> Result<Pull<'a>, String> {
    let shelf = Arc::clone(&plan.mount.open_to_members().map_err(|problem| problem.message)?.shelf);
    let names = on_pool(&plan.mount, {
        let shelf = Arc::clone(&shelf);
        move || shelf.archive_names().map_err(|error| error.to_string())
    });
    let names = names.await??;
    let kept = Kept {
        names: names.kept.into_iter().collect(),
        dropped: names.dropped.into_iter().collect(),
        known: HashMap::new(),
    };
    Ok(Pull {
        table,
        plan,
        shelf,
        progress,
        limiter: Limiter::new(Arc::clone(&plan.bandwidth)),
        tally: Mutex::default(),
        covered: Mutex::default(),
        kept: tokio::sync::Mutex::new(kept),
    })
}

impl Pull<'_> {
    async fn run(self) -> Result<Pulled, String> {
        let sources: Vec<Source> =
            self.plan.sources.iter().map(|peer| self.source(Arc::clone(peer))).collect();
        if sources.is_empty() {
            return Err("there is nobody to copy from".to_owned());
        }
        let mut work: BTreeMap<ChunkfileId, Work> = BTreeMap::new();
        for (index, source) in sources.iter().enumerate() {
            for created in self.look_at(source).await? {
                let known = work.entry(created.id);
                let known = known.or_insert_with(|| Work { created, sources: Vec::new() });
                known.sources.push(index);
            }
        }
        for source in &sources {
            self.copy_archive(source, None).await?;
        }
        let bytes = work.values().map(|work| bytes_of(&work.created)).sum();
        // Of this pass: while others edit, several may be needed until nothing differs.
        self.progress.done.store(0, Ordering::Relaxed);
        self.progress.total.store(bytes, Ordering::Relaxed);
        self.tally().chunkfiles = work.len() as u64;
        stream::iter(work.into_values().enumerate().map(Ok))
            .try_for_each_concurrent(self.plan.streams.max(1), |(turn, work)| {
                let source = &sources[work.sources[turn % work.sources.len()]];
                self.one_chunkfile(source, work.created)
            })
            .await?;
        self.finish().await
    }

    fn source(&self, peer: Arc<Peer>) -> Source {
        Source::new(peer, self.table.us, self.plan.mount.index)
    }

    /// What a source covers, noted before anything of it is read, and its chunkfiles.
    async fn look_at(&self, source: &Source) -> Result<Vec<ChunkfileCreated>, String> {
        let (coverage, chunkfiles, damaged) = source.chunkfiles().await?;
        lock(&self.covered).entry(source.machine()).or_insert(coverage);
        for _ in 0..damaged {
            self.missing(format!("machine {}: a chunkfile's header is damaged", source.machine()));
        }
        Ok(chunkfiles)
    }

    async fn one_chunkfile(
        &self,
        source: &Source,
        created: ChunkfileCreated,
    ) -> Result<(), String> {
        let damaged = self.copy_chunkfile(source, &created).await?;
        if !damaged.is_empty() {
            self.replace_damaged(source, &created, damaged).await?;
        }
        self.progress.done.fetch_add(bytes_of(&created), Ordering::Relaxed);
        Ok(())
    }

    /// Takes what is damaged at a source from any other member that has it.
    async fn replace_damaged(
        &self,
        source: &Source,
        created: &ChunkfileCreated,
        mut damaged: BTreeSet<u32>,
    ) -> Result<(), String> {
        let mut others = self.table.all();
        others.retain(|peer| peer.machine != source.machine() && peer.is_connected());
        for other in others {
            if damaged.is_empty() {
                break;
            }
            let other = self.source(other);
            let asked = async {
                self.look_at(&other).await?;
                self.copy_archive(&other, None).await?;
                let homes: Vec<u32> = damaged.iter().copied().collect();
                self.copy_homes(&other, created, &homes).await
            };
            match asked.await {
                Ok(had) => damaged.retain(|home| !had.contains(home)),
                Err(why) => {
                    // It was no source of anything: what it covers does not count.
                    lock(&self.covered).remove(&other.machine());
                    tracing::debug!(peer = other.machine(), why, "cannot replace what is damaged");
                }
            }
        }
        let ChunkfileId { machine, log_id, chunk } = created.id;
        for home in damaged {
            self.missing(format!(
                "machine {}: the object at unit {home} of chunkfile {chunk} (machine {machine}, log {log_id:08x}) is damaged there",
                source.machine()
            ));
        }
        Ok(())
    }

    /// Counts a chunkfile that is here, too.
    fn compared(&self, id: ChunkfileId, objects: u64, fingerprint: [u8; 16]) {
        let mut whole = Fingerprint::new();
        let mut bytes = Vec::with_capacity(32);
        let mut w = Writer::new(&mut bytes);
        w.u16(id.machine).u32(id.log_id).u32(id.chunk).put(&fingerprint);
        whole.update(&bytes);
        let mut tally = self.tally();
        tally.objects += objects;
        // Chunkfiles come in no order: their fingerprints are added up.
        let sum =
            u128::from_le_bytes(tally.fingerprint).wrapping_add(u128::from_le_bytes(whole.value()));
        tally.fingerprint = sum.to_le_bytes();
    }

    /// Something that nobody could give.
    fn missing(&self, what: String) {
        let mut tally = self.tally();
        tally.missing += 1;
        if tally.named.len() < NAMED_MAX {
            tracing::warn!(mount = self.plan.mount.index, what, "cannot be copied");
            tally.named.push(what);
        }
    }

    fn tally(&self) -> MutexGuard<'_, Pulled> {
        lock(&self.tally)
    }

    async fn finish(self) -> Result<Pulled, String> {
        let mut pulled = std::mem::take(&mut *self.tally());
        if self.plan.blank {
            self.tell(SyncCopies).await?;
        }
        if pulled.missing > 0 {
            return Ok(pulled);
        }
        let mut all = std::mem::take(&mut *lock(&self.covered)).into_values();
        let mut reached = all.next().unwrap_or_default();
        // Parts came from each of them: only what all covered is covered by the whole.
        all.for_each(|other| reached.meet(&other));
        self.tell(Reached(reached.clone())).await?;
        pulled.reached = Some(reached);
        Ok(pulled)
    }

    /// Has our mount do something.
    async fn tell<M, T>(&self, message: M) -> Result<T, String>
    where
        M: actix::Message<Result = Result<T, super::session::Problem>> + Send + 'static,
        T: Send + 'static,
        super::binlog::Binlog: actix::Handler<M>,
    {
        let gone = || "our own mount is not in service".to_owned();
        let binlog = self.plan.mount.registry.binlog().ok_or_else(gone)?;
        match binlog.send(message).await {
            Ok(done) => done.map_err(|problem| problem.message),
            Err(_) => Err(gone()),
        }
    }
}

fn bytes_of(created: &ChunkfileCreated) -> u64 {
    u64::from(created.size_units) * crate::format::ids::UNIT
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

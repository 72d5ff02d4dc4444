//! Opening a mount: label, checkpoint, replay of the log, and then the first position of the new start.
//!
//! Order: the raised start count is durable before anything else is written (R10), so no position is given twice,
//! whatever happens next. Start-up reads the checkpoint and the log behind it, never the slots of all objects (P8);
//! only a lost checkpoint is rebuilt from the slot headers, and the accounts of our space when a part of the log behind
//! the checkpoint cannot be read: it may have been about a hole that is in use since.

use super::checkpoints::Checkpoints;
use super::clock::Clock;
use super::core::Core;
use super::damaged::{Stretch, put_aside};
use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::label_file::{read_label, read_label_at, write_label};
use super::lost_log;
use super::lost_segment::Unreadable;
use super::maintain::Sweep;
use super::mount::{ContentIds, Mount};
use super::options::{MountOptions, Planted};
use super::recovery_file::read_recovery;
use super::restart::Opening;
use super::synclogs::Received;
use super::tokens::TokenTable;
use crate::cluster::reuse::Reuse;
use crate::format::ids::LogId;
use crate::format::label::Label;
use crate::format::paths;
use crate::format::record::{Begun, Record};
use crate::format::recovery_state::RecoveryState;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

impl<D: Disk> Mount<D> {
    /// Labels a blank directory and opens it. `label` carries names, uuids and members; log id and start count are
    /// given here.
    ///
    /// # Errors
    /// `Io`, `Format`.
    pub fn create(
        disk: D,
        label: Label,
        options: MountOptions,
        clock: Arc<dyn Clock>,
        tokens: Arc<TokenTable>,
    ) -> StoreResult<Self> {
        let mut rng = StdRng::from_seed(options.seed);
        let created_ms = clock.now_ms();
        let log_id = draw_log_id(&mut rng);
        // The label comes before any other entry, so that a half-made mount is never taken for leftovers.
        write_label(&disk, &Label { log_id, start_count: 0, created_ms, ..label })?;
        Self::open_with(disk, options, clock, tokens, rng)
    }

    /// Opens a labelled mount: raises the start count, replays the log.
    ///
    /// # Errors
    /// `Io`, `Format`, `Damaged`.
    pub fn open(
        disk: D,
        options: MountOptions,
        clock: Arc<dyn Clock>,
        tokens: Arc<TokenTable>,
    ) -> StoreResult<Self> {
        let rng = StdRng::from_seed(options.seed);
        Self::open_with(disk, options, clock, tokens, rng)
    }

    fn open_with(
        disk: D,
        options: MountOptions,
        clock: Arc<dyn Clock>,
        tokens: Arc<TokenTable>,
        mut rng: StdRng,
    ) -> StoreResult<Self> {
        let old = read_label(&disk)?;
        if read_label_at(&disk, paths::LABEL).is_err() {
            // It is written again below.
            put_aside(&disk, clock.now_ms(), &Stretch::whole(paths::LABEL));
            tracing::error!(
                mount = old.mount,
                "the label is damaged: its copy is used, and both are written again"
            );
        }
        // An old copy of itself lacks the end of its log, and has given places away that it does not know of: as if all of its
        // log were gone.
        let old_copy = options.starts_known > old.start_count;
        let lost = old_copy || lost_log::is_lost(&disk, &old)?;
        let label = if lost { new_life(&old, &mut rng) } else { next_start(&old, &mut rng) };
        if !options.planted(Planted::ReuseStartCount) || old.start_count == 0 {
            write_label(&disk, &label)?;
        }
        for folder in [paths::BINLOG, paths::CHUNKS, paths::SINGLES_TMP] {
            let made = disk.create_dir_all(folder);
            made.map_err(StoreError::io(format!("create folder {folder}")))?;
        }
        let options = fit_log(options, disk.space().map_err(StoreError::io("statvfs"))?.total);
        let core = Core::new(disk.clone(), label.clone(), options);
        let recovery = read_recovery(&disk)?;
        let copying = recovery.as_ref().is_some_and(RecoveryState::may_have_unsynced_copies);
        let mut opening = Opening {
            core,
            tokens,
            last: 0,
            checkpoint: None,
            lost,
            copying,
            damaged: false,
            unreadable: Unreadable::default(),
        };
        if lost && !old_copy {
            opening.core.warnings.push(lost_log::warning(&old, &label));
        }
        let log = opening.recover(&mut rng)?;
        let Opening { core, tokens, last, checkpoint, unreadable, .. } = opening;
        let next_sequence = label.first_sequence().max(last + 1);
        let former = checkpoint.as_ref().filter(|_| lost).and_then(|c| lost_log::former(c, &old));
        let (covered, mut received) =
            checkpoint.map_or((0, Vec::new()), |c| (c.applied, c.received));
        received.extend(former);
        let mut mount = Self {
            content_ids: Arc::new(ContentIds::new(&label)),
            reuse: Reuse::new([label.machine]),
            core,
            log,
            clock,
            tokens,
            rng,
            next_sequence,
            durable: last,
            pending: Vec::new(),
            staged: Vec::new(),
            answers: Vec::new(),
            batch_bytes: 0,
            overlay: HashMap::new(),
            rounds: VecDeque::new(),
            checkpoints: Checkpoints::covering(covered),
            free_seen: None,
            fenced: None,
            sweep: Sweep::default(),
            batches: 0,
            records: 0,
            conflicts: 0,
            received: Received::default(),
            reports: BTreeMap::new(),
            settling: Vec::new(),
            heard: Vec::new(),
            own_former: last,
            own_missing: 0,
            quarantined: 0,
            forgotten: super::forget::read_forgotten(&disk)?,
            gone_contents: HashSet::new(),
            refilling: recovery.is_some(),
            unsynced_copies: copying,
        };
        mount.count_members();
        for forgotten in std::mem::take(&mut mount.core.forgotten) {
            mount.learn_forgotten(&forgotten)?;
        }
        mount.replay_received(&received)?;
        remove_temporaries(&mount.core.disk)?;
        mount.resume_waits();
        if last == 0 {
            mount.begin_log()?;
        } else if unreadable.tail {
            mount.pass_over_lost_tail()?;
        }
        mount.put_segments_aside(&unreadable)?;
        Ok(mount)
    }

    /// Every life of a log begins with a record, durable before anything is served: so no life goes unnoticed, and what
    /// a machine covers says which logs it has heard of (R12, `cluster::reuse`).
    fn begin_log(&mut self) -> StoreResult<()> {
        /// Bytes of the record, at most.
        const BEGUN_MAX: usize = 128;
        self.reserve_log(BEGUN_MAX)?;
        let sequence = self.take_sequence();
        let label = &self.core.label;
        let (mount_uuid, instance) = (label.mount_uuid, label.instance);
        let begun = Begun { mount_uuid, instance, at_ms: self.clock.now_ms() };
        self.push_record(&Record::Begun(begun), sequence, Bytes::new(), 0);
        self.commit().map(|_| ())
    }

    /// What was freed before the restart is durable and applied: it waits for its members only.
    fn resume_waits(&mut self) {
        let last = self.core.space.waiting().map(|freed| freed.superseded_by).max();
        if let Some(last) = last {
            let round = self.reuse.superseded(self.position(last));
            // What freed them may stand in other logs.
            for position in self.received.coverage.iter() {
                self.reuse.superseded(position);
            }
            self.rounds.push_back((round, last));
            self.settle();
        }
    }
}

/// Log segments that suit the file system: a small disk is not filled by its log. A segment takes at least two
/// records of the longest payload.
fn fit_log(options: MountOptions, total: u64) -> MountOptions {
    /// A segment is at most this part of the file system.
    const PART: u64 = 32;
    /// All segments of a log that members wait for are at most this part of it.
    const RETAINED_PART: u64 = 16;
    let floor = 2 * (options.single_file_threshold + (64 << 10));
    let max = options.segment_len_max.min(total / PART).max(floor);
    let min = options.segment_len_min.min(max).max(floor);
    let checkpoint_bytes = options.checkpoint_bytes.min(max);
    let log_retention_bytes = options.log_retention_bytes.min(total / RETAINED_PART).max(max);
    MountOptions {
        segment_len_max: max,
        segment_len_min: min,
        checkpoint_bytes,
        log_retention_bytes,
        ..options
    }
}

fn draw_log_id(rng: &mut StdRng) -> LogId {
    rng.random_range(1..=LogId::MAX)
}

/// The label of this start. When all start counts of a log id are used up, a new life begins.
fn next_start(old: &Label, rng: &mut StdRng) -> Label {
    old.with_next_start().unwrap_or_else(|| new_life(old, rng))
}

fn new_life(old: &Label, rng: &mut StdRng) -> Label {
    Label {
        log_id: draw_log_id(rng),
        start_count: 1,
        generation: old.generation.saturating_add(1),
        ..old.clone()
    }
}

/// Uploads that were under way are gone with their connections. What a received record names was renamed before.
fn remove_temporaries<D: Disk>(disk: &D) -> StoreResult<()> {
    let entries = disk.list(paths::SINGLES_TMP).map_err(StoreError::io("list singles/tmp"))?;
    for entry in entries {
        let path = format!("{}/{}", paths::SINGLES_TMP, entry.name);
        if let Some(paths::MountFile::SingleTmp(_)) = paths::MountFile::parse(&path) {
            disk.unlink(&path).map_err(StoreError::io(format!("remove {path}")))?;
        }
    }
    Ok(())
}

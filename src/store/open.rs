//! Opening a mount: label, checkpoint, replay of the log, and then the first position of the new start.
//!
//! Order: the raised start count is durable before anything else is written (R10), so no position is given twice,
//! whatever happens next. Start-up reads the checkpoint and the log behind it, never the slots of all objects (P8);
//! only a lost checkpoint is rebuilt from the slot headers, and the accounts of our space when a part of the log behind
//! the checkpoint cannot be read: it may have been about a hole that is in use since.

use super::checkpoints::{Checkpoints, decode_checkpoint, read_checkpoint_bytes};
use super::clock::Clock;
use super::core::Core;
use super::damaged::{Stretch, put_aside};
use super::disk::{Disk, DiskFile};
use super::error::{StoreError, StoreResult};
use super::label_file::{read_label, read_label_at, write_label};
use super::log::{Current, FullSegment, Log, LogIdentity};
use super::log_scan::{FoundSegment, ScanEnd, TornBatch, find_segments, scan};
use super::lost_log;
use super::lost_segment::{Unreadable, remove_unused};
use super::maintain::Sweep;
use super::mount::{ContentIds, Mount};
use super::options::{MountOptions, Planted};
use super::recovery_file::read_recovery;
use super::synclogs::Received;
use super::tokens::TokenTable;
use crate::cluster::reuse::Reuse;
use crate::format::checkpoint::Checkpoint;
use crate::format::crc::crc32c;
use crate::format::ids::{ChunkfileId, LogId, Sequence};
use crate::format::label::Label;
use crate::format::log::{BATCH_HEADER_LEN, BatchHeader, SEGMENT_HEADER_LEN};
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
        let lost = lost_log::is_lost(&disk, &old)?;
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
        if lost {
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

struct Opening<D: Disk> {
    core: Core<D>,
    tokens: Arc<TokenTable>,
    last: Sequence,
    checkpoint: Option<Checkpoint>,
    /// The log that the checkpoint continues is gone.
    lost: bool,
    /// Slots may have been written that neither the checkpoint nor the log knows.
    copying: bool,
    /// A part of our log behind the checkpoint cannot be read: what is free is known to the slots only.
    damaged: bool,
    /// Segments of it with a damaged header.
    unreadable: Unreadable,
}

impl<D: Disk> Opening<D> {
    /// Checkpoint, replay, and the log ready to go on.
    fn recover(&mut self, rng: &mut StdRng) -> StoreResult<Log<D>> {
        self.checkpoint = self.read_checkpoint()?;
        let rebuild = self.checkpoint.is_none() || self.lost || self.copying;
        if let Some(checkpoint) = self.checkpoint.take() {
            self.restore(&checkpoint);
            self.checkpoint = Some(checkpoint);
        }
        if rebuild {
            self.core.find_chunkfiles()?;
        }
        self.replay_former_log()?;
        let log = self.replay_own_log(rng)?;
        if self.damaged && !rebuild {
            // The record of one may be among what cannot be read.
            self.core.find_chunkfiles()?;
        }
        if rebuild || self.damaged {
            self.core.rebuild(self.last)?;
        }
        self.choose_lanes()?;
        Ok(log)
    }

    fn read_checkpoint(&mut self) -> StoreResult<Option<Checkpoint>> {
        let found = match read_checkpoint_bytes(&self.core.disk)? {
            Some(bytes) => decode_checkpoint(&bytes)?,
            None => return Ok(None),
        };
        let what = match found {
            Some(found) if found.mount_uuid == self.core.label.mount_uuid => {
                return Ok(Some(found));
            }
            Some(_) => "the checkpoint is of another mount: rebuilt",
            None => "the checkpoint is damaged: rebuilt from the slot headers and the log",
        };
        self.core.warnings.push(what.to_owned());
        Ok(None)
    }

    fn restore(&mut self, checkpoint: &Checkpoint) {
        for state in &checkpoint.chunkfiles {
            self.core.chunks.states.insert(state.id, *state);
        }
        self.core.counters = checkpoint.counters;
        self.tokens.restore(&checkpoint.tokens, checkpoint.forgotten_ms);
        let same_life = checkpoint.log_id == self.core.label.log_id;
        for freed in &checkpoint.freed {
            if same_life && self.core.is_ours(freed.place.address.chunkfile()) {
                self.core.space.wait(*freed);
            } else {
                self.core.frozen.push(*freed);
            }
        }
        if same_life {
            self.core.next_chunk = checkpoint.next_chunk;
            self.last = checkpoint.applied;
            for &(chunk, offset, units) in &checkpoint.holes {
                self.core.space.give(chunk, offset, units);
            }
        }
    }

    fn identity(&self, log_id: LogId) -> LogIdentity {
        LogIdentity {
            machine: self.core.label.machine,
            log_id,
            mount: self.core.label.mount,
            mount_uuid: self.core.label.mount_uuid,
            received: false,
        }
    }

    /// When this start began a new life, what the former log holds behind the checkpoint is applied first.
    fn replay_former_log(&mut self) -> StoreResult<()> {
        let Some(checkpoint) = self.checkpoint.clone() else { return Ok(()) };
        if checkpoint.log_id == self.core.label.log_id {
            return Ok(());
        }
        let identity = self.identity(checkpoint.log_id);
        let mut segments = find_segments(&self.core.disk, &identity)?;
        let point = (checkpoint.segment, checkpoint.offset);
        self.replay(&identity, &mut segments, Some(point), checkpoint.applied)?;
        self.last = 0;
        Ok(())
    }

    fn replay_own_log(&mut self, rng: &mut StdRng) -> StoreResult<Log<D>> {
        let identity = self.identity(self.core.label.log_id);
        let mut segments = find_segments(&self.core.disk, &identity)?;
        let own = self.checkpoint.as_ref().filter(|c| c.log_id == identity.log_id);
        let point = own.map(|c| (c.segment, c.offset));
        let before = own.map_or(0, |c| c.applied);
        let end = self.replay(&identity, &mut segments, point, before)?;
        self.last = end.last.max(before);
        self.resume_log(identity, segments, end, rng)
    }

    /// Replays everything behind the checkpoint.
    fn replay(
        &mut self,
        identity: &LogIdentity,
        segments: &mut [FoundSegment<D::File>],
        point: Option<(Sequence, u64)>,
        after: Sequence,
    ) -> StoreResult<ScanEnd> {
        let begin = SEGMENT_HEADER_LEN as u64;
        let (start, offset) = match point {
            Some((first, offset)) => match segments.iter().position(|s| s.header.first >= first) {
                Some(index) if segments[index].header.first == first => (index, offset),
                Some(index) => (index, begin),
                None => (segments.len(), begin),
            },
            None => (0, begin),
        };
        for index in 0..start.min(segments.len()) {
            segments[index].last =
                segments.get(index + 1).map_or(after, |next| next.header.predecessor.min(after));
        }
        if start >= segments.len() {
            return Ok(ScanEnd { segment: start, tail: begin, last: after, ..ScanEnd::default() });
        }
        // After a kill the tail may be in the page cache only. It must not reach a slot, nor be seen, before it is
        // durable (R8): a power cut now would take the record back and leave the slot half overwritten.
        // Nor may the names of the segments be such that only we see them.
        let names = self.core.disk.sync_dir(paths::BINLOG);
        names.map_err(StoreError::io("make durable the names in binlog"))?;
        for segment in &segments[start..] {
            segment.file.sync_data().map_err(StoreError::io("fdatasync of the binlog"))?;
        }
        let last = segments.len() - 1;
        let (from, before) = match segments.get(last) {
            Some(tail) if last > start => (begin, tail.header.predecessor),
            Some(_) | None => (offset, after),
        };
        keep_torn_front::<D>(identity, segments, last, from, before)?;
        let (core, tokens) = (&mut self.core, &self.tokens);
        let end = scan::<D>(identity, segments, start, offset, after, &mut |raw| {
            if let Some(answered) = core.replay(raw)? {
                tokens.answered(&[answered]);
            }
            Ok(())
        })?;
        self.damaged |= !end.damage.is_empty();
        for damage in &end.damage {
            let what = format!(
                "log segment {:x} is damaged at {}: records between {:x} and {:x} may be lost; \
                 what their slots hold is kept",
                damage.segment, damage.offset, damage.after, damage.before
            );
            tracing::warn!(mount = core.label.mount, "{what}");
            core.warnings.push(what);
        }
        Ok(end)
    }

    fn resume_log(
        &mut self,
        identity: LogIdentity,
        mut segments: Vec<FoundSegment<D::File>>,
        end: ScanEnd,
        rng: &mut StdRng,
    ) -> StoreResult<Log<D>> {
        let disk = self.core.disk.clone();
        let next = self.core.label.first_sequence().max(self.last + 1);
        self.unreadable = remove_unused(&disk, &identity, &segments)?;
        self.core.warnings.extend(self.unreadable.warnings());
        self.damaged |= !self.unreadable.paths.is_empty();
        // What is lost lies between.
        let last = if self.unreadable.tail { next - 1 } else { self.last };
        if end.segment >= segments.len() {
            // No log behind the checkpoint: a new mount, a new life, or logs that were deleted.
            let secret = rng.random();
            let len = self.core.options.segment_len_min;
            let current = Log::<D>::create_segment(&disk, &identity, len, next, last, secret)?;
            let full = segments.iter().map(full_segment).collect();
            return Ok(Log::resume(disk, identity, &self.core.options, full, current, last));
        }
        let tail = segments.remove(end.segment);
        let current = Current { file: tail.file, header: tail.header, tail: end.tail };
        let full = segments.iter().map(full_segment).collect();
        Ok(Log::resume(disk, identity, &self.core.options, full, current, last))
    }

    /// Half-filled chunkfiles go on where they stopped. Slots beyond the frontier mean that the log lost its tail:
    /// they are kept.
    fn choose_lanes(&mut self) -> StoreResult<()> {
        let ours: Vec<_> = self
            .core
            .chunks
            .states
            .values()
            .filter(|s| self.core.is_ours(s.id) && s.used_units < s.size_units)
            .map(|s| s.id)
            .collect();
        let lanes = self.core.lanes.len();
        for (index, id) in ours.iter().rev().take(lanes).enumerate() {
            match self.core.adopt_frontier(*id, self.last) {
                Ok(0) => {}
                Ok(slots) => {
                    let what =
                        format!("{slots} slots of chunkfile {} are ahead of the log", id.chunk);
                    self.core.warnings.push(what);
                }
                Err(error) => {
                    self.core.warnings.push(format!("chunkfile {}: {error}", id.chunk));
                    continue;
                }
            }
            self.core.lanes[index] = Some(*id);
        }
        let next = self.core.chunks.states.values().filter(|s| self.core.is_ours(s.id));
        let next = next.map(|s| s.id.chunk + 1).max().unwrap_or(0);
        self.core.next_chunk = self.core.next_chunk.max(next);
        self.remove_unrecorded_chunkfiles()
    }

    /// Chunkfiles whose record the log lost before anyone was told. A reader must not find them: it would keep its
    /// handle when the name is given to another file. Their numbers follow each other, for each name was durable
    /// before the next was given.
    fn remove_unrecorded_chunkfiles(&self) -> StoreResult<()> {
        let (machine, log_id) = (self.core.label.machine, self.core.label.log_id);
        for chunk in self.core.next_chunk.. {
            let path = paths::chunk(ChunkfileId { machine, log_id, chunk });
            match self.core.disk.unlink(&path) {
                Ok(()) => tracing::info!(%path, "removed a chunkfile that no record names"),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => break,
                Err(e) => return Err(StoreError::io(format!("remove {path}"))(e)),
            }
        }
        Ok(())
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

fn full_segment<F>(segment: &FoundSegment<F>) -> FullSegment {
    let header = &segment.header;
    FullSegment { first: header.first, last: segment.last, len: header.len }
}

/// Makes the intact front of a torn batch at the tail, in the segment `last`, a batch of its own: before anything of it is
/// applied (R8), for a power cut meanwhile may take it.
fn keep_torn_front<D: Disk>(
    identity: &LogIdentity,
    segments: &mut [FoundSegment<D::File>],
    last: usize,
    from: u64,
    after: Sequence,
) -> StoreResult<()> {
    let end = scan::<D>(identity, segments, last, from, after, &mut |_| Ok(()))?;
    match (&end.torn, segments.get(last)) {
        (Some(torn), Some(segment)) => write_again(segment, end.tail, identity, torn),
        _ => Ok(()),
    }
}

fn write_again<F: DiskFile>(
    segment: &FoundSegment<F>,
    tail: u64,
    identity: &LogIdentity,
    torn: &TornBatch,
) -> StoreResult<()> {
    let header = BatchHeader {
        log_id: identity.log_id,
        records: torn.records,
        first: torn.range.0,
        last: torn.range.1,
        predecessor: torn.predecessor,
        body_len: u32::try_from(torn.body.len()).unwrap_or(u32::MAX),
        body_crc: crc32c(&torn.body),
    };
    let sealed = header.encode(&segment.header.secret);
    debug_assert_eq!(sealed.len(), BATCH_HEADER_LEN);
    let parts: [&[u8]; 2] = [&sealed, &torn.body];
    let written = segment.file.write_all_vectored_at(tail, &parts);
    written.map_err(StoreError::io("write the torn batch of the binlog again"))?;
    segment.file.sync_data().map_err(StoreError::io("fdatasync of the binlog"))
}

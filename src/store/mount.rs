//! A mount: the engine behind one data directory. Lives on one thread and blocks (R4).
//!
//! The way of a change: `stage_*` checks the precondition, chooses the place, gives the version and takes a sequence
//! (nothing may fail after that); `commit` appends the batch to the log with one write and one fdatasync, and only then
//! writes the slots (R8). Whoever staged answers when `durable() >= Staged::sequence`.
//!
//! Invariants
//! - staged <= appended <= durable in time; a slot never holds a version that the log does not.
//! - After an error of a write or sync nothing more is acknowledged: the mount is fenced for good (R9).
//! - Sequences grow; the start count in their top bits was made durable before the first one was given.

use super::checkpoints::Checkpoints;
use super::clock::Clock;
use super::core::Core;
use super::disk::{Disk, Space as DiskSpace};
use super::error::{StoreError, StoreResult};
use super::log::{Log, Pending};
use super::options::{MountOptions, Planted, Reserve};
use super::synclogs::Received;
use super::tokens::TokenTable;
use crate::cluster::reuse::{MemberReport, Reuse};
use crate::format::checkpoint::{AnsweredToken, Counters};
use crate::format::file_id::ObjectId;
use crate::format::forgotten::Forgotten;
use crate::format::ids::{
    Address, ChunkfileId, LogId, MachineId, Position, Sequence, Tag, Token, UNIT,
};
use crate::format::label::Label;
use crate::format::record::{Edit, Record, Settled};
use crate::format::slot::SlotHeader;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The content of an edit.
#[derive(Clone, Debug)]
pub enum Body {
    /// Goes into a slot.
    Inline {
        /// The bytes.
        bytes: Bytes,
        /// Their CRC32C, made where they entered and checked there.
        crc: u32,
    },
    /// Was written to a temporary singlefile; file and name are durable.
    Single(TempSingle),
}

impl Body {
    /// Length of the content in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        match self {
            Self::Inline { bytes, .. } => bytes.len() as u64,
            Self::Single(single) => single.length,
        }
    }
}

/// A finished temporary singlefile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TempSingle {
    /// Its content id, and so its name.
    pub content: Position,
    /// Length of the payload.
    pub length: u64,
    /// CRC32C of the payload.
    pub crc: u32,
}

/// A new object.
#[derive(Clone, Debug)]
pub struct PutRequest {
    /// For retries.
    pub token: Token,
    /// Content.
    pub body: Body,
    /// Room to grow, if not the mount's default.
    pub reserve: Option<Reserve>,
    /// Which of the active chunkfiles, modulo their number.
    pub lane: usize,
}

/// An edit that waits for its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// It is durable when [`Mount::durable`] has reached this.
    pub sequence: Sequence,
    /// The object.
    pub id: ObjectId,
    /// Its version.
    pub tag: Tag,
}

/// Draws content ids for singlefiles; shared with the threads that write them.
#[derive(Debug)]
pub struct ContentIds {
    machine: MachineId,
    log_id: LogId,
    next: AtomicU64,
}

impl ContentIds {
    pub(super) fn new(label: &Label) -> Self {
        let next = AtomicU64::new(label.first_sequence());
        Self { machine: label.machine, log_id: label.log_id, next }
    }

    /// A content id that was never given before.
    #[must_use]
    pub fn next(&self) -> Position {
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        Position { machine: self.machine, log_id: self.log_id, sequence }
    }
}

/// Numbers of a mount, for people and for the tracker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountStats {
    /// Objects and bytes.
    pub counters: Counters,
    /// The file system.
    pub space: DiskSpace,
    /// Chunkfiles.
    pub chunkfiles: u64,
    /// Their used bytes, holes included.
    pub used_bytes: u64,
    /// Holes.
    pub holes: u64,
    /// Bytes in them.
    pub hole_bytes: u64,
    /// Bytes that wait for R12.
    pub waiting_bytes: u64,
    /// Bytes of log segments.
    pub log_bytes: u64,
    /// Last durable sequence.
    pub durable: Sequence,
    /// Last sequence covered by a checkpoint.
    pub checkpointed: Sequence,
    /// Batches written since the start.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Versions in the conflict archive.
    pub archived: u64,
    /// Conflicts that were met here since the start.
    pub conflicts: u64,
}

pub(super) struct StagedEdit {
    pub edit: Edit,
    pub home: SlotHeader,
    pub payload: Bytes,
    pub sequence: Sequence,
}

/// One data directory.
pub struct Mount<D: Disk> {
    pub(super) core: Core<D>,
    pub(super) log: Log<D>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tokens: Arc<TokenTable>,
    pub(super) rng: StdRng,
    pub(super) next_sequence: Sequence,
    pub(super) durable: Sequence,
    pub(super) pending: Vec<Pending>,
    pub(super) staged: Vec<StagedEdit>,
    pub(super) answers: Vec<AnsweredToken>,
    pub(super) batch_bytes: usize,
    /// Headers of this batch that are not in their slots yet.
    pub(super) overlay: HashMap<Address, SlotHeader>,
    pub(super) reuse: Reuse,
    pub(super) rounds: VecDeque<(u64, Sequence)>,
    pub(super) checkpoints: Checkpoints,
    pub(super) free_seen: Option<DiskSpace>,
    pub(super) fenced: Option<String>,
    pub(super) content_ids: Arc<ContentIds>,
    pub(super) sweep: super::maintain::Sweep,
    pub(super) batches: u64,
    pub(super) records: u64,
    /// Conflicts that were met since the start.
    pub(super) conflicts: u64,
    /// Other logs.
    pub(super) received: Received<D>,
    /// What each other member last said.
    pub(super) reports: BTreeMap<MachineId, MemberReport>,
    /// Of the batch: what edits of other logs freed here.
    pub(super) settling: Vec<(Settled, Sequence)>,
    /// Of the batch, or of a receipt: answers that other machines gave.
    pub(super) heard: Vec<AnsweredToken>,
    /// Our own log as far as this disk had it when the mount was opened.
    pub(super) own_former: Sequence,
    /// A member has our own log up to here, further than we: until it is back.
    pub(super) own_missing: Sequence,
    /// Members that were removed for good.
    pub(super) forgotten: Vec<Forgotten>,
    /// Records that could not be applied.
    pub(super) quarantined: u64,
    /// Contents of large objects that nobody has any more.
    pub(super) gone_contents: HashSet<Position>,
    /// It does not serve yet: see [`recovery_file`](super::recovery_file).
    pub(super) refilling: bool,
    /// Copies were written that are not durable yet: see [`absorb_blank`](super::absorb_blank).
    pub(super) unsynced_copies: bool,
}

impl<D: Disk> Mount<D> {
    /// Whether something is staged.
    #[must_use]
    pub fn has_staged(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether the batch should be written without waiting for more.
    #[must_use]
    pub fn batch_is_full(&self) -> bool {
        self.batch_bytes >= self.core.options.batch_bytes_max
    }

    /// Everything up to here is durable and applied.
    #[must_use]
    pub fn durable(&self) -> Sequence {
        if self.core.options.planted(Planted::AckBeforeLog) {
            return self.next_sequence - 1;
        }
        self.durable
    }

    /// Why the mount takes nothing more, if so.
    #[must_use]
    pub fn fenced(&self) -> Option<&str> {
        self.fenced.as_deref()
    }

    /// Takes nothing more from now on. What is staged is never acknowledged.
    pub fn fence(&mut self, reason: String) {
        if self.fenced.is_none() {
            tracing::error!(mount = self.core.label.mount, %reason, "mount fenced");
            self.fenced = Some(reason);
        }
        self.drop_batch();
    }

    fn drop_batch(&mut self) {
        self.pending.clear();
        self.staged.clear();
        self.overlay.clear();
        self.settling.clear();
        for answered in std::mem::take(&mut self.answers) {
            self.tokens.abandon(&answered.token);
        }
        self.batch_bytes = 0;
    }

    pub(super) fn check_fence(&self) -> StoreResult<()> {
        match &self.fenced {
            Some(reason) => Err(StoreError::Fenced(reason.clone())),
            None => Ok(()),
        }
    }

    /// The label as it was written at this start.
    #[must_use]
    pub const fn label(&self) -> &Label {
        &self.core.label
    }

    /// Content ids for singlefiles.
    #[must_use]
    pub fn content_ids(&self) -> Arc<ContentIds> {
        Arc::clone(&self.content_ids)
    }

    /// Chunkfile of each lane that has one.
    #[must_use]
    pub fn active_chunkfiles(&self) -> Vec<ChunkfileId> {
        self.core.lanes.iter().flatten().copied().collect()
    }

    /// What an operator should know; drained.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.core.warnings)
    }

    /// Writes the batch, makes it durable, applies it. After an error the mount is fenced.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]: nothing of the batch may be acknowledged; whether it is in the log is unknown.
    pub fn commit(&mut self) -> StoreResult<Sequence> {
        self.check_fence()?;
        if self.pending.is_empty() {
            return Ok(self.durable);
        }
        match self.write_batch() {
            Ok(()) => Ok(self.durable),
            Err(error) => {
                self.fence(error.to_string());
                self.check_fence().map(|()| self.durable)
            }
        }
    }

    fn write_batch(&mut self) -> StoreResult<()> {
        let apply_first = self.core.options.planted(Planted::ApplyBeforeLog);
        if apply_first {
            self.apply_staged()?;
        }
        self.log.append(&self.pending)?;
        self.log.sync(&self.core.options)?;
        if !apply_first {
            self.apply_staged()?;
        }
        self.durable = self.log.last;
        self.batches += 1;
        self.records += self.pending.len() as u64;
        let freed = self.staged.iter().any(|s| !s.edit.freed.is_empty());
        let settled = std::mem::take(&mut self.settling);
        for (settled, sequence) in &settled {
            self.core.free(&settled.freed, *sequence);
        }
        self.pending.clear();
        self.staged.clear();
        self.overlay.clear();
        self.batch_bytes = 0;
        self.free_seen = None;
        self.tokens.answered(&self.answers);
        self.answers.clear();
        if freed || !settled.is_empty() {
            let by = self.position(self.durable);
            let round = self.reuse.superseded(by);
            if !settled.is_empty() {
                // What freed them stands in other logs: all that is known of those is waited for.
                for position in self.received.coverage.iter() {
                    self.reuse.superseded(position);
                }
            }
            self.rounds.push_back((round, self.durable));
        }
        self.settle();
        Ok(())
    }

    /// R12 for what is durable and applied here.
    pub(super) fn settle(&mut self) {
        let report = self.own_report();
        if let Some(completed) = self.reuse.report(self.core.label.machine, &report) {
            self.release(completed);
        }
    }

    /// A round of R12 has completed.
    pub(super) fn release(&mut self, completed: u64) {
        while let Some((_, covered)) = self.rounds.pop_front_if(|(round, _)| *round <= completed) {
            self.core.space.release(covered);
        }
    }

    pub(super) const fn position(&self, sequence: Sequence) -> Position {
        Position { machine: self.core.label.machine, log_id: self.core.label.log_id, sequence }
    }

    /// Makes sure that a record of `len` body bytes can be appended to the current batch without anything failing:
    /// commits what is staged, goes on in another segment.
    pub(super) fn reserve_log(&mut self, len: usize) -> StoreResult<()> {
        self.check_fence()?;
        if len as u64 > self.log.body_max() {
            return Err(StoreError::TooLarge { length: len as u64 });
        }
        if self.log.fits(self.batch_bytes + len) {
            return Ok(());
        }
        self.commit()?;
        if self.log.fits(len) {
            return Ok(());
        }
        self.next_segment(len)
    }

    fn next_segment(&mut self, len: usize) -> StoreResult<()> {
        /// Full segments that no checkpoint covers, before inserts wait for one.
        const UNCOVERED_MAX: usize = 2;
        let covered = self.checkpoints.covered;
        if self.log.full.iter().filter(|s| s.last > covered).count() >= UNCOVERED_MAX {
            self.finish_checkpoint()?;
        }
        let covered = if self.core.options.planted(Planted::RecycleUncovered) {
            Sequence::MAX
        } else {
            self.recyclable()
        };
        let secret = self.rng.random();
        match self.log.rotate(covered, len, secret) {
            Ok(()) => Ok(()),
            Err(StoreError::Io { error, .. })
                if error.kind() == std::io::ErrorKind::StorageFull =>
            {
                Err(self.no_space(len as u64))
            }
            Err(error) => {
                self.fence(error.to_string());
                Err(error)
            }
        }
    }

    /// Records of our log up to here may be given up: a checkpoint covers them, and every member has them or the log
    /// has reached its bound (who was away for longer catches up by state).
    pub(super) fn recyclable(&self) -> Sequence {
        let covered = self.checkpoints.covered;
        if self.log.bytes() >= self.core.options.log_retention_bytes {
            return covered;
        }
        let (machine, log_id) = (self.core.label.machine, self.core.label.log_id);
        let others = self.core.label.members.iter().filter(|member| member.machine != machine);
        let acked = others.map(|member| {
            self.reports.get(&member.machine).map_or(0, |r| r.coverage.get(machine, log_id))
        });
        acked.min().unwrap_or(covered).min(covered)
    }

    pub(super) fn no_space(&mut self, needed: u64) -> StoreError {
        let free = self.disk_space().map_or(0, |s| s.free);
        StoreError::NoSpace { free, reserve_free: self.core.options.reserve_free, needed }
    }

    pub(super) fn disk_space(&mut self) -> StoreResult<DiskSpace> {
        if let Some(seen) = self.free_seen {
            return Ok(seen);
        }
        let seen = self.core.disk.space().map_err(StoreError::io("statvfs"))?;
        self.free_seen = Some(seen);
        Ok(seen)
    }

    /// Takes the next sequence. From here on nothing may fail until the record is pushed.
    pub(super) const fn take_sequence(&mut self) -> Sequence {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    pub(super) fn push_record(
        &mut self,
        record: &Record,
        sequence: Sequence,
        payload: Bytes,
        payload_crc: u32,
    ) {
        let mut head = Vec::with_capacity(320);
        record.encode(&mut head);
        let pending = Pending { kind: record.kind(), sequence, head, payload, payload_crc };
        self.batch_bytes += pending.body_len();
        self.pending.push(pending);
    }

    /// From now on inserts leave so many bytes of the file system free.
    pub fn set_reserve_free(&mut self, bytes: u64) {
        self.core.options.reserve_free = bytes;
    }

    /// Free bytes of the file system now; 0 if it does not say.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.core.disk.space().map_or(0, |space| space.free)
    }

    /// Numbers for people.
    pub fn stats(&mut self) -> MountStats {
        let (holes, hole_units, waiting_units) = self.core.space.totals();
        // Not what an insert last saw: mirrors fill it, too, and others who use the file system.
        let space = self.core.disk.space().unwrap_or_default();
        let archived = self.core.archived();
        let states = self.core.chunks.states.values();
        MountStats {
            counters: self.core.counters,
            space,
            chunkfiles: self.core.chunks.states.len() as u64,
            used_bytes: states.map(|s| u64::from(s.used_units) * UNIT).sum(),
            holes: holes as u64,
            hole_bytes: hole_units * UNIT,
            waiting_bytes: waiting_units * UNIT,
            log_bytes: self.log.bytes(),
            durable: self.durable,
            checkpointed: self.checkpoints.covered,
            batches: self.batches,
            records: self.records,
            archived,
            conflicts: self.conflicts,
        }
    }

    /// Settings.
    #[must_use]
    pub const fn options(&self) -> &MountOptions {
        &self.core.options
    }

    pub(super) fn random_secret(&mut self) -> [u8; 16] {
        let mut secret = [0; 16];
        self.rng.fill_bytes(&mut secret);
        secret
    }
}

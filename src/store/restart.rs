//! From the last checkpoint and the log behind it to what the mount was: the part of a start that reads
//! ([`open`](super::open) calls it and makes the mount of it).
//!
//! Invariants: never the slots of all objects (P8), but for a checkpoint that is lost, or accounts that a damaged part of the
//! log leaves unknown; the intact front of a torn batch is durable in the log before it is applied.

use super::checkpoints::{decode_checkpoint, read_checkpoint_bytes};
use super::core::Core;
use super::disk::{Disk, DiskFile};
use super::error::{StoreError, StoreResult};
use super::log::{Current, FullSegment, Log, LogIdentity};
use super::log_scan::{FoundSegment, ScanEnd, TornBatch, find_segments, scan};
use super::lost_segment::{Unreadable, remove_unused};
use super::tokens::TokenTable;
use crate::format::checkpoint::Checkpoint;
use crate::format::crc::crc32c;
use crate::format::ids::{ChunkfileId, LogId, Sequence};
use crate::format::log::{BATCH_HEADER_LEN, BatchHeader, SEGMENT_HEADER_LEN};
use crate::format::paths;
use rand::Rng;
use rand::rngs::StdRng;
use std::sync::Arc;

pub(super) struct Opening<D: Disk> {
    pub core: Core<D>,
    pub tokens: Arc<TokenTable>,
    pub last: Sequence,
    pub checkpoint: Option<Checkpoint>,
    /// The log that the checkpoint continues is gone.
    pub lost: bool,
    /// Slots may have been written that neither the checkpoint nor the log knows.
    pub copying: bool,
    /// A part of our log behind the checkpoint cannot be read: what is free is known to the slots only.
    pub damaged: bool,
    /// Segments of it with a damaged header.
    pub unreadable: Unreadable,
}

impl<D: Disk> Opening<D> {
    /// Checkpoint, replay, and the log ready to go on.
    pub(super) fn recover(&mut self, rng: &mut StdRng) -> StoreResult<Log<D>> {
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

//! The synclogs of a mount: what it has received of other logs (and, after a loss, of its own), in the format of the
//! binlog. They are the backup of those logs, and what third machines are served from.
//!
//! Invariants: a slice is durable here before it is applied, and applied before it is acknowledged; a log's entry in
//! the coverage never passes a gap; what a restart finds behind the last checkpoint is applied by the same rules as
//! what arrives.

use super::disk::{Disk, DiskFile};
use super::error::{StoreError, StoreResult};
use super::log::{Current, FullSegment, Log, LogIdentity};
use super::log_scan::{FoundSegment, ScanEnd, find_segments, scan};
use super::mount::Mount;
use super::sync::LogName;
use crate::cluster::coverage::Coverage;
use crate::format::checkpoint::ReceivedLog;
use crate::format::ids::Sequence;
use crate::format::log::SEGMENT_HEADER_LEN;
use crate::format::paths::{self, MountFile};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a mount has of other logs.
pub struct Received<D: Disk> {
    /// Everything applied, durably, of other logs than our current one.
    pub coverage: Coverage,
    /// What the last checkpoint covers of it.
    pub checkpointed: Coverage,
    /// Open synclogs.
    pub logs: BTreeMap<LogName, Log<D>>,
}

impl<D: Disk> Default for Received<D> {
    fn default() -> Self {
        Self { coverage: Coverage::new(), checkpointed: Coverage::new(), logs: BTreeMap::new() }
    }
}

impl<D: Disk> Mount<D> {
    fn received_identity(&self, log: LogName) -> LogIdentity {
        LogIdentity {
            machine: log.machine,
            log_id: log.log_id,
            mount: self.core.label.mount,
            mount_uuid: self.core.label.mount_uuid,
            received: true,
        }
    }

    /// Makes sure that a batch of `len` body bytes fits the synclog of `log`.
    pub(super) fn ready_synclog(
        &mut self,
        log: LogName,
        from: Sequence,
        len: usize,
    ) -> StoreResult<()> {
        let identity = self.received_identity(log);
        let secret = self.rng.random();
        let retention = self.core.options.log_retention_bytes;
        let covered = self.received.checkpointed.get(log.machine, log.log_id);
        if let Some(open) = self.received.logs.get_mut(&log) {
            if open.fits(len) {
                return Ok(());
            }
            // The segment that is left behind is not looked at again when this batch is made durable.
            open.sync(&self.core.options)?;
            // What a checkpoint covers is kept for third machines as long as there is room.
            let covered = if open.bytes() >= retention { covered } else { 0 };
            return open.rotate(covered, len, secret);
        }
        let folder = identity.folder();
        let disk = self.core.disk.clone();
        let io = |what: &str| StoreError::io(format!("{what} {folder}"));
        disk.create_dir_all(&folder).map_err(io("create folder"))?;
        disk.sync_dir(paths::SYNCLOG).map_err(io("make durable the name of"))?;
        disk.sync_dir("").map_err(io("make durable the folder of"))?;
        let needed = len as u64 + 2 * SEGMENT_HEADER_LEN as u64;
        let len = self.core.options.segment_len_min.max(needed);
        let current = Log::create_segment(&disk, &identity, len, from + 1, from, secret)?;
        let full = VecDeque::new();
        let opened = Log::resume(disk, identity, &self.core.options, full, current, from);
        self.received.logs.insert(log, opened);
        Ok(())
    }

    /// Where the batches end in the segment of a received log that begins with `first`; 0 if it is not the last one.
    #[must_use]
    pub fn synclog_end(&self, log: LogName, first: Sequence) -> u64 {
        let open = self.received.logs.get(&log).map(|open| &open.current);
        open.filter(|current| current.header.first == first).map_or(0, |current| current.tail)
    }

    /// For a checkpoint: what is applied of other logs at this instant.
    pub(super) fn received_logs(&self) -> Vec<ReceivedLog> {
        let entries = self.received.coverage.iter().map(|position| {
            let open = self.received.logs.get(&LogName::of(position));
            let (segment, offset) =
                open.map_or((0, 0), |log| (log.current.header.first, log.current.tail));
            ReceivedLog {
                machine: position.machine,
                log_id: position.log_id,
                applied: position.sequence,
                segment,
                offset,
            }
        });
        entries.collect()
    }

    /// A checkpoint that covers `received` is durable: older segments may go beyond what is kept.
    pub(super) fn trim_synclogs(&mut self, received: &[ReceivedLog]) -> StoreResult<()> {
        let retention = self.core.options.log_retention_bytes;
        for log in received {
            let name = LogName { machine: log.machine, log_id: log.log_id };
            self.received.checkpointed.raise(name.at(log.applied));
            if let Some(open) = self.received.logs.get_mut(&name) {
                open.trim_to(log.applied, retention)?;
            }
        }
        Ok(())
    }

    /// Applies what was received behind the checkpoint, and opens the synclogs to go on.
    pub(super) fn replay_received(&mut self, points: &[ReceivedLog]) -> StoreResult<()> {
        for point in points {
            let name = LogName { machine: point.machine, log_id: point.log_id };
            self.received.coverage.raise(name.at(point.applied));
            self.received.checkpointed.raise(name.at(point.applied));
        }
        for name in self.synclogs_on_disk()? {
            let point =
                points.iter().find(|p| p.machine == name.machine && p.log_id == name.log_id);
            self.replay_synclog(name, point)?;
        }
        for (edit, payload) in std::mem::take(&mut self.core.images) {
            self.replay_image(&edit, &payload)?;
        }
        self.core.remove_freed_singles()?;
        self.keep_replayed_in_use()?;
        // Only now: what was reached by state may lie in a synclog, too, and the replay of our own log may have written
        // an older version again because the later one's content did not land.
        for position in std::mem::take(&mut self.core.reached) {
            self.received.coverage.raise(position);
        }
        // A retry may come here first.
        let heard = std::mem::take(&mut self.heard);
        self.tokens.answered(&heard);
        self.commit().map(|_| ())
    }

    fn synclogs_on_disk(&self) -> StoreResult<BTreeSet<LogName>> {
        let mut found = BTreeSet::new();
        let list = |folder: &str| match self.core.disk.list(folder) {
            Ok(entries) => Ok(entries),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(StoreError::io(format!("list {folder}"))(e)),
        };
        for peer in list(paths::SYNCLOG)? {
            let folder = format!("{}/{}", paths::SYNCLOG, peer.name);
            for entry in list(&folder)? {
                let path = format!("{folder}/{}", entry.name);
                if let Some(MountFile::Synclog(machine, name)) = MountFile::parse(&path) {
                    found.insert(LogName { machine, log_id: name.log_id });
                }
            }
        }
        Ok(found)
    }

    fn replay_synclog(&mut self, log: LogName, point: Option<&ReceivedLog>) -> StoreResult<()> {
        let identity = self.received_identity(log);
        let disk = self.core.disk.clone();
        let mut segments = find_segments(&disk, &identity)?;
        let folder = identity.folder();
        let synced = disk.sync_dir(&folder);
        synced.map_err(StoreError::io(format!("make durable the names in {folder}")))?;
        let begin = SEGMENT_HEADER_LEN as u64;
        let (first, offset) = point.map_or((0, begin), |p| (p.segment, p.offset));
        let start = segments.iter().position(|s| s.header.first >= first).unwrap_or(segments.len());
        let offset = match segments.get(start) {
            Some(segment) if segment.header.first == first => offset,
            Some(_) | None => begin,
        };
        let after = log.covered_by(&self.received.coverage);
        note_last(&mut segments, start, after);
        // What the killed process left in the page cache must be durable before it is built on (R8).
        for segment in segments.iter().skip(start) {
            segment.file.sync_data().map_err(StoreError::io("fdatasync of a synclog"))?;
        }
        let end = scan::<D>(&identity, &mut segments, start, offset, after, &mut |raw| {
            self.apply_received(log.at(raw.sequence), raw, true)
        })?;
        if start >= segments.len() {
            return Ok(());
        }
        self.resume_synclog(log, identity, segments, end)
    }

    /// Goes on behind the last whole batch. A damaged synclog is given up: what no checkpoint covers is asked for again.
    fn resume_synclog(
        &mut self,
        log: LogName,
        identity: LogIdentity,
        mut segments: Vec<FoundSegment<D::File>>,
        mut end: ScanEnd,
    ) -> StoreResult<()> {
        if let Some(damage) = end.damage.first() {
            let what = format!(
                "the synclog of machine {} is damaged in segment {:x}: it is asked for again",
                log.machine, damage.segment
            );
            tracing::warn!(mount = self.core.label.mount, "{what}");
            self.core.warnings.push(what);
            for segment in segments.drain(..) {
                let path = identity.path(segment.header.first);
                self.core.disk.unlink(&path).map_err(StoreError::io(format!("remove {path}")))?;
            }
            return Ok(());
        }
        if let Some(torn) = &end.torn {
            // Its records were applied, but nobody was told.
            end.last = torn.predecessor;
        }
        self.received.coverage.raise(log.at(end.last));
        let tail = segments.remove(end.segment);
        let current = Current { file: tail.file, header: tail.header, tail: end.tail };
        let full = segments.iter().map(|s| FullSegment {
            first: s.header.first,
            last: s.last,
            len: s.header.len,
        });
        let full = full.collect();
        let last = log.covered_by(&self.received.coverage);
        let disk = self.core.disk.clone();
        let opened = Log::resume(disk, identity, &self.core.options, full, current, last);
        self.received.logs.insert(log, opened);
        Ok(())
    }
}

/// Segments before the one where a replay begins are not read; how far they go is known from their successors.
fn note_last<F>(segments: &mut [FoundSegment<F>], start: usize, after: Sequence) {
    for index in 0..start.min(segments.len()) {
        segments[index].last =
            segments.get(index + 1).map_or(after, |next| next.header.predecessor.min(after));
    }
}

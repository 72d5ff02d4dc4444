//! Segments of our log whose header cannot be read, so that nothing in them can.
//!
//! Invariants: such a segment is put aside, never removed, and only when a checkpoint holds what was found out from the
//! slots instead, so that a start that is killed is made again in the same way; a log that has lost its end goes on behind a
//! gap that every reader sees.

use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use super::log::LogIdentity;
use super::log_scan::FoundSegment;
use super::mount::Mount;
use crate::format::log::{NotALog, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::format::paths::{BINLOG, MountFile};
use crate::format::record::Record;
use bytes::Bytes;

/// Segments of our log with a damaged header.
#[derive(Debug, Default)]
pub struct Unreadable {
    /// Their names.
    pub paths: Vec<String>,
    /// One of them was the end of the log.
    pub tail: bool,
}

impl Unreadable {
    /// For people.
    pub fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        self.paths.iter().map(|path| {
            format!("the header of {path} is damaged: its records are lost, see {path}.damaged")
        })
    }
}

/// Segments that were named but never used, left over from a crash in the middle of a rotation, are removed. Those whose
/// header is damaged may hold what we miss: they are the answer. `known`: the others.
///
/// # Errors
/// `Io`.
pub fn remove_unused<D: Disk>(
    disk: &D,
    identity: &LogIdentity,
    known: &[FoundSegment<D::File>],
) -> StoreResult<Unreadable> {
    let mut unreadable = Unreadable::default();
    for entry in disk.list(BINLOG).map_err(StoreError::io("list binlog"))? {
        let path = format!("{BINLOG}/{}", entry.name);
        let Some(MountFile::Binlog(name)) = MountFile::parse(&path) else { continue };
        let is_known = known.iter().any(|s| s.header.first == name.first);
        if name.log_id != identity.log_id || is_known {
            continue;
        }
        if !is_damaged(disk, &path)? {
            disk.unlink(&path).map_err(StoreError::io(format!("remove {path}")))?;
            continue;
        }
        unreadable.tail |= known.iter().all(|s| s.header.first < name.first);
        unreadable.paths.push(path);
    }
    Ok(unreadable)
}

/// Whether a segment that was left out was in use once. Its header is one sector, written before or with its first
/// batch: a crash leaves an older tenant's header or zeros, never a broken one.
fn is_damaged<D: Disk>(disk: &D, path: &str) -> StoreResult<bool> {
    let io = |what: &str| StoreError::io(format!("{what} {path}"));
    let file = disk.open(path, Open::Read).map_err(io("open"))?;
    let mut head = vec![0; SEGMENT_HEADER_LEN];
    let got = file.read_full_at(0, &mut head).map_err(io("read"))?;
    Ok(match SegmentHeader::decode(&head[..got]) {
        Err(NotALog::Broken) => true,
        Err(NotALog::Blank) => head.iter().any(|byte| *byte != 0),
        Ok(_) | Err(NotALog::Newer(_)) => false,
    })
}

impl<D: Disk> Mount<D> {
    /// The end of our log cannot be read, and what it said is in the slots only. The log goes on with a record of this start
    /// whose predecessor nobody has: who has not heard of what is lost finds a gap, and comes by state. Without it our
    /// coverage would say that there is nothing to be had, and R12 that all know of it.
    pub(super) fn pass_over_lost_tail(&mut self) -> StoreResult<()> {
        /// Bytes of the record, at most.
        const REACHED_MAX: usize = 64;
        self.reserve_log(REACHED_MAX)?;
        let sequence = self.take_sequence();
        self.push_record(&Record::Reached(Vec::new()), sequence, Bytes::new(), 0);
        self.commit().map(|_| ())
    }

    /// Puts segments aside that a start has done without.
    pub(super) fn put_segments_aside(&mut self, unreadable: &Unreadable) -> StoreResult<()> {
        if unreadable.paths.is_empty() {
            return Ok(());
        }
        self.finish_checkpoint()?;
        for path in &unreadable.paths {
            let io = |what: &str| StoreError::io(format!("{what} {path}"));
            self.core.disk.rename(path, &format!("{path}.damaged")).map_err(io("put aside"))?;
        }
        self.core.disk.sync_dir(BINLOG).map_err(StoreError::io("sync the folder binlog"))?;
        for what in unreadable.warnings() {
            tracing::error!(mount = self.core.label.mount, "{what}");
        }
        Ok(())
    }
}

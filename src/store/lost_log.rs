//! A mount whose log is gone although it was in use: somebody deleted it, or the file system lost it.
//!
//! Invariants: a log id belongs to one life of a log, so such a mount goes on under a new one and its places of before are
//! never handed out again; its checkpoint describes a state that is over, so what is here is found out from the slots and
//! no chunkfile is taken for left over; of the log that is gone it claims no more than the checkpoint had made durable,
//! and is sent the rest by whoever has it.

use super::checkpoints::read_checkpoint_file;
use super::disk::Disk;
use super::error::{StoreError, StoreResult};

use crate::format::checkpoint::{Checkpoint, ReceivedLog};
use crate::format::label::Label;
use crate::format::paths::{BINLOG, MountFile};
use std::io::ErrorKind;

/// Whether the log that the label names is gone.
///
/// # Errors
/// `Io`, `Format`.
pub fn is_lost<D: Disk>(disk: &D, label: &Label) -> StoreResult<bool> {
    if label.start_count == 0 {
        return Ok(false);
    }
    let checkpoint = read_checkpoint_file(disk)?;
    let own = checkpoint.filter(|c| c.log_id == label.log_id && c.mount_uuid == label.mount_uuid);
    let oldest = own.map_or(0, |checkpoint| checkpoint.segment);
    let entries = match disk.list(BINLOG) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(StoreError::io(format!("list {BINLOG}"))(error)),
    };
    let is_here = |name: &str| match MountFile::parse(&format!("{BINLOG}/{name}")) {
        Some(MountFile::Binlog(segment)) => {
            segment.log_id == label.log_id && segment.first >= oldest
        }
        Some(_) | None => false,
    };
    Ok(!entries.iter().any(|entry| is_here(&entry.name)))
}

/// What is still known of it: what the checkpoint covers is in the slots.
#[must_use]
pub fn former(checkpoint: &Checkpoint, old: &Label) -> Option<ReceivedLog> {
    let known = checkpoint.log_id == old.log_id && checkpoint.applied > 0;
    known.then_some(ReceivedLog {
        machine: old.machine,
        log_id: old.log_id,
        applied: checkpoint.applied,
        segment: 0,
        offset: 0,
    })
}

/// For people.
#[must_use]
pub fn warning(old: &Label, new: &Label) -> String {
    format!(
        "log {:08x} is gone: what is here is found out from the slot headers, and the mount goes on with log {:08x}",
        old.log_id, new.log_id
    )
}

//! Giving up what is damaged of a log, or of the checkpoint, without giving up anything that it says: the slots have it all.
//!
//! A log goes on in a new segment, everything before is made durable in the slots (a checkpoint), and then the old segments go.
//! Invariants: nothing of a log is removed before a checkpoint covers it; who still needs those records gets them by state;
//! each step is a slice (R4).

use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use super::sync::LogName;
use crate::format::ids::Sequence;
use crate::format::paths::{BINLOG, MountFile, SYNCLOG};
use rand::Rng;
use std::io::ErrorKind;

/// What is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Our own log.
    Binlog,
    /// What is kept of another log.
    Synclog(LogName),
    /// The checkpoint.
    Checkpoint,
}

/// How far a renewal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Of what.
    pub part: Part,
    step: u8,
    /// Segments that begin here or before go.
    up_to: Sequence,
}

impl Renewal {
    /// Nothing is done yet.
    #[must_use]
    pub const fn of(part: Part) -> Self {
        Self { part, step: 0, up_to: 0 }
    }
}

impl<D: Disk> Mount<D> {
    /// One slice; whether it is done.
    ///
    /// # Errors
    /// The mount is fenced, or has no space for a new segment: the log stays as it is.
    pub fn renew(&mut self, renewal: &mut Renewal) -> StoreResult<bool> {
        self.check_fence()?;
        match renewal.step {
            0 => {
                self.commit()?;
                renewal.up_to = self.leave_segments(renewal.part)?;
                renewal.step = 1;
                Ok(false)
            }
            // The first one to end may have begun before.
            1 | 2 => {
                if self.checkpoint_step()? {
                    renewal.step += 1;
                }
                Ok(false)
            }
            _ => {
                if !self.is_checkpointed(renewal) {
                    renewal.step = 1;
                    return Ok(false);
                }
                let removed = self.remove_segments(renewal);
                removed.map(|()| true).inspect_err(|error| self.fence(error.to_string()))
            }
        }
    }

    /// Goes on in a new segment; the last sequence before it.
    fn leave_segments(&mut self, part: Part) -> StoreResult<Sequence> {
        let secret = self.rng.random();
        let log = match part {
            Part::Checkpoint => return Ok(0),
            Part::Binlog => Some(&mut self.log),
            Part::Synclog(name) => self.received.logs.get_mut(&name),
        };
        let Some(log) = log else {
            let Part::Synclog(name) = part else { return Ok(0) };
            return Ok(name.covered_by(&self.received.coverage));
        };
        let up_to = log.last;
        match log.rotate(0, 0, secret) {
            Ok(()) => Ok(up_to),
            Err(StoreError::Io { what, error }) if error.kind() == ErrorKind::StorageFull => {
                Err(StoreError::Io { what, error })
            }
            Err(error) => {
                self.fence(error.to_string());
                Err(error)
            }
        }
    }

    fn is_checkpointed(&self, renewal: &Renewal) -> bool {
        match renewal.part {
            Part::Checkpoint => true,
            Part::Binlog => self.checkpoints.covered >= renewal.up_to,
            Part::Synclog(name) => name.covered_by(&self.received.checkpointed) >= renewal.up_to,
        }
    }

    fn remove_segments(&mut self, renewal: &Renewal) -> StoreResult<()> {
        let up_to = renewal.up_to;
        let (folder, log_id) = match renewal.part {
            Part::Checkpoint => return Ok(()),
            Part::Binlog => (BINLOG.to_owned(), self.core.label.log_id),
            Part::Synclog(name) => (format!("{SYNCLOG}/{}", name.machine), name.log_id),
        };
        let io = |what: &str| StoreError::io(format!("{what} {folder}"));
        let disk = &self.core.disk;
        for entry in disk.list(&folder).map_err(io("list"))? {
            let path = format!("{folder}/{}", entry.name);
            let name = match MountFile::parse(&path) {
                Some(MountFile::Binlog(name) | MountFile::Synclog(_, name)) => name,
                Some(_) | None => continue,
            };
            if name.log_id == log_id && name.first <= up_to {
                disk.unlink(&path).map_err(StoreError::io(format!("remove {path}")))?;
            }
        }
        disk.sync_dir(&folder).map_err(io("make durable the names in"))?;
        let log = match renewal.part {
            Part::Checkpoint => None,
            Part::Binlog => Some(&mut self.log),
            Part::Synclog(name) => self.received.logs.get_mut(&name),
        };
        if let Some(log) = log {
            log.full.retain(|segment| segment.first > up_to);
        }
        tracing::warn!(mount = self.core.label.mount, %folder, "a damaged log goes on in a new segment");
        Ok(())
    }

    /// Writes the label again if it is damaged on the medium. Whether it was.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn mend_label(&mut self) -> StoreResult<bool> {
        use super::open::{read_label, write_label};
        use crate::format::envelope::FormatError;
        self.check_fence()?;
        match read_label(&self.core.disk) {
            Err(StoreError::Format(FormatError::Damaged(_) | FormatError::NotOurs(_))) => {}
            // What is gone, or another one, is for whoever watches the folder.
            Ok(_) | Err(_) => return Ok(false),
        }
        let written = write_label(&self.core.disk, &self.core.label);
        written.inspect_err(|error| self.fence(error.to_string()))?;
        tracing::error!(
            mount = self.core.label.mount,
            "the label was damaged and is written again"
        );
        Ok(true)
    }
}

//! Giving up what is damaged of a log, or of the checkpoint, without giving up anything that it says: the slots have it all.
//!
//! A log goes on in a new segment, everything before is made durable in the slots (a checkpoint), and then the old segments go.
//! The damaged bytes are kept aside first. Invariants: nothing of a log is removed before a checkpoint covers it; who still needs those records gets them by state;
//! each step is a slice (R4).

use super::damaged::{Stretch, put_aside};
use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::forget::{read_list, write_forgotten};
use super::label_file::{is_damage, read_label_at, write_label};
use super::mount::Mount;
use super::sync::LogName;
use crate::format::ids::Sequence;
use crate::format::paths::{
    BINLOG, FORGOTTEN, FORGOTTEN_COPY, LABEL, LABEL_COPY, MountFile, SYNCLOG,
};
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Of what.
    pub part: Part,
    step: u8,
    /// Segments that begin here or before go.
    up_to: Sequence,
    /// Damage that is still to be kept aside.
    aside: Vec<Stretch>,
}

impl Renewal {
    /// Nothing is done yet; this is damaged of it.
    #[must_use]
    pub const fn of(part: Part, aside: Vec<Stretch>) -> Self {
        Self { part, step: 0, up_to: 0, aside }
    }
}

impl<D: Disk> Mount<D> {
    /// One slice; whether it is done.
    ///
    /// # Errors
    /// The mount is fenced, or has no space for a new segment: the log stays as it is.
    pub fn renew(&mut self, renewal: &mut Renewal) -> StoreResult<bool> {
        self.check_fence()?;
        if let Some(stretch) = renewal.aside.pop() {
            put_aside(&self.core.disk, self.clock.now_ms(), &stretch);
            return Ok(false);
        }
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

    /// Writes the label, and the list of forgotten members, again if one of their two files is damaged on the medium. What was.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn mend_identity(&mut self) -> StoreResult<Vec<Identity>> {
        self.check_fence()?;
        let mut mended = Vec::new();
        let disk = &self.core.disk;
        // What is gone, or another one, is for whoever watches the folder.
        let damaged = |path: &&str| read_label_at(disk, path).is_err_and(|error| is_damage(&error));
        let labels: Vec<&str> = [LABEL, LABEL_COPY].into_iter().filter(damaged).collect();
        if !labels.is_empty() {
            self.put_all_aside(&labels);
            let written = write_label(&self.core.disk, &self.core.label);
            written.inspect_err(|error| self.fence(error.to_string()))?;
            mended.push(Identity::Label);
        }
        let disk = &self.core.disk;
        let damaged = |path: &&str| read_list(disk, path).is_err_and(|error| is_damage(&error));
        let lists: Vec<&str> = [FORGOTTEN, FORGOTTEN_COPY].into_iter().filter(damaged).collect();
        if !lists.is_empty() {
            self.put_all_aside(&lists);
            let written = write_forgotten(&self.core.disk, &self.forgotten);
            written.inspect_err(|error| self.fence(error.to_string()))?;
            mended.push(Identity::Forgotten);
        }
        for what in &mended {
            tracing::error!(
                mount = self.core.label.mount,
                ?what,
                "was damaged and is written again"
            );
        }
        Ok(mended)
    }

    fn put_all_aside(&self, paths: &[&str]) {
        for path in paths {
            put_aside(&self.core.disk, self.clock.now_ms(), &Stretch::whole(path));
        }
    }
}

/// What says whose a mount is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The label.
    Label,
    /// The list of members that were removed for good.
    Forgotten,
}

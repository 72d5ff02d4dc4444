//! Verifying the conflict archive, and mending it with what a mirror gave (P3).
//!
//! Invariants: a losing version never changes, so whoever has it whole has the right one; only an entry that is here is mended:
//! one that was given up, or never came, is not brought in this way. What is replaced is kept aside before.

use super::archive::{ArchivedName, read_archived};
use super::damaged::{Stretch, put_aside};
use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use super::read::ReadError;
use super::reader::Reader;
use super::scrub::LargeCheck;
use crate::format::conflict::Conflict;
use crate::format::paths::{CONFLICTS, MountFile, conflict_single};

/// How an entry of the archive is.
#[derive(Clone, Debug)]
pub enum ArchivedState {
    /// There is none of that name.
    Gone,
    /// As it was written; so many bytes.
    Whole(u64),
    /// It names a large content, which is to be verified.
    Large(Box<LargeCheck>),
    /// What is wrong with it.
    Damaged(&'static str),
}

fn check<D: Disk>(disk: &D, (object, edit): ArchivedName) -> StoreResult<ArchivedState> {
    let path = MountFile::Conflict(object, edit).path();
    if disk.stat(&path).map_err(StoreError::io(format!("stat {path}")))?.is_none() {
        return Ok(ArchivedState::Gone);
    }
    Ok(match read_archived(disk, &path) {
        Err(_) => ArchivedState::Damaged("the losing version cannot be read"),
        Ok(None) => ArchivedState::Damaged("the checksum of the losing version is wrong"),
        Ok(Some((lost, _))) if (lost.object, lost.tag.position()) != (object, edit) => {
            ArchivedState::Damaged("it is another losing version than its name says")
        }
        Ok(Some((lost, content))) => match LargeCheck::archived(&lost) {
            Some(large) => ArchivedState::Large(Box::new(large)),
            None => ArchivedState::Whole(content.len() as u64),
        },
    })
}

impl<D: Disk> Reader<D> {
    /// Verifies an entry of the archive. One that is just being written may look damaged: see
    /// [`Mount::look_at_archived`](super::mount::Mount::look_at_archived).
    ///
    /// # Errors
    /// `Io`, `Fenced`.
    pub fn check_archived(&self, name: ArchivedName) -> Result<ArchivedState, ReadError> {
        self.check()?;
        check(self.disk(), name).map_err(|error| ReadError::Damaged(error.to_string()))
    }
}

impl<D: Disk> Mount<D> {
    /// Looks at an entry again, in line with the changes. What is said of a large content is not verified.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn look_at_archived(&mut self, name: ArchivedName) -> StoreResult<ArchivedState> {
        self.commit()?;
        check(&self.core.disk, name)
    }

    /// Puts what a mirror gave in the place of what is damaged of an entry: its file, and a large content that waits under its
    /// temporary name. `false`: there is no such entry any more.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn mend_archived(&mut self, lost: &Conflict, content: &[u8]) -> StoreResult<bool> {
        self.commit()?;
        let name = (lost.object, lost.tag.position());
        let state = check(&self.core.disk, name)?;
        let gone = matches!(state, ArchivedState::Gone);
        if let Some(content) = lost.single
            && self.is_complete_temporary(content)?
        {
            if gone {
                super::single_writer::remove_temp(&self.core.disk, content);
                return Ok(false);
            }
            let (from, to) = (MountFile::SingleTmp(content).path(), conflict_single(content));
            put_aside(&self.core.disk, self.clock.now_ms(), &Stretch::whole(&to));
            let disk = &self.core.disk;
            let renamed = disk.rename(&from, &to).and_then(|()| disk.sync_dir(CONFLICTS));
            let renamed = renamed.map_err(StoreError::io(format!("rename to {to}")));
            renamed.inspect_err(|error| self.fence(error.to_string()))?;
        }
        let path = MountFile::Conflict(name.0, name.1).path();
        match state {
            ArchivedState::Gone => return Ok(false),
            ArchivedState::Whole(_) | ArchivedState::Large(_) => return Ok(true),
            ArchivedState::Damaged(_) => {
                put_aside(&self.core.disk, self.clock.now_ms(), &Stretch::whole(&path));
            }
        }
        let kept = self.core.archive(lost, content);
        kept.inspect_err(|error| self.fence(error.to_string()))?;
        tracing::warn!(mount = self.core.label.mount, %path, "a damaged losing version is mended");
        Ok(true)
    }
}

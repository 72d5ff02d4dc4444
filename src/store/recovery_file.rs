//! The state of a mount's refilling on its disk, see [`crate::format::recovery_state`].
//!
//! Invariants: replaced as a whole, durable when a function returns; a mount that has the file does not serve.

use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use crate::format::envelope::FormatError;
use crate::format::paths::{RECOVERY_STATE, RECOVERY_STATE_TMP};
use crate::format::recovery_state::{Cause, RECOVERY_STATE_LEN_MAX, RecoveryState};
use std::io::ErrorKind;

/// Whether a recovery of this mount has begun, and how far it is. One that cannot be read has just begun.
///
/// # Errors
/// `Io`; `Format` if a later program wrote it.
pub fn read_recovery<D: Disk>(disk: &D) -> StoreResult<Option<RecoveryState>> {
    let io = |what: &str| StoreError::io(format!("{what} {RECOVERY_STATE}"));
    let file = match disk.open(RECOVERY_STATE, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open")(error)),
    };
    let len = usize::try_from(file.len().map_err(io("length of"))?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(RECOVERY_STATE_LEN_MAX)];
    let got = file.read_full_at(0, &mut bytes).map_err(io("read"))?;
    match RecoveryState::decode(&bytes[..got]) {
        Ok(state) => Ok(Some(state)),
        Err(error @ FormatError::Newer { .. }) => Err(error.into()),
        Err(FormatError::NotOurs(_) | FormatError::Damaged(_)) => {
            Ok(Some(RecoveryState::begin(Cause::Blank, 0)))
        }
    }
}

/// Makes `state` the state of the mount's recovery.
///
/// # Errors
/// `Io`.
pub fn write_recovery<D: Disk>(disk: &D, state: &RecoveryState) -> StoreResult<()> {
    let io = |what: &str| StoreError::io(format!("{what} {RECOVERY_STATE_TMP}"));
    if disk.stat(RECOVERY_STATE_TMP).map_err(io("stat"))?.is_some() {
        disk.unlink(RECOVERY_STATE_TMP).map_err(io("remove"))?;
    }
    let file = disk.open(RECOVERY_STATE_TMP, Open::Create).map_err(io("create"))?;
    file.write_all_at(0, &state.encode()).map_err(io("write"))?;
    file.sync_data().map_err(io("fdatasync"))?;
    disk.rename(RECOVERY_STATE_TMP, RECOVERY_STATE).map_err(io("rename"))?;
    disk.sync_dir("").map_err(io("make durable the rename of"))
}

impl<D: Disk> Mount<D> {
    /// Makes the state of this mount's recovery durable.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn save_recovery(&mut self, state: &RecoveryState) -> StoreResult<()> {
        self.check_fence()?;
        if !state.may_have_unsynced_copies() {
            self.sync_copies()?;
        }
        self.refilling = true;
        write_recovery(&self.core.disk, state).inspect_err(|error| self.fence(error.to_string()))
    }

    /// This mount is whole: durable when it returns.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn end_recovery(&mut self) -> StoreResult<()> {
        self.sync_copies()?;
        self.commit()?;
        remove_recovery(&self.core.disk).inspect_err(|error| self.fence(error.to_string()))?;
        self.refilling = false;
        Ok(())
    }
}

fn remove_recovery<D: Disk>(disk: &D) -> StoreResult<()> {
    let io = |what: &str| StoreError::io(format!("{what} {RECOVERY_STATE}"));
    if disk.stat(RECOVERY_STATE).map_err(io("stat"))?.is_some() {
        disk.unlink(RECOVERY_STATE).map_err(io("remove"))?;
        disk.sync_dir("").map_err(io("make durable the removal of"))?;
    }
    Ok(())
}

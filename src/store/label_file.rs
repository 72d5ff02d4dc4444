//! The label on the medium: two files that say the same, replaced one after the other. Also how any file is replaced that is kept
//! twice.
//!
//! Invariants: each file is replaced as a whole; nobody acts upon what only one of them says, because whoever writes waits for
//! both; the copy is looked at only where the first file is there and cannot be read, so that a label that is gone stays gone.

use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use crate::format::envelope::FormatError;
use crate::format::label::{LABEL_LEN_MAX, Label};
use crate::format::paths;

/// Reads a label; where it is damaged its copy, which says as much ([`write_label`]).
///
/// # Errors
/// `Io` (not found among them), `Format` when both are damaged, or it is newer.
pub fn read_label<D: Disk>(disk: &D) -> StoreResult<Label> {
    let first = read_label_at(disk, paths::LABEL);
    match &first {
        Err(error) if is_damage(error) => match read_label_at(disk, paths::LABEL_COPY) {
            Ok(copy) => Ok(copy),
            Err(_) => first,
        },
        Ok(_) | Err(_) => first,
    }
}

/// Reads one of the two.
pub(super) fn read_label_at<D: Disk>(disk: &D, path: &str) -> StoreResult<Label> {
    let io = |what: &str| StoreError::io(format!("{what} {path}"));
    let file = disk.open(path, Open::Read).map_err(io("open"))?;
    let len = file.len().map_err(io("length of"))?;
    let len = usize::try_from(len).unwrap_or(LABEL_LEN_MAX).min(LABEL_LEN_MAX);
    let mut bytes = vec![0; len];
    let got = file.read_full_at(0, &mut bytes).map_err(io("read"))?;
    Ok(Label::decode(&bytes[..got])?)
}

/// Whether a file is there and cannot be read as it was written. One that is gone, or of a later program, is no damage.
pub(super) fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Format(FormatError::Damaged(_) | FormatError::NotOurs(_)) => true,
        StoreError::Io { error, .. } => error.kind() != std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Replaces the label and its copy, each as a whole; both are durable when it returns. The label comes first, so that a copy
/// never stands alone; nothing follows from what only one of them says, for whoever writes them waits for both.
///
/// # Errors
/// `Io`.
pub fn write_label<D: Disk>(disk: &D, label: &Label) -> StoreResult<()> {
    let names = [paths::LABEL, paths::LABEL_COPY];
    replace_both(disk, paths::LABEL_TMP, names, &label.encode())
}

/// Replaces two files by the same bytes, one after the other; durable when it returns.
pub(super) fn replace_both<D: Disk>(
    disk: &D,
    tmp: &str,
    names: [&str; 2],
    bytes: &[u8],
) -> StoreResult<()> {
    let io = |what: &str| StoreError::io(format!("{what} {tmp}"));
    for name in names {
        if disk.stat(tmp).map_err(io("stat"))?.is_some() {
            disk.unlink(tmp).map_err(io("remove"))?;
        }
        let file = disk.open(tmp, Open::Create).map_err(io("create"))?;
        file.write_all_at(0, bytes).map_err(io("write"))?;
        file.sync_data().map_err(io("fdatasync"))?;
        disk.rename(tmp, name).map_err(io("rename"))?;
        // The second name is never durable before the first.
        disk.sync_dir("").map_err(io("make durable the rename of"))?;
    }
    Ok(())
}

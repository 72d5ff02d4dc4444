//! What a daemon leaves behind in a folder whose content was removed under it.
//!
//! While somebody empties the folder of a mount that serves, the daemon may still make a file of its own there, before it
//! notices that its label is gone. Such remains hold nothing that anybody stored, and must not keep the mount from being
//! refilled. Anything else does: it may be all that is left of somebody's objects.
//!
//! Invariants: what an operator has set aside is looked at no more and never removed; nothing but empty folders, checkpoints, the place of a scrub and pre-written log space is taken for remains; a chunkfile, a
//! singlefile, a log segment, an archive entry or a stranger's file never is.

use crate::format::paths::{
    BINLOG, BINLOG_SPARE, CHECKPOINT, CHECKPOINT_TMP, CHUNKS, CONFLICTS, DAMAGED, LOST_AND_FOUND,
    SCRUB_STATE, SCRUB_STATE_TMP, SINGLES, SYNCLOG,
};
use crate::store::disk::Disk;
use std::io;

/// Our own folders.
const FOLDERS: [&str; 6] = [BINLOG, CHUNKS, SINGLES, SYNCLOG, CONFLICTS, DAMAGED];
/// What an operator had set aside.
const ASIDE: &str = "set-aside-";
/// How deep they are, more than enough.
const DEPTH: u32 = 8;

/// Names in the root of a folder without a label, remains left out.
///
/// # Errors
/// Those of the disk.
pub fn names<D: Disk>(disk: &D) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in disk.list("")? {
        if !is_remains(disk, &entry.name)? {
            names.push(entry.name);
        }
    }
    Ok(names)
}

/// Removes the remains.
///
/// # Errors
/// Those of the disk.
pub fn clear<D: Disk>(disk: &D) -> io::Result<()> {
    for entry in disk.list("")? {
        let name = entry.name.as_str();
        if matches!(name, CHECKPOINT | CHECKPOINT_TMP | SCRUB_STATE | SCRUB_STATE_TMP) {
            disk.unlink(name)?;
        }
    }
    if disk.stat(BINLOG_SPARE)?.is_some() {
        disk.unlink(BINLOG_SPARE)?;
    }
    disk.sync_dir("")
}

/// Moves everything into a folder of its own, below the same root; its name.
///
/// # Errors
/// Those of the disk; what was moved before stays there.
pub fn set_aside<D: Disk>(disk: &D, now_ms: u64) -> io::Result<String> {
    let aside = format!("{ASIDE}{now_ms}");
    let held = disk.list("")?.into_iter().map(|entry| entry.name);
    let held: Vec<String> = held.filter(|name| !is_kept(name)).collect();
    if held.is_empty() {
        return Ok(String::new());
    }
    disk.create_dir_all(&aside)?;
    for name in held {
        disk.rename(&name, &format!("{aside}/{name}"))?;
    }
    disk.sync_dir(&aside)?;
    disk.sync_dir("")?;
    Ok(aside)
}

fn is_kept(name: &str) -> bool {
    name == LOST_AND_FOUND || name.starts_with(ASIDE)
}

/// A folder of ours without a file in it; a checkpoint or the place of a scrub, which say nothing without the chunkfiles; the next log segment,
/// which holds nothing yet.
fn is_remains<D: Disk>(disk: &D, name: &str) -> io::Result<bool> {
    match name {
        CHECKPOINT | CHECKPOINT_TMP | SCRUB_STATE | SCRUB_STATE_TMP => Ok(true),
        _ if is_kept(name) => Ok(true),
        _ if FOLDERS.contains(&name) => is_hollow(disk, name, DEPTH),
        _ => Ok(false),
    }
}

/// Whether there are folders only.
fn is_hollow<D: Disk>(disk: &D, folder: &str, depth: u32) -> io::Result<bool> {
    if depth == 0 {
        return Ok(false);
    }
    let entries = match disk.list(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(false),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = format!("{folder}/{}", entry.name);
        let nothing = path == BINLOG_SPARE || (entry.is_dir && is_hollow(disk, &path, depth - 1)?);
        if !nothing {
            return Ok(false);
        }
    }
    Ok(true)
}

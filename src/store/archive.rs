//! The conflict archive of a mount: versions that lost, each in a file of its own (P4).
//!
//! Invariants: a file is durable, name included, before the slot of its version is overwritten; the name makes it a
//! set; the content of a large one is kept under a name of its own, whatever becomes of the singlefile.

use super::core::Core;
use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use crate::format::conflict::{CONFLICT_HEAD_LEN, CONFLICT_PREFIX_LEN, Conflict};
use crate::format::crc::crc32c;
use crate::format::ids::Position;
use crate::format::paths::{self, CONFLICTS, MountFile};
use crate::format::record::Dropped;

/// Length of what stands before the content.
const FRONT: usize = CONFLICT_PREFIX_LEN + CONFLICT_HEAD_LEN;

impl<D: Disk> Core<D> {
    /// Keeps a version that lost; durable when it returns. `false`: it was kept before.
    pub fn archive(&mut self, lost: &Conflict, content: &[u8]) -> StoreResult<bool> {
        let path = MountFile::Conflict(lost.object, lost.tag.position()).path();
        let io = |what: &str| StoreError::io(format!("{what} {path}"));
        // Another one is half written by a process that was killed: nobody was told of it.
        if let Some((kept, _)) = read_archived(&self.disk, &path)?
            && kept == *lost
        {
            // Perhaps by a process that was killed before it was durable.
            let file = self.disk.open(&path, Open::Write).map_err(io("open"))?;
            file.sync_data().map_err(io("fdatasync"))?;
            self.disk.sync_dir(CONFLICTS).map_err(io("make durable the name of"))?;
            return Ok(false);
        }
        self.disk.create_dir_all(CONFLICTS).map_err(io("create the folder of"))?;
        if let Some(content) = lost.single
            && !self.keep_content(content)?
        {
            // A mirror that has it keeps it; an entry without its content would only hide that.
            self.warnings.push(format!("the content of a losing version is not here: {path}"));
            return Ok(false);
        }
        if self.disk.stat(&path).map_err(io("stat"))?.is_some() {
            self.disk.unlink(&path).map_err(io("remove"))?;
        }
        let file = self.disk.open(&path, Open::Create).map_err(io("create"))?;
        let front = lost.encode_file();
        let parts: [&[u8]; 2] = [&front, content];
        let parts = if content.is_empty() { &parts[..1] } else { &parts[..] };
        file.write_all_vectored_at(0, parts).map_err(io("write"))?;
        file.sync_data().map_err(io("fdatasync"))?;
        self.disk.sync_dir(CONFLICTS).map_err(io("make durable the name of"))?;
        self.disk.sync_dir("").map_err(io("make durable the folder of"))?;
        Ok(true)
    }

    /// Gives the content of a large version its name in the archive; `false`: it is not here. The folder is synced by
    /// the caller.
    fn keep_content(&mut self, content: Position) -> StoreResult<bool> {
        let kept = paths::conflict_single(content);
        let io = |what: &str| StoreError::io(format!("{what} {kept}"));
        if self.disk.stat(&kept).map_err(io("stat"))?.is_some() {
            return Ok(true);
        }
        let (single, tmp) = (paths::single(content), paths::single_tmp(content));
        if self.disk.stat(&single).map_err(io("look for"))?.is_some() {
            return self.disk.link(&single, &kept).map(|()| true).map_err(io("link"));
        }
        match self.disk.rename(&tmp, &kept) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(io("rename")(e)),
        }
    }

    /// Gives an archived version up.
    pub fn drop_archived(&mut self, dropped: &Dropped) -> StoreResult<()> {
        let path = MountFile::Conflict(dropped.object, dropped.edit).path();
        let Some((lost, _)) = read_archived(&self.disk, &path)? else { return Ok(()) };
        let mut gone = vec![path];
        gone.extend(lost.single.map(paths::conflict_single));
        for path in gone {
            match self.disk.unlink(&path) {
                Ok(()) => {
                    self.dirty_folders.insert(paths::folder(&path).to_owned());
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io(format!("remove {path}"))(e)),
            }
        }
        Ok(())
    }
}

/// Every archived version of a mount, oldest edit first within an object.
///
/// # Errors
/// `Io`; files that are damaged are left out.
pub fn list_archived<D: Disk>(disk: &D) -> StoreResult<Vec<Conflict>> {
    let entries = match disk.list(CONFLICTS) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("list conflicts")(e)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = format!("{CONFLICTS}/{}", entry.name);
        if let Some(MountFile::Conflict(..)) = MountFile::parse(&path) {
            all.extend(read_archived(disk, &path)?.map(|(lost, _)| lost));
        }
    }
    all.sort_by_key(|lost| (lost.modified_ms, lost.tag));
    Ok(all)
}

/// An archived version with its content (empty for a singlefile); `None` if there is no whole one.
///
/// # Errors
/// `Io`.
pub fn read_archived<D: Disk>(disk: &D, path: &str) -> StoreResult<Option<(Conflict, Vec<u8>)>> {
    let io = |what: &str| StoreError::io(format!("{what} {path}"));
    let file = match disk.open(path, Open::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io("open")(e)),
    };
    let mut front = vec![0; FRONT];
    let got = file.read_full_at(0, &mut front).map_err(io("read"))?;
    let Ok(lost) = Conflict::decode_file(&front[..got]) else { return Ok(None) };
    if lost.single.is_some() {
        return Ok(Some((lost, Vec::new())));
    }
    let len = file.len().map_err(io("length of"))?;
    if len != (FRONT as u64).saturating_add(lost.length) {
        return Ok(None);
    }
    let mut content = vec![0; usize::try_from(lost.length).unwrap_or(0)];
    let got = file.read_full_at(FRONT as u64, &mut content).map_err(io("read"))?;
    content.truncate(got);
    Ok((crc32c(&content) == lost.payload_crc).then_some((lost, content)))
}

//! The conflict archive of a mount: versions that lost, each in a file of its own (P4).
//!
//! Invariants: a file is durable, name included, before the slot of its version is overwritten; the name makes it a
//! set; the content of a large one is kept under a name of its own, whatever becomes of the singlefile. What was given
//! up leaves a mark and is never kept again, in whatever order the records of the mirrors arrive.

use super::core::Core;
use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use super::read::ReadError;
use super::reader::Reader;
use super::single_reader::SingleReader;
use crate::format::conflict::{CONFLICT_HEAD_LEN, CONFLICT_PREFIX_LEN, Conflict};
use crate::format::crc::{Fingerprint, crc32c};
use crate::format::file_id::ObjectId;
use crate::format::ids::Position;
use crate::format::paths::{self, CONFLICTS, MountFile};
use crate::format::record::{Dropped, Record};
use bytes::Bytes;

/// What became of a version that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is in the archive, durably, or a person has given it up there.
    Yes,
    /// Its content is not here: it has no entry, and nothing is said of it.
    NoContent,
}

/// Length of what stands before the content.
pub const FRONT: usize = CONFLICT_PREFIX_LEN + CONFLICT_HEAD_LEN;
/// Longest record about an archived version, without content.
const RECORD_MAX: usize = 512;

impl<D: Disk> Core<D> {
    /// Keeps a version that lost; durable when it returns.
    pub fn archive(&mut self, lost: &Conflict, content: &[u8]) -> StoreResult<Kept> {
        let path = MountFile::Conflict(lost.object, lost.tag.position()).path();
        let io = |what: &str| StoreError::io(format!("{what} {path}"));
        if self.is_dropped(lost)? {
            return Ok(Kept::Yes);
        }
        self.archive_changed = true;
        // Another one is half written by a process that was killed: nobody was told of it.
        if let Some((kept, _)) = read_archived(&self.disk, &path)?
            && kept == *lost
        {
            // Perhaps by a process that was killed before it was durable.
            let file = self.disk.open(&path, Open::Write).map_err(io("open"))?;
            file.sync_data().map_err(io("fdatasync"))?;
            self.disk.sync_dir(CONFLICTS).map_err(io("make durable the name of"))?;
            return Ok(Kept::Yes);
        }
        self.disk.create_dir_all(CONFLICTS).map_err(io("create the folder of"))?;
        if let Some(content) = lost.single
            && !self.keep_content(content)?
        {
            // A mirror that has it keeps it; an entry without its content would only hide that.
            self.warnings.push(format!("the content of a losing version is not here: {path}"));
            return Ok(Kept::NoContent);
        }
        // What is damaged keeps its name while it is written again, so a cut leaves it damaged and not gone.
        let exists = self.disk.stat(&path).map_err(io("stat"))?.is_some();
        let how = if exists { Open::Write } else { Open::Create };
        let file = self.disk.open(&path, how).map_err(io("open"))?;
        let front = lost.encode_file();
        let parts: [&[u8]; 2] = [&front, content];
        let parts = if content.is_empty() { &parts[..1] } else { &parts[..] };
        file.write_all_vectored_at(0, parts).map_err(io("write"))?;
        file.set_len((front.len() + content.len()) as u64).map_err(io("set the length of"))?;
        file.sync_data().map_err(io("fdatasync"))?;
        self.disk.sync_dir(CONFLICTS).map_err(io("make durable the name of"))?;
        self.disk.sync_dir("").map_err(io("make durable the folder of"))?;
        Ok(Kept::Yes)
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

    /// Gives an archived version up, for good. What it writes is durable with the next checkpoint; until then the log
    /// has it.
    pub fn drop_archived(&mut self, dropped: &Dropped) -> StoreResult<()> {
        self.archive_changed = true;
        self.mark_dropped(dropped)?;
        let path = MountFile::Conflict(dropped.object, dropped.edit).path();
        let Some(lost) = read_archived_head(&self.disk, &path)? else { return Ok(()) };
        let mut gone = vec![path];
        if let Some(content) = lost.single
            && !self.is_kept_twice(&lost, content)?
        {
            gone.push(paths::conflict_single(content));
        }
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

    /// Whether a version was given up.
    pub(super) fn is_dropped(&self, lost: &Conflict) -> StoreResult<bool> {
        let mark = MountFile::ConflictDropped(lost.object, lost.tag.position()).path();
        let found = self.disk.stat(&mark).map_err(StoreError::io(format!("stat {mark}")))?;
        Ok(found.is_some())
    }

    fn mark_dropped(&mut self, dropped: &Dropped) -> StoreResult<()> {
        let mark = MountFile::ConflictDropped(dropped.object, dropped.edit).path();
        let io = |what: &str| StoreError::io(format!("{what} {mark}"));
        if self.disk.stat(&mark).map_err(io("stat"))?.is_none() {
            self.disk.create_dir_all(CONFLICTS).map_err(io("create the folder of"))?;
            self.disk.open(&mark, Open::Create).map_err(io("create"))?;
        }
        self.dirty_folders.insert(CONFLICTS.to_owned());
        self.dirty_folders.insert(String::new());
        Ok(())
    }

    /// Whether another losing version of the object has the same content: a delete of what it deleted.
    fn is_kept_twice(&self, lost: &Conflict, content: Position) -> StoreResult<bool> {
        for (object, edit) in names(&self.disk)? {
            if object == lost.object && edit != lost.tag.position() {
                let path = MountFile::Conflict(object, edit).path();
                let other = read_archived_head(&self.disk, &path)?;
                if other.is_some_and(|other| other.single == Some(content)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// How many versions are in the archive; looked up again after a change only.
    pub fn archived(&mut self) -> u64 {
        if std::mem::take(&mut self.archive_changed) {
            match names(&self.disk) {
                Ok(names) => self.archived = names.len() as u64,
                Err(error) => tracing::warn!(%error, "the conflict archive cannot be counted"),
            }
        }
        self.archived
    }
}

impl<D: Disk> Mount<D> {
    /// Gives an archived version up: logged, and so on all mirrors. Durable when it returns; `false`: there is none of
    /// that name.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn drop_archived(&mut self, dropped: &Dropped) -> StoreResult<bool> {
        self.check_fence()?;
        let path = MountFile::Conflict(dropped.object, dropped.edit).path();
        let found = self.core.disk.stat(&path).map_err(StoreError::io(format!("stat {path}")))?;
        if found.is_none() {
            return Ok(false);
        }
        self.reserve_log(RECORD_MAX)?;
        let sequence = self.take_sequence();
        self.push_record(&Record::Dropped(*dropped), sequence, Bytes::new(), 0);
        self.commit()?;
        self.core.drop_archived(dropped).inspect_err(|error| self.fence(error.to_string()))?;
        Ok(true)
    }
}

impl<D: Disk> Reader<D> {
    /// Every version in the conflict archive, oldest edit first.
    ///
    /// # Errors
    /// [`ReadError::Fenced`], [`ReadError::Io`]; files that are damaged are left out.
    pub fn archived(&self) -> Result<Vec<Conflict>, ReadError> {
        self.check()?;
        let mut all = Vec::new();
        for (object, edit) in names(self.disk()).map_err(of_store)? {
            let path = MountFile::Conflict(object, edit).path();
            all.extend(read_archived_head(self.disk(), &path).map_err(of_store)?);
        }
        all.sort_by_key(|lost| (lost.modified_ms, lost.tag));
        Ok(all)
    }

    /// The content of a small archived version; `None` if there is no whole one.
    ///
    /// # Errors
    /// [`ReadError::Fenced`], [`ReadError::Io`].
    pub fn archived_content(&self, lost: &Conflict) -> Result<Option<Vec<u8>>, ReadError> {
        self.check()?;
        let path = MountFile::Conflict(lost.object, lost.tag.position()).path();
        let found = read_archived(self.disk(), &path).map_err(of_store)?;
        Ok(found.filter(|(found, _)| found == lost).map(|(_, content)| content))
    }

    /// Opens the content of a large archived version.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] if it is not the one that the archive names.
    pub fn open_archived(
        &self,
        lost: &Conflict,
        content: Position,
    ) -> Result<SingleReader<D::File>, ReadError> {
        self.check()?;
        let path = paths::conflict_single(content);
        self.open_single_at(&path, content, (lost.length, lost.payload_crc))
            .map_err(ReadError::settled)
    }
}

/// What names an archived version: its object, and the position of its edit.
pub type ArchivedName = (ObjectId, Position);

/// What an archive holds, by name; in the order of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveNames {
    /// Versions that are kept.
    pub kept: Vec<ArchivedName>,
    /// Versions that were given up, and are not kept again.
    pub dropped: Vec<ArchivedName>,
}

impl ArchiveNames {
    /// A fingerprint of what is kept: mirrors that keep the same versions come to the same.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut fingerprint = Fingerprint::new();
        for (object, edit) in &self.kept {
            fingerprint.update(&object.encode());
            fingerprint.update(&edit.machine.to_le_bytes());
            fingerprint.update(&edit.log_id.to_le_bytes());
            fingerprint.update(&edit.sequence.to_le_bytes());
        }
        fingerprint.value()
    }
}

impl<D: Disk> Reader<D> {
    /// The names in the archive. Nothing is read but its folder.
    ///
    /// # Errors
    /// [`ReadError::Fenced`], [`ReadError::Io`].
    pub fn archive_names(&self) -> Result<ArchiveNames, ReadError> {
        self.check()?;
        let entries = match self.disk().list(CONFLICTS) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(ReadError::io(CONFLICTS)(e)),
        };
        let mut names = ArchiveNames::default();
        for entry in entries {
            match MountFile::parse(&format!("{CONFLICTS}/{}", entry.name)) {
                Some(MountFile::Conflict(object, edit)) => names.kept.push((object, edit)),
                Some(MountFile::ConflictDropped(object, edit)) => {
                    names.dropped.push((object, edit))
                }
                Some(_) | None => {}
            }
        }
        names.kept.sort_unstable();
        names.dropped.sort_unstable();
        Ok(names)
    }

    /// An archived version with its content (empty for a large one); `None` if there is no whole one of this name.
    ///
    /// # Errors
    /// [`ReadError::Fenced`], [`ReadError::Io`].
    pub fn archived_version(
        &self,
        (object, edit): ArchivedName,
    ) -> Result<Option<(Conflict, Vec<u8>)>, ReadError> {
        self.check()?;
        let path = MountFile::Conflict(object, edit).path();
        let found = read_archived(self.disk(), &path).map_err(of_store)?;
        Ok(found.filter(|(lost, _)| (lost.object, lost.tag.position()) == (object, edit)))
    }
}

fn of_store(error: StoreError) -> ReadError {
    match error {
        StoreError::Io { what, error } => ReadError::Io { what, error },
        other => ReadError::Damaged(other.to_string()),
    }
}

/// The names in the archive.
fn names<D: Disk>(disk: &D) -> StoreResult<Vec<(ObjectId, Position)>> {
    let entries = match disk.list(CONFLICTS) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("list conflicts")(e)),
    };
    let name = |path: String| match MountFile::parse(&path) {
        Some(MountFile::Conflict(object, edit)) => Some((object, edit)),
        Some(_) | None => None,
    };
    Ok(entries.into_iter().filter_map(|e| name(format!("{CONFLICTS}/{}", e.name))).collect())
}

/// Every archived version of a mount, oldest edit first within an object.
///
/// # Errors
/// `Io`; files that are damaged are left out.
pub fn list_archived<D: Disk>(disk: &D) -> StoreResult<Vec<Conflict>> {
    let mut all = Vec::new();
    for (object, edit) in names(disk)? {
        let path = MountFile::Conflict(object, edit).path();
        all.extend(read_archived(disk, &path)?.map(|(lost, _)| lost));
    }
    all.sort_by_key(|lost| (lost.modified_ms, lost.tag));
    Ok(all)
}

/// What is said of an archived version, without its content; `None` if nothing readable is.
fn read_archived_head<D: Disk>(disk: &D, path: &str) -> StoreResult<Option<Conflict>> {
    let io = |what: &str| StoreError::io(format!("{what} {path}"));
    let file = match disk.open(path, Open::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io("open")(e)),
    };
    let mut front = vec![0; FRONT];
    let got = file.read_full_at(0, &mut front).map_err(io("read"))?;
    Ok(Conflict::decode_file(&front[..got]).ok())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::file_id::ObjectKind;
    use crate::format::ids::Tag;
    use crate::format::label::Label;
    use crate::store::clock::SystemClock;
    use crate::store::options::MountOptions;
    use crate::store::sim_disk::{SimDisk, SimOptions};
    use crate::store::tokens::TokenTable;
    use std::sync::Arc;

    fn lost(content: &[u8]) -> Conflict {
        let object = ObjectId {
            kind: ObjectKind::Chunk,
            machine: 1,
            mount: 0,
            log_id: 1,
            sequence: 5,
            created_s: 1,
            chunk: 0,
            offset_units: 64,
            capacity_units: 8,
            cookie: 9,
        };
        Conflict {
            object,
            tag: Tag { n: 2, machine: 2, log_id: 3, sequence: 7, ..Tag::default() },
            modified_ms: 1,
            length: content.len() as u64,
            payload_crc: crc32c(content),
            single: None,
        }
    }

    fn options() -> MountOptions {
        MountOptions { chunkfile_size: 4 << 20, reserve_free: 0, ..MountOptions::default() }
    }

    fn mount(disk: &SimDisk) -> Mount<SimDisk> {
        let label = Label::blank("test", "a", 1, 0, [1; 16], [9; 16]);
        let tokens = Arc::new(TokenTable::default());
        Mount::create(disk.clone(), label, options(), Arc::new(SystemClock), tokens).unwrap()
    }

    fn again(disk: &SimDisk) -> Mount<SimDisk> {
        let tokens = Arc::new(TokenTable::default());
        Mount::open(disk.clone(), options(), Arc::new(SystemClock), tokens).unwrap()
    }

    #[test]
    fn what_was_given_up_never_comes_back_in_whatever_order_mirrors_say_it() {
        let disk = SimDisk::new(SimOptions::default());
        let mut here = mount(&disk);
        let lost = lost(b"lost");
        let dropped = Dropped { object: lost.object, edit: lost.tag.position() };
        here.absorb_archived(&lost, b"lost").unwrap();
        assert_eq!(list_archived(&disk).unwrap(), [lost]);
        assert_eq!(here.stats().archived, 1);
        assert!(here.drop_archived(&dropped).unwrap());
        assert!(!here.drop_archived(&dropped).unwrap(), "it is there once");
        assert_eq!(here.stats().archived, 0);
        here.absorb_archived(&lost, b"lost").unwrap();
        assert_eq!(list_archived(&disk).unwrap(), [], "a mirror that was away has it still");
        drop(here);
        // The log has it, whatever of the folder survives.
        let disk = disk.power_cut_with(&[0; 64]);
        let mut here = again(&disk);
        here.absorb_archived(&lost, b"lost").unwrap();
        assert_eq!(list_archived(&disk).unwrap(), []);
        // Elsewhere the drop may come first.
        let disk = SimDisk::new(SimOptions::default());
        let mut there = mount(&disk);
        there.core.drop_archived(&dropped).unwrap();
        there.absorb_archived(&lost, b"lost").unwrap();
        assert_eq!(list_archived(&disk).unwrap(), []);
    }
}

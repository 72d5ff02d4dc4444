//! Without a checkpoint: chunkfiles, free space, tombstones and counters from the slot headers.
//!
//! Reads every header once, so it takes time by the number of objects; it happens only after the checkpoint, or a part
//! of the log behind it, was lost or damaged. A jump by capacity over a slot in use never sees what
//! an older tenant left inside; a move target counts only if its home names it.

use super::core::Core;
use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use crate::format::checkpoint::{ChunkfileState, Counters, FreedPlace};
use crate::format::chunkfile::{CHUNKFILE_HEADER_LEN, ChunkfileHeader, FIRST_SLOT_UNITS};
use crate::format::ids::{Address, ChunkfileId, Place, Sequence, UNIT};
use crate::format::paths::{self, MountFile};
use crate::format::slot::{Body, HEADER_LEN, Role, SlotHeader, State};
use std::collections::BTreeMap;

/// What a rebuild keeps of a slot.
#[derive(Clone, Copy)]
struct Extent {
    units: u32,
    target: bool,
    cookie: u64,
}

type Extents = BTreeMap<(ChunkfileId, u32), Extent>;

impl<D: Disk> Core<D> {
    /// Notes every chunkfile on the disk that is not known yet.
    pub fn find_chunkfiles(&mut self) -> StoreResult<()> {
        let mut found = Vec::new();
        walk(&self.disk, paths::CHUNKS, 3, &mut |path| {
            if let Some(MountFile::Chunk(id)) = MountFile::parse(path) {
                found.push(id);
            }
        })?;
        for id in found {
            if self.chunks.states.contains_key(&id) {
                continue;
            }
            let header = self.chunkfile_header(id)?;
            let Some(header) = header else {
                self.warnings.push(format!("{} has no valid header", paths::chunk(id)));
                continue;
            };
            let state = ChunkfileState {
                id,
                size_units: header.size_units,
                used_units: FIRST_SLOT_UNITS,
                oldest_tombstone_ms: u64::MAX,
            };
            self.chunks.states.insert(id, state);
            if self.is_ours(id) {
                self.next_chunk = self.next_chunk.max(id.chunk + 1);
            }
        }
        Ok(())
    }

    fn chunkfile_header(&mut self, id: ChunkfileId) -> StoreResult<Option<ChunkfileHeader>> {
        use super::disk::{DiskFile, Open};
        let path = paths::chunk(id);
        let file =
            self.disk.open(&path, Open::Read).map_err(StoreError::io(format!("open {path}")))?;
        let mut head = vec![0; CHUNKFILE_HEADER_LEN];
        file.read_full_at(0, &mut head).map_err(StoreError::io(format!("read {path}")))?;
        // No log record vouches for this file: a process that was killed may have left it, and what is in it, to us
        // only. From now on it is used, and the next checkpoint covers it.
        file.sync_data().map_err(StoreError::io(format!("fdatasync of {path}")))?;
        let synced = self.disk.sync_dir(paths::folder(&path));
        synced.map_err(StoreError::io(format!("make durable the name of {path}")))?;
        let header = ChunkfileHeader::decode(&head).ok();
        Ok(header.filter(|h| h.id == id && h.mount_uuid == self.label.mount_uuid))
    }

    /// Free space, tombstones and counters, from every slot header. The log was replayed before.
    pub fn rebuild(&mut self, last: Sequence) -> StoreResult<()> {
        self.counters = Counters::default();
        self.space = super::space::Space::default();
        self.frozen.clear();
        let files: Vec<ChunkfileId> = self.chunks.states.keys().copied().collect();
        let mut extents = Extents::new();
        let mut named = BTreeMap::new();
        for id in files {
            self.scan_chunkfile(id, &mut extents, &mut named)?;
        }
        extents.retain(|(id, offset), extent| {
            let address = address(*id, *offset);
            !extent.target || named.get(&address).is_some_and(|cookie| *cookie == extent.cookie)
        });
        self.space_between(&extents, last);
        self.rebuilt = true;
        Ok(())
    }

    fn scan_chunkfile(
        &mut self,
        id: ChunkfileId,
        extents: &mut Extents,
        named: &mut BTreeMap<Address, u64>,
    ) -> StoreResult<()> {
        const WINDOW: usize = 1 << 20;
        let size = self.chunks.states.get(&id).map_or(0, |s| s.size_units);
        let secret = match self.chunks.secret(id) {
            Ok(secret) => secret,
            Err(error) if is_damage(&error) => {
                // One chunkfile keeps no mount from serving the others (P6). What lies in it is not known: nothing new goes there.
                self.warnings
                    .push(format!("{id:?} cannot be read, and is taken for full: {error}"));
                if let Some(state) = self.chunks.states.get_mut(&id) {
                    state.used_units = size;
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut at = FIRST_SLOT_UNITS;
        while at < size {
            let bytes = self.chunks.read(id, u64::from(at) * UNIT, WINDOW)?;
            if bytes.is_empty() {
                break;
            }
            let units = u32::try_from(bytes.len() as u64 / UNIT).unwrap_or(0).max(1);
            let from = at;
            while at < from + units && at < size {
                let slot = &bytes[(at - from) as usize * UNIT as usize..];
                if slot.len() < HEADER_LEN && at > from {
                    break;
                }
                at += match SlotHeader::decode(slot, &secret) {
                    Ok(header) if header.address == address(id, at) => {
                        self.note_frontier(&header);
                        self.take_header(&header, extents, named);
                        if header.is_in_use() { header.capacity_units.max(1) } else { 1 }
                    }
                    Ok(_) | Err(_) => 1,
                };
            }
        }
        Ok(())
    }

    fn take_header(
        &mut self,
        header: &SlotHeader,
        extents: &mut Extents,
        named: &mut BTreeMap<Address, u64>,
    ) {
        if header.state == State::Purged {
            return;
        }
        let at = (header.address.chunkfile(), header.address.offset_units);
        let extent = Extent {
            units: header.capacity_units,
            target: header.role == Role::Target,
            cookie: header.cookie,
        };
        extents.insert(at, extent);
        if header.role == Role::Target {
            return;
        }
        if let Body::Slot(address) = header.body {
            named.insert(address, header.cookie);
        }
        let c = &mut self.counters;
        if header.state == State::Live {
            c.live_objects += 1;
            c.live_bytes += header.length;
            return;
        }
        c.deleted_objects += 1;
        c.deleted_bytes += header.length;
        if let Some(state) = self.chunks.states.get_mut(&at.0) {
            state.oldest_tombstone_ms = state.oldest_tombstone_ms.min(header.modified_ms);
        }
    }

    /// What no slot in use covers waits for R12 once more, up to the last slot that ever was in each of our chunkfiles:
    /// a member may not have heard yet why it is not in use.
    fn space_between(&mut self, extents: &Extents, last: Sequence) {
        let files: Vec<ChunkfileId> =
            self.chunks.states.keys().copied().filter(|id| self.is_ours(*id)).collect();
        for id in files {
            let mut end = FIRST_SLOT_UNITS;
            for (&(_, offset), extent) in extents.range((id, 0)..=(id, u32::MAX)) {
                if offset > end {
                    self.wait_again(id, end, offset - end, last);
                }
                end = end.max(offset + extent.units);
            }
            let used = self.chunks.states.get(&id).map_or(0, |state| state.used_units);
            if used > end {
                self.wait_again(id, end, used - end, last);
            }
        }
    }

    fn wait_again(&mut self, id: ChunkfileId, offset_units: u32, units: u32, last: Sequence) {
        let place = Place { address: address(id, offset_units), capacity_units: units };
        self.space.wait(FreedPlace { place, superseded_by: last });
    }

    /// Everything up to the end of this slot was handed out at some time.
    fn note_frontier(&mut self, header: &SlotHeader) {
        if let Some(state) = self.chunks.states.get_mut(&header.address.chunkfile()) {
            let end = header.address.offset_units.saturating_add(header.capacity_units);
            state.used_units = state.used_units.max(end.min(state.size_units));
        }
    }
}

const fn address(id: ChunkfileId, offset_units: u32) -> Address {
    Address { machine: id.machine, log_id: id.log_id, chunk: id.chunk, offset_units }
}

/// Visits every file below a folder, `depth` folders deep.
pub fn walk<D: Disk>(
    disk: &D,
    folder: &str,
    depth: usize,
    visit: &mut dyn FnMut(&str),
) -> StoreResult<()> {
    let entries = match disk.list(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(StoreError::io(format!("list {folder}"))(e)),
    };
    for entry in entries {
        let path = format!("{folder}/{}", entry.name);
        if !entry.is_dir {
            visit(&path);
        } else if depth > 0 {
            walk(disk, &path, depth - 1, visit)?;
        }
    }
    Ok(())
}

/// A file that is gone, or whose header is damaged: not a disk that does not answer.
fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Io { error, .. } => error.kind() == std::io::ErrorKind::NotFound,
        StoreError::Damaged(_) | StoreError::Format(_) => true,
        _ => false,
    }
}

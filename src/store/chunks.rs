//! The chunkfiles of a mount, for the one thread that writes them.
//!
//! Invariants: the file's length is the frontier up to which blocks are reserved; a slot is written only where blocks
//! are reserved, so that an applied record never meets "no space"; a file stays open while it has writes that no
//! checkpoint has synced, because a write-back error is reported to open descriptors only (R9).

use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use crate::format::checkpoint::ChunkfileState;
use crate::format::chunkfile::{CHUNKFILE_HEADER_LEN, ChunkfileHeader, FIRST_SLOT_UNITS};
use crate::format::ids::{ChunkfileId, UNIT};
use crate::format::paths;
use crate::format::record::ChunkfileCreated;
use std::collections::{BTreeMap, HashMap};
use std::io;

/// Blocks of a growing chunkfile are reserved in steps of this many bytes.
pub const ALLOCATE_STEP: u64 = 4 << 20;
/// Appended bytes after which their write-back is begun.
const WRITE_BACK_STEP: u64 = 1 << 20;
/// The same where writes are large: nobody waits for the next sync, and beginning costs as much for more.
const WRITE_BACK_STEP_LARGE: u64 = 4 << 20;
/// Page of the system's cache.
const PAGE: u64 = 4096;
/// Chunkfiles that stay open.
const OPEN_MAX: usize = 256;

struct OpenFile<F> {
    file: F,
    secret: [u8; 16],
    /// Blocks are reserved up to here.
    allocated: u64,
    /// Appended bytes up to here are on their way to the disk.
    begun: u64,
    last_used: u64,
}

impl<F: DiskFile> OpenFile<F> {
    /// Fresh space fills from the front: its write-back overlaps the next batches, and a checkpoint waits less.
    fn appended(&mut self, offset: u64, end: u64) {
        let large = end.saturating_sub(offset) >= WRITE_BACK_STEP / 2;
        let step = if large { WRITE_BACK_STEP_LARGE } else { WRITE_BACK_STEP };
        if offset < self.begun || end - self.begun < step {
            return;
        }
        let until = end / PAGE * PAGE;
        if end - self.begun < 2 * step {
            self.file.begin_write_back(self.begun, until - self.begun);
        }
        self.begun = until;
    }
}

/// Chunkfiles of one mount.
pub struct Chunks<D: Disk> {
    disk: D,
    mount: u8,
    mount_uuid: [u8; 16],
    /// Every chunkfile that the mount knows, of every log id.
    pub states: BTreeMap<ChunkfileId, ChunkfileState>,
    open: HashMap<ChunkfileId, OpenFile<D::File>>,
    secrets: HashMap<ChunkfileId, [u8; 16]>,
    dirty: BTreeMap<ChunkfileId, (u64, u64)>,
    uses: u64,
}

impl<D: Disk> Chunks<D> {
    /// No chunkfiles yet.
    pub fn new(disk: D, mount: u8, mount_uuid: [u8; 16]) -> Self {
        let (states, open, dirty) = (BTreeMap::new(), HashMap::new(), BTreeMap::new());
        let secrets = HashMap::new();
        Self { disk, mount, mount_uuid, states, open, secrets, dirty, uses: 0 }
    }

    /// Creates the file that `created` describes; its name is durable when this returns. A file of that name that
    /// is not in the table is left over from a record that the log lost before anyone was told, and is replaced.
    pub fn create(&mut self, created: &ChunkfileCreated, sync_names: bool) -> io::Result<()> {
        let path = paths::chunk(created.id);
        self.disk.create_dir_all(paths::folder(&path))?;
        if self.disk.stat(&path)?.is_some() {
            self.disk.unlink(&path)?;
        }
        let file = self.disk.open(&path, Open::Create)?;
        let header = ChunkfileHeader {
            id: created.id,
            mount: self.mount,
            mount_uuid: self.mount_uuid,
            size_units: created.size_units,
            secret: created.secret,
            created_ms: created.created_ms,
        };
        file.write_all_at(0, &header.encode())?;
        file.sync_data()?;
        if sync_names {
            self.disk.sync_dir(paths::folder(&path))?;
        }
        self.know(created);
        let allocated = CHUNKFILE_HEADER_LEN as u64;
        self.remember(
            created.id,
            OpenFile { file, secret: created.secret, allocated, begun: 0, last_used: 0 },
        );
        Ok(())
    }

    /// Notes a chunkfile without touching the disk.
    pub fn know(&mut self, created: &ChunkfileCreated) {
        self.states.entry(created.id).or_insert(ChunkfileState {
            id: created.id,
            size_units: created.size_units,
            used_units: FIRST_SLOT_UNITS,
            oldest_tombstone_ms: u64::MAX,
        });
    }

    /// Whether the chunkfile is in the table, or on the disk with a right header (its creation may stand in a log that
    /// is replayed later): then it is in the table now.
    pub fn find(&mut self, id: ChunkfileId) -> StoreResult<bool> {
        if self.states.contains_key(&id) {
            return Ok(true);
        }
        let path = paths::chunk(id);
        let io = |what: &str| StoreError::io(format!("{what} {path}"));
        if self.disk.stat(&path).map_err(io("stat"))?.is_none() {
            return Ok(false);
        }
        let file = self.disk.open(&path, Open::Read).map_err(io("open"))?;
        let mut head = vec![0; CHUNKFILE_HEADER_LEN];
        file.read_full_at(0, &mut head).map_err(io("read"))?;
        let Ok(header) = ChunkfileHeader::decode(&head) else { return Ok(false) };
        if header.id != id || header.mount_uuid != self.mount_uuid {
            return Ok(false);
        }
        // A process that was killed may have left it to us only.
        file.sync_data().map_err(io("fdatasync"))?;
        self.disk.sync_dir(paths::folder(&path)).map_err(io("make durable the name of"))?;
        self.know(&ChunkfileCreated {
            id,
            size_units: header.size_units,
            created_ms: header.created_ms,
            secret: header.secret,
        });
        Ok(true)
    }

    fn remember(&mut self, id: ChunkfileId, file: OpenFile<D::File>) {
        if self.open.len() >= OPEN_MAX {
            let idle = |(id, file): (&ChunkfileId, &OpenFile<D::File>)| {
                (!self.dirty.contains_key(id)).then_some((file.last_used, *id))
            };
            if let Some((_, oldest)) = self.open.iter().filter_map(idle).min() {
                self.open.remove(&oldest);
            }
        }
        self.secrets.insert(id, file.secret);
        self.open.insert(id, file);
    }

    fn file(&mut self, id: ChunkfileId) -> StoreResult<&mut OpenFile<D::File>> {
        if !self.open.contains_key(&id) {
            let path = paths::chunk(id);
            let file = self
                .disk
                .open(&path, Open::Write)
                .map_err(|e| StoreError::io(format!("open {path}"))(e))?;
            let mut head = vec![0; CHUNKFILE_HEADER_LEN];
            file.read_full_at(0, &mut head)
                .map_err(|e| StoreError::io(format!("read {path}"))(e))?;
            let header = ChunkfileHeader::decode(&head)?;
            if header.id != id || header.mount_uuid != self.mount_uuid {
                let what = format!("{path} carries the header of another chunkfile");
                return Err(StoreError::Damaged(what));
            }
            let allocated =
                file.len().map_err(|e| StoreError::io(format!("length of {path}"))(e))?;
            let secret = header.secret;
            self.remember(id, OpenFile { file, secret, allocated, begun: allocated, last_used: 0 });
        }
        self.uses += 1;
        let uses = self.uses;
        match self.open.get_mut(&id) {
            Some(file) => {
                file.last_used = uses;
                Ok(file)
            }
            None => Err(StoreError::Damaged(format!("chunkfile {id:?} is not open"))),
        }
    }

    /// Key of the slot seals of a chunkfile.
    pub fn secret(&mut self, id: ChunkfileId) -> StoreResult<[u8; 16]> {
        match self.known_secret(id) {
            Some(secret) => Ok(secret),
            None => self.file(id).map(|file| file.secret),
        }
    }

    /// The same without touching the disk; there since the chunkfile was opened for the first time.
    #[must_use]
    pub fn known_secret(&self, id: ChunkfileId) -> Option<[u8; 16]> {
        self.secrets.get(&id).copied()
    }

    /// Reads up to `len` bytes at an offset; shorter at the end of the file.
    pub fn read(&mut self, id: ChunkfileId, offset: u64, len: usize) -> StoreResult<Vec<u8>> {
        let mut bytes = vec![0; len];
        let file = self.file(id)?;
        let done = file
            .file
            .read_full_at(offset, &mut bytes)
            .map_err(|e| StoreError::io(format!("read {}", paths::chunk(id)))(e))?;
        bytes.truncate(done);
        Ok(bytes)
    }

    /// Reserves blocks for a range before anything is promised about it, and up to `ahead` bytes more at the
    /// frontier.
    pub fn reserve(
        &mut self,
        id: ChunkfileId,
        offset: u64,
        len: u64,
        hole: bool,
        ahead: u64,
    ) -> StoreResult<()> {
        let size = self.states.get(&id).map_or(0, |s| u64::from(s.size_units) * UNIT);
        let file = self.file(id)?;
        let end = offset + len;
        let result =
            if hole && offset < file.allocated { file.file.allocate(offset, len) } else { Ok(()) };
        let result = result.and_then(|()| {
            if end <= file.allocated {
                return Ok(());
            }
            let step = end.next_multiple_of(ALLOCATE_STEP).min(size).min(end + ahead).max(end);
            let grown = file.file.allocate(file.allocated, step - file.allocated);
            let until = match grown {
                Ok(()) => step,
                // The last bytes of a disk: as much as is needed and not a step more.
                Err(_) => {
                    file.file.allocate(file.allocated, end - file.allocated)?;
                    end
                }
            };
            file.allocated = until;
            Ok(())
        });
        result.map_err(|e| StoreError::io(format!("reserve space in {}", paths::chunk(id)))(e))
    }

    /// Writes a slot (or a part of one) and notes that the file is to be synced.
    pub fn write(
        &mut self,
        id: ChunkfileId,
        offset: u64,
        parts: &[&[u8]],
        short_is_fine: bool,
    ) -> StoreResult<()> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let file = self.file(id)?;
        let result = if short_is_fine {
            let slices: Vec<io::IoSlice<'_>> = parts.iter().map(|p| io::IoSlice::new(p)).collect();
            file.file.write_vectored_at(offset, &slices).map(|_| ())
        } else {
            file.file.write_all_vectored_at(offset, parts)
        };
        result.map_err(|e| StoreError::io(format!("write {}", paths::chunk(id)))(e))?;
        file.allocated = file.allocated.max(offset + len as u64);
        file.appended(offset, offset + len as u64);
        self.note_dirty(id, offset, len as u64);
        Ok(())
    }

    /// The next checkpoint must sync this range, whoever wrote it.
    pub fn note_dirty(&mut self, id: ChunkfileId, offset: u64, len: u64) {
        let end = offset + len;
        let range = self.dirty.entry(id).or_insert((offset, end));
        *range = (range.0.min(offset), range.1.max(end));
    }

    /// Gives the whole blocks of a range back to the file system.
    pub fn punch(&mut self, id: ChunkfileId, offset: u64, len: u64) -> StoreResult<()> {
        /// Blocks of every file system we know; a smaller one only leaves a little.
        const BLOCK: u64 = 4096;
        let (from, to) = (offset.next_multiple_of(BLOCK), (offset + len) / BLOCK * BLOCK);
        if from >= to {
            return Ok(());
        }
        let file = self.file(id)?;
        let to = to.min(file.allocated);
        if from >= to {
            return Ok(());
        }
        file.file
            .punch(from, to - from)
            .map_err(|e| StoreError::io(format!("punch {}", paths::chunk(id)))(e))
    }

    /// What was written since this was last called, for a checkpoint.
    pub fn take_dirty(&mut self) -> BTreeMap<ChunkfileId, (u64, u64)> {
        std::mem::take(&mut self.dirty)
    }

    /// Starts write-back of a range and waits for it.
    pub fn write_back(&mut self, id: ChunkfileId, offset: u64, len: u64) -> StoreResult<()> {
        let file = self.file(id)?;
        file.file
            .write_back(offset, len)
            .map_err(|e| StoreError::io(format!("write back {}", paths::chunk(id)))(e))
    }

    /// Makes a chunkfile durable. An error is final (R9).
    pub fn sync(&mut self, id: ChunkfileId) -> StoreResult<()> {
        let file = self.file(id)?;
        file.file
            .sync_data()
            .map_err(|e| StoreError::io(format!("fdatasync {}", paths::chunk(id)))(e))
    }
}

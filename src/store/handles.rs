//! Open chunkfiles of the read side: a cache with a bound of its own, shared by all threads that read a mount.
//!
//! Invariants: a handle is shared, never closed under a reader; beyond the bound the one that was used longest ago
//! goes; the secret that seals the slot headers is read once, with the file's header.

use super::disk::{Disk, DiskFile, Open};
use super::read::ReadError;
use crate::format::chunkfile::{CHUNKFILE_HEADER_LEN, ChunkfileHeader};
use crate::format::ids::{ChunkfileId, MountIndex};
use crate::format::paths;
use dashmap::DashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An open chunkfile.
#[derive(Debug)]
pub struct Handle<F> {
    /// The file.
    pub file: F,
    /// Key of the seals in it.
    pub secret: [u8; 16],
    /// Its size in units.
    pub size_units: u32,
    /// When it was created, ms since 1970.
    pub created_ms: u64,
    used: AtomicU64,
}

/// The cache.
#[derive(Debug)]
pub struct Handles<F> {
    map: DashMap<ChunkfileId, Arc<Handle<F>>>,
    clock: AtomicU64,
    max: usize,
}

impl<F: DiskFile> Handles<F> {
    /// At most `max` open files (at least one).
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { map: DashMap::with_shard_amount(4), clock: AtomicU64::new(1), max: max.max(1) }
    }

    /// The handle, if it is open. Never touches the disk.
    #[must_use]
    pub fn cached(&self, id: ChunkfileId) -> Option<Arc<Handle<F>>> {
        let handle = self.map.get(&id).map(|entry| Arc::clone(&entry))?;
        // Time goes on with each opening only: a read costs no write to a shared counter.
        let now = self.clock.load(Ordering::Relaxed);
        if handle.used.load(Ordering::Relaxed) != now {
            handle.used.store(now, Ordering::Relaxed);
        }
        Some(handle)
    }

    /// The handle, opened if need be; `None` if there is no such chunkfile. May wait for the disk.
    ///
    /// # Errors
    /// The file is there but cannot be read, or is not what its name says.
    pub fn open<D: Disk<File = F>>(
        &self,
        disk: &D,
        mount: MountIndex,
        id: ChunkfileId,
    ) -> Result<Option<Arc<Handle<F>>>, ReadError> {
        if let Some(handle) = self.cached(id) {
            return Ok(Some(handle));
        }
        let path = paths::chunk(id);
        let file = match disk.open(&path, Open::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ReadError::io(path)(e)),
        };
        let mut bytes = vec![0; CHUNKFILE_HEADER_LEN];
        let got = file.read_full_at(0, &mut bytes).map_err(ReadError::io(path.as_str()))?;
        let header = ChunkfileHeader::decode(&bytes[..got])
            .map_err(|e| ReadError::Damaged(format!("{path}: {e}")))?;
        if header.id != id || header.mount != mount {
            return Err(ReadError::Damaged(format!("{path}: it is another chunkfile")));
        }
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed) + 1);
        let ChunkfileHeader { secret, size_units, created_ms, .. } = header;
        let handle = Arc::new(Handle { file, secret, size_units, created_ms, used });
        self.map.insert(id, Arc::clone(&handle));
        self.shrink();
        Ok(Some(handle))
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    fn shrink(&self) {
        while self.map.len() > self.max {
            let oldest = self
                .map
                .iter()
                .min_by_key(|entry| entry.used.load(Ordering::Relaxed))
                .map(|entry| *entry.key());
            let Some(oldest) = oldest else { return };
            self.map.remove(&oldest);
        }
    }
}

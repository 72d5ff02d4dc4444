//! Lists the live objects of a mount by scanning slot headers: for a lost manifest or database.
//!
//! Invariants: the scan jumps by capacity over valid homes, else by one unit, so that nothing hides behind stale
//! bytes; bytes that a user stored cannot pass for a header (the seal is keyed); a page never holds more than it was
//! asked for, and stops after [`SCAN_BYTES_MAX`], so that one request never holds a reader for long.

use super::disk::{Disk, DiskFile};
use super::handles::Handle;
use super::read::ReadError;
use super::reader::Reader;
use crate::format::chunkfile::FIRST_SLOT_UNITS;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId, MachineId, Tag, UNIT};
use crate::format::paths::{CHUNKS, MountFile};
use crate::format::slot::{HEADER_LEN, HEADER_UNITS, MAGIC_BYTES, Role, SlotHeader, State};
use std::io;

/// Bytes read in one call.
const READ_LEN: usize = 1 << 20;
/// Bytes scanned for one page at most.
pub const SCAN_BYTES_MAX: u64 = 64 << 20;
/// Longest header that is looked at: 192 bytes and some entries behind.
const HEADER_LOOK: usize = HEADER_LEN + 16 * 16;

/// Where a page ended: the next unit to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Chunkfile.
    pub chunkfile: ChunkfileId,
    /// Unit in it.
    pub offset_units: u32,
}

/// A live object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: ObjectId,
    /// Bytes of content.
    pub length: u64,
    /// Version.
    pub tag: Tag,
    /// Last edit, ms since 1970.
    pub modified_ms: u64,
}

/// Some live objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most as many as asked for; may be empty without being the last.
    pub items: Vec<Listed>,
    /// Where to go on; `None`: that was all.
    pub next: Option<Cursor>,
}

impl<D: Disk> Reader<D> {
    /// The next page of the live objects that `machine` created, from `from` on, modified at or after `since_ms`.
    ///
    /// # Errors
    /// [`ReadError::Io`], [`ReadError::Fenced`]. A chunkfile that cannot be understood is passed over.
    pub fn list(
        &self,
        machine: MachineId,
        from: Option<Cursor>,
        since_ms: u64,
        limit: usize,
    ) -> Result<Page, ReadError> {
        self.check()?;
        let mut page = Page::default();
        let mut scanned = 0;
        let mut at = from;
        while let Some(id) = self.next_chunkfile(machine, at)? {
            let start = match at {
                Some(cursor) if cursor.chunkfile == id => cursor.offset_units,
                Some(_) | None => FIRST_SLOT_UNITS,
            };
            let mut units = start.max(FIRST_SLOT_UNITS);
            match self.handles().open(self.disk(), self.mount(), id) {
                Ok(Some(handle)) => {
                    while units < handle.size_units {
                        if page.items.len() >= limit || scanned >= SCAN_BYTES_MAX {
                            page.next = Some(Cursor { chunkfile: id, offset_units: units });
                            return Ok(page);
                        }
                        let before = units;
                        units = self.scan(&handle, id, units, since_ms, limit, &mut page)?;
                        scanned += u64::from(units.saturating_sub(before))
                            .min(READ_LEN as u64 / UNIT)
                            * UNIT;
                    }
                }
                Ok(None) => {}
                Err(ReadError::Damaged(why)) => {
                    tracing::warn!(%why, "list passes over a chunkfile")
                }
                Err(error) => return Err(error),
            }
            at = Some(Cursor { chunkfile: id, offset_units: u32::MAX });
        }
        Ok(page)
    }

    /// Looks at one read's worth of units; the next unit to look at.
    fn scan(
        &self,
        handle: &Handle<D::File>,
        id: ChunkfileId,
        from: u32,
        since_ms: u64,
        limit: usize,
        page: &mut Page,
    ) -> Result<u32, ReadError> {
        let mut buffer = vec![0; READ_LEN];
        let at = u64::from(from) * UNIT;
        let got = handle
            .file
            .read_full_at(at, &mut buffer)
            .map_err(|e| ReadError::Io { what: MountFile::Chunk(id).path(), error: e })?;
        if got < HEADER_LEN {
            return Ok(handle.size_units);
        }
        // A header near the end of the buffer is left to the next read, unless the file ends there, too.
        let last = got == buffer.len();
        let mut unit = 0_u32;
        loop {
            let begin = unit as usize * UNIT as usize;
            if begin + HEADER_LEN > got || (last && begin + HEADER_LOOK > got) {
                break;
            }
            if page.items.len() >= limit {
                break;
            }
            let bytes = &buffer[begin..got.min(begin + HEADER_LOOK)];
            unit = unit.saturating_add(step(handle, id, from + unit, bytes, since_ms, page));
        }
        Ok(from.saturating_add(unit))
    }

    /// The machines that have ever created an object that was stored here.
    ///
    /// # Errors
    /// [`ReadError::Io`], [`ReadError::Fenced`].
    pub fn creators(&self) -> Result<Vec<MachineId>, ReadError> {
        self.check()?;
        let mut found: Vec<MachineId> =
            self.names(CHUNKS)?.iter().filter_map(|name| name.parse().ok()).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// The first chunkfile of `machine` at or after the cursor, in the order of log id and number.
    fn next_chunkfile(
        &self,
        machine: MachineId,
        at: Option<Cursor>,
    ) -> Result<Option<ChunkfileId>, ReadError> {
        let first = match at {
            None => None,
            Some(cursor) if cursor.offset_units == u32::MAX => {
                match cursor.chunkfile.chunk.checked_add(1) {
                    Some(chunk) => Some(ChunkfileId { chunk, ..cursor.chunkfile }),
                    None => return Ok(None),
                }
            }
            Some(cursor) => Some(cursor.chunkfile),
        };
        let mut best: Option<ChunkfileId> = None;
        let top = format!("{CHUNKS}/{machine}");
        for log in self.names(&top)? {
            for folder in self.names(&format!("{top}/{log}"))? {
                let below = format!("{top}/{log}/{folder}");
                for name in self.names(&below)? {
                    let Some(MountFile::Chunk(id)) = MountFile::parse(&format!("{below}/{name}"))
                    else {
                        continue;
                    };
                    if first.is_none_or(|first| id >= first) && best.is_none_or(|best| id < best) {
                        best = Some(id);
                    }
                }
            }
        }
        Ok(best)
    }

    fn names(&self, folder: &str) -> Result<Vec<String>, ReadError> {
        match self.disk().list(folder) {
            Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(Vec::new())
            }
            Err(e) => Err(ReadError::io(folder)(e)),
        }
    }
}

/// Looks at the unit `unit`, of which `bytes` are the first; how many units to go on.
fn step<F>(
    handle: &Handle<F>,
    id: ChunkfileId,
    unit: u32,
    bytes: &[u8],
    since_ms: u64,
    page: &mut Page,
) -> u32 {
    if bytes[..4] != MAGIC_BYTES {
        return 1;
    }
    let Ok(header) = SlotHeader::decode(bytes, &handle.secret) else { return 1 };
    let here =
        Address { machine: id.machine, log_id: id.log_id, chunk: id.chunk, offset_units: unit };
    if header.address != here {
        return 1;
    }
    match (header.role, header.state) {
        (Role::Home, State::Live) => {
            if header.modified_ms >= since_ms {
                page.items.push(listed(&header));
            }
            header.capacity_units.max(HEADER_UNITS)
        }
        (Role::Home, State::Deleted) => header.capacity_units.max(HEADER_UNITS),
        // It may be the stale header of a place that has other tenants by now.
        (Role::Home, State::Purged) | (Role::Target, _) => 1,
    }
}

fn listed(header: &SlotHeader) -> Listed {
    Listed {
        id: header.object_id(),
        length: header.length,
        tag: header.version.tag,
        modified_ms: header.modified_ms,
    }
}

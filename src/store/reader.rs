//! Reads objects of one mount, without the engine and beside it: any thread, any number at a time (P8: one `pread`
//! for an object that has not moved).
//!
//! Invariants: nothing is kept per object; each read first looks whether the mount is fenced; a read that may not
//! wait opens nothing and touches the medium with `RWF_NOWAIT` only; lengths come from sealed headers, never from
//! an id alone, except for the first read, which is bounded by [`FIRST_READ_MAX`].

use super::disk::{Disk, DiskFile};
use super::handles::{Handle, Handles};
use super::os_disk::{Nowait, OsDisk, OsFile, ReadMode};
use super::read::{ReadError, View, used_len, view_home, view_target};
use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId, MountIndex, Position, UNIT};
use crate::format::slot::{Body, HEADER_LEN, SlotHeader, State};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most bytes that the word of an id alone makes us read: a slot of the default threshold with half of room.
pub const FIRST_READ_MAX: u64 = 1536 << 10;
/// How often a read that met a change in flight is repeated before it goes in line with the changes.
const RETRIES: u32 = 2;

/// What was read.
#[derive(Clone, Debug)]
pub struct Got {
    /// The header at home: version, times, length, checksum of the content.
    pub home: SlotHeader,
    /// Where the content is.
    pub content: Content,
    /// Room of the slot that holds the content, header included, in units; 0 for a singlefile.
    pub capacity_units: u32,
}

/// Where the content of an object was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In the caller's buffer, verified.
    Buffer(Range<usize>),
    /// In this singlefile, yet to be read.
    Single(Position),
}

/// What a read that may not wait came to.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "one for each read, on the stack; a box would be an allocation"
)]
pub enum Fast {
    /// It is here.
    Done(Got),
    /// It needs the disk: read it where waiting is allowed.
    WouldBlock,
    /// No answer, or one that only a read in line with the changes can give.
    Failed(ReadError),
}

/// How one read call ended.
enum Piece {
    Bytes(usize),
    WouldBlock,
}

/// Reads what can be had without waiting.
type ReadNowait<F> = fn(&F, u64, &mut [u8]) -> io::Result<Nowait>;

/// The read side of a mount.
#[derive(Debug)]
pub struct Reader<D: Disk> {
    disk: D,
    mount: MountIndex,
    handles: Handles<D::File>,
    fenced: AtomicBool,
    mode: ReadMode,
    nowait: Option<ReadNowait<D::File>>,
}

impl Reader<OsDisk> {
    /// The read side of a real mount. `handles_max`: open chunkfiles at a time.
    #[must_use]
    pub fn of_os(disk: OsDisk, mount: MountIndex, mode: ReadMode, handles_max: usize) -> Self {
        let nowait: ReadNowait<OsFile> = OsFile::read_nowait;
        Self { mode, nowait: Some(nowait), ..Self::new(disk, mount, handles_max) }
    }
}

/// Whether that is right, or the file was lost, is known to the mount, in line with its changes.
const NO_FILE: ReadError = ReadError::Unsettled("there is no such chunkfile");

impl<D: Disk> Reader<D> {
    /// The read side of any disk; reads that may not wait always ask for a pool.
    #[must_use]
    pub fn new(disk: D, mount: MountIndex, handles_max: usize) -> Self {
        Self {
            disk,
            mount,
            handles: Handles::new(handles_max),
            fenced: AtomicBool::new(false),
            mode: ReadMode::Pool,
            nowait: None,
        }
    }

    /// The disk under it.
    #[must_use]
    pub const fn disk(&self) -> &D {
        &self.disk
    }

    /// The mount's index.
    #[must_use]
    pub const fn mount(&self) -> MountIndex {
        self.mount
    }

    pub(super) const fn handles(&self) -> &Handles<D::File> {
        &self.handles
    }

    /// From now on every read fails with [`ReadError::Fenced`].
    pub fn fence(&self) {
        self.fenced.store(true, Ordering::Release);
    }

    /// Refuses if the mount is fenced.
    ///
    /// # Errors
    /// [`ReadError::Fenced`].
    pub fn check(&self) -> Result<(), ReadError> {
        if self.fenced.load(Ordering::Acquire) { Err(ReadError::Fenced) } else { Ok(()) }
    }

    /// Reads an object as far as that needs no waiting. The content of a slot ends up in `buffer`.
    pub fn get_fast(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Fast {
        if matches!(self.mode, ReadMode::Pool) {
            return match self.check() {
                Ok(()) => Fast::WouldBlock,
                Err(error) => Fast::Failed(error),
            };
        }
        match self.attempt(id, buffer, false) {
            Ok(Some(got)) => Fast::Done(got),
            Ok(None) => Fast::WouldBlock,
            Err(error) => Fast::Failed(error),
        }
    }

    /// Reads an object, waiting for the disk if need be. The content of a slot ends up in `buffer`.
    ///
    /// # Errors
    /// [`ReadError`]; `Unsettled` after a few attempts.
    pub fn get(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Got, ReadError> {
        let mut left = RETRIES;
        loop {
            match self.attempt(id, buffer, true) {
                Ok(Some(got)) => return Ok(got),
                Err(ReadError::Unsettled(_)) if left > 0 => left -= 1,
                Ok(None) => return Err(ReadError::Unsettled("a waiting read did not wait")),
                Err(error) => return Err(error),
            }
        }
    }

    /// The object's header at home, also that of a deleted object.
    ///
    /// # Errors
    /// [`ReadError`]; `NotFound` only if there is no header of this object.
    pub fn head(&self, id: &ObjectId) -> Result<SlotHeader, ReadError> {
        self.check()?;
        let home = id.home().address;
        let Some(handle) = self.handles.open(&self.disk, self.mount, home.chunkfile())? else {
            return Err(NO_FILE);
        };
        let want = id.home().capacity().min(4 * HEADER_LEN as u64);
        let mut buffer = Vec::new();
        let Some(len) = self.read(&handle, home, want, &mut buffer, 0, true)? else {
            return Err(ReadError::Unsettled("a waiting read did not wait"));
        };
        match view_home(id, &buffer[..len], &handle.secret) {
            View::Object(header) => Ok(header),
            View::Absent => Err(ReadError::NotFound { deleted: false }),
            View::Unsettled(why) => Err(ReadError::Unsettled(why)),
            View::Newer(version) => Err(ReadError::Newer(version)),
        }
    }

    /// One read of home and, behind a forward, target. `None`: it would have to wait.
    fn attempt(
        &self,
        id: &ObjectId,
        buffer: &mut Vec<u8>,
        wait: bool,
    ) -> Result<Option<Got>, ReadError> {
        self.check()?;
        let place = id.home();
        let handle = match self.handle(place.address.chunkfile(), wait)? {
            Found::Open(handle) => handle,
            Found::NotOpen => return Ok(None),
            Found::Absent => return Err(NO_FILE),
        };
        let end = u64::from(place.address.offset_units) + u64::from(place.capacity_units);
        if end > u64::from(handle.size_units) {
            return Err(ReadError::NotFound { deleted: false });
        }
        let first = place.capacity().min(FIRST_READ_MAX);
        let Some(len) = self.read(&handle, place.address, first, buffer, 0, wait)? else {
            return Ok(None);
        };
        let header = match view_home(id, &buffer[..len], &handle.secret) {
            View::Object(header) => header,
            View::Absent => return Err(ReadError::NotFound { deleted: false }),
            // Cut short by the page cache: nothing is said about what lies on the disk.
            View::Unsettled(_) if (len as u64) < first && !wait => return Ok(None),
            View::Unsettled(why) => return Err(ReadError::Unsettled(why)),
            View::Newer(version) => return Err(ReadError::Newer(version)),
        };
        if header.state == State::Deleted {
            return Err(ReadError::NotFound { deleted: true });
        }
        match header.body {
            Body::Inline => self.content(&handle, header, place.address, len, buffer, wait),
            Body::Slot(to) => self.follow(header, to, buffer, wait),
            Body::Single(content) => {
                let content = Content::Single(content);
                Ok(Some(Got { home: header, content, capacity_units: 0 }))
            }
            Body::None => Err(ReadError::Unsettled("a live object without content")),
        }
    }

    /// The content behind the header at `address`, of which `have` bytes are in the buffer already.
    pub(super) fn content(
        &self,
        handle: &Handle<D::File>,
        header: SlotHeader,
        address: Address,
        have: usize,
        buffer: &mut Vec<u8>,
        wait: bool,
    ) -> Result<Option<Got>, ReadError> {
        let whole = used_len(&header);
        let room = u64::from(handle.size_units.saturating_sub(address.offset_units)) * UNIT;
        if whole > room {
            return Err(ReadError::Unsettled("the content ends beyond its chunkfile"));
        }
        let mut len = have;
        if (len as u64) < whole {
            match self.read(handle, address, whole, buffer, len, wait)? {
                Some(more) => len = more,
                None => return Ok(None),
            }
        }
        if (len as u64) < whole {
            return if wait {
                Err(ReadError::Unsettled("the chunkfile ends inside the content"))
            } else {
                Ok(None)
            };
        }
        match header.payload(&buffer[..len]) {
            Some(payload) => {
                let from = header.payload_offset();
                let content = Content::Buffer(from..from + payload.len());
                let capacity_units = header.capacity_units;
                Ok(Some(Got { home: header, content, capacity_units }))
            }
            None => Err(ReadError::Unsettled("the checksum of the content is wrong")),
        }
    }

    /// The content in the slot that `home` forwards to: one hop at most.
    pub(super) fn follow(
        &self,
        home: SlotHeader,
        to: Address,
        buffer: &mut Vec<u8>,
        wait: bool,
    ) -> Result<Option<Got>, ReadError> {
        let handle = match self.handle(to.chunkfile(), wait)? {
            Found::Open(handle) => handle,
            Found::NotOpen => return Ok(None),
            Found::Absent => {
                return Err(ReadError::Unsettled("the home forwards to no chunkfile"));
            }
        };
        let room = u64::from(handle.size_units.saturating_sub(to.offset_units)) * UNIT;
        if room == 0 {
            return Err(ReadError::Unsettled("the home forwards beyond a chunkfile"));
        }
        let first = used_len(&home).min(room);
        let Some(len) = self.read(&handle, to, first, buffer, 0, wait)? else { return Ok(None) };
        if (len as u64) < first && !wait {
            return Ok(None);
        }
        let target = view_target(&home, to, &buffer[..len], &handle.secret)?;
        let got = self.content(&handle, target, to, len, buffer, wait)?;
        Ok(got.map(|got| Got { home, ..got }))
    }

    fn handle(&self, id: ChunkfileId, wait: bool) -> Result<Found<D::File>, ReadError> {
        if !wait {
            return Ok(self.handles.cached(id).map_or(Found::NotOpen, Found::Open));
        }
        let found = self.handles.open(&self.disk, self.mount, id)?;
        Ok(found.map_or(Found::Absent, Found::Open))
    }

    /// Makes `buffer` hold the first `want` bytes from `address` on, `have` of which it holds; how many it holds
    /// then. `None`: it would have to wait.
    pub(super) fn read(
        &self,
        handle: &Handle<D::File>,
        address: Address,
        want: u64,
        buffer: &mut Vec<u8>,
        have: usize,
        wait: bool,
    ) -> Result<Option<usize>, ReadError> {
        let want = usize::try_from(want).unwrap_or(usize::MAX);
        if buffer.len() < want {
            buffer.resize(want, 0);
        }
        let at = address.offset() + have as u64;
        let piece = self.read_piece(&handle.file, at, &mut buffer[have..want], wait);
        match piece.map_err(|e| ReadError::Io { what: describe(address), error: e })? {
            Piece::Bytes(n) => Ok(Some(have + n)),
            Piece::WouldBlock => Ok(None),
        }
    }

    fn read_piece(
        &self,
        file: &D::File,
        at: u64,
        buffer: &mut [u8],
        wait: bool,
    ) -> io::Result<Piece> {
        if wait || self.mode == ReadMode::InlinePlain {
            return file.read_full_at(at, buffer).map(Piece::Bytes);
        }
        let Some(nowait) = self.nowait else { return Ok(Piece::WouldBlock) };
        match nowait(file, at, buffer)? {
            Nowait::Read(n) => Ok(Piece::Bytes(n)),
            Nowait::WouldBlock | Nowait::Unsupported => Ok(Piece::WouldBlock),
        }
    }
}

/// A chunkfile looked for.
enum Found<F> {
    Open(Arc<Handle<F>>),
    /// Opening it would have to wait.
    NotOpen,
    Absent,
}

fn describe(address: Address) -> String {
    format!("{} at {}", crate::format::paths::chunk(address.chunkfile()), address.offset())
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;

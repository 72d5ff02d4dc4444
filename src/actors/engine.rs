//! What the actors know of a mount: two small traits, so that no actor names a disk.
//!
//! [`Engine`] changes things; it lives on its mount's disk arbiter, blocks there (R4) and is used by one thread.
//! [`Shelf`] reads, and writes temporary files; any thread may use it at any time.

use crate::format::file_id::ObjectId;
use crate::format::ids::{ChunkfileId, MachineId, Position, Sequence, Tag, Token};
use crate::format::slot::SlotHeader;
use crate::store::disk::{Disk, DiskFile, Space};
use crate::store::error::{StoreError, StoreResult};
use crate::store::list::{Cursor, Page};
use crate::store::mount::{Body, Mount, MountStats, PutRequest, Staged};
use crate::store::read::ReadError;
use crate::store::reader::{Fast, Got, Reader};
use crate::store::single_reader::SingleReader;
use crate::store::single_writer::{Finished, SingleWriter, remove_temp};
use std::io;
use std::ops::Range;

/// The changing side of a mount. See [`Mount`] for what each call promises.
pub trait Engine: Send + 'static {
    /// Stages a new object.
    ///
    /// # Errors
    /// Refused: nothing was changed.
    fn stage_put(&mut self, request: PutRequest) -> StoreResult<Staged>;
    /// Stages new content of an object.
    ///
    /// # Errors
    /// Refused: nothing was changed.
    fn stage_modify(
        &mut self,
        id: &ObjectId,
        token: Token,
        body: Body,
        if_opver: Option<Tag>,
    ) -> StoreResult<Staged>;
    /// Stages a tombstone.
    ///
    /// # Errors
    /// Refused: nothing was changed.
    fn stage_delete(
        &mut self,
        id: &ObjectId,
        token: Token,
        if_opver: Option<Tag>,
    ) -> StoreResult<Staged>;
    /// Stages the return of a deleted object.
    ///
    /// # Errors
    /// Refused: nothing was changed.
    fn stage_undelete(&mut self, id: &ObjectId, token: Token) -> StoreResult<Staged>;
    /// Whether there is a reason for the home of an object to hold no header of it; else it is damaged. See
    /// [`Mount::is_gone`].
    ///
    /// # Errors
    /// The mount is fenced, or cannot be read.
    fn is_gone(&mut self, id: &ObjectId) -> StoreResult<bool>;
    /// Whether anything waits for [`Engine::commit`].
    fn has_staged(&self) -> bool;
    /// Whether the batch should be written without waiting for more.
    fn batch_is_full(&self) -> bool;
    /// Makes what is staged durable and applies it.
    ///
    /// # Errors
    /// The mount is fenced: nothing that is staged may be acknowledged (R9).
    fn commit(&mut self) -> StoreResult<Sequence>;
    /// Everything up to here is durable and applied.
    fn durable(&self) -> Sequence;
    /// Whether a checkpoint should be worked on.
    fn checkpoint_due(&self) -> bool;
    /// One slice of it; `true` when it is finished.
    ///
    /// # Errors
    /// The mount is fenced.
    fn checkpoint_step(&mut self) -> StoreResult<bool>;
    /// One slice of housekeeping; `true` if there is more to do now.
    ///
    /// # Errors
    /// The mount is fenced.
    fn maintain(&mut self) -> StoreResult<bool>;
    /// Numbers for people.
    fn stats(&mut self) -> MountStats;
    /// Why it takes nothing more, if so.
    fn fenced(&self) -> Option<&str>;
    /// Takes nothing more from now on.
    fn fence(&mut self, reason: String);
    /// Chunkfile of each lane that has one.
    fn active_chunkfiles(&self) -> Vec<ChunkfileId>;
}

impl<D: Disk> Engine for Mount<D> {
    fn stage_put(&mut self, request: PutRequest) -> StoreResult<Staged> {
        Self::stage_put(self, request)
    }

    fn stage_modify(
        &mut self,
        id: &ObjectId,
        token: Token,
        body: Body,
        if_opver: Option<Tag>,
    ) -> StoreResult<Staged> {
        Self::stage_modify(self, id, token, body, if_opver)
    }

    fn stage_delete(
        &mut self,
        id: &ObjectId,
        token: Token,
        if_opver: Option<Tag>,
    ) -> StoreResult<Staged> {
        Self::stage_delete(self, id, token, if_opver)
    }

    fn stage_undelete(&mut self, id: &ObjectId, token: Token) -> StoreResult<Staged> {
        Self::stage_undelete(self, id, token)
    }

    fn is_gone(&mut self, id: &ObjectId) -> StoreResult<bool> {
        Self::is_gone(self, id)
    }

    fn has_staged(&self) -> bool {
        Self::has_staged(self)
    }

    fn batch_is_full(&self) -> bool {
        Self::batch_is_full(self)
    }

    fn commit(&mut self) -> StoreResult<Sequence> {
        Self::commit(self)
    }

    fn durable(&self) -> Sequence {
        Self::durable(self)
    }

    fn checkpoint_due(&self) -> bool {
        Self::checkpoint_due(self)
    }

    fn checkpoint_step(&mut self) -> StoreResult<bool> {
        Self::checkpoint_step(self)
    }

    fn maintain(&mut self) -> StoreResult<bool> {
        Self::maintain(self)
    }

    fn stats(&mut self) -> MountStats {
        Self::stats(self)
    }

    fn fenced(&self) -> Option<&str> {
        Self::fenced(self)
    }

    fn fence(&mut self, reason: String) {
        Self::fence(self, reason);
    }

    fn active_chunkfiles(&self) -> Vec<ChunkfileId> {
        Self::active_chunkfiles(self)
    }
}

/// The reading side of a mount, and its temporary files.
pub trait Shelf: Send + Sync + 'static {
    /// Reads without waiting, see [`Reader::get_fast`].
    fn get_fast(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Fast;
    /// Reads, see [`Reader::get`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn get(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Got, ReadError>;
    /// The header at home, see [`Reader::head`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn head(&self, id: &ObjectId) -> Result<SlotHeader, ReadError>;
    /// Opens a large object's content.
    ///
    /// # Errors
    /// [`ReadError`].
    fn open_single(
        &self,
        home: &SlotHeader,
        content: Position,
    ) -> Result<Box<dyn Single>, ReadError>;
    /// A page of live objects.
    ///
    /// # Errors
    /// [`ReadError`].
    fn list(
        &self,
        machine: MachineId,
        from: Option<Cursor>,
        since_ms: u64,
        limit: usize,
    ) -> Result<Page, ReadError>;
    /// Begins the temporary file of a large object.
    ///
    /// # Errors
    /// Those of the disk.
    fn create_single(&self, content: Position) -> io::Result<Box<dyn Sink>>;
    /// Removes a finished temporary file that will not become an object.
    fn remove_temp(&self, content: Position);
    /// Space of the file system.
    ///
    /// # Errors
    /// Those of the disk.
    fn space(&self) -> io::Result<Space>;
    /// Answers nothing from now on.
    fn fence(&self);
}

/// The content of an open large object.
pub trait Single: Send + Sync {
    /// Reads a range of it, see [`SingleReader::read`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn read(&self, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<Range<usize>, ReadError>;
}

/// A large object on its way in, see [`SingleWriter`].
pub trait Sink: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// Those of the disk.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes it durable.
    ///
    /// # Errors
    /// Those of the disk; the file is removed then.
    fn finish(self: Box<Self>) -> io::Result<Finished>;
    /// Removes it.
    fn abort(self: Box<Self>);
}

impl<F: DiskFile> Single for SingleReader<F> {
    fn read(&self, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<Range<usize>, ReadError> {
        Self::read(self, range, buffer)
    }
}

impl<D: Disk> Sink for SingleWriter<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        Self::write(self, bytes)
    }

    fn finish(self: Box<Self>) -> io::Result<Finished> {
        Self::finish(*self)
    }

    fn abort(self: Box<Self>) {
        Self::abort(*self);
    }
}

impl<D: Disk> Shelf for Reader<D> {
    fn get_fast(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Fast {
        Self::get_fast(self, id, buffer)
    }

    fn get(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Got, ReadError> {
        Self::get(self, id, buffer)
    }

    fn head(&self, id: &ObjectId) -> Result<SlotHeader, ReadError> {
        Self::head(self, id)
    }

    fn open_single(
        &self,
        home: &SlotHeader,
        content: Position,
    ) -> Result<Box<dyn Single>, ReadError> {
        Ok(Box::new(Self::open_single(self, home, content)?))
    }

    fn list(
        &self,
        machine: MachineId,
        from: Option<Cursor>,
        since_ms: u64,
        limit: usize,
    ) -> Result<Page, ReadError> {
        Self::list(self, machine, from, since_ms, limit)
    }

    fn create_single(&self, content: Position) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(SingleWriter::create(self.disk().clone(), self.mount(), content)?))
    }

    fn remove_temp(&self, content: Position) {
        remove_temp(self.disk(), content);
    }

    fn space(&self) -> io::Result<Space> {
        self.disk().space()
    }

    fn fence(&self) {
        Self::fence(self);
    }
}

/// Whether an error of a temporary file only says that there is no room.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a refusal only says that this mount has no room: another one may take the object.
#[must_use]
pub const fn wants_another_mount(error: &StoreError) -> bool {
    matches!(error, StoreError::NoSpace { .. })
}

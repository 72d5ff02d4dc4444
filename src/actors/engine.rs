//! What the actors know of a mount: two small traits, so that no actor names a disk.
//!
//! [`Engine`] changes things; it lives on its mount's disk arbiter, blocks there (R4) and is used by one thread.
//! [`Shelf`] reads, and writes temporary files; any thread may use it at any time.

use crate::cluster::coverage::Coverage;
use crate::cluster::reuse::MemberReport;
use crate::format::conflict::Conflict;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId, MachineId, Position, Sequence, Tag, Token};
use crate::format::members::Member;
use crate::format::record::{ChunkfileCreated, Dropped};
use crate::format::slot::SlotHeader;
use crate::store::content::{ContentCopy, CopyError};
use crate::store::digest::{ChunkDigest, DigestCursor, SummaryPage};
use crate::store::disk::{Disk, DiskFile, Space};
use crate::store::error::{StoreError, StoreResult};
use crate::store::list::{Cursor, Page};
use crate::store::log_reader::{LogCursor, LogRead};
use crate::store::mount::{Body, Mount, MountStats, PutRequest, Staged};
use crate::store::read::ReadError;
use crate::store::reader::{Fast, Got, Reader};
use crate::store::single_reader::SingleReader;
use crate::store::single_writer::{Finished, SingleWriter, remove_temp};
use crate::store::slot_copy::SlotCopy;
use crate::store::sync::{LogName, LogSlice, Received};
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

    // --- mirrors ---

    /// Takes slices of other logs: durable and applied when it returns. What is staged is committed first.
    ///
    /// # Errors
    /// The mount is fenced; whatever was not acknowledged before may be sent again.
    fn receive(&mut self, slices: &[LogSlice]) -> StoreResult<Vec<Received>>;
    /// No mirror has this content any more, because a later version of its object stands: records that name it are
    /// applied without it.
    fn content_is_gone(&mut self, content: Position);
    /// What is durable and applied, the own log included.
    fn coverage(&self) -> Coverage;
    /// What this member says to the others (R12).
    fn own_report(&self) -> MemberReport;
    /// What another member says.
    fn member_report(&mut self, machine: MachineId, report: &MemberReport);
    /// The configured members, ourselves included once this mount has joined.
    fn members(&self) -> &[Member];
    /// Makes these the members; durable when it returns.
    ///
    /// # Errors
    /// The mount is fenced.
    fn set_members(&mut self, members: Vec<Member>) -> StoreResult<()>;
    /// Our own log.
    fn own_log(&self) -> LogName;
    /// Gives a version in the conflict archive up, on all mirrors; see [`Mount::drop_archived`].
    ///
    /// # Errors
    /// The mount is fenced.
    fn drop_archived(&mut self, dropped: &Dropped) -> StoreResult<bool>;
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

    fn receive(&mut self, slices: &[LogSlice]) -> StoreResult<Vec<Received>> {
        Self::receive(self, slices)
    }

    fn content_is_gone(&mut self, content: Position) {
        Self::content_is_gone(self, content);
    }

    fn coverage(&self) -> Coverage {
        Self::coverage(self)
    }

    fn own_report(&self) -> MemberReport {
        Self::own_report(self)
    }

    fn member_report(&mut self, machine: MachineId, report: &MemberReport) {
        Self::member_report(self, machine, report);
    }

    fn members(&self) -> &[Member] {
        Self::members(self)
    }

    fn set_members(&mut self, members: Vec<Member>) -> StoreResult<()> {
        Self::set_members(self, members)
    }

    fn own_log(&self) -> LogName {
        Self::own_log(self)
    }

    fn drop_archived(&mut self, dropped: &Dropped) -> StoreResult<bool> {
        Self::drop_archived(self, dropped)
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
    /// The next records of a log, see [`Reader::read_log`].
    ///
    /// # Errors
    /// [`ReadError`]; the cursor stays.
    fn read_log(
        &self,
        cursor: &mut LogCursor,
        up_to: Sequence,
        max_bytes: usize,
    ) -> Result<LogRead, ReadError>;
    /// Every chunkfile, see [`Reader::chunkfiles`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn chunkfiles(&self) -> Result<Vec<ChunkfileId>, ReadError>;
    /// What a mirror needs to have the same chunkfile, see [`Reader::chunkfile_created`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn chunkfile_created(&self, id: ChunkfileId) -> Result<Option<ChunkfileCreated>, ReadError>;
    /// Goes on with the digest of a chunkfile, see [`Reader::digest_step`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn digest_step(
        &self,
        cursor: &mut DigestCursor,
        max_bytes: u64,
    ) -> Result<Option<ChunkDigest>, ReadError>;
    /// Home slots of a chunkfile, see [`Reader::summaries`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn summaries(
        &self,
        id: ChunkfileId,
        from_units: u32,
        limit: usize,
    ) -> Result<SummaryPage, ReadError>;
    /// An object as it lies in its slots, see [`Reader::copy_slot`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn copy_slot(&self, home: Address) -> Result<SlotCopy, ReadError>;
    /// Length of the whole file of a large object's content, see [`Reader::content_len`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn content_len(&self, content: Position) -> Result<Option<u64>, ReadError>;
    /// Reads a piece of that file, see [`Reader::read_content`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn read_content(
        &self,
        content: Position,
        offset: u64,
        len: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<usize, ReadError>;
    /// Begins or continues the copy of such a file, of `length` bytes of payload.
    ///
    /// # Errors
    /// Those of the disk.
    fn copy_content(&self, content: Position, length: u64) -> io::Result<Box<dyn Copying>>;
    /// Begins the temporary file of a large object.
    ///
    /// # Errors
    /// Those of the disk.
    fn create_single(&self, content: Position) -> io::Result<Box<dyn Sink>>;
    /// Removes a finished temporary file that will not become an object.
    fn remove_temp(&self, content: Position);
    /// Every version in the conflict archive, see [`Reader::archived`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn archived(&self) -> Result<Vec<Conflict>, ReadError>;
    /// The content of a small one, see [`Reader::archived_content`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn archived_content(&self, lost: &Conflict) -> Result<Option<Vec<u8>>, ReadError>;
    /// Opens the content of a large one, see [`Reader::open_archived`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn open_archived(
        &self,
        lost: &Conflict,
        content: Position,
    ) -> Result<Box<dyn Single>, ReadError>;
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

/// A content on its way in from a mirror, see [`ContentCopy`]. Dropped, it stays to be continued.
pub trait Copying: Send {
    /// The next bytes are wanted from here.
    fn position(&self) -> u64;
    /// Length of the whole file.
    fn whole_len(&self) -> u64;
    /// Takes the next bytes.
    ///
    /// # Errors
    /// Those of the disk; what came before stays.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Verifies it and makes it durable.
    ///
    /// # Errors
    /// [`CopyError`]; the file is removed then.
    fn finish(self: Box<Self>) -> Result<Finished, CopyError>;
    /// Removes it.
    fn abort(self: Box<Self>);
}

impl<D: Disk> Copying for ContentCopy<D> {
    fn position(&self) -> u64 {
        Self::position(self)
    }

    fn whole_len(&self) -> u64 {
        Self::whole_len(self)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        Self::write(self, bytes)
    }

    fn finish(self: Box<Self>) -> Result<Finished, CopyError> {
        Self::finish(*self)
    }

    fn abort(self: Box<Self>) {
        Self::abort(*self);
    }
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

    fn read_log(
        &self,
        cursor: &mut LogCursor,
        up_to: Sequence,
        max_bytes: usize,
    ) -> Result<LogRead, ReadError> {
        Self::read_log(self, cursor, up_to, max_bytes)
    }

    fn chunkfiles(&self) -> Result<Vec<ChunkfileId>, ReadError> {
        Self::chunkfiles(self)
    }

    fn chunkfile_created(&self, id: ChunkfileId) -> Result<Option<ChunkfileCreated>, ReadError> {
        Self::chunkfile_created(self, id)
    }

    fn digest_step(
        &self,
        cursor: &mut DigestCursor,
        max_bytes: u64,
    ) -> Result<Option<ChunkDigest>, ReadError> {
        Self::digest_step(self, cursor, max_bytes)
    }

    fn summaries(
        &self,
        id: ChunkfileId,
        from_units: u32,
        limit: usize,
    ) -> Result<SummaryPage, ReadError> {
        Self::summaries(self, id, from_units, limit)
    }

    fn copy_slot(&self, home: Address) -> Result<SlotCopy, ReadError> {
        Self::copy_slot(self, home)
    }

    fn content_len(&self, content: Position) -> Result<Option<u64>, ReadError> {
        Self::content_len(self, content)
    }

    fn read_content(
        &self,
        content: Position,
        offset: u64,
        len: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<usize, ReadError> {
        Self::read_content(self, content, offset, len, buffer)
    }

    fn copy_content(&self, content: Position, length: u64) -> io::Result<Box<dyn Copying>> {
        Ok(Box::new(Self::copy_content(self, content, length)?))
    }

    fn create_single(&self, content: Position) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(SingleWriter::create(self.disk().clone(), self.mount(), content)?))
    }

    fn remove_temp(&self, content: Position) {
        remove_temp(self.disk(), content);
    }

    fn archived(&self) -> Result<Vec<Conflict>, ReadError> {
        Self::archived(self)
    }

    fn archived_content(&self, lost: &Conflict) -> Result<Option<Vec<u8>>, ReadError> {
        Self::archived_content(self, lost)
    }

    fn open_archived(
        &self,
        lost: &Conflict,
        content: Position,
    ) -> Result<Box<dyn Single>, ReadError> {
        Ok(Box::new(Self::open_archived(self, lost, content)?))
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

//! The reading side of a mount as the actors know it, and its temporary files: traits, so that no actor names a disk.
//! (The changing side is [`engine`](super::engine).)
//!
//! Any thread may use a [`Shelf`] at any time.

use crate::format::conflict::Conflict;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId, MachineId, Position, Sequence};
use crate::format::record::ChunkfileCreated;
use crate::format::scrub_state::ScrubState;
use crate::format::slot::SlotHeader;
use crate::store::archive::{ArchiveNames, ArchivedName};
use crate::store::archive_check::ArchivedState;
use crate::store::content::CopyError;
use crate::store::digest::{ChunkDigest, DigestCursor, MarkPage};
use crate::store::disk::Space;
use crate::store::list::{Cursor, Page};
use crate::store::log_check::{Durable, SegmentRef, SegmentState};
use crate::store::log_reader::{LogCursor, LogRead};
use crate::store::read::ReadError;
use crate::store::reader::{Fast, Got};
use crate::store::scrub::{LargeCheck, LargeState, SlotsChecked};
use crate::store::single_writer::Finished;
use crate::store::slot_copy::SlotCopy;
use crate::store::slot_run::SlotRun;
use std::io;
use std::ops::Range;

/// The reading side of a mount, and its temporary files.
pub trait Shelf: Send + Sync + 'static {
    /// Reads without waiting, see [`Reader::get_fast`](crate::store::reader::Reader::get_fast).
    fn get_fast(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Fast;
    /// Reads, see [`Reader::get`](crate::store::reader::Reader::get).
    ///
    /// # Errors
    /// [`ReadError`].
    fn get(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Got, ReadError>;
    /// The header at home, see [`Reader::head`](crate::store::reader::Reader::head).
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
    /// See [`Reader::creators`](crate::store::reader::Reader::creators).
    ///
    /// # Errors
    /// [`ReadError`].
    fn creators(&self) -> Result<Vec<MachineId>, ReadError>;
    /// The next records of a log, see [`Reader::read_log`](crate::store::reader::Reader::read_log).
    ///
    /// # Errors
    /// [`ReadError`]; the cursor stays.
    fn read_log(
        &self,
        cursor: &mut LogCursor,
        up_to: Sequence,
        max_bytes: usize,
    ) -> Result<LogRead, ReadError>;
    /// Every chunkfile, see [`Reader::chunkfiles`](crate::store::reader::Reader::chunkfiles).
    ///
    /// # Errors
    /// [`ReadError`].
    fn chunkfiles(&self) -> Result<Vec<ChunkfileId>, ReadError>;
    /// What a mirror needs to have the same chunkfile, see [`Reader::chunkfile_created`](crate::store::reader::Reader::chunkfile_created).
    ///
    /// # Errors
    /// [`ReadError`].
    fn chunkfile_created(&self, id: ChunkfileId) -> Result<Option<ChunkfileCreated>, ReadError>;
    /// Goes on with the digest of a chunkfile, see [`Reader::digest_step`](crate::store::reader::Reader::digest_step).
    ///
    /// # Errors
    /// [`ReadError`].
    fn digest_step(
        &self,
        cursor: &mut DigestCursor,
        max_bytes: u64,
    ) -> Result<Option<ChunkDigest>, ReadError>;
    /// The marks of homes of a chunkfile, see [`Reader::marks`](crate::store::reader::Reader::marks).
    ///
    /// # Errors
    /// [`ReadError`].
    fn marks(
        &self,
        id: ChunkfileId,
        from_units: u32,
        limit: usize,
        max_bytes: u64,
    ) -> Result<MarkPage, ReadError>;
    /// An object as it lies in its slots, which have about `room` bytes, see [`Reader::copy_slot_of`](crate::store::reader::Reader::copy_slot_of).
    ///
    /// # Errors
    /// [`ReadError`].
    fn copy_slot(&self, home: Address, room: u64) -> Result<SlotCopy, ReadError>;
    /// Many slots of a chunkfile in one piece, see [`Reader::copy_run`](crate::store::reader::Reader::copy_run).
    ///
    /// # Errors
    /// [`ReadError`].
    fn copy_run(
        &self,
        id: ChunkfileId,
        from_units: u32,
        read_bytes: u64,
    ) -> Result<SlotRun, ReadError>;
    /// What the archive keeps and has given up, see [`Reader::archive_names`](crate::store::reader::Reader::archive_names).
    ///
    /// # Errors
    /// [`ReadError`].
    fn archive_names(&self) -> Result<ArchiveNames, ReadError>;
    /// One of what it keeps, see [`Reader::archived_version`](crate::store::reader::Reader::archived_version).
    ///
    /// # Errors
    /// [`ReadError`].
    fn archived_version(
        &self,
        name: ArchivedName,
    ) -> Result<Option<(Conflict, Vec<u8>)>, ReadError>;
    /// Length of the whole file of a large object's content, see [`Reader::content_len`](crate::store::reader::Reader::content_len).
    ///
    /// # Errors
    /// [`ReadError`].
    fn content_len(&self, content: Position) -> Result<Option<u64>, ReadError>;
    /// Reads a piece of that file, see [`Reader::read_content`](crate::store::reader::Reader::read_content).
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
    /// Every version in the conflict archive, see [`Reader::archived`](crate::store::reader::Reader::archived).
    ///
    /// # Errors
    /// [`ReadError`].
    fn archived(&self) -> Result<Vec<Conflict>, ReadError>;
    /// The content of a small one, see [`Reader::archived_content`](crate::store::reader::Reader::archived_content).
    ///
    /// # Errors
    /// [`ReadError`].
    fn archived_content(&self, lost: &Conflict) -> Result<Option<Vec<u8>>, ReadError>;
    /// Opens the content of a large one, see [`Reader::open_archived`](crate::store::reader::Reader::open_archived).
    ///
    /// # Errors
    /// [`ReadError`].
    fn open_archived(
        &self,
        lost: &Conflict,
        content: Position,
    ) -> Result<Box<dyn Single>, ReadError>;
    /// Whether a chunkfile's header is as it was written, see [`Reader::check_chunkfile`](crate::store::reader::Reader::check_chunkfile).
    ///
    /// # Errors
    /// [`ReadError`].
    fn check_chunkfile(&self, id: ChunkfileId) -> Result<Option<bool>, ReadError>;
    /// Verifies a part of a chunkfile, see [`Reader::check_slots`](crate::store::reader::Reader::check_slots).
    ///
    /// # Errors
    /// [`ReadError`].
    fn check_slots(
        &self,
        id: ChunkfileId,
        from: u32,
        max_bytes: u64,
    ) -> Result<SlotsChecked, ReadError>;
    /// Goes on verifying the content of a large object, see [`Reader::check_large`](crate::store::reader::Reader::check_large).
    ///
    /// # Errors
    /// [`ReadError`].
    fn check_large(
        &self,
        check: &mut LargeCheck,
        max_bytes: u64,
    ) -> Result<(LargeState, u64), ReadError>;
    /// Every segment of every log, see [`Reader::log_segments`](crate::store::reader::Reader::log_segments).
    ///
    /// # Errors
    /// [`ReadError`].
    fn log_segments(&self, us: MachineId) -> Result<Vec<SegmentRef>, ReadError>;
    /// Verifies one of them, see [`Reader::check_segment`](crate::store::reader::Reader::check_segment).
    ///
    /// # Errors
    /// [`ReadError`].
    fn check_segment(
        &self,
        at: SegmentRef,
        next: Option<SegmentRef>,
        durable: Durable,
    ) -> Result<SegmentState, ReadError>;
    /// Whether the checkpoint is as it was written, see [`Reader::check_checkpoint`](crate::store::reader::Reader::check_checkpoint).
    ///
    /// # Errors
    /// [`ReadError`].
    fn check_checkpoint(&self) -> Result<Option<bool>, ReadError>;
    /// Verifies an entry of the archive, see [`Reader::check_archived`](crate::store::reader::Reader::check_archived).
    ///
    /// # Errors
    /// [`ReadError`].
    fn check_archived(&self, name: ArchivedName) -> Result<ArchivedState, ReadError>;
    /// What is kept aside of what was damaged, see [`Reader::kept_aside`](crate::store::reader::Reader::kept_aside).
    ///
    /// # Errors
    /// [`ReadError`].
    fn kept_aside(&self) -> Result<(u64, u64), ReadError>;
    /// How far the verification of the mount is, see [`Reader::load_scrub`](crate::store::reader::Reader::load_scrub).
    ///
    /// # Errors
    /// [`ReadError`].
    fn load_scrub(&self) -> Result<Option<ScrubState>, ReadError>;
    /// Keeps it, see [`Reader::save_scrub`](crate::store::reader::Reader::save_scrub).
    ///
    /// # Errors
    /// [`ReadError`].
    fn save_scrub(&self, state: &ScrubState) -> Result<(), ReadError>;
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
    /// Reads a range of it, see [`SingleReader::read`](crate::store::single_reader::SingleReader::read).
    ///
    /// # Errors
    /// [`ReadError`].
    fn read(&self, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<Range<usize>, ReadError>;
}

/// A large object on its way in, see [`SingleWriter`](crate::store::single_writer::SingleWriter).
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

/// A content on its way in from a mirror, see [`ContentCopy`](crate::store::content::ContentCopy). Dropped, it stays to be continued.
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

//! The reading side of a mount on any [`Disk`](crate::store::disk::Disk): what [`shelf`](super::shelf) asks for, from the store.

use super::shelf::{Copying, Shelf, Single, Sink};
use crate::format::conflict::Conflict;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId, MachineId, Position, Sequence};
use crate::format::record::ChunkfileCreated;
use crate::format::scrub_state::ScrubState;
use crate::format::slot::SlotHeader;
use crate::store::archive::{ArchiveNames, ArchivedName};
use crate::store::archive_check::ArchivedState;
use crate::store::content::{ContentCopy, CopyError};
use crate::store::digest::{ChunkDigest, DigestCursor, MarkPage};
use crate::store::disk::{Disk, DiskFile, Space};
use crate::store::list::{Cursor, Page};
use crate::store::log_check::{Durable, SegmentRef, SegmentState};
use crate::store::log_reader::{LogCursor, LogRead};
use crate::store::read::ReadError;
use crate::store::reader::{Fast, Got, Reader};
use crate::store::scrub::{LargeCheck, LargeState, SlotsChecked};
use crate::store::single_reader::SingleReader;
use crate::store::single_writer::{Finished, SingleWriter, remove_temp};
use crate::store::slot_copy::SlotCopy;
use crate::store::slot_run::SlotRun;
use std::io;
use std::ops::Range;

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

    fn creators(&self) -> Result<Vec<MachineId>, ReadError> {
        Self::creators(self)
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

    fn marks(
        &self,
        id: ChunkfileId,
        from_units: u32,
        limit: usize,
        max_bytes: u64,
    ) -> Result<MarkPage, ReadError> {
        Self::marks(self, id, from_units, limit, max_bytes)
    }

    fn copy_slot(&self, home: Address, room: u64) -> Result<SlotCopy, ReadError> {
        Self::copy_slot_of(self, home, room)
    }

    fn copy_run(
        &self,
        id: ChunkfileId,
        from_units: u32,
        read_bytes: u64,
    ) -> Result<SlotRun, ReadError> {
        Self::copy_run(self, id, from_units, read_bytes)
    }

    fn archive_names(&self) -> Result<ArchiveNames, ReadError> {
        Self::archive_names(self)
    }

    fn archived_version(
        &self,
        name: ArchivedName,
    ) -> Result<Option<(Conflict, Vec<u8>)>, ReadError> {
        Self::archived_version(self, name)
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

    fn check_chunkfile(&self, id: ChunkfileId) -> Result<Option<bool>, ReadError> {
        Self::check_chunkfile(self, id)
    }

    fn check_slots(
        &self,
        id: ChunkfileId,
        from: u32,
        max_bytes: u64,
    ) -> Result<SlotsChecked, ReadError> {
        Self::check_slots(self, id, from, max_bytes)
    }

    fn check_large(
        &self,
        check: &mut LargeCheck,
        max_bytes: u64,
    ) -> Result<(LargeState, u64), ReadError> {
        Self::check_large(self, check, max_bytes)
    }

    fn log_segments(&self, us: MachineId) -> Result<Vec<SegmentRef>, ReadError> {
        Self::log_segments(self, us)
    }

    fn check_segment(
        &self,
        at: SegmentRef,
        next: Option<SegmentRef>,
        durable: Durable,
    ) -> Result<SegmentState, ReadError> {
        Self::check_segment(self, at, next, durable)
    }

    fn check_checkpoint(&self) -> Result<Option<bool>, ReadError> {
        Self::check_checkpoint(self)
    }

    fn check_archived(&self, name: ArchivedName) -> Result<ArchivedState, ReadError> {
        Self::check_archived(self, name)
    }

    fn kept_aside(&self) -> Result<(u64, u64), ReadError> {
        Self::kept_aside(self)
    }

    fn load_scrub(&self) -> Result<Option<ScrubState>, ReadError> {
        Self::load_scrub(self)
    }

    fn save_scrub(&self, state: &ScrubState) -> Result<(), ReadError> {
        Self::save_scrub(self, state)
    }

    fn space(&self) -> io::Result<Space> {
        self.disk().space()
    }

    fn fence(&self) {
        Self::fence(self);
    }
}
